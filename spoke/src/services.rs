//! The long-lived parts of the spoke: what each is made of, when it ends, and what helps when it keeps failing.

use std::net::TcpListener;
use std::sync::Arc;

use crds::conditions::types;
use kube::Client;
use tokio::sync::{mpsc, watch};
use tokio::time::{Duration, sleep};
use tokio_util::sync::CancellationToken;

use crate::browse;
use crate::command::{self, Subject, Tools};
use crate::config::Config;
use crate::context::Context;
use crate::enrol;
use crate::events::Publisher;
use crate::exchange::Question;
use crate::intake::{self, Reader, Routes};
use crate::leader::Election;
use crate::link::{self, LinkConfig};
use crate::maintenance::{Local, LocalGrantor};
use crate::notify::Sender;
use crate::possession::{self, Possession};
use crate::progress;
use crate::queue;
use crate::restic::Restic;
use crate::scripts::Scripts;
use crate::service::{Fatal, Health, Service, Stage};
use crate::{admin, possession::Questions};

const QUEUE_SETTLE: Duration = Duration::from_millis(100);
const PANIC: &str = "the log line \"panicked at\" before names the place; report it, and use another version of the operator meanwhile";

/// What the services are made of.
pub struct Parts {
    pub client: Client,
    pub context: Arc<Context>,
    pub routes: Arc<Routes>,
    pub scripts: Arc<Scripts>,
    pub publisher: Publisher,
    pub sender: Arc<Sender>,
    /// Absent where this replica always leads.
    pub election: Option<Election>,
    /// Asked of the local grantor.
    pub questions: mpsc::UnboundedReceiver<Question>,
    pub restic: Arc<dyn Restic>,
    pub listener: TcpListener,
    pub health: Health,
    /// Version of the API server.
    pub kubernetes: String,
    /// Ends the process.
    pub fatal: Fatal,
}

/// Every service of this configuration.
#[must_use]
pub fn all(config: &Config, parts: Parts) -> Vec<Service> {
    let (mut services, synced) =
        intake::services(&parts.client, &parts.context, &parts.routes, &config.watched());
    let (context, routes) = (parts.context, parts.routes);
    services.push(terms(&context, &routes, &synced));
    services.push(scripts(&context, parts.scripts, &synced));
    services.push(queue(&context, &routes, &synced));
    services.push(events(config, parts.client.clone(), &context, parts.publisher));
    services.push(progress(&context, &routes));
    services.push(notifier(parts.sender));
    services.extend(parts.election.map(election));
    services.push(serving(context.clone(), parts.health, parts.listener));
    if let Some(url) = config.hub_url() {
        let (possession, questions) = Possession::new();
        let link = LinkConfig::new(url, config, &parts.kubernetes, possession.clone());
        services.push(hub(link, &context, &routes, &synced));
        services.push(commands(
            config,
            &context,
            &routes,
            (parts.restic.clone(), &synced),
        ));
        services.push(browsing(&context, parts.restic.clone()));
        services.push(proofs(possession, questions, &context, parts.restic));
        services.push(shared(&context));
    } else {
        services.push(invitation(config, &context, parts.client, parts.fatal));
        let (ttl, delay) = (config.lease_ttl, config.lock_delay);
        let local = Local::new(context, &config.lease_namespace, ttl, delay);
        services.push(grantor(LocalGrantor::new(local, parts.questions)));
    }
    services
}

/// A service of which every start gets a clone of the same parts.
fn service<S, F>(
    name: &str,
    stage: Stage,
    parts: S,
    run: impl Fn(S, CancellationToken) -> F + Send + Sync + 'static,
) -> Service
where
    S: Clone + Send + Sync + 'static,
    F: Future<Output = ()> + Send + 'static,
{
    Service::new(name, stage, PANIC, move |running| {
        let run = run(parts.clone(), running.stop);
        async move {
            run.await;
            Ok(())
        }
    })
}

