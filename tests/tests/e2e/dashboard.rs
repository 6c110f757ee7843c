//! The dashboard of a hub on real clusters, in Chromium: what it shows is so, and what is pressed happens.

use std::path::PathBuf;
use std::process::Command;

use serde_json::{Value, json};
use tests::fleet::{self, SYSTEM};

use crate::retention::restic;
use crate::support::{Place, bed, fleet_json, s3};

/// A deployment of the system, as the test's script calls kubectl for it.
fn kubectl(place: &Place, arguments: &str) -> String {
    let file = place.cluster.kubeconfig();
    format!("kubectl --kubeconfig {} -n {SYSTEM} {arguments}", file.display())
}

#[test]
#[ignore = "needs clusters, Node.js, Chromium and the built dashboard: make test"]
fn a_backup_is_run_a_plan_approved_and_a_file_found_and_restored_elsewhere_from_the_page() {
    let places = [Place::new("a", "page"), Place::new("b", "page")];
    let url = s3(0, "page");
    let [a, b] = &places;
    for place in &places {
        place.apply(&[
            place.repository("nas-of-pages", &url),
            place.backup("orders", json!({ "name": "nas-of-pages" }), json!({})),
        ]);
        place.until_ready("resticbackup/orders");
    }
    let policy = json!({ "apiVersion": "backup.resticbackup.io/v1alpha1", "kind": "GlobalRetentionPolicy",
        "metadata": { "name": "nightly" },
        "spec": { "repositoryRef": { "name": "nas-of-pages" }, "schedule": "@yearly",
                  "guard": { "maxRemovedPercent": 100 },
                  "policies": [{ "selector": {}, "retention": { "keepLast": 1 } }] } });
    a.apply(&[policy]);
    a.until_ready("globalretentionpolicy/nightly");
    a.write("letters/hello.txt", b"what the page has to show");
    let login: Value = fleet_json(&["dashboard", "--no-open"]);
    let ui = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../hub/ui");
    let pictures = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../target/e2e-logs/dashboard");
    std::fs::create_dir_all(&pictures).unwrap();
    let mut script = Command::new("node");
    script.args(["--test", "test/bed.test.mjs"]).current_dir(ui);
    script.env("FLEET_UI_ADDRESS", login["address"].as_str().unwrap());
    script.env("FLEET_UI_ADMIN", login["token"].as_str().unwrap());
    script.env("FLEET_UI_PICTURES", pictures);
    let restart = ["restart", "status --timeout=120s"]
        .map(|what| kubectl(a, &format!("rollout {what} deployment/fleet-hub")))
        .join(" && ");
    script.env("FLEET_UI_RESTART_HUB", restart);
    script.env(
        "FLEET_UI_STOP_SPOKE",
        kubectl(b, "scale deployment/fleet-spoke --replicas=0"),
    );
    script.env(
        "FLEET_UI_START_SPOKE",
        kubectl(b, "scale deployment/fleet-spoke --replicas=1"),
    );
    let path = format!(
        "{}:{}",
        bed().workspace.bin().display(),
        std::env::var("PATH").unwrap()
    );
    let status = script.env("PATH", path).status().unwrap();
    fleet::rollout(&b.cluster, "fleet-spoke").unwrap();
    assert!(status.success(), "{status}");
    let restored = b.data().join("back/letters/hello.txt");
    assert_eq!(std::fs::read(restored).unwrap(), b"what the page has to show");
    // The approved plan has left one of each group.
    let list: Value = serde_json::from_str(&restic(&url, &["snapshots", "--json"])).unwrap();
    assert_eq!(list.as_array().unwrap().len(), 1, "{list:#}");
}
