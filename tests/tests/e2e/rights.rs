//! Files and rights: credentials as people write them, pods of any user, SSH, and claims that finished pods do not hold.

use serde_json::{Value, json};

use crate::retention::restic;
use crate::support::{Place, bed, condition, noise, rest, s3};

fn nas() -> Value {
    json!({ "name": "nas" })
}

/// A Secret with values as they come out of files, base64 of each byte as it is.
fn raw_secret(name: &str, values: &[(&str, &str)]) -> Value {
    let text: serde_json::Map<String, Value> =
        values.iter().map(|(k, v)| ((*k).to_owned(), json!(v))).collect();
    json!({ "apiVersion": "v1", "kind": "Secret", "metadata": { "name": name }, "stringData": text })
}

fn root(user: i64) -> Value {
    json!({ "jobConfig": { "securityContext": { "runAsUser": user, "runAsGroup": user } } })
}

#[test]
#[ignore = "needs clusters: make test"]
fn a_secret_made_from_files_serves_manager_pods_and_copies_alike() {
    let place = Place::new("a", "made-from-files");
    let guest = Place::new("a", "made-from-files-guest");
    let (key, secret) = bed().servers().s3_credentials();
    let values = [
        ("RESTIC_PASSWORD", "right horse\r\n".to_owned()),
        ("AWS_ACCESS_KEY_ID", format!("{key}\n")),
        ("AWS_SECRET_ACCESS_KEY", format!(" {secret}\n\n")),
    ];
    let values: Vec<(&str, &str)> = values.iter().map(|(k, v)| (*k, v.as_str())).collect();
    let mut repository = place.repository("nas", &s3(0, "made-from-files"));
    repository["spec"]["allowedNamespaces"] = json!({ "from": "All" });
    place.apply(&[
        raw_secret("storage", &values),
        repository,
        place.backup("orders", nas(), json!({})),
    ]);
    let there = json!({ "name": "nas", "namespace": "made-from-files" });
    guest.apply(&[guest.backup("orders", there, json!({}))]);
    for place in [&place, &guest] {
        place.until_ready("resticbackup/orders");
        let run = place.run("orders", "1");
        assert_eq!(run["result"], "Succeeded", "{run:#}");
    }
    // The password is the one that a person would type.
    restic(&s3(0, "made-from-files"), &["cat", "config"]);

    let mut bad = values.clone();
    bad[1].1 = "fle\net";
    place.apply(&[raw_secret("storage", &bad)]);
    let message = place.until_reason("resticrepository/nas", "CredentialsInvalid");
    for part in ["AWS_ACCESS_KEY_ID", "byte 0x0a at position 3"] {
        assert!(message.contains(part), "{part} in {message}");
    }
    assert!(!message.contains("fle\net"), "{message}");
    bad[1].1 = "\u{feff}fleet";
    place.apply(&[raw_secret("storage", &bad)]);
    place.until("resticrepository/nas", "the mark that an editor left", |o| {
        let message = condition(o, "Ready")["message"].to_string();
        message.contains("byte 0xef at position 0")
    });
    place.apply(&[raw_secret("storage", &values)]);
    place.until_ready("resticbackup/orders");
    assert_eq!(place.run("orders", "2")["result"], "Succeeded");
}

#[test]
#[ignore = "needs clusters: make test"]
fn pods_of_any_user_open_a_repository_whose_authority_is_a_file() {
    let place = Place::new("b", "any-user");
    place.apply(&[place.repository("nas", &rest("any-user"))]);
    place.until_ready("resticrepository/nas");
    for (n, security) in [
        json!({ "runAsUser": 568, "runAsGroup": 568 }),
        json!({ "runAsUser": 0, "fsGroup": 3000 }),
        json!({ "runAsUser": 4711, "supplementalGroups": [12] }),
    ]
    .into_iter()
    .enumerate()
    {
        let name = format!("user-{n}");
        let more = json!({ "jobConfig": { "securityContext": security } });
        place.apply(&[place.backup(&name, nas(), more)]);
        place.until_ready(&format!("resticbackup/{name}"));
        let run = place.run(&name, "1");
        assert_eq!(run["result"], "Succeeded", "{security}: {run:#}");
        let cron_job = place.get(&format!("cronjob/resticbackup-{name}"));
        let pod = &cron_job["spec"]["jobTemplate"]["spec"]["template"]["spec"]["securityContext"];
        assert_eq!(pod["seccompProfile"]["type"], "RuntimeDefault", "{pod}");
    }
}

