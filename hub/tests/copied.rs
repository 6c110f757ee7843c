//! Copied repositories: one restic id in two stores is found, and each store has its own row, lock and runs.

use crate::harness::{Fleet, ID, Spoke, ask, keep_last, object, policy};
use proto::time::from_unix_millis;
use proto::v1::hub_message::Body as Told;
use proto::v1::object_state::Body as Object;
use proto::v1::row::Body as Shown;
use proto::v1::spoke_message::Body;
use proto::v1::{
    BackupRun, BackupState, CollectorReport, Hello, LeaseGrant, ObjectState, RepositoryCopies,
    RepositoryState, RepositoryStatistics, StoreProbe, StoreProbeAnswer,
};

const ONE: &str = "s3:http://one/bucket";
const TWO: &str = "s3:http://two/bucket";

fn lies_at(url: &str) -> ObjectState {
    let body = RepositoryState {
        url: url.to_owned(),
        restic_id: ID.to_owned(),
        ..RepositoryState::default()
    };
    object("nas", Object::Repository(body))
}

fn snapshot(digit: char) -> String {
    digit.to_string().repeat(64)
}

/// A backup that has just made a snapshot.
fn backup(made: char) -> ObjectState {
    let now = hub::now();
    let run = BackupRun {
        started: Some(from_unix_millis(now)),
        finished: Some(from_unix_millis(now)),
        result: 1,
        snapshot_id: snapshot(made),
        ..BackupRun::default()
    };
    let body = BackupState {
        repository_namespace: "ns".to_owned(),
        repository_name: "nas".to_owned(),
        restic_id: ID.to_owned(),
        last_run: Some(run),
        ..BackupState::default()
    };
    object("orders", Object::Backup(body))
}

fn of(url: &str) -> Vec<ObjectState> {
    vec![lies_at(url), policy(keep_last(3))]
}

fn with(url: &str, made: char) -> Vec<ObjectState> {
    let mut all = of(url);
    all.push(backup(made));
    all
}

/// A bound cluster.
async fn joins(fleet: &Fleet, cluster: &str, objects: Vec<ObjectState>) -> Spoke {
    let hello = Hello {
        collects: true,
        ..Hello::default()
    };
    let mut spoke = fleet.spoke_that_says(cluster, hello).await;
    spoke.tell(objects).await;
    spoke.prove(ID, 1).await;
    fleet.until_binding(cluster, ID, "bound").await;
    spoke
}

const LOCK: &str = "cccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccc";

async fn asked(spoke: &mut Spoke) -> StoreProbe {
    spoke
        .until("a question about the store", |told| match told {
            // The end of another probe.
            Told::StoreProbe(asked) if asked.hold_ms == 0 && asked.lock.is_empty() => None,
            Told::StoreProbe(asked) => Some(asked.clone()),
            _ => None,
        })
        .await
}

async fn answer(spoke: &Spoke, asked: &StoreProbe, listed: bool) {
    assert_eq!(asked.restic_id, ID);
    let answer = StoreProbeAnswer {
        probe: asked.probe,
        restic_id: ID.to_owned(),
        listed,
        lock: if asked.hold_ms > 0 { LOCK } else { "" }.to_owned(),
        error: String::new(),
    };
    spoke.say(Body::StoreProbeAnswer(answer)).await;
}

/// The cluster is asked to hold a lock, and does.
async fn holds(spoke: &mut Spoke) {
    let asked = asked(spoke).await;
    assert!(asked.hold_ms > 0, "{asked:?}");
    answer(spoke, &asked, true).await;
}

/// The cluster is asked whether it lists the lock.
async fn lists(spoke: &mut Spoke, listed: bool) {
    let asked = asked(spoke).await;
    assert_eq!(asked.lock, LOCK);
    answer(spoke, &asked, listed).await;
}

async fn told(spoke: &mut Spoke, what: &str, is: impl Fn(&RepositoryCopies) -> bool) {
    spoke
        .until(what, |told| match told {
            Told::RepositoryCopies(copies) if is(copies) => {
                assert_eq!(copies.restic_id, ID);
                Some(())
            }
            _ => None,
        })
        .await;
}

async fn withheld(spoke: &mut Spoke, operation: &str) -> String {
    spoke.ask(operation).await;
    spoke
        .until("the reason", |told| match told {
            Told::LeaseGrant(grant) => panic!("granted: {grant:?}"),
            Told::LeaseWaiting(waiting) if waiting.operation == operation => Some(waiting.reason.clone()),
            _ => None,
        })
        .await
}

async fn granted(spoke: &mut Spoke, operation: &str) -> LeaseGrant {
    spoke
        .until("a grant", |told| match told {
            Told::LeaseGrant(grant) if grant.operation == operation => Some(grant.clone()),
            _ => None,
        })
        .await
}

fn row(fleet: &Fleet, key: &str) -> Option<(Vec<String>, String)> {
    let row = fleet
        .running
        .hub
        .read(|i| hub::rows::repository(hub::seen::Seen::whole(i), key));
    match row?.body {
        Some(Shown::Repository(row)) => Some((row.clusters, row.alarm)),
        _ => None,
    }
}

