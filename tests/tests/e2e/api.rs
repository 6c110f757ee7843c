//! What a person or a tool meets at the API: refusals, waiting, tables, Events, applying again, and rights.

use serde_json::{Value, json};

use crate::support::{Place, SOON, condition, s3};

#[path = "api/afterwards.rs"]
mod afterwards;

#[test]
#[ignore = "needs clusters: make test"]
fn a_schedule_that_no_cron_job_could_have_is_refused_with_what_to_write() {
    let place = Place::new("a", "schedules");
    let with = |schedule: &str, zone: &str| {
        let more = json!({ "schedule": schedule, "timezone": zone, "suspend": true });
        place.try_apply(&[place.backup("b", json!({ "name": "none" }), more)])
    };
    for schedule in [
        "0 3 * * 7",
        "61 * * * *",
        "0 3 * *",
        "0 22-6 * * *",
        "TZ=UTC 0 3 * * *",
        "@reboot",
        "@every 1d",
        "0 0 * jan-foo *",
    ] {
        let error = with(schedule, "UTC").unwrap_err().to_string();
        assert!(error.contains("write five cron fields"), "{schedule}: {error}");
    }
    for zone in ["Mars/Olympus", "europe/berlin", "Local", "+01:00"] {
        let error = with("0 3 * * *", zone).unwrap_err().to_string();
        assert!(
            error.contains("must be the name of an IANA time zone"),
            "{zone}: {error}"
        );
    }
    // What is taken is taken by the CronJob too.
    place.apply(&[place.repository("nas", &s3(0, "schedules"))]);
    place.until_ready("resticrepository/nas");
    for (number, (schedule, zone)) in [
        ("0 3 * * SUN", "Europe/Berlin"),
        ("*/20,5 1-3/2 ? jan-MAR *", "Asia/Kathmandu"),
        ("@every 1h30m", ""),
        ("0 0 * * 0-6/2", "Etc/GMT+5"),
    ]
    .into_iter()
    .enumerate()
    {
        let more = json!({ "schedule": schedule, "timezone": zone, "suspend": true });
        let name = format!("taken-{number}");
        place.apply(&[place.backup(&name, json!({ "name": "nas" }), more)]);
        place.until_ready(&format!("resticbackup/{name}"));
        let cron_job = place.get(&format!("cronjob/resticbackup-{name}"));
        assert_eq!(cron_job["spec"]["schedule"], schedule);
    }
}

#[test]
#[ignore = "needs clusters: make test"]
fn a_restore_that_is_over_ends_a_wait_and_takes_no_change() {
    let place = Place::new("b", "waits");
    place.apply(&[
        place.repository("nas", &s3(0, "waits")),
        place.backup("orders", json!({ "name": "nas" }), json!({})),
    ]);
    place.until_ready("resticbackup/orders");
    let run = place.run("orders", "1");
    let restore = |name: &str, more: Value| {
        let mut spec = json!({ "backupRef": { "name": "orders" }, "target": { "pvc": { "claimName": "data", "path": "back" } } });
        spec.as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        place.apply(&[
            json!({ "apiVersion": "backup.resticbackup.io/v1alpha1", "kind": "ResticRestore",
                              "metadata": { "name": name }, "spec": spec }),
        ]);
    };
    let wait = |name: &str, for_: &str| {
        let limit = format!("--timeout={}s", SOON.as_secs());
        place.kubectl(&[
            "wait",
            &format!("--for=condition={for_}"),
            &limit,
            &format!("resticrestore/{name}"),
        ])
    };
    restore("good", json!({}));
    wait("good", "Complete").unwrap();
    restore("bad", json!({ "snapshotID": "00000000" }));
    wait("bad", "Failed").unwrap();
    assert_eq!(
        condition(&place.get("resticrestore/bad"), "Complete"),
        Value::Null
    );
    assert_eq!(condition(&place.get("resticrestore/good"), "Failed"), Value::Null);
    for name in ["good", "bad"] {
        let object = format!("resticrestore/{name}");
        let change = json!({ "spec": { "includePaths": ["/small"] } }).to_string();
        let refused = place
            .kubectl(&["patch", &object, "--type=merge", "-p", &change])
            .unwrap_err();
        assert!(
            refused
                .to_string()
                .contains("is not run again: create another ResticRestore"),
            "{refused:#}"
        );
        // Labels are no part of it.
        place.kubectl(&["label", &object, "seen=yes"]).unwrap();
    }
    // No node has this label, so the pod of this one never runs.
    restore(
        "begun",
        json!({ "jobConfig": { "nodeSelector": { "none": "such" } } }),
    );
    place.until("resticrestore/begun", "InProgress", |it| {
        it["status"]["phase"] == "InProgress"
    });
    let patch = |spec: Value| {
        let change = json!({ "spec": spec }).to_string();
        place.kubectl(&["patch", "resticrestore/begun", "--type=merge", "-p", &change])
    };
    let refused = patch(json!({ "target": { "pvc": { "path": "elsewhere" } } })).unwrap_err();
    assert!(
        refused
            .to_string()
            .contains("this restore has begun (InProgress)"),
        "{refused:#}"
    );
    patch(json!({ "ttlSecondsAfterFinished": 60 })).unwrap();
    let table = place.kubectl(&["get", "rres"]).unwrap();
    let id = run["snapshotID"].as_str().unwrap();
    assert!(table.contains(&id[..8]) && !table.contains(&id[..9]), "{table}");
    assert!(
        table.contains("RestoreCompleted") && table.contains("SnapshotNotFound"),
        "{table}"
    );
    let table = place.kubectl(&["get", "rb"]).unwrap();
    for column in ["LAST SUCCESS", "RUNNING", "REASON", "FAILURE"] {
        assert!(table.contains(column), "{table}");
    }
}

