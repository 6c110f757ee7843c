//! Without a hub: one lock per repository in a Kubernetes Lease. It covers this cluster and no other, which the
//! status shows. The same messages as with a hub, answered here.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::ResourceExt as _;
use proto::v1::spoke_message::Body;
use proto::v1::{LeaseAsk, LeaseRenew};
use serde_json::json;
use tokio::sync::{Mutex, mpsc};
use tokio::time::interval;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::silence::{Silence, limit};
use super::tokens::name;
use crate::apply::ApplyError;
use crate::context::Context;
use crate::exchange::{Event, Leases, Question};
use crate::world::{Index, Key};

/// Those who wait are looked at this often: a release by another replica is not watched.
const LOOK: Duration = Duration::from_secs(2);
const TOKEN: &str = "backup.resticbackup.io/token";

/// Grants the lock of this cluster.
pub struct Local {
    context: Arc<Context>,
    namespace: String,
    /// Life of a lease, and how long is waited after the end of one that was not given back. Milliseconds.
    ttl: u64,
    delay: u64,
    /// Who waits, by repository, in the order of asking.
    waiting: HashMap<String, VecDeque<LeaseAsk>>,
    /// By repository.
    silence: HashMap<String, Silence>,
}

/// A grantor with what it is asked. Both outlive a failure: who waits, and since when a holder is silent, stays known.
pub struct LocalGrantor(Mutex<(Local, mpsc::UnboundedReceiver<Question>)>);

impl LocalGrantor {
    /// A grantor that answers these questions.
    #[must_use]
    pub fn new(local: Local, questions: mpsc::UnboundedReceiver<Question>) -> LocalGrantor {
        LocalGrantor(Mutex::new((local, questions)))
    }

    /// Answers until `stop`.
    pub async fn run(&self, stop: CancellationToken) {
        let (local, questions) = &mut *self.0.lock().await;
        local.answer_all(questions, &stop).await;
    }
}

/// A Lease as it is read.
struct Held {
    version: Option<String>,
    holder: String,
    token: u64,
}

