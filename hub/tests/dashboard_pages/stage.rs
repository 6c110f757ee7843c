//! A fleet with something of everything, whose clusters answer: what the dashboard is looked at with.

use std::time::Duration;

use hub::store::collect::{DAY, HOUR};
use prost::Message as _;
use proto::plan::plan_hash;
use proto::time::from_unix_millis;
use proto::v1::hub_message::Body as Told;
use proto::v1::object_state::Body as Object;
use proto::v1::question::What;
use proto::v1::spoke_message::Body;
use proto::v1::{
    AnswerPart, BackupResult, BackupRun, BackupState, Browse, BrowsePart, Command, CommandReport,
    CommandState, Condition, FileRow, Heartbeat, Hello, HostStatistics, LeaseAsk, LeaseRelease, LeaseRenew,
    ObjectState, OperationKind, OperationOutcome, PlanPart, PolicyState, RepositoryState,
    RepositoryStatistics, ResticLock, RestoreState, RetentionPolicySpec, RunProgress, SnapshotRow,
};

use super::claims;
use crate::harness::{Fleet, ID, OTHER, Spoke, keep_last};

const MINUTE: i64 = 60_000;

pub fn ago(millis: i64) -> Option<prost_types::Timestamp> {
    Some(from_unix_millis(hub::now() - millis))
}

fn condition(kind: &str, status: &str, reason: &str, message: &str) -> Condition {
    Condition {
        r#type: kind.to_owned(),
        status: status.to_owned(),
        reason: reason.to_owned(),
        message: message.to_owned(),
        last_transition: ago(HOUR),
    }
}

fn object(namespace: &str, name: &str, conditions: Vec<Condition>, body: Object) -> ObjectState {
    ObjectState {
        uid: format!("{namespace}-{name}"),
        namespace: namespace.to_owned(),
        name: name.to_owned(),
        generation: 1,
        created: ago(40 * DAY),
        conditions,
        body: Some(body),
        ..ObjectState::default()
    }
}

fn ready() -> Vec<Condition> {
    vec![condition("Ready", "True", "Ready", "")]
}

fn repository(namespace: &str, name: &str, id: &str, url: &str) -> ObjectState {
    let statistics = RepositoryStatistics {
        as_of: ago(3 * HOUR),
        stored_bytes: 1_930_000_000_000,
        uncompressed_bytes: 3_410_000_000_000,
        snapshots: 1_204,
        files: Some(48_201_334),
        hosts: vec![
            HostStatistics {
                host: "orders".to_owned(),
                snapshots: 611,
                latest: ago(2 * HOUR),
            },
            HostStatistics {
                host: "files".to_owned(),
                snapshots: 593,
                latest: ago(31 * HOUR),
            },
        ],
    };
    let lock = ResticLock {
        id: "4".repeat(64),
        user: "fleet:prod-eu:9f21:0".to_owned(),
        host: "resticbackup-orders-29".to_owned(),
        created: ago(4 * MINUTE),
        unchanged_since: ago(2 * MINUTE),
        kept_because: "its owner is a backup that runs".to_owned(),
        ..ResticLock::default()
    };
    let state = RepositoryState {
        url: url.to_owned(),
        restic_id: id.to_owned(),
        statistics: Some(statistics),
        locks: vec![lock],
        last_check: ago(2 * DAY),
        last_check_result: "Passed".to_owned(),
        ..RepositoryState::default()
    };
    object(namespace, name, ready(), Object::Repository(state))
}

struct Sketch<'a> {
    namespace: &'a str,
    name: &'a str,
    repository: (&'a str, &'a str, &'a str),
}

