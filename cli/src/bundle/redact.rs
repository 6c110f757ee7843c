//! What may leave a cluster: by an allow-list of fields, and what is kept as text without anything that looks like a secret.
//! Pure.

use std::sync::LazyLock;

use regex::Regex;
use serde_json::{Map, Value};

use proto::text::without_credentials;

/// In place of a text that is not on the list.
pub const LEFT_OUT: &str = "(left out)";

/// Fields whose text is kept, wherever they stand. Everything else that is text is left out, also of fields that a later
/// version has: numbers, switches and the shape of an object stay.
const KEPT: [&str; 68] = [
    "action",
    "apiVersion",
    "asOf",
    "by",
    "changedID",
    "claimName",
    "clusterIP",
    "completionTime",
    "concurrencyPolicy",
    "containerID",
    "count",
    "created",
    "creationTimestamp",
    "deletionTimestamp",
    "duration",
    "eventTime",
    "exitCode",
    "fieldPath",
    "filename",
    "finishedAt",
    "firstTimestamp",
    "from",
    "groupBy",
    "holderIdentity",
    "hostname",
    "image",
    "imageID",
    "initialRun",
    "initialize",
    "job",
    "keepWithin",
    "keepWithinDaily",
    "keyID",
    "kind",
    "lastApproval",
    "lastProbeTime",
    "lastRun",
    "lastRunResult",
    "lastSuccessfulBackup",
    "lastTimestamp",
    "lastTransitionTime",
    "lastUpdateTime",
    "message",
    "name",
    "namespace",
    "nextBackup",
    "nextRun",
    "node",
    "nodeName",
    "phase",
    "plan",
    "qosClass",
    "reason",
    "refreshInterval",
    "renewTime",
    "repositoryID",
    "result",
    "schedule",
    "scope",
    "size",
    "snapshotID",
    "startTime",
    "startedAt",
    "status",
    "storageClassName",
    "timezone",
    "type",
    "uid",
];
/// Below these any name may stand before any text.
const MAPS: [&str; 9] = [
    "annotations",
    "backendOptions",
    "binaryData",
    "data",
    "headers",
    "labels",
    "managedFields",
    "matchLabels",
    "stringData",
];

/// An object of Kubernetes.
#[must_use]
pub fn object(value: &Value) -> Value {
    walk("", value, false)
}

fn walk(key: &str, value: &Value, in_map: bool) -> Value {
    match value {
        Value::Object(fields) => {
            let in_map = in_map || MAPS.contains(&key);
            let fields = fields.iter().filter(|(name, _)| *name != "managedFields");
            let walked = fields.map(|(name, value)| (name.clone(), walk(name, value, in_map)));
            Value::Object(walked.collect::<Map<String, Value>>())
        }
        Value::Array(items) => Value::Array(items.iter().map(|item| walk(key, item, in_map)).collect()),
        Value::String(of) if key == "repositoryURL" && !in_map => Value::String(without_credentials(of)),
        Value::String(of) if KEPT.contains(&key) && !in_map => Value::String(text(of)),
        Value::String(_) => Value::String(LEFT_OUT.to_owned()),
        // A number in a map may be a password of digits.
        Value::Number(_) if in_map => Value::String(LEFT_OUT.to_owned()),
        other => other.clone(),
    }
}

/// A document that the hub made: all of it is kept, each text without what looks like a secret.
#[must_use]
pub fn document(value: &Value) -> Value {
    match value {
        Value::Object(fields) => {
            let walked = fields.iter().map(|(name, value)| (name.clone(), document(value)));
            Value::Object(walked.collect::<Map<String, Value>>())
        }
        Value::Array(items) => Value::Array(items.iter().map(document).collect()),
        Value::String(of) => Value::String(text(of)),
        other => other.clone(),
    }
}

