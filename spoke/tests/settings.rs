//! `docs/reference/settings-spoke.md` has every setting of the operator.

use std::path::Path;

use clap::CommandFactory as _;

#[path = "../../tests/tests/documents/settings.rs"]
mod page;

const HEAD: &str = "# Settings of the operator\n\n\
    Write them into ConfigMap `fleet-spoke-settings` in namespace `restic-fleet-system`, or into `settings` of the chart \
    ([values](values-spoke.md)). fleet-spoke reads them when it starts: \
    `kubectl rollout restart -n restic-fleet-system deployment/fleet-spoke`.";

#[test]
fn the_page_has_every_setting() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/reference/settings-spoke.md");
    page::check(spoke::arguments::Arguments::command(), &page, HEAD);
}
