//! What an operation is given to do: composed anew for each grant and renewal, or withheld for a reason.

use std::fmt;
use std::sync::Arc;

use prost::Message as _;
use proto::digest::run_hash;
use proto::v1::hub_message::Body;
use proto::v1::{LeaseAsk, LeaseWaiting, OperationKind, RetentionRun};
use tracing::warn;

use super::asks::Asker;
use super::grantor::{Effect, Grant, Operation};
use super::keeper::Keeper;
use super::keys;
use super::run;
use crate::inventory::Inventory;
use crate::now as wall_clock;
use crate::store::{StoredAudit, StoredGrant};

/// Why a retention operation is given nothing. Without a run its spoke would go by its own policies alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Withheld {
    /// Something that a run is made of is not known at the moment.
    Unknown(&'static str),
    /// The run does not fit into a pod.
    TooLong(String),
    /// Clusters open the repository with the key that is to go, or may.
    KeyInUse(String),
    /// Another repository lies where this one was, or this one lies where another was.
    Changed(String),
    /// A resource of a cluster makes the store read-only.
    ReadOnly(String),
    /// It is not known which clusters use the store.
    Unclear(String),
    /// A person has paused all maintenance but the removal of left-over locks.
    Paused(String),
    /// The spoke is newer than this hub: what the operation does to the repository is not known here.
    NewerKind(i32),
}

impl fmt::Display for Withheld {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Withheld::KeyInUse(text)
            | Withheld::Changed(text)
            | Withheld::ReadOnly(text)
            | Withheld::Unclear(text) => write!(f, "{text}; it is looked at again within a minute"),
            Withheld::Unknown(what) => write!(f, "{what}; it is tried again within a minute"),
            Withheld::TooLong(text) | Withheld::Paused(text) => f.write_str(text),
            Withheld::NewerKind(kind) => write!(
                f,
                "this hub is older than the cluster's operator and does not know operations of kind {kind}: update fleet-hub"
            ),
        }
    }
}

/// Whether operations of a kind wait while maintenance is paused. Removals of left-over locks do not: backups go on, and fail
/// on such a lock.
fn pauses(kind: OperationKind) -> bool {
    kind != OperationKind::Unlock
}

/// Why nothing may be removed from a repository that another one lies in the place of, or that lies in the place of another.
#[must_use]
pub(super) fn changed(inventory: &Inventory, restic_id: &str) -> Option<String> {
    let (place, known, other) = inventory.changed_of(restic_id)?;
    Some(format!(
        "repository {other} lies at the location of {place} in the place of {known}; nothing is removed from either until a person \
         accepts it there"
    ))
}

impl Keeper {
    /// What an operation is to do as of now; `None` for one that is no retention run, and when its pod has it already.
    /// A key that some cluster may need is not removed.
    /// `has` is the hash of what its pod has, empty for nothing.
    pub(super) async fn given(
        &mut self,
        id: &Arc<str>,
        key: &Asker,
        has: &[u8],
    ) -> Result<Option<RetentionRun>, Withheld> {
        let Some(asked) = self.asks.about(key, id) else {
            return Err(Withheld::Unknown("what the operation is to do is not known"));
        };
        if has.is_empty()
            && let Some(withheld) = self.barred(id, &key.0, &asked.ask)
        {
            return Err(withheld);
        }
        if ![OperationKind::Retention, OperationKind::Unspecified].contains(&asked.ask.kind()) {
            return Ok(None);
        }
        let approved = asked.ask.approved.clone();
        if let Some(text) = self.hub.read(|inventory| changed(inventory, id)) {
            return Err(Withheld::Changed(text));
        }
        if let Some(text) = self.store_unclear(id) {
            return Err(Withheld::Unclear(text));
        }
        let known = self.learn_history(id).await;
        // Without the history new clusters and rejected plans are not known.
        let repository = self.repositories.get(id);
        let history = repository.and_then(|r| r.history.as_ref());
        let Some(history) = history.filter(|_| known) else {
            return Err(Withheld::Unknown("what earlier runs left could not be read"));
        };
        let run = self
            .hub
            .read(|inventory| run::compose(inventory, history, id, &approved));
        if !has.is_empty() && run_hash(&run) == has {
            return Ok(None);
        }
        match run::too_long(&run) {
            Some(text) => Err(Withheld::TooLong(text)),
            None => Ok(Some(run)),
        }
    }

