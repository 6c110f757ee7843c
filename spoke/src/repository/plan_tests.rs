//! Turns of a repository.

use serde_json::json;

use super::locks::Content;
use super::*;
use crate::kind::table::{NoRestic, Table, at, condition, forbidden};
use crate::kind::{Moment, RefusedBecause, Removal};
use crate::restic::Statistics;
use crate::testing::config;

fn table() -> Table<RepositoryController> {
    let repository = json!({
        "apiVersion": "backup.resticbackup.io/v1alpha1", "kind": "ResticRepository",
        "metadata": { "name": "nas", "namespace": "ns", "uid": "u", "generation": 1 },
        "spec": { "repositoryURL": "s3:h/b", "credentialsSecretRef": { "name": "nas" } },
    });
    let controller = RepositoryController::new(&Site::of_tests(), Arc::new(NoRestic), &config());
    Table::new(controller, repository)
}

fn observed() -> Observed {
    Observed {
        secret: Some("7".to_owned()),
        ..Observed::default()
    }
}

fn answer(answer: Answer, secret: &str, locks: Option<Looked>) -> Found {
    Found::Answer(Box::new(Reply {
        inputs: Inputs {
            generation: 1,
            secret: Some(secret.to_owned()),
        },
        answer,
        locks,
        key: None,
    }))
}

fn open() -> Answer {
    Answer::Open {
        id: "id".to_owned(),
        initialized: false,
        statistics: Some(Ok(Statistics::default())),
    }
}

fn looked(at: Moment, ids: &[&str]) -> Looked {
    let ids: Vec<String> = ids.iter().map(|id| (*id).to_owned()).collect();
    let file = |time| LockFile {
        time,
        exclusive: false,
        host: "h".to_owned(),
        user: "fleet:a:pod:0".to_owned(),
        pid: 1,
    };
    let read = ids.iter().map(|id| (id.clone(), Content::Read(file(at.wall))));
    Looked {
        start: at,
        end: at,
        read: read.collect(),
        ids,
    }
}

/// Ready, with a look that has just been taken in.
fn ready(locks: &[&str]) -> Table<RepositoryController> {
    let mut table = table();
    table.found = vec![answer(open(), "7", Some(looked(table.now, locks)))];
    let settled = table.settle(&observed(), None);
    (table.resource.status, table.state) = (Some(settled.status), settled.state);
    table.found.clear();
    table
}

#[test]
fn a_new_repository_is_looked_at_once() {
    let mut table = table();
    let plan = table.plan(&observed());
    assert!(plan.children.location.is_some());
    assert_eq!(condition(&plan.status.conditions, "Ready").0, "Unknown/Checking");
    let [task] = plan.work.as_slice() else { panic!() };
    let expected = |work: &Work| match work {
        Work::Look { expected, .. } => expected.clone(),
        Work::Locks { .. } => panic!("no look"),
    };
    assert_eq!(expected(&task.work), Expected::AnyOrNew);
    let mut never = self::table();
    never.resource.spec.initialize = Some(crds::repository::Initialize::Never);
    let plan_of = never.plan(&observed());
    assert_eq!(expected(&plan_of.work[0].work), Expected::Any);
    table.running = vec![task.work.clone()];
    assert!(table.plan(&observed()).work.is_empty(), "it is under way");
    let changed = Observed {
        secret: Some("8".to_owned()),
        ..observed()
    };
    assert_eq!(
        table.plan(&changed).work.len(),
        1,
        "a look with another Secret takes its place"
    );
}

#[test]
fn an_answer_counts_for_what_was_asked_only() {
    let mut table = table();
    table.found = vec![answer(open(), "6", None)];
    let plan = table.plan(&observed());
    assert_eq!(condition(&plan.status.conditions, "Ready").0, "Unknown/Checking");
    assert_eq!(plan.work.len(), 1);
    let table = ready(&[]);
    let plan = table.plan(&observed());
    assert_eq!(
        condition(&plan.status.conditions, "Ready").0,
        "True/RepositoryAccessible"
    );
    assert!(plan.work.is_empty());
    assert_eq!(plan.next.unwrap().duration_since(table.now.wall).as_hours(), 1);
}

#[test]
fn a_look_that_panicked_is_a_failure_with_a_back_off() {
    let mut table = table();
    let work = table.plan(&observed()).work.remove(0).work;
    table.found = vec![RepositoryController::panicked(&work)];
    let plan = table.plan(&observed());
    assert_eq!(
        condition(&plan.status.conditions, "Ready").0,
        "False/ResticFailed"
    );
    assert!(plan.work.is_empty() && plan.next > Some(table.now.wall));
}

#[test]
fn a_location_that_cannot_be_written_is_said_and_loses_no_answer() {
    let mut table = table();
    table.found = vec![answer(open(), "7", None)];
    let settled = table.settle(&observed(), Some(("Secret", forbidden("quota"))));
    assert_eq!(
        condition(&settled.status.conditions, "Ready").0,
        "False/SecretFailed"
    );
    assert_eq!(settled.status.repository_id.as_deref(), Some("id"));
    assert!(settled.failed);
}

