//! Watched objects cut down to what the controllers read of them: ten thousand pods must not cost ten thousand specs.

use std::collections::BTreeMap;
use std::sync::Arc;

use crds::names;
use jiff::Timestamp;
use k8s_openapi::api::batch::v1::{CronJob, Job};
use k8s_openapi::api::core::v1::{Namespace, PersistentVolumeClaim, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::core::PartialObjectMeta;

use super::store::{Index, Key, Stored};

/// Identity of an object.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Meta {
    pub uid: Box<str>,
    pub version: u64,
    pub generation: i64,
    pub deleting: bool,
    /// Hash of the manifest that was last applied (`names::ANNOTATION_APPLIED`).
    pub applied: Option<Box<str>>,
    /// uid of the restore that made it (`names::ANNOTATION_RESTORE_UID`).
    pub restore: Option<Box<str>>,
    /// uid of the controlling owner.
    pub owner: Option<Box<str>>,
    /// Kind and name of the controlling owner.
    pub owner_name: Option<(Box<str>, Box<str>)>,
}

impl Meta {
    /// The part of an object's metadata that is kept.
    #[must_use]
    pub fn of(meta: &ObjectMeta) -> Meta {
        let owners = meta.owner_references.as_deref().unwrap_or_default();
        let owner = owners.iter().find(|o| o.controller == Some(true));
        Meta {
            uid: meta.uid.as_deref().unwrap_or_default().into(),
            version: meta
                .resource_version
                .as_deref()
                .and_then(|v| v.parse().ok())
                .unwrap_or_default(),
            generation: meta.generation.unwrap_or_default(),
            deleting: meta.deletion_timestamp.is_some(),
            applied: annotation(meta, names::ANNOTATION_APPLIED).map(Into::into),
            restore: annotation(meta, names::ANNOTATION_RESTORE_UID).map(Into::into),
            owner: owner.map(|o| o.uid.as_str().into()),
            owner_name: owner.map(|o| (o.kind.as_str().into(), o.name.as_str().into())),
        }
    }
}

/// An object of which only identity and what was applied count.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct MetaView {
    pub meta: Meta,
}

impl MetaView {
    /// Of any object's metadata, as a metadata-only watch delivers it.
    #[must_use]
    pub fn of<K>(object: &PartialObjectMeta<K>) -> MetaView {
        MetaView {
            meta: Meta::of(&object.metadata),
        }
    }
}

/// A CronJob.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct CronJobView {
    pub meta: Meta,
    pub suspend: bool,
    pub last_schedule: Option<Timestamp>,
}

impl CronJobView {
    #[must_use]
    pub fn of(object: &CronJob) -> CronJobView {
        CronJobView {
            meta: Meta::of(&object.metadata),
            suspend: object.spec.suspend.unwrap_or_default(),
            last_schedule: object
                .status
                .as_ref()
                .and_then(|s| s.last_schedule_time.as_ref())
                .map(|t| t.0),
        }
    }
}

/// How a Job ended.
#[derive(Clone, Debug, PartialEq)]
pub enum JobEnd {
    Complete,
    /// Reason and message of the Failed condition, such as BackoffLimitExceeded or DeadlineExceeded.
    Failed {
        reason: Box<str>,
        message: Box<str>,
    },
}

/// A Job made for one of our resources.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct JobView {
    pub meta: Meta,
    /// Value of `names::LABEL_BACKUP`, `LABEL_RESTORE` or `LABEL_RETENTION`, and the namespace.
    pub of: Option<Key>,
    pub start: Option<Timestamp>,
    /// When it ended, and how; `None` while it is not over.
    pub end: Option<(Option<Timestamp>, JobEnd)>,
    pub created: Option<Timestamp>,
    /// Snapshot that a restore's Job restores.
    pub snapshot: Option<Box<str>>,
    /// Files in it, if that is known.
    pub snapshot_files: Option<u64>,
    pub suspended: bool,
    /// Lease that its pods run under.
    pub lease: Option<JobLease>,
    /// Hash of a plan that it may carry out.
    pub approved: Option<Box<str>>,
    /// Value of `names::LABEL_TYPE` on a Job that is not a backup's or a restore's.
    pub type_: Option<Box<str>>,
    /// What it was pinned to as a maintenance operation.
    pub pin: Option<JobPin>,
    /// spec.activeDeadlineSeconds
    pub deadline: Option<i64>,
    /// spec.backoffLimit: pods that may fail before the Job does.
    pub backoff_limit: i32,
    /// Reason and message, when it was shut for good.
    pub shut: Option<(Box<str>, Box<str>)>,
    /// Token that was given back; 0 if it never held one.
    pub released: Option<u64>,
    /// Interrupted Jobs before it, and when it asks for the lock at the earliest.
    pub attempt: u32,
    pub not_before: Option<Timestamp>,
    /// Why the Job that it follows did not do its work.
    pub follows: Option<Box<str>>,
}

