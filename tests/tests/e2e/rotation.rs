//! The password of a repository that two clusters share is changed, and backups of both go on.

use serde_json::{Value, json};

use crate::retention::restic_command;
use crate::support::{Place, SOON, condition, rest};

const OLD: &str = "right horse";
const NEW: &str = "left zebra";

fn opens(url: &str, password: &str) -> bool {
    let mut command = restic_command(url, &["cat", "config", "--no-lock"]);
    let out = command.env("RESTIC_PASSWORD", password).output().unwrap();
    let code = out.status.code();
    assert!(
        [Some(0), Some(12)].contains(&code),
        "{}",
        String::from_utf8_lossy(&out.stderr)
    );
    code == Some(0)
}

/// Changes values of the Secret as a person does.
fn put(place: &Place, values: Value) {
    let patch = json!({ "stringData": values }).to_string();
    place
        .kubectl(&["patch", "secret", "storage", "--type=merge", "-p", &patch])
        .unwrap();
}

/// The new password takes the place of the old one.
fn switch(place: &Place) {
    put(place, json!({ "RESTIC_PASSWORD": NEW }));
    let patch = json!({ "data": { "RESTIC_PASSWORD_NEW": null } }).to_string();
    place
        .kubectl(&["patch", "secret", "storage", "--type=merge", "-p", &patch])
        .unwrap();
}

fn annotate(place: &Place, name: &str, value: &str) {
    let text = format!("backup.resticbackup.io/{name}={value}");
    place
        .kubectl(&["annotate", "resticrepository/nas", &text, "--overwrite"])
        .unwrap();
}

/// Waits for a reason of condition PasswordRotation whose message has these words.
fn until(place: &Place, reason: &str, words: &str) -> Value {
    let has = |o: &Value| {
        let shown = condition(o, "PasswordRotation");
        shown["reason"] == reason && shown["message"].as_str().is_some_and(|text| text.contains(words))
    };
    place.until_within(2 * SOON, "resticrepository/nas", reason, has)
}

fn well(place: &Place, request: &str) {
    let run = place.run("orders", request);
    assert_eq!(run["result"], "Succeeded", "{request}: {run:#}");
}

#[test]
#[ignore = "needs clusters: make long"]
fn a_password_is_changed_while_two_clusters_back_up_and_the_old_one_opens_nothing_in_the_end() {
    let url = rest("rotate");
    let (a, b) = (Place::new("a", "rotate"), Place::new("b", "rotate"));
    for place in [&a, &b] {
        place.apply(&[
            place.repository("nas", &url),
            place.backup("orders", json!({ "name": "nas" }), json!({})),
        ]);
        place.until_ready("resticrepository/nas");
        place.until_ready("resticbackup/orders");
        well(place, "before");
    }
    // Nothing is there to add.
    annotate(&a, "rotate-password", "one");
    until(&a, "PasswordRotationFailed", "RESTIC_PASSWORD_NEW");

    put(&a, json!({ "RESTIC_PASSWORD_NEW": NEW }));
    annotate(&a, "rotate-password", "two");
    let both = until(&a, "SwitchSecret", "put the new one under");
    assert!(opens(&url, OLD) && opens(&url, NEW));
    let rotation = &both["status"]["passwordRotation"];
    let key = |name: &str| rotation[name].as_str().unwrap().to_owned();
    let (old, new) = (key("oldKey"), key("newKey"));
    assert_eq!(both["status"]["keyID"], old.as_str());

    switch(&a);
    let switched = until(&a, "OldKeyStays", "with the new password");
    assert_eq!(switched["status"]["keyID"], new.as_str());
    well(&a, "switched");
    well(&b, "not-switched");

    annotate(&a, "remove-key", &old[..10]);
    until(&a, "OldKeyStays", "cluster b opens the repository with this key");
    assert!(opens(&url, OLD));
    well(&b, "still");

    switch(&b);
    let done = until(&a, "PasswordRotated", "was removed");
    assert_eq!(done["status"]["passwordRotation"]["step"], "Done");
    assert!(!opens(&url, OLD) && opens(&url, NEW));
    for place in [&a, &b] {
        well(place, "after");
    }
    // No password where people who may not read Secrets can look.
    let objects = [
        "get",
        "events,jobs,pods,resticrepositories,resticbackups",
        "-o",
        "yaml",
    ];
    let logs = a
        .kubectl(&["logs", "-l", "backup.resticbackup.io/type=key", "--tail=-1"])
        .unwrap();
    for text in [a.kubectl(&objects).unwrap(), b.kubectl(&objects).unwrap(), logs] {
        assert!(!text.contains(NEW) && !text.contains(OLD));
    }
}
