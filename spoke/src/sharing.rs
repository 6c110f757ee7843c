//! Which repositories are known to be shared through a hub. A spoke that had a hub and is started without one would take
//! a lock that covers its own cluster only, while others are at work under the hub's. So what was seen with a hub is kept
//! in a Lease, and maintenance of those repositories waits until there is a hub again, or a person confirms that there is none
//! any more (`--standalone`).

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde_json::json;
use tokio::sync::{Mutex, Notify};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::apply::{Applier, ApplyError};
use crate::exchange::Leases;
use crate::world::{Key, World};

/// Name of the Lease, in the operator's namespace.
const LEASE: &str = "fleet-shared";
/// Address of the hub that was connected last.
const HUB: &str = "backup.resticbackup.io/hub";
/// Beginnings of restic ids, with commas.
const REPOSITORIES: &str = "backup.resticbackup.io/shared-repositories";
/// Digits of an id that are kept.
const DIGITS: usize = 32;
/// More than these fit into no annotation: then all repositories count as shared.
const LIMIT: usize = 4000;
const ALL: &str = "all";
/// Another replica may have written meanwhile.
const FRESH: Duration = Duration::from_secs(60);
const RETRY: Duration = Duration::from_secs(30);

/// What is kept.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Marks {
    hub: String,
    repositories: BTreeSet<String>,
}

impl Marks {
    fn of(annotations: &BTreeMap<String, String>) -> Marks {
        let value = |name: &str| annotations.get(name).map(String::as_str).unwrap_or_default();
        let ids = value(REPOSITORIES).split(',').filter(|id| !id.is_empty());
        Marks {
            hub: value(HUB).to_owned(),
            repositories: ids.map(str::to_owned).collect(),
        }
    }

    fn annotations(&self) -> BTreeMap<String, String> {
        let ids: Vec<&str> = self.repositories.iter().map(String::as_str).collect();
        let ids = if ids.len() > LIMIT {
            ALL.to_owned()
        } else {
            ids.join(",")
        };
        [(HUB.to_owned(), self.hub.clone()), (REPOSITORIES.to_owned(), ids)].into()
    }

    /// The same with a hub and what it may share.
    #[must_use]
    fn with(&self, hub: &str, restic_ids: &[String]) -> Marks {
        let mut marks = self.clone();
        hub.clone_into(&mut marks.hub);
        if !marks.repositories.contains(ALL) {
            marks
                .repositories
                .extend(restic_ids.iter().filter_map(|id| short(id)));
        }
        marks
    }

    /// Whether a spoke without a hub may do maintenance on a repository; otherwise why not, and what to do.
    ///
    /// # Errors
    /// The sentence for the status.
    pub fn maintenance_allowed(&self, restic_id: &str) -> Result<(), String> {
        let known = |id: String| self.repositories.contains(&id) || self.repositories.contains(ALL);
        if !short(restic_id).is_some_and(known) {
            return Ok(());
        }
        Err(format!(
            "repository {} was shared through the hub {}, and this operator was started without a hub: another cluster may be at work on it. Set hub in ConfigMap fleet-spoke again and restart the operator. Only if no other cluster does maintenance on this repository any more, set FLEET_STANDALONE=true in ConfigMap fleet-spoke-settings and restart",
            restic_id.get(..8).unwrap_or(restic_id),
            self.hub
        ))
    }
}

fn short(id: &str) -> Option<String> {
    let id: String = id.chars().filter(char::is_ascii_hexdigit).take(DIGITS).collect();
    (!id.is_empty()).then_some(id)
}

/// Keeps and asks the marks.
pub struct Shared {
    hub: Option<String>,
    standalone: bool,
    lease: Key,
    known: Mutex<Option<(Instant, Marks)>>,
    welcome: Notify,
}

impl Shared {
    /// With the hub's address, if there is one. The Lease lies in `namespace`.
    #[must_use]
    pub fn new(hub: Option<&str>, standalone: bool, namespace: &str) -> Shared {
        if standalone && hub.is_some() {
            warn!(
                "FLEET_STANDALONE has no effect with a hub; remove it, so that it does not count when the hub is removed"
            );
        }
        Shared {
            hub: hub.map(str::to_owned),
            standalone,
            lease: Key::new(namespace, LEASE),
            known: Mutex::default(),
            welcome: Notify::new(),
        }
    }

    /// A session with the hub has begun.
    pub fn welcomed(&self) {
        self.welcome.notify_one();
    }

    /// Whether this spoke may do maintenance on a repository; otherwise why not. With a hub the repository is first
    /// noted as shared, so that it stays known when the hub is removed.
    ///
    /// # Errors
    /// When the Lease cannot be read or written.
    pub async fn allowed(
        &self,
        applier: &Applier,
        leases: &Leases,
        restic_id: &str,
    ) -> Result<Result<(), String>, ApplyError> {
        match &self.hub {
            // One that was never connected shares nothing, and grants nothing.
            Some(hub) if leases.is_connected() => {
                self.note(applier, hub, &[restic_id.to_owned()]).await?;
                Ok(Ok(()))
            }
            Some(_) => Ok(Ok(())),
            None if self.standalone => Ok(Ok(())),
            None => Ok(self.marks(applier).await?.maintenance_allowed(restic_id)),
        }
    }

