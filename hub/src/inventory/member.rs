//! One cluster: who reports it, since when, and what it holds.

use std::sync::Arc;

use imbl::OrdMap;
use proto::digest::Digest;
use proto::v1::ClaimsReport;

use super::conflict::{Conflict, Rivals, Takeovers};
use super::held::Held;
use crate::Millis;
use crate::health::Fresh;
use crate::store::StoredCluster;

/// When silence becomes staleness.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Milliseconds of silence on a live stream.
    pub stale_after: Millis,
    /// Milliseconds without a stream that has reported everything.
    pub grace: Millis,
    /// Most resources of one cluster.
    pub objects: usize,
    /// Most bytes of the resources of one cluster, and of their manifests.
    pub bytes: usize,
}

/// What a cluster reports about itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// uid of its kube-system namespace.
    pub cluster_uid: String,
    /// Version of its spoke.
    pub version: String,
    /// Version of its API server.
    pub kubernetes_version: String,
}

/// Which cluster reported what is held: another one may have its name by now, and has not reported everything yet.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Origin {
    /// Its uid; empty while that is not known.
    pub uid: String,
    /// What it reported was all that it had, when another one took its name.
    pub whole: bool,
    /// When it was last heard, by the wall clock, when another one took its name.
    pub heard: Option<Millis>,
}

/// The stream that reports a cluster now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Live {
    /// Session number; rises over all sessions of all clusters, also across restarts of the hub.
    pub session: u64,
    /// When it began.
    pub since: Millis,
    /// The spoke carries out retention for policies of clusters that are away.
    pub retains: bool,
    /// Only where a policy of its own that is not suspended is for the repository.
    pub retains_with_policy: bool,
}

/// One cluster. A copy shares its resources.
#[derive(Clone, Debug)]
pub struct Member {
    /// Name of the cluster, from its certificate.
    pub name: Arc<str>,
    /// What it reports about itself.
    pub facts: Facts,
    /// Its stream, while there is one.
    pub live: Option<Live>,
    /// Time of its last message, by the wall clock.
    pub last_heard: Option<Millis>,
    /// The same by the steady clock; `None` when it was before this start of the hub.
    pub heard: Option<Millis>,
    /// By the steady clock: since when no stream has confirmed what is held; `None` while one has.
    pub unconfirmed: Option<Millis>,
    /// Whether it is stale as of the present revision.
    pub stale: bool,
    /// `objects` are the whole of one of its states.
    pub(super) whole: bool,
    /// Resources whose bytes this hub cannot decode.
    pub(super) unreadable: usize,
    /// Which cluster reported `objects`.
    pub(super) origin: Origin,
    /// Bytes of all states but for manifests.
    pub(super) bytes: usize,
    /// Bytes of all manifests.
    pub(super) manifests: usize,
    /// Why its last report was not taken.
    pub(super) refused: Option<String>,
    /// Who has banned it, and why.
    pub(super) banned: Option<String>,
    /// Two clusters report under this name.
    pub(super) conflict: Option<Conflict>,
    pub(super) takeovers: Takeovers,
    /// uid of the cluster that an operator has accepted.
    pub(super) accepted: Option<String>,
    /// uids of other clusters that have asked for this name since the hub started.
    pub(super) rivals: Rivals,
    /// Its claims as it reported them last; `None` while that is not known.
    pub(super) claims: Option<Arc<ClaimsReport>>,
    /// When this hub began to wait for it, by the steady clock: its silence before that is not known.
    pub(super) awaited: Millis,
    /// The namespaces that its spoke watches, all if empty, as of its last session since this start of the hub.
    pub(super) namespaces: Vec<String>,
    /// Everything that it reported, by uid.
    pub objects: OrdMap<Arc<str>, Arc<Held>>,
    /// Digest of `objects`.
    pub digest: Digest,
    /// Rows by kind, for the cluster's own row.
    pub repositories: u64,
    /// Number of backups.
    pub backups: u64,
    /// By the steady clock: when it is looked at next, whether it has turned stale.
    pub(super) looked_at: Option<Millis>,
}

impl Member {
    /// A cluster of which nothing is confirmed.
    #[must_use]
    pub fn new(name: Arc<str>) -> Self {
        Self {
            name,
            facts: Facts::default(),
            live: None,
            last_heard: None,
            heard: None,
            unconfirmed: Some(Millis::MIN),
            stale: true,
            whole: false,
            unreadable: 0,
            origin: Origin::default(),
            bytes: 0,
            manifests: 0,
            refused: None,
            banned: None,
            conflict: None,
            takeovers: Takeovers::default(),
            accepted: None,
            rivals: Rivals::default(),
            claims: None,
            awaited: 0,
            namespaces: Vec::new(),
            objects: OrdMap::new(),
            digest: Digest::default(),
            repositories: 0,
            backups: 0,
            looked_at: None,
        }
    }

    /// Whether its spoke watches some namespaces alone.
    #[must_use]
    pub fn is_partial(&self) -> bool {
        !self.namespaces.is_empty()
    }

