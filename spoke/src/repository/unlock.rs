//! The part of a repository's actor that watches restic's locks and has the left-over ones removed.

use std::collections::BTreeSet;
use std::sync::Arc;

use crds::backup::BackupResult;
use crds::conditions::{self, Status, reasons, types, whole_seconds};
use crds::repository::LastUnlock;
use crds::{GlobalRetentionPolicy, ResticBackup, ResticRepository, ResticRepositoryStatus, names};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use tracing::{info, warn};

use super::locks::{Content, Life, Moment, READS, Rules, Verdict, Watch};
use super::{Memory, RepositoryKind, build, status};
use crate::apply::ApplyError;
use crate::operation::Finished;
use crate::pod;
use crate::restic::locks::{LockFile, LockOwner};
use crate::restic::{Failure, Restic};
use crate::secrets::{self, Credentials};
use crate::worker::since_boot;
use crate::world::{JobView, Key, PodView, Stored as _, World};

/// A host name has at most so many characters: that of a pod with a longer name is cut.
const HOST_MAX: usize = 63;
/// After a start, runs that failed this long ago still call for a look.
const RECENT: SignedDuration = SignedDuration::from_hours(1);
/// Longest pause between two attempts.
const PAUSE_MAX: u64 = 6 * 3_600_000;

/// What an actor remembers of locks and of attempts to remove them.
#[derive(Default)]
pub struct Locks {
    pub watch: Watch,
    /// When a look was last begun, in milliseconds since boot.
    pub attempted: Option<u64>,
    /// A look that was begun before this moment says nothing any more.
    look_after: u64,
    /// Attempts in a row that removed nothing.
    failures: u32,
    /// No other attempt before this moment, in milliseconds since boot.
    not_before: u64,
}

/// What a look found.
pub struct Looked {
    start: Moment,
    end: Moment,
    ids: Vec<String>,
    read: Vec<(String, Content)>,
}

/// How restic's locks are treated.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Between two looks while there are locks, in milliseconds.
    pub interval: u64,
    /// Milliseconds after which an unchanged lock is left over.
    pub after: u64,
    pub after_end: u64,
    /// Tests remove locks that restic does not find old yet.
    pub test: bool,
}

/// Now, on both clocks.
pub fn moment(wall: Timestamp) -> Moment {
    Moment {
        boot: since_boot(),
        wall,
    }
}

/// Lists locks, and reads those that are not known yet.
pub async fn look(
    restic: &dyn Restic,
    credentials: &Credentials,
    known: &BTreeSet<String>,
) -> Result<Looked, Failure> {
    let start = moment(Timestamp::now());
    let ids = restic.locks(credentials).await?;
    let end = moment(Timestamp::now());
    let mut read = Vec::new();
    for id in ids.iter().filter(|id| !known.contains(*id)).take(READS) {
        match restic.lock(credentials, id).await {
            Ok(file) => read.push((id.clone(), Content::Read(file))),
            Err(failure @ (Failure::Damaged(_) | Failure::Other(_))) => {
                read.push((id.clone(), Content::Unreadable(failure.to_string())));
            }
            // Asked again at the next look.
            Err(_) => {}
        }
    }
    Ok(Looked {
        start,
        end,
        ids,
        read,
    })
}

impl Locks {
    /// Takes a look in.
    pub fn take(&mut self, looked: Looked) {
        self.watch.look(&looked.ids, looked.start, looked.end);
        for (id, content) in looked.read {
            self.watch.read(&id, content);
        }
    }

    /// Ids that need not be read.
    pub fn known(&self) -> BTreeSet<String> {
        let locks = self.watch.locks().into_iter();
        let read = locks.filter(|(_, seen)| matches!(seen.content, Content::Read(_)));
        read.map(|(id, _)| id.to_owned()).collect()
    }

    fn count(&mut self, finished: &Finished, interval: u64) {
        let applied = finished.outcome.result == "Applied";
        self.failures = if applied {
            0
        } else {
            self.failures.saturating_add(1)
        };
        let doubled = interval.saturating_mul(1u64.checked_shl(self.failures).unwrap_or(u64::MAX));
        self.look_after = since_boot();
        self.not_before = self
            .look_after
            .saturating_add(doubled.min(PAUSE_MAX.max(interval)));
    }
}

impl RepositoryKind {
    /// Ids of locks that may be removed now.
    pub(super) fn removable(&self, key: &Key) -> Vec<String> {
        let removable = self.lock_removable();
        removable.get(key).cloned().unwrap_or_default()
    }

