//! restic in the manager: short questions to repositories, never a lock, never a secret in a message.

mod classify;
mod executor;
mod hold;
pub mod locks;
pub mod options;
pub mod output;
mod process;
pub mod progress;
mod streams;

use std::time::Duration;

use futures::future::BoxFuture;
use jiff::Timestamp;
use tokio::sync::{mpsc, oneshot};

use crate::secrets::Credentials;

pub use classify::{SSH, cause_of, class_of, classify};
pub use executor::Executor;

fn unread<T: Send + 'static>() -> BoxFuture<'static, Result<T, Failure>> {
    Box::pin(std::future::ready(Err(Failure::Other(
        "files cannot be read here".to_owned(),
    ))))
}

/// SIGTERM to a child that has not been waited for: its id is still its own. Needs no `kill` in the image.
pub fn terminate(child: &tokio::process::Child) {
    use rustix::process::{Pid, Signal, kill_process};
    let pid = child.id().and_then(|pid| Pid::from_raw(i32::try_from(pid).ok()?));
    if let Some(pid) = pid {
        // It may just have ended by itself.
        let _ = kill_process(pid, Signal::TERM);
    }
}

/// Why restic did not do what it was asked. Messages are one line, bounded, and free of credentials.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// Exit code 10: nothing is there. The only failure that may lead to `init`.
    #[error("there is no repository at this location")]
    NoRepository,
    /// Exit code 12.
    #[error("the password does not open this repository")]
    WrongPassword,
    /// Exit code 11.
    #[error("the repository is locked: {0}")]
    Locked(String),
    /// Network, name or certificate.
    #[error("{0}")]
    Unreachable(String),
    /// The storage refuses these credentials, or what they ask for.
    #[error("{0}")]
    Forbidden(String),
    /// restic reached the repository and could not make sense of it.
    #[error("{0}")]
    Damaged(String),
    /// A file of the machine that restic runs on, such as a certificate, is not for its user to read.
    #[error("{0}")]
    FileUnreadable(String),
    /// `init` found a repository.
    #[error("a repository exists already at this location")]
    Exists,
    /// restic did not come to an end.
    #[error("no answer within {0:?}")]
    DeadlineExceeded(Duration),
    /// It was not begun: the time that it had to be over by was too near when a process was free.
    #[error("not begun: it might not have ended within the time that was left for it")]
    NotBegun,
    /// Its lock could not be refreshed in time, so that it gave up.
    #[error("restic could not refresh its lock in time, and stopped; is the storage slow or away?")]
    LockLost,
    /// Exit code 130, or a signal.
    #[error("restic was interrupted")]
    Interrupted,
    /// Everything else, unknown exit codes included.
    #[error("{0}")]
    Other(String),
}

impl Failure {
    /// Closed set of metric labels.
    #[must_use]
    pub fn label(&self) -> &'static str {
        match self {
            Failure::NoRepository => "no_repository",
            Failure::WrongPassword => "wrong_password",
            Failure::Locked(_) => "locked",
            Failure::Unreachable(_) => "unreachable",
            Failure::Forbidden(_) => "forbidden",
            Failure::Damaged(_) => "damaged",
            Failure::FileUnreadable(_) => "file_unreadable",
            Failure::Exists => "exists",
            Failure::DeadlineExceeded(_) => "deadline_exceeded",
            Failure::NotBegun => "not_begun",
            Failure::LockLost => "lock_lost",
            Failure::Interrupted => "interrupted",
            Failure::Other(_) => "other",
        }
    }
}

/// Figures of a repository, read without a lock.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Statistics {
    /// Bytes stored (`stats --mode raw-data`: total_size).
    pub stored: u64,
    /// The same blobs uncompressed.
    pub uncompressed: u64,
    pub snapshots: u64,
    /// Files over all snapshots; `None` if some snapshot has no summary (written by restic before 0.17).
    pub files: Option<u64>,
    /// Host name, snapshots, newest; most snapshots first.
    pub hosts: Vec<(String, u64, Option<Timestamp>)>,
    /// Who has made the snapshots; most snapshots first, 2,000 at most.
    pub sources: Vec<Source>,
}

/// Snapshots of one source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// Tags `fleet.cluster` and `fleet.backup`; empty where a snapshot has none.
    pub cluster: String,
    pub backup: String,
    pub host: String,
    pub snapshots: u64,
    pub newest: Timestamp,
}

