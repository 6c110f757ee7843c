//! Turns of restores with options, and what becomes of their Jobs.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::json;

use super::plan_tests::{answered, chosen, existing, job, observed, started, table};
use super::*;
use crate::kind::Removal;
use crate::kind::table::{at, condition, forbidden, repository};
use crate::world::{JobEnd, PodView, Termination};

#[test]
fn the_job_of_a_restore_that_is_over_goes_after_its_time() {
    let over = |ttl: Option<i32>, seconds: i64, open: bool| {
        let mut table = started(existing());
        table.resource.spec.ttl_seconds_after_finished = ttl;
        let status = table.resource.status.as_mut().unwrap();
        status.phase = Some(RestorePhase::Failed);
        status.completion_time = Some(Time(table.now.wall));
        status.open_hooks = if open {
            vec![serde_json::from_value(json!({ "job": "resticrestore-back", "uid": "other" })).unwrap()]
        } else {
            Vec::new()
        };
        let mut run = job().unwrap();
        Arc::make_mut(&mut run.job).end = Some((Some(table.now.wall), JobEnd::Complete));
        let ended = table.now.wall;
        table.now = at(ended.as_second() + seconds);
        let plan = table.plan(&Observed {
            job: Some(run),
            ..observed()
        });
        let removed = matches!(plan.children.removals.as_slice(), [Removal::Job { uid, .. }] if uid == "job");
        (
            removed,
            plan.next.map(|next| next.as_second() - ended.as_second()),
        )
    };
    assert_eq!(over(Some(60), 59, false), (false, Some(60)));
    assert_eq!(over(Some(60), 60, false), (true, None));
    assert_eq!(over(Some(0), 0, false), (true, None));
    assert_eq!(
        over(None, 1_000_000, false),
        (false, None),
        "it stays unless told to go"
    );
    assert!(
        !over(Some(60), 99, true).0,
        "its hooks are not known to have ended"
    );
}

#[test]
fn an_empty_snapshot_deletes_nothing() {
    for (files, delete, refused) in [
        (Some(0), true, true),
        (Some(0), false, false),
        (Some(1), true, false),
        (None, true, false),
    ] {
        let mut table = table(json!({ "pvc": { "claimName": "data", "path": "in" } }));
        let chosen = Chosen {
            id: "ab".repeat(32),
            folder: "",
            paths: vec!["/".to_owned()],
            excludes: Vec::new(),
            of_backup: false,
            files,
            bytes: None,
        };
        table.found = answered(Answer::Chosen(Ok(chosen)));
        table.resource.spec.options = serde_json::from_value(json!({ "delete": delete })).unwrap();
        let plan = table.plan(&observed());
        assert_eq!(plan.children.job.is_none(), refused, "{files:?}");
        let failed = condition(&plan.status.conditions, "Ready").0 == "False/SnapshotEmpty";
        assert_eq!(failed, refused, "{files:?}");
    }
}

#[test]
fn a_snapshot_of_parts_deletes_nothing_else() {
    for (paths, delete, refused) in [
        (["/backup/a"].as_slice(), true, true),
        (&["/backup/a"], false, false),
        (&[], true, true),
        (&["/backup"], true, false),
    ] {
        let mut table = table(json!({ "pvc": { "claimName": "data", "path": "in" } }));
        table.found = answered(Answer::Chosen(Ok(Chosen {
            id: "ab".repeat(32),
            folder: "/backup",
            paths: paths.iter().map(|&path| path.to_owned()).collect(),
            excludes: Vec::new(),
            of_backup: false,
            files: Some(1),
            bytes: None,
        })));
        table.resource.spec.options = serde_json::from_value(json!({ "delete": delete })).unwrap();
        let plan = table.plan(&observed());
        assert_eq!(plan.children.job.is_none(), refused, "{paths:?}");
        let failed = condition(&plan.status.conditions, "Ready").0 == "False/SnapshotPartial";
        assert_eq!(failed, refused, "{paths:?}");
    }
}

