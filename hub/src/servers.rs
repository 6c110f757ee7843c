//! The hub's gRPC listeners: link, view, and enrolment where the hub has an authority of its own.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use futures::{FutureExt as _, TryFutureExt as _};
use proto::v1::fleet_admin_server::FleetAdminServer;
use proto::v1::fleet_clusters_server::FleetClustersServer;
use proto::v1::fleet_control_server::FleetControlServer;
use proto::v1::fleet_enrol_server::FleetEnrolServer;
use proto::v1::fleet_hub_server::FleetHubServer;
use proto::v1::fleet_view_server::FleetViewServer;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tonic::transport::Server;
use tonic::transport::server::Router;
use tonic_web::GrpcWebLayer;
use tower::layer::util::{Identity, Stack};

use crate::access::AccessLayer;
use crate::access::refusals::Refusals;
use crate::backup::BackupService;
use crate::config::Config;
use crate::control::ControlService;
use crate::dashboard::DashboardLayer;
use crate::enrol::{self, EnrolService};
use crate::hub::Hub;
use crate::link::{LinkServer, LinkService};
use crate::membership::ClustersService;
use crate::oidc::Oidc;
use crate::people::PeopleService;
use crate::tls::{Bounds, Keys, accept};
use crate::view::ViewService;

pub(crate) type Task = tokio::task::JoinHandle<anyhow::Result<()>>;

/// Handshakes at the same time on the listeners of spokes and people.
const HANDSHAKES: usize = 512;
/// Who enrols has no certificate yet: few are connected, and not for long.
const ENROLLING: Bounds = Bounds {
    connections: 64,
    handshakes: 32,
    until_expiry: false,
};
const ENROLLING_AGE: Duration = Duration::from_secs(20);

/// What answers spokes and people.
pub struct Servers {
    /// Addresses as bound: ports may have been chosen by the system.
    pub link: SocketAddr,
    pub view: SocketAddr,
    pub enrol: Option<SocketAddr>,
    pub(crate) tasks: Vec<Task>,
}

/// Binds all addresses, and serves on them until `stop`.
///
/// # Errors
/// When an address or a certificate cannot be used.
pub async fn start(
    config: &Config,
    hub: &Arc<Hub>,
    refusals: Refusals,
    stop: &CancellationToken,
) -> anyhow::Result<Servers> {
    let enrolling = hub.membership.authority.is_some();
    let (keys, listeners) = Keys::new(config, hub.clone())?;
    let (link, view) = (bind(config.link_address).await?, bind(config.view_address).await?);
    let (link_address, view_address) = (link.local_addr()?, view.local_addr()?);
    let bounds = |until_expiry| Bounds {
        connections: config.max_connections,
        handshakes: HANDSHAKES,
        until_expiry,
    };
    let access = AccessLayer::new(hub.clone(), refusals.clone());
    let links = LinkServer::new(LinkService::new(hub.clone()));
    // A session of a spoke lives on with its next certificate, so it ends itself.
    let link_server = server()
        .layer(access.clone())
        .add_service(links)
        .serve_with_incoming_shutdown(
            accept(link, listeners.link, bounds(false), stop.clone()),
            stop.clone().cancelled_owned(),
        );
    let view_server = view_router(config, hub, access.clone(), refusals)?.serve_with_incoming_shutdown(
        accept(view, listeners.view, bounds(true), stop.clone()),
        stop.clone().cancelled_owned(),
    );
    let mut tasks = vec![
        spawn(link_server, stop),
        spawn(view_server, stop),
        tokio::spawn(keys.keep(stop.clone()).map(Ok)),
    ];
    let mut enrol = None;
    if enrolling {
        let listener = bind(config.enrol_address).await?;
        enrol = Some(listener.local_addr()?);
        let server = enrol_router(hub, access).serve_with_incoming_shutdown(
            accept(listener, listeners.enrol, ENROLLING, stop.clone()),
            stop.clone().cancelled_owned(),
        );
        tasks.push(spawn(server, stop));
    }
    Ok(Servers {
        link: link_address,
        view: view_address,
        enrol,
        tasks,
    })
}

type Checked = Router<Stack<AccessLayer, Identity>>;

/// Pages and gRPC-Web of browsers come first, then who it is: a refusal is translated for a browser as well.
type Browsed = Router<Stack<AccessLayer, Stack<GrpcWebLayer, Stack<DashboardLayer, Identity>>>>;

/// What people ask, with the CLI or in a browser.
fn view_router(
    config: &Config,
    hub: &Arc<Hub>,
    access: AccessLayer,
    refusals: Refusals,
) -> anyhow::Result<Browsed> {
    let views = FleetViewServer::new(ViewService::new(hub.clone()));
    let people = PeopleService::new(hub.clone(), config.session_lifetime.0, Oidc::of(config)?);
    let people = Arc::new(people);
    Ok(server()
        // Who watches says nothing by itself.
        .http2_keepalive_interval(Some(Duration::from_secs(20)))
        .http2_keepalive_timeout(Some(Duration::from_secs(10)))
        .accept_http1(true)
        .layer(DashboardLayer::new(people.clone(), refusals))
        .layer(GrpcWebLayer::new())
        .layer(access)
        .add_service(views.max_decoding_message_size(proto::MESSAGE_MAX))
        .add_service(FleetClustersServer::new(ClustersService::new(hub.clone())))
        .add_service(FleetHubServer::new(BackupService::new(
            hub.clone(),
            &config.store,
        )))
        .add_service(FleetAdminServer::from_arc(people))
        .add_service(FleetControlServer::new(ControlService::new(hub.clone()))))
}

/// What a spoke asks before it has a certificate.
fn enrol_router(hub: &Arc<Hub>, access: AccessLayer) -> Checked {
    let service = FleetEnrolServer::new(EnrolService::new(hub.clone()));
    Server::builder()
        .timeout(Duration::from_secs(10))
        .max_connection_age(ENROLLING_AGE)
        .max_connection_age_grace(Duration::from_secs(5))
        .initial_stream_window_size(64 << 10)
        .initial_connection_window_size(64 << 10)
        .max_concurrent_streams(4)
        .layer(access)
        .add_service(service.max_decoding_message_size(enrol::REQUEST_MAX))
}

fn spawn(
    server: impl Future<Output = Result<(), tonic::transport::Error>> + Send + 'static,
    stop: &CancellationToken,
) -> Task {
    tokio::spawn(bounded(server.map_err(anyhow::Error::from).boxed(), stop.clone()))
}

/// Streams are open for ever: a stop does not wait for them.
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

fn server() -> Server {
    Server::builder()
        .initial_stream_window_size(64 << 10)
        .initial_connection_window_size(128 << 10)
        .max_concurrent_streams(64)
}
