//! What the policies of this cluster make a run without a hub. Pure.

use std::collections::HashSet;

use proto::v1::{Baseline, RetentionPolicySpec};

use super::policies::spec_of;
use crate::world::{Key, Stored as _, World};

/// The policies of this cluster that are bound to a physical repository, as a run without a hub takes them.
pub(super) fn policies(world: &World, cluster: &str, restic_id: &str) -> Vec<RetentionPolicySpec> {
    let bound = |repository: &Key| {
        let repository = world.repositories.get(repository);
        repository
            .and_then(|r| r.status.as_ref()?.repository_id.clone())
            .as_deref()
            == Some(restic_id)
    };
    let all = world.policies.filter(|_, _| true).into_iter();
    let mut found: Vec<RetentionPolicySpec> = all
        .filter_map(|(key, policy)| {
            let reference = &policy.spec.repository_ref;
            let at = Key::new(reference.namespace_or(&key.namespace), &reference.name);
            let spec = || spec_of(&key, &policy, cluster, restic_id);
            bound(&at).then(spec)
        })
        .collect();
    found.sort_by(|a, b| a.source.cmp(&b.source));
    found
}

/// What the last applied run left, as the policies of this cluster know it: the guard of a run without a hub.
pub(super) fn baseline(world: &World, cluster: &str, restic_id: &str) -> Vec<Baseline> {
    let own: HashSet<String> = policies(world, cluster, restic_id)
        .into_iter()
        .map(|p| p.uid)
        .collect();
    let all = world.policies.filter(|_, _| true).into_iter();
    let newest = all
        .filter(|(_, policy)| own.contains(policy.uid()))
        .filter_map(|(_, policy)| policy.status.clone())
        .filter(|status| !status.left.is_empty())
        .max_by_key(|status| status.last_run.as_ref().map(|time| time.0));
    let left = newest.map(|status| status.left).unwrap_or_default();
    left.into_iter()
        .map(|left| Baseline {
            key: left.key,
            left: u32::try_from(left.snapshots).unwrap_or_default(),
        })
        .collect()
}
