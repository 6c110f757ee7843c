//! Starts everything, and stops it in order.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use anyhow::Context as _;
use futures::{FutureExt as _, TryFutureExt as _};
use proto::v1::fleet_admin_server::FleetAdminServer;
use proto::v1::fleet_hub_server::FleetHubServer;
use proto::v1::fleet_link_server::FleetLinkServer;
use proto::v1::fleet_view_server::FleetViewServer;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tonic::transport::server::TcpIncoming;
use tonic::transport::{Certificate, Identity, Server, ServerTlsConfig};
use tracing::{info, warn};

use crate::access::AccessLayer;
use crate::access::refusals::{self, Refusals};
use crate::admin::{self, Admin};
use crate::backup::BackupService;
use crate::collect::{Appointer, Collectors};
use crate::config::Config;
use crate::hub::Hub;
use crate::link::LinkService;
use crate::lock::{Keeper, Locks, Settings};
use crate::metrics::{Metrics, Scrape};
use crate::people::PeopleService;
use crate::store::held::{self, Hold};
use crate::store::{HubStore, Sqlite};
use crate::view::ViewService;

/// How often a second process looks whether the store is free.
const RETRY: Duration = Duration::from_secs(1);

type Task = tokio::task::JoinHandle<anyhow::Result<()>>;

/// A hub that serves.
pub struct Running {
    pub hub: Arc<Hub>,
    /// Addresses as bound: ports may have been chosen by the system.
    pub link: SocketAddr,
    pub view: SocketAddr,
    tasks: Vec<Task>,
    /// The store is this process's own until everything has ended.
    _hold: Hold,
}

impl Running {
    /// Waits for the first part to end.
    ///
    /// # Errors
    /// What that part ended with.
    pub async fn ended(mut self) -> anyhow::Result<()> {
        let (first, _, rest) = futures::future::select_all(std::mem::take(&mut self.tasks)).await;
        let ended = first?;
        for task in rest {
            if ended.is_err() {
                // Nothing may be answered any more, not even what is on its way.
                task.abort();
                continue;
            }
            // An error means that it was ended with the others.
            let _ = tokio::time::timeout(Duration::from_secs(5), task).await;
        }
        ended
    }
}

/// Starts a hub that serves until `stop`.
///
/// # Errors
/// When certificates, store or addresses cannot be used.
pub async fn start(config: &Config, stop: CancellationToken) -> anyhow::Result<Running> {
    config.check()?;
    make_folder(config)?;
    let metrics = Metrics::new()?;
    let ready: Arc<OnceLock<Arc<dyn HubStore>>> = Arc::new(OnceLock::new());
    let scrape = Arc::new(OnceLock::new());
    let admin = Admin {
        metrics: metrics.clone(),
        store: ready.clone(),
        scrape: scrape.clone(),
    };
    let admin = tokio::spawn(admin::serve(config.admin_address, admin, stop.clone()));
    let hold = hold(config, &stop).await?;
    let store = open(config).await?;
    let (locks, commands) = Locks::new();
    let (collectors, reports) = Collectors::new();
    let hub = Hub::start(config, store.clone(), (locks, collectors), metrics).await?;
    let appointer = Appointer::start(hub.clone(), store.clone()).await?;
    let keeper = Keeper::start(hub.clone(), store.clone(), Settings::of(config)).await?;
    let (refusals, refused) = Refusals::new();
    let servers = servers(config, &hub, refusals, &stop).await?;
    // An error means that it is set already.
    let _ = ready.set(store.clone());
    let _ = scrape.set(Scrape::new(hub.clone(), config));
    info!(link = %servers.link, view = %servers.view, "serving");
    let mut tasks = servers.tasks;
    tasks.extend([
        tokio::spawn(async move { admin.await?.context("cannot serve the admin address") }),
        tokio::spawn({
            let (hub, stop) = (hub.clone(), stop.clone());
            async move { Ok(hub.keep(stop).await?) }
        }),
        tokio::spawn({
            let stop = stop.clone();
            async move { Ok(appointer.keep(reports, stop).await?) }
        }),
        tokio::spawn({
            let stop = stop.clone();
            async move { Ok(refusals::record(store, refused, stop).await?) }
        }),
        tokio::spawn(async move { Ok(keeper.keep(commands, stop).await?) }),
    ]);
    Ok(Running {
        hub,
        link: servers.link,
        view: servers.view,
        tasks,
        _hold: hold,
    })
}

fn make_folder(config: &Config) -> anyhow::Result<()> {
    if let Some(dir) = config.store.parent() {
        std::fs::create_dir_all(dir)
            .with_context(|| format!("cannot make the store's folder {}", dir.display()))?;
    }
    Ok(())
}

