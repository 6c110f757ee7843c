#![allow(clippy::unwrap_used)]

use serde_json::json;

use super::*;
use crate::migrate::cron_fixtures::{cron_job, is_replaced, keys, notes, planned, planned_with, script};
use crate::migrate::fixtures::{of_kind, secret, valid};

fn of_field() -> Value {
    json!([{ "name": "NODE_NAME", "valueFrom": { "fieldRef": { "fieldPath": "spec.nodeName" } } }])
}

#[test]
fn a_word_that_is_known_only_when_it_runs_is_not_taken_as_it_is_written() {
    for host in ["$(NODE_NAME)", "x-$(NODE_NAME)", "$(NOWHERE)"] {
        let job = json!({ "args": ["backup", "/data", "--host", host], "env": of_field() });
        let plan = planned(&[cron_job("a", job)], &keys());
        assert!(of_kind(&plan, "ResticBackup").is_empty(), "{:#?}", plan.objects);
        assert!(
            notes(&plan).contains(host.trim_start_matches("x-")),
            "{}",
            notes(&plan)
        );
    }
    let namespace =
        json!([{ "name": "IN", "valueFrom": { "fieldRef": { "fieldPath": "metadata.namespace" } } }]);
    let job = json!({ "args": ["backup", "/data", "--host", "$(IN)-$$x"], "env": namespace });
    let plan = planned(&[cron_job("a", job)], &keys());
    assert_eq!(
        of_kind(&plan, "ResticBackup")[0]["spec"]["restic"]["hostname"],
        "shop-$x"
    );
}

#[test]
fn a_value_of_another_variable_is_known_if_that_one_is() {
    let mut env = of_field().as_array().unwrap().clone();
    env.push(json!({ "name": "RESTIC_HOST", "value": "web-$(NODE_NAME)" }));
    let script = "restic backup /data; restic forget --keep-last 1";
    let plan = planned(
        &[cron_job(
            "a",
            json!({ "command": ["sh", "-c", script], "env": env }),
        )],
        &keys(),
    );
    valid(&plan);
    assert!(!is_replaced(&plan, "shop", "a"));
    assert!(
        notes(&plan).contains("the value of RESTIC_HOST is not known"),
        "{}",
        notes(&plan)
    );
    assert!(!notes(&plan).contains("names no --host"), "{}", notes(&plan));
    assert!(
        of_kind(&plan, "GlobalRetentionPolicy").is_empty(),
        "whose snapshots it removes is not known"
    );
}

#[test]
fn a_file_that_a_variable_or_an_option_names_is_that_of_its_secret() {
    let mounts = json!([{ "name": "data", "mountPath": "/data" }, { "name": "keys", "mountPath": "/keys" }]);
    let secrets = || {
        let mut all = keys();
        all.extend(secret(
            "shop",
            "keys",
            &[("ca", "-----BEGIN CERTIFICATE-----"), ("pw", "q")],
        ));
        all
    };
    let with = |arguments: Value, env: Value| {
        let job = json!({ "args": arguments, "env": env, "volumeMounts": mounts });
        let plan = planned(&[cron_job("a", job)], &secrets());
        valid(&plan);
        plan
    };
    let by_variable = json!([{ "name": "RESTIC_CACERT", "value": "/keys/ca" }]);
    for plan in [
        with(json!(["backup", "/data", "--host", "w"]), by_variable),
        with(
            json!(["backup", "/data", "--host", "w", "--cacert", "/keys/ca"]),
            json!([]),
        ),
    ] {
        assert_eq!(
            plan.secrets[0].entries["RESTIC_CACERT"],
            Source::whole("keys", "ca")
        );
        assert!(is_replaced(&plan, "shop", "a"), "{}", notes(&plan));
    }
    let plan = with(json!(["backup", "/data", "-p", "/keys/pw"]), json!([]));
    assert_eq!(
        plan.secrets[0].entries["RESTIC_PASSWORD"],
        Source::whole("keys", "pw")
    );
    // Files of the image.
    for (arguments, env) in [
        (
            json!(["backup", "/data"]),
            json!([{ "name": "RESTIC_CACERT", "value": "/etc/ca" }]),
        ),
        (json!(["backup", "/data", "--cacert=/etc/ca"]), json!([])),
    ] {
        let plan = with(arguments, env);
        assert!(!is_replaced(&plan, "shop", "a"));
        assert!(
            notes(&plan).contains("RESTIC_CACERT is not known"),
            "{}",
            notes(&plan)
        );
        assert!(plan.secrets.is_empty(), "{:?}", plan.secrets);
    }
    for unreadable in [
        with(
            json!(["backup", "/data", "--password-command", "cat /x"]),
            json!([]),
        ),
        with(
            json!(["backup", "/data"]),
            json!([{ "name": "RESTIC_PASSWORD_FILE", "value": "/etc/pw" }]),
        ),
    ] {
        assert!(unreadable.objects.is_empty(), "{:#?}", unreadable.objects);
        assert!(
            notes(&unreadable).contains("its password is not"),
            "{}",
            notes(&unreadable)
        );
    }
}

