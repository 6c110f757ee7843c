//! The conclusion of an operation: its result is found, and recorded by its owner, before its lease is given back.

use std::sync::Arc;

use jiff::Timestamp;
use proto::v1::OperationOutcome;

use super::actor::Operations;
use super::life::Pods;
use super::record::{Plan, RECORD_LIMIT, Record};
use super::result;
use crate::apply::ApplyError;
use crate::exchange::Finished;
use crate::maintenance::holder::{End, Phase};
use crate::runs;
use crate::world::{JobView, PodView};

/// How an operation ended.
struct Conclusion {
    outcome: OperationOutcome,
    started: Option<Timestamp>,
    finished: Option<Timestamp>,
}

impl Operations {
    /// Takes the result of an operation that has ended.
    pub(super) fn find_result(&self, record: &mut Record) {
        if record.finished.is_some() {
            return;
        }
        let job = self.job(&record.pinned.job, &record.pinned.operation);
        let found = match &job {
            Some(job) => self.of_job(record, job),
            None => self.of_deleted_job(record),
        };
        let Some(found) = found else { return };
        let token = job.as_ref().and_then(|job| job.lease).map(|lease| lease.token);
        record.finished_at = self.context.clock.since_boot();
        record.finished = Some(Finished {
            operation: record.pinned.operation.clone(),
            outcome: found.outcome,
            started: found.started,
            finished: found.finished,
            token: token.or_else(|| self.context.operations.known(&record.pinned.job).1),
            by: None,
            approved: job.and_then(|job| job.approved.as_deref().map(str::to_owned)),
        });
    }

    fn of_job(&self, record: &Record, job: &Arc<JobView>) -> Option<Conclusion> {
        let now = self.context.clock.now();
        let run = self.run(&record.pinned, job.clone());
        if job.end.is_some() {
            return match result::ended(&run, now) {
                result::Ended::NotYet(_) => None,
                result::Ended::Known {
                    outcome,
                    started,
                    finished,
                } => Some(Conclusion {
                    outcome: *outcome,
                    started,
                    finished,
                }),
            };
        }
        let given_up = matches!(record.holder.phase(), Phase::Done(End::Interrupted(_)));
        let unwanted = record.ending.is_some() || given_up;
        if self.is_at_work(record) || !(job.is_spent() || (unwanted && job.suspended)) {
            return None;
        }
        let (reason, message) = match &job.shut {
            Some((reason, message)) => (reason.to_string(), message.to_string()),
            None => {
                let (reason, message) = self.why(record);
                (reason.to_owned(), message)
            }
        };
        let newest = run.newest().map(|(_, pod)| pod.as_ref());
        Some(Conclusion {
            outcome: result::interrupted(newest.filter(|_| job.is_spent()), &reason, &message),
            started: job.start,
            finished: Some(now),
        })
    }

    /// The pod of a Job that was deleted may have ended before, and with a report.
    fn of_deleted_job(&self, record: &Record) -> Option<Conclusion> {
        if self.is_at_work(record) || self.context.operations.known(&record.pinned.job).1.is_none() {
            return None;
        }
        let pods = self.pods(&record.pinned);
        let ended = |pod: &PodView| pod.restic.as_ref().and_then(|restic| restic.finished);
        let newest = pods
            .iter()
            .map(|(_, pod)| pod.as_ref())
            .max_by_key(|pod| ended(pod));
        Some(Conclusion {
            outcome: result::interrupted(newest, "JobDeleted", "its Job was deleted"),
            started: None,
            finished: Some(self.context.clock.now()),
        })
    }

    /// Whether a pod may be at work that will report its end.
    fn is_at_work(&self, record: &Record) -> bool {
        let pods = self.pods(&record.pinned);
        pods.iter()
            .any(|(_, pod)| pod.is_active() && pod.unproven().is_none())
    }

    /// Whether nothing is left to wait for before the lease is released.
    pub(super) fn is_settled(&self, record: &Record, job: Option<&JobView>, pods: Pods) -> bool {
        let Some(finished) = &record.finished else {
            // A Job that was deleted before it was granted anything has no result.
            return job.is_none() && self.context.operations.known(&record.pinned.job).1.is_none();
        };
        if matches!(record.plan, Plan::Reading(_)) || (self.wants_plan(record) && !pods.active) {
            return false;
        }
        let late = self.context.clock.since_boot().saturating_sub(record.finished_at) > RECORD_LIMIT;
        late || self.is_recorded(record, finished)
    }

    pub(super) fn is_recorded(&self, record: &Record, finished: &Finished) -> bool {
        debug_assert_eq!(finished.operation, record.pinned.operation);
        self.owner_of(&record.pinned.job_type)
            .is_none_or(|owner| owner.is_recorded(&record.pinned))
    }

    /// Ends a pod that another container keeps alive after the worker has ended. Returns when to look again.
    pub(super) async fn end_lingering(&self, record: &Record) -> Result<Option<jiff::Timestamp>, ApplyError> {
        let Some(job) = self.job(&record.pinned.job, &record.pinned.operation) else {
            return Ok(None);
        };
        let run = self.run(&record.pinned, job);
        let (pods, later) = runs::lingering([&run], self.context.clock.now());
        for pod in pods {
            crate::kind::end_lingering(&self.context.applier, &pod).await?;
        }
        Ok(later)
    }
}
