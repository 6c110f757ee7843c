//! The hooks of a resource as its pods are given them. Pure.

use std::time::Duration;

use crds::common::{ExecHook, Hook as Given, JobHook};
use crds::{hooks as named, names, schedule};
use k8s_openapi::api::core::v1::PodTemplateSpec;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::core::Selector;
use serde::{Deserialize, Serialize};

use crate::pod::guest;
use crate::runs::hooks::Names;

/// Longest plan as JSON, in bytes: it is a variable of a container and an annotation of a Job.
const MAX: usize = 64 << 10;
/// Unless the spec says otherwise; the schema's defaults.
const EXEC_LIMIT: Duration = Duration::from_secs(60);
const JOB_LIMIT: Duration = Duration::from_secs(600);

/// What the hooks are around.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Subject {
    Backup,
    Restore,
}

/// The resource, as owner of Jobs that hooks make.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Owner {
    pub kind: String,
    pub name: String,
    pub uid: String,
}

/// All hooks of a resource, with what a pod needs to run them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Plan {
    pub subject: Subject,
    pub owner: Owner,
    /// ServiceAccount of the pods.
    pub account: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<Hook>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<Hook>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<Hook>,
}

/// One hook.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Hook {
    #[serde(rename_all = "camelCase")]
    Exec {
        selector: LabelSelector,
        container: Option<String>,
        command: Vec<String>,
        seconds: u64,
    },
    Job {
        template: Box<PodTemplateSpec>,
        seconds: u64,
    },
}

/// Why a hook cannot be used, with its field.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("spec.hooks{}: {why}", .name.map(|name| format!(".{name}")).unwrap_or_default())]
pub struct BadHook {
    name: Option<&'static str>,
    why: String,
}

impl Hook {
    /// How long it may take.
    #[must_use]
    pub fn limit(&self) -> Duration {
        let (Hook::Exec { seconds, .. } | Hook::Job { seconds, .. }) = self;
        Duration::from_secs(*seconds)
    }

    /// How long it may take until its end is known: a Job that is over its limit has its pod's time to end as well.
    #[must_use]
    pub fn longest(&self) -> Duration {
        /// A pod's time to end unless it says otherwise.
        const GRACE: i64 = 30;
        /// For Kubernetes to say so.
        const WORD: u64 = 15;
        match self {
            Hook::Exec { .. } => self.limit(),
            Hook::Job { template, .. } => {
                let spec = template.spec.as_ref();
                let grace = spec
                    .and_then(|spec| spec.termination_grace_period_seconds)
                    .unwrap_or(GRACE);
                self.limit() + Duration::from_secs(u64::try_from(grace).unwrap_or_default() + WORD)
            }
        }
    }
}

impl Plan {
    /// Out of its JSON.
    #[must_use]
    pub fn parse(text: &str) -> Option<Plan> {
        serde_json::from_str(text).ok()
    }

    #[must_use]
    pub fn json(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }

    /// Its hooks by their names in the spec.
    #[must_use]
    pub fn names(&self) -> Names {
        let (before, after) = match self.subject {
            Subject::Backup => (named::PRE_BACKUP, named::POST_BACKUP),
            Subject::Restore => (named::PRE_RESTORE, named::POST_RESTORE),
        };
        Names {
            before: self.before.as_ref().map(|_| before),
            after: self.after.as_ref().map(|_| after),
            failure: self.failure.as_ref().map(|_| named::ON_FAILURE),
        }
    }

    /// The hook of a name in the spec.
    #[must_use]
    pub fn hook(&self, name: &str) -> Option<&Hook> {
        let names = self.names();
        let all = [
            (names.before, &self.before),
            (names.after, &self.after),
            (names.failure, &self.failure),
        ];
        all.into_iter()
            .find(|(known, _)| *known == Some(name))?
            .1
            .as_ref()
    }

    /// All hooks.
    pub fn hooks(&self) -> impl Iterator<Item = &Hook> {
        [&self.before, &self.after, &self.failure].into_iter().flatten()
    }

    /// Secrets that the pods of its Jobs read.
    pub fn secrets(&self) -> impl Iterator<Item = &str> {
        let specs = self.hooks().filter_map(|hook| match hook {
            Hook::Job { template, .. } => template.spec.as_ref(),
            Hook::Exec { .. } => None,
        });
        specs.flat_map(guest::secrets)
    }

    /// Seconds that the containers of a pod need to end in order: restic, or the hook before it, then the others.
    #[must_use]
    pub fn grace(&self, restic: i64) -> i64 {
        /// For what surrounds the hooks.
        const MARGIN: i64 = 15;
        let seconds = |hook: &Option<Hook>| {
            let limit = hook.as_ref().map(Hook::longest).unwrap_or_default();
            i64::try_from(limit.as_secs()).unwrap_or_default()
        };
        restic.max(seconds(&self.before)) + seconds(&self.after) + seconds(&self.failure) + MARGIN
    }
}

