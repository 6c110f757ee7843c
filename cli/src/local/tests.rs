#![allow(clippy::unwrap_used)]

use clap::Parser as _;
use serde_json::json;

use super::*;
use crate::arguments::{Arguments, Format, Output};
use crate::failure::code;
use crate::{render, why};

const NOW: &str = "2026-11-26T12:00:00Z";

fn seen(silent: Option<bool>) -> Seen {
    Seen {
        cluster: "a".to_owned(),
        silent,
        heard: Some("2026-11-26T11:59:58Z".parse().unwrap()),
        now: NOW.parse().unwrap(),
    }
}

fn object(kind: &str, name: &str, spec: Value, status: Value) -> Value {
    json!({
        "kind": kind,
        "metadata": { "name": name, "namespace": "shop", "uid": name, "creationTimestamp": "2026-11-01T00:00:00Z" },
        "spec": spec, "status": status,
    })
}

fn repository() -> Value {
    let spec = json!({ "repositoryURL": "rest:https://user:hunter2@nas:8000/r" });
    object(
        "ResticRepository",
        "nas",
        spec,
        json!({
            "repositoryID": "abc", "conditions": [{ "type": "Ready", "status": "True" }],
            "statistics": { "totalSizeBytes": 2048, "snapshotCount": 3, "asOf": "2026-11-26T11:00:00Z" },
        }),
    )
}

/// One that ran an hour ago; with more in its status.
fn backup(more: Value) -> Value {
    let spec = json!({ "repositoryRef": { "name": "nas" }, "schedule": "@daily", "source": { "pvc": { "claimName": "data" } } });
    let mut object = object(
        "ResticBackup",
        "orders",
        spec,
        json!({
            "lastSuccessfulBackup": "2026-11-26T11:00:00Z", "nextBackup": "2026-11-27T00:00:00Z",
            "lastBackup": { "result": "Succeeded", "completionTime": "2026-11-26T11:00:00Z" },
            "conditions": [{ "type": "Ready", "status": "True" }, { "type": "Stale", "status": "False" }],
        }),
    );
    for (key, value) in more.as_object().unwrap() {
        object["status"][key] = value.clone();
    }
    object
}

fn local(silent: Option<bool>, objects: Vec<Value>) -> Local {
    Local {
        seen: seen(silent),
        objects: json!({ "items": objects }),
    }
}

fn state(local: &Local) -> String {
    let found = local.get(&get(&["backup", "shop/orders"])).unwrap();
    match found.answer.row.unwrap().body {
        Some(Body::Backup(row)) => row.state,
        other => panic!("{other:?}"),
    }
}

fn get(object: &[&str]) -> Get {
    Get {
        object: object.iter().map(|word| (*word).to_owned()).collect(),
        output: Format::Table,
    }
}

fn list(text: Option<&str>, states: &[&str]) -> List {
    List {
        text: text.map(str::to_owned),
        cluster: Vec::new(),
        namespace: Vec::new(),
        state: states.iter().map(|state| (*state).to_owned()).collect(),
        sort: String::new(),
        output: Output {
            output: Format::Table,
            watch: false,
        },
    }
}

