//! What the results of checks mean for the next, and turns of a repository with checks.

use std::sync::Arc;

use crds::conditions::{self, types};
use crds::{ResticRepository, ResticRepositoryStatus};
use jiff::Timestamp;
use proto::v1::OperationOutcome;
use serde_json::json;

use super::*;
use crate::exchange::Finished;
use crate::kind::table::{NoRestic, Table, condition, forbidden};
use crate::repository::Observed;
use crate::site::Site;
use crate::testing::config;

const PACK: &str = "d16653d5c8739aa332502e78b79c9ff8d413a5c84535e98efc37eadbe5a70dc6";

fn table(check: &serde_json::Value) -> Table<RepositoryController> {
    let repository = json!({
        "apiVersion": "backup.resticbackup.io/v1alpha1", "kind": "ResticRepository",
        "metadata": { "name": "nas", "namespace": "ns", "uid": "u", "generation": 1 },
        "spec": { "repositoryURL": "s3:h/b", "credentialsSecretRef": { "name": "nas" }, "integrityCheck": check },
        "status": { "repositoryID": "id" },
    });
    let controller = RepositoryController::new(&Site::of_tests(), Arc::new(NoRestic), &config());
    Table::new(controller, repository)
}

fn walking() -> Table<RepositoryController> {
    table(&json!({ "readDataSubset": "1/4" }))
}

fn passed(parts: &[u32], of: u32) -> OperationOutcome {
    OperationOutcome {
        result: "Passed".to_owned(),
        message: "no errors were found".to_owned(),
        checked: parts.to_vec(),
        checked_of: of,
        ..OperationOutcome::default()
    }
}

fn damaged(parts: &[u32], of: u32) -> OperationOutcome {
    OperationOutcome {
        result: "Damaged".to_owned(),
        reason: "DamagedPacks".to_owned(),
        message: format!("pack {PACK} contains 2 errors"),
        broken_packs: vec![PACK.to_owned(), "and 3 more".to_owned()],
        ..passed(parts, of)
    }
}

fn failed() -> OperationOutcome {
    OperationOutcome {
        result: "Failed".to_owned(),
        reason: "RepositoryUnreachable".to_owned(),
        ..OperationOutcome::default()
    }
}

fn operation(uid: &str, progress: Progress, outcome: Option<OperationOutcome>) -> Operation {
    Operation {
        job: Key::new("ns", format!("integritycheck-nas-{uid}")),
        job_type: CHECK.to_owned(),
        progress,
        finished: outcome.map(|outcome| Finished {
            operation: uid.to_owned(),
            outcome,
            started: None,
            finished: Timestamp::from_second(1_767_300_000).ok(),
            token: Some(3),
            by: None,
            approved: None,
        }),
    }
}

fn with(operations: Vec<Operation>) -> Observed {
    Observed {
        operations,
        ..Observed::default()
    }
}

/// Takes a result in, as a turn does.
fn take(
    table: &mut Table<RepositoryController>,
    uid: &str,
    outcome: OperationOutcome,
) -> ResticRepositoryStatus {
    let status = table
        .plan(&with(vec![operation(uid, Progress::Ended, Some(outcome))]))
        .status;
    table.resource.status = Some(status.clone());
    status
}

/// Parts that the next check reads.
fn next(table: &Table<RepositoryController>) -> (Vec<u32>, u32) {
    let run = results::order(&table.resource, "id");
    (run.parts, run.of)
}

fn degraded(status: &ResticRepositoryStatus) -> String {
    condition(&status.conditions, "Degraded").0
}

#[test]
fn checks_walk_through_all_parts_and_begin_again() {
    let mut table = walking();
    for round in 0..2 {
        for part in 1..=4 {
            assert_eq!(next(&table), (vec![part], 4));
            let status = take(&mut table, &format!("{round}-{part}"), passed(&[part], 4));
            let known = status.integrity_check.unwrap();
            assert_eq!(
                known.all_parts_read.is_some(),
                round == 1 || part == 4,
                "{round} {part}"
            );
        }
    }
    table
        .resource
        .spec
        .integrity_check
        .as_mut()
        .unwrap()
        .read_data_subset = Some("3/4".to_owned());
    assert_eq!(next(&table), (vec![1, 2, 3], 4));
    take(&mut table, "three", passed(&[1, 2, 3], 4));
    assert_eq!(next(&table), (vec![4, 1, 2], 4));
    // Other parts begin with the first.
    table
        .resource
        .spec
        .integrity_check
        .as_mut()
        .unwrap()
        .read_data_subset = Some("1/7".to_owned());
    assert_eq!(next(&table), (vec![1], 7));
    table
        .resource
        .spec
        .integrity_check
        .as_mut()
        .unwrap()
        .read_data_subset = None;
    assert_eq!(next(&table), (vec![], 0));
}

