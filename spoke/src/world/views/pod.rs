//! Pods of our Jobs.

use crds::names;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;

use super::super::hooks::HookContainers;
use super::super::store::Stored as _;
use super::containers::{Containers, RESTIC_CONTAINER, Termination};
use super::meta::{annotation, resource_of};
use super::{Key, Meta};

/// A pod of one of our Jobs.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PodView {
    pub meta: Meta,
    /// As in [`JobView::of`].
    pub of: Option<Key>,
    /// Pending, Running, Succeeded, Failed or Unknown.
    pub phase: Box<str>,
    /// status.reason of the pod, such as Evicted or DeadlineExceeded, and its message.
    pub reason: Box<str>,
    pub message: Box<str>,
    /// Container `restic` has been started.
    pub started: bool,
    /// Since when it runs; `None` for a pod that runs a hook alone.
    pub since: Option<Timestamp>,
    /// A container that has to end before `restic` starts runs.
    pub preparing: bool,
    /// One of these has failed: its name and its end.
    pub unprepared: Option<(Box<str>, Termination)>,
    /// Token of the lease that it runs under.
    pub token: Option<u64>,
    /// Renewals of its lease that were written to it.
    pub renewals: u64,
    /// proto::digest::run_hash of the run that it was given, as hex digits.
    pub order_hash: Option<Box<str>>,
    /// Container `restic` when it ended.
    pub restic: Option<Termination>,
    /// Why a container waits, such as ImagePullBackOff or CreateContainerConfigError, and the message.
    pub waiting: Option<(Box<str>, Box<str>)>,
    /// Message of the scheduler while the pod has no node.
    pub unschedulable: Option<Box<str>>,
    /// It was given a node.
    pub scheduled: bool,
    /// The kubelet's last report shows no container that may be running: each that was started has terminated.
    pub stopped: bool,
    /// Condition Ready. The node controller sets it to `False` when the node stops reporting.
    pub ready: bool,
    /// Its volumes are mounted and its network is set up (condition PodReadyToStartContainers).
    pub prepared: bool,
    /// Reason and message of condition DisruptionTarget: it is about to be ended from outside.
    pub disruption: Option<(Box<str>, Box<str>)>,
    /// Memory limit of container `restic`, as written.
    pub memory_limit: Option<Box<str>>,
    /// uid that container `restic` runs as, where the spec gives one.
    pub user: Option<i64>,
    pub hooks: HookContainers,
}

impl PodView {
    /// Whether something of it may still be at work. phase=Failed alone proves nothing: the pod garbage collector sets it
    /// on pods of deleted nodes, where no kubelet is left to ask.
    #[must_use]
    pub fn is_active(&self) -> bool {
        !self.is_over() || (self.began() && !self.stopped)
    }

    /// Fencing token of a pod that counts as failed although its kubelet did not report the end of its containers.
    #[must_use]
    pub fn unproven(&self) -> Option<u64> {
        self.token
            .filter(|_| self.is_over() && self.began() && !self.stopped)
    }

