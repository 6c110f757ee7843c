//! Locks, plans and the audit as text. Pure.

use std::fmt::Write as _;

use jiff::Timestamp;
use proto::text::cleaned;
use proto::v1::{AuditEntry, AuditResponse, Lock, OperationOutcome, Plan};

use crate::render::align;
use crate::text::{ago, bytes, millis, progress, short};

pub(super) fn heading(names: &[&str]) -> Vec<String> {
    names.iter().map(|&n| n.to_owned()).collect()
}

pub(super) fn name(repository: &str, id: &str) -> String {
    if repository.is_empty() {
        short(id).to_owned()
    } else {
        repository.to_owned()
    }
}

/// `fleet locks`
#[must_use]
pub fn locks(locks: &[Lock], now: Timestamp) -> String {
    let mut lines = vec![heading(&[
        "REPOSITORY",
        "ID",
        "STATE",
        "TOKEN",
        "HOLDER",
        "SINCE",
        "RENEWED",
        "WAITING",
        "PROGRESS",
    ])];
    for lock in locks {
        let held = lock.state == "held";
        let since = |ms| {
            if held {
                format!("{} ago", millis(ms))
            } else {
                "-".to_owned()
            }
        };
        lines.push(vec![
            name(&lock.repository, &lock.restic_id),
            short(&lock.restic_id).to_owned(),
            lock.state.to_uppercase(),
            lock.token.to_string(),
            if lock.cluster.is_empty() {
                "-".to_owned()
            } else {
                format!("{} {}", lock.cluster, lock.subject)
            },
            since(lock.held_ms),
            since(lock.renewed_ms),
            lock.waiters.len().to_string(),
            progress(lock.progress.as_ref(), now),
        ]);
    }
    align(&lines)
}

/// `fleet why-locked`
#[must_use]
pub fn why_locked(lock: &Lock, now: Timestamp) -> String {
    let repository = name(&lock.repository, &lock.restic_id);
    let mut text = String::new();
    let (state, detail, next) = standing(lock, &repository);
    let _ = writeln!(text, "{state:<8}{repository}  {detail}");
    for (n, waiter) in lock.waiters.iter().enumerate() {
        let head = if n == 0 { "WAITS" } else { "" };
        let _ = writeln!(
            text,
            "{head:<8}{} {} {} {}: {}",
            n + 1,
            waiter.cluster,
            waiter.subject,
            millis(waiter.waited_ms),
            waiter.reason
        );
    }
    restic_locks(&mut text, lock, now);
    let _ = writeln!(text, "next    {next}");
    // Line breaks are ours; nothing else may move the cursor.
    text.lines().map(|line| cleaned(line) + "\n").collect()
}

/// Where a lock stands: the state, who and since when, and what a person may do.
fn standing(lock: &Lock, repository: &str) -> (&'static str, String, String) {
    let who = format!("{} {}", lock.cluster, lock.subject);
    match lock.state.as_str() {
        "held" => held(lock, &who, repository),
        "delayed" if lock.cluster.is_empty() => (
            "DELAY",
            format!(
                "token {} was granted before, and the hub does not remember to whom; free in {}",
                lock.token,
                millis(lock.ends_ms)
            ),
            "nothing to do; was the hub's store restored from a backup? its holder ends meanwhile".to_owned(),
        ),
        "delayed" => (
            "DELAY",
            format!(
                "{who} fell silent with token {}; free in {}",
                lock.token,
                millis(lock.ends_ms)
            ),
            format!(
                "nothing to do; its pod has ended itself, and the wait makes that certain (if you have checked: \
                 fleet locks release {repository} --token {} --i-checked)",
                lock.token
            ),
        ),
        "draining" => (
            "DRAINS",
            format!(
                "{who} is next; running backups end first, for {} at most",
                millis(lock.ends_ms)
            ),
            "nothing to do".to_owned(),
        ),
        "granting" => ("GRANTS", who, "nothing to do".to_owned()),
        _ => (
            "FREE",
            format!("last token {}", lock.token),
            if lock.waiters.is_empty() {
                "nothing to do".to_owned()
            } else {
                "nothing holds it; what each one waits for is above".to_owned()
            },
        ),
    }
}