#[test]
#[ignore = "needs clusters: make test"]
fn a_first_apply_warns_of_nothing_and_each_event_has_its_own_text() {
    let place = Place::new("a", "events");
    place.apply(&[
        place.backup("orders", json!({ "name": "nas" }), json!({})),
        place.repository("nas", &s3(0, "events")),
    ]);
    place.until_ready("resticbackup/orders");
    place.run("orders", "1");
    let events = |object: &str, type_: &str| -> Vec<String> {
        let text = place
            .kubectl(&["get", "events.events.k8s.io", "-o", "json"])
            .unwrap();
        let list: Value = serde_json::from_str(&text).unwrap();
        let of = |event: &&Value| {
            event["regarding"]["name"] == object
                && event["type"] == type_
                && event["reportingController"] == "restic-fleet-spoke"
        };
        list["items"]
            .as_array()
            .unwrap()
            .iter()
            .filter(of)
            .map(|event| event["note"].as_str().unwrap().to_owned())
            .collect()
    };
    assert_eq!(events("orders", "Warning"), Vec::<String>::new());
    assert_eq!(events("nas", "Warning"), Vec::<String>::new());
    // Two runs within a minute: each has an Event that names its Job.
    let jobs: Vec<String> = ["2", "3"]
        .iter()
        .map(|n| place.run("orders", n)["job"].as_str().unwrap().to_owned())
        .collect();
    place.until("resticbackup/orders", "an Event for each run", |_| {
        let notes = events("orders", "Normal");
        jobs.iter()
            .all(|job| notes.iter().any(|note| note.starts_with(job.as_str())))
    });
    // The cause of a repository that fails is told on what waits for it.
    place.apply(&[place.secret("storage", "wrong horse")]);
    place.until("resticbackup/orders", "a Warning with the cause", |_| {
        events("orders", "Warning")
            .iter()
            .any(|note| note.contains("WrongPassword"))
    });
}

