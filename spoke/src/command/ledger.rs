//! What this cluster has done of its hub's commands, kept in a Kubernetes Lease beside the tokens: what makes a command
//! happen at most once, whatever is sent again and whichever replica leads. A command is written here before anything is done for it.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use proto::v1::CommandState;
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::apply::{Applier, ApplyError};
use crate::world::Key;

const NAME: &str = "fleet-commands";
const ANNOTATION: &str = "backup.resticbackup.io/commands";
/// Commands that are under way or whose end the hub does not know.
const OPEN_MAX: usize = 200;
/// Ends that are remembered, so that nothing is done again for a hub whose store is older.
const SETTLED_MAX: usize = 1000;
/// Largest ledger that takes another command. The annotations of an object hold 256 KiB, and ends are still to be noted.
const SIZE_MAX: usize = 200_000;
/// Ends are remembered for this long after the time in which the command could have begun.
const KEPT: SignedDuration = SignedDuration::from_hours(1);
/// Longest text of an end: all of it has to fit into an annotation.
const TEXT_MAX: usize = 400;

/// Everything that is remembered.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Ledger {
    /// By id.
    open: BTreeMap<String, Entry>,
    /// Whose end the hub knows.
    settled: BTreeMap<String, Settled>,
}

/// A command that was accepted.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Entry {
    /// fleet.v1.CommandBody, base64.
    pub body: String,
    pub who: String,
    /// Until then it may be sent again.
    pub until: Timestamp,
    /// uid of the object that was made for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub made: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end: Option<End>,
}

/// How a command has ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct End {
    #[serde(with = "state")]
    pub state: CommandState,
    pub text: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub object: String,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Settled {
    until: Timestamp,
    #[serde(with = "state")]
    state: CommandState,
}

/// States by their numbers on the wire.
mod state {
    use proto::v1::CommandState;
    use serde::{Deserialize as _, Deserializer, Serializer};

    #[allow(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
    pub(super) fn serialize<S: Serializer>(state: &CommandState, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_i32(i32::from(*state))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<CommandState, D::Error> {
        let number = i32::deserialize(from)?;
        Ok(CommandState::try_from(number).unwrap_or_default())
    }
}

/// What is known of a command.
#[derive(Clone, Debug, PartialEq)]
pub enum Known<'a> {
    Nothing,
    Open(&'a Entry),
    /// The hub knew it once.
    Settled(CommandState),
}

impl End {
    /// An end with a text of bounded length.
    #[must_use]
    pub fn new(state: CommandState, text: impl Into<String>) -> End {
        let mut text = text.into();
        if text.len() > TEXT_MAX {
            text = text.chars().take(TEXT_MAX / 4).collect::<String>() + " …";
        }
        End {
            state,
            text,
            object: String::new(),
        }
    }

    /// The same, with the object that was made.
    #[must_use]
    pub fn of(self, object: impl Into<String>) -> End {
        End {
            object: object.into(),
            ..self
        }
    }
}

impl Ledger {
    /// What is known of a command.
    #[must_use]
    pub fn known(&self, id: &str) -> Known<'_> {
        match (self.open.get(id), self.settled.get(id)) {
            (Some(entry), _) => Known::Open(entry),
            (None, Some(settled)) => Known::Settled(settled.state),
            (None, None) => Known::Nothing,
        }
    }

    /// Commands that have not ended.
    pub fn unended(&self) -> impl Iterator<Item = (&String, &Entry)> {
        self.open.iter().filter(|(_, entry)| entry.end.is_none())
    }

    /// Notes a command before anything is done for it.
    ///
    /// # Errors
    /// When there is no room, in a sentence.
    pub fn accept(&mut self, id: &str, entry: Entry, now: Timestamp) -> Result<(), String> {
        self.tidy(now);
        if self.open.len() >= OPEN_MAX || self.settled.len() >= SETTLED_MAX {
            return Err(format!(
                "this cluster has {} commands that have not ended, and remembers {} that have; ask again later",
                self.open.len(),
                self.settled.len()
            ));
        }
        self.open.insert(id.to_owned(), entry);
        let size = serde_json::to_string(self).map_or(usize::MAX, |text| text.len());
        if size > SIZE_MAX {
            self.open.remove(id);
            return Err(format!(
                "what this cluster has to remember of its commands would take {size} bytes, and {SIZE_MAX} fit; ask again \
                 later, or for less at once"
            ));
        }
        Ok(())
    }

    /// Whether the time of a command is over by so much that its hub will not send it again.
    #[must_use]
    pub fn is_over(&self, id: &str, now: Timestamp) -> bool {
        let until = self.open.get(id).map(|entry| entry.until);
        until.is_some_and(|until| until.checked_add(KEPT).is_ok_and(|end| end < now))
    }

    /// Notes the object that was made. Whether that is new.
    pub fn made(&mut self, id: &str, uid: &str) -> bool {
        let entry = self.open.get_mut(id).filter(|entry| entry.made.is_none());
        entry.map(|entry| entry.made = Some(uid.to_owned())).is_some()
    }

    /// Notes an end.
    pub fn end(&mut self, id: &str, end: End) {
        if let Some(entry) = self.open.get_mut(id) {
            entry.end.get_or_insert(end);
        }
    }

