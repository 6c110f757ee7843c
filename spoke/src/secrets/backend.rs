//! How what reaches restic of a Secret is handed to it: where its files lie, and the flags that name them.

use std::collections::BTreeMap;

use crds::ResticRepository;
use proto::backend::{Backend, check_options};

/// Folder that credential files are mounted at in pods.
pub const CREDENTIALS_DIR: &str = "/credentials";
/// Variable that tells a pod which variables name credential files: `VARIABLE=/path VARIABLE=/path`. A pod sets those
/// whose file is there, for restic refuses to begin with a name of a file that is not.
pub const FILES_VARIABLE: &str = "FLEET_CREDENTIAL_FILES";
/// Folder of the pod's own memory for files that nobody but its user may read.
pub const SSH_DIR: &str = "/ssh";
/// Variable that tells a pod which files to copy, with the rights of its user alone: `/from=/to /from=/to`. ssh refuses a
/// key that others may read, and the mounted one has to be readable for any user.
pub const PRIVATE_FILES_VARIABLE: &str = "FLEET_PRIVATE_FILES";
/// Variable with the repository's location.
pub const REPOSITORY_VARIABLE: &str = "RESTIC_REPOSITORY";

/// Key of the password that is to take the place of the present one. It reaches the pod that adds its key and no other.
pub const NEW_PASSWORD_KEY: &str = "RESTIC_PASSWORD_NEW";
/// Folder in which that pod finds it, and the name of the file.
pub const NEW_PASSWORD_DIR: &str = "/new-password";
pub const NEW_PASSWORD_FILE: &str = "password";

/// Flags that make restic use the files in `dir`, and those that nobody else may read in `private`. The host key must be
/// known: an unknown one is refused.
#[must_use]
pub fn file_flags(backend: Backend, dir: &str, private: &str) -> Vec<String> {
    match backend {
        Backend::Sftp => vec![
            "-o".to_owned(),
            format!(
                "sftp.args=-i {private}/id -o IdentitiesOnly=yes -o UserKnownHostsFile={dir}/known_hosts -o StrictHostKeyChecking=yes -o BatchMode=yes"
            ),
        ],
        _ => Vec::new(),
    }
}

/// The options of a repository as restic takes them. Those that may not be set are left out: the repository is not valid
/// then, and nothing runs on it.
#[must_use]
pub fn backend_flags(repository: &ResticRepository) -> Vec<String> {
    let Some(backend) = Backend::of(&repository.spec.repository_url) else {
        return Vec::new();
    };
    let options = repository.spec.backend_options.iter().flatten();
    let allowed = options.filter(|(name, value)| {
        let one = BTreeMap::from([((*name).clone(), (*value).clone())]);
        check_options(backend, &one).is_ok()
    });
    allowed
        .flat_map(|(name, value)| ["-o".to_owned(), format!("{name}={value}")])
        .collect()
}
