//! Whether a snapshot is known to hold all that was in the folder that a deletion goes through. What is not known is
//! refused: files that were never backed up would be deleted. Pure.

use crds::ResticBackup;
use crds::backup::BackupResult;
use crds::conditions::reasons;

use super::arguments::LOST_AND_FOUND;
use super::select::Chosen;
use super::validate::Valid;
use crate::pod::SOURCE_DIR;
use crate::restic::options;

/// What helps whatever the snapshot lacks.
const OTHERWISE: &str = "restore into a new claim with spec.target.newPVC, or remove the option";

/// Why nothing may be deleted by this snapshot, and what to change. `backup` is the one that spec.backupRef names, `kept`
/// are the restore's excludePaths.
#[must_use]
pub(super) fn refusal(
    backup: Option<&ResticBackup>,
    valid: &Valid,
    chosen: &Chosen,
    kept: &[String],
) -> Option<String> {
    if !chosen.has_all_of(&valid.path) {
        return Some(partial(chosen));
    }
    excluded(valid, chosen, kept)
        .or_else(|| backup.and_then(|backup| incomplete(backup, chosen)))
        .or_else(|| backup.and_then(|backup| no_volume(backup, valid, chosen)))
        .map(|why| format!("spec.options.delete would delete what was never backed up: {why}"))
}

/// Names of a path. `None` where it is not an absolute one that stands for itself.
fn names(path: &str) -> Option<Vec<&str>> {
    let plain = path.starts_with('/') && !path.contains(['*', '?', '[', ']', '\\']);
    let names: Vec<&str> = path.split('/').filter(|name| !name.is_empty()).collect();
    (plain && !names.iter().any(|name| matches!(*name, "." | ".."))).then_some(names)
}

fn partial(chosen: &Chosen) -> String {
    let inside = |path: &String| {
        let inside = path.strip_prefix(chosen.folder)?;
        (inside.starts_with('/') && inside.len() > 1).then(|| inside.to_owned())
    };
    let folders: Vec<String> = chosen.paths.iter().filter_map(inside).collect();
    let of = if chosen.paths.is_empty() {
        "parts that are not known".to_owned()
    } else {
        chosen.paths.join(", ")
    };
    let what = if folders.is_empty() {
        format!("deleting is not supported for it: {OTHERWISE}")
    } else {
        format!(
            "set spec.snapshotPath to one of {} if it is a folder, with spec.target.pvc.path (for a file, deleting is not supported); or {OTHERWISE}",
            folders.join(", ")
        )
    };
    format!(
        "spec.options.delete would delete what was never backed up: the snapshot is one of {of} and not of the whole folder; {what}"
    )
}

/// What was left out by `--exclude` has to stay in the target. Of other excludes a snapshot has no record.
fn excluded(valid: &Valid, chosen: &Chosen, kept: &[String]) -> Option<String> {
    let root = format!("{}/{}", chosen.folder, valid.path);
    let root: Vec<&str> = root.split('/').filter(|name| !name.is_empty()).collect();
    let own = [SOURCE_DIR.trim_start_matches('/'), LOST_AND_FOUND];
    let mut missing = Vec::new();
    for pattern in &chosen.excludes {
        let Some(path) = names(pattern) else {
            return Some(never(pattern));
        };
        match path.strip_prefix(root.as_slice()) {
            _ if path == own && chosen.folder == SOURCE_DIR && valid.path.is_empty() => {}
            Some([name]) if kept.iter().any(|kept| kept.strip_prefix('/') == Some(*name)) => {}
            Some([name]) => missing.push(format!("/{name}")),
            // Beside the folder, and not above it.
            None if !root.starts_with(&path) => {}
            _ => return Some(never(pattern)),
        }
    }
    (!missing.is_empty()).then(|| {
        format!(
            "the backup excluded names at the top of the folder; add {} to spec.excludePaths, so that they stay, or {OTHERWISE}",
            missing.join(", ")
        )
    })
}

fn never(pattern: &str) -> String {
    format!(
        "the backup excluded {pattern:?}, and only names at the top of the folder can be spared; deleting is not supported for this snapshot: {OTHERWISE}"
    )
}

