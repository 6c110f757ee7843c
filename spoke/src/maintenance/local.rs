//! Without a hub: one lock per repository in a Kubernetes Lease. It covers this cluster and no other, and status says
//! so. The same messages as with a hub, answered here.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::ResourceExt as _;
use proto::v1::LeaseAsk;
use proto::v1::spoke_message::Body;
use serde_json::json;
use tokio::sync::mpsc;
use tokio::time::interval;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::local_lock::{Ask, Decision, Kept, LocalLock, Sight, Terms};
use super::tokens::name;
use super::{Event, Leases};
use crate::apply::ApplyError;
use crate::context::Context;
use crate::worker::since_boot;
use crate::world::Key;

/// Those who wait are looked at this often: a release by another replica is not watched.
const LOOK: Duration = Duration::from_secs(2);
const TOKEN: &str = "backup.resticbackup.io/token";

/// Grants the lock of this cluster.
pub struct Local {
    context: Arc<Context>,
    namespace: String,
    ttl: Duration,
    /// Who waits, by repository, in the order of asking.
    waiting: HashMap<String, VecDeque<LeaseAsk>>,
    lock: LocalLock,
}

/// A Lease as it is read.
struct Held {
    version: Option<String>,
    kept: Kept,
}

impl Local {
    /// A grantor whose Leases lie in `namespace`.
    #[must_use]
    pub fn new(context: Arc<Context>, namespace: &str, ttl: Duration, delay: Duration) -> Local {
        let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        let terms = Terms {
            ttl: millis(ttl),
            delay: millis(delay),
        };
        Local {
            context,
            namespace: namespace.to_owned(),
            ttl,
            waiting: HashMap::new(),
            lock: LocalLock::new(terms),
        }
    }

    /// Answers questions until `stop`.
    pub async fn run(mut self, mut questions: mpsc::UnboundedReceiver<Body>, stop: CancellationToken) {
        let mut look = interval(LOOK);
        loop {
            let waits = !self.waiting.is_empty();
            tokio::select! {
                question = questions.recv() => match question {
                    Some(question) => self.answer(question).await,
                    None => return,
                },
                _ = look.tick(), if waits => self.serve_all().await,
                () = stop.cancelled() => return,
            }
        }
    }

    fn leases(&self) -> &Leases {
        &self.context.leases
    }

    async fn answer(&mut self, question: Body) {
        match question {
            Body::LeaseAsk(ask) => {
                let id = ask.restic_id.clone();
                let queue = self.waiting.entry(id.clone()).or_default();
                match queue.iter_mut().find(|known| known.operation == ask.operation) {
                    Some(known) => *known = ask,
                    None => queue.push_back(ask),
                }
                self.serve(&id).await;
            }
            Body::LeaseWithdraw(m) => {
                if let Some(queue) = self.waiting.get_mut(&m.restic_id) {
                    queue.retain(|ask| ask.operation != m.operation);
                }
                if let Err(error) = self.give_back_unused(&m.restic_id, &m.operation, m.token).await {
                    warn!(%error, "the maintenance Lease could not be released");
                }
            }
            Body::LeaseRenew(m) => match self.write(&m.restic_id, &m.operation, m.token, true).await {
                Ok(true) => self.leases().tell(
                    &m.operation,
                    Event::Renewed {
                        token: m.token,
                        seq: m.seq,
                    },
                ),
                Ok(false) => self.leases().tell(
                    &m.operation,
                    Event::Revoked {
                        token: m.token,
                        reason: "the lease is no longer yours".to_owned(),
                    },
                ),
                // No answer: the holder's own clock decides.
                Err(error) => warn!(%error, "the maintenance Lease could not be renewed"),
            },
            Body::LeaseRelease(m) => match self.write(&m.restic_id, &m.operation, m.token, false).await {
                Ok(_) => {
                    self.leases()
                        .tell(&m.operation, Event::Released { token: m.token });
                    self.serve(&m.restic_id).await;
                }
                Err(error) => warn!(%error, "the maintenance Lease could not be released"),
            },
            _ => {}
        }
    }

    async fn serve_all(&mut self) {
        self.waiting.retain(|_, queue| !queue.is_empty());
        let ids: Vec<String> = self.waiting.keys().cloned().collect();
        for id in ids {
            self.serve(&id).await;
        }
    }

    /// Gives the lock to the first that waits, if it is free.
    async fn serve(&mut self, restic_id: &str) {
        let Some(ask) = self
            .waiting
            .get(restic_id)
            .and_then(|queue| queue.front().cloned())
        else {
            return;
        };
        match self.acquire(restic_id, &ask).await {
            Ok(Ok(token)) => {
                if let Some(queue) = self.waiting.get_mut(restic_id) {
                    queue.pop_front();
                }
                let ttl = u64::try_from(self.ttl.as_millis()).unwrap_or(u64::MAX);
                let granted = Event::Granted {
                    token,
                    ttl,
                    renew: (ttl / 5).max(1),
                    run: None,
                };
                self.leases().tell(&ask.operation, granted);
            }
            Ok(Err(holder)) => {
                let queue = self.waiting.get(restic_id).into_iter().flatten().enumerate();
                for (position, ask) in queue {
                    let waiting = Event::Waiting {
                        position: u32::try_from(position + 1).unwrap_or(u32::MAX),
                        reason: format!("held by Job uid {holder} of this cluster"),
                    };
                    self.leases().tell(&ask.operation, waiting);
                }
            }
            Err(ApplyError::NotLeader | ApplyError::Conflict(_)) => {}
            Err(error) => warn!(%error, "the maintenance Lease could not be taken"),
        }
    }

