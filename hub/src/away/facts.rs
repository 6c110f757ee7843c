//! What the inventory shows of policies whose clusters are away, and of clusters that could run them. Pure.

use std::collections::BTreeMap;
use std::sync::Arc;

use proto::time::to_unix_millis;

use super::decide::{Candidate, Policy, Repository, is_cut_off};
use crate::Millis;
use crate::inventory::{Held, Inventory, Member};

/// Repositories with policies in force whose clusters have been away for so long. Empty while it is not known who is away.
/// Unknown is not away: of a cluster that is not known as a whole nothing is run, and neither of one that was banned.
#[must_use]
pub fn repositories(inventory: &Inventory, after: Millis) -> Vec<Repository> {
    let now = inventory.steady();
    let away = inventory
        .members()
        .filter_map(|member| Some((member, member.away(now)?)));
    let clusters: Vec<(&Member, Millis)> = away.collect();
    if is_cut_off(clusters.len(), inventory.member_count()) {
        return Vec::new();
    }
    let mut found: BTreeMap<Arc<str>, Repository> = BTreeMap::new();
    let known = clusters
        .into_iter()
        .filter(|(member, away)| *away >= after && member.complete() && member.trouble().is_none());
    for held in known.flat_map(|(member, _)| member.objects.values()) {
        let Some((id, policy)) = policy(inventory, held) else {
            continue;
        };
        let repository = found.entry(id.clone()).or_insert_with(|| Repository {
            candidates: candidates(inventory, &id),
            id,
            policies: Vec::new(),
        });
        repository.policies.push(policy);
    }
    found.into_values().collect()
}

/// A policy that would run if its cluster were there, with the key of its store.
fn policy(inventory: &Inventory, held: &Held) -> Option<(Arc<str>, Policy)> {
    let policy = held.policy()?;
    let spec = policy.spec.as_ref()?;
    // One whose preview is due shows it where who owns it looks: in a run of its own.
    let in_force = !policy.suspended && !spec.suspended && !spec.preview && spec.unclear.is_empty();
    let id: Arc<str> = policy.restic_id.as_str().into();
    let bound = !id.is_empty() && inventory.bindings().is_bound(&held.cluster, &id);
    if !in_force || !bound || !held.is_ready() {
        return None;
    }
    let since = policy.last_run.as_ref().map(to_unix_millis);
    let since = since.or_else(|| held.created())?;
    let known = Policy {
        source: held.place.to_string(),
        schedule: policy.schedule.clone(),
        // An earlier spoke says neither zone nor window: when it is due is not known.
        timezone: policy.timezone.clone()?,
        window: policy.allowed_window.clone(),
        since,
    };
    Some((id, known))
}

/// Clusters that could carry out a run now: connected, with a spoke that can, bound with proof, with a repository that opens.
/// None for a repository that nothing may be removed from.
fn candidates(inventory: &Inventory, id: &str) -> Vec<Candidate> {
    let barred = inventory.read_only(id).is_some()
        || inventory.changed_of(id).is_some()
        || inventory.damage_of(id).is_some();
    if barred {
        return Vec::new();
    }
    let able = |cluster: &str| {
        inventory.member(cluster).is_some_and(|member| {
            let own = || {
                let mut policies = inventory.policies_of(id).filter(|held| *held.cluster == *cluster);
                policies.any(|held| held.policy().is_some_and(|policy| !policy.suspended))
            };
            let live = member.live.filter(|live| live.retains);
            let retains = live.is_some_and(|live| !live.retains_with_policy || own());
            retains && !member.stale && member.complete() && member.trouble().is_none()
        })
    };
    let mut candidates: Vec<Candidate> = Vec::new();
    for held in inventory.index().bindings(id) {
        let binding = inventory.bindings().get(&held.cluster, id);
        let proven = binding.is_some_and(|b| b.state == crate::bindings::State::Bound && b.proven);
        let known = candidates.iter().any(|other| other.cluster == held.cluster);
        if proven && !known && held.is_ready() && able(&held.cluster) {
            candidates.push(Candidate::of(held));
        }
    }
    candidates
}

#[cfg(test)]
#[path = "facts_tests.rs"]
mod tests;
