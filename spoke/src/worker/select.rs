//! Which snapshots a rule is about, and which of them it may remove. Pure.

use crds::rules::RULES_VERSION;
use proto::v1::{RetentionPolicySpec, RetentionRule, RetentionRun};

use crate::restic::Snapshot;

const CLUSTER: &str = "fleet.cluster=";
const CLUSTER_UID: &str = "fleet.cluster-uid=";

/// What a policy may do in a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    InForce,
    /// Its removals are only shown.
    Preview,
    /// It removes nothing and shows nothing.
    Suspended,
    /// All that its selectors match is kept.
    Unclear,
}

/// A policy's standing.
#[must_use]
pub fn standing(policy: &RetentionPolicySpec) -> Standing {
    if why_unclear(policy).is_some() {
        Standing::Unclear
    } else if policy.suspended {
        Standing::Suspended
    } else if policy.preview {
        Standing::Preview
    } else {
        Standing::InForce
    }
}

/// Why the rules of a policy are not carried out.
#[must_use]
pub fn why_unclear(policy: &RetentionPolicySpec) -> Option<String> {
    if policy.rules_version > RULES_VERSION {
        let text = "its rules need version {} of the rule language, and this run knows version {}";
        let text = text.replacen("{}", &policy.rules_version.to_string(), 1);
        return Some(text.replacen("{}", &RULES_VERSION.to_string(), 1));
    }
    match (policy.unclear.as_str(), policy.rules.as_slice()) {
        ("", []) => Some("it has no rules".to_owned()),
        ("", _) => None,
        (why, _) => Some(why.to_owned()),
    }
}

/// Whether a rule is about a snapshot, as restic decides it: all tags, and the host name.
#[must_use]
pub fn matches(rule: &RetentionRule, snapshot: &Snapshot) -> bool {
    let host = rule.hostname.is_empty() || rule.hostname == snapshot.hostname;
    host && rule.tags.iter().all(|tag| snapshot.tags.contains(tag))
}

/// Whether a selector has no condition.
#[must_use]
pub fn matches_all(rule: &RetentionRule) -> bool {
    rule.tags.is_empty() && rule.hostname.is_empty()
}

/// Clusters that a snapshot names as its own: none, or one. Several are nobody's doing here, and then each counts.
#[must_use]
pub fn clusters(snapshot: &Snapshot) -> Vec<&str> {
    values(snapshot, CLUSTER)
}

/// A uid that is not that of the bound cluster with this name: the snapshot is of a cluster that is not known.
#[must_use]
pub fn foreign_uid<'a>(run: &RetentionRun, snapshot: &'a Snapshot, cluster: &str) -> Option<&'a str> {
    let known = run.cluster_uids.iter().find(|known| known.cluster == cluster)?;
    let uids = values(snapshot, CLUSTER_UID).into_iter();
    uids.filter(|uid| !uid.is_empty()).find(|uid| **uid != *known.uid)
}

/// Whether a rule that would remove a snapshot may do so, by whose snapshot it is.
#[must_use]
pub fn reaches(
    run: &RetentionRun,
    policy: &RetentionPolicySpec,
    rule: &RetentionRule,
    snapshot: &Snapshot,
) -> bool {
    let owners = clusters(snapshot);
    if owners.is_empty() {
        return !policy.own_cluster_only && !matches_all(rule);
    }
    let own = policy.source.split('/').next().unwrap_or_default();
    let names = |prefix: &str, value: &str| {
        let mut tags = rule.tags.iter();
        tags.any(|tag| tag.strip_prefix(prefix) == Some(value))
    };
    owners.into_iter().all(|cluster| {
        let known = match foreign_uid(run, snapshot, cluster) {
            Some(uid) => names(CLUSTER_UID, uid),
            None => run.clusters.iter().any(|c| c == cluster) || names(CLUSTER, cluster),
        };
        known && (!policy.own_cluster_only || cluster == own)
    })
}

fn values<'a>(snapshot: &'a Snapshot, prefix: &str) -> Vec<&'a str> {
    let mut values: Vec<&str> = Vec::new();
    for value in snapshot.tags.iter().filter_map(|tag| tag.strip_prefix(prefix)) {
        if !values.contains(&value) {
            values.push(value);
        }
    }
    values
}