fn held(lock: &Lock, who: &str, repository: &str) -> (&'static str, String, String) {
    let detail = format!(
        "{who}, token {}, {}, renewed {} ago",
        lock.token,
        millis(lock.held_ms),
        millis(lock.renewed_ms)
    );
    let next = if lock.revoked {
        "taken back; its pod ends, and its end frees the repository".to_owned()
    } else {
        format!(
            "nothing to do; to stop: fleet locks release {repository} --token {}",
            lock.token
        )
    };
    ("HELD", detail, next)
}

/// restic's own locks: whose they are, why they stay, and what a person may do.
fn restic_locks(text: &mut String, lock: &Lock, now: Timestamp) {
    for restic in &lock.restic_locks {
        let kind = if restic.exclusive {
            "exclusive, stops everything"
        } else {
            "shared, stops forget and prune"
        };
        let _ = writeln!(
            text,
            "RESTIC  {} {kind}, of {} on {}, written {}, unchanged since {}",
            short(&restic.id),
            or_dash(&restic.user),
            or_dash(&restic.host),
            ago(restic.created.as_ref(), now),
            ago(restic.unchanged_since.as_ref(), now)
        );
        if restic.kept_because.is_empty() {
            let _ = writeln!(
                text,
                "        left behind by a dead process; it is removed now: fleet audit"
            );
        } else {
            let _ = writeln!(text, "        stays: {}", restic.kept_because);
        }
    }
    if lock
        .restic_locks
        .iter()
        .any(|restic| !restic.kept_because.is_empty())
    {
        let _ = writeln!(
            text,
            "        by hand, when you know that its process is dead: restic -r {} unlock (--remove-all for a lock that \
             cannot be read, or is younger than 30 minutes; only when nothing works on the repository)",
            or_dash(&lock.url)
        );
    }
}

fn or_dash(text: &str) -> &str {
    if text.is_empty() { "-" } else { text }
}

/// `fleet plan list`
#[must_use]
pub fn plans(plans: &[Plan], now: Timestamp) -> String {
    let mut lines = vec![heading(&[
        "PLAN",
        "STATE",
        "REPOSITORY",
        "REMOVES",
        "MADE",
        "BY",
        "WHY",
    ])];
    for plan in plans {
        let outcome = plan.outcome.clone().unwrap_or_default();
        lines.push(vec![
            plan.id.clone(),
            plan.state.to_uppercase(),
            name(&plan.repository, &plan.restic_id),
            format!("{} of {}", outcome.planned, outcome.snapshots),
            ago(plan.made.as_ref(), now),
            format!("{} {}", plan.cluster, plan.subject),
            outcome.message,
        ]);
    }
    align(&lines)
}

/// `fleet audit`: runs, then what people decided in the same time.
#[must_use]
pub fn audit(answer: &AuditResponse, now: Timestamp) -> String {
    let mut text = entries(&answer.entries, now);
    if answer.decisions.is_empty() {
        return text;
    }
    let mut lines = vec![heading(&["DECIDED", "WHO", "WHAT", "SUBJECT", "BEFORE", "AFTER"])];
    for decision in &answer.decisions {
        lines.push(vec![
            ago(decision.at.as_ref(), now),
            decision.who.clone(),
            decision.what.clone(),
            decision.subject.clone(),
            decision.before.clone(),
            decision.after.clone(),
        ]);
    }
    text.push('\n');
    text.push_str(&align(&lines));
    text
}

