#![allow(clippy::unwrap_used)]

use super::*;
use crate::migrate::fixtures::{of_kind, valid};
use crate::migrate::secret::Source;

fn schedule(more: Value) -> Value {
    let mut schedule = json!({
        "apiVersion": "k8up.io/v1", "kind": "Schedule", "metadata": { "name": "nightly", "namespace": "shop" },
        "spec": {
            "backend": {
                "repoPasswordSecretRef": { "name": "backup-repo", "key": "password" },
                "s3": {
                    "endpoint": "http://minio:9000", "bucket": "backups",
                    "accessKeyIDSecretRef": { "name": "minio", "key": "username" },
                    "secretAccessKeySecretRef": { "name": "minio", "key": "password" },
                },
            },
            "backup": { "schedule": "@daily-random", "podSecurityContext": { "runAsUser": 999 } },
            "check": { "schedule": "0 1 * * 1" },
            "prune": { "schedule": "0 1 * * 0", "retention": { "keepLast": 5, "keepDaily": 14 } },
        },
    });
    let spec = schedule["spec"].as_object_mut().unwrap();
    spec.extend(more.as_object().unwrap().clone());
    schedule
}

fn claim(name: &str, wanted: Option<&str>) -> Value {
    let annotations = wanted.map(|wanted| json!({ WANTED: wanted }));
    json!({ "metadata": { "name": name, "namespace": "shop", "annotations": annotations, "labels": { "tier": name } } })
}

fn snapshot(path: &str) -> Value {
    json!({ "metadata": { "name": "s", "namespace": "shop" }, "spec": { "id": "1", "paths": [path] } })
}

fn notes(plan: &Plan) -> String {
    plan.notes
        .iter()
        .map(|note| format!("{}: {}\n", note.about, note.text))
        .collect()
}

#[test]
fn one_claim_with_one_series_of_snapshots_is_counted_together_with_ours() {
    let found = Found {
        schedules: vec![schedule(json!({}))],
        claims: vec![claim("data", None), claim("scratch", Some("false"))],
        snapshots: vec![snapshot("/data/data")],
        ..Found::default()
    };
    let plan = plan(&found, false);
    valid(&plan);
    let repository = &of_kind(&plan, "ResticRepository")[0]["spec"];
    assert_eq!(repository["repositoryURL"], "s3:http://minio:9000/backups");
    assert_eq!(repository["integrityCheck"]["schedule"], "0 1 * * 1");
    let secret = &plan.secrets[0];
    assert_eq!(repository["credentialsSecretRef"]["name"], secret.name);
    assert_eq!(
        secret.entries["RESTIC_PASSWORD"],
        Source::whole("backup-repo", "password")
    );
    assert_eq!(
        secret.entries["AWS_ACCESS_KEY_ID"],
        Source::whole("minio", "username")
    );
    let backups = of_kind(&plan, "ResticBackup");
    assert_eq!(backups.len(), 1, "scratch is left out");
    let backup = &backups[0]["spec"];
    assert_eq!(backup["schedule"], "H H * * *");
    assert_eq!(backup["restic"]["hostname"], "shop");
    assert_eq!(backup["jobConfig"]["securityContext"]["runAsUser"], 999);
    let policy = &of_kind(&plan, "GlobalRetentionPolicy")[0]["spec"];
    assert_eq!(policy["schedule"], "0 1 * * 0");
    assert_eq!(
        policy["policies"],
        json!([{ "selector": { "hostname": "shop" }, "groupBy": ["host"], "retention": { "keepLast": 5, "keepDaily": 14 } }])
    );
}

#[test]
fn claims_under_one_host_are_never_one_series() {
    let claims = vec![claim("data", None), claim("media", None)];
    for (claims, snapshots) in [
        (
            claims.clone(),
            vec![snapshot("/data/data"), snapshot("/data/media")],
        ),
        // A claim that is gone has left snapshots, or nothing is known of what there is.
        (
            vec![claim("data", None)],
            vec![snapshot("/data/data"), snapshot("/data/old")],
        ),
        (vec![claim("data", None)], vec![]),
    ] {
        let found = Found {
            schedules: vec![schedule(json!({}))],
            claims,
            snapshots,
            ..Found::default()
        };
        let plan = plan(&found, false);
        valid(&plan);
        for backup in of_kind(&plan, "ResticBackup") {
            let claim = text(backup, "/spec/source/pvc/claimName");
            assert_eq!(backup["spec"]["restic"]["hostname"], format!("shop-{claim}"));
        }
        let rules = &of_kind(&plan, "GlobalRetentionPolicy")[0]["spec"]["policies"];
        assert_eq!(rules[0]["selector"], json!({ "hostname": "shop" }));
        assert_eq!(
            rules[0]["groupBy"],
            json!(["host", "paths"]),
            "each claim of theirs by itself"
        );
    }
}

