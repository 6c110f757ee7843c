//! Steps of a change of the password. Pure: from what a person asks for, what is known of keys, and results of Jobs follow
//! the next step, the Job that it needs, and what a person has to do.

use crds::conditions::{reasons, whole_seconds};
use crds::rotation::{NO_OTHER_CLUSTER, PasswordRotation, RemoveKey, RotationStep};
use crds::{ResticRepository, names};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use proto::v1::{KeyRun, OperationOutcome};

use crate::secrets::{NEW_PASSWORD_KEY, PASSWORD_VARIABLE};

/// Jobs of one step that are interrupted in a row before a person has to look.
const INTERRUPTED_MAX: i32 = 5;

/// What a step depends on.
#[derive(Clone, Debug, Default)]
pub struct Facts<'a> {
    /// Values of the annotations `rotate-password` and `remove-key`.
    pub request: Option<&'a str>,
    pub removal: Option<&'a str>,
    /// Key that the password in the Secret opens, as of the Secret as it is now.
    pub key: Option<&'a str>,
    /// Name of the Secret, and its key that holds the present password.
    pub secret: &'a str,
    pub password_key: &'a str,
    /// A hub knows which clusters use the repository.
    pub shared: bool,
    /// A Job for a step is there.
    pub under_way: bool,
    /// Resources of this cluster for the same repository, each with the key that it opens it with.
    pub others: Vec<(String, Option<String>)>,
    /// Runs of this cluster that began before the Secret was switched.
    pub early_runs: Vec<String>,
    /// Why the Job waits.
    pub waits: Option<&'a str>,
}

/// What follows.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Next {
    /// `None`: no change of the password was asked for.
    pub rotation: Option<PasswordRotation>,
    /// A Job is needed.
    pub job: bool,
    /// Something is waited for that wakes nobody when it happens.
    pub look_again: bool,
    /// Condition PasswordRotation: whether a change is under way, reason, message.
    pub shown: Option<(bool, &'static str, String)>,
}

/// Takes the result of a Job in, once.
pub fn record(rotation: &mut PasswordRotation, operation: &str, outcome: &OperationOutcome) {
    if rotation.job_uid.as_deref() == Some(operation) {
        return;
    }
    rotation.job_uid = Some(operation.to_owned());
    rotation.message = match outcome.reason.as_str() {
        "" => outcome.message.clone(),
        reason => format!("{reason}: {}", outcome.message),
    };
    if outcome.result == "Interrupted" && rotation.interrupted < INTERRUPTED_MAX {
        rotation.interrupted += 1;
        return;
    }
    rotation.interrupted = 0;
    let well = outcome.result == "Applied";
    rotation.step = match rotation.step {
        RotationStep::Adding if well => {
            rotation.old_key = Some(outcome.old_key.clone());
            rotation.new_key = Some(outcome.new_key.clone());
            rotation.switched = None;
            RotationStep::Added
        }
        RotationStep::Adding => RotationStep::Failed,
        RotationStep::Removing if well => RotationStep::Done,
        RotationStep::Removing => RotationStep::Added,
        other => other,
    };
}

/// What a Job is to do; `None` while no step needs one.
#[must_use]
pub fn order(repository: &ResticRepository, restic_id: &str) -> Option<KeyRun> {
    let status = repository.status.as_ref()?;
    let rotation = status.password_rotation.as_ref()?;
    let run = KeyRun {
        restic_id: restic_id.to_owned(),
        ..KeyRun::default()
    };
    match rotation.step {
        RotationStep::Adding => Some(run),
        RotationStep::Removing => Some(KeyRun {
            remove: removes(rotation)?.to_owned(),
            keep: status.key_id.clone()?,
            ..run
        }),
        RotationStep::Added | RotationStep::Done | RotationStep::Failed => None,
    }
}

/// The key that a Job of this step removes.
#[must_use]
pub fn removes(rotation: &PasswordRotation) -> Option<&str> {
    let removing = rotation.step == RotationStep::Removing;
    removing
        .then(|| target(rotation, rotation.removal.as_deref()?))
        .flatten()
}

