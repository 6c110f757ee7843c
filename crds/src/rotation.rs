//! A change of a repository's password: the key of the new one is added, a person switches the Secret of each cluster, and
//! the old key is removed when a person asks for that and no cluster needs it.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Word after the id in `remove-key`, by which a person answers for it that no other cluster uses the key.
pub const NO_OTHER_CLUSTER: &str = "no-other-cluster";
/// Fewest digits of a key's id.
const DIGITS: usize = 8;

/// Where a change of the password stands.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PasswordRotation {
    /// Value of the annotation `rotate-password` that asked for it.
    pub request: String,
    pub step: RotationStep,
    /// Id of the key that the password of before opens, 64 hex digits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub old_key: Option<String>,
    /// Id of the key that the new password opens.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub new_key: Option<String>,
    /// Since when this cluster opens the repository with the new key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub switched: Option<Time>,
    /// Value of the annotation `remove-key` that was last acted on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub removal: Option<String>,
    /// Jobs in a row that were interrupted in this step.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub interrupted: i32,
    /// uid of the last Job whose result is recorded here.
    #[serde(rename = "jobUID", default, skip_serializing_if = "Option::is_none")]
    pub job_uid: Option<String>,
    /// What that Job did.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
}

#[allow(clippy::trivially_copy_pass_by_ref)]
fn is_zero(count: &i32) -> bool {
    *count == 0
}

/// Steps of a change of the password.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum RotationStep {
    /// The key of the new password is being added.
    #[default]
    Adding,
    /// Both passwords open the repository.
    Added,
    /// A key is being removed.
    Removing,
    /// The key that was named is removed.
    Done,
    /// The key of the new password could not be added.
    Failed,
}

/// What `remove-key` asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RemoveKey<'a> {
    /// Id of the key, or its first 8 digits or more.
    pub id: &'a str,
    /// A person answers for it that no other cluster uses the key.
    pub no_other_cluster: bool,
}

impl<'a> RemoveKey<'a> {
    /// Reads `<id>` and words after commas, such as `1a2b3c4d,no-other-cluster`. Other words make the value a new one.
    /// `None` if there is no id.
    #[must_use]
    pub fn parse(text: &'a str) -> Option<RemoveKey<'a>> {
        let mut parts = text.split(',').map(str::trim);
        let id = parts.next()?;
        let proper = (DIGITS..=64).contains(&id.len()) && id.bytes().all(|b| b.is_ascii_hexdigit());
        proper.then(|| RemoveKey {
            id,
            no_other_cluster: parts.any(|word| word == NO_OTHER_CLUSTER),
        })
    }

    /// Whether a key is meant.
    #[must_use]
    pub fn is(self, key: &str) -> bool {
        key.starts_with(self.id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_named_by_its_first_digits() {
        let asked = RemoveKey::parse("1a2b3c4d, no-other-cluster").unwrap();
        assert!(asked.no_other_cluster && asked.is(&format!("1a2b3c4d{}", "0".repeat(56))));
        assert!(!RemoveKey::parse("1a2b3c4d,again").unwrap().no_other_cluster);
        for text in ["", "1a2b", "1a2b3c4g", "old", &"a".repeat(65)] {
            assert_eq!(RemoveKey::parse(text), None, "{text}");
        }
    }
}