    /// Whether the lease may be renewed for it: its container runs, and its node reports.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        self.started && self.ready && &*self.phase == "Running"
    }

    /// It has a phase that it keeps.
    #[must_use]
    pub fn is_over(&self) -> bool {
        matches!(&*self.phase, "Succeeded" | "Failed")
    }

    /// The worker does not start restic before it has seen a renewal.
    fn began(&self) -> bool {
        self.renewals > 0
    }

    /// Fencing token of a pod whose end was not observed, if it disappears from the API in this state (deletion by force,
    /// of its node, or of its owner reference). `observed` is false when a new list no longer names it: then renewals
    /// that were counted last may be missing here.
    pub(super) fn lost(&self, observed: bool) -> Option<(Key, u64)> {
        let began = self.began() || (!observed && self.scheduled && !self.stopped);
        let lost = began && self.is_active();
        self.group().zip(self.token).filter(|_| lost)
    }

    #[must_use]
    pub fn of(object: &Pod) -> PodView {
        let (meta, spec, status) = (&object.metadata, object.spec.as_ref(), object.status.as_ref());
        let containers = Containers::of(status);
        let conditions = status.and_then(|s| s.conditions.as_deref()).unwrap_or_default();
        let find =
            |type_: &str, value: &str| conditions.iter().find(|c| c.type_ == type_ && c.status == value);
        let text = |text: Option<&String>| text.map(String::as_str).unwrap_or_default().into();
        let number = |name| annotation(meta, name).and_then(|n| n.parse::<u64>().ok());
        let container = spec.and_then(|s| s.containers.iter().find(|c| c.name == RESTIC_CONTAINER));
        let limits = container.and_then(|c| c.resources.as_ref()?.limits.as_ref());
        let own_user = container.and_then(|c| c.security_context.as_ref()?.run_as_user);
        PodView {
            meta: Meta::of(meta),
            of: resource_of(meta),
            phase: text(status.and_then(|s| s.phase.as_ref())),
            reason: text(status.and_then(|s| s.reason.as_ref())),
            message: text(status.and_then(|s| s.message.as_ref())),
            started: containers.restic_runs(),
            since: containers.restic_since(),
            preparing: containers.first_runs(spec),
            unprepared: containers.first_failed(spec),
            token: number(names::ANNOTATION_TOKEN),
            renewals: number(names::ANNOTATION_RENEWALS).unwrap_or_default(),
            order_hash: annotation(meta, names::ANNOTATION_ORDER_HASH).map(Into::into),
            restic: containers.restic_ended(),
            waiting: containers.waiting(),
            unschedulable: find("PodScheduled", "False").map(|c| text(c.message.as_ref())),
            scheduled: spec.is_some_and(|s| s.node_name.is_some()),
            stopped: containers.all_stopped(),
            ready: find("Ready", "True").is_some(),
            prepared: find("PodReadyToStartContainers", "True").is_some(),
            disruption: find("DisruptionTarget", "True")
                .map(|c| (text(c.reason.as_ref()), text(c.message.as_ref()))),
            memory_limit: limits.and_then(|l| l.get("memory")).map(|q| q.0.as_str().into()),
            user: own_user.or_else(|| spec?.security_context.as_ref()?.run_as_user),
            hooks: HookContainers::of(object),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use std::sync::Arc;

    use super::super::super::Store;
    use super::*;

    fn pod(name: &str, phase: &str, renewals: &str, state: serde_json::Value) -> PodView {
        let statuses = if state.is_null() {
            json!([])
        } else {
            json!([{ "name": "restic", "state": state, "image": "i", "imageID": "", "ready": false, "restartCount": 0 }])
        };
        let pod: Pod = serde_json::from_value(json!({
            "metadata": { "uid": name, "resourceVersion": "1",
                          "ownerReferences": [{ "apiVersion": "batch/v1", "kind": "Job", "name": "j", "uid": "job", "controller": true }],
                          "annotations": { names::ANNOTATION_TOKEN: "7", names::ANNOTATION_RENEWALS: renewals } },
            "spec": { "nodeName": "n", "containers": [] },
            "status": { "phase": phase, "containerStatuses": statuses },
        }))
        .unwrap();
        PodView::of(&pod)
    }

    fn running() -> serde_json::Value {
        json!({ "running": {} })
    }

    fn terminated() -> serde_json::Value {
        json!({ "terminated": { "exitCode": 0 } })
    }

    #[test]
    fn a_pod_that_had_begun_and_was_not_seen_to_end_leaves_its_token() {
        let (pods, job) = (Store::default(), Key::new("", "job"));
        let go = |name: &str, phase: &str, renewals: &str, state| {
            let key = Key::new("ns", name);
            pods.put(key.clone(), Arc::new(pod(name, phase, renewals, state)));
            pods.remove(&key, Some(name));
            pods.remembered(&job)
        };
        assert_eq!(go("ended", "Failed", "3", terminated()), None);
        assert_eq!(go("waits", "Running", "0", running()), None);
        assert_eq!(go("by-force", "Running", "1", running()), Some(7));
        pods.forget(&job);
        assert_eq!(pods.remembered(&job), None);
    }

    #[test]
    fn failed_by_the_garbage_collector_is_not_reported_by_the_kubelet() {
        // Its node was deleted: phase=Failed, and the containers as they were last reported.
        let view = pod("gc", "Failed", "4", running());
        assert!(view.is_active());
        assert_eq!(view.unproven(), Some(7));
        let (pods, key) = (Store::default(), Key::new("ns", "gc"));
        pods.put(key.clone(), Arc::new(view));
        pods.remove(&key, Some("gc"));
        assert_eq!(pods.remembered(&Key::new("", "job")), Some(7));

        let reported = pod("kubelet", "Failed", "4", terminated());
        assert!(!reported.is_active() && reported.unproven().is_none());
        // Never began: the worker waits for a renewal that was never counted.
        let unborn = pod("unborn", "Failed", "0", running());
        assert!(!unborn.is_active() && unborn.unproven().is_none());
        // Nothing was ever reported of its containers.
        assert!(pod("silent", "Failed", "1", json!(null)).is_active());
    }

    #[test]
    fn a_pod_that_loses_its_owner_reference_is_lost_to_its_job() {
        let (pods, key, job) = (Store::default(), Key::new("ns", "p"), Key::new("", "job"));
        let view = pod("p", "Running", "2", running());
        let mut orphan = view.clone();
        orphan.meta.version += 1;
        orphan.meta.owner = None;
        pods.put(key.clone(), Arc::new(view));
        pods.put(key, Arc::new(orphan));
        assert!(pods.group(&job).is_empty());
        assert_eq!(pods.remembered(&job), Some(7));
    }

    #[test]
    fn a_pod_that_a_new_list_does_not_name_may_have_begun() {
        let (pods, key, job) = (Store::default(), Key::new("ns", "p"), Key::new("", "job"));
        pods.put(key.clone(), Arc::new(pod("p", "Running", "0", running())));
        pods.remove_unobserved(&key);
        assert_eq!(pods.remembered(&job), Some(7));
    }
}
