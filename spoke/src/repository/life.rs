//! What a cluster knows of the processes that hold restic's locks. Pure: it reads the cache.

use std::sync::Arc;

use crds::backup::BackupResult;
use jiff::Timestamp;

use super::Found;
use super::locks::{Content, Life};
use super::unlock::Locks;
use crate::restic::locks::{LockFile, LockOwner};
use crate::world::{Key, PodView, World};

/// A host name has at most so many characters: that of a pod with a longer name is cut.
const HOST_MAX: usize = 63;

/// Every lock that was read, now or before.
pub(super) fn files<'a>(locks: &'a Locks, found: &'a [Found]) -> impl Iterator<Item = &'a LockFile> {
    let known = locks.watch.locks().into_iter().map(|(_, seen)| &seen.content);
    let looked = found.iter().filter_map(|found| match found {
        Found::Locks(looked) => looked.as_ref(),
        Found::Answer(reply) => reply.locks.as_ref(),
    });
    let read = looked.flat_map(|looked| looked.read.iter().map(|(_, content)| content));
    known.chain(read).filter_map(|content| match content {
        Content::Read(file) => Some(file),
        Content::Unread | Content::Unreadable(_) => None,
    })
}

/// When a backup or a run of a policy last failed: what was killed leaves its lock, and what finds one fails.
pub(super) fn last_failure(world: &World, key: &Key) -> Option<Timestamp> {
    let backups = world.backups.group(key);
    let backups = backups.iter().filter_map(|(_, backup)| {
        let run = backup.status.as_ref()?.last_backup.as_ref()?;
        (run.result == BackupResult::Failed).then_some(run.completion_time.as_ref()?.0)
    });
    let policies = world.policies.group(key);
    let policies = policies.iter().filter_map(|(_, policy)| {
        let status = policy.status.as_ref()?;
        let ill = matches!(status.last_run_result.as_deref(), Some("Failed" | "Interrupted"));
        ill.then_some(status.last_run.as_ref()?.0)
    });
    backups.chain(policies).max()
}

/// What a cluster knows of the process that holds a lock.
pub(super) fn life(world: &World, own: &str, lock: &LockFile, now: Timestamp) -> Life {
    let known = world.pods.delivery().since(now).is_some();
    let of = |found: Vec<(Key, Arc<PodView>)>| {
        let active = found.iter().find(|(_, pod)| pod.is_active());
        match (active, found.is_empty()) {
            (Some((key, _)), _) => Life::Alive(format!("pod {key}")),
            (None, _) if !known => {
                Life::Alive("a pod that is not known, as pods cannot be watched,".to_owned())
            }
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

#[cfg(test)]
mod tests {
    use crds::ResticBackup;

    use super::*;
    use crate::world::Delivery;

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
        let watched = Delivery::complete(Timestamp::MIN);
        let long = "x".repeat(70);
        for (name, view) in [
            ("works", pod("pod-1", "job-1", "Running")),
            ("ended", pod("pod-2", "job-2", "Failed")),
            (&long, pod("pod-3", "job-3", "Running")),
        ] {
            world.pods.put(Key::new("shop", name), Arc::new(view));
        }
        let alive = |name: &str| Life::Alive(format!("pod shop/{name}"));
        world.pods.note(|pods| *pods = watched);
        for (user, host, expected) in [
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
            let life = life(&world, "a", &lock(user, host), Timestamp::UNIX_EPOCH);
            assert_eq!(life, expected, "{user} {host}");
        }
        // While pods cannot be watched, one that is not in the cache may be at work.
        world.pods.note(Delivery::broke);
        for user in ["fleet:a:job-9:7", "fleet:a:job-2:7", "fleet:a:pod-9:0"] {
            let life = life(&world, "a", &lock(user, "h"), Timestamp::UNIX_EPOCH);
            assert!(matches!(life, Life::Alive(_)), "{user}: {life:?}");
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
        assert_eq!(last_failure(&world, &nas), Some(at(100)));
        assert_eq!(last_failure(&world, &Key::new("shop", "other")), None);
    }
}