    /// The hub knows the end. Whether anything has changed.
    pub fn settle(&mut self, id: &str, now: Timestamp) -> bool {
        let end = self
            .open
            .get(id)
            .and_then(|entry| Some((entry.until, entry.end.as_ref()?.state)));
        let Some((until, state)) = end else {
            return false;
        };
        self.open.remove(id);
        let until = until.checked_add(KEPT).unwrap_or(until);
        self.settled.insert(id.to_owned(), Settled { until, state });
        self.tidy(now);
        true
    }

    fn tidy(&mut self, now: Timestamp) {
        self.settled.retain(|_, settled| settled.until > now);
        // A hub that has not asked for an end for so long does not know the command.
        let forgotten = |entry: &Entry| {
            let until = entry.until.checked_add(KEPT * 24 * 30).unwrap_or(entry.until);
            entry.end.is_some() && until <= now
        };
        self.open.retain(|_, entry| !forgotten(entry));
    }
}

/// What is remembered.
///
/// # Errors
/// When it cannot be read; then nothing may be done.
pub async fn read(applier: &Applier, namespace: &str) -> Result<Ledger, ApplyError> {
    let present = applier.get::<Lease>(&Key::new(namespace, NAME)).await?;
    let annotations = present
        .and_then(|lease| lease.metadata.annotations)
        .unwrap_or_default();
    let Some(text) = annotations.get(ANNOTATION) else {
        return Ok(Ledger::default());
    };
    let broken = |error| ApplyError::Invalid(format!("Lease {namespace}/{NAME}: {error}"));
    serde_json::from_str(text).map_err(broken)
}

/// Remembers.
///
/// # Errors
/// When it could not be made durable.
pub async fn write(applier: &Applier, namespace: &str, ledger: &Ledger) -> Result<(), ApplyError> {
    let key = Key::new(namespace, NAME);
    let text = serde_json::to_string(ledger).map_err(|e| ApplyError::Invalid(e.to_string()))?;
    let annotations = BTreeMap::from([(ANNOTATION.to_owned(), text)]);
    let patch = json!({ "metadata": { "annotations": annotations } });
    match applier.merge::<Lease>(&key, &patch).await {
        Err(ApplyError::Gone(_)) => {}
        written => return written.map(drop),
    }
    let lease = Lease {
        metadata: ObjectMeta {
            name: Some(key.name.to_string()),
            namespace: Some(key.namespace.to_string()),
            annotations: Some(annotations),
            ..ObjectMeta::default()
        },
        spec: Some(LeaseSpec::default()),
    };
    applier.create(&lease).await.map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(seconds).unwrap()
    }

    fn entry(until: i64) -> Entry {
        Entry {
            body: String::new(),
            who: "ann".to_owned(),
            until: at(until),
            made: None,
            end: None,
        }
    }

    #[test]
    fn an_end_is_known_until_its_command_cannot_come_again() {
        let mut ledger = Ledger::default();
        ledger.accept("1", entry(100), at(0)).unwrap();
        assert!(!ledger.settle("1", at(1)), "it has not ended");
        assert!(!ledger.is_over("1", at(100 + 3600)) && ledger.is_over("1", at(100 + 3601)));
        assert!(ledger.made("1", "u") && !ledger.made("1", "v"));
        ledger.end("1", End::new(CommandState::Done, "well"));
        ledger.end("1", End::new(CommandState::Failed, "late"));
        let Known::Open(Entry {
            end: Some(end), made, ..
        }) = ledger.known("1")
        else {
            panic!()
        };
        assert_eq!((end.state, made.as_deref()), (CommandState::Done, Some("u")));
        assert!(ledger.settle("1", at(2)));
        assert_eq!(ledger.known("1"), Known::Settled(CommandState::Done));
        ledger.accept("2", entry(9000), at(3000)).unwrap();
        assert_eq!(ledger.known("1"), Known::Settled(CommandState::Done));
        ledger.accept("3", entry(9000), at(100 + 3601)).unwrap();
        assert_eq!(ledger.known("1"), Known::Nothing);
        assert_eq!(ledger.unended().count(), 2);
    }

    #[test]
    fn it_is_bounded_and_read_as_it_was_written() {
        let mut ledger = Ledger::default();
        for n in 0..OPEN_MAX {
            ledger.accept(&format!("id-{n}"), entry(100), at(0)).unwrap();
        }
        assert!(ledger.accept("more", entry(100), at(0)).is_err());
        ledger.end(
            "id-1",
            End::new(CommandState::Refused, "ä".repeat(10_000)).of("Job a/b"),
        );
        let mut large = entry(100);
        large.body = "x".repeat(SIZE_MAX);
        let refused = Ledger::default().accept("large", large, at(0)).unwrap_err();
        assert!(refused.contains("bytes"), "{refused}");
        let text = serde_json::to_string(&ledger).unwrap();
        assert!(text.len() < 100_000, "{}", text.len());
        assert_eq!(serde_json::from_str::<Ledger>(&text).unwrap(), ledger);
        assert_eq!(serde_json::from_str::<Ledger>("{}").unwrap(), Ledger::default());
    }
}
