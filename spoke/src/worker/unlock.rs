//! Removes restic's left-over locks, under the maintenance lock of the fleet. Which locks may go was found by the
//! operator, by watching them; here is made sure that restic's own `unlock`, which goes by the wall clock and by host
//! names, takes those and no others. Before that the repository is checked: a process died in it, and no prune can
//! have run since, because its lock still stands.

use std::collections::BTreeSet;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use proto::v1::{OperationOutcome, UnlockRun};

use super::child::{Restic, Stopped};
use super::limits::{CHECK, Limit};
use super::retention::{OPEN, reporting, wait_for_lease, words};
use super::{failed, log};
use crate::clock::since_boot;
use crate::restic::Failure;
use crate::restic::locks::STALE_LOCK;
use crate::restic::locks::owner_in_words;
use crate::restic::locks::{self, LockFile};
use crate::restic::output;

/// What restic takes for stale, by the wall clock.
const STALE: SignedDuration = SignedDuration::from_mins(30);
/// A lock that is not to go must be younger than that by so much.
const MARGIN: SignedDuration = SignedDuration::from_mins(5);
/// An order takes so long to get here at most; a pod whose clock shows more has not the operator's time.
const ON_THE_WAY: SignedDuration = SignedDuration::from_mins(20);
/// A backup that ends while the repository is checked may look like an error once.
const CHECKS: u32 = 2;
/// restic spares a lock of its own host while a process with the same number runs there, which may be its own.
const TRIES: usize = 4;
/// `list` and `cat` are short.
const SHORT: Duration = Duration::from_secs(90);

/// A lock in the repository.
#[derive(Clone, Debug)]
struct Found {
    id: String,
    /// `None` if it cannot be read. restic's unlock leaves it alone.
    file: Option<LockFile>,
}

/// Why nothing is removed.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Refusal {
    reason: &'static str,
    text: String,
}

impl Refusal {
    fn new(reason: &'static str, text: String) -> Refusal {
        Refusal { reason, text }
    }
}

/// Runs, and returns the outcome. `host` is the name of the machine as restic sees it.
pub async fn run(run: &UnlockRun, restic: Restic, host: &str) -> OperationOutcome {
    match steps(run, &restic, host).await {
        Ok(outcome) => outcome,
        Err(stopped) => {
            let (result, reason) = match &stopped {
                Stopped::LeaseLost => ("Interrupted", "LeaseLost"),
                Stopped::Signal => ("Interrupted", "Stopped"),
                Stopped::Alarm(_) => ("Failed", "IncompleteRead"),
                Stopped::StaleLock(_) => ("Failed", STALE_LOCK),
                Stopped::Failed(failure) => ("Failed", crate::pod::message::reason_of(failure)),
            };
            OperationOutcome {
                result: result.to_owned(),
                ..failed(reason, stopped.to_string())
            }
        }
    }
}

async fn steps(run: &UnlockRun, restic: &Restic, host: &str) -> Result<OperationOutcome, Stopped> {
    wait_for_lease(restic).await?;
    let config = words(&["cat", "config", "--no-lock", "--json"]);
    let id = output::config_id(&restic.run(&config, Limit::Whole(OPEN)).await?)?;
    if id != run.restic_id {
        let text = format!("the repository here is {id}, the lock is for {}", run.restic_id);
        return Ok(failed("RepositoryChanged", text));
    }
    let start = (since_boot(), Timestamp::now());
    if let Some(refusal) = clock(run, start.1) {
        return Ok(refused(refusal));
    }
    if let Some(refusal) = may(run, &read(restic).await?, host, start.1) {
        return Ok(refused(refusal));
    }
    if let Some(refusal) = check(restic, CHECK).await? {
        return Ok(refused(refusal));
    }
    // The check may have taken hours.
    let now = Timestamp::now();
    if stepped(start, (since_boot(), now)) {
        let text = "the node's wall clock was set meanwhile".to_owned();
        return Ok(refused(Refusal::new("ClockSkew", text)));
    }
    let before = read(restic).await?;
    if let Some(refusal) = may(run, &before, host, now) {
        return Ok(refused(refusal));
    }
    let left = unlock(run, restic, host, &before).await?;
    Ok(conclude(run, &before, &left, now))
}

