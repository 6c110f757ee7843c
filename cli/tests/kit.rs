//! A recovery kit from a cluster (whose kubectl is a script) to a repository that real restic opens with it.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::json;

/// A folder with a repository, and a cluster that has it.
struct Cluster(tempfile::TempDir);

/// Password of the repository whose key is derived in no time.
const PASSWORD: &str = "p";

impl Cluster {
    fn new() -> Cluster {
        let cluster = Cluster(tempfile::tempdir().unwrap());
        let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("../spoke/tests/weak-key");
        let at = cluster.repository();
        for folder in ["data", "index", "keys", "locks", "snapshots"] {
            std::fs::create_dir_all(at.join(folder)).unwrap();
        }
        std::fs::copy(fixture.join("config"), at.join("config")).unwrap();
        for key in std::fs::read_dir(fixture.join("keys")).unwrap().flatten() {
            std::fs::copy(key.path(), at.join("keys").join(key.file_name())).unwrap();
        }
        let id = cluster.restic(&["cat", "config"]);
        let id: serde_json::Value = serde_json::from_str(&id).unwrap();
        let file = cluster.0.path().join("file");
        std::fs::write(&file, "x").unwrap();
        cluster.restic(&["backup", "-q", &file.display().to_string()]);
        cluster.answers(id["id"].as_str().unwrap(), PASSWORD);
        cluster
    }

    fn repository(&self) -> PathBuf {
        self.0.path().join("repository")
    }

    fn path(&self) -> String {
        let restic = Path::new(env!("CARGO_MANIFEST_DIR")).join("../.testbed/bin");
        format!(
            "{}:{}:{}",
            self.0.path().join("bin").display(),
            restic.display(),
            std::env::var("PATH").unwrap()
        )
    }

    fn restic(&self, arguments: &[&str]) -> String {
        let output = Command::new("restic")
            .args(["--no-cache", "-r"])
            .arg(self.repository())
            .args(arguments)
            .env("RESTIC_PASSWORD", PASSWORD)
            .env("PATH", self.path())
            .output()
            .expect("restic; make restic builds it");
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8(output.stdout).unwrap()
    }

    /// What kubectl answers: one repository of this id, and its Secret.
    fn answers(&self, id: &str, password: &str) {
        use base64::Engine as _;
        let bin = self.0.path().join("bin");
        std::fs::create_dir_all(&bin).unwrap();
        let repository = json!({ "items": [{
            "metadata": { "name": "nas", "namespace": "shop" },
            "spec": { "repositoryURL": self.repository().display().to_string(), "credentialsSecretRef": { "name": "storage" } },
            "status": { "repositoryID": id },
        }] });
        let value = base64::engine::general_purpose::STANDARD.encode(format!("{password}\n"));
        let secret = json!({ "metadata": { "name": "storage", "namespace": "shop" }, "data": { "RESTIC_PASSWORD": value } });
        std::fs::write(bin.join("repositories.json"), repository.to_string()).unwrap();
        std::fs::write(bin.join("secret.json"), secret.to_string()).unwrap();
        let script = "#!/bin/sh\ncase \"$2\" in secret) cat \"$(dirname \"$0\")/secret.json\" ;; *) cat \"$(dirname \"$0\")/repositories.json\" ;; esac\n";
        std::fs::write(bin.join("kubectl"), script).unwrap();
        std::fs::set_permissions(bin.join("kubectl"), std::fs::Permissions::from_mode(0o755)).unwrap();
    }

    fn fleet(&self, arguments: &[&str], environment: &[(&str, &str)]) -> (i32, String) {
        let output = Command::new(env!("CARGO_BIN_EXE_fleet"))
            .args(arguments)
            .env("PATH", self.path())
            .env_remove("RESTIC_PASSWORD")
            .envs(environment.iter().copied())
            .output()
            .unwrap();
        let text = [output.stdout, output.stderr].concat();
        (output.status.code().unwrap(), String::from_utf8(text).unwrap())
    }

    fn kit(&self, name: &str) -> String {
        self.0.path().join(name).display().to_string()
    }
}