#[test]
fn the_worst_that_its_status_shows_is_the_state_of_a_backup() {
    let waiting = json!([
        { "type": "Ready", "status": "True" }, { "type": "Stale", "status": "False" },
        { "type": "Waiting", "status": "True", "reason": "FailedCreate", "lastTransitionTime": "2026-11-26T11:50:00Z" },
    ]);
    for (more, expected) in [
        (json!({}), "ok"),
        (
            json!({ "lastBackup": { "result": "Failed", "completionTime": "2026-11-26T11:30:00Z", "reason": "OutOfMemory" } }),
            "failed",
        ),
        (
            json!({ "lastBackup": { "result": "PartiallyFailed" } }),
            "partial",
        ),
        (
            json!({ "conditions": [{ "type": "Ready", "status": "True" }, { "type": "Stale", "status": "True", "reason": "NoRecentSuccess" }] }),
            "late",
        ),
        (json!({ "nextBackup": "2026-11-26T11:00:00Z" }), "late"),
        (
            json!({ "conditions": [{ "type": "Ready", "status": "False", "reason": "PersistentVolumeClaimNotFound" }] }),
            "notready",
        ),
        (json!({ "conditions": [] }), "notready"),
        (json!({ "conditions": waiting }), "notready"),
        (json!({ "lastBackup": { "result": "Splendid" } }), "notready"),
        (
            json!({ "lastBackup": null, "lastSuccessfulBackup": null }),
            "never",
        ),
    ] {
        assert_eq!(
            state(&local(Some(false), vec![backup(more.clone())])),
            expected,
            "{more}"
        );
    }
    // A success after it: mended.
    let mended = json!({ "lastBackup": { "result": "Failed", "completionTime": "2026-11-26T10:00:00Z" } });
    assert_eq!(state(&local(Some(false), vec![backup(mended)])), "ok");
    assert_eq!(state(&local(Some(true), vec![backup(json!({}))])), "stale");
    assert_eq!(state(&local(None, vec![backup(json!({}))])), "stale");
}

#[test]
fn nothing_is_called_well_while_its_operator_is_not_seen_to_run() {
    let policy = object(
        "GlobalRetentionPolicy",
        "nightly",
        json!({ "repositoryRef": { "name": "nas" } }),
        json!({
            "lastRun": "2026-11-26T11:00:00Z", "lastRunResult": "Succeeded",
            "conditions": [{ "type": "Ready", "status": "True" }],
        }),
    );
    let restore = object(
        "ResticRestore",
        "back",
        json!({}),
        json!({ "phase": "InProgress" }),
    );
    let all = || vec![repository(), backup(json!({})), policy.clone(), restore.clone()];
    let why = |silent, kind: &str, wanted: &str| {
        let found = local(silent, all()).get(&get(&[kind, wanted])).unwrap();
        why::of(&found, NOW.parse().unwrap())
    };
    for (kind, wanted) in [
        ("backup", "shop/orders"),
        ("policy", "shop/nightly"),
        ("restore", "shop/back"),
        ("repo", "shop/nas"),
    ] {
        assert_eq!(why(Some(false), kind, wanted).code, 0, "{kind}");
        for (silent, says) in [
            (None, "whether its operator runs cannot be seen"),
            (Some(true), "its operator does not run"),
        ] {
            let why = why(silent, kind, wanted);
            assert_eq!((why.state.as_str(), why.code), ("stale", code::UNKNOWN), "{kind}");
            assert!(why.sentence.contains(says), "{kind}: {why:?}");
            // What this command refuses is no advice.
            assert!(!why.next.iter().any(|of| of.contains("why cluster")), "{why:?}");
            assert!(why.next.contains(&"fleet check".to_owned()), "{why:?}");
        }
    }
}

#[test]
fn a_lease_from_the_future_does_not_show_that_its_operator_runs() {
    let at = |seconds: i64| NOW.parse::<Timestamp>().unwrap() + jiff::SignedDuration::from_secs(seconds);
    let now = NOW.parse().unwrap();
    assert_eq!(silent(at(-61), now), Some(true));
    assert_eq!(silent(at(-60), now), Some(false));
    assert_eq!(silent(at(CLOCKS), now), Some(false));
    assert_eq!(silent(at(CLOCKS + 1), now), None);
    assert_eq!(silent(at(3600), now), None);
}

#[test]
fn a_cluster_is_safe_only_when_its_operator_is_seen_to_run() {
    let all = || vec![repository(), backup(json!({}))];
    let verdict = |local: Local| local.status().verdict;
    assert_eq!(verdict(local(Some(false), all())), "safe");
    assert_eq!(verdict(local(Some(true), all())), "unknown");
    assert_eq!(verdict(local(None, all())), "unknown");
    assert_eq!(verdict(local(Some(false), vec![repository()])), "unknown");
    let failed =
        backup(json!({ "lastBackup": { "result": "Failed", "completionTime": "2026-11-26T11:30:00Z" } }));
    let status = local(None, vec![repository(), failed]).status();
    assert_eq!((status.verdict.as_str(), status.needs_you.len()), ("not-safe", 1));
    assert_eq!(status.needs_you[0].next, "fleet why backup a/shop/orders");
    let mut suspended = backup(json!({}));
    suspended["spec"]["suspend"] = json!(true);
    assert_eq!(verdict(local(Some(false), vec![suspended])), "not-safe");
}