/// Runs restic's unlock. Returns the ids that are there afterwards.
async fn unlock(
    run: &UnlockRun,
    restic: &Restic,
    host: &str,
    before: &[Found],
) -> Result<BTreeSet<String>, Stopped> {
    let ours = |id: &String| {
        let found = before.iter().find(|f| f.id == *id);
        found.is_some_and(|f| f.file.as_ref().is_some_and(|file| file.host == host))
    };
    let mut tries = 0;
    loop {
        // Never --remove-all.
        restic.run(&words(&["unlock"]), Limit::Whole(SHORT)).await?;
        let left: BTreeSet<String> = list(restic).await?.into_iter().collect();
        tries += 1;
        if tries >= TRIES || !run.locks.iter().any(|id| left.contains(id) && ours(id)) {
            return Ok(left);
        }
    }
}

pub(super) async fn list(restic: &Restic) -> Result<Vec<String>, Stopped> {
    let printed = restic
        .run(&words(&["list", "locks", "--no-lock"]), Limit::Whole(SHORT))
        .await?;
    Ok(locks::ids(&printed)?)
}

/// All locks with what they hold.
async fn read(restic: &Restic) -> Result<Vec<Found>, Stopped> {
    let mut found = Vec::new();
    for id in list(restic).await? {
        let file = read_one(restic, &id).await?;
        found.push(Found { id, file });
    }
    Ok(found)
}

/// What a lock holds; `None` if it is not there any more, or cannot be decrypted.
///
/// # Errors
/// When the storage does not answer or refuses: the lock may still be held.
pub(super) async fn read_one(restic: &Restic, id: &str) -> Result<Option<LockFile>, Stopped> {
    let printed = restic
        .run(&words(&["cat", "lock", id, "--no-lock"]), Limit::Whole(SHORT))
        .await;
    match printed {
        Ok(printed) => Ok(locks::lock_file(&printed).ok()),
        Err(Stopped::Failed(failure @ (Failure::Other(_) | Failure::Damaged(_)))) => {
            log(&format!("lock {id} cannot be read: {failure}"));
            Ok(None)
        }
        Err(stopped) => Err(stopped),
    }
}

/// Whether the pod's clock is the operator's, about.
fn clock(run: &UnlockRun, now: Timestamp) -> Option<Refusal> {
    let made = Timestamp::from_millisecond(run.made_ms).ok()?;
    let passed = now.duration_since(made);
    (passed > ON_THE_WAY || passed < -MARGIN).then(|| {
        let text = format!(
            "the order was made at {made}, and the clock of this pod's node says {now}: set the clocks first"
        );
        Refusal::new("ClockSkew", text)
    })
}

/// Whether restic's unlock would take what it is to take, and nothing else. Pure.
fn may(run: &UnlockRun, found: &[Found], host: &str, now: Timestamp) -> Option<Refusal> {
    let present = |id: &String| found.iter().any(|f| f.id == *id);
    if let Some(gone) = run.locks.iter().find(|id| !present(id)) {
        let text = format!(
            "lock {} is not there any more: removed by somebody, or renewed by its process",
            short(gone)
        );
        return Some(Refusal::new("LocksChanged", text));
    }
    if run.locks.is_empty() {
        return Some(Refusal::new(
            "LocksChanged",
            "no lock is to be removed".to_owned(),
        ));
    }
    let others = found.iter().filter(|f| !run.locks.contains(&f.id));
    others.into_iter().find_map(|other| {
        let file = other.file.as_ref()?;
        let age = now.duration_since(file.time);
        let why = if file.host == host {
            format!("it was written on a machine with this pod's host name, {host}")
        } else if age > STALE - MARGIN {
            format!("its time is {} old", minutes(age))
        } else {
            return None;
        };
        let text = format!(
            "restic would take lock {} of {} as well, which may be in use: {why}",
            short(&other.id),
            owner_in_words(file)
        );
        Some(Refusal::new("OtherLocks", text))
    })
}

