//! Turns of a restore.

use serde_json::{Value, json};

use super::*;
use crate::kind::table::{NoRestic, Table, at, condition, forbidden, invalid, repository};
use crate::kind::{RefusedBecause, Removal};
use crate::runs::finished::Finished;
use crate::testing::config;
use crate::world::{JobEnd, JobView, Meta, PodView, Termination};

pub(super) fn table(target: Value) -> Table<RestoreController> {
    let restore = json!({
        "apiVersion": "backup.resticbackup.io/v1alpha1", "kind": "ResticRestore",
        "metadata": { "name": "back", "namespace": "ns", "uid": "u", "generation": 1 },
        "spec": { "repositoryRef": { "name": "nas" }, "snapshotID": "abcd", "target": target },
    });
    let controller = RestoreController::new(&Site::of_tests(), Arc::new(NoRestic), &config());
    Table::new(controller, restore)
}

pub(super) fn existing() -> Table<RestoreController> {
    table(json!({ "pvc": { "claimName": "data" } }))
}

pub(super) fn observed() -> Observed {
    Observed {
        at: Some(Key::new("ns", "nas")),
        repository: Some(repository()),
        claim: Some(Arc::default()),
        ..Observed::default()
    }
}

/// An answer to what `existing` asks; the target has no part in it.
pub(super) fn answered(answer: Answer) -> Vec<Found> {
    let Work::Select(asked) = existing().plan(&observed()).work[0].work.clone();
    vec![Found { asked, answer }]
}

pub(super) fn chosen() -> Vec<Found> {
    let id = "ab".repeat(32);
    let chosen = Chosen {
        id,
        folder: "",
        paths: vec!["/".to_owned()],
        excludes: Vec::new(),
        of_backup: false,
        files: None,
        bytes: None,
    };
    answered(Answer::Chosen(Ok(chosen)))
}

pub(super) fn job() -> Option<JobWithPods> {
    let mut job = JobView::default();
    (job.meta.uid, job.meta.owner) = ("job".into(), Some("u".into()));
    Some(JobWithPods {
        key: Key::new("ns", "resticrestore-back"),
        job: Arc::new(job),
        delivery: crate::world::Delivery::complete(jiff::Timestamp::MIN),
        ..JobWithPods::default()
    })
}

pub(super) fn started(mut table: Table<RestoreController>) -> Table<RestoreController> {
    table.found = chosen();
    table.resource.status = Some(table.settle(&observed(), None).status);
    table.found.clear();
    table
}

#[test]
fn snapshots_are_read_once_and_the_job_follows_the_choice() {
    let mut table = existing();
    let plan = table.plan(&observed());
    assert_eq!(
        condition(&plan.status.conditions, "Ready").0,
        "False/SelectingSnapshot"
    );
    let [task] = plan.work.as_slice() else { panic!() };
    table.running = vec![task.work.clone()];
    assert!(table.plan(&observed()).work.is_empty(), "it is under way");
    table.running.clear();
    table.found = chosen();
    let plan = table.plan(&observed());
    assert!(plan.work.is_empty() && plan.children.job.is_some() && plan.children.account.is_some());
    let status = table.settle(&observed(), None).status;
    assert_eq!(status.phase, Some(RestorePhase::InProgress));
    assert_eq!(status.job_ref.unwrap().name, "resticrestore-back");
}

#[test]
fn a_restore_that_has_begun_and_one_that_went_well_are_told_in_the_status() {
    let table = started(existing());
    let mut status = table.resource.status.clone().unwrap();
    let reason = |status: &ResticRestoreStatus, type_: &str| condition(&status.conditions, type_).0;
    assert_eq!(reason(&status, "Ready"), "Unknown/RestoreInProgress");
    assert_eq!(reason(&status, "Progressing"), "False/RestoreStarted");
    assert!(status.start_time.is_some() && status.observed_generation == Some(1));
    assert_eq!(status.restored_snapshot, Some("ab".repeat(32)));
    assert_eq!(status.snapshot.as_deref(), Some("abababab"));
    let outcome = outcome::Outcome {
        files: Some(4),
        bytes: Some(3 << 20),
        ..outcome::Outcome::default()
    };
    status::over(&mut status, &table.resource, &outcome, table.now.wall);
    assert_eq!(status.phase, Some(RestorePhase::Completed));
    assert_eq!(reason(&status, "Ready"), "True/RestoreCompleted");
    assert_eq!(
        (status.restored_files, status.restored_size.as_deref()),
        (Some(4), Some("3.0 MiB"))
    );
}