/// Identity of a maintenance operation, in the annotations of its Job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JobPin {
    pub restic_id: Box<str>,
    /// The ResticRepository.
    pub repository: Key,
    /// uid of the custom resource that the Job works for.
    pub owner_uid: Box<str>,
}

impl JobPin {
    fn of(meta: &ObjectMeta) -> Option<JobPin> {
        let (namespace, name) = annotation(meta, names::ANNOTATION_REPOSITORY)?.split_once('/')?;
        Some(JobPin {
            restic_id: annotation(meta, names::ANNOTATION_RESTIC_ID)?.into(),
            repository: Key::new(namespace, name),
            owner_uid: annotation(meta, names::ANNOTATION_OWNER_UID)?.into(),
        })
    }
}

/// The lease that a maintenance Job was opened with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct JobLease {
    pub token: u64,
    /// Milliseconds.
    pub ttl: u64,
    pub renew: u64,
}

impl JobLease {
    fn of(meta: &ObjectMeta) -> Option<JobLease> {
        let number = |name| annotation(meta, name)?.parse().ok();
        Some(JobLease {
            token: number(names::ANNOTATION_TOKEN)?,
            ttl: number(names::ANNOTATION_LEASE_TTL)?,
            renew: number(names::ANNOTATION_LEASE_RENEW)?,
        })
    }
}

impl JobView {
    #[must_use]
    pub fn of(object: &Job) -> JobView {
        let (status, spec) = (object.status.as_ref(), object.spec.as_ref());
        let conditions = status.and_then(|s| s.conditions.as_deref()).unwrap_or_default();
        let number = |name| annotation(&object.metadata, name).and_then(|n| n.parse::<u64>().ok());
        let is = |type_: &str| conditions.iter().find(|c| c.type_ == type_ && c.status == "True");
        let completion = status.and_then(|s| s.completion_time.as_ref()).map(|t| t.0);
        let end = if let Some(failed) = is("Failed") {
            let at = failed.last_transition_time.as_ref().map(|t| t.0);
            let text = |t: &Option<String>| t.as_deref().unwrap_or_default().into();
            Some((
                at,
                JobEnd::Failed {
                    reason: text(&failed.reason),
                    message: text(&failed.message),
                },
            ))
        } else {
            is("Complete").map(|_| (completion, JobEnd::Complete))
        };
        JobView {
            meta: Meta::of(&object.metadata),
            of: resource_of(&object.metadata),
            start: status.and_then(|s| s.start_time.as_ref()).map(|t| t.0),
            end,
            created: object.metadata.creation_timestamp.as_ref().map(|t| t.0),
            snapshot: annotation(&object.metadata, names::ANNOTATION_SNAPSHOT).map(Into::into),
            snapshot_files: number(names::ANNOTATION_SNAPSHOT_FILES),
            suspended: spec.and_then(|s| s.suspend).unwrap_or_default(),
            lease: spec
                .and_then(|s| s.template.metadata.as_ref())
                .and_then(JobLease::of),
            approved: annotation(&object.metadata, names::ANNOTATION_APPROVE).map(Into::into),
            type_: maintenance_type(&object.metadata).map(Into::into),
            pin: JobPin::of(&object.metadata),
            deadline: spec.and_then(|s| s.active_deadline_seconds),
            backoff_limit: spec.and_then(|s| s.backoff_limit).unwrap_or(6),
            shut: annotation(&object.metadata, names::ANNOTATION_SHUT_REASON).map(|reason| {
                let message = annotation(&object.metadata, names::ANNOTATION_SHUT_MESSAGE);
                (reason.into(), message.unwrap_or_default().into())
            }),
            released: number(names::ANNOTATION_RELEASED),
            attempt: number(names::ANNOTATION_ATTEMPT)
                .and_then(|n| n.try_into().ok())
                .unwrap_or_default(),
            not_before: number(names::ANNOTATION_NOT_BEFORE)
                .and_then(|n| Timestamp::from_second(n.try_into().ok()?).ok()),
            follows: annotation(&object.metadata, names::ANNOTATION_FOLLOWS).map(Into::into),
        }
    }

    /// It was started, and is shut: Kubernetes does not let its template change any more, so it cannot be opened under
    /// another lease.
    #[must_use]
    pub fn is_spent(&self) -> bool {
        self.suspended && (self.start.is_some() || self.lease.is_some() || self.shut.is_some())
    }
}

