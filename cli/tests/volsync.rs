//! `fleet migrate volsync -n` in a cluster whose kubectl is a script: sources of other namespaces may share a repository.

use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;

use base64::Engine as _;
use serde_json::{Value, json};

fn source(namespace: &str) -> Value {
    json!({
        "kind": "ReplicationSource", "metadata": { "name": "db", "namespace": namespace },
        "spec": { "sourcePVC": "data", "trigger": { "schedule": "0 3 * * *" },
                  "restic": { "repository": "restic", "retain": { "daily": 3 }, "moverSecurityContext": { "runAsUser": 1 } } },
    })
}

fn secret(repository: &str) -> String {
    let text = |text: &str| base64::engine::general_purpose::STANDARD.encode(text);
    json!({ "data": { "RESTIC_REPOSITORY": text(repository), "RESTIC_PASSWORD": text("right horse") } })
        .to_string()
}

/// What is printed for `shop`, where `blog` stores into this repository, and kubectl refuses what contains this.
fn migrate(blog: &str, refused: &str) -> String {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let list = |items: &[Value]| json!({ "items": items }).to_string();
    for (name, text) in [
        ("all", list(&[source("blog"), source("shop")])),
        ("shop", list(&[source("shop")])),
        ("secret-shop", secret("s3:http://minio:9000/one")),
        ("secret-blog", secret(blog)),
    ] {
        std::fs::write(at(name), text).unwrap();
    }
    let script = format!(
        "#!/bin/sh\ncd \"$(dirname \"$0\")\" || exit 1\ncase \"$*\" in\n\
         {refused}) echo 'Error from server (Forbidden): it is forbidden' >&2; exit 1 ;;\n\
         get*replicationsources*-A*) cat all ;;\nget*replicationsources*) cat shop ;;\n\
         get*secret*shop*) cat secret-shop ;;\nget*secret*blog*) cat secret-blog ;;\nesac\n"
    );
    std::fs::write(at("kubectl"), script).unwrap();
    std::fs::set_permissions(at("kubectl"), std::fs::Permissions::from_mode(0o755)).unwrap();
    let path = format!("{}:{}", folder.path().display(), std::env::var("PATH").unwrap());
    let output = Command::new(env!("CARGO_BIN_EXE_fleet"))
        .args(["migrate", "volsync", "-n", "shop"])
        .env("PATH", path)
        .output()
        .unwrap();
    let text = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
    assert!(output.status.success(), "{text}");
    assert!(!text.contains("namespace: blog"), "only what was chosen: {text}");
    text
}

#[test]
fn a_source_of_another_namespace_that_shares_the_repository_is_seen_with_n_as_well() {
    let alone = migrate("s3:http://minio:9000/two", "nothing");
    assert!(alone.contains("hostname: volsync\n"), "{alone}");
    let shared = migrate("s3:http://minio:9000/one", "nothing");
    assert!(
        !shared.contains("hostname: volsync\n")
            && shared.contains("other sources store into the same repository"),
        "{shared}"
    );
}

#[test]
fn what_cannot_be_read_may_share_the_repository() {
    for (refused, said) in [
        (
            "get*replicationsources*-A*",
            "ReplicationSources of other namespaces cannot be listed",
        ),
        (
            "get*secret*blog*",
            "the repository of ReplicationSource blog/db is not known",
        ),
    ] {
        let text = migrate("s3:http://minio:9000/two", refused);
        assert!(
            !text.contains("hostname: volsync\n") && text.contains(said),
            "{refused}: {text}"
        );
    }
}
