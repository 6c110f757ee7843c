//! ResticRepositories as owners of changes of their keys.

use std::sync::Arc;

use jiff::Timestamp;
use proto::v1::{OperationKind, RetentionRun};

use super::super::owner::{assigned_by_owner, pinned_to};
use super::{KEY, step};
use crate::closed;
use crate::context::Context;
use crate::exchange::Pinned;
use crate::operation::{Assignment, Closed, Order, Owner, order};
use crate::world::{JobView, Key};

/// Repositories as owners.
pub struct KeyOwner {
    context: Arc<Context>,
}

impl KeyOwner {
    /// The repositories of this cluster.
    #[must_use]
    pub fn new(context: Arc<Context>) -> KeyOwner {
        KeyOwner { context }
    }
}

impl Owner for KeyOwner {
    fn job_type(&self) -> &'static str {
        KEY
    }

    fn kind(&self) -> OperationKind {
        OperationKind::Key
    }

    fn assignment(&self, at: &Key, job: &JobView) -> Option<Assignment> {
        assigned_by_owner(&self.context.world, at, job)
    }

    fn subject(&self, pinned: &Pinned) -> String {
        format!("key {}", pinned.owner)
    }

    fn order(&self, pinned: &Pinned, job: &JobView, run: Option<RetentionRun>) -> Result<Order, String> {
        let repository = pinned_to(&self.context.world, pinned);
        let repository = repository.ok_or("the ResticRepository does not exist any more")?;
        let key = step::order(&repository, &pinned.restic_id)
            .ok_or("no change of the password is under way any more")?;
        // The grantor was asked about what the Job names, and about nothing else.
        if job.removes_key.as_deref().unwrap_or_default() != key.remove {
            return Err("the Job is for another step of the change of the password".to_owned());
        }
        // One that does not know this operation takes it for retention, and has not compared the keys of the clusters.
        if run.is_some() && !key.remove.is_empty() {
            return Err(
                "the hub is older than this operator and does not know which cluster uses which key: upgrade it"
                    .to_owned(),
            );
        }
        order(&key, Vec::new(), "one key")
    }

    fn closed(&self, pinned: &Pinned, now: Timestamp) -> Option<Closed> {
        let repository = pinned_to(&self.context.world, pinned)?;
        closed::read_only(&pinned.repository, &repository, now)
    }

    fn is_recorded(&self, pinned: &Pinned) -> bool {
        let Some(repository) = pinned_to(&self.context.world, pinned) else {
            return true;
        };
        let rotation = repository
            .status
            .as_ref()
            .and_then(|s| s.password_rotation.as_ref());
        rotation.is_none_or(|rotation| rotation.job_uid.as_deref() == Some(&pinned.operation))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::testing::ApiServer;
    use crate::testing::restic::MemoryRestic;
    use crate::testing::spoke::{SHOP, Spoke, furnish};
    use crate::world::Stored as _;

    #[tokio::test(start_paused = true)]
    async fn no_password_is_changed_of_a_repository_that_is_read_only() {
        let (api, memory) = (ApiServer::new(), Arc::new(MemoryRestic::default()));
        furnish(&api);
        let spoke = Spoke::start(&api, &memory).await;
        let at = Key::new(SHOP, "nas");
        let repository = api
            .until("the repository", |_| spoke.context.world.repositories.get(&at))
            .await;
        let pinned = Pinned {
            operation: "job-uid".to_owned(),
            job_type: KEY.to_owned(),
            job: Key::new(SHOP, "key"),
            owner: at.clone(),
            owner_uid: repository.uid().to_owned(),
            repository: at,
            restic_id: String::new(),
        };
        let owner = KeyOwner::new(spoke.context.clone());
        assert_eq!(owner.closed(&pinned, Timestamp::now()), None);
        api.edit::<crds::ResticRepository>(SHOP, "nas", |nas| nas["spec"]["readOnly"] = json!(true));
        let closed = api
            .until("a reason to wait", |_| owner.closed(&pinned, Timestamp::now()))
            .await;
        assert!(closed.text.contains("shop/nas is read-only"), "{}", closed.text);
        spoke.stop().await;
    }
}
