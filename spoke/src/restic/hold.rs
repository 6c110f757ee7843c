//! Holds a shared lock of restic for a while.
//!
//! A backup of its standard input takes the lock before it reads anything. Its input stays silent, and it is ended by a
//! signal before the input is closed: it saves no snapshot, and removes its lock. An input that was closed first would be an
//! empty snapshot.

use std::collections::BTreeSet;
use std::time::Duration;

use tokio::io::AsyncReadExt as _;
use tokio::process::{Child, ChildStderr};
use tokio::sync::oneshot;
use tokio::time::{sleep, timeout};

use super::classify::classify;
use super::executor::Executor;
use super::process::scrubbed;
use super::{Failure, Restic as _};
use crate::secrets::Credentials;

/// Between two looks for the lock.
const LOOK: Duration = Duration::from_millis(500);
/// A lock that does not show for so long is not awaited any more.
const SHOWS: Duration = Duration::from_secs(60);
/// restic answers a signal within this time, and removes its lock within the second.
const ANSWERS: Duration = Duration::from_secs(5);
const REMOVES: Duration = Duration::from_secs(60);
/// What restic writes when it has taken a signal.
const TAKEN: &str = "cleaning up";

const ARGUMENTS: [&str; 7] = [
    "backup",
    "--quiet",
    "--stdin",
    "--stdin-filename",
    "probe",
    "--host",
    "fleet-probe",
];

pub(super) async fn hold(
    executor: &Executor,
    credentials: &Credentials,
    held: oneshot::Sender<String>,
    end: oneshot::Receiver<()>,
) -> Result<(), Failure> {
    // One that an earlier process has left may have the same number.
    let before = executor.locks(credentials).await?;
    // Dropped after the process, which is killed when it is dropped.
    let stdin;
    let (mut child, _private) = executor.program.silent(&ARGUMENTS, credentials)?;
    stdin = child.stdin.take();
    let mut told = Told::new(child.stderr.take());
    let pid = child.id().map(i64::from);
    let work = async {
        let id = own_lock(executor, credentials, (before, pid)).await?;
        let _ = held.send(id);
        // An error means that nobody waits for the end.
        let _ = end.await;
        Ok(())
    };
    let held = tokio::select! {
        result = work => result,
        // It ended itself: the repository is locked, or cannot be reached.
        () = told.until("\u{0}") => Ok(()),
    };
    super::terminate(&child);
    let answered = timeout(ANSWERS, told.until(TAKEN)).await.is_ok();
    if !answered {
        let _ = child.start_kill();
    }
    drop(stdin);
    let code = ended(&mut child).await;
    match held {
        // What it says after the signal is no failure.
        Ok(()) if told.text.contains(TAKEN) => Ok(()),
        Ok(()) => Err(scrubbed(classify(code, &told.text), credentials)),
        Err(failure) => Err(failure),
    }
}

async fn ended(child: &mut Child) -> Option<i32> {
    match timeout(REMOVES, child.wait()).await {
        Ok(status) => status.ok().and_then(|status| status.code()),
        Err(_) => {
            let _ = child.kill().await;
            None
        }
    }
}

/// Id of the lock of a process of this container.
async fn own_lock(
    executor: &Executor,
    credentials: &Credentials,
    (before, pid): (Vec<String>, Option<i64>),
) -> Result<String, Failure> {
    // Processes of two machines may have one number.
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").ok();
    let host = host.map(|host| host.trim().to_owned());
    let look = async {
        let mut others: BTreeSet<String> = before.into_iter().collect();
        loop {
            for id in executor.locks(credentials).await? {
                if !others.insert(id.clone()) {
                    continue;
                }
                match executor.lock(credentials, &id).await {
                    Ok(file)
                        if Some(file.pid) == pid && host.as_ref().is_none_or(|host| *host == file.host) =>
                    {
                        return Ok(id);
                    }
                    // That of another, or one that is gone already.
                    _ => {}
                }
            }
            sleep(LOOK).await;
        }
    };
    timeout(SHOWS, look)
        .await
        .unwrap_or_else(|_| Err(Failure::Other("the lock did not show in the listing".to_owned())))
}

/// What restic writes to its standard error.
struct Told {
    from: Option<ChildStderr>,
    text: String,
}

impl Told {
    fn new(from: Option<ChildStderr>) -> Told {
        Told {
            from,
            text: String::new(),
        }
    }

    /// Reads until it has written this, or has ended.
    async fn until(&mut self, what: &str) {
        let Some(from) = &mut self.from else { return };
        let mut piece = [0; 4096];
        while !self.text.contains(what) {
            match from.read(&mut piece).await {
                Ok(length) if length > 0 => {
                    self.text
                        .push_str(&String::from_utf8_lossy(piece.get(..length).unwrap_or_default()));
                }
                _ => return,
            }
        }
    }
}
