#![allow(clippy::unwrap_used)]

use super::super::k8up_dump::{COMMAND, EXTENSION};
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

fn notes(plan: &Plan) -> String {
    plan.notes
        .iter()
        .map(|note| format!("{}: {}\n", note.about, note.text))
        .collect()
}

#[test]
fn a_claim_becomes_a_backup_with_the_repository_and_the_policy_of_its_schedule() {
    let found = Found {
        schedules: vec![schedule(json!({}))],
        claims: vec![claim("data", None), claim("scratch", Some("false"))],
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
    let said = notes(&plan);
    assert!(said.contains("fleet coverage"), "what is added later: {said}");
    let backups = of_kind(&plan, "ResticBackup");
    assert_eq!(backups.len(), 1, "scratch is left out");
    let backup = &backups[0]["spec"];
    assert_eq!(backup["schedule"], "H H * * *");
    assert_eq!(backup["restic"]["hostname"], "shop.data");
    assert_eq!(backup["jobConfig"]["securityContext"]["runAsUser"], 999);
    let policy = &of_kind(&plan, "GlobalRetentionPolicy")[0]["spec"];
    assert_eq!(policy["schedule"], "0 1 * * 0");
    let kept = json!({ "keepLast": 5, "keepDaily": 14 });
    assert_eq!(
        policy["policies"],
        json!([
            { "selector": { "hostname": "shop" }, "groupBy": ["host", "paths"], "retention": kept },
            { "selector": { "tags": ["fleet.backup=shop/data"] }, "retention": kept },
        ])
    );
}

/// Hosts of backups, and what rules select by tags, with their groups.
fn series(plan: &Plan) -> (Vec<&str>, Vec<(&Value, &Value)>) {
    let backups = of_kind(plan, "ResticBackup");
    let hosts = backups.iter().map(|one| text(one, "/spec/restic/hostname"));
    let policies = of_kind(plan, "GlobalRetentionPolicy").into_iter();
    let rules = policies.flat_map(|policy| list(policy, "/spec/policies"));
    let rules = rules.filter(|rule| rule["selector"]["hostname"].is_null());
    let rules = rules.map(|rule| (&rule["selector"]["tags"], &rule["groupBy"]));
    (hosts.collect(), rules.collect())
}

#[test]
fn different_sources_never_count_as_one_series() {
    let pod = |name: &str, extension: &str| {
        json!({
            "metadata": { "name": name, "namespace": "shop", "labels": { "app": name },
                          "annotations": { COMMAND: "dump", EXTENSION: extension } },
            "spec": { "containers": [{ "name": "db" }] },
        })
    };
    let in_namespace = |namespace: &str, object: Value| {
        let mut object = object;
        object["metadata"]["namespace"] = json!(namespace);
        object
    };
    let none = Value::Null;
    // Dumps of two pods with containers of one name, and a claim that is named as a dump is.
    let found = Found {
        schedules: vec![schedule(json!({}))],
        claims: vec![claim("db-dump", None)],
        pods: vec![pod("one", ".sql"), pod("two", ".tar")],
        ..Found::default()
    };
    let plan_of_one = plan(&found, false);
    let (hosts, rules) = series(&plan_of_one);
    assert_eq!(hosts, ["shop.db-dump", "shop.db-dump-2", "shop.db-dump-3"]);
    let tags = ["db-dump", "db-dump-2", "db-dump-3"].map(|name| json!([format!("fleet.backup=shop/{name}")]));
    // Without groups it is host, paths and tags: tags have the cluster.
    assert_eq!(rules, tags.iter().map(|tags| (tags, &none)).collect::<Vec<_>>());
    // Two namespaces whose names run into those of their claims.
    let found = Found {
        schedules: vec![
            in_namespace("app", schedule(json!({}))),
            in_namespace("app-prod", schedule(json!({}))),
        ],
        claims: vec![
            in_namespace("app", claim("prod-data", None)),
            in_namespace("app-prod", claim("data", None)),
        ],
        ..Found::default()
    };
    let plan_of_two = plan(&found, false);
    let (hosts, rules) = series(&plan_of_two);
    assert_eq!(hosts, ["app.prod-data", "app-prod.data"]);
    let tags = ["app/prod-data", "app-prod/data"].map(|name| json!([format!("fleet.backup={name}")]));
    assert_eq!(rules, tags.iter().map(|tags| (tags, &none)).collect::<Vec<_>>());
}

#[test]
fn snapshots_of_before_are_grouped_as_k8up_does() {
    let found = Found {
        schedules: vec![schedule(json!({}))],
        claims: vec![claim("data", None), claim("media", None)],
        ..Found::default()
    };
    let plan = plan(&found, false);
    valid(&plan);
    let rules = &of_kind(&plan, "GlobalRetentionPolicy")[0]["spec"]["policies"];
    assert_eq!(rules.as_array().unwrap().len(), 3);
    assert_eq!(rules[0]["selector"], json!({ "hostname": "shop" }));
    assert_eq!(
        rules[0]["groupBy"],
        json!(["host", "paths"]),
        "each claim of theirs for itself"
    );
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
    let selected = json!({ "schedule": "0 3 * * *", "labelSelectors": [{ "matchLabels": { "tier": "media" } }], "tags": ["nightly"] });
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
    assert!(
        backups
            .iter()
            .all(|backup| backup["spec"]["restic"]["tags"] == json!(["nightly"])),
        "retention.tags reaches dumps as well"
    );
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
