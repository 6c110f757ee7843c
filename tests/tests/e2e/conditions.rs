//! Each cause has its own reason, nothing leads to `init` by mistake, and mending the cause recovers without a restart.

use serde_json::json;

use crate::support::{Place, bed, condition, rest, s3};

#[test]
#[ignore = "needs clusters: make test"]
fn what_is_wrong_with_a_repository_is_told_apart_and_heals() {
    let place = Place::new("a", "reasons");
    let folder = bed().servers().rest_data().join("reasons");

    let mut repository = place.repository("nas", &rest("reasons"));
    repository["spec"]["credentialsSecretRef"]["name"] = json!("later");
    place.apply(&[repository]);
    let message = place.until_reason("resticrepository/nas", "CredentialsNotFound");
    assert!(message.contains("Secret \"later\" does not exist"), "{message}");
    place.apply(&[place.secret("later", "")]);
    let message = place.until_reason("resticrepository/nas", "CredentialsInvalid");
    assert!(message.contains("RESTIC_PASSWORD"), "{message}");
    place.apply(&[place.secret("later", "right horse")]);
    place.until_ready("resticrepository/nas");
    let config = std::fs::read(folder.join("config")).unwrap();

    place.apply(&[place.secret("later", "wrong")]);
    place.until_reason("resticrepository/nas", "WrongPassword");
    let mut refused = place.secret("later", "right horse");
    refused["stringData"]["RESTIC_REST_PASSWORD"] = json!("not-this-one");
    place.apply(&[refused]);
    let message = place.until_reason("resticrepository/nas", "RepositoryForbidden");
    assert!(!message.contains("not-this-one"), "{message}");
    place.apply(&[place.secret("later", "right horse")]);
    place.until_ready("resticrepository/nas");

    let poke = |n: u32| {
        // A change of the spec asks at once; statistics would ask by themselves within their interval.
        let patch = json!({ "spec": { "refreshInterval": format!("{}m", 10 + n) } }).to_string();
        place
            .kubectl(&["patch", "resticrepository/nas", "--type=merge", "-p", &patch])
            .unwrap();
    };
    let mut broken = config.clone();
    broken[30] ^= 0xff;
    write(&folder.join("config"), &broken);
    poke(1);
    place.until_reason("resticrepository/nas", "RepositoryDamaged");
    assert_eq!(
        std::fs::read(folder.join("config")).unwrap(),
        broken,
        "a damaged repository is left as it is"
    );
    write(&folder.join("config"), &config);
    place.until_ready("resticrepository/nas");

    let away = folder.with_file_name("reasons-away");
    std::fs::rename(&folder, &away).unwrap();
    poke(2);
    let message = place.until_reason("resticrepository/nas", "RepositoryMissing");
    assert!(message.contains("is not created anew by itself"), "{message}");
    assert!(
        !folder.join("config").exists(),
        "a repository that is gone is not created anew"
    );
    std::fs::rename(&away, &folder).unwrap();
    place.until_ready("resticrepository/nas");

    // A host that does not answer, and a port that refuses.
    for url in [
        "rest:https://127.0.0.1:9/reasons/",
        "rest:https://10.255.255.1:8000/reasons/",
    ] {
        let patch = json!({ "spec": { "repositoryURL": url } }).to_string();
        place
            .kubectl(&["patch", "resticrepository/nas", "--type=merge", "-p", &patch])
            .unwrap();
        place.until_reason("resticrepository/nas", "RepositoryUnreachable");
    }
    let patch = json!({ "spec": { "repositoryURL": rest("reasons") } }).to_string();
    place
        .kubectl(&["patch", "resticrepository/nas", "--type=merge", "-p", &patch])
        .unwrap();
    place.until_ready("resticrepository/nas");
    assert_eq!(
        std::fs::read(folder.join("config")).unwrap(),
        config,
        "no look ever changed the repository"
    );

    let logs = place
        .cluster
        .kubectl(&[
            "logs",
            "-n",
            "restic-fleet-system",
            "-l",
            "app.kubernetes.io/name=fleet-spoke",
            "--tail=-1",
        ])
        .unwrap();
    let events = place.kubectl(&["get", "events", "-o", "json"]).unwrap();
    let status = place
        .kubectl(&["get", "resticrepository/nas", "-o", "json"])
        .unwrap();
    for secret in [
        "right horse",
        "rest-test-secret",
        "not-this-one",
        "fleet-test-secret",
    ] {
        assert!(
            !logs.contains(secret) && !events.contains(secret) && !status.contains(secret),
            "{secret:?} leaked"
        );
    }
}

fn write(path: &std::path::Path, content: &[u8]) {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).unwrap();
    std::fs::write(path, content).unwrap();
}

#[test]
#[ignore = "needs clusters: make test"]
fn what_a_backup_waits_for_is_told_apart_and_heals() {
    let place = Place::new("b", "waiting");
    place.apply(&[place.backup(
        "orders",
        json!({ "name": "nas" }),
        json!({ "source": { "pvc": { "claimName": "later" } } }),
    )]);
    place.until_reason("resticbackup/orders", "RepositoryNotFound");
    let mut repository = place.repository("nas", &s3(1, "waiting"));
    repository["spec"]["credentialsSecretRef"]["name"] = json!("absent");
    place.apply(&[repository]);
    place.until("resticbackup/orders", "the repository's own reason", |o| {
        let ready = condition(o, "Ready");
        let message = ready["message"].as_str().unwrap_or_default();
        ready["reason"] == "RepositoryNotReady" && message.contains("CredentialsNotFound")
    });
    place.apply(&[place.repository("nas", &s3(1, "waiting"))]);
    let message = place.until_reason("resticbackup/orders", "PersistentVolumeClaimNotFound");
    assert!(message.contains("\"later\""), "{message}");
    let claim = json!({ "apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": { "name": "later" },
        "spec": { "accessModes": ["ReadWriteOnce"], "resources": { "requests": { "storage": "1Gi" } } } });
    place.apply(&[claim]);
    place.until_ready("resticbackup/orders");

    // What no calendar has is refused at once, with what is wrong.
    let wrong = r#"{"spec":{"schedule":"61 * * * *"}}"#;
    let refused = place.kubectl(&["patch", "resticbackup/orders", "--type=merge", "-p", wrong]);
    let message = refused.unwrap_err().to_string();
    assert!(message.contains("write five cron fields"), "{message}");
    place
        .kubectl(&[
            "patch",
            "resticbackup/orders",
            "--type=merge",
            "-p",
            r#"{"spec":{"schedule":"0 3 * * *","timezone":"Europe/Berlin"}}"#,
        ])
        .unwrap();
    place.until("resticbackup/orders", "three o'clock in Berlin", |o| {
        let next = o["status"]["nextBackup"].as_str();
        next.is_some_and(|t| t.contains("T02:00:00") || t.contains("T01:00:00"))
    });
    place
        .kubectl(&[
            "patch",
            "resticbackup/orders",
            "--type=merge",
            "-p",
            r#"{"spec":{"suspend":true}}"#,
        ])
        .unwrap();
    place.until("resticbackup/orders", "no next run", |o| {
        o["status"]["nextBackup"].is_null()
    });

    let message = place
        .try_apply(&[place.backup(
            "twice",
            json!({ "name": "nas" }),
            json!({ "source": {
        "pvc": { "claimName": "data" }, "customSource": { "podTemplate": {}, "backupPath": "/x" } } }),
        )])
        .unwrap_err()
        .to_string();
    assert!(
        message.contains("exactly one of pvc, podVolumeBackup, customSource and stdin"),
        "{message}"
    );
}
