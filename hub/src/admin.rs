//! /healthz, /readyz and /metrics. Served from the first moment, also while another hub has the store.

use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::get;
use tokio_util::sync::CancellationToken;

use crate::metrics::{Metrics, Scrape};
use crate::store::HubStore;

/// What the endpoints answer from.
#[derive(Clone)]
pub struct Admin {
    pub metrics: Metrics,
    /// The store, once this process has it and has read it.
    pub store: Arc<OnceLock<Arc<dyn HubStore>>>,
    /// What is measured when metrics are asked for, once the hub serves.
    pub scrape: Arc<OnceLock<Scrape>>,
}

/// Serves until `stop`.
///
/// # Errors
/// When the address cannot be served.
pub async fn serve(address: SocketAddr, admin: Admin, stop: CancellationToken) -> std::io::Result<()> {
    let router = Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .route(
            "/metrics",
            get(|State(admin): State<Admin>| async move {
                match admin.scrape.get() {
                    Some(scrape) => scrape.render().await,
                    None => admin.metrics.render(),
                }
            }),
        )
        .with_state(admin);
    let listener = tokio::net::TcpListener::bind(address).await?;
    axum::serve(listener, router)
        .with_graceful_shutdown(stop.cancelled_owned())
        .await
}

async fn ready(State(admin): State<Admin>) -> (StatusCode, &'static str) {
    match admin.store.get() {
        None => (
            StatusCode::SERVICE_UNAVAILABLE,
            "this process does not have the store: it is being read, or another hub has it\n",
        ),
        Some(store) if !store.is_well() => (
            StatusCode::SERVICE_UNAVAILABLE,
            "the last write to the store failed\n",
        ),
        Some(_) => (StatusCode::OK, "ok\n"),
    }
}