#[test]
fn a_kit_with_passwords_opens_the_repository_when_nothing_else_is_left() {
    let cluster = Cluster::new();
    let kit = cluster.kit("kit.yaml");
    let (code, text) = cluster.fleet(&["kit", "--with-passwords", "--to", &kit], &[]);
    assert_eq!(code, 0, "{text}");
    assert_eq!(
        std::fs::metadata(&kit).unwrap().permissions().mode() & 0o777,
        0o600
    );
    // The cluster is gone.
    std::fs::remove_dir_all(cluster.0.path().join("bin")).unwrap();
    let (code, text) = cluster.fleet(&["kit", "verify", &kit], &[]);
    assert_eq!(code, 0, "{text}");
    assert!(
        text.contains("shop/nas: opened") && text.contains("1 snapshots"),
        "{text}"
    );
    let locks = std::fs::read_dir(cluster.repository().join("locks"))
        .unwrap()
        .count();
    assert_eq!(locks, 0, "it leaves no lock");
    std::fs::remove_dir_all(cluster.repository()).unwrap();
    let (code, text) = cluster.fleet(&["kit", "verify", &kit], &[]);
    assert_eq!(code, 1, "{text}");
    assert!(text.contains("NOT opened: there is no repository"), "{text}");
}

#[test]
fn a_kit_without_passwords_holds_none_and_takes_them_from_the_environment() {
    let cluster = Cluster::new();
    let (code, printed) = cluster.fleet(&["kit"], &[]);
    assert_eq!(code, 0, "{printed}");
    assert!(printed.contains("RESTIC_PASSWORD: null"), "{printed}");
    let kit = cluster.kit("kit.yaml");
    let (code, text) = cluster.fleet(&["kit", "--to", &kit], &[]);
    assert_eq!(code, 0, "{text}");
    let (code, text) = cluster.fleet(&["kit", "verify", &kit], &[]);
    assert_eq!(code, 1, "{text}");
    assert!(
        text.contains("the kit has no RESTIC_PASSWORD") && text.contains("Secret shop/storage"),
        "{text}"
    );
    let (code, text) = cluster.fleet(&["kit", "verify", &kit], &[("RESTIC_PASSWORD", PASSWORD)]);
    assert_eq!(code, 0, "{text}");
    let (code, text) = cluster.fleet(&["kit", "verify", &kit], &[("RESTIC_PASSWORD", "other")]);
    assert_eq!(code, 1, "{text}");
    assert!(text.contains("the password is wrong"), "{text}");
}

#[test]
fn a_kit_of_another_repository_is_found_out() {
    let cluster = Cluster::new();
    cluster.answers(&"ab".repeat(32), PASSWORD);
    let kit = cluster.kit("kit.yaml");
    let (code, text) = cluster.fleet(&["kit", "--with-passwords", "--to", &kit], &[]);
    assert_eq!(code, 0, "{text}");
    let (code, text) = cluster.fleet(&["kit", "verify", &kit], &[]);
    assert_eq!(code, 1, "{text}");
    assert!(text.contains("another repository lies there"), "{text}");
}

#[test]
fn a_kit_that_names_a_command_runs_none() {
    let cluster = Cluster::new();
    let kit = cluster.kit("kit.yaml");
    let (code, text) = cluster.fleet(&["kit", "--with-passwords", "--to", &kit], &[]);
    assert_eq!(code, 0, "{text}");
    let mark = cluster.kit("was-run");
    let written = std::fs::read_to_string(&kit).unwrap();
    let changed = written.replacen(
        "  variables:\n",
        &format!("  variables:\n    RESTIC_PASSWORD_COMMAND: touch {mark}\n"),
        1,
    );
    assert_ne!(written, changed, "{written}");
    std::fs::write(&kit, changed).unwrap();
    let (code, text) = cluster.fleet(&["kit", "verify", &kit], &[]);
    assert_eq!(code, 1, "{text}");
    assert!(
        text.contains("NOT opened") && text.contains("RESTIC_PASSWORD_COMMAND"),
        "{text}"
    );
    assert!(!Path::new(&mark).exists());
}

#[test]
fn a_repository_without_snapshots_proves_nothing() {
    let cluster = Cluster::new();
    let kit = cluster.kit("kit.yaml");
    let (code, text) = cluster.fleet(&["kit", "--with-passwords", "--to", &kit], &[]);
    assert_eq!(code, 0, "{text}");
    let snapshots = cluster.repository().join("snapshots");
    for snapshot in std::fs::read_dir(&snapshots).unwrap().flatten() {
        std::fs::remove_file(snapshot.path()).unwrap();
    }
    let (code, text) = cluster.fleet(&["kit", "verify", &kit], &[]);
    assert_eq!(code, 1, "{text}");
    assert!(text.contains("it holds NO snapshot"), "{text}");
}
