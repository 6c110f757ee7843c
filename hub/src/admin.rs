//! /healthz, /readyz and /metrics.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::routing::get;
use tokio_util::sync::CancellationToken;

use crate::hub::Hub;

/// Serves until `stop`. A hub that serves is ready: it has read its store.
pub async fn serve(address: SocketAddr, hub: Arc<Hub>, stop: CancellationToken) -> std::io::Result<()> {
    let router = Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(|| async { "ok\n" }))
        .route(
            "/metrics",
            get(|State(hub): State<Arc<Hub>>| async move { hub.metrics.render() }),
        )
        .with_state(hub);
    let listener = tokio::net::TcpListener::bind(address).await?;
    axum::serve(listener, router)
        .with_graceful_shutdown(stop.cancelled_owned())
        .await
}
