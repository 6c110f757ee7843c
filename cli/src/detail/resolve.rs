//! Which object a person means: a name may be of several kinds, and then it is said.

use proto::named::{Means, means, surest};
use proto::v1::row::Body;
use proto::v1::{Collection, Filter, GetResponse, ListRequest, Row};

use crate::client::Client;
use crate::failure::Failure;

/// An object that was found.
#[derive(Debug)]
pub struct Found {
    pub collection: Collection,
    /// Key of its row.
    pub key: String,
    pub answer: GetResponse,
    /// `None` where a hub answered.
    pub alone: Option<Alone>,
}

/// An answer by kubeconfig alone: what only a hub answers is no advice then.
#[derive(Clone, Copy, Debug)]
pub struct Alone {
    /// Why what was reported may no longer hold; `None` while the operator is seen to run.
    pub unheard: Option<&'static str>,
}

/// What each collection is called, and the command that lists it.
const KINDS: [(Collection, &[&str], &str); 5] = [
    (
        Collection::Backups,
        &["backup", "backups", "rb", "resticbackup"],
        "fleet backups",
    ),
    (
        Collection::Policies,
        &["policy", "policies", "grp", "globalretentionpolicy"],
        "fleet policies",
    ),
    (
        Collection::Restores,
        &["restore", "restores", "rres", "resticrestore"],
        "fleet restores",
    ),
    (
        Collection::Repositories,
        &[
            "repo",
            "repos",
            "repository",
            "repositories",
            "rr",
            "resticrepository",
        ],
        "fleet repos",
    ),
    (Collection::Clusters, &["cluster", "clusters"], "fleet clusters"),
];
/// Names that are listed at most where a name means several objects.
const SEVERAL: usize = 5;

impl Found {
    /// What the kind is called.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        noun(self.collection)
    }

    /// The name as a person writes it: that of a repository in place of its id.
    #[must_use]
    pub fn name(&self) -> String {
        match self.answer.row.as_ref().and_then(|row| row.body.as_ref()) {
            Some(Body::Repository(row)) if !row.name.is_empty() => row.name.clone(),
            _ => self.key.clone(),
        }
    }
}

/// What a collection's objects are called.
#[must_use]
pub fn noun(collection: Collection) -> &'static str {
    let of = KINDS.iter().find(|(known, ..)| *known == collection);
    of.and_then(|(_, names, _)| names.first())
        .copied()
        .unwrap_or("object")
}

/// The collection that a word names.
pub fn collection(word: &str) -> Result<Collection, Failure> {
    let word = word.to_lowercase();
    let of = KINDS.iter().find(|(_, names, _)| names.contains(&word.as_str()));
    of.map(|(collection, ..)| *collection).ok_or_else(|| {
        let kinds: Vec<&str> = KINDS
            .iter()
            .filter_map(|(_, names, _)| names.first().copied())
            .collect();
        Failure::Usage(format!(
            "there is no kind {word:?}; kinds are {}",
            kinds.join(", ")
        ))
    })
}

/// `[KIND] NAME`.
///
/// # Errors
/// When nothing is called that, or several are, or the hub does not answer.
pub async fn find(client: &mut Client, object: &[String]) -> Result<Found, Failure> {
    let (kind, name) = match object {
        [kind, name] => (Some(collection(kind)?), name.as_str()),
        [name] => (None, name.as_str()),
        _ => return Err(Failure::Usage("name one object".to_owned())),
    };
    let mut found = Vec::new();
    for collection in candidates(kind, name) {
        found.extend(of(client, collection, name).await?);
    }
    match found.len() {
        0 => Err(nothing(kind, name)),
        1 => found.pop().ok_or_else(|| nothing(kind, name)),
        _ => Err(several(&found, name)),
    }
}

/// Where a name may be found by its form.
fn candidates(kind: Option<Collection>, name: &str) -> Vec<Collection> {
    let parts = name.split('/').count();
    let by_form = match parts {
        1 => [Collection::Clusters, Collection::Repositories].to_vec(),
        _ => [
            Collection::Backups,
            Collection::Policies,
            Collection::Restores,
            Collection::Repositories,
        ]
        .to_vec(),
    };
    kind.map_or(by_form, |kind| vec![kind])
}

