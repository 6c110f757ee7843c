//! Requests of the spoke, by the API server's own audit log.

use std::io::{BufRead as _, BufReader, Seek as _, SeekFrom};
use std::path::PathBuf;

use anyhow::ensure;
use serde_json::Value;
use tests::Cluster;

/// A place in the audit log.
pub struct Mark {
    log: PathBuf,
    at: u64,
}

/// What was asked for since a mark: watches and the leader's lease apart.
#[derive(Clone, Copy, Debug, Default)]
pub struct Requests {
    pub all: usize,
    pub writes: usize,
}

impl Mark {
    /// The present end.
    pub fn now(cluster: &Cluster) -> anyhow::Result<Mark> {
        let log = cluster.dir.join("audit.log");
        let at = std::fs::metadata(&log)?.len();
        Ok(Mark { log, at })
    }

    /// Requests since then, without reading what was before.
    pub fn requests(&self) -> anyhow::Result<Requests> {
        let mut file = std::fs::File::open(&self.log)?;
        ensure!(
            file.metadata()?.len() >= self.at,
            "the API server has begun another audit log in the middle of a measurement"
        );
        file.seek(SeekFrom::Start(self.at))?;
        let mut requests = Requests::default();
        for line in BufReader::new(file).lines() {
            // The last line may be half written.
            let Ok(entry) = serde_json::from_str::<Value>(&line?) else {
                continue;
            };
            let verb = entry["verb"].as_str().unwrap_or_default();
            if verb == "watch" || entry["objectRef"]["resource"] == "leases" {
                continue;
            }
            requests.all += 1;
            requests.writes += usize::from(!matches!(verb, "get" | "list"));
        }
        Ok(requests)
    }
}
