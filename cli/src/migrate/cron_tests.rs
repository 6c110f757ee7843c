#![allow(clippy::unwrap_used)]

use super::*;
use crate::migrate::fixtures::{of_kind, secret, valid};
use crate::migrate::secret::Source;

fn cron_job(name: &str, container: Value) -> Value {
    let mut one = json!({ "name": "restic", "image": "restic/restic:0.17.3",
        "envFrom": [{ "secretRef": { "name": "restic" } }],
        "volumeMounts": [{ "name": "data", "mountPath": "/data" }, { "name": "work", "mountPath": "/work" }] });
    one.as_object_mut()
        .unwrap()
        .extend(container.as_object().unwrap().clone());
    json!({
        "apiVersion": "batch/v1", "kind": "CronJob", "metadata": { "name": name, "namespace": "shop" },
        "spec": { "schedule": "30 2 * * *", "timeZone": "Europe/Berlin", "jobTemplate": { "spec": { "template": { "spec": {
            "securityContext": { "runAsUser": 33, "fsGroup": 33 },
            "containers": [one],
            "volumes": [
                { "name": "data", "persistentVolumeClaim": { "claimName": "files" } },
                { "name": "work", "emptyDir": {} },
                { "name": "keys", "secret": { "secretName": "keys" } },
            ],
        } } } } },
    })
}

fn keys() -> Secrets {
    secret(
        "shop",
        "restic",
        &[
            ("RESTIC_REPOSITORY", "s3:http://minio:9000/cron"),
            ("RESTIC_PASSWORD", "p"),
            ("AWS_ACCESS_KEY_ID", "a"),
            ("AWS_SECRET_ACCESS_KEY", "s"),
        ],
    )
}

fn notes(plan: &Plan) -> String {
    plan.notes
        .iter()
        .map(|note| format!("{}: {}\n", note.about, note.text))
        .collect()
}

#[test]
fn a_script_with_backup_and_forget_becomes_a_backup_and_a_policy() {
    let script = "set -e\nrestic backup /data --host web --tag nightly --exclude /data/tmp --exclude-caches\n\
                  restic forget --host web --keep-daily 7 --keep-weekly 4 --prune";
    let jobs = [cron_job(
        "nightly",
        json!({ "command": ["/bin/sh", "-c", script] }),
    )];
    assert_eq!(secrets(&jobs).len(), 2);
    let plan = plan(&jobs, &keys(), false);
    valid(&plan);
    assert!(plan.secrets.is_empty(), "its Secret has our names already");
    let backup = &of_kind(&plan, "ResticBackup")[0]["spec"];
    assert_eq!(
        (&backup["schedule"], &backup["timezone"]),
        (&json!("30 2 * * *"), &json!("Europe/Berlin"))
    );
    assert_eq!(
        backup["source"]["pvc"],
        json!({ "claimName": "files", "paths": [], "excludes": ["/tmp"] })
    );
    assert_eq!(
        backup["restic"],
        json!({ "hostname": "web", "tags": ["nightly"], "extraArgs": ["--exclude-caches"] })
    );
    assert_eq!(
        backup["jobConfig"]["securityContext"],
        json!({ "runAsUser": 33, "fsGroup": 33 })
    );
    let policy = &of_kind(&plan, "GlobalRetentionPolicy")[0]["spec"];
    assert_eq!(
        policy["policies"],
        json!([{ "selector": { "hostname": "web" }, "groupBy": ["host"], "retention": { "keepDaily": 7, "keepWeekly": 4 } }])
    );
    assert_eq!(policy["prune"], true);
}

#[test]
fn a_job_of_the_image_alone_and_a_forget_elsewhere_are_one_repository() {
    let env = json!([
        { "name": "WHERE", "value": "x" },
        { "name": "RESTIC_REPOSITORY", "value": "rest:https://host:8000/$(WHERE)" },
        { "name": "RESTIC_PASSWORD_FILE", "value": "/keys/pw" },
    ]);
    let mounts = json!([{ "name": "data", "mountPath": "/srv", "subPath": "www" }, { "name": "keys", "mountPath": "/keys" }]);
    let with =
        |arguments: Value| json!({ "args": arguments, "envFrom": [], "volumeMounts": mounts, "env": env });
    let jobs = [
        cron_job("store", with(json!(["backup", "/srv/html", "--host", "web"]))),
        cron_job("clean", with(json!(["forget", "--keep-last", "3"]))),
    ];
    let secrets = secret("shop", "keys", &[("pw", "p")]);
    let plan = plan(&jobs, &secrets, false);
    valid(&plan);
    assert_eq!(of_kind(&plan, "ResticRepository").len(), 1);
    let repository = &of_kind(&plan, "ResticRepository")[0]["spec"];
    assert_eq!(repository["repositoryURL"], "rest:https://host:8000/x");
    assert_eq!(
        repository["credentialsSecretRef"],
        json!({ "name": "keys", "key": "pw" })
    );
    let source = &of_kind(&plan, "ResticBackup")[0]["spec"]["source"]["pvc"];
    assert_eq!(source["paths"], json!(["/www/html"]));
    let policy = of_kind(&plan, "GlobalRetentionPolicy")[0];
    assert_eq!(
        policy["metadata"]["annotations"][super::super::plan::SOURCE],
        "cronjobs.batch/shop/clean"
    );
    assert_eq!(policy["spec"]["prune"], false);
}

