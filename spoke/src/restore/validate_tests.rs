use serde_json::{Value, json};

use super::*;

fn check(spec: Value) -> Result<Valid, String> {
    let mut full = json!({ "backupRef": { "name": "orders" }, "target": { "pvc": { "claimName": "back" } } });
    for (name, value) in spec.as_object().unwrap() {
        full[name] = value.clone();
    }
    let restore: ResticRestore = serde_json::from_value(json!({
        "apiVersion": "backup.resticbackup.io/v1alpha1", "kind": "ResticRestore",
        "metadata": { "name": "r", "namespace": "shop" }, "spec": full,
    }))
    .unwrap();
    validate(&Key::new("shop", "r"), &restore).map_err(|e| e.to_string())
}

#[test]
fn a_minimal_restore_takes_the_latest_and_overwrites() {
    let valid = check(json!({})).unwrap();
    assert_eq!(valid.origin, Origin::Backup(Key::new("shop", "orders")));
    assert_eq!(valid.arguments, ["--overwrite", "always"]);
    assert!(matches!(valid.snapshot, Wanted::Newest { .. }) && !valid.filtered);
}

#[test]
fn options_become_arguments() {
    let valid = check(json!({
        "snapshotID": "ABCD1234", "includePaths": ["/config", "*.conf"],
        "options": { "overwrite": false, "verify": true },
        "target": { "pvc": { "claimName": "back", "path": "/a/b/" } },
    }))
    .unwrap();
    let expected = [
        "--include",
        "/config",
        "--include",
        "*.conf",
        "--overwrite",
        "never",
        "--verify",
    ];
    assert_eq!(valid.arguments, expected);
    assert_eq!(valid.snapshot, Wanted::Id("abcd1234".to_owned()));
    assert_eq!((valid.folder.as_str(), valid.filtered), ("a/b", true));
}

#[test]
fn a_deletion_reaches_only_what_the_snapshot_replaces() {
    let deleting = |mut spec: Value| {
        spec["options"]["delete"] = json!(true);
        check(spec).map(|valid| valid.delete)
    };
    let refused = |spec: Value| deleting(spec).unwrap_err();
    assert!(refused(json!({ "target": { "newPVC": { "name": "n" } } })).contains("target.pvc"));
    assert!(refused(json!({ "includePaths": ["a"] })).contains("includePaths"));
    assert!(refused(json!({ "options": { "overwrite": false } })).contains("overwrite"));
    let at = |path: &str| json!({ "target": { "pvc": { "claimName": "back", "path": path } } });
    for path in ["lost+found", "/./lost+found/x"] {
        assert!(refused(at(path)).contains("lost+found"), "{path}");
    }
    assert_eq!(deleting(at("a/lost+found")), Ok(true), "a folder as any other");
}

#[test]
fn a_deletion_spares_only_names_at_the_top() {
    let of = |exclude: &str, matching: &str| {
        check(json!({ "excludePaths": ["/ok", exclude],
                      "options": { "delete": true, "pathMatching": matching } }))
    };
    for kept in ["/cache", "/!x", "/.hidden", "/a b", "/..."] {
        assert!(of(kept, "Pattern").is_ok(), "{kept}");
    }
    for lost in [
        "cache", "/a/b", "/cache/", "/c*", "/c?", "/[c]", "/c\\d", "**/x", "/", "/.",
    ] {
        let refused = of(lost, "Pattern").unwrap_err();
        assert!(refused.contains("as /cache"), "{lost}: {refused}");
    }
    for kept in ["/c*", "/c?", "/[c]", "/c\\d"] {
        assert!(of(kept, "Literal").is_ok(), "{kept}");
    }
    assert!(of("/a*/b", "Literal").is_err() && of("a*", "Literal").is_err());
    assert!(
        check(json!({ "excludePaths": ["/a/b", "*.log"] })).is_ok(),
        "nothing is deleted"
    );
}

#[test]
fn one_folder_does_not_take_the_place_of_a_volume() {
    let of = |from: &str, to: Value| {
        let pvc = json!({ "claimName": "back", "path": to });
        check(json!({ "snapshotPath": from, "target": { "pvc": pvc }, "options": { "delete": true } }))
    };
    assert_eq!(
        of("/a", json!("/b/./c/")).map(|valid| valid.folder),
        Ok("b/c".to_owned())
    );
    for root in [
        json!(null),
        json!(""),
        json!("/"),
        json!("."),
        json!("/./"),
        json!(".//."),
    ] {
        let refused = of("/a", root.clone()).unwrap_err();
        assert!(refused.contains("spec.target.pvc.path"), "{root}: {refused}");
        assert!(of("/.", root).is_ok(), "all of the snapshot");
    }
}

#[test]
fn a_deletion_in_a_whole_volume_needs_a_backup() {
    let of = |path: &str| {
        check(
            json!({ "backupRef": null, "repositoryRef": { "name": "nas" }, "snapshotID": "abcd",
                      "target": { "pvc": { "claimName": "back", "path": path } }, "options": { "delete": true } }),
        )
    };
    assert!(of("/./").unwrap_err().contains("with spec.repositoryRef"));
    assert!(of("/a").is_ok());
}

#[test]
fn a_dry_run_has_no_hooks_and_they_are_checked_all_the_same() {
    let hook = |command: Value| {
        json!({ "preRestore": { "exec": {
        "podSelector": { "matchLabels": { "a": "b" } }, "command": command } } })
    };
    let spec =
        |dry_run: bool, command: Value| json!({ "hooks": hook(command), "options": { "dryRun": dry_run } });
    assert!(check(spec(false, json!(["true"]))).unwrap().hooks.is_some());
    assert!(check(spec(true, json!(["true"]))).unwrap().hooks.is_none());
    assert!(check(spec(true, json!([]))).is_err());
}

#[test]
fn each_error_names_its_field() {
    let refused = |spec: Value| check(spec).unwrap_err();
    assert!(refused(json!({ "repositoryRef": { "name": "nas" } })).contains("backupRef and repositoryRef"));
    let alone = json!({ "backupRef": null, "repositoryRef": { "name": "nas" } });
    assert!(refused(alone).contains("snapshotSelector"));
    let broad = json!({ "backupRef": null, "repositoryRef": { "name": "nas" }, "snapshotSelector": { "latest": true } });
    assert!(refused(broad).contains("is ambiguous"));
    assert!(refused(json!({ "snapshotID": "xyz1" })).contains("spec.snapshotID"));
    let both = json!({ "snapshotID": "abcd", "snapshotSelector": { "hostname": "h" } });
    assert!(refused(both).contains("exclude each other"));
    assert!(refused(json!({ "includePaths": ["a/../b"] })).contains("spec.includePaths"));
    assert!(
        refused(json!({ "target": { "pvc": { "claimName": "c", "path": "../x" } } }))
            .contains("target.pvc.path")
    );
    assert!(refused(json!({ "snapshotPath": "a/../../b" })).contains("spec.snapshotPath"));
    let hook = json!({ "hooks": { "preRestore": { "exec": { "podSelector": {}, "command": ["x"] } } } });
    assert!(refused(hook).contains("spec.hooks.preRestore"));
}
