//! The key that proves possession, with the real restic: it stays while passwords come and go, and a copy by restic has
//! another one.

use std::path::Path;
use std::process::Command;

use proto::possession::prove;
use spoke::restic::output;

const NONCE: [u8; 32] = [7; 32];

fn restic(repository: &Path, password: &str, arguments: &[&str]) -> Vec<u8> {
    let mut command = Command::new("restic");
    command.args(arguments).arg("--no-cache");
    command
        .env("RESTIC_REPOSITORY", repository)
        .env("RESTIC_PASSWORD", password);
    let output = command.output().expect("restic is in the PATH");
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{arguments:?}: {told}");
    output.stdout
}

fn public_key(repository: &Path, password: &str) -> Vec<u8> {
    let config = restic(repository, password, &["cat", "config", "--no-lock"]);
    let id = output::config_id(&config).unwrap();
    let master = restic(repository, password, &["cat", "masterkey", "--no-lock"]);
    let master = output::master_key(&master).unwrap();
    prove(&master, "a", &id, &NONCE).unwrap().public_key
}

fn copy_files(from: &Path, to: &Path) {
    let done = Command::new("cp").arg("-a").arg(from).arg(to).status().unwrap();
    assert!(done.success());
}

#[test]
fn the_key_stays_while_passwords_change_and_a_copy_by_restic_has_another() {
    let dir = tempfile::tempdir().unwrap();
    let first = dir.path().join("first");
    restic(&first, "one", &["init"]);
    let key = public_key(&first, "one");

    let new = dir.path().join("new-password");
    std::fs::write(&new, "two").unwrap();
    restic(
        &first,
        "one",
        &["key", "add", "--new-password-file", new.to_str().unwrap()],
    );
    assert_eq!(public_key(&first, "two"), key, "another password");
    let keys: serde_json::Value =
        serde_json::from_slice(&restic(&first, "two", &["key", "list", "--json"])).unwrap();
    let old = keys
        .as_array()
        .unwrap()
        .iter()
        .find(|k| k["current"] == false)
        .unwrap();
    restic(&first, "two", &["key", "remove", old["id"].as_str().unwrap()]);
    assert_eq!(public_key(&first, "two"), key, "the first password is removed");

    let bytes = dir.path().join("bytes");
    copy_files(&first, &bytes);
    assert_eq!(public_key(&bytes, "two"), key, "a copy of the files");

    let copied = dir.path().join("copied");
    restic(&copied, "two", &["init"]);
    assert_ne!(
        public_key(&copied, "two"),
        key,
        "another repository with the same password"
    );
}