    /// Reads the credentials and looks at the locks.
    pub(super) fn ask_for_locks(
        &self,
        repository: Arc<ResticRepository>,
        known: BTreeSet<String>,
    ) -> impl Future<Output = Option<Looked>> + Send + 'static {
        let (context, restic) = (self.context.clone(), self.restic.clone());
        async move {
            let credentials = secrets::cluster::read(&context, &repository).await.ok()?.ok()?;
            match look(restic.as_ref(), &credentials, &known).await {
                Ok(looked) => Some(looked),
                Err(failure) => {
                    warn!(%failure, "restic's locks could not be listed");
                    None
                }
            }
        }
    }

    /// When the locks are to be looked at; `None` while there is no reason to.
    pub(super) fn look_due(
        &self,
        key: &Key,
        status: &ResticRepositoryStatus,
        locks: &Locks,
        now: Timestamp,
    ) -> Option<Timestamp> {
        if !conditions::is_true(&status.conditions, types::READY) {
            return None;
        }
        let watch = &locks.watch;
        let last = watch.last();
        let since = last.map_or_else(|| now.checked_sub(RECENT).unwrap_or(now), |last| last.wall);
        let (boot, interval) = (since_boot(), self.settings.interval);
        let due = match last {
            // The wait begins anew with this process.
            None if !status.locks.is_empty() => boot,
            _ if failed_since(&self.context.world, key, since) => boot,
            Some(last) if last.boot < locks.look_after => boot,
            Some(last) if !watch.is_empty() => {
                let next = last.boot.saturating_add(interval);
                let waits = self
                    .judge(watch)
                    .into_iter()
                    .filter_map(|(_, verdict)| match verdict {
                        Verdict::Wait(until, _) if until > boot => Some(until),
                        _ => None,
                    });
                waits.min().map_or(next, |until| until.min(next))
            }
            _ => return None,
        };
        // A look that fails, or a crowd of runs that fail, is no reason to look all the time.
        let pause = locks.attempted.map(|at| at.saturating_add(interval / 5));
        let left = due.max(pause.unwrap_or_default()).saturating_sub(boot);
        now.checked_add(SignedDuration::from_millis(
            i64::try_from(left).unwrap_or(i64::MAX),
        ))
        .ok()
    }

    /// What is to become of each lock.
    pub(super) fn judge<'a>(&self, watch: &'a Watch) -> Vec<(&'a str, Verdict)> {
        let shared = self.context.leases.is_shared();
        let rules = Rules {
            after: self.settings.after,
            after_end: self.settings.after_end,
            spread: if shared { self.settings.after } else { 0 },
            cluster: &self.context.cluster,
        };
        let (world, cluster) = (&self.context.world, &self.context.cluster);
        watch.judge(rules, since_boot(), |lock| life(world, cluster, lock))
    }

    /// Writes into the status what is known of locks and of their removal, and has removed what is left over.
    pub(super) async fn tend(
        &self,
        key: &Key,
        repository: &ResticRepository,
        memory: &mut Memory,
        new: &mut ResticRepositoryStatus,
        now: Timestamp,
    ) -> Result<(), ApplyError> {
        for operation in self.context.operations.of(repository.uid()) {
            if let Some(finished) = &operation.finished
                && new
                    .last_unlock
                    .as_ref()
                    .is_none_or(|last| last.job_uid != finished.operation)
            {
                memory.locks.count(finished, self.settings.interval);
                record(new, finished, repository.metadata.generation, now);
            }
        }
        let judged = self.judge(&memory.locks.watch);
        if memory.locks.watch.last().is_some() {
            new.locks = status::locks(&memory.locks.watch, &judged);
        }
        stuck(
            new,
            &memory.locks.watch,
            &judged,
            self.settings.after,
            repository,
            now,
        );
        let batch = self.batch(&memory.locks.watch, &judged);
        let locks = &memory.locks;
        let is_new = locks
            .watch
            .last()
            .is_some_and(|last| last.boot >= locks.look_after);
        let acts = is_new && !batch.0.is_empty() && self.is_first(key, new);
        self.lock_removable()
            .insert(key.clone(), if acts { batch.0 } else { Vec::new() });
        let at = Key::new(&key.namespace, names::unlock_job(&key.name));
        let job = self.context.world.jobs.get(&at);
        let job = job.filter(|job| job.meta.owner.as_deref() == Some(repository.uid()));
        match (job, acts) {
            (Some(job), _) => self.clear_away(&at, &job, acts).await,
            (None, true) if since_boot() >= memory.locks.not_before => {
                self.begin(key, repository, batch.1).await
            }
            (None, _) => Ok(()),
        }
    }

    /// Locks that may go in one operation, and the host name for its pod.
    fn batch(&self, watch: &Watch, judged: &[(&str, Verdict)]) -> (Vec<String>, Option<String>) {
        let removable = judged.iter().filter(|(_, verdict)| *verdict == Verdict::Remove);
        let removable: Vec<&str> = removable.map(|(id, _)| *id).collect();
        if !self.settings.test {
            return (removable.into_iter().map(str::to_owned).collect(), None);
        }
        let locks = watch.locks();
        let host = |id: &str| {
            let seen = locks.iter().find(|(of, _)| *of == id)?.1;
            match &seen.content {
                Content::Read(file) => Some(file.host.clone()),
                _ => None,
            }
        };
        let first = removable.first().and_then(|id| host(id));
        let same = removable.into_iter().filter(|id| host(id) == first);
        (same.map(str::to_owned).collect(), first)
    }

    /// Of several resources for one physical repository, one acts.
    fn is_first(&self, key: &Key, status: &ResticRepositoryStatus) -> bool {
        let same = self.context.world.repositories.filter(|at, other| {
            let other = other.status.as_ref();
            at < key
                && other.is_some_and(|other| {
                    other.repository_id == status.repository_id
                        && conditions::is_true(&other.conditions, types::READY)
                })
        });
        conditions::is_true(&status.conditions, types::READY)
            && status.repository_id.is_some()
            && same.is_empty()
    }

    /// Deletes a Job that is not needed: one that waits although nothing is left over, or whose result is recorded.
    async fn clear_away(&self, at: &Key, job: &JobView, acts: bool) -> Result<(), ApplyError> {
        let waits = job.suspended && !job.is_spent() && job.start.is_none();
        let over = job.end.is_some() && job.released.is_some();
        if (waits && !acts) || (over && acts) {
            self.context.applier.delete::<Job>(at, &job.meta.uid).await?;
            self.context.world.jobs.remove(at, Some(&job.meta.uid));
        }
        Ok(())
    }

    async fn begin(
        &self,
        key: &Key,
        repository: &ResticRepository,
        host: Option<String>,
    ) -> Result<(), ApplyError> {
        let Ok(settings) = pod::job_settings(None) else {
            return Ok(());
        };
        let cluster = &self.context.cluster;
        let job = build::unlock_job(key, cluster, repository, &settings, &self.image, host);
        match self.context.applier.create(&job).await {
            Ok(written) => {
                info!(object = %key, "locks were left behind; they are removed when the maintenance lock is granted");
                let at = Key::new(&key.namespace, names::unlock_job(&key.name));
                self.context.world.jobs.put(at, Arc::new(JobView::of(&written)));
                Ok(())
            }
            // The one before is being deleted.
            Err(ApplyError::Conflict(_)) => Ok(()),
            Err(error) => Err(error),
        }
    }
}