/// Clusters a and b, whose repositories were found to lie in two stores.
async fn apart(fleet: &Fleet) -> (Spoke, Spoke) {
    let mut a = joins(fleet, "a", of(ONE)).await;
    let mut b = joins(fleet, "b", of(TWO)).await;
    told(&mut a, "that it is unclear", |copies| !copies.unclear.is_empty()).await;
    let reason = withheld(&mut a, "too-early").await;
    assert!(
        reason.contains("cluster b has the repository at s3:http://two/bucket"),
        "{reason}"
    );
    holds(&mut b).await;
    lists(&mut a, false).await;
    lists(&mut b, true).await;
    let second = second();
    fleet
        .until("two rows", async |fleet: &Fleet| row(fleet, &second).is_some())
        .await;
    // Its session has ended: it asks anew for what it waits for.
    drop(b);
    let b = joins_again(fleet, "b", of(TWO)).await;
    (a, b)
}

async fn joins_again(fleet: &Fleet, cluster: &str, objects: Vec<ObjectState>) -> Spoke {
    let spoke = fleet.spoke(cluster).await;
    spoke.tell(objects).await;
    spoke
}

fn second() -> String {
    format!("{ID}@2")
}

/// Both clusters hold a lock at the same time, each for the policies of its own.
async fn each_has_its_own_runs(a: &mut Spoke, b: &mut Spoke) {
    a.ask("of-a").await;
    b.ask("of-b").await;
    for (spoke, cluster) in [(a, "a"), (b, "b")] {
        let grant = granted(spoke, &format!("of-{cluster}")).await;
        let run = grant.run.unwrap();
        assert_eq!((grant.restic_id.as_str(), run.restic_id.as_str()), (ID, ID));
        assert_eq!(run.clusters, [cluster]);
        let policies: Vec<&str> = run.policies.iter().map(|p| p.source.as_str()).collect();
        assert_eq!(policies, [format!("{cluster}/ns/p")]);
    }
}

#[tokio::test]
async fn a_copy_is_found_by_a_lock_that_it_lacks_and_each_store_has_its_own_row_and_runs() {
    let fleet = Fleet::new().await;
    let (mut a, mut b) = apart(&fleet).await;
    told(&mut a, "of the copy", |copies| {
        copies.copies.contains("b at s3:http://two/bucket")
    })
    .await;
    told(&mut b, "of the copy", |copies| {
        copies.copies.contains("a at s3:http://one/bucket")
    })
    .await;
    for (key, cluster) in [(ID.to_owned(), "a"), (second(), "b")] {
        let (clusters, alarm) = row(&fleet, &key).unwrap();
        assert_eq!(clusters, [cluster]);
        assert!(
            alarm.contains("copy of the repository with the same id"),
            "{alarm}"
        );
    }
    each_has_its_own_runs(&mut a, &mut b).await;
}

#[tokio::test]
async fn stores_that_were_told_apart_stay_so_when_the_hub_restarts() {
    let fleet = Fleet::new().await;
    let (a, b) = apart(&fleet).await;
    drop((a, b));
    let fleet = fleet.restart().await;
    let mut a = joins_again(&fleet, "a", of(ONE)).await;
    let mut b = joins_again(&fleet, "b", of(TWO)).await;
    told(&mut b, "of the copy", |copies| !copies.copies.is_empty()).await;
    each_has_its_own_runs(&mut a, &mut b).await;
}

#[tokio::test]
async fn the_alarm_ends_when_a_copy_is_not_used_any_more_and_a_cluster_that_moves_back_shares_the_lock_once_it_lists_one_of_the_others()
 {
    let fleet = Fleet::new().await;
    let (mut a, mut b) = apart(&fleet).await;
    b.tell(vec![policy(keep_last(3))]).await;
    told(&mut a, "the end", |copies| {
        copies.copies.is_empty() && copies.unclear.is_empty()
    })
    .await;
    assert_eq!(row(&fleet, ID).unwrap().1, "");
    assert_eq!(row(&fleet, &second()), None);
    // Back at the location of a.
    b.tell(of(ONE)).await;
    holds(&mut b).await;
    lists(&mut a, true).await;
    fleet
        .until("one row", async |fleet: &Fleet| {
            row(fleet, ID).is_some_and(|(clusters, alarm)| clusters == ["a", "b"] && alarm.is_empty())
        })
        .await;
    drop(b);
    let mut b = joins_again(&fleet, "b", of(ONE)).await;
    told(&mut b, "the end", |copies| {
        copies.copies.is_empty() && copies.unclear.is_empty()
    })
    .await;
    b.ask("of-both").await;
    let run = granted(&mut b, "of-both").await.run.unwrap();
    assert_eq!(run.clusters, ["a", "b"]);
}

