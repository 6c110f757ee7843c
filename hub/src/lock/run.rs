//! What a granted operation is to do: the policies of all clusters that are bound to one physical repository. Pure.

use std::collections::BTreeSet;

use proto::v1::{PolicyState, RetentionPolicySpec, RetentionRun};

use crate::inventory::{Held, Inventory};

/// The run as of now. Policies of clusters that are away take part as they were last known: what they keep stays kept.
/// A cluster that is not bound to the repository, any more or yet, cannot say what it keeps: its snapshots stay.
#[must_use]
pub fn compose(inventory: &Inventory, restic_id: &str, approved: &str) -> RetentionRun {
    let policies = inventory.index().policies(restic_id).map(|held| spec(held));
    let mut policies: Vec<RetentionPolicySpec> = policies.flatten().collect();
    let bound = inventory.index().bindings(restic_id);
    let clusters: BTreeSet<String> = bound.map(|held| held.cluster.to_string()).collect();
    policies.sort_by(|a, b| a.source.cmp(&b.source));
    RetentionRun {
        restic_id: restic_id.to_owned(),
        policies,
        clusters: clusters.into_iter().collect(),
        approved: approved.to_owned(),
        ..Default::default()
    }
}

fn spec(held: &Held) -> Option<RetentionPolicySpec> {
    let PolicyState { spec, suspended, .. } = held.policy()?.clone();
    // One that its own spoke refuses has no rules: what it wants is not known, and its cluster's snapshots stay.
    let mut spec = spec.unwrap_or_default();
    spec.source = held.place.to_string();
    spec.generation = held.object.generation;
    spec.preview |= suspended;
    Some(spec)
}

/// `<cluster>/<namespace>/<name>@<generation>` of each policy of a run.
#[must_use]
pub fn names(run: &RetentionRun) -> Vec<String> {
    run.policies.iter().map(name).collect()
}

fn name(spec: &RetentionPolicySpec) -> String {
    format!("{}@{}", spec.source, spec.generation)
}

/// The name under which a policy takes part in runs.
#[must_use]
pub fn name_of(held: &Held) -> Option<String> {
    spec(held).map(|spec| name(&spec))
}

/// Whether an outcome spares a policy that took part a run of its own. A preview does: it showed what the policy's own
/// run would have shown.
#[must_use]
pub fn is_conclusive(result: &str) -> bool {
    ["Applied", "NothingToRemove", "Preview", "ApprovalRequired"].contains(&result)
}
