//! Leader election among the replicas of one cluster, on a Kubernetes Lease.
//!
//! This decides who writes to the API server; it does not fence anything outside the cluster. Time is only ever
//! measured on the own monotonic clock: a lease counts as lost by its holder when its duration has passed since the
//! last renewal was *sent*, and as free to others when it was *seen* unchanged for that long.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use kube::api::{Api, PostParams};
use kube::{Client, Error};
use tokio::sync::{Mutex, watch};
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

/// Name of the Lease.
pub const LEASE: &str = "fleet-spoke";
/// How long a leader that stops answering keeps the lease.
const DURATION: Duration = Duration::from_secs(15);
/// How often it is renewed.
const RENEW: Duration = Duration::from_secs(5);
/// How often a follower looks.
const RETRY: Duration = Duration::from_secs(3);

/// A time of leadership.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Reign {
    /// Rises each time that leadership begins, also after a lapse that nobody noticed.
    term: u64,
    until: Instant,
}

impl Reign {
    fn is_over(&self) -> bool {
        Instant::now() >= self.until
    }
}

/// Asked before each write.
#[derive(Clone)]
pub struct LeaderGate {
    reign: watch::Receiver<Option<Reign>>,
    /// Keeps the channel of a gate without an election open.
    _sender: Option<Arc<watch::Sender<Option<Reign>>>>,
}

impl LeaderGate {
    /// A replica that always leads: leader election is switched off.
    #[must_use]
    pub fn always() -> LeaderGate {
        let (sender, reign) = watch::channel(Some(Reign {
            term: 1,
            until: far_future(),
        }));
        LeaderGate {
            reign,
            _sender: Some(Arc::new(sender)),
        }
    }

    /// Whether this replica may write now.
    #[must_use]
    pub fn is_leader(&self) -> bool {
        self.reign.borrow().is_some_and(|reign| !reign.is_over())
    }

    /// Resolves as soon as this replica leads, with the number of the term.
    pub async fn wait_until_leader(&mut self) -> u64 {
        loop {
            if let Some(reign) = self.reign.borrow_and_update().filter(|reign| !reign.is_over()) {
                return reign.term;
            }
            if self.reign.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    /// Resolves as soon as this replica no longer leads in this term. One that lapsed and was won again is another term.
    pub async fn wait_until_lost(&mut self, term: u64) {
        loop {
            let reign = *self.reign.borrow_and_update();
            let Some(reign) = reign.filter(|reign| reign.term == term && !reign.is_over()) else {
                return;
            };
            tokio::select! {
                changed = self.reign.changed() => if changed.is_err() { return },
                () = sleep(reign.until.saturating_duration_since(Instant::now())) => {}
            }
        }
    }
}

fn far_future() -> Instant {
    Instant::now() + Duration::from_secs(100 * 365 * 24 * 3600)
}

/// Runs for the Lease until shutdown, and gives it back then.
pub struct Election {
    api: Api<Lease>,
    identity: String,
    reign: watch::Sender<Option<Reign>>,
    /// Terms begun so far. Outlives a failure of the part: no number is used twice.
    terms: Mutex<u64>,
}

/// What an attempt at the lease has shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// This replica holds it.
    Won,
    /// It bears the name of another one, whose time is not over: whatever this one remembers of its own, it leads no more.
    Held,
    /// It was not read, or it was written by another one at the same moment.
    Unknown,
}

/// What a replica last saw of the lease, and when by its own clock.
struct Seen {
    version: Option<String>,
    at: Instant,
}

impl Election {
    /// An election in a namespace. The identity must be the pod's, not the Deployment's.
    #[must_use]
    pub fn new(client: Client, namespace: &str, identity: String) -> (Election, LeaderGate) {
        let (sender, reign) = watch::channel(None);
        (
            Election {
                api: Api::namespaced(client, namespace),
                identity,
                reign: sender,
                terms: Mutex::default(),
            },
            LeaderGate { reign, _sender: None },
        )
    }

    /// Renews or waits until `shutdown`.
    pub async fn run(&self, shutdown: CancellationToken) {
        let mut seen = Seen {
            version: None,
            at: Instant::now(),
        };
        let mut terms = self.terms.lock().await;
        loop {
            let sent = Instant::now();
            let step = timeout(RENEW, self.step(&mut seen));
            let step = match step.await {
                Ok(Ok(step)) => step,
                Ok(Err(error)) => {
                    warn!(%error, "could not reach the leader lease");
                    Step::Unknown
                }
                Err(_) => {
                    warn!("the leader lease did not answer in time");
                    Step::Unknown
                }
            };
            let is_over = |reign: &Reign| step == Step::Held || reign.is_over();
            if step == Step::Won {
                if extend(&self.reign, &mut terms, sent + DURATION) {
                    info!(identity = self.identity, "this replica leads");
                }
            } else if self.reign.borrow().as_ref().is_some_and(is_over) {
                self.reign.send_replace(None);
                warn!(identity = self.identity, "this replica no longer leads");
            }
            let pause = if step == Step::Won { RENEW } else { RETRY };
            tokio::select! {
                () = sleep(pause) => {}
                () = shutdown.cancelled() => break,
            }
        }
        if self.reign.send_replace(None).is_some() {
            self.release().await;
        }
    }