fn terms(context: &Arc<Context>, routes: &Arc<Routes>, synced: &watch::Receiver<bool>) -> Service {
    let parts = (context.clone(), routes.clone(), synced.clone());
    service(
        "terms",
        Stage::Intake,
        parts,
        |(context, routes, synced), stop| follow_leadership(context, routes, synced, stop),
    )
}

/// Actors run while this replica leads and every watch has listed. When leadership is lost they are stopped, and awaited
/// before the next term begins: nothing that they remembered is used again.
async fn follow_leadership(
    context: Arc<Context>,
    routes: Arc<Routes>,
    mut synced: watch::Receiver<bool>,
    stop: CancellationToken,
) {
    let mut leader = context.leader.clone();
    let terms = async {
        if synced.wait_for(|synced| *synced).await.is_err() {
            return;
        }
        loop {
            // Also at a start after a failure, which may have come at any step.
            context.metrics.leads(false);
            routes.follow().await;
            context.leases.reset();
            context.commands.clear();
            context.operations.clear();
            context.places.clear();
            let term = leader.wait_until_leader().await;
            context.metrics.leads(true);
            routes.lead();
            context.places.moved();
            leader.wait_until_lost(term).await;
        }
    };
    tokio::select! {
        () = terms => {}
        () = stop.cancelled() => {}
    }
}

fn scripts(context: &Arc<Context>, scripts: Arc<Scripts>, synced: &watch::Receiver<bool>) -> Service {
    let parts = (context.clone(), scripts, synced.clone());
    service(
        "scripts",
        Stage::Edge,
        parts,
        |(context, scripts, synced), stop| scripts.run(context, synced, stop),
    )
}

fn queue(context: &Arc<Context>, routes: &Arc<Routes>, synced: &watch::Receiver<bool>) -> Service {
    let parts = (context.clone(), routes.clone(), synced.clone());
    service(
        "queue",
        Stage::Edge,
        parts,
        |(context, routes, synced), stop| async move {
            tokio::select! {
                () = move_queue(&context, &routes, synced) => {}
                () = stop.cancelled() => {}
            }
        },
    )
}

/// Wakes the backups whose places in the queue have changed. Changes that come together are looked at together.
async fn move_queue(context: &Context, routes: &Routes, mut synced: watch::Receiver<bool>) {
    if synced.wait_for(|synced| *synced).await.is_err() {
        return;
    }
    // A change may have been lost with an earlier start.
    context.places.moved();
    loop {
        context.places.wait().await;
        sleep(QUEUE_SETTLE).await;
        if context.leader.is_leader() {
            routes.backups(queue::moved(&context.world, &context.places, context.site.limits));
        }
    }
}

fn events(config: &Config, client: Client, context: &Arc<Context>, publisher: Publisher) -> Service {
    let parts = (
        Arc::new(publisher),
        client,
        context.leader.clone(),
        config.identity.clone(),
    );
    service(
        "events",
        Stage::Edge,
        parts,
        |(publisher, client, leader, identity), stop| async move {
            publisher.run(client, leader, identity, stop).await;
        },
    )
}

fn progress(context: &Arc<Context>, routes: &Arc<Routes>) -> Service {
    let (world, routes) = (context.clone(), routes.clone());
    let wake: progress::Wake = Arc::new(move |key, pod| {
        routes.progressed(&world.world, key);
        if let Some((_, job)) = &pod.meta.owner_name {
            world.operations.moved(&key.sibling(job));
        }
    });
    let parts = (context.clone(), wake);
    service("progress", Stage::Edge, parts, |(context, wake), stop| {
        progress::run(context, wake, stop)
    })
}

fn notifier(sender: Arc<Sender>) -> Service {
    service("notifier", Stage::Edge, sender, Sender::run)
}

fn election(election: Election) -> Service {
    service(
        "election",
        Stage::Election,
        Arc::new(election),
        |election, stop| async move {
            election.run(stop).await;
        },
    )
}