    /// Whether its spoke watches a namespace. What it does not report of another one may well exist.
    #[must_use]
    pub fn watches(&self, namespace: &str) -> bool {
        self.namespaces.is_empty() || self.namespaces.iter().any(|watched| watched == namespace)
    }

    /// Whether what is held is the whole of a past or present state of the cluster. If not, nobody knows what its policies
    /// keep, and all its snapshots stay.
    #[must_use]
    pub fn complete(&self) -> bool {
        self.whole && self.unreadable == 0 && self.conflict.is_none()
    }

    /// Which cluster reported what is held, whether that is all that it had, and when it was last heard.
    #[must_use]
    pub fn origin(&self) -> Origin {
        if self.is_by_another() {
            return self.origin.clone();
        }
        Origin {
            uid: self.origin.uid.clone(),
            whole: self.whole,
            heard: self.last_heard,
        }
    }

    /// Whether what is held was reported by another cluster than the one that has the name now.
    #[must_use]
    pub fn is_by_another(&self) -> bool {
        let (reported, present) = (&self.origin.uid, &self.facts.cluster_uid);
        !reported.is_empty() && !present.is_empty() && reported != present
    }

    /// Another cluster may take its name: what is known of the one that reports it is kept.
    pub(super) fn note_origin(&mut self) {
        self.origin = self.origin();
    }

    /// Why its snapshots stay although it reports, for people; empty if everything that it reports can be read.
    #[must_use]
    pub fn unread(&self) -> String {
        match self.unreadable {
            0 => String::new(),
            count => format!(
                "{count} of its resources are of a kind or a version that this hub cannot read, so no snapshot of it is removed: \
                 update fleet-hub"
            ),
        }
    }

    /// As it is kept, together with its objects.
    #[must_use]
    pub fn stored(&self) -> StoredCluster {
        StoredCluster {
            name: self.name.to_string(),
            facts: self.facts.clone(),
            last_heard: self.last_heard,
            complete: self.whole,
            digest: self.digest.to_bytes(),
            objects: self.objects.len() as u64,
            conflict: self.conflict.as_ref().map(|conflict| conflict.reason.clone()),
            accepted: self.accepted.clone(),
            origin: self.origin(),
        }
    }

    /// Its claims as it reported them last; `None` while that is not known.
    #[must_use]
    pub fn claims(&self) -> Option<&ClaimsReport> {
        self.claims.as_deref()
    }

    /// Why nothing is taken from it, if so.
    #[must_use]
    pub fn trouble(&self) -> Option<(&'static str, &str)> {
        let banned = self.banned.as_deref().map(|text| ("banned", text));
        let conflict = self.conflict.as_ref().map(|c| ("conflict", c.reason.as_str()));
        let refused = self.refused.as_deref().map(|text| ("refused", text));
        banned.or(conflict).or(refused)
    }

    /// By the steady clock, whether nothing confirms what is held: the spoke has been silent for too long, or no stream has reported
    /// everything for longer than the grace.
    #[must_use]
    pub fn is_stale(&self, limits: &Limits, now: Millis) -> bool {
        self.stale_at(limits) <= now
    }

    /// By the steady clock, when it turns stale if nothing more comes.
    #[must_use]
    pub fn stale_at(&self, limits: &Limits) -> Millis {
        let add =
            |time: Option<Millis>, limit: Millis| time.map_or(Millis::MIN, |time| time.saturating_add(limit));
        let silent = add(self.heard, limits.stale_after);
        match self.unconfirmed {
            Some(since) => silent.min(since.saturating_add(limits.grace)),
            None => silent,
        }
    }

    /// For how long no spoke of it has been connected, in milliseconds of this hub's own life; `None` while one is. How long it
    /// was away before this start is not known.
    #[must_use]
    pub fn away(&self, now: Millis) -> Option<Millis> {
        let heard = self.heard.unwrap_or(self.awaited);
        self.live.is_none().then(|| now.saturating_sub(heard))
    }

    /// How fresh its rows are.
    #[must_use]
    pub fn fresh(&self) -> Fresh {
        Fresh {
            stale: self.stale,
            last_heard: self.last_heard,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits {
        stale_after: 30,
        grace: 15,
        objects: 10,
        bytes: 1_000,
    };

    fn member(heard: Option<Millis>, unconfirmed: Option<Millis>) -> Member {
        Member {
            heard,
            unconfirmed,
            ..Member::new("a".into())
        }
    }

    #[test]
    fn silence_and_unconfirmed_knowledge_go_stale() {
        assert!(member(None, None).is_stale(&LIMITS, 100), "never heard");
        assert!(!member(Some(100), None).is_stale(&LIMITS, 129));
        assert!(member(Some(100), None).is_stale(&LIMITS, 130));
        assert!(!member(Some(100), Some(100)).is_stale(&LIMITS, 114));
        assert!(member(Some(100), Some(100)).is_stale(&LIMITS, 115));
        assert!(
            member(Some(100), Some(Millis::MIN)).is_stale(&LIMITS, 101),
            "connected, nothing told yet"
        );
    }
}
