//! Velero: its file-system backup keeps a restic repository for each namespace of workloads, `PREFIX/restic/NAMESPACE` in
//! the bucket, with one password for all. Snapshots have the host `velero`, and tags that name backup, pod, volume and the
//! uid of the claim; files lie at their root. Velero goes on to back up Kubernetes objects. Pure.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value, json};

use super::keep;
use super::plan::{Place, Plan};
use super::secret::{self, Source};
use super::velero_storage::credentials;
use super::when::{DAILY, when};
use crate::arguments::Tool;
use crate::objects::{at, list, text};

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
                format!("it is a repository of {other}, which restic cannot read"),
            ),
        }
    }
    if !plan.objects.is_empty() {
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
    let own = at(repository).0.to_owned();
    let workload = text(repository, "/spec/volumeNamespace").to_owned();
    let location = text(repository, "/spec/backupStorageLocation").to_owned();
    let storage = found
        .locations
        .iter()
        .find(|one| at(one) == (own.as_str(), location.as_str()));
    let Some(storage) = storage else {
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
    let (mut entries, notes) = credentials(storage);
    for note in notes {
        plan.note(about, note);
    }
    entries.insert(
        "RESTIC_PASSWORD".to_owned(),
        Source::whole(PASSWORD.0, PASSWORD.1),
    );
    let name = format!("restic-{workload}");
    let secret = secret::reference(plan, &own, &name, entries);
    let place = Place {
        namespace: own.clone(),
        name,
        source: source_of(&workload),
    };
    // The keys of the bucket stay in Velero's namespace.
    let labels = json!({ "kubernetes.io/metadata.name": workload });
    let allowed =
        json!({ "allowedNamespaces": { "from": "Selector", "selector": { "matchLabels": labels } } });
    let name = plan.repository(&place, url, &secret, allowed);
    volumes(plan, found, &own, &workload, &name, about);
}

/// What ours takes the place of: Velero has no object for the backup of a namespace's volumes.
fn source_of(workload: &str) -> String {
    format!("namespaces/{workload}/{workload}")
}

/// The last backup of a claim's volume.
struct Volume<'a> {
    /// uid of the claim.
    uid: &'a str,
    started: &'a str,
    completed: bool,
}

