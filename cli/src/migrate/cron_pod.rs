//! Which claims of a pod a `restic backup` reads. Pure.

use std::collections::BTreeMap;

use serde_json::Value;

use super::restic_args::Call;
use crate::objects::{list, text};

/// What is stored of a claim.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stored {
    pub claim: String,
    /// Folders in the volume; empty for all of it.
    pub paths: Vec<String>,
    pub excludes: Vec<String>,
    /// Nothing else is in its snapshots.
    pub alone: bool,
}

/// What is stored, by claim; an error for each path that is of none.
#[must_use]
pub fn stored(pod: &Value, container: &Value, call: &Call) -> Vec<Result<Stored, String>> {
    let mut claims: BTreeMap<String, (Vec<String>, String)> = BTreeMap::new();
    let mut found = Vec::new();
    let working = text(container, "/workingDir");
    if call.paths.is_empty() {
        found.push(Err(
            "its backup names no path (--stdin or --files-from): write a ResticBackup by hand".to_owned(),
        ));
    }
    for path in &call.paths {
        let path = match path.strip_prefix('/') {
            Some(_) => path.clone(),
            None => format!("{}/{path}", working.trim_end_matches('/')),
        };
        let path = path.trim_end_matches("/.").to_owned();
        match claim_of(pod, container, &path) {
            Some((claim, inside, root)) => {
                let entry = claims.entry(claim).or_insert_with(|| (Vec::new(), root));
                entry.0.push(inside);
            }
            None => found.push(Err(format!("{path} lies in no claim, and is not carried over"))),
        }
    }
    let alone = claims.len() == 1 && found.is_empty();
    for (claim, (paths, root)) in claims {
        let whole = paths.iter().any(|path| path == "/");
        let excludes = call
            .excludes
            .iter()
            .filter_map(|pattern| match pattern.strip_prefix('/') {
                None => Some(pattern.clone()),
                // Anchored patterns of ours are relative to the volume.
                Some(_) => pattern
                    .strip_prefix(root.trim_end_matches('/'))
                    .map(str::to_owned),
            });
        found.push(Ok(Stored {
            excludes: excludes.filter(|pattern| !pattern.is_empty()).collect(),
            paths: if whole { Vec::new() } else { paths },
            claim,
            alone,
        }));
    }
    found
}

/// Claim, folder in its volume, and where that volume's root would lie in the container.
fn claim_of(pod: &Value, container: &Value, path: &str) -> Option<(String, String, String)> {
    let inside = |mount: &Value| {
        let at = text(mount, "/mountPath").trim_end_matches('/');
        let rest = path.strip_prefix(at)?;
        (rest.is_empty() || rest.starts_with('/')).then(|| rest.to_owned())
    };
    let mounts = list(container, "/volumeMounts").iter();
    let mount = mounts
        .filter(|mount| inside(mount).is_some())
        .max_by_key(|mount| text(mount, "/mountPath").len())?;
    let name = text(mount, "/name");
    let volume = list(pod, "/volumes")
        .iter()
        .find(|volume| text(volume, "/name") == name)?;
    let claim = text(volume, "/persistentVolumeClaim/claimName");
    let sub = text(mount, "/subPath").trim_matches('/');
    let folder = format!("/{sub}/{}", inside(mount)?.trim_matches('/'));
    let folder = format!("/{}", folder.trim_matches('/'));
    let root = match sub {
        "" => text(mount, "/mountPath").to_owned(),
        // What is excluded by its place in the container has another place in the volume.
        _ => String::from("/\0"),
    };
    (!claim.is_empty()).then(|| (claim.to_owned(), folder, root))
}
