//! What became of hooks, as a status shows it.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Name of the hook before a backup, as in the spec.
pub const PRE_BACKUP: &str = "preBackup";
pub const POST_BACKUP: &str = "postBackup";
pub const ON_FAILURE: &str = "onFailure";
pub const PRE_RESTORE: &str = "preRestore";
pub const POST_RESTORE: &str = "postRestore";

/// One hook of one run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct HookRun {
    /// preBackup, postBackup, onFailure, preRestore or postRestore.
    pub name: String,
    pub result: HookResult,
    /// Such as "1.2s".
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub duration: Option<String>,
    /// What its command or its Job said, or why it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}

/// Result of a hook.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum HookResult {
    /// It ended well.
    Succeeded,
    /// It ended with an error, was over its time limit, or could not begin.
    Failed,
    /// It began, or may have begun, and its end is not known.
    Unknown,
}

impl HookResult {
    /// Spelling in the API.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            HookResult::Succeeded => "Succeeded",
            HookResult::Failed => "Failed",
            HookResult::Unknown => "Unknown",
        }
    }
}

/// A run with hooks of which it is not known yet that nothing is left to do.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct OpenHooks {
    /// Job of the run, and its uid.
    pub job: String,
    pub uid: String,
    /// Hooks that a Job of their own has to run, because the run was over before they had ended well. Empty while the
    /// run goes on.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub owed: Vec<String>,
    /// Not before this time: a hook that began before may still be at work.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_before: Option<Time>,
}
