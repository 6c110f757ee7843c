//! Every real service panics once, against an API server in memory, and does its work again afterwards.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::Duration;

use axum::Json;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{Method, StatusCode, Uri};
use clap::Parser as _;
use futures::FutureExt as _;
use proto::v1::LeaseAsk;
use ractor::Actor;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::Notify;

use super::*;
use crate::arguments::Arguments;
use crate::backoff::{Backoff, Jitter};
use crate::events::Severity;
use crate::kind::table::NoRestic;
use crate::root::Root;
use crate::service::{Fatal, Pace, Services, ServicesHandle};
use crate::world::Key;

#[derive(Default)]
struct Server {
    objects: BTreeMap<String, Value>,
    requests: Vec<String>,
}

/// Objects by path, and the requests so far.
#[derive(Clone, Default)]
struct Api(Arc<Mutex<Server>>);

impl Api {
    fn requests(&self, what: &str) -> usize {
        let inner = self.0.lock().unwrap();
        inner
            .requests
            .iter()
            .filter(|request| request.contains(what))
            .count()
    }
}

async fn serve(State(api): State<Api>, method: Method, uri: Uri, body: Bytes) -> (StatusCode, Json<Value>) {
    let query = uri.query().unwrap_or_default();
    let path = uri.path().to_owned();
    if query.contains("watch=true") {
        // Nothing ever changes.
        return std::future::pending().await;
    }
    let mut inner = api.0.lock().unwrap();
    inner.requests.push(format!("{method} {path}?{query}"));
    if query.contains("limit=") {
        let list = json!({ "apiVersion": "v1", "kind": "List", "metadata": { "resourceVersion": "1" }, "items": [] });
        return (StatusCode::OK, Json(list));
    }
    let mut object: Value = serde_json::from_slice(&body).unwrap_or_default();
    let path = match object["metadata"]["name"].as_str() {
        Some(name) if method == Method::POST => format!("{path}/{name}"),
        _ => path,
    };
    if method == Method::GET {
        let known = inner.objects.get(&path).cloned();
        return known.map_or_else(
            || {
                let status = json!({ "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
                                     "code": 404, "reason": "NotFound", "message": "not found" });
                (StatusCode::NOT_FOUND, Json(status))
            },
            |object| (StatusCode::OK, Json(object)),
        );
    }
    object["metadata"]["uid"] = json!("u");
    object["metadata"]["resourceVersion"] = json!(inner.requests.len().to_string());
    inner.objects.insert(path, object.clone());
    (StatusCode::OK, Json(object))
}

/// A spoke whose services can be made to panic.
struct Spoke {
    api: Api,
    context: Arc<Context>,
    health: Health,
    fatal: Fatal,
    admin: std::net::SocketAddr,
    triggers: BTreeMap<String, Arc<Notify>>,
    services: ServicesHandle,
}

const RESTART: Duration = Duration::from_secs(2);

