//! From the version before to this one and back, with the commands of docs/upgrade.md, while backups and a prune run.
//!
//! `tests/previous.sh` makes the version before, `support::bed` installs it, `make upgrade-test` does both.

mod ledger;
mod manifests;
mod ways;

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::Path;
use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Value, json};
use tests::images::{self, previous as tagged};
use tests::storage_log::{self, Grant};
use tests::{Cluster, charts};

use crate::locks::deleting::{MENDED, slow, until_end, within};
use crate::locks::{lock, try_lock, two, worker};
use crate::retention::{make_snapshots, repository_id, restic, start};
use crate::support::{Place, bed, faulty, fleet_json, keep_logs, noise, previous, rest, s3, suite};
use ways::{Way, What};

/// Of the namespaces, and of the repository that is pruned.
const NAME: &str = "versions";
/// Snapshots of which a run removes all but the newest, and how long one deletion takes, five at a time: the run outlasts a
/// change of versions, and is let go then.
const SNAPSHOTS: u32 = 30;
const SLOW: Duration = Duration::from_secs(60);
/// For a rollout and what goes with it, on a busy machine.
const TURN: Duration = Duration::from_secs(240);

/// Two clusters that back up every minute into one repository, and have a policy each for another one.
struct Scene {
    a: Place,
    b: Place,
    /// restic id of the repository that is pruned.
    id: String,
    /// All grants so far, also those that a hub has forgotten.
    grants: Vec<Grant>,
    /// Slow backups that were asked for.
    asked: u8,
    /// Clusters, and when an operator of the other version led there.
    changed: Vec<(String, Timestamp)>,
}

/// A run of b's policy that deletes slowly.
struct Prune {
    token: u64,
    pod: String,
    before: [Value; 2],
}

impl Scene {
    fn new() -> Scene {
        let (a, b) = two(NAME, [faulty(NAME), faulty(NAME)]);
        for (place, address) in [(&a, 0), (&b, 1)] {
            place.apply(&manifests::backups(place, &s3(address, NAME)));
            for backup in ["minutes", "slow"] {
                place.until_ready(&format!("resticbackup/{backup}"));
            }
        }
        let id = repository_id(&a);
        Scene {
            a,
            b,
            id,
            grants: Vec::new(),
            asked: 0,
            changed: Vec::new(),
        }
    }

    fn places(&self) -> [&Place; 2] {
        [&self.a, &self.b]
    }

    fn note_grants(&mut self) {
        let now = storage_log::grants(&fleet_json(&["audit", &self.id])).unwrap();
        self.grants = storage_log::merge(&self.grants, &now);
    }

    /// b's prune is under way when this returns, and a waits for b.
    fn under_way(&mut self, way: Way) -> Prune {
        let tag = way.name();
        make_snapshots(&rest(NAME), "a", &format!("{NAME}/{tag}"), tag, 1..SNAPSHOTS + 1);
        slow(NAME, SLOW);
        let state = |place: &Place| place.get("globalretentionpolicy/p")["status"].clone();
        let before = [state(&self.a), state(&self.b)];
        let deleted = ledger::packs_of(&self.b).len();
        start(&self.b, "p", &format!("prune-{tag}"));
        within(TURN, "deletions by b", || {
            ledger::packs_of(&self.b).len() > deleted
        });
        let held = lock(&self.id);
        assert_eq!(
            (&held["state"], &held["cluster"]),
            (&json!("held"), &json!("b")),
            "{held:#}"
        );
        let pod = worker(&self.b).expect("b's pod deletes");
        start(&self.a, "p", &format!("waits-{tag}"));
        within(TURN, "a in the queue", || {
            try_lock(&self.id).is_ok_and(|lock| lock["waiters"].as_array().is_some_and(|w| w.len() == 1))
        });
        self.note_grants();
        let token = held["token"].as_u64().unwrap();
        Prune { token, pod, before }
    }

    /// The slow backup of a cluster is in the middle of it when this returns.
    fn backs_up(&mut self, cluster: &Cluster) {
        if ledger::runs(&self.place(cluster).get("resticbackup/slow")) {
            return;
        }
        self.asked += 1;
        let place = self.place(cluster);
        // Other bytes each time, so that all of them are sent.
        let bytes: Vec<u8> = noise(manifests::SLOW_BYTES)
            .iter()
            .map(|byte| byte ^ self.asked)
            .collect();
        place.write("slow.bin", &bytes);
        let asked = format!("backup.resticbackup.io/run=slow-{}", self.asked);
        place
            .kubectl(&["annotate", "resticbackup/slow", &asked, "--overwrite"])
            .unwrap();
        within(TURN, "restic of the slow backup", || ledger::sends(place, "slow"));
    }

    /// Each operator is replaced while a backup of its cluster sends, the hub while one of each does.
    fn replace(&mut self, way: Way) -> String {
        let mut printed = String::new();
        for step in way.steps() {
            let busy = match step.what {
                What::Hub => bed().clusters(),
                What::Operator => vec![step.cluster.clone()],
            };
            for cluster in &busy {
                self.backs_up(cluster);
            }
            printed += &step.run();
            if step.what == What::Operator {
                let image = match way {
                    Way::Up => later(images::SPOKE),
                    Way::Back => tagged(images::SPOKE),
                };
                within(TURN, "an operator of this version that leads", || {
                    ledger::leads(&step.cluster, &image)
                });
                self.changed.push((step.cluster.name.clone(), Timestamp::now()));
            }
        }
        printed
    }