fn serving(context: Arc<Context>, health: Health, listener: TcpListener) -> Service {
    let listener = Arc::new(listener);
    Service::new("admin", Stage::Admin, PANIC, move |running| {
        let (listener, context, health) = (listener.clone(), context.clone(), health.clone());
        async move { Ok(admin::serve(&listener, context, health, running.stop).await?) }
    })
}

fn hub(
    config: LinkConfig,
    context: &Arc<Context>,
    routes: &Arc<Routes>,
    synced: &watch::Receiver<bool>,
) -> Service {
    let (world, routes) = (context.clone(), routes.clone());
    let wake: link::Wake = Arc::new(move |news| match news {
        link::News::Drained(restic_id) => routes.drained(&world.world, restic_id),
        link::News::Collected(restic_id) => routes.collected(&world.world, restic_id),
        link::News::Unappointed => routes.unappointed(&world.world),
        link::News::Named => {
            let waits = world.certificate.waits(&[], types::READY).is_some();
            routes.named(&world.world, waits);
        }
    });
    let parts = (Arc::new(config), context.clone(), wake, synced.clone());
    service(
        "link",
        Stage::Edge,
        parts,
        |(config, context, wake, synced), stop| link::run(config, context, wake, synced, stop),
    )
}

fn commands(
    config: &Config,
    context: &Arc<Context>,
    routes: &Arc<Routes>,
    (restic, synced): (Arc<dyn Restic>, &watch::Receiver<bool>),
) -> Service {
    let routes = routes.clone();
    let wake: command::Wake = Arc::new(move |subject, key| {
        let reader = match subject {
            Subject::Backup => Reader::Backups,
            Subject::Policy => Reader::Policies,
            Subject::Repository => Reader::Repositories,
        };
        routes.asked(reader, key);
    });
    let tools = Tools {
        context: context.clone(),
        restic,
        wake,
    };
    let parts = (tools, config.lease_namespace.clone(), synced.clone());
    service(
        "commands",
        Stage::Edge,
        parts,
        |(tools, namespace, synced), stop| command::run(tools, namespace, synced, stop),
    )
}

fn browsing(context: &Arc<Context>, restic: Arc<dyn Restic>) -> Service {
    let parts = (context.clone(), restic);
    service("browse", Stage::Edge, parts, |(context, restic), stop| {
        browse::run(context, restic, stop)
    })
}

fn proofs(
    possession: Arc<Possession>,
    questions: Questions,
    context: &Arc<Context>,
    restic: Arc<dyn Restic>,
) -> Service {
    let parts = (possession, Arc::new(questions), context.clone(), restic);
    service(
        "possession",
        Stage::Edge,
        parts,
        |(possession, questions, context, restic), stop| {
            possession::run(possession, questions, context, restic, stop)
        },
    )
}

/// A hub decides about locks, so a spoke that begins to have one starts anew.
fn invitation(config: &Config, context: &Context, client: Client, fatal: Fatal) -> Service {
    let namespace = config.lease_namespace.clone();
    let news = enrol::invitations(&context.world, &namespace);
    let parts = (client, namespace, news, fatal);
    service(
        "invitation",
        Stage::Edge,
        parts,
        |(client, namespace, news, fatal), stop| async move {
            tokio::select! {
                joining = enrol::invited(&client, &namespace, &news) => {
                    fatal.fail(format!("there is a hub to join ({}); starting again with it", joining.hub));
                    stop.cancelled().await;
                }
                () = stop.cancelled() => {}
            }
        },
    )
}

fn shared(context: &Arc<Context>) -> Service {
    service(
        "shared",
        Stage::Edge,
        context.clone(),
        |context, stop| async move {
            let (applier, leases) = (&context.applier, &context.leases);
            context.shared.run(applier, leases, &context.world, stop).await;
        },
    )
}

fn grantor(grantor: LocalGrantor) -> Service {
    service(
        "grantor",
        Stage::Edge,
        Arc::new(grantor),
        |grantor, stop| async move {
            grantor.run(stop).await;
        },
    )
}

#[cfg(test)]
#[path = "services_tests.rs"]
pub(crate) mod tests;
