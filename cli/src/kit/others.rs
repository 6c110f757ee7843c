//! What a kit lacks: it holds the repositories of one cluster, and a hub knows those of all.

use std::collections::{BTreeMap, BTreeSet};

use proto::plan::is_id;
use proto::v1::row::Body;
use proto::v1::{Collection, ListRequest, RepositoryRow};

use super::file::Kit;
use crate::arguments::HubArguments;
use crate::client::Client;
use crate::connection::Connection;
use crate::failure::Failure;
use crate::text::counted;

/// What is said of the repositories that a hub knows and a kit lacks; `None` where there are none, or no login to a hub.
///
/// # Errors
/// When the hub cannot be asked.
pub async fn lacking(hub: &HubArguments, kit: &Kit) -> Result<Option<String>, Failure> {
    match Connection::chosen(hub) {
        Err(Failure::NotConfigured("FLEET_HUB", _)) => return Ok(None),
        connection => connection.map(drop)?,
    }
    let request = ListRequest {
        collection: Collection::Repositories.into(),
        ..ListRequest::default()
    };
    let listed = Client::connect(hub).await?.list(request).await?;
    let rows = listed.rows.into_iter().filter_map(|row| match row.body {
        Some(Body::Repository(row)) => Some(row),
        _ => None,
    });
    Ok(told(&others(kit, &rows.collect::<Vec<_>>())))
}

/// restic's own id. Behind it a number says which of several copies it is.
fn id(row: &RepositoryRow) -> Option<&str> {
    row.restic_id.split('@').next().filter(|id| is_id(id))
}

/// Rows that are not in a kit: neither by a resource of its cluster, nor by an id that only one of them has.
fn others<'a>(kit: &Kit, rows: &'a [RepositoryRow]) -> Vec<&'a RepositoryRow> {
    let of_kit = |namespace: &str, name: &str| {
        let mut repositories = kit.repositories.iter();
        repositories.any(|of| of.namespace == namespace && of.name == name)
    };
    let bound = |row: &RepositoryRow| {
        let mut bindings = row.bindings.iter();
        bindings.any(|of| of.cluster == kit.cluster.name && of_kit(&of.namespace, &of.name))
    };
    let ids: BTreeSet<&str> = kit.repositories.iter().map(|of| of.id.as_str()).collect();
    let mut copies: BTreeMap<&str, usize> = BTreeMap::new();
    for id in rows.iter().filter_map(id) {
        *copies.entry(id).or_default() += 1;
    }
    let alone = |row| id(row).is_some_and(|id| ids.contains(id) && copies.get(id) == Some(&1));
    rows.iter().filter(|row| !bound(row) && !alone(row)).collect()
}

fn told(others: &[&RepositoryRow]) -> Option<String> {
    if others.is_empty() {
        return None;
    }
    let named: Vec<String> = others
        .iter()
        .map(|row| format!("{} (in {})", row.name, row.clusters.join(", ")))
        .collect();
    Some(format!(
        "the hub knows {} that this kit lacks: {}; make a kit in each cluster, which --kube-context chooses",
        counted(others.len() as u64, "repository", "repositories"),
        named.join("; ")
    ))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proto::v1::RepositoryBinding;

    use super::super::file::{Origin, Repository};
    use super::*;

    fn row(id: &str, cluster: &str, name: &str) -> RepositoryRow {
        RepositoryRow {
            restic_id: id.to_owned(),
            name: name.to_owned(),
            clusters: vec![cluster.to_owned()],
            bindings: vec![RepositoryBinding {
                cluster: cluster.to_owned(),
                namespace: "shop".to_owned(),
                name: name.to_owned(),
                ..RepositoryBinding::default()
            }],
            ..RepositoryRow::default()
        }
    }

    fn kit() -> Kit {
        let repository = Repository {
            namespace: "shop".to_owned(),
            name: "nas".to_owned(),
            id: "ab".repeat(32),
            ..Repository::default()
        };
        Kit {
            cluster: Origin {
                name: "berlin".to_owned(),
                uid: "u".to_owned(),
            },
            repositories: vec![repository],
            ..super::super::empty()
        }
    }

    #[test]
    fn repositories_of_other_clusters_are_named_and_one_that_they_share_is_in_the_kit() {
        let (shared, other) = ("ab".repeat(32), "cd".repeat(32));
        let rows = [
            row(&shared, "munich", "same"),
            row(&other, "munich", "nas"),
            row("", "paris", "new"),
        ];
        let lacking = others(&kit(), &rows);
        let names: Vec<&str> = lacking.iter().map(|row| row.name.as_str()).collect();
        assert_eq!(names, ["nas", "new"]);
        let text = told(&lacking).unwrap();
        assert!(
            text.contains("2 repositories") && text.contains("nas (in munich); new (in paris)"),
            "{text}"
        );
        assert_eq!(told(&others(&kit(), &[row(&other, "berlin", "nas")])), None);
    }

    /// Copies have one id, and lie in several places with passwords of their own.
    #[test]
    fn a_copy_that_another_cluster_uses_is_not_in_the_kit() {
        let id = "ab".repeat(32);
        let rows = [
            row(&id, "munich", "first"),
            row(&format!("{id}@2"), "berlin", "nas"),
        ];
        let lacking = others(&kit(), &rows);
        assert_eq!(lacking.len(), 1);
        assert_eq!(lacking[0].name, "first");
    }
}
