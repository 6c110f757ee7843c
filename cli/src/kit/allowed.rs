//! What of a kit is passed on to restic: what the operator takes for a back end ([`proto::backend`]). A kit may have been
//! changed by another hand, and some of restic's settings run programs. Pure.

use std::collections::BTreeMap;

use proto::backend::{Backend, check_options};

/// Beside what a back end takes.
const PASSWORD: &str = "RESTIC_PASSWORD";

/// What has no scheme that restic knows is a folder to it.
#[must_use]
pub fn backend(url: &str) -> Backend {
    Backend::of(url).unwrap_or(Backend::Local)
}

/// Variables of restic for a repository.
pub fn variables(url: &str) -> impl Iterator<Item = &'static str> {
    let backend = backend(url);
    let files = backend.files().iter().map(|file| file.key);
    backend.variables().chain(files).chain([PASSWORD])
}

/// Whether the value of a variable is the content of a file, and restic takes its path.
#[must_use]
pub fn is_file(variable: &str) -> bool {
    let mut files = Backend::ALL.iter().flat_map(|backend| backend.files());
    files.any(|file| file.key == variable)
}

/// Whether an option may be given to restic. It takes several in one, with commas between them; no value that passes has one.
#[must_use]
pub fn is_option(url: &str, name: &str, value: &str) -> bool {
    let option = BTreeMap::from([(name.to_owned(), value.to_owned())]);
    check_options(backend(url), &option).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

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
