//! The gate itself: what is written to a Job to open and to shut it, and to its pod to say that the lease goes on.

use std::sync::Arc;

use crds::names;
use k8s_openapi::api::batch::v1::Job as ApiJob;
use k8s_openapi::api::core::v1::Pod;
use proto::v1::RetentionRun;
use serde_json::{Value, json};
use tracing::info;

use super::RetentionKind;
use super::drive::{Operation, Scene};
use crate::apply::ApplyError;
use crate::maintenance::holder::Phase;
use crate::world::{JobView, Key, PodView};

/// Longest order, in bytes: all annotations of an object together hold 256 KiB.
const ORDER_MAX: usize = 200 << 10;

/// A run as its pod reads it: JSON without what is zero or empty.
///
/// # Errors
/// When it is too long for an annotation.
pub(super) fn order(run: &RetentionRun) -> Result<String, String> {
    let value = serde_json::to_value(run).map_err(|e| e.to_string())?;
    let text = compact(value).to_string();
    if text.len() > ORDER_MAX {
        return Err(format!(
            "the run would be of {} policies in {} clusters, {} KiB as text; a Job takes {}: bind fewer to this repository",
            run.policies.len(),
            run.clusters.len(),
            text.len() >> 10,
            ORDER_MAX >> 10
        ));
    }
    Ok(text)
}

fn compact(value: Value) -> Value {
    let says_something = |value: &Value| match value {
        Value::Null => false,
        Value::Bool(value) => *value,
        Value::Number(number) => number.as_f64() != Some(0.0),
        Value::String(text) => !text.is_empty(),
        Value::Array(list) => !list.is_empty(),
        Value::Object(fields) => !fields.is_empty(),
    };
    match value {
        Value::Object(fields) => {
            let fields = fields.into_iter().map(|(name, value)| (name, compact(value)));
            Value::Object(fields.filter(|(_, value)| says_something(value)).collect())
        }
        Value::Array(list) => Value::Array(list.into_iter().map(compact).collect()),
        other => other,
    }
}

impl RetentionKind {
    /// What to do under a grant: what the hub says, or without one the policies of this cluster.
    pub(super) fn run_of(&self, scene: &Scene<'_>, run: Option<RetentionRun>) -> RetentionRun {
        run.unwrap_or_else(|| RetentionRun {
            restic_id: scene.restic_id.to_owned(),
            policies: self.own_policies(scene.restic_id),
            clusters: vec![self.context.cluster.clone()],
            approved: scene.job.view.approved.as_deref().unwrap_or_default().to_owned(),
            baseline: self.own_baseline(scene.restic_id),
            ..Default::default()
        })
    }

    /// Opens the gate: one patch with the token, the lease's life and what to do.
    pub(super) async fn open(
        &self,
        scene: &Scene<'_>,
        operation: &Operation,
        token: u64,
    ) -> Result<(), ApplyError> {
        let Phase::Held(lease) = operation.holder.phase() else {
            return Ok(());
        };
        let Some(order) = &operation.order else {
            return Ok(());
        };
        info!(object = scene.source, job = %scene.job.key, token, "the maintenance gate is opened");
        let annotations = json!({
            names::ANNOTATION_TOKEN: token.to_string(),
            names::ANNOTATION_LEASE_TTL: lease.ttl.to_string(),
            names::ANNOTATION_LEASE_RENEW: lease.renew.to_string(),
            names::ANNOTATION_RENEWALS: "0",
            names::ANNOTATION_RETENTION_RUN: order,
        });
        let patch = json!({ "spec": { "suspend": false, "template": { "metadata": { "annotations": annotations } } } });
        self.patch_job(scene, &patch).await
    }

    /// Shuts the gate: Kubernetes ends the Job's pods with their grace period.
    pub(super) async fn shut(&self, scene: &Scene<'_>) -> Result<(), ApplyError> {
        info!(object = scene.source, job = %scene.job.key, "the maintenance gate is shut");
        self.patch_job(scene, &json!({ "spec": { "suspend": true } }))
            .await
    }

    async fn patch_job(&self, scene: &Scene<'_>, patch: &Value) -> Result<(), ApplyError> {
        let at = &scene.job.key;
        match self.context.applier.merge::<ApiJob>(at, patch).await {
            Ok(written) => {
                self.context
                    .world
                    .jobs
                    .put(at.clone(), Arc::new(JobView::of(&written)));
                Ok(())
            }
            // Its end is on its way through the watch.
            Err(ApplyError::Gone(_)) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Tells a pod that the lease was renewed.
    pub(super) async fn count_renewal(&self, at: &Key, pod: &PodView) -> Result<(), ApplyError> {
        let next = pod.renewals + 1;
        let patch =
            json!({ "metadata": { "annotations": { names::ANNOTATION_RENEWALS: next.to_string() } } });
        match self.context.applier.merge::<Pod>(at, &patch).await {
            Ok(written) => {
                self.context
                    .world
                    .pods
                    .put(at.clone(), Arc::new(PodView::of(&written)));
                Ok(())
            }
            Err(ApplyError::Gone(_)) => Ok(()),
            Err(error) => Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use proto::v1::{RetentionPolicySpec, RetentionRule};

    use super::*;

    fn run(policies: usize) -> RetentionRun {
        let policy = |n| RetentionPolicySpec {
            source: format!("cluster-{n}/shop/nightly"),
            generation: 3,
            rules: vec![RetentionRule {
                keep_daily: 7,
                ..RetentionRule::default()
            }],
            max_removed_percent: 0,
            ..RetentionPolicySpec::default()
        };
        RetentionRun {
            restic_id: "a".repeat(64),
            policies: (0..policies).map(policy).collect(),
            ..RetentionRun::default()
        }
    }

    #[test]
    fn an_order_is_short_and_reads_as_it_was_meant() {
        let text = order(&run(1000)).unwrap();
        assert!(text.len() < 100 * 1000, "{}", text.len());
        let read: RetentionRun = serde_json::from_str(&text).unwrap();
        assert_eq!(read, run(1000));
    }

    #[test]
    fn what_does_not_fit_into_a_job_is_refused() {
        assert!(order(&run(10_000)).unwrap_err().contains("10000 policies"));
    }
}
