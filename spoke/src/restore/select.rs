//! Which snapshot is meant. Pure. `latest` of a backup is the latest of that very backup: its cluster, host, tags and
//! paths. On a shared repository the newest snapshot of all may well be another cluster's.

use std::collections::BTreeSet;

use crds::ResticBackup;

use super::validate::Wanted;
use crate::pod::SOURCE_DIR;
use crate::restic::Snapshot;
use crate::site::Site;
use crate::world::Key;

/// What identifies a backup's snapshots.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    cluster: String,
    cluster_uid: String,
    backup: String,
    host: String,
    tags: Vec<String>,
    paths: BTreeSet<String>,
}

/// A snapshot to restore.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chosen {
    /// 64 hex digits.
    pub id: String,
    /// Folder in the snapshot whose content is the data; empty for the whole snapshot.
    pub folder: &'static str,
    /// What was backed up, as absolute paths; empty where that is not known.
    pub paths: Vec<String>,
    /// Patterns of `--exclude` that left something out. Of other excludes restic keeps no record.
    pub excludes: Vec<String>,
    /// It is one of the backup that the restore names.
    pub of_backup: bool,
    /// Files in it, if restic has counted them.
    pub files: Option<u64>,
    /// Bytes of these files, if restic has counted them.
    pub bytes: Option<u64>,
}

/// Why no snapshot could be chosen.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotChosen {
    #[error("no snapshot {0} in the repository, which has {1} snapshots")]
    NoSuchId(String, usize),
    #[error("{0:?} is the beginning of {1} snapshot ids; write more digits")]
    Ambiguous(String, usize),
    #[error(
        "no snapshot matches: the repository has {0}, none of which belongs to this backup and matches the selector"
    )]
    NothingOfBackup(usize),
    #[error("no snapshot matches spec.snapshotSelector; the repository has {0}")]
    NothingFits(usize),
    #[error("spec.snapshotSelector fits snapshots of different backups: {0}; add one of these as a tag")]
    SeveralBackups(String),
}

impl Chosen {
    /// Whether all that was in a folder is in the snapshot: the folder lies in one that was backed up. `path` is relative to
    /// the data; empty for all of it.
    #[must_use]
    pub fn has_all_of(&self, path: &str) -> bool {
        let wanted = format!("{}/{path}", self.folder);
        let parts = |path: &str| -> Vec<String> {
            let parts = path.split('/').filter(|part| !part.is_empty());
            parts.map(str::to_owned).collect()
        };
        let wanted = parts(&wanted);
        self.paths
            .iter()
            .any(|path| path.starts_with('/') && wanted.starts_with(&parts(path)))
    }
}

impl Identity {
    /// Identity of a backup of this cluster.
    #[must_use]
    pub fn of(site: &Site, key: &Key, backup: &ResticBackup) -> Identity {
        let restic = backup.spec.restic.clone().unwrap_or_default();
        let listed = backup.spec.source.pvc.iter().flat_map(|pvc| &pvc.paths);
        let mut paths: BTreeSet<String> = listed
            .map(|path| match path.trim_matches('/') {
                "" => SOURCE_DIR.to_owned(),
                path => format!("{SOURCE_DIR}/{path}"),
            })
            .collect();
        if paths.is_empty() {
            paths.insert(SOURCE_DIR.to_owned());
        }
        Identity {
            cluster: site.cluster.clone(),
            cluster_uid: site.cluster_uid.clone(),
            backup: key.to_string(),
            host: restic.hostname.unwrap_or_else(|| key.name.to_string()),
            tags: restic.tags,
            paths,
        }
    }

    fn owns(&self, snapshot: &Snapshot) -> bool {
        match (mark(snapshot, "fleet.cluster="), mark(snapshot, "fleet.backup=")) {
            // Signed: host, tags and paths may have been changed since.
            (Some(cluster), Some(backup)) => {
                // The uid stays when the cluster is renamed, and distinguishes two clusters of one name.
                let uid = mark(snapshot, CLUSTER_UID);
                let own = uid.map_or(cluster == self.cluster, |uid| uid == self.cluster_uid);
                own && backup == self.backup
            }
            (None, None) => {
                snapshot.hostname == self.host
                    && self.tags.iter().all(|tag| snapshot.tags.contains(tag))
                    && snapshot.paths.iter().cloned().collect::<BTreeSet<_>>() == self.paths
            }
            _ => false,
        }
    }
}

