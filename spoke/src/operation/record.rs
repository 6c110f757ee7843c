//! What an operation's actor remembers beside its [`Holder`]. Everything can be found again in the Job, its pods and with
//! the grantor.

use jiff::Timestamp;
use tokio_util::task::AbortOnDropHandle;

use super::gate::Order;
use super::{Assignment, Pinned};
use crate::exchange::Finished;
use crate::maintenance::holder::Holder;
use crate::restic::locks::STALE_LOCK;
use crate::world::JobView;

/// Milliseconds for which the result waits to be recorded in its owner's status. After that the lease is released all the
/// same: Job and pod still show the result, and other clusters wait for the lock.
pub(super) const RECORD_LIMIT: u64 = 120_000;
/// Jobs that follow an interrupted one, each made for the one before.
pub(super) const ATTEMPTS: u32 = 5;
/// Seconds before a Job asks again whose container did not start in time.
const PAUSE: i64 = 600;
/// Seconds before a Job asks again that met restic's lock of a run that is over: by then it is removed, if it is of this
/// cluster.
pub(super) const LOCK_PAUSE: i64 = 40 * 60;

/// Reason of an operation whose container did not start in time.
pub(super) const POD_NOT_STARTED: &str = "PodNotStarted";
/// Reason of an operation whose run has changed, and cannot be given to its Job.
pub(super) const RUN_NOT_USABLE: &str = "RunNotUsable";

/// An operation.
pub(super) struct Record {
    pub pinned: Pinned,
    pub holder: Holder,
    /// When it was first seen, in milliseconds since boot.
    pub seen: u64,
    /// When its Job was first seen open.
    pub open_since: Option<u64>,
    /// What it waits for, in the grantor's words.
    pub waiting: Option<String>,
    /// What its pod is to do, once it has the lease.
    pub order: Option<Order>,
    /// A newer one, to be written with the next renewal.
    pub newer: Option<Order>,
    /// Highest token that this cluster has seen for the repository.
    pub seen_token: u64,
    pub finished: Option<Finished>,
    /// When the result was first known.
    pub finished_at: u64,
    pub plan: Plan,
    pub ending: Option<Ending>,
    /// Another Job has done it: this one is not needed.
    pub covered: bool,
    /// Why it may not ask at all.
    pub forbidden: Option<String>,
    /// It has asked for the lock, and waits for the answer.
    pub asked: bool,
}

/// The plan in the pod's log.
pub(super) enum Plan {
    Unread,
    Reading(#[allow(dead_code, reason = "dropped, it ends the work")] AbortOnDropHandle<()>),
    Read(Vec<u8>),
}

/// Why an operation is to end before its Job does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Ending {
    pub reason: &'static str,
    pub message: String,
    /// Whether another Job may follow at once.
    pub again: bool,
}

impl Record {
    pub fn new(pinned: Pinned, holder: Holder, seen_token: u64, now: u64) -> Record {
        Record {
            pinned,
            holder,
            seen: now,
            open_since: None,
            waiting: None,
            order: None,
            newer: None,
            seen_token,
            finished: None,
            finished_at: 0,
            plan: Plan::Unread,
            ending: None,
            covered: false,
            forbidden: None,
            asked: false,
        }
    }

    pub fn plan(&self) -> &[u8] {
        match &self.plan {
            Plan::Read(plan) => plan,
            _ => &[],
        }
    }

    /// How long the Job is known to be open, in milliseconds.
    pub fn open_for(&mut self, job: Option<&JobView>, now: u64) -> u64 {
        if job.is_some_and(|job| !job.suspended) {
            self.open_since.get_or_insert(now);
        }
        self.open_since.map_or(0, |since| now.saturating_sub(since))
    }
}

