//! `fleet why`: why an object is not well, and what to do, out of what its cluster reported. Pure but for the shell.

use std::fmt::Write as _;

use jiff::Timestamp;
use proto::text::cleaned;
use proto::v1::row::Body;
use proto::v1::{BackupRow, Collection, Condition, PolicyRow, RepositoryRow};
use serde_json::{Value, json};

use crate::advice::{Advice, advice};
use crate::arguments::{Get, HubArguments};
use crate::client::Client;
use crate::detail::{Found, conditions, find, since};
use crate::document::API_VERSION;
use crate::failure::{Failure, code};
use crate::maintenance::print;
use crate::text::{ago, rfc3339, until};

/// The answer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Why {
    pub state: String,
    /// In one sentence.
    pub sentence: String,
    /// What the page about conditions says that the reason means; empty when it says nothing.
    pub means: String,
    /// What to do, in this order. The last ones are commands.
    pub next: Vec<String>,
    /// Page and section with more; empty for none.
    pub page: String,
    /// Exit code.
    pub code: u8,
}

/// States in which a person has to act, of all kinds.
const UNWELL: [&str; 11] = [
    "failed", "late", "partial", "notready", "waiting", "unready", "degraded", "damaged", "banned",
    "conflict", "refused",
];
/// States in which nobody knows.
const UNKNOWN: [&str; 3] = ["stale", "never", "unknown"];

/// Carries the command out.
pub async fn why(hub: &HubArguments, arguments: &Get) -> Result<u8, Failure> {
    let mut client = Client::connect(hub).await?;
    let found = find(&mut client, &arguments.object).await?;
    Ok(show(arguments, &found))
}

/// Prints the answer; its exit code.
pub fn show(arguments: &Get, found: &Found) -> u8 {
    let answer = of(found, Timestamp::now());
    let names = std::iter::once(answer.state.clone());
    print(arguments.output, &document(found, &answer), names, || {
        text(&answer)
    });
    answer.code
}

fn text(why: &Why) -> String {
    let mut text = format!("{}\n", cleaned(&why.sentence));
    if !why.means.is_empty() {
        let _ = writeln!(text, "means  {}", cleaned(&why.means));
    }
    for step in &why.next {
        let _ = writeln!(text, "next   {}", cleaned(step));
    }
    if !why.page.is_empty() {
        let _ = writeln!(text, "more   {}", why.page);
    }
    text
}

/// As JSON.
#[must_use]
pub fn document(found: &Found, why: &Why) -> Value {
    json!({
        "apiVersion": API_VERSION, "kind": "Why", "asOf": rfc3339(found.answer.as_of.as_ref()), "revision": found.answer.revision,
        "objectKind": found.kind(), "key": found.key, "state": why.state, "sentence": why.sentence,
        "means": crate::document::text(&why.means), "next": why.next, "page": crate::document::text(&why.page),
    })
}

/// Why an object is as it is.
#[must_use]
pub fn of(found: &Found, now: Timestamp) -> Why {
    let row = found.answer.row.as_ref().and_then(|row| row.body.as_ref());
    let conditions = conditions(&found.answer);
    let mut why = match row {
        Some(Body::Backup(row)) => backup(found, row, conditions, now),
        Some(Body::Policy(row)) => policy(found, row, conditions),
        Some(Body::Restore(row)) => {
            let mut why = Why::new(&row.state, row.reason.clone());
            why.heed(deciding("ResticRestore", conditions));
            if row.state == "stale" {
                why.next.push(unheard(found, &row.cluster));
            }
            if row.state != "done" {
                why.next
                    .push(describe("rres", &row.cluster, &row.namespace, &row.name));
            }
            why
        }
        Some(Body::Repository(row)) => repository(found, row),
        Some(Body::Cluster(row)) => {
            let mut why = Why::new(&row.state, row.reason.clone());
            if row.state == "stale" {
                why.reason(&format!(
                    "its spoke was last heard {}",
                    ago(row.freshness.as_ref().and_then(|f| f.last_heard.as_ref()), now)
                ));
                why.next.push(format!(
                    "fleet check --kube-context CONTEXT, with the context of cluster {}",
                    row.name
                ));
            }
            why
        }
        None => Why::new("unknown", "the hub did not say what it is".to_owned()),
    };
    why.code = exit(&why);
    why.sentence = format!(
        "{} {} is {}{}",
        found.kind(),
        found.name(),
        why.state.to_uppercase(),
        if why.sentence.is_empty() {
            String::new()
        } else {
            format!(": {}", why.sentence)
        }
    );
    why
}

fn exit(why: &Why) -> u8 {
    let state = why.state.as_str();
    match state {
        // What a restore waits for may be for a person.
        "pending" if !why.sentence.is_empty() => code::FINDING,
        _ if UNWELL.contains(&state) => code::FINDING,
        _ if UNKNOWN.contains(&state) => code::UNKNOWN,
        _ => 0,
    }
}

impl Why {
    fn new(state: &str, sentence: String) -> Why {
        Why {
            state: state.to_owned(),
            sentence,
            ..Why::default()
        }
    }

    /// Adds to the sentence.
    fn reason(&mut self, more: &str) {
        if more.is_empty() {
            return;
        }
        if !self.sentence.is_empty() {
            self.sentence.push_str("; ");
        }
        self.sentence.push_str(more);
    }

    /// What the page about conditions says.
    fn heed(&mut self, advice: Option<&Advice>) {
        let Some(advice) = advice else { return };
        self.means.clone_from(&advice.means);
        self.page.clone_from(&advice.page);
        if !advice.todo.is_empty() {
            self.next.push(advice.todo.clone());
        }
    }
}

