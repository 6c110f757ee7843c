//! Which physical repositories a person's text means.

use std::collections::BTreeMap;
use std::sync::Arc;

use proto::named::{means, surest};
use tonic::Status;

use crate::rows;
use crate::seen::Seen;

/// Keys of the repositories that a text means, each with the name that is shown for it; how, `proto::named` says. `others` are
/// known by nothing but their keys.
pub(crate) fn repositories<'a>(
    seen: Seen<'a>,
    others: impl Iterator<Item = &'a Arc<str>>,
    text: &str,
) -> Vec<(Arc<str>, String)> {
    let mut all: BTreeMap<&Arc<str>, String> = others.map(|key| (key, String::new())).collect();
    let known = seen.repositories();
    all.extend(known.map(|key| (key, rows::repository_name(seen, key))));
    surest(all.into_iter().map(|(key, name)| {
        let bindings = seen.inventory.index().bindings(key);
        let places = bindings.filter(|held| seen.held(held)).map(|held| &held.place);
        (means(text, key, &name, places), (key.clone(), name))
    }))
}

/// What is said where a text has to mean one repository.
pub(crate) fn not_one(text: &str, found: usize) -> Status {
    Status::not_found(match found {
        0 => format!("there is no repository {text:?}; `fleet repos` lists them"),
        _ => format!(
            "{text:?} means {found} repositories; write CLUSTER/NAMESPACE/NAME of one of their ResticRepositories, or the \
             beginning of its id: `fleet repos` lists them"
        ),
    })
}
