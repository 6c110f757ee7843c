//! Runs restic as a child process: a bounded pool, one process per repository, a deadline per command, an environment
//! of its own, and an early end as soon as the storage has made clear that it will not answer.

use std::collections::HashMap;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, bail};
use futures::FutureExt as _;
use futures::future::BoxFuture;
use tokio::io::AsyncReadExt as _;
use tokio::process::{Child, Command};
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::time::{Instant, timeout};
use tracing::{debug, info};

use super::classify::{classify, scrub};
use super::hold;
use super::locks::{self, LockFile, LockOwner};
use super::streams::{read_both, watch};
use super::{Failure, FileNode, Restic, Snapshot, Statistics, output};
use crate::config::Config;
use crate::metrics::Metrics;
use crate::secrets::{Credentials, PASSWORD_VARIABLE, REPOSITORY_VARIABLE};

/// Between SIGTERM and SIGKILL. A reader holds no lock, so nothing stays behind.
const GRACE: Duration = Duration::from_secs(5);
/// Statistics of a large repository without a cache take a while.
const STATISTICS_DEADLINE: Duration = Duration::from_secs(15 * 60);

/// A folder, or the files of a name in a snapshot, without a cache.
const BROWSE_DEADLINE: Duration = Duration::from_secs(5 * 60);
/// Bytes of a file that are passed on at once.
const PIECE: usize = 64 << 10;

