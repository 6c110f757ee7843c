//! /healthz, /readyz and /metrics.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::get;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::metrics::Metrics;

/// What the endpoints tell of.
#[derive(Clone)]
struct Admin {
    metrics: Arc<Metrics>,
    /// Every type has been listed once. A follower is ready too, and so is a spoke whose hub is away.
    synced: watch::Receiver<bool>,
}

/// Serves until shutdown.
pub async fn serve(
    address: SocketAddr,
    metrics: Arc<Metrics>,
    synced: watch::Receiver<bool>,
    shutdown: CancellationToken,
) -> std::io::Result<()> {
    let router = Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .route("/metrics", get(render))
        .with_state(Admin { metrics, synced });
    let listener = tokio::net::TcpListener::bind(address).await?;
    axum::serve(listener, router)
        .with_graceful_shutdown(shutdown.cancelled_owned())
        .await
}

async fn ready(State(admin): State<Admin>) -> (StatusCode, &'static str) {
    if *admin.synced.borrow() && admin.metrics.link_name_differs.get() != 0 {
        (
            StatusCode::OK,
            "ok, but not linked: FLEET_CLUSTER is not the name in the certificate\n",
        )
    } else if *admin.synced.borrow() {
        (StatusCode::OK, "ok\n")
    } else {
        (
            StatusCode::SERVICE_UNAVAILABLE,
            "the first list of the watched types is not complete\n",
        )
    }
}

async fn render(State(admin): State<Admin>) -> String {
    admin.metrics.render()
}
