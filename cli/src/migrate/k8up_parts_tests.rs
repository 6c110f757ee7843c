#![allow(clippy::unwrap_used)]

//! Schedules whose parts have backends of their own, and Schedules that were finished.

use super::*;
use crate::migrate::fixtures::{of_kind, valid};
use crate::migrate::k8up::{Found, plan};
use crate::migrate::plan::{IN_PART, Plan, SOURCE};
use crate::objects::{at, text};

fn of_bucket(bucket: &str) -> Value {
    let key = |key: &str| json!({ "name": "minio", "key": key });
    json!({
        "repoPasswordSecretRef": { "name": "backup-repo", "key": "password" },
        "s3": { "endpoint": "http://minio:9000", "bucket": bucket, "accessKeyIDSecretRef": key("user"),
                "secretAccessKeySecretRef": key("secret") },
    })
}

fn found(spec: Value) -> Found {
    let claim = json!({ "metadata": { "name": "data", "namespace": "shop" } });
    let schedule =
        json!({ "kind": "Schedule", "metadata": { "name": "nightly", "namespace": "shop" }, "spec": spec });
    Found {
        schedules: vec![schedule],
        claims: vec![claim],
        ..Found::default()
    }
}

/// Names of the repositories of a plan, by the buckets in their URLs.
fn repositories(plan: &Plan) -> Vec<(&str, &str)> {
    let all = of_kind(plan, "ResticRepository").into_iter();
    all.map(|one| {
        let bucket = text(one, "/spec/repositoryURL").rsplit('/').next();
        (bucket.unwrap(), at(one).1)
    })
    .collect()
}

fn notes(plan: &Plan) -> String {
    plan.notes.iter().map(|note| format!("{}\n", note.text)).collect()
}

#[test]
fn each_part_uses_the_repository_that_k8up_uses_for_it() {
    let plan = plan(
        &found(json!({
            "backend": of_bucket("a"),
            // The rest is that of the Schedule.
            "backup": { "schedule": "@daily", "backend": { "s3": { "bucket": "b" } } },
            "prune": { "schedule": "@weekly", "backend": { "s3": { "bucket": "b" } }, "retention": { "keepDaily": 2 } },
            "check": { "schedule": "@weekly" },
        })),
        false,
    );
    valid(&plan);
    assert_eq!(repositories(&plan), [("b", "nightly"), ("a", "nightly-2")]);
    let all = of_kind(&plan, "ResticRepository");
    assert!(all[0]["spec"]["integrityCheck"].is_null());
    assert_eq!(all[1]["spec"]["integrityCheck"]["schedule"], "@weekly");
    for (kind, name) in [("ResticBackup", "nightly"), ("GlobalRetentionPolicy", "nightly")] {
        assert_eq!(
            of_kind(&plan, kind)[0]["spec"]["repositoryRef"]["name"],
            name,
            "{kind}"
        );
    }
    let said = notes(&plan);
    assert!(
        said.contains(
            "its backup, prune has the repository s3:http://minio:9000/b: that is ResticRepository nightly"
        ),
        "{said}"
    );
}

#[test]
fn a_prune_of_another_repository_has_no_rule_for_ours() {
    let plan = plan(
        &found(json!({
            "backup": { "schedule": "@daily", "backend": of_bucket("b") },
            "prune": { "schedule": "@weekly", "backend": of_bucket("old"), "retention": { "keepDaily": 2 } },
        })),
        false,
    );
    valid(&plan);
    assert_eq!(repositories(&plan), [("b", "nightly"), ("old", "nightly-2")]);
    let policy = &of_kind(&plan, "GlobalRetentionPolicy")[0]["spec"];
    assert_eq!(policy["repositoryRef"]["name"], "nightly-2");
    assert_eq!(policy["policies"].as_array().unwrap().len(), 1, "{policy:#}");
    assert_eq!(policy["policies"][0]["selector"], json!({ "hostname": "shop" }));
}

