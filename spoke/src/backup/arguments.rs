//! Arguments of `restic backup`. Pure.

use crds::backup::{PvcSource, ResticConfig};

use super::source::Wanted;
use super::validate::Invalid;
use crate::pod::{SOURCE_DIR, stream};
use crate::restic::options::{self, BadOption};
use crate::site::Site;
use crate::world::Key;

/// Options whose patterns may match the folder that the volume is mounted at.
const EXCLUDES: [&str; 2] = ["--exclude=", "--iexclude="];

/// All of them, paths or command included.
pub fn arguments(
    key: &Key,
    site: &Site,
    restic: &ResticConfig,
    pvc: Option<&PvcSource>,
    source: &Wanted,
) -> Result<Vec<String>, Invalid> {
    let mut arguments = whose(key, site, restic)?;
    arguments.extend(match source.filename() {
        Some(filename) => {
            let name = format!("{SOURCE_DIR}/{filename}");
            vec![
                "--stdin-from-command".to_owned(),
                "--stdin-filename".to_owned(),
                name,
            ]
        }
        None => excludes(pvc),
    });
    arguments.extend(of_person(&restic.extra_args)?);
    arguments.push("--".to_owned());
    match source {
        _ if source.filename().is_some() => arguments.extend(stream::receive()),
        _ => arguments.extend(paths(pvc.map(|pvc| &*pvc.paths).unwrap_or_default())?),
    }
    Ok(arguments)
}

/// Host and tags.
fn whose(key: &Key, site: &Site, restic: &ResticConfig) -> Result<Vec<String>, Invalid> {
    let host = restic.hostname.clone().unwrap_or_else(|| key.name.to_string());
    let mut arguments = vec!["--host".to_owned(), host];
    if let Some(tag) = restic.tags.iter().find_map(|tag| options::reserved(tag)) {
        return Err(Invalid::Tag(tag.to_owned()));
    }
    // Two clusters may well use the same host name, and even the same name: these tell their snapshots apart.
    let identity = [
        format!("fleet.cluster={}", site.cluster),
        format!("fleet.cluster-uid={}", site.cluster_uid),
        format!("fleet.backup={key}"),
    ];
    for tag in restic.tags.iter().chain(&identity) {
        arguments.extend(["--tag".to_owned(), tag.clone()]);
    }
    Ok(arguments)
}

fn excludes(pvc: Option<&PvcSource>) -> Vec<String> {
    let mut arguments = Vec::new();
    for pattern in pvc.iter().flat_map(|pvc| &pvc.excludes) {
        // Anchored patterns are relative to the volume, as people see it.
        let (not, rest) = negation(pattern);
        let inside = match rest.starts_with('/') {
            true => format!("{not}{SOURCE_DIR}{rest}"),
            false => inside(pattern),
        };
        arguments.extend(["--exclude".to_owned(), inside]);
    }
    if pvc.and_then(|pvc| pvc.include_lost_and_found) != Some(true) {
        arguments.extend(["--exclude".to_owned(), format!("{SOURCE_DIR}/lost+found")]);
    }
    arguments
}

/// The `!` of a pattern that takes back what others exclude, and the rest.
fn negation(pattern: &str) -> (&str, &str) {
    pattern
        .strip_prefix('!')
        .map_or(("", pattern), |rest| ("!", rest))
}

/// A pattern that matches at any depth of the volume, and never the volume itself: restic would match `backup` with the
/// folder that it is mounted at, store nothing, and end well.
fn inside(pattern: &str) -> String {
    let (not, rest) = negation(pattern);
    // A second `**` would leave the folder of what it excludes.
    let rest = rest.trim_start_matches("**/");
    format!("{not}{SOURCE_DIR}/**/{rest}")
}

fn of_person(extra: &[String]) -> Result<Vec<String>, BadOption> {
    let options = options::parse(extra)?.arguments;
    let mut arguments = Vec::new();
    // The parent is the last snapshot of this very backup: host and paths are the same for backups of one name in all
    // clusters, and each would read all files again after the other's run. The tags tell them apart.
    if !options.iter().any(|option| option.starts_with("--group-by=")) {
        arguments.extend(["--group-by", "host,paths,tags"].map(str::to_owned));
    }
    arguments.extend(options.into_iter().map(|option| {
        let pattern = EXCLUDES
            .iter()
            .find_map(|name| option.strip_prefix(name).map(|pattern| (name, pattern)));
        match pattern {
            Some((name, pattern)) if !negation(pattern).1.starts_with('/') => {
                format!("{name}{}", inside(pattern))
            }
            _ => option,
        }
    }));
    Ok(arguments)
}

fn paths(paths: &[String]) -> Result<Vec<String>, Invalid> {
    if paths.is_empty() {
        return Ok(vec![SOURCE_DIR.to_owned()]);
    }
    let inside = |path: &String| {
        if crate::paths::goes_up(path) {
            return Err(Invalid::Path(path.clone()));
        }
        let path = path.trim_matches('/');
        Ok(if path.is_empty() {
            SOURCE_DIR.to_owned()
        } else {
            format!("{SOURCE_DIR}/{path}")
        })
    };
    paths.iter().map(inside).collect()
}
