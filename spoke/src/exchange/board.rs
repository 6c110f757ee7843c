//! What operations and their owners know of each other: progress and results one way, "it is recorded" the other. Holds
//! one entry per Job under way. Nothing here is needed after a restart: Jobs, pods and statuses say it all again.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;
use proto::v1::OperationOutcome;

use crate::world::Key;

/// Who an operation works for, and on which repository. Never changes while the operation lives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pinned {
    /// uid of the Job.
    pub operation: String,
    /// Value of `names::LABEL_TYPE` on the Job.
    pub job_type: String,
    pub job: Key,
    /// The custom resource that it works for.
    pub owner: Key,
    pub owner_uid: String,
    pub repository: Key,
    pub restic_id: String,
}

/// The result of an operation, for its owner's status and for the grantor.
#[derive(Clone, Debug, PartialEq)]
pub struct Finished {
    /// uid of the Job.
    pub operation: String,
    pub outcome: OperationOutcome,
    pub started: Option<Timestamp>,
    pub finished: Option<Timestamp>,
    pub token: Option<u64>,
    /// Cluster and policy whose Job did it, when it was another's.
    pub by: Option<String>,
    /// Hash of the plan that the Job was allowed to carry out.
    pub approved: Option<String>,
}

/// Wakes an actor.
type Wake = Arc<dyn Fn() + Send + Sync>;

/// Where an operation stands, for its owner's status.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Progress {
    /// It waits for something: reason in CamelCase, and a sentence.
    Waiting {
        reason: &'static str,
        message: String,
    },
    /// Its pods work, or may.
    #[default]
    Running,
    Ended,
}

/// An operation as its owner sees it.
#[derive(Clone, Debug)]
pub struct Operation {
    pub job: Key,
    /// Value of `names::LABEL_TYPE` on it.
    pub job_type: String,
    pub progress: Progress,
    /// To be recorded, once per uid of the Job.
    pub finished: Option<Finished>,
}

/// The Jobs of those that run.
pub fn running(operations: &[Operation]) -> impl Iterator<Item = &Key> {
    let running = operations.iter().filter(|o| o.progress == Progress::Running);
    running.map(|operation| &operation.job)
}

/// Operations under way.
#[derive(Default)]
pub struct Board {
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    /// By key of the Job. A Job that was deleted stays here until its lease is given back.
    entries: HashMap<Key, Entry>,
    /// By uid of the owner.
    owners: HashMap<String, Wake>,
    /// Locks that the next operation of an owner may remove, by uid of the owner.
    offered: HashMap<String, Vec<String>>,
    /// Results of operations that are over, the latest last.
    past: VecDeque<Finished>,
}

/// Results of operations that are over, and are still known.
const PAST_MAX: usize = 256;

struct Entry {
    uid: String,
    pinned: Option<Pinned>,
    /// Last token that it was granted.
    token: Option<u64>,
    progress: Progress,
    finished: Option<Finished>,
    wake: Option<Wake>,
}

impl Board {
    /// Operations by type of their Job and by state: waiting, running or ended. For metrics.
    #[must_use]
    pub fn counts(&self) -> BTreeMap<(String, &'static str), f64> {
        let inner = self.lock();
        let mut counts = BTreeMap::new();
        for entry in inner.entries.values() {
            let state = match entry.progress {
                Progress::Waiting { .. } => "waiting",
                Progress::Running => "running",
                Progress::Ended => "ended",
            };
            let type_ = entry.pinned.as_ref().map(|pinned| pinned.job_type.clone());
            let type_ = type_.unwrap_or_else(|| "unknown".to_owned());
            *counts.entry((type_, state)).or_insert(0.0) += 1.0;
        }
        counts
    }

    /// Wakes an owner's actor when something changes for it.
    pub fn listen(&self, owner_uid: &str, wake: impl Fn() + Send + Sync + 'static) {
        self.lock().owners.insert(owner_uid.to_owned(), Arc::new(wake));
    }