#[tokio::test]
async fn a_location_that_changes_under_a_probe_is_asked_anew() {
    let fleet = Fleet::new().await;
    let mut a = joins(&fleet, "a", of(ONE)).await;
    let mut b = joins(&fleet, "b", of(TWO)).await;
    let first = asked(&mut b).await;
    assert!(first.hold_ms > 0, "{first:?}");
    answer(&b, &first, true).await;
    b.tell(of("s3:http://three/bucket")).await;
    let again = asked(&mut b).await;
    assert!(again.hold_ms > 0 && again.probe != first.probe, "{again:?}");
    answer(&b, &again, true).await;
    loop {
        let question = asked(&mut a).await;
        answer(&a, &question, false).await;
        if question.probe == again.probe {
            break;
        }
    }
    lists(&mut b, true).await;
    fleet
        .until("two rows", async |fleet: &Fleet| {
            row(fleet, &second()).is_some_and(|(clusters, _)| clusters == ["b"])
        })
        .await;
}

#[tokio::test]
async fn two_locations_of_one_store_are_one_once_a_lock_is_listed_at_both() {
    let fleet = Fleet::new().await;
    let mut a = joins(&fleet, "a", of(ONE)).await;
    let mut b = joins(&fleet, "b", of(TWO)).await;
    told(&mut a, "that it is unclear", |copies| !copies.unclear.is_empty()).await;
    withheld(&mut a, "waits").await;
    holds(&mut b).await;
    lists(&mut a, true).await;
    told(&mut b, "that it is clear", |copies| copies.unclear.is_empty()).await;
    assert_eq!(row(&fleet, ID).unwrap().0, ["a", "b"]);
    b.ask("now").await;
    assert_eq!(granted(&mut b, "now").await.run.unwrap().clusters, ["a", "b"]);
}

#[tokio::test]
async fn a_cluster_that_cannot_hold_a_lock_is_followed_by_another_and_retention_waits() {
    let fleet = Fleet::new().await;
    let mut a = joins(&fleet, "a", of(ONE)).await;
    let mut b = joins(&fleet, "b", of(TWO)).await;
    let held = asked(&mut b).await;
    let refused = StoreProbeAnswer {
        probe: held.probe,
        restic_id: ID.to_owned(),
        error: "the storage is read-only".to_owned(),
        ..StoreProbeAnswer::default()
    };
    b.say(Body::StoreProbeAnswer(refused)).await;
    holds(&mut a).await;
    withheld(&mut a, "waits").await;
    lists(&mut b, true).await;
    told(&mut a, "that it is clear", |copies| copies.unclear.is_empty()).await;
}

/// What the collector lists: nothing of b.
fn lists_nothing() -> Body {
    Body::CollectorReport(CollectorReport {
        restic_id: ID.to_owned(),
        epoch: 1,
        statistics: Some(RepositoryStatistics::default()),
        interval_ms: 60_000,
        ..CollectorReport::default()
    })
}

/// One location for both, as of a storage inside of each cluster; a collects, and does not list what b has made.
async fn suspected(fleet: &Fleet) -> (Spoke, Spoke) {
    let mut a = joins(fleet, "a", of(ONE)).await;
    let b = joins(fleet, "b", with(ONE, 'b')).await;
    a.until("an assignment", |told| match told {
        Told::CollectorAssignment(assignment) if assignment.cluster == "a" => Some(()),
        _ => None,
    })
    .await;
    tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    a.say(lists_nothing()).await;
    (a, b)
}

#[tokio::test]
async fn a_copy_behind_one_location_is_found_by_what_the_collector_does_not_list() {
    let fleet = Fleet::new().await;
    let (mut a, mut b) = suspected(&fleet).await;
    told(&mut a, "the suspicion", |copies| !copies.unclear.is_empty()).await;
    withheld(&mut a, "meanwhile").await;
    holds(&mut b).await;
    lists(&mut a, false).await;
    lists(&mut b, true).await;
    fleet
        .until("two rows", async |fleet: &Fleet| row(fleet, &second()).is_some())
        .await;
    drop(b);
    let mut b = joins_again(&fleet, "b", with(ONE, 'b')).await;
    each_has_its_own_runs(&mut a, &mut b).await;
}

#[tokio::test]
async fn a_snapshot_that_was_forgotten_is_no_sign_of_a_copy() {
    let fleet = Fleet::new().await;
    let (mut a, mut b) = suspected(&fleet).await;
    holds(&mut b).await;
    lists(&mut a, true).await;
    told(&mut a, "that it is clear", |copies| copies.unclear.is_empty()).await;
    a.ask("now").await;
    assert_eq!(granted(&mut a, "now").await.run.unwrap().clusters, ["a", "b"]);
    assert_eq!(row(&fleet, &second()), None);
}

#[tokio::test]
async fn a_cluster_names_no_store_itself() {
    let fleet = Fleet::new().await;
    let (mut a, _b) = apart(&fleet).await;
    let foreign = proto::v1::LeaseAsk {
        restic_id: second(),
        ..ask("foreign")
    };
    a.say(Body::LeaseAsk(foreign)).await;
    fleet.until_refused("ask", "id").await;
    a.ask("own").await;
    granted(&mut a, "own").await;
}
