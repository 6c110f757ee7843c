//! What `fleet migrate --apply` finds in a cluster whose kubectl is a script.
#![allow(clippy::unwrap_used)]

use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;

use serde_json::{Value, json};

/// A ResticRepository as a migration has made it.
fn made(labels: Value) -> Value {
    json!({
        "apiVersion": "backup.resticbackup.io/v1alpha1", "kind": "ResticRepository",
        "metadata": { "name": "nas", "namespace": "shop", "labels": labels },
        "spec": { "repositoryURL": "s3:http://minio:9000/nas" },
    })
}

/// Exit code and output of an `--apply` where this is there already, and how often something was written.
fn apply(present: &Value) -> (i32, String, usize) {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    std::fs::write(at("present.json"), present.to_string()).unwrap();
    let variables = "RESTIC_REPOSITORY=s3:http://minio:9000/nas\nRESTIC_PASSWORD=p\n";
    std::fs::write(at("variables"), variables).unwrap();
    let script = format!(
        "#!/bin/sh\ncase \"$*\" in get*resticrepository*) cat {0}/present.json ;; apply*) echo x >> {0}/applied ;; esac\n",
        folder.path().display()
    );
    std::fs::write(at("kubectl"), script).unwrap();
    std::fs::set_permissions(at("kubectl"), std::fs::Permissions::from_mode(0o755)).unwrap();
    let path = format!("{}:{}", folder.path().display(), std::env::var("PATH").unwrap());
    let output = Command::new(env!("CARGO_BIN_EXE_fleet"))
        .args([
            "migrate",
            "cron",
            "-n",
            "shop",
            "--name",
            "nas",
            "--apply",
            "--env-file",
        ])
        .arg(at("variables"))
        .env("PATH", path)
        .output()
        .unwrap();
    let text = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
    let applied = std::fs::read_to_string(at("applied")).unwrap_or_default();
    (output.status.code().unwrap(), text, applied.lines().count())
}

#[test]
fn what_another_migration_or_a_person_made_is_left_alone_and_nothing_is_written() {
    let label = "fleet.resticbackup.io/migrated-from";
    for (labels, why) in [
        (json!({}), "no migration has made it"),
        (json!({ label: "k8up" }), "a migration from k8up has made it"),
    ] {
        let (code, text, applied) = apply(&made(labels));
        assert_eq!((code, applied), (2, 0), "{text}");
        assert!(
            text.contains("nothing was written: ResticRepository shop/nas") && text.contains(why),
            "{text}"
        );
    }
    let (code, text, applied) = apply(&made(json!({ label: "cron" })));
    assert_eq!((code, applied), (0, 2), "the repository and its Secret: {text}");
}
