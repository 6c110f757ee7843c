//! The objects that a plan asks for, and what became of them.

mod apply;
mod contest;
mod objects;
mod policy;
mod refused;

use std::sync::Arc;

use crds::{GlobalRetentionPolicy, ResticRepository};
use jiff::Timestamp;
use k8s_openapi::api::batch::v1::{CronJob, Job};
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, ServiceAccount};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use crate::exchange::CommandedRun;
use crate::hooks::Grant;
use crate::runs::Lingering;
use crate::runs::finished::Finished;
use crate::world::{CronJobView, JobView, Key};

pub use apply::end_lingering;
pub use contest::Contest;
#[cfg(test)]
pub(super) use objects::key_of;
pub use policy::is_as;
pub use refused::{Cause, Refused};

/// Everything that is made for a resource, in the order in which it is applied. What is right already costs no request.
#[derive(Default)]
pub struct Children {
    /// Nothing else is applied without it.
    pub permission: Option<Permission>,
    pub removals: Vec<Removal>,
    pub account: Option<ServiceAccount>,
    /// What the account may do in the API server.
    pub grant: Option<Grant>,
    /// Copy of the credentials of a repository in another namespace.
    pub credentials: Option<Credentials>,
    /// Copy of a repository's location and credentials for pods in its own namespace.
    pub location: Option<Credentials>,
    /// A claim that is written to only with the mark of the restore that made it (`names::ANNOTATION_RESTORE_UID`).
    pub claim: Option<PersistentVolumeClaim>,
    /// A claim that belongs to the resource, and is deleted with it. It is made once, and never changed.
    pub cache: Option<PersistentVolumeClaim>,
    /// With its generation after the spoke's last write: another generation was made by somebody else.
    pub cron_job: Option<(CronJob, Option<i64>)>,
    /// Parked runs to open, unless others took their places meanwhile.
    pub openings: Vec<Opening>,
    /// Whether parked runs may be opened when their turn comes. Only where there are some.
    pub opens: Option<bool>,
    /// Jobs of the CronJob, now.
    pub runs: Vec<Run>,
    /// A Job of its own. A maintenance operation starts with it.
    pub job: Option<Job>,
    /// The same for commands of the hub: each is made in its command's time, or not at all.
    pub commanded: Vec<(Job, CommandedRun)>,
    /// Finished pods to delete. One that stays for now is no fault of the resource.
    pub finished: Vec<Finished>,
    /// Pods to end that another container keeps alive.
    pub lingering: Vec<Lingering>,
    /// The retention policy of a backup. The last one, since a backup runs without it; and whatever else was refused, since a
    /// person who stops removals is to be obeyed.
    pub policy: Option<PolicyChange>,
}

/// What becomes of a retention policy that a resource controls.
#[derive(Clone, Debug, PartialEq)]
pub enum PolicyChange {
    Apply(Box<GlobalRetentionPolicy>),
    /// What else it should be is not known; its schedule stops.
    Suspend {
        at: Key,
        uid: String,
    },
    /// The object goes, and no snapshot with it.
    Delete {
        at: Key,
        uid: String,
    },
}

/// What the API server has of [`Children`]: all that a status may show of them.
#[derive(Default)]
pub struct Applied {
    pub cron_job: Option<(Key, Arc<CronJobView>)>,
    /// Jobs made from the CronJob.
    pub runs: Vec<Key>,
    pub job: Option<(Key, Arc<JobView>)>,
    /// All is there that a run needs.
    pub prepared: bool,
    /// The first object that was not applied. Those after it were not tried, a retention policy excepted.
    pub refused: Option<Refused>,
}

/// Maintenance of a repository has to be allowed to this spoke (see [`crate::sharing::Shared`]).
#[derive(Clone, Debug, PartialEq)]
pub struct Permission {
    pub restic_id: String,
    /// Why it is not, if that is known beforehand.
    pub denied: Option<String>,
    /// CronJob to suspend while it is not.
    pub otherwise_suspend: Key,
}

/// An object that is not wanted any more.
#[derive(Clone, Debug, PartialEq)]
pub enum Removal {
    /// A Job is deleted; a maintenance operation is withdrawn with it.
    Job { at: Key, uid: String },
    /// The copy of a repository's credentials is deleted, if it is one of ours.
    Credentials(Key),
    /// Role and RoleBinding of this name are deleted, if they are ours.
    Grant(Key),
    /// A CronJob is suspended. Its mark is removed too, so that the next apply makes it right again.
    Schedule(Key),
}

impl Removal {
    /// Consent was withdrawn, or never given: the copy of the credentials goes, and the CronJob starts nothing more.
    #[must_use]
    pub fn withdrawal(namespace: &str, credentials: String, cron_job: String) -> Vec<Removal> {
        let at = |name| Key::new(namespace, name);
        vec![
            Removal::Credentials(at(credentials)),
            Removal::Schedule(at(cron_job)),
        ]
    }
}

/// A copy of a repository's credentials. Read and written by the driver: no plan holds what is in a Secret.
#[derive(Clone, Debug)]
pub struct Credentials {
    pub metadata: ObjectMeta,
    pub at: Key,
    pub repository: Arc<ResticRepository>,
}

/// A run that was made suspended, and whose turn it is.
#[derive(Clone, Debug, PartialEq)]
pub struct Opening {
    pub at: Key,
    pub uid: String,
}

/// A Job made from the CronJob's template. The name follows from what it was asked with, so that asking twice makes one.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Run {
    pub name: String,
    /// Hash of the plan that it may carry out.
    pub approves: Option<String>,
    /// A run that never began, whose place it takes.
    pub instead_of: Option<Earlier>,
    /// The command of the hub that asks for it: the Job is made in its time, or not at all.
    pub command: Option<CommandedRun>,
}

/// What a run keeps that is made anew.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Earlier {
    /// It was asked for, and not made by a schedule.
    pub by_request: bool,
    /// Since when it waits for its turn.
    pub since: Option<Timestamp>,
    /// Id of the hub's command that it was made for.
    pub command: Option<String>,
}
