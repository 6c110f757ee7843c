//! Retention runs that the hub asks this cluster for, because the cluster of a policy that is due is away: their Jobs and
//! their results. Pure.

use std::collections::BTreeMap;

use crds::conditions::{reasons, whole_seconds};
use crds::repository::RetentionOnBehalf;
use crds::{ResticRepository, ResticRepositoryStatus, names};
use jiff::Timestamp;
use k8s_openapi::api::batch::v1::{Job, JobSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};

use super::{Observed, Planning};
use crate::config::RETRY_LOCK;
use crate::events::Severity;
use crate::exchange::{Behalf, CommandedRun, Finished, Operation};
use crate::kind::Announcement;
use crate::operation::BEHALF;
use crate::pod::maintenance::{DEFAULT_ACCOUNT, Maintenance, suspended_job};
use crate::pod::{self, Source};
use crate::world::{Key, World};

/// Log and result stay for people to read.
const KEPT_SECONDS: i32 = 3600;
/// uids of Jobs that are kept: more than there are Jobs, of which a policy has one each minute at most.
const COUNTED_MAX: usize = 64;

/// Jobs that commands of the hub ask for now, each with its command.
pub(super) fn jobs(
    planning: &Planning,
    key: &Key,
    repository: &ResticRepository,
    observed: &Observed,
) -> Vec<(Job, CommandedRun)> {
    let wanted = observed.commands.iter().filter(|_| !repository.spec.read_only);
    let jobs = wanted.filter_map(|command| {
        let behalf = command.behalf.as_ref()?;
        let job = job(planning, key, repository, (behalf, &command.id))?;
        Some((job, command.clone()))
    });
    jobs.collect()
}

/// The Job of a command, born suspended.
fn job(
    planning: &Planning,
    key: &Key,
    repository: &ResticRepository,
    (behalf, id): (&Behalf, &str),
) -> Option<Job> {
    let settings = pod::job_settings(None).ok()?;
    let mut arguments = vec!["retention".to_owned()];
    if planning.retry_lock != RETRY_LOCK {
        arguments.push(format!("--retry-lock={}", planning.retry_lock));
    }
    let template = Maintenance {
        job: &settings,
        service_account: DEFAULT_ACCOUNT.to_owned(),
        image: &planning.image,
        repository,
        source: &Source::own(&key.name),
        cluster: &planning.cluster,
        arguments,
    }
    .template(labels(key, false));
    let annotations = [
        (names::ANNOTATION_COMMAND, id),
        (names::ANNOTATION_ON_BEHALF, behalf.policy.as_str()),
        (names::ANNOTATION_APPROVE, behalf.approved.as_str()),
    ];
    let given = annotations.into_iter().filter(|(_, value)| !value.is_empty());
    let annotations = given.map(|(name, value)| (name.to_owned(), value.to_owned()));
    let name = names::command_job(&names::behalf_job(&key.name), id);
    Some(Job {
        metadata: ObjectMeta {
            annotations: Some(annotations.collect()),
            ..pod::controlled(repository, key, name, labels(key, true))
        },
        spec: Some(JobSpec {
            ttl_seconds_after_finished: Some(KEPT_SECONDS),
            ..suspended_job(settings.deadline, template)
        }),
        ..Job::default()
    })
}

fn labels(key: &Key, top: bool) -> BTreeMap<String, String> {
    pod::labels(names::LABEL_REPOSITORY, BEHALF, &key.name, top)
}

/// The policy that each of the operations runs for, by the uid of its Job, as far as the Jobs are there.
pub(super) fn policies(world: &World, operations: &[Operation]) -> BTreeMap<String, String> {
    let of_type = operations.iter().filter(|o| o.job_type == BEHALF);
    let jobs = of_type.filter_map(|operation| world.jobs.get(&operation.job));
    let policies =
        jobs.filter_map(|job| Some((job.meta.uid.to_string(), job.on_behalf.as_deref()?.to_owned())));
    policies.collect()
}

