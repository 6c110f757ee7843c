//! What a pod of ours tells of its end: one JSON object in the termination log, as entrypoint.sh writes it. Pure.

use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::restic::{Failure, SSH, classify};
use crate::runs::Report;

/// Exit code of the program that restic reads from: the command of the source has failed.
pub const SOURCE_FAILED: u8 = 65;
/// The same: the command ended well and wrote nothing.
pub const SOURCE_EMPTY: u8 = 66;

/// Files that are named in a text.
pub const SAMPLES: usize = 3;

/// The termination message. `S` is the summary that restic's command prints last.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default, bound = "S: DeserializeOwned")]
pub struct Message<S> {
    pub exit_code: i32,
    pub summary: Option<S>,
    fatal: Option<Fatal>,
    /// The last words of ssh, which restic does not repeat in its own.
    ssh: Option<String>,
    /// The last words of the program that restic reads from.
    source: Option<String>,
    /// Files that restic had trouble with.
    pub errors: u64,
    /// The kernel killed a process of the container for want of memory.
    pub out_of_memory: bool,
    /// restic said that it had lost its lock: what it relied on may have been deleted meanwhile.
    pub lock_lost: bool,
    items: Vec<Item>,
    /// Of the errors, those that are only about attributes of files that are there: the pod may not set them.
    pub unset: Option<Unset>,
    /// The preview that comes before a restore which deletes has failed: nothing was written.
    pub untouched: bool,
    /// What a dry run would do.
    pub actions: Option<Actions>,
}

/// Attributes that could not be set.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Unset {
    /// Files and folders.
    pub files: u64,
    /// Up to five names of extended attributes, or `owner`.
    pub names: Vec<String>,
}

/// Files and folders by what would be done with them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Actions {
    pub restored: u64,
    pub updated: u64,
    pub unchanged: u64,
}

// Not derived: S needs no default.
impl<S> Default for Message<S> {
    fn default() -> Self {
        Message {
            exit_code: 0,
            summary: None,
            fatal: None,
            ssh: None,
            source: None,
            errors: 0,
            out_of_memory: false,
            lock_lost: false,
            items: Vec::new(),
            unset: None,
            untouched: false,
            actions: None,
        }
    }
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
struct Fatal {
    #[serde(default)]
    message: String,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
struct Item {
    item: String,
    error: ItemError,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
struct ItemError {
    message: String,
}

impl<S: DeserializeOwned> Report for Message<S> {
    fn parse(text: &str) -> Option<Message<S>> {
        serde_json::from_str(text).ok()
    }

    fn succeeded(&self) -> bool {
        matches!(self.exit_code, 0 | 3)
    }

    /// restic ends with 130 when it is stopped by a signal; one that is killed ends with the signal's number and 128.
    fn interrupted(&self) -> bool {
        matches!(self.exit_code, 130 | 137 | 143) || self.failure() == Failure::Interrupted
    }

    fn out_of_memory(&self) -> bool {
        self.out_of_memory
    }
}

impl<S> Message<S> {
    /// Why restic failed.
    #[must_use]
    pub fn failure(&self) -> Failure {
        let text = self
            .fatal
            .as_ref()
            .map(|f| f.message.as_str())
            .unwrap_or_default();
        let fatal = serde_json::json!({ "message_type": "exit_error", "message": text }).to_string();
        let ssh = self.ssh.as_ref().map(|words| format!("{SSH}{words}\n"));
        let fatal = if text.is_empty() { String::new() } else { fatal };
        match classify(Some(self.exit_code), &(ssh.unwrap_or_default() + &fatal)) {
            // The loss of its lock cancels all that it does.
            Failure::Interrupted if self.lock_lost => Failure::LockLost,
            failure => failure,
        }
    }

    /// Why the data did not come from a command, if that is so: reason and text.
    #[must_use]
    pub fn source_failure(&self) -> Option<(&'static str, String)> {
        let fatal = self.fatal.as_ref()?.message.as_str();
        let code = fatal.rsplit_once("command failed: exit status ")?.1;
        let words = self.source.as_deref().unwrap_or_default();
        match code.trim().parse::<u8>().ok()? {
            SOURCE_EMPTY => Some((
                "SourceEmpty",
                "the command of spec.source.stdin ended well and wrote nothing; no snapshot was stored"
                    .to_owned(),
            )),
            SOURCE_FAILED => Some((
                "SourceFailed",
                format!("the command of spec.source.stdin failed; no snapshot was stored: {words}"),
            )),
            _ => None,
        }
    }

    /// restic read nothing at all, because it may not.
    #[must_use]
    pub fn nothing_readable(&self) -> bool {
        let empty = self
            .fatal
            .as_ref()
            .is_some_and(|f| f.message.contains("snapshot is empty"));
        empty && self.errors > 0
    }

    /// Up to three of the files that restic had trouble with, each with the cause, and nothing if none is known. `mount`
    /// is where the volume is mounted: people know its paths without it.
    #[must_use]
    pub fn samples(&self, mount: &str) -> String {
        let items = self.items.iter().take(SAMPLES);
        let samples: Vec<String> = items.map(|item| item.describe(mount)).collect();
        samples.join("; ")
    }
}

impl Item {
    /// `/path: permission denied`: restic's text names the path once more.
    fn describe(&self, mount: &str) -> String {
        let text = &self.error.message;
        let cause = text
            .rsplit_once(&format!("{}: ", self.item))
            .map_or(text.as_str(), |(_, cause)| cause);
        let path = self.item.strip_prefix(mount).unwrap_or(&self.item);
        let path = if path.is_empty() { "/" } else { path };
        format!("{path}: {cause}")
    }
}

/// Reason of a run that restic ended.
#[must_use]
pub fn reason_of(failure: &Failure) -> &'static str {
    match failure {
        Failure::NoRepository => "RepositoryMissing",
        Failure::WrongPassword => "WrongPassword",
        Failure::Locked(_) => "RepositoryLocked",
        Failure::Unreachable(_) | Failure::DeadlineExceeded(_) => "RepositoryUnreachable",
        Failure::Forbidden(_) => "RepositoryForbidden",
        Failure::Damaged(_) => "RepositoryDamaged",
        Failure::FileUnreadable(_) => "FileUnreadable",
        Failure::LockLost => "LockLost",
        Failure::Interrupted => "Interrupted",
        Failure::Exists | Failure::NotBegun | Failure::Other(_) => "ResticFailed",
    }
}

/// The same in words, with what follows from it.
#[must_use]
pub fn text_of(failure: &Failure, code: i32) -> String {
    match failure {
        Failure::Interrupted => {
            "restic was stopped before it had finished; no snapshot was stored".to_owned()
        }
        Failure::Locked(_) => format!("{failure}; the next run tries again"),
        _ if code == 137 => {
            "restic was killed (exit code 137); if that was for want of memory, raise spec.jobConfig.resources.limits.memory".to_owned()
        }
        _ => format!("{failure} (exit code {code})"),
    }
}
