//! Starts everything in order, and stops it in reverse.

use std::net::TcpListener;
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
use crate::clock::{Clock, Random, SystemClock, SystemRandom};
use crate::config::{Config, HubAddress};
use crate::context::{Context, TURNS};
use crate::credentials::NotificationSecrets;
use crate::enrol;
use crate::events::{Events, Publisher};
use crate::exchange::{
    Board, Browsing, CertificateName, Collectors, Commands, Copies, Coverage, Creations, Leases, Outbox,
    Question,
};
use crate::intake::Routes;
use crate::kind::Kinds;
use crate::kind::{Controller, Driver};
use crate::leader::{Election, LeaderGate};
use crate::metrics::{Metrics, OPERATIONS, Sample};
use crate::notify::{self, Addresses, Notifier, Queue, Sender};
use crate::operation::Operations;
use crate::repository::{CheckOwner, KeyOwner, RepositoryController, UnlockOwner};
use crate::restic::{self, Restic};
use crate::restore::RestoreController;
use crate::retention::{BehalfOwner, RetentionController, RetentionOwner};
use crate::root::{Root, Tree, supervise};
use crate::scripts::Scripts;
use crate::service::{Fatal, Health, Pace, Service, Services, ServicesHandle};
use crate::services::{self, Parts};
use crate::sharing::Shared;
use crate::site::Site;
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
    let config = &joined(config, &client).await?;
    let site = config.site(&cluster_uid(&client).await?);
    let restic = restic::Executor::start(config, &site.cluster, metrics.clone())
        .await
        .context("restic cannot be used")?;
    info!(
        cluster = site.cluster,
        uid = site.cluster_uid,
        kubernetes = kubernetes.git_version,
        "starting"
    );
    let outside = Outside {
        client,
        kubernetes: kubernetes.git_version,
        site,
        restic: Arc::new(restic),
        clock: Arc::new(SystemClock),
        random: Arc::new(SystemRandom),
        listener,
        metrics,
    };
    let supervisor = Services {
        health: Health::default(),
        metrics: outside.metrics.clone(),
        fatal: fatal.clone(),
        pace: Pace::default(),
    };
    let (tree, _) = assemble(config, outside, supervisor, |services| services).await?;
    Ok(tree)
}

/// What a spoke uses outside of its own memory. Tests give it others.
pub(crate) struct Outside {
    pub client: Client,
    /// Version of the API server.
    pub kubernetes: String,
    pub site: Site,
    pub restic: Arc<dyn Restic>,
    pub clock: Arc<dyn Clock>,
    pub random: Arc<dyn Random>,
    pub listener: TcpListener,
    pub metrics: Arc<Metrics>,
}

/// Starts every actor and every service. `wrap` is given all services before they start.
pub(crate) async fn assemble(
    config: &Config,
    outside: Outside,
    supervisor: Services,
    wrap: impl FnOnce(Vec<Service>) -> Vec<Service>,
) -> anyhow::Result<(Tree, Arc<Context>)> {
    let (leader, election) = elect(config, &outside.client);
    let (context, ends) = context(config, &outside, leader);
    let Ends {
        publisher,
        notifications,
        questions,
    } = ends;
    let fatal = supervisor.fatal.clone();
    let root = Actor::spawn(None, Root { fatal }, ()).await;
    let (root, _) = root.map_err(|error| anyhow::anyhow!("the actors do not start: {error}"))?;
    let kinds = kinds(root.get_cell(), &context, config, &outside.restic).await?;
    let scripts = Arc::new(Scripts::default());
    let parts = Parts {
        client: outside.client,
        routes: Arc::new(Routes::new(
            kinds.clone(),
            scripts.clone(),
            context.places.clone(),
        )),
        scripts,
        context: context.clone(),
        publisher,
        sender: sender(config, &outside.random, &context, notifications),
        election,
        questions,
        restic: outside.restic,
        listener: outside.listener,
        health: supervisor.health.clone(),
        kubernetes: outside.kubernetes,
        fatal: supervisor.fatal.clone(),
    };
    let services = wrap(services::all(config, parts));
    let services = ServicesHandle::start(root.get_cell(), supervisor, services).await?;
    let tree = Tree {
        root,
        kinds,
        services,
    };
    Ok((tree, context))
}

/// The ends of the queues that all actors share.
struct Ends {
    publisher: Publisher,
    notifications: Queue,
    questions: tokio::sync::mpsc::UnboundedReceiver<Question>,
}

