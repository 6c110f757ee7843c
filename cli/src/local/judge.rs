//! How a resource is, by its own status alone. Pure. The worst that holds is the state; unknown is never ok.

use jiff::{SignedDuration, Timestamp};
use serde_json::Value;

use super::rows::Seen;
use crate::objects::{condition, holds, is_true, said, text, time};

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

fn unready(object: &Value) -> Option<String> {
    match condition(object, "Ready") {
        None => Some("its operator has not reported a Ready condition yet".to_owned()),
        Some(ready) if text(ready, "/status") != "True" => Some(said(ready)),
        Some(_) => None,
    }
}

/// A ResticBackup.
pub fn backup(seen: &Seen, object: &Value) -> Judged {
    let run = object.pointer("/status/lastBackup").unwrap_or(&Value::Null);
    let suspended = is_true(object, "/spec/suspend");
    let running = holds(object, "Progressing").is_some();
    let (finished, success) = (
        time(run, "/completionTime"),
        time(object, "/status/lastSuccessfulBackup"),
    );
    let mended = matches!((success, finished), (Some(success), Some(finished)) if success > finished);
    let waiting = holds(object, "Waiting");
    if text(run, "/result") == "Failed" && !mended {
        return ("failed", said(run));
    }
    if let Some(late) = late(seen, object, suspended, running) {
        return ("late", late);
    }
    if text(run, "/result") == "PartiallyFailed" {
        return ("partial", said(run));
    }
    if let Some(why) = unready(object) {
        return ("notready", why);
    }
    let waits = waiting.filter(|of| is_old(of, seen.now, WAITS));
    if let Some(waits) = waits {
        return ("notready", format!("a run does not start: {}", said(waits)));
    }
    if !run.is_null()
        && !["Succeeded", "PartiallyFailed", "Failed"].contains(&text(run, "/result"))
        && !running
    {
        return ("notready", "the result of its last run is not known".to_owned());
    }
    if let Some(silent) = silent(seen) {
        return silent;
    }
    match (run.is_null() && success.is_none(), running, suspended) {
        (true, true, _) => ("never", "the first run is under way".to_owned()),
        (true, _, _) => ("never", "it has not run yet".to_owned()),
        (_, true, _) => ("running", "a run is under way".to_owned()),
        (.., true) => ("suspended", "it is suspended".to_owned()),
        _ => ("ok", String::new()),
    }
}

/// By its operator's word, or by its own forecast where the operator does not look any more.
fn late(seen: &Seen, object: &Value, suspended: bool, running: bool) -> Option<String> {
    if suspended {
        return None;
    }
    if let Some(stale) = holds(object, "Stale") {
        return Some(said(stale));
    }
    let due = time(object, "/status/nextBackup")?;
    let passed = seen.now.duration_since(due);
    (passed > LATE && !running).then(|| "a run was due, and nothing shows that it began".to_owned())
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