/// Type of a maintenance Job: not that of a backup or a restore, which need no lease.
fn maintenance_type(meta: &ObjectMeta) -> Option<&str> {
    let labels = meta.labels.as_ref()?;
    let others = [names::LABEL_BACKUP, names::LABEL_RESTORE];
    let type_ = labels.get(names::LABEL_TYPE)?;
    (!others.iter().any(|label| labels.contains_key(*label))).then_some(type_)
}

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
    /// Token of the lease that it runs under.
    pub token: Option<u64>,
    /// Renewals of the lease that it was told of.
    pub renewals: u64,
    /// proto::digest::run_hash of the run that it was given, as hex digits.
    pub order_hash: Option<Box<str>>,
    /// Container `restic` when it ended.
    pub restic: Option<Termination>,
    /// Why a container waits, such as ImagePullBackOff or CreateContainerConfigError, and the message.
    pub waiting: Option<(Box<str>, Box<str>)>,
    /// The scheduler's own words while the pod has no node.
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

    fn is_over(&self) -> bool {
        matches!(&*self.phase, "Succeeded" | "Failed")
    }

    /// The worker does not start restic before it has seen a renewal.
    fn began(&self) -> bool {
        self.renewals > 0
    }

    /// Fencing token of a pod whose end was not observed, if it disappears from the API in this state (deletion by force,
    /// of its node, or of its owner reference). `observed` is false when a new list no longer names it: then renewals
    /// that were counted last may be missing here.
    fn lost(&self, observed: bool) -> Option<(Key, u64)> {
        let began = self.began() || (!observed && self.scheduled && !self.stopped);
        let lost = began && self.is_active();
        self.group().zip(self.token).filter(|_| lost)
    }

    #[must_use]
    pub fn of(object: &Pod) -> PodView {
        let status = object.status.clone().unwrap_or_default();
        let containers = status.container_statuses.unwrap_or_default();
        let states = || {
            containers
                .iter()
                .chain(status.init_container_statuses.iter().flatten())
        };
        let waiting = states()
            .filter_map(|c| c.state.as_ref()?.waiting.as_ref())
            .find_map(|w| {
                let reason = w
                    .reason
                    .as_deref()
                    .filter(|r| !matches!(*r, "PodInitializing" | "ContainerCreating"))?;
                Some((reason.into(), w.message.as_deref().unwrap_or_default().into()))
            });
        let restic = containers.iter().find(|c| c.name == RESTIC_CONTAINER);
        let started = restic.is_some_and(|c| c.state.as_ref().is_some_and(|s| s.running.is_some()));
        let restic = restic
            .and_then(|c| c.state.as_ref()?.terminated.as_ref())
            .map(|t| Termination {
                exit_code: t.exit_code,
                reason: t.reason.as_deref().unwrap_or_default().into(),
                message: t.message.as_deref().unwrap_or_default().into(),
                started: t.started_at.as_ref().map(|t| t.0),
                finished: t.finished_at.as_ref().map(|t| t.0),
            });
        let ephemeral = status.ephemeral_container_statuses.as_deref().unwrap_or_default();
        let stopped = states().chain(ephemeral).all(|c| {
            let (now, before) = (c.state.as_ref(), c.last_state.as_ref());
            let waits = now.is_none_or(|s| s.running.is_none() && s.terminated.is_none());
            // One that waits has never run, unless it is started again.
            now.is_some_and(|s| s.terminated.is_some())
                || (waits && before.is_none_or(|s| s.terminated.is_none()))
        });
        let conditions = status.conditions.unwrap_or_default();
        let holds = |type_: &str| conditions.iter().find(|c| c.type_ == type_ && c.status == "True");
        let disruption = holds("DisruptionTarget").map(|c| {
            let text = |t: &Option<String>| t.as_deref().unwrap_or_default().into();
            (text(&c.reason), text(&c.message))
        });
        let spec = object.spec.as_ref();
        let container = spec.and_then(|s| s.containers.iter().find(|c| c.name == RESTIC_CONTAINER));
        let limits = container.and_then(|c| c.resources.as_ref()?.limits.as_ref());
        let own_user = container.and_then(|c| c.security_context.as_ref()?.run_as_user);
        let user = own_user.or_else(|| spec?.security_context.as_ref()?.run_as_user);
        let unschedulable = conditions
            .iter()
            .find(|c| c.type_ == "PodScheduled" && c.status == "False")
            .map(|c| c.message.as_deref().unwrap_or_default().into());
        PodView {
            meta: Meta::of(&object.metadata),
            of: resource_of(&object.metadata),
            phase: status.phase.unwrap_or_default().into(),
            reason: status.reason.unwrap_or_default().into(),
            message: status.message.unwrap_or_default().into(),
            started,
            token: annotation(&object.metadata, names::ANNOTATION_TOKEN).and_then(|n| n.parse().ok()),
            renewals: annotation(&object.metadata, names::ANNOTATION_RENEWALS)
                .and_then(|n| n.parse().ok())
                .unwrap_or_default(),
            order_hash: annotation(&object.metadata, names::ANNOTATION_ORDER_HASH).map(Into::into),
            restic,
            waiting,
            unschedulable,
            scheduled: object.spec.as_ref().is_some_and(|s| s.node_name.is_some()),
            stopped: stopped && !containers.is_empty(),
            ready: holds("Ready").is_some(),
            prepared: holds("PodReadyToStartContainers").is_some(),
            disruption,
            memory_limit: limits.and_then(|l| l.get("memory")).map(|q| q.0.as_str().into()),
            user,
        }
    }
}

