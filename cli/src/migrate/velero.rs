//! Velero: its file-system backup keeps a restic repository for each namespace of workloads, `PREFIX/restic/NAMESPACE` in
//! the bucket, with one password for all. Snapshots have the host `velero`, and tags that name backup, pod, volume and the
//! uid of the claim; files lie at their root. Velero goes on to back up Kubernetes objects. Pure.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use super::keep;
use super::plan::{Place, Plan};
use super::secret::{self, Source};
use super::velero_storage::credentials;
use super::velero_when::{Times, times};
use super::when::DAILY;
use crate::arguments::Tool;
use crate::objects::{at, text};

/// What is read.
pub const RESOURCE: &str = "backuprepositories.velero.io";
/// Annotation of a PodVolumeBackup.
const CLAIM: &str = "velero.io/pvc-name";
/// Password of its repositories, in its namespace.
const PASSWORD: (&str, &str) = ("velero-repo-credentials", "repository-password");
const HOST: &str = "velero";

/// What was read of a cluster.
#[derive(Debug, Default)]
pub struct Found {
    pub repositories: Vec<Value>,
    pub locations: Vec<Value>,
    pub volumes: Vec<Value>,
    pub schedules: Vec<Value>,
    pub claims: Vec<Value>,
}

/// What Velero has stored of a namespace in one of its locations.
pub(super) struct Stored<'a> {
    /// Velero's own namespace.
    pub own: &'a str,
    pub workload: &'a str,
    pub location: &'a str,
    /// PodVolumeBackups of there.
    volumes: Vec<&'a Value>,
    pub about: &'a str,
}

/// Secrets that are needed, as namespace and name.
#[must_use]
pub fn secrets(found: &Found) -> Vec<(String, String)> {
    let mut all = BTreeSet::new();
    for repository in &found.repositories {
        all.insert((at(repository).0.to_owned(), PASSWORD.0.to_owned()));
    }
    for location in &found.locations {
        let secret = super::velero_storage::secret_of(location).0;
        all.insert((at(location).0.to_owned(), secret));
    }
    all.into_iter().collect()
}

/// What becomes of it.
#[must_use]
pub fn plan(found: &Found, running: bool) -> Plan {
    let mut plan = Plan::new(Tool::Velero, running);
    for repository in &found.repositories {
        let (namespace, name) = at(repository);
        let about = format!("BackupRepository {namespace}/{name}");
        match text(repository, "/spec/repositoryType") {
            "" | "restic" => one(&mut plan, found, repository, &about),
            other => plan.note(
                &about,
                format!("it is a repository of {other}, which restic cannot read: nothing is made of it"),
            ),
        }
    }
    if !plan.objects.is_empty() {
        plan.note(
            "Velero",
            "it stores each new claim of a namespace, and ours those that have a ResticBackup: fleet coverage lists the \
             others. Its hooks, of Schedules and of annotations of pods, do not run for ours (docs/hooks.md)",
        );
        plan.note(
            "Velero",
            "its schedules go on: they back up Kubernetes objects too, which nothing here does. Leave volumes out of them \
             when ours run: defaultVolumesToFsBackup: false, or the annotation backup.velero.io/backup-volumes-excludes of pods",
        );
        plan.note(
            "Velero",
            "as long as its Backups are there, Velero removes a snapshot when its Backup expires; delete none of them before \
             `fleet migrate finish velero`: with a Backup its snapshots go",
        );
    }
    plan
}

fn one(plan: &mut Plan, found: &Found, repository: &Value, about: &str) {
    let own = at(repository).0;
    let workload = text(repository, "/spec/volumeNamespace");
    let location = text(repository, "/spec/backupStorageLocation");
    let mut locations = found.locations.iter();
    let Some(storage) = locations.find(|one| at(one) == (own, location)) else {
        plan.note(
            about,
            format!("there is no BackupStorageLocation {own}/{location}: nothing is made"),
        );
        return;
    };
    let url = text(repository, "/spec/resticIdentifier");
    if !url.contains(':') {
        plan.note(about, "it has no resticIdentifier: nothing is made");
        return;
    }
    let is_here = |volume: &&Value| {
        at(volume).0 == own
            && text(volume, "/spec/pod/namespace") == workload
            && text(volume, "/spec/backupStorageLocation") == location
    };
    let stored = Stored {
        own,
        workload,
        location,
        volumes: found.volumes.iter().filter(is_here).collect(),
        about,
    };
    if !stored.volumes.iter().any(|volume| is_restic(volume)) {
        plan.note(
            about,
            format!("no PodVolumeBackup of restic in {location} is of {workload}: nothing is made"),
        );
        return;
    }
    let is_read_only = text(storage, "/spec/accessMode") == "ReadOnly";
    let name = repository_of(plan, &stored, storage, url, is_read_only);
    if is_read_only {
        plan.note(
            about,
            "its BackupStorageLocation has accessMode ReadOnly: ours is readOnly as well, and no backup is made",
        );
        return;
    }
    volumes(plan, found, &stored, &name);
}

