//! Where the data of a source is now, by what the cache holds: the claim, and the node on which it is in use. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crds::backup::PodVolumeSource;
use crds::conditions::reasons;
use crds::names;

use super::cache;
use super::source::Wanted;
use super::validate::Valid;
use crate::consent;
use crate::hooks::Plan;
use crate::pod::guest::Guest;
use crate::pod::placement::Placement;
use crate::pod::stream::Exec;
use crate::runs::{self, Unusable};
use crate::world::{Access, AppPodView, AppVolume, Backing, ClaimView, Index, Key, World};

/// What the cache holds of a source.
#[derive(Clone, Debug, Default)]
pub struct Surroundings {
    pub claims: BTreeMap<String, Arc<ClaimView>>,
    /// Pods that match the selector, and those that mount one of the claims.
    pub pods: BTreeMap<Key, Arc<AppPodView>>,
    /// Pods that mount the claim of the cache.
    pub beside: BTreeMap<Key, Arc<AppPodView>>,
    /// Secrets of the templates, in the source and in hooks, that hold the credentials of repositories.
    pub credentials: BTreeSet<String>,
}

/// Where it is.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Located {
    /// The claim to mount, and the folder in it.
    pub claim: Option<(String, Option<String>)>,
    pub placement: Placement,
}

impl Surroundings {
    /// Looks them up for a backup in `namespace`.
    #[must_use]
    pub fn of(world: &World, key: &Key, valid: &Valid) -> Surroundings {
        let mut found = Surroundings::of_source(world, key, &valid.source, valid.hooks.as_ref());
        if let Some(cache) = &valid.cache {
            let at = key.sibling(&cache.claim);
            found.beside.extend(world.app_pods.by(Index::Claim, &at));
            let claim = world.claims.get(&at);
            found
                .claims
                .extend(claim.map(|claim| (cache.claim.clone(), claim)));
        }
        found
    }

    fn of_source(world: &World, key: &Key, wanted: &Wanted, hooks: Option<&Plan>) -> Surroundings {
        let mut found = Surroundings::default();
        let selector = match wanted {
            Wanted::PodVolume(volume) => Some(&volume.selector),
            Wanted::Exec { exec, .. } => Some(&exec.selector),
            Wanted::Claim(_) | Wanted::Custom(_) | Wanted::Command { .. } => None,
        };
        let mut names: BTreeSet<String> = BTreeSet::new();
        if let Some(selector) = selector {
            let pods = world.app_pods.by(Index::Namespace, &key.namespace_key());
            let pods = pods.into_iter().filter(|(_, pod)| {
                let ours = pod.labels.contains_key(names::LABEL_TYPE);
                !ours && consent::matches(selector, &pod.labels)
            });
            found.pods.extend(pods);
        }
        match wanted {
            Wanted::Claim(name) => names.extend([name.clone()]),
            Wanted::PodVolume(volume) => {
                let volumes = found
                    .pods
                    .values()
                    .filter_map(|pod| volume_of(pod, &volume.volume_name));
                names.extend(volumes.filter_map(claim_of).map(str::to_owned));
            }
            Wanted::Exec { .. } => {}
            Wanted::Custom(_) | Wanted::Command { .. } => {
                let claims = wanted.guest().into_iter().flat_map(Guest::claims);
                names.extend(claims.map(|(name, _)| name.to_owned()));
            }
        }
        let secrets = wanted.guest().map(Guest::secrets).unwrap_or_default();
        let secrets = secrets
            .into_iter()
            .chain(hooks.into_iter().flat_map(Plan::secrets));
        let held = |name: &&str| world.holds_credentials(&key.sibling(name));
        found.credentials = secrets.filter(held).map(str::to_owned).collect();
        for name in names {
            let at = key.sibling(&name);
            found.pods.extend(world.app_pods.by(Index::Claim, &at));
            if let Some(claim) = world.claims.get(&at) {
                found.claims.insert(name, claim);
            }
        }
        found
    }

    /// A claim of the source is being deleted.
    #[must_use]
    pub fn claim_is_deleting(&self) -> bool {
        self.claims.values().any(|claim| claim.meta.deleting)
    }

