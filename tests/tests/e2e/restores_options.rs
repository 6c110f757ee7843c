//! What a restore can be asked for, on real pods: paths, folders, holes, attributes, deletion, previews.

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use serde_json::{Value, json};

use crate::restores::{claim, completed, failed, folder, restore};
use crate::retention::restic_command;
use crate::support::{Place, condition, rest, tree};

/// A snapshot that another tool made of the folder `data` in `dir`; its id.
fn foreign(url: &str, dir: &Path) -> String {
    let output = restic_command(url, &["backup", "--json", "data"])
        .current_dir(dir)
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let text = String::from_utf8(output.stdout).unwrap();
    let summary: Value = serde_json::from_str(text.lines().last().unwrap()).unwrap();
    summary["snapshot_id"].as_str().unwrap().to_owned()
}

fn names(dir: &Path) -> Vec<String> {
    tree(dir).into_keys().collect()
}

fn message(status: &Value) -> String {
    let object = json!({ "status": status });
    condition(&object, "Ready")["message"]
        .as_str()
        .unwrap()
        .to_owned()
}

/// Repository and backup of `place`, without a run.
fn furnish(place: &Place, url: &str) {
    place.apply(&[
        place.repository("nas", url),
        place.backup("orders", json!({ "name": "nas" }), json!({})),
    ]);
    place.until_ready("resticbackup/orders");
}

#[test]
#[ignore = "needs clusters: make test"]
fn a_restore_takes_the_paths_and_the_folder_that_are_meant_and_keeps_holes() {
    let place = Place::new("a", "chosen");
    for file in ["small/c.log", "deep/a[1].txt", "deep/a1.txt", "deep/!x", "deep/x"] {
        place.write(file, file.as_bytes());
    }
    place.write("disk", b"");
    let length = 32 << 20;
    let disk = std::fs::File::create(place.data().join("disk")).unwrap();
    disk.set_len(length).unwrap();
    let url = rest("chosen");
    furnish(&place, &url);
    place.run("orders", "1");
    let elsewhere = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(elsewhere.path().join("data/in")).unwrap();
    std::fs::write(elsewhere.path().join("data/in/file"), b"foreign").unwrap();
    let id = foreign(&url, elsewhere.path());

    claim(&place, "back");
    let asked = |name: &str, more: Value| {
        let mut spec = json!({ "backupRef": { "name": "orders" },
                               "target": { "pvc": { "claimName": "back", "path": name } } });
        spec.as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        restore(&place, name, spec);
    };
    asked(
        "both",
        json!({ "includePaths": ["/small", "/deep"], "excludePaths": ["*.log", "a*.txt", "!x"] }),
    );
    asked(
        "literal",
        json!({ "includePaths": ["/deep/a[1].txt", "!x"], "options": { "pathMatching": "Literal" } }),
    );
    asked("part", json!({ "snapshotPath": "/small" }));
    asked(
        "sparse",
        json!({ "includePaths": ["/disk"], "options": { "sparse": true } }),
    );
    asked("no-such", json!({ "snapshotPath": "/backup" }));
    let other = json!({ "repositoryRef": { "name": "nas" }, "snapshotID": id, "snapshotPath": "data",
                        "target": { "pvc": { "claimName": "back", "path": "other" } } });
    restore(&place, "other", other);

    for name in ["both", "literal", "part", "sparse", "other"] {
        completed(&place, name);
    }
    let back = folder(&place, "back");
    let (b, b_small) = ("b \"quoted\" ü.txt", "small/b \"quoted\" ü.txt");
    assert_eq!(names(&back.join("both")), ["deep/x", b_small]);
    assert_eq!(names(&back.join("literal")), ["deep/!x", "deep/a[1].txt"]);
    assert_eq!(names(&back.join("part")), ["a.txt", b, "c.log"]);
    assert_eq!(names(&back.join("other")), ["in/file"], "not one folder too deep");
    let disk = std::fs::metadata(back.join("sparse/disk")).unwrap();
    assert_eq!(disk.len(), length);
    assert!(disk.blocks() * 512 < 1 << 20, "{} blocks", disk.blocks());
    let message = failed(&place, "no-such", "SnapshotPathNotFound");
    assert!(message.contains("without /backup"), "{message}");
}