fn ended() -> Observed {
    Observed {
        lives: [(("fleet:a:pod:0".to_owned(), "h".to_owned()), Life::Ended)].into(),
        ..observed()
    }
}

/// A lock that did not change for longer than a live restic could leave it.
fn left_over() -> (Table<RepositoryController>, Observed) {
    let mut table = ready(&["lock"]);
    table.now = at(table.now.wall.as_second() + 50 * 60);
    let known = Looked {
        read: Vec::new(),
        ..looked(table.now, &["lock"])
    };
    table.found = vec![Found::Locks(Some(known))];
    (table, ended())
}

#[test]
fn locks_that_are_left_over_are_removed_by_one_job() {
    let plan = ready(&["lock"]).plan(&ended());
    assert_eq!(plan.removable, Some(Vec::new()), "too early");
    assert!(plan.children.job.is_none());
    let (table, ended) = left_over();
    let plan = table.plan(&ended);
    assert_eq!(plan.removable, Some(vec!["lock".to_owned()]));
    assert!(plan.children.job.is_some());
    let cause = RefusedBecause::Occupied {
        meta: Box::default(),
        text: String::new(),
    };
    assert!(
        !table.settle(&ended, Some(("Job", cause))).failed,
        "the one before is being deleted"
    );
    let settled = table.settle(&ended, Some(("Job", forbidden("quota"))));
    assert!(
        !settled.failed && settled.next.is_some(),
        "the repository is looked at all the same"
    );
    assert_eq!(
        condition(&settled.status.conditions, "Degraded").0,
        "True/UnlockFailed"
    );
    let first = Observed {
        is_preceded: true,
        ..ended
    };
    assert!(
        table.plan(&first).children.job.is_none(),
        "another resource acts for this repository"
    );
}

#[test]
fn a_lock_that_was_seen_before_its_pod_ended_is_looked_at_again_before_anything_is_done() {
    let (mut table, _) = left_over();
    let alive = observed();
    let settled = table.settle(&alive, None);
    (table.resource.status, table.state) = (Some(settled.status), settled.state);
    table.found.clear();
    table.now = at(table.now.wall.as_second() + 1);
    let plan = table.plan(&ended());
    assert_eq!(plan.removable, Some(Vec::new()), "restic may have removed it");
    assert!(plan.children.job.is_none());
    let looks: Vec<_> = plan.work.iter().map(|task| &task.work).collect();
    assert!(matches!(looks[..], [Work::Locks { .. }]), "{looks:?}");
    for (ids, jobs) in [(&[][..], 0), (&["lock"][..], 1)] {
        let known = Looked {
            read: Vec::new(),
            ..looked(table.now, ids)
        };
        table.found = vec![Found::Locks(Some(known))];
        let plan = table.plan(&ended());
        assert_eq!(plan.children.job.iter().count(), jobs, "{ids:?}");
        assert!(plan.work.is_empty());
    }
}

#[test]
fn a_holder_of_which_nothing_is_known_keeps_its_lock() {
    let mut table = ready(&["lock"]);
    table.now = at(table.now.wall.as_second() + 50 * 60);
    let known = Looked {
        read: Vec::new(),
        ..looked(table.now, &["lock"])
    };
    table.found = vec![Found::Locks(Some(known))];
    assert_eq!(table.plan(&observed()).removable, Some(Vec::new()));
}

#[test]
fn a_job_that_waits_although_nothing_is_left_over_is_withdrawn() {
    let table = ready(&[]);
    let mut job = JobView {
        suspended: true,
        ..JobView::default()
    };
    job.meta.uid = "job".into();
    let place = Key::new("ns", "unlock");
    let waits = Observed {
        job: Some((place.clone(), Arc::new(job))),
        ..observed()
    };
    let uid = "job".to_owned();
    assert_eq!(
        table.plan(&waits).children.removals,
        [Removal::Job { at: place, uid }]
    );
}

#[test]
fn a_cheap_look_that_fails_after_a_run_failed_is_followed_by_a_whole_one() {
    let mut table = ready(&[]);
    let failed = Observed {
        failed: table
            .now
            .wall
            .checked_add(jiff::SignedDuration::from_secs(1))
            .ok(),
        ..observed()
    };
    let looks = |table: &Table<RepositoryController>| {
        table
            .plan(&failed)
            .work
            .into_iter()
            .map(|task| task.work)
            .collect::<Vec<_>>()
    };
    assert!(
        matches!(looks(&table)[..], [Work::Locks { .. }]),
        "a listing of the locks"
    );
    table.found = vec![Found::Locks(None)];
    assert!(matches!(looks(&table)[..], [Work::Look { .. }]));
    let away = Answer::Failed(crate::restic::Failure::Unreachable("no route".to_owned()));
    table.found = vec![answer(away, "7", None)];
    let settled = table.settle(&failed, None);
    assert_eq!(
        condition(&settled.status.conditions, "Ready").0,
        "False/RepositoryUnreachable"
    );
    (table.resource.status, table.state) = (Some(settled.status), settled.state);
    table.found = vec![Found::Locks(None)];
    assert!(table.plan(&failed).work.is_empty(), "its back-off counts");
}