impl Local {
    /// A grantor whose Leases lie in `namespace`.
    #[must_use]
    pub fn new(context: Arc<Context>, namespace: &str, ttl: Duration, delay: Duration) -> Local {
        let millis = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX / 4);
        Local {
            context,
            namespace: namespace.to_owned(),
            ttl: millis(ttl),
            delay: millis(delay),
            waiting: HashMap::new(),
            silence: HashMap::new(),
        }
    }

    /// Answers questions until `stop`.
    async fn answer_all(
        &mut self,
        questions: &mut mpsc::UnboundedReceiver<Question>,
        stop: &CancellationToken,
    ) {
        // An answer may have been lost with an earlier start: holders ask again.
        self.leases().connected(true);
        let mut look = interval(LOOK);
        loop {
            let waits = !self.waiting.is_empty();
            tokio::select! {
                question = questions.recv() => match question {
                    Some(Question::Ask(question)) => self.answer(*question).await,
                    Some(Question::Reset) => {
                        self.waiting.clear();
                        self.silence.clear();
                    }
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
            Body::LeaseRenew(m) => self.renew(m).await,
            Body::LeaseRelease(m) => match self.write(&m.restic_id, &m.operation, m.token, false).await {
                Ok(_) => {
                    let event = Event::Released { token: m.token };
                    self.leases().notify(&m.operation, &m.restic_id, event);
                    self.serve(&m.restic_id).await;
                }
                Err(error) => warn!(%error, "the maintenance Lease could not be released"),
            },
            _ => {}
        }
    }

    async fn renew(&mut self, m: LeaseRenew) {
        let event = match self.write(&m.restic_id, &m.operation, m.token, true).await {
            Ok(true) => {
                self.silence.entry(m.restic_id.clone()).or_default().renewed();
                Event::Renewed {
                    token: m.token,
                    seq: m.seq,
                    run: None,
                }
            }
            Ok(false) => Event::Revoked {
                token: m.token,
                reason: "the lease is no longer yours".to_owned(),
                by_person: false,
            },
            // No answer: the holder's own clock decides.
            Err(error) => return warn!(%error, "the maintenance Lease could not be renewed"),
        };
        self.leases().notify(&m.operation, &m.restic_id, event);
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
        match self
            .context
            .shared
            .allowed(&self.context.applier, &self.context.leases, restic_id)
            .await
        {
            Ok(Ok(())) => {}
            Ok(Err(reason)) => {
                let waiting = Event::Waiting { position: 1, reason };
                return self.leases().notify(&ask.operation, restic_id, waiting);
            }
            Err(error) => return warn!(%error, "it is not known whether the repository is shared"),
        }
        match self.acquire(restic_id, &ask).await {
            Ok(Ok(token)) => {
                if let Some(queue) = self.waiting.get_mut(restic_id) {
                    queue.pop_front();
                }
                let granted = Event::Granted {
                    token,
                    ttl: self.ttl,
                    renew: (self.ttl / 5).max(1),
                    run: None,
                };
                self.leases().notify(&ask.operation, restic_id, granted);
            }
            Ok(Err(holder)) => {
                let queue = self.waiting.get(restic_id).into_iter().flatten().enumerate();
                for (position, ask) in queue {
                    let waiting = Event::Waiting {
                        position: u32::try_from(position + 1).unwrap_or(u32::MAX),
                        reason: format!("held by Job uid {holder} of this cluster"),
                    };
                    self.leases().notify(&ask.operation, restic_id, waiting);
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
            holder,
            token: token.unwrap_or_default(),
        }))
    }

    /// The token, or who holds the lock.
    async fn acquire(&mut self, restic_id: &str, ask: &LeaseAsk) -> Result<Result<u64, String>, ApplyError> {
        let operation = ask.operation.as_str();
        let held = self.read(restic_id).await?;
        // Higher after a time with a hub, or of a pod whose end was not seen.
        let seen = ask.seen_token;
        let Some(held) = held else {
            let token = seen + 1;
            let lease = Lease {
                metadata: ObjectMeta {
                    name: Some(self.key(restic_id).name.to_string()),
                    namespace: Some(self.namespace.clone()),
                    annotations: Some([(TOKEN.to_owned(), token.to_string())].into()),
                    ..ObjectMeta::default()
                },
                spec: Some(LeaseSpec {
                    holder_identity: Some(operation.to_owned()),
                    ..LeaseSpec::default()
                }),
            };
            self.context.applier.create(&lease).await?;
            return Ok(Ok(token));
        };
        // Granted before, and its answer was not received: the Job was never opened.
        if held.holder == operation && held.token >= seen {
            return Ok(Ok(held.token));
        }
        if !held.holder.is_empty() && !self.is_over(restic_id, &held, operation) {
            return Ok(Err(held.holder));
        }
        let token = held.token.max(seen) + 1;
        let patch = json!({
            "metadata": { "resourceVersion": held.version, "annotations": { TOKEN: token.to_string() } },
            "spec": { "holderIdentity": operation },
        });
        self.context
            .applier
            .merge::<Lease>(&self.key(restic_id), &patch)
            .await?;
        Ok(Ok(token))
    }

    /// Whether the lock of a holder that did not give it back is free: its Job has ended or is not there, no pod of it may
    /// be at work as far as this cluster knows, and a lease that a pod may still rely on has run out since. The stores are
    /// complete: nothing is answered before every watch has listed.
    fn is_over(&mut self, restic_id: &str, held: &Held, asks: &str) -> bool {
        let world = &self.context.world;
        let jobs = world.jobs.by(Index::Uid, &Key::new("", &held.holder));
        let pods = world.pods.group(&Key::new("", &held.holder));
        // While pods cannot be watched, one that is not in the store may be at work.
        let known = world.pods.delivery().since(self.context.clock.now()).is_some();
        let at_work = !known || pods.iter().any(|(_, pod)| pod.is_active());
        // A Job that asks again holds nothing.
        let ended = held.holder == asks || jobs.iter().all(|(_, job)| job.end.is_some());
        let silence = self.silence.entry(restic_id.to_owned()).or_default();
        let silent = silence.observe(
            &held.holder,
            held.token,
            ended && !at_work,
            self.context.clock.since_boot(),
        );
        ended && !at_work && silent >= limit(self.ttl, self.delay)
    }

    /// A grant above `opened` never reached the Job that it was for.
    async fn give_back_unused(
        &mut self,
        restic_id: &str,
        operation: &str,
        opened: u64,
    ) -> Result<(), ApplyError> {
        match self.read(restic_id).await? {
            Some(held) if held.holder == operation && held.token > opened => {
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
        if held.holder != operation || held.token != token {
            return Ok(false);
        }
        if !keep {
            self.free(restic_id, &held).await?;
        }
        Ok(true)
    }

    /// Nobody holds it any more, unless it has changed since it was read.
    async fn free(&self, restic_id: &str, held: &Held) -> Result<(), ApplyError> {
        let patch =
            json!({ "metadata": { "resourceVersion": held.version }, "spec": { "holderIdentity": null } });
        let key = self.key(restic_id);
        self.context.applier.merge::<Lease>(&key, &patch).await.map(drop)
    }
}
