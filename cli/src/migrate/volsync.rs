//! VolSync: each ReplicationSource with the restic mover is a claim and a repository. It stores with the host `volsync` and
//! the path `/data`, from within that folder: files lie at the root of its snapshots. Pure.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::keep;
use super::plan::{Place, Plan, at, text};
use super::secret::{self, Secrets, Source};
use super::when::{DAILY, when};
use crate::arguments::Tool;

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
    // Sources that share a Secret share a repository, and nothing in it tells their snapshots apart.
    let mut groups: BTreeMap<(&str, &str), Vec<&Value>> = BTreeMap::new();
    for source in &restic {
        let secret = text(source, "/spec/restic/repository");
        groups.entry((at(source).0, secret)).or_default().push(source);
    }
    for source in sources.iter().filter(|source| !restic.contains(source)) {
        let about = describe(source);
        plan.note(
            &about,
            "its mover is not restic: there is no repository to take over",
        );
    }
    for ((namespace, name), sources) in groups {
        group(&mut plan, namespace, name, &sources, secrets);
    }
    plan
}

fn describe(source: &Value) -> String {
    let (namespace, name) = at(source);
    format!("ReplicationSource {namespace}/{name}")
}

/// A repository with what goes into it.
fn group(plan: &mut Plan, namespace: &str, secret: &str, sources: &[&Value], secrets: &Secrets) {
    let Some(first) = sources.first() else {
        return;
    };
    let about = describe(first);
    let Some(keys) = secrets.get(&(namespace.to_owned(), secret.to_owned())) else {
        plan.note(
            &about,
            format!("Secret {namespace}/{secret} cannot be read: nothing is made"),
        );
        return;
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
        return;
    }
    let mut entries = secret::variables(secret, keys);
    let url = &secret::without_user(url, &mut entries);
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
    let reference = secret::reference(plan, namespace, secret, entries);
    let place = |name: &str, source: &Value| Place {
        namespace: namespace.to_owned(),
        name: name.to_owned(),
        source: format!("{RESOURCE}/{}/{}", at(source).0, at(source).1),
    };
    let repository = plan.repository(&place(secret, first), url, &reference, json!({}));
    if let [source] = sources {
        let name = backup(plan, &place(at(source).1, source), source, &repository, HOST);
        plan.note(&describe(source), history(&name));
        let retention = retained(plan, source);
        let rule = keep::rule(json!({ "hostname": HOST }), &["host"], &retention);
        plan.policy(
            &place(&repository, source),
            json!({ "name": repository }),
            DAILY,
            vec![rule],
            true,
        );
        return;
    }
    plan.note(
        &about,
        format!(
            "{} sources share Secret {secret}, and VolSync stores all of them with one host and path: nobody can tell \
             whose a snapshot is. Their history stays as it is, and no policy is made for it; ours are told apart",
            sources.len()
        ),
    );
    let mut rules = Vec::new();
    for source in sources {
        let host = format!("{HOST}-{}", at(source).1);
        backup(plan, &place(at(source).1, source), source, &repository, &host);
        rules.push(keep::rule(
            json!({ "hostname": host }),
            &["host"],
            &retained(plan, source),
        ));
    }
    plan.policy(
        &place(&repository, first),
        json!({ "name": repository }),
        DAILY,
        rules,
        true,
    );
}

fn history(backup: &str) -> String {
    format!(
        "its snapshots have the host {HOST}, and so have those of {backup}: retention counts both as one series. Restore one \
         by repositoryRef and snapshotSelector.hostname: {HOST}, without snapshotPath: its files lie at the root"
    )
}

fn backup(plan: &mut Plan, place: &Place, source: &Value, repository: &str, host: &str) -> String {
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
    plan.backup(place, json!({ "name": repository }), spec)
}

/// What VolSync keeps of a source.
fn retained(plan: &mut Plan, source: &Value) -> Map<String, Value> {
    let about = describe(source);
    let theirs = source.pointer("/spec/restic/retain").cloned().unwrap_or_default();
    let mut ours = keep::counts(&theirs, &KEEPS);
    if let Some(last) = theirs.get("last").and_then(|last| {
        // Newer versions write it as a text.
        last.as_i64().or_else(|| last.as_str()?.parse().ok())
    }) {
        ours.extend((last > 0).then(|| ("keepLast".to_owned(), json!(last))));
    }
    if let Some(within) = theirs.get("within").and_then(Value::as_str) {
        match keep::span(within) {
            Some(span) => drop(ours.insert("keepWithin".to_owned(), json!(span))),
            None => plan.note(
                &about,
                format!("retain.within {within:?} is no span of restic, and is left out"),
            ),
        }
    }
    if ours.is_empty() {
        plan.note(
            &about,
            "it has no retain, by which VolSync keeps the last snapshot only: so does the policy",
        );
        ours.insert("keepLast".to_owned(), json!(1));
    }
    ours
}

#[cfg(test)]
#[path = "volsync_tests.rs"]
mod tests;