/// Takes results into the status, once each.
pub(super) fn take_results(observed: &Observed, status: &mut ResticRepositoryStatus, now: Timestamp) {
    let of_type = observed.operations.iter().filter(|o| o.job_type == BEHALF);
    let finished: Vec<&Finished> = of_type.filter_map(|o| o.finished.as_ref()).collect();
    let mut counted = status
        .last_retention_on_behalf
        .as_ref()
        .map(|last| last.counted_jobs.clone())
        .unwrap_or_default();
    for finished in finished {
        if counted.contains(&finished.operation) {
            continue;
        }
        counted.push(finished.operation.clone());
        let policy = observed.behalves.get(&finished.operation).cloned();
        status.last_retention_on_behalf = Some(record(finished, policy, now));
    }
    let old = counted.len().saturating_sub(COUNTED_MAX);
    counted.drain(..old);
    if let Some(last) = &mut status.last_retention_on_behalf {
        last.counted_jobs = counted;
    }
}

fn record(finished: &Finished, policy: Option<String>, now: Timestamp) -> RetentionOnBehalf {
    let outcome = &finished.outcome;
    let waits = outcome.result == "ApprovalRequired";
    RetentionOnBehalf {
        policy,
        time: Some(Time(whole_seconds(finished.finished.unwrap_or(now)))),
        result: outcome.result.clone(),
        message: match outcome.reason.as_str() {
            "" => outcome.message.clone(),
            reason => format!("{reason}: {}", outcome.message),
        },
        snapshots_removed: i32::try_from(outcome.removed).ok(),
        plan: (waits && !outcome.plan.is_empty()).then(|| outcome.plan.clone()),
        counted_jobs: Vec::new(),
    }
}

/// The Event of a run that has ended.
pub(super) fn announce(old: &ResticRepositoryStatus, new: &ResticRepositoryStatus) -> Option<Announcement> {
    let run = |status: &ResticRepositoryStatus| {
        let last = status.last_retention_on_behalf.clone();
        last.map(|last| (last.time, last.result, last.message))
    };
    let last = new
        .last_retention_on_behalf
        .as_ref()
        .filter(|_| run(old) != run(new))?;
    let (severity, reason) = match last.result.as_str() {
        "Applied" | "NothingToRemove" => (Severity::Normal, reasons::RETENTION_SUCCEEDED),
        "Preview" => (Severity::Normal, reasons::RETENTION_PREVIEWED),
        "ApprovalRequired" => (Severity::Warning, reasons::APPROVAL_REQUIRED),
        _ => (Severity::Warning, reasons::RETENTION_FAILED),
    };
    let whose = match &last.policy {
        Some(policy) => format!("run for policy {policy}, whose cluster is away"),
        None => "run of an approved plan".to_owned(),
    };
    Some(Announcement {
        severity,
        reason: reason.to_owned(),
        note: format!("{whose}: {}", last.message),
    })
}

#[cfg(test)]
mod tests {
    use proto::v1::OperationOutcome;
    use serde_json::json;

    use super::*;
    use crate::exchange::Progress;
    use crate::world::JobView;

    const ID: &str = "01kaxyz012345678";

    fn repository() -> ResticRepository {
        serde_json::from_value(json!({
            "apiVersion": "backup.resticbackup.io/v1alpha1", "kind": "ResticRepository",
            "metadata": { "name": "nas", "namespace": "shop", "uid": "u" },
            "spec": { "repositoryURL": "rest:https://nas:8000/b", "credentialsSecretRef": { "name": "nas" } },
        }))
        .unwrap()
    }

    fn planning() -> Planning {
        Planning {
            retry: std::time::Duration::from_secs(1),
            image: "spoke:1".to_owned(),
            cluster: "b".to_owned(),
            retry_lock: RETRY_LOCK.to_owned(),
            locks: crate::repository::unlock::Settings {
                interval: 1,
                after: 1,
                after_end: 1,
                test: false,
            },
        }
    }

