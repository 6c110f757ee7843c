//! What the results of checks mean: which part is next, and what is damaged. Pure.

use std::collections::BTreeSet;

use crds::conditions::{self, Conditions, reasons, types, whole_seconds};
use crds::integrity::{Damage, IntegrityCheckStatus, Subset};
use crds::{ResticRepository, ResticRepositoryStatus};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use proto::v1::{CheckRun, OperationOutcome};

use crate::exchange::Operation;

/// Pack files named in a status.
const PACKS_MAX: usize = 10;
/// uids of Jobs that are kept: more than the history of a CronJob holds.
const COUNTED_MAX: usize = 32;

/// What the next check reads. While there is damage, it reads the same parts again: only that can show that it is mended.
#[must_use]
pub fn order(repository: &ResticRepository, restic_id: &str) -> CheckRun {
    let known = super::known(repository);
    let run = CheckRun {
        restic_id: restic_id.to_owned(),
        ..CheckRun::default()
    };
    if let Some(damage) = known.damage.as_ref().filter(|damage| !damage.parts.is_empty()) {
        return CheckRun {
            parts: damage.parts.iter().copied().map(unsigned).collect(),
            of: damage.of.map(unsigned).unwrap_or_default(),
            ..run
        };
    }
    let check = repository.spec.integrity_check.as_ref();
    let subset = check.and_then(|check| Subset::parse(check.read_data_subset.as_deref()?));
    let Some(Subset { each, of }) = subset else {
        return run;
    };
    let same = known.parts == Some(signed(of));
    let first = known.next_part.filter(|_| same).map_or(1, unsigned).clamp(1, of);
    CheckRun {
        parts: (0..each).map(|step| (first - 1 + step) % of + 1).collect(),
        of,
        ..run
    }
}

/// Records results, once each.
pub fn record(status: &mut ResticRepositoryStatus, operations: &[&Operation], now: Timestamp) {
    for finished in operations.iter().filter_map(|o| o.finished.as_ref()) {
        let known = status.integrity_check.get_or_insert_default();
        if known.counted_jobs.contains(&finished.operation) {
            continue;
        }
        let at = Time(whole_seconds(finished.finished.unwrap_or(now)));
        take(known, &finished.outcome, &at);
        known.counted_jobs.push(finished.operation.clone());
        let old = known.counted_jobs.len().saturating_sub(COUNTED_MAX);
        known.counted_jobs.drain(..old);
        status.last_integrity_check = Some(at);
        status.last_integrity_check_result = Some(finished.outcome.result.clone());
    }
}

fn take(known: &mut IntegrityCheckStatus, outcome: &OperationOutcome, at: &Time) {
    known.message = match outcome.reason.as_str() {
        "" => outcome.message.clone(),
        reason => format!("{reason}: {}", outcome.message),
    };
    match outcome.result.as_str() {
        "Passed" => {
            known.last_passed = Some(at.clone());
            if known
                .damage
                .as_ref()
                .is_some_and(|damage| mended(damage, outcome))
            {
                known.damage = None;
            }
            go_on(known, outcome, at);
        }
        "Damaged" => known.damage = Some(damage(known.damage.take(), outcome, at)),
        // Nothing is known anew: neither what was found is mended, nor anything damaged.
        _ => {}
    }
}

/// Whether a check without errors has read what was damaged.
fn mended(damage: &Damage, outcome: &OperationOutcome) -> bool {
    let same = damage.of.map(unsigned) == Some(outcome.checked_of).filter(|of| *of > 0);
    damage.parts.is_empty()
        || (same
            && damage
                .parts
                .iter()
                .all(|part| outcome.checked.contains(&unsigned(*part))))
}

/// The walk goes on behind the parts that were read.
fn go_on(known: &mut IntegrityCheckStatus, outcome: &OperationOutcome, at: &Time) {
    let (of, Some(last)) = (outcome.checked_of, outcome.checked.last()) else {
        return;
    };
    let wraps = *last >= of || outcome.checked.windows(2).any(|two| two[1] < two[0]);
    let began = known.parts == Some(signed(of)) || outcome.checked.first() == Some(&1);
    if wraps && began {
        known.all_parts_read = Some(at.clone());
    }
    known.parts = Some(signed(of));
    known.next_part = Some(signed(last % of + 1));
}

fn damage(before: Option<Damage>, outcome: &OperationOutcome, at: &Time) -> Damage {
    let is_id = |pack: &&String| pack.len() == 64;
    let mut parts: BTreeSet<i32> = outcome.checked.iter().copied().map(signed).collect();
    let of = Some(signed(outcome.checked_of)).filter(|of| *of > 0);
    // A check of the structure alone has no parts: those found damaged before are kept, with their total.
    let of = of.or(before.as_ref().and_then(|before| before.of));
    let found = before.as_ref().and_then(|before| before.found.clone());
    // What was damaged before stays to be read, where it is told by the same parts.
    if let Some(before) = before.filter(|before| before.of == of) {
        parts.extend(before.parts);
    }
    Damage {
        found: Some(found.unwrap_or_else(|| at.clone())),
        reason: outcome.reason.clone(),
        message: outcome.message.clone(),
        packs: outcome
            .broken_packs
            .iter()
            .filter(is_id)
            .take(PACKS_MAX)
            .cloned()
            .collect(),
        parts: parts.into_iter().collect(),
        of,
    }
}

/// Condition Degraded. Damage is worse than anything else that it may show; `before` is what stood there when the turn
/// began, with the time of its transition.
pub fn degrade(
    status: &mut ResticRepositoryStatus,
    before: Option<Condition>,
    generation: Option<i64>,
    now: Timestamp,
) {
    let Some(known) = &status.integrity_check else {
        return;
    };
    let list = &mut status.conditions;
    if let Some(text) = known.damage_in_words() {
        if let (Some(present), Some(before)) = (list.iter_mut().find(|c| c.type_ == types::DEGRADED), before)
        {
            *present = before;
        }
        let reason = reasons::REPOSITORY_DAMAGED;
        Conditions::at(list, generation, now).set(types::DEGRADED, true, reason, text);
        return;
    }
    let shown = before.is_some_and(|c| c.status == "True" && c.reason == reasons::REPOSITORY_DAMAGED);
    let other = conditions::get(list, types::DEGRADED)
        .is_some_and(|c| c.status == "True" && c.reason != reasons::REPOSITORY_DAMAGED);
    if shown && !other {
        let reason = reasons::CHECK_PASSED;
        Conditions::at(list, generation, now).set(types::DEGRADED, false, reason, &known.message);
    }
}

fn signed(count: u32) -> i32 {
    i32::try_from(count).unwrap_or(i32::MAX)
}

fn unsigned(count: i32) -> u32 {
    u32::try_from(count).unwrap_or_default()
}
