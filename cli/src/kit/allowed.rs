//! What of a kit is passed on to restic: the variables and options that the operator takes for a back end. A kit may have
//! been changed by another hand, and some of restic's settings run programs. Pure.

/// A back end, by the scheme of its URLs.
struct Backend {
    scheme: &'static str,
    variables: &'static [&'static str],
    /// Those whose value is the content of a file.
    files: &'static [&'static str],
    options: &'static [&'static str],
}

/// Variables that every back end takes.
const COMMON: [&str; 8] = [
    "RESTIC_PASSWORD",
    "RESTIC_KEY_HINT",
    "RESTIC_COMPRESSION",
    "RESTIC_PACK_SIZE",
    "RESTIC_READ_CONCURRENCY",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "NO_PROXY",
];
const TLS: &[&str] = &["RESTIC_CACERT", "RESTIC_TLS_CLIENT_CERT"];

/// As the operator has them (docs/backends); a test compares.
const BACKENDS: [Backend; 9] = [
    Backend {
        scheme: "s3",
        variables: &[
            "AWS_ACCESS_KEY_ID",
            "AWS_SECRET_ACCESS_KEY",
            "AWS_SESSION_TOKEN",
            "AWS_DEFAULT_REGION",
            "AWS_REGION",
            "RESTIC_AWS_ASSUME_ROLE_ARN",
            "RESTIC_AWS_ASSUME_ROLE_SESSION_NAME",
            "RESTIC_AWS_ASSUME_ROLE_EXTERNAL_ID",
            "RESTIC_AWS_ASSUME_ROLE_POLICY",
            "RESTIC_AWS_ASSUME_ROLE_REGION",
            "RESTIC_AWS_ASSUME_ROLE_STS_ENDPOINT",
        ],
        files: TLS,
        options: &[
            "s3.bucket-lookup",
            "s3.connections",
            "s3.list-objects-v1",
            "s3.region",
            "s3.retries",
            "s3.storage-class",
        ],
    },
    Backend {
        scheme: "sftp",
        variables: &[],
        files: &["SSH_PRIVATE_KEY", "SSH_KNOWN_HOSTS"],
        options: &["sftp.connections"],
    },
    Backend {
        scheme: "rest",
        variables: &["RESTIC_REST_USERNAME", "RESTIC_REST_PASSWORD"],
        files: TLS,
        options: &["rest.connections"],
    },
    Backend {
        scheme: "azure",
        variables: &[
            "AZURE_ACCOUNT_NAME",
            "AZURE_ACCOUNT_KEY",
            "AZURE_ACCOUNT_SAS",
            "AZURE_ENDPOINT_SUFFIX",
            "AZURE_CLIENT_ID",
            "AZURE_TENANT_ID",
            "AZURE_CLIENT_SECRET",
        ],
        files: TLS,
        options: &["azure.access-tier", "azure.connections"],
    },
    Backend {
        scheme: "gs",
        variables: &[
            "GOOGLE_PROJECT_ID",
            "GOOGLE_ACCESS_TOKEN",
            "STORAGE_EMULATOR_HOST",
        ],
        files: &["GOOGLE_APPLICATION_CREDENTIALS", "RESTIC_CACERT"],
        options: &["gs.connections", "gs.region"],
    },
    Backend {
        scheme: "b2",
        variables: &["B2_ACCOUNT_ID", "B2_ACCOUNT_KEY"],
        files: TLS,
        options: &["b2.connections"],
    },
    Backend {
        scheme: "swift",
        variables: &[
            "ST_AUTH",
            "ST_USER",
            "ST_KEY",
            "OS_AUTH_URL",
            "OS_REGION_NAME",
            "OS_USERNAME",
            "OS_USER_ID",
            "OS_PASSWORD",
            "OS_TENANT_ID",
            "OS_TENANT_NAME",
            "OS_USER_DOMAIN_NAME",
            "OS_USER_DOMAIN_ID",
            "OS_PROJECT_NAME",
            "OS_PROJECT_DOMAIN_NAME",
            "OS_PROJECT_DOMAIN_ID",
            "OS_TRUST_ID",
            "OS_APPLICATION_CREDENTIAL_ID",
            "OS_APPLICATION_CREDENTIAL_NAME",
            "OS_APPLICATION_CREDENTIAL_SECRET",
            "OS_STORAGE_URL",
            "OS_AUTH_TOKEN",
            "SWIFT_DEFAULT_CONTAINER_POLICY",
        ],
        files: TLS,
        options: &["swift.connections"],
    },
    Backend {
        scheme: "rclone",
        variables: &["RCLONE_BWLIMIT", "RCLONE_CONFIG_PASS"],
        files: &["RCLONE_CONFIG", "RESTIC_CACERT"],
        options: &["rclone.connections", "rclone.timeout"],
    },
    // A folder, also without a scheme.
    Backend {
        scheme: "local",
        variables: &[],
        files: &[],
        options: &[],
    },
];

