//! One cluster: who reports it, since when, and what it holds.

use std::collections::HashMap;
use std::sync::Arc;

use proto::digest::Digest;

use super::held::Held;
use crate::Millis;
use crate::health::Fresh;

/// When silence becomes staleness.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Milliseconds of silence on a live stream.
    pub stale_after: Millis,
    /// Milliseconds without a stream that has told everything.
    pub grace: Millis,
    /// Most resources of one cluster.
    pub objects: usize,
}

/// What a cluster says about itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// uid of its kube-system namespace.
    pub cluster_uid: String,
    /// Version of its spoke.
    pub version: String,
    /// Version of its API server.
    pub kubernetes_version: String,
}

/// The stream that reports a cluster now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Live {
    /// Session number; rises over all sessions of all clusters, also across restarts of the hub.
    pub session: u64,
    /// When it began.
    pub since: Millis,
}

/// One cluster.
#[derive(Debug)]
pub struct Member {
    /// Name of the cluster, from its certificate.
    pub name: Arc<str>,
    /// What it says about itself.
    pub facts: Facts,
    /// Its stream, while there is one.
    pub live: Option<Live>,
    /// When it was last heard.
    pub last_heard: Option<Millis>,
    /// Since when no stream has confirmed what is held; `None` while one has.
    pub unconfirmed: Option<Millis>,
    /// Whether it is stale as of the present revision.
    pub stale: bool,
    /// Everything that it reported, by uid.
    pub objects: HashMap<Arc<str>, Arc<Held>>,
    /// Digest of `objects`.
    pub digest: Digest,
    /// Rows by kind, for the cluster's own row.
    pub repositories: u64,
    /// Number of backups.
    pub backups: u64,
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
            unconfirmed: Some(Millis::MIN),
            stale: true,
            objects: HashMap::new(),
            digest: Digest::default(),
            repositories: 0,
            backups: 0,
        }
    }

    /// Whether nobody can vouch for what is held: the spoke has been silent for too long, or no stream has told
    /// everything for longer than the grace.
    #[must_use]
    pub fn is_stale(&self, limits: &Limits, now: Millis) -> bool {
        let older =
            |time: Option<Millis>, limit: Millis| time.is_none_or(|time| time.saturating_add(limit) <= now);
        older(self.last_heard, limits.stale_after)
            || (self.unconfirmed.is_some() && older(self.unconfirmed, limits.grace))
    }

    /// Whether a whole inventory of it has been told: what it does not name does not exist.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.unconfirmed != Some(Millis::MIN)
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
    };

    fn member(last_heard: Option<Millis>, unconfirmed: Option<Millis>) -> Member {
        Member {
            last_heard,
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
