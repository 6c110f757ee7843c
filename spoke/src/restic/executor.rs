//! Runs restic as a child process: a bounded pool, one process per repository, a deadline per command, an environment
//! of its own, and an early end as soon as the storage has made clear that it will not answer.

use std::collections::HashMap;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, bail};
use futures::FutureExt as _;
use futures::future::BoxFuture;
use tokio::io::{AsyncBufReadExt as _, AsyncRead, AsyncReadExt as _, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout};
use tracing::{debug, info};

use super::classify::{cause_of, class_of, classify, scrub};
use super::locks::{self, LockFile, LockOwner};
use super::{Failure, Restic, Snapshot, Statistics, output};
use crate::config::Config;
use crate::metrics::Metrics;
use crate::secrets::{Credentials, PASSWORD_VARIABLE, REPOSITORY_VARIABLE};

/// 100,000 snapshots print about 75 MB; more would not fit the manager's memory.
const STDOUT_MAX: u64 = 96 << 20;
/// The last lines decide; a repository full of damage prints millions.
const STDERR_MAX: usize = 64 << 10;
/// Lines of one class after which restic's own retries (15 minutes) are not worth waiting for.
const CERTAIN: usize = 2;
/// Between SIGTERM and SIGKILL. A reader holds no lock, so nothing stays behind.
const GRACE: Duration = Duration::from_secs(5);
/// Statistics of a large repository without a cache take a while.
const STATISTICS_DEADLINE: Duration = Duration::from_secs(15 * 60);

/// restic as child processes.
pub struct Executor {
    program: PathBuf,
    cache: PathBuf,
    probe_deadline: Duration,
    /// User name in the locks that restic writes.
    user: String,
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
        let mut command = Command::new(&self.program);
        let dir = private.path().to_string_lossy();
        command
            .args(arguments)
            .args(credentials.backend.options(&dir, &dir));
        command.env_clear();
        command.envs(std::env::var_os("PATH").map(|path| ("PATH", path)));
        command
            .env(REPOSITORY_VARIABLE, &credentials.url)
            .env(PASSWORD_VARIABLE, &credentials.password);
        command.envs(&credentials.variables);
        command
            .env("RESTIC_CACHE_DIR", self.cache.join("restic"))
            .env("TMPDIR", private.path())
            .env("HOME", private.path())
            .env("USER", &self.user);
        command
            .env("TZ", "UTC")
            .env("RESTIC_PROGRESS_FPS", "0.01")
            .env("GOMAXPROCS", "2");
        for (name, content) in &credentials.files {
            write_private(&private.path().join(name), content).map_err(broken)?;
        }
        command.envs(
            credentials
                .file_variables
                .iter()
                .map(|(variable, file)| (variable, private.path().join(file))),
        );
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        let mut child = command.spawn().map_err(broken)?;
        let (Some(stdout), Some(stderr)) = (child.stdout.take(), child.stderr.take()) else {
            return Err(Failure::Other("restic's output could not be read".to_owned()));
        };
        let safe = |failure: Failure| scrubbed(failure, credentials);
        let read = async {
            let out = read_bounded(stdout);
            let mut watch = Box::pin(watch(stderr).fuse());
            let mut out = Box::pin(out.fuse());
            let mut printed = None;
            // Both at once: a full pipe would stop restic.
            loop {
                tokio::select! {
                    bytes = &mut out, if printed.is_none() => printed = Some(bytes),
                    told = &mut watch => {
                        let bytes = match printed { Some(bytes) => bytes, None if told.is_ok() => out.await, None => Ok(Vec::new()) };
                        return told.map(|stderr| (bytes, stderr));
                    }
                }
            }
        };
        match timeout(deadline, read).await {
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

/// Reads stderr as it comes. `Err` as soon as it is certain that restic retries in vain.
async fn watch(stderr: impl AsyncRead + Unpin) -> Result<String, Failure> {
    let mut lines = BufReader::new(stderr).split(b'\n');
    let (mut text, mut seen) = (String::new(), 0);
    while let Ok(Some(line)) = lines.next_segment().await {
        let line = String::from_utf8_lossy(&line).into_owned();
        if line.contains("retrying after")
            && let Some(class) = class_of(&line)
        {
            seen += 1;
            if seen >= CERTAIN {
                return Err(class(cause_of(&line)));
            }
        }
        text.push_str(&line);
        text.push('\n');
        if text.len() > STDERR_MAX {
            let keep = text
                .char_indices()
                .map(|(at, _)| at)
                .find(|at| text.len() - at <= STDERR_MAX / 2)
                .unwrap_or(0);
            text.drain(..keep);
        }
    }
    Ok(text)
}

async fn read_bounded(stdout: impl AsyncRead + Unpin) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    stdout.take(STDOUT_MAX).read_to_end(&mut bytes).await?;
    Ok(bytes)
}

/// SIGTERM lets restic clean up; a deadline on that too.
async fn end(child: &mut Child) {
    super::terminate(child);
    if timeout(GRACE, child.wait()).await.is_err() {
        let _ = child.kill().await;
    }
}

fn scrubbed(failure: Failure, credentials: &Credentials) -> Failure {
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

fn write_private(path: &std::path::Path, content: &[u8]) -> std::io::Result<()> {
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

    #[tokio::test]
    async fn two_retries_of_one_kind_are_enough() {
        let lines = "Stat(<config/>) returned error, retrying after 582ms: Get: dial tcp 10.0.0.1:9: connect: connection refused\n".repeat(3);
        let told = watch(lines.as_bytes()).await.unwrap_err();
        assert_eq!(
            told,
            Failure::Unreachable("Get: dial tcp 10.0.0.1:9: connect: connection refused".to_owned())
        );
    }

    #[tokio::test]
    async fn stderr_is_kept_in_bounds_and_its_end_counts() {
        let text = watch(format!("{}last\n", "line\n".repeat(100_000)).as_bytes())
            .await
            .unwrap();
        assert!(text.len() <= STDERR_MAX + 10 && text.ends_with("last\n"));
    }
}
