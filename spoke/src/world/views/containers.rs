//! Statuses of a pod's containers, as the kubelet reports them.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ContainerStatus, PodStatus};

/// Name of the container that runs restic, in every pod.
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

    fn restic(&self) -> Option<&'a ContainerStatus> {
        self.main.iter().find(|c| c.name == RESTIC_CONTAINER)
    }

    /// Container `restic` runs.
    pub fn restic_runs(&self) -> bool {
        let state = self.restic().and_then(|c| c.state.as_ref());
        state.is_some_and(|s| s.running.is_some())
    }

    /// How container `restic` ended.
    pub fn restic_ended(&self) -> Option<Termination> {
        let terminated = self.restic()?.state.as_ref()?.terminated.as_ref()?;
        Some(Termination {
            exit_code: terminated.exit_code,
            reason: terminated.reason.as_deref().unwrap_or_default().into(),
            message: terminated.message.as_deref().unwrap_or_default().into(),
            started: terminated.started_at.as_ref().map(|t| t.0),
            finished: terminated.finished_at.as_ref().map(|t| t.0),
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