    /// An owner was deleted.
    pub fn forget_owner(&self, owner_uid: &str) {
        {
            let mut inner = self.lock();
            inner.owners.remove(owner_uid);
            inner.offered.remove(owner_uid);
        }
        self.wake(owner_uid);
    }

    /// An owner decides which locks its next operation may remove.
    pub fn offer(&self, owner_uid: &str, locks: Vec<String>) {
        self.lock().offered.insert(owner_uid.to_owned(), locks);
    }

    /// Locks that an operation of an owner may remove now.
    #[must_use]
    pub fn offered(&self, owner_uid: &str) -> Vec<String> {
        self.lock().offered.get(owner_uid).cloned().unwrap_or_default()
    }

    /// The operations of an owner, in the order of their Jobs' names.
    #[must_use]
    pub fn of(&self, owner_uid: &str) -> Vec<Operation> {
        let inner = self.lock();
        let its = inner
            .entries
            .iter()
            .filter(|(_, entry)| entry.owner() == Some(owner_uid));
        let mut operations: Vec<Operation> = its
            .map(|(job, entry)| Operation {
                job: job.clone(),
                job_type: entry
                    .pinned
                    .as_ref()
                    .map(|p| p.job_type.clone())
                    .unwrap_or_default(),
                progress: entry.progress.clone(),
                finished: entry.finished.clone(),
            })
            .collect();
        operations.sort_by(|a, b| a.job.cmp(&b.job));
        operations
    }

    /// The result of an operation, also for a time after it is over. `operation` is the uid of its Job.
    #[must_use]
    pub fn result(&self, operation: &str) -> Option<Finished> {
        let inner = self.lock();
        let entry = inner.entries.values().find(|entry| entry.uid == operation);
        let present = entry.and_then(|entry| entry.finished.as_ref());
        let past = || inner.past.iter().rfind(|past| past.operation == operation);
        present.or_else(past).cloned()
    }

    /// Wakes the operations of an owner: its status, or what it refers to, has changed.
    pub fn wake(&self, owner_uid: &str) {
        let wakes: Vec<Wake> = {
            let inner = self.lock();
            let its = inner.entries.values();
            // Those that belong to nobody yet may find their owner now.
            let its = its.filter(|entry| entry.owner().is_none_or(|owner| owner == owner_uid));
            its.filter_map(|entry| entry.wake.clone()).collect()
        };
        wakes.iter().for_each(|wake| wake());
    }

    /// uid of the operation that lives under a Job's key.
    pub(crate) fn uid(&self, job: &Key) -> Option<String> {
        self.lock().entries.get(job).map(|entry| entry.uid.clone())
    }

    pub(crate) fn keys(&self) -> Vec<Key> {
        self.lock().entries.keys().cloned().collect()
    }

    /// An operation has begun to live.
    pub(crate) fn enter(&self, job: &Key, uid: &str) {
        let mut inner = self.lock();
        let entry = inner.entries.entry(job.clone()).or_insert_with(|| Entry {
            uid: uid.to_owned(),
            pinned: None,
            token: None,
            progress: Progress::Running,
            finished: None,
            wake: None,
        });
        debug_assert_eq!(entry.uid, uid);
    }

    /// What a restarted actor has to know of a Job that may be deleted by now.
    pub(crate) fn known(&self, job: &Key) -> (Option<Pinned>, Option<u64>) {
        let inner = self.lock();
        let entry = inner.entries.get(job);
        entry.map_or((None, None), |e| (e.pinned.clone(), e.token))
    }

    pub(crate) fn pin(&self, pinned: &Pinned) {
        self.change(&pinned.job, |entry| entry.pinned = Some(pinned.clone()));
    }

    pub(crate) fn listen_operation(&self, job: &Key, wake: impl Fn() + Send + Sync + 'static) {
        self.change(job, |entry| entry.wake = Some(Arc::new(wake)));
    }

    pub(crate) fn granted(&self, job: &Key, token: u64) {
        self.change(job, |entry| entry.token = Some(token));
    }

