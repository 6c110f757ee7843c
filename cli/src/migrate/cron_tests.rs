#![allow(clippy::unwrap_used)]

use super::*;
use crate::migrate::cron_fixtures::{cron_job, keys, notes, of_theirs, planned as plan, rules, script};
use crate::migrate::fixtures::{of_kind, secret, valid};
use crate::migrate::secret::Source;

#[test]
fn a_script_with_backup_and_forget_becomes_a_backup_and_a_policy() {
    let script = "set -e\nrestic backup /data --host web --tag nightly --exclude /data/tmp --exclude-caches\n\
                  restic forget --host web --keep-daily 7 --keep-weekly 4 --prune";
    let jobs = [cron_job(
        "nightly",
        json!({ "command": ["/bin/sh", "-c", script] }),
    )];
    assert_eq!(secrets(&jobs).len(), 2);
    let plan = plan(&jobs, &keys());
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
        json!([
            { "selector": { "hostname": "web" }, "groupBy": ["host", "paths"], "retention": { "keepDaily": 7, "keepWeekly": 4 } },
            { "selector": { "hostname": "web", "tags": ["fleet.backup=shop/nightly"] }, "retention": { "keepDaily": 7, "keepWeekly": 4 } },
        ])
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
    let plan = plan(&jobs, &secrets);
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
    let mut space = cron_job("space", json!({}));
    let image = json!({ "args": ["prune"], "envFrom": [], "volumeMounts": mounts, "env": env });
    let container = &mut space["spec"]["jobTemplate"]["spec"]["template"]["spec"]["containers"][0];
    container
        .as_object_mut()
        .unwrap()
        .extend(image.as_object().unwrap().clone());
    let [store, clean] = jobs;
    let plan = super::super::cron_fixtures::planned(&[store, clean, space], &secrets);
    assert_eq!(
        of_kind(&plan, "ResticRepository")[0]["metadata"]["annotations"][super::super::plan::SOURCE],
        "cronjobs.batch/shop/clean,cronjobs.batch/shop/space,cronjobs.batch/shop/store",
        "finish stops all that remove"
    );
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
    let plan = plan(&jobs, &keys());
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
    let plan = plan(&jobs, &keys());
    valid(&plan);
    let rules = &of_kind(&plan, "GlobalRetentionPolicy")[0]["spec"]["policies"];
    assert_eq!(rules[0]["selector"], json!({ "tags": ["web"] }));
    assert_eq!(
        rules[0]["groupBy"],
        json!(["host", "paths"]),
        "one group for each pod, as before"
    );
    let own = json!({ "hostname": "nightly", "tags": ["fleet.backup=shop/nightly"] });
    assert_eq!(rules[1]["selector"], own);
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
    let plan = plan(&jobs, &secret("shop", "restic", &keys));
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
}

#[test]
fn folders_under_one_host_are_never_one_series() {
    let mut second = script("b", "restic backup /other --host web");
    let pod = &mut second["spec"]["jobTemplate"]["spec"]["template"]["spec"];
    pod["containers"][0]["volumeMounts"][0]["mountPath"] = json!("/other");
    pod["volumes"][0]["persistentVolumeClaim"]["claimName"] = json!("other");
    let jobs = [
        script(
            "a",
            "restic backup /data --host web; restic forget --host web --keep-last 1",
        ),
        second,
    ];
    let plan = plan(&jobs, &keys());
    valid(&plan);
    let mut hosts: Vec<&str> = Vec::new();
    for backup in of_kind(&plan, "ResticBackup") {
        hosts.push(text(backup, "/spec/restic/hostname"));
    }
    assert_eq!(hosts, ["web-files", "web-other"]);
    let theirs = of_theirs(&plan);
    assert_eq!(theirs.len(), 1, "{theirs:#?}");
    assert_eq!(
        (&theirs[0]["selector"], &theirs[0]["groupBy"]),
        (&json!({ "hostname": "web" }), &json!(["host", "paths"])),
        "as restic forget does"
    );
}