fn changed(is: &str) -> Answer {
    Answer::Changed {
        was: "id".to_owned(),
        is: is.to_owned(),
    }
}

/// The table after an answer.
fn after(mut table: Table<RepositoryController>, given: Answer) -> Table<RepositoryController> {
    table.found = vec![answer(given, "7", None)];
    let settled = table.settle(&observed(), None);
    (table.resource.status, table.state) = (Some(settled.status), settled.state);
    table.found.clear();
    table
}

fn annotate(table: &mut Table<RepositoryController>, accepted: &str) {
    let annotations = table.resource.metadata.annotations.get_or_insert_default();
    annotations.insert(
        names::ANNOTATION_ACCEPT_REPOSITORY.to_owned(),
        accepted.to_owned(),
    );
}

fn status(table: &Table<RepositoryController>) -> crds::ResticRepositoryStatus {
    table.resource.status.clone().unwrap()
}

#[test]
fn a_look_that_fails_is_no_change_of_the_repository_and_takes_none_back() {
    let away = || Answer::Failed(crate::restic::Failure::Unreachable("no route".to_owned()));
    let table = after(ready(&[]), away());
    assert_eq!(status(&table).changed_id, None);
    assert_eq!(status(&table).repository_id.as_deref(), Some("id"));
    let table = after(after(table, changed(&"e".repeat(64))), away());
    assert_eq!(
        status(&table).changed_id,
        Some("e".repeat(64)),
        "nothing is known anew of what lies there"
    );
    let table = after(table, open());
    assert_eq!(status(&table).changed_id, None, "the known one is back");
}

#[test]
fn another_repository_in_the_place_of_the_known_one_is_an_alarm_until_a_person_accepts_it() {
    let other = "e".repeat(64);
    let mut table = after(ready(&[]), changed(&other));
    let found = status(&table);
    let (reason, text) = condition(&found.conditions, "Ready");
    assert_eq!(reason, "False/RepositoryChanged");
    assert!(
        text.contains("backup.resticbackup.io/accept-repository=eeeeeeee"),
        "{text}"
    );
    assert_eq!(
        found.repository_id.as_deref(),
        Some("id"),
        "the known one stays known"
    );
    let before = ResticRepositoryStatus::default();
    let warned = RepositoryController::events(&before, &found);
    assert_eq!(
        (warned.len(), warned[0].reason.as_str()),
        (1, "RepositoryChanged")
    );

    for wrong in ["", "eeee", "id", &"f".repeat(64)] {
        annotate(&mut table, wrong);
        assert_eq!(
            table.plan(&observed()).status.changed_id,
            Some(other.clone()),
            "{wrong}"
        );
    }
    annotate(&mut table, "eeeeeeee");
    let mut plan = table.plan(&observed());
    let status = &plan.status;
    assert_eq!(
        (status.repository_id.as_ref(), &status.changed_id),
        (Some(&other), &None)
    );
    assert_eq!(
        (&status.statistics, &status.key_id),
        (&None, &None),
        "of the former one"
    );
    assert_eq!(
        condition(&status.conditions, "Ready").0,
        "Unknown/RepositoryAccepted"
    );
    let Work::Look { expected, .. } = plan.work.remove(0).work else {
        panic!("no look")
    };
    assert_eq!(expected, Expected::Known(other.clone()));

    // A look that was begun before it was accepted compares with the former one.
    (table.resource.status, table.state) = (Some(plan.status), plan.state);
    let table = after(table, changed(&other));
    assert_eq!(self::status(&table).changed_id, None);
}

#[test]
fn a_read_only_repository_is_opened_and_neither_created_nor_unlocked() {
    let mut table = table();
    table.resource.spec.read_only = true;
    let plan = table.plan(&observed());
    let Work::Look { expected, .. } = &plan.work[0].work else {
        panic!("no look")
    };
    assert_eq!(*expected, Expected::Any);
    assert_eq!(
        condition(&plan.status.conditions, "ReadOnly").0,
        "True/RepositoryReadOnly"
    );
    let mut left = left_over();
    assert!(left.0.plan(&left.1).children.job.is_some(), "the lock is removed");
    left.0.resource.spec.read_only = true;
    assert!(left.0.plan(&left.1).children.job.is_none());
    (table.resource.status, table.resource.spec.read_only) = (Some(plan.status), false);
    let plan = table.plan(&observed());
    assert_eq!(
        condition(&plan.status.conditions, "ReadOnly").0,
        "False/RepositoryWritable"
    );
}