    /// Publishes where an operation stands. Wakes its owner if that has changed.
    pub(crate) fn publish(&self, job: &Key, progress: Progress, finished: Option<&Finished>) {
        let wake = {
            let mut inner = self.lock();
            let Some(entry) = inner.entries.get_mut(job) else {
                return;
            };
            if entry.progress == progress && entry.finished.as_ref() == finished {
                return;
            }
            entry.progress = progress;
            entry.finished = finished.cloned();
            let owner = entry.owner().map(str::to_owned);
            owner.and_then(|owner| inner.owners.get(&owner).cloned())
        };
        if let Some(wake) = wake {
            wake();
        }
    }

    /// Wakes the owner of an operation: more is known of it than what was published.
    pub fn moved(&self, job: &Key) {
        let wake = {
            let inner = self.lock();
            let owner = inner.entries.get(job).and_then(Entry::owner);
            owner.and_then(|owner| inner.owners.get(owner).cloned())
        };
        if let Some(wake) = wake {
            wake();
        }
    }

    /// An operation is over. Wakes its owner.
    pub(crate) fn leave(&self, job: &Key) {
        let wake = {
            let mut inner = self.lock();
            let entry = inner.entries.remove(job);
            let owner = entry.as_ref().and_then(|entry| entry.owner().map(str::to_owned));
            if let Some(finished) = entry.and_then(|entry| entry.finished) {
                inner.past.push_back(finished);
                if inner.past.len() > PAST_MAX {
                    inner.past.pop_front();
                }
            }
            owner.and_then(|owner| inner.owners.get(&owner).cloned())
        };
        if let Some(wake) = wake {
            wake();
        }
    }

    /// A new term of leadership begins with nothing remembered.
    pub(crate) fn clear(&self) {
        *self.lock() = Inner::default();
    }

    fn change(&self, job: &Key, change: impl FnOnce(&mut Entry)) {
        if let Some(entry) = self.lock().entries.get_mut(job) {
            change(entry);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Entry {
    fn owner(&self) -> Option<&str> {
        self.pinned.as_ref().map(|pinned| pinned.owner_uid.as_str())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    #[test]
    fn an_owner_is_woken_by_what_is_new_and_by_nothing_else() {
        let (board, job) = (Board::default(), Key::new("ns", "job"));
        board.enter(&job, "u");
        let pinned = Pinned {
            operation: "u".to_owned(),
            job_type: "retention".to_owned(),
            job: job.clone(),
            owner: Key::new("ns", "p"),
            owner_uid: "p".to_owned(),
            repository: Key::new("ns", "r"),
            restic_id: "id".to_owned(),
        };
        board.pin(&pinned);
        let woken = Arc::new(AtomicU32::new(0));
        let count = woken.clone();
        board.listen("p", move || {
            count.fetch_add(1, Ordering::Relaxed);
        });
        let waiting = || Progress::Waiting {
            reason: "R",
            message: "m".to_owned(),
        };
        board.publish(&job, waiting(), None);
        board.publish(&job, waiting(), None);
        assert_eq!(woken.load(Ordering::Relaxed), 1);
        assert_eq!(board.of("p")[0].progress, waiting());
        assert!(board.of("other").is_empty());
        // Its result is known after its end, for a while.
        let finish = |uid: &str| Finished {
            operation: uid.to_owned(),
            outcome: OperationOutcome::default(),
            started: None,
            finished: None,
            token: None,
            by: None,
            approved: None,
        };
        let others: Vec<String> = (0..=PAST_MAX).map(|n| format!("other-{n}")).collect();
        for uid in &others {
            let other = Key::new("ns", uid);
            board.enter(&other, uid);
            board.publish(&other, Progress::Ended, Some(&finish(uid)));
            assert!(board.result(uid).is_some());
            board.leave(&other);
        }
        assert!(board.result(&others[0]).is_none() && board.result(&others[1]).is_some());
        assert!(board.result(&others[PAST_MAX]).is_some());
        // A panic of the actor leaves this.
        board.granted(&job, 7);
        assert_eq!(board.known(&job), (Some(pinned), Some(7)));
        board.leave(&job);
        assert_eq!(woken.load(Ordering::Relaxed), 2);
        assert!(board.of("p").is_empty());
    }
}
