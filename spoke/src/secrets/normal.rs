//! A repository's Secret as it is read ([`proto::backend::normal`]): manager, pods and copies for other namespaces all get what
//! comes out here. Pure.

use std::collections::BTreeMap;

use crds::ResticRepository;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use proto::backend::normal::{self, Fault};

use super::{Backend, NEW_PASSWORD_KEY, REPOSITORY_VARIABLE, SecretError};

/// Location, password, allowed variables and files of a repository, by the key of the Secret that holds each.
/// The password is always under [`super::PASSWORD_VARIABLE`].
///
/// # Errors
/// When the Secret lacks what the back end needs, or holds what restic cannot be given.
pub fn normalised(
    repository: &ResticRepository,
    secret: Option<&Secret>,
) -> Result<BTreeMap<String, ByteString>, SecretError> {
    let reference = &repository.spec.credentials_secret_ref;
    let secret = secret.ok_or_else(|| SecretError::Missing(reference.name.clone()))?;
    let url = &repository.spec.repository_url;
    let backend = Backend::of(url).ok_or(SecretError::UnknownBackend)?;
    let value = |key: &str| {
        let ByteString(bytes) = secret.data.as_ref()?.get(key)?;
        Some(bytes.as_slice())
    };
    let read = normal::values(backend, reference.key.as_deref(), value);
    if let Some((key, fault)) = read.faults.into_iter().next() {
        return Err(error(reference.name.clone(), key, fault));
    }
    let bytes = |(key, text): (String, String)| (key, ByteString(text.into_bytes()));
    let mut data: BTreeMap<String, ByteString> = read.values.into_iter().map(bytes).collect();
    data.insert(
        REPOSITORY_VARIABLE.to_owned(),
        ByteString(url.clone().into_bytes()),
    );
    Ok(data)
}

fn error(secret: String, key: String, fault: Fault) -> SecretError {
    match fault {
        Fault::NoPassword => SecretError::NoPassword { secret, key },
        Fault::EmptyPassword => SecretError::EmptyPassword { secret, key },
        Fault::Byte { byte, at, why } => SecretError::Byte {
            secret,
            key,
            byte,
            at,
            why,
        },
        Fault::NoFile(what) => SecretError::NoFile { secret, key, what },
        Fault::NotPem(line) => SecretError::NotPem { secret, key, line },
    }
}