    /// Notes all repositories of this cluster at each session, until `stop`.
    pub async fn run(&self, applier: &Applier, leases: &Leases, world: &World, stop: CancellationToken) {
        let work = async {
            // A session that began before may not have been noted.
            if leases.is_connected() {
                self.welcomed();
            }
            while let Some(hub) = &self.hub {
                self.welcome.notified().await;
                let all = world.repositories.filter(|_, _| true).into_iter();
                let ids: Vec<String> = all
                    .filter_map(|(_, r)| r.status.as_ref()?.repository_id.clone())
                    .collect();
                match self.note(applier, hub, &ids).await {
                    Ok(()) | Err(ApplyError::NotLeader) => {}
                    Err(error) => {
                        warn!(%error, "which repositories are shared could not be noted");
                        sleep(RETRY).await;
                        self.welcomed();
                    }
                }
            }
        };
        tokio::select! {
            () = work => {}
            () = stop.cancelled() => {}
        }
    }

    async fn marks(&self, applier: &Applier) -> Result<Marks, ApplyError> {
        let mut known = self.known.lock().await;
        if let Some((at, marks)) = known.as_ref()
            && at.elapsed() < FRESH
        {
            return Ok(marks.clone());
        }
        let lease = applier.get::<Lease>(&self.lease).await?;
        let annotations = lease.and_then(|l| l.metadata.annotations).unwrap_or_default();
        let marks = Marks::of(&annotations);
        *known = Some((Instant::now(), marks.clone()));
        Ok(marks)
    }

    /// Writes what is new. Costs nothing when nothing is.
    async fn note(&self, applier: &Applier, hub: &str, restic_ids: &[String]) -> Result<(), ApplyError> {
        let mut known = self.known.lock().await;
        if let Some((_, marks)) = known.as_ref()
            && marks.with(hub, restic_ids) == *marks
        {
            return Ok(());
        }
        let present = applier.get::<Lease>(&self.lease).await?;
        let meta = present.map(|lease| lease.metadata);
        let annotations = meta
            .as_ref()
            .and_then(|m| m.annotations.clone())
            .unwrap_or_default();
        let old = Marks::of(&annotations);
        let new = old.with(hub, restic_ids);
        match meta {
            Some(_) if new == old => {}
            Some(meta) => {
                // The version makes it fail when another replica was quicker.
                let patch = json!({ "metadata": { "resourceVersion": meta.resource_version, "annotations": new.annotations() } });
                applier.merge::<Lease>(&self.lease, &patch).await?;
            }
            None => {
                let lease = Lease {
                    metadata: ObjectMeta {
                        name: Some(self.lease.name.to_string()),
                        namespace: Some(self.lease.namespace.to_string()),
                        annotations: Some(new.annotations()),
                        ..ObjectMeta::default()
                    },
                    ..Lease::default()
                };
                applier.create(&lease).await?;
            }
        }
        *known = Some((Instant::now(), new));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_hub_shared_stays_known_without_it() {
        let (a, b) = ("a".repeat(64), "b".repeat(64));
        let marks = Marks::default();
        assert_eq!(
            marks.maintenance_allowed(&a),
            Ok(()),
            "never a hub: nothing is shared"
        );
        let marks = marks.with("https://hub:8443", &[a.clone(), String::new()]);
        let read = Marks::of(&marks.annotations());
        assert_eq!(read, marks, "as it was written");
        let text = read.maintenance_allowed(&a).unwrap_err();
        for part in [
            "aaaaaaaa",
            "https://hub:8443",
            "FLEET_STANDALONE",
            "ConfigMap fleet-spoke ",
        ] {
            assert!(text.contains(part), "{text}");
        }
        assert_eq!(read.maintenance_allowed(&b), Ok(()));
        assert_eq!(read.maintenance_allowed(""), Ok(()));
        assert_eq!(
            read.with("https://hub:8443", &[a]),
            read,
            "nothing new, nothing to write"
        );
    }

    #[test]
    fn more_than_fit_into_an_annotation_count_as_all() {
        let many: Vec<String> = (0..=LIMIT)
            .map(|n| format!("{n:064x}").chars().rev().collect())
            .collect();
        let marks = Marks::of(&Marks::default().with("https://h", &many).annotations());
        assert!(marks.annotations()[REPOSITORIES].len() < 200 << 10);
        assert!(marks.maintenance_allowed(&"c".repeat(64)).is_err());
        assert!(
            marks
                .with("https://h", &many)
                .maintenance_allowed(&many[0])
                .is_err()
        );
    }
}
