//! The test bed: whole Kubernetes clusters with real pods, real storage servers and the product in them, without
//! Docker. `make demo`, `make test` and `make bench` all stand on it.
#![allow(clippy::print_stderr, reason = "progress is for the person who waits")]

pub mod address;
pub mod bed;
pub mod charts;
pub mod cluster;
pub mod database;
pub mod emulators;
pub mod faults;
pub mod fleet;
pub mod images;
pub mod link;
pub mod load;
pub mod network;
pub mod objects;
pub mod pki;
pub mod process;
pub mod proxy;
pub mod servers;
pub mod sink;
pub mod storage_log;
pub mod tools;

use std::time::{Duration, Instant};

pub use bed::{Bed, Options};
pub use cluster::Cluster;
pub use database::Database;

/// One line of progress.
pub fn progress(line: &str) {
    eprintln!("[testbed] {line}");
}

/// Waits for a state: asks again until there is an answer. The error says what was waited for, and the last reason.
pub async fn wait_until<T, F>(what: &str, limit: Duration, mut ask: impl FnMut() -> F) -> anyhow::Result<T>
where
    F: Future<Output = anyhow::Result<Option<T>>>,
{
    let end = Instant::now() + limit;
    let mut last = String::new();
    loop {
        match ask().await {
            Ok(Some(answer)) => return Ok(answer),
            Ok(None) => {}
            Err(error) => last = format!(" (last: {error:#})"),
        }
        if Instant::now() > end {
            anyhow::bail!("waited {limit:?} for: {what}{last}");
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}