/// The password that is to take the place of the present one, if there is one that restic can be given.
#[must_use]
pub fn new_password(secret: &Secret) -> Option<ByteString> {
    let ByteString(bytes) = secret.data.as_ref()?.get(NEW_PASSWORD_KEY)?;
    let text = normal::password(bytes).ok()?;
    Some(ByteString(text.into_bytes()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn repository(url: &str) -> ResticRepository {
        serde_json::from_value(json!({
            "apiVersion": "backup.resticbackup.io/v1alpha1", "kind": "ResticRepository",
            "metadata": { "name": "nas", "namespace": "shop" },
            "spec": { "repositoryURL": url, "credentialsSecretRef": { "name": "nas" } },
        }))
        .unwrap()
    }

    fn read(url: &str, pairs: &[(&str, &[u8])]) -> Result<BTreeMap<String, String>, String> {
        let data = pairs
            .iter()
            .map(|(key, value)| ((*key).to_owned(), ByteString(value.to_vec())))
            .collect();
        let secret = Secret {
            data: Some(data),
            ..Secret::default()
        };
        let data = normalised(&repository(url), Some(&secret)).map_err(|error| error.to_string())?;
        let text = |ByteString(bytes)| String::from_utf8(bytes).unwrap();
        Ok(data.into_iter().map(|(key, value)| (key, text(value))).collect())
    }

    const S3: &str = "s3:https://h/b";
    const SFTP: &str = "sftp:u@h:/b";
    const KEY: &str = "-----BEGIN OPENSSH PRIVATE KEY-----\r\nabc\r\n-----END OPENSSH PRIVATE KEY-----";

    #[test]
    fn what_cannot_belong_to_a_value_is_taken_off() {
        let read = read(
            S3,
            &[
                ("RESTIC_PASSWORD", b" two words \r\n\n"),
                ("AWS_ACCESS_KEY_ID", b"\tid\n"),
                ("AWS_SECRET_ACCESS_KEY", b"key \r\n"),
                ("RESTIC_AWS_ASSUME_ROLE_POLICY", b"{\n}\n"),
                (
                    "RESTIC_CACERT",
                    b"\xef\xbb\xbf-----BEGIN CERTIFICATE-----\r\nx\r\n-----END CERTIFICATE-----",
                ),
            ],
        )
        .unwrap();
        for (key, value) in [
            ("RESTIC_PASSWORD", " two words "),
            ("AWS_ACCESS_KEY_ID", "id"),
            ("AWS_SECRET_ACCESS_KEY", "key"),
            ("RESTIC_AWS_ASSUME_ROLE_POLICY", "{\n}"),
            (
                "RESTIC_CACERT",
                "-----BEGIN CERTIFICATE-----\nx\n-----END CERTIFICATE-----\n",
            ),
            ("RESTIC_REPOSITORY", S3),
        ] {
            assert_eq!(read[key], value, "{key}");
        }
    }

    #[test]
    fn what_restic_cannot_be_given_is_refused_with_key_and_byte() {
        let ca: &[u8] = b"/etc/ssl/ca.crt";
        for (key, value, words) in [
            ("RESTIC_PASSWORD", b"a\0b".as_slice(), "byte 0x00 at position 1"),
            ("RESTIC_PASSWORD", b"\xff\xfea\0", "byte 0xff at position 0"),
            ("RESTIC_PASSWORD", b"\xef\xbb\xbfpw", "byte 0xef at position 0"),
            ("AWS_ACCESS_KEY_ID", b" a\nb", "byte 0x0a at position 2"),
            ("AWS_SECRET_ACCESS_KEY", b"ab\x1bc", "byte 0x1b at position 2"),
            ("AWS_SESSION_TOKEN", b"ab\xc3(", "byte 0xc3 at position 2"),
            ("RESTIC_CACERT", ca, "-----BEGIN CERTIFICATE-----"),
        ] {
            let all: Vec<(&str, &[u8])> = if key == "RESTIC_PASSWORD" {
                vec![(key, value)]
            } else {
                vec![("RESTIC_PASSWORD", b"pw"), (key, value)]
            };
            let error = read(S3, &all).unwrap_err();
            assert!(error.contains(words) && error.contains(key), "{error}");
        }
        let rest: &[(&str, &[u8])] = &[("RESTIC_PASSWORD", b"pw"), ("RESTIC_REST_PASSWORD", b"a\tb")];
        assert!(read("rest:https://h/", rest).unwrap_err().contains("0x09"));
    }

    #[test]
    fn ssh_gets_a_key_that_it_reads_or_the_secret_is_refused() {
        let hosts: &[u8] = b"h ssh-ed25519 AAAA";
        let password: (&str, &[u8]) = ("RESTIC_PASSWORD", b"pw");
        let all = [
            password,
            ("SSH_PRIVATE_KEY", KEY.as_bytes()),
            ("SSH_KNOWN_HOSTS", hosts),
        ];
        let read_all = read(SFTP, &all).unwrap();
        assert!(
            !read_all["SSH_PRIVATE_KEY"].contains('\r') && read_all["SSH_PRIVATE_KEY"].ends_with("-----\n")
        );
        assert_eq!(read_all["SSH_KNOWN_HOSTS"], "h ssh-ed25519 AAAA\n");
        let error = read(SFTP, &all[..2]).unwrap_err();
        assert!(
            error.contains("SSH_KNOWN_HOSTS") && error.contains("ssh-keyscan"),
            "{error}"
        );
        let public = [password, ("SSH_PRIVATE_KEY", hosts), ("SSH_KNOWN_HOSTS", hosts)];
        assert!(read(SFTP, &public).unwrap_err().contains("SSH_PRIVATE_KEY"));
        let blank = [
            password,
            ("SSH_PRIVATE_KEY", b" \n".as_slice()),
            ("SSH_KNOWN_HOSTS", hosts),
        ];
        assert!(read(SFTP, &blank).unwrap_err().contains("SSH_PRIVATE_KEY"));
    }

    proptest! {
        /// What is read once stays as it is: a copy may be read again.
        #[test]
        fn a_second_reading_changes_nothing(password in "[a-z \n\r]{1,9}x[\n\r]{0,3}", word in "[a-z \n\r\t]{0,6}") {
            let once = read(S3, &[("RESTIC_PASSWORD", password.as_bytes()), ("AWS_ACCESS_KEY_ID", word.as_bytes())]);
            if let Ok(once) = once {
                let again: Vec<(&str, &[u8])> = once.iter().map(|(k, v)| (k.as_str(), v.as_bytes())).collect();
                prop_assert_eq!(read(S3, &again).unwrap(), once);
            }
        }

        #[test]
        fn an_error_never_shows_a_value(secret in "[a-z]{12,20}", tail in "[\0\n]x") {
            let value = format!("{secret}{tail}");
            let all: [(&str, &[u8]); 2] = [("RESTIC_PASSWORD", b"pw"), ("AWS_SECRET_ACCESS_KEY", value.as_bytes())];
            let error = read(S3, &all).unwrap_err();
            prop_assert!(!error.contains(&secret), "{}", error);
        }
    }
}
