//! A restore's spec as it may be worked with. Pure.

use crds::common::{BadPart, CrossNamespaceObjectReference};
use crds::conditions::reasons;
use crds::restore::{NewPvc, PathMatching, ResticRestoreSpec};
use crds::{ResticRestore, names};
use jiff::Timestamp;

use super::arguments::{LOST_AND_FOUND, arguments};
use crate::hooks::{self, BadHook, Subject};
use crate::paths;
use crate::pod::{JobSettings, uncached_settings};
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
    /// Folder of the snapshot, relative to the data, without slashes at its ends; empty for all of it.
    pub path: String,
    /// Arguments of restic after the snapshot and the target.
    pub arguments: Vec<String>,
    /// What is not in the snapshot is deleted.
    pub delete: bool,
    /// Nothing is written.
    pub dry_run: bool,
    /// Restored files are read again.
    pub verify: bool,
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
    #[error("spec.snapshotPath: {0:?} leaves the snapshot, or holds a line break: remove it")]
    SnapshotPath(String),
    #[error("spec.options.delete {0}")]
    Delete(&'static str),
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
    let job = uncached_settings(spec.job_config.as_ref())?;
    let options = spec.options.clone().unwrap_or_default();
    let (delete, dry_run) = (options.delete == Some(true), options.dry_run == Some(true));
    if delete {
        deletable(spec, &target)?;
    }
    // A preview changes nothing, so nothing is to be done around it; its hooks are checked all the same.
    let hooks = hooks(key, restore, job.service_account.as_deref())?.filter(|_| !dry_run);
    if let Some(account) = job.service_account.as_ref().filter(|_| hooks.is_some()) {
        return Err(Invalid::Account(account.clone()));
    }
    Ok(Valid {
        origin,
        snapshot,
        target,
        path: snapshot_path(spec)?,
        arguments: arguments(spec, folder.is_empty())?,
        folder,
        delete,
        dry_run,
        verify: options.verify == Some(true),
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
            if paths::goes_up(&path) || path.contains('\0') {
                return Err(Invalid::Path(path));
            }
            let folder = folder_of(Some(&path));
            Ok((Target::Existing(pvc.claim_name.clone()), folder))
        }
        (None, Some(new)) => Ok((Target::New(new.clone()), String::new())),
        _ => Err(Invalid::Target),
    }
}

/// Refuses a deletion that could reach more than what the snapshot replaces.
fn deletable(spec: &ResticRestoreSpec, target: &Target) -> Result<(), Invalid> {
    let matching = spec
        .options
        .as_ref()
        .map_or(PathMatching::default(), |options| options.path_matching);
    let why = match target {
        Target::New(_) => "needs spec.target.pvc: a new claim holds nothing to delete",
        _ if !spec.include_paths.is_empty() => {
            "and spec.includePaths exclude each other: a path that is missing in the snapshot would only be deleted; use excludePaths, or snapshotPath with target.pvc.path"
        }
        _ if spec.options.as_ref().and_then(|options| options.overwrite) == Some(false) => {
            "needs spec.options.overwrite: a folder cannot become as it was while its files stay as they are"
        }
        _ if !folder_of(spec.snapshot_path.as_deref()).is_empty()
            && spec
                .target
                .pvc
                .as_ref()
                .is_none_or(|pvc| folder_of(pvc.path.as_deref()).is_empty()) =>
        {
            "with spec.snapshotPath needs spec.target.pvc.path: the content of one folder would take the place of the whole volume; write the folder there"
        }
        _ if spec.backup_ref.is_none()
            && spec
                .target
                .pvc
                .as_ref()
                .is_none_or(|pvc| folder_of(pvc.path.as_deref()).is_empty()) =>
        {
            "with spec.repositoryRef needs spec.target.pvc.path: a snapshot does not show whether it is of a whole volume or of a folder of one; write the folder there, name a ResticBackup of a pvc in spec.backupRef, or restore into a new claim with spec.target.newPVC, without the option"
        }
        _ if !spec.exclude_paths.iter().all(|path| is_kept(matching, path)) => {
            "takes only names at the top of the target as spec.excludePaths, as /cache, without pattern characters: anything deeper would be deleted with the folder that it is in; restore folder by folder with snapshotPath and target.pvc.path"
        }
        _ if spec
            .target
            .pvc
            .as_ref()
            .is_some_and(|pvc| folder_of(pvc.path.as_deref()).split('/').next() == Some(LOST_AND_FOUND)) =>
        {
            "cannot be used in lost+found, which belongs to the file system: change spec.target.pvc.path"
        }
        Target::Existing(_) => return Ok(()),
    };
    Err(Invalid::Delete(why))
}

/// restic asks whether the topmost entry that is not in the snapshot is excluded, and about nothing below it.
fn is_kept(matching: PathMatching, exclude: &str) -> bool {
    let Some(name) = exclude.strip_prefix('/') else {
        return false;
    };
    let plain = matching == PathMatching::Literal || !name.contains(['*', '?', '[', ']', '\\']);
    plain && !name.is_empty() && name != "." && !name.contains('/')
}

/// Without slashes at its ends, and without `.`; empty for the root.
fn folder_of(path: Option<&str>) -> String {
    let parts = path.unwrap_or_default().split('/');
    let parts: Vec<&str> = parts.filter(|part| !matches!(*part, "" | ".")).collect();
    parts.join("/")
}

fn snapshot_path(spec: &ResticRestoreSpec) -> Result<String, Invalid> {
    let path = spec.snapshot_path.clone().unwrap_or_default();
    if paths::goes_up(&path) || path.contains(['\0', '\n']) {
        return Err(Invalid::SnapshotPath(path));
    }
    Ok(folder_of(Some(&path)))
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

#[cfg(test)]
#[path = "validate_tests.rs"]
mod tests;
