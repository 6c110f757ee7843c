//! What a granted operation is to do: the policies of all clusters that are bound to one physical repository. Pure.

use std::collections::{BTreeMap, BTreeSet};

use crds::rules::{PLAIN_VERSION, RULES_VERSION, Rule};
use proto::hold::{SUSPICIOUS, hold};
use proto::order::{RUN_MAX, order_text};
use proto::plan::PlanDocument;
use proto::v1::{Baseline, ClusterUid, RetentionPolicySpec, RetentionRule, RetentionRun};

use crate::copies;
use crate::inventory::{Held, Inventory, Member};
use crate::store::History;

/// Policies of one cluster for one repository, those of its backups included. One that has more stops the repository's runs,
/// with a text that names it.
const PER_CLUSTER: usize = 256;

/// The run as of now. Policies of clusters that are away take part as they were last known: what they keep stays kept.
/// Only bound clusters that use the repository and are known as a whole are in `clusters`: snapshots of others stay.
#[must_use]
pub fn compose(inventory: &Inventory, history: &History, restic_id: &str, approved: &str) -> RetentionRun {
    let known = inventory.policies_of(restic_id).filter_map(|held| spec(held));
    let undecided = inventory.undecided_policies(restic_id).filter_map(|held| {
        let text = "its repository is not known at the moment, so it may be this one";
        Some(unclear(spec(held)?, text))
    });
    let vanished = inventory.vanished_policies(restic_id).filter_map(|held| {
        let watched = |member: &Member| member.watches(held.namespace());
        let text = if inventory.member(&held.cluster).is_none_or(watched) {
            "it is missing from what its cluster tells, without having been deleted"
        } else {
            "the operator of its cluster does not watch its namespace any more (--namespaces)"
        };
        Some(unclear(spec(held)?, text))
    });
    // Holds are no policies: their number says nothing about a cluster's policies.
    let mut policies = bounded(known.chain(undecided).chain(vanished));
    policies.extend(holds(inventory, restic_id));
    policies.sort_by(|a, b| a.source.cmp(&b.source).then_with(|| a.uid.cmp(&b.uid)));
    let members: Vec<_> = inventory.whole_clusters(restic_id).collect();
    let clusters: Vec<String> = members.iter().map(|member| member.name.to_string()).collect();
    let uids = members
        .iter()
        .filter(|member| !member.facts.cluster_uid.is_empty());
    // Before the first applied run there is nothing to compare with, and the policies' own previews show everything.
    let new = clusters.iter().filter(|cluster| {
        !history.participants.is_empty() && !history.participants.contains(cluster.as_str())
    });
    RetentionRun {
        // As its pod knows it.
        restic_id: copies::restic_id(restic_id).to_owned(),
        policies,
        damage: damage(inventory, history, restic_id),
        // A successor of a run that failed still asks for what a person has rejected meanwhile.
        approved: if history.rejected.contains(approved) {
            String::new()
        } else {
            approved.to_owned()
        },
        new_clusters: new.cloned().collect(),
        baseline: history
            .baseline
            .iter()
            .map(|(key, left)| Baseline {
                key: key.clone(),
                left: *left,
            })
            .collect(),
        cluster_uids: uids
            .map(|member| ClusterUid {
                cluster: member.name.to_string(),
                uid: member.facts.cluster_uid.clone(),
            })
            .collect(),
        clusters,
    }
}

/// Why nothing may be removed; empty if there is no damage. The end of a check overtakes the state of its repository.
fn damage(inventory: &Inventory, history: &History, restic_id: &str) -> String {
    if let Some((place, text)) = inventory.damage_of(restic_id) {
        return format!("ResticRepository {place}: {text}");
    }
    // A resource that was deleted leaves nothing behind.
    let counts = |cluster: &str, owner: &str| {
        let exists = |member: &Member| member.objects.contains_key(owner);
        inventory.bindings().is_bound(cluster, restic_id) && inventory.member(cluster).is_some_and(exists)
    };
    let mut reported = history.damage.iter();
    let found = reported.find(|(cluster, owner, _)| counts(cluster, owner));
    found.map_or_else(String::new, |(_, _, text)| text.clone())
}

/// Snapshots of suspicious backups stay: those of all clusters that are bound to the repository.
fn holds(inventory: &Inventory, restic_id: &str) -> Vec<RetentionPolicySpec> {
    let suspicious = inventory.suspicious_backups(restic_id);
    let hold = suspicious.map(|held| {
        hold(
            &held.cluster,
            held.local_name(),
            &held.uid,
            SUSPICIOUS,
            PLAIN_VERSION,
        )
    });
    hold.collect()
}

/// The policies. A cluster with too many of them has one in their place that keeps everything.
fn bounded(specs: impl Iterator<Item = RetentionPolicySpec>) -> Vec<RetentionPolicySpec> {
    let mut by_cluster: BTreeMap<String, Vec<RetentionPolicySpec>> = BTreeMap::new();
    for spec in specs {
        let cluster = spec.source.split('/').next().unwrap_or_default().to_owned();
        by_cluster.entry(cluster).or_default().push(spec);
    }
    let mut policies: Vec<RetentionPolicySpec> = Vec::new();
    for (cluster, specs) in by_cluster {
        if specs.len() <= PER_CLUSTER {
            policies.extend(specs);
        } else {
            // Without any selector it keeps everything.
            policies.push(RetentionPolicySpec {
                source: format!("{cluster}/-/-"),
                unclear: format!(
                    "cluster {cluster} has more than {PER_CLUSTER} policies for this repository"
                ),
                ..RetentionPolicySpec::default()
            });
        }
    }
    policies
}

