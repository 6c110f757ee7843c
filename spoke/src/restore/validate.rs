//! A restore's spec as it may be worked with. Pure.

use crds::common::{BadPart, CrossNamespaceObjectReference};
use crds::conditions::reasons;
use crds::restore::{NewPvc, ResticRestoreSpec};
use crds::{ResticRestore, names};
use jiff::Timestamp;

use crate::hooks::{self, BadHook, Subject};
use crate::pod::{JobSettings, job_settings};
use crate::world::Key;

/// Where the target is mounted.
pub const TARGET_DIR: &str = "/restore";

/// A valid spec.
#[derive(Clone, Debug)]
pub struct Valid {
    pub origin: Origin,
    pub snapshot: Wanted,
    pub target: Target,
    /// Folder in the target volume, without slashes at its ends; empty for its root.
    pub folder: String,
    /// Arguments of restic after the snapshot and the target.
    pub arguments: Vec<String>,
    /// Files are chosen by name: if none is found, that is a failure.
    pub filtered: bool,
    pub job: JobSettings,
    pub hooks: Option<hooks::Plan>,
}

/// Where the snapshots are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    Backup(Key),
    Repository(Key),
}

/// Which snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// The beginning of an id, or all of it.
    Id(String),
    /// The newest one that carries all of this.
    Newest {
        tags: Vec<String>,
        host: Option<String>,
        before: Option<Timestamp>,
    },
}

/// Where the files go.
#[derive(Clone, Debug, PartialEq)]
pub enum Target {
    Existing(String),
    New(NewPvc),
}

impl Target {
    /// Name of the claim.
    #[must_use]
    pub fn name(&self) -> &str {
        match self {
            Target::Existing(name) => name,
            Target::New(new) => &new.name,
        }
    }
}

/// Why a spec is refused, with the field to change.
#[derive(Debug, thiserror::Error)]
pub enum Invalid {
    #[error("spec needs exactly one of backupRef and repositoryRef: keep one and remove the other")]
    Origin,
    #[error("spec.snapshotID and spec.snapshotSelector exclude each other: keep one and remove the other")]
    Both,
    #[error("spec.snapshotID: {0:?} is neither latest nor 4 to 64 hex digits")]
    Id(String),
    #[error(
        "spec.repositoryRef alone is ambiguous: the repository may hold snapshots of several backups; set spec.snapshotID, or tags or hostname of spec.snapshotSelector"
    )]
    TooBroad,
    #[error("spec.target needs exactly one of pvc and newPVC: keep one and remove the other")]
    Target,
    #[error("spec.target.pvc.path: {0:?} leaves the volume; remove \"..\"")]
    Path(String),
    #[error("spec.{field}: {pattern:?} cannot be used: {why}")]
    Pattern {
        field: &'static str,
        pattern: String,
        why: &'static str,
    },
    #[error(
        "spec.includePaths and spec.excludePaths exclude each other in restic: keep one and remove the other"
    )]
    Filters,
    #[error(transparent)]
    Hook(#[from] BadHook),
    #[error(
        "spec.jobConfig.serviceAccountName: {0:?} would get the right to run commands in pods, and with it every pod that has \
         this account; remove it: hooks have an account of their own"
    )]
    Account(String),
    #[error(transparent)]
    Part(#[from] BadPart),
}

impl Invalid {
    /// Reason of condition Ready.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        reasons::INVALID_SPEC
    }
}

/// Checks what the schema cannot, and what it checks again: an object may be older than the schema.
///
/// # Errors
/// The first thing that is wrong.
pub fn validate(key: &Key, restore: &ResticRestore) -> Result<Valid, Invalid> {
    let spec = &restore.spec;
    let origin = origin(key, spec)?;
    let snapshot = wanted(restore, &origin)?;
    let (target, folder) = target(spec)?;
    let job = job_settings(spec.job_config.as_ref())?;
    let hooks = hooks(key, restore, job.service_account.as_deref())?;
    if let Some(account) = job.service_account.as_ref().filter(|_| hooks.is_some()) {
        return Err(Invalid::Account(account.clone()));
    }
    Ok(Valid {
        origin,
        snapshot,
        target,
        folder,
        arguments: arguments(spec)?,
        filtered: !spec.include_paths.is_empty() || !spec.exclude_paths.is_empty(),
        hooks,
        job,
    })
}

fn hooks(key: &Key, restore: &ResticRestore, account: Option<&str>) -> Result<Option<hooks::Plan>, BadHook> {
    let owner = hooks::Owner {
        kind: "ResticRestore".to_owned(),
        name: key.name.to_string(),
        uid: restore.metadata.uid.clone().unwrap_or_default(),
    };
    let own = || names::restore_service_account(&key.name);
    let account = account.map_or_else(own, str::to_owned);
    let given = restore.spec.hooks.clone().unwrap_or_default();
    let given = [&given.pre_restore, &given.post_restore, &None].map(Option::as_ref);
    hooks::given(Subject::Restore, (owner, account), given)
}

