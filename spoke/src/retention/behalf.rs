//! ResticRepositories as owners of retention runs: the hub asks a cluster for one when the cluster of a policy that is due is
//! away. The order is the hub's, with all policies, as that of any other run.

use std::sync::Arc;

use jiff::Timestamp;
use proto::v1::{OperationKind, RetentionRun};

use super::own;
use super::owner::{WITHOUT_RUN, order_of};
use crate::closed;
use crate::context::Context;
use crate::exchange::Pinned;
use crate::operation::{Assignment, BEHALF, Closed, Order, Owner, assigned_by_owner, pinned_to};
use crate::world::{JobView, Key};

/// Repositories as owners.
pub struct BehalfOwner {
    context: Arc<Context>,
}

impl BehalfOwner {
    /// The repositories of this cluster.
    #[must_use]
    pub fn new(context: Arc<Context>) -> BehalfOwner {
        BehalfOwner { context }
    }
}

impl Owner for BehalfOwner {
    fn job_type(&self) -> &'static str {
        BEHALF
    }

    fn kind(&self) -> OperationKind {
        OperationKind::Retention
    }

    fn assignment(&self, at: &Key, job: &JobView) -> Option<Assignment> {
        assigned_by_owner(&self.context.world, at, job)
    }

    fn subject(&self, pinned: &Pinned) -> String {
        format!("retention {}", pinned.owner)
    }

    fn order(&self, pinned: &Pinned, job: &JobView, run: Option<RetentionRun>) -> Result<Order, String> {
        if let Some(text) = own::changed(&self.context.world, &pinned.restic_id) {
            return Err(text);
        }
        // Policies of other clusters are what it is about, and only the hub has them.
        let run = run.ok_or(WITHOUT_RUN)?;
        order_of(&self.context, pinned, job, run)
    }

    fn closed(&self, pinned: &Pinned, now: Timestamp) -> Option<Closed> {
        let repository = pinned_to(&self.context.world, pinned)?;
        let at = &pinned.repository;
        closed::read_only(at, &repository, now).or_else(|| closed::of_repository(at, &repository, now))
    }

    fn is_recorded(&self, pinned: &Pinned) -> bool {
        pinned_to(&self.context.world, pinned).is_none_or(|repository| {
            let status = repository.status.as_ref();
            let known = status.and_then(|status| status.last_retention_on_behalf.as_ref());
            known.is_some_and(|known| known.counted_jobs.contains(&pinned.operation))
        })
    }

    fn has_plan(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::context::test_context;

    fn owner(spec: serde_json::Value, counted: &[&str]) -> BehalfOwner {
        let context = test_context();
        let mut full = json!({ "repositoryURL": "s3:h/b", "credentialsSecretRef": { "name": "nas" } });
        full.as_object_mut()
            .unwrap()
            .extend(spec.as_object().unwrap().clone());
        let repository = json!({
            "apiVersion": "backup.resticbackup.io/v1alpha1", "kind": "ResticRepository",
            "metadata": { "name": "nas", "namespace": "shop", "uid": "r", "resourceVersion": "1" }, "spec": full,
            "status": { "repositoryID": "id",
                        "lastRetentionOnBehalf": { "result": "Applied", "countedJobs": counted } },
        });
        let repository = Arc::new(serde_json::from_value(repository).unwrap());
        context
            .world
            .repositories
            .put(Key::new("shop", "nas"), repository);
        BehalfOwner::new(context)
    }

    fn pinned() -> Pinned {
        Pinned {
            operation: "job".to_owned(),
            job_type: BEHALF.to_owned(),
            job: Key::new("shop", "job"),
            owner: Key::new("shop", "nas"),
            owner_uid: "r".to_owned(),
            repository: Key::new("shop", "nas"),
            restic_id: "id".to_owned(),
        }
    }

    #[tokio::test]
    async fn the_order_is_the_hubs_and_there_is_none_without_it() {
        let owner = owner(json!({}), &[]);
        let job = JobView::default();
        let refused = owner.order(&pinned(), &job, None).unwrap_err();
        assert!(refused.contains("without a run"), "{refused}");
        let run = |id: &str| {
            Some(RetentionRun {
                restic_id: id.to_owned(),
                ..RetentionRun::default()
            })
        };
        assert!(owner.order(&pinned(), &job, run("other")).is_err());
        assert!(owner.order(&pinned(), &job, run("id")).is_ok());
    }

    #[tokio::test]
    async fn the_settings_of_the_repository_in_this_cluster_count() {
        let now: Timestamp = "2026-11-26T12:00:00Z".parse().unwrap();
        let closed =
            |spec: serde_json::Value| owner(spec, &[]).closed(&pinned(), now).map(|closed| closed.text);
        assert_eq!(closed(json!({})), None);
        assert!(closed(json!({ "readOnly": true })).unwrap().contains("read-only"));
        let night = json!({ "allowedWindow": { "schedule": "0 22 * * *", "duration": "6h" } });
        assert!(closed(night).unwrap().contains("allowedWindow"));
    }

    #[tokio::test]
    async fn a_result_is_recorded_when_its_job_is_counted() {
        assert!(!owner(json!({}), &["another"]).is_recorded(&pinned()));
        assert!(owner(json!({}), &["another", "job"]).is_recorded(&pinned()));
    }
}
