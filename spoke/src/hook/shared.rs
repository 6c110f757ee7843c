//! The folder that the containers of a pod share.

use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use tokio::time::sleep;

use crate::runs::Report as _;
use crate::runs::hooks::{HookReport, How};

/// Held by the container of the hook before for as long as it lives.
const LOCK: &str = "before.lock";
/// What it has begun.
const BEFORE: &str = "before.json";
/// restic's exit code, as the entrypoint writes it.
const OUTCOME: &str = "outcome";
/// Report of the hooks after it, when all were run.
const AFTER: &str = "after.json";
const LOOK: Duration = Duration::from_millis(100);

/// The hook before, as it is written down.
#[derive(Serialize, Deserialize)]
struct Record {
    /// When it has ended at the latest.
    until: Timestamp,
    /// Its end is known.
    ended: bool,
}

/// What became of the hook before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Begun {
    /// It has not begun, and will not.
    No,
    Ended,
    /// Its container has ended, and the hook may be at work for so long.
    Until(Duration),
}

/// The folder.
pub(super) struct Shared {
    dir: PathBuf,
    lock: Option<File>,
    record: Option<Record>,
}

impl Shared {
    pub(super) fn new(dir: &Path) -> Shared {
        Shared {
            dir: dir.to_owned(),
            lock: None,
            record: None,
        }
    }

    /// Shows that the container of the hook before lives. The kernel ends that with the process.
    pub(super) fn hold(&mut self) -> std::io::Result<()> {
        let file = File::create(self.dir.join(LOCK))?;
        file.lock()?;
        self.lock = Some(file);
        Ok(())
    }

    /// The hook before begins, and takes no longer than `limit`.
    pub(super) fn begin(&mut self, limit: Duration) -> std::io::Result<()> {
        let limit = SignedDuration::try_from(limit).unwrap_or(SignedDuration::MAX);
        let until = Timestamp::now().saturating_add(limit).unwrap_or(Timestamp::MAX);
        let record = Record { until, ended: false };
        self.write(&record)?;
        self.record = Some(record);
        Ok(())
    }

    /// It has ended, or has not begun.
    pub(super) fn end(&mut self, how: How) {
        let written = match (how, &mut self.record) {
            (How::NotBegun, _) => fs::remove_file(self.dir.join(BEFORE)),
            (How::Unknown, _) | (_, None) => Ok(()),
            (_, Some(record)) => {
                record.ended = true;
                let record = Record { ..*record };
                self.write(&record)
            }
        };
        if let Err(error) = written.or_else(absent_is_fine) {
            super::log(&format!("{}: {error}", self.dir.join(BEFORE).display()));
        }
    }

    fn write(&self, record: &Record) -> std::io::Result<()> {
        let text = serde_json::to_vec(record)?;
        let new = self.dir.join("before.new");
        fs::write(&new, text)?;
        fs::rename(new, self.dir.join(BEFORE))
    }

    /// Waits until the container of the hook before is at its end.
    pub(super) async fn wait_for_before(&self) -> Begun {
        let Ok(lock) = File::open(self.dir.join(LOCK)) else {
            return Begun::No;
        };
        while let Err(TryLockError::WouldBlock) = lock.try_lock_shared() {
            sleep(LOOK).await;
        }
        let record = match fs::read(self.dir.join(BEFORE)) {
            Ok(bytes) => serde_json::from_slice::<Record>(&bytes).ok(),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Begun::No,
            Err(_) => None,
        };
        match record {
            Some(record) if record.ended => Begun::Ended,
            Some(record) => Begun::Until(until(record.until)),
            None => Begun::Until(Duration::ZERO),
        }
    }

    /// Waits until restic has ended.
    pub(super) async fn wait_for_outcome(&self) {
        while !self.dir.join(OUTCOME).exists() {
            sleep(LOOK).await;
        }
    }

    /// What was reported by an earlier start of this container that had run everything.
    pub(super) fn done(&self) -> Option<HookReport> {
        let text = fs::read_to_string(self.dir.join(AFTER)).ok()?;
        HookReport::parse(&text)
    }

    /// Everything was run.
    pub(super) fn finish(&self, report: &HookReport) {
        let text = serde_json::to_string(report).unwrap_or_default();
        if let Err(error) = fs::write(self.dir.join(AFTER), text) {
            super::log(&format!("{AFTER}: {error}"));
        }
    }

    /// restic has ended with exit code 0.
    pub(super) fn succeeded(&self) -> bool {
        fs::read_to_string(self.dir.join(OUTCOME)).is_ok_and(|code| code.trim() == "0")
    }
}

fn until(time: Timestamp) -> Duration {
    Duration::try_from(time.duration_since(Timestamp::now())).unwrap_or_default()
}

fn absent_is_fine(error: std::io::Error) -> std::io::Result<()> {
    match error.kind() {
        std::io::ErrorKind::NotFound => Ok(()),
        _ => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_hook_before_is_known_by_what_it_wrote_and_by_its_life() {
        let dir = tempfile::tempdir().unwrap();
        let reader = Shared::new(dir.path());
        assert_eq!(
            reader.wait_for_before().await,
            Begun::No,
            "its container never ran"
        );

        let mut before = Shared::new(dir.path());
        before.hold().unwrap();
        let wait = tokio::time::timeout(Duration::from_millis(300), reader.wait_for_before());
        assert!(wait.await.is_err(), "it is waited for while it lives");
        before.begin(Duration::from_secs(60)).unwrap();
        before.end(How::Succeeded);
        drop(before);
        assert_eq!(reader.wait_for_before().await, Begun::Ended);

        // Killed in the middle, and an end that is not known: its command may go on.
        let mut killed = Shared::new(dir.path());
        killed.hold().unwrap();
        killed.begin(Duration::from_secs(60)).unwrap();
        killed.end(How::Unknown);
        drop(killed);
        let Begun::Until(time) = reader.wait_for_before().await else {
            panic!()
        };
        assert!(
            time > Duration::from_secs(50) && time <= Duration::from_secs(60),
            "{time:?}"
        );

        let mut refused = Shared::new(dir.path());
        refused.hold().unwrap();
        refused.begin(Duration::from_secs(60)).unwrap();
        refused.end(How::NotBegun);
        drop(refused);
        assert_eq!(reader.wait_for_before().await, Begun::No);
    }

    #[test]
    fn only_an_exit_code_of_zero_is_a_success() {
        let dir = tempfile::tempdir().unwrap();
        let shared = Shared::new(dir.path());
        assert!(!shared.succeeded(), "nothing was written: restic was killed");
        for (text, well) in [("0\n", true), ("3\n", false), ("137\n", false), ("", false)] {
            fs::write(dir.path().join(OUTCOME), text).unwrap();
            assert_eq!(shared.succeeded(), well, "{text:?}");
        }
    }
}
