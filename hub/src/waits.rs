//! What waits for a person besides backups: repositories that cannot be used, restores and retention runs that failed,
//! and plans that need approval.

use std::collections::BTreeMap;

use proto::v1::Attention;

use crate::evidence::{Unproven, unproven};
use crate::health::{is_ready, ready_condition};
use crate::inventory::Held;
use crate::seen::Seen;

/// Those of one state with one cause.
struct Group {
    first: String,
    count: u64,
    next: String,
}

type Groups = BTreeMap<(usize, String), Group>;

pub(crate) const DAMAGED: &str = "damaged";
pub(crate) const UNREADY: &str = "unready";
pub(crate) const RESTORE_FAILED: &str = "restore-failed";
pub(crate) const POLICY_FAILED: &str = "policy-failed";
pub(crate) const WAITING: &str = "waiting";
pub(crate) const UNPROVEN: &str = "unproven";
/// In the order in which they are shown.
pub const STATES: [&str; 6] = [DAMAGED, UNPROVEN, UNREADY, RESTORE_FAILED, POLICY_FAILED, WAITING];
/// Results of a retention run that did not do what it was to do.
const FAILURES: [&str; 2] = ["Failed", "Interrupted"];

/// Grouped by cause. What a silent cluster reported last counts: nothing shows that it is over.
#[must_use]
pub fn all(seen: Seen<'_>) -> Vec<Attention> {
    let mut groups = Groups::new();
    repositories(seen, &mut groups);
    backups(seen, &mut groups);
    restores(seen, &mut groups);
    policies(seen, &mut groups);
    groups
        .into_iter()
        .map(|((state, detail), group)| Attention {
            state: STATES.get(state).copied().unwrap_or_default().to_owned(),
            subject: match group.count {
                1 => group.first,
                count => format!("{} and {} more", group.first, count - 1),
            },
            detail,
            count: group.count,
            next: group.next,
        })
        .collect()
}

fn backups(seen: Seen<'_>, groups: &mut Groups) {
    for Unproven { held, reason } in unproven(seen) {
        add(
            groups,
            UNPROVEN,
            held,
            reason,
            format!("fleet backups {}", held.place),
        );
    }
}

fn repositories(seen: Seen<'_>, groups: &mut Groups) {
    let keys = seen.inventory.index().repositories();
    for held in keys.flat_map(|key| seen.bindings(key)) {
        let next = || format!("fleet repos {}", held.object.name);
        let damage = held.repository().map(|repository| &repository.damage);
        if let Some(damage) = damage.filter(|damage| !damage.is_empty()) {
            add(groups, DAMAGED, held, damage.clone(), next());
        }
        // Unknown means that it is being checked.
        let condition = ready_condition(&held.object).filter(|ready| ready.status == "False");
        if let Some(condition) = condition {
            let why = explained(&condition.reason, &condition.message);
            add(groups, UNREADY, held, why, next());
        }
    }
}

fn restores(seen: Seen<'_>, groups: &mut Groups) {
    let restores = seen.inventory.index().restores();
    for held in restores.filter(|held| seen.held(held)) {
        if held.restore().is_some_and(|restore| restore.phase == "Failed") {
            let ready = ready_condition(&held.object);
            let why = ready.map_or_else(String::new, |c| explained(&c.reason, &c.message));
            add(groups, RESTORE_FAILED, held, why, describe("rres", held));
        }
    }
}

fn policies(seen: Seen<'_>, groups: &mut Groups) {
    let policies = seen.inventory.index().all_policies();
    for held in policies.filter(|held| seen.held(held)) {
        let condition = |kind: &str| {
            let mut all = held.object.conditions.iter();
            all.find(|c| c.r#type == kind && c.status == "True")
        };
        if let Some(approval) = condition("ApprovalRequired") {
            let why = explained(&approval.reason, &approval.message);
            add(groups, WAITING, held, why, "fleet plan list".to_owned());
            continue;
        }
        let result = held.policy().map_or("", |policy| policy.last_result.as_str());
        let failed = FAILURES.contains(&result);
        if failed || !is_ready(&held.object) {
            let unready = || ready_condition(&held.object).filter(|c| c.status == "False");
            let why = condition("Degraded").or_else(unready);
            let why = why.map(|why| explained(&why.reason, &why.message));
            // Its operator has not reported yet why the run did not end well.
            let why = why.or_else(|| failed.then(|| format!("the last run: {result}")));
            if let Some(why) = why {
                add(groups, POLICY_FAILED, held, why, describe("grp", held));
            }
        }
    }
}

fn add(groups: &mut Groups, state: &str, held: &Held, why: String, next: String) {
    let rank = STATES.iter().position(|s| *s == state).unwrap_or_default();
    let group = groups.entry((rank, why)).or_insert_with(|| Group {
        first: held.place.to_string(),
        count: 0,
        next,
    });
    group.count += 1;
}

fn describe(kind: &str, held: &Held) -> String {
    let object = &held.object;
    format!("kubectl describe {kind} -n {} {}", object.namespace, object.name)
}

fn explained(reason: &str, message: &str) -> String {
    match (reason, message) {
        ("", message) => message.to_owned(),
        (reason, "") => reason.to_owned(),
        (reason, message) => format!("{reason}: {message}"),
    }
}