#[test]
#[ignore = "needs clusters: make test"]
fn what_a_restore_may_not_set_is_said_and_the_data_is_there() {
    let place = Place::new("b", "attributes");
    let url = rest("attributes");
    furnish(&place, &url);
    // What the security module of a node puts on its files.
    let elsewhere = tempfile::tempdir().unwrap();
    let file = elsewhere.path().join("data/labelled");
    std::fs::create_dir_all(file.parent().unwrap()).unwrap();
    std::fs::write(&file, b"labelled").unwrap();
    std::os::unix::fs::chown(&file, Some(1234), Some(1234)).unwrap();
    let script = "import os, sys; os.setxattr(sys.argv[1], 'security.fleet', b'label')";
    let set = std::process::Command::new("python3")
        .args(["-c", script])
        .arg(&file)
        .status();
    assert!(set.unwrap().success());
    let id = foreign(&url, elsewhere.path());

    claim(&place, "back");
    let asked = |name: &str, config: Value| {
        restore(
            &place,
            name,
            json!({ "repositoryRef": { "name": "nas" }, "snapshotID": id, "snapshotPath": "/data", "jobConfig": config,
                    "ttlSecondsAfterFinished": 0, "target": { "pvc": { "claimName": "back", "path": name } } }),
        );
    };
    asked("root", json!({ "securityContext": { "runAsUser": 0 } }));
    asked("user", json!({}));
    let root = message(&completed(&place, "root"));
    assert!(
        root.contains("attributes could not be set on 1 files") && root.contains("security.fleet"),
        "{root}"
    );
    let user = message(&completed(&place, "user"));
    assert!(
        user.contains("owners were not restored") && user.contains("user 65532"),
        "{user}"
    );
    let back = folder(&place, "back");
    for name in ["root", "user"] {
        assert_eq!(
            std::fs::read(back.join(name).join("labelled")).unwrap(),
            b"labelled"
        );
        // The Job was to go at once, and nothing else.
        crate::faults::until("the Job is gone", || {
            place.get(&format!("job/resticrestore-{name}")).is_null()
        });
        assert_eq!(
            place.get(&format!("resticrestore/{name}"))["status"]["phase"],
            "Completed"
        );
    }
    let owner = |name: &str| std::fs::metadata(back.join(name).join("labelled")).unwrap().uid();
    assert_eq!((owner("root"), owner("user")), (1234, 65532));
}

#[test]
#[ignore = "needs clusters: make test"]
fn a_deletion_does_what_its_preview_has_counted() {
    let place = Place::new("a", "previewed");
    furnish(&place, &rest("previewed"));
    place.run("orders", "1");
    claim(&place, "back");
    let back = folder(&place, "back");
    std::fs::create_dir_all(back.join("cache")).unwrap();
    for file in ["cache/kept", "stray", "lost"] {
        std::fs::write(back.join(file), b"mine").unwrap();
    }
    std::fs::create_dir_all(back.join("small")).unwrap();
    std::fs::write(back.join("small/a.txt"), b"changed").unwrap();
    for path in ["cache", "small", "small/a.txt"] {
        std::os::unix::fs::chown(back.join(path), Some(65532), Some(65532)).unwrap();
    }
    let before = tree(&back);
    let spec = |dry_run: bool, target: Value| {
        json!({ "backupRef": { "name": "orders" }, "target": target, "excludePaths": ["/cache"],
                "options": { "delete": target["pvc"].is_object(), "dryRun": dry_run } })
    };
    let existing = json!({ "pvc": { "claimName": "back" } });
    restore(&place, "preview", spec(true, existing.clone()));
    restore(
        &place,
        "preview-new",
        spec(true, json!({ "newPVC": { "name": "fresh" } })),
    );
    let status = completed(&place, "preview");
    let ready = condition(&json!({ "status": status }), "Ready");
    assert_eq!(ready["reason"], "RestorePreviewed", "{ready:#}");
    let preview = &status["preview"];
    assert_eq!(
        (&preview["deleted"], &preview["updated"]),
        (&json!(2), &json!(1)),
        "{status:#}"
    );
    assert!(
        preview["sizeBytes"].as_i64().unwrap() > 2 << 20 && status["restoredFiles"].is_null(),
        "{status:#}"
    );
    assert_eq!(tree(&back), before, "nothing is written");
    let fresh = completed(&place, "preview-new");
    assert!(fresh["preview"]["restored"].as_i64().unwrap() >= 3, "{fresh:#}");
    assert!(place.get("pvc/fresh").is_null(), "no claim is made");

    restore(&place, "done", spec(false, existing));
    let status = completed(&place, "done");
    assert_eq!(status["deletedFiles"], preview["deleted"], "{status:#}");
    let mut expected = tree(&place.data());
    expected.insert("cache/kept".to_owned(), b"mine".to_vec());
    assert_eq!(tree(&back), expected);

    // A new claim has room for the snapshot without being told how much.
    let spec = json!({ "backupRef": { "name": "orders" }, "jobConfig": { "securityContext": { "runAsUser": 0 } },
        "target": { "newPVC": { "name": "sized", "labels": { "app": "orders" }, "annotations": { "note": "back" } } } });
    restore(&place, "sized", spec);
    completed(&place, "sized");
    let made = place.get("pvc/sized");
    assert_eq!(made["spec"]["resources"]["requests"]["storage"], "1Gi");
    assert_eq!(
        (
            &made["metadata"]["labels"]["app"],
            &made["metadata"]["annotations"]["note"]
        ),
        (&json!("orders"), &json!("back"))
    );
    assert_eq!(tree(&folder(&place, "sized")), tree(&place.data()));
}