fn entries(entries: &[AuditEntry], now: Timestamp) -> String {
    let mut lines = vec![heading(&[
        "GRANTED",
        "REPOSITORY",
        "TOKEN",
        "BY",
        "RESULT",
        "REMOVED",
        "FREED",
        "POLICIES",
        "COVERED",
        "PLAN",
    ])];
    for entry in entries {
        let outcome = entry.outcome.clone();
        let result = match (&outcome, &entry.ended) {
            (Some(outcome), _) if !outcome.reason.is_empty() => {
                format!("{} ({})", outcome.result, outcome.reason)
            }
            (Some(outcome), _) => outcome.result.clone(),
            (None, Some(_)) => "Interrupted".to_owned(),
            (None, None) => "in progress or unknown".to_owned(),
        };
        let outcome = outcome.unwrap_or_default();
        let freed = if outcome.pruned {
            bytes(outcome.bytes_before.saturating_sub(outcome.bytes_after))
        } else {
            "-".to_owned()
        };
        lines.push(vec![
            ago(entry.granted.as_ref(), now),
            name(&entry.repository, &entry.restic_id),
            entry.token.to_string(),
            format!("{} {}", entry.cluster, entry.subject),
            result,
            removed(&outcome),
            freed,
            entry.policies.join(" "),
            entry.covered.join("; "),
            entry.plan.clone(),
        ]);
    }
    align(&lines)
}

/// Snapshots, or restic's locks by the beginning of their ids.
fn removed(outcome: &OperationOutcome) -> String {
    if outcome.removed_locks.is_empty() {
        return outcome.removed.to_string();
    }
    let ids: Vec<&str> = outcome.removed_locks.iter().map(|id| short(id)).collect();
    format!("lock {}", ids.join(", "))
}

#[cfg(test)]
mod tests {
    use proto::v1::{LockWaiter, ResticLock};

    use super::*;

    #[test]
    fn why_locked_says_who_since_when_and_what_next() {
        let lock = Lock {
            restic_id: "ab".repeat(32),
            repository: "nas".to_owned(),
            state: "held".to_owned(),
            token: 88,
            cluster: "prod-us".to_owned(),
            subject: "retention ops/main".to_owned(),
            held_ms: 34 * 60_000,
            renewed_ms: 8_000,
            waiters: vec![LockWaiter {
                cluster: "prod-eu".to_owned(),
                subject: "retention ops/eu".to_owned(),
                waited_ms: 300_000,
                reason: "held by retention ops/main of prod-us, token 88".to_owned(),
            }],
            ..Lock::default()
        };
        let text = why_locked(&lock, Timestamp::UNIX_EPOCH);
        assert_eq!(
            text.lines().next(),
            Some("HELD    nas  prod-us retention ops/main, token 88, 34m, renewed 8s ago")
        );
        assert!(
            text.contains("WAITS   1 prod-eu retention ops/eu 5m: held by"),
            "{text}"
        );
        assert!(text.ends_with("fleet locks release nas --token 88\n"), "{text}");
    }

    #[test]
    fn why_locked_names_restics_locks_and_the_command_for_a_person() {
        let at = |seconds| Some(prost_types::Timestamp { seconds, nanos: 0 });
        let restic = ResticLock {
            id: "4f".repeat(32),
            exclusive: true,
            user: "root".to_owned(),
            host: "nas".to_owned(),
            created: at(600),
            unchanged_since: at(1200),
            kept_because: "it cannot be read".to_owned(),
        };
        let lock = Lock {
            restic_id: "ab".repeat(32),
            repository: "nas".to_owned(),
            state: "free".to_owned(),
            url: "s3:https://s3.example.org/b".to_owned(),
            restic_locks: vec![restic],
            ..Lock::default()
        };
        let text = why_locked(
            &lock,
            Timestamp::UNIX_EPOCH + jiff::SignedDuration::from_secs(3000),
        );
        for part in [
            "RESTIC  4f4f4f4f4f exclusive, stops everything, of root on nas, written 40m ago, unchanged since 30m ago",
            "stays: it cannot be read",
            "restic -r s3:https://s3.example.org/b unlock (",
        ] {
            assert!(text.contains(part), "{text}");
        }
    }

    #[test]
    fn the_audit_names_a_lock_that_was_removed() {
        let entry = AuditEntry {
            outcome: Some(OperationOutcome {
                result: "Applied".to_owned(),
                removed_locks: vec!["4f".repeat(32)],
                ..OperationOutcome::default()
            }),
            ..AuditEntry::default()
        };
        let answer = AuditResponse {
            entries: vec![entry],
            ..AuditResponse::default()
        };
        assert!(audit(&answer, Timestamp::UNIX_EPOCH).contains("lock 4f4f4f4f4f"));
    }
}
