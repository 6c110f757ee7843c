//! One resource of one cluster as the hub holds it, with what is worked out once when it arrives.

use std::sync::Arc;

use prost::Message as _;
use proto::digest::{ObjectHash, object_hash};
use proto::plan::is_id;
use proto::time::to_unix_millis;
use proto::v1::object_state::Body;
use proto::v1::{Condition, ObjectState, PolicyState, RepositoryState, RestoreState};

use super::backup::Backup;
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
    pub uid: Arc<str>,
    /// `<cluster>/<namespace>/<name>`: unique per kind, and the key of a backup's row.
    pub place: Arc<str>,
    /// Bytes of the namespace in it.
    namespace: u32,
    /// Whether the bytes could be decoded and are of a kind that this version knows. If not, nobody knows what it keeps.
    pub readable: bool,
    pub generation: i64,
    what: What,
    /// Hash of the bytes as the spoke sent them, for the cluster's digest.
    pub hash: ObjectHash,
    /// Number of those bytes but for its manifest, which is not held in memory.
    pub size: usize,
    /// Bytes of its manifest, in the store alone.
    pub manifest: usize,
    /// When the hub first saw the present schedule of a backup replace another one; 0 when it never changed.
    pub baseline: Millis,
    /// When the next success is due.
    pub deadline: Option<Deadline>,
    /// Key of the repository's row; that of `place` for others.
    pub row: Arc<str>,
}

/// A resource, as far as this version knows its fields.
#[derive(Clone, Debug)]
enum What {
    Backup(Backup),
    Other(Box<ObjectState>),
}

impl Held {
    /// Takes a resource in, as the spoke encoded it. `previous` is what was held under the same uid.
    ///
    /// Reads the cron schedule, so call it outside of locks.
    #[must_use]
    pub fn new(cluster: &Arc<str>, uid: &str, state: &[u8], previous: Option<&Self>, now: Millis) -> Self {
        let mut held = Self::of(cluster, uid, state);
        held.baseline = match (held.backup(), previous.and_then(|held| held.backup())) {
            (Some(new), Some(old)) if new.planned_as(old) => previous.map_or(0, |held| held.baseline),
            (Some(_), Some(_)) => now,
            _ => 0,
        };
        held.due()
    }

    /// As it was when it was stored.
    #[must_use]
    pub fn restored(cluster: &Arc<str>, uid: &str, state: &[u8], baseline: Millis) -> Self {
        let held = Self {
            baseline,
            ..Self::of(cluster, uid, state)
        };
        held.due()
    }

    fn due(mut self) -> Self {
        self.deadline = self.backup().and_then(|backup| due(backup, self.baseline));
        self
    }

    fn of(cluster: &Arc<str>, uid: &str, state: &[u8]) -> Self {
        let (mut object, readable, manifest) = decode(state);
        let place: Arc<str> = format!("{cluster}/{}/{}", object.namespace, object.name).into();
        let row = match &object.body {
            Some(Body::Repository(repository)) => repository_row(repository, &place),
            _ => place.clone(),
        };
        Self {
            cluster: cluster.clone(),
            uid: uid.into(),
            namespace: u32::try_from(object.namespace.len()).unwrap_or(u32::MAX),
            place,
            readable,
            generation: object.generation,
            hash: object_hash(uid, state),
            size: (uid.len() + state.len()).saturating_sub(manifest),
            manifest,
            baseline: 0,
            deadline: None,
            row,
            what: match object.body.take() {
                Some(Body::Backup(body)) => {
                    What::Backup(Backup::new(body, object.created.as_ref(), object.conditions))
                }
                body => What::Other(Box::new(ObjectState {
                    uid: uid.to_owned(),
                    body,
                    ..object
                })),
            },
        }
    }

    /// Puts the key of the store in which its cluster's repository lies in the place of the restic id.
    pub(super) fn place(&mut self, places: &Places) {
        let plain = restic_id(self.restic_id());
        if !is_id(plain) {
            return;
        }
        let key = places.key(&self.cluster, plain);
        match &mut self.what {
            What::Backup(backup) => backup.place(&key),
            What::Other(object) => match &mut object.body {
                Some(Body::Repository(body)) => {
                    body.restic_id = key.to_string();
                    self.row = key;
                }
                Some(Body::Policy(body)) => body.restic_id = key.to_string(),
                Some(Body::Restore(body)) => body.restic_id = key.to_string(),
                Some(Body::Backup(_)) | None => {}
            },
        }
    }

    /// Key of the store that it is, or uses; empty while that is not known.
    #[must_use]
    pub fn restic_id(&self) -> &str {
        match &self.what {
            What::Backup(backup) => backup.restic_id(),
            What::Other(object) => match &object.body {
                Some(Body::Repository(body)) => &body.restic_id,
                Some(Body::Policy(body)) => &body.restic_id,
                Some(Body::Restore(body)) => &body.restic_id,
                Some(Body::Backup(_)) | None => "",
            },
        }
    }

