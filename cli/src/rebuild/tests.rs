use proto::v1::ReplacedCluster;

use super::*;

fn manifest(kind: &str, name: &str, spec: Value) -> Manifest {
    let object = json!({ "apiVersion": API, "kind": kind,
                         "metadata": { "name": name, "namespace": "shop" }, "spec": spec });
    Manifest {
        kind: kind.to_owned(),
        namespace: "shop".to_owned(),
        name: name.to_owned(),
        manifest: object.to_string(),
        history: (kind == "ResticBackup").then(|| succeeded(1_795_000_000)),
        ..Manifest::default()
    }
}

fn succeeded(second: i64) -> BackupHistory {
    BackupHistory {
        last_success: Some(proto::time::from_unix(second)),
        partial: false,
    }
}

/// A backup of claim data.
fn backup(name: &str, more: Value, last_success: i64) -> Manifest {
    let mut spec =
        json!({ "repositoryRef": { "name": "nas" }, "source": { "pvc": { "claimName": "data" } } });
    for (field, value) in more.as_object().unwrap() {
        match field.as_str() {
            "paths" | "excludes" => spec["source"]["pvc"][field] = value.clone(),
            _ => spec[field] = value.clone(),
        }
    }
    Manifest {
        history: Some(succeeded(last_success)),
        ..manifest("ResticBackup", name, spec)
    }
}

fn head() -> ManifestsHead {
    ManifestsHead {
        cluster_uid: "uid-of-the-new".to_owned(),
        reported_uid: "uid-of-the-lost".to_owned(),
        complete: true,
        ..ManifestsHead::default()
    }
}

/// Tags of the only restore.
fn tags(made: &Made) -> Vec<String> {
    let restores = made
        .objects
        .iter()
        .filter(|object| object["kind"] == "ResticRestore");
    let restores: Vec<&Value> = restores.collect();
    let [restore] = restores[..] else {
        panic!("{restores:?} {:?}", made.notes)
    };
    let tags = restore["spec"]["snapshotSelector"]["tags"].as_array().unwrap();
    tags.iter().map(|tag| tag.as_str().unwrap().to_owned()).collect()
}

fn has(made: &Made, words: &[&str]) -> bool {
    made.notes
        .iter()
        .any(|note| words.iter().all(|word| note.contains(word)))
}

fn all() -> Vec<Manifest> {
    vec![
        manifest(
            "ResticRepository",
            "nas",
            json!({ "repositoryURL": "s3:x/y", "credentialsSecretRef": { "name": "storage" } }),
        ),
        manifest(
            "ResticBackup",
            "orders",
            json!({ "repositoryRef": { "name": "nas" }, "schedule": "@daily", "source": { "pvc": { "claimName": "data" } },
                    "jobConfig": { "securityContext": { "runAsUser": 70 } },
                    "notifications": { "slack": { "credentialsSecretRef": { "name": "slack" } } } }),
        ),
        manifest(
            "GlobalRetentionPolicy",
            "weekly",
            json!({ "repositoryRef": { "name": "nas" }, "policies": [] }),
        ),
        Manifest {
            kind: "ResticBackup".to_owned(),
            namespace: "shop".to_owned(),
            name: "old".to_owned(),
            ..Manifest::default()
        },
    ]
}

fn asked(suspended: bool, restores: bool) -> Rebuild {
    Rebuild {
        cluster: "berlin".to_owned(),
        namespace: None,
        uid: None,
        suspended,
        restores,
    }
}

#[test]
fn everything_comes_back_as_it_was_and_what_is_missing_is_named() {
    let made = made(&asked(false, false), &head(), &all());
    let kinds: Vec<&str> = made
        .objects
        .iter()
        .map(|object| object["kind"].as_str().unwrap())
        .collect();
    assert_eq!(
        kinds,
        [
            "Namespace",
            "ResticRepository",
            "ResticBackup",
            "GlobalRetentionPolicy"
        ]
    );
    assert_eq!(made.objects[1]["spec"]["initialize"], "Never");
    assert!(made.objects[2]["spec"].get("suspend").is_none());
    assert_eq!(made.findings, 1);
    assert!(
        made.notes[0].contains("shop/slack, shop/storage"),
        "{:?}",
        made.notes
    );
    assert!(
        made.notes[1].contains("ResticBackup shop/old cannot be made"),
        "{:?}",
        made.notes
    );
}

