//! VolSync: each ReplicationSource with the restic mover is a claim and a repository. It stores with the host `volsync` and
//! the path `/data`, from within that folder: files lie at the root of its snapshots. Pure.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::keep;
use super::plan::{Place, Plan};
use super::secret::{self, Secrets, Source};
use super::volsync_keep::retained;
use super::volsync_mover::backup;
use super::when::DAILY;
use crate::arguments::Tool;
use crate::objects::{at, text};

/// What is read.
pub const RESOURCE: &str = "replicationsources.volsync.backube";
/// Host of all its snapshots.
const HOST: &str = "volsync";
/// Reasons that a note names.
const NAMED: usize = 3;

/// What was read of a cluster.
#[derive(Debug, Default)]
pub struct Found {
    /// Sources that are moved in.
    pub sources: Vec<Value>,
    /// Sources of the other namespaces, which may store into the same repositories; `None` where they cannot be listed.
    pub others: Option<Vec<Value>>,
}

/// Secrets that the sources refer to, as namespace and name.
#[must_use]
pub fn secrets(found: &Found) -> Vec<(String, String)> {
    let pointers = ["/spec/restic/repository", "/spec/restic/customCA/secretName"];
    named(&found.sources, &pointers)
}

/// Secrets of the sources of other namespaces.
#[must_use]
pub fn secrets_of_others(found: &Found) -> Vec<(String, String)> {
    let others = found.others.as_deref().unwrap_or_default();
    named(others, &["/spec/restic/repository"])
}

fn named(sources: &[Value], pointers: &[&str]) -> Vec<(String, String)> {
    let of = |source: &Value| -> Vec<(String, String)> {
        let names = pointers.iter().map(|pointer| text(source, pointer));
        let names = names.filter(|name| !name.is_empty());
        names
            .map(|name| (at(source).0.to_owned(), name.to_owned()))
            .collect()
    };
    sources.iter().flat_map(of).collect()
}

/// What becomes of them.
#[must_use]
pub fn plan(found: &Found, secrets: &Secrets, running: bool) -> Plan {
    let mut plan = Plan::new(Tool::Volsync, running);
    let users = Users::of(found, secrets);
    // Sources that share a repository cannot be told apart in it, whatever their Secrets and namespaces.
    let mut groups: BTreeMap<(&str, String), Vec<&Value>> = BTreeMap::new();
    for source in &found.sources {
        let about = describe(source);
        if !is_restic(source) {
            let text = "its mover is not restic: there is no repository to take over";
            plan.note(&about, text);
            continue;
        }
        match url(source, secrets) {
            Ok(url) if url.contains(':') => {
                let place = secret::location(url);
                groups.entry((at(source).0, place)).or_default().push(source);
            }
            Ok(_) => plan.note(
                &about,
                "its RESTIC_REPOSITORY is not the URL of a back end: nothing is made",
            ),
            Err(why) => plan.note(&about, format!("{why}: nothing is made")),
        }
    }
    for ((_, place), sources) in groups {
        let shared = users.shared(&place);
        group(&mut plan, &sources, secrets, shared.as_deref());
    }
    plan.settled()
}

pub(super) fn describe(source: &Value) -> String {
    let (namespace, name) = at(source);
    format!("ReplicationSource {namespace}/{name}")
}

pub(super) fn source_of(source: &Value) -> String {
    format!("{RESOURCE}/{}/{}", at(source).0, at(source).1)
}

fn is_restic(source: &Value) -> bool {
    source.pointer("/spec/restic").is_some_and(Value::is_object)
}

/// Keys of the Secret of a source.
fn keys<'a>(source: &Value, secrets: &'a Secrets) -> Option<&'a BTreeMap<String, String>> {
    let secret = text(source, "/spec/restic/repository");
    secrets.get(&(at(source).0.to_owned(), secret.to_owned()))
}

/// URL of the repository of a source, or why it is not known.
fn url<'a>(source: &Value, secrets: &'a Secrets) -> Result<&'a str, String> {
    let secret = format!("{}/{}", at(source).0, text(source, "/spec/restic/repository"));
    let keys = keys(source, secrets).ok_or_else(|| format!("Secret {secret} cannot be read"))?;
    let url = keys.get("RESTIC_REPOSITORY").map(|url| url.trim());
    url.filter(|url| !url.is_empty())
        .ok_or_else(|| format!("Secret {secret} has no RESTIC_REPOSITORY"))
}

/// Who stores into which repository, in all namespaces.
struct Users {
    /// By the place of the repository.
    counts: BTreeMap<String, usize>,
    /// Why others may store into any of them.
    unknown: Vec<String>,
}

