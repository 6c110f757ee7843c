//! Last state of deleted pods, kept until the result of their Job is recorded.

use std::sync::{Arc, Weak};

use crds::hooks::OpenHooks;
use crds::{ResticBackup, ResticRestore};

use crate::context::Context;
use crate::world::{Index, Key, PodView, World};

/// Keeps how a deleted pod was last seen, until the result of its Job is recorded or the Job is deleted. What became of the
/// hooks of an open run is asked for also when its Job is gone.
pub(super) fn remember_deleted(context: &Arc<Context>) {
    let weak = Arc::downgrade(context);
    context.world.pods.observe(move |key, old, new| {
        let (Some(context), Some(pod), None) = (weak.upgrade(), old, new) else {
            return;
        };
        let job = pod.meta.owner_name.as_ref();
        let job = job.and_then(|(_, name)| context.world.jobs.get(&Key::new(&key.namespace, name)));
        let has_job = job.is_some_and(|job| Some(&job.meta.uid) == pod.meta.owner.as_ref());
        let last_seen = &context.world.last_seen;
        if has_job {
            last_seen.put(key.clone(), Arc::new(pod.clone()));
        } else if has_open_hooks(&context.world, pod) {
            last_seen.owes(pod.meta.owner.as_deref().unwrap_or_default());
            last_seen.put(key.clone(), Arc::new(pod.clone()));
        }
    });
    let weak = Arc::downgrade(context);
    context.world.jobs.observe(move |_, old, new| {
        let (Some(context), Some(job), None) = (weak.upgrade(), old, new) else {
            return;
        };
        context.world.notices.forget(&job.meta.uid);
        if is_open(&context.world, job.of.as_ref(), &job.meta.uid) {
            context.world.last_seen.owes(&job.meta.uid);
        } else {
            context.world.last_seen.forget(&job.meta.uid);
        }
    });
    let weak = Arc::downgrade(context);
    context.world.backups.observe(move |_, old, new| {
        let open = |backup: Option<&ResticBackup>| Some(backup?.status.as_ref()?.open_hooks.clone());
        forget_closed(&weak, open(old), open(new));
    });
    let weak = Arc::downgrade(context);
    context.world.restores.observe(move |_, old, new| {
        let open = |restore: Option<&ResticRestore>| Some(restore?.status.as_ref()?.open_hooks.clone());
        forget_closed(&weak, open(old), open(new));
    });
}

/// Nobody asks any more for what became of hooks that are closed. Only [`crate::world::LastSeen`] is read: while a resource
/// changes, a Job may be changing that looks for its resource.
fn forget_closed(context: &Weak<Context>, old: Option<Vec<OpenHooks>>, new: Option<Vec<OpenHooks>>) {
    let (old, new) = (old.unwrap_or_default(), new.unwrap_or_default());
    let closed = old
        .iter()
        .filter(|entry| new.iter().all(|open| open.uid != entry.uid));
    if let Some(context) = context.upgrade() {
        closed.for_each(|entry| context.world.last_seen.closed(&entry.uid));
    }
}

fn has_open_hooks(world: &World, pod: &PodView) -> bool {
    let owner = pod.meta.owner.as_deref().unwrap_or_default();
    !pod.hooks.is_none() && is_open(world, pod.of.as_ref(), owner)
}

/// Whether the hooks of a run are not known to have ended well, by the status of its resource, whose label `of` is.
fn is_open(world: &World, of: Option<&Key>, job_uid: &str) -> bool {
    let Some(of) = of else { return false };
    let has = |open: &[OpenHooks]| open.iter().any(|entry| entry.uid == job_uid);
    let backups = world.backups.find(Index::Label, of).into_iter();
    let mut backups = backups.filter_map(|key| world.backups.get(&key));
    let restores = world.restores.find(Index::Label, of).into_iter();
    let mut restores = restores.filter_map(|key| world.restores.get(&key));
    backups.any(|b| b.status.as_ref().is_some_and(|s| has(&s.open_hooks)))
        || restores.any(|r| r.status.as_ref().is_some_and(|s| has(&s.open_hooks)))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::context::test_context;
    use crate::world::{HookContainer, HookContainers, JobView};

    #[tokio::test]
    async fn a_pod_without_its_job_is_kept_only_for_the_hooks_of_an_open_run() {
        let context = test_context();
        remember_deleted(&context);
        let (world, backup) = (&context.world, Key::new("ns", "orders"));
        let status = |version: u64, open: Value| {
            let backup_ = json!({
                "apiVersion": "backup.resticbackup.io/v1alpha1", "kind": "ResticBackup",
                "metadata": { "name": "orders", "namespace": "ns", "uid": "b", "resourceVersion": version.to_string() },
                "spec": { "repositoryRef": { "name": "nas" }, "schedule": "@daily",
                          "source": { "pvc": { "claimName": "data" } } },
                "status": { "openHooks": open },
            });
            world
                .backups
                .put(backup.clone(), Arc::new(serde_json::from_value(backup_).unwrap()));
        };
        let delete = |name: &str| {
            let mut pod = PodView {
                of: Some(backup.clone()),
                hooks: HookContainers {
                    before: Some(HookContainer::default()),
                    ..HookContainers::default()
                },
                ..PodView::default()
            };
            pod.meta.uid = name.into();
            pod.meta.version = 1;
            pod.meta.owner = Some("run".into());
            let at = Key::new("ns", name);
            world.pods.put(at.clone(), Arc::new(pod));
            world.pods.remove(&at, None);
            world.last_seen.of("run").len()
        };
        status(1, json!([]));
        assert_eq!(delete("p1"), 0, "its run is closed");
        status(2, json!([{ "job": "run-1", "uid": "run" }]));
        assert_eq!(delete("p2"), 1);
        status(3, json!([]));
        assert_eq!(world.last_seen.of("run").len(), 0, "its hooks are closed");
        // The Job goes before its hooks are closed, or after.
        let at = Key::new("ns", "run-1");
        let put = |version: u64| {
            let mut job = JobView {
                of: Some(backup.clone()),
                ..JobView::default()
            };
            job.meta.uid = "run".into();
            job.meta.version = version;
            world.jobs.put(at.clone(), Arc::new(job));
        };
        put(1);
        status(4, json!([{ "job": "run-1", "uid": "run" }]));
        world.jobs.remove(&at, None);
        assert_eq!(delete("p3"), 1, "its Job was deleted");
        status(5, json!([]));
        assert_eq!(world.last_seen.of("run").len(), 0);
        put(2);
        status(6, json!([{ "job": "run-1", "uid": "run" }]));
        let pod = |uid: &str| {
            let mut pod = PodView::default();
            pod.meta.uid = uid.into();
            pod.meta.owner = Some("run".into());
            pod.meta.owner_name = Some(("Job".into(), "run-1".into()));
            pod.meta.version = 1;
            let at = Key::new("ns", uid);
            world.pods.put(at.clone(), Arc::new(pod));
            world.pods.remove(&at, None);
        };
        pod("p4");
        status(7, json!([]));
        assert_eq!(
            world.last_seen.of("run").len(),
            1,
            "its result is not recorded yet"
        );
        status(8, json!([{ "job": "run-1", "uid": "run" }]));
        world.jobs.remove(&at, None);
        assert_eq!(world.last_seen.of("run").len(), 1);
        world.backups.remove(&backup, None);
        assert_eq!(world.last_seen.of("run").len(), 0, "the backup is deleted");
    }
}
