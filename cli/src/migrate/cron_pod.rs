//! Which claims of a pod a `restic backup` reads. Pure.

use std::collections::BTreeMap;

use serde_json::Value;

use super::cron_excludes::{Mounted, SOURCE_DIR, parts, translated};
use super::restic_args::Call;
use crate::objects::{list, text};

/// What is stored of a claim.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stored {
    pub claim: String,
    /// Folders in the volume; empty for all of it.
    pub paths: Vec<String>,
    pub excludes: Vec<String>,
    /// Options that are not the same for each claim.
    pub extra: Vec<String>,
    /// Nothing else is in its snapshots.
    pub alone: bool,
}

/// Folders of a claim that are read, and where the container has them.
#[derive(Debug, Default)]
struct Folders {
    paths: Vec<String>,
    mounts: Vec<Mounted>,
}

/// What is stored, by claim; an error for each path that is of none, and for each pattern that is not carried over.
#[must_use]
pub fn stored(pod: &Value, container: &Value, call: &Call) -> Vec<Result<Stored, String>> {
    let mut claims: BTreeMap<String, Folders> = BTreeMap::new();
    let mut found = Vec::new();
    if call.paths.is_empty() {
        found.push(Err(
            "its backup names no path (--stdin or --files-from): write a ResticBackup by hand".to_owned(),
        ));
    }
    let working = text(container, "/workingDir").trim_end_matches('/');
    for path in &call.paths {
        let path = match path.strip_prefix('/') {
            Some(_) => path.clone(),
            None => format!("{working}/{path}"),
        };
        let path = path.trim_end_matches("/.").to_owned();
        for path in [vec![path.clone()], below(container, call, &path)].concat() {
            match of_path(pod, container, &path) {
                Ok((claim, inside, mounted)) => {
                    let folders = claims.entry(claim).or_default();
                    folders.paths.push(inside);
                    if !folders.mounts.contains(&mounted) {
                        folders.mounts.push(mounted);
                    }
                }
                Err(why) => found.push(Err(why)),
            }
        }
    }
    let alone = claims.len() == 1 && found.is_empty();
    for (claim, folders) in claims {
        let excludes = translated(&call.excludes, &folders.mounts, false);
        let iexcludes = translated(&call.iexcludes, &folders.mounts, true);
        let left = excludes.left.into_iter().chain(iexcludes.left);
        found.extend(left.map(Err));
        let extra = iexcludes.patterns.iter().map(|pattern| in_ours(pattern));
        let whole = folders.paths.iter().any(|path| path == "/");
        found.push(Ok(Stored {
            claim,
            paths: if whole { Vec::new() } else { folders.paths },
            excludes: excludes.patterns,
            extra: extra.map(|pattern| format!("--iexclude={pattern}")).collect(),
            alone,
        }));
    }
    found
}

/// A pattern as our restic is given it: source.pvc.excludes are rewritten by the operator, and extraArgs are not.
fn in_ours(pattern: &str) -> String {
    let (mark, rest) = pattern.split_at(usize::from(pattern.starts_with('!')));
    match rest.starts_with('/') {
        true => format!("{mark}{SOURCE_DIR}{rest}"),
        false => pattern.to_owned(),
    }
}

/// What else is mounted below a folder, which is stored with it unless an option says otherwise.
fn below(container: &Value, call: &Call, path: &str) -> Vec<String> {
    if call
        .extra
        .iter()
        .any(|option| option.starts_with("--one-file-system"))
    {
        return Vec::new();
    }
    let is_below =
        |mount: &Vec<String>, folder: &[String]| mount.starts_with(folder) && mount.len() > folder.len();
    let excluded = |mount: &Vec<String>| {
        let mut patterns = call.excludes.iter().filter(|pattern| pattern.starts_with('/'));
        patterns.any(|pattern| mount.starts_with(&parts(pattern)))
    };
    let mounts = list(container, "/volumeMounts")
        .iter()
        .map(|mount| parts(text(mount, "/mountPath")));
    let found = mounts.filter(|mount| is_below(mount, &parts(path)) && !excluded(mount));
    found.map(|mount| format!("/{}", mount.join("/"))).collect()
}

/// Claim of a path, folder in its volume, and where that volume is mounted.
fn of_path(pod: &Value, container: &Value, path: &str) -> Result<(String, String, Mounted), String> {
    if path.contains(['*', '?', '[']) {
        return Err(format!(
            "{path} is known only when its shell has looked, and is not carried over"
        ));
    }
    let none = || format!("{path} lies in no claim, and is not carried over");
    let wanted = parts(path);
    let mounts = list(container, "/volumeMounts").iter();
    let of = |mount: &Value| parts(text(mount, "/mountPath"));
    let mount = mounts
        .filter(|mount| wanted.starts_with(&of(mount)))
        .max_by_key(|mount| of(mount).len())
        .ok_or_else(none)?;
    let name = text(mount, "/name");
    let volume = list(pod, "/volumes")
        .iter()
        .find(|volume| text(volume, "/name") == name)
        .ok_or_else(none)?;
    let claim = text(volume, "/persistentVolumeClaim/claimName");
    if claim.is_empty() {
        return Err(none());
    }
    if !text(mount, "/subPathExpr").is_empty() {
        return Err(format!(
            "{path} lies in a folder of claim {claim} that is known only when it runs (subPathExpr), and is not carried over"
        ));
    }
    let mounted = Mounted {
        at: of(mount),
        folder: parts(text(mount, "/subPath")),
    };
    let inside = wanted.get(mounted.at.len()..).unwrap_or_default();
    let folder = [&mounted.folder, inside].concat().join("/");
    Ok((claim.to_owned(), format!("/{folder}"), mounted))
}

#[cfg(test)]
#[path = "cron_pod_tests.rs"]
mod tests;
