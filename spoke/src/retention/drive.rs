//! The way of each Job through the gate: what is seen of it and what is said about its lease go into its holder, and
//! what the holder asks for is done.

use std::collections::VecDeque;

use crds::conditions::reasons;
use crds::{GlobalRetentionPolicy, GlobalRetentionPolicyStatus};
use jiff::{SignedDuration, Timestamp};
use proto::v1::{LeaseAsk, LeaseRelease, OperationOutcome, RetentionRun};
use tracing::{info, warn};

use super::gate::order;
use super::status::{self, Ended, Run};
use super::{Job, Report, RetentionKind};
use crate::apply::ApplyError;
use crate::kind::{Outcome, Turn};
use crate::maintenance::holder::{Effect, Holder, Input, Observed, Phase};
use crate::maintenance::{Claim, Event, claim};
use crate::worker::since_boot;
use crate::world::{JobView, Key, PodView, Stored as _, World};

/// A Job as its actor knows it.
pub struct Operation {
    pub(super) holder: Holder,
    /// When it was seen first, by the clock since boot.
    seen: u64,
    pub(super) events: VecDeque<Event>,
    /// What it waits for, in the words of whoever grants.
    waiting: Option<String>,
    /// What its pod is to do, once it has the lease.
    pub(super) order: Option<String>,
    /// A token that was seen before and is not below the last one that was granted.
    seen_token: u64,
    outcome: Option<OperationOutcome>,
    plan: Vec<u8>,
}

impl Operation {
    fn new(job: &JobView, now: u64) -> Operation {
        // Found open: made so in a former life of this operator.
        let holder = match (&job.lease, job.suspended) {
            (Some(lease), false) => Holder::adopted(lease.token, lease.ttl, lease.renew, now),
            (Some(lease), true) => Holder::after(lease.token),
            _ => Holder::new(),
        };
        Operation {
            holder,
            seen: now,
            events: VecDeque::new(),
            waiting: None,
            order: None,
            seen_token: 0,
            outcome: None,
            plan: Vec::new(),
        }
    }
}

/// One operation of one turn.
pub(super) struct Scene<'a> {
    policy: &'a GlobalRetentionPolicy,
    pub(super) job: &'a Job,
    pub(super) restic_id: &'a str,
    pub(super) source: String,
    subject: String,
}

impl RetentionKind {
    /// Hears what is said about the policy and its operations.
    pub(super) fn listen(&self, turn: &mut Turn<'_, Self>) {
        if !turn.memory.listening {
            turn.memory.listening = true;
            let reporter = turn.reporter.clone();
            self.context
                .leases
                .listen_policy(turn.uid, move |event| reporter.send(Report::Policy(event)));
        }
        if let Some(Report::Lease(job, event)) = turn.report.take_if(|r| matches!(r, Report::Lease(..)))
            && let Some(operation) = turn.memory.operations.get_mut(&job)
        {
            operation.events.push_back(event);
        }
    }