/// The key of a rotation that is to be removed.
fn target<'a>(rotation: &'a PasswordRotation, removal: &str) -> Option<&'a str> {
    let asked = RemoveKey::parse(removal)?;
    let keys = [&rotation.old_key, &rotation.new_key];
    let mut keys = keys.into_iter().filter_map(|key| key.as_deref());
    keys.find(|key| asked.is(key))
}

/// The next step.
#[must_use]
pub fn next(before: Option<&PasswordRotation>, facts: &Facts<'_>, now: Timestamp) -> Next {
    let Some(mut rotation) = begun(before, facts) else {
        return Next::default();
    };
    let switched = facts.key.is_some() && facts.key == rotation.new_key.as_deref();
    if rotation.step == RotationStep::Added && switched && rotation.switched.is_none() {
        rotation.switched = Some(Time(whole_seconds(now)));
    }
    let mut look_again = false;
    let shown = match rotation.step {
        RotationStep::Adding => (true, reasons::KEY_ADDING, adding(facts)),
        RotationStep::Added => added(&mut rotation, facts, &mut look_again),
        RotationStep::Removing => removing(&rotation, facts),
        RotationStep::Done => {
            let tail = if switched {
                format!(
                    "; remove {NEW_PASSWORD_KEY} from Secret {:?} if it is still there",
                    facts.secret
                )
            } else {
                String::new()
            };
            (
                false,
                reasons::PASSWORD_ROTATED,
                format!("{}{tail}", rotation.message),
            )
        }
        RotationStep::Failed => (
            true,
            reasons::ROTATION_FAILED,
            format!(
                "{}; the present password stays in use. Then give the annotation {} another value",
                rotation.message,
                names::ANNOTATION_ROTATE
            ),
        ),
    };
    let job = matches!(rotation.step, RotationStep::Adding | RotationStep::Removing);
    Next {
        rotation: Some(rotation),
        job,
        look_again,
        shown: Some(shown),
    }
}

/// The rotation that the annotation asks for, or the one of before.
fn begun(before: Option<&PasswordRotation>, facts: &Facts<'_>) -> Option<PasswordRotation> {
    let request = facts.request.filter(|request| !request.is_empty());
    match (before, request) {
        (Some(before), _) if facts.under_way => Some(before.clone()),
        (Some(before), Some(request)) if before.request == request => Some(before.clone()),
        // The key that an unfinished one has added can still be seen in the repository.
        (before, Some(request)) => Some(PasswordRotation {
            request: request.to_owned(),
            job_uid: before.and_then(|before| before.job_uid.clone()),
            ..PasswordRotation::default()
        }),
        // Taken back before it has changed anything.
        (Some(before), None) if [RotationStep::Adding, RotationStep::Failed].contains(&before.step) => None,
        (Some(before), None) => Some(before.clone()),
        (None, None) => None,
    }
}

fn adding(facts: &Facts<'_>) -> String {
    let text = format!("the key of the password in {NEW_PASSWORD_KEY} is added");
    match facts.waits {
        Some(waits) => format!("{text}: {waits}"),
        None => text,
    }
}

