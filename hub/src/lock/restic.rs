//! restic's own locks in a repository, as its bindings saw them. Pure.

use std::collections::BTreeMap;

use proto::v1::{Lock, ResticLock};

use crate::inventory::Inventory;

/// Longest list.
const LOCKS_MAX: usize = 50;

/// Adds restic's locks to a row, the oldest first, and the location for the command that a person may need. Of what
/// several clusters have seen, the one that watched longest counts; a cluster that is silent counts only alone.
pub fn add(lock: &mut Lock, inventory: &Inventory) {
    let bindings: Vec<_> = inventory.index().bindings(&lock.restic_id).collect();
    let fresh = |cluster: &str| inventory.member(cluster).is_some_and(|member| !member.stale);
    let heard = bindings.iter().any(|held| fresh(&held.cluster));
    let mut found: BTreeMap<&str, &ResticLock> = BTreeMap::new();
    for held in bindings.iter().filter(|held| !heard || fresh(&held.cluster)) {
        let Some(repository) = held.repository() else {
            continue;
        };
        if lock.url.is_empty() {
            lock.url.clone_from(&repository.url);
        }
        for seen in &repository.locks {
            let known = found.entry(&seen.id).or_insert(seen);
            if since(seen) < since(known) {
                *known = seen;
            }
        }
    }
    let mut all: Vec<ResticLock> = found.into_values().cloned().collect();
    all.sort_by(|a, b| since(a).cmp(&since(b)).then_with(|| a.id.cmp(&b.id)));
    all.truncate(LOCKS_MAX);
    lock.restic_locks = all;
}

/// Adds how far the holder's prune or check has come, unless its spoke is silent.
pub fn progress(lock: &mut Lock, inventory: &Inventory) {
    let fresh = inventory
        .member(&lock.cluster)
        .is_some_and(|member| !member.stale);
    let Some((kind, at)) = lock
        .subject
        .split_once(' ')
        .filter(|_| fresh && lock.state == "held")
    else {
        return;
    };
    let place = format!("{}/{at}", lock.cluster);
    let id = &lock.restic_id;
    lock.progress = match kind {
        "retention" => {
            let mut policies = inventory.policies_of(id);
            let policy = policies.find(|held| *held.place == *place);
            policy.and_then(|held| held.policy()?.progress.clone())
        }
        "check" => {
            let mut bindings = inventory.index().bindings(id);
            let repository = bindings.find(|held| *held.place == *place);
            repository.and_then(|held| held.repository()?.progress.clone())
        }
        _ => None,
    };
}

fn since(lock: &ResticLock) -> (i64, i32) {
    lock.unchanged_since
        .as_ref()
        .map_or((i64::MAX, 0), |at| (at.seconds, at.nanos))
}
