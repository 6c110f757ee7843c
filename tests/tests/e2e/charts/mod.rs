//! Charts and manifests on a bed on which nothing is installed: what they render is taken by the API server, and README's
//! commands make a fleet. `tests/run.sh charts` brings the bed up for these alone.

mod dry_run;
mod install;
mod namespaces;

use std::path::PathBuf;
use std::process::{Command, Output};
use std::sync::OnceLock;

use tests::{Bed, Cluster};

/// The bed as it comes: without hub and operators.
fn bare() -> &'static Bed {
    static BED: OnceLock<Bed> = OnceLock::new();
    BED.get_or_init(|| Bed::attach(&std::env::var("FLEET_SUITE").unwrap_or("charts".to_owned())).unwrap())
}

fn chart(name: &str) -> PathBuf {
    bare().workspace.root.join("deploy/charts").join(name)
}

/// Helm in a cluster. Its own files are those of the bed.
fn helm(cluster: &Cluster, arguments: &[&str]) -> Output {
    let program = bare().workspace.program("helm");
    let home = bare().dir().join("helm");
    let output = Command::new(&program)
        .args(["--kubeconfig", &cluster.kubeconfig().to_string_lossy()])
        .args(arguments)
        .env("HOME", &home)
        .output();
    output.unwrap_or_else(|error| panic!("{}: {error}; `make charts-test` builds it", program.display()))
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// What it prints; a failure is that of the test.
fn helm_ok(cluster: &Cluster, arguments: &[&str]) -> String {
    let output = helm(cluster, arguments);
    let printed = text(&output.stdout);
    assert!(
        output.status.success(),
        "helm {}: {printed}{}",
        arguments.join(" "),
        text(&output.stderr)
    );
    printed
}
