//! How far a run that is under way has come.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How far a run has come, as restic last reported it. Present only while its pod runs, and from half a minute after its
/// start on; of a cluster with very many runs it is read less often.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RunProgress {
    /// Job that runs.
    pub job: String,
    /// When these figures were read first. Figures that stay the same keep their time.
    pub as_of: Time,
    /// 0 to 100. Of a check or a prune: of `step`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub percent: Option<i32>,
    /// Bytes that were read, or restored.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes_done: Option<i64>,
    /// Bytes that there are. Of a backup it rises until all folders have been looked through.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes_total: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub files_done: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub files_total: Option<i64>,
    /// What a check or a prune is at, such as "7 / 10 packs". There are several steps, one after the other.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step: Option<String>,
    /// When it ends if it goes on like this. Absent while that cannot be told, as of checks and prunes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub estimated_completion: Option<Time>,
}

impl RunProgress {
    /// Whether another report shows the same figures, whenever it was made and whatever end it foretells.
    #[must_use]
    pub fn is_as(&self, other: &RunProgress) -> bool {
        let figures = |of: &RunProgress| RunProgress {
            as_of: self.as_of.clone(),
            estimated_completion: None,
            ..of.clone()
        };
        figures(self) == figures(other)
    }
}
