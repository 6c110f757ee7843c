//! Starts everything in order, and stops it in reverse.

use std::sync::Arc;

use anyhow::Context as _;
use k8s_openapi::api::core::v1::Namespace;
use kube::{Api, Client};
use ractor::{Actor, ActorCell};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tracing::info;

use crate::admin;
use crate::apply::Applier;
use crate::backup::BackupController;
use crate::config::Config;
use crate::context::{Context, Site, SystemClock, TURNS};
use crate::events::{Events, Publisher};
use crate::intake::Routes;
use crate::kind::{Controller, Driver};
use crate::leader::{Election, LeaderGate};
use crate::link::{Creations, Outbox};
use crate::maintenance::{Leases, Question, Shared};
use crate::metrics::Metrics;
use crate::operation::{Board, Operations};
use crate::repository::{RepositoryController, UnlockOwner};
use crate::restic::{self, Restic};
use crate::restore::RestoreController;
use crate::retention::{RetentionController, RetentionOwner};
use crate::root::{Kinds, Root, Tree, supervise};
use crate::scripts::Scripts;
use crate::service::{Fatal, Health, Pace, Services, ServicesHandle};
use crate::services::{self, Parts};
use crate::world::World;

/// Runs until SIGTERM or SIGINT, or until something has died that a new start of its own does not mend.
pub async fn run(config: Config) -> anyhow::Result<()> {
    config.check()?;
    let stop = CancellationToken::new();
    stop_on_signal(&stop)?;
    let fatal = Fatal::default();
    let tree = start(&config, &fatal).await?;
    let result = tokio::select! {
        () = stop.cancelled() => Ok(()),
        cause = fatal.failed() => Err(anyhow::anyhow!(cause)),
    };
    info!("stopping");
    tree.stop().await;
    result
}

async fn start(config: &Config, fatal: &Fatal) -> anyhow::Result<Tree> {
    let metrics = Arc::new(Metrics::new()?);
    let listener = admin::listen(config.admin_address)
        .with_context(|| format!("cannot serve {}", config.admin_address))?;
    let client = Client::try_default().await.context(
        "no Kubernetes API server: run inside a cluster, or set KUBECONFIG to reach one from a shell",
    )?;
    let kubernetes = client
        .apiserver_version()
        .await
        .context("the API server does not answer")?;
    let site = config.site(&cluster_uid(&client).await?);
    let restic = restic::Executor::start(config, &site.cluster, metrics.clone())
        .await
        .context("restic cannot be used")?;
    let restic: Arc<dyn Restic> = Arc::new(restic);
    info!(
        cluster = site.cluster,
        uid = site.cluster_uid,
        kubernetes = kubernetes.git_version,
        "starting"
    );
    let (leader, election) = elect(config, &client);
    let (context, publisher, questions) = context(config, &client, site, leader, &metrics);
    let root = Actor::spawn(None, Root { fatal: fatal.clone() }, ()).await;
    let (root, _) = root.map_err(|error| anyhow::anyhow!("the actors do not start: {error}"))?;
    let kinds = kinds(root.get_cell(), &context, config, &restic).await?;
    let scripts = Arc::new(Scripts::default());
    let health = Health::default();
    let parts = Parts {
        client,
        routes: Arc::new(Routes::new(kinds.clone(), scripts.clone())),
        scripts,
        context,
        publisher,
        election,
        questions,
        restic,
        listener,
        health: health.clone(),
        kubernetes: kubernetes.git_version,
    };
    let supervisor = Services {
        health,
        metrics,
        fatal: fatal.clone(),
        pace: Pace::default(),
    };
    let services = services::all(config, parts);
    let services = ServicesHandle::start(root.get_cell(), supervisor, services).await?;
    Ok(Tree {
        root,
        kinds,
        services,
    })
}

/// What all actors share, and the ends of its queues.
pub(crate) fn context(
    config: &Config,
    client: &Client,
    site: Site,
    leader: LeaderGate,
    metrics: &Arc<Metrics>,
) -> (
    Arc<Context>,
    Publisher,
    tokio::sync::mpsc::UnboundedReceiver<Question>,
) {
    let (events, publisher) = Events::new(metrics.clone());
    let (leases, questions) = Leases::new(config.hub_url().is_some());
    let world = World::default();
    let outbox = Outbox::attached(&world);
    let context = Context {
        leases,
        operations: Board::default(),
        world,
        applier: Applier::new(client.clone(), leader.clone(), metrics.clone()),
        events,
        leader,
        metrics: metrics.clone(),
        clock: Arc::new(SystemClock),
        turns: Semaphore::new(TURNS),
        outbox,
        creations: Creations::new(config.hub_url().is_some()),
        cluster: site.cluster.clone(),
        shared: Shared::new(config.hub_url(), config.standalone, &config.lease_namespace),
        site,
    };
    (Arc::new(context), publisher, questions)
}

/// One supervisor for each kind.
pub(crate) async fn kinds(
    root: ActorCell,
    context: &Arc<Context>,
    config: &Config,
    restic: &Arc<dyn Restic>,
) -> anyhow::Result<Kinds> {
    let site = &context.site;
    let repository = driver(context, RepositoryController::new(site, restic.clone(), config));
    let backup = driver(context, BackupController::new(site));
    let restore = driver(context, RestoreController::new(site, restic.clone(), config));
    let retention = driver(context, RetentionController::new(site, config));
    let operations = Arc::new(Operations::new(
        context.clone(),
        &config.lease_namespace,
        vec![
            Arc::new(RetentionOwner::new(context.clone())),
            Arc::new(UnlockOwner::new(context.clone())),
        ],
    ));
    Ok(Kinds {
        repositories: supervise(root.clone(), context, repository).await?,
        backups: supervise(root.clone(), context, backup).await?,
        restores: supervise(root.clone(), context, restore).await?,
        policies: supervise(root.clone(), context, retention).await?,
        operations: supervise(root, context, operations).await?,
    })
}

fn driver<C: Controller>(context: &Arc<Context>, controller: C) -> Arc<Driver<C>> {
    Arc::new(Driver::new(context.clone(), controller))
}

/// uid of namespace kube-system, which identifies a cluster for its whole life.
async fn cluster_uid(client: &Client) -> anyhow::Result<String> {
    let system = Api::<Namespace>::all(client.clone()).get("kube-system").await;
    let uid = system
        .context("namespace kube-system cannot be read")?
        .metadata
        .uid;
    uid.context("namespace kube-system has no uid")
}

pub(crate) fn elect(config: &Config, client: &Client) -> (LeaderGate, Option<Election>) {
    if !config.leader_elect {
        return (LeaderGate::always(), None);
    }
    let (election, gate) = Election::new(client.clone(), &config.lease_namespace, config.identity.clone());
    (gate, Some(election))
}

/// The first signal stops in order; the second ends the process at once.
fn stop_on_signal(stop: &CancellationToken) -> anyhow::Result<()> {
    let (mut term, mut int) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let stop = stop.clone();
    tokio::spawn(async move {
        for first in [true, false] {
            tokio::select! {
                _ = term.recv() => {}
                _ = int.recv() => {}
            }
            if first {
                stop.cancel();
            } else {
                std::process::exit(130);
            }
        }
    });
    Ok(())
}
