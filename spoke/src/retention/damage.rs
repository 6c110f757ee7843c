//! A policy of a repository in which a check has found damage. Pure.

use crds::conditions::{self, Conditions, reasons, types};
use crds::integrity::{IntegrityCheckStatus, damage_of};
use crds::{GlobalRetentionPolicyStatus, ResticRepository};
use jiff::Timestamp;

use crate::world::Undecodable;

/// The damage of a repository that this version cannot decode, in words; `None` if there is none.
#[must_use]
pub fn of_undecodable(broken: &Undecodable) -> Option<String> {
    let known = broken.raw.pointer("/status/integrityCheck")?;
    let damage = known.get("damage").filter(|damage| !damage.is_null())?;
    // The check's status may still be as it is known here.
    let decoded = serde_json::from_value::<IntegrityCheckStatus>(known.clone());
    let words = decoded.ok().and_then(|known| known.damage_in_words());
    Some(words.unwrap_or_else(|| {
        let message = damage.get("message").and_then(|message| message.as_str());
        let message = message.unwrap_or("status.integrityCheck.damage shows it");
        format!("an integrity check found damage: {message}")
    }))
}

/// Shows in condition Degraded that nothing is removed from a damaged repository, and that this is over.
pub fn show(
    status: &mut GlobalRetentionPolicyStatus,
    repository: Option<&ResticRepository>,
    generation: Option<i64>,
    now: Timestamp,
) {
    let Some(repository) = repository else { return };
    let reason = reasons::REPOSITORY_DAMAGED;
    let shown = conditions::get(&status.conditions, types::DEGRADED).is_some_and(|c| c.reason == reason);
    let mut conditions = Conditions::at(&mut status.conditions, generation, now);
    match damage_of(repository) {
        Some(text) => {
            let text = format!("no snapshot is removed: {text}");
            conditions.set(types::DEGRADED, true, reason, text);
        }
        None if shown => {
            let text = "a check has found no more damage; the next run removes what no policy keeps";
            conditions.set(types::DEGRADED, false, reasons::CHECK_PASSED, text);
        }
        None => {}
    }
}
