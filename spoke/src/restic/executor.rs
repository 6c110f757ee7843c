//! Which commands of restic the spoke runs, and how many at a time: a bounded pool, one process per repository, a deadline
//! per command.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, bail};
use futures::FutureExt as _;
use futures::future::BoxFuture;
use tokio::process::Command;
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::time::Instant;
use tracing::{debug, info};

use super::hold;
use super::locks::{self, LockFile, LockOwner};
use super::process::Program;
use super::{Failure, FileNode, Restic, Snapshot, Statistics, output};
use crate::config::Config;
use crate::metrics::Metrics;
use crate::secrets::Credentials;

/// Statistics of a large repository without a cache take a while.
const STATISTICS_DEADLINE: Duration = Duration::from_secs(15 * 60);
/// A folder, or the files of a name in a snapshot, without a cache.
const BROWSE_DEADLINE: Duration = Duration::from_secs(5 * 60);

/// restic as child processes.
pub struct Executor {
    pub(super) program: Program,
    probe_deadline: Duration,
    processes: Semaphore,
    /// One process per repository at a time.
    repositories: Mutex<HashMap<String, Arc<tokio::sync::Mutex<()>>>>,
    metrics: Arc<Metrics>,
}

impl Executor {
    /// Checks that restic is there and recent enough: exit codes 10 to 12 exist since 0.17.
    pub async fn start(config: &Config, cluster: &str, metrics: Arc<Metrics>) -> anyhow::Result<Executor> {
        std::fs::create_dir_all(&config.cache_dir).with_context(|| {
            format!(
                "cannot write the cache folder {}; set --cache-dir",
                config.cache_dir.display()
            )
        })?;
        let version = Command::new(&config.restic).arg("version").output().await;
        let version =
            version.with_context(|| format!("cannot run {}; set --restic", config.restic.display()))?;
        let text = String::from_utf8_lossy(&version.stdout).trim().to_owned();
        match parse_version(&text) {
            Some(version) if version >= (0, 18) => info!(version = text, "restic"),
            _ => bail!(
                "{} is {text:?}; restic 0.18 or later is needed",
                config.restic.display()
            ),
        }
        Ok(Executor {
            program: Program {
                path: config.restic.clone(),
                cache: config.cache_dir.clone(),
                user: LockOwner::user(cluster, "operator", "0"),
            },
            probe_deadline: config.probe_deadline,
            processes: Semaphore::new(config.restic_processes as usize),
            repositories: Mutex::default(),
            metrics,
        })
    }

    fn repository(&self, url: &str) -> Arc<tokio::sync::Mutex<()>> {
        let mut repositories = self.repositories.lock().unwrap_or_else(PoisonError::into_inner);
        repositories.retain(|_, lock| Arc::strong_count(lock) > 1);
        repositories.entry(url.to_owned()).or_default().clone()
    }

    /// Runs one command to its end and returns what it printed on stdout.
    async fn run(
        &self,
        command: &'static str,
        arguments: &[&str],
        credentials: &Credentials,
        deadline: Duration,
    ) -> Result<Vec<u8>, Failure> {
        self.run_before(command, arguments, credentials, deadline, None)
            .await
    }

    /// The same, unless a process is free only after a time.
    async fn run_before(
        &self,
        command: &'static str,
        arguments: &[&str],
        credentials: &Credentials,
        deadline: Duration,
        before: Option<Instant>,
    ) -> Result<Vec<u8>, Failure> {
        let repository = self.repository(&credentials.url);
        let _one = repository.lock().await;
        let Ok(_permit) = self.processes.acquire().await else {
            return Err(Failure::Interrupted);
        };
        let start = Instant::now();
        if before.is_some_and(|before| start + deadline > before) {
            return Err(Failure::NotBegun);
        }
        let result = self.program.output(arguments, credentials, deadline).await;
        let outcome = result.as_ref().err().map_or("ok", Failure::label);
        self.metrics
            .restic_run(command, outcome, start.elapsed().as_secs_f64());
        debug!(command, outcome, repository = ?credentials, "restic ended");
        result
    }
}

impl Restic for Executor {
    fn id<'a>(&'a self, credentials: &'a Credentials) -> BoxFuture<'a, Result<String, Failure>> {
        async move {
            let read = self
                .run(
                    "cat",
                    &["cat", "config", "--no-lock", "--json"],
                    credentials,
                    self.probe_deadline,
                )
                .await;
            output::config_id(&read?)
        }
        .boxed()
    }

    fn init<'a>(&'a self, credentials: &'a Credentials) -> BoxFuture<'a, Result<String, Failure>> {
        async move {
            let made = self
                .run("init", &["init", "--json"], credentials, self.probe_deadline * 2)
                .await?;
            output::initialized_id(&made)
        }
        .boxed()
    }

