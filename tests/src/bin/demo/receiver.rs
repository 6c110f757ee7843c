//! Who is told of backups: a part of the bed that writes down each notification.

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::ensure;
use serde_json::Value;
use tests::Bed;
use tests::process::Daemon;

const PORT: u16 = 18080;

pub struct Receiver {
    /// Where a webhook is sent to.
    pub url: String,
    file: PathBuf,
}

/// One notification in a line, as JSON.
pub fn file(bed: &Bed) -> PathBuf {
    bed.dir().join("notifications.log")
}

impl Receiver {
    /// Starts it, or finds that it runs.
    pub fn start(bed: &Bed) -> anyhow::Result<Receiver> {
        let address = format!("{}:{PORT}", bed.plan().wan(1));
        let file = file(bed);
        let daemon = Daemon::new(&bed.dir(), "receiver");
        if daemon.pid().is_none() {
            let arguments =
                ["sink", "--listen", &address, "--file", &file.to_string_lossy()].map(str::to_owned);
            daemon.start(None, &bed.workspace.testbed()?, &arguments, &[])?;
        }
        Ok(Receiver {
            url: format!("http://{address}/"),
            file,
        })
    }

    /// Waits for a notification of this type about this object, and returns its title and message.
    pub fn until(&self, kind: &str, name: &str) -> anyhow::Result<String> {
        let end = Instant::now() + Duration::from_secs(60);
        loop {
            let text = fs::read_to_string(&self.file).unwrap_or_default();
            let mut told = text
                .lines()
                .filter_map(|line| serde_json::from_str::<Value>(line).ok());
            if let Some(found) = told.find(|n| n["type"] == kind && n["data"]["name"] == name) {
                let part = |key: &str| found["data"][key].as_str().unwrap_or_default().to_owned();
                return Ok(format!("{}: {}", part("title"), part("message")));
            }
            ensure!(
                Instant::now() < end,
                "no notification {kind} of {name} has arrived"
            );
            std::thread::sleep(Duration::from_millis(200));
        }
    }
}