    #[test]
    fn the_job_is_a_maintenance_job_born_suspended_that_names_its_command_and_policy() {
        let behalf = Behalf {
            policy: "a/shop/nightly".to_owned(),
            approved: "hash".to_owned(),
        };
        let job = |behalf: &Behalf| {
            job(&planning(), &Key::new("shop", "nas"), &repository(), (behalf, ID)).unwrap()
        };
        let view = JobView::of(&job(&behalf));
        assert!(
            view.suspended
                && view.type_.as_deref() == Some(BEHALF)
                && view.meta.owner.as_deref() == Some("u")
        );
        assert_eq!(
            (
                view.command.as_deref(),
                view.on_behalf.as_deref(),
                view.approved.as_deref()
            ),
            (Some(ID), Some("a/shop/nightly"), Some("hash"))
        );
        let plain = JobView::of(&job(&Behalf::default()));
        assert_eq!((plain.on_behalf, plain.approved), (None, None));
        insta::assert_yaml_snapshot!("retention_on_behalf_job", job(&behalf));
    }

    fn ended(uid: &str, result: &str, at: i64) -> Operation {
        Operation {
            job_type: BEHALF.to_owned(),
            job: Key::new("shop", format!("job-{uid}")),
            progress: Progress::Ended,
            finished: Some(Finished {
                operation: uid.to_owned(),
                outcome: OperationOutcome {
                    result: result.to_owned(),
                    message: "m".to_owned(),
                    plan: "p".to_owned(),
                    removed: 2,
                    ..OperationOutcome::default()
                },
                started: None,
                finished: Timestamp::from_second(at).ok(),
                token: Some(7),
                by: None,
                approved: None,
            }),
        }
    }

    #[test]
    fn each_result_is_recorded_once_and_announced() {
        let now = Timestamp::from_second(90).unwrap();
        let mut observed = Observed {
            operations: vec![ended("one", "Applied", 50)],
            behalves: [("one".to_owned(), "a/shop/nightly".to_owned())].into(),
            ..Observed::default()
        };
        let before = ResticRepositoryStatus::default();
        let mut status = before.clone();
        take_results(&observed, &mut status, now);
        let last = status.last_retention_on_behalf.clone().unwrap();
        assert_eq!(last.policy.as_deref(), Some("a/shop/nightly"));
        assert_eq!((last.snapshots_removed, last.plan.as_deref()), (Some(2), None));
        let event = announce(&before, &status).unwrap();
        assert_eq!(event.severity, Severity::Normal);
        assert!(event.note.contains("a/shop/nightly"), "{}", event.note);
        let recorded = status.clone();
        take_results(&observed, &mut status, now);
        assert_eq!(status, recorded, "not again");
        assert_eq!(announce(&recorded, &status), None);
        // The first one is not over yet, and is not recorded over the second one.
        observed.operations.push(ended("two", "ApprovalRequired", 60));
        take_results(&observed, &mut status, now);
        take_results(&observed, &mut status, now);
        let last = status.last_retention_on_behalf.clone().unwrap();
        assert_eq!(
            (last.result.as_str(), last.plan.as_deref()),
            ("ApprovalRequired", Some("p"))
        );
        assert_eq!(last.counted_jobs, ["one", "two"]);
        assert_eq!(announce(&recorded, &status).unwrap().severity, Severity::Warning);
        // Their Jobs are still there, and each is asked for whether it is recorded.
        let (recorded, many) = (status.clone(), 100..200);
        observed.operations.clear();
        take_results(&observed, &mut status, now);
        assert_eq!(status, recorded);
        observed.operations = many.map(|n| ended(&n.to_string(), "Applied", n)).collect();
        take_results(&observed, &mut status, now);
        assert_eq!(
            status.last_retention_on_behalf.unwrap().counted_jobs.len(),
            COUNTED_MAX
        );
    }
}
