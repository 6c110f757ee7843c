//! A retention policy's spec as it may be worked with. Pure.

use crds::GlobalRetentionPolicy;
use crds::common::{BadPart, RetentionPolicy};
use crds::conditions::reasons;
use crds::retention::{DEFAULT_MAX_REMOVED_PERCENT, InitialRun, PolicyRule};
use crds::schedule::{Schedule, ScheduleError};
use proto::v1::{RetentionPolicySpec, RetentionRule};

use crate::pod::{JobSettings, job_settings};
use crate::world::Key;

/// A valid spec.
#[derive(Clone, Debug)]
pub struct Valid {
    pub repository: Key,
    pub schedule: Schedule,
    /// As written.
    pub cron: String,
    pub timezone: String,
    pub suspend: bool,
    pub job: JobSettings,
    /// As a run takes it; its source and generation are set by whoever makes the run.
    pub spec: RetentionPolicySpec,
    /// Parts of the spec that are accepted and not acted on yet.
    pub without_effect: Vec<&'static str>,
}

/// Why a spec is refused, with the field to change.
#[derive(Debug, thiserror::Error)]
pub enum Invalid {
    #[error("spec.{0}")]
    Schedule(#[from] ScheduleError),
    #[error("spec.policies is empty: what is kept must be said, such as retention: {{keepDaily: 7}}")]
    Empty,
    #[error("spec.policies[{0}].retention keeps nothing: at least one keep rule must be greater than zero")]
    KeepsNothing(usize),
    #[error("spec.policies[{index}].{field}: {text:?} cannot be used: {why}")]
    Text {
        index: usize,
        field: &'static str,
        text: String,
        why: &'static str,
    },
    #[error(transparent)]
    Part(#[from] BadPart),
}

impl Invalid {
    /// Reason of condition Ready.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Invalid::Schedule(_) => reasons::INVALID_SCHEDULE,
            _ => reasons::INVALID_SPEC,
        }
    }
}

/// Checks what the schema cannot, and what it checks again: an object may be older than the schema.
///
/// # Errors
/// The first thing that is wrong.
pub fn validate(key: &Key, policy: &GlobalRetentionPolicy) -> Result<Valid, Invalid> {
    let spec = &policy.spec;
    let timezone = spec.timezone.as_deref().filter(|zone| !zone.is_empty());
    let timezone = timezone.unwrap_or("UTC").to_owned();
    let schedule = Schedule::parse(&spec.schedule, &timezone)?;
    if spec.policies.is_empty() {
        return Err(Invalid::Empty);
    }
    let rules = spec
        .policies
        .iter()
        .enumerate()
        .map(|(index, part)| rule(index, part));
    let rules = rules.collect::<Result<Vec<_>, _>>()?;
    let percent = spec.guard.as_ref().and_then(|g| g.max_removed_percent);
    let previewed = policy.status.as_ref().is_some_and(|s| s.previewed);
    let notifications = spec
        .notifications
        .as_ref()
        .is_some_and(|n| n.email.is_some() || n.ntfy.is_some());
    Ok(Valid {
        repository: Key::new(
            spec.repository_ref.namespace_or(&key.namespace),
            &spec.repository_ref.name,
        ),
        schedule,
        cron: spec.schedule.trim().to_owned(),
        timezone,
        suspend: spec.suspend,
        job: job_settings(spec.job_config.as_ref())?,
        spec: RetentionPolicySpec {
            source: String::new(),
            generation: policy.metadata.generation.unwrap_or_default(),
            preview: spec.suspend || (spec.initial_run == InitialRun::Preview && !previewed),
            rules,
            prune: spec.prune == Some(true),
            max_removed_percent: u32::try_from(percent.unwrap_or(DEFAULT_MAX_REMOVED_PERCENT)).unwrap_or(0),
            ..Default::default()
        },
        without_effect: if notifications {
            vec!["notifications"]
        } else {
            Vec::new()
        },
    })
}