/// A snapshot, as `snapshots --json` prints it.
#[derive(Clone, Debug, PartialEq, Eq, serde::Deserialize)]
pub struct Snapshot {
    /// 64 hex digits.
    pub id: String,
    pub time: Timestamp,
    #[serde(default)]
    pub hostname: String,
    #[serde(default)]
    pub tags: Vec<String>,
    #[serde(default)]
    pub paths: Vec<String>,
    /// Patterns of `--exclude` alone: not of `--iexclude`, `--exclude-caches` and the like, nor of files of patterns.
    #[serde(default)]
    pub excludes: Vec<String>,
    /// Written by restic 0.17 and later.
    #[serde(default)]
    pub summary: Option<SnapshotSummary>,
}

/// What restic counted when it made a snapshot.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Deserialize)]
pub struct SnapshotSummary {
    pub total_files_processed: Option<u64>,
    pub total_bytes_processed: Option<u64>,
}

/// A file or folder in a snapshot, as `ls` and `find` print it.
#[derive(Clone, Debug, PartialEq, Eq, serde::Deserialize)]
pub struct FileNode {
    pub path: String,
    /// "file", "dir" and the like.
    #[serde(rename = "type", default)]
    pub kind: String,
    #[serde(default)]
    pub size: u64,
    #[serde(default)]
    pub mtime: Option<Timestamp>,
}

/// Questions to a repository. A trait, so that tests decide what storage does.
pub trait Restic: Send + Sync {
    /// `cat config --no-lock`: the repository's id, 64 hex digits.
    fn id<'a>(&'a self, credentials: &'a Credentials) -> BoxFuture<'a, Result<String, Failure>>;

    /// `init`. Only ever after [`Failure::NoRepository`].
    fn init<'a>(&'a self, credentials: &'a Credentials) -> BoxFuture<'a, Result<String, Failure>>;

    /// `snapshots` and `stats --mode raw-data`, both `--no-lock`.
    fn statistics<'a>(&'a self, credentials: &'a Credentials) -> BoxFuture<'a, Result<Statistics, Failure>>;

    /// `cat masterkey --no-lock`: what opens every pack of the repository. Held in memory only.
    fn master_key<'a>(
        &'a self,
        _: &'a Credentials,
    ) -> BoxFuture<'a, Result<proto::possession::MasterKey, Failure>> {
        Box::pin(std::future::ready(Err(Failure::Other(
            "the master key cannot be read here".to_owned(),
        ))))
    }

    /// `key list --no-lock`: id of the key that the password opens.
    fn key_id<'a>(&'a self, _: &'a Credentials) -> BoxFuture<'a, Result<String, Failure>> {
        Box::pin(std::future::ready(Err(Failure::Other(
            "the keys cannot be listed here".to_owned(),
        ))))
    }

    /// As [`Restic::init`], but only if it begins before a time: later the permission to create is somebody else's.
    fn init_before<'a>(
        &'a self,
        credentials: &'a Credentials,
        _: tokio::time::Instant,
    ) -> BoxFuture<'a, Result<String, Failure>> {
        self.init(credentials)
    }
    /// `list locks --no-lock`: ids of all locks.
    fn locks<'a>(&'a self, credentials: &'a Credentials) -> BoxFuture<'a, Result<Vec<String>, Failure>>;

    /// Holds a shared lock, whose id is sent to `held`, until `end`. Nothing else is written.
    fn hold<'a>(
        &'a self,
        _: &'a Credentials,
        _held: oneshot::Sender<String>,
        _end: oneshot::Receiver<()>,
    ) -> BoxFuture<'a, Result<(), Failure>> {
        unread()
    }

    /// `cat lock --no-lock`.
    fn lock<'a>(
        &'a self,
        credentials: &'a Credentials,
        id: &'a str,
    ) -> BoxFuture<'a, Result<locks::LockFile, Failure>>;

    /// `ls --no-lock`: what is in one folder of a snapshot, which is named by its full id.
    fn folder<'a>(
        &'a self,
        _: &'a Credentials,
        _: &'a str,
        _: &'a str,
    ) -> BoxFuture<'a, Result<Vec<FileNode>, Failure>> {
        unread()
    }

    /// `find --no-lock`: what has a name in a snapshot.
    fn find<'a>(
        &'a self,
        _: &'a Credentials,
        _: &'a str,
        _: &'a str,
    ) -> BoxFuture<'a, Result<Vec<FileNode>, Failure>> {
        unread()
    }

    /// `dump --no-lock`: the content of a file, in pieces. Ends early when nobody takes them any more.
    fn dump<'a>(
        &'a self,
        _: &'a Credentials,
        _: &'a str,
        _: &'a str,
        _: mpsc::Sender<Vec<u8>>,
    ) -> BoxFuture<'a, Result<(), Failure>> {
        unread()
    }

    /// `snapshots --no-lock`: all there are.
    fn snapshots<'a>(&'a self, credentials: &'a Credentials)
    -> BoxFuture<'a, Result<Vec<Snapshot>, Failure>>;
}