/// What is known of the backup and not in the snapshot: excludes that restic does not record, and files that were not read.
fn incomplete(backup: &ResticBackup, chosen: &Chosen) -> Option<String> {
    let extra = backup.spec.restic.as_ref().map(|restic| &*restic.extra_args);
    let extra = match options::parse(extra.unwrap_or_default()) {
        Ok(options) => options.arguments,
        Err(error) => return Some(format!("what the backup leaves out is not known: {error}")),
    };
    let leaves_out = |argument: &&String| {
        let of = ["--iexclude", "--exclude-", "--one-file-system"];
        of.iter().any(|name| argument.starts_with(name))
    };
    if let Some(argument) = extra.iter().find(leaves_out) {
        return Some(format!(
            "spec.restic.extraArgs of the backup has {argument:?}, and what it left out of the snapshot is recorded nowhere; {OTHERWISE}"
        ));
    }
    let last = backup.status.as_ref()?.last_backup.as_ref()?;
    let is_it = last.snapshot_id.as_deref() == Some(chosen.id.as_str());
    // The hook after it changes no snapshot.
    let is_whole =
        last.result == BackupResult::Succeeded || last.reason.as_deref() == Some(reasons::POST_HOOK_FAILED);
    (is_it && !is_whole).then(|| {
        let (result, reason) = (last.result.as_str(), last.reason.as_deref().unwrap_or_default());
        format!(
            "the run that made the snapshot ended as {result} ({reason}), so files may be missing in it; choose a snapshot of a run that succeeded, or {OTHERWISE}"
        )
    })
}