    fn key(&self, restic_id: &str) -> Key {
        Key::new(&self.namespace, name("fleet-lock", restic_id))
    }

    async fn read(&mut self, restic_id: &str) -> Result<Option<Held>, ApplyError> {
        let Some(lease) = self.context.applier.get::<Lease>(&self.key(restic_id)).await? else {
            return Ok(None);
        };
        let token = lease.annotations().get(TOKEN).and_then(|t| t.parse().ok());
        let holder = lease.spec.and_then(|s| s.holder_identity).unwrap_or_default();
        Ok(Some(Held {
            version: lease.metadata.resource_version,
            kept: Kept {
                holder,
                token: token.unwrap_or_default(),
            },
        }))
    }

    /// The token, or who holds the lock.
    async fn acquire(&mut self, restic_id: &str, ask: &LeaseAsk) -> Result<Result<u64, String>, ApplyError> {
        let held = self.read(restic_id).await?;
        let now = since_boot();
        if let Some(held) = held.as_ref().filter(|held| !held.kept.holder.is_empty()) {
            let sight = self.sight(&held.kept.holder, &ask.operation);
            self.lock.look(restic_id, &held.kept, sight, now);
        }
        let kept = held.as_ref().map(|held| &held.kept);
        let asked = Ask {
            operation: &ask.operation,
            seen: ask.seen_token,
        };
        let token = match self.lock.decide(restic_id, kept, asked, now) {
            Decision::Wait { holder, .. } => return Ok(Err(holder)),
            Decision::Again { token } => return Ok(Ok(token)),
            Decision::Grant { token } => token,
        };
        self.keep(restic_id, held, token, &ask.operation).await?;
        Ok(Ok(token))
    }

    /// Makes a grant durable, unless the Lease has changed since it was read.
    async fn keep(
        &self,
        restic_id: &str,
        held: Option<Held>,
        token: u64,
        operation: &str,
    ) -> Result<(), ApplyError> {
        let key = self.key(restic_id);
        let Some(held) = held else {
            let lease = Lease {
                metadata: ObjectMeta {
                    name: Some(key.name.to_string()),
                    namespace: Some(self.namespace.clone()),
                    annotations: Some([(TOKEN.to_owned(), token.to_string())].into()),
                    ..ObjectMeta::default()
                },
                spec: Some(LeaseSpec {
                    holder_identity: Some(operation.to_owned()),
                    ..LeaseSpec::default()
                }),
            };
            return self.context.applier.create(&lease).await.map(drop);
        };
        let patch = json!({
            "metadata": { "resourceVersion": held.version, "annotations": { TOKEN: token.to_string() } },
            "spec": { "holderIdentity": operation },
        });
        self.context.applier.merge::<Lease>(&key, &patch).await.map(drop)
    }

    /// What is seen of a holder. The stores are complete: nothing is answered before every watch has listed. A lost
    /// watch could hide a pod all the same, so this is not enough for a grant.
    fn sight(&self, holder: &str, asks: &str) -> Sight {
        let world = &self.context.world;
        let jobs = world.jobs.filter(|_, job| *job.meta.uid == *holder);
        let pods = world.pods.group(&Key::new("", holder));
        Sight {
            // An operation that asks again has given up what it held.
            ended: holder == asks || jobs.iter().all(|(_, job)| job.end.is_some()),
            at_work: pods.iter().any(|(_, pod)| pod.is_active()),
        }
    }

    /// A grant above `opened` was never heard of by the Job that it was for.
    async fn give_back_unused(
        &mut self,
        restic_id: &str,
        operation: &str,
        opened: u64,
    ) -> Result<(), ApplyError> {
        match self.read(restic_id).await? {
            Some(held) if held.kept.holder == operation && held.kept.token > opened => {
                self.free(restic_id, &held).await?;
                self.serve(restic_id).await;
            }
            _ => {}
        }
        Ok(())
    }

    /// Renews or releases; `false` when the lock is not this operation's under this token.
    async fn write(
        &mut self,
        restic_id: &str,
        operation: &str,
        token: u64,
        keep: bool,
    ) -> Result<bool, ApplyError> {
        let Some(held) = self.read(restic_id).await? else {
            return Ok(false);
        };
        if held.kept.holder != operation || held.kept.token != token {
            return Ok(false);
        }
        if keep {
            self.lock.renewed(restic_id, &held.kept, since_boot());
        } else {
            self.free(restic_id, &held).await?;
        }
        Ok(true)
    }

    /// Nobody holds it any more, unless it has changed since it was read.
    async fn free(&mut self, restic_id: &str, held: &Held) -> Result<(), ApplyError> {
        let patch =
            json!({ "metadata": { "resourceVersion": held.version }, "spec": { "holderIdentity": null } });
        let key = self.key(restic_id);
        self.context.applier.merge::<Lease>(&key, &patch).await?;
        self.lock.freed(restic_id);
        Ok(())
    }
}
