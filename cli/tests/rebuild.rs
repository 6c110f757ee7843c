//! A lost cluster, printed from a hub over real mTLS.

use std::process::Command;

use crate::harness::{Fleet, ID, object, repository};
use proto::v1::object_state::Body as Object;
use proto::v1::{BackupState, Hello};
use serde_json::{Value, json};

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_cluster_is_printed_as_yaml_that_can_be_applied() {
    let fleet = Fleet::new().await;
    let says = Hello {
        cluster_uid: "lost".to_owned(),
        ..Hello::default()
    };
    let spoke = fleet.spoke_that_says("berlin", says).await;
    let manifest = |kind: &str, name: &str, spec: Value| {
        json!({ "apiVersion": "backup.resticbackup.io/v1alpha1", "kind": kind,
                "metadata": { "name": name, "namespace": "ns" }, "spec": spec })
        .to_string()
    };
    let mut nas = repository(ID);
    let spec =
        json!({ "repositoryURL": "s3:http://one/bucket", "credentialsSecretRef": { "name": "storage" } });
    nas.manifest = manifest("ResticRepository", "nas", spec);
    let mut orders = object("orders", Object::Backup(BackupState::default()));
    let spec = json!({ "repositoryRef": { "name": "nas" }, "schedule": "@daily", "source": { "pvc": { "claimName": "data" } } });
    orders.manifest = manifest("ResticBackup", "orders", spec);
    spoke.tell(vec![orders, nas]).await;
    fleet
        .until("both resources", async |fleet| {
            let count = |member: &hub::inventory::Member| member.objects.len() == 2;
            fleet
                .running
                .hub
                .read(|inventory| inventory.member("berlin").is_some_and(count))
        })
        .await;
    drop(spoke);
    let dir = tempfile::tempdir().unwrap();
    let (cert, key) = fleet.certificate("spiffe://fleet/admin/root");
    std::fs::write(dir.path().join("cert"), cert).unwrap();
    std::fs::write(dir.path().join("key"), key).unwrap();
    let ca = fleet.dir.path().join("ca.crt");
    let run = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_fleet"));
        command
            .args(arguments)
            .env(
                "FLEET_HUB",
                format!("https://127.0.0.1:{}", fleet.running.view.port()),
            )
            .env("FLEET_CA", &ca)
            .env("FLEET_CERT", dir.path().join("cert"))
            .env("FLEET_KEY", dir.path().join("key"))
            .env_remove("FLEET_CONTEXT");
        tokio::task::spawn_blocking(move || command.output().unwrap())
    };
    let output = run(&["clusters", "rebuild", "berlin", "--restores"])
        .await
        .unwrap();
    let (text, notes) = (
        String::from_utf8(output.stdout).unwrap(),
        String::from_utf8(output.stderr).unwrap(),
    );
    assert!(output.status.success(), "{notes}");
    let documents: Vec<Value> = text
        .split("\n---\n")
        .map(|text| serde_saphyr::from_str(text).unwrap())
        .collect();
    let kinds: Vec<&str> = documents
        .iter()
        .map(|one| one["kind"].as_str().unwrap())
        .collect();
    assert_eq!(
        kinds,
        ["Namespace", "ResticRepository", "ResticBackup", "ResticRestore"]
    );
    assert_eq!(documents[1]["spec"]["initialize"], "Never");
    assert_eq!(documents[2]["spec"]["suspend"], true);
    assert_eq!(documents[3]["spec"]["target"]["newPVC"]["name"], "data");
    assert!(
        notes.contains("apply these as well, after the namespaces") && notes.contains("ns/storage"),
        "{notes}"
    );
    assert_eq!(
        documents[3]["spec"]["snapshotSelector"]["tags"],
        json!(["fleet.cluster=berlin", "fleet.backup=ns/orders"]),
        "it has not succeeded in this cluster"
    );
    // A new cluster, which has nothing yet, joins before it was printed.
    let says = Hello {
        cluster_uid: "new".to_owned(),
        ..Hello::default()
    };
    let accept = ["clusters", "accept", "berlin", "--uid", "new"];
    let accepted = run(&accept).await.unwrap();
    let advice = String::from_utf8(accepted.stderr).unwrap();
    assert!(
        advice.contains("fleet clusters rebuild berlin --uid lost"),
        "{advice}"
    );
    let spoke = fleet.spoke_that_says("berlin", says).await;
    spoke.tell(Vec::new()).await;
    fleet
        .until("nothing", async |fleet| {
            let none = |member: &hub::inventory::Member| member.objects.is_empty();
            fleet
                .running
                .hub
                .read(|inventory| inventory.member("berlin").is_some_and(none))
        })
        .await;
    let output = run(&["clusters", "rebuild", "berlin"]).await.unwrap();
    let notes = String::from_utf8(output.stderr).unwrap();
    assert_eq!(
        (output.status.code(), output.stdout.len()),
        (Some(1), 0),
        "{notes}"
    );
    assert!(
        notes.contains("had 0 resources") && notes.contains("fleet clusters rebuild berlin --uid lost"),
        "{notes}"
    );
    let lost = ["clusters", "rebuild", "berlin", "--uid", "lost", "--restores"];
    let output = run(&lost).await.unwrap();
    assert!(output.status.success(), "{output:?}");
    assert_eq!(String::from_utf8(output.stdout).unwrap(), text);
    let output = run(&["clusters", "rebuild", "munich"]).await.unwrap();
    assert_eq!(output.status.code(), Some(2), "{output:?}");
}