    fn init_before<'a>(
        &'a self,
        credentials: &'a Credentials,
        before: Instant,
    ) -> BoxFuture<'a, Result<String, Failure>> {
        async move {
            let deadline = self.probe_deadline * 2;
            let arguments = ["init", "--json"];
            let made = self.run_before("init", &arguments, credentials, deadline, Some(before));
            output::initialized_id(&made.await?)
        }
        .boxed()
    }

    fn master_key<'a>(
        &'a self,
        credentials: &'a Credentials,
    ) -> BoxFuture<'a, Result<proto::possession::MasterKey, Failure>> {
        async move {
            let arguments = ["cat", "masterkey", "--no-lock"];
            let read = self.run("cat", &arguments, credentials, self.probe_deadline);
            output::master_key(&read.await?)
        }
        .boxed()
    }

    fn key_id<'a>(&'a self, credentials: &'a Credentials) -> BoxFuture<'a, Result<String, Failure>> {
        async move {
            let list = ["key", "list", "--no-lock", "--json"];
            let printed = self.run("key", &list, credentials, self.probe_deadline).await?;
            output::key_in_use(&output::keys(&printed)?)
        }
        .boxed()
    }

    fn statistics<'a>(&'a self, credentials: &'a Credentials) -> BoxFuture<'a, Result<Statistics, Failure>> {
        async move {
            let list = ["snapshots", "--json", "--no-lock"];
            let snapshots = self
                .run("snapshots", &list, credentials, STATISTICS_DEADLINE)
                .await?;
            let raw = ["stats", "--mode", "raw-data", "--json", "--no-lock"];
            let raw = self.run("stats", &raw, credentials, STATISTICS_DEADLINE).await?;
            output::statistics(&snapshots, &raw)
        }
        .boxed()
    }

    fn locks<'a>(&'a self, credentials: &'a Credentials) -> BoxFuture<'a, Result<Vec<String>, Failure>> {
        async move {
            let list = ["list", "locks", "--no-lock"];
            locks::ids(&self.run("list", &list, credentials, self.probe_deadline).await?)
        }
        .boxed()
    }

    fn hold<'a>(
        &'a self,
        credentials: &'a Credentials,
        held: oneshot::Sender<String>,
        end: oneshot::Receiver<()>,
    ) -> BoxFuture<'a, Result<(), Failure>> {
        hold::hold(self, credentials, held, end).boxed()
    }

    fn lock<'a>(
        &'a self,
        credentials: &'a Credentials,
        id: &'a str,
    ) -> BoxFuture<'a, Result<LockFile, Failure>> {
        async move {
            let cat = ["cat", "lock", id, "--no-lock"];
            locks::lock_file(&self.run("cat", &cat, credentials, self.probe_deadline).await?)
        }
        .boxed()
    }

    fn folder<'a>(
        &'a self,
        credentials: &'a Credentials,
        snapshot: &'a str,
        path: &'a str,
    ) -> BoxFuture<'a, Result<Vec<FileNode>, Failure>> {
        async move {
            let list = ["ls", "--json", "--no-lock", "--", snapshot, path];
            let printed = self.program.output(&list, credentials, BROWSE_DEADLINE).await?;
            Ok(output::folder(&printed))
        }
        .boxed()
    }

    fn find<'a>(
        &'a self,
        credentials: &'a Credentials,
        snapshot: &'a str,
        pattern: &'a str,
    ) -> BoxFuture<'a, Result<Vec<FileNode>, Failure>> {
        async move {
            let find = [
                "find",
                "--json",
                "--no-lock",
                "--snapshot",
                snapshot,
                "--",
                pattern,
            ];
            output::found(&self.program.output(&find, credentials, BROWSE_DEADLINE).await?)
        }
        .boxed()
    }

    fn dump<'a>(
        &'a self,
        credentials: &'a Credentials,
        snapshot: &'a str,
        path: &'a str,
        sink: mpsc::Sender<Vec<u8>>,
    ) -> BoxFuture<'a, Result<(), Failure>> {
        async move {
            let dump = ["dump", "--no-lock", "--", snapshot, path];
            self.program.pass(&dump, credentials, sink).await
        }
        .boxed()
    }

    fn snapshots<'a>(
        &'a self,
        credentials: &'a Credentials,
    ) -> BoxFuture<'a, Result<Vec<Snapshot>, Failure>> {
        async move {
            let list = ["snapshots", "--json", "--no-lock"];
            let printed = self
                .run("snapshots", &list, credentials, STATISTICS_DEADLINE)
                .await?;
            output::snapshots(&printed)
        }
        .boxed()
    }
}

/// `restic 0.18.1 compiled with …` -> (0, 18).
fn parse_version(text: &str) -> Option<(u32, u32)> {
    let mut parts = text.strip_prefix("restic ")?.split(['.', ' ', '-']);
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_compared_as_numbers() {
        assert_eq!(parse_version("restic 0.18.1 compiled with go1.26"), Some((0, 18)));
        assert_eq!(parse_version("restic 0.19.1-dev (compiled"), Some((0, 19)));
        assert!(parse_version("restic 0.9.6 compiled").unwrap() < (0, 18));
    }
}
