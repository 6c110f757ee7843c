//! `spec.retention`: a GlobalRetentionPolicy of the backup's own, whose one rule selects the snapshots of this backup alone.
//! The policy's controller does all the rest: preview, guard, approval and lock. Pure.

use crds::common::{JobConfiguration, RetentionPolicy};
use crds::conditions::{self, Conditions, Status, reasons, types};
use crds::notifications::{NotificationConfig, Notifications};
use crds::retention::{
    DEFAULT_MAX_REMOVED_PERCENT, GlobalRetentionPolicySpec, InitialRun, PolicyRule, PolicySelector,
    RetentionGuard, Scope,
};
use crds::rules::{BadRule, Rule};
use crds::schedule::{Schedule, resolve};
use crds::{GlobalRetentionPolicy, ResticBackup, ResticBackupStatus, names};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition as Shown;

use super::validate::Valid;
use super::{BackupController, Observed};
use crate::kind::{Applied, Input, PolicyChange, is_as};
use crate::pod;
use crate::site::Site;
use crate::world::{Key, Meta};

/// restic's groups, as the original operator documented them.
const GROUPS: [&str; 2] = ["host", "tags"];

/// Once a day, at a minute and an hour that follow from a name.
const DAILY: &str = "H H * * *";

/// `spec.retention` as it may be worked with.
#[derive(Clone, Debug)]
pub(super) struct Retention {
    schedule: String,
    policy: RetentionPolicy,
    group_by: Vec<String>,
    prune: bool,
}

/// Why it is refused. The schema refuses the same, except for [`BadRetention::TooOften`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum BadRetention {
    #[error("spec.retention.{0}")]
    Schedule(String),
    /// Each run asks restic once for each policy of the repository.
    #[error(
        "spec.retention.schedule: {0:?} is due more than once an hour; write one minute, such as \"H * * * *\" or \"0 4 * * *\""
    )]
    TooOften(String),
    #[error("spec.retention: {0}")]
    Rule(#[from] BadRule),
}

fn is_on(backup: &ResticBackup) -> bool {
    let retention = backup.spec.retention.as_ref();
    retention.is_some_and(|retention| retention.enabled == Some(true))
}

impl Retention {
    /// Nothing, unless it is switched on.
    pub(super) fn parse(
        repository: &Key,
        backup: &ResticBackup,
        zone: &str,
    ) -> Result<Option<Retention>, BadRetention> {
        let Some(retention) = backup.spec.retention.as_ref().filter(|_| is_on(backup)) else {
            return Ok(None);
        };
        let schedule = retention
            .schedule
            .as_deref()
            .map(str::trim)
            .filter(|s| !s.is_empty());
        let schedule = schedule.map_or_else(|| daily(repository), str::to_owned);
        // An H is resolved by the policy, for its own name; any value of it is as good for the check.
        let slots = resolve(&schedule, "").and_then(|slots| Schedule::parse(&slots, zone));
        let slots = slots.map_err(|wrong| BadRetention::Schedule(wrong.to_string()))?;
        if !slots.is_at_most_hourly() {
            return Err(BadRetention::TooOften(schedule));
        }
        let policy = retention.policy.clone().unwrap_or_default();
        let mut group_by = retention.group_by.clone();
        if group_by.is_empty() {
            group_by = GROUPS.map(str::to_owned).into();
        }
        let rule = Rule {
            group_by: &group_by,
            ..Rule::keeping(&policy)
        };
        rule.check()?;
        Ok(Some(Retention {
            schedule,
            policy,
            group_by,
            prune: retention.prune == Some(true),
        }))
    }
}

/// Once a day, at a time that follows from the repository: not all repositories at once, and all backups of one in one run,
/// which asks restic once for each of them. At times of their own each run would ask for all of them again.
fn daily(repository: &Key) -> String {
    resolve(DAILY, &format!("ResticRepository/{repository}")).unwrap_or_else(|_| "@daily".to_owned())
}

/// The policy that a backup makes.
pub(super) fn policy(
    site: &Site,
    key: &Key,
    backup: &ResticBackup,
    valid: &Valid,
    retention: &Retention,
) -> GlobalRetentionPolicy {
    // With the uid: a cluster of the same name that was there before is another one.
    let tags = [
        format!("fleet.cluster={}", site.cluster),
        format!("fleet.cluster-uid={}", site.cluster_uid),
        format!("fleet.backup={key}"),
    ];
    let rule = PolicyRule {
        selector: PolicySelector {
            tags: tags.into(),
            hostname: None,
        },
        retention: retention.policy.clone(),
        group_by: retention.group_by.clone(),
    };
    let spec = GlobalRetentionPolicySpec {
        allowed_window: None,
        repository_ref: crds::common::CrossNamespaceObjectReference {
            name: valid.repository.name.to_string(),
            namespace: Some(valid.repository.namespace.to_string()),
        },
        schedule: retention.schedule.clone(),
        timezone: Some(valid.timezone.clone()),
        policies: vec![rule],
        scope: Scope::Cluster,
        prune: Some(retention.prune),
        initial_run: InitialRun::Preview,
        guard: Some(RetentionGuard {
            max_removed_percent: Some(DEFAULT_MAX_REMOVED_PERCENT),
        }),
        notifications: backup
            .spec
            .notifications
            .as_deref()
            .cloned()
            .and_then(notifications),
        job_config: backup.spec.job_config.as_deref().cloned().map(job),
        suspend: valid.suspend,
    };
    let labels = pod::labels(names::LABEL_BACKUP, "retention", &key.name, true);
    let metadata = pod::controlled(backup, key, names::backup_retention(&key.name), labels);
    pod::hashed(GlobalRetentionPolicy {
        metadata,
        spec,
        status: None,
    })
}

