//! The view by kubeconfig alone, where there is no hub: one cluster, as its own operator last reported it.

pub mod judge;
mod repositories;
mod rows;
mod verdict;

use jiff::Timestamp;
use proto::named::surest;
use proto::v1::{Collection, GetResponse, Relation, Resource, Row, StatusResponse, row::Body};
use serde_json::Value;

use self::rows::Seen;
use crate::arguments::{Command, Get, HubArguments, KubeArguments, List, SYSTEM};
use crate::check::{CLOCKS, OPERATOR, objects};
use crate::client::Listing;
use crate::connection::Connection;
use crate::detail::{Alone, Found, means_row};
use crate::failure::Failure;
use crate::kubectl::{self, Kubectl};
use crate::objects::{items, name, text, time};
use crate::output::note;
use crate::sort;

/// A leader renews its Lease every 5 s. One that has not for so long is not there.
const SILENT: i64 = 60;
/// What a cluster is called that has joined no hub, or does not say so.
const HERE: &str = "local";
/// What the operator keeps once its cluster has joined, and the name in it.
const IDENTITY: &str = "fleet-spoke-identity";
const NAME: &str = r#"go-template={{index .data "cluster" | base64decode}}"#;

/// Whether a command that shows something watches it; `None` for one that needs a hub.
fn watches(command: &Command) -> Option<bool> {
    match command {
        Command::Status(output) => Some(output.watch),
        Command::Backups(of) => of.command.is_none().then_some(of.list.output.watch),
        Command::Repos(of) => of.command.is_none().then_some(of.list.output.watch),
        Command::Policies(list) | Command::Restores(list) => Some(list.output.watch),
        Command::Get(_) | Command::Why(_) => Some(false),
        _ => None,
    }
}

/// Whether a command is answered by kubeconfig alone: a cluster was chosen by flags, or there is no hub and there is one.
///
/// # Errors
/// When a chosen cluster is to be watched: the hub would answer for all of them.
pub fn is_meant(hub: &HubArguments, kube: &KubeArguments, command: &Command) -> Result<bool, Failure> {
    let chosen = kubectl::is_chosen(kube);
    let can = match watches(command) {
        Some(true) if chosen => {
            return Err(Failure::Usage(
                "--watch needs a hub, and --kubeconfig and --kube-context choose one cluster without it: leave one of them out"
                    .to_owned(),
            ));
        }
        watches => watches == Some(false),
    };
    let no_hub = || {
        matches!(
            Connection::chosen(hub),
            Err(Failure::NotConfigured("FLEET_HUB", _))
        )
    };
    Ok(can && (chosen || (kubectl::is_there(kube) && no_hub())))
}

/// What a cluster is called in its fleet; `None` where it does not say so.
pub async fn called(kubectl: &Kubectl) -> Option<String> {
    let joined = [
        "get",
        "configmap",
        OPERATOR,
        "-n",
        SYSTEM,
        "--ignore-not-found",
        "-o",
        "json",
    ];
    // Of the Secret that the operator keeps, its name in the fleet alone.
    let identity = ["get", "secret", IDENTITY, "-n", SYSTEM, "-o", NAME];
    let (joined, identity) = tokio::join!(kubectl.run(&joined), kubectl.run(&identity));
    let joined = joined
        .ok()
        .and_then(|text| serde_json::from_str::<Value>(&text).ok());
    let joined = joined.map(|map| text(&map, "/data/cluster").to_owned());
    let named = joined.filter(|name| !name.is_empty());
    named.or_else(|| identity.ok().filter(|name| !name.is_empty()))
}

/// One cluster.
pub struct Local {
    seen: Seen,
    objects: Value,
}

