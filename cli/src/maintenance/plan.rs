//! `fleet plan show`: what goes, what waits, who keeps what, and what stays for which reason. Pure.

use std::fmt::Write as _;

use jiff::Timestamp;
use proto::plan::{Group, PlanDocument, PlanLine, Removal, plan_hash};
use proto::text::cleaned;
use proto::v1::{OperationOutcome, Plan, PolicyFault};

use super::render::{heading, name};
use crate::render::align;
use crate::text::{ago, counted, short};

/// Snapshots, groups and policies that are listed without `-o wide`.
const SHOWN: usize = 20;

/// A plan as text. `wide` lists everything, with whole ids, paths and tags.
#[must_use]
pub fn show(plan: &Plan, wide: bool, now: Timestamp) -> String {
    let outcome = plan.outcome.clone().unwrap_or_default();
    let document = serde_json::from_str::<PlanLine>(&plan.document).ok();
    let mut text = head(plan, &outcome, now);
    let most = if wide { usize::MAX } else { SHOWN };
    match document.map(|line| line.plan) {
        Some(document) => body(&mut text, &document, wide, most),
        None => without_document(&mut text, plan, &outcome),
    }
    if !outcome.message.is_empty() {
        let _ = writeln!(text, "result    {}", cleaned(&outcome.message));
    }
    if ["waiting", "preview", "rejected"].contains(&plan.state.as_str()) {
        let hash = plan.hash.get(..12).unwrap_or(&plan.hash);
        let _ = writeln!(
            text,
            "fleet plan approve {} --hash {hash}   void if a listed snapshot changes",
            plan.id
        );
    }
    // Line breaks are ours; nothing else may move the cursor.
    text.lines().map(|line| cleaned(line) + "\n").collect()
}

/// Whether the snapshots of a plan's document give the hash that an approval names. One without a document shows none.
#[must_use]
pub fn has_its_hash(plan: &Plan) -> bool {
    if plan.document.is_empty() {
        return true;
    }
    let document = serde_json::from_str::<PlanLine>(&plan.document).ok();
    document.is_some_and(|PlanLine { plan: document }| {
        let removed = document.remove.iter().map(|removal| removal.id.as_str());
        document.restic_id == plan.restic_id && plan_hash(&plan.restic_id, removed) == plan.hash
    })
}

fn head(plan: &Plan, outcome: &OperationOutcome, now: Timestamp) -> String {
    let state = match plan.state.as_str() {
        "waiting" => "NEEDS APPROVAL".to_owned(),
        state => state.to_uppercase(),
    };
    let mut text = format!(
        "{state}  {} · {} · {} · {}\n",
        cleaned(&name(&plan.repository, &plan.restic_id)),
        counted(outcome.policies.len() as u64, "policy", "policies"),
        plan.hash.get(..12).unwrap_or(&plan.hash),
        ago(plan.made.as_ref(), now)
    );
    let _ = writeln!(
        text,
        "made by   {} {}",
        cleaned(&plan.cluster),
        cleaned(&plan.subject)
    );
    if !plan.decided_by.is_empty() {
        let when = ago(plan.decided.as_ref(), now);
        let _ = writeln!(text, "decided   by {} {when}", cleaned(&plan.decided_by));
    }
    text
}

fn body(text: &mut String, plan: &PlanDocument, wide: bool, most: usize) {
    let (goes, all) = (plan.remove.len(), plan.snapshots);
    let _ = writeln!(
        text,
        "removes   {goes} of {}, {} stay{}",
        counted(all as u64, "snapshot", "snapshots"),
        all.saturating_sub(goes),
        if plan.preview {
            "; a preview: nothing is removed by this run"
        } else {
            ""
        }
    );
    let waits = plan
        .guards
        .iter()
        .map(|guard| format!("{}: {}", guard.reason, guard.message));
    listed(text, "waits", waits.collect(), most);
    groups(text, &plan.groups, most);
    removals(text, &plan.remove, wide, most);
    if !plan.previewed.is_empty() {
        text.push_str("from the next run of policies in preview:\n");
        removals(text, &plan.previewed, wide, most);
    }
    let keeps = plan.keepers.iter().map(|keeper| {
        let count = counted(keeper.snapshots as u64, "snapshot", "snapshots");
        format!("{} keeps {count} that another policy would remove", keeper.source)
    });
    listed(text, "kept", keeps.collect(), most);
    let stays = plan.out_of_reach.iter().map(|part| {
        let count = counted(part.snapshots as u64, "snapshot", "snapshots");
        format!("{count} of {}", part.words())
    });
    listed(text, "stays", stays.collect(), most);
    faults(text, &plan.faults, most);
    let unmatched = plan
        .unmatched
        .iter()
        .map(|source| format!("{source} matches no snapshot"));
    listed(text, "unused", unmatched.collect(), most);
    let policies = plan.policies.iter().map(|policy| {
        let state = match (policy.preview, policy.suspended) {
            (_, true) => ", suspended",
            (true, _) => ", in preview",
            _ => "",
        };
        format!("{} generation {}{state}", policy.source, policy.generation)
    });
    listed(text, "policies", policies.collect(), most);
    if plan.shortened {
        text.push_str("the plan was too long to be kept whole: ids are complete, descriptions are not\n");
    }
}