    /// Why an operation may not begin, whatever it is to do. Who holds the lock goes on.
    fn barred(&self, id: &Arc<str>, cluster: &str, ask: &LeaseAsk) -> Option<Withheld> {
        // Read as a number: an unknown kind would pass for that of early spokes, which is retention.
        if OperationKind::try_from(ask.kind).is_err() {
            return Some(Withheld::NewerKind(ask.kind));
        }
        if let Some(pause) = self.hub.paused().filter(|_| pauses(ask.kind())) {
            return Some(Withheld::Paused(format!(
                "maintenance of the fleet is paused by {}: {}; `fleet resume` ends that",
                pause.who, pause.reason
            )));
        }
        if let Some(text) = self.place_unclear(id, cluster) {
            return Some(Withheld::Unclear(text));
        }
        let read_only = self.hub.read(|inventory| inventory.read_only(id).cloned());
        if let Some(place) = read_only.filter(|_| ask.kind() != OperationKind::Check) {
            return Some(Withheld::ReadOnly(format!(
                "ResticRepository {place} makes the repository read-only (spec.readOnly)"
            )));
        }
        if ask.removes_key.is_empty() {
            return None;
        }
        if let Some(text) = self.store_unclear(id) {
            return Some(Withheld::Unclear(text));
        }
        let needed = self
            .hub
            .read(|inventory| keys::needed(inventory, id, &ask.removes_key));
        needed.map(Withheld::KeyInUse)
    }

    /// Reads what earlier runs of a repository left, once. Whether it is known.
    async fn learn_history(&mut self, id: &Arc<str>) -> bool {
        if self.repository(id).history.is_some() {
            return true;
        }
        match self.store.history(id).await {
            Ok(history) => {
                self.repository(id).history = Some(history);
                true
            }
            Err(error) => {
                self.failed(error, "the history of a repository could not be read");
                false
            }
        }
    }

    /// Restores the question of a holder whose grant is older than this run of the hub. Whether it is known; it is read
    /// again with the next message otherwise.
    pub(super) async fn recall(&mut self, id: &Arc<str>, key: &Asker, token: u64) -> bool {
        if self.asks.get(key).is_some() {
            return true;
        }
        let stored = match self.store.asked(id, token).await {
            Ok(stored) => stored,
            Err(error) => {
                self.failed(error, "the question of a holder could not be read");
                return false;
            }
        };
        let stored = stored.and_then(|bytes| LeaseAsk::decode(bytes.as_slice()).ok());
        // A grant that the store has lost: the run of today, and no approval.
        let ask = stored.unwrap_or_else(|| LeaseAsk {
            operation: key.1.to_string(),
            restic_id: id.to_string(),
            kind: OperationKind::Retention.into(),
            ..LeaseAsk::default()
        });
        let now = self.now();
        self.asks.put(key, id, ask, now);
        true
    }

    /// The entry of a grant in the audit, with what its operation is given.
    pub(super) async fn granted(&mut self, id: &Arc<str>, grant: &Grant) -> Result<StoredGrant, Withheld> {
        let Grant { operation, token, .. } = grant;
        let key = (operation.cluster.clone(), operation.id.clone());
        let run = self.given(id, &key, &[]).await?;
        let ask = self.asks.get(&key).map(|asked| asked.ask.encode_to_vec());
        let given = run.clone().unwrap_or_default();
        let audit = StoredAudit {
            restic_id: id.to_string(),
            token: *token,
            cluster: operation.cluster.to_string(),
            operation: operation.id.to_string(),
            subject: operation.subject.to_string(),
            granted: wall_clock(),
            ended: None,
            policies: run::names(&given),
            covered: Vec::new(),
            outcome: None,
            clusters: given.clusters,
            plan: String::new(),
        };
        if let Some(repository) = self.repositories.get_mut(id) {
            repository.run = Some((*token, run));
        }
        Ok(StoredGrant {
            audit,
            approved: given.approved,
            ask: ask.unwrap_or_default(),
        })
    }

    /// The operation waits outside of the queue, and holds nobody up. `opened`: the highest token that may have reached
    /// it; a grant above it is free at once, by the effects.
    pub(super) fn withhold(
        &mut self,
        id: &Arc<str>,
        operation: &Operation,
        opened: u64,
        reason: &Withheld,
    ) -> Vec<Effect> {
        let key = (operation.cluster.clone(), operation.id.clone());
        let answer = LeaseWaiting {
            operation: key.1.to_string(),
            restic_id: id.to_string(),
            position: 0,
            reason: reason.to_string(),
        };
        if self.asks.block(&key, answer.clone()) {
            warn!(repository = %id, cluster = %key.0, subject = %operation.subject, %reason, "nothing can be granted to an operation");
            self.send(&key.0, Body::LeaseWaiting(answer));
        }
        self.repository(id).grantor.withdraw(operation, opened)
    }

    /// Operations that wait outside of the queue are tried again.
    pub(super) async fn retry_blocked(&mut self) {
        let blocked: Vec<Asker> = self.asks.blocked().map(|(key, _)| key.clone()).collect();
        for key in blocked {
            match self.asks.get(&key).cloned() {
                Some(asked) if self.sessions.contains_key(&key.0) => self.ask(key.0, asked.ask).await,
                _ => self.asks.remove(&key),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pause_leaves_the_removal_of_locks_to_the_backups() {
        assert!(!pauses(OperationKind::Unlock));
        for kind in [
            OperationKind::Retention,
            OperationKind::Check,
            OperationKind::Key,
            OperationKind::Unspecified,
        ] {
            assert!(pauses(kind), "{kind:?}");
        }
    }
}
