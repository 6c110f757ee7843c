//! Maintenance locks whose holder fell silent: nobody maintains the repository until the pause is over. The verdict shows
//! them, and is asked for far more often than they change, so they are looked up at intervals.

use std::sync::Arc;
use std::time::Duration;

use proto::v1::{Attention, Lock, LocksRequest};
use tokio::time::{MissedTickBehavior, interval, timeout};
use tokio_util::sync::CancellationToken;

use crate::access::Sight;
use crate::hub::Hub;
use crate::lock::{Command, narrow};
use crate::seen::Seen;

/// Time between two looks, and the longest that one takes.
const EVERY: Duration = Duration::from_secs(5);
const PATIENCE: Duration = Duration::from_secs(5);

/// Looks at intervals, until `stop`.
pub async fn keep(hub: Arc<Hub>, stop: CancellationToken) {
    let mut look = interval(EVERY);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = look.tick() => {}
            () = stop.cancelled() => return,
        }
        let ask = |reply| Command::Locks(LocksRequest::default(), Sight::EVERYTHING, reply);
        // A keeper that does not answer leaves what was known: a lock is not free because nobody could look.
        if let Ok(Ok(locks)) = timeout(PATIENCE, hub.locks.ask(ask)).await {
            let delayed = locks.locks.into_iter().filter(|lock| lock.state == "delayed");
            hub.set_delayed(delayed.collect());
        }
    }
}

/// What a person sees of one. Pure.
#[must_use]
pub fn attention(seen: Seen<'_>, lock: &Lock) -> Option<Attention> {
    if !seen.repository(&lock.restic_id) {
        return None;
    }
    let mut lock = lock.clone();
    narrow::lock(&mut lock, seen);
    let holder = match (lock.cluster.as_str(), lock.subject.as_str()) {
        ("", subject) => subject.to_owned(),
        (cluster, "") => cluster.to_owned(),
        (cluster, subject) => format!("{cluster} ({subject})"),
    };
    let minutes = lock.ends_ms.div_ceil(60_000);
    Some(Attention {
        state: "delayed".to_owned(),
        subject: lock.repository.clone(),
        detail: format!(
            "{holder} fell silent while it held the maintenance lock: nothing is maintained for another {minutes} min"
        ),
        count: 1,
        next: format!("fleet why-locked {}", lock.repository),
    })
}