    #[must_use]
    pub fn namespace(&self) -> &str {
        let begin = self.cluster.len() + 1;
        self.place
            .get(begin..begin + self.namespace as usize)
            .unwrap_or_default()
    }

    #[must_use]
    pub fn name(&self) -> &str {
        let begin = self.cluster.len() + 1 + self.namespace as usize + 1;
        self.place.get(begin..).unwrap_or_default()
    }

    /// `<namespace>/<name>`.
    #[must_use]
    pub fn local_name(&self) -> &str {
        self.place.get(self.cluster.len() + 1..).unwrap_or_default()
    }

    #[must_use]
    pub fn created(&self) -> Option<Millis> {
        match &self.what {
            What::Backup(backup) => backup.created(),
            What::Other(object) => object.created.as_ref().map(to_unix_millis),
        }
    }

    /// The resource, unless it is a backup.
    #[must_use]
    pub fn object(&self) -> Option<&ObjectState> {
        match &self.what {
            What::Backup(_) => None,
            What::Other(object) => Some(object),
        }
    }

    /// Its conditions; of a backup's those alone that it is judged by.
    #[must_use]
    pub fn conditions(&self) -> &[Condition] {
        match &self.what {
            What::Backup(backup) => backup.conditions(),
            What::Other(object) => &object.conditions,
        }
    }

    /// Whether the condition Ready is True.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        match &self.what {
            What::Backup(backup) => backup.ready,
            What::Other(_) => self.ready_condition().is_some_and(|c| c.status == "True"),
        }
    }

    /// The condition Ready; of a backup only one that is not True.
    #[must_use]
    pub fn ready_condition(&self) -> Option<&Condition> {
        self.conditions()
            .iter()
            .find(|condition| condition.r#type == "Ready")
    }

    /// Whether it is a backup whose source is suddenly far smaller than before.
    #[must_use]
    pub fn is_suspicious(&self) -> bool {
        let mut conditions = self.conditions().iter();
        self.backup().is_some() && conditions.any(|c| c.r#type == "Suspicious" && c.status == "True")
    }

    /// The body, when this is a backup.
    #[must_use]
    pub fn backup(&self) -> Option<&Backup> {
        match &self.what {
            What::Backup(backup) => Some(backup),
            What::Other(_) => None,
        }
    }

    /// The body, when this is a repository.
    #[must_use]
    pub fn repository(&self) -> Option<&RepositoryState> {
        match self.object()?.body.as_ref()? {
            Body::Repository(repository) => Some(repository),
            _ => None,
        }
    }

    /// The body, when this is a retention policy.
    #[must_use]
    pub fn policy(&self) -> Option<&PolicyState> {
        match self.object()?.body.as_ref()? {
            Body::Policy(policy) => Some(policy),
            _ => None,
        }
    }

    /// The body, when this is a restore.
    #[must_use]
    pub fn restore(&self) -> Option<&RestoreState> {
        match self.object()?.body.as_ref()? {
            Body::Restore(restore) => Some(restore),
            _ => None,
        }
    }

    /// Place of the repository that a backup writes to.
    #[must_use]
    pub fn writes_to(&self) -> Option<Arc<str>> {
        let backup = self.backup()?;
        Some(self.named(backup.repository_namespace(), backup.repository_name()))
    }

    /// Place of the repository that a restore reads from.
    #[must_use]
    pub fn restores_from(&self) -> Option<Arc<str>> {
        let restore = self.restore()?;
        Some(self.named(&restore.repository_namespace, &restore.repository_name))
    }

    /// Place of the repository that a policy is for.
    #[must_use]
    pub fn refers_to(&self) -> Option<Arc<str>> {
        let policy = self.policy()?;
        Some(self.named(&policy.repository_namespace, &policy.repository_name))
    }

    /// Place of a repository that it names; without a namespace it is in its own.
    fn named(&self, namespace: &str, name: &str) -> Arc<str> {
        let namespace = match namespace {
            "" => self.namespace(),
            namespace => namespace,
        };
        format!("{}/{namespace}/{name}", self.cluster).into()
    }
}

/// The state of a resource, cleaned for people's eyes: what is hashed and stored is what was sent. Also whether it can be read,
/// and the bytes of its manifest.
fn decode(state: &[u8]) -> (ObjectState, bool, usize) {
    let decoded = ObjectState::decode(state);
    // A kind of a newer spoke has no body here. It may be one that keeps snapshots.
    let readable = decoded.as_ref().is_ok_and(|object| object.body.is_some());
    let mut object = decoded.unwrap_or_default();
    // Nobody reads it but who makes a cluster again, who reads it from the store.
    let manifest = std::mem::take(&mut object.manifest).len();
    clean::object(&mut object);
    (object, readable, manifest)
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
