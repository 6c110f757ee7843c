//! What a grantor asks for is done: records are made durable, and spokes answered.

use std::collections::VecDeque;
use std::sync::Arc;

use proto::v1::hub_message::Body;
use proto::v1::{LeaseGrant, LeaseReleased, LeaseRenewed, LeaseRevoke};
use tracing::info;

use super::given::Withheld;
use super::grantor::{Effect, Grant, Holder, Operation, Record};
use super::keeper::{Keeper, Reply};
use crate::store::{StoredGrant, StoredLock};

impl Keeper {
    /// Does what a grantor asks for, in order. What follows a record that could not be kept is not done.
    pub(super) async fn carry_out(&mut self, id: &Arc<str>, effects: Vec<Effect>, mut reply: Reply) {
        let mut queue: VecDeque<Effect> = effects.into();
        while let Some(effect) = queue.pop_front() {
            match effect {
                Effect::Commit { record, grant } => {
                    let granted = match &grant {
                        None => None,
                        Some(grant) => match self.granted(id, grant).await {
                            Ok(granted) => Some(granted),
                            Err(reason) => return self.decline(id, grant, &reason),
                        },
                    };
                    if !self.keep_record(id, &record, granted).await {
                        let now = self.now();
                        if let Some(repository) = self.repositories.get_mut(id) {
                            repository.grantor.failed(now);
                        }
                        return;
                    }
                    let (now, terms) = (self.now(), self.settings.terms);
                    if let Some(grant) = grant
                        && let Some(repository) = self.repositories.get_mut(id)
                    {
                        queue.extend(repository.grantor.committed(grant.token, now, &terms));
                    }
                }
                Effect::Grant(grant) => queue.extend(self.answer_grant(id, &grant).await),
                Effect::Renewed { operation, token } => {
                    let renewed = LeaseRenewed {
                        operation: operation.id.to_string(),
                        token,
                        seq: reply.seq,
                        restic_id: id.to_string(),
                        run: reply.run.take(),
                    };
                    self.send(&operation.cluster, Body::LeaseRenewed(renewed));
                }
                Effect::Revoke {
                    operation,
                    token,
                    reason,
                } => self.send(&operation.cluster, revocation(id, &operation, token, reason)),
                Effect::Released { operation, token } => {
                    let released = LeaseReleased {
                        operation: operation.id.to_string(),
                        token,
                        restic_id: id.to_string(),
                    };
                    self.send(&operation.cluster, Body::LeaseReleased(released));
                }
            }
        }
    }

    /// A grant that is not on disk yet is not made: nothing can be given to its operation.
    fn decline(&mut self, id: &Arc<str>, grant: &Grant, reason: &Withheld) {
        let now = self.now();
        self.repository(id).grantor.failed(now);
        // It waits now, so there are no effects.
        self.withhold(id, &grant.operation, u64::MAX, reason);
    }

    /// Keeps a record; a grant together with its entry in the audit, a person's decision with what it did.
    async fn keep_record(&mut self, id: &Arc<str>, record: &Record, granted: Option<StoredGrant>) -> bool {
        let lock = StoredLock {
            restic_id: id.to_string(),
            token: record.token,
            holder: record.holder.as_ref().map(|holder| match holder {
                Holder::Known(o) => (o.cluster.to_string(), o.id.to_string(), o.subject.to_string()),
                Holder::Unknown => Default::default(),
            }),
            delayed: record.delayed,
            revoked: record.revoked,
        };
        let decision = self.deciding.take();
        let timer = self.hub.metrics.commit_seconds.start_timer();
        let result = self.store.save_lock(lock, granted, decision).await;
        timer.observe_duration();
        match result {
            Ok(()) => true,
            Err(error) => {
                self.failed(error, &format!("the lock of {id} could not be made durable"));
                false
            }
        }
    }

    /// Answers a grant that is on disk, with what the operation is to do.
    async fn answer_grant(&mut self, id: &Arc<str>, grant: &Grant) -> Vec<Effect> {
        let operation = &grant.operation;
        let key = (operation.cluster.clone(), operation.id.clone());
        let kept = self.repositories.get(id).and_then(|r| r.run.clone());
        let given = match kept {
            Some((token, run)) if token == grant.token => Ok(run),
            // Granted before the hub's last restart.
            _ => self.given(id, &key, &[]).await,
        };
        let run = match given {
            Ok(run) => run,
            Err(reason) => {
                let opened = self.asks.get(&key).map_or(u64::MAX, |asked| asked.ask.seen_token);
                return self.withhold(id, operation, opened, &reason);
            }
        };
        info!(repository = %id, cluster = %operation.cluster, subject = %operation.subject, token = grant.token, "lock granted");
        let message = LeaseGrant {
            operation: operation.id.to_string(),
            token: grant.token,
            ttl_ms: self.settings.terms.ttl,
            renew_ms: self.settings.renew,
            run,
            restic_id: id.to_string(),
        };
        self.send(&operation.cluster, Body::LeaseGrant(message));
        Vec::new()
    }
}

fn revocation(id: &Arc<str>, operation: &Operation, token: u64, reason: &str) -> Body {
    Body::LeaseRevoke(LeaseRevoke {
        operation: operation.id.to_string(),
        token,
        reason: reason.to_owned(),
        restic_id: id.to_string(),
        by_person: reason == super::grantor::TAKEN_BACK,
    })
}
