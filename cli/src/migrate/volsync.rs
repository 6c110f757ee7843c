//! VolSync: each ReplicationSource with the restic mover is a claim and a repository. It stores with the host `volsync` and
//! the path `/data`, from within that folder: files lie at the root of its snapshots. Pure.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::keep;
use super::plan::{Place, Plan};
use super::secret::{self, Secrets, Source};
use super::when::{DAILY, when};
use crate::arguments::Tool;
use crate::objects::{at, text};

/// What is read.
pub const RESOURCE: &str = "replicationsources.volsync.backube";
/// Host of all its snapshots.
const HOST: &str = "volsync";
const KEEPS: [(&str, &str); 5] = [
    ("hourly", "keepHourly"),
    ("daily", "keepDaily"),
    ("weekly", "keepWeekly"),
    ("monthly", "keepMonthly"),
    ("yearly", "keepYearly"),
];

/// Secrets that the sources refer to, as namespace and name.
#[must_use]
pub fn secrets(sources: &[Value]) -> Vec<(String, String)> {
    let named = sources.iter().flat_map(|source| {
        let namespace = at(source).0;
        ["/spec/restic/repository", "/spec/restic/customCA/secretName"]
            .map(|pointer| (namespace.to_owned(), text(source, pointer).to_owned()))
    });
    named.filter(|(_, name)| !name.is_empty()).collect()
}

/// What becomes of them.
#[must_use]
pub fn plan(sources: &[Value], secrets: &Secrets, running: bool) -> Plan {
    let mut plan = Plan::new(Tool::Volsync, running);
    let restic: Vec<&Value> = sources
        .iter()
        .filter(|source| source.pointer("/spec/restic").is_some())
        .collect();
    // Sources that share a repository cannot be told apart in it, whatever their Secrets and namespaces.
    let mut groups: BTreeMap<(&str, String), Vec<&Value>> = BTreeMap::new();
    let mut users: BTreeMap<String, usize> = BTreeMap::new();
    for source in &restic {
        let Some(url) = located(&mut plan, source, secrets) else {
            continue;
        };
        let place = secret::location(&url);
        *users.entry(place.clone()).or_default() += 1;
        groups.entry((at(source).0, place)).or_default().push(source);
    }
    for source in sources.iter().filter(|source| !restic.contains(source)) {
        let about = describe(source);
        plan.note(
            &about,
            "its mover is not restic: there is no repository to take over",
        );
    }
    for ((_, place), sources) in groups {
        let shared = users.get(&place).is_none_or(|users| *users > 1);
        group(&mut plan, &sources, secrets, shared);
    }
    plan.settled()
}

fn describe(source: &Value) -> String {
    let (namespace, name) = at(source);
    format!("ReplicationSource {namespace}/{name}")
}

fn source_of(source: &Value) -> String {
    format!("{RESOURCE}/{}/{}", at(source).0, at(source).1)
}

/// Keys of the Secret of a source.
fn keys<'a>(source: &Value, secrets: &'a Secrets) -> Option<&'a BTreeMap<String, String>> {
    let secret = text(source, "/spec/restic/repository");
    secrets.get(&(at(source).0.to_owned(), secret.to_owned()))
}

/// URL of the repository of a source; a note where it is not known.
fn located(plan: &mut Plan, source: &Value, secrets: &Secrets) -> Option<String> {
    let (about, namespace) = (describe(source), at(source).0);
    let secret = text(source, "/spec/restic/repository");
    let Some(keys) = keys(source, secrets) else {
        plan.note(
            &about,
            format!("Secret {namespace}/{secret} cannot be read: nothing is made"),
        );
        return None;
    };
    let url = keys
        .get("RESTIC_REPOSITORY")
        .map(|url| url.trim())
        .unwrap_or_default();
    if url.is_empty() || !url.contains(':') {
        let text = format!(
            "RESTIC_REPOSITORY of Secret {namespace}/{secret} is not the URL of a back end: nothing is made"
        );
        plan.note(&about, text);
        return None;
    }
    Some(url.to_owned())
}

/// A repository with what goes into it.
fn group(plan: &mut Plan, sources: &[&Value], secrets: &Secrets, is_shared: bool) {
    let Some(first) = sources.first() else {
        return;
    };
    let (about, namespace) = (describe(first), at(first).0);
    let secret = text(first, "/spec/restic/repository");
    let (Some(url), Some(keys)) = (located(plan, first, secrets), keys(first, secrets)) else {
        return;
    };
    let mut entries = secret::variables(secret, keys);
    let url = &secret::without_user(&url, &mut entries);
    let (ca, key) = (
        text(first, "/spec/restic/customCA/secretName"),
        text(first, "/spec/restic/customCA/key"),
    );
    if !ca.is_empty() {
        entries.insert("RESTIC_CACERT".to_owned(), Source::whole(ca, key));
    } else if first.pointer("/spec/restic/customCA/configMapName").is_some() {
        plan.note(
            &about,
            "its customCA is in a ConfigMap: put it into the Secret as RESTIC_CACERT",
        );
    }
    let all: Vec<String> = sources.iter().map(|source| source_of(source)).collect();
    let place = Place {
        namespace: namespace.to_owned(),
        name: secret.to_owned(),
        source: all.join(","),
    };
    let reference = secret::reference(plan, &place, entries);
    let repository = plan.repository(&place, url, &reference, json!({}));
    let rules = match sources {
        [source] if !is_shared => alone(plan, source, &repository),
        sources => shared(plan, sources, &repository),
    };
    let place = Place {
        name: repository.clone(),
        ..place
    };
    if !rules.is_empty() {
        plan.policy(&place, json!({ "name": repository }), DAILY, rules, true);
    }
}