impl Sketch<'_> {
    fn backup(&self, change: impl FnOnce(&mut BackupState)) -> ObjectState {
        let (namespace, name, id) = self.repository;
        let run = BackupRun {
            started: ago(2 * HOUR + 4 * MINUTE),
            finished: ago(2 * HOUR),
            result: BackupResult::Succeeded.into(),
            snapshot_id: format!("{:0<64}", hex::encode(self.name)),
            bytes_added: 182_000_000,
            bytes_processed: 41_300_000_000,
            files_processed: 90_211,
            ..BackupRun::default()
        };
        let mut state = BackupState {
            repository_namespace: namespace.to_owned(),
            repository_name: name.to_owned(),
            restic_id: id.to_owned(),
            schedule: "0 */6 * * *".to_owned(),
            timezone: "UTC".to_owned(),
            last_success: run.finished,
            last_run: Some(run),
            next_run: ago(-3 * HOUR),
            runs_total: 412,
            runs_succeeded: 409,
            runs_failed: 3,
            source: "pvc/data".to_owned(),
            ..BackupState::default()
        };
        change(&mut state);
        object(self.namespace, self.name, ready(), Object::Backup(state))
    }
}

fn sketch<'a>(namespace: &'a str, name: &'a str) -> Sketch<'a> {
    Sketch {
        namespace,
        name,
        repository: ("shop", "nas-main", ID),
    }
}

fn fresh(state: &mut BackupState) {
    if let Some(run) = &mut state.last_run {
        run.finished = ago(8 * MINUTE);
        state.last_success = run.finished;
    }
}

fn failed(state: &mut BackupState) {
    fresh(state);
    let run = state.last_run.get_or_insert_default();
    run.result = BackupResult::Failed.into();
    run.reason = "SourceUnreadable".to_owned();
    run.message = "4 files could not be read: permission denied on /backup/uploads/2026/11".to_owned();
    run.snapshot_id.clear();
    state.last_success = ago(2 * DAY);
}

fn prod_eu() -> Vec<ObjectState> {
    let progress = RunProgress {
        job: "resticbackup-media-29".to_owned(),
        as_of: ago(5_000),
        percent: Some(61),
        bytes_done: Some(25_200_000_000),
        bytes_total: Some(41_300_000_000),
        files_done: Some(51_002),
        files_total: Some(90_211),
        estimated_completion: ago(-7 * MINUTE),
        ..RunProgress::default()
    };
    let policy = PolicyState {
        repository_namespace: "shop".to_owned(),
        repository_name: "nas-main".to_owned(),
        restic_id: ID.to_owned(),
        spec: Some(RetentionPolicySpec {
            rules: vec![keep_last(7)],
            ..RetentionPolicySpec::default()
        }),
        schedule: "0 3 * * *".to_owned(),
        last_run: ago(14 * HOUR),
        last_result: "ApprovalRequired".to_owned(),
        ..PolicyState::default()
    };
    let waits = condition(
        "ApprovalRequired",
        "True",
        "TooMuch",
        "the plan would remove 64 of 156 snapshots (41%), above spec.guard.maxRemovedPercent (30%)",
    );
    let restore = RestoreState {
        repository_namespace: "shop".to_owned(),
        repository_name: "nas-main".to_owned(),
        restic_id: ID.to_owned(),
        phase: "Completed".to_owned(),
        started: ago(5 * HOUR),
        finished: ago(5 * HOUR - 3 * MINUTE),
        files: 1_202,
        bytes: 830_000_000,
        target: "pvc/orders-check".to_owned(),
        ..RestoreState::default()
    };
    let mut unready = ready();
    unready.push(waits);
    vec![
        repository("shop", "nas-main", ID, "s3:https://nas.example.org/backups"),
        sketch("shop", "orders").backup(fresh),
        sketch("shop", "uploads").backup(failed),
        sketch("shop", "media").backup(|state| {
            fresh(state);
            state.running = true;
            state.under_way = true;
            state.progress = Some(progress);
        }),
        sketch("shop", "cache").backup(|state| state.suspended = true),
        sketch("billing", "ledger").backup(fresh),
        sketch("billing", "archive-of-invoices-since-2009").backup(|state| {
            state.last_success = ago(31 * HOUR);
            state.last_run.get_or_insert_default().finished = ago(31 * HOUR);
        }),
        object("shop", "nightly", unready, Object::Policy(policy)),
        object("shop", "orders-check", ready(), Object::Restore(restore)),
    ]
}

