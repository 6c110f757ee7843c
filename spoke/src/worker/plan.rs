//! One plan out of the policies of all clusters. Pure. A snapshot is removed only if every rule that matches it has
//! restic's own verdict "remove", and at least one of these rules may remove it. No verdict means that something could
//! not be read, and then there is no plan.

use std::collections::{BTreeMap, HashMap, HashSet};

use proto::plan::{self as document, Keeper, OutOfReach, PlanDocument, PlanPolicy, Removal, plan_hash};
use proto::v1::{PolicyFault, RetentionPolicySpec, RetentionRun};

use super::guard::{Guard, Parts};
use super::select::{self, matches, matches_all};
use super::votes::{Voter, complete, fate, voters};
use crate::restic::Snapshot;

pub use super::votes::{Broken, Decision, RuleVerdict};

/// What to do about a plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    Nothing,
    /// A policy that cannot be understood, or evaluated, could keep every snapshot.
    Stopped,
    Preview,
    /// A person has to approve.
    Wait,
    /// A person has approved another plan.
    Changed,
    Apply,
}

/// The plan.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    pub document: PlanDocument,
    pub guards: Vec<Guard>,
    /// Snapshots that would be removed, were it not for a policy in `document.faults`.
    pub blocked: usize,
    /// Policy, among those in `document.faults`, that could keep every snapshot.
    pub stopped_by: Option<PolicyFault>,
    /// Policies in preview of which removals are shown, in the order of the run.
    pub shown: Vec<String>,
    /// Ids of the snapshots that stay.
    pub staying: Vec<String>,
    /// Of each policy.
    pub matched: Vec<Matched>,
}

/// What the rules of a policy match.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Matched {
    pub source: String,
    pub present: usize,
    /// Of these, how many the plan removes, whichever policy does.
    pub going: usize,
}

impl Plan {
    /// What to do.
    #[must_use]
    pub fn action(&self, approved: &str) -> Action {
        let plan = &self.document;
        match (plan.remove.is_empty(), self.guards.is_empty()) {
            (true, _) if self.blocked > 0 && self.stopped_by.is_some() => Action::Stopped,
            (true, _) => Action::Nothing,
            _ if !approved.is_empty() && approved == plan.hash => Action::Apply,
            _ if !approved.is_empty() => Action::Changed,
            _ if plan.preview => Action::Preview,
            (_, false) => Action::Wait,
            (_, true) => Action::Apply,
        }
    }

    /// Ids that are removed.
    pub fn ids(&self) -> impl Iterator<Item = &str> {
        self.document.remove.iter().map(|r| r.id.as_str())
    }
}

/// Makes the plan. `snapshots` is one whole listing; `verdicts` has one entry for each rule of each policy, in order,
/// and none for policies whose standing is [`Standing::Unclear`].
///
/// # Errors
/// When a verdict is missing or does not fit the listing.
pub fn make(
    run: &RetentionRun,
    snapshots: &[Snapshot],
    verdicts: &[Vec<RuleVerdict>],
) -> Result<Plan, Broken> {
    let voters = voters(run, verdicts)?;
    for voter in &voters {
        complete(voter, snapshots)?;
    }
    let mut plan = Plan::default();
    plan.document.restic_id.clone_from(&run.restic_id);
    plan.document.snapshots = snapshots.len();
    plan.document.policies = run.policies.iter().map(policy).collect();
    plan.document.faults = faults(run, verdicts);
    plan.document.unmatched = unmatched(run, &voters, snapshots);
    plan.stopped_by = stopped_by(&plan.document.faults, &voters, run);
    let mut keepers: BTreeMap<&str, usize> = BTreeMap::new();
    let mut unreached: BTreeMap<(&str, &str), usize> = BTreeMap::new();
    let (mut now, mut shown) = (Vec::new(), Vec::new());
    for snapshot in snapshots {
        let fate = fate(run, &voters, snapshot);
        if !fate.wanted {
            continue;
        }
        if !fate.keepers.is_empty() {
            plan.document.kept_by_others += 1;
            for keeper in fate.keepers {
                *keepers.entry(keeper).or_default() += 1;
            }
        } else if !fate.blockers.is_empty() {
            plan.blocked += 1;
        } else if !fate.now.is_empty() {
            now.push((snapshot, fate.now));
        } else if !fate.shown.is_empty() {
            shown.push((snapshot, fate.shown));
        } else {
            for owner in owners(run, snapshot) {
                *unreached.entry(owner).or_default() += 1;
            }
        }
    }
    plan.document.keepers = keepers.into_iter().map(keeper).collect();
    plan.document.out_of_reach = unreached.into_iter().map(out_of_reach).collect();
    decide(run, snapshots, &mut plan, now, shown);
    let going: HashSet<&str> = plan.document.remove.iter().map(|r| r.id.as_str()).collect();
    plan.matched = run
        .policies
        .iter()
        .map(|policy| matched(policy, snapshots, &going))
        .collect();
    Ok(plan)
}

