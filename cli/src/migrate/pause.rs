//! Sources that a person had paused before the migration: what did not run is not begun by `finish`. Pure.

use serde_json::Value;

use crate::objects::{at, is_true};

/// Annotation of a ReplicationSource that `finish` has paused, which no person has.
pub const BY_FINISH: &str = "fleet.resticbackup.io/paused-by-finish";

/// Whether a person has paused a ReplicationSource.
#[must_use]
pub fn is_paused(source: &Value) -> bool {
    let annotations = source.pointer("/metadata/annotations");
    let by_finish = annotations.is_some_and(|all| all.get(BY_FINISH).is_some());
    is_true(source, "/spec/paused") && !by_finish
}

/// Whether a person has paused all of these that are there. Where none is there, nothing is known of a pause.
#[must_use]
pub fn are_paused(named: &[(&str, &str, &str)], theirs: &[Value]) -> bool {
    let is_named = |one: &&Value| {
        let mut named = named.iter();
        named.any(|(_, namespace, name)| at(one) == (*namespace, *name))
    };
    let found: Vec<&Value> = theirs.iter().filter(is_named).collect();
    !found.is_empty() && found.into_iter().all(is_paused)
}

/// Why a backup of ours does not begin, and what begins it.
#[must_use]
pub fn stays_suspended(backup: &Value) -> String {
    let (namespace, name) = at(backup);
    format!(
        "ResticBackup {namespace}/{name} stays suspended, as what it takes the place of was paused before; to start it:\n  \
         kubectl patch resticbackup -n {namespace} {name} --type=merge -p '{{\"spec\":{{\"suspend\":false}}}}'"
    )
}
