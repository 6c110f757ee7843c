//! Charts and manifests on a bed on which nothing is installed: what they render is taken by the API server, and README's
//! commands make a fleet. `tests/run.sh charts` brings the bed up for these alone.

mod dry_run;
mod install;
mod namespaces;

use std::path::PathBuf;
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

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// What Helm prints; a failure is that of the test.
fn helm_ok(cluster: &Cluster, arguments: &[&str]) -> String {
    tests::charts::helm_ok(bare(), cluster, arguments).unwrap()
}
