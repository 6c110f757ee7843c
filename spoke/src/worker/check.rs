//! Checks a repository's integrity, under the maintenance lock of the fleet: no prune of the fleet runs meanwhile. restic's
//! own lock is not taken (`--no-lock`), because a check would take it exclusively and stop all backups for hours.
//! What restic reads of a backup that ends meanwhile, or of somebody else's prune, may look like damage once, so damage
//! counts only when a second check finds it too, and no process holds the repository for itself.

use std::time::Duration;

use proto::v1::{CheckRun, OperationOutcome};

use super::child::{Examined, Restic, Stopped};
use super::findings::{Damage, Kind, judge};
use super::limits::Limit;
use super::retention::{OPEN, reporting, wait_for_lease, words};
use super::unlock::{list, read_one};
use super::{failed, log};
use crate::clock::since_boot;
use crate::restic::locks::owner_in_words;
use crate::restic::{Failure, output};

/// All of a check's work. It fits into the deadline of its Job.
const TIME: Duration = Duration::from_secs(70 * 3600);
/// Checks of the same part at most, until two in a row find the same.
const CHECKS: u32 = 3;
/// Missing pack files that are asked for by name.
const LOOKED_FOR: usize = 3;
/// How storages and restic say that a file is not there.
const ABSENT: &[&str] = &[
    "no such file",
    "does not exist",
    "not exist",
    "not found",
    "NotFound",
    "NoSuchKey",
    "(404)",
    "404 Not Found",
    "Error 404",
];

/// Runs, and reports what came of it.
pub async fn run(run: &CheckRun, restic: Restic) -> OperationOutcome {
    let outcome = match steps(run, &restic, TIME).await {
        Ok(outcome) => outcome,
        Err(stopped) => without_result(&stopped),
    };
    OperationOutcome {
        checked_of: run.of,
        ..outcome
    }
}

/// A check that could not come to a result: nothing is known anew of the repository.
fn without_result(stopped: &Stopped) -> OperationOutcome {
    let (result, reason) = match stopped {
        Stopped::LeaseLost => ("Interrupted", "LeaseLost"),
        Stopped::Signal => ("Interrupted", "Stopped"),
        Stopped::Alarm(_) | Stopped::StaleLock(_) => ("Failed", "IncompleteRead"),
        Stopped::Failed(Failure::DeadlineExceeded(_)) => ("Failed", "CheckTimeout"),
        Stopped::Failed(failure) => ("Failed", crate::pod::message::reason_of(failure)),
    };
    OperationOutcome {
        result: result.to_owned(),
        ..failed(reason, format!("the check has no result: {stopped}"))
    }
}

async fn steps(run: &CheckRun, restic: &Restic, time: Duration) -> Result<OperationOutcome, Stopped> {
    wait_for_lease(restic).await?;
    let config = words(&["cat", "config", "--no-lock", "--json"]);
    let id = output::config_id(&restic.run(&config, Limit::Whole(OPEN)).await?)?;
    if id != run.restic_id {
        let text = format!("the repository here is {id}, the lock is for {}", run.restic_id);
        return Ok(failed("RepositoryChanged", text));
    }
    let clock = Clock {
        restic: reporting(restic),
        start: since_boot(),
        time,
    };
    let mut found = Damage::default();
    for (read, part) in parts(run).into_iter().enumerate() {
        match confirmed(&clock, part.as_deref()).await {
            Ok(damage) => found.add(damage.unwrap_or_default()),
            Err(stopped) if found.kind().is_none() => return Err(stopped),
            Err(stopped) => return Ok(cut_short(run, &found, read, &stopped)),
        }
    }
    Ok(conclude(run, &found))
}

/// Damage that is confirmed counts, although parts after it could not be read. `read` of the run's parts were.
fn cut_short(run: &CheckRun, found: &Damage, read: usize, stopped: &Stopped) -> OperationOutcome {
    let parts = run.parts.iter().take(read).copied().collect();
    let outcome = conclude(&CheckRun { parts, ..run.clone() }, found);
    OperationOutcome {
        message: format!("{}; not all parts were read: {stopped}", outcome.message),
        ..outcome
    }
}

/// Values of `--read-data-subset`, `None` for the structure alone.
fn parts(run: &CheckRun) -> Vec<Option<String>> {
    if run.parts.is_empty() {
        return vec![None];
    }
    let part = |part: &u32| Some(format!("{part}/{}", run.of));
    run.parts.iter().map(part).collect()
}

/// restic, and the time that is left for all checks together.
struct Clock {
    restic: Restic,
    start: u64,
    time: Duration,
}