fn origin(key: &Key, spec: &ResticRestoreSpec) -> Result<Origin, Invalid> {
    let at = |reference: &CrossNamespaceObjectReference| {
        Key::new(reference.namespace_or(&key.namespace), &reference.name)
    };
    match (&spec.backup_ref, &spec.repository_ref) {
        (Some(backup), None) => Ok(Origin::Backup(at(backup))),
        (None, Some(repository)) => Ok(Origin::Repository(at(repository))),
        _ => Err(Invalid::Origin),
    }
}

/// The claim, and the folder in its volume.
fn target(spec: &ResticRestoreSpec) -> Result<(Target, String), Invalid> {
    match (&spec.target.pvc, &spec.target.new_pvc) {
        (Some(pvc), None) => {
            let path = pvc.path.clone().unwrap_or_default();
            if path.split('/').any(|part| part == "..") || path.contains('\0') {
                return Err(Invalid::Path(path));
            }
            let folder = path.trim_matches('/').to_owned();
            Ok((Target::Existing(pvc.claim_name.clone()), folder))
        }
        (None, Some(new)) => Ok((Target::New(new.clone()), String::new())),
        _ => Err(Invalid::Target),
    }
}

/// Arguments of restic after the snapshot and the target.
fn arguments(spec: &ResticRestoreSpec) -> Result<Vec<String>, Invalid> {
    if !spec.include_paths.is_empty() && !spec.exclude_paths.is_empty() {
        return Err(Invalid::Filters);
    }
    let mut arguments = Vec::new();
    for (field, flag, patterns) in [
        ("includePaths", "--include", &spec.include_paths),
        ("excludePaths", "--exclude", &spec.exclude_paths),
    ] {
        for pattern in patterns {
            arguments.extend([flag.to_owned(), checked(field, pattern)?]);
        }
    }
    let options = spec.options.clone().unwrap_or_default();
    let overwrite = if options.overwrite == Some(false) {
        "never"
    } else {
        "always"
    };
    arguments.extend(["--overwrite".to_owned(), overwrite.to_owned()]);
    arguments.extend((options.verify == Some(true)).then(|| "--verify".to_owned()));
    Ok(arguments)
}

fn wanted(restore: &ResticRestore, origin: &Origin) -> Result<Wanted, Invalid> {
    let spec = &restore.spec;
    let id = spec
        .snapshot_id
        .as_deref()
        .filter(|id| !id.is_empty() && *id != "latest");
    let selector = spec.snapshot_selector.clone().unwrap_or_default();
    let selects = !selector.tags.is_empty() || selector.hostname.is_some() || selector.before.is_some();
    match id {
        Some(_) if selects => Err(Invalid::Both),
        Some(id) if (4..=64).contains(&id.len()) && id.bytes().all(|b| b.is_ascii_hexdigit()) => {
            Ok(Wanted::Id(id.to_ascii_lowercase()))
        }
        Some(id) => Err(Invalid::Id(id.to_owned())),
        None if matches!(origin, Origin::Repository(_))
            && selector.tags.is_empty()
            && selector.hostname.is_none() =>
        {
            Err(Invalid::TooBroad)
        }
        None => Ok(Wanted::Newest {
            tags: selector.tags,
            host: selector.hostname,
            before: selector.before.map(|t| t.0),
        }),
    }
}

/// Paths are relative to the data, with or without a leading slash.
fn checked(field: &'static str, pattern: &str) -> Result<String, Invalid> {
    let refuse = |why| {
        Err(Invalid::Pattern {
            field,
            pattern: pattern.to_owned(),
            why,
        })
    };
    if pattern.is_empty() {
        return refuse("it is empty");
    }
    if pattern.contains(['\0', '\n']) {
        return refuse("it holds a NUL character or a line break");
    }
    if pattern.split('/').any(|part| part == "..") {
        return refuse("it holds \"..\"");
    }
    Ok(pattern.to_owned())
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn check(spec: Value) -> Result<Valid, String> {
        let mut full =
            json!({ "backupRef": { "name": "orders" }, "target": { "pvc": { "claimName": "back" } } });
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
    fn each_error_names_its_field() {
        let refused = |spec: Value| check(spec).unwrap_err();
        assert!(
            refused(json!({ "repositoryRef": { "name": "nas" } })).contains("backupRef and repositoryRef")
        );
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
        assert!(
            refused(json!({ "includePaths": ["a"], "excludePaths": ["b"] })).contains("exclude each other")
        );
        let hook = json!({ "hooks": { "preRestore": { "exec": { "podSelector": {}, "command": ["x"] } } } });
        assert!(refused(hook).contains("spec.hooks.preRestore"));
    }
}