#[test]
fn restores_name_the_lost_clusters_snapshots_and_backups_wait_for_them() {
    let made = made(&asked(false, true), &head(), &all());
    let restore = made.objects.last().unwrap();
    assert_eq!(restore["kind"], "ResticRestore");
    assert_eq!(
        restore["spec"],
        json!({
            "repositoryRef": { "name": "nas" },
            "snapshotSelector": { "tags": [
                "fleet.cluster=berlin", "fleet.backup=shop/orders", "fleet.cluster-uid=uid-of-the-lost",
            ] },
            "target": { "newPVC": { "name": "data" } },
            "jobConfig": { "securityContext": { "runAsUser": 70 } },
        })
    );
    assert_eq!(made.objects[2]["spec"]["suspend"], true);
    assert_eq!(made.objects[3]["spec"]["suspend"], true);
}

#[test]
fn a_spoke_writes_nothing_but_its_own_resources() {
    let mut evil = manifest("ResticBackup", "orders", json!({ "x": "\u{9b}2J\u{1b}[2J" }));
    evil.manifest = evil
        .manifest
        .replace("\"kind\":\"ResticBackup\"", "\"kind\":\"ClusterRoleBinding\"");
    assert_eq!(object(&evil), None);
    let strange = manifest("ResticBackup", "orders", json!({ "x": "\u{9b}2J\u{1b}[2J" }));
    let printed = text(&made(&asked(false, false), &head(), &[strange]).objects);
    assert!(
        printed.chars().all(|c| c == '\n' || !c.is_control()),
        "{printed:?}"
    );
    let script =
        json!({ "hooks": { "preBackup": { "command": ["sh", "-c", "if true\n\tthen\techo a\nfi\n"] } } });
    let indented = manifest("ResticBackup", "orders", script.clone());
    let printed = text(&made(&asked(false, false), &head(), &[indented]).objects);
    let last = printed.split("---\n").last().unwrap();
    let read: Value = serde_saphyr::from_str(last).unwrap();
    assert_eq!(read["spec"], script, "tabs stay: {printed}");
}

#[test]
fn what_was_taken_out_is_named() {
    let env = json!([{ "name": "PASSWORD", "value": TAKEN_OUT }]);
    let custom = json!({ "source": { "customSource": { "podTemplate": { "spec": { "containers": [{ "env": env }] } } } } });
    let made = made(
        &asked(false, false),
        &head(),
        &[manifest("ResticBackup", "orders", custom)],
    );
    assert!(has(&made, &["write the values"]), "{:?}", made.notes);
    assert_eq!(made.findings, 1, "something is missing");
}

/// Its name is of two clusters by now, and the repository has snapshots of both.
#[test]
fn a_cluster_that_is_lost_again_gets_its_own_snapshots_and_where_it_has_none_those_of_the_one_before() {
    let mut orders = backup("orders", json!({}), 1);
    let of = |orders: &Manifest, head: &ManifestsHead| {
        made(&asked(false, true), head, std::slice::from_ref(orders))
    };
    let with_uid = "fleet.cluster-uid=uid-of-the-lost".to_owned();
    assert!(
        tags(&of(&orders, &head())).contains(&with_uid),
        "not that of the new cluster"
    );
    orders.history = Some(BackupHistory {
        partial: true,
        ..BackupHistory::default()
    });
    assert!(tags(&of(&orders, &head())).contains(&with_uid));

    orders.history = Some(BackupHistory::default());
    let none = of(&orders, &head());
    assert_eq!(tags(&none), ["fleet.cluster=berlin", "fleet.backup=shop/orders"]);
    assert!(
        has(&none, &["has made no snapshot", "uid-of-the-lost"]),
        "{:?}",
        none.notes
    );

    // A hub of an earlier version.
    orders.history = None;
    let unknown = of(
        &orders,
        &ManifestsHead {
            reported_uid: String::new(),
            ..head()
        },
    );
    assert_eq!(tags(&unknown).len(), 2);
}

#[test]
fn a_claim_is_filled_from_the_backup_that_reads_most_of_it_and_not_from_the_last_name() {
    let of = |all: &[Manifest]| made(&asked(false, true), &head(), all);
    let whole = backup("data-full", json!({}), 100);
    for other in [
        backup("zz-config", json!({ "paths": ["config"] }), 200),
        backup("zz-most", json!({ "excludes": ["*.tmp"] }), 200),
        backup(
            "zz-args",
            json!({ "restic": { "extraArgs": ["--exclude-caches"] } }),
            200,
        ),
        backup("zz-old", json!({ "suspend": true }), 200),
        backup("zz-before", json!({}), 99),
    ] {
        let made = of(&[whole.clone(), other.clone()]);
        assert!(
            tags(&made).contains(&"fleet.backup=shop/data-full".to_owned()),
            "{:?}",
            made.notes
        );
        let named = format!("not from ResticBackup shop/{}", other.name);
        assert!(
            has(&made, &["several backups read claim shop/data", &named]),
            "{:?}",
            made.notes
        );
        assert_eq!(made.findings, 0);
    }
    let root = of(&[backup("zz-root", json!({ "paths": ["/"] }), 101), whole]);
    assert!(
        tags(&root).contains(&"fleet.backup=shop/zz-root".to_owned()),
        "all of it is in it too"
    );
}