impl Local {
    /// Looks at it, and says that this is not the fleet.
    ///
    /// # Errors
    /// When the four kinds cannot be listed.
    pub async fn look(hub: &HubArguments, kube: &KubeArguments) -> Result<Local, Failure> {
        let kubectl = Kubectl::new(kube).within(hub.timeout);
        let lease = ["get", "lease", OPERATOR, "-n", SYSTEM, "-o", "json"];
        let (objects, lease, cluster) =
            tokio::join!(objects(&kubectl), kubectl.json(&lease), called(&kubectl));
        let objects = objects.map_err(|why| {
            Failure::Kubectl(format!(
                "{}; fleet check says more",
                why.trim_start_matches("kubectl failed: ")
            ))
        })?;
        let renewed = lease.ok().and_then(|lease| time(&lease, "/spec/renewTime"));
        let now = Timestamp::now();
        let seen = Seen {
            cluster: cluster.unwrap_or_else(|| HERE.to_owned()),
            silent: renewed.and_then(|at| silent(at, now)),
            heard: renewed,
            now,
        };
        note(&seen.notice());
        Ok(Local { seen, objects })
    }

    fn of(&self, collection: Collection) -> Vec<Row> {
        let kind = match collection {
            Collection::Backups => "ResticBackup",
            Collection::Policies => "GlobalRetentionPolicy",
            Collection::Restores => "ResticRestore",
            Collection::Repositories => return repositories::rows(&self.seen, items(&self.objects)),
            _ => return Vec::new(),
        };
        let of = items(&self.objects).iter().filter(|of| text(of, "/kind") == kind);
        of.map(|object| rows::row(&self.seen, items(&self.objects), object))
            .collect()
    }

    /// Rows that a person asked for.
    ///
    /// # Errors
    /// For a cluster that this is not.
    pub fn list(&self, list: &List, collection: Collection) -> Result<Listing, Failure> {
        if let Some(other) = list.cluster.iter().find(|name| **name != self.seen.cluster) {
            return Err(Failure::Usage(format!(
                "by kubeconfig alone only cluster {} is seen, not {other:?}; fleet login shows all",
                self.seen.cluster
            )));
        }
        let mut rows = self.of(collection);
        rows.retain(|row| takes(list, row));
        sort::sort(&mut rows, &list.sort);
        Ok(Listing {
            revision: 0,
            as_of: Some(proto::time::from_unix_millis(self.seen.now.as_millisecond())),
            rows,
        })
    }

    /// The verdict for this cluster.
    #[must_use]
    pub fn status(&self) -> StatusResponse {
        let of = |collection| self.of(collection);
        verdict::status(
            &self.seen,
            &of(Collection::Backups),
            &of(Collection::Repositories),
            &of(Collection::Policies),
            &of(Collection::Restores),
        )
    }

    /// One object.
    ///
    /// # Errors
    /// When there is none, or several are meant.
    pub fn get(&self, get: &Get) -> Result<Found, Failure> {
        let (kind, wanted) = match get.object.as_slice() {
            [kind, wanted] => (Some(crate::detail::collection(kind)?), wanted),
            [wanted] => (None, wanted),
            _ => return Err(Failure::Usage("name one object".to_owned())),
        };
        let all = [
            Collection::Backups,
            Collection::Policies,
            Collection::Restores,
            Collection::Repositories,
        ];
        let mut found: Vec<Found> = all
            .into_iter()
            .filter(|collection| kind.is_none_or(|kind| kind == *collection))
            .flat_map(|collection| {
                let rows = self.called(collection, wanted).into_iter();
                rows.map(move |row| (collection, row))
            })
            .map(|(collection, row)| self.found(collection, row))
            .collect();
        match (found.pop(), found.is_empty()) {
            (None, _) => Err(Failure::Usage(format!(
                "there is no {wanted:?} in this cluster; fleet backups, fleet repos, fleet policies and fleet restores list what there is"
            ))),
            (Some(one), true) => Ok(one),
            (Some(_), false) => Err(Failure::Usage(format!(
                "{wanted:?} may mean several; say which kind: fleet get backup|repo|policy|restore {wanted}"
            ))),
        }
    }

    /// `CLUSTER/NAMESPACE/NAME`, `NAMESPACE/NAME`, or what means a repository with a hub as well.
    fn called(&self, collection: Collection, wanted: &str) -> Vec<Row> {
        let rows = self.of(collection).into_iter();
        if collection == Collection::Repositories {
            return surest(rows.map(|row| (means_row(wanted, &row), row)));
        }
        let here = format!("{}/{wanted}", self.seen.cluster);
        rows.filter(|row| row.key == wanted || row.key == here).collect()
    }