/// Tag of the uid of the cluster that made a snapshot.
const CLUSTER_UID: &str = "fleet.cluster-uid=";

fn mark<'a>(snapshot: &'a Snapshot, prefix: &str) -> Option<&'a str> {
    snapshot.tags.iter().find_map(|tag| tag.strip_prefix(prefix))
}

/// Chooses.
///
/// # Errors
/// When nothing, or more than one thing, is meant.
pub fn choose(
    wanted: &Wanted,
    identity: Option<&Identity>,
    snapshots: &[Snapshot],
) -> Result<Chosen, NotChosen> {
    let chosen = match wanted {
        Wanted::Id(id) => {
            let mut found = snapshots.iter().filter(|s| s.id.starts_with(id.as_str()));
            let first = found
                .next()
                .ok_or_else(|| NotChosen::NoSuchId(id.clone(), snapshots.len()))?;
            match found.count() {
                0 => first,
                more => return Err(NotChosen::Ambiguous(id.clone(), more + 1)),
            }
        }
        Wanted::Newest { tags, host, before } => {
            let fits = |s: &&Snapshot| {
                identity.is_none_or(|identity| identity.owns(s))
                    && tags.iter().all(|tag| s.tags.contains(tag))
                    && host.as_ref().is_none_or(|host| *host == s.hostname)
                    && before.is_none_or(|before| s.time < before)
            };
            let candidates: Vec<&Snapshot> = snapshots.iter().filter(fits).collect();
            if identity.is_none() {
                one_backup(&candidates)?;
            }
            let none = || match identity {
                Some(_) => NotChosen::NothingOfBackup(snapshots.len()),
                None => NotChosen::NothingFits(snapshots.len()),
            };
            candidates
                .into_iter()
                .max_by(|a, b| a.time.cmp(&b.time).then_with(|| a.id.cmp(&b.id)))
                .ok_or_else(none)?
        }
    };
    let ours = |path: &String| {
        path == SOURCE_DIR || path.strip_prefix(SOURCE_DIR).is_some_and(|p| p.starts_with('/'))
    };
    let folder = if !chosen.paths.is_empty() && chosen.paths.iter().all(ours) {
        SOURCE_DIR
    } else {
        ""
    };
    let summary = chosen.summary.as_ref();
    Ok(Chosen {
        id: chosen.id.clone(),
        folder,
        paths: chosen.paths.clone(),
        excludes: chosen.excludes.clone(),
        of_backup: identity.is_some_and(|identity| identity.owns(chosen)),
        files: summary.and_then(|summary| summary.total_files_processed),
        bytes: summary.and_then(|summary| summary.total_bytes_processed),
    })
}

