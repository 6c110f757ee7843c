//! Root of the actor tree: one supervisor per kind. A supervisor that dies takes the process down, and Kubernetes
//! starts it anew: the outermost supervisor is the kubelet.

use std::sync::Arc;
use std::time::Duration;

use ractor::{Actor, ActorProcessingErr, ActorRef, SupervisionEvent};
use tokio_util::sync::CancellationToken;
use tracing::error;

use crate::backup::BackupController;
use crate::context::Context;
use crate::kind::{Driver, Kind, KindHandle, Supervisor};
use crate::operation::Operations;
use crate::repository::RepositoryController;
use crate::restore::RestoreController;
use crate::retention::RetentionController;

/// What the root needs to start its kinds.
pub struct Root {
    pub context: Arc<Context>,
    pub repository: Arc<Driver<RepositoryController>>,
    pub backup: Arc<Driver<BackupController>>,
    pub restore: Arc<Driver<RestoreController>>,
    pub retention: Arc<Driver<RetentionController>>,
    pub operations: Arc<Operations>,
    /// Cancelled when a supervisor dies.
    pub failed: CancellationToken,
}

/// Supervisors by kind.
#[derive(Clone)]
pub struct Kinds {
    pub repositories: KindHandle,
    pub backups: KindHandle,
    pub restores: KindHandle,
    pub policies: KindHandle,
    pub operations: KindHandle,
}

impl Kinds {
    /// This replica leads: actors start.
    pub fn lead(&self) {
        for kind in self.all() {
            kind.lead();
        }
    }

    /// This replica no longer leads. Resolves when no actor is left.
    pub async fn follow(&self) {
        futures::future::join_all(self.all().map(KindHandle::follow)).await;
    }

    // Operations first: their owners' first turns find what they publish.
    fn all(&self) -> [&KindHandle; 5] {
        [
            &self.operations,
            &self.repositories,
            &self.backups,
            &self.restores,
            &self.policies,
        ]
    }
}

/// Asked once by `main` for the handles.
pub enum RootMessage {
    Kinds(tokio::sync::oneshot::Sender<Kinds>),
}

impl Actor for Root {
    type Msg = RootMessage;
    type State = Kinds;
    type Arguments = ();

    async fn pre_start(
        &self,
        myself: ActorRef<Self::Msg>,
        (): (),
    ) -> Result<Self::State, ActorProcessingErr> {
        Ok(Kinds {
            repositories: self.start(&myself, self.repository.clone()).await?,
            backups: self.start(&myself, self.backup.clone()).await?,
            restores: self.start(&myself, self.restore.clone()).await?,
            policies: self.start(&myself, self.retention.clone()).await?,
            operations: self.start(&myself, self.operations.clone()).await?,
        })
    }

    async fn handle(
        &self,
        _: ActorRef<Self::Msg>,
        RootMessage::Kinds(reply): Self::Msg,
        kinds: &mut Self::State,
    ) -> Result<(), ActorProcessingErr> {
        // An error means that nobody waits for the answer any more.
        let _ = reply.send(kinds.clone());
        Ok(())
    }

    async fn handle_supervisor_evt(
        &self,
        _: ActorRef<Self::Msg>,
        event: SupervisionEvent,
        _: &mut Self::State,
    ) -> Result<(), ActorProcessingErr> {
        if let SupervisionEvent::ActorFailed(_, cause) = event {
            error!(%cause, "the supervisor of a kind died");
            self.failed.cancel();
        }
        Ok(())
    }

    async fn post_stop(
        &self,
        myself: ActorRef<Self::Msg>,
        _: &mut Self::State,
    ) -> Result<(), ActorProcessingErr> {
        myself
            .stop_children_and_wait(None, Some(Duration::from_secs(25)))
            .await;
        Ok(())
    }
}

impl Root {
    async fn start<K: Kind>(
        &self,
        myself: &ActorRef<RootMessage>,
        kind: Arc<K>,
    ) -> Result<KindHandle, ActorProcessingErr> {
        let supervisor = Supervisor {
            kind,
            context: self.context.clone(),
        };
        let (actor, _) = Actor::spawn_linked(None, supervisor, (), myself.get_cell()).await?;
        Ok(KindHandle::new(actor))
    }
}