/// restic as child processes.
pub struct Executor {
    program: PathBuf,
    pub(super) cache: PathBuf,
    probe_deadline: Duration,
    /// User name in the locks that restic writes.
    pub(super) user: String,
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
            program: config.restic.clone(),
            cache: config.cache_dir.clone(),
            probe_deadline: config.probe_deadline,
            user: LockOwner::user(cluster, "operator", "0"),
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
        let result = self.process(arguments, credentials, deadline).await;
        let outcome = result.as_ref().err().map_or("ok", Failure::label);
        self.metrics
            .restic_run(command, outcome, start.elapsed().as_secs_f64());
        debug!(command, outcome, repository = ?credentials, "restic ended");
        result
    }

    async fn process(
        &self,
        arguments: &[&str],
        credentials: &Credentials,
        deadline: Duration,
    ) -> Result<Vec<u8>, Failure> {
        let broken = |e: std::io::Error| Failure::Other(format!("restic could not be run: {e}"));
        let private = tempfile::Builder::new()
            .prefix("run-")
            .tempdir_in(&self.cache)
            .map_err(broken)?;
        let command = self.command(arguments, credentials, private.path());
        let mut child = command.map_err(broken)?.spawn().map_err(broken)?;
        let (Some(stdout), Some(stderr)) = (child.stdout.take(), child.stderr.take()) else {
            return Err(Failure::Other("restic's output could not be read".to_owned()));
        };
        let safe = |failure: Failure| scrubbed(failure, credentials);
        match timeout(deadline, read_both(stdout, stderr)).await {
            Err(_) => {
                end(&mut child).await;
                Err(Failure::DeadlineExceeded(deadline))
            }
            Ok(Err(certain)) => {
                end(&mut child).await;
                Err(safe(certain))
            }
            Ok(Ok((bytes, stderr))) => {
                let status = timeout(GRACE, child.wait()).await;
                let code = status.ok().and_then(Result::ok).and_then(|s| s.code());
                if code == Some(0) {
                    bytes.map_err(broken)
                } else {
                    Err(safe(classify(code, &stderr)))
                }
            }
        }
    }

    /// Runs one command, and passes on what it prints on stdout as it comes. Ends it when nobody takes that any more.
    async fn pass(
        &self,
        arguments: &[&str],
        credentials: &Credentials,
        sink: mpsc::Sender<Vec<u8>>,
    ) -> Result<(), Failure> {
        let broken = |e: std::io::Error| Failure::Other(format!("restic could not be run: {e}"));
        let private = tempfile::Builder::new()
            .prefix("run-")
            .tempdir_in(&self.cache)
            .map_err(broken)?;
        let command = self.command(arguments, credentials, private.path());
        let mut child = command.map_err(broken)?.spawn().map_err(broken)?;
        let (Some(mut stdout), Some(stderr)) = (child.stdout.take(), child.stderr.take()) else {
            return Err(Failure::Other("restic's output could not be read".to_owned()));
        };
        let copy = async move {
            loop {
                let mut piece = vec![0; PIECE];
                match stdout.read(&mut piece).await {
                    Ok(0) => return Ok(true),
                    Ok(length) => piece.truncate(length),
                    Err(error) => return Err(broken(error)),
                }
                if sink.send(piece).await.is_err() {
                    return Ok(false);
                }
            }
        };
        let safe = |failure: Failure| scrubbed(failure, credentials);
        let (mut copy, mut watch) = (std::pin::pin!(copy), std::pin::pin!(watch(stderr).fuse()));
        let mut errors = None;
        let copied = loop {
            tokio::select! {
                copied = &mut copy => break copied,
                lines = &mut watch, if errors.is_none() => match lines {
                    Ok(text) => errors = Some(text),
                    Err(certain) => break Err(safe(certain)),
                },
            }
        };
        if !matches!(copied, Ok(true)) {
            end(&mut child).await;
            return copied.map(drop);
        }
        let text = match errors {
            Some(text) => text,
            None => watch.await.map_err(safe)?,
        };
        let status = timeout(GRACE, child.wait()).await;
        match status.ok().and_then(Result::ok).and_then(|s| s.code()) {
            Some(0) => Ok(()),
            code => Err(safe(classify(code, &text))),
        }
    }

    /// A command with nothing of our environment but the search path. Credential files go into `private`.
    pub(super) fn command(
        &self,
        arguments: &[&str],
        credentials: &Credentials,
        private: &Path,
    ) -> std::io::Result<Command> {
        for (name, content) in &credentials.files {
            write_private(&private.join(name), content)?;
        }
        let mut command = Command::new(&self.program);
        let dir = private.to_string_lossy();
        command
            .args(arguments)
            .args(credentials.backend.options(&dir, &dir))
            .args(&credentials.options)
            .env_clear()
            .envs(std::env::var_os("PATH").map(|path| ("PATH", path)))
            .env(REPOSITORY_VARIABLE, &credentials.url)
            .env(PASSWORD_VARIABLE, &credentials.password)
            .envs(&credentials.variables)
            .env("RESTIC_CACHE_DIR", self.cache.join("restic"))
            .env("TMPDIR", private)
            .env("HOME", private)
            .env("USER", &self.user)
            .env("TZ", "UTC")
            .env("RESTIC_PROGRESS_FPS", "0.01")
            .env("GOMAXPROCS", "2");
        let files = credentials.file_variables.iter();
        command
            .envs(files.map(|(variable, file)| (variable, private.join(file))))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        Ok(command)
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
            let printed = self.process(&list, credentials, BROWSE_DEADLINE).await?;
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
            output::found(&self.process(&find, credentials, BROWSE_DEADLINE).await?)
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
            self.pass(&dump, credentials, sink).await
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

/// SIGTERM lets restic clean up; a deadline on that too.
async fn end(child: &mut Child) {
    super::terminate(child);
    if timeout(GRACE, child.wait()).await.is_err() {
        let _ = child.kill().await;
    }
}

pub(super) fn scrubbed(failure: Failure, credentials: &Credentials) -> Failure {
    let clean = |text: String| scrub(&text, credentials.values());
    match failure {
        Failure::Locked(text) => Failure::Locked(clean(text)),
        Failure::Unreachable(text) => Failure::Unreachable(clean(text)),
        Failure::Forbidden(text) => Failure::Forbidden(clean(text)),
        Failure::Damaged(text) => Failure::Damaged(clean(text)),
        Failure::FileUnreadable(text) => Failure::FileUnreadable(clean(text)),
        Failure::Other(text) => Failure::Other(clean(text)),
        other => other,
    }
}

fn write_private(path: &Path, content: &[u8]) -> std::io::Result<()> {
    use std::io::Write as _;
    if let Some(parent) = path.parent() {
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(parent)?;
    }
    std::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)?
        .write_all(content)
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