#[test]
fn damage_stays_until_a_check_of_the_same_parts_finds_none() {
    let mut table = walking();
    take(&mut table, "1", passed(&[1], 4));
    let status = take(&mut table, "2", damaged(&[2], 4));
    assert_eq!(degraded(&status), "True/RepositoryDamaged");
    let text = conditions::get(&status.conditions, types::DEGRADED)
        .unwrap()
        .message
        .clone();
    assert!(
        text.contains(&format!("restic repair packs {PACK}")) && text.contains("Backups go on"),
        "{text}"
    );
    assert_eq!(status.last_integrity_check_result.as_deref(), Some("Damaged"));
    assert_eq!(next(&table), (vec![2], 4), "the walk waits");
    // A check that could not read says nothing about it, whatever the spec asks for meanwhile.
    let status = take(&mut table, "3", failed());
    assert_eq!(degraded(&status), "True/RepositoryDamaged");
    assert_eq!(status.last_integrity_check_result.as_deref(), Some("Failed"));
    table
        .resource
        .spec
        .integrity_check
        .as_mut()
        .unwrap()
        .read_data_subset = Some("1/9".to_owned());
    assert_eq!(next(&table), (vec![2], 4));
    for (uid, other) in [
        ("4", passed(&[3], 4)),
        ("5", passed(&[2], 9)),
        ("6", passed(&[], 0)),
    ] {
        assert_eq!(
            degraded(&take(&mut table, uid, other)),
            "True/RepositoryDamaged",
            "{uid}"
        );
    }
    let status = take(&mut table, "7", passed(&[2], 4));
    assert_eq!(degraded(&status), "False/IntegrityCheckPassed");
    assert!(status.integrity_check.unwrap().damage.is_none());
}

#[test]
fn damage_of_the_structure_keeps_the_parts_that_were_damaged_before() {
    let mut table = walking();
    take(&mut table, "1", damaged(&[3], 4));
    take(&mut table, "2", damaged(&[], 0));
    assert_eq!(next(&table), (vec![3], 4));
    take(&mut table, "3", passed(&[], 0));
    assert_eq!(next(&table), (vec![3], 4), "its data was not read");
    take(&mut table, "4", passed(&[3], 4));
    assert_eq!(next(&table), (vec![4], 4));
}

#[test]
fn what_a_check_found_counts_although_the_spec_is_not_valid_any_more() {
    let mut table = table(&json!({ "readDataSubset": "50%" }));
    let unlocked = OperationOutcome {
        result: "Applied".to_owned(),
        ..OperationOutcome::default()
    };
    let unlock = Operation {
        job_type: "unlock".to_owned(),
        ..operation("unlock", Progress::Ended, Some(unlocked))
    };
    let check = operation("1", Progress::Ended, Some(damaged(&[2], 4)));
    let status = table.plan(&with(vec![check, unlock])).status;
    table.resource.status = Some(status.clone());
    assert_eq!(condition(&status.conditions, "Ready").0, "False/InvalidSpec");
    assert_eq!(degraded(&status), "True/RepositoryDamaged");
    assert!(crds::integrity::damage_of(&table.resource).is_some());
    assert_eq!(status.last_unlock.unwrap().job_uid, "unlock");
    assert_eq!(super::known(&table.resource).counted_jobs, ["1"]);
}

#[test]
fn a_check_that_could_not_read_is_no_damage_and_reads_the_same_again() {
    let mut table = walking();
    take(&mut table, "1", passed(&[1], 4));
    let status = take(&mut table, "2", failed());
    assert!(conditions::get(&status.conditions, types::DEGRADED).is_none());
    assert_eq!(next(&table), (vec![2], 4));
    let known = status.integrity_check.unwrap();
    assert!(known.damage.is_none() && known.last_passed.is_some());
}

#[test]
fn a_result_is_taken_in_once() {
    let mut table = walking();
    take(&mut table, "1", passed(&[1], 4));
    take(&mut table, "1", passed(&[1], 4));
    assert_eq!(next(&table), (vec![2], 4));
    for n in 0..100 {
        take(&mut table, &format!("more-{n}"), failed());
    }
    let counted = super::known(&table.resource).counted_jobs;
    assert_eq!((counted.len(), counted.last().unwrap().as_str()), (32, "more-99"));
}

