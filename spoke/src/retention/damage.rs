//! A policy of a repository in which a check has found damage. Pure.

use crds::conditions::{self, Conditions, reasons, types};
use crds::integrity::damage_of;
use crds::{GlobalRetentionPolicyStatus, ResticRepository};
use jiff::Timestamp;

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
