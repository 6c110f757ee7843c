//! Fields that all kinds share and that do not apply to some: a resource that uses one has the condition NotInEffect.

use jiff::Timestamp;

use crate::conditions::{Conditions, reasons, types};
use crate::{GlobalRetentionPolicy, ResticBackup, ResticRepository, ResticRestore};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;

/// Which fields of a resource do nothing, by their paths below `spec`.
pub trait WithoutEffect {
    fn without_effect(&self) -> Vec<&'static str> {
        Vec::new()
    }
}

fn given(fields: &[(&'static str, bool)]) -> Vec<&'static str> {
    fields
        .iter()
        .filter(|(_, given)| *given)
        .map(|(name, _)| *name)
        .collect()
}

impl WithoutEffect for ResticRepository {}

impl WithoutEffect for ResticBackup {}

impl WithoutEffect for ResticRestore {
    fn without_effect(&self) -> Vec<&'static str> {
        let default = crate::common::JobConfiguration::default();
        let job = self.spec.job_config.as_ref();
        given(&[
            (
                "jobConfig.concurrencyPolicy",
                job.is_some_and(|job| job.concurrency_policy != default.concurrency_policy),
            ),
            (
                "jobConfig.successfulJobsHistoryLimit",
                job.is_some_and(|job| {
                    job.successful_jobs_history_limit != default.successful_jobs_history_limit
                }),
            ),
            (
                "jobConfig.failedJobsHistoryLimit",
                job.is_some_and(|job| job.failed_jobs_history_limit != default.failed_jobs_history_limit),
            ),
        ])
    }
}

impl WithoutEffect for GlobalRetentionPolicy {
    fn without_effect(&self) -> Vec<&'static str> {
        let default = crate::common::JobConfiguration::default();
        let job = self.spec.job_config.as_ref();
        given(&[
            (
                "jobConfig.backoffLimit",
                job.is_some_and(|job| job.backoff_limit != default.backoff_limit),
            ),
            (
                "jobConfig.concurrencyPolicy",
                job.is_some_and(|job| job.concurrency_policy != default.concurrency_policy),
            ),
        ])
    }
}

/// Sets the condition NotInEffect, or removes it where every field takes effect.
pub fn set_condition(list: &mut Vec<Condition>, fields: &[&str], generation: Option<i64>, now: Timestamp) {
    let mut conditions = Conditions::at(list, generation, now);
    if fields.is_empty() {
        conditions.remove(types::NOT_IN_EFFECT);
        return;
    }
    let names: Vec<String> = fields.iter().map(|name| format!("spec.{name}")).collect();
    let text = format!(
        "does not apply to this kind, and is ignored: {}",
        names.join(", ")
    );
    conditions.set(types::NOT_IN_EFFECT, true, reasons::DOES_NOT_APPLY, text);
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn resource<R: serde::de::DeserializeOwned>(kind: &str, spec: &Value) -> R {
        let whole = json!({ "apiVersion": "backup.resticbackup.io/v1alpha1", "kind": kind,
                            "metadata": { "name": "x" }, "spec": spec });
        serde_json::from_value(whole).unwrap()
    }

    #[test]
    fn what_is_given_and_does_nothing_is_named() {
        let policy = json!({ "repositoryRef": { "name": "r" }, "schedule": "@daily", "policies": [],
                             "notifications": { "email": { "to": "a@b" } }, "jobConfig": { "backoffLimit": 2 } });
        assert_eq!(
            resource::<GlobalRetentionPolicy>("GlobalRetentionPolicy", &policy).without_effect(),
            ["jobConfig.backoffLimit"]
        );
        let restore = json!({ "target": {}, "jobConfig": { "concurrencyPolicy": "Allow" } });
        assert_eq!(
            resource::<ResticRestore>("ResticRestore", &restore).without_effect(),
            ["jobConfig.concurrencyPolicy"]
        );
    }

    #[test]
    fn the_condition_goes_with_its_cause() {
        let mut list = Vec::new();
        set_condition(
            &mut list,
            &["jobConfig.backoffLimit", "jobConfig.concurrencyPolicy"],
            Some(2),
            Timestamp::UNIX_EPOCH,
        );
        let [condition] = list.as_slice() else {
            panic!("{list:?}")
        };
        assert_eq!(
            (
                condition.type_.as_str(),
                condition.status.as_str(),
                condition.message.as_str()
            ),
            (
                "NotInEffect",
                "True",
                "does not apply to this kind, and is ignored: spec.jobConfig.backoffLimit, spec.jobConfig.concurrencyPolicy"
            )
        );
        set_condition(&mut list, &[], Some(3), Timestamp::UNIX_EPOCH);
        assert!(list.is_empty());
    }
}
