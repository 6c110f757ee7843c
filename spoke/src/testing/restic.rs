//! Repositories in memory, and what becomes of questions to them.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use tokio::sync::oneshot;

use crate::restic::locks::LockFile;
use crate::restic::{Failure, FileNode, Restic, Snapshot, Statistics};
use crate::secrets::Credentials;

/// One repository behind every URL, which opens at once.
#[derive(Default)]
pub struct MemoryRestic(Mutex<State>);

#[derive(Default)]
struct State {
    questions: Vec<&'static str>,
    snapshots: Vec<Snapshot>,
    files: Vec<FileNode>,
    delay: Duration,
    panics: u32,
    failure: Option<Failure>,
    /// Locks that are held, and how many were.
    held: Vec<String>,
    holds: u64,
}

/// Id of the repository.
pub const REPOSITORY_ID: &str = "5f2c9a7e5f2c9a7e5f2c9a7e5f2c9a7e5f2c9a7e5f2c9a7e5f2c9a7e5f2c9a7e";

impl MemoryRestic {
    /// What it has been asked.
    #[must_use]
    pub fn questions(&self) -> Vec<&'static str> {
        self.state(|state| state.questions.clone())
    }

    /// Locks that are held now.
    #[must_use]
    pub fn held(&self) -> Vec<String> {
        self.state(|state| state.held.clone())
    }

    /// Each answer takes a time.
    pub fn slow(&self, delay: Duration) {
        self.state(|state| state.delay = delay);
    }

    /// The next questions panic.
    pub fn panic(&self, times: u32) {
        self.state(|state| state.panics = times);
    }

    /// Every question fails, or none.
    pub fn fail(&self, failure: Option<Failure>) {
        self.state(|state| state.failure = failure);
    }

    /// What is in the repository.
    pub fn hold(&self, snapshots: Vec<Snapshot>) {
        self.state(|state| state.snapshots = snapshots);
    }

    /// Files and folders of every folder.
    pub fn hold_files(&self, files: Vec<FileNode>) {
        self.state(|state| state.files = files);
    }

    fn state<T>(&self, with: impl FnOnce(&mut State) -> T) -> T {
        with(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn answer<T: Send + 'static>(
        &self,
        question: &'static str,
        answer: impl FnOnce(&mut State) -> T,
    ) -> BoxFuture<'_, Result<T, Failure>> {
        let (delay, panics, result) = self.state(|state| {
            state.questions.push(question);
            let panics = state.panics > 0;
            state.panics = state.panics.saturating_sub(1);
            let result = match state.failure.clone() {
                Some(failure) => Err(failure),
                None => Ok(answer(state)),
            };
            (state.delay, panics, result)
        });
        async move {
            tokio::time::sleep(delay).await;
            assert!(!panics, "as the test asks for");
            result
        }
        .boxed()
    }
}

impl Restic for MemoryRestic {
    fn hold<'a>(
        &'a self,
        _: &'a Credentials,
        held: oneshot::Sender<String>,
        end: oneshot::Receiver<()>,
    ) -> BoxFuture<'a, Result<(), Failure>> {
        async move {
            let id = self
                .answer("backup", |state| {
                    state.holds += 1;
                    let id = format!("{:064x}", state.holds);
                    state.held.push(id.clone());
                    id
                })
                .await?;
            let _ = held.send(id.clone());
            let _ = end.await;
            self.state(|state| state.held.retain(|held| *held != id));
            Ok(())
        }
        .boxed()
    }

    fn id<'a>(&'a self, _: &'a Credentials) -> BoxFuture<'a, Result<String, Failure>> {
        self.answer("id", |_| REPOSITORY_ID.to_owned())
    }

    fn init<'a>(&'a self, _: &'a Credentials) -> BoxFuture<'a, Result<String, Failure>> {
        self.answer("init", |_| REPOSITORY_ID.to_owned())
    }

    fn statistics<'a>(&'a self, _: &'a Credentials) -> BoxFuture<'a, Result<Statistics, Failure>> {
        self.answer("statistics", |state| Statistics {
            snapshots: state.snapshots.len() as u64,
            ..Statistics::default()
        })
    }

    fn locks<'a>(&'a self, _: &'a Credentials) -> BoxFuture<'a, Result<Vec<String>, Failure>> {
        self.answer("locks", |state| state.held.clone())
    }

    fn lock<'a>(&'a self, _: &'a Credentials, id: &'a str) -> BoxFuture<'a, Result<LockFile, Failure>> {
        let failure = Failure::Other(format!("no lock {id}"));
        std::future::ready(Err(failure)).boxed()
    }

    fn folder<'a>(
        &'a self,
        _: &'a Credentials,
        _: &'a str,
        _: &'a str,
    ) -> BoxFuture<'a, Result<Vec<FileNode>, Failure>> {
        self.answer("folder", |state| state.files.clone())
    }

    fn snapshots<'a>(&'a self, _: &'a Credentials) -> BoxFuture<'a, Result<Vec<Snapshot>, Failure>> {
        self.answer("snapshots", |state| state.snapshots.clone())
    }
}
