//! The verdict on a fleet, its counts, and what needs a person, worst first. Costs what is shown, not what there is: all
//! counts are kept. For a person who sees only a part of clusters that part is counted.

use std::collections::{BTreeMap, BTreeSet};

use proto::time::from_unix_millis;
use proto::v1::{Attention, Lock, StatusResponse};

use crate::Millis;
use crate::health::Health;
use crate::inventory::Member;
use crate::seen::Seen;
use crate::verdict::{self, Facts, Silence, verdict};
use crate::waits::{self, Matter};
use crate::{delays, rows};

/// More than this nobody reads at night.
const ATTENTION_MAX: usize = 20;
/// Clusters whose last messages came within this time fell silent at once.
const AT_ONCE: Millis = 120_000;

/// The answer as of the inventory's revision, of what is seen. `delayed` are maintenance locks whose holder fell silent.
#[must_use]
pub fn status(seen: Seen<'_>, delayed: &[Lock]) -> StatusResponse {
    let inventory = seen.inventory;
    let (clusters, stale) = members(seen);
    let mut needs = Needs::default();
    let mut facts = facts(seen, clusters, &stale);
    causes(seen, &mut needs);
    let mut matters = matters(seen, &mut needs);
    for lock in delayed.iter().filter_map(|lock| delays::attention(seen, lock)) {
        matters.all += 1;
        needs.add("fleet locks", || lock);
    }
    facts.unsafe_matters = matters.not_safe;
    let verdict = verdict(&facts);
    silent(seen, &stale, &facts, verdict.silence, &mut needs);
    let backups_by_state = Health::ALL
        .into_iter()
        .filter(|health| facts.backups.of(*health) > 0);
    let (repositories, stored_bytes) = repositories(seen);
    StatusResponse {
        revision: inventory.revision(),
        as_of: Some(from_unix_millis(inventory.now())),
        verdict: verdict.word.to_owned(),
        reason: verdict.reason,
        clusters,
        clusters_stale: stale.len() as u64,
        repositories,
        backups: facts.backups.all(),
        backups_by_state: backups_by_state
            .map(|health| (health.as_str().to_owned(), facts.backups.of(health)))
            .collect(),
        stored_bytes,
        matters: needs.matters,
        needs_you: needs.shown,
        others: matters.all,
        rest_next: needs.rest.into_iter().collect::<Vec<_>>().join(", "),
        pause: None,
    }
}

/// What needs a person: the first are shown, of the rest only the commands that list them.
#[derive(Default)]
struct Needs {
    shown: Vec<Attention>,
    matters: u64,
    rest: BTreeSet<&'static str>,
}

impl Needs {
    fn add(&mut self, lists: &'static str, make: impl FnOnce() -> Attention) {
        self.matters += 1;
        if self.shown.len() < ATTENTION_MAX {
            self.shown.push(make());
        } else {
            self.rest.insert(lists);
        }
    }
}

/// Number of clusters that are seen, and those that are silent.
fn members(seen: Seen<'_>) -> (u64, Vec<&Member>) {
    let stale = seen.inventory.stale_members();
    if seen.is_everything() {
        return (seen.inventory.member_count() as u64, stale.collect());
    }
    let stale = stale.filter(|member| seen.cluster(member));
    (seen.members().count() as u64, stale.collect())
}

fn facts(seen: Seen<'_>, clusters: u64, stale: &[&Member]) -> Facts {
    let limits = seen.inventory.limits();
    let newest = stale.iter().filter_map(|member| member.last_heard).max();
    let at_once = |member: &&&Member| {
        let heard = member.last_heard.zip(newest);
        heard.is_some_and(|(heard, newest)| newest.saturating_sub(heard) <= AT_ONCE)
    };
    Facts {
        clusters,
        stale: stale.len() as u64,
        unheard: stale.iter().filter(|member| member.heard.is_none()).count() as u64,
        at_once: stale.iter().filter(at_once).count() as u64,
        running: seen.inventory.steady(),
        patience: limits.stale_after.saturating_add(limits.grace),
        backups: seen.tally(),
        unsafe_matters: 0,
    }
}

