//! `jobConfig.env`: variables of restic's container.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A variable of restic's container.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Variable {
    /// Name of the variable.
    #[schemars(length(min = 1, max = 64))]
    pub name: String,
    /// Arrives as it is written: `$(NAME)` is not replaced.
    #[serde(default)]
    #[schemars(length(max = 1024))]
    pub value: String,
}

/// Variables that `env` takes: none of them names a credential, a repository, a command or a file.
const VARIABLES: [&str; 8] = [
    "RESTIC_COMPRESSION",
    "RESTIC_PACK_SIZE",
    "RESTIC_READ_CONCURRENCY",
    "HTTPS_PROXY",
    "NO_PROXY",
    "GOGC",
    "GOMEMLIMIT",
    "GOMAXPROCS",
];

impl Variable {
    /// Why it cannot be set, if so.
    pub fn wrong(&self) -> Option<String> {
        let (name, value) = (self.name.as_str(), self.value.as_str());
        if ["HTTP_PROXY", "http_proxy"].contains(&name) {
            // Credentials of a storage that is reached without TLS would pass through it.
            return Some("a proxy for http:// reads along; set it in the repository's Secret".to_owned());
        }
        if !VARIABLES.contains(&name) {
            return Some(format!("allowed are {}", VARIABLES.join(", ")));
        }
        if value.chars().any(char::is_control) {
            return Some("its value holds a control character".to_owned());
        }
        if name == "HTTPS_PROXY" && value.contains('@') {
            return Some("its value holds a password; set it in the repository's Secret".to_owned());
        }
        // Go ends a process that cannot read it.
        (name == "GOMEMLIMIT" && !is_memory_limit(value))
            .then(|| "it takes off, or bytes with an optional unit such as 800MiB".to_owned())
    }
}

/// As Go reads `GOMEMLIMIT`.
fn is_memory_limit(text: &str) -> bool {
    let digits = ["KiB", "MiB", "GiB", "TiB", "B"]
        .iter()
        .find_map(|unit| text.strip_suffix(unit))
        .unwrap_or(text);
    text == "off" || (digits.bytes().all(|b| b.is_ascii_digit()) && digits.parse::<i64>().is_ok())
}
