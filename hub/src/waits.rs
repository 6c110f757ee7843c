//! What waits for a person besides backups: repositories that cannot be used, restores and retention runs that failed,
//! and plans that need approval.

use std::collections::BTreeMap;

use proto::v1::Attention;

use crate::evidence;
use crate::inventory::Held;
use crate::seen::Seen;

/// What can be wrong, in the order in which it is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Matter {
    /// A check has found damage in a repository.
    Damaged,
    /// A repository does not hold what a backup's status reports.
    Unproven,
    /// A repository cannot be used.
    Unready,
    RestoreFailed,
    PolicyFailed,
    /// A plan waits for approval.
    Waiting,
}

impl Matter {
    /// All of them.
    pub const ALL: [Matter; 6] = [
        Matter::Damaged,
        Matter::Unproven,
        Matter::Unready,
        Matter::RestoreFailed,
        Matter::PolicyFailed,
        Matter::Waiting,
    ];

    /// The name on the wire.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Matter::Damaged => "damaged",
            Matter::Unproven => "unproven",
            Matter::Unready => "unready",
            Matter::RestoreFailed => "restore-failed",
            Matter::PolicyFailed => "policy-failed",
            Matter::Waiting => "waiting",
        }
    }

    /// A snapshot that counts as a backup may not be there, or may not be readable.
    #[must_use]
    pub const fn is_unsafe(self) -> bool {
        matches!(self, Matter::Damaged | Matter::Unproven)
    }

    /// Command that lists all of them.
    #[must_use]
    pub const fn lists(self) -> &'static str {
        match self {
            Matter::Damaged | Matter::Unready => "fleet repos",
            Matter::Unproven => "fleet backups",
            Matter::RestoreFailed => "fleet restores",
            Matter::PolicyFailed => "fleet policies",
            Matter::Waiting => "fleet plan list",
        }
    }
}

/// States in the order in which they are shown.
pub const STATES: [&str; 6] = {
    let mut states = [""; 6];
    let mut n = 0;
    while n < states.len() {
        states[n] = Matter::ALL[n].as_str();
        n += 1;
    }
    states
};
/// Results of a retention run that did not do what it was to do.
const FAILURES: [&str; 2] = ["Failed", "Interrupted"];

/// Those with one cause: the first of them, and how many.
pub struct Group<'a> {
    pub first: &'a Held,
    pub count: u64,
}

/// Everything that is seen, grouped by cause, for a person who does not see the whole fleet. What a silent cluster reported
/// last counts: nothing shows that it is over.
#[must_use]
pub fn narrow(seen: Seen<'_>) -> BTreeMap<(Matter, String), Group<'_>> {
    let mut groups: BTreeMap<(Matter, String), Group<'_>> = BTreeMap::new();
    let mut add = |held, wrong: Vec<(Matter, String)>| {
        for key in wrong {
            groups
                .entry(key)
                .or_insert(Group {
                    first: held,
                    count: 0,
                })
                .count += 1;
        }
    };
    let index = seen.inventory.index();
    for held in index.repositories().flat_map(|key| seen.bindings(key)) {
        add(held, of(held));
    }
    for held in seen.backups(&[]) {
        let listing = seen
            .inventory
            .collected(held.restic_id())
            .and_then(|c| c.listing.as_deref());
        let reason = listing.and_then(|listing| evidence::unproven(held, listing));
        add(
            held,
            reason.into_iter().map(|why| (Matter::Unproven, why)).collect(),
        );
    }
    let others = index.restores().chain(index.all_policies());
    for held in others.filter(|held| seen.held(held)) {
        add(held, of(held));
    }
    groups
}

/// A group as it is shown.
#[must_use]
pub fn attention(matter: Matter, detail: &str, first: &Held, count: u64) -> Attention {
    Attention {
        state: matter.as_str().to_owned(),
        subject: match count {
            1 => first.place.to_string(),
            count => format!("{} and {} more", first.place, count - 1),
        },
        detail: detail.to_owned(),
        count,
        next: next(matter, first),
    }
}

/// Command that shows more of one of them.
fn next(matter: Matter, held: &Held) -> String {
    let describe = |kind| format!("kubectl describe {kind} -n {} {}", held.namespace(), held.name());
    match matter {
        Matter::Damaged | Matter::Unready => format!("fleet repos {}", held.name()),
        Matter::Unproven => format!("fleet backups {}", held.place),
        Matter::RestoreFailed => describe("rres"),
        Matter::PolicyFailed => describe("grp"),
        Matter::Waiting => "fleet plan list".to_owned(),
    }
}

/// What is wrong with a resource, by its own status. Pure.
#[must_use]
pub fn of(held: &Held) -> Vec<(Matter, String)> {
    let mut wrong = Vec::new();
    if let Some(repository) = held.repository() {
        if !repository.damage.is_empty() {
            wrong.push((Matter::Damaged, repository.damage.clone()));
        }
        // Unknown means that it is being checked.
        let condition = held.ready_condition().filter(|ready| ready.status == "False");
        wrong.extend(condition.map(|c| (Matter::Unready, explained(&c.reason, &c.message))));
    } else if held.restore().is_some_and(|restore| restore.phase == "Failed") {
        let ready = held.ready_condition();
        let why = ready.map_or_else(String::new, |c| explained(&c.reason, &c.message));
        wrong.push((Matter::RestoreFailed, why));
    } else if held.policy().is_some() {
        wrong.extend(policy(held));
    }
    wrong
}

fn policy(held: &Held) -> Option<(Matter, String)> {
    let condition = |kind: &str| {
        let mut all = held.conditions().iter();
        all.find(|c| c.r#type == kind && c.status == "True")
    };
    if let Some(approval) = condition("ApprovalRequired") {
        return Some((Matter::Waiting, explained(&approval.reason, &approval.message)));
    }
    let result = held.policy().map_or("", |policy| policy.last_result.as_str());
    let failed = FAILURES.contains(&result);
    if !failed && held.is_ready() {
        return None;
    }
    let unready = || held.ready_condition().filter(|c| c.status == "False");
    let why = condition("Degraded").or_else(unready);
    let why = why.map(|why| explained(&why.reason, &why.message));
    // Its operator has not reported yet why the run did not end well.
    let why = why.or_else(|| failed.then(|| format!("the last run: {result}")));
    why.map(|why| (Matter::PolicyFailed, why))
}

/// Whether the last run of a policy did not do what it was to do.
#[must_use]
pub fn last_run_failed(result: &str) -> bool {
    FAILURES.contains(&result)
}

fn explained(reason: &str, message: &str) -> String {
    match (reason, message) {
        ("", message) => message.to_owned(),
        (reason, "") => reason.to_owned(),
        (reason, message) => format!("{reason}: {message}"),
    }
}