#[test]
fn what_is_known_of_the_backup_refuses_a_deletion() {
    let pvc = json!({ "pvc": { "claimName": "d" } });
    let pod = json!({ "podVolumeBackup": { "selector": {}, "volumeName": "v", "container": "c" } });
    for (source, extra, excludes, refused) in [
        (&pvc, None, None, false),
        (&pvc, None, Some("*.log"), true),
        (&pvc, Some("--exclude-caches"), None, true),
        (&pod, None, None, true),
    ] {
        let mut table = existing();
        table.resource.spec = serde_json::from_value(json!({
            "backupRef": { "name": "orders" }, "snapshotID": "abcd", "options": { "delete": true },
            "target": { "pvc": { "claimName": "data" } },
        }))
        .unwrap();
        let extra: Vec<&str> = extra.into_iter().collect();
        let backup = json!({
            "apiVersion": "backup.resticbackup.io/v1alpha1", "kind": "ResticBackup", "metadata": { "name": "orders" },
            "spec": { "repositoryRef": { "name": "nas" }, "schedule": "@daily", "source": source,
                      "restic": { "extraArgs": extra } },
        });
        let observed = Observed {
            backup: Some(Arc::new(serde_json::from_value(backup).unwrap())),
            ..observed()
        };
        let Work::Select(asked) = table.plan(&observed).work[0].work.clone();
        let answer = Answer::Chosen(Ok(Chosen {
            id: "ab".repeat(32),
            folder: "/backup",
            paths: vec!["/backup".to_owned()],
            excludes: excludes.into_iter().map(str::to_owned).collect(),
            of_backup: true,
            files: Some(1),
            bytes: None,
        }));
        table.found = vec![Found { asked, answer }];
        let plan = table.plan(&observed);
        assert_eq!(plan.children.job.is_none(), refused, "{source} {extra:?}");
        let failed = condition(&plan.status.conditions, "Ready").0 == "False/SnapshotPartial";
        assert_eq!(failed, refused, "{source} {extra:?}");
        table.resource.spec.options = None;
        assert!(table.plan(&observed).children.job.is_some(), "nothing is deleted");
    }
}

/// The Job has ended well, with this note of what it was made for.
fn previewed(asked: Option<&str>) -> Observed {
    ended(asked, &json!({ "exitCode": 0, "summary": { "total_files": 1 } }))
}

fn ended(asked: Option<&str>, message: &serde_json::Value) -> Observed {
    let mut run = job().unwrap();
    let job = Arc::make_mut(&mut run.job);
    job.end = Some((Some(at(100).wall), JobEnd::Complete));
    job.asked = asked.map(Into::into);
    let view = PodView {
        phase: "Succeeded".into(),
        restic: Some(Termination {
            exit_code: 0,
            reason: "Completed".into(),
            message: message.to_string().into(),
            started: None,
            finished: None,
        }),
        ..PodView::default()
    };
    run.pods = vec![(Key::new("ns", "pod"), Arc::new(view))];
    Observed {
        job: Some(run),
        ..observed()
    }
}

#[test]
fn a_status_tells_what_its_job_was_made_for_and_not_what_the_spec_says_since() {
    let mut table = existing();
    table.found = chosen();
    table.resource.spec.options = serde_json::from_value(json!({ "dryRun": true })).unwrap();
    let job = table.plan(&observed()).children.job.unwrap();
    let noted = job.metadata.annotations.unwrap()[names::ANNOTATION_ASKED].clone();
    table.found.clear();
    for options in [json!({}), json!({ "delete": true, "overwrite": false })] {
        table.resource.spec.options = serde_json::from_value(options).unwrap();
        let reason = |asked| condition(&table.plan(&previewed(asked)).status.conditions, "Ready").0;
        assert_eq!(reason(Some(&noted)), "True/RestorePreviewed");
        assert_eq!(reason(None), "True/RestoreCompleted");
    }
}

