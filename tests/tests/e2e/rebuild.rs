//! What is lost comes back: a cluster's namespace from the hub, and everything from a bucket and a recovery kit.

use std::time::Instant;

use serde_json::{Value, json};
use tests::fleet::{self, shell, shell_ok};

use crate::faults::until;
use crate::restores::completed;
use crate::support::{Place, bed, s3, tree};

#[test]
#[ignore = "needs clusters: make test"]
fn a_lost_namespace_comes_back_from_the_hub_and_from_a_kit_alone_byte_for_byte() {
    let (place, url) = (Place::new("b", "lost"), s3(0, "lost"));
    place.apply(&[
        place.repository("nas", &url),
        place.backup(
            "orders",
            json!({ "name": "nas" }),
            json!({ "restic": { "tags": ["daily"] } }),
        ),
    ]);
    place.until_ready("resticbackup/orders");
    assert_eq!(place.run("orders", "1")["result"], "Succeeded");
    let wanted = tree(&place.data());

    // The kit, while all is well.
    let dir = tempfile::tempdir().unwrap();
    let kit = dir.path().join("kit.yaml").display().to_string();
    let config = place.cluster.kubeconfig();
    let config = config.to_string_lossy();
    let make = ["kit", "-n", "lost", "--with-passwords", "--to", &kit];
    let made = shell(bed(), "fleet", &make, &[("KUBECONFIG", &config)]).unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let opened = shell_ok(bed(), "fleet", &["kit", "verify", &kit]).unwrap();
    assert!(
        opened.contains("lost/nas: opened") && opened.contains("1 snapshots"),
        "{opened}"
    );

    // What the hub has heard of it, when the cluster is heard for the last time.
    let rebuild = ["clusters", "rebuild", "b", "-n", "lost", "--restores"];
    let printed = || String::from_utf8(shell(bed(), "fleet", &rebuild, &[]).unwrap().stdout).unwrap();
    // With its run: its restore takes the snapshots of this cluster alone, whichever else has had the name.
    until("the backup in the hub, and its snapshot", || {
        printed().contains("- fleet.cluster-uid=")
    });
    let manifests = printed();
    assert!(manifests.contains("name: orders"), "{manifests}");
    assert!(!manifests.contains("right horse"), "{manifests}");
    place
        .cluster
        .kubectl(&["delete", "namespace", "lost", "--timeout=60s"])
        .unwrap();

    let begun = Instant::now();
    place.cluster.kubectl(&["create", "namespace", "lost"]).unwrap();
    place.apply(&[place.secret("storage", "right horse")]);
    // The bed's own volumes belong to root.
    let manifests = manifests.replace("name: data\n", "name: data\n      storageClassName: local\n");
    let volume = fleet::volume_for(&place.cluster, "lost", "data").unwrap();
    place.cluster.apply(&manifests).unwrap();
    completed(&place, "rebuild-data");
    assert_eq!(tree(&volume), wanted, "byte for byte");
    eprintln!(
        "a namespace was rebuilt in {:.1} s",
        begun.elapsed().as_secs_f32()
    );
    let backup = place.get("resticbackup/orders");
    assert_eq!(
        (&backup["spec"]["suspend"], &backup["spec"]["restic"]["tags"]),
        (&json!(true), &json!(["daily"]))
    );
    place.until_ready("resticbackup/orders");

    // Everything is lost but the bucket and the kit: restic alone, as the kit says.
    let begun = Instant::now();
    let kit: Value = serde_saphyr::from_str(&std::fs::read_to_string(&kit).unwrap()).unwrap();
    let uid = kit["cluster"]["uid"].as_str().unwrap();
    assert!(
        manifests.contains(&format!("fleet.cluster-uid={uid}")),
        "{manifests}"
    );
    let repository = &kit["repositories"][0];
    let mut restic = std::process::Command::new(bed().workspace.program("restic"));
    restic
        .env_clear()
        .env("RESTIC_CACHE_DIR", dir.path().join("cache"));
    restic.env("RESTIC_REPOSITORY", repository["url"].as_str().unwrap());
    for (name, value) in repository["variables"].as_object().unwrap() {
        // Files are of other back ends.
        if name != "RESTIC_CACERT" {
            restic.env(name, value.as_str().unwrap());
        }
    }
    let back = dir.path().join("back");
    let restore = [
        "restore",
        "latest:/backup",
        "--no-lock",
        "--tag",
        "fleet.cluster=b,fleet.backup=lost/orders",
        "--target",
    ];
    let output = restic.args(restore).arg(&back).output().unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    assert_eq!(tree(&back), wanted, "byte for byte");
    eprintln!(
        "the data came back by the kit in {:.1} s",
        begun.elapsed().as_secs_f32()
    );
}