    async fn step(&self, seen: &mut Seen) -> Result<Step, Error> {
        let Some(lease) = self.api.get_opt(LEASE).await? else {
            let lease = Lease {
                metadata: ObjectMeta {
                    name: Some(LEASE.to_owned()),
                    ..ObjectMeta::default()
                },
                spec: Some(self.spec(1)),
            };
            return won(self.api.create(&PostParams::default(), &lease).await);
        };
        let spec = lease.spec.clone().unwrap_or_default();
        let holder = spec.holder_identity.as_deref().unwrap_or_default();
        if lease.metadata.resource_version != seen.version {
            *seen = Seen {
                version: lease.metadata.resource_version.clone(),
                at: Instant::now(),
            };
        }
        let duration = Duration::from_secs(
            spec.lease_duration_seconds
                .unwrap_or_default()
                .max(0)
                .unsigned_abs()
                .into(),
        );
        let free = holder.is_empty() || seen.at.elapsed() > duration;
        if holder != self.identity && !free {
            return Ok(Step::Held);
        }
        let transitions = spec.lease_transitions.unwrap_or_default() + i32::from(holder != self.identity);
        let next = Lease {
            spec: Some(self.spec(transitions)),
            ..lease
        };
        // The resourceVersion in it makes this a compare-and-swap.
        won(self.api.replace(LEASE, &PostParams::default(), &next).await)
    }

    fn spec(&self, transitions: i32) -> LeaseSpec {
        let now = MicroTime(Timestamp::now());
        LeaseSpec {
            holder_identity: Some(self.identity.clone()),
            lease_duration_seconds: i32::try_from(DURATION.as_secs()).ok(),
            acquire_time: Some(now.clone()),
            renew_time: Some(now),
            lease_transitions: Some(transitions),
            ..LeaseSpec::default()
        }
    }

    /// Lets the next replica lead at once instead of after the lease's duration.
    async fn release(&self) {
        let release = async {
            let mut lease = self.api.get(LEASE).await?;
            let spec = lease.spec.get_or_insert_default();
            if spec.holder_identity.as_deref() == Some(&self.identity) {
                spec.holder_identity = None;
                self.api.replace(LEASE, &PostParams::default(), &lease).await?;
            }
            Ok::<_, Error>(())
        };
        if let Ok(Err(error)) = timeout(RENEW, release).await {
            warn!(%error, "could not give the leader lease back");
        }
    }
}

/// Extends leadership, or begins a new term if the present one is over by now; returns whether it did. Decided under the
/// channel's lock: a task that has seen this replica not lead finds another term afterwards.
fn extend(reign: &watch::Sender<Option<Reign>>, terms: &mut u64, until: Instant) -> bool {
    let mut begins = false;
    reign.send_modify(|present| match present {
        Some(reign) if !reign.is_over() => reign.until = until,
        _ => {
            begins = true;
            *terms += 1;
            *present = Some(Reign { term: *terms, until });
        }
    });
    begins
}

/// A lost race is not an error.
fn won(result: Result<Lease, Error>) -> Result<Step, Error> {
    match result {
        Ok(_) => Ok(Step::Won),
        Err(Error::Api(status)) if status.code == 409 => Ok(Step::Unknown),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::testing::ApiServer;

    #[tokio::test(start_paused = true)]
    async fn a_leader_whose_lease_bears_another_name_stops_at_the_next_look() {
        let server = ApiServer::new();
        let (election, mut gate) = Election::new(server.client(), "default", "me".to_owned());
        let stop = CancellationToken::new();
        let runs = tokio::spawn({
            let stop = stop.clone();
            async move { election.run(stop).await }
        });
        let term = gate.wait_until_leader().await;
        server.edit::<Lease>("default", LEASE, |lease| {
            lease["spec"]["holderIdentity"] = json!("other")
        });
        let lost = timeout(RENEW + Duration::from_secs(1), gate.wait_until_lost(term)).await;
        assert!(
            lost.is_ok() && !gate.is_leader(),
            "it does not wait for its own time to be over"
        );
        stop.cancel();
        runs.await.unwrap();
        let lease: Lease = server.get("default", LEASE).unwrap();
        assert_eq!(lease.spec.unwrap().holder_identity.as_deref(), Some("other"));
    }

    #[tokio::test]
    async fn a_lease_that_is_not_renewed_is_lost_by_its_holder() {
        let (sender, reign) = watch::channel(None);
        let mut gate = LeaderGate { reign, _sender: None };
        let mut terms = 0;
        assert!(!gate.is_leader());
        assert!(extend(
            &sender,
            &mut terms,
            Instant::now() + Duration::from_millis(20)
        ));
        assert!(gate.is_leader());
        let term = gate.wait_until_leader().await;
        std::thread::sleep(Duration::from_millis(30));
        assert!(!gate.is_leader());
        gate.wait_until_lost(term).await;
    }

    #[tokio::test]
    async fn a_lapse_between_two_renewals_is_another_term() {
        let (sender, reign) = watch::channel(None);
        let mut gate = LeaderGate { reign, _sender: None };
        let mut terms = 0;
        extend(&sender, &mut terms, Instant::now() + Duration::from_millis(5));
        let term = gate.wait_until_leader().await;
        assert!(
            !extend(&sender, &mut terms, Instant::now() + Duration::from_millis(5)),
            "renewed in time"
        );
        std::thread::sleep(Duration::from_millis(10));
        // Won again before anybody looked.
        assert!(extend(
            &sender,
            &mut terms,
            Instant::now() + Duration::from_secs(60)
        ));
        gate.wait_until_lost(term).await;
        assert_ne!(gate.wait_until_leader().await, term);
    }
}
