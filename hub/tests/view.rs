//! What people read of single objects, and of what happened.

use crate::harness::{Fleet, ID, Spoke, keep_last, object, policy, repository};
use proto::time::from_unix_millis;
use proto::v1::object_state::Body as Object;
use proto::v1::row::Body;
use proto::v1::{
    ActivityKind, ActivityRequest, ActivityResult, BackupResult, BackupRun, BackupState, Claim, ClaimsReport,
    Collection, Condition, CoverageRequest, Filter, GetRequest, GetResponse, HealthRequest, ListRequest,
    NamespaceClaims, ObjectState, RestoreState, Row, StorageRequest, WatchRequest, spoke_message,
    watch_event,
};
use tonic::Code;

const HOUR: i64 = 3_600_000;

/// A backup whose last run ended at a time.
fn backup(ended: i64, result: BackupResult) -> ObjectState {
    let run = BackupRun {
        started: Some(from_unix_millis(ended - HOUR)),
        finished: Some(from_unix_millis(ended)),
        result: result.into(),
        reason: "RepositoryLocked".to_owned(),
        bytes_added: 4096,
        ..BackupRun::default()
    };
    let body = BackupState {
        repository_name: "nas".to_owned(),
        restic_id: ID.to_owned(),
        schedule: "@daily".to_owned(),
        last_run: Some(run),
        ..BackupState::default()
    };
    let mut object = object("orders", Object::Backup(body));
    // The hub does not judge by it, and people want to see it.
    object.conditions.push(Condition {
        r#type: "Progressing".to_owned(),
        status: "False".to_owned(),
        ..Condition::default()
    });
    object
}

fn restore(phase: &str) -> ObjectState {
    let body = RestoreState {
        repository_name: "nas".to_owned(),
        restic_id: ID.to_owned(),
        phase: phase.to_owned(),
        started: Some(from_unix_millis(hub::now() - 2 * HOUR)),
        ..RestoreState::default()
    };
    object("back", Object::Restore(body))
}

async fn told(fleet: &Fleet, objects: Vec<ObjectState>) -> Spoke {
    let count = objects.len();
    let spoke = fleet.spoke("a").await;
    spoke.tell(objects).await;
    fleet
        .until("the inventory", async |fleet| {
            fleet.running.hub.read(|inventory| inventory.object_count()) == count
        })
        .await;
    fleet.until_binding("a", ID, "bound").await;
    spoke
}

async fn get(fleet: &Fleet, collection: Collection, key: &str) -> Result<GetResponse, tonic::Status> {
    let request = GetRequest {
        collection: collection.into(),
        key: key.to_owned(),
    };
    let answer = fleet.operator().await.get(request).await;
    answer.map(tonic::Response::into_inner)
}

async fn rows(fleet: &Fleet, collection: Collection) -> Vec<Row> {
    let request = ListRequest {
        collection: collection.into(),
        ..ListRequest::default()
    };
    fleet
        .operator()
        .await
        .list(request)
        .await
        .unwrap()
        .into_inner()
        .rows
}

