//! /healthz, /readyz and /metrics.

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::get;
use tokio_util::sync::CancellationToken;

use crate::context::Context;
use crate::service::Health;

/// What the endpoints report.
#[derive(Clone)]
struct Admin {
    context: Arc<Context>,
    health: Health,
}

/// Takes the address. It stays taken for all starts of the part that serves.
///
/// # Errors
/// When it is taken by another process, or is none of this machine.
pub fn listen(address: SocketAddr) -> std::io::Result<TcpListener> {
    let listener = TcpListener::bind(address)?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// Serves until shutdown.
pub async fn serve(
    listener: &TcpListener,
    context: Arc<Context>,
    health: Health,
    shutdown: CancellationToken,
) -> std::io::Result<()> {
    let router = Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .route("/metrics", get(render))
        .with_state(Admin { context, health });
    let listener = tokio::net::TcpListener::from_std(listener.try_clone()?)?;
    let stop = shutdown.clone();
    tokio::select! {
        served = axum::serve(listener, router).with_graceful_shutdown(stop.cancelled_owned()) => served,
        // A connection that is kept open does not hold the end up.
        () = shutdown.cancelled() => Ok(()),
    }
}

/// Ready when every service is well. A follower is ready too, and so is a spoke whose hub is away.
async fn ready(State(admin): State<Admin>) -> (StatusCode, String) {
    let unwell = admin.health.unwell();
    if !unwell.is_empty() {
        return (StatusCode::SERVICE_UNAVAILABLE, unwell.join("\n") + "\n");
    }
    let text = match admin.context.certificate.trouble() {
        trouble if trouble.is_empty() => "ok\n".to_owned(),
        trouble => format!("ok, but not linked: {trouble}\n"),
    };
    (StatusCode::OK, text)
}

async fn render(State(admin): State<Admin>) -> String {
    admin.context.metrics.render()
}
