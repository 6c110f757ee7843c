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
    let place = Place {
        namespace: own.clone(),
        name,
        source: source_of(&workload),
    };
    let secret = secret::reference(plan, &place, entries);
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

/// uids that claims of a namespace had when Velero stored their volumes.
fn claims_of<'a>(
    plan: &mut Plan,
    found: &'a Found,
    own: &str,
    workload: &str,
    about: &str,
) -> BTreeMap<&'a str, BTreeSet<&'a str>> {
    let mut claims: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
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
        claims
            .entry(claim)
            .or_default()
            .insert(text(volume, "/spec/tags/pvc-uid"));
    }
    claims
}

/// Backups for the claims of a namespace whose volumes Velero has stored, and their policy.
fn volumes(plan: &mut Plan, found: &Found, own: &str, workload: &str, repository: &str, about: &str) {
    let claims = claims_of(plan, found, own, workload, about);
    if claims.is_empty() {
        plan.note(
            about,
            format!("no PodVolumeBackup is of a claim in {workload}: only its repository is made"),
        );
        return;
    }
    let times = schedule_of(plan, found, workload, about);
    let reference = json!({ "name": repository, "namespace": own });
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
    policy(plan, own, workload, repository, rules, about);
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
fn policy(plan: &mut Plan, own: &str, workload: &str, repository: &str, mut rules: Vec<Value>, about: &str) {
    if rules.is_empty() {
        return;
    }
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
    plan.policy(&place, json!({ "name": repository }), DAILY, rules, false);
}

/// When backups of a namespace run, and what is kept of them; `None` where that is not certain.
struct Times {
    schedule: String,
    timezone: Option<String>,
    kept: Option<Map<String, Value>>,
}

/// Whether a Schedule backs up a namespace.
fn covers(schedule: &Value, workload: &str) -> bool {
    let names =
        |pointer: &str| -> Vec<&str> { list(schedule, pointer).iter().filter_map(Value::as_str).collect() };
    let (included, excluded) = (
        names("/spec/template/includedNamespaces"),
        names("/spec/template/excludedNamespaces"),
    );
    let all = included.is_empty() || included.contains(&"*");
    (all || included.contains(&workload)) && !excluded.contains(&workload)
}

/// When Velero backs up a namespace, and for how long it keeps that.
fn schedule_of(plan: &mut Plan, found: &Found, workload: &str, about: &str) -> Times {
    let schedules: Vec<&Value> = found
        .schedules
        .iter()
        .filter(|one| covers(one, workload))
        .collect();
    let Some(first) = schedules.first() else {
        plan.note(
            about,
            format!("no Schedule covers {workload}: ours runs once a day, and no policy is made"),
        );
        return Times {
            schedule: DAILY.to_owned(),
            timezone: None,
            kept: None,
        };
    };
    if schedules.len() > 1 {
        let name = at(first).1;
        plan.note(
            about,
            format!(
                "{} more Schedules cover {workload}; ours has the schedule of {name}, and no policy is made",
                schedules.len() - 1
            ),
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
    let span = keep::from_duration(ttl);
    if span.is_none() {
        plan.note(about, format!("ttl {ttl:?} cannot be read: no policy is made"));
    }
    let kept = span.filter(|_| schedules.len() == 1);
    Times {
        schedule: when.schedule,
        timezone: when.timezone,
        kept: kept.map(|span| Map::from_iter([("keepWithin".to_owned(), json!(span))])),
    }
}

#[cfg(test)]
#[path = "velero_tests.rs"]
mod tests;
