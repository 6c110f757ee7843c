//! Every service panics once, against an API server in memory, and does its work again afterwards.

use std::time::Duration;

use crds::ResticBackup;
use futures::FutureExt as _;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::ConfigMap;
use proto::v1::LeaseAsk;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::*;
use crate::backoff::{Backoff, Jitter};
use crate::events::Severity;
use crate::service::Pace;
use crate::testing::ApiServer;
use crate::testing::restic::MemoryRestic;
use crate::testing::spoke::{SHOP, Spoke, backup, furnish};
use crate::world::Key;

const RESTART: Duration = Duration::from_secs(2);

async fn spoke(api: &ApiServer, arguments: &[&str]) -> Spoke {
    let pace = Pace {
        backoff: Backoff::new(RESTART, RESTART, Jitter::None),
        ..Pace::default()
    };
    Spoke::start_at_pace("me", api, &Arc::new(MemoryRestic::default()), arguments, pace).await
}

async fn until(what: &str, reached: impl Fn() -> bool) {
    let waited = tokio::time::timeout(Duration::from_secs(60), async {
        while !reached() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    });
    assert!(waited.await.is_ok(), "{what}");
}

fn requests(api: &ApiServer, verb: &str, resource: &str) -> usize {
    let log = api.requests();
    log.iter()
        .filter(|r| r.verb == verb && (resource.is_empty() || r.resource == resource))
        .count()
}

/// Answer of the admin port to a GET.
async fn get(address: std::net::SocketAddr, path: &str) -> String {
    let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

const WATCHES: [&str; 18] = [
    "Event of a CronJob",
    "Event of a Job",
    "Event of a Pod",
    "watch/ConfigMap",
    "watch/CronJob",
    "watch/GlobalRetentionPolicy",
    "watch/Job",
    "watch/Namespace",
    "watch/PersistentVolumeClaim",
    "watch/Pod",
    "watch/Pod/applications",
    "watch/ResticBackup",
    "watch/ResticRepository",
    "watch/ResticRestore",
    "watch/Role",
    "watch/RoleBinding",
    "watch/Secret",
    "watch/ServiceAccount",
];

/// All services panic at once; all of them are named, and start again.
async fn break_all(api: &ApiServer, spoke: &Spoke, others: &[&str]) {
    until("all well at the start", || spoke.health.unwell().is_empty()).await;
    let mut names: Vec<&str> = others.iter().copied().chain(WATCHES).collect();
    names.sort_unstable();
    assert!(
        spoke.triggers.keys().eq(names.iter()),
        "{:?}",
        spoke.triggers.keys()
    );
    until("this replica leads", || spoke.context.metrics.leader.get() == 1).await;
    let lists = requests(api, "list", "");
    for trigger in spoke.triggers.values() {
        trigger.notify_one();
    }
    let expected: Vec<String> = names
        .iter()
        .map(|name| format!("{name}: failed and will be started again: injected"))
        .collect();
    until("readiness names them", || spoke.health.unwell() == expected).await;
    until("all well again", || spoke.health.unwell().is_empty()).await;
    until("each watch lists anew", || {
        requests(api, "list", "") == lists + WATCHES.len()
    })
    .await;
    let metrics = spoke.context.metrics.render();
    for name in names {
        let line = format!("fleet_service_failures_total{{service=\"{name}\"}} 1");
        assert!(metrics.contains(&line), "{line}");
    }
}

/// What each service is for.
async fn works(api: &ApiServer, spoke: Spoke) {
    // Of the services that were restarted some are of use only when others are.
    let ready = async {
        // With a hub that is nowhere: ready, and not linked.
        while !get(spoke.admin, "/readyz").await.contains("\r\n\r\nok") {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let ready = tokio::time::timeout(Duration::from_secs(20), ready).await;
    assert!(ready.is_ok(), "{}", get(spoke.admin, "/readyz").await);
    until("it leads again", || spoke.context.metrics.leader.get() == 1).await;
    let key = Key::new(SHOP, "orders");
    let events = &spoke.context.events;
    events.publish("ResticBackup", &key, "u", Severity::Normal, "Reason", "note");
    until("an Event", || requests(api, "create", "events") > 0).await;
    assert!(spoke.fatal.failed().now_or_never().is_none());
    let context = spoke.context.clone();
    spoke.stop().await;
    assert!(!context.leader.is_leader(), "the lease was given back");
}

#[tokio::test]
async fn a_panic_in_each_service_is_survived_without_a_hub() {
    let api = ApiServer::new();
    furnish(&api);
    let spoke = spoke(&api, &[]).await;
    let others = [
        "admin",
        "election",
        "events",
        "grantor",
        "invitation",
        "notifier",
        "progress",
        "queue",
        "scripts",
        "terms",
    ];
    break_all(&api, &spoke, &others).await;
    until("it leads again", || spoke.context.metrics.leader.get() == 1).await;
    // Taken into the cache, and then the watch panics: its actor was not woken.
    backup(&api, "orders");
    let orders: ResticBackup = api.get(SHOP, "orders").unwrap();
    let world = &spoke.context.world;
    world.backups.put(Key::new(SHOP, "orders"), Arc::new(orders));
    spoke.triggers["watch/ResticBackup"].notify_one();
    let actor = "fleet_actors{kind=\"ResticBackup\"} 1";
    until("its actor", || spoke.context.metrics.render().contains(actor)).await;
    until("its scripts", || {
        api.all::<ConfigMap>()
            .iter()
            .any(|map| map.metadata.namespace.as_deref() == Some(SHOP))
    })
    .await;
    spoke.context.leases.ask(LeaseAsk {
        operation: "job".to_owned(),
        restic_id: "a".repeat(64),
        ..LeaseAsk::default()
    });
    until("a lease", || {
        let mut leases = api.all::<Lease>().into_iter();
        leases.any(|lease| {
            lease
                .metadata
                .name
                .is_some_and(|name| name.starts_with("fleet-lock"))
        })
    })
    .await;
    works(&api, spoke).await;
}

#[tokio::test]
async fn a_panic_in_each_service_is_survived_with_a_hub() {
    let api = ApiServer::new();
    let spoke = spoke(&api, &["--hub", "https://127.0.0.1:1", "--tls-dir", "/nowhere"]).await;
    let others = [
        "admin",
        "browse",
        "commands",
        "election",
        "events",
        "link",
        "notifier",
        "possession",
        "progress",
        "queue",
        "scripts",
        "shared",
        "terms",
    ];
    break_all(&api, &spoke, &others).await;
    works(&api, spoke).await;
}
