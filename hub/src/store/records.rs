//! What is kept, as the store takes and gives it.

use prost::bytes::Bytes;

use super::StoredDecision;
use super::replaced::Replacement;
use super::runs::StoredRun;
use crate::Millis;
use crate::bindings::{Binding, Key};
use crate::inventory::{Facts, Origin};

/// This start of the hub.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Start {
    /// One more than ever before.
    pub epoch: u64,
    /// Random, made with the store: 32 hex digits.
    pub incarnation: String,
    /// Grants have tokens above this one.
    pub token_floor: u64,
}

/// Times by the wall clock, in milliseconds since 1970; 0 for never.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Age {
    /// When a hub last worked on the store.
    pub alive: Millis,
    /// Until when nothing may be granted, because the store was restored.
    pub waits_until: Millis,
}

/// A cluster as it is kept, always in one transaction with what changed of its objects.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct StoredCluster {
    pub name: String,
    pub facts: Facts,
    pub last_heard: Option<Millis>,
    /// Its objects are the whole of one of its states.
    pub complete: bool,
    /// Digest and number of its objects.
    pub digest: Vec<u8>,
    pub objects: u64,
    /// Why two clusters are in conflict about the name.
    pub conflict: Option<String>,
    /// uid of the cluster that an operator has accepted.
    pub accepted: Option<String>,
    /// Which cluster reported its objects.
    pub origin: Origin,
}

/// A resource as it is kept: the bytes of its state as its spoke sent them.
#[derive(Clone, Debug, PartialEq)]
pub struct StoredObject {
    pub cluster: String,
    pub uid: String,
    pub baseline: Millis,
    pub state: Bytes,
}

/// A policy that vanished without a tombstone.
#[derive(Clone, Debug, PartialEq)]
pub struct StoredVanished {
    pub cluster: String,
    pub uid: String,
    pub since: Millis,
    pub state: Vec<u8>,
}

/// Everything that is kept.
pub type Kept = (Vec<StoredCluster>, Vec<StoredObject>);

/// A lock as it is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredLock {
    pub restic_id: String,
    /// Highest token that was ever granted.
    pub token: u64,
    /// Cluster, operation and subject; empty for a holder that is not known.
    pub holder: Option<(String, String, String)>,
    pub delayed: bool,
    pub revoked: bool,
}

/// A grant, and what became of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StoredAudit {
    pub restic_id: String,
    pub token: u64,
    pub cluster: String,
    pub operation: String,
    pub subject: String,
    pub granted: Millis,
    pub ended: Option<Millis>,
    pub policies: Vec<String>,
    pub covered: Vec<String>,
    /// fleet.v1.OperationOutcome
    pub outcome: Option<Vec<u8>>,
    /// Clusters that the run was given.
    pub clusters: Vec<String>,
    /// Id of the plan that it made; empty for none.
    pub plan: String,
}

/// A grant as it begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredGrant {
    pub audit: StoredAudit,
    /// Hash of the plan that a person has approved for it; empty for none.
    pub approved: String,
    /// fleet.v1.LeaseAsk: the question that it answers.
    pub ask: Vec<u8>,
}

/// Which runs, newest first. An empty cluster takes all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditQuery {
    pub before: Option<AuditCursor>,
    /// Of these repositories, or of all.
    pub of: Option<Vec<String>>,
    pub cluster: String,
    pub since: Millis,
    pub limit: u32,
}

impl Default for AuditQuery {
    /// The newest of all.
    fn default() -> AuditQuery {
        AuditQuery {
            before: None,
            of: None,
            cluster: String::new(),
            since: Millis::MIN,
            limit: 200,
        }
    }
}

/// Where a page of the audit begins: the time of a grant, its repository and token.
pub type AuditCursor = (Millis, String, u64);
/// Where a page of plans begins: its time and id.
pub type PlanCursor = (Millis, String);

/// What is written together.
#[derive(Clone, Debug, Default)]
pub struct Batch {
    pub clusters: Vec<StoredCluster>,
    /// Clusters whose name others have taken: what is stored of them is set aside first.
    pub replaced: Vec<Replacement>,
    pub objects: Vec<StoredObject>,
    /// Cluster and uid.
    pub gone: Vec<(String, String)>,
    /// All policies that vanished, in place of those that are kept; `None` when nothing of it has changed.
    pub vanished: Option<Vec<StoredVanished>>,
    /// What people decided about the clusters.
    pub decisions: Vec<StoredDecision>,
    /// Runs that have ended.
    pub runs: Vec<StoredRun>,
}

impl Batch {
    /// Whether there is nothing to write.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.clusters.is_empty()
            && self.replaced.is_empty()
            && self.objects.is_empty()
            && self.gone.is_empty()
            && self.vanished.is_none()
            && self.decisions.is_empty()
            && self.runs.is_empty()
    }
}

/// Bindings, and the keys of repositories.
pub type KeptBindings = (Vec<Binding>, Vec<Key>);

/// What earlier runs of a repository left: of applied ones, and what people decided about plans.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct History {
    pub participants: std::collections::BTreeSet<String>,
    /// Key and remaining snapshots.
    pub baseline: Vec<(String, u32)>,
    /// Hashes of the plans that a person has rejected.
    pub rejected: std::collections::BTreeSet<String>,
    /// Damage that checks have reported with their ends: cluster, uid of the ResticRepository, and text.
    pub damage: Vec<(String, String, String)>,
}