/// Whether a backup or a run of a policy has failed since a moment: what was killed leaves its lock, and what finds one
/// fails. Pure.
fn failed_since(world: &World, key: &Key, since: Timestamp) -> bool {
    let after = |time: Option<&Time>| time.is_some_and(|time| time.0 > since);
    let backup = |backup: &ResticBackup| {
        let last = backup.status.as_ref().and_then(|s| s.last_backup.as_ref());
        last.is_some_and(|run| run.result == BackupResult::Failed && after(run.completion_time.as_ref()))
    };
    let policy = |policy: &GlobalRetentionPolicy| {
        policy.status.as_ref().is_some_and(|status| {
            let ill = matches!(status.last_run_result.as_deref(), Some("Failed" | "Interrupted"));
            ill && after(status.last_run.as_ref())
        })
    };
    world.backups.group(key).iter().any(|(_, b)| backup(b))
        || world.policies.group(key).iter().any(|(_, p)| policy(p))
}

/// What a cluster knows of the process that holds a lock. Pure.
fn life(world: &World, own: &str, lock: &LockFile) -> Life {
    let of = |found: Vec<(Key, Arc<PodView>)>| {
        let active = found.iter().find(|(_, pod)| pod.is_active());
        match (active, found.is_empty()) {
            (Some((key, _)), _) => Life::Alive(format!("pod {key}")),
            (None, false) => Life::Ended,
            (None, true) => Life::Gone,
        }
    };
    match LockOwner::parse(&lock.user, &lock.host) {
        LockOwner::Fleet { cluster, .. } if cluster != own => Life::Elsewhere,
        // A maintenance operation is named by its Job.
        LockOwner::Fleet { operation, token, .. } if token > 0 => {
            of(world.pods.group(&Key::new("", &operation)))
        }
        LockOwner::Fleet { operation, .. } => of(world.pods.filter(|_, pod| *pod.meta.uid == *operation)),
        LockOwner::Host(host) => {
            let is = |key: &Key| key.name.get(..HOST_MAX).unwrap_or(&key.name) == host;
            let found = world.pods.filter(|key, _| is(key));
            if found.is_empty() {
                Life::Elsewhere
            } else {
                of(found)
            }
        }
    }
}

