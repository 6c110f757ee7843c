//! The hub is lost with its volume in the middle of deleting, and put back from `fleet hub backup`.

use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;

use serde_json::{Value, json};
use tests::{fleet, storage_log};

use super::deleting::{Fault, Scene, Then, strike};
use crate::support::{bed, fleet_json};

/// The hub's store and authority are destroyed while b deletes; what is put back, on a fresh volume, knows nothing of the run.
#[derive(Default)]
struct HubLost {
    dir: Option<tempfile::TempDir>,
    /// What the audit said when the backup was made.
    audit: Vec<Value>,
}

impl HubLost {
    fn backup(&self) -> PathBuf {
        self.dir.as_ref().unwrap().path().join("hub.db")
    }
}

fn grants() -> Vec<Value> {
    fleet_json(&["audit", "--limit", "200"])["items"]
        .as_array()
        .unwrap()
        .clone()
}

impl Fault for HubLost {
    const NAME: &'static str = "hublost";
    const THEN: Then = Then::Either;

    fn prepare(&mut self) {
        self.dir = Some(tempfile::tempdir().unwrap());
        let file = self.backup();
        fleet::shell_ok(bed(), "fleet", &["hub", "backup", file.to_str().unwrap()]).unwrap();
        self.audit = grants();
    }

    fn inflict(&mut self, scene: &Scene) {
        // What the store will have forgotten.
        assert!(scene.grants().iter().any(|grant| grant.token == scene.token));
        bed().stop_hub().unwrap();
        bed().restore_hub(&self.backup()).unwrap();
    }

    fn mend(&mut self, scene: &Scene) {
        // Every line from before the backup is there, with the same end.
        let now = grants();
        // Both lists are the newest: what the later one has no room for is older than all of it.
        let oldest = now.last().map(|entry| entry["granted"].to_string());
        let shown = |entry: &&Value| Some(entry["granted"].to_string()) >= oldest;
        let ended = self.audit.iter().filter(|entry| !entry["ended"].is_null());
        for before in ended.filter(shown) {
            assert!(now.contains(before), "{before:#}");
        }
        // The run that was forgotten is there as well, in the hub's own words and not in what was read before: its holder
        // was met again.
        let own = storage_log::grants(&fleet_json(&["audit", &scene.id])).unwrap();
        let met = |grant: &&storage_log::Grant| grant.token == scene.token && grant.cluster == "b";
        assert_eq!(own.iter().filter(met).count(), 1, "{own:#?}");
        // The gap shows, and the chain holds.
        let acts = fleet_json(&["audit", "--what", "restore-store"]);
        assert_eq!(
            acts["decisions"][0]["who"],
            json!("fleet-hub restore"),
            "{acts:#}"
        );
        fleet::shell_ok(bed(), "fleet", &["audit", "verify"]).unwrap();
        for cluster in ["a", "b"] {
            let row = fleet_json(&["clusters", cluster])["items"][0].clone();
            assert_eq!(row["state"], "connected", "{row:#}");
        }
        assert_eq!(std::fs::metadata(self.backup()).unwrap().mode() & 0o777, 0o600);
    }
}

#[test]
#[ignore = "needs clusters: make long"]
fn a_hub_that_is_lost_with_its_volume_is_put_back_in_the_middle_of_a_prune_without_a_person() {
    strike(HubLost::default());
}
