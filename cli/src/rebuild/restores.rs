//! The restores of a lost cluster's claims: from which backup each is filled, and by which tags its snapshots are found. Pure.

use std::collections::BTreeMap;

use jiff::Timestamp;
use proto::time::to_unix_millis;
use proto::v1::BackupHistory;
use serde_json::{Value, json};

use super::{Made, Taken};
use crate::check::kube::API;

/// Whose snapshots are meant.
pub struct Lost<'a> {
    pub cluster: &'a str,
    /// uid under which it reported its resources; empty where that is not known.
    pub uid: &'a str,
}

/// How much of its claim a backup reads; the greatest is most.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Extent {
    Paths,
    Excludes,
    Whole,
}

/// A backup that reads a claim.
struct Candidate<'a> {
    taken: &'a Taken,
    namespace: String,
    name: String,
    claim: String,
    extent: Extent,
}

/// A restore for each claim that a backup names, if it is clear from which backup.
pub fn restores(lost: &Lost<'_>, resources: &[Taken], made: &mut Made) -> Vec<Value> {
    let mut claims: BTreeMap<(String, String), Vec<Candidate<'_>>> = BTreeMap::new();
    for taken in resources
        .iter()
        .filter(|taken| taken.object["kind"] == "ResticBackup")
    {
        let candidate = Candidate::of(taken);
        if candidate.claim.is_empty() {
            made.notes.push(format!(
                "{} names no claim: restore it by hand (docs/disaster.md)",
                candidate.about()
            ));
            continue;
        }
        let claim = (candidate.namespace.clone(), candidate.claim.clone());
        claims.entry(claim).or_default().push(candidate);
    }
    let mut restores = Vec::new();
    for ((namespace, claim), candidates) in &claims {
        match chosen(candidates) {
            Some(chosen) => {
                told(chosen, candidates, &mut made.notes);
                restores.push(chosen.restore(lost, &mut made.notes));
            }
            None => {
                let all: Vec<String> = candidates.iter().map(Candidate::described).collect();
                made.findings += 1;
                made.notes.push(format!(
                    "claim {namespace}/{claim} has no restore: it is not clear which of its backups is meant: {}; write one, \
                     docs/disaster.md has the tags",
                    all.join("; ")
                ));
            }
        }
    }
    restores
}

/// The backup that a claim is filled from: of those that run and have a snapshot the one that reads most of it, then the one
/// with the newest snapshot. `None` where two are alike, or where one that reads more is suspended and may be old.
fn chosen<'a, 'b>(candidates: &'b [Candidate<'a>]) -> Option<&'b Candidate<'a>> {
    let best = candidates.iter().max_by_key(|of| (of.is_current(), of.rank()))?;
    let mut rivals = candidates.iter().filter(|of| !std::ptr::eq(*of, best));
    let is_less = |of: &Candidate<'_>| match of.is_current() == best.is_current() {
        true => of.rank() < best.rank(),
        false => of.extent <= best.extent,
    };
    rivals.all(is_less).then_some(best)
}

/// Says what is not in a restore.
fn told(chosen: &Candidate<'_>, candidates: &[Candidate<'_>], notes: &mut Vec<String>) {
    let others = candidates.iter().filter(|of| !std::ptr::eq(*of, chosen));
    let others: Vec<String> = others.map(Candidate::described).collect();
    let claim = format!("claim {}/{}", chosen.namespace, chosen.claim);
    if !others.is_empty() {
        notes.push(format!(
            "several backups read {claim}: its restore is from {}, not from {}",
            chosen.described(),
            others.join("; ")
        ));
    }
    if chosen.extent != Extent::Whole {
        notes.push(format!(
            "the restore of {claim} is only a part of it: {} backs up {}",
            chosen.about(),
            chosen.part()
        ));
    }
}

