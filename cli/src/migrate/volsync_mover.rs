//! A backup that takes the place of a ReplicationSource, with what was said of its mover. Pure.

use serde_json::{Value, json};

use super::pause::is_paused;
use super::plan::{Place, Plan};
use super::unread::unread;
use super::volsync::{describe, source_of};
use super::when::when;
use crate::objects::{at, text};

/// Fields of a source that are carried over, that a note of their own is about, or that say how the volume is copied, which
/// ours does not. `unlock` has restic remove locks, as ours does without being told.
const READ: [&str; 20] = [
    "sourcePVC",
    "trigger",
    "paused",
    "restic.repository",
    "restic.customCA",
    "restic.retain",
    "restic.pruneIntervalDays",
    "restic.unlock",
    "restic.copyMethod",
    "restic.capacity",
    "restic.storageClassName",
    "restic.accessModes",
    "restic.volumeSnapshotClassName",
    "restic.moverSecurityContext",
    "restic.moverResources",
    "restic.moverAffinity",
    "restic.moverServiceAccount",
    "restic.moverPodLabels",
    "restic.cacheCapacity",
    "restic.cacheStorageClassName",
];
/// Size of VolSync's cache where none is said.
const CACHE: &str = "1Gi";
/// Labels that jobConfig.podLabels refuses.
const RESERVED: [&str; 5] = [
    "controller-uid",
    "job-name",
    "app.kubernetes.io/name",
    "app.kubernetes.io/component",
    "app.kubernetes.io/managed-by",
];
const RESERVED_PREFIXES: [&str; 2] = ["backup.resticbackup.io/", "batch.kubernetes.io/"];

/// Adds the backup. Its name is the answer.
pub(super) fn backup(plan: &mut Plan, source: &Value, repository: &str, host: &str) -> String {
    let place = Place {
        namespace: at(source).0.to_owned(),
        name: at(source).1.to_owned(),
        source: source_of(source),
    };
    let about = describe(source);
    let trigger = text(source, "/spec/trigger/schedule");
    let found = when(trigger);
    if trigger.is_empty() {
        plan.note(
            &about,
            "it has no schedule (a manual trigger, or none): ours runs once a day, or set one",
        );
    } else if let Some(note) = &found.note {
        plan.note(&about, note.clone());
    }
    let paused = is_paused(source);
    if paused {
        plan.note(
            &about,
            "it is paused: ours is suspended, and stays so after `fleet migrate finish volsync` until you resume it",
        );
    }
    let spec = json!({
        "schedule": found.schedule, "timezone": found.timezone,
        "source": { "pvc": { "claimName": text(source, "/spec/sourcePVC") } },
        "restic": { "hostname": host },
        "jobConfig": job(plan, source, &about),
        "suspend": paused.then_some(true),
    });
    plan.backup(&place, json!({ "name": repository }), spec)
}

/// `jobConfig`; null where nothing was said of the mover.
fn job(plan: &mut Plan, source: &Value, about: &str) -> Value {
    let restic = source.pointer("/spec/restic").unwrap_or(&Value::Null);
    let given = |name: &str| restic.get(name).filter(|value| !is_empty(value)).cloned();
    let copied = ["Snapshot", "Clone"].contains(&text(restic, "/copyMethod"));
    if copied {
        let method = text(restic, "/copyMethod");
        plan.note(
            about,
            format!("copyMethod {method}: ours reads the volume itself; make it consistent with hooks (docs/hooks.md)"),
        );
    }
    let user = given("moverSecurityContext");
    if user.is_none() {
        plan.note(
            about,
            "it has no moverSecurityContext: ours reads as uid 65532, and files that only their owner may read need \
             jobConfig.securityContext.runAsUser",
        );
    }
    let affinity = given("moverAffinity");
    if affinity.is_some() && copied {
        plan.note(
            about,
            "its moverAffinity is not carried over: it was that of a copy, and ours runs where the volume itself is in use",
        );
    }
    if given("pruneIntervalDays").is_some() {
        plan.note(
            about,
            "its pruneIntervalDays has no equal here: a policy frees space at each of its runs (prune: true), once a day",
        );
    }
    let left: Vec<String> = unread(&source["spec"], &READ).into_iter().collect();
    if !left.is_empty() {
        let text = format!(
            "these fields have no equal here and are not carried over: {}",
            left.join(", ")
        );
        plan.note(about, text);
    }
    let parts = [
        ("securityContext", user),
        ("resources", given("moverResources")),
        ("affinity", affinity.filter(|_| !copied)),
        ("serviceAccountName", given("moverServiceAccount")),
        ("podLabels", labels(plan, about, given("moverPodLabels"))),
        (
            "cache",
            cache(given("cacheCapacity"), given("cacheStorageClassName")),
        ),
    ];
    let mut job = Value::Null;
    for (name, value) in parts {
        if let Some(value) = value {
            job[name] = value;
        }
    }
    job
}

/// Labels that our pods may have.
fn labels(plan: &mut Plan, about: &str, labels: Option<Value>) -> Option<Value> {
    let Some(Value::Object(labels)) = labels else {
        return None;
    };
    let is_reserved = |name: &str| {
        RESERVED.contains(&name) || RESERVED_PREFIXES.iter().any(|prefix| name.starts_with(prefix))
    };
    let (reserved, ours): (Vec<_>, Vec<_>) = labels.into_iter().partition(|(name, _)| is_reserved(name));
    for (name, _) in reserved {
        let text = format!("label {name} of moverPodLabels is not carried over: our operator sets it itself");
        plan.note(about, text);
    }
    (!ours.is_empty()).then(|| Value::Object(ours.into_iter().collect()))
}

/// A claim for restic's cache, where VolSync was told of one.
fn cache(size: Option<Value>, class: Option<Value>) -> Option<Value> {
    if size.is_none() && class.is_none() {
        return None;
    }
    let size = match size {
        Some(Value::Number(bytes)) => json!(bytes.to_string()),
        size => size.unwrap_or_else(|| json!(CACHE)),
    };
    let mut cache = json!({ "size": size });
    if let Some(class) = class {
        cache["storageClassName"] = class;
    }
    Some(cache)
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::String(text) => text.is_empty(),
        Value::Object(fields) => fields.is_empty(),
        _ => false,
    }
}