/// Those who are told of the backup are told of its retention. A Pushgateway gets figures of backups alone.
fn notifications(of: NotificationConfig) -> Option<Notifications> {
    let taken = Notifications {
        email: of.email,
        ntfy: of.ntfy,
        webhook: of.webhook,
        slack: of.slack,
    };
    (taken != Notifications::default()).then_some(taken)
}

/// Where and as whom the pods run is that of the backup's. How often and how long is not: a maintenance Job has its own.
fn job(of: JobConfiguration) -> JobConfiguration {
    let own = JobConfiguration::default();
    JobConfiguration {
        concurrency_policy: own.concurrency_policy,
        successful_jobs_history_limit: own.successful_jobs_history_limit,
        failed_jobs_history_limit: own.failed_jobs_history_limit,
        active_deadline_seconds: own.active_deadline_seconds,
        backoff_limit: own.backoff_limit,
        ..of
    }
}

/// Whether the object of the policy's name was made for this backup.
fn is_own(child: &GlobalRetentionPolicy, uid: &str) -> bool {
    Meta::of(&child.metadata)
        .owner
        .is_some_and(|owner| *owner == *uid)
}

/// What becomes of the policy, and what the backup's status shows of it.
pub(super) fn plan(
    site: &Site,
    input: &Input<'_, BackupController>,
    observed: &Observed,
    status: &mut ResticBackupStatus,
) -> Option<PolicyChange> {
    let at = input.key.sibling(names::backup_retention(&input.key.name));
    let present = observed.policy.as_deref();
    let own = present.filter(|child| is_own(child, input.uid()));
    let (change, condition) = match (input.valid, present) {
        // A person who stops removals is to be obeyed, whatever else is wrong.
        _ if !is_on(input.resource) => (own.map(|child| removal(at, child)), None),
        // What an invalid spec means is not known: the policy stays as it is.
        (Err(_), _) => {
            let change = own.and_then(|child| suspension(&at, input.resource, child));
            let condition = own.filter(|child| child.spec.suspend || change.is_some());
            let condition = condition.map(|_| suspended(&at, input.resource.spec.suspend));
            return shown(input, own, status, (change, condition.map(Some)));
        }
        (
            Ok(Valid {
                retention: Ok(Some(_)),
                ..
            }),
            Some(_),
        ) if own.is_none() => (None, Some(foreign(&at))),
        (
            Ok(
                valid @ Valid {
                    retention: Ok(Some(retention)),
                    ..
                },
            ),
            _,
        ) => {
            let wanted = policy(site, input.key, input.resource, valid, retention);
            let condition = own.map_or_else(|| starting(&at), |child| verdict(&at, child, &wanted));
            (Some(PolicyChange::Apply(Box::new(wanted))), Some(condition))
        }
        (
            Ok(Valid {
                retention: Ok(None), ..
            }),
            _,
        ) => (own.map(|child| removal(at, child)), None),
        // A policy that is there also keeps: without it the rules of others could remove more.
        (
            Ok(Valid {
                retention: Err(bad), ..
            }),
            _,
        ) => {
            let change = own.and_then(|child| suspension(&at, input.resource, child));
            (change, Some(refused(&at, own.is_some(), bad)))
        }
    };
    shown(input, own, status, (change, Some(condition)))
}

/// Shows what the policy's runs came to, and the condition; an outer `None` leaves that as it is.
fn shown(
    input: &Input<'_, BackupController>,
    own: Option<&GlobalRetentionPolicy>,
    status: &mut ResticBackupStatus,
    (change, condition): (Option<PolicyChange>, Option<Option<Condition>>),
) -> Option<PolicyChange> {
    let seen = own.and_then(|child| child.status.as_ref());
    if let Some(seen) = seen.filter(|seen| seen.last_run.is_some()) {
        status.last_retention_run.clone_from(&seen.last_run);
        status.snapshots_after_retention = seen.snapshots_left;
    }
    let mut conditions = Conditions::at(&mut status.conditions, input.generation(), input.now.wall);
    match condition {
        Some(Some((value, reason, text))) => {
            conditions.set(types::RETENTION_READY, value, &reason, text);
        }
        Some(None) => {
            conditions.remove(types::RETENTION_READY);
        }
        None => {}
    }
    change
}

