//! Statuses of a pod's containers, as the kubelet reports them.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ContainerStateTerminated, ContainerStatus, PodSpec, PodStatus};

use crate::world::hooks::HOOK_CONTAINER;

/// Name of the container that runs restic, in every pod that does.
pub const RESTIC_CONTAINER: &str = "restic";

/// A container that ended.
#[derive(Clone, Debug, PartialEq)]
pub struct Termination {
    pub exit_code: i32,
    /// kubelet's reason, such as Completed, Error or OOMKilled.
    pub reason: Box<str>,
    /// What the container wrote to its termination log.
    pub message: Box<str>,
    pub started: Option<Timestamp>,
    pub finished: Option<Timestamp>,
}

impl Termination {
    pub(in crate::world) fn of(state: &ContainerStateTerminated) -> Termination {
        Termination {
            exit_code: state.exit_code,
            reason: state.reason.as_deref().unwrap_or_default().into(),
            message: state.message.as_deref().unwrap_or_default().into(),
            started: state.started_at.as_ref().map(|t| t.0),
            finished: state.finished_at.as_ref().map(|t| t.0),
        }
    }
}

/// The statuses of a pod.
pub(super) struct Containers<'a> {
    main: &'a [ContainerStatus],
    init: &'a [ContainerStatus],
    ephemeral: &'a [ContainerStatus],
}

impl<'a> Containers<'a> {
    pub fn of(status: Option<&'a PodStatus>) -> Containers<'a> {
        let of = |list: fn(&PodStatus) -> Option<&Vec<ContainerStatus>>| {
            status.and_then(list).map(Vec::as_slice).unwrap_or_default()
        };
        Containers {
            main: of(|s| s.container_statuses.as_ref()),
            init: of(|s| s.init_container_statuses.as_ref()),
            ephemeral: of(|s| s.ephemeral_container_statuses.as_ref()),
        }
    }

    /// The container that does what the pod is for.
    fn restic(&self) -> Option<&'a ContainerStatus> {
        let main = |name: &str| name == RESTIC_CONTAINER || name == HOOK_CONTAINER;
        self.main.iter().find(|c| main(&c.name))
    }

    /// Container `restic` runs.
    pub fn restic_runs(&self) -> bool {
        let state = self.restic().and_then(|c| c.state.as_ref());
        state.is_some_and(|s| s.running.is_some())
    }

    /// Since when container `restic` runs, where there is one of that name.
    pub fn restic_since(&self) -> Option<Timestamp> {
        let restic = self.main.iter().find(|c| c.name == RESTIC_CONTAINER)?;
        let running = restic.state.as_ref()?.running.as_ref()?;
        running.started_at.as_ref().map(|t| t.0)
    }

    /// How container `restic` ended.
    pub fn restic_ended(&self) -> Option<Termination> {
        let terminated = self.restic()?.state.as_ref()?.terminated.as_ref()?;
        Some(Termination::of(terminated))
    }

    /// Init containers that end before the others start.
    fn first(&self, spec: Option<&'a PodSpec>) -> impl Iterator<Item = &'a ContainerStatus> {
        let containers = spec
            .and_then(|s| s.init_containers.as_deref())
            .unwrap_or_default();
        let goes_on = |name: &str| {
            let mut all = containers.iter();
            all.any(|c| c.name == name && c.restart_policy.as_deref() == Some("Always"))
        };
        self.init.iter().filter(move |c| !goes_on(&c.name))
    }

    /// One of these runs.
    pub fn first_runs(&self, spec: Option<&'a PodSpec>) -> bool {
        let mut states = self.first(spec).filter_map(|c| c.state.as_ref());
        states.any(|state| state.running.is_some())
    }

    /// One of these has failed: its name and its end.
    pub fn first_failed(&self, spec: Option<&'a PodSpec>) -> Option<(Box<str>, Termination)> {
        self.first(spec).find_map(|c| {
            let end = c.state.as_ref()?.terminated.as_ref()?;
            (end.exit_code != 0).then(|| (c.name.as_str().into(), Termination::of(end)))
        })
    }

    /// Reason and message of a container that waits for something that does not come by itself.
    pub fn waiting(&self) -> Option<(Box<str>, Box<str>)> {
        let all = self.main.iter().chain(self.init);
        let mut waiting = all.filter_map(|c| c.state.as_ref()?.waiting.as_ref());
        waiting.find_map(|w| {
            let reason = w.reason.as_deref()?;
            let usual = matches!(reason, "PodInitializing" | "ContainerCreating");
            (!usual).then(|| (reason.into(), w.message.as_deref().unwrap_or_default().into()))
        })
    }

    /// Statuses are reported, and none of a container that may be running.
    pub fn all_stopped(&self) -> bool {
        let mut all = self.main.iter().chain(self.init).chain(self.ephemeral);
        !self.main.is_empty() && all.all(is_stopped)
    }
}

fn is_stopped(container: &ContainerStatus) -> bool {
    let (now, before) = (container.state.as_ref(), container.last_state.as_ref());
    let waits = now.is_none_or(|s| s.running.is_none() && s.terminated.is_none());
    // One that waits has never run, unless it is started again.
    now.is_some_and(|s| s.terminated.is_some()) || (waits && before.is_none_or(|s| s.terminated.is_none()))
}
