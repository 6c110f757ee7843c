//! The way of each Job through the gate: what is seen of it and what is said about its lease go into its holder, and
//! what the holder asks for is done.

use std::collections::VecDeque;

use crds::conditions::reasons;
use crds::{GlobalRetentionPolicy, GlobalRetentionPolicyStatus, names};
use jiff::{SignedDuration, Timestamp};
use proto::v1::{LeaseAsk, LeaseRelease, RetentionOutcome, RetentionRun};
use serde_json::json;
use tracing::{info, warn};

use super::status::{self, Ended, Run};
use super::{Job, Memory, Report, RetentionKind};
use crate::apply::ApplyError;
use crate::kind::{Outcome, Turn};
use crate::maintenance::holder::{Effect, Holder, Input, Observed, Phase};
use crate::maintenance::{Claim, Event, claim};
use crate::worker::since_boot;
use crate::world::{JobView, Key, PodView, Stored as _};

/// How often the pods of a deleted policy are looked for.
const BURY_LOOK: std::time::Duration = std::time::Duration::from_millis(500);

/// A Job as its actor knows it.
pub struct Operation {
    pub(super) holder: Holder,
    /// When it was seen first, by the clock since boot.
    seen: u64,
    events: VecDeque<Event>,
    /// What it waits for, in the words of whoever grants.
    waiting: Option<String>,
    run: Option<RetentionRun>,
    outcome: Option<RetentionOutcome>,
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
            run: None,
            outcome: None,
            plan: Vec::new(),
        }
    }
}

