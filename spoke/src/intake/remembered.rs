//! Last state of deleted pods, kept until the result of their Job is recorded.

use std::sync::Arc;

use crds::hooks::OpenHooks;

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
        if has_job || has_open_hooks(&context.world, pod) {
            context.world.last_seen.put(key.clone(), Arc::new(pod.clone()));
        }
    });
    let weak = Arc::downgrade(context);
    context.world.jobs.observe(move |_, old, new| {
        let (Some(context), Some(job), None) = (weak.upgrade(), old, new) else {
            return;
        };
        context.world.notices.forget(&job.meta.uid);
        if !is_open(&context.world, job.of.as_ref(), &job.meta.uid) {
            context.world.last_seen.forget(&job.meta.uid);
        }
    });
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
    use crate::world::{HookContainer, HookContainers};

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
    }
}