#[test]
fn a_claim_whose_backup_is_not_clear_has_no_restore_and_is_missing() {
    let never = Manifest {
        history: Some(BackupHistory::default()),
        ..backup("never", json!({}), 0)
    };
    let unknown = |name: &str| Manifest {
        history: None,
        ..backup(name, json!({}), 0)
    };
    for all in [
        [backup("a", json!({}), 5), backup("b", json!({}), 5)],
        [unknown("a"), unknown("b")],
        // All of it, a year ago; or a part of it, last night.
        [
            backup("a", json!({ "suspend": true }), 5),
            backup("b", json!({ "paths": ["x"] }), 9),
        ],
        [never, backup("b", json!({ "paths": ["x"] }), 9)],
    ] {
        let made = made(&asked(false, true), &head(), &all);
        assert!(
            made.objects
                .iter()
                .all(|object| object["kind"] != "ResticRestore")
        );
        assert_eq!(made.findings, 1);
        assert!(
            has(&made, &["claim shop/data has no restore", "shop/b"]),
            "{:?}",
            made.notes
        );
    }
}

#[test]
fn a_restore_of_a_part_is_called_one() {
    let config = backup("config", json!({ "paths": ["config"], "excludes": ["*.tmp"] }), 1);
    let made = made(&asked(false, true), &head(), &[config]);
    tags(&made);
    let words = ["only a part", "claim shop/data", "only config, all but *.tmp"];
    assert!(has(&made, &words), "{:?}", made.notes);
}

#[test]
fn what_was_suspended_runs_again_by_kubectl_and_what_was_so_before_is_named() {
    let orders = backup("orders", json!({ "suspend": true }), 1);
    let made = made(&asked(false, true), &head(), &[orders]);
    let patch = r#"kubectl patch rb NAME -n NAMESPACE --type=merge -p '{"spec":{"suspend":false}}'"#;
    assert!(
        has(&made, &["backups and policies are suspended", patch, "grp"]),
        "{:?}",
        made.notes
    );
    assert!(
        has(&made, &["suspended before", "ResticBackup shop/orders"]),
        "{:?}",
        made.notes
    );
    assert!(
        made.notes
            .iter()
            .all(|note| !note.contains("fleet backups resume"))
    );
}

#[test]
fn what_another_operator_makes_is_printed_and_named() {
    let mut nas = all().remove(0);
    nas.owner = "XBackupStore.platform.example.org/shop".to_owned();
    let made = made(&asked(false, false), &head(), &[nas]);
    assert_eq!(made.objects.len(), 2);
    assert!(
        has(&made, &["ResticRepository shop/nas was made by XBackupStore"]),
        "{:?}",
        made.notes
    );
}

#[test]
fn a_cluster_without_resources_names_those_that_had_its_name() {
    let replaced = ReplacedCluster {
        cluster_uid: "uid-of-the-lost".to_owned(),
        resources: 3,
        ..ReplacedCluster::default()
    };
    let head = ManifestsHead {
        replaced: vec![replaced],
        ..head()
    };
    let mut asked = asked(false, false);
    let (notes, fewer) = before(&asked, &head, 0);
    assert!(
        fewer && notes[0].contains("fleet clusters rebuild berlin --uid uid-of-the-lost"),
        "{notes:?}"
    );
    assert!(before(&asked, &head, 2).1, "it is being made again");
    assert_eq!(before(&asked, &head, 3), (Vec::new(), false));
    asked.uid = Some("uid-of-the-new".to_owned());
    assert!(!before(&asked, &head, 2).1, "it was asked for");
    let (notes, _) = before(&asked, &self::head(), 0);
    assert!(notes[0].contains("nothing can be made again"), "{notes:?}");
}

#[test]
fn who_lets_another_cluster_have_a_name_is_told_what_to_keep_first() {
    let lost = keep("berlin", Some("new"), Some("lost")).unwrap();
    assert!(
        lost.contains("fleet clusters rebuild berlin --uid lost --restores > berlin.yaml"),
        "{lost}"
    );
    // A hub of an earlier version, or one that does not answer.
    for unknown in [Some(""), None] {
        let unknown = keep("berlin", Some("new"), unknown).unwrap();
        assert!(
            unknown.contains("fleet clusters rebuild berlin --restores"),
            "{unknown}"
        );
    }
    assert!(
        keep("berlin", None, Some("lost")).is_some(),
        "it is not known which one joins"
    );
    assert_eq!(keep("berlin", Some("same"), Some("same")), None);
}