/// Why a run cannot be handed to a pod.
#[must_use]
pub fn too_long(run: &RetentionRun) -> Option<String> {
    let length = match order_text(run) {
        Ok(text) => text.len(),
        Err(error) => return Some(format!("the run of this repository cannot be written: {error}")),
    };
    (length > RUN_MAX).then(|| {
        format!(
            "the {} policies of {} clusters for this repository, with the figures of {} groups of snapshots, make an \
             order of {} KiB, and a pod can be given {} KiB; remove or shorten policies",
            run.policies.len(),
            run.clusters.len(),
            run.baseline.len(),
            length >> 10,
            RUN_MAX >> 10
        )
    })
}

fn spec(held: &Held) -> Option<RetentionPolicySpec> {
    let policy = held.policy()?;
    let mut spec = policy.spec.clone().unwrap_or_default();
    spec.source = held.place.to_string();
    spec.uid = held.uid.to_string();
    spec.generation = held.generation;
    spec.suspended |= policy.suspended;
    if policy.spec.is_none() {
        let why = held.ready_condition().map(|condition| condition.message.clone());
        let why = why.filter(|why| !why.is_empty());
        return Some(unclear(
            spec,
            &why.unwrap_or_else(|| "its cluster cannot read its rules".to_owned()),
        ));
    }
    Some(match problem(&spec) {
        Some(problem) => unclear(spec, &problem),
        None => spec,
    })
}

/// Why the rules of a spoke cannot be used; the same parser as the spoke's own.
fn problem(spec: &RetentionPolicySpec) -> Option<String> {
    if spec.rules_version > RULES_VERSION {
        return Some(format!(
            "its rules are of version {}, and this hub understands version {RULES_VERSION}; update the hub",
            spec.rules_version
        ));
    }
    if !spec.unclear.is_empty() {
        return None;
    }
    if spec.rules.is_empty() {
        return Some("it has no rules".to_owned());
    }
    let checks = spec.rules.iter().map(|rule| rule_of(rule).check());
    checks
        .filter_map(Result::err)
        .map(|error| error.to_string())
        .next()
}

fn rule_of(rule: &RetentionRule) -> Rule<'_> {
    Rule {
        tags: &rule.tags,
        hostname: &rule.hostname,
        counts: rule.counts().map(i64::from),
        spans: rule.spans(),
        keep_tags: &rule.keep_tags,
        group_by: &rule.group_by,
    }
}

/// A policy whose rules cannot be used: all that it could match is kept.
fn unclear(mut spec: RetentionPolicySpec, why: &str) -> RetentionPolicySpec {
    if spec.unclear.is_empty() {
        why.clone_into(&mut spec.unclear);
    }
    // Selectors of a later version may mean something else.
    if spec.rules_version > RULES_VERSION {
        spec.rules.clear();
        // Otherwise a reader would refuse it for its version, with another text.
        spec.rules_version = RULES_VERSION;
    }
    for rule in &mut spec.rules {
        let (tags, hostname) = rule_of(rule).usable_selector();
        *rule = RetentionRule {
            tags,
            hostname,
            ..RetentionRule::default()
        };
    }
    spec
}

/// `<cluster>/<namespace>/<name>@<generation>` of each policy of a run.
#[must_use]
pub fn names(run: &RetentionRun) -> Vec<String> {
    run.policies.iter().map(name).collect()
}

fn name(spec: &RetentionPolicySpec) -> String {
    format!("{}@{}", spec.source, spec.generation)
}

/// Whether a run that a policy took part in spares it one of its own. `policies` are the names of those that took part, and
/// `shows` the policies that the run's plan removes something for, `None` if that is not known. A policy whose preview is due has
/// to show what it would remove in a run of its own: as a part of another's run it would never leave its preview.
#[must_use]
pub fn spares(held: &Held, policies: &[String], shows: Option<&BTreeSet<String>>) -> bool {
    let Some(spec) = spec(held) else {
        return false;
    };
    let previewed = !spec.preview || shows.is_some_and(|shows| !shows.contains(&spec.source));
    previewed && policies.contains(&name(&spec))
}

/// The policies that a plan removes something for, now or after their preview. `None` if it does not have all of them.
#[must_use]
pub fn shows(result: &str, plan: Option<&PlanDocument>) -> Option<BTreeSet<String>> {
    match plan {
        None => (result == "NothingToRemove").then(BTreeSet::new),
        Some(plan) => {
            let removals = || plan.remove.iter().chain(&plan.previewed);
            let whole = !plan.shortened && removals().all(|removal| !removal.by.is_empty());
            whole.then(|| removals().flat_map(|removal| removal.by.clone()).collect())
        }
    }
}

/// Whether an outcome spares policies that took part a run of their own. A preview does, except for those whose own is due:
/// see [`spares`].
#[must_use]
pub fn is_conclusive(result: &str) -> bool {
    ["Applied", "NothingToRemove", "Preview", "ApprovalRequired"].contains(&result)
}

/// Places of the policies that a run with this result has carried out; `None` if it has carried out nothing. Those that are
/// suspended, in preview or unclear only keep.
#[must_use]
pub fn carried(run: &RetentionRun, result: &str) -> Option<BTreeSet<String>> {
    let in_force =
        |policy: &&RetentionPolicySpec| !policy.suspended && !policy.preview && policy.unclear.is_empty();
    let carried = run
        .policies
        .iter()
        .filter(in_force)
        .map(|policy| policy.source.clone());
    ["Applied", "NothingToRemove"]
        .contains(&result)
        .then(|| carried.collect())
}

#[cfg(test)]
#[path = "run_tests/mod.rs"]
mod tests;
