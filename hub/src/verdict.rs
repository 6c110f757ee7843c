//! Is everything backed up? One word and one sentence. Pure, and truthful in every state: what nobody can know is not called
//! well, and half a fleet that falls silent at once is one matter and not as many as it has clusters.

use crate::Millis;
use crate::health::Health;
use crate::inventory::Counts;

/// Fewer silent clusters are never the whole fleet's matter.
const FEW: u64 = 3;

/// What the verdict is about: what a person sees.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    pub clusters: u64,
    /// Those that are silent.
    pub stale: u64,
    /// Of these, those that have not reported since this start of the hub.
    pub unheard: u64,
    /// Of these, those whose last messages came within two minutes.
    pub at_once: u64,
    /// Since the start of the hub.
    pub running: Millis,
    /// How long clusters have to come back after a start.
    pub patience: Millis,
    pub backups: Counts,
    /// Damaged repositories, and backups whose snapshot is not where it should be.
    pub unsafe_matters: u64,
}

/// How silent clusters are shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Silence {
    /// Each on its own.
    Each,
    /// The hub has only just started.
    Starting,
    /// It is rather the hub that is cut off.
    Fleet,
}

/// The verdict.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// "safe", "not-safe" or "unknown".
    pub word: &'static str,
    /// Why, in one sentence.
    pub reason: String,
    pub silence: Silence,
}

/// Word and reason while the hub still reads its store.
pub const LOADING: (&str, &str) = ("unknown", "the hub has just started and is reading what it knew");

/// Judges the fleet.
#[must_use]
pub fn verdict(facts: &Facts) -> Verdict {
    let silence = silence(facts);
    let (word, reason) = match trouble(facts) {
        Some(trouble) => ("not-safe", trouble),
        None => match doubt(facts, silence) {
            Some(doubt) => ("unknown", doubt),
            None => match (facts.backups.all(), facts.backups.of(Health::Suspended)) {
                (all, suspended) if all == suspended => (
                    "not-safe",
                    format!("{}: nothing is backed up any more", are(all, all, "suspended")),
                ),
                (all, 0) => ("safe", are(all, all, "well")),
                (all, suspended) => (
                    "safe",
                    format!("{}, and {suspended} suspended", are(all - suspended, all, "well")),
                ),
            },
        },
    };
    Verdict {
        word,
        reason,
        silence,
    }
}

/// What shows that something is not backed up.
fn trouble(facts: &Facts) -> Option<String> {
    let states = Health::ALL.into_iter().filter(|health| health.is_unsafe());
    let counts = states.map(|health| (facts.backups.of(health), health));
    let mut parts: Vec<String> = counts
        .filter(|(count, _)| *count > 0)
        .map(|(count, health)| format!("{count} {}", words(health)))
        .collect();
    let all = facts.backups.all();
    match (parts.is_empty(), facts.unsafe_matters) {
        (true, 0) => return None,
        (true, 1) => {
            return Some("a repository is damaged, or lacks a snapshot that was reported".to_owned());
        }
        (true, count) => {
            return Some(format!(
                "{count} repositories or backups: damage, or snapshots that are missing"
            ));
        }
        (false, 0) => {}
        (false, count) => parts.push(format!("{count} with damage or missing snapshots")),
    }
    Some(format!(
        "of {all} {}: {}",
        plural(all, "backup"),
        parts.join(", ")
    ))
}

/// What nobody can know.
fn doubt(facts: &Facts, silence: Silence) -> Option<String> {
    let Facts { clusters, stale, .. } = *facts;
    if clusters == 0 {
        return Some("no cluster has connected yet".to_owned());
    }
    if stale > 0 {
        return Some(match silence {
            Silence::Starting => starting(facts),
            Silence::Fleet => cut_off(facts),
            Silence::Each if stale == clusters => {
                format!("none of {clusters} {} reports", plural(clusters, "cluster"))
            }
            Silence::Each if stale == 1 => format!("1 of {clusters} clusters is silent"),
            Silence::Each => format!("{stale} of {clusters} clusters are silent"),
        });
    }
    let backups = &facts.backups;
    if backups.all() == 0 {
        return Some(format!(
            "{clusters} {} connected, and no backup",
            plural(clusters, "cluster")
        ));
    }
    let unknown = backups.fitting(Health::is_unknown);
    (unknown > 0).then(|| are(unknown, backups.all(), "without a first success"))
}

/// In one sentence.
#[must_use]
pub fn starting(facts: &Facts) -> String {
    let Facts {
        unheard,
        clusters,
        running,
        ..
    } = facts;
    format!(
        "the hub started {} s ago, and {unheard} of {clusters} {} not reported since",
        running / 1000,
        if *clusters == 1 {
            "cluster has"
        } else {
            "clusters have"
        },
    )
}

/// In one sentence.
#[must_use]
pub fn cut_off(facts: &Facts) -> String {
    let Facts {
        stale,
        unheard,
        at_once,
        clusters,
        ..
    } = facts;
    // Of those that have not come back since a start nobody knows when they fell silent.
    let what = match unheard * 2 >= *stale {
        true => format!("{unheard} of {clusters} clusters have not come back since the hub started"),
        false => format!("{at_once} of {clusters} clusters fell silent at once"),
    };
    format!("{what}: look at the hub's own network, name and certificate first")
}

fn silence(facts: &Facts) -> Silence {
    let Facts {
        clusters,
        stale,
        unheard,
        at_once,
        ..
    } = *facts;
    if unheard > 0 && facts.running < facts.patience {
        Silence::Starting
    } else if at_once >= FEW && at_once * 2 >= clusters && stale > 0 {
        Silence::Fleet
    } else {
        Silence::Each
    }
}

fn words(health: Health) -> &'static str {
    match health {
        Health::Partial => "incomplete",
        Health::NotReady => "not ready",
        other => other.as_str(),
    }
}

fn are(count: u64, all: u64, how: &str) -> String {
    match (count == all, all) {
        (true, 1) => format!("the one backup is {how}"),
        (true, _) => format!("all {all} backups are {how}"),
        (false, _) => format!(
            "{count} of {all} backups {} {how}",
            if count == 1 { "is" } else { "are" }
        ),
    }
}

fn plural(count: u64, noun: &str) -> String {
    match count {
        1 => noun.to_owned(),
        _ => format!("{noun}s"),
    }
}

#[cfg(test)]
#[path = "verdict_tests.rs"]
mod tests;