/// The only source of a repository: theirs and ours are one series.
fn alone(plan: &mut Plan, source: &Value, repository: &str) -> Vec<Value> {
    let name = backup(plan, source, repository, HOST);
    plan.note(&describe(source), history(&name));
    let retention = retained(plan, source);
    let rule = retention.map(|retention| keep::rule(json!({ "hostname": HOST }), &["host"], &retention));
    rule.into_iter().collect()
}

/// Sources that share a repository, here or with other namespaces.
fn shared(plan: &mut Plan, sources: &[&Value], repository: &str) -> Vec<Value> {
    let mut rules = Vec::new();
    for source in sources {
        plan.note(
            &describe(source),
            "other sources store into the same repository, and VolSync stores all of them with one host and path: nobody can \
             tell whose a snapshot is. Their history stays as it is, and no policy is made for it; ours are told apart",
        );
        let host = format!("{HOST}-{}-{}", at(source).0, at(source).1);
        backup(plan, source, repository, &host);
        let retention = retained(plan, source);
        rules.extend(
            retention.map(|retention| keep::rule(json!({ "hostname": host }), &["host"], &retention)),
        );
    }
    rules
}

fn history(backup: &str) -> String {
    format!(
        "its snapshots have the host {HOST}, and so have those of {backup}: retention counts both as one series. Restore one \
         by repositoryRef and snapshotSelector.hostname: {HOST}, without snapshotPath: its files lie at the root"
    )
}

fn backup(plan: &mut Plan, source: &Value, repository: &str, host: &str) -> String {
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
            "it has no schedule (a manual trigger): ours runs once a day, or set one",
        );
    } else if let Some(note) = &found.note {
        plan.note(&about, note.clone());
    }
    let method = text(source, "/spec/restic/copyMethod");
    if ["Snapshot", "Clone"].contains(&method) {
        plan.note(
            &about,
            format!("copyMethod {method}: ours reads the volume itself; make it consistent with hooks (docs/hooks.md)"),
        );
    }
    let user = source.pointer("/spec/restic/moverSecurityContext");
    let user = user.filter(|user| user.is_object());
    if user.is_none() {
        plan.note(
            &about,
            "it has no moverSecurityContext: ours reads as uid 65532, and files that only their owner may read need \
             jobConfig.securityContext.runAsUser",
        );
    }
    let spec = json!({
        "schedule": found.schedule, "timezone": found.timezone,
        "source": { "pvc": { "claimName": text(source, "/spec/sourcePVC") } },
        "restic": { "hostname": host },
        "jobConfig": user.map(|user| json!({ "securityContext": user })),
    });
    plan.backup(&place, json!({ "name": repository }), spec)
}

/// What VolSync keeps of a source; `None` where that is not certain.
fn retained(plan: &mut Plan, source: &Value) -> Option<Map<String, Value>> {
    let about = describe(source);
    let theirs = source.pointer("/spec/restic/retain").cloned().unwrap_or_default();
    let mut ours = keep::counts(&theirs, &KEEPS);
    let mut unclear: Vec<String> = KEEPS
        .iter()
        .filter_map(|(name, _)| Some((name, theirs.get(*name).filter(|count| !count.is_null())?)))
        // A count below 0 keeps everything.
        .filter(|(_, count)| count.as_u64().is_none())
        .map(|(name, count)| format!("retain.{name} {count}"))
        .collect();
    if let Some(last) = theirs.get("last").filter(|last| !last.is_null()) {
        // Newer versions write it as a text.
        match last.as_u64().or_else(|| last.as_str()?.parse().ok()) {
            Some(last) => ours.extend((last > 0).then(|| ("keepLast".to_owned(), json!(last)))),
            None => unclear.push(format!("retain.last {last}")),
        }
    }
    if let Some(within) = theirs.get("within").and_then(Value::as_str) {
        match keep::span(within) {
            Some(span) => drop(ours.insert("keepWithin".to_owned(), json!(span))),
            None => unclear.push(format!("retain.within {within:?}")),
        }
    }
    if !unclear.is_empty() {
        let text = format!(
            "{} cannot be written as a rule of ours: no rule is made, write one by hand",
            unclear.join(", ")
        );
        plan.note(&about, text);
        return None;
    }
    if ours.is_empty() {
        plan.note(
            &about,
            "it has no retain, by which VolSync keeps the last snapshot only: so does the policy",
        );
        ours.insert("keepLast".to_owned(), json!(1));
    }
    Some(ours)
}

#[cfg(test)]
#[path = "volsync_tests.rs"]
mod tests;
