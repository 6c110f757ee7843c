//! What follows the end of an operation: the Job is marked as given back, or deleted and followed by another.

use crds::names;
use k8s_openapi::api::batch::v1::{CronJob, Job};
use serde_json::json;
use tracing::info;

use super::actor::Operations;
use super::record::{Attempt, Record, next_attempt};
use crate::apply::ApplyError;
use crate::exchange::Finished;
use crate::maintenance::holder::End;
use crate::pod;
use crate::restic::locks::STALE_LOCK;
use crate::world::{JobView, Key};

impl Operations {
    /// Cleans up after an operation whose lease is given back, or runs out at the grantor. `false` while its result is
    /// not recorded.
    pub(super) async fn end(&self, record: &Record, end: End) -> Result<bool, ApplyError> {
        let late =
            self.context.clock.since_boot().saturating_sub(record.finished_at) > super::record::RECORD_LIMIT;
        if let Some(finished) = &record.finished
            && !late
            && !self.is_recorded(record, finished)
        {
            return Ok(false);
        }
        let pinned = &record.pinned;
        if let Some(job) = self.job(&pinned.job, &pinned.operation) {
            let over = job.end.is_some() && !record.covered && end == End::Job;
            // The schedule may be due in weeks.
            if !over || record.finished.as_ref().is_some_and(|f| is_unfinished(f, &job)) {
                self.succeed(record, &job).await?;
            }
            if over && !job.is_spent() {
                let token = job.lease.map_or(0, |lease| lease.token);
                self.annotate(record, &json!({ names::ANNOTATION_RELEASED: token.to_string() }))
                    .await?;
            } else {
                self.delete(record).await?;
            }
        }
        self.forget(record);
        Ok(true)
    }

    /// Deletes a Job that can do nothing any more.
    async fn delete(&self, record: &Record) -> Result<(), ApplyError> {
        let pinned = &record.pinned;
        self.context
            .applier
            .delete::<Job>(&pinned.job, &pinned.operation)
            .await?;
        self.context
            .world
            .jobs
            .remove(&pinned.job, Some(&pinned.operation));
        Ok(())
    }

    /// Makes the Job that follows, if it is still wanted. Its name follows from the Job before it: done twice, it is one
    /// Job.
    async fn succeed(&self, record: &Record, job: &JobView) -> Result<(), ApplyError> {
        let pinned = &record.pinned;
        let again = record.ending.as_ref().is_none_or(|ending| ending.again) && !record.covered;
        let again = again && is_repeated(job);
        let wanted = again && self.owner(job).is_some_and(|owner| owner.is_repeated(pinned));
        let next = next_attempt(job, why(record), self.lock_pause, self.context.clock.now());
        if let Some(next) = next.filter(|_| wanted) {
            self.follow(record, job, &next).await?;
        }
        Ok(())
    }

