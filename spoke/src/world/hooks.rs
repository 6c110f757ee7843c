//! The hook containers of a pod.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ContainerStatus, Pod};

use super::views::Termination;

/// Containers that run the hook before, and the one after: an init container, and one that the kubelet ends last.
pub const BEFORE: [&str; 2] = ["pre-backup-hook", "pre-restore-hook"];
pub const AFTER: [&str; 2] = ["post-backup-hook", "post-restore-hook"];
/// Container of a Job that runs hooks which are owed.
pub const HOOK_CONTAINER: &str = "hook";

/// The hook containers of a pod.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct HookContainers {
    pub before: Option<HookContainer>,
    pub after: Option<HookContainer>,
    /// Seconds that the containers of the pod have to end.
    pub grace: i64,
}

/// A container that runs a hook.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct HookContainer {
    /// When it was started first.
    pub started: Option<Timestamp>,
    pub running: bool,
    /// How it ended, if it has.
    pub ended: Option<Termination>,
}

impl HookContainers {
    /// Of any pod. Nothing, where the pod has none.
    pub(super) fn of(pod: &Pod) -> HookContainers {
        let spec = pod.spec.as_ref();
        let names = spec.and_then(|spec| spec.init_containers.as_ref());
        let has = |list: [&str; 2]| {
            names
                .into_iter()
                .flatten()
                .any(|c| list.contains(&c.name.as_str()))
        };
        let statuses = pod
            .status
            .as_ref()
            .and_then(|s| s.init_container_statuses.as_ref());
        let container = |list: [&str; 2]| {
            let status = statuses
                .into_iter()
                .flatten()
                .find(|c| list.contains(&c.name.as_str()));
            has(list).then(|| status.map(HookContainer::of).unwrap_or_default())
        };
        HookContainers {
            before: container(BEFORE),
            after: container(AFTER),
            grace: spec
                .and_then(|spec| spec.termination_grace_period_seconds)
                .unwrap_or_default(),
        }
    }

    #[must_use]
    pub fn is_none(&self) -> bool {
        self.before.is_none() && self.after.is_none()
    }

    /// The hook before the run is at work.
    #[must_use]
    pub fn before_runs(&self) -> bool {
        self.before.as_ref().is_some_and(|container| container.running)
    }

    /// The hook after the run may still be at work.
    #[must_use]
    pub fn after_stays(&self) -> bool {
        self.after
            .as_ref()
            .is_some_and(|container| container.ended.is_none())
    }

    /// A hook container was started.
    #[must_use]
    pub fn began(&self) -> bool {
        let all = [&self.before, &self.after];
        all.into_iter()
            .flatten()
            .any(|container| container.started.is_some())
    }
}

impl HookContainer {
    fn of(status: &ContainerStatus) -> HookContainer {
        let (now, before) = (status.state.as_ref(), status.last_state.as_ref());
        let running = now.and_then(|state| state.running.as_ref());
        let ends = [before, now].map(|state| state.and_then(|state| state.terminated.as_ref()));
        let started = ends
            .iter()
            .flatten()
            .map(|end| end.started_at.as_ref())
            .chain(running.map(|running| running.started_at.as_ref()))
            // A container that was started and does not say when.
            .map(|at| at.map_or(Timestamp::UNIX_EPOCH, |at| at.0))
            .min();
        HookContainer {
            started,
            running: running.is_some(),
            ended: ends[1].map(Termination::of),
        }
    }
}
