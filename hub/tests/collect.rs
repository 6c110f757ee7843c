//! One cluster collects the figures of each repository, told by the hub over real sockets.

use crate::harness::{Fleet, ID, OTHER, Spoke, repository};
use proto::v1::hub_message::Body as Told;
use proto::v1::row::Body as Shown;
use proto::v1::spoke_message::Body;
use proto::v1::{
    Collection, CollectorAssignment, CollectorReport, Hello, HistoryRequest, ListRequest, RepositoryRow,
    RepositoryStatistics, SnapshotSource,
};

/// Of a spoke that collects when it is appointed.
fn collects() -> Hello {
    Hello {
        collects: true,
        ..Hello::default()
    }
}

async fn spoke(fleet: &Fleet, cluster: &str) -> Spoke {
    let spoke = fleet.spoke_that_says(cluster, collects()).await;
    assert!(spoke.welcome.appoints_collectors);
    spoke.tell(vec![repository(ID)]).await;
    spoke
}

/// Clusters a and b, both bound.
async fn both(fleet: &Fleet) -> (Spoke, Spoke) {
    let mut a = spoke(fleet, "a").await;
    fleet.until_binding("a", ID, "bound").await;
    a.prove(ID, 1).await;
    let mut b = spoke(fleet, "b").await;
    b.prove(ID, 1).await;
    fleet.until_binding("b", ID, "bound").await;
    (a, b)
}

async fn assigned(
    spoke: &mut Spoke,
    what: &str,
    is: impl Fn(&CollectorAssignment) -> bool,
) -> CollectorAssignment {
    spoke
        .until(what, |told| match told {
            Told::CollectorAssignment(assignment) if is(assignment) => Some(assignment.clone()),
            _ => None,
        })
        .await
}

fn report(epoch: u64, stored: u64) -> Body {
    let source = SnapshotSource {
        cluster: "a".to_owned(),
        backup: "ns/orders".to_owned(),
        host: "orders".to_owned(),
        snapshots: 3,
        newest: None,
    };
    Body::CollectorReport(CollectorReport {
        restic_id: ID.to_owned(),
        epoch,
        statistics: Some(RepositoryStatistics {
            stored_bytes: stored,
            snapshots: 3,
            ..RepositoryStatistics::default()
        }),
        age_ms: 0,
        interval_ms: 1_000,
        sources: vec![source],
    })
}

async fn row(fleet: &Fleet) -> RepositoryRow {
    let request = ListRequest {
        collection: Collection::Repositories.into(),
        ..ListRequest::default()
    };
    let answer = fleet.operator().await.list(request).await.unwrap().into_inner();
    match answer.rows.into_iter().next().unwrap().body {
        Some(Shown::Repository(row)) => row,
        other => panic!("{other:?}"),
    }
}

async fn until_stored(fleet: &Fleet, cluster: &str, stored: u64) {
    let what = format!("{stored} of {cluster}");
    fleet
        .until(&what, async |fleet| {
            let row = row(fleet).await;
            row.statistics_from == cluster && row.statistics.is_some_and(|s| s.stored_bytes == stored)
        })
        .await;
}

#[tokio::test]
async fn one_cluster_collects_and_only_its_reports_count() {
    let fleet = Fleet::new().await;
    let (mut a, mut b) = both(&fleet).await;
    let first = assigned(&mut a, "an assignment", |_| true).await;
    assert_eq!((first.cluster.as_str(), first.epoch), ("a", 1));
    let same = assigned(&mut b, "the same assignment", |of| !of.cluster.is_empty()).await;
    assert_eq!(
        (same.cluster.as_str(), same.epoch),
        ("a", 1),
        "it stays with who collects"
    );

    a.say(report(1, 100)).await;
    until_stored(&fleet, "a", 100).await;
    let shown = row(&fleet).await;
    assert_eq!((shown.collector.as_str(), shown.collector_epoch), ("a", 1));
    let passed_on = assigned(&mut b, "figures of the collector", |of| of.statistics.is_some()).await;
    assert_eq!(passed_on.statistics.unwrap().stored_bytes, 100);

    b.say(report(1, 200)).await;
    a.say(report(7, 300)).await;
    fleet
        .until("two refusals", async |fleet| {
            fleet.refused("report", "collector") == 2
        })
        .await;
    a.say(report(1, 101)).await;
    until_stored(&fleet, "a", 101).await;
}