/// What all actors share, and the ends of its queues.
fn context(config: &Config, outside: &Outside, leader: LeaderGate) -> (Arc<Context>, Ends) {
    let (metrics, site) = (&outside.metrics, outside.site.clone());
    let (events, publisher) = Events::new(metrics.clone());
    let (notifier, notifications) = Notifier::new(metrics.clone());
    let (leases, questions) = Leases::new(config.hub_url().is_some());
    let world = World::default();
    let outbox = Outbox::attached(&world);
    let coverage = Coverage::attached(&world);
    let context = Context {
        leases,
        operations: Board::default(),
        world,
        applier: Applier::new(outside.client.clone(), leader.clone(), metrics.clone()),
        events,
        notifier,
        leader,
        metrics: metrics.clone(),
        clock: outside.clock.clone(),
        random: outside.random.clone(),
        turns: Semaphore::new(TURNS),
        outbox,
        coverage,
        commands: Commands::default(),
        browsing: Browsing::default(),
        creations: Creations::new(config.hub_url().is_some()),
        copies: Copies::default(),
        collectors: Collectors::new(config.hub_url().is_some(), outside.clock.since_boot()),
        places: Arc::default(),
        certificate: CertificateName::new(&site.cluster, config.hub_url().is_some()),
        cluster: site.cluster.clone(),
        shared: Shared::new(config.hub_url(), config.standalone, &config.lease_namespace),
        site,
    };
    let ends = Ends {
        publisher,
        notifications,
        questions,
    };
    let context = Arc::new(context);
    context.metrics.info(&context.cluster);
    let configured = config.hub_url().is_some();
    context.metrics.link_configured.set(i64::from(configured));
    // Weak: the context owns the metrics.
    let board = Arc::downgrade(&context);
    context.metrics.resources.pull(move || {
        let counts = board.upgrade().map(|context| context.operations.counts());
        let counts = counts.into_iter().flatten();
        counts
            .map(|((type_, state), count)| {
                Sample::labelled(&OPERATIONS, vec![type_, state.to_owned()], count)
            })
            .collect()
    });
    (context, ends)
}

/// The sender of notifications.
fn sender(config: &Config, random: &Arc<dyn Random>, context: &Arc<Context>, queue: Queue) -> Arc<Sender> {
    let parts = notify::Parts {
        secrets: Arc::new(NotificationSecrets(context.clone())),
        addresses: Addresses {
            loopback: config.notify_loopback,
        },
        events: context.events.clone(),
        metrics: context.metrics.clone(),
        clock: context.clock.clone(),
        random: random.clone(),
        pace: notify::Pace::default(),
    };
    Arc::new(Sender::new(queue, parts))
}

/// One supervisor for each kind.
async fn kinds(
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
    let operations = Operations::new(
        context.clone(),
        &config.lease_namespace,
        vec![
            Arc::new(RetentionOwner::new(context.clone())),
            Arc::new(UnlockOwner::new(context.clone())),
            Arc::new(CheckOwner::new(context.clone())),
            Arc::new(KeyOwner::new(context.clone())),
            Arc::new(BehalfOwner::new(context.clone())),
        ],
    );
    let operations = operations.with_lock_pause(config.unlock_after_end() + config.lock_interval);
    Ok(Kinds {
        repositories: supervise(root.clone(), context, repository).await?,
        backups: supervise(root.clone(), context, backup).await?,
        restores: supervise(root.clone(), context, restore).await?,
        policies: supervise(root.clone(), context, retention).await?,
        operations: supervise(root, context, Arc::new(operations)).await?,
    })
}

fn driver<C: Controller>(context: &Arc<Context>, controller: C) -> Arc<Driver<C>> {
    Arc::new(Driver::new(context.clone(), controller))
}

/// The configuration with the hub and the name that this cluster has joined with, each where nothing else is configured.
async fn joined(config: &Config, client: &Client) -> anyhow::Result<Config> {
    let mut config = config.clone();
    let is_named = config
        .cluster
        .as_ref()
        .is_some_and(|name| !name.trim().is_empty());
    if config.hub_url().is_some() && is_named {
        return Ok(config);
    }
    // An answer that does not come is not "no hub": then this start fails.
    let joined = enrol::membership(client, &config.lease_namespace).await?;
    if let Some(enrol::Membership { cluster, hub }) = joined {
        if config.hub_url().is_none() {
            config.hub = Some(HubAddress(Some(hub)));
        }
        config.cluster = config
            .cluster
            .filter(|name| !name.trim().is_empty())
            .or(Some(cluster));
    }
    Ok(config)
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

fn elect(config: &Config, client: &Client) -> (LeaderGate, Option<Election>) {
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
