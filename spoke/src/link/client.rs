//! Dials the hub and keeps the stream open. Only the leader talks to the hub, and only once every watch has listed: an
//! inventory is converted from the caches, so it is whole from then on, whether or not an actor has taken a turn.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::config::LinkConfig;
use super::conversation::session;
use crate::backoff::{Backoff, Jitter};
use crate::context::Context;

/// Pause before dialling again, with full jitter: a hub that restarts meets all its spokes.
const RECONNECT: Backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(60), Jitter::Full);
/// Pause after another session of this cluster has taken over. Then another replica leads: this one learns it from the
/// leader's Lease, which is renewed twice in that time, and does not take the session back.
const SUPERSEDED: Duration = Duration::from_secs(10);
/// A session of this length was a good one.
const STABLE: Duration = Duration::from_secs(30);

/// What the hub sends that actors have to be woken for.
#[derive(Clone, Copy, Debug)]
pub enum News<'a> {
    /// Backups of the repository with this restic id are to be held, or may go on.
    Drained(&'a str),
    /// Who collects the figures of the repository with this restic id, or what was collected.
    Collected(&'a str),
    /// The hub is of a version that appoints no collectors: each cluster reads figures for itself.
    Unappointed,
    /// The name of this cluster in its certificate, unless it is the one of the session before.
    Named,
}

/// Called for each of them.
pub type Wake = Arc<dyn Fn(News<'_>) + Send + Sync>;

/// Keeps a session open until `stop`.
pub async fn run(
    config: Arc<LinkConfig>,
    context: Arc<Context>,
    wake: Wake,
    mut synced: watch::Receiver<bool>,
    stop: CancellationToken,
) {
    let work = async {
        // A session of an earlier start has ended with it.
        disconnected(&context);
        if synced.wait_for(|synced| *synced).await.is_err() {
            return;
        }
        let mut leader = context.leader.clone();
        let mut attempts = 0u32;
        let mut logged = String::new();
        loop {
            let term = leader.wait_until_leader().await;
            let start = Instant::now();
            let mut lost = context.leader.clone();
            let ended = tokio::select! {
                ended = session(&config, &context, &wake) => ended,
                () = lost.wait_until_lost(term) => Ok(()),
            };
            disconnected(&context);
            let superseded = ended.as_ref().is_err_and(is_superseded);
            if let Err(error) = ended {
                let text = format!("{error:#}");
                context.certificate.set_trouble(&text);
                // The same cause again is not news.
                if text != logged {
                    warn!(
                        hub = config.url,
                        "no connection to the hub, backups go on without it: {text}"
                    );
                    logged = text;
                }
            }
            if start.elapsed() > STABLE {
                attempts = 0;
                logged.clear();
            }
            attempts = attempts.saturating_add(1);
            let pause = RECONNECT.after(attempts, &*context.random);
            sleep(if superseded { pause.max(SUPERSEDED) } else { pause }).await;
        }
    };
    tokio::select! {
        () = work => {}
        () = stop.cancelled() => {}
    }
}

/// Whether a session ended because a newer one of the cluster has begun.
fn is_superseded(error: &anyhow::Error) -> bool {
    let mut causes = error
        .chain()
        .filter_map(|cause| cause.downcast_ref::<tonic::Status>());
    causes.any(|status| status.code() == tonic::Code::Aborted)
}

fn disconnected(context: &Context) {
    context.metrics.link_connected.set(0);
    context.leases.connected(false);
    context.collectors.disconnected(context.clock.since_boot());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_that_was_superseded_is_told_apart() {
        let ended = |status: tonic::Status| anyhow::Error::from(status).context("the hub");
        assert!(is_superseded(&ended(tonic::Status::aborted("a newer session"))));
        assert!(!is_superseded(&ended(tonic::Status::unavailable("gone"))));
        assert!(!is_superseded(&anyhow::anyhow!("no answer in time")));
    }
}