/// Both passwords open the repository: a person switches the Secret, and then says which key goes.
fn added(
    rotation: &mut PasswordRotation,
    facts: &Facts<'_>,
    look_again: &mut bool,
) -> (bool, &'static str, String) {
    let (old, new) = (rotation.old_key.as_deref(), rotation.new_key.as_deref());
    let removal = facts
        .removal
        .filter(|removal| rotation.removal.as_deref() != Some(removal));
    let Some(removal) = removal else {
        if facts.key == new {
            let text = match (rotation.removal.is_some(), rotation.message.as_str()) {
                (true, message) => format!("the last attempt to remove a key failed: {message}. "),
                (false, _) => String::new(),
            };
            return (true, reasons::OLD_KEY_STAYS, text + &to_remove(old, facts));
        }
        return (true, reasons::SWITCH_SECRET, to_switch(old, new, facts));
    };
    let stays = |text: String| (true, reasons::OLD_KEY_STAYS, text);
    let Some(target) = target(rotation, removal).map(str::to_owned) else {
        return stays(format!(
            "{} is {removal:?}, which is neither the old key {} nor the new key {}",
            names::ANNOTATION_REMOVE_KEY,
            short(old),
            short(new)
        ));
    };
    let confirmed = RemoveKey::parse(removal).is_some_and(|asked| asked.no_other_cluster);
    if let Some(text) = needed(&target, confirmed, facts) {
        *look_again = true;
        return stays(format!("key {} stays: {text}", short(Some(&target))));
    }
    rotation.removal = Some(removal.to_owned());
    rotation.step = RotationStep::Removing;
    removing(rotation, facts)
}

/// Who needs a key still, as far as this cluster knows. The hub asks all others before it grants the removal.
fn needed(target: &str, confirmed: bool, facts: &Facts<'_>) -> Option<String> {
    match facts.key {
        None => return Some("it is not known which key the password in the Secret opens".to_owned()),
        Some(key) if key == target => {
            return Some(format!(
                "the password under {} of Secret {:?} opens it",
                facts.password_key, facts.secret
            ));
        }
        Some(_) => {}
    }
    let uses = |(_, key): &&(String, Option<String>)| key.as_deref().is_none_or(|key| key == target);
    let others: Vec<&str> = facts
        .others
        .iter()
        .filter(uses)
        .map(|(name, _)| name.as_str())
        .collect();
    if !others.is_empty() {
        let text = "is opened with it, or has not been opened since its Secret was changed";
        return Some(format!("ResticRepository {} {text}", others.join(", ")));
    }
    if !facts.early_runs.is_empty() {
        let text = "began before the Secret was changed";
        return Some(format!("{} {text}", facts.early_runs.join(", ")));
    }
    (!facts.shared && !confirmed).then(|| {
        format!(
            "without a hub it is not known which clusters use this repository. If none opens it with the old password, write {}: {:?}",
            names::ANNOTATION_REMOVE_KEY,
            format!("{},{NO_OTHER_CLUSTER}", short(Some(target)))
        )
    })
}

fn removing(rotation: &PasswordRotation, facts: &Facts<'_>) -> (bool, &'static str, String) {
    let target = rotation
        .removal
        .as_deref()
        .and_then(|removal| target(rotation, removal));
    let key = short(target);
    match facts.waits {
        Some(waits) => (true, reasons::OLD_KEY_STAYS, format!("key {key} stays: {waits}")),
        None => (true, reasons::KEY_REMOVING, format!("key {key} is removed")),
    }
}

fn to_switch(old: Option<&str>, new: Option<&str>, facts: &Facts<'_>) -> String {
    let present = match facts.key {
        Some(key) if Some(key) == old => "",
        _ => " (which key the present one opens is not known)",
    };
    format!(
        "both passwords open the repository{present}. In each cluster that uses it, put the new one under {} of its Secret (here {:?}) and take {NEW_PASSWORD_KEY} out. Old key {}, new key {}",
        if facts.password_key.is_empty() {
            PASSWORD_VARIABLE
        } else {
            facts.password_key
        },
        facts.secret,
        short(old),
        short(new)
    )
}

fn to_remove(old: Option<&str>, facts: &Facts<'_>) -> String {
    let tail = if facts.shared {
        String::new()
    } else {
        format!(",{NO_OTHER_CLUSTER}")
    };
    format!(
        "this cluster opens the repository with the new password. When all others do too, set {}: {:?} to remove the old key",
        names::ANNOTATION_REMOVE_KEY,
        format!("{}{tail}", short(old))
    )
}

fn short(id: Option<&str>) -> &str {
    let id = id.unwrap_or("unknown");
    id.get(..10).unwrap_or(id)
}

#[cfg(test)]
#[path = "step_tests.rs"]
mod tests;