impl Candidate<'_> {
    fn of(taken: &Taken) -> Candidate<'_> {
        let text = |pointer: &str| {
            let text = taken.object.pointer(pointer).and_then(Value::as_str);
            text.unwrap_or_default().to_owned()
        };
        Candidate {
            taken,
            namespace: text("/metadata/namespace"),
            name: text("/metadata/name"),
            claim: text("/spec/source/pvc/claimName"),
            extent: match () {
                () if !paths(&taken.object).is_empty() => Extent::Paths,
                () if !excludes(&taken.object).is_empty() => Extent::Excludes,
                () => Extent::Whole,
            },
        }
    }

    fn about(&self) -> String {
        format!("ResticBackup {}/{}", self.namespace, self.name)
    }

    /// Whether it runs, and may have a snapshot.
    fn is_current(&self) -> bool {
        !self.taken.suspended && !self.taken.history.as_ref().is_some_and(has_none)
    }

    fn rank(&self) -> (Extent, Option<i64>) {
        (self.extent, self.last_success())
    }

    /// Milliseconds since 1970.
    fn last_success(&self) -> Option<i64> {
        let history = self.taken.history.as_ref()?;
        history.last_success.as_ref().map(to_unix_millis)
    }

    fn part(&self) -> String {
        let list = |what: &str, list: Vec<String>| match list.is_empty() {
            true => None,
            false => Some(format!("{what} {}", list.join(", "))),
        };
        let parts = [
            list("only", paths(&self.taken.object)),
            list("all but", excludes(&self.taken.object)),
        ];
        match parts.into_iter().flatten().collect::<Vec<_>>() {
            parts if parts.is_empty() => "all of it".to_owned(),
            parts => parts.join(", "),
        }
    }

    /// With what speaks for it, and against it.
    fn described(&self) -> String {
        let suspended = if self.taken.suspended { ", suspended" } else { "" };
        let last = match (&self.taken.history, self.last_success()) {
            (None, _) => "last success not known".to_owned(),
            (Some(_), None) => "never succeeded".to_owned(),
            (Some(_), Some(at)) => {
                let at = Timestamp::from_millisecond(at).unwrap_or_default();
                format!("last success {at:.0}")
            }
        };
        format!("{} ({}{suspended}, {last})", self.about(), self.part())
    }

    fn restore(&self, lost: &Lost<'_>, notes: &mut Vec<String>) -> Value {
        let mut tags = vec![
            format!("fleet.cluster={}", lost.cluster),
            format!("fleet.backup={}/{}", self.namespace, self.name),
        ];
        match &self.taken.history {
            _ if lost.uid.is_empty() => {}
            // Without the uid a cluster that was there before under this name is found: it is the only one that has any.
            Some(history) if has_none(history) => notes.push(format!(
                "{} has made no snapshot in the cluster with uid {}: its restore takes those of a cluster of this name before \
                 it, and fails if there are none or several of them; then write fleet.cluster-uid=UID to its tags",
                self.about(),
                lost.uid
            )),
            _ => tags.push(format!("fleet.cluster-uid={}", lost.uid)),
        }
        let backup = &self.taken.object;
        let mut spec = json!({
            "repositoryRef": backup["spec"]["repositoryRef"],
            // Not by backupRef: a cluster that is made again has another uid, and the snapshots are not its own.
            "snapshotSelector": { "tags": tags },
            "target": { "newPVC": { "name": self.claim } },
        });
        if let Some(user) = backup.pointer("/spec/jobConfig/securityContext") {
            spec["jobConfig"] = json!({ "securityContext": user });
        }
        json!({
            "apiVersion": API, "kind": "ResticRestore",
            "metadata": { "name": format!("rebuild-{}", self.claim), "namespace": self.namespace }, "spec": spec,
        })
    }
}

fn has_none(history: &BackupHistory) -> bool {
    history.last_success.is_none() && !history.partial
}

fn texts(value: Option<&Value>) -> Vec<String> {
    let texts = value.and_then(Value::as_array).into_iter().flatten();
    texts.filter_map(Value::as_str).map(str::to_owned).collect()
}

/// What alone is read of the claim; empty for all of it.
fn paths(backup: &Value) -> Vec<String> {
    let paths = texts(backup.pointer("/spec/source/pvc/paths"));
    match paths.iter().any(|path| path.trim_matches('/').is_empty()) {
        true => Vec::new(),
        false => paths,
    }
}

/// What is left out, as it is written.
fn excludes(backup: &Value) -> Vec<String> {
    let mut excludes = texts(backup.pointer("/spec/source/pvc/excludes"));
    let leaves_out = |argument: &String| {
        ["--exclude", "--iexclude", "-e"]
            .iter()
            .any(|flag| argument.starts_with(flag))
    };
    let arguments = texts(backup.pointer("/spec/restic/extraArgs"));
    excludes.extend(arguments.into_iter().filter(leaves_out));
    excludes
}
