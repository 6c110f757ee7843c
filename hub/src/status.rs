//! Is everything backed up? One verdict, the counts, and what needs a person, worst first.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use proto::time::from_unix_millis;
use proto::v1::{Attention, StatusResponse, row::Body};

use crate::health::Health;
use crate::inventory::Member;
use crate::seen::Seen;
use crate::{rows, waits};

/// More than this nobody reads at night.
const ATTENTION_MAX: usize = 20;

/// The answer as of the inventory's revision, of what is seen.
#[must_use]
pub fn status(seen: Seen<'_>) -> StatusResponse {
    let inventory = seen.inventory;
    let tally = Tally::of(seen);
    let members: Vec<&Member> = seen.members().collect();
    let stale: Vec<&Member> = members.iter().filter(|member| member.stale).copied().collect();
    let verdict = tally.verdict(!stale.is_empty());
    let (repositories, stored_bytes) = repositories(seen);
    let others = waits::all(seen);
    // Totals are of everything, whatever is cut off below.
    let other_count = others.iter().map(|other| other.count).sum();
    let mut needs_you: Vec<Attention> = tally.causes.into_iter().map(attention).collect();
    needs_you.extend(others);
    needs_you.extend(stale.iter().map(|member| silent(seen, member)));
    let matters = needs_you.len() as u64;
    let rest = needs_you.split_off(needs_you.len().min(ATTENTION_MAX));
    StatusResponse {
        revision: inventory.revision(),
        as_of: Some(from_unix_millis(inventory.now())),
        verdict: verdict.to_owned(),
        clusters: members.len() as u64,
        clusters_stale: stale.len() as u64,
        repositories,
        backups: tally.backups,
        backups_by_state: tally.by_state,
        stored_bytes,
        needs_you,
        matters,
        others: other_count,
        rest_next: commands(&rest),
        pause: None,
    }
}

/// All backups by state, and by cause as far as they need a person.
#[derive(Default)]
struct Tally {
    by_state: HashMap<String, u64>,
    /// Backups with the same state for the same reason are one matter: the first of them, and how many.
    causes: BTreeMap<(Health, String), (String, u64)>,
    backups: u64,
    bad: bool,
    unknown: bool,
}

impl Tally {
    fn of(seen: Seen<'_>) -> Tally {
        let mut tally = Tally::default();
        for held in seen.backups(&[]) {
            let (health, reason) = rows::health(seen.inventory, held);
            tally.backups += 1;
            *tally.by_state.entry(health.as_str().to_owned()).or_default() += 1;
            tally.bad |= health.is_unsafe();
            tally.unknown |= health.is_unknown();
            if health.is_unsafe() || health == Health::Never {
                let first = || (held.place.to_string(), 0);
                tally.causes.entry((health, reason)).or_insert_with(first).1 += 1;
            }
        }
        tally
    }

    fn verdict(&self, stale: bool) -> &'static str {
        match (self.bad, self.unknown || stale || self.by_state.is_empty()) {
            (true, _) => "not-safe",
            (false, true) => "unknown",
            (false, false) => "safe",
        }
    }
}

/// Number of physical repositories, and the bytes that are stored in them.
fn repositories(seen: Seen<'_>) -> (u64, u64) {
    let keys = seen.inventory.index().repositories();
    let rows = keys.filter_map(|key| rows::repository(seen, key));
    rows.fold((0, 0), |(count, stored), row| {
        let bytes = match &row.body {
            Some(Body::Repository(repository)) => repository.statistics.as_ref().map(|s| s.stored_bytes),
            _ => None,
        };
        (count + 1, stored + bytes.unwrap_or_default())
    })
}

fn attention(((health, reason), (first, count)): ((Health, String), (String, u64))) -> Attention {
    let (subject, next) = if count == 1 {
        (first.clone(), format!("fleet backups {first}"))
    } else {
        (
            format!("{first} and {} more", count - 1),
            format!("fleet backups --state {health}"),
        )
    };
    Attention {
        state: health.as_str().to_owned(),
        subject,
        detail: reason,
        count,
        next,
    }
}

fn silent(seen: Seen<'_>, member: &Member) -> Attention {
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

/// Commands that list what was cut off.
fn commands(rest: &[Attention]) -> String {
    let of = |needs: &Attention| match needs.state.as_str() {
        waits::DAMAGED | waits::UNREADY => "fleet repos",
        waits::RESTORE_FAILED => "kubectl get rres -A",
        waits::POLICY_FAILED => "kubectl get grp -A",
        waits::WAITING => "fleet plan list",
        "stale" => "fleet clusters",
        _ => "fleet backups",
    };
    let commands: BTreeSet<&str> = rest.iter().map(of).collect();
    commands.into_iter().collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
#[path = "status_tests.rs"]
mod tests;
