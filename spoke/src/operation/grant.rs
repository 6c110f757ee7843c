//! What the grantor's messages mean to an operation, and what the operation asks of the grantor.

use proto::v1::{LeaseAsk, LeaseRelease, LeaseRenew, LeaseWithdraw, OperationOutcome, RetentionRun};
use tracing::{info, warn};

use super::actor::Operations;
use super::record::{Ending, RUN_NOT_USABLE, Record};
use crate::apply::ApplyError;
use crate::exchange::{Event, Finished};
use crate::maintenance::claim;
use crate::maintenance::holder::{Input, Phase};
use crate::world::JobView;

impl Operations {
    /// Applies a message of the grantor to the record. Returns what the holder takes in because of it.
    pub(super) async fn apply_event(
        &self,
        record: &mut Record,
        event: Event,
    ) -> Result<Option<Input>, ApplyError> {
        Ok(match event {
            Event::Connected => Some(Input::Connected),
            Event::Away => Some(Input::Look),
            Event::Granted {
                token,
                ttl,
                renew,
                run,
            } => {
                let granted = Input::Granted { token, ttl, renew };
                let usable = self.take_grant(record, token, run).await?;
                Some(if usable { granted } else { Input::Refused { token } })
            }
            Event::Renewed { token, seq, run } => Some(self.take_renewal(record, token, seq, run)),
            Event::Revoked {
                token,
                reason,
                by_person,
            } => {
                if by_person {
                    record.ending = Some(Ending {
                        reason: "TakenBack",
                        message: format!("{reason}; the next run is the next one of the schedule"),
                        again: false,
                    });
                }
                record.waiting = Some(reason);
                Some(Input::Revoked { token })
            }
            Event::Released { token } => Some(Input::Released { token }),
            Event::Waiting { position, reason } => {
                record.waiting = Some(format!("{reason}; number {position} in the queue"));
                None
            }
            Event::Covered { by, token, outcome } => {
                self.take_covered(record, by, token, *outcome);
                None
            }
            Event::Approved { .. } => None,
        })
    }

    /// Another run has done it.
    fn take_covered(&self, record: &mut Record, by: String, token: u64, outcome: OperationOutcome) {
        info!(job = %record.pinned.job, by, token, "not needed: another run has done it");
        record.covered = true;
        record.finished_at = self.context.clock.since_boot();
        record.finished = Some(Finished {
            operation: record.pinned.operation.clone(),
            outcome,
            started: None,
            finished: Some(self.context.clock.now()),
            token: Some(token),
            by: Some(by),
            approved: None,
        });
    }

    /// A renewal with the run as it is now. If the Job cannot be given that run, the lease is given up.
    fn take_renewal(&self, record: &mut Record, token: u64, seq: u64, run: Option<RetentionRun>) -> Input {
        let held = matches!(record.holder.phase(), Phase::Held(lease) if lease.token == token);
        match self.take_run(record, run) {
            Err(text) if held => {
                warn!(job = %record.pinned.job, token, text, "the run has changed and cannot be passed on");
                record.ending = Some(Ending {
                    reason: RUN_NOT_USABLE,
                    message: format!(
                        "the policies have changed, and the Job cannot be given the run that follows from them: {text}"
                    ),
                    again: true,
                });
                Input::Revoked { token }
            }
            _ => Input::Renewed { token, seq },
        }
    }

    /// Whether a grant can be used. Its token is durable in this cluster afterwards.
    async fn take_grant(
        &self,
        record: &mut Record,
        token: u64,
        run: Option<RetentionRun>,
    ) -> Result<bool, ApplyError> {
        let Some(job) = self.job(&record.pinned.job, &record.pinned.operation) else {
            // The holder gives it back.
            return Ok(true);
        };
        let Some(owner) = self.owner(&job) else {
            return Ok(false);
        };
        if let Some(closed) = owner.closed(&record.pinned, self.context.clock.now()) {
            record.waiting = Some(closed.text);
            record.asked = false;
            return Ok(false);
        }
        let order = match owner.order(&record.pinned, &job, run) {
            Ok(order) => order,
            Err(text) => {
                warn!(job = %record.pinned.job, token, text, "the lock is given back");
                record.waiting = Some(text);
                return Ok(false);
            }
        };
        let (applier, pinned) = (&self.context.applier, &record.pinned);
        let seen = claim(
            applier,
            &self.namespace,
            &pinned.restic_id,
            token,
            &pinned.operation,
        )
        .await?;
        if let Some(seen) = seen {
            let text = format!(
                "token {token} was granted, and this cluster has seen {seen}: was the hub's store restored from a backup? It is asked again"
            );
            warn!(job = %pinned.job, text);
            record.waiting = Some(text);
            record.seen_token = seen;
            return Ok(false);
        }
        record.order = Some(order);
        record.waiting = None;
        record.seen_token = token;
        self.context.operations.granted(&record.pinned.job, token);
        Ok(true)
    }