async fn open(config: &Config) -> anyhow::Result<Arc<dyn HubStore>> {
    let store = Sqlite::open(&config.store).await;
    let store = store.with_context(|| {
        format!(
            "cannot open the store {}; set --store to a file on a writable volume",
            config.store.display()
        )
    })?;
    Ok(Arc::new(store))
}

/// What answers spokes and people.
struct Servers {
    link: SocketAddr,
    view: SocketAddr,
    tasks: Vec<Task>,
}

/// Binds both addresses, and serves on them until `stop`.
async fn servers(
    config: &Config,
    hub: &Arc<Hub>,
    refusals: Refusals,
    stop: &CancellationToken,
) -> anyhow::Result<Servers> {
    let (link, view) = (bind(config.link_address).await?, bind(config.view_address).await?);
    let (link_address, view_address) = (link.local_addr()?, view.local_addr()?);
    let access = AccessLayer::new(hub.authority.clone(), refusals);
    let link_service =
        FleetLinkServer::new(LinkService::new(hub.clone())).max_decoding_message_size(proto::MESSAGE_MAX);
    let link_server = server(config, Certificates::Demanded)?
        .layer(access.clone())
        .add_service(link_service)
        .serve_with_incoming_shutdown(incoming(link), stop.clone().cancelled_owned());
    let view_service =
        FleetViewServer::new(ViewService::new(hub.clone())).max_decoding_message_size(proto::MESSAGE_MAX);
    let people = PeopleService::new(hub.clone(), config.session_lifetime.0);
    let own = BackupService::new(hub.clone(), &config.store);
    let view_server = server(config, Certificates::Optional)?
        .layer(access)
        .add_service(view_service)
        .add_service(FleetHubServer::new(own))
        .add_service(FleetAdminServer::new(people))
        .serve_with_incoming_shutdown(incoming(view), stop.clone().cancelled_owned());
    // Streams are open for ever: a stop does not wait for them.
    let link_server = bounded(link_server.map_err(anyhow::Error::from).boxed(), stop.clone());
    let view_server = bounded(view_server.map_err(anyhow::Error::from).boxed(), stop.clone());
    Ok(Servers {
        link: link_address,
        view: view_address,
        tasks: vec![tokio::spawn(link_server), tokio::spawn(view_server)],
    })
}

/// Waits until no other process has the store.
async fn hold(config: &Config, stop: &CancellationToken) -> anyhow::Result<Hold> {
    let mut told = false;
    loop {
        if let Some(hold) = held::take(&config.store)? {
            return Ok(hold);
        }
        if !std::mem::replace(&mut told, true) {
            warn!(
                store = %config.store.display(),
                "another hub has this store; this one serves nothing until that has ended (a fleet has one hub process per store)"
            );
        }
        tokio::select! {
            () = tokio::time::sleep(RETRY) => {}
            () = stop.cancelled() => anyhow::bail!("stopped while another hub had the store"),
        }
    }
}

async fn bounded(
    server: futures::future::BoxFuture<'static, anyhow::Result<()>>,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    tokio::select! {
        result = server => result,
        () = async { stop.cancelled().await; tokio::time::sleep(Duration::from_millis(500)).await } => Ok(()),
    }
}

async fn bind(address: SocketAddr) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address)
        .await
        .with_context(|| format!("cannot listen on {address}"))
}

/// A short answer is sent at once: held back until the last one is acknowledged, each would take 40 ms.
fn incoming(listener: TcpListener) -> TcpIncoming {
    TcpIncoming::from(listener).with_nodelay(Some(true))
}

/// Client certificates of a listener. One that is shown must always be of our authority.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Certificates {
    /// A peer without one does not get as far as a request.
    Demanded,
    /// People may come with a session instead.
    Optional,
}

fn server(config: &Config, certificates: Certificates) -> anyhow::Result<Server> {
    let read = |path: &Path| std::fs::read(path).with_context(|| format!("cannot read {}", path.display()));
    let tls = ServerTlsConfig::new()
        .identity(Identity::from_pem(
            read(&config.tls_cert)?,
            read(&config.tls_key)?,
        ))
        .client_ca_root(Certificate::from_pem(read(&config.tls_ca)?))
        .client_auth_optional(certificates == Certificates::Optional);
    Ok(Server::builder()
        .tls_config(tls)?
        .http2_keepalive_interval(Some(Duration::from_secs(20)))
        .http2_keepalive_timeout(Some(Duration::from_secs(10)))
        .initial_stream_window_size(64 << 10)
        .initial_connection_window_size(128 << 10)
        .max_concurrent_streams(64))
}