fn prod_us() -> Vec<ObjectState> {
    let message = "cannot connect to the storage backend: dial tcp 10.2.0.9:443: connection refused";
    let mut offsite = repository("crm", "offsite", OTHER, "rest:https://offsite.example.org/crm");
    offsite.conditions = vec![condition("Ready", "False", "BackendUnreachable", message)];
    let of = |name| Sketch {
        namespace: "crm",
        name,
        repository: ("crm", "nas-main", ID),
    };
    let mut never = of("exports").backup(|state| {
        state.last_run = None;
        state.last_success = None;
        state.runs_total = 0;
        state.runs_succeeded = 0;
        state.runs_failed = 0;
    });
    never.created = ago(MINUTE);
    vec![
        repository("crm", "nas-main", ID, "s3:https://nas.example.org/backups"),
        offsite,
        of("customers").backup(fresh),
        of("tickets").backup(|state| {
            fresh(state);
            state.last_run.get_or_insert_default().result = BackupResult::PartiallyFailed.into();
        }),
        never,
    ]
}

fn edge() -> Vec<ObjectState> {
    let of = |name| Sketch {
        namespace: "edge",
        name,
        repository: ("edge", "local", ""),
    };
    vec![of("sensors").backup(fresh), of("config").backup(fresh)]
}

/// The clusters; they answer until the fleet is dropped.
pub async fn set(fleet: &Fleet) {
    let hello = |uid: &str| Hello {
        version: "0.1.0".to_owned(),
        kubernetes_version: "v1.34.4".to_owned(),
        cluster_uid: uid.to_owned(),
        collects: true,
        ..Hello::default()
    };
    let mut eu = fleet.spoke_that_says("prod-eu", hello("6d0c")).await;
    let prod_eu = prod_eu();
    eu.tell(prod_eu.clone()).await;
    fleet.until_binding("prod-eu", ID, "bound").await;
    eu.prove(ID, 1).await;
    // Claims outside of its namespace are not known.
    let narrow = Hello {
        namespaces: vec!["crm".to_owned()],
        ..hello("b71f")
    };
    let mut us = fleet.spoke_that_says("prod-us", narrow).await;
    let prod_us = prod_us();
    us.tell(prod_us.clone()).await;
    us.prove(ID, 1).await;
    fleet.until_binding("prod-us", ID, "bound").await;
    let gone = fleet.spoke_that_says("edge-7", hello("03aa")).await;
    gone.tell(edge()).await;
    fleet
        .until("the silent cluster", async |fleet| {
            fleet
                .running
                .hub
                .read(|inventory| inventory.index().backup_count() == 11)
        })
        .await;
    drop(gone);
    claims::report(&eu, &us).await;
    history(fleet).await;
    plan(&mut eu).await;
    let held = hold(&eu, &mut us).await;
    tokio::spawn(answers(eu, 0, heartbeat(&prod_eu)));
    tokio::spawn(answers(us, held, heartbeat(&prod_us)));
}

/// Sixty days of figures. They come from the past, so they are put into the store beside the hub.
async fn history(fleet: &Fleet) {
    let file = format!("sqlite:{}", fleet.dir.path().join("fleet.db").display());
    let store = sqlx::SqlitePool::connect(&file).await.unwrap();
    for day in 0..60_i64 {
        let at = hub::now() - day * DAY;
        let stored = 1_930_000_000_000 - day * 8_900_000_000;
        let query = "INSERT OR REPLACE INTO point VALUES (?, ?, ?, ?, ?, ?, ?, ?, '[]')";
        let query = sqlx::query(query)
            .bind(ID)
            .bind(86_400)
            .bind(at / DAY * DAY)
            .bind(at)
            .bind(stored);
        let query = query
            .bind(stored * 17 / 10)
            .bind(1_204 - day % 14 * 9)
            .bind(48_201_334);
        query.execute(&store).await.unwrap();
    }
}

fn ask(operation: &str, subject: &str) -> LeaseAsk {
    LeaseAsk {
        operation: operation.to_owned(),
        restic_id: ID.to_owned(),
        subject: subject.to_owned(),
        policy: "shop-nightly".to_owned(),
        kind: OperationKind::Retention.into(),
        ..LeaseAsk::default()
    }
}