#[test]
#[ignore = "needs clusters: make test"]
fn a_repository_behind_ssh_works_for_every_user_and_locks_keep_their_owner() {
    let place = Place::new("a", "ssh");
    let servers = bed().servers();
    let (key, hosts) = servers.ssh_files().unwrap();
    // As `--from-literal="$(cat key)"` writes it, and as an editor on Windows does.
    let values = |key: &str, hosts: &str| {
        raw_secret(
            "storage",
            &[
                ("RESTIC_PASSWORD", "right horse"),
                ("SSH_PRIVATE_KEY", key),
                ("SSH_KNOWN_HOSTS", hosts),
            ],
        )
    };
    place.apply(&[
        values(&key.trim_end().replace('\n', "\r\n"), &hosts),
        place.repository("nas", &servers.sftp_url("repo")),
    ]);
    place.until_ready("resticrepository/nas");
    for (name, more) in [("plain", json!({})), ("root", root(0)), ("other", root(568))] {
        place.apply(&[place.backup(name, nas(), more)]);
        place.until_ready(&format!("resticbackup/{name}"));
        let run = place.run(name, "1");
        assert_eq!(run["result"], "Succeeded", "{name}: {run:#}");
    }
    // The name in a snapshot is that in the lock which was held for it.
    let (id, known) = (servers.dir().join("ssh/id"), servers.dir().join("ssh/known"));
    std::fs::write(&known, &hosts).unwrap();
    let options = format!(
        "sftp.args=-F none -i {} -o UserKnownHostsFile={}",
        id.display(),
        known.display()
    );
    let listed = restic(
        &servers.sftp_url("repo"),
        &["-o", &options, "snapshots", "--json", "--no-lock"],
    );
    let snapshots: Value = serde_json::from_str(&listed).unwrap();
    let users: Vec<&str> = snapshots
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|s| s["username"].as_str())
        .collect();
    assert_eq!(users.len(), 3, "{listed}");
    for user in users {
        assert!(user.starts_with("fleet:a:") && user.ends_with(":0"), "{user}");
    }
    let restore = json!({ "apiVersion": "backup.resticbackup.io/v1alpha1", "kind": "ResticRestore", "metadata": { "name": "back" },
        "spec": { "backupRef": { "name": "plain" }, "target": { "pvc": { "claimName": "data", "path": "back" } } } });
    place.apply(&[restore]);
    place.until("resticrestore/back", "Completed", |o| {
        o["status"]["phase"] == "Completed"
    });

    // A host key that is not the server's. Which of ssh's lines restic quotes depends on when it reads them.
    let other = hosts.replace("ssh-ed25519 AAAA", "ssh-ed25519 AAAB");
    place.apply(&[values(&key, &other)]);
    let changed = place.until("resticrepository/nas", "a reason", |o| {
        condition(o, "Ready")["status"] == "False"
            && condition(o, "Ready")["message"].to_string().contains("ssh: ")
    });
    let message = condition(&changed, "Ready")["message"].to_string();
    assert!(
        ["Host key verification failed", "known_hosts", "host key is known"]
            .iter()
            .any(|words| message.contains(words)),
        "{message}"
    );
    place.apply(&[values("", &hosts)]);
    let message = place.until_reason("resticrepository/nas", "CredentialsInvalid");
    assert!(message.contains("SSH_PRIVATE_KEY"), "{message}");
}

#[test]
#[ignore = "needs clusters: make test"]
fn a_folder_of_the_container_is_refused_as_a_repository() {
    let place = Place::new("b", "folder");
    for url in ["local:/srv/restic", "rclone:/srv/restic"] {
        let refused = place
            .try_apply(&[place.repository("nas", url)])
            .unwrap_err()
            .to_string();
        assert!(refused.contains("rest-server or SFTP"), "{url}: {refused}");
    }
    // The schema cannot see through every spelling of rclone's.
    place.apply(&[place.repository("nas", "rclone:folder")]);
    let message = place.until_reason("resticrepository/nas", "InvalidSpec");
    assert!(
        message.contains("spec.repositoryURL") && message.contains("rest-server"),
        "{message}"
    );
}

