//! Files with credentials, for restic and for ssh.

use std::io::Write as _;

/// Those of the variables whose file the Secret really holds.
pub(super) fn credential_files(named: &str) -> Vec<(String, String)> {
    let pairs = named.split(' ').filter_map(|pair| pair.split_once('='));
    let there = |path: &str| std::fs::metadata(path).is_ok_and(|file| file.len() > 0);
    pairs
        .filter(|(_, path)| there(path))
        .map(|(variable, path)| (variable.to_owned(), path.to_owned()))
        .collect()
}

/// Copies files for the user of this process alone: ssh takes no key that others may read.
pub(super) fn private_files(pairs: &str) -> Result<(), String> {
    use std::os::unix::fs::OpenOptionsExt as _;
    for (from, to) in pairs.split(' ').filter_map(|pair| pair.split_once('=')) {
        let copied = std::fs::read(from).and_then(|content| {
            let mut options = std::fs::OpenOptions::new();
            options.write(true).create(true).truncate(true).mode(0o600);
            options.open(to)?.write_all(&content)
        });
        match copied {
            // restic names what is missing.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            copied => copied.map_err(|error| format!("{from} could not be copied to {to}: {error}"))?,
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_files_that_are_there_reach_restic() {
        let dir = tempfile::tempdir().unwrap();
        let (full, empty) = (dir.path().join("full"), dir.path().join("empty"));
        std::fs::write(&full, "x").unwrap();
        std::fs::write(&empty, "").unwrap();
        let named = format!("A={} B={} C=/not/there", full.display(), empty.display());
        let got = credential_files(&named);
        assert_eq!(got, [("A".to_owned(), full.display().to_string())]);
        assert!(credential_files("").is_empty());
    }

    #[test]
    fn ssh_gets_a_key_that_only_its_user_may_read() {
        use std::os::unix::fs::PermissionsExt as _;
        let dir = tempfile::tempdir().unwrap();
        let (from, to) = (dir.path().join("id"), dir.path().join("own"));
        std::fs::write(&from, "key").unwrap();
        std::fs::set_permissions(&from, std::fs::Permissions::from_mode(0o444)).unwrap();
        private_files(&format!("{}={} /not/there=/x", from.display(), to.display())).unwrap();
        assert_eq!(std::fs::read(&to).unwrap(), b"key");
        assert_eq!(
            std::fs::metadata(&to).unwrap().permissions().mode() & 0o777,
            0o600
        );
        private_files("").unwrap();
    }
}
