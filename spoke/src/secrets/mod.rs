//! Credentials of repositories: out of a Secret, into restic, and nowhere else.

mod backend;
mod normal;

use std::collections::BTreeMap;
use std::fmt;

use crds::ResticRepository;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;

pub use backend::{
    CREDENTIALS_DIR, FILES_VARIABLE, NEW_PASSWORD_DIR, NEW_PASSWORD_FILE, NEW_PASSWORD_KEY,
    PRIVATE_FILES_VARIABLE, REPOSITORY_VARIABLE, SSH_DIR, backend_flags, file_flags,
};
pub use normal::{new_password, normalised};
pub use proto::backend::normal::PASSWORD_VARIABLE;
use proto::backend::normal::password_key as normal_key;
pub use proto::backend::{Backend, FileKey, OptionError, check_options};

/// A mark that tells which state of the source it was taken from, and the data.
pub type Projection = (String, BTreeMap<String, ByteString>);

/// What is wrong with a Secret. Names keys, never values.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SecretError {
    #[error(
        "Secret {0:?} does not exist in this namespace; create it with key RESTIC_PASSWORD and the back end's variables"
    )]
    Missing(String),
    #[error("Secret {secret:?} has no key {key:?}; put the repository password there")]
    NoPassword { secret: String, key: String },
    #[error("key {key:?} of Secret {secret:?} is empty; put the repository password there")]
    EmptyPassword { secret: String, key: String },
    #[error(
        "key {key:?} of Secret {secret:?} cannot be used: byte 0x{byte:02x} at position {at} (from 0): {why}"
    )]
    Byte {
        secret: String,
        key: String,
        byte: u8,
        at: usize,
        why: &'static str,
    },
    #[error("Secret {secret:?} has no key {key:?}, or it is empty; put {what} there")]
    NoFile {
        secret: String,
        key: String,
        what: &'static str,
    },
    #[error(
        "key {key:?} of Secret {secret:?} cannot be used: no {line:?} is in it; put the file's content there, not its path"
    )]
    NotPem {
        secret: String,
        key: String,
        line: &'static str,
    },
    #[error("repositoryURL begins with no back end that restic knows")]
    UnknownBackend,
}

/// Everything that restic needs to open a repository.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    pub backend: Backend,
    pub url: String,
    pub password: String,
    /// Allow-listed variables.
    pub variables: BTreeMap<String, String>,
    /// File name below the credentials folder -> content.
    pub files: BTreeMap<&'static str, Vec<u8>>,
    /// `spec.backendOptions` as flags.
    pub options: Vec<String>,
    /// Variable -> file name below the credentials folder.
    pub file_variables: BTreeMap<&'static str, &'static str>,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "Credentials({}, {} variables)",
            proto::text::without_credentials(&self.url),
            self.variables.len()
        )
    }
}

impl Credentials {
    /// Values that must never appear in a message.
    pub fn values(&self) -> impl Iterator<Item = &str> {
        let url_user = self
            .url
            .rsplit_once('@')
            .map(|(head, _)| head.rsplit_once("//").map_or(head, |(_, user)| user));
        std::iter::once(self.password.as_str())
            .chain(
                self.variables
                    .iter()
                    .filter(|(name, _)| is_secret(name))
                    .map(|(_, value)| value.as_str()),
            )
            .chain(url_user)
            .chain(
                url_user
                    .and_then(|user| user.split_once(':'))
                    .map(|(_, password)| password),
            )
            // Masking every "a" in a message would hide more than it protects.
            .filter(|value| value.len() >= 4)
    }
}

/// Regions and proxies may be named in a message; keys, tokens and passwords may not.
fn is_secret(variable: &str) -> bool {
    [
        "KEY", "SECRET", "PASS", "TOKEN", "SAS", "USER", "PROXY", "ACCOUNT",
    ]
    .iter()
    .any(|part| variable.contains(part))
}

/// Key of the password: the one that the spec names, or RESTIC_PASSWORD where the named one is absent.
#[must_use]
pub fn password_key(repository: &ResticRepository, has: impl Fn(&str) -> bool) -> String {
    let named = repository.spec.credentials_secret_ref.key.as_deref();
    normal_key(named, has).to_owned()
}

