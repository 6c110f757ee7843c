//! One resource of one cluster as the hub holds it, with what is worked out once when it arrives.

use std::sync::Arc;

use prost::Message as _;
use proto::digest::{ObjectHash, object_hash};
use proto::plan::is_id;
use proto::v1::object_state::Body;
use proto::v1::{BackupState, ObjectState, PolicyState, RepositoryState, RestoreState};

use crate::Millis;
use crate::clean;
use crate::copies::{Places, restic_id};
use crate::health::due;
use crate::schedule::Deadline;

/// One resource of one cluster.
#[derive(Clone, Debug)]
pub struct Held {
    /// The cluster that reported it.
    pub cluster: Arc<str>,
    /// `<cluster>/<namespace>/<name>`: unique per kind, and the key of a backup's row.
    pub place: Arc<str>,
    /// The resource, as far as this version knows its fields. Of a backup's conditions only those that it is judged by.
    pub object: ObjectState,
    /// Whether the bytes could be decoded and are of a kind that this version knows. If not, nobody knows what it keeps.
    pub readable: bool,
    /// Hash of the bytes as the spoke sent them, for the cluster's digest.
    pub hash: ObjectHash,
    /// Number of those bytes.
    pub size: usize,
    /// When the hub first saw the present schedule of a backup replace another one; 0 when it never changed.
    pub baseline: Millis,
    /// When the next success is due.
    pub deadline: Option<Deadline>,
    /// Key of the repository's row; that of `place` for others.
    pub row: Arc<str>,
}

impl Held {
    /// Takes a resource in, as the spoke encoded it. `previous` is what was held under the same uid.
    ///
    /// Reads the cron schedule, so call it outside of locks.
    #[must_use]
    pub fn new(cluster: &Arc<str>, uid: &str, state: &[u8], previous: Option<&Self>, now: Millis) -> Self {
        let (object, readable) = decode(uid, state);
        let baseline = match (backup_of(&object), previous.and_then(|held| held.backup())) {
            (Some(new), Some(old)) if planned_alike(new, old) => previous.map_or(0, |held| held.baseline),
            (Some(_), Some(_)) => now,
            _ => 0,
        };
        Self::of(cluster, object, readable, state, baseline)
    }

    /// As it was when it was stored.
    #[must_use]
    pub fn restored(cluster: &Arc<str>, uid: &str, state: &[u8], baseline: Millis) -> Self {
        let (object, readable) = decode(uid, state);
        Self::of(cluster, object, readable, state, baseline)
    }

    fn of(cluster: &Arc<str>, object: ObjectState, readable: bool, state: &[u8], baseline: Millis) -> Self {
        let place: Arc<str> = format!("{cluster}/{}/{}", object.namespace, object.name).into();
        let row = match repository_of(&object) {
            Some(repository) => repository_row(repository, &place),
            None => place.clone(),
        };
        Self {
            cluster: cluster.clone(),
            hash: object_hash(&object.uid, state),
            size: object.uid.len() + state.len(),
            readable,
            deadline: backup_of(&object).and_then(|backup| due(&object, backup, baseline)),
            place,
            row,
            baseline,
            object,
        }
    }

    /// Puts the key of the store in which its cluster's repository lies in the place of the restic id.
    pub(super) fn place(&mut self, places: &Places) {
        let id = match self.object.body.as_mut() {
            Some(Body::Repository(body)) => &mut body.restic_id,
            Some(Body::Backup(body)) => &mut body.restic_id,
            Some(Body::Policy(body)) => &mut body.restic_id,
            Some(Body::Restore(body)) => &mut body.restic_id,
            None => return,
        };
        let plain = restic_id(id);
        if !is_id(plain) {
            return;
        }
        let key = places.key(&self.cluster, plain);
        *id = key.to_string();
        if self.repository().is_some() {
            self.row = key;
        }
    }

    /// The body, when this is a backup.
    #[must_use]
    pub fn backup(&self) -> Option<&BackupState> {
        backup_of(&self.object)
    }