#[test]
fn a_new_claim_has_the_class_the_modes_and_the_size_of_the_spec() {
    let new = json!({ "name": "fresh", "size": "3Gi", "storageClassName": "fast", "accessModes": ["ReadWriteMany"] });
    let mut table = table(json!({ "newPVC": new }));
    table.found = chosen();
    let observed = Observed {
        claim: None,
        ..observed()
    };
    let spec = table.plan(&observed).children.claim.unwrap().spec.unwrap();
    assert_eq!(spec.storage_class_name.as_deref(), Some("fast"));
    assert_eq!(spec.access_modes, Some(vec!["ReadWriteMany".to_owned()]));
    assert_eq!(spec.resources.unwrap().requests.unwrap()["storage"].0, "3Gi");
}

#[test]
fn the_job_has_the_settings_of_the_spec() {
    let mut table = existing();
    let settings = json!({ "activeDeadlineSeconds": 60, "backoffLimit": 2, "serviceAccountName": "mine",
                           "nodeSelector": { "disk": "ssd" }, "resources": { "limits": { "memory": "1Gi" } } });
    table.resource.spec.job_config = Some(serde_json::from_value(settings).unwrap());
    table.found = chosen();
    let children = table.plan(&observed()).children;
    assert!(children.account.is_none());
    let job = children.job.unwrap().spec.unwrap();
    assert_eq!(
        (job.active_deadline_seconds, job.backoff_limit),
        (Some(60), Some(2))
    );
    let pod = job.template.spec.unwrap();
    assert_eq!(pod.service_account_name.as_deref(), Some("mine"));
    assert_eq!(pod.node_selector.unwrap()["disk"], "ssd");
    let limits = pod.containers[0].resources.as_ref().unwrap().limits.as_ref();
    assert_eq!(limits.unwrap()["memory"].0, "1Gi");
}

#[test]
fn a_choice_for_another_spec_or_repository_is_none_for_this_one() {
    let mut table = existing();
    table.found = chosen();
    assert!(table.plan(&observed()).children.job.is_some());
    let mut moved = repository().as_ref().clone();
    moved.status.as_mut().unwrap().repository_id = Some("other".to_owned());
    let elsewhere = Observed {
        repository: Some(Arc::new(moved)),
        ..observed()
    };
    let plan = table.plan(&elsewhere);
    assert!(plan.children.job.is_none());
    assert_eq!(plan.work.len(), 1, "it is asked anew");
    table.resource.spec.snapshot_id = Some("beef".to_owned());
    let plan = table.plan(&observed());
    assert!(plan.children.job.is_none());
    let before = &table.found[0].asked;
    table.running = vec![Work::Select(before.clone())];
    assert_eq!(
        table.plan(&observed()).work.len(),
        1,
        "what is under way asks something else"
    );
}

#[test]
fn a_list_that_cannot_be_read_is_asked_for_again_later() {
    let mut table = existing();
    table.found = answered(Answer::Unanswered("no route".to_owned()));
    let settled = table.settle(&observed(), None);
    assert_eq!(
        condition(&settled.status.conditions, "Ready").0,
        "False/RepositoryUnreachable"
    );
    table.state = settled.state;
    table.found.clear();
    assert!(table.plan(&observed()).work.is_empty(), "not before its time");
    table.now = at(table.now.wall.as_second() + 3600);
    assert_eq!(table.plan(&observed()).work.len(), 1);
    let panicked = RestoreController::panicked(&table.plan(&observed()).work[0].work);
    assert!(matches!(panicked.answer, Answer::Unanswered(_)));
}

#[test]
fn an_object_that_is_refused_ends_the_restore_or_is_tried_again() {
    let mut table = existing();
    table.found = chosen();
    for (kind, cause, phase, reason, failed) in [
        (
            "Job",
            invalid("no"),
            RestorePhase::Failed,
            "False/JobCreationFailed",
            false,
        ),
        (
            "Job",
            forbidden("quota"),
            RestorePhase::Pending,
            "False/JobCreationFailed",
            true,
        ),
        (
            "ServiceAccount",
            forbidden("quota"),
            RestorePhase::Pending,
            "False/ServiceAccountFailed",
            true,
        ),
    ] {
        let settled = table.settle(&observed(), Some((kind, cause)));
        assert_eq!(settled.status.phase, Some(phase), "{reason}");
        let (ready, message) = condition(&settled.status.conditions, "Ready");
        assert_eq!((ready.as_str(), settled.failed), (reason, failed));
        assert!(message.contains(kind), "{message}");
    }
}

#[test]
fn a_job_of_its_name_ends_it_unless_it_is_its_own_on_its_way_out() {
    let mut table = existing();
    table.found = chosen();
    for (owner, phase) in [("u", RestorePhase::Pending), ("other", RestorePhase::Failed)] {
        let meta = Meta {
            owner: Some(owner.into()),
            deleting: true,
            ..Meta::default()
        };
        let text = "exists".to_owned();
        let cause = RefusedBecause::Occupied {
            meta: Box::new(meta),
            text,
        };
        let settled = table.settle(&observed(), Some(("Job", cause)));
        assert_eq!(settled.status.phase, Some(phase));
    }
}