/// The repository with its Secret. Its name is the answer.
fn repository_of(
    plan: &mut Plan,
    stored: &Stored<'_>,
    storage: &Value,
    url: &str,
    is_read_only: bool,
) -> String {
    let (mut entries, notes) = credentials(storage);
    for note in notes {
        plan.note(stored.about, note);
    }
    entries.insert(
        "RESTIC_PASSWORD".to_owned(),
        Source::whole(PASSWORD.0, PASSWORD.1),
    );
    let place = Place {
        namespace: stored.own.to_owned(),
        name: format!("restic-{}", stored.workload),
        source: source_of(stored.workload),
    };
    let secret = secret::reference(plan, &place, entries);
    // The keys of the bucket stay in Velero's namespace.
    let labels = json!({ "kubernetes.io/metadata.name": stored.workload });
    let more = json!({
        "allowedNamespaces": { "from": "Selector", "selector": { "matchLabels": labels } },
        "readOnly": is_read_only.then_some(true),
    });
    plan.repository(&place, url, &secret, more)
}

/// Whether restic has stored a volume, and not the other uploader.
fn is_restic(volume: &Value) -> bool {
    ["", "restic"].contains(&text(volume, "/spec/uploaderType"))
}

/// What ours takes the place of: Velero has no object for the backup of a namespace's volumes.
fn source_of(workload: &str) -> String {
    format!("namespaces/{workload}/{workload}")
}

/// uids that the claims had when restic stored their volumes.
fn claims_of<'a>(plan: &mut Plan, stored: &Stored<'a>) -> BTreeMap<&'a str, BTreeSet<&'a str>> {
    let (about, workload) = (stored.about, stored.workload);
    let mut claims: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    let mut others = BTreeSet::new();
    for volume in &stored.volumes {
        let annotations = volume.pointer("/metadata/annotations");
        let claim = annotations.and_then(|all| all.get(CLAIM)).and_then(Value::as_str);
        match claim {
            Some(claim) if is_restic(volume) => {
                claims
                    .entry(claim)
                    .or_default()
                    .insert(text(volume, "/spec/tags/pvc-uid"));
            }
            Some(claim) => drop(others.insert(claim)),
            None => plan.note(
                about,
                format!(
                    "volume {:?} of its pods is no claim, and is not carried over",
                    text(volume, "/spec/volume")
                ),
            ),
        }
    }
    for claim in others.into_iter().filter(|claim| !claims.contains_key(claim)) {
        let text = format!("claim {workload}/{claim} is stored without restic: no backup is made of it");
        plan.note(about, text);
    }
    claims
}

/// Backups for the claims of a namespace whose volumes Velero has stored, and their policy.
fn volumes(plan: &mut Plan, found: &Found, stored: &Stored<'_>, repository: &str) {
    let (about, workload) = (stored.about, stored.workload);
    let claims = claims_of(plan, stored);
    if claims.is_empty() {
        plan.note(
            about,
            format!("no PodVolumeBackup is of a claim in {workload}: only its repository is made"),
        );
        return;
    }
    let Some(times) = times(plan, found, stored) else {
        return;
    };
    let reference = json!({ "name": repository, "namespace": stored.own });
    let mut rules = Vec::new();
    for (claim, uids) in claims {
        let there = found.claims.iter().find(|one| at(one) == (workload, claim));
        let Some(there) = there else {
            plan.note(
                about,
                format!("claim {workload}/{claim} is not there any more: no backup is made of it"),
            );
            continue;
        };
        let uid = text(there, "/metadata/uid");
        if !uids.contains(uid) {
            let text = format!(
                "claim {workload}/{claim} was made anew since: its snapshots of before have the tag pvc-uid={}",
                uids.into_iter().collect::<Vec<_>>().join(" or pvc-uid=")
            );
            plan.note(about, text);
        }
        let name = backup(plan, (workload, claim), uid, &reference, &times);
        rules.extend(times.kept.as_ref().map(|kept| {
            // Velero expires its own snapshots, by its Backups: ours only.
            let own = json!({ "hostname": HOST, "tags": [format!("fleet.backup={workload}/{name}")] });
            keep::rule(own, &[], kept)
        }));
    }
    plan.note(
        about,
        format!(
            "Velero reads volumes as root, ours as uid 65532: files that only their owner may read need \
             jobConfig.securityContext.runAsUser. Restore a snapshot of before in {workload} with \
             snapshotSelector.tags: [pvc-uid=UID] and hostname: {HOST}; its files lie at the root"
        ),
    );
    policy(plan, stored, repository, rules);
}

/// A backup of a claim. Its name is the answer.
fn backup(
    plan: &mut Plan,
    (namespace, claim): (&str, &str),
    uid: &str,
    reference: &Value,
    times: &Times,
) -> String {
    let tags: Vec<String> = (!uid.is_empty())
        .then(|| format!("pvc-uid={uid}"))
        .into_iter()
        .collect();
    let place = Place {
        namespace: namespace.to_owned(),
        name: claim.to_owned(),
        source: source_of(namespace),
    };
    let spec = json!({
        "schedule": times.schedule, "timezone": times.timezone,
        "source": { "pvc": { "claimName": claim } },
        "restic": { "hostname": HOST, "tags": tags },
    });
    plan.backup(&place, reference.clone(), spec)
}

/// The policy of a namespace's backups. It does not prune: Velero goes on to do that.
fn policy(plan: &mut Plan, stored: &Stored<'_>, repository: &str, mut rules: Vec<Value>) {
    if rules.is_empty() {
        return;
    }
    keep::cut(plan, stored.about, &mut rules);
    let place = Place {
        namespace: stored.own.to_owned(),
        name: repository.to_owned(),
        source: source_of(stored.workload),
    };
    plan.policy(&place, json!({ "name": repository }), DAILY, rules, false);
}

#[cfg(test)]
#[path = "velero_tests.rs"]
mod tests;