/// Conditions that say that something is not well, in the order in which they decide.
const DECIDING: [(&str, &str); 6] = [
    ("ApprovalRequired", "True"),
    ("Ready", "False"),
    ("Ready", "Unknown"),
    ("Degraded", "True"),
    ("Waiting", "True"),
    ("Suspicious", "True"),
];

/// What the page says about the condition that decides.
fn deciding(kind: &str, conditions: &[Condition]) -> Option<&'static Advice> {
    let found = DECIDING.iter().find_map(|(name, status)| {
        let mut conditions = conditions.iter();
        conditions.find(|c| c.r#type == *name && c.status == *status)
    })?;
    // A reason in general has the one in particular at the beginning of its message.
    let particular = found.message.split(':').next().unwrap_or_default();
    advice(kind, particular).or_else(|| advice(kind, &found.reason))
}

fn backup(found: &Found, row: &BackupRow, conditions: &[Condition], now: Timestamp) -> Why {
    let mut why = Why::new(&row.state, row.reason.clone());
    why.reason(&since(row.since.as_ref().filter(|_| row.state != "ok"), now));
    let backup = row.backup.clone().unwrap_or_default();
    let run = backup.last_run.as_ref();
    match row.state.as_str() {
        "failed" | "partial" => why.heed(run.and_then(|run| advice("ResticBackup", &run.reason))),
        "late" | "notready" | "never" => why.heed(deciding("ResticBackup", conditions)),
        "stale" => why.next.push(unheard(found, &row.cluster)),
        "ok" => why.reason(&format!(
            "the last success was {}, the next run is {}",
            ago(backup.last_success.as_ref(), now),
            until(backup.next_run.as_ref(), now)
        )),
        _ => {}
    }
    if let Some(repository) = unwell(found, "repository") {
        why.next.push(repository);
    }
    if run.is_some_and(|run| run.reason == "RepositoryLocked") {
        why.next.push(format!(
            "fleet why-locked {}/{}/{}",
            row.cluster, backup.repository_namespace, backup.repository_name
        ));
    }
    let key = format!("{}/{}/{}", row.cluster, row.namespace, row.name);
    match row.state.as_str() {
        "failed" | "partial" | "late" => {
            why.next
                .push(describe("rb", &row.cluster, &row.namespace, &row.name));
            why.next.push(format!("fleet backups run {key}"));
        }
        "notready" | "never" => why
            .next
            .push(describe("rb", &row.cluster, &row.namespace, &row.name)),
        "suspended" => why.next.push(format!("fleet backups resume {key}")),
        _ => {}
    }
    why
}

fn policy(found: &Found, row: &PolicyRow, conditions: &[Condition]) -> Why {
    let mut why = Why::new(&row.state, row.reason.clone());
    match row.state.as_str() {
        "stale" => why.next.push(unheard(found, &row.cluster)),
        "suspended" => why.next.push(format!(
            "fleet retention resume {}/{}/{}",
            row.cluster, row.namespace, row.name
        )),
        "ok" | "running" => {}
        state => {
            why.heed(deciding("GlobalRetentionPolicy", conditions));
            if state == "waiting" {
                why.next.push("fleet plan list".to_owned());
            }
            why.next
                .push(describe("grp", &row.cluster, &row.namespace, &row.name));
        }
    }
    why
}

fn repository(found: &Found, row: &RepositoryRow) -> Why {
    let state = if row.alarm.is_empty() {
        row.state.as_str()
    } else {
        "damaged"
    };
    let mut why = Why::new(state, row.alarm.clone());
    for of in row.bindings.iter().filter(|of| !of.ready) {
        let place = format!("{}/{}/{}", of.cluster, of.namespace, of.name);
        why.reason(&format!("{place}: {}: {}", of.reason, of.message));
        if why.means.is_empty() {
            why.heed(advice("ResticRepository", &of.reason));
        }
        why.next
            .push(describe("rr", &of.cluster, &of.namespace, &of.name));
    }
    for of in row.bindings.iter().filter(|of| of.binding == "pending") {
        why.reason(&format!(
            "{} takes no part yet: {}",
            of.cluster, of.binding_reason
        ));
    }
    if why.means.is_empty() && state != "ready" {
        let resources = found.answer.resources.iter();
        let mut said = resources.filter_map(|of| deciding("ResticRepository", &of.conditions));
        why.heed(said.next());
    }
    if state == "stale" {
        why.reason(found.alone.and_then(|of| of.unheard).unwrap_or_default());
        let silent = row.clusters.iter();
        why.next.extend(silent.map(|cluster| unheard(found, cluster)));
    }
    why
}

/// What shows why a cluster is not heard: by kubeconfig alone there is no hub that knows.
fn unheard(found: &Found, cluster: &str) -> String {
    match found.alone {
        Some(_) => "fleet check".to_owned(),
        None => format!("fleet why cluster {cluster}"),
    }
}

/// What belongs to the object and is not well itself.
fn unwell(found: &Found, what: &str) -> Option<String> {
    let mut relations = found.answer.relations.iter();
    let of = relations.find(|of| of.what == what && UNWELL.contains(&of.state.as_str()))?;
    let name = if of.name.is_empty() { &of.key } else { &of.name };
    let kind = crate::detail::noun(Collection::try_from(of.collection).unwrap_or_default());
    Some(format!(
        "its {what} {name} is {}: fleet why {kind} {}",
        of.state.to_uppercase(),
        of.key
    ))
}

fn describe(kind: &str, cluster: &str, namespace: &str, name: &str) -> String {
    format!("in cluster {cluster}: kubectl describe {kind} -n {namespace} {name}")
}

#[cfg(test)]
#[path = "why_tests.rs"]
mod tests;
