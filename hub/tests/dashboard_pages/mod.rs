//! The dashboard in Chromium, at a hub whose clusters are played: `make ui-test`. Needs Node, Chromium and the built
//! dashboard, so it runs only when it is asked for.

mod claims;
mod stage;

use std::path::Path;
use std::process::Stdio;

use crate::dashboard::own_login as login;
use crate::harness::Fleet;

/// `FLEET_UI_COMMAND` names another command to run at the hub, such as a browser.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Node, Chromium and the built dashboard: make ui-test"]
async fn every_screen_in_a_browser() {
    let fleet = Fleet::with(&[
        "--disconnect-grace",
        "1s",
        "--stale-after",
        "30m",
        "--lease-ttl",
        "3s",
        "--lock-delay",
        "6s",
    ])
    .await;
    stage::set(&fleet).await;
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("ui");
    let command = std::env::var("FLEET_UI_COMMAND")
        .unwrap_or_else(|_| "node --test test/unit.test.mjs test/pages.test.mjs".to_owned());
    let mut child = tokio::process::Command::new("sh");
    child
        .args(["-c", &command])
        .current_dir(folder)
        .kill_on_drop(true)
        .stdin(Stdio::null());
    child.env(
        "FLEET_UI_ADDRESS",
        format!("https://127.0.0.1:{}", fleet.running.view.port()),
    );
    for (name, who) in [
        ("OPERATOR", "operator/olga"),
        ("VIEWER", "viewer/vic"),
        ("STRANGER", "person/eve"),
        ("ADMIN", "admin/root"),
    ] {
        child.env(format!("FLEET_UI_{name}"), login(&fleet, who).await);
    }
    let status = child.status().await.unwrap();
    assert!(status.success(), "{status}");
}
