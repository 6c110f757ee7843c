//! `docs/reference/settings-hub.md` has every setting of the hub.

use std::path::Path;

use clap::CommandFactory as _;

#[path = "../../tests/tests/documents/settings.rs"]
mod page;

const HEAD: &str = "# Settings of the hub\n\n\
    Write them into ConfigMap `fleet-hub-settings` in namespace `restic-fleet-system`, or into `settings` of the chart \
    ([values](values-hub.md)). fleet-hub reads them when it starts: \
    `kubectl rollout restart -n restic-fleet-system deployment/fleet-hub`.";

#[test]
fn the_page_has_every_setting() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/reference/settings-hub.md");
    page::check(hub::arguments::Arguments::command(), &page, HEAD);
}
