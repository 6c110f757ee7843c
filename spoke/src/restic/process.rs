//! restic as a child process: an environment of its own, an early end as soon as the storage has made clear that it will
//! not answer, and errors without secrets.

use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use futures::FutureExt as _;
use tempfile::TempDir;
use tokio::io::AsyncReadExt as _;
use tokio::process::{Child, Command};
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::Failure;
use super::classify::{classify, scrub};
use super::streams::{read_both, watch};
use crate::secrets::{Credentials, PASSWORD_VARIABLE, REPOSITORY_VARIABLE, file_flags};

/// Between SIGTERM and SIGKILL. A reader holds no lock, so nothing stays behind.
const GRACE: Duration = Duration::from_secs(5);
/// Bytes of a file that are passed on at once.
const PIECE: usize = 64 << 10;

/// The program, and what all of its processes have in common.
pub struct Program {
    pub path: PathBuf,
    /// Folder of restic's cache and of the processes' own files.
    pub cache: PathBuf,
    /// User name in the locks that restic writes.
    pub user: String,
}

impl Program {
    /// Runs one command to its end, and returns what it printed on stdout.
    pub async fn output(
        &self,
        arguments: &[&str],
        credentials: &Credentials,
        deadline: Duration,
    ) -> Result<Vec<u8>, Failure> {
        let (mut child, _private) = self.spawn(arguments, credentials)?;
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
    pub async fn pass(
        &self,
        arguments: &[&str],
        credentials: &Credentials,
        sink: mpsc::Sender<Vec<u8>>,
    ) -> Result<(), Failure> {
        let (mut child, _private) = self.spawn(arguments, credentials)?;
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

    /// The process, and the folder of its credential files, which goes when this is dropped.
    fn spawn(&self, arguments: &[&str], credentials: &Credentials) -> Result<(Child, TempDir), Failure> {
        let private = tempfile::Builder::new()
            .prefix("run-")
            .tempdir_in(&self.cache)
            .map_err(broken)?;
        let command = self.command(arguments, credentials, private.path());
        let child = command.map_err(broken)?.spawn().map_err(broken)?;
        Ok((child, private))
    }

    /// A process whose input stays silent, and whose output is not read.
    pub fn silent(&self, arguments: &[&str], credentials: &Credentials) -> Result<(Child, TempDir), Failure> {
        let private = tempfile::Builder::new()
            .prefix("run-")
            .tempdir_in(&self.cache)
            .map_err(broken)?;
        let command = self.command(arguments, credentials, private.path());
        let mut command = command.map_err(broken)?;
        command.stdin(Stdio::piped()).stdout(Stdio::null());
        Ok((command.spawn().map_err(broken)?, private))
    }

    /// A command with nothing of our environment but the search path. Credential files go into `private`.
    fn command(
        &self,
        arguments: &[&str],
        credentials: &Credentials,
        private: &Path,
    ) -> std::io::Result<Command> {
        for (name, content) in &credentials.files {
            write_private(&private.join(name), content)?;
        }
        let mut command = Command::new(&self.path);
        let dir = private.to_string_lossy();
        command
            .args(arguments)
            .args(file_flags(credentials.backend, &dir, &dir))
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

fn broken(error: std::io::Error) -> Failure {
    Failure::Other(format!("restic could not be run: {error}"))
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