#[test]
fn what_cannot_be_read_is_said_and_nothing_is_guessed() {
    let jobs = [
        cron_job(
            "pipe",
            json!({ "command": ["sh", "-c", "pg_dump | restic backup --stdin"] }),
        ),
        cron_job("folder", json!({ "args": ["-r", "/mnt/r", "backup", "/data"] })),
        cron_job(
            "elsewhere",
            json!({ "args": ["backup", "/work", "--exclude-file=/x"] }),
        ),
        json!({ "metadata": { "name": "other", "namespace": "shop" }, "spec": { "jobTemplate": {} } }),
    ];
    let plan = plan(&jobs, &keys(), false);
    valid(&plan);
    assert!(of_kind(&plan, "ResticBackup").is_empty(), "{:#?}", plan.objects);
    let notes = notes(&plan);
    assert!(
        notes.contains("CronJob shop/pipe: the command of container \"restic\" cannot be read"),
        "{notes}"
    );
    assert!(
        notes.contains("shop/folder: its repository is not known"),
        "{notes}"
    );
    assert!(notes.contains("/work lies in no claim"), "{notes}");
}

#[test]
fn a_host_that_is_the_pods_name_is_no_series() {
    let script = "restic backup /data --tag web; restic forget --tag web --keep-last 5";
    let jobs = [cron_job("nightly", json!({ "command": ["sh", "-ec", script] }))];
    let plan = plan(&jobs, &keys(), false);
    valid(&plan);
    let rules = &of_kind(&plan, "GlobalRetentionPolicy")[0]["spec"]["policies"];
    assert_eq!(rules[0]["selector"], json!({ "hostname": "nightly" }));
    assert_eq!(rules[1]["selector"], json!({ "tags": ["web"] }));
    assert_eq!(
        rules[1]["groupBy"],
        json!(["paths", "tags"]),
        "never one group with others"
    );
    assert!(notes(&plan).contains("names no --host"));
}

#[test]
fn a_password_in_the_address_is_neither_printed_nor_written_into_a_resource() {
    let jobs = [cron_job(
        "nightly",
        json!({ "args": ["backup", "/data", "--host", "web"] }),
    )];
    let keys = [
        ("RESTIC_REPOSITORY", "rest:https://u:hidden@host:8000/x"),
        ("RESTIC_PASSWORD", "p"),
    ];
    let plan = plan(&jobs, &secret("shop", "restic", &keys), false);
    valid(&plan);
    assert!(
        !format!("{:?}", plan.objects).contains("hidden"),
        "{:#?}",
        plan.objects
    );
    let entries = &plan.secrets[0].entries;
    assert_eq!(entries["RESTIC_REST_PASSWORD"], Source::literal("hidden"));
    assert_eq!(
        entries["RESTIC_PASSWORD"],
        Source::whole("restic", "RESTIC_PASSWORD")
    );
    let file = "RESTIC_REPOSITORY=rest:https://u:hidden@host/\nRESTIC_PASSWORD=x";
    let plan = of_file(file, "shop", "nas").unwrap();
    assert!(!format!("{:?}", plan.objects).contains("hidden"));
}

#[test]
fn a_file_of_variables_becomes_a_repository() {
    let content =
        "# nas\nexport RESTIC_REPOSITORY=sftp:backup@nas:/srv\nRESTIC_PASSWORD='long one'\nHOME=/root\n";
    let plan = of_file(content, "shop", "nas").unwrap();
    valid(&plan);
    let repository = &of_kind(&plan, "ResticRepository")[0]["spec"];
    assert_eq!(repository["repositoryURL"], "sftp:backup@nas:/srv");
    assert_eq!(
        plan.secrets[0].entries["RESTIC_PASSWORD"],
        Source::literal("long one")
    );
    assert_eq!(plan.secrets[0].entries.len(), 1);
    assert!(of_file("RESTIC_REPOSITORY=/srv/r\nRESTIC_PASSWORD=x", "a", "b").is_err());
    assert!(
        of_file("RESTIC_REPOSITORY=s3:x", "a", "b")
            .unwrap_err()
            .contains("RESTIC_PASSWORD")
    );
}