#[test]
#[ignore = "needs clusters: make test"]
fn applying_the_same_twice_changes_nothing() {
    let place = Place::new("b", "drift");
    let objects = [
        place.repository("nas", &s3(0, "drift")),
        place.backup(
            "orders",
            json!({ "name": "nas" }),
            json!({ "jobConfig": { "resources": { "limits": { "cpu": "0.5", "memory": "1024Mi" } } } }),
        ),
        json!({ "apiVersion": "backup.resticbackup.io/v1alpha1", "kind": "GlobalRetentionPolicy", "metadata": { "name": "weekly" },
                "spec": { "repositoryRef": { "name": "nas" }, "schedule": "@weekly", "policies": [{ "selector": {}, "retention": { "keepLast": 3 } }] } }),
        json!({ "apiVersion": "backup.resticbackup.io/v1alpha1", "kind": "ResticRestore", "metadata": { "name": "early" },
                "spec": { "backupRef": { "name": "later" }, "target": { "pvc": { "claimName": "data" } } } }),
    ];
    let file = std::env::temp_dir().join(format!("drift-{}.json", std::process::id()));
    let placed = objects.iter().map(|object| {
        let mut object = object.clone();
        object["metadata"]["namespace"] = json!("drift");
        object.to_string()
    });
    std::fs::write(&file, placed.collect::<Vec<_>>().join("\n---\n")).unwrap();
    let path = file.to_str().unwrap();
    let apply = || {
        place
            .kubectl(&["apply", "--server-side", "--field-manager=gitops", "-f", path])
            .unwrap()
    };
    apply();
    let names = [
        "resticrepository/nas",
        "resticbackup/orders",
        "globalretentionpolicy/weekly",
    ];
    for name in names {
        place.until_ready(name);
    }
    let generations = || {
        names.map(|name| {
            (
                place.get(name)["metadata"]["generation"].clone(),
                place.get(name)["spec"].clone(),
            )
        })
    };
    let before = generations();
    apply();
    assert_eq!(before, generations());
    // It ends with 1 where there is a difference.
    place
        .kubectl(&["diff", "--server-side", "--field-manager=gitops", "-f", path])
        .unwrap();
    std::fs::remove_file(&file).ok();
    for name in names {
        // kstatus: as far along as the spec, and nothing in the way.
        let object = place.until(name, "the present generation", |o| {
            o["status"]["observedGeneration"] == o["metadata"]["generation"]
        });
        assert_eq!(condition(&object, "Ready")["status"], "True");
    }
}

#[test]
#[ignore = "needs clusters: make test"]
fn a_field_that_does_nothing_says_so_in_a_condition() {
    let place = Place::new("a", "ineffective");
    let policy = json!({ "apiVersion": "backup.resticbackup.io/v1alpha1", "kind": "GlobalRetentionPolicy",
        "metadata": { "name": "nightly" },
        "spec": { "repositoryRef": { "name": "nas" }, "schedule": "@yearly", "jobConfig": { "backoffLimit": 2 },
                  "policies": [{ "selector": {}, "retention": { "keepDaily": 7 } }] } });
    place.apply(&[place.repository("nas", &s3(0, "ineffective")), policy]);
    let object = place.until("globalretentionpolicy/nightly", "NotInEffect", |o| {
        condition(o, "NotInEffect")["status"] == "True"
    });
    assert_eq!(
        condition(&object, "NotInEffect")["message"],
        "does not apply to this kind, and is ignored: spec.jobConfig.backoffLimit"
    );
    let patch = r#"{"spec":{"jobConfig":null}}"#;
    place
        .kubectl(&["patch", "grp/nightly", "--type=merge", "-p", patch])
        .unwrap();
    place.until("globalretentionpolicy/nightly", "no NotInEffect", |o| {
        condition(o, "NotInEffect").is_null()
    });
}

#[test]
#[ignore = "needs clusters: make test"]
fn the_rights_of_people_are_those_of_kubernetes_own_roles() {
    let place = Place::new("a", "people");
    for role in ["view", "edit", "admin"] {
        let binding = format!("{role}s");
        place
            .kubectl(&[
                "create",
                "rolebinding",
                &binding,
                &format!("--clusterrole={role}"),
                &format!("--user={role}"),
            ])
            .unwrap();
    }
    let may = |user: &str, verb: &str, kind: &str| {
        let (kind, sub) = kind.split_once('/').unwrap_or((kind, ""));
        let (user, sub) = (format!("--as={user}"), format!("--subresource={sub}"));
        let answer = place.kubectl(&["auth", "can-i", verb, kind, &user, &sub]);
        answer.is_ok_and(|answer| answer.trim() == "yes")
    };
    for kind in [
        "resticrepositories",
        "resticbackups",
        "resticrestores",
        "globalretentionpolicies",
    ] {
        assert!(may("view", "list", kind) && !may("view", "patch", kind), "{kind}");
        assert!(may("admin", "delete", kind), "{kind}");
    }
    assert!(may("edit", "create", "resticrestores") && may("edit", "patch", "resticbackups"));
    assert!(
        !may("edit", "patch", "globalretentionpolicies"),
        "that would approve plans"
    );
    assert!(!may("edit", "create", "resticrepositories"));
    assert!(!may("admin", "patch", "resticbackups/status"));
}