/// Whether the wall clock was set between two moments.
fn stepped(from: (u64, Timestamp), to: (u64, Timestamp)) -> bool {
    let boot = SignedDuration::from_millis(i64::try_from(to.0.saturating_sub(from.0)).unwrap_or(i64::MAX));
    (to.1.duration_since(from.1) - boot).abs() > MARGIN
}

/// Checks the repository's structure, within `time`. Returns why nothing may be removed.
async fn check(restic: &Restic, time: Duration) -> Result<Option<Refusal>, Stopped> {
    let restic = reporting(restic);
    let (start, mut begun) = (since_boot(), since_boot());
    for tried in 1.. {
        let left = time.saturating_sub(Duration::from_millis(begun - start));
        let ended = restic
            .run_watched(
                &words(&["check", "--no-lock"]),
                Some(Box::new(|_| None)),
                Limit::check(left),
            )
            .await;
        let failure = match ended {
            Ok(()) => return Ok(None),
            Err(Stopped::Failed(failure)) => failure,
            Err(stopped) => return Err(stopped),
        };
        // One that took longer than what is left would come to no end.
        let now = since_boot();
        let fits = Duration::from_millis((now - start) + (now - begun)) < time;
        if tried >= CHECKS || !fits {
            return Ok(Some(unchecked(&failure, time)));
        }
        begun = now;
    }
    Ok(None)
}

fn unchecked(failure: &Failure, time: Duration) -> Refusal {
    if matches!(failure, Failure::DeadlineExceeded(_)) {
        let text = format!(
            "restic check had not ended after {} hours; the locks stay until it does, or until a person has run `restic check` and `restic unlock`",
            time.as_secs() / 3600
        );
        return Refusal::new("CheckTimeout", text);
    }
    let text = format!(
        "restic check: {failure}; the locks stay, so that no prune deletes anything before a person has looked"
    );
    Refusal::new("CheckFailed", text)
}

fn refused(refusal: Refusal) -> OperationOutcome {
    // Nothing is wrong when somebody else was quicker, or the process lives after all.
    let result = if refusal.reason == "LocksChanged" {
        "NothingToRemove"
    } else {
        "Failed"
    };
    OperationOutcome {
        result: result.to_owned(),
        ..failed(refusal.reason, refusal.text)
    }
}

fn conclude(run: &UnlockRun, before: &[Found], left: &BTreeSet<String>, now: Timestamp) -> OperationOutcome {
    let gone: Vec<&Found> = before.iter().filter(|f| !left.contains(&f.id)).collect();
    let removed: Vec<&Found> = gone.into_iter().filter(|f| run.locks.contains(&f.id)).collect();
    let stay = run.locks.len() - removed.len();
    let told: Vec<String> = removed.iter().map(|f| describe(f, now)).collect();
    let mut outcome = OperationOutcome {
        result: "Applied".to_owned(),
        removed_locks: removed.iter().map(|f| f.id.clone()).collect(),
        message: format!("checked the repository and removed {}", told.join("; ")),
        ..OperationOutcome::default()
    };
    if stay > 0 {
        "Failed".clone_into(&mut outcome.result);
        "NotRemoved".clone_into(&mut outcome.reason);
        let text =
            "restic left them alone: by the clock of this pod's node their time is less than 30 minutes old";
        outcome.message = match told.as_slice() {
            [] => format!("{stay} locks are still there; {text}"),
            told => format!(
                "{stay} locks are still there; {text}; removed {}",
                told.join("; ")
            ),
        };
    }
    outcome
}

fn describe(found: &Found, now: Timestamp) -> String {
    let kind = |exclusive| if exclusive { "exclusive lock" } else { "lock" };
    match &found.file {
        Some(file) => format!(
            "{} {} of {}, {} old",
            kind(file.exclusive),
            short(&found.id),
            owner_in_words(file),
            minutes(now.duration_since(file.time))
        ),
        None => format!("lock {}", short(&found.id)),
    }
}

fn minutes(age: SignedDuration) -> String {
    match age.as_mins() {
        0 => format!("{}s", age.as_secs()),
        minutes => format!("{minutes}m"),
    }
}

fn short(id: &str) -> &str {
    id.get(..10).unwrap_or(id)
}

#[cfg(test)]
#[path = "unlock_tests.rs"]
mod tests;