#[tokio::test]
async fn a_collector_that_is_killed_is_replaced_within_three_readings_and_its_late_report_does_not_count() {
    let fleet = Fleet::new().await;
    let (a, mut b) = both(&fleet).await;
    let (mut a, begun) = (a, tokio::time::Instant::now());
    assigned(&mut a, "an assignment", |of| of.cluster == "a").await;
    a.say(report(1, 100)).await;
    until_stored(&fleet, "a", 100).await;
    let reported = tokio::time::Instant::now();
    drop(a);
    let next = assigned(&mut b, "its own assignment", |of| of.cluster == "b").await;
    assert_eq!(next.epoch, 2);
    assert!(
        begun.elapsed().as_millis() >= 3_000,
        "not for one reading that is late"
    );
    assert!(reported.elapsed().as_millis() < 4_500);
    b.say(report(2, 200)).await;
    until_stored(&fleet, "b", 200).await;

    let mut a = spoke(&fleet, "a").await;
    a.say(report(1, 100)).await;
    fleet
        .until("a refusal", async |fleet| {
            fleet.refused("report", "collector") == 1
        })
        .await;
    let told = assigned(&mut a, "who collects now", |of| of.cluster == "b").await;
    assert_eq!((told.epoch, told.statistics.unwrap().stored_bytes), (2, 200));
    until_stored(&fleet, "b", 200).await;
}

#[tokio::test]
async fn collector_figures_and_series_survive_a_restart_of_the_hub() {
    let fleet = Fleet::new().await;
    let (mut a, _b) = both(&fleet).await;
    assigned(&mut a, "an assignment", |of| of.cluster == "a").await;
    a.say(report(1, 100)).await;
    until_stored(&fleet, "a", 100).await;

    let fleet = fleet.restart().await;
    until_stored(&fleet, "a", 100).await;
    let mut a = spoke(&fleet, "a").await;
    let again = assigned(&mut a, "an assignment", |_| true).await;
    assert_eq!((again.cluster.as_str(), again.epoch), ("a", 1));
    a.say(report(1, 150)).await;
    until_stored(&fleet, "a", 150).await;
    for (days, step) in [(0, 3600), (30, 86_400)] {
        let request = HistoryRequest {
            repository: ID[..8].to_owned(),
            days,
        };
        let answer = fleet
            .operator()
            .await
            .history(request)
            .await
            .unwrap()
            .into_inner();
        assert_eq!((answer.step_seconds, answer.repository.as_str()), (step, "nas"));
        let last = answer.points.last().unwrap();
        assert_eq!((last.stored_bytes, last.snapshots), (150, 3));
        let [source] = last.sources.as_slice() else {
            panic!("{last:?}")
        };
        assert_eq!((source.cluster.as_str(), source.snapshots), ("a", 3));
    }
    let unknown = HistoryRequest {
        repository: "elsewhere".to_owned(),
        days: 0,
    };
    let refused = fleet.operator().await.history(unknown).await.unwrap_err();
    assert_eq!(refused.code(), tonic::Code::NotFound);
}

#[tokio::test]
async fn who_is_not_bound_collects_for_itself_and_an_older_spoke_is_left_alone() {
    let fleet = Fleet::new().await;
    let mut a = spoke(&fleet, "a").await;
    fleet.until_binding("a", ID, "bound").await;
    a.prove(ID, 1).await;
    assigned(&mut a, "an assignment", |of| of.cluster == "a").await;
    let mut pending = spoke(&fleet, "p").await;
    let alone = assigned(&mut pending, "an assignment", |_| true).await;
    assert_eq!((alone.cluster.as_str(), alone.epoch), ("", 0));
    pending.say(report(1, 999)).await;
    fleet.until_refused("report", "collector").await;

    let mut old = fleet.spoke("old").await;
    old.tell(vec![repository(OTHER)]).await;
    fleet.until_binding("old", OTHER, "bound").await;
    old.prove(OTHER, 1).await;
    // A message that comes after what it would have been sent.
    let mut newer = fleet.spoke_that_says("new", collects()).await;
    newer.tell(vec![repository(OTHER)]).await;
    newer.prove(OTHER, 1).await;
    assigned(&mut newer, "an assignment", |of| of.cluster == "new").await;
    let told = old.told.iter();
    assert!(
        !told
            .into_iter()
            .any(|told| matches!(told, Told::CollectorAssignment(_)))
    );
}
