//! What is left when a Job, or its policy, is deleted on its way: what waits is withdrawn, and what was held is given
//! back when no pod is left.

use std::sync::Arc;
use std::time::Duration;

use proto::v1::{LeaseRelease, OperationOutcome};

use super::drive::{input, observe_pods};
use super::{Memory, RetentionKind};
use crate::context::Context;
use crate::maintenance::Claim;
use crate::maintenance::holder::{Effect, Input, Observed, Phase};
use crate::worker::since_boot;
use crate::world::Key;

/// How often the pods of a deleted policy are looked for.
const BURY_LOOK: Duration = Duration::from_millis(500);

impl RetentionKind {
    /// Operations whose Job is not there any more. What they held is given back when no pod of theirs is left.
    pub(super) fn forget_gone(&self, memory: &mut Memory, present: &[&str], restic_id: &str) {
        let gone: Vec<Box<str>> = memory
            .operations
            .keys()
            .filter(|uid| !present.contains(&&***uid))
            .cloned()
            .collect();
        for uid in gone {
            let Some(operation) = memory.operations.get_mut(&uid) else {
                continue;
            };
            let pods = observe_pods(&self.context.world, &uid);
            let observed = Observed {
                ended: !pods.pods,
                suspended: true,
                ..pods
            };
            let inputs: Vec<Input> = operation.events.drain(..).filter_map(|e| input(&e)).collect();
            for input in inputs.into_iter().chain([Input::Look]) {
                for effect in operation.holder.step(input, observed, since_boot()) {
                    match effect {
                        Effect::Withdraw { opened } => self.context.leases.withdraw(&uid, restic_id, opened),
                        Effect::Renew { token, seq } => {
                            self.context.leases.renew(&uid, restic_id, token, seq)
                        }
                        Effect::Release { token } => self.context.leases.release(LeaseRelease {
                            operation: uid.to_string(),
                            restic_id: restic_id.to_owned(),
                            token,
                            outcome: Some(interrupted("JobDeleted", "its Job was deleted")),
                            plan: Vec::new(),
                            ..Default::default()
                        }),
                        _ => {}
                    }
                }
            }
            if matches!(operation.holder.phase(), Phase::Done(_)) {
                self.let_go(&uid);
                memory.operations.remove(&uid);
            }
        }
    }

    /// A policy is gone: what its Jobs wait for is withdrawn, and what they hold is given back when their pods, which
    /// Kubernetes removes with them, are gone.
    pub(super) fn bury(&self, policy: &str) {
        for claim in self.context.leases.claims(policy) {
            tokio::spawn(bury(self.context.clone(), claim));
        }
    }

    /// Nothing more will be heard of a Job.
    pub(super) fn let_go(&self, uid: &str) {
        let_go(&self.context, uid);
    }
}

async fn bury(context: Arc<Context>, claim: Claim) {
    let uid = claim.operation.as_str();
    let Some(token) = claim.token else {
        context.leases.withdraw(uid, &claim.restic_id, 0);
        return let_go(&context, uid);
    };
    let mut pods = observe_pods(&context.world, uid);
    while pods.pods {
        tokio::time::sleep(BURY_LOOK).await;
        pods = observe_pods(&context.world, uid);
    }
    // Lost with a lost connection: then the lease expires, as that of a pod whose end was not seen.
    if pods.lost != Some(token) {
        context.leases.release(LeaseRelease {
            operation: claim.operation.clone(),
            restic_id: claim.restic_id.clone(),
            token,
            outcome: Some(interrupted("PolicyDeleted", "its policy was deleted")),
            plan: Vec::new(),
            ..Default::default()
        });
    }
    // It may have asked again since.
    context.leases.withdraw(uid, &claim.restic_id, token);
    let_go(&context, uid);
}

fn let_go(context: &Context, uid: &str) {
    context.leases.forget(uid);
    context.world.pods.forget(&Key::new("", uid));
}

fn interrupted(reason: &str, message: &str) -> OperationOutcome {
    OperationOutcome {
        result: "Interrupted".to_owned(),
        reason: reason.to_owned(),
        message: message.to_owned(),
        ..OperationOutcome::default()
    }
}