/// Backups with the same state for the same reason are one matter.
fn causes(seen: Seen<'_>, needs: &mut Needs) {
    let judged = seen.inventory.index().judged();
    if seen.is_everything() {
        for ((health, reason), places) in judged.causes() {
            needs.add("fleet backups", || {
                let first = places.get_min().map_or("", |place| place);
                attention(*health, reason, first, places.len() as u64)
            });
        }
        return;
    }
    for health in Health::ALL.into_iter().filter(|health| health.needs_person()) {
        let mut found: BTreeMap<&str, (&str, u64)> = BTreeMap::new();
        for held in seen.in_state(health, None) {
            let reason = judged.cause(&held.place).map_or("", |reason| reason);
            found.entry(reason).or_insert((&held.place, 0)).1 += 1;
        }
        for (reason, (first, count)) in found {
            needs.add("fleet backups", || attention(health, reason, first, count));
        }
    }
}

fn attention(health: Health, reason: &str, first: &str, count: u64) -> Attention {
    let (subject, next) = if count == 1 {
        (first.to_owned(), format!("fleet backups {first}"))
    } else {
        (
            format!("{first} and {} more", count - 1),
            format!("fleet backups --state {health}"),
        )
    };
    Attention {
        state: health.as_str().to_owned(),
        subject,
        detail: reason.to_owned(),
        count,
        next,
    }
}

/// How many resources need a person besides backups and clusters.
#[derive(Default)]
struct Matters {
    all: u64,
    not_safe: u64,
}

fn matters(seen: Seen<'_>, needs: &mut Needs) -> Matters {
    let mut matters = Matters::default();
    let mut count = |matter: Matter, count| {
        matters.all += count;
        matters.not_safe += if matter.is_unsafe() { count } else { 0 };
    };
    let index = seen.inventory.index();
    if seen.is_everything() {
        for ((matter, detail), places) in index.matters().groups() {
            let (number, first) = (places.len() as u64, places.get_min());
            count(*matter, number);
            if let Some(first) = first.and_then(|place| index.about(*matter, place)) {
                needs.add(matter.lists(), || {
                    waits::attention(*matter, detail, first, number)
                });
            }
        }
    } else {
        for ((matter, detail), group) in waits::narrow(seen) {
            count(matter, group.count);
            needs.add(matter.lists(), || {
                waits::attention(matter, &detail, group.first, group.count)
            });
        }
    }
    matters
}

/// Silent clusters. When it is rather the hub that is cut off, or it has only just started, that is one matter; what is wrong
/// with one cluster alone stays one.
fn silent(seen: Seen<'_>, stale: &[&Member], facts: &Facts, silence: Silence, needs: &mut Needs) {
    let one = |detail, count| Attention {
        state: Health::Stale.as_str().to_owned(),
        subject: format!("{count} clusters"),
        detail,
        count: facts.backups.of(Health::Stale),
        next: "fleet clusters --state stale".to_owned(),
    };
    match silence {
        Silence::Each => {}
        Silence::Starting => needs.add("fleet clusters", || one(verdict::starting(facts), facts.unheard)),
        Silence::Fleet => needs.add("fleet clusters", || one(verdict::cut_off(facts), facts.stale)),
    }
    let alone = |member: &&&Member| match silence {
        Silence::Each => true,
        Silence::Starting => member.heard.is_some() || member.trouble().is_some(),
        Silence::Fleet => member.trouble().is_some(),
    };
    for member in stale.iter().filter(alone) {
        needs.add("fleet clusters", || silent_cluster(seen, member));
    }
}

fn silent_cluster(seen: Seen<'_>, member: &Member) -> Attention {
    let (_, backups) = seen.counts(member);
    Attention {
        state: Health::Stale.as_str().to_owned(),
        subject: member.name.to_string(),
        detail: match member.trouble() {
            Some((_, reason)) => reason.to_owned(),
            None => format!("{backups} backups, silent; what is shown is the last that is known"),
        },
        count: backups,
        next: format!("fleet clusters {}", member.name),
    }
}

/// Number of physical repositories, and the bytes that are stored in them.
fn repositories(seen: Seen<'_>) -> (u64, u64) {
    if seen.is_everything() {
        let count = seen.inventory.index().repository_count() as u64;
        return (count, seen.inventory.stored_bytes());
    }
    let rows = seen
        .repositories()
        .filter_map(|key| rows::stored_bytes(seen, key));
    rows.fold((0, 0), |(count, stored), bytes| (count + 1, stored + bytes))
}

#[cfg(test)]
#[path = "status_tests.rs"]
mod tests;