    async fn follow(&self, record: &Record, job: &JobView, next: &Attempt) -> Result<(), ApplyError> {
        let at = &record.pinned.job;
        let Some((_, name)) = job
            .meta
            .owner_name
            .as_ref()
            .filter(|(kind, _)| &**kind == "CronJob")
        else {
            return Ok(());
        };
        let cron_job = self
            .context
            .applier
            .get::<CronJob>(&Key::new(&at.namespace, name))
            .await?;
        let cron_job = cron_job.filter(|c| c.metadata.uid.as_deref() == job.meta.owner.as_deref());
        let Some(cron_job) = cron_job else { return Ok(()) };
        info!(job = %at, attempt = next.number, reason = next.reason, "another Job follows the one that did not do its work");
        match self
            .context
            .applier
            .create(&successor(&cron_job, job, next))
            .await
        {
            Ok(_) | Err(ApplyError::Conflict(_)) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Nothing more will be said about an operation.
    fn forget(&self, record: &Record) {
        let pinned = &record.pinned;
        self.context.leases.forget(&pinned.operation);
        self.context.world.pods.forget(&Key::new("", &pinned.operation));
        self.context.operations.leave(&pinned.job);
    }
}

/// Whether a Job that did not do its work is made again. A person who asked for one run is told what came of it, and repeats
/// it; what only shows a plan is no reason for a run that carries one out.
fn is_repeated(job: &JobView) -> bool {
    !job.preview && job.command.is_none()
}

/// Whether another Job is to finish what this one has begun: it met a lock that is removed first, or it was interrupted. One
/// that reached its own deadline would reach it again.
fn is_unfinished(finished: &Finished, job: &JobView) -> bool {
    let outcome = &finished.outcome;
    let late = outcome.reason == "DeadlineExceeded" && !job.is_spent();
    outcome.reason == STALE_LOCK || (outcome.result == "Interrupted" && !late)
}

/// Why an operation did not do its work, and what keeps the next one from it: a restic that was killed has left its lock,
/// which the next one would meet.
fn why(record: &Record) -> &str {
    match record.finished.as_ref().map(|finished| &finished.outcome) {
        Some(outcome) if outcome.lock_left => STALE_LOCK,
        Some(outcome) => &outcome.reason,
        None => "",
    }
}

/// The Job that follows an interrupted one: from the CronJob as it is now.
fn successor(cron_job: &CronJob, before: &JobView, next: &Attempt) -> Job {
    let (name, uid) = (&cron_job.metadata.name, &cron_job.metadata.uid);
    let name = names::bounded(
        name.as_deref().unwrap_or_default(),
        &format!("-{}", names::short_hash(before.meta.uid.as_bytes())),
        names::LABEL_MAX,
    );
    let mut job = pod::manual_job(cron_job, uid.as_deref().unwrap_or_default(), name);
    let annotations = job.metadata.annotations.get_or_insert_default();
    annotations.insert(names::ANNOTATION_ATTEMPT.to_owned(), next.number.to_string());
    annotations.insert(names::ANNOTATION_FOLLOWS.to_owned(), next.reason.clone());
    if let Some(at) = next.not_before {
        annotations.insert(names::ANNOTATION_NOT_BEFORE.to_owned(), at.to_string());
    }
    if let Some(hash) = &before.approved {
        annotations.insert(names::ANNOTATION_APPROVE.to_owned(), hash.to_string());
    }
    job
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_person_asked_for_once_and_what_only_shows_a_plan_has_no_successor() {
        let scheduled = JobView::default();
        assert!(is_repeated(&scheduled));
        let preview = JobView {
            preview: true,
            ..JobView::default()
        };
        let commanded = JobView {
            command: Some("c1".into()),
            ..JobView::default()
        };
        assert!(!is_repeated(&preview) && !is_repeated(&commanded));
    }

    #[test]
    fn a_successor_is_one_job_however_often_it_is_made() {
        let cron_job: CronJob = serde_json::from_value(json!({
            "metadata": { "name": "globalretention-p", "namespace": "ns", "uid": "c" },
            "spec": { "schedule": "@daily", "jobTemplate": { "spec": { "suspend": true, "template": {} } } },
        }))
        .unwrap();
        let mut before = JobView {
            approved: Some("hash".into()),
            ..JobView::default()
        };
        before.meta.uid = "one".into();
        let attempt = Attempt {
            number: 1,
            reason: STALE_LOCK.to_owned(),
            not_before: Some(50),
        };
        let next = successor(&cron_job, &before, &attempt);
        assert_eq!(next, successor(&cron_job, &before, &attempt));
        assert_eq!(next.spec.as_ref().unwrap().suspend, Some(true), "born suspended");
        let view = JobView::of(&next);
        assert_eq!((view.attempt, view.approved.as_deref()), (1, Some("hash")));
        assert_eq!(view.follows.as_deref(), Some(STALE_LOCK));
        assert_eq!(view.not_before.map(jiff::Timestamp::as_second), Some(50));
        before.meta.uid = "two".into();
        assert_ne!(
            next.metadata.name,
            successor(&cron_job, &before, &attempt).metadata.name
        );
    }
}