/// A run that waits for approval.
async fn plan(eu: &mut Spoke) {
    eu.say(Body::LeaseAsk(ask("run-1", "retention shop/nightly")))
        .await;
    let token = eu.granted().await.token;
    let ids: Vec<String> = (0..64).map(|n: u32| format!("{n:02x}").repeat(32)).collect();
    let hash = plan_hash(ID, ids.iter().map(String::as_str));
    let names = ["shop/orders", "billing/ledger"];
    let tags =
        |n: usize| serde_json::json!(["fleet.cluster=prod-eu", format!("fleet.backup={}", names[n % 2])]);
    let remove: Vec<serde_json::Value> = ids
        .iter()
        .enumerate()
        .map(|(n, id)| {
            let day = n % 28 + 1;
            serde_json::json!({ "id": id, "time": format!("2026-09-{day:02}T02:00:11Z"), "host": "orders", "paths": ["/backup"],
                "tags": tags(n), "by": ["prod-eu/shop/nightly"] })
        })
        .collect();
    let group = |n: usize, keep: usize| {
        serde_json::json!({ "host": "orders", "paths": ["/backup"], "tags": tags(n), "keep": keep, "remove": 32,
            "oldest": "2026-09-01T02:00:11Z" })
    };
    let document = serde_json::json!({ "plan": {
        "resticId": ID, "hash": hash, "snapshots": 156, "remove": remove,
        "groups": [group(0, 60), group(1, 32)],
        "guards": [{ "reason": "TooMuch", "message": "the plan would remove 64 of 156 snapshots (41%), above spec.guard.maxRemovedPercent (30%)" }],
        "policies": [{ "source": "prod-eu/shop/nightly", "generation": 3 }],
        "keepers": [{ "source": "prod-us/crm/monthly", "snapshots": 12 }],
        "outOfReach": [{ "cluster": "edge-7", "snapshots": 31 }],
    } });
    let data = document.to_string().into_bytes();
    let part = PlanPart {
        operation: "run-1".to_owned(),
        restic_id: ID.to_owned(),
        token,
        offset: 0,
        data: data.clone(),
    };
    eu.say(Body::PlanPart(part)).await;
    let release = LeaseRelease {
        operation: "run-1".to_owned(),
        restic_id: ID.to_owned(),
        token,
        outcome: Some(OperationOutcome {
            result: "ApprovalRequired".to_owned(),
            reason: "TooMuch".to_owned(),
            message: "plan would remove 64 of 156 snapshots (41%), above spec.guard.maxRemovedPercent (30%)"
                .to_owned(),
            plan: hash,
            snapshots: 156,
            planned: 64,
            policies: vec!["prod-eu/shop/nightly@3".to_owned()],
            ..OperationOutcome::default()
        }),
        plan_bytes: data.len() as u64,
        policy: "shop-nightly".to_owned(),
        ..LeaseRelease::default()
    };
    eu.say(Body::LeaseRelease(release)).await;
    eu.until("the release", |told| match told {
        Told::LeaseReleased(released) if released.token == token => Some(()),
        _ => None,
    })
    .await;
}

/// One holds the lock, and another waits.
async fn hold(eu: &Spoke, us: &mut Spoke) -> u64 {
    let check = LeaseAsk {
        kind: OperationKind::Check.into(),
        policy: String::new(),
        ..ask("run-2", "check crm/nas-main")
    };
    us.say(Body::LeaseAsk(check)).await;
    let token = us.granted().await.token;
    eu.say(Body::LeaseAsk(ask("run-3", "retention shop/nightly")))
        .await;
    token
}

/// What a spoke with these objects sends to show that it is there.
fn heartbeat(objects: &[ObjectState]) -> Heartbeat {
    let mut digest = proto::digest::Digest::default();
    for object in objects {
        digest.add(&proto::digest::object_hash(&object.uid, &object.encode_to_vec()));
    }
    Heartbeat {
        digest: digest.to_bytes(),
        objects: objects.len() as u64,
    }
}

