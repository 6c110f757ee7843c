//! Carries out what people ask for through the hub. A command is noted in the [`ledger`] before anything is done for it, and
//! its end before it is reported: it is done at most once, whatever is sent again and whichever replica leads. The hub sends how
//! much time is left each time, and nothing begins later by this cluster's own clock.
//!
//! 1. [`handler`]: what is different about each command; one message of `command.proto`, one handler.
//! 2. [`desk`](Desk): the commands of this term of leadership, from their arrival to the report of their end.
//! 3. [`flight`]: one step of one command. Those of several resources are under way at the same time, so that a storage or
//!    an API server that does not answer holds up no other command.

mod desk;
mod ends;
mod flight;
mod handler;
mod ledger;
mod restore;
mod runs;
mod suspend;
#[cfg(test)]
mod tests;
mod unlock;

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval, sleep};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use self::desk::Desk;
pub use self::handler::{Subject, Tools, Wake};

/// How often commands that have not ended are looked at. Nothing is looked at where there are none.
const TICK: Duration = Duration::from_millis(500);
/// Pause before the ledger is read or written again.
const RETRY: Duration = Duration::from_secs(5);

/// Carries commands out while this replica leads, until `stop`. `namespace` is where Leases are kept.
pub async fn run(
    tools: Tools,
    namespace: String,
    mut synced: watch::Receiver<bool>,
    stop: CancellationToken,
) {
    let work = async {
        // Before that nothing is known to be gone.
        if synced.wait_for(|synced| *synced).await.is_err() {
            return;
        }
        let mut leader = tools.context.leader.clone();
        loop {
            let term = leader.wait_until_leader().await;
            let mut lost = tools.context.leader.clone();
            tokio::select! {
                () = lead(&tools, &namespace) => {}
                () = lost.wait_until_lost(term) => {}
            }
        }
    };
    tokio::select! {
        () = work => {}
        () = stop.cancelled() => {}
    }
}

/// One term of leadership.
async fn lead(tools: &Tools, namespace: &str) {
    let context = &tools.context;
    let ledger = loop {
        match ledger::read(&context.applier, namespace).await {
            Ok(ledger) => break ledger,
            Err(error) => {
                warn!(%error, "what was done of the hub's commands cannot be read; none is carried out");
                sleep(RETRY).await;
            }
        }
    };
    let mut desk = Desk::new(tools.clone(), namespace, ledger);
    let mut tick = interval(TICK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = context.commands.arrived() => desk.receive().await,
            landed = desk.landing() => desk.landed(landed).await,
            _ = tick.tick(), if desk.is_busy() => desk.advance().await,
        }
    }
}