impl Users {
    fn of(found: &Found, secrets: &Secrets) -> Users {
        let (mut counts, mut unknown) = (BTreeMap::new(), Vec::new());
        if found.others.is_none() {
            unknown.push("ReplicationSources of other namespaces cannot be listed".to_owned());
        }
        let others = found.others.iter().flatten();
        for source in found.sources.iter().chain(others).filter(|one| is_restic(one)) {
            match url(source, secrets) {
                Ok(url) => *counts.entry(secret::location(url)).or_default() += 1,
                Err(why) => unknown.push(format!(
                    "the repository of {} is not known ({why})",
                    describe(source)
                )),
            }
        }
        Users { counts, unknown }
    }

    /// Why the only source of a namespace in a repository may not be the only one that stores there; `None` where it is.
    fn shared(&self, place: &str) -> Option<String> {
        let known = self.counts.get(place).copied().unwrap_or_default();
        if known > 1 {
            let text = "other sources store into the same repository, and VolSync stores all of them with one host and path: \
                        nobody can tell whose a snapshot is. Their history stays as it is, and no policy is made for it; ours \
                        are told apart";
            return Some(text.to_owned());
        }
        let named = self.unknown.iter().take(NAMED).cloned();
        let more = self.unknown.len().saturating_sub(NAMED);
        let more = (more > 0).then(|| format!("{more} more"));
        let reasons: Vec<String> = named.chain(more).collect();
        (!reasons.is_empty()).then(|| {
            format!(
                "other sources may store into the same repository: {}. Ours gets a host of its own, and no policy is made for \
                 its history. Where these can be read, or are deleted, run it again before --apply",
                reasons.join("; ")
            )
        })
    }
}

/// A repository with what goes into it.
fn group(plan: &mut Plan, sources: &[&Value], secrets: &Secrets, why_shared: Option<&str>) {
    let Some(first) = sources.first() else {
        return;
    };
    let (about, namespace) = (describe(first), at(first).0);
    let secret = text(first, "/spec/restic/repository");
    let (Ok(url), Some(keys)) = (url(first, secrets), keys(first, secrets)) else {
        return;
    };
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
    let all: Vec<String> = sources.iter().map(|source| source_of(source)).collect();
    let place = Place {
        namespace: namespace.to_owned(),
        name: secret.to_owned(),
        source: all.join(","),
    };
    let reference = secret::reference(plan, &place, entries);
    let repository = plan.repository(&place, url, &reference, json!({}));
    let mut rules = match (sources, why_shared) {
        ([source], None) => alone(plan, source, &repository),
        (sources, why) => shared(plan, sources, &repository, why.unwrap_or_default()),
    };
    keep::cut(plan, &about, &mut rules);
    let place = Place {
        name: repository.clone(),
        ..place
    };
    if !rules.is_empty() {
        plan.policy(&place, json!({ "name": repository }), DAILY, rules, true);
    }
}

/// The only source of a repository in this cluster. Another cluster may store there, so each series is counted by itself:
/// theirs as VolSync does, which has no tags, and ours by the tags of its cluster and backup.
fn alone(plan: &mut Plan, source: &Value, repository: &str) -> Vec<Value> {
    let Some(retention) = retained(plan, source) else {
        // A rule of another cluster may select the host of theirs, and no rule here would keep ours.
        backup(plan, source, repository, &own_host(source));
        plan.note(&describe(source), restore());
        return Vec::new();
    };
    let name = backup(plan, source, repository, HOST);
    plan.note(
        &describe(source),
        format!(
            "its snapshots have the host {HOST}, and so have those of {name}. The policy counts theirs as VolSync does, and ours \
             beside them: theirs do not run out. Where no other cluster stores into this repository, groupBy: [host] in the \
             rule of {HOST} makes both one series. {}",
            restore()
        ),
    );
    vec![
        keep::rule(json!({ "hostname": HOST }), &[], &retention),
        keep::rule(own(source, &name), &[], &retention),
    ]
}

/// Sources that share a repository, here or with other namespaces, or that may.
fn shared(plan: &mut Plan, sources: &[&Value], repository: &str, why: &str) -> Vec<Value> {
    let mut rules = Vec::new();
    for source in sources {
        plan.note(&describe(source), why);
        let name = backup(plan, source, repository, &own_host(source));
        let retention = retained(plan, source);
        rules.extend(retention.map(|retention| keep::rule(own(source, &name), &[], &retention)));
    }
    rules
}

/// Selects what a backup of ours stores.
fn own(source: &Value, backup: &str) -> Value {
    json!({ "tags": [format!("fleet.backup={}/{backup}", at(source).0)] })
}

/// A host that no other source has: a namespace has no dot in its name.
fn own_host(source: &Value) -> String {
    format!("{HOST}.{}.{}", at(source).0, at(source).1)
}

fn restore() -> String {
    format!(
        "Restore a snapshot of before by repositoryRef and snapshotSelector.hostname: {HOST}, with before, and without \
         snapshotPath: its files lie at the root"
    )
}

#[cfg(test)]
#[path = "volsync_tests.rs"]
mod tests;