/// One operation of one turn.
struct Scene<'a> {
    policy: &'a GlobalRetentionPolicy,
    job: &'a Job,
    restic_id: &'a str,
    source: String,
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
                let held = matches!(fresh.holder.phase(), Phase::Held(_));
                self.context.leases.note(Claim {
                    operation: uid.to_string(),
                    policy: turn.uid.to_owned(),
                    restic_id: restic_id.to_owned(),
                    token: job.view.lease.filter(|_| held).map(|l| l.token),
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
                    self.context.leases.forget(&uid);
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
                self.context.leases.forget(&uid);
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

    /// Operations whose Job is not there any more. What they held is given back when no pod of theirs is left.
    fn forget_gone(&self, memory: &mut Memory, present: &[&str], restic_id: &str) {
        let gone: Vec<Box<str>> = memory
            .operations
            .keys()
            .filter(|uid| !present.contains(&&***uid))
            .cloned()
            .collect();
        for uid in gone {
            let pods = self.context.world.pods.group(&Key::new("", &uid));
            let Some(operation) = memory.operations.get_mut(&uid) else {
                continue;
            };
            let at_work = pods.iter().any(|(_, pod)| pod.is_active());
            let observed = Observed {
                ended: !at_work,
                suspended: true,
                token: None,
                pods: at_work,
                started: false,
            };
            let inputs: Vec<Input> = operation.events.drain(..).filter_map(|e| input(&e)).collect();
            for input in inputs.into_iter().chain([Input::Look]) {
                for effect in operation.holder.step(input, observed, since_boot()) {
                    match effect {
                        Effect::Withdraw => self.context.leases.withdraw(&uid, restic_id),
                        Effect::Renew { token, seq } => {
                            self.context.leases.renew(&uid, restic_id, token, seq)
                        }
                        Effect::Release { token } => self.context.leases.release(LeaseRelease {
                            operation: uid.to_string(),
                            restic_id: restic_id.to_owned(),
                            token,
                            outcome: Some(RetentionOutcome {
                                result: "Interrupted".to_owned(),
                                reason: "JobDeleted".to_owned(),
                                message: "its Job was deleted".to_owned(),
                                ..RetentionOutcome::default()
                            }),
                            plan: Vec::new(),
                        }),
                        _ => {}
                    }
                }
            }
            if *operation.holder.phase() == Phase::Done {
                self.context.leases.forget(&uid);
                memory.operations.remove(&uid);
            }
        }
    }

    /// A policy is gone: what its Jobs wait for is withdrawn, and what they hold is given back when their pods, which
    /// Kubernetes removes with them, are gone.
    pub(super) fn bury(&self, policy: &str) {
        for claim in self.context.leases.claims(policy) {
            let context = self.context.clone();
            tokio::spawn(async move {
                let uid = claim.operation.clone();
                if let Some(token) = claim.token {
                    let pods = Key::new("", &uid);
                    while context
                        .world
                        .pods
                        .group(&pods)
                        .iter()
                        .any(|(_, pod)| pod.is_active())
                    {
                        tokio::time::sleep(BURY_LOOK).await;
                    }
                    let outcome = RetentionOutcome {
                        result: "Interrupted".to_owned(),
                        reason: "PolicyDeleted".to_owned(),
                        message: "its policy was deleted".to_owned(),
                        ..RetentionOutcome::default()
                    };
                    // Lost with a lost connection: then the lease expires.
                    context.leases.release(LeaseRelease {
                        operation: uid.clone(),
                        restic_id: claim.restic_id,
                        token,
                        outcome: Some(outcome),
                        plan: Vec::new(),
                    });
                } else {
                    context.leases.withdraw(&uid, &claim.restic_id);
                }
                context.leases.forget(&uid);
            });
        }
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
        if ["ApprovalRequired", "Preview"].contains(&outcome.result.as_str()) {
            operation.plan = self.plan_of(scene.job).await;
        }
        operation.outcome = Some(outcome.clone());
        let uid = scene.job.view.meta.uid.to_string();
        if !new.counted_jobs.contains(&uid) {
            outcome.unmatched.retain(|source| *source == scene.source);
            let run = Run {
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
                    match claim(
                        &self.context.applier,
                        &self.namespace,
                        scene.restic_id,
                        *token,
                        &uid,
                    )
                    .await
                    {
                        Ok(true) => {
                            operation.run = Some(self.run_of(scene, run.clone()));
                            operation.waiting = None;
                            self.context.leases.note(Claim {
                                operation: uid.clone(),
                                policy: scene.policy.uid().to_owned(),
                                restic_id: scene.restic_id.to_owned(),
                                token: Some(*token),
                            });
                            input(&event)
                        }
                        Ok(false) => {
                            warn!(
                                object = scene.source,
                                token,
                                "this cluster has seen a higher token for the repository: was the hub's store restored from a backup?"
                            );
                            operation.waiting = Some(format!(
                                "token {token} is not higher than one that this cluster has seen; was the hub's store restored from a backup?"
                            ));
                            Some(Input::Refused { token: *token })
                        }
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
        let pods = self.context.world.pods.group(&Key::new("", &uid));
        let at_work = || pods.iter().filter(|(_, pod)| pod.is_active());
        let observed = Observed {
            // Its result goes with the release.
            ended: operation.outcome.is_some() && at_work().next().is_none(),
            suspended: job.suspended,
            token: job.lease.map(|l| l.token),
            pods: at_work().next().is_some(),
            started: at_work().any(|(_, pod)| pod.started),
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
                }),
                Effect::Withdraw => leases.withdraw(&uid, scene.restic_id),
                Effect::Renew { token, seq } => leases.renew(&uid, scene.restic_id, token, seq),
                Effect::Release { token } => leases.release(LeaseRelease {
                    operation: uid.clone(),
                    restic_id: scene.restic_id.to_owned(),
                    token,
                    outcome: operation.outcome.clone(),
                    plan: operation.plan.clone(),
                }),
                Effect::Open { token } => self.open(scene, operation, token).await?,
                Effect::Shut => {
                    info!(object = scene.source, job = %scene.job.key, "the lease is lost: the Job is shut");
                    self.patch_job(scene, &json!({ "spec": { "suspend": true } }))
                        .await?;
                }
                Effect::Count { .. } => {
                    for (at, pod) in at_work() {
                        self.count_renewal(at, pod).await?;
                    }
                }
            }
        }
        Ok(())
    }

    /// What to do under a grant: what the hub says, or without one the policies of this cluster.
    fn run_of(&self, scene: &Scene<'_>, run: Option<RetentionRun>) -> RetentionRun {
        run.unwrap_or_else(|| RetentionRun {
            restic_id: scene.restic_id.to_owned(),
            policies: self.own_policies(scene.restic_id),
            clusters: vec![self.context.cluster.clone()],
            approved: scene.job.view.approved.as_deref().unwrap_or_default().to_owned(),
        })
    }

    /// Opens the gate: one patch with the token, the lease's life and what to do.
    async fn open(&self, scene: &Scene<'_>, operation: &Operation, token: u64) -> Result<(), ApplyError> {
        let Phase::Held(lease) = operation.holder.phase() else {
            return Ok(());
        };
        let Some(run) = &operation.run else {
            return Ok(());
        };
        let run = serde_json::to_string(run).map_err(|e| ApplyError::Invalid(e.to_string()))?;
        info!(object = scene.source, job = %scene.job.key, token, "the maintenance gate is opened");
        let annotations = json!({
            names::ANNOTATION_TOKEN: token.to_string(),
            names::ANNOTATION_LEASE_TTL: lease.ttl.to_string(),
            names::ANNOTATION_LEASE_RENEW: lease.renew.to_string(),
            names::ANNOTATION_RENEWALS: "0",
            names::ANNOTATION_RETENTION_RUN: run,
        });
        let patch = json!({ "spec": { "suspend": false, "template": { "metadata": { "annotations": annotations } } } });
        self.patch_job(scene, &patch).await
    }

    async fn patch_job(&self, scene: &Scene<'_>, patch: &serde_json::Value) -> Result<(), ApplyError> {
        let at = &scene.job.key;
        match self
            .context
            .applier
            .merge::<k8s_openapi::api::batch::v1::Job>(at, patch)
            .await
        {
            Ok(written) => {
                self.context
                    .world
                    .jobs
                    .put(at.clone(), std::sync::Arc::new(JobView::of(&written)));
                Ok(())
            }
            // Its end is on its way through the watch.
            Err(ApplyError::Gone(_)) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Tells a pod that the lease was renewed.
    async fn count_renewal(&self, at: &Key, pod: &PodView) -> Result<(), ApplyError> {
        let next = pod.renewals + 1;
        let patch =
            json!({ "metadata": { "annotations": { names::ANNOTATION_RENEWALS: next.to_string() } } });
        match self
            .context
            .applier
            .merge::<k8s_openapi::api::core::v1::Pod>(at, &patch)
            .await
        {
            Ok(written) => {
                self.context
                    .world
                    .pods
                    .put(at.clone(), std::sync::Arc::new(PodView::of(&written)));
                Ok(())
            }
            Err(ApplyError::Gone(_)) => Ok(()),
            Err(error) => Err(error),
        }
    }
}

/// What an event means to a holder.
fn input(event: &Event) -> Option<Input> {
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