#[tokio::test(flavor = "multi_thread")]
async fn one_object_comes_with_its_conditions_relations_days_and_events() {
    let fleet = Fleet::new().await;
    let ended = hub::now() - HOUR;
    let objects = vec![
        repository(ID),
        policy(keep_last(3)),
        backup(ended, BackupResult::Failed),
        restore("Failed"),
    ];
    let spoke = told(&fleet, objects).await;
    // The store is written behind: the days are there a moment later.
    fleet
        .until("the run", async |fleet| {
            let answer = get(fleet, Collection::Backups, "a/ns/orders").await.unwrap();
            answer.days.len() == 1
        })
        .await;
    let answer = get(&fleet, Collection::Backups, "a/ns/orders").await.unwrap();
    let Some(Body::Backup(row)) = answer.row.unwrap().body else {
        panic!("no backup")
    };
    assert_eq!(
        (row.state.as_str(), row.since),
        ("failed", Some(from_unix_millis(ended)))
    );
    let kinds: Vec<&str> = answer.resources[0]
        .conditions
        .iter()
        .map(|c| c.r#type.as_str())
        .collect();
    assert_eq!(kinds, ["Ready", "Progressing"]);
    let related: Vec<(&str, &str)> = answer
        .relations
        .iter()
        .map(|relation| (relation.what.as_str(), relation.key.as_str()))
        .collect();
    assert_eq!(
        related,
        [("repository", ID), ("policy", "a/ns/p"), ("cluster", "a")]
    );
    let day = answer.days[0];
    assert_eq!((day.succeeded, day.failed, day.bytes_added), (0, 1, 4096));
    let event = &answer.events[0];
    assert_eq!(
        (event.kind(), event.result()),
        (ActivityKind::Backup, ActivityResult::Failed)
    );
    assert_eq!(event.text, "RepositoryLocked");

    // The next run is one more, and one that is reported again is not.
    let objects = || {
        vec![
            repository(ID),
            policy(keep_last(3)),
            backup(ended + 1, BackupResult::Succeeded),
            restore("Failed"),
        ]
    };
    spoke.tell(objects()).await;
    spoke.tell(objects()).await;
    fleet
        .until("the second run", async |fleet| {
            let answer = get(fleet, Collection::Backups, "a/ns/orders").await.unwrap();
            answer.events.len() == 2 && answer.days.iter().map(|day| day.succeeded).sum::<u32>() == 1
        })
        .await;
    let answer = get(&fleet, Collection::Repositories, ID).await.unwrap();
    let related: Vec<&str> = answer.relations.iter().map(|r| r.key.as_str()).collect();
    assert_eq!(related, ["a/ns/p", "a/ns/orders", "a/ns/back", "a"]);
    assert_eq!(answer.related, 4);
    let missing = get(&fleet, Collection::Backups, "a/ns/none").await.unwrap_err();
    assert_eq!(missing.code(), Code::NotFound);
    let unnamed = get(&fleet, Collection::Unspecified, "a").await.unwrap_err();
    assert_eq!(unnamed.code(), Code::InvalidArgument);
}

#[tokio::test(flavor = "multi_thread")]
async fn activity_is_one_list_in_pages_of_all_kinds() {
    let fleet = Fleet::new().await;
    let objects = vec![
        repository(ID),
        backup(hub::now() - HOUR, BackupResult::Succeeded),
        restore("InProgress"),
    ];
    let _spoke = told(&fleet, objects).await;
    fleet.running.hub.store().decide(decision()).await.unwrap();
    let ask = async |kinds: Vec<ActivityKind>, limit, before: String| {
        let request = ActivityRequest {
            kinds: kinds.into_iter().map(Into::into).collect(),
            limit,
            before,
            ..ActivityRequest::default()
        };
        fleet
            .operator()
            .await
            .activity(request)
            .await
            .unwrap()
            .into_inner()
    };
    fleet
        .until("the run", async |_| {
            ask(vec![ActivityKind::Backup], 0, String::new())
                .await
                .entries
                .len()
                == 1
        })
        .await;
    let (mut found, mut before) = (Vec::new(), String::new());
    loop {
        let answer = ask(Vec::new(), 1, before).await;
        found.extend(
            answer
                .entries
                .into_iter()
                .map(|entry| (entry.kind(), entry.result())),
        );
        before = answer.next_before;
        if before.is_empty() {
            break;
        }
    }
    assert_eq!(
        found,
        [
            (ActivityKind::Decision, ActivityResult::Done),
            (ActivityKind::Backup, ActivityResult::Done),
            (ActivityKind::Restore, ActivityResult::Open),
        ]
    );
    let restores = ask(vec![ActivityKind::Restore], 0, String::new()).await;
    assert_eq!(restores.entries.len(), 1);
}

fn decision() -> hub::store::StoredDecision {
    hub::store::StoredDecision {
        at: hub::now(),
        who: "ann".to_owned(),
        what: "approve-plan".to_owned(),
        ..hub::store::StoredDecision::default()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn policies_and_restores_are_collections_that_can_be_watched() {
    let fleet = Fleet::new().await;
    let spoke = told(
        &fleet,
        vec![repository(ID), policy(keep_last(3)), restore("InProgress")],
    )
    .await;
    let state = |row: &Row| match &row.body {
        Some(Body::Policy(row)) => row.state.clone(),
        Some(Body::Restore(row)) => row.state.clone(),
        other => panic!("{other:?}"),
    };
    let states = |rows: Vec<Row>| -> Vec<String> { rows.iter().map(state).collect() };
    assert_eq!(states(rows(&fleet, Collection::Policies).await), ["never"]);
    assert_eq!(states(rows(&fleet, Collection::Restores).await), ["running"]);
    let request = WatchRequest {
        collection: Collection::Restores.into(),
        filter: None,
        ..WatchRequest::default()
    };
    let mut events = fleet.operator().await.watch(request).await.unwrap().into_inner();
    let mut shown = Vec::new();
    spoke
        .tell(vec![repository(ID), policy(keep_last(3)), restore("Completed")])
        .await;
    loop {
        match events.message().await.unwrap().unwrap().body.unwrap() {
            watch_event::Body::Upsert(row) => {
                shown.push(state(&row));
                if shown.last().is_some_and(|state| state == "done") {
                    break;
                }
            }
            _ => continue,
        }
    }
    spoke.tell(vec![repository(ID), policy(keep_last(3))]).await;
    loop {
        if let watch_event::Body::Removed(key) = events.message().await.unwrap().unwrap().body.unwrap() {
            assert_eq!(key, "a/ns/back");
            break;
        }
    }
}

/// What a watch sends up to its bookmark, in words, and where it can go on.
async fn up_to_bookmark(fleet: &Fleet, request: WatchRequest) -> (Vec<String>, WatchRequest) {
    let mut events = fleet
        .operator()
        .await
        .watch(request.clone())
        .await
        .unwrap()
        .into_inner();
    let mut words = Vec::new();
    loop {
        let event = events.message().await.unwrap().unwrap();
        match event.body.unwrap() {
            watch_event::Body::Upsert(row) => words.push(format!("upsert {}", row.key)),
            watch_event::Body::Removed(key) => words.push(format!("removed {key}")),
            watch_event::Body::Begin(_) => words.push("begin".to_owned()),
            watch_event::Body::Heartbeat(_) => {}
            watch_event::Body::Bookmark(bookmark) => {
                let on = WatchRequest {
                    after: event.revision,
                    view: bookmark.view,
                    ..request
                };
                return (words, on);
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_that_broke_goes_on_where_it_was_or_begins_anew() {
    let fleet = Fleet::new().await;
    let spoke = told(
        &fleet,
        vec![repository(ID), policy(keep_last(3)), restore("InProgress")],
    )
    .await;
    let request = WatchRequest {
        collection: Collection::Restores.into(),
        ..WatchRequest::default()
    };
    let (words, on) = up_to_bookmark(&fleet, request).await;
    assert_eq!(words, ["upsert a/ns/back"]);
    let (words, on) = up_to_bookmark(&fleet, on).await;
    assert_eq!(words, [""; 0], "nothing has changed");
    let done = vec![repository(ID), policy(keep_last(3)), restore("Completed")];
    spoke.tell(done).await;
    let is_done = async |fleet: &Fleet| {
        let rows = rows(fleet, Collection::Restores).await;
        rows.iter().all(|row| format!("{row:?}").contains("\"done\""))
    };
    fleet.until("the restore is done", is_done).await;
    let (words, _) = up_to_bookmark(&fleet, on.clone()).await;
    assert_eq!(words, ["upsert a/ns/back"]);
    spoke.tell(vec![repository(ID), policy(keep_last(3))]).await;
    let gone = async |fleet: &Fleet| rows(fleet, Collection::Restores).await.is_empty();
    fleet.until("the restore is gone", gone).await;
    let (words, _) = up_to_bookmark(&fleet, on.clone()).await;
    assert_eq!(words, ["removed a/ns/back"]);
    // Through another filter, after a revision of another start, and after one that is to come.
    let other = WatchRequest {
        filter: Some(Filter {
            text: "back".to_owned(),
            ..Filter::default()
        }),
        ..on.clone()
    };
    let old = WatchRequest {
        after: 1,
        ..on.clone()
    };
    let future = WatchRequest {
        after: u64::MAX,
        ..on
    };
    for request in [other, old, future] {
        assert_eq!(up_to_bookmark(&fleet, request).await.0, ["begin"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn claims_are_those_that_a_spoke_has_reported_last_and_unknown_before() {
    let fleet = Fleet::new().await;
    let spoke = told(&fleet, vec![repository(ID)]).await;
    let coverage = async |fleet: &Fleet| {
        let request = CoverageRequest::default();
        let answer = fleet.operator().await.coverage(request).await;
        answer.unwrap().into_inner()
    };
    let none = coverage(&fleet).await;
    assert_eq!((none.claims, none.unknown.as_slice()), (0, &["a".to_owned()][..]));
    let report = |names: &[&str]| {
        let claim = |name: &&str| Claim {
            namespace: "shop".to_owned(),
            name: (*name).to_owned(),
            created: Some(from_unix_millis(hub::now() - 48 * HOUR)),
            exclusion: "moves\u{1b}[2J".to_owned(),
            excluded_until: Some(from_unix_millis(hub::now() - HOUR)),
            ..Claim::default()
        };
        spoke_message::Body::ClaimsReport(ClaimsReport {
            namespaces: vec![NamespaceClaims {
                namespace: "shop".to_owned(),
                claims: 9,
                covered: 9 - names.len() as u64,
            }],
            open: names.iter().map(claim).collect(),
            cut: false,
        })
    };
    spoke.say(report(&["data", "logs"])).await;
    let two = async |fleet: &Fleet| coverage(fleet).await.uncovered == 2;
    fleet.until("two claims are reported", two).await;
    let answer = coverage(&fleet).await;
    assert_eq!(
        (answer.claims, answer.covered, answer.unknown_clusters),
        (9, 7, 0)
    );
    assert_eq!(answer.rows[0].key, "a/shop/data");
    assert!(!answer.rows[0].reason.contains('\u{1b}'), "{:?}", answer.rows[0]);
    spoke.say(report(&[])).await;
    let none = async |fleet: &Fleet| coverage(fleet).await.covered == 9;
    fleet.until("all are covered", none).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn storage_says_what_is_known_and_what_is_not() {
    let fleet = Fleet::new().await;
    let _spoke = told(&fleet, vec![repository(ID)]).await;
    let request = StorageRequest {
        capacity_bytes: 1 << 40,
        ..StorageRequest::default()
    };
    let answer = fleet
        .operator()
        .await
        .storage(request)
        .await
        .unwrap()
        .into_inner();
    assert_eq!(
        (answer.repositories, answer.unknown, answer.growth_unknown),
        (1, 1, 1)
    );
    assert_eq!(
        (answer.full, answer.growth_per_month, answer.rows[0].stored_bytes),
        (None, None, None)
    );
    assert!(
        answer.full_unknown.contains("no repository"),
        "{}",
        answer.full_unknown
    );
    assert!(!answer.rows[0].growth_unknown.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_hub_says_how_it_is() {
    let fleet = Fleet::new().await;
    let _spoke = told(&fleet, vec![repository(ID)]).await;
    let health = fleet
        .operator()
        .await
        .health(HealthRequest {})
        .await
        .unwrap()
        .into_inner();
    assert!(health.store_well && health.store_bytes > 0 && health.sessions == 1);
    let troubles: Vec<&str> = health
        .troubles
        .iter()
        .map(|trouble| trouble.what.as_str())
        .collect();
    assert_eq!(troubles, ["copy"], "nobody has copied its store");
    let names: Vec<&str> = health.certificates.iter().map(|end| end.name.as_str()).collect();
    assert_eq!(names, ["hub", "clients", "authority"]);
}
