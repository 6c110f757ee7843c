//! One step of a change of the repository's password, under the maintenance lock of the fleet: the key of the new password
//! is added, or the key that nobody needs any more is removed. Whatever a kill interrupts, the repository opens with the
//! password of before until a run removes that key, and each step begins by looking at what is there.

use std::path::Path;

use proto::v1::{KeyRun, OperationOutcome, RetentionRun};

use super::child::{Restic, Stopped};
use super::contend::exclusive;
use super::limits::Limit;
use super::retention::{OPEN, wait_for_lease, words};
use super::{failed, log};
use crate::pod::message::reason_of;
use crate::restic::Failure;
use crate::restic::locks::STALE_LOCK;
use crate::restic::output::{self, Key};
use crate::secrets::{NEW_PASSWORD_KEY, PASSWORD_VARIABLE};

/// Runs, and reports what came of it. `new` is the file with the new password.
pub async fn run(run: &KeyRun, restic: Restic, new: &Path) -> OperationOutcome {
    match steps(run, &restic, new).await {
        Ok(outcome) => outcome,
        Err(stopped) => {
            let (result, reason) = match &stopped {
                Stopped::LeaseLost => ("Interrupted", "LeaseLost"),
                Stopped::Signal => ("Interrupted", "Stopped"),
                Stopped::Alarm(_) => ("Failed", "IncompleteRead"),
                Stopped::StaleLock(_) => ("Failed", STALE_LOCK),
                Stopped::Failed(failure) => ("Failed", reason_of(failure)),
            };
            OperationOutcome {
                result: result.to_owned(),
                ..failed(reason, stopped.to_string())
            }
        }
    }
}

async fn steps(run: &KeyRun, restic: &Restic, new: &Path) -> Result<OperationOutcome, Stopped> {
    wait_for_lease(restic).await?;
    if let Some(refusal) = other_repository(run, restic).await? {
        return Ok(refusal);
    }
    if run.remove.is_empty() {
        add(run, restic, new).await
    } else {
        remove(run, restic).await
    }
}

/// Whether another repository lies at the location.
async fn other_repository(run: &KeyRun, restic: &Restic) -> Result<Option<OperationOutcome>, Stopped> {
    let config = words(&["cat", "config", "--no-lock", "--json"]);
    let id = output::config_id(&restic.run(&config, Limit::Whole(OPEN)).await?)?;
    Ok((id != run.restic_id).then(|| {
        let text = format!("the repository here is {id}, the lock is for {}", run.restic_id);
        failed("RepositoryChanged", text)
    }))
}

/// The keys of the repository, and the id of the one that it was opened with.
async fn keys(restic: &Restic) -> Result<(Vec<Key>, String), Stopped> {
    let list = words(&["key", "list", "--no-lock", "--json"]);
    let keys = output::keys(&restic.run(&list, Limit::Whole(OPEN)).await?)?;
    let present = output::key_in_use(&keys)?;
    Ok((keys, present))
}

/// Adds the key of the new password unless it is there, and makes sure that this password opens the repository in the way
/// in which manager and pods open it.
async fn add(run: &KeyRun, restic: &Restic, new: &Path) -> Result<OperationOutcome, Stopped> {
    let password = match password(new) {
        Ok(password) => password,
        Err(text) => return Ok(failed("NewPasswordUnusable", text)),
    };
    let (_, old) = keys(restic).await?;
    let renewed = with_password(restic, &password);
    let (message, found) = match keys(&renewed).await {
        Ok((_, found)) if found == old => {
            let text =
                format!("the password in {NEW_PASSWORD_KEY} is the present one: put another one there");
            return Ok(failed("NewPasswordUnusable", text));
        }
        Ok((_, found)) => ("the key of the new password was there already", found),
        Err(Stopped::Failed(Failure::WrongPassword)) => {
            log("the key of the new password is added");
            let file = new.display().to_string();
            let arguments = words(&["key", "add", "--new-password-file", &file]);
            locking(restic, &arguments).await?;
            ("the key of the new password was added", keys(&renewed).await?.1)
        }
        Err(stopped) => return Err(stopped),
    };
    if let Some(refusal) = other_repository(run, &renewed).await? {
        return Ok(refusal);
    }
    Ok(OperationOutcome {
        result: "Applied".to_owned(),
        message: format!("{message}, and opens the repository"),
        old_key: old,
        new_key: found,
        ..OperationOutcome::default()
    })
}

/// Removes a key while the one that is to stay is in use.
async fn remove(run: &KeyRun, restic: &Restic) -> Result<OperationOutcome, Stopped> {
    let (all, present) = keys(restic).await?;
    if present != run.keep || present == run.remove {
        let text = format!(
            "the password in the Secret opens key {} and not {}: the Secret was changed meanwhile, and nothing was removed",
            short(&present),
            short(&run.keep)
        );
        return Ok(failed("KeyChanged", text));
    }
    let done = |text: &str| OperationOutcome {
        result: "Applied".to_owned(),
        message: format!("key {} {text}", short(&run.remove)),
        old_key: run.remove.clone(),
        new_key: present.clone(),
        ..OperationOutcome::default()
    };
    if !all.iter().any(|key| key.is(&run.remove)) {
        return Ok(done("is not there any more"));
    }
    // restic holds the repository for itself meanwhile.
    locking(restic, &words(&["key", "remove", &run.remove])).await?;
    if keys(restic).await?.0.iter().any(|key| key.is(&run.remove)) {
        let text = format!(
            "key {} is still there; do the credentials allow to delete?",
            short(&run.remove)
        );
        return Ok(failed("NotRemoved", text));
    }
    Ok(done("was removed"))
}

/// A command that takes a lock of restic. It removes one file at most.
async fn locking(restic: &Restic, arguments: &[String]) -> Result<(), Stopped> {
    let limit = Limit::forget(1, &restic.retry_lock);
    exclusive(restic, &RetentionRun::default(), arguments, || None, limit).await
}

/// The new password, as restic reads it out of a file: without white space at its ends. A password that has some would be
/// another one to those who read it out of a variable.
fn password(file: &Path) -> Result<String, String> {
    let text = std::fs::read_to_string(file).unwrap_or_default();
    if text.is_empty() {
        return Err(format!(
            "the Secret has no key {NEW_PASSWORD_KEY}, or its value is not a text: put the new password there"
        ));
    }
    if text.trim() != text || text.contains(['\n', '\r']) {
        return Err(format!(
            "the password in {NEW_PASSWORD_KEY} begins or ends with white space, or has several lines: choose another one"
        ));
    }
    Ok(text)
}

fn with_password(restic: &Restic, password: &str) -> Restic {
    let mut restic = restic.clone();
    restic.variables.retain(|(name, _)| name != PASSWORD_VARIABLE);
    restic
        .variables
        .push((PASSWORD_VARIABLE.to_owned(), password.to_owned()));
    restic
}

fn short(id: &str) -> &str {
    id.get(..10).unwrap_or(id)
}

#[cfg(test)]
#[path = "key_tests.rs"]
mod tests;
