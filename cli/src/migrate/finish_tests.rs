use super::*;

fn ours(kind: &str, name: &str, source: &str, ready: &str) -> Value {
    json!({
        "kind": kind,
        "metadata": { "name": name, "namespace": "shop", "labels": { FROM: "k8up" }, "annotations": { SOURCE: source } },
        "spec": { "suspend": true },
        "status": { "repositoryID": "ab", "lastSuccessfulBackup": "2026-11-20T03:00:00Z", "conditions": [{ "type": "Ready", "status": ready, "reason": "WrongPassword", "message": "m" }] },
    })
}

fn seen(source: &str, theirs: Value, ready: &str) -> Seen {
    Seen {
        repositories: vec![ours("ResticRepository", "r", source, ready)],
        backups: vec![ours("ResticBackup", "b", source, "True")],
        policies: vec![ours("GlobalRetentionPolicy", "p", source, "True")],
        theirs: vec![theirs],
        ..Seen::default()
    }
}

fn worked_out(tool: Tool, seen: &Seen) -> Steps {
    steps(tool, seen, false)
}

#[test]
fn ours_begins_before_theirs_stops_and_theirs_can_be_put_back() {
    let theirs = json!({ "metadata": { "name": "nightly", "namespace": "shop" },
                         "spec": { "backend": {}, "backup": { "schedule": "x" }, "prune": { "schedule": "y" } } });
    let found = worked_out(
        Tool::K8up,
        &seen("schedules.k8up.io/shop/nightly", theirs, "True"),
    );
    assert!(found.blocked.is_empty(), "{:?}", found.blocked);
    let order: Vec<&str> = found
        .patches
        .iter()
        .map(|patch| patch.resource.as_str())
        .collect();
    assert_eq!(
        order,
        ["resticbackups.backup.resticbackup.io", "schedules.k8up.io"]
    );
    let note = found.notes.last().cloned().unwrap_or_default();
    assert!(note.contains("fleet retention preview CLUSTER/shop/p"), "{note}");
    assert!(
        note.contains("kubectl patch globalretentionpolicy -n shop p"),
        "{note}"
    );
    let change = &found.patches[1].change;
    assert_eq!(change["spec"], json!({ "backup": null, "prune": null }));
    let kept: Value = serde_json::from_str(text(
        change,
        &format!("/metadata/annotations/{}", SUSPENDED.replace('/', "~1")),
    ))
    .unwrap_or_default();
    assert_eq!(kept["backup"]["schedule"], "x");
    assert_eq!(found.patches[0].change["spec"]["suspend"], false);
}

#[test]
fn nothing_is_stopped_twice_and_nothing_that_is_not_ours_to_stop() {
    let still = json!({ "metadata": { "name": "db", "namespace": "shop" }, "spec": { "paused": true } });
    let mut once = seen("replicationsources.volsync.backube/shop/db", still, "True");
    once.backups[0]["spec"]["suspend"] = json!(false);
    assert!(worked_out(Tool::Volsync, &once).patches.is_empty());
    let other = json!({ "metadata": { "name": "other", "namespace": "shop" }, "spec": {} });
    let found = worked_out(
        Tool::Volsync,
        &seen("replicationsources.volsync.backube/shop/db", other, "True"),
    );
    assert!(found.patches.iter().all(|patch| patch.name != "other"));
    let found = worked_out(
        Tool::Velero,
        &seen("backuprepositories.velero.io/velero/x", json!({}), "True"),
    );
    assert!(found.patches.len() == 1 && found.notes[0].contains("defaultVolumesToFsBackup"));
}

#[test]
fn ours_has_to_be_ready_first() {
    let theirs = json!({ "metadata": { "name": "n", "namespace": "shop" }, "spec": {} });
    let mut seen = seen("cronjobs.batch/shop/n", theirs, "False");
    let found = worked_out(Tool::Cron, &seen);
    assert_eq!(
        found.blocked,
        ["ResticRepository shop/r is not ready: WrongPassword: m"]
    );
    seen.repositories[0]["status"] = json!({});
    assert!(worked_out(Tool::Cron, &seen).blocked[0].contains("no condition Ready"));
    seen.repositories[0]["status"] = json!({ "conditions": [{ "type": "Ready", "status": "True" }] });
    assert!(worked_out(Tool::Cron, &seen).blocked[0].contains("not opened by our operator"));
}

