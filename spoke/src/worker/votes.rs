//! The rules as voters: each has restic's verdicts on the snapshots that it matches, and together they decide what becomes of
//! one snapshot. Pure.

use std::collections::HashSet;

use proto::v1::{RetentionPolicySpec, RetentionRule, RetentionRun};

use super::select::{self, Standing, matches, reaches};
use crate::restic::Snapshot;

/// What `restic forget --dry-run` decided for one rule.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Decision {
    /// Full ids.
    pub keep: Vec<String>,
    pub remove: Vec<String>,
}

/// What is known of one rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RuleVerdict {
    Decided(Decision),
    /// The rule cannot be carried out, and why. All that it matches is kept.
    Refused(String),
}

/// Why there is no plan.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Broken {
    #[error(
        "the dry run of rule {rule} of {policy} returned no verdict on {count} of the snapshots that it matches, such as {example}"
    )]
    NoVerdict {
        policy: String,
        rule: usize,
        count: usize,
        example: String,
    },
    #[error(
        "the dry run of rule {rule} of {policy} returned a verdict on snapshot {example}, which its selector does not match"
    )]
    Mismatch {
        policy: String,
        rule: usize,
        example: String,
    },
    #[error("the order holds no verdicts for {0}")]
    Missing(String),
}

/// A rule with what is known of it.
pub(super) struct Voter<'a> {
    pub policy: &'a RetentionPolicySpec,
    pub standing: Standing,
    pub rule: &'a RetentionRule,
    /// Position in the policy, from 0.
    pub position: usize,
    /// `None`: all that it matches is kept.
    pub decision: Option<(HashSet<&'a str>, HashSet<&'a str>)>,
}

/// What became of one snapshot.
#[derive(Default)]
pub(super) struct Fate<'a> {
    /// Policies in force that remove it and may do so, then those in preview.
    pub now: Vec<&'a RetentionPolicySpec>,
    pub shown: Vec<&'a RetentionPolicySpec>,
    /// Some policy that is not suspended would remove it.
    pub wanted: bool,
    pub keepers: Vec<&'a str>,
    pub blockers: Vec<&'a str>,
}

/// The rules of a run, with their verdicts.
///
/// # Errors
/// When a verdict is missing.
pub(super) fn voters<'a>(
    run: &'a RetentionRun,
    verdicts: &'a [Vec<RuleVerdict>],
) -> Result<Vec<Voter<'a>>, Broken> {
    let mut voters = Vec::new();
    for (at, policy) in run.policies.iter().enumerate() {
        let standing = select::standing(policy);
        for (position, rule) in policy.rules.iter().enumerate() {
            let decision = if standing == Standing::Unclear {
                None
            } else {
                let verdict = verdicts.get(at).and_then(|of_policy| of_policy.get(position));
                match verdict.ok_or_else(|| Broken::Missing(policy.source.clone()))? {
                    RuleVerdict::Refused(_) => None,
                    RuleVerdict::Decided(decision) => {
                        let ids = |list: &'a [String]| list.iter().map(String::as_str).collect();
                        Some((ids(&decision.keep), ids(&decision.remove)))
                    }
                }
            };
            voters.push(Voter {
                policy,
                standing,
                rule,
                position,
                decision,
            });
        }
    }
    Ok(voters)
}

/// restic read as much as the listing holds: its verdict is about each snapshot that the rule matches, and about no
/// other. Snapshots that were added since the listing are left alone.
pub(super) fn complete(voter: &Voter<'_>, snapshots: &[Snapshot]) -> Result<(), Broken> {
    let Some((keep, remove)) = &voter.decision else {
        return Ok(());
    };
    let (policy, rule) = (voter.policy.source.clone(), voter.position);
    let (mut count, mut example) = (0, None);
    for snapshot in snapshots {
        let id = snapshot.id.as_str();
        match (
            matches(voter.rule, snapshot),
            keep.contains(id) || remove.contains(id),
        ) {
            (true, false) => {
                count += 1;
                example = example.or(Some(id));
            }
            (false, true) => {
                let example = id.to_owned();
                return Err(Broken::Mismatch {
                    policy,
                    rule,
                    example,
                });
            }
            _ => {}
        }
    }
    match example {
        None => Ok(()),
        Some(example) => Err(Broken::NoVerdict {
            policy,
            rule,
            count,
            example: example.to_owned(),
        }),
    }
}

/// What the rules make of one snapshot.
pub(super) fn fate<'a>(run: &RetentionRun, voters: &[Voter<'a>], snapshot: &Snapshot) -> Fate<'a> {
    fn add<'a>(list: &mut Vec<&'a RetentionPolicySpec>, policy: &'a RetentionPolicySpec) {
        if !list.iter().any(|known| known.source == policy.source) {
            list.push(policy);
        }
    }
    let mut fate = Fate::default();
    for voter in voters.iter().filter(|voter| matches(voter.rule, snapshot)) {
        let policy = voter.policy;
        let list = match &voter.decision {
            None => &mut fate.blockers,
            Some((keep, remove)) if keep.contains(&*snapshot.id) || !remove.contains(&*snapshot.id) => {
                &mut fate.keepers
            }
            Some(_) => {
                let may = reaches(run, policy, voter.rule, snapshot);
                fate.wanted |= voter.standing != Standing::Suspended;
                match voter.standing {
                    Standing::InForce if may => add(&mut fate.now, policy),
                    Standing::Preview if may => add(&mut fate.shown, policy),
                    _ => {}
                }
                continue;
            }
        };
        if !list.contains(&policy.source.as_str()) {
            list.push(&policy.source);
        }
    }
    // A policy without any selector could mean every snapshot.
    let blind = run.policies.iter().filter(|policy| policy.rules.is_empty());
    if blind.count() > 0 {
        fate.blockers.push("");
    }
    fate
}
