//! A retention policy as a run takes it. Pure, and never failing: what cannot be understood of a policy stands in
//! `unclear`, and then everything that it could match is kept.

use crds::GlobalRetentionPolicy;
use crds::retention::{DEFAULT_MAX_REMOVED_PERCENT, InitialRun, PolicyRule, Scope};
use crds::rules::Rule;
use proto::v1::{RetentionPolicySpec, RetentionRule};
use sha2::{Digest as _, Sha256};

use crate::world::{Key, Undecodable, World};

/// A policy of `cluster` whose repository has the id `restic_id` (empty while it is unknown). A schedule, time zone or
/// jobConfig that cannot be used does not concern the rules: they count all the same.
#[must_use]
pub fn spec_of(
    key: &Key,
    policy: &GlobalRetentionPolicy,
    cluster: &str,
    restic_id: &str,
) -> RetentionPolicySpec {
    let spec = &policy.spec;
    let percent = spec.guard.as_ref().and_then(|guard| guard.max_removed_percent);
    let unclear = unclear(&spec.policies);
    let rules = if unclear.is_empty() {
        spec.policies.iter().map(rule).collect()
    } else {
        spec.policies.iter().map(selector).collect()
    };
    let mut taken = RetentionPolicySpec {
        source: format!("{cluster}/{key}"),
        generation: policy.metadata.generation.unwrap_or_default(),
        rules,
        prune: spec.prune == Some(true),
        max_removed_percent: u32::try_from(percent.unwrap_or(DEFAULT_MAX_REMOVED_PERCENT)).unwrap_or(0),
        rules_version: version(&spec.policies),
        own_cluster_only: spec.scope == Scope::Cluster,
        unclear,
        suspended: spec.suspend,
        uid: policy.metadata.uid.clone().unwrap_or_default(),
        ..RetentionPolicySpec::default()
    };
    taken.fingerprint = fingerprint(&taken, restic_id);
    // A pod of an older version does not know `suspended`, and must not remove what a suspended policy would.
    taken.preview =
        spec.suspend || (spec.initial_run == InitialRun::Preview && !previewed(policy, &taken.fingerprint));
    taken
}

/// A policy that this version cannot decode, of `cluster`: what it could match has to be kept.
#[must_use]
pub fn unreadable(key: &Key, broken: &Undecodable, cluster: &str) -> RetentionPolicySpec {
    let error: String = broken.error.chars().take(1024).collect();
    RetentionPolicySpec {
        source: format!("{cluster}/{key}"),
        uid: broken.meta.uid.clone().unwrap_or_default(),
        generation: broken.meta.generation.unwrap_or_default(),
        unclear: format!("fleet-spoke of this version cannot read the policy: {error}"),
        ..RetentionPolicySpec::default()
    }
}

/// The ResticRepository that such a policy names.
#[must_use]
pub fn repository_of(key: &Key, broken: &Undecodable) -> Key {
    let namespace = broken
        .text("/spec/repositoryRef/namespace")
        .filter(|ns| !ns.is_empty());
    let name = broken.text("/spec/repositoryRef/name").unwrap_or_default();
    Key::new(namespace.unwrap_or(&key.namespace), name)
}

/// The restic id of a repository, as far as it is known. That of one which cannot be decoded is read from its JSON.
#[must_use]
pub fn restic_id(world: &World, at: &Key) -> Option<String> {
    let decoded = world.repositories.get(at);
    let decoded = decoded.and_then(|repository| repository.status.as_ref()?.repository_id.clone());
    decoded.or_else(|| {
        let broken = world.repositories.undecodable(at)?;
        broken.text("/status/repositoryID").map(str::to_owned)
    })
}

/// Whether a run has shown what these rules remove from this repository.
fn previewed(policy: &GlobalRetentionPolicy, fingerprint: &str) -> bool {
    let Some(status) = &policy.status else {
        return false;
    };
    match &status.previewed_for {
        Some(shown) => shown == fingerprint,
        // Versions before 0.2 kept a mere yes, which is about the spec that was in force then.
        None => status.previewed && status.observed_generation == policy.metadata.generation,
    }
}

/// What a preview is about. It does not change with schedule, suspension or notifications.
fn fingerprint(spec: &RetentionPolicySpec, restic_id: &str) -> String {
    let about = RetentionPolicySpec {
        rules: spec.rules.clone(),
        max_removed_percent: spec.max_removed_percent,
        own_cluster_only: spec.own_cluster_only,
        unclear: spec.unclear.clone(),
        ..RetentionPolicySpec::default()
    };
    let mut digest = Sha256::new();
    digest.update(restic_id.as_bytes());
    digest.update(b"\n");
    digest.update(prost::Message::encode_to_vec(&about));
    let mut text = hex::encode(digest.finalize());
    text.truncate(32);
    text
}

