//! A retention policy's spec as its CronJob needs it. Pure. What its rules keep does not depend on it: see `policies`.

use crds::GlobalRetentionPolicy;
use crds::common::BadPart;
use crds::conditions::reasons;
use crds::rules::{BadRule, Rule};
use crds::schedule::{Schedule, ScheduleError, resolve, seed};
use crds::window::BadWindow;

use crate::pod::{JobSettings, uncached_settings};
use crate::world::Key;

/// A valid spec.
#[derive(Clone, Debug)]
pub struct Valid {
    pub repository: Key,
    pub schedule: Schedule,
    /// As Kubernetes takes it.
    pub cron: String,
    pub timezone: String,
    pub suspend: bool,
    pub job: JobSettings,
}

/// Why a spec is refused, with the field to change.
#[derive(Debug, thiserror::Error)]
pub enum Invalid {
    #[error("spec.{0}")]
    Schedule(#[from] ScheduleError),
    #[error("spec.{0}")]
    Window(#[from] BadWindow),
    #[error("spec.policies is empty: it needs a rule, such as retention: {{keepDaily: 7}}")]
    Empty,
    #[error(
        "spec.policies[{0}].{1}. Until it is corrected, everything that its selector could match is kept"
    )]
    Rule(usize, BadRule),
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
    let own = seed("GlobalRetentionPolicy", &policy.metadata);
    let cron = resolve(&spec.schedule, &own)?;
    let schedule = Schedule::parse(&cron, &timezone)?;
    if let Some(window) = &spec.allowed_window {
        window.parse("GlobalRetentionPolicy", &policy.metadata)?;
    }
    if spec.policies.is_empty() {
        return Err(Invalid::Empty);
    }
    for (index, part) in spec.policies.iter().enumerate() {
        let checked = Rule::of(part).check();
        checked.map_err(|wrong| Invalid::Rule(index, wrong))?;
    }
    Ok(Valid {
        repository: Key::new(
            spec.repository_ref.namespace_or(&key.namespace),
            &spec.repository_ref.name,
        ),
        schedule,
        cron: cron.trim().to_owned(),
        timezone,
        suspend: spec.suspend,
        job: uncached_settings(spec.job_config.as_ref())?,
    })
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