/// Tells of locks that only a person can remove, and when there are none any more. Pure.
fn stuck(
    status: &mut ResticRepositoryStatus,
    watch: &Watch,
    judged: &[(&str, Verdict)],
    after: u64,
    repository: &ResticRepository,
    now: Timestamp,
) {
    let Some(last) = watch.last() else { return };
    let locks = watch.locks();
    let old = |id: &str| {
        let seen = locks.iter().find(|(of, _)| *of == id);
        seen.is_some_and(|(_, seen)| last.boot.saturating_sub(seen.first.boot) >= after)
    };
    let kept = judged.iter().find_map(|(id, verdict)| match verdict {
        Verdict::Keep(why) if old(id) => Some((*id, why)),
        _ => None,
    });
    let before = conditions::get(&status.conditions, types::DEGRADED);
    let before = before.map(|c| (c.status == "True", c.reason.clone()));
    let (value, reason, text) = match (kept, before) {
        (Some((id, why)), _) => (
            Status::True,
            reasons::REPOSITORY_LOCKED,
            format!(
                "restic's lock {} does not change, and stays: {why}; `fleet why-locked {}` shows what a person can do",
                id.get(..10).unwrap_or(id),
                repository.metadata.name.as_deref().unwrap_or_default()
            ),
        ),
        (None, Some((true, reason))) if watch.is_empty() || reason == reasons::REPOSITORY_LOCKED => (
            Status::False,
            reasons::REPOSITORY_UNLOCKED,
            "no lock of a dead process is left".to_owned(),
        ),
        _ => return,
    };
    let generation = repository.metadata.generation;
    conditions::set(
        &mut status.conditions,
        types::DEGRADED,
        value,
        reason,
        &text,
        generation,
        now,
    );
}

/// Takes a result into the status. Pure.
fn record(status: &mut ResticRepositoryStatus, finished: &Finished, generation: Option<i64>, now: Timestamp) {
    let outcome = &finished.outcome;
    status.last_unlock = Some(LastUnlock {
        job_uid: finished.operation.clone(),
        time: Some(Time(whole_seconds(finished.finished.unwrap_or(now)))),
        result: outcome.result.clone(),
        message: outcome.message.clone(),
        removed: outcome.removed_locks.clone(),
    });
    let (degraded, reason) = match outcome.result.as_str() {
        "Applied" => (Status::False, reasons::REPOSITORY_UNLOCKED),
        // Somebody else was quicker, or the process lives after all.
        "NothingToRemove" => return,
        _ => (Status::True, reasons::UNLOCK_FAILED),
    };
    let text = match outcome.reason.as_str() {
        "" => outcome.message.clone(),
        reason => format!("{reason}: {}", outcome.message),
    };
    conditions::set(
        &mut status.conditions,
        types::DEGRADED,
        degraded,
        reason,
        &text,
        generation,
        now,
    );
}

#[cfg(test)]
mod tests {
    use proto::v1::OperationOutcome;

    use super::*;

    fn finished(result: &str, reason: &str) -> Finished {
        Finished {
            operation: "job".to_owned(),
            outcome: OperationOutcome {
                result: result.to_owned(),
                reason: reason.to_owned(),
                message: "text".to_owned(),
                removed_locks: vec!["ab".repeat(32)],
                ..OperationOutcome::default()
            },
            started: None,
            finished: None,
            token: Some(3),
            by: None,
            approved: None,
        }
    }

