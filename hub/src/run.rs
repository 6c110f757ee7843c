//! Starts everything, and stops it in order.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use proto::v1::fleet_link_server::FleetLinkServer;
use proto::v1::fleet_view_server::FleetViewServer;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tonic::transport::server::TcpIncoming;
use tonic::transport::{Certificate, Identity, Server, ServerTlsConfig};
use tracing::info;

use crate::admin;
use crate::config::Config;
use crate::hub::Hub;
use crate::link::LinkService;
use crate::lock::{Keeper, Locks, Settings};
use crate::store::{HubStore, Sqlite};
use crate::view::ViewService;

/// A hub that serves.
pub struct Running {
    pub hub: Arc<Hub>,
    /// Addresses as bound: ports may have been chosen by the system.
    pub link: SocketAddr,
    pub view: SocketAddr,
    tasks: Vec<tokio::task::JoinHandle<anyhow::Result<()>>>,
}

impl Running {
    /// Waits for the first part to end.
    ///
    /// # Errors
    /// What that part ended with.
    pub async fn ended(mut self) -> anyhow::Result<()> {
        let (first, _, rest) = futures::future::select_all(std::mem::take(&mut self.tasks)).await;
        for task in rest {
            // An error means that it was ended with the others.
            let _ = tokio::time::timeout(Duration::from_secs(5), task).await;
        }
        first?
    }
}

/// Starts a hub that serves until `stop`.
///
/// # Errors
/// When certificates, store or addresses cannot be used.
pub async fn start(config: &Config, stop: CancellationToken) -> anyhow::Result<Running> {
    config.check()?;
    if let Some(dir) = config.store.parent() {
        std::fs::create_dir_all(dir)
            .with_context(|| format!("cannot make the store's folder {}", dir.display()))?;
    }
    let store = Sqlite::open(&config.store).await;
    let store = store.with_context(|| {
        format!(
            "cannot open the store {}; set --store to a file on a writable volume",
            config.store.display()
        )
    })?;
    let store: Arc<dyn HubStore> = Arc::new(store);
    let (locks, commands) = Locks::new();
    let hub = Hub::start(config, store.clone(), locks).await?;
    let keeper = Keeper::start(hub.clone(), store, Settings::of(config)).await?;
    let (link_listener, view_listener) = (bind(config.link_address).await?, bind(config.view_address).await?);
    let (link, view) = (link_listener.local_addr()?, view_listener.local_addr()?);
    let link_server = server(config)?
        .add_service(
            FleetLinkServer::new(LinkService::new(hub.clone())).max_decoding_message_size(proto::MESSAGE_MAX),
        )
        .serve_with_incoming_shutdown(incoming(link_listener), stop.clone().cancelled_owned());
    let view_server = server(config)?
        .add_service(
            FleetViewServer::new(ViewService::new(hub.clone())).max_decoding_message_size(proto::MESSAGE_MAX),
        )
        .serve_with_incoming_shutdown(incoming(view_listener), stop.clone().cancelled_owned());
    let admin = admin::serve(config.admin_address, hub.clone(), stop.clone());
    info!(%link, %view, "serving");
    // Streams are open for ever: a stop does not wait for them.
    let until = |server| bounded(server, stop.clone());
    let tasks = vec![
        tokio::spawn(until(Box::pin(async move {
            link_server.await.map_err(anyhow::Error::from)
        }))),
        tokio::spawn(until(Box::pin(async move {
            view_server.await.map_err(anyhow::Error::from)
        }))),
        tokio::spawn(async move { admin.await.context("cannot serve the admin address") }),
        tokio::spawn({
            let (hub, stop) = (hub.clone(), stop.clone());
            async move {
                hub.keep(stop).await;
                Ok(())
            }
        }),
        tokio::spawn({
            let stop = stop.clone();
            async move {
                keeper.keep(commands, stop).await;
                Ok(())
            }
        }),
    ];
    Ok(Running {
        hub,
        link,
        view,
        tasks,
    })
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

/// mTLS only: a peer without a certificate of our authority does not get as far as a request.
fn server(config: &Config) -> anyhow::Result<Server> {
    let read = |path: &Path| std::fs::read(path).with_context(|| format!("cannot read {}", path.display()));
    let tls = ServerTlsConfig::new()
        .identity(Identity::from_pem(
            read(&config.tls_cert)?,
            read(&config.tls_key)?,
        ))
        .client_ca_root(Certificate::from_pem(read(&config.tls_ca)?));
    Ok(Server::builder()
        .tls_config(tls)?
        .http2_keepalive_interval(Some(Duration::from_secs(20)))
        .http2_keepalive_timeout(Some(Duration::from_secs(10)))
        .initial_stream_window_size(64 << 10)
        .initial_connection_window_size(128 << 10)
        .max_concurrent_streams(64))
}