/// Carries commands out, answers questions, and renews the lease that it holds, as a spoke does.
async fn answers(mut spoke: Spoke, token: u64, heartbeat: Heartbeat) {
    let mut beat = tokio::time::interval(Duration::from_millis(500));
    let mut seq = 0;
    loop {
        let message = tokio::select! {
            message = spoke.next() => message,
            _ = beat.tick() => {
                seq += 1;
                if seq % 10 == 0 {
                    spoke.say(Body::Heartbeat(heartbeat.clone())).await;
                }
                let renew = LeaseRenew {
                    operation: "run-2".to_owned(),
                    restic_id: ID.to_owned(),
                    token,
                    seq,
                    ..LeaseRenew::default()
                };
                if token > 0 {
                    spoke.say(Body::LeaseRenew(renew)).await;
                }
                continue;
            }
        };
        let Ok(Some(message)) = message else { return };
        match message.body {
            Some(Told::Browse(browse)) => read(&spoke, browse).await,
            Some(Told::Command(command)) => carry_out(&spoke, command).await,
            _ => {}
        }
    }
}

async fn carry_out(spoke: &Spoke, command: Command) {
    let steps = [
        (CommandState::Accepted, "waits for the pod to be scheduled"),
        (CommandState::Running, "restic is at work"),
        (CommandState::Done, "the run succeeded: 182 MB added"),
    ];
    for (state, text) in steps {
        let report = CommandReport {
            id: command.id.clone(),
            state: state.into(),
            text: text.to_owned(),
            object: "Job shop/resticbackup-orders-0f".to_owned(),
        };
        spoke.say(Body::CommandReport(report)).await;
        tokio::time::sleep(Duration::from_millis(400)).await;
    }
}

fn snapshot(n: i64) -> SnapshotRow {
    SnapshotRow {
        id: format!("{:02x}", 0xa0 + n).repeat(32),
        time: ago(n * 6 * HOUR + 2 * HOUR),
        host: "orders".to_owned(),
        tags: vec![
            "fleet.cluster=prod-eu".to_owned(),
            "fleet.backup=shop/orders".to_owned(),
        ],
        paths: vec!["/backup".to_owned()],
        bytes: 41_300_000_000,
        files: 90_211,
    }
}

fn file(path: &str, sort: &str, size: u64) -> FileRow {
    FileRow {
        path: path.to_owned(),
        r#type: sort.to_owned(),
        size,
        modified: ago(9 * HOUR),
    }
}

async fn read(spoke: &Spoke, browse: Browse) {
    let mut parts = vec![AnswerPart {
        snapshots: vec![snapshot(0)],
        ..AnswerPart::default()
    }];
    match browse.question.and_then(|question| question.what) {
        Some(What::ListSnapshots(_)) => parts[0].snapshots = (0..28).map(snapshot).collect(),
        Some(What::ListFolder(of)) if of.path == "/" => parts[0].files = vec![file("/backup", "dir", 0)],
        Some(What::ListFolder(of)) => {
            let at = |name: &str| format!("{}/{name}", of.path);
            parts[0].files = vec![
                file(&at("invoices"), "dir", 0),
                file(&at("uploads"), "dir", 0),
                file(&at("orders.db"), "file", 734_003_200),
                file(&at("orders.db-wal"), "file", 4_194_304),
                file(&at("readme.txt"), "file", 17),
                file(&at("latest"), "symlink", 0),
            ];
        }
        Some(What::FindFiles(_)) => {
            parts[0].files = vec![
                file("/backup/orders.db", "file", 734_003_200),
                file("/backup/old/orders.db", "file", 1_048_576),
            ];
        }
        Some(What::FetchFile(_)) => parts.push(AnswerPart {
            data: b"what was in there".to_vec(),
            ..AnswerPart::default()
        }),
        None => {}
    }
    let last = parts.len() - 1;
    for (n, part) in parts.into_iter().enumerate() {
        let part = BrowsePart {
            id: browse.id,
            part: Some(part),
            last: n == last,
            ..BrowsePart::default()
        };
        spoke.say(Body::BrowsePart(part)).await;
    }
}
