//! A recovery kit from a cluster (whose kubectl is a script) to a repository that real restic opens with it.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::json;

use crate::harness::{Fleet, ID, repository};

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
        let data = json!({ "RESTIC_PASSWORD": value });
        let secret = json!({ "metadata": { "name": "storage", "namespace": "shop" }, "data": data });
        std::fs::write(bin.join("repositories.json"), repository.to_string()).unwrap();
        std::fs::write(bin.join("secret.json"), secret.to_string()).unwrap();
        let kube_system = json!({ "metadata": { "name": "kube-system", "uid": "uid-of-berlin" } });
        std::fs::write(bin.join("namespace.json"), kube_system.to_string()).unwrap();
        let joined = json!({ "data": { "cluster": "berlin" } });
        std::fs::write(bin.join("configmap.json"), joined.to_string()).unwrap();
        let script = "#!/bin/sh\nfile=repositories\nfor kind in secret namespace configmap; do\n\
             case \" $* \" in *\" get $kind \"*) file=$kind ;; esac\ndone\n\
             cat \"$(dirname \"$0\")/$file.json\"\n";
        std::fs::write(bin.join("kubectl"), script).unwrap();
        std::fs::set_permissions(bin.join("kubectl"), std::fs::Permissions::from_mode(0o755)).unwrap();
    }

    fn fleet(&self, arguments: &[&str], environment: &[(&str, &str)]) -> (i32, String) {
        let output = Command::new(env!("CARGO_BIN_EXE_fleet"))
            .args(arguments)
            .env("PATH", self.path())
            .env_remove("RESTIC_PASSWORD")
            // No login of who runs the tests.
            .env("HOME", self.0.path())
            .env("XDG_CONFIG_HOME", self.0.path())
            .env_remove("FLEET_HUB")
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
    assert!(
        text.contains("of cluster berlin (uid uid-of-berlin) alone"),
        "{text}"
    );
    // The cluster is gone.
    std::fs::remove_dir_all(cluster.0.path().join("bin")).unwrap();
    let (code, text) = cluster.fleet(&["kit", "verify", &kit], &[]);
    assert_eq!(code, 0, "{text}");
    assert!(
        text.contains("shop/nas: opened") && text.contains("1 snapshots") && text.contains("cluster berlin"),
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

/// Five clusters, and one kit, which is good for one of them.
#[tokio::test(flavor = "multi_thread")]
async fn who_has_a_login_is_told_which_repositories_a_kit_lacks() {
    let fleet = Fleet::new().await;
    let munich = fleet.spoke("munich").await;
    munich.tell(vec![repository(ID)]).await;
    fleet
        .until("the repository", async |fleet| {
            let known = |member: &hub::inventory::Member| !member.objects.is_empty();
            fleet
                .running
                .hub
                .read(|inventory| inventory.member("munich").is_some_and(known))
        })
        .await;
    let cluster = Cluster::new();
    let (cert, key) = fleet.certificate("spiffe://fleet/viewer/eve");
    let (cert_file, key_file) = (cluster.kit("cert"), cluster.kit("key"));
    std::fs::write(&cert_file, cert).unwrap();
    std::fs::write(&key_file, key).unwrap();
    let hub = format!("https://127.0.0.1:{}", fleet.running.view.port());
    let ca = fleet.dir.path().join("ca.crt").display().to_string();
    let asked = tokio::task::spawn_blocking(move || {
        let login = [
            ("FLEET_HUB", hub.as_str()),
            ("FLEET_CA", &ca),
            ("FLEET_CERT", &cert_file),
            ("FLEET_KEY", &key_file),
        ];
        let all = cluster.fleet(&["kit"], &login);
        let chosen = cluster.fleet(&["kit", "--kube-context", "berlin"], &login);
        let unreachable = [("FLEET_HUB", "https://127.0.0.1:1"), login[1], login[2], login[3]];
        (all, chosen, cluster.fleet(&["kit"], &unreachable))
    });
    let ((code, text), (chosen, of_one), (unknown, failed)) = asked.await.unwrap();
    assert_eq!(code, 1, "{text}");
    assert!(
        text.contains("the hub knows 1 repository that this kit lacks") && text.contains("(in munich)"),
        "{text}"
    );
    assert_eq!(chosen, 0, "{of_one}");
    assert!(of_one.contains("each cluster needs a kit"), "{of_one}");
    // What is not known is not missing.
    assert_eq!(unknown, 0, "{failed}");
    assert!(failed.contains("could not be found out"), "{failed}");
}