#[test]
fn the_time_of_damage_stays_while_locks_come_and_go() {
    let mut table = walking();
    let before = take(&mut table, "1", damaged(&[1], 4));
    let before = conditions::get(&before.conditions, types::DEGRADED)
        .unwrap()
        .clone();
    // An unlock writes the same condition in the same turn.
    let unlock = Operation {
        job_type: "unlock".to_owned(),
        ..operation(
            "unlock",
            Progress::Ended,
            Some(OperationOutcome {
                result: "Applied".to_owned(),
                ..OperationOutcome::default()
            }),
        )
    };
    table.now.wall = table
        .now
        .wall
        .checked_add(jiff::SignedDuration::from_hours(1))
        .unwrap();
    let after = table.plan(&with(vec![unlock])).status;
    assert_eq!(after.last_unlock.as_ref().unwrap().result, "Applied");
    assert_eq!(conditions::get(&after.conditions, types::DEGRADED), Some(&before));
    let unlocks = after.last_integrity_check_result.as_deref();
    assert_eq!(unlocks, Some("Damaged"), "an unlock is no check");
}

#[test]
fn the_cron_job_follows_the_spec() {
    let table = walking();
    let children = table.plan(&Observed::default()).children;
    let (cron_job, _) = children.cron_job.unwrap();
    assert_eq!(cron_job.metadata.name.as_deref(), Some("integritycheck-nas"));
    assert_eq!(cron_job.spec.schedule, "@weekly");
    let settled = table.settle(&Observed::default(), None);
    let known = settled.status.integrity_check.unwrap();
    assert!(known.next_run.is_some() && known.cron_job_ref.is_some() && settled.next.is_some());
    assert_eq!(
        condition(&settled.status.conditions, "Progressing").0,
        "False/Idle"
    );
    // Switched off: the CronJob that is there starts nothing more.
    let mut off = self::table(&json!({ "enabled": false, "schedule": "@weekly" }));
    off.resource.status.as_mut().unwrap().integrity_check = Some(IntegrityCheckStatus::default());
    let observed = Observed {
        check_cron_job: Some(Arc::default()),
        ..Observed::default()
    };
    let plan = off.plan(&observed);
    assert!(plan.children.cron_job.is_none());
    assert!(
        matches!(plan.children.removals.as_slice(), [Removal::Schedule(at)] if &*at.name == "integritycheck-nas")
    );
    // Not opened yet, and never asked for.
    let mut new = walking();
    new.resource.status = None;
    assert!(new.plan(&Observed::default()).children.cron_job.is_none());
    let plan = self::table(&json!(null)).plan(&Observed::default());
    assert!(plan.children.cron_job.is_none() && plan.status.integrity_check.is_none());
}

#[test]
fn a_cron_job_that_is_refused_leaves_the_repository_as_it_is() {
    let table = walking();
    let settled = table.settle(&Observed::default(), Some(("CronJob", forbidden("quota"))));
    assert_eq!(
        condition(&settled.status.conditions, "Progressing").0,
        "False/CronJobFailed"
    );
    assert_eq!(
        condition(&settled.status.conditions, "Ready").0,
        "Unknown/Checking"
    );
    assert!(settled.failed, "it is tried again");
}

#[test]
fn a_check_under_way_is_shown() {
    let table = walking();
    let waiting = Progress::Waiting {
        reason: "WaitingForLock",
        message: "held by another".to_owned(),
    };
    let shown = |progress| {
        let status = table.plan(&with(vec![operation("1", progress, None)])).status;
        (
            condition(&status.conditions, "Progressing").0,
            status.integrity_check.unwrap().active,
        )
    };
    let active = vec!["integritycheck-nas-1".to_owned()];
    assert_eq!(
        shown(Progress::Running),
        ("True/IntegrityCheckRunning".to_owned(), active.clone())
    );
    assert_eq!(shown(waiting), ("False/WaitingForLock".to_owned(), active));
}

#[test]
fn what_is_not_valid_is_refused_with_its_field() {
    for (check, field) in [
        (
            json!({ "readDataSubset": "50%" }),
            "spec.integrityCheck.readDataSubset",
        ),
        (json!({ "schedule": "61 * * * *" }), "spec.integrityCheck"),
    ] {
        let status = table(&check).plan(&Observed::default()).status;
        let ready = conditions::get(&status.conditions, types::READY).unwrap();
        assert_eq!(
            (ready.reason.as_str(), ready.message.starts_with(field)),
            ("InvalidSpec", true),
            "{}",
            ready.message
        );
    }
    let off: ResticRepository = table(&json!({ "enabled": false, "schedule": "61 * * * *" })).resource;
    assert!(Check::of(&off).unwrap().is_none());
}

#[test]
fn time_and_result_of_a_check_are_in_the_status() {
    let status = take(&mut walking(), "1", passed(&[1], 4));
    let ended = Timestamp::from_second(1_767_300_000).unwrap();
    assert_eq!(status.last_integrity_check.map(|time| time.0), Some(ended));
    assert_eq!(status.last_integrity_check_result.as_deref(), Some("Passed"));
}
