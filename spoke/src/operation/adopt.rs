//! The beginning of an operation, or of its actor after a restart: what is found is adopted.

use crds::names;
use serde_json::json;
use tracing::info;

use super::Owner;
use super::actor::{Operations, Report};
use super::record::{Ending, RUN_NOT_USABLE, Record};
use crate::apply::ApplyError;
use crate::exchange::Pinned;
use crate::kind::Turn;
use crate::maintenance;
use crate::maintenance::holder::Holder;
use crate::world::{JobEnd, JobView, Key};

/// A Job that cannot begin yet.
pub(super) enum NotYet {
    /// Its owner, or the repository's id, is not known. The change that reveals it wakes this actor.
    Unassigned,
    Failed(ApplyError),
}

impl From<ApplyError> for NotYet {
    fn from(error: ApplyError) -> NotYet {
        NotYet::Failed(error)
    }
}

impl Operations {
    /// Makes the record of an operation out of its Job, or out of the board if its Job is deleted by now.
    pub(super) async fn adopt(&self, turn: &Turn<'_, Self>) -> Result<Record, NotYet> {
        let board = &self.context.operations;
        let reporter = turn.work.clone();
        board.listen_operation(turn.key, move || reporter.send(Report::Recorded));
        let job = self.job(turn.key, turn.uid);
        let (known, token) = board.known(turn.key);
        let pinned = match (known, &job) {
            (Some(pinned), _) => pinned,
            (None, Some(job)) => self.pin(turn.key, job).await?,
            (None, None) => return Err(NotYet::Unassigned),
        };
        board.pin(&pinned);
        let reporter = turn.work.clone();
        self.context
            .leases
            .listen(&pinned.operation, &pinned.restic_id, move |event| {
                reporter.send(Report::Lease(Box::new(event)));
            });
        let holder = self.holder(&pinned, job.as_deref(), token);
        // Every question names the highest token: a grantor that lost its store must not grant below it.
        let namespace = &self.namespace;
        let seen = maintenance::highest(&self.context.applier, namespace, &pinned.restic_id).await?;
        let mut record = Record::new(pinned, holder, seen, self.context.clock.since_boot());
        record.ending = job.as_deref().and_then(shut_for);
        Ok(record)
    }

    /// Pins a Job to the repository that its owner refers to, once and for all, and writes that to the Job.
    async fn pin(&self, at: &Key, job: &JobView) -> Result<Pinned, NotYet> {
        let owner = self.owner(job).ok_or(NotYet::Unassigned)?;
        let assigned = owner.assignment(at, job);
        let job_type = owner.job_type().to_owned();
        let pinned = |owner: Key, owner_uid: String, repository: Key, restic_id: String| Pinned {
            operation: job.meta.uid.to_string(),
            job_type,
            job: at.clone(),
            owner,
            owner_uid,
            repository,
            restic_id,
        };
        if let Some(pin) = &job.pin {
            // Its owner may be deleted by now.
            let owner = assigned.map_or_else(|| Key::new(&at.namespace, ""), |a| a.owner);
            let (uid, id) = (pin.owner_uid.to_string(), pin.restic_id.to_string());
            return Ok(pinned(owner, uid, pin.repository.clone(), id));
        }
        let assigned = assigned.ok_or(NotYet::Unassigned)?;
        let restic_id = assigned.restic_id.ok_or(NotYet::Unassigned)?;
        let pinned = pinned(assigned.owner, assigned.owner_uid, assigned.repository, restic_id);
        info!(job = %at, restic_id = pinned.restic_id, "a maintenance Job is taken up");
        let record = Record::new(pinned, Holder::new(), 0, 0);
        let annotations = json!({
            names::ANNOTATION_RESTIC_ID: record.pinned.restic_id,
            names::ANNOTATION_REPOSITORY: record.pinned.repository.to_string(),
            names::ANNOTATION_OWNER_UID: record.pinned.owner_uid,
        });
        self.annotate(&record, &annotations).await?;
        Ok(record.pinned)
    }

    /// Where the lease stands, as far as the Job shows it.
    fn holder(&self, pinned: &Pinned, job: Option<&JobView>, token: Option<u64>) -> Holder {
        let Some(job) = job else {
            return token.map_or_else(Holder::new, Holder::after);
        };
        let Some(lease) = job.lease else {
            return Holder::new();
        };
        if job.released.is_some() {
            return Holder::over(lease.token);
        }
        // Opened before this actor, and its pod is missing: how it ended, nobody saw. A Job is complete by the kubelet's
        // word, and failed by anybody's.
        let pods = &self.context.world.pods;
        let group = Key::new("", &pinned.operation);
        let complete = matches!(job.end, Some((_, JobEnd::Complete)));
        if job.start.is_some() && !complete && pods.group(&group).is_empty() {
            pods.remember(&group, lease.token);
        }
        if job.suspended {
            Holder::after(lease.token)
        } else {
            Holder::adopted(
                lease.token,
                lease.ttl,
                lease.renew,
                self.context.clock.since_boot(),
            )
        }
    }

    /// The Job with this uid.
    pub(super) fn job(&self, at: &Key, uid: &str) -> Option<std::sync::Arc<JobView>> {
        self.context
            .world
            .jobs
            .get(at)
            .filter(|job| *job.meta.uid == *uid)
    }

    /// The owner of a Job's sort.
    pub(super) fn owner(&self, job: &JobView) -> Option<&dyn Owner> {
        self.owner_of(job.type_.as_deref()?)
    }

    pub(super) fn owner_of(&self, job_type: &str) -> Option<&dyn Owner> {
        self.owners
            .iter()
            .find(|owner| owner.job_type() == job_type)
            .map(AsRef::as_ref)
    }
}

/// Why a Job was shut for good, by its annotations.
fn shut_for(job: &JobView) -> Option<Ending> {
    let (reason, message) = job.shut.as_ref()?;
    let reason = match &**reason {
        "TakenBack" => "TakenBack",
        "RepositoryGone" => "RepositoryGone",
        "RepositoryChanged" => "RepositoryChanged",
        RUN_NOT_USABLE => RUN_NOT_USABLE,
        _ => return None,
    };
    Some(Ending {
        reason,
        message: message.to_string(),
        again: reason != "TakenBack",
    })
}
