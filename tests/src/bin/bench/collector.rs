//! What it costs a storage that the figures of a repository stay fresh, with two clusters that report it: requests by the log
//! of a proxy before the storage.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use serde_json::{Value, json};
use tests::proxy::Entry;
use tests::{Bed, Options, fleet, progress};

use crate::report::{Figure, Goal};
use crate::{load, retention};

/// Between two readings. The cost of one does not depend on it, so the hour of a real fleet is not waited for.
const INTERVAL: &str = "60s";
/// Snapshots that came since the reading before: an hour of a fleet with as many hosts.
const NEW: usize = 24;
/// A state that is waited for.
const LIMIT: Duration = Duration::from_secs(600);
const NAME: &str = "figures";

struct Fleet {
    bed: Bed,
    url: String,
}

impl Fleet {
    fn restic(&self, arguments: &[&str]) -> anyhow::Result<()> {
        let (user, password) = self.bed.servers().rest_credentials();
        let status = Command::new(self.bed.workspace.program("restic"))
            .args(arguments)
            .env("RESTIC_REPOSITORY", &self.url)
            .env("RESTIC_PASSWORD", retention::PASSWORD)
            .env("RESTIC_REST_USERNAME", user)
            .env("RESTIC_REST_PASSWORD", password)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .status()?;
        ensure!(
            status.success(),
            "restic {} ended with {status}",
            arguments.join(" ")
        );
        Ok(())
    }

    /// When the figures that people see were read, and how many snapshots there were.
    fn reading(&self) -> anyhow::Result<(Value, u64)> {
        let list = fleet::shell_ok(&self.bed, "fleet", &["repos", "-o", "json"])?;
        let list: Value = serde_json::from_str(&list)?;
        let statistics = &list["items"][0]["statistics"];
        let snapshots = statistics["snapshots"].as_u64().unwrap_or_default();
        Ok((statistics["asOf"].clone(), snapshots))
    }

    /// Waits for a later reading than one, of so many snapshots at least.
    fn later(&self, than: &Value, snapshots: u64) -> anyhow::Result<Value> {
        let start = Instant::now();
        loop {
            // The hub may be about to start.
            if let Ok((as_of, count)) = self.reading()
                && !as_of.is_null()
                && as_of != *than
                && count >= snapshots
            {
                return Ok(as_of);
            }
            ensure!(
                start.elapsed() < LIMIT,
                "no reading of {snapshots} snapshots came"
            );
            std::thread::sleep(Duration::from_millis(200));
        }
    }

    fn log(&self) -> anyhow::Result<Vec<Entry>> {
        self.bed.servers().rest_proxy().log(&format!("/{NAME}/"))
    }

    /// Requests since a number, of the clusters or of this machine.
    fn requests(&self, since: u64, of_clusters: bool) -> anyhow::Result<usize> {
        let networks = self.bed.pod_networks();
        let of_cluster = |entry: &Entry| networks.keys().any(|prefix| entry.client.starts_with(prefix));
        let log = self.log()?;
        let ours = log
            .iter()
            .filter(|entry| entry.number > since && of_cluster(entry) == of_clusters);
        Ok(ours.count())
    }

    fn last(&self) -> anyhow::Result<u64> {
        let log = self.log()?;
        Ok(log.iter().map(|entry| entry.number).max().unwrap_or_default())
    }
}

/// Requests of one reading by both clusters together, against those of restic without a cache.
pub fn collector(bed: &Bed, profile: &str) -> anyhow::Result<Vec<Figure>> {
    bed.down();
    let bed = Bed::up(&Options {
        profile: profile.to_owned(),
        ..Options::new("bench")
    })?;
    fleet::install(&bed, &[("FLEET_REFRESH_INTERVAL", INTERVAL)], &[])?;
    let dir = tempfile::tempdir_in(bed.dir())?;
    let full = retention::fill(&bed, dir.path(), profile)?;
    std::fs::rename(full, bed.servers().rest_data().join(NAME))?;
    let url = format!("rest:{}/{NAME}/", bed.servers().faulty_rest_url());
    let (user, password) = bed.servers().rest_credentials();
    for cluster in bed.clusters() {
        let objects = [
            json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": NAME } }),
            json!({ "apiVersion": "v1", "kind": "Secret", "metadata": { "name": "nas", "namespace": NAME }, "stringData": {
                    "RESTIC_PASSWORD": retention::PASSWORD, "RESTIC_REST_USERNAME": user, "RESTIC_REST_PASSWORD": password } }),
            json!({ "apiVersion": "backup.resticbackup.io/v1alpha1", "kind": "ResticRepository",
                    "metadata": { "name": "nas", "namespace": NAME },
                    "spec": { "repositoryURL": url, "credentialsSecretRef": { "name": "nas" } } }),
        ];
        load::apply(&cluster, &objects)?;
        fleet::wait(&cluster, NAME, "resticrepository/nas", "condition=Ready", LIMIT)?;
    }
    let fleet = Fleet { bed, url };
    let snapshots = retention::SNAPSHOTS as u64;
    progress("readings by the clusters");
    // The first one fills the collector's cache, and the one after it is the first of its kind.
    let first = fleet.later(&Value::Null, snapshots)?;
    let quiet = fleet.later(&first, snapshots)?;
    let since = fleet.last()?;
    let second = fleet.later(&quiet, snapshots)?;
    let idle = fleet.requests(since, true)?;
    let file = dir.path().join("new");
    for n in 0..NEW {
        std::fs::write(&file, format!("new {n}"))?;
        let host = format!("new-{n}");
        let path = file.to_str().context("a path that is no text")?;
        fleet.restic(&["backup", "--quiet", "--host", &host, path])?;
    }
    let since = fleet.last()?;
    fleet.later(&second, snapshots + NEW as u64)?;
    let refresh = fleet.requests(since, true)?;
    progress("the same by restic without a cache");
    let since = fleet.last()?;
    fleet.restic(&["--no-cache", "--no-lock", "stats", "--mode", "raw-data", "--json"])?;
    fleet.restic(&["--no-cache", "--no-lock", "snapshots", "--json"])?;
    let plain = fleet.requests(since, false)?;
    ensure!(plain > 0, "restic asked nothing");
    fleet.bed.down();
    let figure = |name, value: usize, unit, goal| Figure {
        name,
        value: value as f64,
        unit,
        goal,
    };
    let ratio = Figure {
        name: "refresh_requests_ratio_to_uncached_restic",
        value: refresh as f64 / plain as f64,
        unit: "x",
        goal: Goal::AtMost(0.1),
    };
    Ok(vec![
        ratio,
        figure(
            "refresh_requests_of_two_clusters_24_new_of_10264_snapshots",
            refresh,
            "requests",
            Goal::Open,
        ),
        figure(
            "refresh_requests_of_two_clusters_nothing_new",
            idle,
            "requests",
            Goal::Open,
        ),
        figure(
            "uncached_restic_stats_and_snapshots",
            plain,
            "requests",
            Goal::Open,
        ),
    ])
}