/// Why the rules cannot be used; empty when they can.
fn unclear(parts: &[PolicyRule]) -> String {
    if parts.is_empty() {
        return "spec.policies is empty".to_owned();
    }
    let checked = parts.iter().enumerate().find_map(|(index, part)| {
        let wrong = Rule::of(part).check().err()?;
        Some(format!("spec.policies[{index}].{wrong}"))
    });
    checked.unwrap_or_default()
}

/// Version of the rule language that a reader needs: an older one refuses rules that it would carry out differently.
fn version(parts: &[PolicyRule]) -> u32 {
    let versions = parts.iter().map(|part| Rule::of(part).version());
    versions.max().unwrap_or_default()
}

/// What is kept of which snapshots.
fn rule(part: &PolicyRule) -> RetentionRule {
    let Rule {
        tags,
        hostname,
        counts,
        spans,
        keep_tags,
        group_by,
    } = Rule::of(part);
    let [last, hourly, daily, weekly, monthly, yearly] =
        counts.map(|count| u32::try_from(count).unwrap_or_default());
    let [
        within,
        within_hourly,
        within_daily,
        within_weekly,
        within_monthly,
        within_yearly,
    ] = spans.map(str::to_owned);
    RetentionRule {
        tags: tags.to_vec(),
        hostname: hostname.to_owned(),
        keep_last: last,
        keep_hourly: hourly,
        keep_daily: daily,
        keep_weekly: weekly,
        keep_monthly: monthly,
        keep_yearly: yearly,
        keep_within: within,
        keep_within_hourly: within_hourly,
        keep_within_daily: within_daily,
        keep_within_weekly: within_weekly,
        keep_within_monthly: within_monthly,
        keep_within_yearly: within_yearly,
        keep_tags: keep_tags.to_vec(),
        group_by: group_by.to_vec(),
    }
}