#[test]
fn selectors_dumps_and_defaults_are_carried_over() {
    let pod = json!({
        "metadata": {
            "name": "db-0", "namespace": "shop", "labels": { "app": "db", "controller-revision-hash": "x" },
            "annotations": { COMMAND: "sh -c 'mysqldump -uroot --all-databases'", EXTENSION: ".sql" },
        },
        "spec": { "containers": [{ "name": "mariadb" }] },
    });
    let mut replica = pod.clone();
    replica["metadata"]["name"] = json!("db-1");
    let selected =
        json!({ "schedule": "0 3 * * *", "labelSelectors": [{ "matchLabels": { "tier": "media" } }] });
    let found = Found {
        schedules: vec![schedule(
            json!({ "backup": selected, "prune": { "schedule": "@weekly" } }),
        )],
        claims: vec![claim("data", None), claim("media", None)],
        pods: vec![pod, replica],
        pre_backup_pods: vec![json!({ "metadata": { "name": "dump", "namespace": "shop" } })],
        ..Found::default()
    };
    let plan = plan(&found, true);
    valid(&plan);
    let backups = of_kind(&plan, "ResticBackup");
    assert_eq!(backups.len(), 2, "{backups:#?}");
    assert_eq!(backups[0]["spec"]["source"]["pvc"]["claimName"], "media");
    let stdin = &backups[1]["spec"]["source"]["stdin"];
    assert_eq!(stdin["filename"], "mariadb.sql");
    assert_eq!(
        stdin["exec"]["podSelector"]["matchLabels"],
        json!({ "app": "db" })
    );
    assert_eq!(
        stdin["exec"]["command"],
        json!(["sh", "-c", "mysqldump -uroot --all-databases"])
    );
    let rules = &of_kind(&plan, "GlobalRetentionPolicy")[0]["spec"]["policies"];
    assert_eq!(rules[0]["retention"], json!({ "keepDaily": 14 }));
    let notes = notes(&plan);
    assert!(
        notes.contains("for which k8up takes 14") && notes.contains("PreBackupPod shop/dump"),
        "{notes}"
    );
    assert!(
        backups.iter().all(|backup| backup["spec"]["suspend"] == false),
        "they run beside"
    );
}

#[test]
fn what_is_in_the_operators_environment_is_not_guessed() {
    let own = json!({ "backend": { "s3": { "bucket": "b" } } });
    let local = json!({ "backend": { "repoPasswordSecretRef": { "name": "r", "key": "k" }, "local": { "mountPath": "/x" } } });
    let found = Found {
        schedules: vec![schedule(own), schedule(local)],
        ..Found::default()
    };
    let plan = plan(&found, false);
    assert!(plan.objects.is_empty(), "{:#?}", plan.objects);
    let notes = notes(&plan);
    assert!(
        notes.contains("repoPasswordSecretRef first") && notes.contains("a folder of a volume"),
        "{notes}"
    );
}

#[test]
fn a_schedule_of_which_something_is_left_out_is_not_stopped() {
    let pod = json!({ "metadata": { "name": "dump", "namespace": "shop" } });
    let bare =
        json!({ "metadata": { "name": "db", "namespace": "shop", "annotations": { COMMAND: "dump" } } });
    for (more, pods, commands, whole) in [
        (json!({}), vec![], vec![], true),
        (
            json!({ "archive": { "schedule": "@weekly" } }),
            vec![],
            vec![],
            false,
        ),
        (json!({}), vec![pod], vec![], false),
        (json!({}), vec![], vec![bare], false),
    ] {
        let found = Found {
            schedules: vec![schedule(more)],
            claims: vec![claim("data", None)],
            pods: commands,
            pre_backup_pods: pods,
            ..Found::default()
        };
        let plan = plan(&found, false);
        assert!(of_kind(&plan, "ResticBackup").len() == 1, "{:#?}", plan.objects);
        let wanted = if whole {
            crate::migrate::plan::SOURCE
        } else {
            crate::migrate::plan::IN_PART
        };
        for object in &plan.objects {
            let annotations = object["metadata"]["annotations"].as_object().unwrap();
            let names: Vec<&String> = annotations.keys().collect();
            assert_eq!(names, [wanted], "{object:#}");
        }
    }
}

#[test]
fn tags_that_narrow_a_prune_narrow_the_rules() {
    let policies = |retention: Value| {
        let found = Found {
            schedules: vec![schedule(
                json!({ "prune": { "schedule": "@weekly", "retention": retention } }),
            )],
            claims: vec![claim("data", None), claim("media", None)],
            ..Found::default()
        };
        let plan = plan(&found, false);
        valid(&plan);
        let policies = of_kind(&plan, "GlobalRetentionPolicy");
        let rules = policies
            .iter()
            .flat_map(|policy| list(policy, "/spec/policies").to_vec());
        (rules.collect::<Vec<Value>>(), notes(&plan))
    };
    let (rules, said) = policies(json!({ "keepDaily": 3, "tags": ["a", "b,c"] }));
    let selectors: Vec<String> = rules.iter().map(|rule| rule["selector"].to_string()).collect();
    assert_eq!(rules.len(), 6, "two for theirs, two for each of ours: {rules:#?}");
    assert!(
        selectors.iter().all(|selector| selector.contains("\"tags\"")),
        "what has none of the tags is kept: {selectors:?}"
    );
    assert_eq!(
        (&rules[0]["selector"], &rules[1]["selector"]),
        (
            &json!({ "hostname": "shop", "tags": ["a"] }),
            &json!({ "hostname": "shop", "tags": ["b", "c"] })
        )
    );
    assert!(said.contains("a rule for each of these tags"), "{said}");

    let (rules, said) = policies(json!({ "keepDaily": 3, "hostnames": ["other"] }));
    assert!(rules.is_empty(), "{rules:#?}");
    assert!(said.contains("retention.hostnames does not name shop"), "{said}");
    let (rules, _) = policies(json!({ "keepDaily": 3, "hostnames": ["other", "shop"] }));
    assert_eq!(rules[0]["selector"], json!({ "hostname": "shop" }));
    let (rules, said) = policies(json!({ "keepDaily": 3, "tags": ["a", ""] }));
    assert!(
        rules.is_empty() && said.contains("an entry without a tag"),
        "{said}"
    );
}