    fn users<'a>(&'a self, claim: &'a str) -> impl Iterator<Item = (&'a Key, &'a AppPodView)> {
        let pods = self.pods.iter().chain(&self.beside);
        let pods = pods.map(|(key, pod)| (key, pod.as_ref()));
        pods.filter(move |(_, pod)| pod.claims().any(|name| name == claim))
    }

    /// Where a pod that mounts a claim has to run.
    fn placement(&self, claim: &str, field: &str) -> Result<Placement, Unusable> {
        let access = self.claims.get(claim).map(|view| view.access).unwrap_or_default();
        match (access, self.users(claim).next()) {
            (Access::Pod, Some((pod, _))) => Err(Unusable {
                reason: reasons::PVC_IN_USE,
                message: format!(
                    "PersistentVolumeClaim {claim:?} has access mode ReadWriteOncePod and pod {} uses it: no second pod can mount \
                     it; back up by spec.source.stdin, or use a claim with ReadWriteOnce; {field} is waited for",
                    pod.name
                ),
            }),
            (Access::Node, Some(_)) => Ok(self.nodes(claim)),
            _ => Ok(Placement::default()),
        }
    }

    fn nodes(&self, claim: &str) -> Placement {
        let mut placement = Placement::default();
        let nodes: BTreeSet<&str> = self.users(claim).map(|(_, pod)| &*pod.node).collect();
        placement.nodes = nodes
            .into_iter()
            .filter(|node| !node.is_empty())
            .map(str::to_owned)
            .collect();
        for toleration in self.users(claim).flat_map(|(_, pod)| &pod.tolerations) {
            if !placement.tolerations.contains(toleration) {
                placement.tolerations.push(toleration.clone());
            }
        }
        placement
    }
}

/// Finds the data, and the claim of the cache.
///
/// # Errors
/// What is waited for, or has to change.
pub fn locate(valid: &Valid, found: &Surroundings) -> Result<Located, Unusable> {
    let located = data(&valid.source, valid.hooks.as_ref(), found)?;
    let Some(cache) = &valid.cache else {
        return Ok(located);
    };
    cache.usable(located.claim.as_ref().map(|(claim, _)| claim.as_str()), found)?;
    let more = found.placement(&cache.claim, cache::FIELD)?;
    Ok(Located {
        placement: both(located.placement, more),
        ..located
    })
}

/// Finds the data.
fn data(wanted: &Wanted, hooks: Option<&Plan>, found: &Surroundings) -> Result<Located, Unusable> {
    let mut secrets = hooks.into_iter().flat_map(Plan::secrets);
    if let Some(secret) = secrets.find(|name| found.credentials.contains(*name)) {
        return Err(with_keys("a template of spec.hooks", secret));
    }
    match wanted {
        Wanted::Claim(name) => mounted(name, None, found, "spec.source.pvc.claimName"),
        Wanted::PodVolume(volume) => pod_volume(volume, found),
        Wanted::Exec { exec, .. } => in_pod(exec, found),
        Wanted::Custom(custom) => brought(&custom.guest, found, "spec.source.customSource.podTemplate"),
        Wanted::Command { guest, .. } => brought(guest, found, "spec.source.stdin.pod.podTemplate"),
    }
}

fn mounted(
    claim: &str,
    folder: Option<String>,
    found: &Surroundings,
    field: &str,
) -> Result<Located, Unusable> {
    runs::readable(claim, found.claims.get(claim).map(AsRef::as_ref), field)?;
    Ok(Located {
        placement: found.placement(claim, field)?,
        claim: Some((claim.to_owned(), folder)),
    })
}

fn volume_of<'a>(pod: &'a AppPodView, name: &str) -> Option<&'a AppVolume> {
    pod.volumes.iter().find(|volume| *volume.name == *name)
}

fn claim_of(volume: &AppVolume) -> Option<&str> {
    match &volume.backing {
        Backing::Claim(name) => Some(name),
        Backing::Other(_) => None,
    }
}

fn not_found(message: String) -> Unusable {
    Unusable {
        reason: reasons::POD_NOT_FOUND,
        message,
    }
}

fn unusable(message: String) -> Unusable {
    Unusable {
        reason: reasons::POD_VOLUME_NOT_USABLE,
        message,
    }
}

fn pod_volume(wanted: &PodVolumeSource, found: &Surroundings) -> Result<Located, Unusable> {
    const FIELD: &str = "spec.source.podVolumeBackup";
    let matching = found
        .pods
        .iter()
        .filter(|(_, pod)| pod.running && !pod.meta.deleting);
    let mut places: BTreeMap<(String, Option<String>), String> = BTreeMap::new();
    for (key, pod) in matching.filter(|(_, pod)| consent::matches(&wanted.selector, &pod.labels)) {
        let place = place(wanted, key, pod)?;
        places.entry(place).or_insert_with(|| key.name.to_string());
    }
    let mut all = places.into_iter();
    match (all.next(), all.next()) {
        (None, _) => Err(not_found(format!(
            "no running pod of this namespace matches {FIELD}.selector; backups begin when one runs, or correct it"
        ))),
        (Some(((claim, folder), _)), None) => mounted(&claim, folder, found, FIELD),
        (Some(first), Some(second)) => {
            let show = |((claim, folder), pod): &((String, Option<String>), String)| match folder {
                Some(folder) => format!("folder {folder} of claim {claim} (pod {pod})"),
                None => format!("claim {claim} (pod {pod})"),
            };
            Err(Unusable {
                reason: reasons::POD_VOLUME_AMBIGUOUS,
                message: format!(
                    "{FIELD}.selector matches pods with different volumes: {} and {}; select one, such as by the label \
                     statefulset.kubernetes.io/pod-name, and make a ResticBackup for each",
                    show(&first),
                    show(&second)
                ),
            })
        }
    }
}