fn rule(index: usize, part: &PolicyRule) -> Result<RetentionRule, Invalid> {
    let RetentionPolicy {
        keep_last,
        keep_hourly,
        keep_daily,
        keep_weekly,
        keep_monthly,
        keep_yearly,
        keep_within,
        keep_within_hourly,
        keep_within_daily,
        keep_within_weekly,
        keep_within_monthly,
        keep_within_yearly,
        keep_tags,
        ..
    } = part.retention.clone();
    let check = |field, text: &String| {
        let why = if text.is_empty() {
            "it is empty"
        } else if text.contains(',') {
            "restic reads a comma as the end of a tag"
        } else if text.contains(['\0', '\n', '\r']) {
            "it holds a line break or a NUL character"
        } else {
            return Ok(());
        };
        Err(Invalid::Text {
            index,
            field,
            text: text.clone(),
            why,
        })
    };
    part.selector
        .tags
        .iter()
        .try_for_each(|tag| check("selector.tags", tag))?;
    part.selector.hostname.iter().try_for_each(|host| {
        // A host name may hold what a tag may not.
        if host.contains(['\0', '\n', '\r']) {
            check("selector.hostname", host)
        } else {
            Ok(())
        }
    })?;
    keep_tags
        .iter()
        .try_for_each(|tag| check("retention.keepTags", tag))?;
    let count = |n: Option<i32>| n.and_then(|n| u32::try_from(n).ok()).unwrap_or_default();
    let rule = RetentionRule {
        tags: part.selector.tags.clone(),
        hostname: part.selector.hostname.clone().unwrap_or_default(),
        keep_last: count(keep_last),
        keep_hourly: count(keep_hourly),
        keep_daily: count(keep_daily),
        keep_weekly: count(keep_weekly),
        keep_monthly: count(keep_monthly),
        keep_yearly: count(keep_yearly),
        keep_within: keep_within.unwrap_or_default(),
        keep_within_hourly: keep_within_hourly.unwrap_or_default(),
        keep_within_daily: keep_within_daily.unwrap_or_default(),
        keep_within_weekly: keep_within_weekly.unwrap_or_default(),
        keep_within_monthly: keep_within_monthly.unwrap_or_default(),
        keep_within_yearly: keep_within_yearly.unwrap_or_default(),
        keep_tags,
    };
    let selector_only = RetentionRule {
        tags: rule.tags.clone(),
        hostname: rule.hostname.clone(),
        ..RetentionRule::default()
    };
    if rule == selector_only {
        return Err(Invalid::KeepsNothing(index));
    }
    Ok(rule)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn check(spec: Value) -> Result<Valid, String> {
        let mut full = json!({ "repositoryRef": { "name": "nas" }, "schedule": "@weekly",
                               "policies": [{ "selector": { "tags": ["a", "b"] }, "retention": { "keepDaily": 7, "keepWithin": "14d" } }] });
        for (name, value) in spec.as_object().unwrap() {
            full[name] = value.clone();
        }
        let policy: GlobalRetentionPolicy = serde_json::from_value(json!({
            "apiVersion": "backup.resticbackup.io/v1alpha1", "kind": "GlobalRetentionPolicy",
            "metadata": { "name": "p", "namespace": "shop", "generation": 3 }, "spec": full,
        }))
        .unwrap();
        validate(&Key::new("shop", "p"), &policy).map_err(|e| e.to_string())
    }

    #[test]
    fn a_policy_begins_with_a_preview_and_a_guard() {
        let valid = check(json!({})).unwrap();
        assert!(valid.spec.preview && !valid.spec.prune);
        assert_eq!((valid.spec.max_removed_percent, valid.spec.generation), (30, 3));
        let rule = &valid.spec.rules[0];
        assert_eq!(
            (rule.keep_daily, rule.keep_within.as_str(), rule.tags.len()),
            (7, "14d", 2)
        );
        assert!(!check(json!({ "initialRun": "Apply" })).unwrap().spec.preview);
        assert!(
            check(json!({ "initialRun": "Apply", "suspend": true }))
                .unwrap()
                .spec
                .preview
        );
    }

    #[test]
    fn what_restic_would_misread_is_refused() {
        let with = |policy: Value| check(json!({ "policies": [policy] })).unwrap_err();
        let zero = with(json!({ "selector": {}, "retention": { "keepLast": 0 } }));
        assert!(zero.contains("policies[0].retention keeps nothing"), "{zero}");
        let comma = with(json!({ "selector": { "tags": ["a,b"] }, "retention": { "keepLast": 1 } }));
        assert!(comma.contains("comma"), "{comma}");
        let broken = with(json!({ "selector": {}, "retention": { "keepTags": ["a\nb"] } }));
        assert!(broken.contains("retention.keepTags"), "{broken}");
        assert!(
            check(json!({ "schedule": "61 * * * *" }))
                .unwrap_err()
                .starts_with("spec.")
        );
    }
}