/// Reads a repository's credentials out of its Secret.
///
/// # Errors
/// As of [`normalised`].
pub fn credentials(
    repository: &ResticRepository,
    secret: Option<&Secret>,
) -> Result<Credentials, SecretError> {
    let url = repository.spec.repository_url.clone();
    let backend = Backend::of(&url).ok_or(SecretError::UnknownBackend)?;
    let mut data = normalised(repository, secret)?;
    let mut take = |key: &str| data.remove(key).map(|ByteString(bytes)| bytes);
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    let password = take(PASSWORD_VARIABLE).map(text).unwrap_or_default();
    let variables = backend
        .variables()
        .filter_map(|variable| Some((variable.to_owned(), text(take(variable)?))))
        .collect();
    let mut files = BTreeMap::new();
    let mut file_variables = BTreeMap::new();
    for file in backend.files() {
        if let Some(content) = take(file.key) {
            files.insert(file.file, content);
            file_variables.extend(file.variable.map(|variable| (variable, file.file)));
        }
    }
    Ok(Credentials {
        backend,
        url,
        password,
        variables,
        files,
        options: backend_flags(repository),
        file_variables,
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn repository(url: &str, key: Option<&str>) -> ResticRepository {
        serde_json::from_value(json!({
            "apiVersion": "backup.resticbackup.io/v1alpha1", "kind": "ResticRepository",
            "metadata": { "name": "nas", "namespace": "shop" },
            "spec": { "repositoryURL": url, "credentialsSecretRef": { "name": "nas", "key": key } },
        }))
        .unwrap()
    }

    fn secret(pairs: &[(&str, &str)]) -> Secret {
        let data = pairs
            .iter()
            .map(|(k, v)| ((*k).to_owned(), ByteString(v.as_bytes().to_vec())))
            .collect();
        Secret {
            data: Some(data),
            ..Secret::default()
        }
    }

    #[test]
    fn only_listed_variables_get_through() {
        let secret = secret(&[
            ("RESTIC_PASSWORD", "pw"),
            ("AWS_ACCESS_KEY_ID", "id"),
            ("LD_PRELOAD", "x"),
            ("RESTIC_HOST", "h"),
        ]);
        let read = credentials(&repository("s3:https://h/b", None), Some(&secret)).unwrap();
        assert_eq!(read.variables.keys().collect::<Vec<_>>(), ["AWS_ACCESS_KEY_ID"]);
        let data = normalised(&repository("s3:https://h/b", None), Some(&secret)).unwrap();
        assert_eq!(
            data.keys().collect::<Vec<_>>(),
            ["AWS_ACCESS_KEY_ID", "RESTIC_PASSWORD", "RESTIC_REPOSITORY"]
        );
    }

    #[test]
    fn each_fault_of_a_secret_names_its_key() {
        let repository = repository("s3:https://h/b", Some("password"));
        let message = |secret: Option<&Secret>| credentials(&repository, secret).unwrap_err().to_string();
        assert!(message(None).contains("\"nas\" does not exist"));
        assert!(message(Some(&secret(&[]))).contains("no key \"password\""));
        assert!(message(Some(&secret(&[("password", "\n")]))).contains("is empty"));
        let mut binary = secret(&[]);
        binary.data = Some([("password".to_owned(), ByteString(vec![0xff, 0]))].into());
        assert!(message(Some(&binary)).contains("not UTF-8"));
    }

    #[test]
    fn the_key_of_the_original_operator_still_works() {
        let read = credentials(
            &repository("rest:https://h/", Some("absent")),
            Some(&secret(&[("RESTIC_PASSWORD", "pw")])),
        );
        assert_eq!(read.unwrap().password, "pw");
    }

    #[test]
    fn debug_shows_no_value() {
        let secret = secret(&[
            ("RESTIC_PASSWORD", "topsecret"),
            ("RESTIC_REST_PASSWORD", "hidden"),
        ]);
        let read = credentials(&repository("rest:https://u:inurl@h/", None), Some(&secret)).unwrap();
        let shown = format!("{read:?}");
        assert!(!shown.contains("topsecret") && !shown.contains("hidden") && !shown.contains("inurl"));
        assert!(read.values().any(|v| v == "inurl") && read.values().any(|v| v == "hidden"));
    }
}
