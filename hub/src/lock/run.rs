//! What a granted operation is to do: the policies of all clusters that are bound to one physical repository. Pure.

use std::collections::BTreeSet;

use proto::v1::{PolicyState, RetentionPolicySpec, RetentionRun};

use crate::inventory::{Held, Inventory, Member};

/// The run as of now. Policies of clusters that are away take part as they were last known: what they keep stays kept.
/// A cluster that is not bound to the repository, any more or yet, or whose inventory is not complete, cannot say what it
/// keeps: its snapshots stay. So can a policy that cannot be read and of which no binding is known: it takes part wherever
/// its cluster is bound.
#[must_use]
pub fn compose(inventory: &Inventory, restic_id: &str, approved: &str) -> RetentionRun {
    let complete = |cluster: &str| inventory.member(cluster).is_some_and(Member::complete);
    let bound: BTreeSet<&str> = inventory
        .index()
        .bindings(restic_id)
        .map(|held| &*held.cluster)
        .collect();
    let unplaced = inventory
        .index()
        .policies("")
        .filter(|held| bound.contains(&*held.cluster) && is_unclear(held));
    let policies = inventory.index().policies(restic_id).chain(unplaced);
    let mut policies: Vec<RetentionPolicySpec> = policies.filter_map(|held| spec(held)).collect();
    let clusters = bound
        .into_iter()
        .filter(|cluster| complete(cluster))
        .map(str::to_owned);
    policies.sort_by(|a, b| a.source.cmp(&b.source));
    RetentionRun {
        restic_id: restic_id.to_owned(),
        policies,
        clusters: clusters.collect(),
        approved: approved.to_owned(),
        ..Default::default()
    }
}

fn is_unclear(held: &Held) -> bool {
    let spec = held.policy().and_then(|policy| policy.spec.as_ref());
    spec.is_some_and(|spec| !spec.unclear.is_empty())
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
