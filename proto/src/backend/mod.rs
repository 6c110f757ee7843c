//! Which variables, files and options reach restic, per back end: of a Secret in a cluster, and of a recovery kit. Allow-lists:
//! whatever else is there stays where it is, and RESTIC_HOST, which would silently narrow what restic selects, never gets
//! through.

pub mod normal;
mod options;

pub use options::{OptionError, check_options};

/// Storage that holds a repository, by the scheme of its URL (restic's documentation, "Preparing a new repository").
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backend {
    S3,
    Sftp,
    Rest,
    Azure,
    Gs,
    B2,
    Swift,
    Rclone,
    Local,
}

/// A key of a Secret whose value restic, or a program that it starts, wants as a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileKey {
    /// Key in the Secret.
    pub key: &'static str,
    /// Variable that names the file, if there is one.
    pub variable: Option<&'static str>,
    /// File name below the folder of credentials.
    pub file: &'static str,
    /// What to put there, if the back end does not work without it; otherwise empty.
    pub needed: &'static str,
    /// Texts that a usable value has.
    pub holds: &'static [&'static str],
    /// ssh reads it only if nobody else may.
    pub private: bool,
}

const fn file(key: &'static str, variable: Option<&'static str>, file: &'static str) -> FileKey {
    FileKey {
        key,
        variable,
        file,
        needed: "",
        holds: &[],
        private: false,
    }
}

/// What restic reads for S3.
const S3: &[&str] = &[
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
];

/// Variables that every back end takes.
const COMMON: &[&str] = &[
    "RESTIC_KEY_HINT",
    "RESTIC_COMPRESSION",
    "RESTIC_PACK_SIZE",
    "RESTIC_READ_CONCURRENCY",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "NO_PROXY",
];
const CA: FileKey = FileKey {
    holds: &["-----BEGIN CERTIFICATE-----"],
    ..file("RESTIC_CACERT", Some("RESTIC_CACERT"), "ca.crt")
};
const CLIENT_CERTIFICATE: FileKey = FileKey {
    holds: &["-----BEGIN CERTIFICATE-----", "PRIVATE KEY-----"],
    ..file(
        "RESTIC_TLS_CLIENT_CERT",
        Some("RESTIC_TLS_CLIENT_CERT"),
        "client.pem",
    )
};

impl Backend {
    /// All of them.
    pub const ALL: [Backend; 9] = [
        Backend::S3,
        Backend::Sftp,
        Backend::Rest,
        Backend::Azure,
        Backend::Gs,
        Backend::B2,
        Backend::Swift,
        Backend::Rclone,
        Backend::Local,
    ];

    /// Back end of a repository URL; `None` for a scheme that restic does not know.
    #[must_use]
    pub fn of(url: &str) -> Option<Backend> {
        Some(match url.split_once(':')?.0 {
            "s3" => Backend::S3,
            "sftp" => Backend::Sftp,
            "rest" => Backend::Rest,
            "azure" => Backend::Azure,
            "gs" => Backend::Gs,
            "b2" => Backend::B2,
            "swift" => Backend::Swift,
            "rclone" => Backend::Rclone,
            "local" => Backend::Local,
            _ => return None,
        })
    }

    /// Variables taken out of the Secret, beside location and password.
    pub fn variables(self) -> impl Iterator<Item = &'static str> {
        let own: &[&str] = match self {
            Backend::S3 => S3,
            Backend::Rest => &["RESTIC_REST_USERNAME", "RESTIC_REST_PASSWORD"],
            Backend::Azure => &[
                "AZURE_ACCOUNT_NAME",
                "AZURE_ACCOUNT_KEY",
                "AZURE_ACCOUNT_SAS",
                "AZURE_ENDPOINT_SUFFIX",
                "AZURE_CLIENT_ID",
                "AZURE_TENANT_ID",
                "AZURE_CLIENT_SECRET",
            ],
            Backend::Gs => &[
                "GOOGLE_PROJECT_ID",
                "GOOGLE_ACCESS_TOKEN",
                // Google's library takes another address of the storage from nowhere else.
                "STORAGE_EMULATOR_HOST",
            ],
            Backend::B2 => &["B2_ACCOUNT_ID", "B2_ACCOUNT_KEY"],
            Backend::Swift => &[
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
            Backend::Rclone => &["RCLONE_BWLIMIT", "RCLONE_CONFIG_PASS"],
            Backend::Sftp | Backend::Local => &[],
        };
        own.iter().chain(COMMON).copied()
    }