#[test]
fn a_part_whose_backend_is_not_known_is_left() {
    let plan = plan(
        &found(json!({
            "backup": { "schedule": "@daily", "backend": of_bucket("b") },
            "prune": { "schedule": "@weekly" },
        })),
        false,
    );
    assert_eq!(repositories(&plan), [("b", "nightly")]);
    assert!(of_kind(&plan, "GlobalRetentionPolicy").is_empty());
    let backup = of_kind(&plan, "ResticBackup")[0];
    let annotations = &backup["metadata"]["annotations"];
    assert!(annotations[SOURCE].is_null(), "finish must not stop the prune");
    assert_eq!(annotations[IN_PART], "schedules.k8up.io/shop/nightly");
    let said = notes(&plan);
    assert!(said.contains("nothing is made of its prune"), "{said}");
}

#[test]
fn credentials_of_a_part_that_cannot_be_kept_are_named() {
    let mut strong = of_bucket("b");
    strong["s3"]["accessKeyIDSecretRef"]["name"] = json!("may-delete");
    let plan = plan(
        &found(json!({
            "backend": of_bucket("b"),
            "backup": { "schedule": "@daily" },
            "prune": { "schedule": "@weekly", "backend": strong },
        })),
        false,
    );
    assert_eq!(repositories(&plan), [("b", "nightly")]);
    let said = notes(&plan);
    assert!(
        said.contains("its prune has other credentials than its backup"),
        "{said}"
    );
}

#[test]
fn a_schedule_that_was_finished_is_planned_as_before() {
    let spec = json!({
        "backend": of_bucket("b"),
        "backup": { "schedule": "@daily" },
        "check": { "schedule": "@weekly" },
        "prune": { "schedule": "@weekly", "retention": { "keepDaily": 2 } },
    });
    let mut before = found(spec.clone());
    // One that was made by hand, and stored what the Schedule stored.
    before.backups = vec![json!({
        "kind": "Backup", "metadata": { "name": "by-hand", "namespace": "shop" }, "spec": { "backend": of_bucket("b") },
    })];
    let wanted = plan(&before, false);
    let mut after = before.clone();
    let kept = json!({ "backup": spec["backup"], "check": spec["check"], "prune": spec["prune"] });
    after.schedules[0]["metadata"]["annotations"] = json!({ SUSPENDED: kept.to_string() });
    after.schedules[0]["spec"] = json!({ "backend": spec["backend"] });
    assert_eq!(plan(&after, false).objects, wanted.objects);
    // What it was is not known: nothing is changed, and it is not stopped.
    after.schedules[0]["metadata"]["annotations"][SUSPENDED] = json!("{");
    after.backups.clear();
    let unknown = plan(&after, false);
    assert!(unknown.objects.is_empty(), "{:#?}", unknown.objects);
    assert!(unknown.in_part.contains("schedules.k8up.io/shop/nightly"));
    assert!(notes(&unknown).contains("cannot be read"), "{}", notes(&unknown));
}

#[test]
fn a_part_is_laid_over_the_defaults_of_its_schedule_field_by_field() {
    let default = json!({ "s3": { "endpoint": "e", "bucket": "a" }, "repoPasswordSecretRef": { "name": "r", "key": "k" } });
    let part = json!({ "s3": { "bucket": "b", "endpoint": "" }, "repoPasswordSecretRef": null });
    let wanted = json!({ "s3": { "endpoint": "e", "bucket": "b" }, "repoPasswordSecretRef": { "name": "r", "key": "k" } });
    assert_eq!(over(Some(&part), Some(&default)), wanted);
    assert_eq!(over(None, Some(&default)), default);
    assert_eq!(over(Some(&part), None), part);
    assert_eq!(over(None, None), Value::Null);
}

#[test]
fn what_finish_took_out_is_read_back_and_what_is_there_counts() {
    let of = |kept: &str| json!({ "metadata": { "annotations": { SUSPENDED: kept } }, "spec": { "prune": { "schedule": "new" } } });
    let kept = json!({ "backup": { "schedule": "x" }, "prune": { "schedule": "old" }, "backend": {} });
    let before = before_finish(&of(&kept.to_string())).unwrap_or_default();
    assert_eq!(
        before["spec"],
        json!({ "backup": { "schedule": "x" }, "prune": { "schedule": "new" } })
    );
    for unreadable in ["", "{", "[]"] {
        assert!(before_finish(&of(unreadable)).is_err(), "{unreadable:?}");
    }
}