    fn found(&self, collection: Collection, row: Row) -> Found {
        let behind: Vec<&Value> = items(&self.objects)
            .iter()
            .filter(|of| rows::kind(collection) == text(of, "/kind"))
            .filter(|of| match &row.body {
                Some(Body::Repository(repository)) => {
                    let mut bindings = repository.bindings.iter();
                    bindings.any(|b| b.name == name(of) && b.namespace == crate::objects::namespace(of))
                }
                _ => row.key == self.seen.place(of),
            })
            .collect();
        let answer = GetResponse {
            as_of: Some(proto::time::from_unix_millis(self.seen.now.as_millisecond())),
            resources: behind.iter().map(|of| self.resource(of)).collect(),
            relations: self.relations(&row),
            row: Some(row.clone()),
            ..GetResponse::default()
        };
        Found {
            collection,
            key: row.key,
            answer,
            alone: Some(Alone {
                unheard: self.seen.unheard(),
            }),
        }
    }

    fn resource(&self, object: &Value) -> Resource {
        Resource {
            place: self.seen.place(object),
            uid: text(object, "/metadata/uid").to_owned(),
            generation: object
                .pointer("/metadata/generation")
                .and_then(Value::as_i64)
                .unwrap_or_default(),
            created: rows::at(object, "/metadata/creationTimestamp"),
            conditions: rows::conditions(object),
        }
    }

    /// The repository of a backup or a policy.
    fn relations(&self, row: &Row) -> Vec<Relation> {
        let (namespace, name) = match &row.body {
            Some(Body::Backup(of)) => of
                .backup
                .clone()
                .map(|b| (b.repository_namespace, b.repository_name)),
            Some(Body::Policy(of)) => of
                .policy
                .clone()
                .map(|p| (p.repository_namespace, p.repository_name)),
            _ => None,
        }
        .unwrap_or_default();
        let repositories = self.of(Collection::Repositories);
        let of = repositories.into_iter().filter_map(|row| match row.body {
            Some(Body::Repository(of)) => {
                let mut bindings = of.bindings.iter();
                bindings
                    .any(|b| b.namespace == namespace && b.name == name)
                    .then(|| Relation {
                        what: "repository".to_owned(),
                        collection: Collection::Repositories.into(),
                        key: format!("{namespace}/{name}"),
                        name: name.clone(),
                        state: of.state.clone(),
                    })
            }
            _ => None,
        });
        of.collect()
    }
}

/// Whether a leader that renewed its Lease then is silent; `None` where clocks differ so much that nobody can tell.
fn silent(renewed: Timestamp, now: Timestamp) -> Option<bool> {
    let age = now.duration_since(renewed).as_secs();
    (age >= -CLOCKS).then_some(age > SILENT)
}

/// Whether a row is one that was asked for.
fn takes(list: &List, row: &Row) -> bool {
    let (namespaces, state, words): (Vec<&str>, &str, Vec<&str>) = match &row.body {
        Some(Body::Backup(of)) => (vec![&of.namespace], &of.state, vec![&row.key]),
        Some(Body::Policy(of)) => (vec![&of.namespace], &of.state, vec![&row.key]),
        Some(Body::Restore(of)) => (vec![&of.namespace], &of.state, vec![&row.key]),
        Some(Body::Repository(of)) => {
            let mut words: Vec<&str> = vec![&of.name, &of.restic_id];
            words.extend(of.bindings.iter().map(|b| b.url.as_str()));
            let namespaces = of.bindings.iter().map(|b| b.namespace.as_str());
            (namespaces.collect(), &of.state, words)
        }
        _ => return false,
    };
    let text = list.text.as_deref().unwrap_or_default().to_lowercase();
    let of =
        |wanted: &[String], is: &[&str]| wanted.is_empty() || wanted.iter().any(|w| is.contains(&w.as_str()));
    of(&list.namespace, &namespaces)
        && of(&list.state, &[state])
        && (text.is_empty() || words.iter().any(|word| word.to_lowercase().contains(&text)))
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
