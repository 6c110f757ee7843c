#![allow(clippy::unwrap_used)]

use serde_json::json;

use super::*;
use crate::migrate::cron_fixtures::{cron_job, is_replaced, keys, notes, planned, with_pod};
use crate::migrate::fixtures::{of_kind, valid};

fn job() -> Value {
    cron_job(
        "a",
        json!({ "args": ["backup", "/data", "--host", "web"], "resources": { "limits": { "memory": "1Gi" } } }),
    )
}

#[test]
fn how_the_pod_runs_is_carried_over() {
    let placed = [
        ("/nodeSelector", json!({ "disk": "ssd" })),
        ("/tolerations", json!([{ "key": "backup", "operator": "Exists" }])),
        ("/affinity", json!({ "nodeAffinity": {} })),
        ("/serviceAccountName", json!("restic")),
        ("/priorityClassName", json!("low")),
        ("/imagePullSecrets", json!([{ "name": "registry" }])),
        (
            "/securityContext",
            json!({ "runAsUser": 33, "fsGroupChangePolicy": "OnRootMismatch" }),
        ),
    ];
    let mut job = placed
        .into_iter()
        .fold(job(), |job, (field, value)| with_pod(job, field, value));
    job["spec"]["concurrencyPolicy"] = json!("Replace");
    job["spec"]["jobTemplate"]["spec"]["template"]["metadata"] = json!({
        "labels": { "egress": "s3", "job-name": "x" }, "annotations": { "sidecar.istio.io/inject": "false" },
    });
    let plan = planned(&[job], &keys());
    valid(&plan);
    assert_eq!(
        of_kind(&plan, "ResticBackup")[0]["spec"]["jobConfig"],
        json!({
            "securityContext": { "runAsUser": 33, "fsGroupChangePolicy": "OnRootMismatch" },
            "resources": { "limits": { "memory": "1Gi" } },
            "nodeSelector": { "disk": "ssd" },
            "tolerations": [{ "key": "backup", "operator": "Exists" }],
            "affinity": { "nodeAffinity": {} },
            "serviceAccountName": "restic",
            "priorityClassName": "low",
            "imagePullSecrets": [{ "name": "registry" }],
            "podLabels": { "egress": "s3" },
            "podAnnotations": { "sidecar.istio.io/inject": "false" },
            "concurrencyPolicy": "Replace",
        })
    );
    assert!(!notes(&plan).contains("not carried over"), "{}", notes(&plan));
    assert!(!notes(&plan).contains("65532"), "{}", notes(&plan));
}

#[test]
fn a_user_that_only_the_image_names_is_said() {
    let root = with_pod(job(), "/securityContext", json!({}));
    let plan = planned(&[root], &keys());
    assert!(notes(&plan).contains("uid 65532"), "{}", notes(&plan));
    assert!(is_replaced(&plan, "shop", "a"));
}

#[test]
fn what_has_no_equal_is_named() {
    let mut job = with_pod(job(), "/hostNetwork", json!(true));
    // As an API server fills them in.
    job = with_pod(job, "/dnsPolicy", json!("ClusterFirst"));
    job = with_pod(job, "/schedulerName", json!("default-scheduler"));
    job = with_pod(job, "/terminationGracePeriodSeconds", json!(30));
    job = with_pod(job, "/hostPID", json!(false));
    job = with_pod(
        job,
        "/containers/0/securityContext",
        json!({ "allowPrivilegeEscalation": false, "capabilities": { "drop": ["ALL"], "add": ["DAC_READ_SEARCH"] } }),
    );
    job["spec"]["jobTemplate"]["spec"]["activeDeadlineSeconds"] = json!(60);
    job["spec"]["successfulJobsHistoryLimit"] = json!(3);
    let plan = planned(&[job.clone()], &keys());
    let wanted = "not carried over: activeDeadlineSeconds, containers[].securityContext.capabilities.add, hostNetwork\n";
    assert!(notes(&plan).contains(wanted), "{}", notes(&plan));
    assert!(is_replaced(&plan, "shop", "a"));
    let hook = json!({ "postStart": { "exec": { "command": ["sync"] } } });
    let plan = planned(&[with_pod(job, "/containers/0/lifecycle", hook)], &keys());
    assert!(
        !is_replaced(&plan, "shop", "a"),
        "what a hook does is part of the backup"
    );
}