/// A suspended backup removes nothing, whatever else its spec means.
fn suspension(at: &Key, backup: &ResticBackup, child: &GlobalRetentionPolicy) -> Option<PolicyChange> {
    (backup.spec.suspend && !child.spec.suspend).then(|| PolicyChange::Suspend {
        at: at.clone(),
        uid: child.metadata.uid.clone().unwrap_or_default(),
    })
}

fn suspended(at: &Key, with_backup: bool) -> Condition {
    let text = if with_backup {
        "suspended with the backup: no retention runs".to_owned()
    } else {
        format!(
            "GlobalRetentionPolicy {at} is suspended by its own spec.suspend: no retention runs until that is removed"
        )
    };
    (Status::True, reasons::RETENTION_SUSPENDED.to_owned(), text)
}

/// The condition when the policy could not be written. A backup runs without it.
pub(super) fn conclude(
    input: &Input<'_, BackupController>,
    status: &mut ResticBackupStatus,
    applied: &Applied,
) {
    let refused = applied.refused.as_ref().filter(|refused| refused.is_of_policy());
    let Some(refused) = refused.filter(|refused| refused.is_final()) else {
        return;
    };
    Conditions::at(&mut status.conditions, input.generation(), input.now.wall).set(
        types::RETENTION_READY,
        false,
        reasons::RETENTION_POLICY_FAILED,
        refused.to_string(),
    );
}

fn removal(at: Key, child: &GlobalRetentionPolicy) -> PolicyChange {
    let uid = child.metadata.uid.clone().unwrap_or_default();
    PolicyChange::Delete { at, uid }
}

type Condition = (Status, String, String);

fn foreign(at: &Key) -> Condition {
    let text = format!(
        "GlobalRetentionPolicy {at} exists and is not this backup's: it is left alone, and nothing is removed for \
         spec.retention; rename or delete it"
    );
    (Status::False, reasons::RETENTION_POLICY_EXISTS.to_owned(), text)
}

fn refused(at: &Key, is_there: bool, bad: &BadRetention) -> Condition {
    let text = if is_there {
        format!("{bad}. GlobalRetentionPolicy {at} stays as it is until this is corrected")
    } else {
        format!("{bad}. Nothing is removed for it until this is corrected")
    };
    (Status::False, reasons::INVALID_SPEC.to_owned(), text)
}

fn starting(at: &Key) -> Condition {
    let text = format!("GlobalRetentionPolicy {at} is being made or changed");
    (Status::Unknown, reasons::RETENTION_STARTING.to_owned(), text)
}

/// What the policy's own conditions mean for the backup.
fn verdict(at: &Key, child: &GlobalRetentionPolicy, wanted: &GlobalRetentionPolicy) -> Condition {
    let status = child.status.clone().unwrap_or_default();
    let get = |type_: &str| conditions::get(&status.conditions, type_);
    let ready = get(types::READY).filter(|ready| ready.observed_generation == child.metadata.generation);
    let Some(ready) =
        ready.filter(|_| child.metadata.deletion_timestamp.is_none() && is_as(&child.spec, &wanted.spec))
    else {
        return starting(at);
    };
    let of = |value: Status, condition: &Shown| {
        let text = format!("GlobalRetentionPolicy {at}: {}", condition.message);
        (value, condition.reason.clone(), text)
    };
    match ready.status.as_str() {
        "True" => {}
        "False" => return of(Status::False, ready),
        _ => return of(Status::Unknown, ready),
    }
    let is_true = |type_: &str| get(type_).filter(|condition| condition.status == "True");
    // A backup without a snapshot yet has nothing to remove.
    let ill = is_true(types::DEGRADED).filter(|condition| condition.reason != reasons::NOTHING_MATCHED);
    if let Some(condition) = is_true(types::APPROVAL_REQUIRED).or(ill) {
        return of(Status::False, condition);
    }
    if child.spec.suspend {
        return suspended(at, wanted.spec.suspend);
    }
    if let (Some("Preview"), Some(plan)) = (status.last_run_result.as_deref(), &status.plan) {
        let text = format!(
            "GlobalRetentionPolicy {at}: {}; with kubectl: kubectl annotate --overwrite -n {} globalretentionpolicy/{} {}={plan}",
            status.last_run_message.unwrap_or_default(),
            at.namespace,
            at.name,
            names::ANNOTATION_APPROVE,
        );
        return (Status::True, reasons::RETENTION_PREVIEWED.to_owned(), text);
    }
    if let Some(condition) = is_true(types::WAITING) {
        return of(Status::Unknown, condition);
    }
    match get(types::DEGRADED).filter(|_| status.last_run.is_some()) {
        Some(condition) => of(Status::True, condition),
        None => {
            let (schedule, zone) = (&child.spec.schedule, child.spec.timezone.as_deref());
            let text = format!(
                "GlobalRetentionPolicy {at} runs at {schedule} ({}); its first run is a preview",
                zone.unwrap_or("UTC")
            );
            (Status::True, reasons::RETENTION_CONFIGURED.to_owned(), text)
        }
    }
}

#[cfg(test)]
#[path = "retention_tests.rs"]
mod tests;
