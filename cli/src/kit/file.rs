//! What a recovery kit holds. A kit is YAML that a person can read and work by, without this program. Pure.

use std::collections::BTreeMap;

use proto::backend::normal::{PASSWORD_VARIABLE, values};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::allowed::{backend, is_file};
use crate::migrate::secret::Secrets;
use crate::objects::{at, text};

pub const API: &str = "fleet.resticbackup.io/v1";
/// Version of restic that the operator runs.
pub const RESTIC: &str = "0.18.1";

/// A kit.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Kit {
    pub api_version: String,
    pub kind: String,
    /// When it was made, RFC 3339.
    pub made: String,
    /// Of which cluster.
    #[serde(default)]
    pub cluster: Origin,
    /// restic that the repositories were written with; any later one opens them too.
    pub restic: String,
    pub repositories: Vec<Repository>,
}

/// The cluster whose repositories a kit holds: empty what is not known, as in kits of earlier versions.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Origin {
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// uid of its namespace kube-system.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub uid: String,
}

impl Origin {
    /// `berlin (uid 0123)`.
    #[must_use]
    pub fn describe(&self) -> String {
        match (self.name.as_str(), self.uid.as_str()) {
            ("", "") => "a cluster whose name is not known".to_owned(),
            ("", uid) => format!("the cluster with uid {uid}"),
            (name, "") => format!("cluster {name}"),
            (name, uid) => format!("cluster {name} (uid {uid})"),
        }
    }
}

/// A repository, with all that it takes to open it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Repository {
    pub namespace: String,
    pub name: String,
    pub url: String,
    /// restic's own id: what `restic cat config` shows.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub id: String,
    /// Id of the key that the password opens: restic tries it first.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub key_hint: String,
    /// Options of the back end (`restic -o`).
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub options: BTreeMap<String, String>,
    /// The Secret with the values, as namespace and name.
    pub secret: String,
    /// Variables for restic; without a value where the kit has none. Those of FILES hold the content of a file.
    pub variables: BTreeMap<String, Option<String>>,
    /// What to run with nothing but restic.
    pub by_hand: Vec<String>,
}

/// A repository of a cluster as it goes into a kit, and what is missing.
#[must_use]
pub fn repository(resource: &Value, secrets: &Secrets, with_passwords: bool) -> (Repository, Vec<String>) {
    let (namespace, name) = at(resource);
    let about = format!("ResticRepository {namespace}/{name}");
    let mut missing = Vec::new();
    let secret = text(resource, "/spec/credentialsSecretRef/name");
    let keys = secrets.get(&(namespace.to_owned(), secret.to_owned()));
    let key = Some(text(resource, "/spec/credentialsSecretRef/key"));
    let url = text(resource, "/spec/repositoryURL");
    let value = |key: &str| keys.and_then(|keys| keys.get(key)).map(String::as_bytes);
    let read = values(backend(url), key, value);
    match keys {
        Some(_) => missing.extend(read.faults.into_iter().map(|(key, fault)| {
            format!("{about}: key {key:?} of Secret {namespace}/{secret} cannot be used: {fault}")
        })),
        None => missing.push(format!(
            "{about}: its password cannot be read: there is no Secret {namespace}/{secret}"
        )),
    }
    let mut values: BTreeMap<String, Option<String>> = BTreeMap::from([(PASSWORD_VARIABLE.to_owned(), None)]);
    values.extend(
        read.values
            .into_iter()
            .map(|(variable, value)| (variable, Some(value))),
    );
    if !with_passwords {
        values.values_mut().for_each(|value| *value = None);
    }
    let id = text(resource, "/status/repositoryID").to_owned();
    if id.is_empty() {
        missing.push(format!(
            "{about} was never opened: its id is not known, and the kit cannot be compared with it"
        ));
    }
    let shown = without_password(url);
    if !with_passwords && shown != url && url.starts_with("rest:") {
        // restic takes them from here where the URL has none.
        for variable in ["RESTIC_REST_USERNAME", "RESTIC_REST_PASSWORD"] {
            values.entry(variable.to_owned()).or_default();
        }
    }
    let url = if with_passwords { url.to_owned() } else { shown };
    let mut repository = Repository {
        namespace: namespace.to_owned(),
        name: name.to_owned(),
        url,
        id,
        key_hint: text(resource, "/status/keyID").to_owned(),
        options: options(resource),
        secret: format!("{namespace}/{secret}"),
        variables: values,
        by_hand: Vec::new(),
    };
    repository.by_hand = by_hand(&repository);
    (repository, missing)
}