#[test]
fn what_was_carried_over_in_part_or_has_no_backup_of_ours_goes_on() {
    let theirs = json!({ "metadata": { "name": "n", "namespace": "shop" }, "spec": { "jobTemplate": { "spec": { "template": {
        "spec": { "containers": [{ "image": "restic", "args": ["backup", "/data"] }] } } } } } });
    let source = "cronjobs.batch/shop/n";
    let whole = seen(source, theirs.clone(), "True");
    assert!(
        worked_out(Tool::Cron, &whole)
            .patches
            .iter()
            .any(|patch| patch.resource == cron::RESOURCE)
    );
    let mut none = seen(source, theirs.clone(), "True");
    none.backups[0]["metadata"]["annotations"] = json!({});
    let mut part = seen(source, theirs, "True");
    part.backups[0]["metadata"]["annotations"] = json!({ IN_PART: source });
    for (seen, said) in [
        (none, "no ResticBackup takes the place"),
        (part, "in part only, and goes on"),
    ] {
        let found = worked_out(Tool::Cron, &seen);
        assert!(
            found.patches.iter().all(|patch| patch.resource != cron::RESOURCE),
            "{:?}",
            found.patches
        );
        let named = |note: &String| note.contains("cronjobs.batch shop/n") && note.contains(said);
        assert!(found.notes.iter().any(named), "{:?}", found.notes);
    }
}

#[test]
fn retention_is_never_started() {
    for tool in [
        Tool::Original,
        Tool::K8up,
        Tool::Volsync,
        Tool::Velero,
        Tool::Cron,
    ] {
        let mut seen = seen("cronjobs.batch/shop/n", json!({}), "True");
        seen.policies[0]["spec"]["policies"] = json!([{ "selector": { "hostname": "a" } }]);
        let found = worked_out(tool, &seen);
        let of_policies = found
            .patches
            .iter()
            .filter(|patch| patch.resource.contains("retention"));
        let changes: Vec<&Value> = of_policies.map(|patch| &patch.change["spec"]).collect();
        assert!(
            changes.iter().all(|spec| spec.get("suspend").is_none()),
            "{changes:?}"
        );
        assert_eq!(
            changes.len(),
            usize::from(tool == Tool::Original),
            "only the groups of the original's rules"
        );
        assert!(
            found
                .notes
                .iter()
                .any(|note| note.contains("GlobalRetentionPolicy shop/p stays suspended"))
        );
    }
}

#[test]
fn only_what_a_migration_made_is_of_it() {
    assert!(is_of(Tool::K8up, &ours("ResticBackup", "b", "", "True")));
    assert!(!is_of(Tool::Cron, &ours("ResticBackup", "b", "", "True")));
    let suspended = json!({ "metadata": { "annotations": { FROM: "original" } } });
    assert!(is_of(Tool::Original, &suspended) && !is_of(Tool::Original, &json!({})));
    assert!(sources(&ours("x", "y", "a/b", "True")).is_empty());
}

#[test]
fn a_backup_of_ours_that_is_not_ready_or_never_worked_blocks() {
    let theirs = json!({ "metadata": { "name": "n", "namespace": "shop" }, "spec": {} });
    let mut seen = seen("cronjobs.batch/shop/n", theirs, "True");
    seen.backups[0]["status"]["conditions"][0]["status"] = json!("False");
    assert_eq!(
        worked_out(Tool::Cron, &seen).blocked,
        ["ResticBackup shop/b is not ready: WrongPassword: m"]
    );
    seen.backups[0]["status"]["conditions"][0]["status"] = json!("True");
    seen.backups[0]["status"]["lastSuccessfulBackup"] = json!(null);
    let blocked = worked_out(Tool::Cron, &seen).blocked;
    assert_eq!(blocked.len(), 1, "{blocked:?}");
    assert!(
        blocked[0].contains("ResticBackup shop/b has not made a backup yet")
            && blocked[0].contains("kubectl annotate rb b -n shop backup.resticbackup.io/run=")
            && blocked[0].contains("--untried"),
        "{blocked:?}"
    );
    assert!(steps(Tool::Cron, &seen, true).blocked.is_empty());
}