/// Name of the container that runs restic, in every pod.
pub const RESTIC_CONTAINER: &str = "restic";

/// A PersistentVolumeClaim.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ClaimView {
    pub meta: Meta,
    /// Pending, Bound or Lost.
    pub phase: Box<str>,
    /// spec.volumeMode is Block.
    pub block: bool,
}

impl ClaimView {
    #[must_use]
    pub fn of(object: &PersistentVolumeClaim) -> ClaimView {
        let phase = object.status.as_ref().and_then(|s| s.phase.as_deref());
        let mode = object.spec.as_ref().and_then(|s| s.volume_mode.as_deref());
        ClaimView {
            meta: Meta::of(&object.metadata),
            phase: phase.unwrap_or_default().into(),
            block: mode == Some("Block"),
        }
    }
}

/// A namespace.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct NamespaceView {
    pub meta: Meta,
    pub labels: Arc<BTreeMap<String, String>>,
}

impl NamespaceView {
    #[must_use]
    pub fn of(object: &PartialObjectMeta<Namespace>) -> NamespaceView {
        let labels = object.metadata.labels.clone().unwrap_or_default();
        NamespaceView {
            meta: Meta::of(&object.metadata),
            labels: Arc::new(labels),
        }
    }
}

/// The resource that an object was made for, by its label.
fn resource_of(meta: &ObjectMeta) -> Option<Key> {
    let labels = meta.labels.as_ref()?;
    let name = [names::LABEL_BACKUP, names::LABEL_RESTORE, names::LABEL_RETENTION]
        .iter()
        .find_map(|label| labels.get(*label))?;
    Some(Key::new(meta.namespace.as_deref()?, name))
}

fn annotation<'a>(meta: &'a ObjectMeta, name: &str) -> Option<&'a str> {
    meta.annotations.as_ref()?.get(name).map(String::as_str)
}

macro_rules! stored {
    ($($view:ty => $group:expr, $indexed:expr $(, $last_word:expr)?;)*) => {$(
        impl Stored for $view {
            fn uid(&self) -> &str {
                &self.meta.uid
            }
            fn version(&self) -> u64 {
                self.meta.version
            }
            fn group(&self) -> Option<Key> {
                let group: fn(&$view) -> Option<Key> = $group;
                group(self)
            }
            fn indexed(&self, _: &Key) -> Vec<(Index, Key)> {
                let indexed: fn(&$view) -> Vec<(Index, Key)> = $indexed;
                indexed(self)
            }
            $(fn last_word(&self, observed: bool) -> Option<(Key, u64)> {
                let last_word: fn(&$view, bool) -> Option<(Key, u64)> = $last_word;
                last_word(self, observed)
            })?
        }
    )*};
}

stored! {
    MetaView => |_| None, |_| Vec::new();
    ClaimView => |_| None, |_| Vec::new();
    CronJobView => |_| None, |_| Vec::new();
    NamespaceView => |_| None, |_| Vec::new();
    // By uid are looked up those that may hold a maintenance lock.
    JobView => |job| job.of.clone(), |job| {
        let maintenance = job.type_.is_some() || job.pin.is_some() || job.lease.is_some();
        maintenance.then(|| (Index::Uid, Key::new("", &job.meta.uid))).into_iter().collect()
    };
    // Pods are looked up by the Job that controls them.
    PodView => |pod| pod.meta.owner.as_deref().map(|uid| Key::new("", uid)), |_| Vec::new(), PodView::lost;
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::Store;
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
    fn failed_by_the_garbage_collector_is_not_the_kubelets_word() {
        // Its node was deleted: phase=Failed, and the containers as they were last reported.
        let view = pod("gc", "Failed", "4", running());
        assert!(view.is_active());
        assert_eq!(view.unproven(), Some(7));
        let (pods, key) = (Store::default(), Key::new("ns", "gc"));
        pods.put(key.clone(), Arc::new(view));
        pods.remove(&key, Some("gc"));
        assert_eq!(pods.remembered(&Key::new("", "job")), Some(7));

        let told = pod("kubelet", "Failed", "4", terminated());
        assert!(!told.is_active() && told.unproven().is_none());
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
