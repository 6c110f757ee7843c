//! What a run reads of the repository, and whether it read all of it. restic ends with exit code 0 when a listing is
//! refused or a snapshot cannot be loaded, and a REST server's 404 to a listing is an empty list to it. So every listing
//! is compared with another one, and a verdict is needed for every snapshot.

use std::collections::HashSet;

use futures::{StreamExt as _, TryStreamExt as _, stream};
use proto::plan::is_cut;
use proto::v1::{Baseline, RetentionPolicySpec, RetentionRun};

use super::child::{Restic, Stopped};
use super::forget::{check, decision, dry_run, is_refusal, list_names, names};
use super::plan::{self, Decision, Plan, RuleVerdict};
use super::select::{Standing, matches, standing};
use crate::restic::{Failure, Snapshot, output};

/// Dry runs that go side by side: each takes one core, most of it to derive the key.
const SIDE_BY_SIDE: usize = 2;
/// How often two listings may differ by snapshots that were added between them.
const LOOKS: usize = 3;

/// Why a run ends without having done what it was to do.
#[derive(Debug, thiserror::Error)]
pub enum Halt {
    #[error(transparent)]
    Stopped(#[from] Stopped),
    #[error("{text}")]
    Failed { reason: &'static str, text: String },
}

impl Halt {
    /// A command that changes the repository, or that came after one. `what` names it.
    pub fn at(what: &str, stopped: Stopped) -> Halt {
        match stopped {
            Stopped::Failed(failure) => Halt::Failed {
                reason: crate::pod::message::reason_of(&failure),
                text: format!("{what} failed: {failure}"),
            },
            Stopped::Alarm(why) => Halt::Failed {
                reason: "IncompleteRead",
                text: format!("{what}: {why}"),
            },
            other => other.into(),
        }
    }

    /// Something could not be read, or not wholly.
    fn incomplete(text: String) -> Halt {
        Halt::Failed {
            reason: "IncompleteRead",
            text: format!("nothing was removed: {text}"),
        }
    }
}

/// Makes a plan from what is in the repository now.
///
/// # Errors
/// Which read failed or was not complete.
pub async fn plan(run: &RetentionRun, restic: &Restic) -> Result<Plan, Halt> {
    let snapshots = listing(restic).await?;
    if let Some(text) = emptied(&run.baseline).filter(|_| snapshots.is_empty()) {
        return Err(Halt::incomplete(text));
    }
    let verdicts = verdicts(run, &snapshots, restic).await?;
    let now = names_of(restic, "restic list snapshots, after the dry runs,").await?;
    let lost = snapshots.iter().filter(|s| !now.contains(&s.id)).count();
    if lost > 0 {
        let text = format!(
            "restic list snapshots, after the dry runs, lacks {lost} of {} snapshots that were listed before them",
            snapshots.len()
        );
        return Err(Halt::incomplete(text));
    }
    plan::make(run, &snapshots, &verdicts).map_err(|broken| Halt::incomplete(broken.to_string()))
}

/// Why an empty listing is not believed. `baseline` is what the last applied run left.
fn emptied(baseline: &[Baseline]) -> Option<String> {
    let nothing = "the storage lists no snapshot at all, and";
    let of_clusters = baseline.iter().filter(|entry| entry.key.starts_with("cluster/"));
    let before: u64 = of_clusters.map(|entry| u64::from(entry.left)).sum();
    if before > 0 {
        return Some(format!("{nothing} the last run left {before}"));
    }
    // Clusters stand before groups: a list that was cut, and has a group, has all of them.
    let has_all = !is_cut(baseline) || baseline.iter().any(|entry| entry.key.starts_with("group/"));
    (!has_all).then(|| format!("{nothing} it is not known how many the last run left"))
}

/// All snapshots: as many as there are files.
async fn listing(restic: &Restic) -> Result<Vec<Snapshot>, Halt> {
    for _ in 0..LOOKS {
        let names = names_of(restic, "restic list snapshots").await?;
        let arguments = ["snapshots", "--json", "--no-lock"].map(str::to_owned);
        let printed = read(restic, &arguments, "restic snapshots").await?;
        let snapshots = output::snapshots(&printed)
            .map_err(|failure| failed("restic snapshots", Stopped::from(failure)))?;
        let listed: HashSet<&str> = snapshots.iter().map(|s| s.id.as_str()).collect();
        let missing = names
            .iter()
            .filter(|name| !listed.contains(name.as_str()))
            .count();
        if missing > 0 {
            let text = format!("restic snapshots lacks {missing} of {} snapshots", names.len());
            return Err(Halt::incomplete(text));
        }
        if names.len() == listed.len() {
            return Ok(snapshots);
        }
    }
    let text = "restic list snapshots lacks snapshots that restic snapshots shows";
    Err(Halt::incomplete(text.to_owned()))
}

/// Ids of all snapshot files. `what` names the read.
async fn names_of(restic: &Restic, what: &str) -> Result<HashSet<String>, Halt> {
    let printed = read(restic, &list_names(), what).await?;
    let names = names(&printed).map_err(|line| {
        let text = format!("printed what is not an id: {line}");
        failed(what, Stopped::from(Failure::Other(text)))
    })?;
    Ok(names.into_iter().collect())
}

/// Which of `planned` are no longer there. `staying` are the snapshots that must be.
///
/// # Errors
/// When no listing shows all of `staying`: then it shows nothing about the others either.
pub async fn removed(restic: &Restic, planned: &[&str], staying: &[String]) -> Result<usize, Halt> {
    let (mut lost, mut empty) = (0, false);
    for _ in 0..LOOKS {
        let there = names_of_left(restic).await?;
        lost = staying.iter().filter(|id| !there.contains(*id)).count();
        if lost > 0 {
            continue;
        }
        // With nothing that stays there is nothing to compare with: an empty list counts when it comes twice.
        if staying.is_empty() && there.is_empty() && !std::mem::replace(&mut empty, true) {
            continue;
        }
        return Ok(planned.iter().filter(|id| !there.contains(**id)).count());
    }
    Err(Halt::Failed {
        reason: "NotVerified",
        text: format!(
            "what forget removed could not be verified: restic list snapshots lacks {lost} snapshots that were to stay"
        ),
    })
}

async fn names_of_left(restic: &Restic) -> Result<HashSet<String>, Halt> {
    let verify = |stopped: Stopped| match stopped {
        Stopped::Failed(failure) => Halt::Failed {
            reason: "NotVerified",
            text: format!(
                "what forget removed could not be verified: restic list snapshots failed: {failure}"
            ),
        },
        other => other.into(),
    };
    let printed = restic.read(&list_names()).await.map_err(verify)?;
    let broken = |line: String| verify(Failure::Other(format!("it printed {line}")).into());
    Ok(names(&printed.stdout).map_err(broken)?.into_iter().collect())
}

/// One command that reads.
async fn read(restic: &Restic, arguments: &[String], what: &str) -> Result<Vec<u8>, Halt> {
    let printed = restic
        .read(arguments)
        .await
        .map_err(|stopped| failed(what, stopped))?;
    match printed.incomplete {
        None => Ok(printed.stdout),
        Some(line) => Err(Halt::incomplete(format!(
            "{what} could not read everything: {line}"
        ))),
    }
}

/// A read before anything was removed. `what` names it.
pub fn failed(what: &str, stopped: Stopped) -> Halt {
    match stopped {
        Stopped::Failed(failure) => Halt::Failed {
            reason: crate::pod::message::reason_of(&failure),
            text: format!("nothing was removed: {what} failed: {failure}"),
        },
        other => other.into(),
    }
}

/// restic's verdict for each rule. Equal rules are asked once, and those that match nothing are not asked.
async fn verdicts(
    run: &RetentionRun,
    snapshots: &[Snapshot],
    restic: &Restic,
) -> Result<Vec<Vec<RuleVerdict>>, Halt> {
    let mut asked: Vec<(Vec<String>, &RetentionPolicySpec)> = Vec::new();
    let mut places: Vec<Vec<Result<usize, RuleVerdict>>> = Vec::new();
    for policy in &run.policies {
        let mut of_policy = Vec::new();
        let clear = standing(policy) != Standing::Unclear;
        for rule in policy.rules.iter().filter(|_| clear) {
            of_policy.push(if let Err(wrong) = check(rule) {
                Err(RuleVerdict::Refused(wrong.to_string()))
            } else if !snapshots.iter().any(|snapshot| matches(rule, snapshot)) {
                Err(RuleVerdict::Decided(Decision::default()))
            } else {
                let command = dry_run(rule);
                let known = asked.iter().position(|(other, _)| *other == command);
                Ok(known.unwrap_or_else(|| {
                    asked.push((command, policy));
                    asked.len() - 1
                }))
            });
        }
        places.push(of_policy);
    }
    let verdicts: Vec<RuleVerdict> = stream::iter(asked)
        .map(|(command, policy)| ask(command, &policy.source, restic))
        .buffered(SIDE_BY_SIDE)
        .try_collect()
        .await?;
    let of_place = |place: Result<usize, RuleVerdict>| match place {
        Ok(at) => verdicts.get(at).cloned(),
        Err(known) => Some(known),
    };
    let of_policy = |places: Vec<_>| places.into_iter().filter_map(of_place).collect();
    Ok(places.into_iter().map(of_policy).collect())
}

async fn ask(command: Vec<String>, source: &str, restic: &Restic) -> Result<RuleVerdict, Halt> {
    let what = format!("the dry run for {source}");
    let printed = match restic.read(&command).await {
        Err(Stopped::Failed(failure)) if is_refusal(&failure.to_string()) => {
            return Ok(RuleVerdict::Refused(failure.to_string()));
        }
        Err(stopped) => return Err(failed(&what, stopped)),
        Ok(printed) => printed,
    };
    if let Some(line) = printed.incomplete {
        return Err(Halt::incomplete(format!(
            "{what} could not read everything: {line}"
        )));
    }
    let decision = decision(&printed.stdout).map_err(|e| {
        let text = format!("restic printed what is not valid: {e}");
        failed(&what, Failure::Other(text).into())
    })?;
    Ok(RuleVerdict::Decided(decision))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_listing_is_believed_when_the_last_run_left_nothing() {
        let refused = |list: &[(&str, u32)]| {
            let entry = |&(key, left): &(&str, u32)| Baseline {
                key: key.to_owned(),
                left,
            };
            emptied(&list.iter().map(entry).collect::<Vec<_>>()).is_some()
        };
        assert!(!refused(&[]) && !refused(&[("whole", 0)]));
        assert!(!refused(&[("cut", 0), ("cluster/a", 0), ("group/1", 0)]));
        assert!(refused(&[("cut", 0), ("cluster/a", 0), ("cluster/b", 1)]));
        assert!(refused(&[("whole", 0), ("cluster/a", 1)]));
        assert!(refused(&[("cut", 0)]), "not known");
        assert!(
            refused(&[("cut", 0), ("cluster/a", 0)]),
            "other clusters may be cut off"
        );
    }
}
