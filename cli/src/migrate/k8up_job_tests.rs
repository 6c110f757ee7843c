#![allow(clippy::unwrap_used)]

use super::*;
use crate::migrate::fixtures::{of_kind, valid};
use crate::migrate::k8up::{Found, plan};

fn found(spec: Value) -> Found {
    let key = |key: &str| json!({ "name": "minio", "key": key });
    let mut all = json!({
        "backend": {
            "repoPasswordSecretRef": { "name": "backup-repo", "key": "password" },
            "s3": { "endpoint": "http://minio:9000", "bucket": "b", "accessKeyIDSecretRef": key("user"),
                    "secretAccessKeySecretRef": key("secret") },
        },
    });
    all.as_object_mut()
        .unwrap()
        .extend(spec.as_object().unwrap().clone());
    let pod = json!({
        "metadata": { "name": "db", "namespace": "shop", "labels": { "app": "db" },
                      "annotations": { "k8up.io/backupcommand": "dump" } },
        "spec": { "containers": [{ "name": "db" }] },
    });
    Found {
        schedules: vec![
            json!({ "kind": "Schedule", "metadata": { "name": "nightly", "namespace": "shop" }, "spec": all }),
        ],
        claims: vec![json!({ "metadata": { "name": "data", "namespace": "shop" } })],
        pods: vec![pod],
        ..Found::default()
    }
}

fn notes(plan: &Plan) -> String {
    plan.notes
        .iter()
        .map(|note| format!("{}: {}\n", note.about, note.text))
        .collect()
}

#[test]
fn how_pods_are_run_is_carried_over() {
    let plan = plan(
        &found(json!({
            "podSecurityContext": { "runAsUser": 999, "fsGroup": 5 },
            "resourceRequirementsTemplate": { "limits": { "memory": "1Gi", "cpu": "1" } },
            "keepJobs": 4,
            "backup": { "schedule": "@daily", "podSecurityContext": { "fsGroup": 7 }, "activeDeadlineSeconds": 600,
                        "resources": { "limits": { "memory": "2Gi" } }, "failedJobsHistoryLimit": 1 },
            "prune": { "schedule": "@weekly", "resources": { "limits": { "memory": "3Gi" } }, "activeDeadlineSeconds": 700 },
        })),
        false,
    );
    valid(&plan);
    let backups = of_kind(&plan, "ResticBackup");
    let limits = json!({ "limits": { "memory": "2Gi", "cpu": "1" } });
    let of_dump = json!({ "resources": limits, "activeDeadlineSeconds": 600, "failedJobsHistoryLimit": 1,
                          "successfulJobsHistoryLimit": 4 });
    let mut of_claim = of_dump.clone();
    of_claim["securityContext"] = json!({ "runAsUser": 999, "fsGroup": 7 });
    assert_eq!(backups[0]["spec"]["jobConfig"], of_claim);
    assert_eq!(
        backups[1]["spec"]["jobConfig"], of_dump,
        "the user of volumes is not that of a dump"
    );
    let job = &of_kind(&plan, "GlobalRetentionPolicy")[0]["spec"]["jobConfig"];
    assert_eq!(job["resources"]["limits"], json!({ "memory": "3Gi", "cpu": "1" }));
    assert_eq!(job["activeDeadlineSeconds"], 700);
    let said = notes(&plan);
    assert!(
        !said.contains("not carried over") && !said.contains("runAsUser"),
        "{said}"
    );
}

#[test]
fn a_pod_config_wins_over_what_the_schedule_says() {
    let mut found = found(json!({
        "podSecurityContext": { "runAsUser": 1 },
        "backup": { "schedule": "@daily", "podConfigRef": { "name": "root" } },
    }));
    let without = plan(&found, false);
    let said = notes(&without);
    assert!(said.contains("PodConfig root, which is not there"), "{said}");
    found.pod_configs = vec![json!({
        "metadata": { "name": "root", "namespace": "shop" },
        "spec": { "template": { "spec": {
            "securityContext": { "runAsUser": 0 }, "nodeSelector": { "disk": "fast" }, "dnsPolicy": "None",
            "containers": [{ "name": "backup", "resources": { "limits": { "memory": "1Gi" } }, "env": [{ "name": "A" }] }],
        } } },
    })];
    let plan = plan(&found, false);
    valid(&plan);
    let job = &of_kind(&plan, "ResticBackup")[0]["spec"]["jobConfig"];
    assert_eq!(job["securityContext"]["runAsUser"], 0);
    assert_eq!(job["nodeSelector"], json!({ "disk": "fast" }));
    assert_eq!(job["resources"]["limits"]["memory"], "1Gi");
    let said = notes(&plan);
    assert!(
        said.contains("PodConfig shop/root: spec.containers[].env, spec.dnsPolicy are not carried over"),
        "{said}"
    );
}

#[test]
fn what_is_set_and_not_carried_over_is_named() {
    let plan = plan(
        &found(json!({
            "resourceRequirementsTemplate": {},
            "backup": { "schedule": "@daily", "promURL": "http://p", "statsURL": "http://s", "volumes": [{ "name": "ca" }],
                        "resources": {} },
            "check": { "schedule": "@weekly", "resources": { "limits": { "memory": "1Gi" } } },
        })),
        false,
    );
    let said = notes(&plan);
    assert!(
        said.contains("Schedule shop/nightly: backup.promURL, backup.statsURL are not carried over: no figures are sent there"),
        "{said}"
    );
    assert!(
        said.contains("backup.volumes, check.resources are not carried over: see what"),
        "{said}"
    );
}