async fn spoke(arguments: &[&str]) -> Spoke {
    rustls::crypto::ring::default_provider().install_default().ok();
    let arguments = ["fleet-spoke", "--identity", "me"].iter().chain(arguments);
    let config = Arguments::parse_from(arguments).config;
    let api = Api::default();
    let server = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", server.local_addr().unwrap());
    let app = axum::Router::new().fallback(serve).with_state(api.clone());
    tokio::spawn(async { axum::serve(server, app).await.unwrap() });
    let client = Client::try_from(kube::Config::new(url.parse().unwrap())).unwrap();

    let metrics = Arc::new(Metrics::new().unwrap());
    let restic: Arc<dyn Restic> = Arc::new(NoRestic);
    let listener = admin::listen("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = listener.local_addr().unwrap();
    let outside = crate::run::Outside {
        client: client.clone(),
        kubernetes: "v1".to_owned(),
        site: crate::site::Site::of_tests(),
        restic: restic.clone(),
        clock: Arc::new(crate::clock::SystemClock),
        random: Arc::new(crate::clock::SystemRandom),
        listener: listener.try_clone().unwrap(),
        metrics: metrics.clone(),
    };
    let (leader, election) = crate::run::elect(&config, &client);
    let (context, ends) = crate::run::context(&config, &outside, leader);
    let crate::run::Ends {
        publisher,
        notifications,
        questions,
    } = ends;
    let (fatal, health) = (Fatal::default(), Health::default());
    let (root, _) = Actor::spawn(None, Root { fatal: fatal.clone() }, ())
        .await
        .unwrap();
    let kinds = crate::run::kinds(root.get_cell(), &context, &config, &restic)
        .await
        .unwrap();
    let scripts = Arc::new(Scripts::default());
    let parts = Parts {
        client,
        context: context.clone(),
        routes: Arc::new(Routes::new(kinds, scripts.clone())),
        scripts,
        publisher,
        sender: crate::run::sender(&config, &outside.random, &context, notifications),
        election,
        questions,
        restic,
        listener,
        health: health.clone(),
        kubernetes: "v1".to_owned(),
    };
    let mut triggers = BTreeMap::new();
    let services = all(&config, parts).into_iter().map(|service| {
        let trigger = Arc::new(Notify::new());
        triggers.insert(service.name.clone(), trigger.clone());
        service.breakable(trigger)
    });
    let services: Vec<Service> = services.collect();
    let supervisor = Services {
        health: health.clone(),
        metrics,
        fatal: fatal.clone(),
        pace: Pace {
            backoff: Backoff::new(RESTART, RESTART, Jitter::None),
            ..Pace::default()
        },
    };
    let services = ServicesHandle::start(root.get_cell(), supervisor, services)
        .await
        .unwrap();
    Spoke {
        api,
        context,
        health,
        fatal,
        admin: address,
        triggers,
        services,
    }
}

async fn until(what: &str, reached: impl Fn() -> bool) {
    let waited = tokio::time::timeout(Duration::from_secs(60), async {
        while !reached() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    });
    assert!(waited.await.is_ok(), "{what}");
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

const WATCHES: [&str; 15] = [
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
    "watch/ResticBackup",
    "watch/ResticRepository",
    "watch/ResticRestore",
    "watch/Secret",
    "watch/ServiceAccount",
];

impl Spoke {
    /// All services panic at once; all of them are named, and come back.
    async fn break_all(&self, others: &[&str]) {
        until("all well at the start", || self.health.unwell().is_empty()).await;
        let mut names: Vec<&str> = others.iter().copied().chain(WATCHES).collect();
        names.sort_unstable();
        assert!(
            self.triggers.keys().eq(names.iter()),
            "{:?}",
            self.triggers.keys()
        );
        until("this replica leads", || {
            self.context.metrics.cluster.leader.get() == 1
        })
        .await;
        let lists = self.api.requests("limit=");
        for trigger in self.triggers.values() {
            trigger.notify_one();
        }
        let expected: Vec<String> = names
            .iter()
            .map(|name| format!("{name}: failed and will be started again: injected"))
            .collect();
        until("readiness names them", || self.health.unwell() == expected).await;
        until("all well again", || self.health.unwell().is_empty()).await;
        assert_eq!(
            self.api.requests("limit="),
            lists + WATCHES.len(),
            "each watch lists anew"
        );
        let metrics = self.context.metrics.render();
        for name in names {
            let line = format!("fleet_service_failures_total{{service=\"{name}\"}} 1");
            assert!(metrics.contains(&line), "{line}");
        }
    }

    /// What each service is for.
    async fn works(&self) {
        assert!(get(self.admin, "/readyz").await.ends_with("ok\n"));
        until("it leads again", || {
            self.context.metrics.cluster.leader.get() == 1
        })
        .await;
        self.context.events.publish(
            "ResticBackup",
            &Key::new("shop", "orders"),
            "u",
            Severity::Normal,
            "Reason",
            "note",
        );
        until("an Event", || self.api.requests("POST /apis/events.k8s.io") > 0).await;
        assert!(self.fatal.failed().now_or_never().is_none());
        for stage in [Stage::Intake, Stage::Edge, Stage::Election, Stage::Admin] {
            self.services.stop(stage).await;
        }
        assert!(!self.context.leader.is_leader(), "the lease was given back");
    }
}

#[tokio::test]
async fn a_panic_in_each_service_is_survived_without_a_hub() {
    let spoke = spoke(&[]).await;
    // Taken into the caches, and then the watch panics: nobody was woken for it.
    until("all well at the start", || spoke.health.unwell().is_empty()).await;
    let backup = json!({
        "apiVersion": "backup.resticbackup.io/v1alpha1", "kind": "ResticBackup",
        "metadata": { "name": "orders", "namespace": "shop", "uid": "u", "resourceVersion": "1" },
        "spec": { "schedule": "@daily", "repositoryRef": { "name": "nas" }, "source": { "pvc": { "claimName": "data" } } },
    });
    let repository = json!({
        "apiVersion": "backup.resticbackup.io/v1alpha1", "kind": "ResticRepository",
        "metadata": { "name": "nas", "namespace": "shop", "uid": "r", "resourceVersion": "1" },
        "spec": { "repositoryURL": "s3:h/b", "credentialsSecretRef": { "name": "nas" } },
    });
    spoke
        .break_all(&["admin", "election", "events", "grantor", "scripts", "terms"])
        .await;
    let world = &spoke.context.world;
    world.repositories.put(
        Key::new("shop", "nas"),
        Arc::new(serde_json::from_value(repository).unwrap()),
    );
    world.backups.put(
        Key::new("shop", "orders"),
        Arc::new(serde_json::from_value(backup).unwrap()),
    );
    // Only this watch: it finds that the list does not name the backup, and its actors look.
    spoke.triggers["watch/Job"].notify_one();
    let actor = "fleet_actors{kind=\"ResticBackup\"} 1";
    until("its actor", || spoke.context.metrics.render().contains(actor)).await;
    until("its scripts", || {
        spoke.api.requests("PATCH /api/v1/namespaces/shop/configmaps") > 0
    })
    .await;
    spoke.context.leases.ask(LeaseAsk {
        operation: "job".to_owned(),
        restic_id: "a".repeat(64),
        ..LeaseAsk::default()
    });
    until("a lease", || {
        spoke.api.requests("POST /apis/coordination.k8s.io/v1/namespaces") > 1
    })
    .await;
    spoke.works().await;
}

#[tokio::test]
async fn a_panic_in_each_service_is_survived_with_a_hub() {
    let spoke = spoke(&["--hub", "https://127.0.0.1:1", "--tls-dir", "/nowhere"]).await;
    spoke
        .break_all(&[
            "admin",
            "election",
            "events",
            "link",
            "possession",
            "scripts",
            "shared",
            "terms",
        ])
        .await;
    spoke.works().await;
}
