//! What a grantor asks for is done: records are made durable, grants composed, and spokes answered.

use std::collections::VecDeque;
use std::sync::Arc;

use proto::v1::hub_message::Body;
use proto::v1::{LeaseGrant, LeaseReleased, LeaseRenewed, LeaseRevoke, OperationKind, RetentionRun};
use tracing::{info, warn};

use super::grantor::{Effect, Grant, Holder, Record};
use super::keeper::{Keeper, Reply};
use super::run;
use crate::now as wall_clock;
use crate::store::{StoredAudit, StoredGrant, StoredLock};

impl Keeper {
    /// Does what a grantor asks for, in order. What follows a record that could not be kept is not done.
    pub(super) async fn carry_out(&mut self, id: &Arc<str>, effects: Vec<Effect>, mut reply: Reply) {
        let mut queue: VecDeque<Effect> = effects.into();
        while let Some(effect) = queue.pop_front() {
            match effect {
                Effect::Commit { record, grant } => {
                    if !self.keep_record(id, &record, grant.as_ref()).await {
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
                Effect::Grant(grant) => queue.extend(self.tell_grant(id, &grant)),
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
                } => {
                    let revoke = LeaseRevoke {
                        operation: operation.id.to_string(),
                        token,
                        reason: reason.to_owned(),
                        restic_id: id.to_string(),
                        by_person: reason == super::grantor::TAKEN_BACK,
                    };
                    self.send(&operation.cluster, Body::LeaseRevoke(revoke));
                }
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

    /// Keeps a record; a grant together with its entry in the audit, a person's decision with what it did.
    async fn keep_record(&mut self, id: &Arc<str>, record: &Record, grant: Option<&Grant>) -> bool {
        let granted = match grant {
            None => None,
            Some(grant) => Some(self.audit_of(id, grant).await),
        };
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

    async fn audit_of(&mut self, id: &Arc<str>, grant: &Grant) -> StoredGrant {
        let Grant { operation, token, .. } = grant;
        let key = (operation.cluster.clone(), operation.id.clone());
        self.learn_history(id).await;
        let run = self.compose(id, &key).unwrap_or_default();
        let approved = run.approved.clone();
        let audit = StoredAudit {
            restic_id: id.to_string(),
            token: *token,
            cluster: operation.cluster.to_string(),
            operation: operation.id.to_string(),
            subject: operation.subject.to_string(),
            granted: wall_clock(),
            ended: None,
            policies: run::names(&run),
            covered: Vec::new(),
            outcome: None,
            clusters: run.clusters.clone(),
            plan: String::new(),
        };
        if let Some(repository) = self.repositories.get_mut(id) {
            repository.run = Some((*token, run));
        }
        StoredGrant { audit, approved }
    }

    /// Reads what earlier runs of a repository left, once.
    pub(super) async fn learn_history(&mut self, id: &Arc<str>) {
        if self.repository(id).history.is_some() {
            return;
        }
        match self.store.history(id).await {
            Ok(history) => self.repository(id).history = Some(history),
            Err(error) => self.failed(error, "the history of a repository could not be read"),
        }
    }

    /// What an operation is to do as of now; `None` when it is no retention run, or the hub does not know it.
    pub(super) fn compose(&self, id: &Arc<str>, key: &(Arc<str>, Arc<str>)) -> Option<RetentionRun> {
        let (_, ask) = self.asks.get(key)?;
        let retention = [OperationKind::Retention, OperationKind::Unspecified].contains(&ask.kind());
        // Without the history clusters that are new could not be told from others.
        let history = self.repositories.get(id)?.history.as_ref()?;
        retention.then(|| {
            self.hub
                .read(|inventory| run::compose(inventory, history, id, &ask.approved))
        })
    }

    fn tell_grant(&mut self, id: &Arc<str>, grant: &Grant) -> Vec<Effect> {
        let kept = self.repositories.get(id).and_then(|r| r.run.clone());
        let key = (grant.operation.cluster.clone(), grant.operation.id.clone());
        let run = match kept {
            Some((token, run)) if token == grant.token => Some(run).filter(|run| !run.restic_id.is_empty()),
            // Granted before the hub's last restart.
            _ => self.compose(id, &key),
        };
        if let Some(reason) = run.as_ref().and_then(run::too_long) {
            // It has grown while the operation waited. The grant was never told, so it is free at once.
            warn!(repository = %id, cluster = %key.0, reason, "a run does not fit into a pod");
            self.block(id, &key, reason);
            let repository = self.repository(id);
            return repository.grantor.withdraw(&grant.operation, grant.token - 1);
        }
        info!(repository = %id, cluster = %grant.operation.cluster, subject = %grant.operation.subject, token = grant.token, "lock granted");
        let message = LeaseGrant {
            operation: grant.operation.id.to_string(),
            token: grant.token,
            ttl_ms: self.settings.terms.ttl,
            renew_ms: self.settings.renew,
            run,
            restic_id: id.to_string(),
        };
        self.send(&grant.operation.cluster, Body::LeaseGrant(message));
        Vec::new()
    }
}
