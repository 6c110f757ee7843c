//! What a person sees of a repository's lock, plans and runs when only a part of the repository is in the scope. Pure.

use proto::plan::{PlanDocument, PlanLine, Removal};
use proto::v1::{AuditEntry, Lock, OperationOutcome, PolicyFault};

use crate::seen::Seen;
use crate::store::StoredPlan;

/// In place of a cluster that is not seen.
const ANOTHER: &str = "something outside of your scope";

/// Leaves out of a lock what is not seen.
pub fn lock(lock: &mut Lock, seen: Seen<'_>) {
    let key = lock.restic_id.clone();
    if seen.whole_repository(&key) {
        return;
    }
    let holder = seen.operation(&key, &lock.cluster, &lock.subject);
    if !holder && !lock.subject.is_empty() {
        lock.cluster.clear();
        ANOTHER.clone_into(&mut lock.subject);
    }
    lock.waiters
        .retain(|waiter| seen.operation(&key, &waiter.cluster, &waiter.subject));
    if !holder {
        // A reason names who holds the lock or is next.
        for waiter in &mut lock.waiters {
            waiter.reason = format!("{ANOTHER} is before it");
        }
    }
    // They name users and hosts of all clusters.
    lock.restic_locks.clear();
    let url = seen.bindings(&key).find_map(|held| held.repository());
    lock.url = url.map(|repository| repository.url.clone()).unwrap_or_default();
}

/// Whether a plan is seen: its repository is, and every snapshot that goes.
#[must_use]
pub fn sees_plan(plan: &StoredPlan, seen: Seen<'_>) -> bool {
    seen.repository(&plan.restic_id) && covers(plan, seen)
}

/// Whether every snapshot that goes is in the scope. Of a plan that removes nothing its maker is.
#[must_use]
pub fn covers(plan: &StoredPlan, seen: Seen<'_>) -> bool {
    match plan.goes.as_deref() {
        _ if seen.is_everything() => true,
        None => false,
        Some([]) => seen.operation(&plan.restic_id, &plan.cluster, &plan.subject),
        Some(goes) => {
            let mut goes = goes.iter();
            goes.all(|(cluster, namespace)| seen.part(&plan.restic_id, cluster, namespace))
        }
    }
}

/// Clusters and namespaces whose snapshots a plan removes; both are empty for a snapshot without tags of ours.
#[must_use]
pub fn goes(plan: &PlanDocument) -> Vec<(String, String)> {
    let mut goes: Vec<(String, String)> = plan
        .remove
        .iter()
        .map(|removal| {
            let (cluster, namespace) = origin(&removal.tags);
            (cluster.to_owned(), namespace.to_owned())
        })
        .collect();
    goes.sort();
    goes.dedup();
    goes
}

/// Cluster and namespace by a snapshot's tags.
fn origin(tags: &[String]) -> (&str, &str) {
    let tagged = |prefix| tags.iter().find_map(|tag| tag.strip_prefix(prefix));
    let backup: Option<&str> = tagged("fleet.backup=");
    let namespace = backup.and_then(|backup| backup.split_once('/'));
    (
        tagged("fleet.cluster=").unwrap_or_default(),
        namespace.map_or("", |(namespace, _)| namespace),
    )
}

/// Leaves out of an outcome what is not seen. Its counts are those of the run.
pub fn outcome(outcome: &mut OperationOutcome, key: &str, seen: Seen<'_>) {
    if seen.whole_repository(key) {
        return;
    }
    outcome.message.clear();
    outcome.removed_locks.clear();
    outcome.left.clear();
    outcome.policies.retain(|source| seen.source(key, source));
    outcome.unmatched.retain(|source| seen.source(key, source));
    outcome.shown.retain(|source| seen.source(key, source));
    outcome.matched.retain(|part| seen.source(key, &part.key));
    outcome.faults.retain(|fault| seen.source(key, &fault.source));
}

/// Leaves out of a plan's document what is not seen. The snapshots that it removes all stay: its hash is over them.
#[must_use]
pub fn document(text: String, key: &str, seen: Seen<'_>) -> String {
    if seen.whole_repository(key) {
        return text;
    }
    let Ok(PlanLine { mut plan }) = serde_json::from_str(&text) else {
        return String::new();
    };
    let tagged = |tags: &[String]| {
        let (cluster, namespace) = origin(tags);
        seen.part(key, cluster, namespace)
    };
    let source = |text: &str| seen.source(key, text);
    plan.previewed.retain(|removal: &Removal| tagged(&removal.tags));
    for removal in plan.remove.iter_mut().chain(&mut plan.previewed) {
        removal.by.retain(|by| source(by));
    }
    plan.groups.retain(|group| tagged(&group.tags));
    plan.policies.retain(|policy| source(&policy.source));
    plan.keepers.retain(|keeper| source(&keeper.source));
    plan.out_of_reach.retain(|part| seen.part(key, &part.cluster, ""));
    plan.unmatched.retain(|unmatched| source(unmatched));
    plan.faults.retain(|fault: &PolicyFault| source(&fault.source));
    // Guards and what is left are of the whole repository.
    plan.left.clear();
    for guard in &mut plan.guards {
        guard.message.clear();
    }
    serde_json::to_string(&PlanLine { plan }).unwrap_or_default()
}

/// Leaves out of a run's entry what is not seen.
pub fn entry(entry: &mut AuditEntry, seen: Seen<'_>) {
    let key = entry.restic_id.clone();
    if seen.whole_repository(&key) {
        return;
    }
    entry.policies.retain(|source| seen.source(&key, source));
    entry.covered.retain(|covered| {
        let parts = covered.split_once(": ");
        parts.is_some_and(|(cluster, subject)| seen.operation(&key, cluster, subject))
    });
    entry.plan.clear();
    if let Some(of_run) = &mut entry.outcome {
        outcome(of_run, &key, seen);
    }
}
