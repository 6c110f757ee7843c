//! Whether repositories hold what spokes report: a backup whose status tells of a success has a snapshot in the listing of
//! the collector, which may be another cluster. Pure.

use std::collections::HashMap;

use proto::time::{from_unix_millis, to_unix_millis};
use proto::v1::BackupResult;

use crate::Millis;
use crate::inventory::backup::Backup;
use crate::inventory::figures::Latest;
use crate::inventory::{Held, Inventory};
use crate::lock::copies::Suspect;

/// Clocks of two clusters may differ by this much, and storage may show a snapshot later.
const CLOCKS: Millis = 60 * 60_000;
/// Times in a status are of whole seconds.
const ROUNDED: Millis = 1_000;
/// A listing of so many sources may lack some.
const WHOLE: usize = 2_000;

/// The newest snapshot of each backup in a listing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Listing {
    /// When it was read, by the hub's clock.
    at: Millis,
    /// By cluster, and by "<namespace>/<name>".
    newest: HashMap<String, HashMap<String, Millis>>,
}

/// What a collector has listed, unless some of it may have been left out: that would not be missing.
#[must_use]
pub fn listing(latest: &Latest) -> Option<Listing> {
    let sources = &latest.report.sources;
    if sources.len() >= WHOLE {
        return None;
    }
    let mut newest: HashMap<String, HashMap<String, Millis>> = HashMap::new();
    for source in sources {
        let time = source.newest.as_ref().map_or(Millis::MIN, to_unix_millis);
        let of_cluster = newest.entry(source.cluster.clone()).or_default();
        let of = of_cluster.entry(source.backup.clone()).or_insert(time);
        *of = time.max(*of);
    }
    Some(Listing {
        at: latest.at,
        newest,
    })
}

/// Why the repository of a backup does not hold what its status reports; `None` when it does, or when that is not known.
#[must_use]
pub fn unproven(held: &Held, listing: &Listing) -> Option<String> {
    let backup = held.backup()?;
    let of_cluster = listing.newest.get(&*held.cluster);
    let newest = of_cluster.and_then(|of_cluster| of_cluster.get(held.local_name()));
    let newest = newest.copied();
    missing(backup, newest, listing.at)
}

/// Snapshots of a repository that clusters other than its collector report and that its listing lacks, by cluster. The
/// listing may be older by the difference of two clocks, or the snapshot forgotten: this is a suspicion and no proof.
#[must_use]
pub fn lacking(inventory: &Inventory, key: &str) -> Option<Suspect> {
    let latest = inventory.collected(key)?.latest.as_ref()?;
    let listing = listing(latest)?;
    let mut clusters = inventory
        .bindings()
        .bound(key)
        .filter(|c| ***c != *latest.cluster);
    clusters.find_map(|cluster| {
        let of_cluster = [cluster.to_string()];
        let listed = listing.newest.get(&**cluster);
        let mut backups = inventory.index().backups(&of_cluster);
        backups.find_map(|held| {
            let backup = held.backup().filter(|backup| backup.restic_id() == key)?;
            let run = backup.last_run()?;
            let (began, ended) = (run.started()?, run.finished()?);
            let newest = listed.and_then(|listed| listed.get(held.local_name()));
            let there = newest.is_some_and(|newest| *newest >= began - ROUNDED);
            let lacks = run.has_snapshot() && !there && listing.at > ended;
            lacks.then(|| Suspect {
                cluster: cluster.clone(),
                snapshot: run.snapshot(),
                by: latest.cluster.as_str().into(),
            })
        })
    })
}

/// Why a success is not proven by a listing that was read `at`, and shows `newest`. A snapshot has the time at which its
/// run began. A run without a snapshot id has left none on purpose.
fn missing(backup: &Backup, newest: Option<Millis>, at: Millis) -> Option<String> {
    let run = backup.last_run()?;
    let left = [BackupResult::Succeeded, BackupResult::PartiallyFailed].contains(&run.result());
    if !left || !run.has_snapshot() {
        return None;
    }
    let (began, ended) = (run.started()?, run.finished()?);
    // The listing is older than the snapshot.
    if at < ended.saturating_add(CLOCKS) {
        return None;
    }
    if newest.is_some_and(|newest| newest >= began.saturating_sub(CLOCKS)) {
        return None;
    }
    let holds = match newest {
        Some(newest) => format!(
            "its newest one in the repository is of {}",
            from_unix_millis(newest)
        ),
        None => "the repository holds none of it".to_owned(),
    };
    Some(format!(
        "the status reports a snapshot of {}, and {holds}",
        from_unix_millis(began)
    ))
}

#[cfg(test)]
mod tests {
    use proto::v1::{BackupRun, BackupState};

    use super::*;

    const HOUR: Millis = 3_600_000;

    fn held(state: BackupState) -> Backup {
        Backup::new(state, None, Vec::new())
    }

    fn backup(result: BackupResult, began: Millis, snapshot: &str) -> Backup {
        held(BackupState {
            last_run: Some(BackupRun {
                started: Some(from_unix_millis(began)),
                finished: Some(from_unix_millis(began + HOUR)),
                result: result.into(),
                snapshot_id: snapshot.to_owned(),
                ..BackupRun::default()
            }),
            ..BackupState::default()
        })
    }

    #[test]
    fn a_success_is_proven_by_its_snapshot_once_the_listing_is_newer() {
        let good = backup(BackupResult::Succeeded, 100 * HOUR, "abc");
        let began = 100 * HOUR;
        for (newest, at, proven) in [
            (Some(began), 110 * HOUR, true),
            // Clocks differ.
            (Some(began - HOUR / 2), 110 * HOUR, true),
            // A later snapshot proves more.
            (Some(began + 5 * HOUR), 110 * HOUR, true),
            (Some(began - 24 * HOUR), 110 * HOUR, false),
            (None, 110 * HOUR, false),
            // The listing was read before, or too soon after.
            (None, 90 * HOUR, true),
            (None, 101 * HOUR + HOUR / 2, true),
        ] {
            let reason = missing(&good, newest, at);
            assert_eq!(reason.is_none(), proven, "{newest:?} {at}: {reason:?}");
        }
        let partial = backup(BackupResult::PartiallyFailed, began, "abc");
        assert!(
            missing(&partial, None, 110 * HOUR)
                .unwrap()
                .contains("holds none of it")
        );
    }

    #[test]
    fn what_has_left_no_snapshot_needs_no_proof() {
        for none in [
            backup(BackupResult::Failed, 100 * HOUR, ""),
            // Nothing had changed.
            backup(BackupResult::Succeeded, 100 * HOUR, ""),
            held(BackupState::default()),
        ] {
            assert_eq!(missing(&none, None, 200 * HOUR), None);
        }
    }
}