/// A policy that keeps snapshots which others would remove, and how many.
fn keeper((source, snapshots): (&str, usize)) -> Keeper {
    Keeper {
        source: source.to_owned(),
        snapshots,
    }
}

/// A cluster (name and uid) whose snapshots no policy of the run may remove, and how many.
fn out_of_reach(((cluster, uid), snapshots): ((&str, &str), usize)) -> OutOfReach {
    OutOfReach {
        cluster: cluster.to_owned(),
        uid: uid.to_owned(),
        snapshots,
    }
}

fn matched(policy: &RetentionPolicySpec, snapshots: &[Snapshot], going: &HashSet<&str>) -> Matched {
    let is = |snapshot: &&Snapshot| policy.rules.iter().any(|rule| matches(rule, snapshot));
    let mut matched = Matched {
        source: policy.source.clone(),
        ..Matched::default()
    };
    for snapshot in snapshots.iter().filter(is) {
        matched.present += 1;
        matched.going += usize::from(going.contains(snapshot.id.as_str()));
    }
    matched
}

type Goes<'a> = Vec<(&'a Snapshot, Vec<&'a RetentionPolicySpec>)>;

/// Lists, hash and guards, once it is known what may be removed now and what is only shown.
fn decide<'a>(
    run: &RetentionRun,
    snapshots: &'a [Snapshot],
    plan: &mut Plan,
    mut now: Goes<'a>,
    mut shown: Goes<'a>,
) {
    let named = |policy: &RetentionPolicySpec| {
        shown
            .iter()
            .any(|(_, by)| by.iter().any(|p| p.source == policy.source))
    };
    let in_preview = run.policies.iter().filter(|policy| named(policy));
    plan.shown = in_preview
        .map(|policy| format!("{}#{}", policy.source, policy.fingerprint))
        .collect();
    // A person who approves a preview approves all that it showed.
    let all = now.iter().chain(&shown).map(|(snapshot, _)| snapshot.id.as_str());
    if !run.approved.is_empty() && run.approved == plan_hash(&run.restic_id, all) {
        now.append(&mut shown);
    }
    let preview = now.is_empty() && !shown.is_empty();
    let (remove, previewed) = if preview { (shown, now) } else { (now, shown) };
    let percents = remove.iter().map(|(snapshot, by)| {
        let allowed = by.iter().map(|policy| policy.max_removed_percent).min();
        (snapshot.id.as_str(), allowed.unwrap_or_default())
    });
    let parts = Parts::count(snapshots, &percents.collect());
    plan.guards = parts.guards(run);
    let document = &mut plan.document;
    document.preview = preview;
    document.remove = removals(remove);
    document.previewed = removals(previewed);
    document.hash = plan_hash(&run.restic_id, document.remove.iter().map(|r| r.id.as_str()));
    document.groups = groups(snapshots, &document.remove);
    document.guards = plan.guards.iter().map(Guard::document).collect();
    document.left = parts.left();
    let going: HashSet<&str> = document.remove.iter().map(|r| r.id.as_str()).collect();
    let staying = snapshots.iter().filter(|s| !going.contains(s.id.as_str()));
    plan.staying = staying.map(|s| s.id.clone()).collect();
}

/// Clusters of a snapshot that is out of reach: name, and uid where the name is that of another cluster.
fn owners<'a>(run: &RetentionRun, snapshot: &'a Snapshot) -> Vec<(&'a str, &'a str)> {
    let owners = select::clusters(snapshot);
    if owners.is_empty() {
        return vec![("", "")];
    }
    let uid = |cluster: &'a str| select::foreign_uid(run, snapshot, cluster).unwrap_or_default();
    owners
        .into_iter()
        .map(|cluster| (cluster, uid(cluster)))
        .collect()
}