/// Claim and folder behind the volume of a pod.
fn place(
    wanted: &PodVolumeSource,
    key: &Key,
    pod: &AppPodView,
) -> Result<(String, Option<String>), Unusable> {
    const FIELD: &str = "spec.source.podVolumeBackup";
    let name = &wanted.volume_name;
    let Some(volume) = volume_of(pod, name) else {
        let names: Vec<&str> = pod.volumes.iter().map(|volume| &*volume.name).collect();
        let known = if names.is_empty() {
            "none".to_owned()
        } else {
            names.join(", ")
        };
        return Err(unusable(format!(
            "pod {} has no volume {name:?}; it has: {known}; correct {FIELD}.volumeName",
            key.name
        )));
    };
    let claim = match &volume.backing {
        Backing::Claim(claim) => claim.to_string(),
        Backing::Other(kind) => {
            return Err(unusable(format!(
                "volume {name:?} of pod {} is no claim ({kind}): only its own pod can mount it; back up by spec.source.stdin, or \
                 put the data on a PersistentVolumeClaim",
                key.name
            )));
        }
    };
    let Some(container) = wanted.container.as_deref().filter(|name| !name.is_empty()) else {
        return Ok((claim, None));
    };
    let mut mounts = volume
        .mounts
        .iter()
        .filter(|mount| *mount.container == *container);
    match (mounts.next(), mounts.next()) {
        (None, _) => Err(unusable(format!(
            "container {container:?} of pod {} does not mount volume {name:?}; correct {FIELD}.container, or leave it out",
            key.name
        ))),
        // It sees several folders of it.
        (Some(_), Some(_)) => Ok((claim, None)),
        (Some(mount), None) if mount.expression => Err(unusable(format!(
            "container {container:?} of pod {} mounts volume {name:?} with subPathExpr, which cannot be followed; leave \
             {FIELD}.container out to back up the whole volume",
            key.name
        ))),
        (Some(mount), None) => Ok((
            claim,
            Some(mount.sub_path.to_string()).filter(|path| !path.is_empty()),
        )),
    }
}

/// The pod is chosen when the run begins; there has to be one now for the schedule to make sense.
fn in_pod(exec: &Exec, found: &Surroundings) -> Result<Located, Unusable> {
    const FIELD: &str = "spec.source.stdin.exec";
    let mut pods = found
        .pods
        .iter()
        .filter(|(_, pod)| pod.running && !pod.meta.deleting)
        .peekable();
    if pods.peek().is_none() {
        return Err(not_found(format!(
            "no running pod of this namespace matches {FIELD}.podSelector; backups begin when one runs, or correct it"
        )));
    }
    let Some(container) = &exec.container else {
        return Ok(Located::default());
    };
    let mut lacking = None;
    for (key, pod) in pods {
        if pod.containers.iter().any(|name| **name == **container) {
            return Ok(Located::default());
        }
        lacking = Some((key, pod));
    }
    let (name, known) = lacking
        .map(|(key, pod)| (key.name.to_string(), pod.containers.join(", ")))
        .unwrap_or_default();
    Err(not_found(format!(
        "pod {name} has no container {container:?}; it has: {known}; correct {FIELD}.container"
    )))
}

fn brought(guest: &Guest, found: &Surroundings, field: &str) -> Result<Located, Unusable> {
    let secrets = guest.secrets();
    let mut secrets = secrets
        .iter()
        .filter(|name| found.credentials.contains(**name) || names::is_of_credentials(name));
    if let Some(secret) = secrets.next() {
        return Err(with_keys(field, secret));
    }
    let mut placement = Placement::default();
    for (claim, _) in guest.claims() {
        let view = found.claims.get(claim);
        let view = view.ok_or_else(|| runs::missing(claim, field))?;
        // It may have no volume yet: the first run binds one, as for dumps.
        runs::writable(claim, view, field)?;
        let more = found.placement(claim, field)?;
        placement = both(placement, more);
    }
    Ok(Located {
        claim: None,
        placement,
    })
}

fn with_keys(field: &str, secret: &str) -> Unusable {
    Unusable {
        reason: reasons::TEMPLATE_NOT_ALLOWED,
        message: format!(
            "{field} refers to Secret {secret:?}, which holds credentials of a repository: nothing beside restic may have them"
        ),
    }
}

/// On a node of both, if there is one.
fn both(one: Placement, other: Placement) -> Placement {
    if one.nodes.is_empty() {
        return other;
    }
    let mut placement = one;
    let common = placement
        .nodes
        .iter()
        .filter(|node| other.nodes.contains(node))
        .cloned();
    let common: Vec<String> = common.collect();
    if !common.is_empty() {
        placement.nodes = common;
    }
    placement.tolerations.extend(other.tolerations);
    placement
}

#[cfg(test)]
#[path = "locate_tests.rs"]
mod tests;