/// The back end of a URL. What has no scheme that restic knows is a folder to it.
fn of(url: &str) -> &'static Backend {
    let scheme = url.split_once(':').map_or("local", |(scheme, _)| scheme);
    let found = BACKENDS.iter().find(|backend| backend.scheme == scheme);
    let [.., folder] = &BACKENDS;
    found.unwrap_or(folder)
}

/// Variables of restic for a repository.
pub fn variables(url: &str) -> impl Iterator<Item = &'static str> {
    let backend = of(url);
    let own = backend.variables.iter().chain(backend.files);
    own.chain(&COMMON).copied()
}

/// Whether the value of a variable is the content of a file, and restic takes its path.
#[must_use]
pub fn is_file(variable: &str) -> bool {
    BACKENDS.iter().any(|backend| backend.files.contains(&variable))
}

/// Whether an option may be given to restic.
#[must_use]
pub fn is_option(url: &str, name: &str, value: &str) -> bool {
    // restic takes several options in one, with commas between them.
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_".contains(c);
    of(url).options.contains(&name) && !value.is_empty() && value.chars().all(plain)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use spoke::secrets::{self, OptionError, PASSWORD_VARIABLE, check_options};

    use super::*;

    #[test]
    fn a_kit_takes_what_the_operator_takes() {
        for backend in &BACKENDS {
            let url = format!("{}:x", backend.scheme);
            let theirs = secrets::Backend::of(&url).unwrap();
            let files: BTreeSet<&str> = theirs.files().iter().map(|file| file.key).collect();
            assert_eq!(files, backend.files.iter().copied().collect(), "{url}");
            let mut wanted: BTreeSet<&str> = theirs.variables().chain(files).collect();
            wanted.insert(PASSWORD_VARIABLE);
            assert_eq!(variables(&url).collect::<BTreeSet<_>>(), wanted, "{url}");
            let unknown = BTreeMap::from([("x".to_owned(), "1".to_owned())]);
            let Err(OptionError::Unknown { allowed, .. }) = check_options(theirs, &unknown) else {
                panic!("{url}");
            };
            let allowed: Vec<&str> = allowed.split(", ").filter(|name| !name.is_empty()).collect();
            assert_eq!(allowed, backend.options, "{url}");
        }
    }

    #[test]
    fn nothing_that_runs_a_program_is_passed_on() {
        for (url, name, value) in [
            ("sftp:u@h:/x", "sftp.command", "sh"),
            ("sftp:u@h:/x", "sftp.args", "-o"),
            ("rclone:box:x", "rclone.program", "sh"),
            ("sftp:u@h:/x", "sftp.connections", "2,sftp.command=sh"),
            ("sftp:u@h:/x", "sftp.connections", "2\"\nsftp.command=sh"),
            ("/srv/x", "sftp.command", "sh"),
        ] {
            assert!(!is_option(url, name, value), "{name}={value}");
        }
        assert!(is_option("s3:h/b", "s3.storage-class", "STANDARD_IA"));
        for url in ["s3:h/b", "sftp:u@h:/x", "/srv/x", "C:x"] {
            assert!(variables(url).all(|name| !name.ends_with("_COMMAND")));
        }
    }
}