/// A selector that fits the snapshots of two clusters would bring back whichever ran last.
fn one_backup(candidates: &[&Snapshot]) -> Result<(), NotChosen> {
    let marks = candidates.iter().map(|s| {
        let (cluster, backup) = (mark(s, "fleet.cluster="), mark(s, "fleet.backup="));
        match (cluster, backup) {
            (Some(cluster), Some(backup)) => format!("fleet.cluster={cluster} with fleet.backup={backup}"),
            _ => format!("host {}", s.hostname),
        }
    });
    let mut marks: BTreeSet<String> = marks.collect();
    let uids: BTreeSet<&str> = candidates.iter().filter_map(|s| mark(s, CLUSTER_UID)).collect();
    // Two clusters of one name. Snapshots from before the uid was tagged may be of either.
    if marks.len() == 1 && uids.len() > 1 {
        marks = uids
            .into_iter()
            .map(|uid| format!("{CLUSTER_UID}{uid}"))
            .collect();
    }
    if marks.len() > 1 {
        let named: Vec<String> = marks.into_iter().take(5).collect();
        return Err(NotChosen::SeveralBackups(named.join(", ")));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn snapshot(id: &str, second: i64, cluster: Option<&str>, host: &str, paths: &[&str]) -> Snapshot {
        let mut tags = vec!["daily".to_owned()];
        tags.extend(cluster.map(|c| format!("fleet.cluster={c}")));
        tags.extend(cluster.map(|_| "fleet.backup=shop/orders".to_owned()));
        Snapshot {
            summary: None,
            id: id.to_owned(),
            time: jiff::Timestamp::from_second(second).unwrap(),
            hostname: host.to_owned(),
            tags,
            paths: paths.iter().map(|&p| p.to_owned()).collect(),
            excludes: Vec::new(),
        }
    }

    fn identity(cluster: &str) -> Identity {
        let backup: ResticBackup = serde_json::from_value(json!({
            "apiVersion": "backup.resticbackup.io/v1alpha1", "kind": "ResticBackup", "metadata": { "name": "orders" },
            "spec": { "repositoryRef": { "name": "nas" }, "schedule": "@daily", "source": { "pvc": { "claimName": "d" } },
                      "restic": { "tags": ["daily"] } },
        }))
        .unwrap();
        let site = Site {
            cluster: cluster.to_owned(),
            ..Site::of_tests()
        };
        Identity::of(&site, &Key::new("shop", "orders"), &backup)
    }

    fn newest() -> Wanted {
        Wanted::Newest {
            tags: Vec::new(),
            host: None,
            before: None,
        }
    }

    #[test]
    fn latest_is_never_another_clusters() {
        let all = [
            snapshot("aa", 1, Some("a"), "orders", &["/backup"]),
            snapshot("bb", 9, Some("b"), "orders", &["/backup"]),
        ];
        let id = |cluster: &str| choose(&newest(), Some(&identity(cluster)), &all).unwrap().id;
        assert_eq!((id("a").as_str(), id("b").as_str()), ("aa", "bb"));
        assert_eq!(
            choose(&newest(), Some(&identity("c")), &all),
            Err(NotChosen::NothingOfBackup(2))
        );
    }

    #[test]
    fn two_clusters_of_one_name_are_told_apart_and_a_renamed_one_is_known() {
        let of = |id: &str, second, cluster: &str, uid: &str| {
            let mut snapshot = snapshot(id, second, Some(cluster), "orders", &["/backup"]);
            snapshot.tags.push(format!("fleet.cluster-uid={uid}"));
            snapshot
        };
        let all = [
            of("aa", 1, "a", "uid-of-a"),
            of("a2", 2, "before", "uid-of-a"),
            of("bb", 9, "a", "another"),
            snapshot("a0", 0, Some("a"), "orders", &["/backup"]),
        ];
        assert_eq!(choose(&newest(), Some(&identity("a")), &all).unwrap().id, "a2");
        assert_eq!(
            choose(&newest(), Some(&identity("a")), &all[3..]).unwrap().id,
            "a0"
        );
        let by = |tag: &str| Wanted::Newest {
            tags: vec![tag.to_owned()],
            host: None,
            before: None,
        };
        let refused = choose(&by("fleet.cluster=a"), None, &all)
            .unwrap_err()
            .to_string();
        assert!(refused.contains("fleet.cluster-uid=another"), "{refused}");
        assert_eq!(
            choose(&by("fleet.cluster-uid=another"), None, &all).unwrap().id,
            "bb"
        );
        // As `fleet clusters rebuild` writes them for the cluster that was lost, whatever another one of its name has made since.
        let tags = [
            "fleet.cluster=a",
            "fleet.backup=shop/orders",
            "fleet.cluster-uid=uid-of-a",
        ];
        let rebuilt = |tags: &[&str]| Wanted::Newest {
            tags: tags.iter().map(|&tag| tag.to_owned()).collect(),
            host: None,
            before: None,
        };
        let several = choose(&rebuilt(&tags[..2]), None, &all);
        assert!(
            matches!(several, Err(NotChosen::SeveralBackups(_))),
            "{several:?}"
        );
        assert_eq!(choose(&rebuilt(&tags), None, &all).unwrap().id, "aa");
    }

    #[test]
    fn unsigned_snapshots_need_host_tags_and_paths() {
        let all = [
            snapshot("aa", 1, None, "orders", &["/backup"]),
            snapshot("bb", 2, None, "orders", &["/backup/sub"]),
            snapshot("cc", 3, None, "crm", &["/backup"]),
        ];
        assert_eq!(choose(&newest(), Some(&identity("a")), &all).unwrap().id, "aa");
    }

    #[test]
    fn a_selector_that_fits_two_backups_is_refused() {
        let all = [
            snapshot("aa", 1, Some("a"), "orders", &["/backup"]),
            snapshot("bb", 9, Some("b"), "orders", &["/backup"]),
        ];
        let by = |tag: &str| Wanted::Newest {
            tags: vec![tag.to_owned()],
            host: None,
            before: None,
        };
        assert!(matches!(
            choose(&by("daily"), None, &all),
            Err(NotChosen::SeveralBackups(_))
        ));
        assert_eq!(choose(&by("fleet.cluster=a"), None, &all).unwrap().id, "aa");
        assert_eq!(choose(&by("weekly"), None, &all), Err(NotChosen::NothingFits(2)));
    }

    #[test]
    fn ids_may_be_short_but_not_ambiguous() {
        let all = [
            snapshot("abcd11", 1, None, "h", &["/backup/x", "/backup/y"]),
            snapshot("abcd22", 2, None, "h", &["/home"]),
        ];
        let id = |id: &str| choose(&Wanted::Id(id.to_owned()), None, &all);
        assert_eq!(id("abcd1").unwrap().folder, "/backup");
        assert_eq!(
            id("abcd2").unwrap().folder,
            "",
            "not made by this operator: restored as it is"
        );
        assert_eq!(id("abcd"), Err(NotChosen::Ambiguous("abcd".to_owned(), 2)));
        assert_eq!(id("ffff"), Err(NotChosen::NoSuchId("ffff".to_owned(), 2)));
    }

    #[test]
    fn a_choice_knows_what_was_left_out_and_whether_it_is_the_backups() {
        let mut all = [
            snapshot("aaaa", 1, Some("a"), "orders", &["/backup"]),
            snapshot("bbbb", 9, Some("b"), "orders", &["/backup"]),
        ];
        all[0].excludes = vec!["*.log".to_owned()];
        let of = |id: &str, identity| choose(&Wanted::Id(id.to_owned()), identity, &all).unwrap();
        let own = identity("a");
        let chosen = of("aaaa", Some(&own));
        assert!(chosen.of_backup && chosen.excludes == ["*.log"]);
        assert!(!of("bbbb", Some(&own)).of_backup && !of("aaaa", None).of_backup);
    }

    #[test]
    fn a_folder_is_whole_only_where_it_was_backed_up() {
        let all = |paths: &[&str], path: &str| {
            let id = Wanted::Id("abcd".to_owned());
            let snapshots = [snapshot("abcd", 1, None, "h", paths)];
            choose(&id, None, &snapshots).unwrap().has_all_of(path)
        };
        assert!(all(&["/backup"], "") && all(&["/backup"], "a/b"));
        assert!(!all(&["/backup/a"], "") && !all(&["/backup/a", "/backup/b"], ""));
        assert!(all(&["/backup/a", "/backup/b"], "b") && all(&["/backup/a"], "a/c"));
        assert!(!all(&["/backup/a"], "ab") && !all(&["/backup/a/c"], "a"));
        assert!(all(&["/home"], "home/x") && !all(&["/home"], "") && all(&["/"], ""));
        assert!(!all(&[], "") && !all(&["home"], "home"), "unknown is not whole");
    }

    #[test]
    fn before_is_exclusive() {
        let all = [
            snapshot("aa", 1, Some("a"), "orders", &["/backup"]),
            snapshot("bb", 5, Some("a"), "orders", &["/backup"]),
        ];
        let before = |second| Wanted::Newest {
            tags: Vec::new(),
            host: None,
            before: Some(jiff::Timestamp::from_second(second).unwrap()),
        };
        assert_eq!(choose(&before(5), Some(&identity("a")), &all).unwrap().id, "aa");
        assert_eq!(choose(&before(6), Some(&identity("a")), &all).unwrap().id, "bb");
    }
}