/// Whether the operation still has what it was pinned to. `None` while that holds, or is not known.
pub(super) fn ending(pinned: &Pinned, now: Option<&Assignment>) -> Option<Ending> {
    // Without an owner Kubernetes deletes the Job too.
    let now = now?;
    if !now.exists {
        return Some(Ending {
            reason: "RepositoryGone",
            message: format!("ResticRepository {} was deleted", pinned.repository),
            again: true,
        });
    }
    let other = now.restic_id.as_ref().filter(|id| **id != pinned.restic_id)?;
    let message = if now.repository == pinned.repository {
        format!(
            "ResticRepository {} is another repository now: {} instead of {}",
            pinned.repository,
            short(other),
            short(&pinned.restic_id)
        )
    } else {
        format!(
            "it refers to ResticRepository {} now, the Job was made for {}",
            now.repository, pinned.repository
        )
    };
    Some(Ending {
        reason: "RepositoryChanged",
        message,
        again: true,
    })
}

fn short(id: &str) -> &str {
    id.get(..8).unwrap_or(id)
}

/// What the Job that follows an interrupted one carries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Attempt {
    /// How many Jobs were before it.
    pub number: u32,
    /// Why the one before did not do its work.
    pub reason: String,
    /// When it asks at the earliest, in seconds since 1970.
    pub not_before: Option<i64>,
}

/// The next attempt; `None` after too many. `lock_pause` is in seconds.
pub(super) fn next_attempt(job: &JobView, reason: &str, lock_pause: i64, now: Timestamp) -> Option<Attempt> {
    let pause = match reason {
        POD_NOT_STARTED | RUN_NOT_USABLE => Some(PAUSE),
        STALE_LOCK => Some(lock_pause),
        _ => None,
    };
    let number = job.attempt + 1;
    (number <= ATTEMPTS).then(|| Attempt {
        number,
        reason: reason.to_owned(),
        not_before: pause.map(|pause| now.as_second().saturating_add(pause)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::world::Key;

    fn pinned() -> Pinned {
        Pinned {
            operation: "u".to_owned(),
            job_type: "retention".to_owned(),
            job: Key::new("ns", "job"),
            owner: Key::new("ns", "p"),
            owner_uid: "p".to_owned(),
            repository: Key::new("ns", "one"),
            restic_id: "aaaaaaaaaa".to_owned(),
        }
    }

    fn refers(repository: &str, id: Option<&str>, exists: bool) -> Assignment {
        Assignment {
            owner: Key::new("ns", "p"),
            owner_uid: "p".to_owned(),
            repository: Key::new("ns", repository),
            restic_id: id.map(str::to_owned),
            exists,
        }
    }

    #[test]
    fn an_operation_ends_when_its_owner_means_another_repository() {
        let end = |now: Assignment| ending(&pinned(), Some(&now)).map(|e| e.reason);
        assert_eq!(end(refers("one", Some("aaaaaaaaaa"), true)), None);
        // The same repository by another resource.
        assert_eq!(end(refers("two", Some("aaaaaaaaaa"), true)), None);
        assert_eq!(
            end(refers("two", Some("bbbbbbbbbb"), true)),
            Some("RepositoryChanged")
        );
        // Created anew under its name, with another id.
        assert_eq!(
            end(refers("one", Some("bbbbbbbbbb"), true)),
            Some("RepositoryChanged")
        );
        assert_eq!(
            end(refers("one", None, true)),
            None,
            "not looked at yet: nothing is known"
        );
        assert_eq!(end(refers("one", None, false)), Some("RepositoryGone"));
        assert_eq!(
            ending(&pinned(), None),
            None,
            "its owner was deleted, and the Job is deleted with it"
        );
    }

    #[test]
    fn interrupted_jobs_are_followed_a_bounded_number_of_times() {
        let now = Timestamp::from_second(1000).unwrap();
        let job = |attempt| JobView {
            attempt,
            ..JobView::default()
        };
        let next = |before: u32, reason: &str| {
            next_attempt(&job(before), reason, 50, now).map(|next| (next.number, next.not_before))
        };
        assert_eq!(next(0, "LeaseLost"), Some((1, None)));
        assert_eq!(next(0, "PodNotStarted"), Some((1, Some(1600))));
        assert_eq!(next(1, "StaleLock"), Some((2, Some(1050))));
        assert_eq!(next(ATTEMPTS, "LeaseLost"), None);
        assert_eq!(next(ATTEMPTS, "StaleLock"), None);
    }
}