    #[test]
    fn what_came_of_it_is_told_once_by_reason() {
        let now = Timestamp::from_second(100).unwrap();
        let mut status = ResticRepositoryStatus::default();
        for (result, reason, told) in [
            ("Failed", "CheckFailed", Some(("True", "UnlockFailed"))),
            ("NothingToRemove", "LocksChanged", Some(("True", "UnlockFailed"))),
            ("Interrupted", "LeaseLost", Some(("True", "UnlockFailed"))),
            ("Applied", "", Some(("False", "RepositoryUnlocked"))),
        ] {
            record(&mut status, &finished(result, reason), Some(1), now);
            let condition = conditions::get(&status.conditions, types::DEGRADED);
            let condition = condition.map(|c| (c.status.as_str(), c.reason.as_str()));
            assert_eq!(condition, told, "{result}");
        }
        let last = status.last_unlock.unwrap();
        assert_eq!((last.job_uid.as_str(), last.removed.len()), ("job", 1));
    }

    fn pod(uid: &str, job: &str, phase: &str) -> PodView {
        let mut pod = PodView {
            phase: phase.into(),
            ..PodView::default()
        };
        pod.meta.uid = uid.into();
        pod.meta.owner = Some(job.into());
        pod
    }

    fn lock(user: &str, host: &str) -> LockFile {
        LockFile {
            time: Timestamp::UNIX_EPOCH,
            exclusive: false,
            host: host.to_owned(),
            user: user.to_owned(),
            pid: 1,
        }
    }

    #[test]
    fn a_lock_leads_to_the_pod_that_holds_it() {
        let world = World::default();
        let long = "x".repeat(70);
        for (name, view) in [
            ("works", pod("pod-1", "job-1", "Running")),
            ("ended", pod("pod-2", "job-2", "Failed")),
            (&long, pod("pod-3", "job-3", "Running")),
        ] {
            world.pods.put(Key::new("shop", name), Arc::new(view));
        }
        let alive = |name: &str| Life::Alive(format!("pod shop/{name}"));
        for (user, host, told) in [
            ("fleet:a:pod-1:0", "h", alive("works")),
            ("fleet:a:job-1:7", "h", alive("works")),
            ("fleet:a:pod-2:0", "h", Life::Ended),
            ("fleet:a:job-2:7", "h", Life::Ended),
            ("fleet:a:job-9:7", "h", Life::Gone),
            ("fleet:b:pod-1:0", "h", Life::Elsewhere),
            // Where restic writes the name that the image has for its user, the host name leads to the pod.
            ("root", "works", alive("works")),
            ("root", &"x".repeat(63), alive(&long)),
            ("root", "ended", Life::Ended),
            ("root", "nas", Life::Elsewhere),
        ] {
            assert_eq!(life(&world, "a", &lock(user, host)), told, "{user} {host}");
        }
    }

    #[test]
    fn a_run_that_failed_calls_for_a_look() {
        let world = World::default();
        let at = |second| Timestamp::from_second(second).unwrap();
        let backup: ResticBackup = serde_json::from_value(serde_json::json!({
            "apiVersion": "backup.resticbackup.io/v1alpha1", "kind": "ResticBackup",
            "metadata": { "name": "orders", "namespace": "shop" },
            "spec": { "repositoryRef": { "name": "nas" }, "schedule": "@daily", "source": { "pvc": { "claimName": "data" } } },
            "status": { "lastBackup": { "result": "Failed", "completionTime": at(100).to_string() } },
        }))
        .unwrap();
        world.backups.put(Key::new("shop", "orders"), Arc::new(backup));
        let nas = Key::new("shop", "nas");
        assert!(failed_since(&world, &nas, at(99)));
        assert!(!failed_since(&world, &nas, at(100)));
        assert!(!failed_since(&world, &Key::new("shop", "other"), at(0)));
    }

    #[test]
    fn attempts_that_fail_come_more_and_more_rarely() {
        let mut locks = Locks::default();
        let mut pauses = Vec::new();
        for _ in 0..70 {
            locks.count(&finished("Failed", "x"), 300_000);
            pauses.push(locks.not_before.saturating_sub(since_boot()));
        }
        assert!(pauses[0] > 500_000 && pauses[69] <= PAUSE_MAX);
        assert!(pauses.windows(2).all(|two| two[1] + 1000 >= two[0]));
        locks.count(&finished("Applied", ""), 300_000);
        assert!(locks.not_before.saturating_sub(since_boot()) <= 300_000);
    }
}
