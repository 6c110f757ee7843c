//! Which PersistentVolumeClaims backups cover, for the hub. A claim is covered by a ResticBackup that names it, or that names it
//! in its template; and by one that has found it behind pods by its selector, for as long as that backup stays as it is, whether
//! or not the pods run.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};

use crds::{ResticBackup, names};
use jiff::Timestamp;
use kube::ResourceExt as _;
use proto::time::from_unix_millis;
use proto::v1::{Claim, ClaimsReport, NamespaceClaims};
use tokio::sync::Notify;

use crate::consent::matches;
use crate::world::{
    AppPodView, Backing, ClaimView, Exclusion, Index, Key, NamespaceView, World, claims_of_templates,
};

/// Most claims, and most namespaces, that are reported one by one.
const LONGEST: usize = 2_000;

/// A backup as it was when it found a claim.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Finder {
    backup: Key,
    uid: String,
    generation: Option<i64>,
}

/// News of claims and backups, and what was found through pods.
#[derive(Default)]
pub struct Coverage {
    changed: Notify,
    found: Mutex<HashMap<Key, Finder>>,
}

impl Coverage {
    /// One that hears of each change of the stores from now on.
    pub fn attached(world: &World) -> Arc<Coverage> {
        let coverage = Arc::new(Coverage::default());
        let c = coverage.clone();
        world.claims.observe(move |_, old: Option<&ClaimView>, new| {
            c.note(!old.zip(new).is_some_and(|(old, new)| old.covers_as(new)));
        });
        let c = coverage.clone();
        world
            .namespaces
            .observe(move |_, old: Option<&NamespaceView>, new| {
                let exclusion = |view: Option<&NamespaceView>| view.and_then(|view| view.exclusion.clone());
                c.note(exclusion(old) != exclusion(new));
            });
        let c = coverage.clone();
        world.backups.observe(move |key, old, new| {
            c.note(old.map(|old| finder(key, old)) != new.map(|new| finder(key, new)));
        });
        let c = coverage.clone();
        // A pod that ends takes nothing away.
        world.app_pods.observe(move |_, old: Option<&AppPodView>, new| {
            let mounts = new.is_some_and(|pod| pod.claims().next().is_some());
            c.note(old.is_none() && mounts);
        });
        coverage
    }

    fn note(&self, differs: bool) {
        if differs {
            self.changed.notify_one();
        }
    }

    /// Returns when something has changed since the last time.
    pub async fn changed(&self) {
        self.changed.notified().await;
    }

    /// What is known of all claims now.
    pub fn report(&self, world: &World) -> ClaimsReport {
        let covered = self.covered(world);
        let caches = caches(world);
        let data =
            |key: &Key, claim: &ClaimView| !claim.meta.deleting && !is_ours(claim) && !caches.contains(key);
        let mut claims = world.claims.filter(data);
        claims.sort_by(|(a, _), (b, _)| a.cmp(b));
        let mut namespaces: BTreeMap<Arc<str>, NamespaceClaims> = BTreeMap::new();
        let mut report = ClaimsReport::default();
        for (key, claim) in &claims {
            let of = namespaces
                .entry(key.namespace.clone())
                .or_insert_with(|| NamespaceClaims {
                    namespace: key.namespace.to_string(),
                    ..NamespaceClaims::default()
                });
            of.claims += 1;
            if covered.contains(key) {
                of.covered += 1;
            } else if report.open.len() < LONGEST {
                report.open.push(open(world, key, claim));
            } else {
                report.cut = true;
            }
        }
        report.cut |= namespaces.len() > LONGEST;
        report.namespaces = namespaces.into_values().take(LONGEST).collect();
        report
    }

