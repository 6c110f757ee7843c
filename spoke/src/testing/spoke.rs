//! A whole spoke, as `run` assembles it, on an API server in memory: the one harness for tests of its services and actors.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use clap::Parser as _;
use serde_json::{Value, json};
use tokio::sync::Notify;

use super::restic::MemoryRestic;
use super::{ApiServer, Longest};
use crate::admin;
use crate::arguments::Arguments;
use crate::context::Context;
use crate::metrics::Metrics;
use crate::root::Tree;
use crate::run::{Outside, assemble};
use crate::service::{Fatal, Health, Pace, Service, Services};
use crate::site::Site;

/// A spoke that runs.
pub struct Spoke {
    pub context: Arc<Context>,
    pub fatal: Fatal,
    pub health: Health,
    /// Address of /readyz and /metrics.
    pub admin: SocketAddr,
    /// Each makes the service of this name panic once.
    pub triggers: BTreeMap<String, Arc<Notify>>,
    tree: Tree,
}

impl Spoke {
    /// Starts a spoke that always leads.
    pub async fn start(api: &ApiServer, restic: &Arc<MemoryRestic>) -> Spoke {
        Spoke::start_as("", api, restic, &["--leader-elect", "false"]).await
    }

    /// Starts a spoke of a name, which its client has too, with more arguments.
    pub async fn start_as(
        name: &str,
        api: &ApiServer,
        restic: &Arc<MemoryRestic>,
        arguments: &[&str],
    ) -> Spoke {
        Spoke::start_at_pace(name, api, restic, arguments, Pace::default()).await
    }

    /// The same, with services that are started again at a pace of the test's.
    pub async fn start_at_pace(
        name: &str,
        api: &ApiServer,
        restic: &Arc<MemoryRestic>,
        arguments: &[&str],
        pace: Pace,
    ) -> Spoke {
        rustls::crypto::ring::default_provider().install_default().ok();
        let own = [
            "fleet-spoke",
            "--identity",
            name,
            "--lease-namespace",
            "kube-system",
        ];
        let config = Arguments::parse_from(own.iter().chain(arguments)).config;
        let listener = admin::listen("127.0.0.1:0".parse().unwrap()).unwrap();
        let admin = listener.local_addr().unwrap();
        let outside = Outside {
            client: api.client_of(name),
            kubernetes: "v1.34.0".to_owned(),
            site: Site {
                allowed: config.allow,
                limits: config.site("").limits,
                namespaces: config.watched(),
                ..Site::of_tests()
            },
            restic: restic.clone(),
            clock: Arc::new(api.clock()),
            random: Arc::new(Longest),
            listener,
            metrics: Arc::new(Metrics::new().unwrap()),
        };
        let supervisor = Services {
            health: Health::default(),
            metrics: outside.metrics.clone(),
            fatal: Fatal::default(),
            pace,
        };
        let (fatal, health) = (supervisor.fatal.clone(), supervisor.health.clone());
        let mut triggers = BTreeMap::new();
        let mut breakable = |service: Service| {
            let trigger = Arc::new(Notify::new());
            triggers.insert(service.name.clone(), trigger.clone());
            service.breakable(trigger)
        };
        let wrap = |services: Vec<Service>| services.into_iter().map(&mut breakable).collect();
        let (tree, context) = assemble(&config, outside, supervisor, wrap).await.unwrap();
        Spoke {
            context,
            fatal,
            health,
            admin,
            triggers,
            tree,
        }
    }

    /// Ends it in order.
    pub async fn stop(self) {
        self.tree.stop().await;
    }
}

/// Namespace of everything below.
pub const SHOP: &str = "shop";

/// Namespace shop with repository nas, its Secret, and claim data.
pub fn furnish(api: &ApiServer) {
    api.namespace(SHOP);
    api.put(&object(
        "v1",
        "Secret",
        "nas",
        json!({ "data": { "RESTIC_PASSWORD": "c2VjcmV0" } }),
    ));
    api.put(&object(
        "v1",
        "PersistentVolumeClaim",
        "data",
        json!({ "spec": { "accessModes": ["ReadWriteOnce"] }, "status": { "phase": "Bound" } }),
    ));
    api.put(&ours(
        "ResticRepository",
        "nas",
        json!({ "repositoryURL": "rest:http://nas.lan:8000/shop", "credentialsSecretRef": { "name": "nas" } }),
    ));
}

/// A ResticBackup of claim data into nas.
pub fn backup(api: &ApiServer, name: &str) {
    let spec = json!({ "repositoryRef": { "name": "nas" }, "schedule": "0 2 * * *",
        "source": { "pvc": { "claimName": "data" } } });
    api.put(&ours("ResticBackup", name, spec));
}

/// A ResticRestore of the newest snapshot of a backup into claim data.
pub fn restore(api: &ApiServer, name: &str, backup: &str) {
    let spec = json!({ "backupRef": { "name": backup }, "snapshotID": "latest",
        "target": { "pvc": { "claimName": "data" } } });
    api.put(&ours("ResticRestore", name, spec));
}

/// A GlobalRetentionPolicy for nas.
pub fn policy(api: &ApiServer, name: &str) {
    let spec = json!({ "repositoryRef": { "name": "nas" }, "schedule": "0 4 * * *", "dryRun": false,
        "policies": [{ "selector": {}, "retention": { "keepDaily": 7 } }] });
    api.put(&ours("GlobalRetentionPolicy", name, spec));
}

fn ours(kind: &str, name: &str, spec: Value) -> Value {
    object(
        "backup.resticbackup.io/v1alpha1",
        kind,
        name,
        json!({ "spec": spec }),
    )
}

fn object(version: &str, kind: &str, name: &str, mut rest: Value) -> Value {
    rest["apiVersion"] = json!(version);
    rest["kind"] = json!(kind);
    rest["metadata"] = json!({ "name": name, "namespace": SHOP });
    rest
}