/// Part of a text without a space: a backslash takes the next sign with it, and a quote ends it only where JSON would go on.
const WORD: &str = r#"(?:[^\s"\\]|\\.|"[^\s,:}\]])"#;
/// Value of a variable or of a field: between quotes, also those of JSON inside of a text of JSON, up to the end where the line
/// was cut off; or a word.
const VALUE: &str = r#"(?:\\"(?:[^"\\]|\\\\(?:\\.|[^\\]))*(?:\\"|\z)|"(?:[^"\\]|\\.)*(?:"|\z)|'(?:[^'\\]|\\.)*(?:'|\z)|<word>+)"#;
/// Between a name and its value, quotes of the name included.
const IS: &str = r#"\\*["']?\s*[=:]\s*"#;

/// What looks like a secret in a text, and what is written in its place. `<is>`, `<value>` and `<word>` are those above.
const PATTERNS: [(&str, &str); 13] = [
    // Private keys.
    (
        r"(?s)-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(-----END [A-Z ]*PRIVATE KEY-----|\z)",
        "(private key)",
    ),
    // User and password, or a token alone, in a URL. The last @ ends it: a password may hold one.
    (r"://<word>*@", "://(left out)@"),
    // restic's own form, without slashes.
    (r#"(\bsftp:)[^\s/@:"']+:<word>*@"#, "$1(left out)@"),
    // Signature of an address that needs no login.
    (
        r#"([?&;](?i-u:sig|x-amz-signature|x-amz-security-token|x-goog-signature)=)[^\s&"']+"#,
        "$1(left out)",
    ),
    // Of a header.
    (
        r"\b(?i-u:(bearer|basic))\s+[A-Za-z0-9._~+/=-]{16,}",
        "$1 (left out)",
    ),
    // JSON web tokens.
    (
        r"\beyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]*",
        "(token)",
    ),
    // Tokens of fleet.
    (
        r"\bfleet-(session|login|join|token)-[A-Za-z0-9_-]+",
        "fleet-$1-(left out)",
    ),
    // Keys of AWS.
    (r"\b(AKIA|ASIA)[0-9A-Z]{16}\b", "(access key)"),
    // name=value and "name": "value". A word before it, as in WrongPassword, makes another one of it.
    (
        r"((?:\b|_)(?i-u:password|passwd|passphrase|(?:client|shared|credential)[_-]?secret|secret[_-]?(?:access[_-]?)?key|(?:access|refresh|login|join|session|auth|id)[_-]?token|api[_-]?key|access[_-]?key|account[_-]?(?:key|sas)|private[_-]?key)(?:[_-][A-Za-z0-9]+)*<is>)<value>",
        "$1(left out)",
    ),
    // Variables, whatever storage they are of: ST_KEY, RCLONE_CONFIG_PASS.
    (
        r"(\b[A-Z][A-Z0-9]*(?:_[A-Z0-9]+)*_(?:KEY|PASS|SAS|SECRET|TOKEN)<is>)<value>",
        "$1(left out)",
    ),
    // As rclone writes it.
    (r"(\bpass\s*=\s*)<value>", "$1(left out)"),
    // A fencing token is a number, and stays.
    (
        r"(\b(?i-u:token)<is>\\*[\x22']?)[A-Za-z0-9._~+/=-]{16,}",
        "$1(left out)",
    ),
    // --name value.
    (
        r#"(--[A-Za-z0-9-]*(?i-u:password|passphrase|secret|token|key)[A-Za-z0-9-]*(?:\s+|=))(?:"(?:[^"\\]|\\.)*(?:"|\z)|'[^']*(?:'|\z)|[^\s-]\S*)"#,
        "$1(left out)",
    ),
];
static COMPILED: LazyLock<Vec<(Regex, &'static str)>> = LazyLock::new(|| {
    let compiled = PATTERNS.iter().filter_map(|(of, by)| {
        let of = of.replace("<is>", IS).replace("<value>", VALUE);
        Some((Regex::new(&of.replace("<word>", WORD)).ok()?, *by))
    });
    compiled.collect()
});

/// A text without what looks like a secret.
#[must_use]
pub fn text(text: &str) -> String {
    COMPILED.iter().fold(text.to_owned(), |text, (pattern, by)| {
        pattern.replace_all(&text, *by).into_owned()
    })
}

#[cfg(test)]
#[path = "redact_tests.rs"]
mod tests;
