//! How a resource is, by its own status alone. Pure. The worst that holds is the state; unknown is never ok.

use jiff::{SignedDuration, Timestamp};
use serde_json::Value;

use super::rows::Seen;
use crate::objects::{condition, holds, is_true, said, text, time, unready};

/// A run that does not start for this long may well not start by itself.
const WAITS: SignedDuration = SignedDuration::from_mins(2);
/// A run that is due and did not begin within this time is late, no matter what should have started it.
const LATE: SignedDuration = SignedDuration::from_mins(10);
/// Results of a retention run that did not do what it was to do.
const FAILURES: [&str; 2] = ["Failed", "Interrupted"];

/// State and reason.
pub type Judged = (&'static str, String);

fn silent(seen: &Seen) -> Option<Judged> {
    seen.unheard().map(|why| ("stale", why.to_owned()))
}

/// A ResticBackup.
pub fn backup(seen: &Seen, object: &Value) -> Judged {
    let mut last = last_run(object);
    if let Some(failed) = last.take_if(|of| of.0 == "failed") {
        return failed;
    }
    if let Some(late) = late(object, seen.now) {
        return ("late", late);
    }
    if let Some(partial) = last.take_if(|of| of.0 == "partial") {
        return partial;
    }
    if let Some(why) = unready(object) {
        return ("notready", why);
    }
    let waits = holds(object, "Waiting").filter(|of| is_old(of, seen.now, WAITS));
    if let Some(waits) = waits {
        return ("notready", format!("a run does not start: {}", said(waits)));
    }
    if let Some(unwell) = last.or_else(|| silent(seen)) {
        return unwell;
    }
    let never = run(object).is_null() && time(object, "/status/lastSuccessfulBackup").is_none();
    let suspended = is_true(object, "/spec/suspend");
    match (never, is_running(object), suspended) {
        (true, true, _) => ("never", "the first run is under way".to_owned()),
        (true, _, _) => ("never", "it has not run yet".to_owned()),
        (_, true, _) => ("running", "a run is under way".to_owned()),
        (.., true) => ("suspended", "it is suspended".to_owned()),
        _ => ("ok", String::new()),
    }
}

fn run(object: &Value) -> &Value {
    object.pointer("/status/lastBackup").unwrap_or(&Value::Null)
}

fn is_running(object: &Value) -> bool {
    holds(object, "Progressing").is_some()
}

/// What is not well about a backup's last run. One that has failed counts until a later success.
pub fn last_run(object: &Value) -> Option<Judged> {
    let run = run(object);
    let (finished, success) = (
        time(run, "/completionTime"),
        time(object, "/status/lastSuccessfulBackup"),
    );
    let mended = matches!((success, finished), (Some(success), Some(finished)) if success > finished);
    match text(run, "/result") {
        "Succeeded" => None,
        "Failed" if mended => None,
        "Failed" => Some(("failed", said(run))),
        "PartiallyFailed" => Some(("partial", said(run))),
        _ if run.is_null() || is_running(object) => None,
        _ => Some(("notready", "the result of its last run is not known".to_owned())),
    }
}

/// Why a backup is late: by its operator's word, or by its own forecast where the operator does not look any more.
pub fn late(object: &Value, now: Timestamp) -> Option<String> {
    if is_true(object, "/spec/suspend") {
        return None;
    }
    if let Some(stale) = holds(object, "Stale") {
        return Some(said(stale));
    }
    let passed = now.duration_since(time(object, "/status/nextBackup")?);
    (passed > LATE && !is_running(object))
        .then(|| "a run was due, and nothing shows that it began".to_owned())
}

fn is_old(condition: &Value, now: Timestamp, limit: SignedDuration) -> bool {
    time(condition, "/lastTransitionTime").is_some_and(|at| now.duration_since(at) > limit)
}

/// A GlobalRetentionPolicy.
pub fn policy(seen: &Seen, object: &Value) -> Judged {
    if let Some(approval) = holds(object, "ApprovalRequired") {
        return ("waiting", said(approval));
    }
    if FAILURES.contains(&text(object, "/status/lastRunResult")) {
        let why = holds(object, "Degraded").map(said);
        return (
            "failed",
            why.unwrap_or_else(|| text(object, "/status/lastRunMessage").to_owned()),
        );
    }
    if let Some(why) = unready(object).or_else(|| holds(object, "Degraded").map(said)) {
        return ("notready", why);
    }
    if let Some(silent) = silent(seen) {
        return silent;
    }
    match (
        holds(object, "Progressing").is_some(),
        is_true(object, "/spec/suspend"),
        time(object, "/status/lastRun").is_some(),
    ) {
        (true, ..) => ("running", "a run is under way".to_owned()),
        (_, true, _) => (
            "suspended",
            "it is suspended: it removes nothing, and what it keeps stays kept".to_owned(),
        ),
        (_, _, false) => ("never", "it has not run yet".to_owned()),
        _ => ("ok", String::new()),
    }
}

/// A ResticRestore.
pub fn restore(seen: &Seen, object: &Value) -> Judged {
    let why = || {
        condition(object, "Ready")
            .filter(|of| text(of, "/status") != "True")
            .map(said)
            .unwrap_or_default()
    };
    match text(object, "/status/phase") {
        "Failed" => ("failed", why()),
        "Completed" => ("done", String::new()),
        phase => match (silent(seen), phase) {
            (Some(silent), _) => silent,
            (None, "InProgress") => ("running", String::new()),
            (None, _) => ("pending", why()),
        },
    }
}

/// Whether a ResticRepository can be used, with reason and message.
pub fn repository(object: &Value) -> (bool, String, String) {
    match condition(object, "Ready") {
        Some(ready) => (
            text(ready, "/status") == "True",
            text(ready, "/reason").to_owned(),
            text(ready, "/message").to_owned(),
        ),
        None => (
            false,
            String::new(),
            "its operator has not reported a Ready condition yet".to_owned(),
        ),
    }
}