#[test]
fn a_claim_that_somebody_else_made_meanwhile_is_waited_for() {
    let mut table = table(json!({ "newPVC": { "name": "fresh", "size": "1Gi" } }));
    table.found = chosen();
    let observed = Observed {
        claim: None,
        ..observed()
    };
    assert!(table.plan(&observed).children.claim.is_some());
    let cause = RefusedBecause::Occupied {
        meta: Box::default(),
        text: String::new(),
    };
    let settled = table.settle(&observed, Some(("PersistentVolumeClaim", cause)));
    assert_eq!(
        condition(&settled.status.conditions, "Ready").0,
        "False/TargetExists"
    );
    assert!(!settled.failed, "the claim's watch wakes the actor");
}

#[test]
fn a_job_that_lost_what_it_needs_is_taken_back_before_a_pod_starts() {
    let table = started(existing());
    let lost = Observed {
        job: job(),
        has_copy: true,
        consent_ended: true,
        ..observed()
    };
    let removals = table.plan(&lost).children.removals;
    assert!(
        matches!(
            removals.as_slice(),
            [Removal::Job { .. }, Removal::Credentials(_)]
        ),
        "{removals:?}"
    );
    let settled = table.settle(&lost, None);
    assert_eq!(settled.status.phase, Some(RestorePhase::Pending));
    let settled = table.settle(&lost, Some(("Job", forbidden("no"))));
    assert_eq!(
        settled.status.phase,
        Some(RestorePhase::InProgress),
        "the Job is still there"
    );
    assert!(settled.failed);
}

#[test]
fn a_job_that_was_deleted_ends_the_restore_and_its_copy_goes() {
    let table = started(existing());
    let gone = Observed {
        has_copy: true,
        ..observed()
    };
    let plan = table.plan(&gone);
    assert_eq!(condition(&plan.status.conditions, "Ready").0, "False/JobNotFound");
    assert!(matches!(
        plan.children.removals.as_slice(),
        [Removal::Credentials(_)]
    ));
    let working = Observed { job: job(), ..gone };
    assert!(
        table.plan(&working).children.removals.is_empty(),
        "its pod needs it"
    );
}

#[test]
fn a_job_that_was_deleted_ends_a_restore_whose_spec_is_invalid_by_now() {
    let mut table = started(existing());
    table.resource.spec.snapshot_id = Some("xyz".to_owned());
    let status = table.plan(&observed()).status;
    assert_eq!(condition(&status.conditions, "Ready").0, "False/JobNotFound");
    assert_eq!(status.phase, Some(RestorePhase::Failed));
}

#[test]
fn a_restore_that_is_over_changes_no_more() {
    let mut table = started(existing());
    table.resource.status.as_mut().unwrap().phase = Some(RestorePhase::Failed);
    let plan = table.plan(&observed());
    assert_eq!(Some(plan.status), table.resource.status);
    assert!(plan.children.removals.is_empty() && plan.work.is_empty());
}

#[test]
fn an_end_is_in_the_status_before_its_pod_is_deleted() {
    let mut table = started(existing());
    let at = table
        .now
        .wall
        .checked_sub(jiff::SignedDuration::from_secs(60))
        .unwrap();
    let mut run = job().unwrap();
    let mut ended = JobView::clone(&run.job);
    ended.end = Some((Some(at), JobEnd::Complete));
    run.job = Arc::new(ended);
    let place = Key::new("ns", "pod");
    let mut view = PodView {
        phase: "Succeeded".into(),
        restic: Some(Termination {
            exit_code: 0,
            reason: "Completed".into(),
            message: "{}".into(),
            started: Some(at),
            finished: Some(at),
        }),
        ..PodView::default()
    };
    view.meta.uid = "pod".into();
    run.pods = vec![(place.clone(), Arc::new(view))];
    let pod = Finished {
        at: place,
        uid: "pod".to_owned(),
        job_uid: "job".to_owned(),
    };
    let observed = Observed {
        job: Some(run),
        claim: Some(Arc::new(ClaimView {
            meta: Meta {
                deleting: true,
                ..Meta::default()
            },
            ..ClaimView::default()
        })),
        ..observed()
    };
    let plan = table.plan(&observed);
    assert!(plan.status.completion_time.is_some());
    assert_eq!(plan.children.finished, [], "the end is not written yet");
    assert_eq!(plan.next, Some(table.now.wall), "the next turn follows at once");
    table.resource.status = Some(plan.status);
    assert_eq!(table.plan(&observed).children.finished, [pod]);
}