#[test]
fn what_our_operator_has_not_checked_since_its_last_change_blocks() {
    let theirs = json!({ "metadata": { "name": "n", "namespace": "shop" }, "spec": {} });
    let good = seen("cronjobs.batch/shop/n", theirs, "True");
    for of_repository in [true, false] {
        let mut seen = Seen {
            repositories: good.repositories.clone(),
            backups: good.backups.clone(),
            ..Seen::default()
        };
        let changed = match of_repository {
            true => &mut seen.repositories[0],
            false => &mut seen.backups[0],
        };
        changed["metadata"]["generation"] = json!(3);
        changed["status"]["observedGeneration"] = json!(2);
        let blocked = worked_out(Tool::Cron, &seen).blocked;
        assert!(
            blocked.len() == 1 && blocked[0].contains("was changed since our operator looked at it"),
            "{blocked:?}"
        );
        for object in seen.repositories.iter_mut().chain(&mut seen.backups) {
            object["metadata"]["generation"] = json!(3);
            object["status"]["observedGeneration"] = json!(3);
        }
        assert!(worked_out(Tool::Cron, &seen).blocked.is_empty());
    }
}

#[test]
fn what_stands_still_already_is_named_where_finish_is_blocked() {
    let still = json!({ "metadata": { "name": "n", "namespace": "shop" }, "spec": { "suspend": true } });
    let mut seen = seen("cronjobs.batch/shop/n", still, "False");
    let found = worked_out(Tool::Cron, &seen).refusal("cron");
    assert!(
        found.contains("stand still already: cronjobs.batch shop/n:\n  ResticRepository shop/r is not ready"),
        "{found}"
    );
    seen.theirs[0]["spec"]["suspend"] = json!(false);
    let found = worked_out(Tool::Cron, &seen).refusal("cron");
    assert!(
        found.contains("nothing was changed, and cron goes on:\n"),
        "{found}"
    );
}

#[test]
fn what_an_earlier_finish_took_out_of_a_schedule_stays_in_its_annotation() {
    let theirs = json!({
        "metadata": { "name": "nightly", "namespace": "shop", "annotations": { SUSPENDED: json!({ "prune": { "schedule": "y" } }).to_string() } },
        "spec": { "backend": {}, "backup": { "schedule": "x" } },
    });
    let found = worked_out(
        Tool::K8up,
        &seen("schedules.k8up.io/shop/nightly", theirs, "True"),
    );
    let stopped = found
        .patches
        .iter()
        .find(|patch| patch.resource == k8up::RESOURCE);
    let kept = stopped.and_then(|patch| patch.change["metadata"]["annotations"][SUSPENDED].as_str());
    let kept: Value = serde_json::from_str(kept.unwrap_or_default()).unwrap_or_default();
    assert_eq!(
        kept,
        json!({ "backup": { "schedule": "x" }, "prune": { "schedule": "y" } })
    );
}

#[test]
fn what_has_a_volume_that_ours_does_not_back_up_goes_on() {
    let theirs = json!({ "metadata": { "name": "nightly", "namespace": "shop" },
                         "spec": { "backend": {}, "backup": { "schedule": "x" } } });
    let source = "schedules.k8up.io/shop/nightly";
    let mut seen = seen(source, theirs, "True");
    let stops = |seen: &Seen| {
        let found = worked_out(Tool::K8up, seen);
        let stops = found.patches.iter().any(|patch| patch.resource == k8up::RESOURCE);
        (stops, found.notes.join("\n"))
    };
    assert!(stops(&seen).0);
    seen.missing = vec![ours("ResticBackup", "added", source, "True")];
    let (stopped, notes) = stops(&seen);
    assert!(!stopped);
    assert!(
        notes.contains("goes on: ResticBackup shop/added is not there")
            && notes.contains("fleet migrate k8up --apply makes it"),
        "{notes}"
    );
    seen.missing = vec![ours(
        "ResticBackup",
        "added",
        "schedules.k8up.io/shop/other",
        "True",
    )];
    assert!(stops(&seen).0, "another Schedule's");
    seen.left.insert(source.to_owned());
    let (stopped, notes) = stops(&seen);
    assert!(!stopped && notes.contains("in part only, and goes on"), "{notes}");
}