    /// Looks after every Job.
    pub(super) async fn drive(
        &self,
        turn: &mut Turn<'_, Self>,
        policy: &GlobalRetentionPolicy,
        at: &Key,
        new: &mut GlobalRetentionPolicyStatus,
    ) -> Outcome {
        let (key, now) = (turn.key, turn.now);
        let jobs = self.jobs(key);
        let repository = self.context.world.repositories.get(at);
        let known = repository.and_then(|r| r.status.as_ref()?.repository_id.clone());
        let mut result = Outcome::default();
        let mut soon = |at: Option<Timestamp>| {
            result.next = [result.next, at].into_iter().flatten().min();
        };
        let (mut running, mut waiting, mut active) = (Vec::new(), None, Vec::new());
        let mut failed = false;
        // Jobs that are gone: their holders still have to say so.
        let present: Vec<&str> = jobs.iter().map(|job| &*job.view.meta.uid).collect();
        self.forget_gone(turn.memory, &present, known.as_deref().unwrap_or_default());
        for job in &jobs {
            let uid = job.view.meta.uid.clone();
            let counted = new.counted_jobs.iter().any(|c| **c == *uid);
            let Some(restic_id) = known.as_deref() else {
                continue;
            };
            if !turn.memory.operations.contains_key(&uid) {
                // One that never held anything has nothing to say.
                if counted && job.view.lease.is_none() {
                    continue;
                }
                let reporter = turn.reporter.clone();
                let heard = uid.clone();
                self.context.leases.listen(&uid, move |event| {
                    reporter.send(Report::Lease(heard.clone(), event))
                });
                let fresh = Operation::new(&job.view, since_boot());
                // Opened in a former life of this operator, and its pod is gone: how it ended, nobody saw.
                if let Some(lease) = job.view.lease
                    && job.pods.is_empty()
                    && (job.view.suspended || job.view.start.is_some())
                {
                    let pods = &self.context.world.pods;
                    pods.remember(&Key::new("", &uid), lease.token);
                }
                self.context.leases.note(Claim {
                    operation: uid.to_string(),
                    policy: turn.uid.to_owned(),
                    restic_id: restic_id.to_owned(),
                    // Also of one that is shut by now: pods of it may still be at work.
                    token: job.view.lease.map(|l| l.token),
                });
                turn.memory.operations.insert(uid.clone(), fresh);
            }
            let Some(mut operation) = turn.memory.operations.remove(&uid) else {
                continue;
            };
            let scene = Scene {
                policy,
                job,
                restic_id,
                source: self.source(key),
                subject: format!("retention {key}"),
            };
            soon(self.settle(&scene, &mut operation, new, now).await);
            match self.step(&scene, &mut operation, new, now).await {
                Ok(true) => {
                    // Another cluster's run has done it.
                    self.let_go(&uid);
                    continue;
                }
                Ok(false) => {}
                Err(ApplyError::NotLeader) => {}
                Err(error) => {
                    warn!(object = %key, job = %job.key, %error, "the maintenance gate could not be moved");
                    failed = true;
                }
            }
            if let Some(wake) = operation.holder.wake() {
                let left = wake.saturating_sub(since_boot());
                let left = SignedDuration::from_millis(i64::try_from(left).unwrap_or(i64::MAX));
                soon(now.checked_add(left).ok());
            }
            let name = job.key.name.to_string();
            if job.view.end.is_none() {
                active.push(name.clone());
                match operation.holder.phase() {
                    Phase::Waiting { .. } if !self.context.leases.is_connected() => {
                        waiting = Some((
                            reasons::HUB_AWAY,
                            format!(
                                "{name} waits for the maintenance lock: the hub cannot be reached. Backups go on"
                            ),
                        ));
                    }
                    Phase::Waiting { .. } => {
                        let words = operation.waiting.clone();
                        let words = words.unwrap_or_else(|| "it is asked for".to_owned());
                        waiting = Some((
                            reasons::WAITING_FOR_LOCK,
                            format!("{name} waits for the maintenance lock: {words}"),
                        ));
                    }
                    _ => running.push(name),
                }
            }
            if *operation.holder.phase() == Phase::Done {
                self.let_go(&uid);
            }
            turn.memory.operations.insert(uid, operation);
        }
        // Jobs that are gone need no memory: nothing can count them again.
        new.counted_jobs.retain(|uid| present.contains(&uid.as_str()));
        active.sort();
        new.active = active;
        let waits = waiting.as_ref().map(|(reason, text)| (*reason, text.clone()));
        status::progress(new, policy.metadata.generation, &running, waits, now);
        result.failed = failed;
        result
    }