/// The files are named in its log alone.
#[test]
fn the_pod_of_a_preview_stays_for_its_log() {
    for (asked, stays) in [(r#"{"dryRun":true}"#, true), ("{}", false)] {
        let mut table = started(existing());
        table.now = at(200);
        let observed = previewed(Some(asked));
        table.resource.status = Some(table.plan(&observed).status);
        let plan = table.plan(&observed);
        assert_eq!(plan.children.finished.is_empty(), stays, "{asked}");
    }
}

#[test]
fn what_a_restore_lacks_outlasts_the_end_of_its_hooks() {
    let mut table = started(existing());
    let hook = json!({ "postRestore": { "exec": { "podSelector": { "matchLabels": { "a": "b" } }, "command": ["true"] } } });
    table.resource.spec.hooks = serde_json::from_value(hook).unwrap();
    let message = json!({ "exitCode": 0, "summary": { "total_files": 1 }, "errors": 1,
                          "unset": { "files": 1, "names": ["owner"] } });
    let observed = ended(None, &message);
    for _ in 0..2 {
        let status = table.plan(&observed).status;
        assert_eq!(status.phase, Some(RestorePhase::Completed));
        let (degraded, text) = condition(&status.conditions, "Degraded");
        assert_eq!(degraded, "True/AttributesNotRestored", "{text}");
        assert!(text.contains("owner"), "{text}");
        table.resource.status = Some(status);
    }
}

#[test]
fn nothing_is_deleted_by_a_repository_with_damage() {
    for (options, waits) in [
        (json!({ "delete": true }), true),
        (json!({ "delete": true, "dryRun": true }), false),
        (json!({}), false),
    ] {
        let mut table = table(json!({ "pvc": { "claimName": "data", "path": "in" } }));
        table.found = chosen();
        table.resource.spec.options = serde_json::from_value(options.clone()).unwrap();
        let mut damaged = repository().as_ref().clone();
        let status = damaged.status.as_mut().unwrap();
        let now = table.now.wall;
        conditions::Conditions::at(&mut status.conditions, None, now).set(
            types::DEGRADED,
            true,
            reasons::REPOSITORY_DAMAGED,
            "pack 1 is lost",
        );
        let damaged = Observed {
            repository: Some(Arc::new(damaged)),
            ..observed()
        };
        let plan = table.plan(&damaged);
        assert_eq!(plan.children.job.is_none(), waits, "{options}");
        let (ready, message) = condition(&plan.status.conditions, "Ready");
        assert_eq!(ready == "False/RepositoryDamaged", waits, "{ready} {message}");
        assert_eq!(message.contains("pack 1 is lost"), waits, "{message}");
    }
}

#[test]
fn a_claim_without_a_size_waits_where_that_of_the_snapshot_is_not_known() {
    let mut table = table(json!({ "newPVC": { "name": "fresh" } }));
    let known = |bytes| {
        answered(Answer::Chosen(Ok(Chosen {
            id: "ab".repeat(32),
            folder: "",
            paths: vec!["/".to_owned()],
            excludes: Vec::new(),
            of_backup: false,
            files: bytes,
            bytes,
        })))
    };
    let observed = Observed {
        claim: None,
        ..observed()
    };
    table.found = known(Some(1));
    let claim = table.plan(&observed).children.claim.unwrap();
    assert_eq!(
        claim.spec.unwrap().resources.unwrap().requests.unwrap()["storage"].0,
        "1Gi"
    );
    table.found = known(None);
    let plan = table.plan(&observed);
    assert!(plan.children.claim.is_none() && plan.children.job.is_none());
    let (ready, message) = condition(&plan.status.conditions, "Ready");
    assert!(
        ready == "False/InvalidSpec" && message.contains("newPVC.size"),
        "{message}"
    );
    // A preview needs no claim.
    table.resource.spec.options = serde_json::from_value(json!({ "dryRun": true })).unwrap();
    let children = table.plan(&observed).children;
    assert!(children.claim.is_none() && children.job.is_some());
    let job = Observed {
        job: job(),
        ..observed
    };
    assert!(
        table.plan(&job).children.removals.is_empty(),
        "no claim is missing"
    );
}

#[test]
fn the_reasons_of_the_original_are_used() {
    let mut seen = std::collections::BTreeSet::new();
    let mut see = |status: &ResticRestoreStatus| {
        seen.extend(status.conditions.iter().map(|condition| condition.reason.clone()));
    };
    let mut lost = existing();
    see(&lost
        .plan(&Observed {
            repository: None,
            ..observed()
        })
        .status);
    let mut unready = repository().as_ref().clone();
    unready.status = None;
    let unready = Observed {
        repository: Some(Arc::new(unready)),
        ..observed()
    };
    see(&lost.plan(&unready).status);
    lost.resource.spec.repository_ref = None;
    lost.resource.spec.backup_ref = serde_json::from_value(json!({ "name": "orders" })).unwrap();
    see(&lost
        .plan(&Observed {
            at: None,
            ..observed()
        })
        .status);
    let mut refused = existing();
    refused.found = chosen();
    see(&refused
        .settle(&observed(), Some(("Job", forbidden("quota"))))
        .status);
    see(&refused.settle(&observed(), None).status);
    let at_work = started(existing());
    see(&at_work.plan(&observed()).status);
    let mut run = job().unwrap();
    Arc::make_mut(&mut run.job).end = Some((Some(at_work.now.wall), JobEnd::Complete));
    let mut end = |exit: i32| {
        let message = json!({ "exitCode": exit, "summary": { "total_files": 1 } }).to_string();
        let view = PodView {
            phase: "Succeeded".into(),
            restic: Some(Termination {
                exit_code: exit,
                reason: "Completed".into(),
                message: message.into(),
                started: None,
                finished: None,
            }),
            ..PodView::default()
        };
        run.pods = vec![(Key::new("ns", "pod"), Arc::new(view))];
        at_work
            .plan(&Observed {
                job: Some(run.clone()),
                ..observed()
            })
            .status
    };
    see(&end(0));
    see(&end(1));
    for reason in [
        "BackupNotFound",
        "RepositoryNotFound",
        "RepositoryNotReady",
        "JobCreationFailed",
        "RestoreStarted",
        "RestoreInProgress",
        "JobNotFound",
        "RestoreCompleted",
        "RestoreFailed",
    ] {
        assert!(seen.contains(reason), "{reason} is not among {seen:?}");
    }
}