async fn of(client: &mut Client, collection: Collection, name: &str) -> Result<Vec<Found>, Failure> {
    let keys = match (collection, name.split('/').count()) {
        (Collection::Repositories, _) => repositories(client, name).await?,
        (Collection::Backups | Collection::Policies | Collection::Restores, 2) => {
            in_any_cluster(client, collection, name).await?
        }
        _ => vec![name.to_owned()],
    };
    let mut found = Vec::new();
    for key in keys {
        if let Some(answer) = client.get(collection, &key).await? {
            found.push(Found {
                collection,
                key,
                answer,
                alone: None,
            });
        }
    }
    Ok(found)
}

/// Keys of the objects that are called `NAMESPACE/NAME`, in whatever cluster; enough of them to say that there are several.
async fn in_any_cluster(
    client: &mut Client,
    collection: Collection,
    name: &str,
) -> Result<Vec<String>, Failure> {
    let (namespace, text) = name.split_once('/').unwrap_or_default();
    let request = ListRequest {
        collection: collection.into(),
        filter: Some(Filter {
            namespaces: vec![namespace.to_owned()],
            text: text.to_owned(),
            ..Filter::default()
        }),
        ..ListRequest::default()
    };
    let keys = client.list(request).await?.rows.into_iter().map(|row| row.key);
    let end = format!("/{name}");
    Ok(keys.filter(|key| key.ends_with(&end)).take(SEVERAL).collect())
}

/// Keys of the repositories that a name, an id, its beginning, or a ResticRepository means.
async fn repositories(client: &mut Client, name: &str) -> Result<Vec<String>, Failure> {
    // The last part: a filter by cluster would be an error where there is no such cluster.
    let text = name.rsplit('/').next().unwrap_or_default().to_owned();
    let request = ListRequest {
        collection: Collection::Repositories.into(),
        filter: Some(Filter {
            text,
            ..Filter::default()
        }),
        ..ListRequest::default()
    };
    let rows = client.list(request).await?.rows.into_iter();
    Ok(surest(rows.map(|row| (means_row(name, &row), row.key))))
}

/// Whether a text means the repository of a row.
#[must_use]
pub fn means_row(text: &str, row: &Row) -> Option<Means> {
    let Some(Body::Repository(of)) = &row.body else {
        return None;
    };
    let places = of
        .bindings
        .iter()
        .map(|b| format!("{}/{}/{}", b.cluster, b.namespace, b.name));
    means(text, &row.key, &of.name, places)
}

fn nothing(kind: Option<Collection>, name: &str) -> Failure {
    let looked = candidates(kind, name);
    let named = KINDS
        .iter()
        .filter(|(collection, ..)| looked.contains(collection));
    let (nouns, lists): (Vec<&str>, Vec<&str>) = named
        .map(|(_, names, list)| (names.first().copied().unwrap_or_default(), *list))
        .unzip();
    Failure::Usage(format!(
        "there is no {} {name:?}; {} lists what there is",
        nouns.join(", "),
        lists.join(", ")
    ))
}

fn several(found: &[Found], name: &str) -> Failure {
    let which: Vec<String> = found
        .iter()
        .map(|one| format!("fleet get {} {}", one.kind(), one.key))
        .collect();
    Failure::Usage(format!(
        "{name:?} may mean several; say which: {}",
        which.join(", ")
    ))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_there_names_the_commands_that_list_it() {
        let text = nothing(None, "a/shop/x").to_string();
        assert!(
            text.contains("backup, policy, restore, repo") && text.contains("fleet backups"),
            "{text}"
        );
        let text = nothing(Some(Collection::Clusters), "x").to_string();
        assert_eq!(
            text,
            "there is no cluster \"x\"; fleet clusters lists what there is"
        );
        assert!(
            collection("Nonsense")
                .unwrap_err()
                .to_string()
                .contains("kinds are backup")
        );
        assert_eq!(collection("grp").unwrap(), Collection::Policies);
    }
}