#[test]
fn what_was_added_after_k8up_was_stopped_is_named_and_nothing_is_said_to_go_on() {
    let kept = json!({ "backup": { "schedule": "x" } }).to_string();
    let theirs = json!({ "metadata": { "name": "nightly", "namespace": "shop", "annotations": { SUSPENDED: kept } },
                         "spec": { "backend": {} } });
    let source = "schedules.k8up.io/shop/nightly";
    let mut seen = seen(source, theirs, "True");
    seen.missing = vec![ours("ResticBackup", "added", source, "True")];
    let found = worked_out(Tool::K8up, &seen);
    let notes = found.notes.join("\n");
    assert!(
        notes.contains("schedules.k8up.io shop/nightly stands still, and ResticBackup shop/added is not there: nothing backs")
            && !notes.contains("goes on"),
        "{notes}"
    );
    assert!(found.patches.iter().all(|patch| patch.resource != k8up::RESOURCE));
}

#[test]
fn finish_says_how_to_find_what_no_backup_covers() {
    let theirs = json!({ "metadata": { "name": "nightly", "namespace": "shop" },
                         "spec": { "backend": {}, "backup": { "schedule": "x" } } });
    let found = worked_out(
        Tool::K8up,
        &seen("schedules.k8up.io/shop/nightly", theirs, "True"),
    );
    assert!(
        found.notes.iter().any(|note| note.contains("fleet coverage")),
        "{:?}",
        found.notes
    );
}

#[test]
fn what_a_person_has_paused_before_stays_suspended() {
    let source = "replicationsources.volsync.backube/shop/db";
    let still = json!({ "metadata": { "name": "db", "namespace": "shop" }, "spec": { "paused": true } });
    let mut seen = seen(source, still, "True");
    // It never ran, and need not.
    seen.backups[0]["status"]["lastSuccessfulBackup"] = json!(null);
    let found = worked_out(Tool::Volsync, &seen);
    assert!(found.patches.is_empty() && found.blocked.is_empty(), "{found:?}");
    let said = found.notes.iter().any(|note| {
        note.contains("ResticBackup shop/b stays suspended")
            && note.contains("kubectl patch resticbackup -n shop b")
    });
    assert!(said, "{:?}", found.notes);
    // What finish itself has paused is recorded.
    seen.backups[0]["status"]["lastSuccessfulBackup"] = json!("2026-11-20T03:00:00Z");
    seen.theirs[0]["spec"]["paused"] = json!(false);
    let stopped = worked_out(Tool::Volsync, &seen).patches.remove(1).change;
    assert_eq!(stopped["spec"]["paused"], true);
    seen.theirs[0]["spec"]["paused"] = json!(true);
    seen.theirs[0]["metadata"]["annotations"] = stopped["metadata"]["annotations"].clone();
    assert_eq!(worked_out(Tool::Volsync, &seen).patches.len(), 1);
    // Where the tool was removed nothing is known of a pause.
    seen.theirs.clear();
    assert_eq!(worked_out(Tool::Volsync, &seen).patches.len(), 1);
}

#[test]
fn of_velero_a_claim_without_a_backup_is_named_and_a_repository_without_backups_holds_nothing_up() {
    let mut seen = seen("namespaces/shop/shop", json!({}), "True");
    seen.theirs.clear();
    seen.backups[0]["spec"]["repositoryRef"] = json!({ "name": "r" });
    seen.missing = vec![ours("ResticBackup", "added", "namespaces/shop/shop", "True")];
    let mut left = ours("ResticRepository", "old", "namespaces/shop/shop", "False");
    left["metadata"]["namespace"] = json!("velero");
    seen.repositories.push(left);
    let found = worked_out(Tool::Velero, &seen);
    assert!(found.blocked.is_empty(), "{:?}", found.blocked);
    assert_eq!(found.patches.len(), 1);
    let notes = found.notes.join("\n");
    for said in [
        "ResticBackup shop/added is not there",
        "fleet migrate velero --apply makes it",
        "ResticRepository velero/old is not ready: WrongPassword: m; no backup of ours stores there",
        "fleet coverage",
    ] {
        assert!(notes.contains(said), "{said}: {notes}");
    }
    // The one in which ours store does.
    seen.repositories[0]["status"]["conditions"][0]["status"] = json!("False");
    assert_eq!(
        worked_out(Tool::Velero, &seen).blocked,
        ["ResticRepository shop/r is not ready: WrongPassword: m"]
    );
}
