//! One plan out of the policies of all clusters. Pure. A snapshot goes only if some policy removes it and none keeps
//! it. What a policy keeps of a snapshot is restic's own decision (`forget --dry-run`); here is only their union, and
//! what makes a plan wait for a person.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use proto::v1::{RetentionPolicySpec, RetentionRun};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::restic::Snapshot;

/// What `restic forget --dry-run` decided for one rule.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Decision {
    /// Full ids.
    pub keep: Vec<String>,
    pub remove: Vec<String>,
}

/// Snapshots of one backup with one set of tags.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Group {
    pub host: String,
    pub paths: Vec<String>,
    pub tags: Vec<String>,
    pub keep: usize,
    pub remove: usize,
    /// Time of the oldest snapshot that goes.
    pub oldest: Option<String>,
}

/// A snapshot that goes, as people recognise it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Removal {
    pub id: String,
    pub time: String,
    pub host: String,
    pub tags: Vec<String>,
    pub paths: Vec<String>,
    /// Policies that remove it.
    pub by: Vec<String>,
}

/// Why a plan has to wait.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error, Serialize)]
pub enum Guard {
    #[error(
        "it removes {removed} of {all} snapshots, {percent}%, and spec.guard.maxRemovedPercent allows {allowed}%"
    )]
    TooMuch {
        removed: usize,
        all: usize,
        percent: usize,
        allowed: u32,
    },
    #[error("it removes the last snapshot of {0}")]
    LastOfGroup(String),
}

/// The plan.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Plan {
    /// Of the full ids that go.
    pub hash: String,
    pub snapshots: usize,
    pub remove: Vec<Removal>,
    /// Nothing goes: these are first runs, which only show.
    pub preview: bool,
    /// What first runs would remove, while others of this plan go now.
    pub previewed: Vec<Removal>,
    /// Snapshots that some policy removes and another keeps.
    pub kept_by_others: usize,
    /// Policies whose selectors match nothing.
    pub unmatched: Vec<String>,
    /// Clusters that nobody here knows, or whose policy is not understood, and how many of their snapshots would go otherwise.
    pub unknown_clusters: BTreeMap<String, usize>,
    pub groups: Vec<Group>,
    pub guard: Option<Guard>,
}

/// What to do about a plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Verdict {
    Nothing,
    Preview,
    /// A person has to approve.
    Wait,
    /// A person has approved another plan.
    Changed,
    Apply,
}

impl Plan {
    /// What to do.
    #[must_use]
    pub fn verdict(&self, approved: &str) -> Verdict {
        let matches = !approved.is_empty() && approved == self.hash;
        match (self.remove.is_empty(), &self.guard) {
            (true, _) => Verdict::Nothing,
            _ if matches => Verdict::Apply,
            _ if !approved.is_empty() => Verdict::Changed,
            _ if self.preview => Verdict::Preview,
            (_, Some(_)) => Verdict::Wait,
            (_, None) => Verdict::Apply,
        }
    }

    /// Ids that go.
    pub fn ids(&self) -> impl Iterator<Item = &str> {
        self.remove.iter().map(|r| r.id.as_str())
    }
}