    /// Keys whose values become files.
    #[must_use]
    pub fn files(self) -> &'static [FileKey] {
        const S3: &[FileKey] = &[CA, CLIENT_CERTIFICATE];
        const GS: &[FileKey] = &[
            file(
                "GOOGLE_APPLICATION_CREDENTIALS",
                Some("GOOGLE_APPLICATION_CREDENTIALS"),
                "google.json",
            ),
            CA,
        ];
        const RCLONE: &[FileKey] = &[file("RCLONE_CONFIG", Some("RCLONE_CONFIG"), "rclone.conf"), CA];
        const SFTP: &[FileKey] = &[
            FileKey {
                needed: "the private key that the storage accepts",
                holds: &["PRIVATE KEY-----"],
                private: true,
                ..file("SSH_PRIVATE_KEY", None, "id")
            },
            FileKey {
                needed: "the storage's host keys, as ssh-keyscan prints them",
                ..file("SSH_KNOWN_HOSTS", None, "known_hosts")
            },
        ];
        match self {
            Backend::S3 | Backend::Rest | Backend::Azure | Backend::B2 | Backend::Swift => S3,
            Backend::Gs => GS,
            Backend::Rclone => RCLONE,
            Backend::Sftp => SFTP,
            Backend::Local => &[],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of restic's documentation ("Environment Variables"), and what its libraries read beside that.
    #[test]
    fn each_back_end_gets_the_variables_that_restic_documents_for_it() {
        let all = |names: &str| names.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        let common = "RESTIC_KEY_HINT RESTIC_COMPRESSION RESTIC_PACK_SIZE RESTIC_READ_CONCURRENCY";
        for (url, documented) in [
            (
                "s3:h/b",
                "AWS_ACCESS_KEY_ID AWS_SECRET_ACCESS_KEY AWS_SESSION_TOKEN AWS_DEFAULT_REGION RESTIC_CACERT \
                 RESTIC_TLS_CLIENT_CERT RESTIC_AWS_ASSUME_ROLE_ARN RESTIC_AWS_ASSUME_ROLE_EXTERNAL_ID \
                 RESTIC_AWS_ASSUME_ROLE_POLICY RESTIC_AWS_ASSUME_ROLE_REGION RESTIC_AWS_ASSUME_ROLE_SESSION_NAME \
                 RESTIC_AWS_ASSUME_ROLE_STS_ENDPOINT",
            ),
            (
                "rest:https://h/",
                "RESTIC_REST_USERNAME RESTIC_REST_PASSWORD RESTIC_CACERT RESTIC_TLS_CLIENT_CERT",
            ),
            (
                "azure:c:/",
                "AZURE_ACCOUNT_NAME AZURE_ACCOUNT_KEY AZURE_ACCOUNT_SAS AZURE_ENDPOINT_SUFFIX AZURE_CLIENT_ID \
                 AZURE_TENANT_ID AZURE_CLIENT_SECRET RESTIC_CACERT",
            ),
            (
                "gs:b:/",
                "GOOGLE_PROJECT_ID GOOGLE_APPLICATION_CREDENTIALS GOOGLE_ACCESS_TOKEN STORAGE_EMULATOR_HOST RESTIC_CACERT",
            ),
            ("b2:b:x", "B2_ACCOUNT_ID B2_ACCOUNT_KEY RESTIC_CACERT"),
            (
                "swift:c:/",
                "ST_AUTH ST_USER ST_KEY OS_AUTH_URL OS_REGION_NAME OS_USERNAME OS_USER_ID OS_PASSWORD OS_TENANT_ID \
                 OS_TENANT_NAME OS_USER_DOMAIN_NAME OS_USER_DOMAIN_ID OS_PROJECT_NAME OS_PROJECT_DOMAIN_NAME \
                 OS_PROJECT_DOMAIN_ID OS_TRUST_ID OS_APPLICATION_CREDENTIAL_ID OS_APPLICATION_CREDENTIAL_NAME \
                 OS_APPLICATION_CREDENTIAL_SECRET OS_STORAGE_URL OS_AUTH_TOKEN SWIFT_DEFAULT_CONTAINER_POLICY RESTIC_CACERT",
            ),
            (
                "rclone:box:x",
                "RCLONE_BWLIMIT RCLONE_CONFIG RCLONE_CONFIG_PASS RESTIC_CACERT",
            ),
            ("sftp:u@h:/x", "SSH_PRIVATE_KEY SSH_KNOWN_HOSTS"),
        ] {
            let backend = Backend::of(url).unwrap();
            let mut given: Vec<String> = backend.variables().map(str::to_owned).collect();
            given.extend(backend.files().iter().map(|file| file.key.to_owned()));
            for variable in all(documented).iter().chain(&all(common)) {
                assert!(given.contains(variable), "{url}: {variable}");
            }
            // A profile of a file that is not there, and a program that the images do not have.
            for variable in [
                "AWS_PROFILE",
                "AWS_SHARED_CREDENTIALS_FILE",
                "AZURE_FORCE_CLI_CREDENTIAL",
            ] {
                assert!(!given.contains(&variable.to_owned()), "{url}: {variable}");
            }
        }
    }

    #[test]
    fn selectors_and_passwords_are_never_on_the_list() {
        for backend in Backend::ALL {
            for variable in backend.variables() {
                assert!(
                    ![
                        "RESTIC_HOST",
                        "RESTIC_PASSWORD",
                        "RESTIC_REPOSITORY",
                        "PATH",
                        "RESTIC_PASSWORD_COMMAND"
                    ]
                    .contains(&variable)
                );
            }
        }
    }
}