fn policy(spec: &RetentionPolicySpec) -> PlanPolicy {
    PlanPolicy {
        source: spec.source.clone(),
        generation: spec.generation,
        preview: spec.preview && !spec.suspended,
        suspended: spec.suspended,
    }
}

fn faults(run: &RetentionRun, verdicts: &[Vec<RuleVerdict>]) -> Vec<PolicyFault> {
    let fault = |(at, policy): (usize, &RetentionPolicySpec)| {
        let refused = || {
            verdicts.get(at)?.iter().find_map(|verdict| match verdict {
                RuleVerdict::Refused(why) => Some(why.clone()),
                RuleVerdict::Decided(_) => None,
            })
        };
        let text = select::why_unclear(policy).or_else(refused)?;
        Some(PolicyFault {
            source: policy.source.clone(),
            text,
        })
    };
    run.policies.iter().enumerate().filter_map(fault).collect()
}

fn stopped_by(faults: &[PolicyFault], voters: &[Voter<'_>], run: &RetentionRun) -> Option<PolicyFault> {
    let could_keep_all = |source: &String| {
        let blind = run
            .policies
            .iter()
            .any(|p| p.source == *source && p.rules.is_empty());
        let mut of_policy = voters.iter().filter(|voter| voter.policy.source == *source);
        blind || of_policy.any(|voter| voter.decision.is_none() && matches_all(voter.rule))
    };
    faults.iter().find(|fault| could_keep_all(&fault.source)).cloned()
}

/// Policies of which no rule matches anything. A selector that is not known as a whole is none of them.
fn unmatched(run: &RetentionRun, voters: &[Voter<'_>], snapshots: &[Snapshot]) -> Vec<String> {
    let matched: HashSet<&str> = voters
        .iter()
        .filter(|voter| snapshots.iter().any(|snapshot| matches(voter.rule, snapshot)))
        .map(|voter| voter.policy.source.as_str())
        .collect();
    let policies = run.policies.iter().filter(|p| !p.rules.is_empty());
    let unmatched = policies.filter(|p| !matched.contains(p.source.as_str()));
    unmatched.map(|policy| policy.source.clone()).collect()
}

fn removals(goes: Goes<'_>) -> Vec<Removal> {
    let removal = |(snapshot, by): (&Snapshot, Vec<&RetentionPolicySpec>)| Removal {
        id: snapshot.id.clone(),
        time: snapshot.time.to_string(),
        host: snapshot.hostname.clone(),
        tags: snapshot.tags.clone(),
        paths: snapshot.paths.clone(),
        by: by.iter().map(|policy| policy.source.clone()).collect(),
    };
    let mut removals: Vec<Removal> = goes.into_iter().map(removal).collect();
    removals.sort_by(|a, b| (&a.time, &a.id).cmp(&(&b.time, &b.id)));
    removals
}

/// Groups that lose snapshots.
fn groups(snapshots: &[Snapshot], remove: &[Removal]) -> Vec<document::Group> {
    let going: HashMap<&str, &str> = remove.iter().map(|r| (r.id.as_str(), r.time.as_str())).collect();
    let mut groups: BTreeMap<(String, Vec<String>, Vec<String>), document::Group> = BTreeMap::new();
    for snapshot in snapshots {
        let sorted = |list: &[String]| {
            let mut list = list.to_vec();
            list.sort();
            list
        };
        let (paths, tags) = (sorted(&snapshot.paths), sorted(&snapshot.tags));
        let key = (snapshot.hostname.clone(), paths.clone(), tags.clone());
        let group = groups.entry(key).or_insert_with(|| document::Group {
            host: snapshot.hostname.clone(),
            paths,
            tags,
            ..document::Group::default()
        });
        match going.get(snapshot.id.as_str()) {
            None => group.keep += 1,
            Some(&time) => {
                group.remove += 1;
                let older = group.oldest.as_deref().is_none_or(|oldest| time < oldest);
                if older {
                    group.oldest = Some(time.to_owned());
                }
            }
        }
    }
    groups.into_values().filter(|group| group.remove > 0).collect()
}

#[cfg(test)]
#[path = "plan_tests/mod.rs"]
mod tests;
