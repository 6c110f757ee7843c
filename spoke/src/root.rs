//! Root of the actor tree: the supervisors of the kinds, and the supervisor of the services. A supervisor that dies takes
//! the process down, and Kubernetes starts it anew: the outermost supervisor is the kubelet.

use std::sync::Arc;
use std::time::Duration;

use ractor::{Actor, ActorCell, ActorProcessingErr, ActorRef, SupervisionEvent};
use tracing::{error, warn};

use crate::context::Context;
use crate::kind::{Kind, KindHandle, Kinds, Supervisor};
use crate::service::{Fatal, ServicesHandle, Stage};

/// Turns under way may end within this time; the pod's grace period must be longer.
const STOP_LIMIT: Duration = Duration::from_secs(25);

/// The root: it starts nothing itself, and looks at the ends of what was started below it.
pub struct Root {
    pub fatal: Fatal,
}

impl Actor for Root {
    type Msg = ();
    type State = ();
    type Arguments = ();

    async fn pre_start(&self, _: ActorRef<()>, (): ()) -> Result<(), ActorProcessingErr> {
        Ok(())
    }

    async fn handle_supervisor_evt(
        &self,
        _: ActorRef<()>,
        event: SupervisionEvent,
        (): &mut (),
    ) -> Result<(), ActorProcessingErr> {
        if let SupervisionEvent::ActorFailed(_, cause) = event {
            error!(%cause, "a supervisor died");
            self.fatal.fail(format!(
                "a supervisor died, so that Kubernetes has to start a new process: {cause}"
            ));
        }
        Ok(())
    }
}

/// Starts the supervisor of a kind below `root`. It has no actors before this replica leads.
///
/// # Errors
/// When it cannot be started.
pub async fn supervise<K: Kind>(
    root: ActorCell,
    context: &Arc<Context>,
    kind: Arc<K>,
) -> anyhow::Result<KindHandle> {
    let context = context.clone();
    let started = Actor::spawn_linked(None, Supervisor { kind, context }, (), root).await;
    let (actor, _) =
        started.map_err(|error| anyhow::anyhow!("the actors of {} do not start: {error}", K::NAME))?;
    Ok(KindHandle::new(actor))
}

/// Everything that runs, for its end.
pub struct Tree {
    pub root: ActorRef<()>,
    pub kinds: Kinds,
    pub services: ServicesHandle,
}

impl Tree {
    /// Ends everything in order: nothing wakes actors any more; turns under way end; what they sent goes out; the leader's
    /// Lease is given back after the last write.
    pub async fn stop(self) {
        self.services.stop(Stage::Intake).await;
        if tokio::time::timeout(STOP_LIMIT, self.kinds.follow())
            .await
            .is_err()
        {
            warn!(limit = ?STOP_LIMIT, "turns under way did not end in time");
        }
        for stage in [Stage::Edge, Stage::Election, Stage::Admin] {
            self.services.stop(stage).await;
        }
        // Everything below it has ended; an error means that it has as well.
        let _ = self.root.stop_and_wait(None, Some(STOP_LIMIT)).await;
    }
}