    /// Takes the outcome of an ended Job in, once. Returns when to look again for it.
    async fn settle(
        &self,
        scene: &Scene<'_>,
        operation: &mut Operation,
        new: &mut GlobalRetentionPolicyStatus,
        now: Timestamp,
    ) -> Option<Timestamp> {
        if operation.outcome.is_some() {
            return None;
        }
        let pods: Vec<&PodView> = scene.job.pods.iter().map(AsRef::as_ref).collect();
        let (mut outcome, started, finished) = match status::ended(&scene.job.view, &pods, now) {
            Ended::NotYet(again) => return again,
            Ended::Known {
                outcome,
                started,
                finished,
            } => (*outcome, started, finished),
        };
        operation.plan = self.plan_of(scene.job).await;
        operation.outcome = Some(outcome.clone());
        let uid = scene.job.view.meta.uid.to_string();
        if !new.counted_jobs.contains(&uid) {
            outcome.unmatched.retain(|source| *source == scene.source);
            let run = Run {
                source: &scene.source,
                outcome: &outcome,
                started,
                finished,
                token: scene.job.view.lease.map(|l| l.token),
                by: None,
            };
            status::count(new, scene.policy, &run, now);
            new.counted_jobs.push(uid);
        }
        None
    }

    /// Feeds the holder; `true` when the Job is not needed any more and was removed.
    async fn step(
        &self,
        scene: &Scene<'_>,
        operation: &mut Operation,
        new: &mut GlobalRetentionPolicyStatus,
        now: Timestamp,
    ) -> Result<bool, ApplyError> {
        let uid = scene.job.view.meta.uid.to_string();
        let mut queue: Vec<Event> = operation.events.drain(..).collect();
        queue.reverse();
        while let Some(event) = queue.pop() {
            let fed = match &event {
                Event::Covered { by, token, outcome } => {
                    self.context
                        .applier
                        .delete::<k8s_openapi::api::batch::v1::Job>(&scene.job.key, &uid)
                        .await?;
                    self.context.world.jobs.remove(&scene.job.key, Some(&uid));
                    info!(object = scene.source, job = %scene.job.key, by, token, "not needed: another run has done it");
                    let mut outcome = outcome.clone();
                    outcome.unmatched.retain(|source| *source == scene.source);
                    let run = Run {
                        source: &scene.source,
                        outcome: &outcome,
                        started: None,
                        finished: Some(now),
                        token: Some(*token),
                        by: Some(by),
                    };
                    status::count(new, scene.policy, &run, now);
                    return Ok(true);
                }
                Event::Waiting { position, reason } => {
                    operation.waiting = Some(format!("{reason}; number {position} in the queue"));
                    None
                }
                Event::Granted { token, run, .. } => {
                    match self.granted(scene, operation, *token, run).await {
                        Ok(None) => input(&event),
                        Ok(refused) => refused,
                        Err(error) => {
                            // Asked again later, and granted under the same token.
                            operation.events.extend(queue.drain(..).rev());
                            return Err(error);
                        }
                    }
                }
                Event::Revoked { reason, .. } => {
                    operation.waiting = Some(reason.clone());
                    input(&event)
                }
                _ => input(&event),
            };
            if let Some(fed) = fed {
                self.feed(scene, operation, fed).await?;
            }
        }
        self.feed(scene, operation, Input::Look).await?;
        Ok(false)
    }

    /// Whether a grant can be used; otherwise what the holder is told instead.
    async fn granted(
        &self,
        scene: &Scene<'_>,
        operation: &mut Operation,
        token: u64,
        run: &Option<RetentionRun>,
    ) -> Result<Option<Input>, ApplyError> {
        let uid = scene.job.view.meta.uid.to_string();
        let refused = Ok(Some(Input::Refused { token }));
        let order = match order(&self.run_of(scene, run.clone())) {
            Ok(order) => order,
            Err(text) => {
                warn!(object = scene.source, token, text, "the lock is given back");
                operation.waiting = Some(text);
                return refused;
            }
        };
        let (applier, id) = (&self.context.applier, scene.restic_id);
        if let Some(seen) = claim(applier, &self.namespace, id, token, &uid).await? {
            let text = format!(
                "token {token} was granted, and this cluster has seen {seen}: was the hub's store restored from a backup? It is asked again"
            );
            warn!(object = scene.source, text);
            operation.waiting = Some(text);
            operation.seen_token = seen;
            return refused;
        }
        operation.order = Some(order);
        operation.waiting = None;
        self.context.leases.note(Claim {
            operation: uid,
            policy: scene.policy.uid().to_owned(),
            restic_id: scene.restic_id.to_owned(),
            token: Some(token),
        });
        Ok(None)
    }