/// Makes the plan. `decisions` has one entry for each rule of each policy, in order.
#[must_use]
pub fn make(run: &RetentionRun, snapshots: &[Snapshot], decisions: &[Vec<Decision>]) -> Plan {
    let policies = || run.policies.iter().zip(decisions);
    let mut kept: HashSet<&str> = HashSet::new();
    let mut removed_by: HashMap<&str, Vec<&RetentionPolicySpec>> = HashMap::new();
    let mut plan = Plan {
        snapshots: snapshots.len(),
        ..Plan::default()
    };
    for (policy, decisions) in policies() {
        let mut matched = false;
        for decision in decisions {
            matched |= !decision.keep.is_empty() || !decision.remove.is_empty();
            kept.extend(decision.keep.iter().map(String::as_str));
            for id in &decision.remove {
                let by = removed_by.entry(id).or_default();
                if !by.iter().any(|known| known.source == policy.source) {
                    by.push(policy);
                }
            }
        }
        if !matched {
            plan.unmatched.push(policy.source.clone());
        }
    }
    let known = known_clusters(run);
    // A policy without a rule is one that could not be understood: what it wants kept is not known.
    let unclear: HashSet<&str> = run
        .policies
        .iter()
        .filter(|policy| policy.rules.is_empty())
        .filter_map(|policy| policy.source.split('/').next())
        .collect();
    let (mut now, mut shown) = (Vec::new(), Vec::new());
    for snapshot in snapshots {
        let Some(by) = removed_by.get(snapshot.id.as_str()) else {
            continue;
        };
        if kept.contains(snapshot.id.as_str()) {
            plan.kept_by_others += 1;
            continue;
        }
        let cluster = snapshot
            .tags
            .iter()
            .find_map(|t| t.strip_prefix("fleet.cluster="));
        if let Some(cluster) = cluster.filter(|c| !known.contains(*c) || unclear.contains(*c)) {
            *plan.unknown_clusters.entry(cluster.to_owned()).or_default() += 1;
            continue;
        }
        let removal = Removal {
            id: snapshot.id.clone(),
            time: snapshot.time.to_string(),
            host: snapshot.hostname.clone(),
            tags: snapshot.tags.clone(),
            paths: snapshot.paths.clone(),
            by: by.iter().map(|p| p.source.clone()).collect(),
        };
        if by.iter().any(|policy| !policy.preview) {
            now.push(removal);
        } else {
            shown.push(removal);
        }
    }
    // A person who approves a preview approves all that it showed.
    let all = hash(&run.restic_id, now.iter().chain(&shown).map(|r| r.id.as_str()));
    if !run.approved.is_empty() && run.approved == all {
        now.append(&mut shown);
    }
    plan.preview = now.is_empty() && !shown.is_empty();
    (plan.remove, plan.previewed) = if plan.preview { (shown, now) } else { (now, shown) };
    plan.remove
        .sort_by(|a, b| (&a.time, &a.id).cmp(&(&b.time, &b.id)));
    plan.hash = hash(&run.restic_id, plan.ids());
    plan.groups = groups(snapshots, &plan);
    plan.guard = guard(run, &plan);
    plan
}

/// Clusters that whoever grants knows, and those that a policy names itself.
fn known_clusters(run: &RetentionRun) -> HashSet<&str> {
    let rules = run.policies.iter().flat_map(|p| &p.rules);
    let named = rules
        .flat_map(|r| &r.tags)
        .filter_map(|tag| tag.strip_prefix("fleet.cluster="));
    run.clusters.iter().map(String::as_str).chain(named).collect()
}

/// Hash of the snapshots that go: it changes when any of them does, and not when others come.
fn hash<'a>(restic_id: &str, ids: impl Iterator<Item = &'a str>) -> String {
    let ids: BTreeSet<&str> = ids.collect();
    let mut digest = Sha256::new();
    digest.update(restic_id.as_bytes());
    for id in ids {
        digest.update(b"\n");
        digest.update(id.as_bytes());
    }
    hex::encode(digest.finalize())
}

fn groups(snapshots: &[Snapshot], plan: &Plan) -> Vec<Group> {
    let going: HashSet<&str> = plan.ids().collect();
    let mut groups: BTreeMap<(String, Vec<String>, Vec<String>), Group> = BTreeMap::new();
    for snapshot in snapshots {
        let sorted = |list: &[String]| {
            let mut list = list.to_vec();
            list.sort();
            list
        };
        let (paths, tags) = (sorted(&snapshot.paths), sorted(&snapshot.tags));
        let key = (snapshot.hostname.clone(), paths.clone(), tags.clone());
        let group = groups.entry(key).or_insert_with(|| Group {
            host: snapshot.hostname.clone(),
            paths,
            tags,
            keep: 0,
            remove: 0,
            oldest: None,
        });
        if going.contains(snapshot.id.as_str()) {
            group.remove += 1;
            let time = snapshot.time.to_string();
            group.oldest = Some(
                group
                    .oldest
                    .take()
                    .map_or(time.clone(), |oldest| oldest.min(time)),
            );
        } else {
            group.keep += 1;
        }
    }
    groups.into_values().filter(|group| group.remove > 0).collect()
}

fn guard(run: &RetentionRun, plan: &Plan) -> Option<Guard> {
    if let Some(group) = plan.groups.iter().find(|group| group.keep == 0) {
        let of = format!("host {} with paths {}", group.host, group.paths.join(", "));
        return Some(Guard::LastOfGroup(of));
    }
    let takes_part = |p: &&RetentionPolicySpec| plan.preview || !p.preview;
    let allowed = run
        .policies
        .iter()
        .filter(takes_part)
        .map(|p| p.max_removed_percent)
        .min()?;
    let (removed, all) = (plan.remove.len(), plan.snapshots.max(1));
    // In whole per cent, rounded up: a guard of 0 lets nothing through.
    let percent = (removed * 100).div_ceil(all);
    (percent > allowed as usize).then_some(Guard::TooMuch {
        removed,
        all,
        percent,
        allowed,
    })
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