/// What was backed up may be a folder of its volume that the snapshot shows as /backup all the same.
fn no_volume(backup: &ResticBackup, valid: &Valid, chosen: &Chosen) -> Option<String> {
    if !valid.folder.is_empty() {
        return None;
    }
    let why = if backup.spec.source.pvc.is_none() {
        "the source of the backup may be only a folder of its volume"
    } else if !chosen.of_backup {
        "the snapshot is not one of this backup, so it may be of only a folder of its volume"
    } else {
        return None;
    };
    Some(format!(
        "{why}, and its content would take the place of the whole volume; write the folder in spec.target.pvc.path, or {OTHERWISE}"
    ))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::world::Key;

    fn restore(spec: &Value) -> (Valid, Vec<String>) {
        let mut full = json!({ "backupRef": { "name": "orders" }, "target": { "pvc": { "claimName": "back" } },
                               "options": { "delete": true } });
        for (name, value) in spec.as_object().unwrap() {
            full[name] = value.clone();
        }
        let restore: crds::ResticRestore = serde_json::from_value(json!({
            "apiVersion": "backup.resticbackup.io/v1alpha1", "kind": "ResticRestore",
            "metadata": { "name": "r", "namespace": "shop" }, "spec": full,
        }))
        .unwrap();
        let valid = crate::restore::validate::validate(&Key::new("shop", "r"), &restore).unwrap();
        (valid, restore.spec.exclude_paths)
    }

    fn backup(source: Value, extra: &[&str], status: Value) -> ResticBackup {
        serde_json::from_value(json!({
            "apiVersion": "backup.resticbackup.io/v1alpha1", "kind": "ResticBackup", "metadata": { "name": "orders" },
            "spec": { "repositoryRef": { "name": "nas" }, "schedule": "@daily", "source": source,
                      "restic": { "extraArgs": extra } },
            "status": status,
        }))
        .unwrap()
    }

    fn plain() -> ResticBackup {
        backup(json!({ "pvc": { "claimName": "d" } }), &[], json!({}))
    }

    fn chosen(excludes: &[&str]) -> Chosen {
        Chosen {
            id: "ab".repeat(32),
            folder: SOURCE_DIR,
            paths: vec![SOURCE_DIR.to_owned()],
            excludes: excludes.iter().map(|&pattern| pattern.to_owned()).collect(),
            of_backup: true,
            files: Some(1),
            bytes: None,
        }
    }

    fn why(backup: &ResticBackup, chosen: &Chosen, spec: &Value) -> Option<String> {
        let (valid, kept) = restore(spec);
        refusal(Some(backup), &valid, chosen, &kept)
    }

    #[test]
    fn what_the_backup_excluded_is_not_deleted() {
        let of = |excludes: &[&str], spec: Value| why(&plain(), &chosen(excludes), &spec);
        let own = "/backup/lost+found";
        assert_eq!(of(&[own], json!({})), None);
        let refused = of(&[own, "/backup/cache"], json!({})).unwrap();
        assert!(refused.contains("add /cache to spec.excludePaths"), "{refused}");
        let spared = json!({ "excludePaths": ["/cache"] });
        assert_eq!(of(&["/backup/cache/", own], spared.clone()), None);
        for pattern in [
            "*.log",
            "cache",
            "/backup/c*",
            "/backup/a/cache",
            "/backup",
            "/",
            "!/backup/cache",
            "/backup/./cache",
            "/backup/x/../cache",
            "",
        ] {
            let refused = of(&[pattern], spared.clone()).unwrap();
            assert!(refused.contains("not supported"), "{pattern}: {refused}");
        }
        let of_folder =
            json!({ "snapshotPath": "/a", "target": { "pvc": { "claimName": "back", "path": "a" } } });
        assert_eq!(of(&[own, "/backup/b", "/backup/ab/c"], of_folder.clone()), None);
        assert!(of(&["/backup/a/cache"], of_folder.clone()).is_some());
        assert!(of(&["/backup/a"], of_folder.clone()).is_some());
        assert!(of(&["/backup/a/lost+found"], of_folder).is_some());
    }

    #[test]
    fn excludes_that_restic_does_not_record_are_known_of_the_backup() {
        let of = |extra: &[&str]| {
            let source = json!({ "pvc": { "claimName": "d" } });
            why(&backup(source, extra, json!({})), &chosen(&[]), &json!({}))
        };
        assert_eq!(of(&["--compression", "max", "--exclude=x"]), None, "recorded");
        for extra in [
            &["--iexclude", "x"][..],
            &["--exclude-caches"],
            &["--exclude-if-present=.no"],
            &["--exclude-larger-than", "1G"],
            &["--one-file-system"],
            &["-fx"],
            &["--unknown"],
        ] {
            assert!(of(extra).is_some(), "{extra:?}");
        }
    }

    #[test]
    fn a_snapshot_with_unread_files_deletes_nothing() {
        let of = |id: &str, result: &str| {
            let source = json!({ "pvc": { "claimName": "d" } });
            let status = json!({ "lastBackup": { "snapshotID": id.repeat(32), "result": result } });
            why(&backup(source, &[], status), &chosen(&[]), &json!({}))
        };
        assert!(of("ab", "PartiallyFailed").unwrap().contains("PartiallyFailed"));
        assert!(of("ab", "Failed").is_some());
        assert_eq!(of("ab", "Succeeded"), None);
        assert_eq!(of("cd", "PartiallyFailed"), None, "another snapshot");
        let hook = json!({ "lastBackup": { "snapshotID": "ab".repeat(32), "result": "PartiallyFailed", "reason": "PostHookFailed" } });
        let hook = backup(json!({ "pvc": { "claimName": "d" } }), &[], hook);
        assert_eq!(
            why(&hook, &chosen(&[]), &json!({})),
            None,
            "the snapshot is whole"
        );
    }

    #[test]
    fn a_folder_that_was_mounted_does_not_take_the_place_of_a_volume() {
        let pod = json!({ "podVolumeBackup": { "selector": {}, "volumeName": "v", "container": "c" } });
        let custom = json!({ "customSource": { "podTemplate": {}, "backupPath": "/x/a" } });
        let folder = json!({ "target": { "pvc": { "claimName": "back", "path": "a" } } });
        for source in [pod, custom] {
            let backup = backup(source, &[], json!({}));
            let refused = why(&backup, &chosen(&[]), &json!({})).unwrap();
            assert!(refused.contains("spec.target.pvc.path"), "{refused}");
            assert_eq!(why(&backup, &chosen(&[]), &folder), None);
        }
        assert_eq!(why(&plain(), &chosen(&[]), &json!({})), None);
        let another = Chosen {
            of_backup: false,
            ..chosen(&[])
        };
        assert!(why(&plain(), &another, &json!({})).is_some());
        assert_eq!(why(&plain(), &another, &folder), None);
    }

    #[test]
    fn a_refusal_of_parts_names_only_what_would_be_taken() {
        let of = |paths: &[&str], folder: &'static str| Chosen {
            paths: paths.iter().map(|&path| path.to_owned()).collect(),
            folder,
            ..chosen(&[])
        };
        let parts = of(&["/backup/a", "/backup/b"], SOURCE_DIR);
        let refused = why(&plain(), &parts, &json!({})).unwrap();
        assert!(
            refused.contains("spec.snapshotPath to one of /a, /b if"),
            "{refused}"
        );
        let to = json!({ "snapshotPath": "/a", "target": { "pvc": { "claimName": "back", "path": "a" } } });
        assert_eq!(why(&plain(), &parts, &to), None, "what it named");
        for unknown in [&[][..], &["home"], &["C:\\data"]] {
            let refused = why(&plain(), &of(unknown, ""), &json!({})).unwrap();
            assert!(
                refused.contains("not supported") && !refused.contains("snapshotPath"),
                "{refused}"
            );
        }
    }
}