impl Clock {
    async fn check(&self, part: Option<&str>) -> Result<Examined, Stopped> {
        let spent = Duration::from_millis(since_boot().saturating_sub(self.start));
        let mut arguments = words(&["check", "--no-lock"]);
        arguments.extend(part.map(|part| format!("--read-data-subset={part}")));
        let limit = Limit::check(self.time.saturating_sub(spent));
        self.restic.examine(&arguments, limit).await
    }
}

/// Checks, and checks again when that finds damage. What the next check does not find as well is none.
async fn confirmed(clock: &Clock, part: Option<&str>) -> Result<Option<Damage>, Stopped> {
    let Some(mut before) = found(clock, part).await? else {
        return Ok(None);
    };
    for _ in 1..CHECKS {
        log("damage was found: checking again");
        let Some(again) = found(clock, part).await? else {
            log("the next check found nothing");
            return Ok(None);
        };
        if let Some(damage) = again.clone().also_in(&before) {
            settled(&clock.restic, &damage).await?;
            return Ok(Some(damage));
        }
        log("the next check found something else");
        before = again;
    }
    let last: Vec<&str> = before.words().collect();
    let text = format!(
        "{CHECKS} checks in a row found errors, each of them others: {}",
        last.join("; ")
    );
    Err(Failure::Other(text).into())
}

/// What one check finds.
async fn found(clock: &Clock, part: Option<&str>) -> Result<Option<Damage>, Stopped> {
    let examined = clock.check(part).await?;
    Ok(judge(examined.code, &examined.lines)?)
}

/// Whether damage is no passing state of the repository.
///
/// # Errors
/// When it may be one.
async fn settled(restic: &Restic, damage: &Damage) -> Result<(), Stopped> {
    if let Some(holder) = exclusive_holder(restic).await? {
        let text = format!("{holder} holds the repository for itself, and may change it while it is checked");
        return Err(Failure::Locked(text).into());
    }
    for pack in damage.missing().take(LOOKED_FOR) {
        is_missing(restic, pack).await?;
    }
    Ok(())
}

/// Who holds restic's exclusive lock, if anybody does.
async fn exclusive_holder(restic: &Restic) -> Result<Option<String>, Stopped> {
    for id in list(restic).await? {
        if let Some(file) = read_one(restic, &id).await?.filter(|file| file.exclusive) {
            return Ok(Some(owner_in_words(&file)));
        }
    }
    Ok(None)
}

/// Asks the storage for a pack file that its listing does not show.
///
/// # Errors
/// When it is there after all, or the storage does not say that it is not.
async fn is_missing(restic: &Restic, pack: &str) -> Result<(), Stopped> {
    let asked = words(&["cat", "pack", pack, "--no-lock"]);
    match restic.run(&asked, Limit::Whole(OPEN)).await {
        Ok(_) => {
            let text =
                format!("the storage does not list pack {pack}, and has it: its listings are not complete");
            Err(Failure::Other(text).into())
        }
        Err(Stopped::Failed(failure @ (Failure::Other(_) | Failure::Damaged(_)))) => {
            // The storage may name the file, and an id may read like anything.
            let text = failure.to_string().replace(pack, "");
            let absent = ABSENT.iter().any(|words| text.contains(words));
            if absent { Ok(()) } else { Err(failure.into()) }
        }
        // Out of reach, or refused.
        Err(stopped) => Err(stopped),
    }
}

fn conclude(run: &CheckRun, found: &Damage) -> OperationOutcome {
    let read = match run.parts.as_slice() {
        [] => "the structure was checked, and no data was read".to_owned(),
        [part] if run.of == 1 => {
            format!("the structure was checked, and all data (part {part} of 1) was read")
        }
        [part] => format!(
            "the structure was checked, and part {part} of {} of the data was read",
            run.of
        ),
        parts => {
            let parts: Vec<String> = parts.iter().map(u32::to_string).collect();
            format!(
                "the structure was checked, and parts {} of {} of the data were read",
                parts.join(", "),
                run.of
            )
        }
    };
    let outcome = OperationOutcome {
        checked: run.parts.clone(),
        ..OperationOutcome::default()
    };
    let Some(kind) = found.kind() else {
        return OperationOutcome {
            result: "Passed".to_owned(),
            message: format!("no errors were found: {read}"),
            ..outcome
        };
    };
    OperationOutcome {
        result: "Damaged".to_owned(),
        reason: kind.reason().to_owned(),
        message: found.words().collect::<Vec<_>>().join("; "),
        broken_packs: found.packs().map(str::to_owned).collect(),
        ..outcome
    }
}

impl Kind {
    /// Reason in CamelCase.
    fn reason(self) -> &'static str {
        match self {
            Kind::MissingPacks => "MissingPacks",
            Kind::DamagedPacks => "DamagedPacks",
            Kind::DamagedIndex => "DamagedIndex",
            Kind::DamagedStructure => "DamagedStructure",
        }
    }
}

#[cfg(test)]
#[path = "check_tests.rs"]
mod tests;
