#![allow(clippy::unwrap_used)]

use serde_json::json;

use super::*;
use crate::check::finding::Outcome;
use crate::check::fixtures::{cluster, found, is};

/// With a condition of the object at a place.
fn with(at: usize, condition: Value) -> Facts {
    let mut facts = cluster();
    let conditions = &mut facts.objects.as_mut().unwrap()["items"][at]["status"]["conditions"];
    let kind = condition["type"].clone();
    let list = conditions.as_array_mut().unwrap();
    list.retain(|of| of["type"] != kind);
    list.push(condition);
    facts
}

#[test]
fn each_condition_that_a_person_has_to_know_is_bad() {
    let condition = |kind: &str, status: &str, reason: &str| json!({ "type": kind, "status": status, "reason": reason, "message": "the message" });
    for (at, of, id) in [
        (0, condition("Ready", "False", "WrongPassword"), "repositories"),
        (0, condition("Ready", "Unknown", "Checking"), "repositories"),
        (
            0,
            condition("Degraded", "True", "RepositoryDamaged"),
            "repository-damage",
        ),
        (
            0,
            condition("Waiting", "True", "ClusterCertificateExpired"),
            "link-certificate",
        ),
        (
            1,
            condition("Ready", "False", "PersistentVolumeClaimNotFound"),
            "backups",
        ),
        (1, condition("Waiting", "True", "FailedCreate"), "runs-start"),
        (1, condition("Stale", "True", "NoRecentSuccess"), "backups-recent"),
        (2, condition("Degraded", "True", "RetentionFailed"), "policies"),
        (2, condition("ApprovalRequired", "True", "OverGuard"), "approvals"),
    ] {
        let all = findings(&with(at, of));
        is(&all, id, Outcome::Bad);
        assert!(found(&all, id).text.contains("the message"), "{id}");
        let others = all.iter().filter(|of| of.id != id);
        others.for_each(|of| assert_eq!(of.outcome, Outcome::Good, "{of:?}"));
    }
    // A place in a queue is meant.
    let all = findings(&with(1, condition("Waiting", "True", "Parked")));
    assert_eq!(found(&all, "runs-start").outcome, Outcome::Good);
}

#[test]
fn what_its_operator_has_not_looked_at_is_not_called_ready() {
    let mut facts = cluster();
    for at in 0..3 {
        facts.objects.as_mut().unwrap()["items"][at]["status"] = json!({});
    }
    let all = findings(&facts);
    for id in ["repositories", "backups", "backups-recent", "policies"] {
        is(&all, id, Outcome::Bad);
    }
}

#[test]
fn a_secret_that_is_missing_and_a_run_that_failed_are_bad() {
    let mut facts = cluster();
    facts.secrets = Ok(vec!["other/nas".to_owned()]);
    facts.objects.as_mut().unwrap()["items"][1]["status"]["lastBackup"] =
        json!({ "result": "Failed", "reason": "OutOfMemory", "message": "the limit was reached" });
    let all = findings(&facts);
    is(&all, "repository-secrets", Outcome::Bad);
    is(&all, "last-runs", Outcome::Bad);
    assert!(
        found(&all, "last-runs")
            .text
            .contains("OutOfMemory: the limit was reached")
    );
    facts.secrets = Err("forbidden".to_owned());
    is(&findings(&facts), "repository-secrets", Outcome::Unknown);
}

#[test]
fn a_last_word_of_an_operator_that_does_not_look_any_more_is_not_believed() {
    let mut facts = cluster();
    let backup = |facts: &mut Facts, status: &str, value: Value| {
        facts.objects.as_mut().unwrap()["items"][1]["status"][status] = value;
    };
    // Stale is False, and stays so for as long as nobody looks.
    backup(&mut facts, "nextBackup", json!("2026-11-26T11:00:00Z"));
    let all = findings(&facts);
    is(&all, "backups-recent", Outcome::Bad);
    assert!(found(&all, "backups-recent").text.contains("a run was due"));
    backup(&mut facts, "nextBackup", json!("2026-11-26T11:55:00Z"));
    let due = findings(&facts);
    assert_eq!(found(&due, "backups-recent").outcome, Outcome::Good);
    // A result that this version does not know, or none at all.
    for run in [json!({ "result": "Splendid" }), json!({})] {
        backup(&mut facts, "lastBackup", run);
        is(&findings(&facts), "last-runs", Outcome::Bad);
    }
    backup(&mut facts, "lastBackup", Value::Null);
    let none = findings(&facts);
    assert_eq!(found(&none, "last-runs").outcome, Outcome::Good);
    // A success after it: mended.
    let failed = json!({ "result": "Failed", "completionTime": "2026-11-26T10:00:00Z" });
    backup(&mut facts, "lastBackup", failed);
    is(&findings(&facts), "last-runs", Outcome::Bad);
    backup(&mut facts, "lastSuccessfulBackup", json!("2026-11-26T11:00:00Z"));
    let mended = findings(&facts);
    assert_eq!(found(&mended, "last-runs").outcome, Outcome::Good);
}

#[test]
fn nothing_there_is_a_note_and_many_are_counted() {
    let mut facts = cluster();
    facts.objects = Ok(json!({ "items": [] }));
    for of in findings(&facts) {
        assert_eq!(of.outcome, Outcome::Note, "{of:?}");
    }
    let names: Vec<String> = (0..8).map(|n| n.to_string()).collect();
    assert_eq!(several(&names), "0; 1; 2; 3; 4; and 3 more");
}