    /// The body, when this is a repository.
    #[must_use]
    pub fn repository(&self) -> Option<&RepositoryState> {
        repository_of(&self.object)
    }

    /// The body, when this is a retention policy.
    #[must_use]
    pub fn policy(&self) -> Option<&PolicyState> {
        match self.object.body.as_ref()? {
            Body::Policy(policy) => Some(policy),
            _ => None,
        }
    }

    /// The body, when this is a restore.
    #[must_use]
    pub fn restore(&self) -> Option<&RestoreState> {
        match self.object.body.as_ref()? {
            Body::Restore(restore) => Some(restore),
            _ => None,
        }
    }

    /// Place of the repository that a backup writes to.
    #[must_use]
    pub fn writes_to(&self) -> Option<Arc<str>> {
        let backup = self.backup()?;
        let namespace = match backup.repository_namespace.as_str() {
            "" => &self.object.namespace,
            namespace => namespace,
        };
        Some(format!("{}/{namespace}/{}", self.cluster, backup.repository_name).into())
    }

    /// Place of the repository that a restore reads from.
    #[must_use]
    pub fn restores_from(&self) -> Option<Arc<str>> {
        let restore = self.restore()?;
        let namespace = match restore.repository_namespace.as_str() {
            "" => &self.object.namespace,
            namespace => namespace,
        };
        Some(format!("{}/{namespace}/{}", self.cluster, restore.repository_name).into())
    }

    /// Place of the repository that a policy is for.
    #[must_use]
    pub fn refers_to(&self) -> Option<Arc<str>> {
        let policy = self.policy()?;
        let namespace = match policy.repository_namespace.as_str() {
            "" => &self.object.namespace,
            namespace => namespace,
        };
        Some(format!("{}/{namespace}/{}", self.cluster, policy.repository_name).into())
    }
}

/// The state of a resource, cleaned for people's eyes: what is hashed and stored is what was sent. The uid is that under
/// which it was sent.
fn decode(uid: &str, state: &[u8]) -> (ObjectState, bool) {
    let decoded = ObjectState::decode(state);
    // A kind of a newer spoke has no body here. It may be one that keeps snapshots.
    let readable = decoded.as_ref().is_ok_and(|object| object.body.is_some());
    let mut object = ObjectState {
        uid: uid.to_owned(),
        ..decoded.unwrap_or_default()
    };
    // Nobody reads it but who makes a cluster again, who reads it from the store.
    object.manifest = String::new();
    clean::object(&mut object);
    if let Some(Body::Backup(_)) = &object.body {
        trim(&mut object);
    }
    (object, readable)
}

/// Conditions by which the hub judges a backup.
const JUDGED_BY: [&str; 3] = ["Ready", "Suspicious", "Waiting"];

/// Leaves out what nobody reads but who looks at a single backup, who reads it from the store: there may be a million.
fn trim(object: &mut ObjectState) {
    object
        .conditions
        .retain(|condition| JUDGED_BY.contains(&condition.r#type.as_str()));
    object.conditions.shrink_to_fit();
    for condition in &mut object.conditions {
        // Why something is as it should be.
        if condition.r#type == "Ready" && condition.status == "True" {
            condition.message = String::new();
            condition.reason = String::new();
        }
    }
}

fn backup_of(object: &ObjectState) -> Option<&BackupState> {
    match object.body.as_ref()? {
        Body::Backup(backup) => Some(backup),
        _ => None,
    }
}

fn repository_of(object: &ObjectState) -> Option<&RepositoryState> {
    match object.body.as_ref()? {
        Body::Repository(repository) => Some(repository),
        _ => None,
    }
}

fn planned_alike(new: &BackupState, old: &BackupState) -> bool {
    new.schedule == old.schedule && new.timezone == old.timezone && new.suspended == old.suspended
}

/// The restic id where it is known and looks like one, else the place.
fn repository_row(repository: &RepositoryState, place: &str) -> Arc<str> {
    let id = repository.restic_id.as_str();
    if is_id(id) {
        id.into()
    } else {
        format!("unknown/{place}").into()
    }
}
