//! Figures that this cluster reads for others, and those that another one has read. Pure.

use crds::ResticRepositoryStatus;
use crds::repository::{HostStatistics, RepositoryStatistics};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use proto::time::from_unix_millis;
use proto::v1;

use super::status::{HOSTS_MAX, ratio, signed, small};
use crate::exchange::Collection;
use crate::restic::{Source, Statistics};
use crate::units;

/// What a look reads beside the repository's id and locks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Collect {
    /// Time between two readings, in milliseconds.
    pub interval: u64,
    /// The assignment under which it is reported to the hub; `None` where each cluster reads for itself.
    pub epoch: Option<u64>,
}

/// The report of a reading.
#[must_use]
pub fn report(
    restic_id: &str,
    epoch: u64,
    interval: u64,
    statistics: &Statistics,
    now: Timestamp,
) -> v1::CollectorReport {
    let hosts = statistics.hosts.iter().take(HOSTS_MAX);
    let figures = v1::RepositoryStatistics {
        as_of: Some(from_unix_millis(now.as_millisecond())),
        stored_bytes: statistics.stored,
        uncompressed_bytes: statistics.uncompressed,
        snapshots: statistics.snapshots,
        hosts: hosts
            .map(|(host, snapshots, latest)| v1::HostStatistics {
                host: host.clone(),
                snapshots: *snapshots,
                latest: latest.map(|time| from_unix_millis(time.as_millisecond())),
            })
            .collect(),
        files: statistics.files,
    };
    let source = |source: &Source| v1::SnapshotSource {
        cluster: source.cluster.clone(),
        backup: source.backup.clone(),
        host: source.host.clone(),
        snapshots: source.snapshots,
        newest: Some(from_unix_millis(source.newest.as_millisecond())),
    };
    v1::CollectorReport {
        restic_id: restic_id.to_owned(),
        epoch,
        statistics: Some(figures),
        age_ms: 0,
        interval_ms: interval,
        sources: statistics.sources.iter().map(source).collect(),
    }
}

/// Shows what another cluster has collected.
pub fn show(collection: &Collection, status: &mut ResticRepositoryStatus) {
    let Collection::Elsewhere(cluster, Some(figures)) = collection else {
        return;
    };
    let hosts = figures.hosts.iter().map(|host| HostStatistics {
        host: host.host.clone(),
        snapshot_count: small(host.snapshots),
        latest_snapshot: host.latest.as_ref().and_then(time),
    });
    status.statistics = Some(RepositoryStatistics {
        total_size: Some(units::bytes(figures.stored_bytes)),
        total_size_bytes: Some(signed(figures.stored_bytes)),
        uncompressed_size_bytes: Some(signed(figures.uncompressed_bytes)),
        compression_ratio: ratio(figures.stored_bytes, figures.uncompressed_bytes),
        total_file_count: figures.files.map(signed),
        snapshot_count: Some(small(figures.snapshots)),
        hosts: hosts.collect(),
        as_of: figures.as_of.as_ref().and_then(time),
        collected_by: Some(cluster.clone()),
    });
}

fn time(time: &prost_types::Timestamp) -> Option<Time> {
    let millis = proto::time::to_unix_millis(time);
    let seconds = Timestamp::from_second(millis.div_euclid(1000)).ok()?;
    Some(Time(seconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn read() -> Statistics {
        Statistics {
            stored: 2 << 20,
            uncompressed: 3 << 20,
            snapshots: 5,
            files: Some(12),
            hosts: vec![("orders".to_owned(), 5, Some(at(7)))],
            sources: vec![Source {
                cluster: "a".to_owned(),
                backup: "shop/orders".to_owned(),
                host: "orders".to_owned(),
                snapshots: 5,
                newest: at(7),
            }],
        }
    }

    #[test]
    fn what_one_cluster_reads_another_shows_and_names_it() {
        let report = report("id", 4, 60_000, &read(), at(10));
        assert_eq!((report.epoch, report.interval_ms), (4, 60_000));
        assert_eq!(report.sources[0].backup, "shop/orders");
        let mut status = ResticRepositoryStatus::default();
        let collection = Collection::Elsewhere("a".to_owned(), report.statistics);
        show(&collection, &mut status);
        let shown = status.statistics.clone().unwrap();
        assert_eq!(
            (
                shown.total_size.as_deref(),
                shown.snapshot_count,
                shown.total_file_count
            ),
            (Some("2.0 MiB"), Some(5), Some(12))
        );
        assert_eq!(shown.collected_by.as_deref(), Some("a"));
        assert_eq!(shown.as_of, Some(Time(at(10))));
        assert_eq!(shown.hosts[0].latest_snapshot, Some(Time(at(7))));
        for nothing in [
            Collection::Own,
            Collection::Appointed(1),
            Collection::Awaited,
            Collection::Elsewhere("b".to_owned(), None),
        ] {
            let before = status.clone();
            show(&nothing, &mut status);
            assert_eq!(status, before, "{nothing:?}");
        }
    }
}
