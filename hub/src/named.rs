//! Which physical repositories a person's text means.

use std::collections::BTreeMap;
use std::sync::Arc;

use tonic::Status;

use crate::rows;
use crate::seen::Seen;

/// The shortest beginning of an id that is taken for one.
const PART_OF_AN_ID: usize = 4;

/// Keys of the repositories that a text means, each with the name that is shown for it. A whole key means one alone. Else the
/// name that is shown or the beginning of a key come first, then the ResticRepositories that bind it, as `NAME`,
/// `NAMESPACE/NAME` or `CLUSTER/NAMESPACE/NAME`. `others` are known by nothing but their keys. An empty text means nothing.
pub(crate) fn repositories<'a>(
    seen: Seen<'a>,
    others: impl Iterator<Item = &'a Arc<str>>,
    text: &str,
) -> Vec<(Arc<str>, String)> {
    let mut all: BTreeMap<&Arc<str>, String> = others.map(|key| (key, String::new())).collect();
    all.extend(
        seen.repositories()
            .map(|key| (key, rows::repository_name(seen, key))),
    );
    let of = |means: &dyn Fn(&str, &str) -> bool| -> Vec<(Arc<str>, String)> {
        let found = all.iter().filter(|(key, name)| means(key, name));
        found.map(|(key, name)| (Arc::clone(key), name.clone())).collect()
    };
    if text.is_empty() {
        return Vec::new();
    }
    let whole = of(&|key, _| key == text);
    if !whole.is_empty() {
        return whole;
    }
    let is_part = |key: &str| text.len() >= PART_OF_AN_ID && key.starts_with(text);
    let shown = of(&|key, name| name == text || is_part(key));
    if !shown.is_empty() {
        return shown;
    }
    of(&|key, _| is_bound_as(seen, key, text))
}

fn is_bound_as(seen: Seen<'_>, key: &str, text: &str) -> bool {
    let bindings = seen.inventory.index().bindings(key);
    let mut bindings = bindings.filter(|held| seen.held(held));
    bindings.any(|held| {
        let place = held.place.strip_suffix(text);
        place.is_some_and(|before| before.is_empty() || before.ends_with('/'))
    })
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
