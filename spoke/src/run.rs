//! Starts everything in order, and stops it in reverse.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use k8s_openapi::api::core::v1::Namespace;
use kube::{Api, Client};
use ractor::Actor;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{Semaphore, oneshot};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{info, warn};

use crate::apply::Applier;
use crate::backup::BackupKind;
use crate::config::Config;
use crate::context::{Context, SystemClock, TURNS};
use crate::events::Events;
use crate::intake::{self, Routes};
use crate::leader::{Election, LeaderGate};
use crate::link::{CertificateName, Creations, LinkConfig, Outbox};
use crate::maintenance::{Leases, Local, Shared};
use crate::metrics::Metrics;
use crate::operation::{Board, Operations};
use crate::possession::{self, Possession};
use crate::repository::{RepositoryKind, UnlockOwner};
use crate::restic::{self, Restic};
use crate::restore::RestoreKind;
use crate::retention::{RetentionKind, RetentionOwner};
use crate::root::{Kinds, Root, RootMessage};
use crate::scripts::Scripts;
use crate::world::World;
use crate::{admin, link};

/// Turns under way may end within this time; the pod's grace period must be longer.
const STOP_LIMIT: Duration = Duration::from_secs(25);

/// Runs until SIGTERM or SIGINT, or until something that cannot be restarted in place has died.
pub async fn run(config: Config) -> anyhow::Result<()> {
    config.check()?;
    let stop = CancellationToken::new();
    stop_on_signal(&stop)?;
    let metrics = Arc::new(Metrics::new()?);
    let client = Client::try_default().await.context(
        "no Kubernetes API server: run inside a cluster, or set KUBECONFIG to reach one from a shell",
    )?;
    let kubernetes = client
        .apiserver_version()
        .await
        .context("the API server does not answer")?;
    let site = config.site(&cluster_uid(&client).await?);
    let restic = restic::Executor::start(&config, &site.cluster, metrics.clone())
        .await
        .context("restic cannot be used")?;
    info!(
        cluster = site.cluster,
        uid = site.cluster_uid,
        kubernetes = kubernetes.git_version,
        "starting"
    );

    let tasks = TaskTracker::new();
    // The lease is given back last, after the last write.
    let stop_election = CancellationToken::new();
    let (leader, election) = elect(&config, &client, &stop_election);
    let (events, publisher) = Events::new(metrics.clone());
    tasks.spawn(publisher.run(
        client.clone(),
        leader.clone(),
        config.identity.clone(),
        stop.clone(),
    ));

    let scripts = Arc::new(Scripts::default());
    let (leases, questions) = Leases::new(config.hub_url().is_some());
    let world = World::default();
    let outbox = Outbox::attached(&world);
    let context = Arc::new(Context {
        leases,
        operations: Board::default(),
        world,
        applier: Applier::new(client.clone(), leader.clone(), metrics.clone()),
        events,
        leader: leader.clone(),
        metrics: metrics.clone(),
        clock: Arc::new(SystemClock),
        turns: Semaphore::new(TURNS),
        outbox,
        creations: Creations::new(config.hub_url().is_some()),
        certificate: CertificateName::new(&site.cluster, config.hub_url().is_some()),
        cluster: site.cluster.clone(),
        shared: Shared::new(config.hub_url(), config.standalone, &config.lease_namespace),
        site,
    });

    let failed = CancellationToken::new();
    let restic: Arc<dyn Restic> = Arc::new(restic);
    let prover = restic.clone();
    let retention = Arc::new(RetentionKind::new(context.clone(), &config));
    let repository = Arc::new(RepositoryKind::new(context.clone(), restic.clone(), &config));
    let root = Root {
        context: context.clone(),
        repository: repository.clone(),
        backup: Arc::new(BackupKind::new(context.clone())),
        restore: Arc::new(RestoreKind::new(context.clone(), restic, &config)),
        retention: retention.clone(),
        operations: Arc::new(Operations::new(
            context.clone(),
            &config.lease_namespace,
            vec![
                Arc::new(RetentionOwner::new(retention)),
                Arc::new(UnlockOwner::new(repository)),
            ],
        )),
        failed: failed.clone(),
    };
    let (root, _) = Actor::spawn(None, root, ())
        .await
        .map_err(|e| anyhow::anyhow!("the actors do not start: {e}"))?;
    let kinds = kinds(&root).await?;
    let routes = Arc::new(Routes::new(kinds, scripts.clone()));

    let stop_intake = stop.child_token();
    let synced = intake::start(&client, &context, &routes, &tasks, &stop_intake);
    tasks.spawn(scripts.clone().run(context.clone(), synced.clone(), stop.clone()));
    tasks.spawn(follow_leadership(
        context.clone(),
        routes.clone(),
        synced.clone(),
        stop.clone(),
    ));
    let admin = tasks.spawn(admin::serve(
        config.admin_address,
        metrics.clone(),
        synced.clone(),
        stop.clone(),
    ));
    if let Some(url) = config.hub_url() {
        let (possession, challenges) = Possession::new();
        tasks.spawn(possession::run(
            possession.clone(),
            challenges,
            context.clone(),
            prover,
            stop.clone(),
        ));
        let link = LinkConfig::new(url, &config, &kubernetes.git_version, possession);
        let routes = routes.clone();
        tasks.spawn(Shared::run(context.clone(), stop.clone()));
        tasks.spawn(link::run(
            link,
            context.clone(),
            routes,
            synced.clone(),
            stop.clone(),
        ));
    } else {
        let (ttl, delay) = (config.lease_ttl, config.lock_delay);
        let local = Local::new(context.clone(), &config.lease_namespace, ttl, delay);
        tasks.spawn(local.run(questions, stop.clone()));
    }

    let result = tokio::select! {
        () = stop.cancelled() => Ok(()),
        () = failed.cancelled() => Err(anyhow::anyhow!("a supervisor died; leaving, so that Kubernetes starts a new process")),
        ended = admin => match ended {
            Ok(Err(error)) => Err(error).with_context(|| format!("cannot serve {}", config.admin_address)),
            _ => Ok(()),
        },
    };
    info!("stopping");
    stop.cancel();
    if root
        .stop_and_wait(None, Some(ractor::concurrency::Duration::from(STOP_LIMIT)))
        .await
        .is_err()
    {
        warn!("turns under way did not end in time");
    }
    stop_election.cancel();
    if let Some(election) = election {
        let _ = tokio::time::timeout(Duration::from_secs(6), election).await;
    }
    tasks.close();
    if tokio::time::timeout(Duration::from_secs(3), tasks.wait())
        .await
        .is_err()
    {
        warn!("some tasks did not end in time");
    }
    result
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

fn elect(
    config: &Config,
    client: &Client,
    stop: &CancellationToken,
) -> (LeaderGate, Option<tokio::task::JoinHandle<()>>) {
    if !config.leader_elect {
        return (LeaderGate::always(), None);
    }
    let (election, gate) = Election::new(client.clone(), &config.lease_namespace, config.identity.clone());
    (gate, Some(tokio::spawn(election.run(stop.clone()))))
}

async fn kinds(root: &ractor::ActorRef<RootMessage>) -> anyhow::Result<Kinds> {
    let (reply, answer) = oneshot::channel();
    root.cast(RootMessage::Kinds(reply))
        .map_err(|e| anyhow::anyhow!("the root actor is gone: {e}"))?;
    Ok(answer.await?)
}

/// Actors run while this replica leads and every watch has listed. When leadership is lost they are stopped, and awaited
/// before the next term begins: nothing that they remembered is used again.
async fn follow_leadership(
    context: Arc<Context>,
    routes: Arc<Routes>,
    mut synced: tokio::sync::watch::Receiver<bool>,
    stop: CancellationToken,
) {
    let mut leader = context.leader.clone();
    let terms = async {
        if synced.wait_for(|synced| *synced).await.is_err() {
            return;
        }
        loop {
            let term = leader.wait_until_leader().await;
            context.metrics.leader.set(1);
            routes.lead();
            leader.wait_until_lost(term).await;
            context.metrics.leader.set(0);
            routes.follow().await;
            context.leases.reset();
        }
    };
    tokio::select! {
        () = terms => {}
        () = stop.cancelled() => {}
    }
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