/// Options of the back end.
fn options(resource: &Value) -> BTreeMap<String, String> {
    let options = resource
        .pointer("/spec/backendOptions")
        .and_then(Value::as_object);
    let all = options.into_iter().flatten();
    all.filter_map(|(name, value)| Some((name.clone(), value.as_str()?.to_owned())))
        .collect()
}

/// A URL without user and password. A plain user is no secret, and restic needs it.
fn without_password(url: &str) -> String {
    let (head, rest) = match url.split_once("://") {
        Some((head, rest)) => (format!("{head}://"), rest),
        None => match url.split_once(':') {
            Some((scheme, rest)) => (format!("{scheme}:"), rest),
            None => return url.to_owned(),
        },
    };
    // An @ behind the first slash belongs to the path.
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    match authority.rsplit_once('@') {
        Some((user, host)) if user.contains(':') => format!("{head}{host}{path}"),
        _ => url.to_owned(),
    }
}

/// Commands for a person.
fn by_hand(repository: &Repository) -> Vec<String> {
    let quoted = |text: &str| format!("'{}'", text.replace('\'', "'\\''"));
    let options: String = repository
        .options
        .iter()
        .map(|(name, value)| format!(" -o {}", quoted(&format!("{name}={value}"))))
        .collect();
    let mut commands = vec![format!("export RESTIC_REPOSITORY={}", quoted(&repository.url))];
    if !repository.key_hint.is_empty() {
        commands.push(format!("export RESTIC_KEY_HINT={}", repository.key_hint));
    }
    for variable in repository.variables.keys() {
        commands.push(match variable.as_str() {
            "SSH_PRIVATE_KEY" | "SSH_KNOWN_HOSTS" => {
                format!(
                    "# write the value of {variable} to a file with mode 0600, and name it in ~/.ssh/config"
                )
            }
            file if is_file(file) => {
                format!("export {variable}=FILE   # a file with the value of {variable} below, mode 0600")
            }
            _ => format!("export {variable}=…   # the value below"),
        });
    }
    commands.extend([
        format!("restic{options} cat config --no-lock   # shows the id {}", repository.id),
        format!("restic{options} snapshots --no-lock   # tags say cluster, namespace and backup"),
        format!(
            "restic{options} restore latest:/backup --no-lock --tag fleet.cluster=CLUSTER,fleet.backup=NAMESPACE/NAME --target FOLDER"
        ),
    ]);
    commands
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde_json::json;

    use super::*;

    const CERTIFICATE: &str = "-----BEGIN CERTIFICATE-----\nx\n-----END CERTIFICATE-----\n";

    fn resource() -> Value {
        json!({
            "metadata": { "name": "nas", "namespace": "shop" },
            "spec": { "repositoryURL": "rest:https://u:hidden@nas:8000/x", "backendOptions": { "rest.connections": "2" },
                      "credentialsSecretRef": { "name": "storage", "key": "pw" } },
            "status": { "repositoryID": "abcd", "keyID": "ef01" },
        })
    }

    fn secrets() -> Secrets {
        let keys = [
            ("pw", "right horse\n"),
            ("RESTIC_REST_PASSWORD", "hidden"),
            ("RESTIC_CACERT", CERTIFICATE),
            ("other", "hidden"),
            ("RESTIC_PASSWORD_COMMAND", "touch /x"),
            ("AWS_ACCESS_KEY_ID", "of another back end"),
        ];
        let keys = keys.map(|(key, value)| (key.to_owned(), value.to_owned()));
        Secrets::from([(("shop".to_owned(), "storage".to_owned()), keys.into())])
    }

    #[test]
    fn a_kit_holds_secrets_only_when_it_is_asked_to() {
        let (repository, missing) = repository(&resource(), &secrets(), false);
        assert!(missing.is_empty(), "{missing:?}");
        let text = serde_json::to_string(&repository).unwrap_or_default();
        assert!(
            !text.contains("hidden") && !text.contains("right horse"),
            "{text}"
        );
        let names: Vec<&String> = repository.variables.keys().collect();
        assert_eq!(
            names,
            [
                "RESTIC_CACERT",
                "RESTIC_PASSWORD",
                "RESTIC_REST_PASSWORD",
                "RESTIC_REST_USERNAME"
            ],
            "what was in the URL is named"
        );
        assert_eq!(repository.url, "rest:https://nas:8000/x");
        assert_eq!(
            (repository.id.as_str(), repository.key_hint.as_str()),
            ("abcd", "ef01")
        );
    }

    #[test]
    fn with_passwords_it_has_all_that_restic_needs_and_nothing_else() {
        let (repository, _) = repository(&resource(), &secrets(), true);
        let value = |name: &str| repository.variables[name].clone().unwrap_or_default();
        assert_eq!(value("RESTIC_PASSWORD"), "right horse");
        assert_eq!(value("RESTIC_CACERT"), CERTIFICATE);
        let names: Vec<&String> = repository.variables.keys().collect();
        assert_eq!(
            names,
            ["RESTIC_CACERT", "RESTIC_PASSWORD", "RESTIC_REST_PASSWORD"],
            "what the operator gives to restic"
        );
        assert_eq!(repository.options["rest.connections"], "2");
        assert!(
            repository
                .by_hand
                .iter()
                .any(|line| line.contains("-o 'rest.connections=2'"))
        );
        assert!(!repository.by_hand.iter().any(|line| line.contains("right horse")));
    }

    /// With the one key of a Secret changed.
    fn with(key: &str, value: Option<&str>) -> (BTreeMap<String, Option<String>>, Vec<String>) {
        let mut secrets = secrets();
        let keys = secrets.values_mut().next().unwrap();
        keys.remove(key);
        if let Some(value) = value {
            keys.insert(key.to_owned(), value.to_owned());
        }
        let (repository, missing) = repository(&resource(), &secrets, true);
        (repository.variables, missing)
    }

    #[test]
    fn a_secret_is_read_as_the_operator_reads_it() {
        for (key, value, kept) in [
            ("RESTIC_REST_PASSWORD", " a \n", " a "),
            ("RESTIC_REST_USERNAME", "\tid \r\n", "id"),
            (
                "RESTIC_CACERT",
                &format!("\u{feff}{CERTIFICATE}").replace('\n', "\r\n"),
                CERTIFICATE,
            ),
        ] {
            assert_eq!(with(key, Some(value)).0[key].as_deref(), Some(kept), "{key}");
        }
        // Other tools leave such a key empty.
        let (variables, missing) = with("RESTIC_CACERT", Some(" \n"));
        assert!(
            !variables.contains_key("RESTIC_CACERT") && missing.is_empty(),
            "{missing:?}"
        );
        // The original operator ignored the key of the reference.
        let mut secrets = secrets();
        let keys = secrets.values_mut().next().unwrap();
        let password = keys.remove("pw").unwrap();
        keys.insert("RESTIC_PASSWORD".to_owned(), password);
        let (repository, missing) = repository(&resource(), &secrets, true);
        assert_eq!(
            repository.variables["RESTIC_PASSWORD"].as_deref(),
            Some("right horse")
        );
        assert!(missing.is_empty(), "{missing:?}");
    }

    #[test]
    fn what_the_operator_refuses_is_missing_and_the_rest_is_kept() {
        let (variables, missing) = with("RESTIC_CACERT", Some("/etc/ssl/ca.crt"));
        assert!(
            missing[0].contains("\"RESTIC_CACERT\" of Secret shop/storage"),
            "{missing:?}"
        );
        assert_eq!(variables["RESTIC_PASSWORD"].as_deref(), Some("right horse"));
        let (variables, missing) = with("pw", None);
        assert!(
            missing[0].contains("\"pw\"") && missing[0].contains("password"),
            "{missing:?}"
        );
        assert_eq!(variables["RESTIC_PASSWORD"], None);
    }

    #[test]
    fn only_a_password_leaves_the_url() {
        for (url, shown) in [
            ("rest:https://u:p@ss@nas:8000/x", "rest:https://nas:8000/x"),
            ("rest:https://nas/a@b:c@d", "rest:https://nas/a@b:c@d"),
            ("sftp://backup@nas//srv", "sftp://backup@nas//srv"),
            ("sftp:backup@nas:/srv/a@b", "sftp:backup@nas:/srv/a@b"),
            ("sftp:u:p@nas:/srv", "sftp:nas:/srv"),
            ("s3:https://h/b@c", "s3:https://h/b@c"),
            ("/srv/a@b", "/srv/a@b"),
        ] {
            assert_eq!(without_password(url), shown);
        }
    }

    #[test]
    fn what_is_missing_is_named() {
        let mut never = resource();
        never["status"] = json!({});
        let (_, missing) = repository(&never, &Secrets::new(), true);
        assert_eq!(missing.len(), 2, "{missing:?}");
        assert!(missing[0].contains("Secret shop/storage"), "{missing:?}");
    }
}