/// What the row alone knows.
fn without_document(text: &mut String, plan: &Plan, outcome: &OperationOutcome) {
    let _ = writeln!(
        text,
        "removes   {} of {} snapshots",
        outcome.planned, outcome.snapshots
    );
    faults(text, &outcome.faults, usize::MAX);
    listed(text, "policies", outcome.policies.clone(), usize::MAX);
    let why = match plan.document_missing.as_str() {
        "" => "the list of snapshots cannot be read by this version of fleet",
        why => why,
    };
    let _ = writeln!(text, "snapshots {}", cleaned(why));
}

fn faults(text: &mut String, faults: &[PolicyFault], most: usize) {
    let lines = faults.iter().map(|fault| {
        format!(
            "{}: {}; all that it could match is kept",
            fault.source, fault.text
        )
    });
    listed(text, "faults", lines.collect(), most);
}

/// Lines under one heading, which stands before the first of them.
fn listed(text: &mut String, word: &str, lines: Vec<String>, most: usize) {
    for (n, line) in lines.iter().take(most).enumerate() {
        let word = if n == 0 { word } else { "" };
        let _ = writeln!(text, "{word:<10}{}", cleaned(line));
    }
    more(text, lines.len(), most);
}

fn more(text: &mut String, count: usize, most: usize) {
    if count > most {
        let _ = writeln!(text, "{:10}and {} more: -o wide", "", count - most);
    }
}

fn groups(text: &mut String, groups: &[Group], most: usize) {
    let mut lines = vec![heading(&["CLUSTER", "GROUP", "KEEP", "REMOVE", "OLDEST"])];
    lines.extend(groups.iter().take(most).map(|group| {
        vec![
            tagged(&group.tags, "fleet.cluster=").unwrap_or("-").to_owned(),
            tagged(&group.tags, "fleet.backup=")
                .unwrap_or(&group.host)
                .to_owned(),
            group.keep.to_string(),
            group.remove.to_string(),
            day(group.oldest.as_deref().unwrap_or_default()),
        ]
    }));
    if lines.len() > 1 {
        text.push_str(&align(&lines));
        more(text, groups.len(), most);
    }
}

/// Each snapshot that goes, the oldest first.
fn removals(text: &mut String, removals: &[Removal], wide: bool, most: usize) {
    let mut lines = vec![if wide {
        heading(&["SNAPSHOT", "TIME", "HOST", "PATHS", "TAGS", "BY"])
    } else {
        heading(&["SNAPSHOT", "TIME", "CLUSTER", "BACKUP", "BY"])
    }];
    lines.extend(removals.iter().take(most).map(|removal| {
        let mut cells = if wide {
            vec![removal.id.clone(), seconds(&removal.time)]
        } else {
            vec![short(&removal.id).to_owned(), seconds(&removal.time)]
        };
        if wide {
            cells.extend([
                removal.host.clone(),
                removal.paths.join(","),
                removal.tags.join(","),
            ]);
        } else {
            let of = tagged(&removal.tags, "fleet.cluster=").unwrap_or("-");
            let backup = tagged(&removal.tags, "fleet.backup=").unwrap_or(&removal.host);
            cells.extend([of.to_owned(), backup.to_owned()]);
        }
        cells.push(removal.by.join(","));
        cells.into_iter().map(dash).collect()
    }));
    if lines.len() > 1 {
        text.push_str(&align(&lines));
        more(text, removals.len(), most);
    }
}

fn tagged<'a>(tags: &'a [String], prefix: &str) -> Option<&'a str> {
    tags.iter().find_map(|tag| tag.strip_prefix(prefix))
}

fn day(time: &str) -> String {
    time.get(..10).unwrap_or("-").to_owned()
}

/// Without fractions of a second.
fn seconds(time: &str) -> String {
    time.get(..19).map_or_else(String::new, |time| format!("{time}Z"))
}

fn dash(text: String) -> String {
    if text.is_empty() { "-".to_owned() } else { text }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
#[path = "plan_tests.rs"]
mod tests;