/// Backups for the claims of a namespace whose volumes Velero has stored, and their policy.
fn volumes(plan: &mut Plan, found: &Found, own: &str, workload: &str, repository: &str, about: &str) {
    let mut claims: BTreeMap<&str, Vec<Volume<'_>>> = BTreeMap::new();
    for volume in &found.volumes {
        if text(volume, "/spec/pod/namespace") != workload || at(volume).0 != own {
            continue;
        }
        let annotations = volume.pointer("/metadata/annotations");
        let claim = annotations.and_then(|all| all.get(CLAIM)).and_then(Value::as_str);
        let Some(claim) = claim else {
            let what = text(volume, "/spec/volume");
            plan.note(
                about,
                format!("volume {what:?} of its pods is no claim, and is not carried over"),
            );
            continue;
        };
        claims.entry(claim).or_default().push(Volume {
            uid: text(volume, "/spec/tags/pvc-uid"),
            started: text(volume, "/metadata/creationTimestamp"),
            completed: text(volume, "/status/phase") == "Completed",
        });
    }
    if claims.is_empty() {
        plan.note(
            about,
            format!("no PodVolumeBackup is of a claim in {workload}: only its repository is made"),
        );
        return;
    }
    let (schedule, kept) = schedule_of(plan, found, workload, about);
    let reference = json!({ "name": repository, "namespace": own });
    let mut rules = Vec::new();
    for (claim, mut seen) in claims {
        seen.sort_by_key(|volume| volume.started);
        let uids: BTreeSet<&str> = seen
            .iter()
            .map(|volume| volume.uid)
            .filter(|uid| !uid.is_empty())
            .collect();
        let last = seen.iter().rev().find(|volume| volume.completed);
        let place = Place {
            namespace: workload.to_owned(),
            name: claim.to_owned(),
            source: source_of(workload),
        };
        let there = found.claims.iter().find(|one| at(one) == (workload, claim));
        let uid = there
            .map(|one| text(one, "/metadata/uid"))
            .or(last.map(|last| last.uid));
        let uid = uid.unwrap_or_default();
        rules.extend(uids.iter().map(|uid| {
            let tag = format!("pvc-uid={uid}");
            keep::rule(json!({ "tags": [tag] }), &["host"], &kept)
        }));
        if there.is_none() {
            plan.note(about, format!("claim {workload}/{claim} is not there any more: its history is kept, and no backup is made"));
            continue;
        }
        let tags: Vec<String> = (!uid.is_empty())
            .then(|| format!("pvc-uid={uid}"))
            .into_iter()
            .collect();
        if !uids.contains(uid) {
            plan.note(
                about,
                format!(
                    "claim {workload}/{claim} was made anew since: its former history is a series of its own"
                ),
            );
            rules.push(keep::rule(json!({ "tags": tags }), &["host"], &kept));
        }
        let spec = json!({
            "schedule": schedule.0, "timezone": schedule.1,
            "source": { "pvc": { "claimName": claim } },
            "restic": { "hostname": HOST, "tags": tags },
        });
        plan.backup(&place, reference.clone(), spec);
    }
    plan.note(
        about,
        format!(
            "Velero reads volumes as root, ours as uid 65532: files that only their owner may read need \
             jobConfig.securityContext.runAsUser. Restore a snapshot of before in {workload} with \
             snapshotSelector.tags: [pvc-uid=UID] and hostname: {HOST}; its files lie at the root"
        ),
    );
    if rules.len() > 64 {
        plan.note(
            about,
            "a policy has 64 rules at most: rules for the other claims have to be written by hand",
        );
        rules.truncate(64);
    }
    let place = Place {
        namespace: own.to_owned(),
        name: repository.to_owned(),
        source: source_of(workload),
    };
    plan.policy(&place, json!({ "name": repository }), DAILY, rules, true);
}

/// When Velero backs up a namespace, and for how long it keeps that.
fn schedule_of(
    plan: &mut Plan,
    found: &Found,
    workload: &str,
    about: &str,
) -> ((String, Option<String>), Map<String, Value>) {
    let covers = |schedule: &&Value| {
        let names = |pointer: &str| -> Vec<&str> {
            list(schedule, pointer).iter().filter_map(Value::as_str).collect()
        };
        let (included, excluded) = (
            names("/spec/template/includedNamespaces"),
            names("/spec/template/excludedNamespaces"),
        );
        let all = included.is_empty() || included.contains(&"*");
        (all || included.contains(&workload)) && !excluded.contains(&workload)
    };
    let mut schedules = found.schedules.iter().filter(covers);
    let Some(first) = schedules.next() else {
        plan.note(
            about,
            format!("no Schedule covers {workload}: ours runs once a day, and keeps 30 days"),
        );
        let kept = json!({ "keepWithin": "30d" });
        return (
            (DAILY.to_owned(), None),
            kept.as_object().cloned().unwrap_or_default(),
        );
    };
    let more = schedules.count();
    if more > 0 {
        let name = at(first).1;
        plan.note(
            about,
            format!("{more} more Schedules cover {workload}; ours has the schedule of {name}"),
        );
    }
    let when = when(text(first, "/spec/schedule"));
    if let Some(note) = when.note {
        plan.note(about, note);
    }
    // Its own default.
    let ttl = Some(text(first, "/spec/template/ttl"))
        .filter(|ttl| !ttl.is_empty())
        .unwrap_or("720h0m0s");
    let span = keep::from_duration(ttl).unwrap_or_else(|| {
        plan.note(
            about,
            format!("ttl {ttl:?} cannot be read; 30 days stand in its place"),
        );
        "30d".to_owned()
    });
    let kept = json!({ "keepWithin": span });
    (
        (when.schedule, when.timezone),
        kept.as_object().cloned().unwrap_or_default(),
    )
}

#[cfg(test)]
#[path = "velero_tests.rs"]
mod tests;
