//! Jobs made for our resources.

use std::collections::BTreeMap;

use crds::names;
use jiff::Timestamp;
use k8s_openapi::api::batch::v1::{Job, JobStatus};
use k8s_openapi::api::core::v1::PodTemplateSpec;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::meta::{annotation, resource_of};
use super::{Key, Meta};

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
    /// What the spec of a restore asked for when this was made: JSON.
    pub asked: Option<Box<str>>,
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
    /// It was made suspended until its turn comes (`names::ANNOTATION_PARKED`).
    pub parked: bool,
    /// Since when, where that was before it was created: it was made anew.
    pub parked_since: Option<Timestamp>,
    /// It was asked for, and not made by a schedule (`names::ANNOTATION_INSTANTIATE`).
    pub by_request: bool,
    /// Id of the hub's command that it was made for (`names::ANNOTATION_COMMAND`).
    pub command: Option<Box<str>>,
    /// It shows what it would do, and does nothing (`names::ANNOTATION_PREVIEW`).
    pub preview: bool,
    /// The policy of another cluster in whose place it runs (`names::ANNOTATION_ON_BEHALF`).
    pub on_behalf: Option<Box<str>>,
    /// Hooks of the run (`names::ANNOTATION_HOOKS`).
    pub hooks: Option<Box<str>>,
    /// The original operator made it: its pods report nothing beside an exit code.
    pub original: bool,
    /// A pod of it has ended.
    pub tried: bool,
    /// Interrupted Jobs before it, and when it asks for the lock at the earliest.
    pub attempt: u32,
    pub not_before: Option<Timestamp>,
    /// Why the Job that it follows did not do its work.
    pub follows: Option<Box<str>>,
    /// Key of restic that it removes (`names::ANNOTATION_REMOVE_KEY`).
    pub removes_key: Option<Box<str>>,
    /// Nodes that its pods have to run on, by their names; empty where any will do.
    pub nodes: Vec<Box<str>>,
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

/// How and when it ended.
fn end(status: &JobStatus) -> Option<(Option<Timestamp>, JobEnd)> {
    let conditions = status.conditions.as_deref().unwrap_or_default();
    let is = |type_: &str| conditions.iter().find(|c| c.type_ == type_ && c.status == "True");
    let Some(failed) = is("Failed") else {
        let completion = status.completion_time.as_ref().map(|t| t.0);
        return is("Complete").map(|_| (completion, JobEnd::Complete));
    };
    let at = failed.last_transition_time.as_ref().map(|t| t.0);
    let text = |t: &Option<String>| t.as_deref().unwrap_or_default().into();
    let end = JobEnd::Failed {
        reason: text(&failed.reason),
        message: text(&failed.message),
    };
    Some((at, end))
}

impl JobView {
    #[must_use]
    pub fn of(object: &Job) -> JobView {
        let (status, spec) = (object.status.as_ref(), object.spec.as_ref());
        let number = |name| annotation(&object.metadata, name).and_then(|n| n.parse::<u64>().ok());
        JobView {
            meta: Meta::of(&object.metadata),
            of: resource_of(&object.metadata),
            start: status.and_then(|s| s.start_time.as_ref()).map(|t| t.0),
            end: status.and_then(end),
            created: object.metadata.creation_timestamp.as_ref().map(|t| t.0),
            snapshot: annotation(&object.metadata, names::ANNOTATION_SNAPSHOT).map(Into::into),
            asked: annotation(&object.metadata, names::ANNOTATION_ASKED).map(Into::into),
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
            parked: annotation(&object.metadata, names::ANNOTATION_PARKED).is_some(),
            parked_since: annotation(&object.metadata, names::ANNOTATION_PARKED)
                .and_then(|since| since.parse().ok()),
            by_request: annotation(&object.metadata, names::ANNOTATION_INSTANTIATE).is_some(),
            command: annotation(&object.metadata, names::ANNOTATION_COMMAND).map(Into::into),
            preview: annotation(&object.metadata, names::ANNOTATION_PREVIEW).is_some(),
            on_behalf: annotation(&object.metadata, names::ANNOTATION_ON_BEHALF).map(Into::into),
            hooks: annotation(&object.metadata, names::ANNOTATION_HOOKS).map(Into::into),
            original: is_original(&object.metadata),
            tried: status.is_some_and(|s| s.failed.unwrap_or_default() + s.succeeded.unwrap_or_default() > 0),
            attempt: number(names::ANNOTATION_ATTEMPT)
                .and_then(|n| n.try_into().ok())
                .unwrap_or_default(),
            not_before: number(names::ANNOTATION_NOT_BEFORE)
                .and_then(|n| Timestamp::from_second(n.try_into().ok()?).ok()),
            nodes: object
                .spec
                .as_ref()
                .map(|s| required_nodes(&s.template))
                .unwrap_or_default(),
            follows: annotation(&object.metadata, names::ANNOTATION_FOLLOWS).map(Into::into),
            removes_key: annotation(&object.metadata, names::ANNOTATION_REMOVE_KEY).map(Into::into),
        }
    }

    /// It was started, and is shut: Kubernetes does not let its template change any more, so it cannot be opened under
    /// another lease.
    #[must_use]
    pub fn is_spent(&self) -> bool {
        self.suspended && (self.start.is_some() || self.lease.is_some() || self.shut.is_some())
    }
}

/// Nodes that a template requires by name, as `pod::placement` writes it.
fn required_nodes(template: &PodTemplateSpec) -> Vec<Box<str>> {
    let affinity = template
        .spec
        .as_ref()
        .and_then(|s| s.affinity.as_ref()?.node_affinity.as_ref());
    let required = affinity.and_then(|a| a.required_during_scheduling_ignored_during_execution.as_ref());
    let terms = required
        .into_iter()
        .flat_map(|selector| &selector.node_selector_terms);
    let fields = terms.flat_map(|term| term.match_fields.iter().flatten());
    let names = fields.filter(|field| field.key == "metadata.name" && field.operator == "In");
    names
        .flat_map(|field| field.values.iter().flatten())
        .map(|name| name.as_str().into())
        .collect()
}

/// Made for one of our resources, and without the label of what it does, which all of ours have.
fn is_original(meta: &ObjectMeta) -> bool {
    let typed = |labels: &BTreeMap<String, String>| labels.contains_key(names::LABEL_TYPE);
    resource_of(meta).is_some() && !meta.labels.as_ref().is_some_and(typed)
}

/// Type of a maintenance Job: not that of a backup or a restore, which need no lease.
fn maintenance_type(meta: &ObjectMeta) -> Option<&str> {
    let labels = meta.labels.as_ref()?;
    let others = [names::LABEL_BACKUP, names::LABEL_RESTORE];
    let type_ = labels.get(names::LABEL_TYPE)?;
    (!others.iter().any(|label| labels.contains_key(*label))).then_some(type_)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_of_the_original_operator_lacks_the_label_of_what_it_does() {
        let of = |labels: &[&str]| {
            let labels = labels.iter().map(|l| ((*l).to_owned(), "x".to_owned()));
            let mut job = Job::default();
            job.metadata.namespace = Some("ns".to_owned());
            job.metadata.labels = Some(labels.collect());
            JobView::of(&job).original
        };
        assert!(of(&[names::LABEL_APP, names::LABEL_BACKUP]));
        assert!(!of(&[names::LABEL_APP, names::LABEL_BACKUP, names::LABEL_TYPE]));
        assert!(!of(&[names::LABEL_APP]), "of something else");
    }
}