/// Checks the hooks of a spec. `None` where there are none.
///
/// # Errors
/// The first that cannot be used.
pub fn given(
    subject: Subject,
    (owner, account): (Owner, String),
    hooks: [Option<&Given>; 3],
) -> Result<Option<Plan>, BadHook> {
    let [before, after, failure] = hooks;
    if before.or(after).or(failure).is_none() {
        return Ok(None);
    }
    let (first, second) = match subject {
        Subject::Backup => (named::PRE_BACKUP, named::POST_BACKUP),
        Subject::Restore => (named::PRE_RESTORE, named::POST_RESTORE),
    };
    let check = |name, hook: Option<&Given>| {
        let checked = hook.map(checked).transpose();
        checked.map_err(|why| BadHook {
            name: Some(name),
            why,
        })
    };
    let plan = Plan {
        subject,
        owner,
        account,
        before: check(first, before)?,
        after: check(second, after)?,
        failure: check(named::ON_FAILURE, failure)?,
    };
    let size = plan.json().len();
    if size > MAX {
        let why = format!(
            "they are {size} bytes as JSON, and at most {MAX} are taken; put long scripts into a ConfigMap"
        );
        return Err(BadHook { name: None, why });
    }
    Ok(Some(plan))
}

fn checked(hook: &Given) -> Result<Hook, String> {
    match (&hook.exec, &hook.job) {
        (Some(exec), None) => checked_exec(exec),
        (None, Some(job)) => checked_job(job),
        _ => Err("a hook needs exactly one of exec and job: keep one and remove the other".to_owned()),
    }
}

fn checked_exec(exec: &ExecHook) -> Result<Hook, String> {
    let selector = &exec.pod_selector;
    let labels = selector.match_labels.as_ref().map_or(0, |labels| labels.len());
    let expressions = selector.match_expressions.as_ref().map_or(0, Vec::len);
    if labels + expressions == 0 {
        return Err(
            "exec.podSelector selects every pod of the namespace: name at least one label".to_owned(),
        );
    }
    Selector::try_from(selector.clone()).map_err(|error| format!("exec.podSelector: {error}"))?;
    if exec.command.first().is_none_or(String::is_empty) {
        return Err("exec.command needs a program".to_owned());
    }
    if exec.command.iter().any(|part| part.contains('\0')) {
        return Err("exec.command must not hold NUL characters".to_owned());
    }
    Ok(Hook::Exec {
        selector: selector.clone(),
        container: exec.container.clone().filter(|name| !name.is_empty()),
        command: exec.command.clone(),
        seconds: seconds("exec.timeout", exec.timeout.as_deref(), EXEC_LIMIT)?,
    })
}

fn checked_job(job: &JobHook) -> Result<Hook, String> {
    let template = guest::given::template("job.podTemplate", &job.pod_template);
    let mut template = template.map_err(|error| error.to_string())?;
    let Some(spec) = template.spec.as_mut().filter(|spec| !spec.containers.is_empty()) else {
        return Err("job.podTemplate has no containers".to_owned());
    };
    if let Some(secret) = guest::secrets(spec)
        .into_iter()
        .find(|name| names::is_of_credentials(name))
    {
        return Err(format!(
            "job.podTemplate uses Secret {secret:?}, which holds a repository's keys: a hook gets none of them"
        ));
    }
    // The second is the first one's former name, which the API server still takes.
    let accounts = [&spec.service_account_name, &spec.service_account];
    let account = accounts
        .into_iter()
        .flatten()
        .find(|name| names::is_of_a_run(name));
    if let Some(account) = account.cloned() {
        return Err(format!(
            "job.podTemplate uses ServiceAccount {account:?}, which the operator makes for pods of its own; name another"
        ));
    }
    guest::shares_node(spec).map_err(|(part, why)| format!("job.podTemplate.spec{part}: {why}"))?;
    match spec.restart_policy.as_deref() {
        None => spec.restart_policy = Some("Never".to_owned()),
        Some("Never" | "OnFailure") => {}
        Some(other) => {
            return Err(format!(
                "job.podTemplate: restartPolicy {other:?} never ends; use Never"
            ));
        }
    }
    Ok(Hook::Job {
        template: Box::new(template),
        seconds: seconds("job.timeout", job.timeout.as_deref(), JOB_LIMIT)?,
    })
}

fn seconds(field: &str, text: Option<&str>, default: Duration) -> Result<u64, String> {
    /// A Job's deadline and a pod's time to end are of this size at most.
    const LONGEST: u64 = 24 * 3600;
    let limit = match text.filter(|text| !text.is_empty()) {
        None => default,
        Some(text) => schedule::parse_duration(text)
            .and_then(|limit| Duration::try_from(limit).ok())
            .ok_or_else(|| format!("{field}: {text:?} is not a duration; write 30s or 5m"))?,
    };
    let seconds = limit.as_secs() + u64::from(limit.subsec_nanos() > 0);
    if (1..=LONGEST).contains(&seconds) {
        Ok(seconds)
    } else {
        Err(format!("{field} is between 1s and 24h"))
    }
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