#[test]
#[ignore = "needs clusters: make test"]
fn finished_pods_do_not_hold_a_claim() {
    let place = Place::new("b", "held");
    place.apply(&[
        place.repository("nas", &s3(1, "held")),
        place.backup("orders", nas(), json!({})),
    ]);
    place.until_ready("resticbackup/orders");
    let pods = || {
        let text = place.kubectl(&["get", "pods", "-o", "json"]).unwrap();
        let list: Value = serde_json::from_str(&text).unwrap();
        list["items"].as_array().unwrap().len()
    };
    let until_pods = |what: &str, count: usize| {
        let end = std::time::Instant::now() + crate::support::SOON;
        while pods() != count {
            assert!(std::time::Instant::now() < end, "{what}: {}", pods());
            std::thread::sleep(std::time::Duration::from_millis(300));
        }
    };
    let run = place.run("orders", "1");
    assert_eq!(run["result"], "Succeeded", "{run:#}");
    until_pods("the pod of a good run goes", 0);
    let job = place.get(&format!("job/{}", run["job"].as_str().unwrap()));
    assert_eq!(job["status"]["succeeded"], 1, "its Job stays: {job:#}");

    // One that failed keeps its log, until somebody waits for the claim.
    place.write("secret.txt", b"for nobody");
    use std::os::unix::fs::PermissionsExt as _;
    let mode = std::fs::Permissions::from_mode(0o600);
    std::fs::set_permissions(place.data().join("secret.txt"), mode).unwrap();
    let run = place.run("orders", "2");
    assert_eq!(run["reason"], "FilesUnreadable", "{run:#}");
    let log = place
        .kubectl(&["logs", &format!("job/{}", run["job"].as_str().unwrap())])
        .unwrap();
    assert!(log.contains("secret.txt"), "{log}");
    let restore = json!({ "apiVersion": "backup.resticbackup.io/v1alpha1", "kind": "ResticRestore", "metadata": { "name": "back" },
        "spec": { "backupRef": { "name": "orders" }, "includePaths": ["no/such/file"],
                  "target": { "pvc": { "claimName": "data", "path": "back" } } } });
    place.apply(&[restore]);
    place.until("resticrestore/back", "Failed", |o| {
        o["status"]["phase"] == "Failed"
    });
    until_pods("both pods that failed stay", 2);

    place.kubectl(&["delete", "pvc/data", "--wait=false"]).unwrap();
    place.until("pvc/data", "the claim is gone", Value::is_null);
    until_pods("no pod", 0);
    let last = place.get("resticbackup/orders");
    assert_eq!(
        last["status"]["statistics"]["totalBackups"], 2,
        "nothing counts twice"
    );
    assert_eq!(last["status"]["lastBackup"]["reason"], "FilesUnreadable");
}

#[test]
#[ignore = "needs clusters: make test"]
fn a_claim_that_somebody_else_holds_is_said_to_be_in_deletion() {
    let place = Place::new("b", "deleting");
    place.apply(&[
        place.repository("nas", &s3(1, "deleting")),
        place.backup("orders", nas(), json!({})),
        json!({ "apiVersion": "v1", "kind": "Pod", "metadata": { "name": "application" }, "spec": {
            "terminationGracePeriodSeconds": 1,
            "containers": [{ "name": "a", "image": tests::images::restic_image(), "command": ["sleep", "600"],
                             "volumeMounts": [{ "name": "d", "mountPath": "/d" }] }],
            "volumes": [{ "name": "d", "persistentVolumeClaim": { "claimName": "data" } }] } }),
    ]);
    place.until_ready("resticbackup/orders");
    place.until("pod/application", "Running", |o| {
        o["status"]["phase"] == "Running"
    });
    place.kubectl(&["delete", "pvc/data", "--wait=false"]).unwrap();
    let message = place.until_reason("resticbackup/orders", "PersistentVolumeClaimNotFound");
    assert!(message.contains("is being deleted"), "{message}");
}

#[test]
#[ignore = "needs clusters: make long"]
fn a_backup_reads_only_what_changed_although_a_namesake_shares_the_repository() {
    let places = [Place::new("a", "namesake"), Place::new("b", "namesake")];
    for (n, place) in places.iter().enumerate() {
        for file in 0..20 {
            place.write(&format!("many/{file}"), &noise(1000 + 50 * n + file));
        }
        place.apply(&[
            place.repository("nas", &s3(n, "namesake")),
            place.backup("orders", nas(), json!({})),
            place.backup(
                "skips",
                nas(),
                json!({ "restic": { "extraArgs": ["--skip-if-unchanged=true"], "tags": ["skips"] } }),
            ),
        ]);
        place.until_ready("resticbackup/orders");
        place.until_ready("resticbackup/skips");
    }
    for request in ["1", "2", "3"] {
        for place in &places {
            let run = place.run("orders", request);
            assert_eq!(run["result"], "Succeeded", "{run:#}");
            let new = run["filesNew"].as_i64().unwrap() + run["filesChanged"].as_i64().unwrap();
            assert!(request == "1" || new == 0, "{new} files were read again: {run:#}");
            let skipped = place.run("skips", request);
            assert_eq!(skipped["result"], "Succeeded", "{skipped:#}");
            assert_eq!(skipped["snapshotID"].is_null(), request != "1", "{skipped:#}");
        }
    }
}
