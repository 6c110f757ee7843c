//! The patches that open and shut a Job, and that count a renewal on its pod.

use std::sync::Arc;

use crds::names;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Pod;
use proto::order::{ORDER_MAX, order_text};
use serde::Serialize;
use serde_json::{Value, json};
use tracing::info;

use super::actor::Operations;
use super::record::Record;
use crate::apply::ApplyError;
use crate::maintenance::holder::{Lease, Phase};
use crate::world::{JobView, Key, PodView};

/// The kubelet writes to the same pod: a conflict is tried again with the pod as it is then.
const CONFLICTS: u32 = 4;

/// What a pod is to do, as its annotation holds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Order {
    /// JSON without what is zero or empty.
    pub text: String,
    /// proto::digest::run_hash of a retention run; empty for other operations.
    pub hash: Vec<u8>,
}

/// An order out of its message.
///
/// # Errors
/// When it is too long for an annotation.
pub fn order(message: &impl Serialize, hash: Vec<u8>, what: &str) -> Result<Order, String> {
    let text = order_text(message).map_err(|e| e.to_string())?;
    if text.len() > ORDER_MAX {
        return Err(format!(
            "the run would be of {what}, {} KiB as text; a Job takes {}: bind fewer to this repository",
            text.len() >> 10,
            ORDER_MAX >> 10
        ));
    }
    Ok(Order { text, hash })
}

impl Operations {
    /// Opens the gate: one patch with the token, the lease's life and the order.
    pub(super) async fn open(&self, record: &Record, token: u64) -> Result<(), ApplyError> {
        let (Phase::Held(lease), Some(order)) = (record.holder.phase(), &record.order) else {
            return Ok(());
        };
        info!(job = %record.pinned.job, token, "the maintenance gate is opened");
        let annotations = json!({
            names::ANNOTATION_TOKEN: token.to_string(),
            names::ANNOTATION_LEASE_TTL: lease.ttl.to_string(),
            names::ANNOTATION_LEASE_RENEW: lease.renew.to_string(),
            names::ANNOTATION_RENEWALS: "0",
            names::ANNOTATION_ORDER: order.text,
            names::ANNOTATION_ORDER_HASH: hex::encode(&order.hash),
        });
        let patch = json!({
            "metadata": { "uid": record.pinned.operation },
            "spec": { "suspend": false, "template": { "metadata": { "annotations": annotations } } },
        });
        self.patch_job(record, &patch).await
    }

    /// Shuts the gate for good: Kubernetes ends the Job's pods with their grace period. The reason stays on the Job.
    pub(super) async fn shut(&self, record: &Record, reason: &str, message: &str) -> Result<(), ApplyError> {
        info!(job = %record.pinned.job, reason, message, "the maintenance gate is shut");
        let annotations =
            json!({ names::ANNOTATION_SHUT_REASON: reason, names::ANNOTATION_SHUT_MESSAGE: message });
        let patch = json!({
            "metadata": { "uid": record.pinned.operation, "annotations": annotations },
            "spec": { "suspend": true },
        });
        self.patch_job(record, &patch).await
    }

    /// Adds annotations to the Job itself.
    pub(super) async fn annotate(&self, record: &Record, annotations: &Value) -> Result<(), ApplyError> {
        let patch = json!({ "metadata": { "uid": record.pinned.operation, "annotations": annotations } });
        self.patch_job(record, &patch).await
    }