    fn place(&self, cluster: &Cluster) -> &Place {
        match cluster.name.as_str() {
            "a" => &self.a,
            _ => &self.b,
        }
    }

    /// b's run was carried to its end by the same pod under the same token, and a's has followed.
    fn followed(&mut self, prune: &Prune) {
        let pids = self.b.cluster.container_pids(NAME, &prune.pod, "restic");
        assert!(
            !pids.unwrap_or_default().is_empty(),
            "the prune was over before the versions had changed, or was ended: {:#}",
            self.b.get("globalretentionpolicy/p")["status"]
        );
        within(TURN, "the hub, with the same holder", || {
            try_lock(&self.id).is_ok_and(|lock| lock["state"] == "held" && lock["token"] == prune.token)
        });
        self.note_grants();
        bed().servers().rest_proxy().set(&[]).unwrap();
        let ran = until_end(&self.b, &prune.before[1], MENDED);
        assert_eq!(
            (&ran["lastRunResult"], &ran["lastRunToken"]),
            (&json!("Applied"), &json!(prune.token)),
            "{ran:#}"
        );
        let next = until_end(&self.a, &prune.before[0], MENDED);
        assert!(
            ["Applied", "NothingToRemove"].contains(&next["lastRunResult"].as_str().unwrap_or_default()),
            "{next:#}"
        );
        assert!(next["lastRunToken"].as_u64() > Some(prune.token), "{next:#}");
        self.note_grants();
        ledger::judge(&self.grants, prune.token);
        restic(&rest(NAME), &["check", "--read-data", "-q"]);
    }

    /// The whole of one change of versions.
    fn change(&mut self, way: Way) -> String {
        for place in self.places() {
            ledger::suspend_minutes(place, false);
        }
        let prune = self.under_way(way);
        let printed = self.replace(way);
        self.followed(&prune);
        for place in self.places() {
            place.until_within(MENDED, "resticbackup/slow", "its end", |o| !ledger::runs(o));
            // A minute in which the other version begins a run.
            let begun = ledger::jobs(place, "minutes").len();
            within(TURN, "one more run of every minute", || {
                ledger::jobs(place, "minutes").len() > begun
            });
            ledger::suspend_minutes(place, true);
            for backup in ["minutes", "slow"] {
                ledger::every_run_has_one_result(place, backup);
            }
        }
        for (name, at) in &self.changed {
            let place = self
                .places()
                .into_iter()
                .find(|place| place.cluster.name == *name);
            ledger::a_run_spans(place.unwrap(), "slow", *at);
        }
        ledger::nothing_drifts(&self.places());
        printed
    }
}

/// An image of this version, as what installs it here calls it.
fn later(image: &str) -> String {
    match suite().by_charts {
        true => charts::released(image),
        false => image.to_owned(),
    }
}

/// Images of all pods of ours.
fn images_in_use() -> Vec<String> {
    let pods = bed().clusters().into_iter().flat_map(|cluster| {
        let all = ["fleet-hub", "fleet-spoke"].map(|name| cluster.pods_of(name).unwrap());
        all.concat()
    });
    let image = |pod: Value| pod["spec"]["containers"][0]["image"].as_str().unwrap().to_owned();
    let mut images: Vec<String> = pods
        .filter(|pod| pod["metadata"]["deletionTimestamp"].is_null())
        .map(image)
        .collect();
    images.sort();
    images.dedup();
    images
}

#[test]
#[ignore = "needs clusters and the version before: make upgrade-test"]
fn backups_and_a_prune_go_on_through_an_upgrade_and_the_way_back() {
    let folder = previous().expect("FLEET_PREVIOUS names what tests/previous.sh has made");
    let mut scene = Scene::new();
    if let Err(panic) = catch_unwind(AssertUnwindSafe(|| there_and_back(&mut scene, &folder))) {
        keep_logs(bed());
        resume_unwind(panic);
    }
}

fn there_and_back(scene: &mut Scene, folder: &Path) {
    let this = [images::HUB, images::SPOKE].map(later);
    let before = [images::HUB, images::SPOKE].map(tagged);
    assert_eq!(images_in_use(), before);
    let content = ledger::content(&scene.places());

    scene.change(Way::Up);
    assert_eq!(images_in_use(), this);
    manifests::of_before_are_accepted(folder, &scene.places());

    let printed = scene.change(Way::Back);
    assert_eq!(images_in_use(), before);
    assert!(
        printed.contains("was previously applied but is missing"),
        "{printed}"
    );
    // Neither way has left anything in what people wrote, nor in what was made of it.
    assert_eq!(ledger::content(&scene.places()), content);
    // The gap in the audit shows.
    let acts = fleet_json(&["audit", "--what", "restore-store"]);
    assert_eq!(acts["decisions"][0]["who"], "fleet-hub restore", "{acts:#}");
}