    /// Claims that a backup covers.
    fn covered(&self, world: &World) -> HashSet<Key> {
        let backups: HashMap<Key, Arc<ResticBackup>> =
            world.backups.filter(|_, _| true).into_iter().collect();
        let mut found = self.found.lock().unwrap_or_else(PoisonError::into_inner);
        found.retain(|claim, by| {
            let present = backups.get(&by.backup).map(|backup| finder(&by.backup, backup));
            present.as_ref() == Some(by) && world.claims.get(claim).is_some()
        });
        let mut covered = HashSet::new();
        for (key, backup) in &backups {
            let source = &backup.spec.source;
            let named = source.pvc.iter().map(|pvc| pvc.claim_name.as_str());
            let named = named.chain(claims_of_templates(source));
            covered.extend(named.map(|name| key.sibling(name)));
            for claim in selected(world, key, backup) {
                found.insert(claim, finder(key, backup));
            }
        }
        covered.extend(found.keys().cloned());
        covered
    }
}

fn finder(key: &Key, backup: &ResticBackup) -> Finder {
    Finder {
        backup: key.clone(),
        uid: backup.uid().unwrap_or_default(),
        generation: backup.metadata.generation,
    }
}

/// Claims that a backup finds behind pods: those of a volume, or what the pods of a command mount, which writes out what is in
/// them.
fn selected(world: &World, key: &Key, backup: &ResticBackup) -> Vec<Key> {
    let source = &backup.spec.source;
    let volume = source.pod_volume_backup.as_ref();
    let exec = source.stdin.as_ref().and_then(|stdin| stdin.exec.as_ref());
    let selector = volume
        .map(|v| &v.selector)
        .or(exec.map(|exec| &exec.pod_selector));
    let Some(selector) = selector else {
        return Vec::new();
    };
    let pods = world.app_pods.by(Index::Namespace, &key.namespace_key());
    let pods = pods.iter().filter(|(_, pod)| {
        let ours = pod.labels.contains_key(names::LABEL_TYPE);
        !ours && matches(selector, &pod.labels)
    });
    let of_pod = |pod: &AppPodView| -> Vec<Key> {
        let wanted = pod
            .volumes
            .iter()
            .filter(|of| volume.is_none_or(|volume| *of.name == *volume.volume_name));
        let claims = wanted.filter_map(|of| match &of.backing {
            Backing::Claim(name) => Some(key.sibling(name)),
            Backing::Other(_) => None,
        });
        claims.collect()
    };
    pods.flat_map(|(_, pod)| of_pod(pod)).collect()
}

/// Claims of restic's caches that are given by name: what is in them can be read again.
fn caches(world: &World) -> HashSet<Key> {
    let backups = world.backups.filter(|_, _| true).into_iter();
    let caches = backups.filter_map(|(key, backup)| {
        let cache = backup.spec.job_config.as_ref()?.cache.as_ref()?;
        Some(key.sibling(cache.claim_name.as_ref()?))
    });
    caches.collect()
}

/// Whether the operator has made it for itself.
fn is_ours(claim: &ClaimView) -> bool {
    let owner = claim.meta.owner_name.as_ref();
    owner.is_some_and(|(kind, _)| kind.starts_with("Restic"))
}

fn open(world: &World, key: &Key, claim: &ClaimView) -> Claim {
    let namespace = world.namespaces.get(&key.namespace_key());
    let of_namespace = namespace.as_ref().and_then(|view| view.exclusion.as_deref());
    let both = [claim.exclusion.as_deref(), of_namespace];
    let written = || both.into_iter().flatten();
    let none = Exclusion::default();
    // A proper one of either; else what is wrong with the nearest.
    let exclusion = written()
        .find(|e| e.counts())
        .or_else(|| written().next())
        .unwrap_or(&none);
    let time = |time: Timestamp| from_unix_millis(time.as_millisecond());
    Claim {
        namespace: key.namespace.to_string(),
        name: key.name.to_string(),
        created: claim.created.map(time),
        bytes: claim.bytes,
        exclusion: exclusion.reason.to_string(),
        excluded_until: exclusion.until.map(time),
        exclusion_fault: exclusion.fault.to_string(),
    }
}

#[cfg(test)]
#[path = "coverage_tests.rs"]
mod tests;