#[test]
fn rows_are_those_of_the_hub_and_no_password_is_in_them() {
    let local = local(Some(false), vec![repository(), backup(json!({}))]);
    let repositories = local
        .list(&list(Some("nas"), &[]), Collection::Repositories)
        .unwrap();
    let text = render::table(&repositories.rows, true, NOW.parse().unwrap());
    assert!(
        text.contains("rest:https://nas:8000/r") && text.contains("2.0 KiB"),
        "{text}"
    );
    let document = crate::document::list("RepositoryList", 0, None, &repositories.rows).to_string();
    assert!(
        !text.contains("hunter2") && !document.contains("hunter2"),
        "{document}"
    );
    assert_eq!(
        local
            .list(&list(None, &["failed"]), Collection::Backups)
            .unwrap()
            .rows
            .len(),
        0
    );
    assert_eq!(
        local
            .list(&list(Some("ORD"), &["ok"]), Collection::Backups)
            .unwrap()
            .rows
            .len(),
        1
    );
    let mut other = list(None, &[]);
    other.cluster = vec!["b".to_owned()];
    assert!(local.list(&other, Collection::Backups).is_err());
}

#[test]
fn one_object_is_found_by_any_of_its_names_and_says_why() {
    let broken = json!({ "conditions": [{ "type": "Ready", "status": "False", "reason": "PersistentVolumeClaimNotFound", "message": "no claim" }] });
    let local = local(Some(false), vec![repository(), backup(broken)]);
    for name in ["a/shop/orders", "shop/orders"] {
        let found = local.get(&get(&[name])).unwrap();
        let why = why::of(&found, NOW.parse().unwrap());
        assert_eq!(
            why.next.first().unwrap(),
            "create it, or correct the name",
            "{why:?}"
        );
        assert_eq!(why.code, 1);
        assert_eq!(found.answer.relations.len(), 1);
    }
    for name in ["nas", "abc", "shop/nas", "a/shop/nas"] {
        assert_eq!(
            local.get(&get(&[name])).unwrap().collection,
            Collection::Repositories,
            "{name}"
        );
    }
    assert!(local.get(&get(&["b/shop/orders"])).is_err());
    assert!(local.get(&get(&["policy", "shop/orders"])).is_err());
}

#[test]
fn it_says_that_other_clusters_are_not_seen_and_whether_the_operator_runs() {
    assert!(
        seen(Some(false))
            .notice()
            .contains("only cluster a is seen, no other one; fleet login")
    );
    assert!(seen(Some(true)).notice().contains("does not run"));
    assert!(seen(None).notice().contains("cannot be seen"));
    assert!(seen(None).freshness().stale);
}

#[test]
fn a_chosen_cluster_is_not_watched_in_the_place_of_the_fleet() {
    let meant = |words: &str| {
        let words = format!("fleet --hub https://hub:8444 {words}");
        let Arguments { command, hub, kube } = Arguments::parse_from(words.split_whitespace());
        is_meant(&hub, &kube, &command)
    };
    for what in ["status", "backups", "repos", "policies", "restores"] {
        for chosen in ["--kube-context a", "--kubeconfig /nowhere"] {
            assert!(meant(&format!("{what} {chosen}")).unwrap(), "{what}");
            let refused = meant(&format!("{what} {chosen} --watch"));
            assert!(matches!(refused, Err(Failure::Usage(_))), "{what}: {refused:?}");
        }
        assert!(!meant(&format!("{what} --watch")).unwrap(), "{what}");
    }
    assert!(!meant("locks --kube-context a").unwrap());
}
