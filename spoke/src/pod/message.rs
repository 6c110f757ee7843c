//! What a pod of ours tells of its end: one JSON object in the termination log, as entrypoint.sh writes it. Pure.

use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::restic::{Failure, SSH, classify};
use crate::world::PodView;

/// The termination message. `S` is the summary that restic's command prints last.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", default, bound = "S: DeserializeOwned")]
pub struct Message<S> {
    pub exit_code: i32,
    pub summary: Option<S>,
    fatal: Option<Fatal>,
    /// The last words of ssh, which restic does not repeat in its own.
    ssh: Option<String>,
    /// Files that restic had trouble with.
    pub errors: u64,
    /// restic said that it had lost its lock: what it relied on may have been deleted meanwhile.
    pub lock_lost: bool,
    items: Vec<Item>,
}

// Not derived: S needs no default.
impl<S> Default for Message<S> {
    fn default() -> Self {
        Message {
            exit_code: 0,
            summary: None,
            fatal: None,
            ssh: None,
            errors: 0,
            lock_lost: false,
            items: Vec::new(),
        }
    }
}

#[derive(Debug, Deserialize)]
struct Fatal {
    #[serde(default)]
    message: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Item {
    item: String,
    error: ItemError,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct ItemError {
    message: String,
}

impl<S: DeserializeOwned> Message<S> {
    /// Reads a message.
    ///
    /// # Errors
    /// When the container ended before it could write one.
    pub fn parse(text: &str) -> Result<Message<S>, serde_json::Error> {
        serde_json::from_str(text)
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
        classify(Some(self.exit_code), &(ssh.unwrap_or_default() + &fatal))
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

    /// `, such as …` with up to three of the files that restic had trouble with, or nothing.
    #[must_use]
    pub fn samples(&self) -> String {
        let items = self.items.iter().take(3);
        let samples: Vec<String> = items
            .map(|i| format!("{} ({})", i.item, i.error.message))
            .collect();
        if samples.is_empty() {
            String::new()
        } else {
            format!(", such as {}", samples.join("; "))
        }
    }
}

/// What to write where files belong to a user that the pod does not run as.
pub const OWNER_HINT: &str = "if they belong to another user, write spec.jobConfig.securityContext.runAsUser: <owner>; pods run as uid 65532 unless given";

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
        Failure::Interrupted => "Interrupted",
        Failure::Exists | Failure::Other(_) => "ResticFailed",
    }
}

/// The same in words, with what follows from it.
#[must_use]
pub fn text_of(failure: &Failure, code: i32) -> String {
    match failure {
        Failure::Interrupted => {
            "restic was told to stop before it had finished; no snapshot was stored".to_owned()
        }
        Failure::Locked(_) => format!("{failure}; the next run tries again"),
        _ => format!("{failure} (exit code {code})"),
    }
}

/// What a pod that does not start waits for, in the words of the scheduler or the kubelet.
#[must_use]
pub fn waiting_for(pod: &PodView) -> Option<(&str, String)> {
    if &*pod.phase != "Pending" {
        return None;
    }
    if let Some(words) = &pod.unschedulable {
        return Some(("Unschedulable", words.to_string()));
    }
    pod.waiting
        .as_ref()
        .map(|(reason, message)| (&**reason, message.to_string()))
}