/// Which snapshots are meant. What cannot be read of a selector is left out, so that it matches more rather than less.
fn selector(part: &PolicyRule) -> RetentionRule {
    let (tags, hostname) = Rule::of(part).usable_selector();
    RetentionRule {
        tags,
        hostname,
        ..RetentionRule::default()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    fn policy(spec: &Value, status: Value) -> GlobalRetentionPolicy {
        let mut full = json!({ "repositoryRef": { "name": "nas" }, "schedule": "@weekly",
                               "policies": [{ "selector": { "tags": ["a", "b"] }, "retention": { "keepDaily": 7, "keepWithin": "14d" } }] });
        for (name, value) in spec.as_object().unwrap() {
            full[name] = value.clone();
        }
        serde_json::from_value(json!({
            "apiVersion": "backup.resticbackup.io/v1alpha1", "kind": "GlobalRetentionPolicy",
            "metadata": { "name": "p", "namespace": "shop", "generation": 3, "uid": "u" }, "spec": full, "status": status,
        }))
        .unwrap()
    }

    fn taken(spec: Value, status: Value) -> RetentionPolicySpec {
        spec_of(&Key::new("shop", "p"), &policy(&spec, status), "a", "r1")
    }

    #[test]
    fn a_policy_begins_with_a_preview_and_a_guard() {
        let spec = taken(json!({}), json!({}));
        assert!(spec.preview && !spec.prune && !spec.suspended && !spec.own_cluster_only);
        assert_eq!((spec.source.as_str(), spec.uid.as_str()), ("a/shop/p", "u"));
        assert_eq!((spec.max_removed_percent, spec.generation), (30, 3));
        let rule = &spec.rules[0];
        assert_eq!(
            (rule.keep_daily, rule.keep_within.as_str(), rule.tags.len()),
            (7, "14d", 2)
        );
        assert!(!taken(json!({ "initialRun": "Apply" }), json!({})).preview);
        let suspended = taken(json!({ "initialRun": "Apply", "suspend": true }), json!({}));
        assert!(suspended.suspended && suspended.preview);
        assert!(taken(json!({ "scope": "Cluster" }), json!({})).own_cluster_only);
    }

    #[test]
    fn other_rules_another_repository_or_another_guard_are_previewed_again() {
        let first = taken(json!({}), json!({})).fingerprint;
        let shown = json!({ "previewedFor": first });
        assert!(!taken(json!({}), shown.clone()).preview);
        // What has nothing to do with removals begins nothing anew.
        let same = json!({ "schedule": "@daily", "suspend": false, "prune": true });
        assert!(!taken(same, shown.clone()).preview);
        let rules = json!([{ "selector": { "tags": ["a", "b"] }, "retention": { "keepDaily": 6, "keepWithin": "14d" } }]);
        assert!(taken(json!({ "policies": rules }), shown.clone()).preview);
        assert!(taken(json!({ "guard": { "maxRemovedPercent": 90 } }), shown.clone()).preview);
        assert!(taken(json!({ "scope": "Cluster" }), shown.clone()).preview);
        let same = policy(&json!({}), shown);
        assert!(spec_of(&Key::new("shop", "p"), &same, "a", "r2").preview);
        assert!(spec_of(&Key::new("shop", "p"), &same, "a", "").preview);
    }

    #[test]
    fn rules_with_groups_of_their_own_are_refused_by_readers_that_do_not_know_them() {
        let part =
            |groups: &Value| json!([{ "selector": {}, "retention": { "keepLast": 1 }, "groupBy": groups }]);
        let plain = taken(json!({ "policies": part(&json!([])) }), json!({}));
        assert_eq!(plain.rules_version, 1, "older ones carry it out as it is meant");
        let grouped = taken(json!({ "policies": part(&json!(["host"])) }), json!({}));
        assert_eq!(
            (grouped.rules_version, grouped.rules[0].group_by.as_slice()),
            (2, &["host".to_owned()][..])
        );
        assert_ne!(plain.fingerprint, grouped.fingerprint, "it is previewed again");
        let unknown = taken(json!({ "policies": part(&json!(["user"])) }), json!({}));
        assert!(unknown.unclear.contains("groupBy"), "{}", unknown.unclear);
    }

    #[test]
    fn what_older_versions_wrote_counts_until_the_spec_changes() {
        assert!(!taken(json!({}), json!({ "previewed": true, "observedGeneration": 3 })).preview);
        assert!(taken(json!({}), json!({ "previewed": true, "observedGeneration": 2 })).preview);
        assert!(
            taken(
                json!({}),
                json!({ "previewed": true, "previewedFor": "other", "observedGeneration": 3 })
            )
            .preview
        );
    }

    #[test]
    fn a_schedule_that_cannot_be_used_leaves_the_rules_as_they_are() {
        let wrong = json!({ "schedule": "61 * * * *", "timezone": "Europe/Nowhere",
                            "jobConfig": { "resources": { "limits": { "memory": "much" } } } });
        let spec = taken(wrong, json!({}));
        assert_eq!((spec.unclear.as_str(), spec.rules[0].keep_daily), ("", 7));
        assert!(
            super::super::validate::validate(
                &Key::new("shop", "p"),
                &policy(&json!({ "timezone": "Europe/Nowhere" }), json!({}))
            )
            .is_err()
        );
    }

    #[test]
    fn rules_that_cannot_be_used_leave_what_they_could_match() {
        let parts = json!([{ "selector": { "tags": ["x", " "], "hostname": "h" }, "retention": { "keepLast": 1 } },
                           { "selector": { "tags": ["y"] }, "retention": { "keepWithin": "2w" } }]);
        let spec = taken(json!({ "policies": parts }), json!({}));
        assert!(
            spec.unclear.starts_with("spec.policies[0].selector.tags"),
            "{}",
            spec.unclear
        );
        let selectors: Vec<_> = spec
            .rules
            .iter()
            .map(|r| (r.tags.clone(), r.hostname.clone(), r.keep_last))
            .collect();
        assert_eq!(
            selectors,
            [
                (vec!["x".to_owned()], "h".to_owned(), 0),
                (vec!["y".to_owned()], String::new(), 0)
            ]
        );
        let none = taken(json!({ "policies": [] }), json!({}));
        assert!(none.rules.is_empty() && !none.unclear.is_empty());
    }

    proptest! {
        /// Nothing that the API can hold makes a policy vanish: its rules are as written, or it is unclear.
        #[test]
        fn a_policy_is_never_left_out(
            schedule in ".{0,12}", zone in ".{0,8}", tag in ".{0,5}", span in "[0-9ymdhwM]{0,6}", last in -2i32..3,
        ) {
            let parts = json!([{ "selector": { "tags": [tag] }, "retention": { "keepLast": last, "keepWithin": span } }]);
            let spec = taken(json!({ "schedule": schedule, "timezone": zone, "policies": parts }), json!({}));
            prop_assert_eq!(spec.rules.len(), 1);
            if spec.unclear.is_empty() {
                prop_assert_eq!((&spec.rules[0].keep_within, &spec.rules[0].tags[0]), (&span, &tag));
            } else {
                prop_assert!(spec.rules[0].keep_within.is_empty() && spec.rules[0].keep_last == 0);
            }
        }
    }
}
