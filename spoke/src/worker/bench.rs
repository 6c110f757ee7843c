//! A repository on disk with a real restic, for tests of the workers.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use super::child::{Leave, Restic};
use super::contend::Lease;

#[path = "../../tests/weak_key.rs"]
mod weak_key;

/// A new, empty repository.
pub struct Bench {
    pub dir: tempfile::TempDir,
    pub leave: watch::Sender<Leave>,
    pub restic: Restic,
}

/// restic as the project builds it, or else as it is installed.
pub fn program() -> PathBuf {
    let built = Path::new(env!("CARGO_MANIFEST_DIR")).join("../.testbed/bin/restic");
    if built.exists() {
        built
    } else {
        PathBuf::from("restic")
    }
}

/// Writes an executable script.
pub fn executable(path: &Path, text: &str) {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::write(path, text).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
}

/// restic as the workers start it, on no repository yet.
pub fn restic(program: PathBuf, leave: watch::Receiver<Leave>) -> Restic {
    Restic {
        program,
        read_limit: Duration::from_secs(60),
        echo: true,
        flags: Vec::new(),
        variables: Vec::new(),
        leave,
        lock_left: Arc::default(),
        retry_lock: "30m".to_owned(),
        lease: Lease::default(),
    }
}

impl Bench {
    pub fn new() -> Bench {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name).display().to_string();
        let variables = [
            ("RESTIC_REPOSITORY", path("repository")),
            ("RESTIC_PASSWORD", "p".to_owned()),
            ("RESTIC_CACHE_DIR", path("cache")),
        ];
        let (leave, receiver) = watch::channel(Leave::Go);
        let mut restic = restic(program(), receiver);
        restic.variables = variables.map(|(k, v)| (k.to_owned(), v)).into();
        weak_key::repository(&dir.path().join("repository"));
        Bench { dir, leave, restic }
    }

    /// A command of the real restic.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(program());
        // A repair leaves copies of pack files where it is started.
        command.args(arguments).current_dir(self.dir.path());
        command.envs(self.restic.variables.iter().map(|(k, v)| (k, v)));
        command
    }

    pub fn well(&self, arguments: &[&str]) {
        let out = self.command(arguments).output().unwrap();
        let stderr = String::from_utf8_lossy(&out.stderr);
        assert!(out.status.success(), "{arguments:?}: {stderr}");
    }

    /// Replaces restic by a script, in which `$RESTIC` is the real one.
    pub fn script(&mut self, text: &str) {
        let path = self.dir.path().join("script");
        let (restic, dir) = (program(), self.dir.path());
        let head = format!("#!/bin/sh\nRESTIC={}\ncd {}\n", restic.display(), dir.display());
        executable(&path, &format!("{head}{text}\n"));
        self.restic.program = path;
    }
}