    /// A run that was composed anew goes to the pod with the renewal that brought it.
    ///
    /// # Errors
    /// Why the pod cannot be given it. It must not go on with a run that is not in force any more.
    fn take_run(&self, record: &mut Record, run: Option<RetentionRun>) -> Result<(), String> {
        let Some(job) = self.job(&record.pinned.job, &record.pinned.operation) else {
            return Ok(());
        };
        let Some(owner) = self.owner(&job) else {
            return Ok(());
        };
        record.newer = if run.is_some() || owner.is_recomposed() {
            let order = owner.order(&record.pinned, &job, run)?;
            (order.hash != self.run_hash(record)).then_some(order)
        } else {
            None
        };
        Ok(())
    }

    pub(super) fn ask(&self, record: &Record) {
        let Some(job) = self.job(&record.pinned.job, &record.pinned.operation) else {
            return;
        };
        let Some(owner) = self.owner(&job) else { return };
        self.context.leases.ask(LeaseAsk {
            operation: record.pinned.operation.clone(),
            restic_id: record.pinned.restic_id.clone(),
            subject: owner.subject(&record.pinned),
            policy: record.pinned.owner_uid.clone(),
            approved: job.approved.as_deref().unwrap_or_default().to_owned(),
            age_ms: self.age(record, &job),
            seen_token: record.seen_token,
            kind: owner.kind().into(),
            removes_key: job.removes_key.as_deref().unwrap_or_default().to_owned(),
            preview: job.preview,
        });
    }

    /// How long an operation has waited, in milliseconds: since its Job was made, although the operator may have been away then.
    fn age(&self, record: &Record, job: &JobView) -> u64 {
        let clock = &self.context.clock;
        let known = clock.since_boot().saturating_sub(record.seen);
        let made = job.created.map(|at| clock.now().duration_since(at).as_millis());
        known.max(made.and_then(|age| u64::try_from(age).ok()).unwrap_or(0))
    }

    pub(super) fn withdraw(&self, record: &Record, opened: u64) {
        self.context.leases.withdraw(LeaseWithdraw {
            operation: record.pinned.operation.clone(),
            restic_id: record.pinned.restic_id.clone(),
            token: opened,
        });
    }

    pub(super) fn renew(&self, record: &Record, token: u64, seq: u64) {
        self.context.leases.renew(LeaseRenew {
            operation: record.pinned.operation.clone(),
            restic_id: record.pinned.restic_id.clone(),
            token,
            seq,
            run_hash: self.run_hash(record),
        });
    }

    /// Hash of the run that the pod has: its own annotation counts, a former leader may have written it.
    fn run_hash(&self, record: &Record) -> Vec<u8> {
        let pods = self.pods(&record.pinned);
        let annotated = pods.iter().filter(|(_, pod)| pod.is_active());
        let annotated = annotated
            .filter_map(|(_, pod)| hex::decode(pod.order_hash.as_deref()?).ok())
            .next();
        annotated
            .or_else(|| Some(record.order.as_ref()?.hash.clone()))
            .unwrap_or_default()
    }

    pub(super) fn release(&self, record: &Record, token: u64) {
        let plan = record.plan();
        let release = LeaseRelease {
            operation: record.pinned.operation.clone(),
            restic_id: record.pinned.restic_id.clone(),
            token,
            outcome: record.finished.as_ref().map(|finished| finished.outcome.clone()),
            plan_bytes: plan.len() as u64,
            policy: record.pinned.owner_uid.clone(),
            ..LeaseRelease::default()
        };
        self.context.leases.release(release, plan);
    }
}