#[test]
fn a_variable_that_ours_does_not_take_is_named() {
    let job = json!({ "args": ["backup", "/data", "--host", "w"], "env": [{ "name": "AWS_PROFILE", "value": "x" }, { "name": "HTTPS_PROXY", "value": "http://p" }] });
    let plan = planned(&[cron_job("a", job)], &keys());
    assert!(notes(&plan).contains("AWS_PROFILE"), "{}", notes(&plan));
    let entries = &plan.secrets[0].entries;
    assert!(
        entries.contains_key("HTTPS_PROXY") && !entries.contains_key("AWS_PROFILE"),
        "{entries:?}"
    );
}

#[test]
fn a_forget_can_be_told_from_a_backup_without_the_secrets_it_needs() {
    let job = |arguments: Value| cron_job("a", json!({ "args": arguments }));
    assert!(!crate::migrate::cron::stores(&job(json!([
        "forget",
        "--host",
        "$(HOST)",
        "--keep-last",
        "1"
    ]))));
    assert!(!crate::migrate::cron::stores(&script(
        "a",
        "restic forget --host $HOST --keep-last 1"
    )));
    assert!(crate::migrate::cron::stores(&script("a", "restic backup $WHAT")));
    assert!(crate::migrate::cron::stores(&script("a", ". /x")));
}

#[test]
fn a_config_map_has_values_as_well() {
    let of_map = secret(
        "shop",
        "settings",
        &[
            ("RESTIC_HOST", "web"),
            ("ca", "-----BEGIN CERTIFICATE-----"),
            ("AWS_DEFAULT_REGION", "x"),
        ],
    );
    let from = json!([{ "configMapRef": { "name": "settings" } }, { "secretRef": { "name": "restic" } }]);
    let mounts = json!([{ "name": "data", "mountPath": "/data" }, { "name": "ca", "mountPath": "/ca.pem", "subPath": "ca" }]);
    let job = json!({ "args": ["backup", "/data", "--cacert", "/ca.pem"], "envFrom": from, "volumeMounts": mounts });
    let mut job = cron_job("a", job);
    let volumes = &mut job["spec"]["jobTemplate"]["spec"]["template"]["spec"]["volumes"];
    volumes
        .as_array_mut()
        .unwrap()
        .push(json!({ "name": "ca", "configMap": { "name": "settings" } }));
    let plan = planned_with(&[job.clone()], &keys(), &of_map);
    assert_eq!(
        of_kind(&plan, "ResticBackup")[0]["spec"]["restic"]["hostname"],
        "web"
    );
    let entries = &plan.secrets[0].entries;
    assert_eq!(entries["AWS_DEFAULT_REGION"], Source::literal("x"));
    assert_eq!(
        entries["RESTIC_CACERT"],
        Source::literal("-----BEGIN CERTIFICATE-----")
    );
    assert!(is_replaced(&plan, "shop", "a"), "{}", notes(&plan));
    assert_eq!(crate::migrate::cron::config_maps(&[job.clone()]).len(), 1);
    // Where it is not there, no host is not known.
    let plan = planned(&[job], &keys());
    assert!(!is_replaced(&plan, "shop", "a"));
    let notes = notes(&plan);
    assert!(
        notes.contains("what ConfigMap settings holds is not known"),
        "{notes}"
    );
    assert!(!notes.contains("names no --host"), "{notes}");
}