#[test]
fn a_forget_that_is_not_certain_to_be_ours_becomes_no_rule() {
    for (forget, why) in [
        ("--host web --path /data --keep-last 1", "--path"),
        ("--host web --dry-run --keep-last 1", "--dry-run"),
        ("--host web -n --keep-last 1", "--dry-run"),
        ("--host web -qn --keep-last 1", "--dry-run"),
        ("--host web --group-by host --keep-last 1", "--group-by"),
        ("--host web -g '' --keep-last 1", "--group-by"),
        ("--host web --keep-daily unlimited --keep-last 1", "--keep-daily"),
        ("--host web --keep-daily -1 --keep-last 1", "--keep-daily"),
        (
            "--host web --keep-within-daily 2w --keep-last 1",
            "--keep-within-daily",
        ),
        ("--host web --host db --keep-last 1", "several --host"),
        ("--host web --tag a --tag b --keep-last 1", "several --tag"),
        ("--host web --tag '' --keep-last 1", "--tag"),
        ("--host web abcd1234 --keep-last 1", "names snapshots"),
        ("--host web --keep-last 1 --keep-tag a,b", "--keep-tag"),
        ("--host web --keep-tag a", "--keep-tag alone"),
        ("--host web --new-option --keep-last 1", "--new-option"),
    ] {
        let jobs = [script(
            "a",
            &format!("restic backup /data --host web --tag a,b\nrestic forget {forget}"),
        )];
        let plan = plan(&jobs, &keys());
        valid(&plan);
        assert!(rules(&plan).is_empty(), "{forget}: {:#?}", rules(&plan));
        assert!(notes(&plan).contains(why), "{forget}: {}", notes(&plan));
    }
}

#[test]
fn a_forget_keeps_its_tags_and_its_counts() {
    let jobs = [script(
        "a",
        "restic backup /data --host web --tag a,b\nrestic forget --host web --tag a,b -H 5 --group-by paths,host",
    )];
    let plan = plan(&jobs, &keys());
    valid(&plan);
    let theirs = of_theirs(&plan);
    assert_eq!(theirs.len(), 1, "{theirs:#?}");
    assert_eq!(
        theirs[0]["selector"],
        json!({ "hostname": "web", "tags": ["a", "b"] })
    );
    assert_eq!(theirs[0]["retention"], json!({ "keepHourly": 5 }));
}

#[test]
fn a_cron_job_that_is_suspended_is_left_out() {
    let mut job = script(
        "a",
        "restic backup /data --host web\nrestic forget --host web --keep-last 1",
    );
    job["spec"]["suspend"] = json!(true);
    let plan = plan(&[job], &keys());
    assert!(plan.objects.is_empty(), "{:#?}", plan.objects);
    assert!(notes(&plan).contains("CronJob shop/a: it is suspended"));
}

#[test]
fn what_else_a_script_does_makes_it_unreadable() {
    for line in [
        "pg_dump shop",
        "cd /data",
        "curl http://x/done",
        "PATH=/x restic snapshots",
    ] {
        let jobs = [script(
            "a",
            &format!("set -e\n{line}\nrestic backup /data --host web"),
        )];
        let plan = plan(&jobs, &keys());
        assert!(plan.objects.is_empty(), "{line}: {:#?}", plan.objects);
        assert!(
            notes(&plan).contains("cannot be read"),
            "{line}: {}",
            notes(&plan)
        );
    }
    let jobs = [script(
        "a",
        "set -e; echo a; true\n:\nrestic backup /data --host web",
    )];
    assert_eq!(of_kind(&plan(&jobs, &keys()), "ResticBackup").len(), 1);
}

#[test]
fn a_cron_job_that_is_carried_over_in_part_is_not_stopped() {
    let whole = "restic backup /data --host web";
    for (line, more) in [
        (format!("{whole} --exclude-file /x"), json!(null)),
        (format!("{whole} /work"), json!(null)),
        (format!("{whole}; restic copy"), json!(null)),
        (
            format!("{whole}; restic forget --dry-run --keep-last 1"),
            json!(null),
        ),
        // A second repository, of which nothing is made.
        (
            whole.to_owned(),
            json!({ "name": "more", "image": "restic/restic", "args": ["-r", "s3:x/y", "backup", "/data"] }),
        ),
        (whole.to_owned(), json!({ "name": "dump", "image": "postgres" })),
    ] {
        let mut job = script("a", &line);
        if !more.is_null() {
            job["spec"]["jobTemplate"]["spec"]["template"]["spec"]["initContainers"] = json!([more]);
        }
        let plan = plan(&[job], &keys());
        valid(&plan);
        assert!(!plan.objects.is_empty(), "{line}");
        for object in &plan.objects {
            let annotations = &object["metadata"]["annotations"];
            assert_eq!(
                annotations[super::super::plan::SOURCE],
                json!(null),
                "{line}: {object:#}"
            );
            assert_eq!(
                annotations["fleet.resticbackup.io/migrated-in-part"], "cronjobs.batch/shop/a",
                "{line}"
            );
        }
    }
    let plan = plan(&[script("a", whole)], &keys());
    for object in &plan.objects {
        assert_eq!(
            object["metadata"]["annotations"][super::super::plan::SOURCE],
            "cronjobs.batch/shop/a"
        );
    }
}