    async fn feed(
        &self,
        scene: &Scene<'_>,
        operation: &mut Operation,
        input: Input,
    ) -> Result<(), ApplyError> {
        let uid = scene.job.view.meta.uid.to_string();
        // As it is now: an effect of this turn may have changed it.
        let job = self.context.world.jobs.get(&scene.job.key);
        let job = job.unwrap_or_else(|| scene.job.view.clone());
        let pods = observe_pods(&self.context.world, &uid);
        let observed = Observed {
            // Its result goes with the release.
            ended: operation.outcome.is_some() && !pods.pods,
            suspended: job.suspended,
            token: job.lease.map(|l| l.token),
            ..pods
        };
        let leases = &self.context.leases;
        for effect in operation.holder.step(input, observed, since_boot()) {
            match effect {
                Effect::Ask => leases.ask(LeaseAsk {
                    operation: uid.clone(),
                    restic_id: scene.restic_id.to_owned(),
                    subject: scene.subject.clone(),
                    policy: scene.policy.uid().to_owned(),
                    approved: job.approved.as_deref().unwrap_or_default().to_owned(),
                    age_ms: since_boot().saturating_sub(operation.seen),
                    seen_token: operation.seen_token.max(pods.lost.unwrap_or_default()),
                    ..Default::default()
                }),
                Effect::Withdraw { opened } => leases.withdraw(&uid, scene.restic_id, opened),
                Effect::Renew { token, seq } => leases.renew(&uid, scene.restic_id, token, seq),
                Effect::Release { token } => leases.release(LeaseRelease {
                    operation: uid.clone(),
                    restic_id: scene.restic_id.to_owned(),
                    token,
                    outcome: operation.outcome.clone(),
                    plan: operation.plan.clone(),
                    ..Default::default()
                }),
                Effect::Open { token } => self.open(scene, operation, token).await?,
                Effect::Shut => self.shut(scene).await?,
                Effect::Count { .. } => {
                    let pods = self.context.world.pods.group(&Key::new("", &uid));
                    for (at, pod) in pods.iter().filter(|(_, pod)| pod.is_active()) {
                        self.count_renewal(at, pod).await?;
                    }
                }
            }
        }
        Ok(())
    }
}

/// What is known of a Job's pods; of the Job itself nothing.
pub(super) fn observe_pods(world: &World, uid: &str) -> Observed {
    let job = Key::new("", uid);
    let pods = world.pods.group(&job);
    let at_work = || pods.iter().filter(|(_, pod)| pod.is_active());
    Observed {
        pods: at_work().next().is_some(),
        started: at_work().any(|(_, pod)| pod.started),
        lost: world.pods.remembered(&job),
        ..Observed::default()
    }
}

/// What an event means to a holder.
pub(super) fn input(event: &Event) -> Option<Input> {
    Some(match event {
        Event::Connected => Input::Connected,
        Event::Granted {
            token, ttl, renew, ..
        } => Input::Granted {
            token: *token,
            ttl: *ttl,
            renew: *renew,
        },
        Event::Renewed { token, seq } => Input::Renewed {
            token: *token,
            seq: *seq,
        },
        Event::Revoked { token, .. } => Input::Revoked { token: *token },
        Event::Released { token } => Input::Released { token: *token },
        Event::Away => Input::Look,
        Event::Waiting { .. } | Event::Covered { .. } | Event::Approved { .. } => return None,
    })
}
