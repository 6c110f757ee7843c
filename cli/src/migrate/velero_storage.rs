//! Credentials of a BackupStorageLocation of Velero: files as the tools of the clouds read them. Pure.

use std::collections::BTreeMap;

use serde_json::Value;

use super::secret::Source;
use super::unread::unread;
use crate::objects::text;

/// Fields of a location that are carried over, that are in the identifier of each repository, or that are not about restic.
const READ: [&str; 20] = [
    "provider",
    "default",
    "accessMode",
    "credential",
    "backupSyncPeriod",
    "validationFrequency",
    "objectStorage.bucket",
    "objectStorage.prefix",
    "objectStorage.caCert",
    "config.region",
    "config.profile",
    "config.insecureSkipTLSVerify",
    "config.s3Url",
    "config.s3ForcePathStyle",
    "config.publicUrl",
    "config.resticRepoPrefix",
    "config.storageAccount",
    "config.storageAccountKeyEnvVar",
    "config.resourceGroup",
    "config.subscriptionId",
];

/// Secret and key of its credentials; Velero's own default where it names none.
#[must_use]
pub fn secret_of(location: &Value) -> (String, String) {
    let or = |pointer: &str, default: &str| match text(location, pointer) {
        "" => default.to_owned(),
        value => value.to_owned(),
    };
    (
        or("/spec/credential/name", "cloud-credentials"),
        or("/spec/credential/key", "cloud"),
    )
}

/// Variables for restic, and what could not be carried over.
#[must_use]
pub fn credentials(location: &Value) -> (BTreeMap<String, Source>, Vec<String>) {
    let (secret, key) = secret_of(location);
    let config = |name: &str| text(location, &format!("/spec/config/{name}"));
    let mut entries = BTreeMap::new();
    let mut notes = Vec::new();
    let provider = text(location, "/spec/provider");
    match provider.strip_prefix("velero.io/").unwrap_or(provider) {
        "aws" => {
            let profile = Some(config("profile")).filter(|name| !name.is_empty()).unwrap_or("default");
            for (variable, name) in [
                ("AWS_ACCESS_KEY_ID", "aws_access_key_id"),
                ("AWS_SECRET_ACCESS_KEY", "aws_secret_access_key"),
            ] {
                entries.insert(variable.to_owned(), Source::line(&secret, &key, profile, name));
            }
            if !config("region").is_empty() {
                entries.insert("AWS_DEFAULT_REGION".to_owned(), Source::literal(config("region")));
            }
            if config("insecureSkipTLSVerify") == "true" {
                notes.push("insecureSkipTLSVerify has no equal here: put the authority into the Secret as RESTIC_CACERT".to_owned());
            }
        }
        "azure" => {
            let account = config("storageAccount");
            if !account.is_empty() {
                entries.insert("AZURE_ACCOUNT_NAME".to_owned(), Source::literal(account));
            }
            match config("storageAccountKeyEnvVar") {
                "" => {
                    for name in ["AZURE_CLIENT_ID", "AZURE_TENANT_ID", "AZURE_CLIENT_SECRET"] {
                        entries.insert(name.to_owned(), Source::line(&secret, &key, "", name));
                    }
                }
                name => drop(entries.insert("AZURE_ACCOUNT_KEY".to_owned(), Source::line(&secret, &key, "", name))),
            }
        }
        "gcp" => {
            entries.insert(
                "GOOGLE_APPLICATION_CREDENTIALS".to_owned(),
                Source::whole(&secret, &key),
            );
        }
        other => notes.push(format!(
            "provider {other:?} is not known: put the variables of the back end into the Secret of the ResticRepository"
        )),
    }
    let authority = text(location, "/spec/objectStorage/caCert");
    if !authority.is_empty() {
        match decoded(authority) {
            Some(pem) => drop(entries.insert("RESTIC_CACERT".to_owned(), Source::literal(&pem))),
            None => notes.push(
                "its caCert cannot be read: put the authority into the Secret as RESTIC_CACERT".to_owned(),
            ),
        }
    }
    notes.extend(not_carried(location));
    (entries, notes)
}

/// What is set in a location and not read.
fn not_carried(location: &Value) -> Option<String> {
    let left = unread(location.get("spec").unwrap_or(&Value::Null), &READ);
    let names: Vec<String> = left.into_iter().collect();
    (!names.is_empty()).then(|| {
        format!(
            "these fields of its BackupStorageLocation are not carried over: {}",
            names.join(", ")
        )
    })
}

fn decoded(base64: &str) -> Option<String> {
    use base64::Engine as _;
    let bytes = base64::engine::general_purpose::STANDARD
        .decode(base64.trim())
        .ok()?;
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn each_cloud_has_its_file() {
        let aws = json!({ "spec": { "provider": "velero.io/aws", "config": { "region": "eu-1", "profile": "b" },
                                    "objectStorage": { "bucket": "b", "caCert": "UEVN" } } });
        let (entries, notes) = credentials(&aws);
        let id = Source::line("cloud-credentials", "cloud", "b", "aws_access_key_id");
        assert_eq!(entries["AWS_ACCESS_KEY_ID"], id);
        assert_eq!(entries["AWS_DEFAULT_REGION"], Source::literal("eu-1"));
        assert_eq!(entries["RESTIC_CACERT"], Source::literal("PEM"));
        assert!(notes.is_empty());
        let gcp = json!({ "spec": { "provider": "gcp", "credential": { "name": "g", "key": "json" } } });
        let (entries, _) = credentials(&gcp);
        assert_eq!(
            entries["GOOGLE_APPLICATION_CREDENTIALS"],
            Source::whole("g", "json")
        );
        let azure = json!({ "spec": { "provider": "azure", "config": { "storageAccount": "a", "storageAccountKeyEnvVar": "K" } } });
        let (entries, _) = credentials(&azure);
        assert_eq!(
            entries["AZURE_ACCOUNT_KEY"],
            Source::line("cloud-credentials", "cloud", "", "K")
        );
        let more = json!({ "spec": { "provider": "gcp", "config": { "kmsKeyName": "k" }, "objectStorage": { "caCertRef": { "name": "ca" } } } });
        let (_, notes) = credentials(&more);
        assert!(
            notes[0].ends_with("config.kmsKeyName, objectStorage.caCertRef"),
            "{notes:?}"
        );
        let (entries, notes) = credentials(&json!({ "spec": { "provider": "other.io/x" } }));
        assert!(entries.is_empty() && notes[0].contains("other.io/x"), "{notes:?}");
    }
}