    async fn patch_job(&self, record: &Record, patch: &Value) -> Result<(), ApplyError> {
        let at = &record.pinned.job;
        match self.context.applier.merge::<Job>(at, patch).await {
            Ok(written) => {
                let jobs = &self.context.world.jobs;
                jobs.put(at.clone(), Arc::new(JobView::of(&written)));
                Ok(())
            }
            // Its end is on its way through the watch; a conflict means another Job under the name.
            Err(ApplyError::Gone(_) | ApplyError::Conflict(_)) => Ok(()),
            Err(ApplyError::Invalid(text)) if text.contains("metadata.uid") => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Counts a renewal on the pods that run under the lease, and gives them the newer order if there is one. The pod's
    /// version is in the patch: a leader that was paused since cannot count for a lease that it has lost meanwhile.
    pub(super) async fn count(&self, record: &mut Record) -> Result<(), ApplyError> {
        let Phase::Held(lease) = record.holder.phase() else {
            return Ok(());
        };
        let group = Key::new("", &record.pinned.operation);
        for (at, pod) in self.context.world.pods.group(&group) {
            if pod.is_active() && pod.started {
                self.count_on(record, lease, &at, pod).await?;
            }
        }
        if let Some(newer) = record.newer.take() {
            record.order = Some(newer);
        }
        Ok(())
    }

    async fn count_on(
        &self,
        record: &Record,
        lease: &Lease,
        at: &Key,
        mut pod: Arc<PodView>,
    ) -> Result<(), ApplyError> {
        let applier = &self.context.applier;
        for _ in 0..CONFLICTS {
            let in_time = lease
                .deadline
                .is_some_and(|deadline| self.context.clock.since_boot() < deadline);
            if pod.token != Some(lease.token) || !in_time {
                return Ok(());
            }
            match applier.merge::<Pod>(at, &renewal(&pod, record)).await {
                Ok(written) => {
                    self.context
                        .world
                        .pods
                        .put(at.clone(), Arc::new(PodView::of(&written)));
                    return Ok(());
                }
                Err(ApplyError::Gone(_)) => return Ok(()),
                Err(ApplyError::Conflict(_)) => match applier.get::<Pod>(at).await? {
                    Some(present) if present.metadata.uid.as_deref() == Some(&*pod.meta.uid) => {
                        pod = Arc::new(PodView::of(&present));
                    }
                    _ => return Ok(()),
                },
                Err(error) => return Err(error),
            }
        }
        // The next renewal counts again.
        Ok(())
    }
}

/// The patch for one renewal.
fn renewal(pod: &PodView, record: &Record) -> Value {
    let next = pod.renewals + 1;
    let mut annotations = json!({ names::ANNOTATION_RENEWALS: next.to_string() });
    if let Some(newer) = &record.newer {
        annotations[names::ANNOTATION_ORDER] = json!(newer.text);
        annotations[names::ANNOTATION_ORDER_HASH] = json!(hex::encode(&newer.hash));
    }
    json!({ "metadata": {
        "uid": &*pod.meta.uid, "resourceVersion": pod.meta.version.to_string(), "annotations": annotations,
    } })
}

#[cfg(test)]
mod tests {
    use proto::v1::{RetentionPolicySpec, RetentionRule, RetentionRun};

    use super::*;
    use crate::exchange::Pinned;
    use crate::maintenance::holder::Holder;

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
        let text = order(&run(1000), Vec::new(), "1000 policies").unwrap().text;
        assert!(text.len() < 100 * 1000, "{}", text.len());
        let read: RetentionRun = serde_json::from_str(&text).unwrap();
        assert_eq!(read, run(1000));
    }

    #[test]
    fn what_does_not_fit_into_a_job_is_refused() {
        let refused = order(&run(10_000), Vec::new(), "10000 policies").unwrap_err();
        assert!(refused.contains("10000 policies"));
    }

    #[test]
    fn a_renewal_names_the_version_of_the_pod_and_carries_the_newer_order() {
        let pinned = Pinned {
            operation: "job".to_owned(),
            job_type: "retention".to_owned(),
            job: Key::new("ns", "job"),
            owner: Key::new("ns", "p"),
            owner_uid: "p".to_owned(),
            repository: Key::new("ns", "r"),
            restic_id: "id".to_owned(),
        };
        let mut record = Record::new(pinned, Holder::new(), 0, 0);
        let mut pod = PodView {
            renewals: 4,
            ..PodView::default()
        };
        pod.meta.version = 71;
        pod.meta.uid = "pod".into();
        let patch = renewal(&pod, &record);
        assert_eq!(patch["metadata"]["resourceVersion"], "71");
        let annotations = &patch["metadata"]["annotations"];
        assert_eq!(annotations[names::ANNOTATION_RENEWALS], "5");
        assert!(annotations.get(names::ANNOTATION_ORDER).is_none());
        record.newer = Some(order(&run(1), vec![1, 2], "one").unwrap());
        let patch = renewal(&pod, &record);
        let annotations = &patch["metadata"]["annotations"];
        assert_eq!(annotations[names::ANNOTATION_ORDER_HASH], "0102");
        assert!(
            annotations[names::ANNOTATION_ORDER]
                .as_str()
                .unwrap()
                .contains("cluster-0")
        );
    }
}
