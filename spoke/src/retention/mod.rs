//! GlobalRetentionPolicy: a CronJob whose Jobs are born suspended, a lease for each, and a status that tells what came
//! of it. What a run does is not this policy alone: all policies of all clusters that are bound to the same physical
//! repository make one plan.

mod act;
mod build;
mod owner;
pub(crate) mod policies;
mod runs;
mod status;
mod validate;

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;

use crds::conditions::{self, Status, reasons, types};
use crds::{GlobalRetentionPolicy, GlobalRetentionPolicyStatus, ResticRepository, names};
use jiff::{SignedDuration, Timestamp};
use proto::v1::{Baseline, RetentionPolicySpec};

use crate::apply::ApplyError;
use crate::children;
use crate::config::Config;
use crate::consent::{self, Blocked};
use crate::context::Context;
use crate::kind::{Kind, Outcome, Turn};
use crate::maintenance::Event;
use crate::world::{Key, Stored as _};

pub use owner::RetentionOwner;
use validate::Valid;

/// Finalizer of the original operator.
const COMPAT_FINALIZER: &str = "backup.resticbackup.io/globalretentionpolicy-finalizer";

/// The kind, and what its actors share.
pub struct RetentionKind {
    context: Arc<Context>,
    /// Image of the maintenance pods.
    image: String,
    /// How long a run waits for restic's lock of others.
    retry_lock: String,
}

/// What an actor remembers. Losing it costs a question: everything that matters is in the Jobs and with the grantor.
#[derive(Default)]
pub struct Memory {
    listening: bool,
    /// Hashes of plans that were approved at the hub, each with the restic id. The hub sends them again in each session
    /// until a run under them was granted.
    approvals: BTreeSet<(String, String)>,
}

/// What comes back to an actor.
pub enum Report {
    /// A plan was approved at the hub: its hash, and the restic id.
    Approved { hash: String, restic_id: String },
    /// An operation of the policy has moved.
    Operation,
}

impl RetentionKind {
    /// A kind on a context.
    #[must_use]
    pub fn new(context: Arc<Context>, config: &Config) -> RetentionKind {
        RetentionKind {
            context,
            image: config.image.clone(),
            retry_lock: config.maintenance_retry_lock.clone(),
        }
    }

    /// uids of the Jobs of this policy, those of a deleted namesake excepted.
    fn jobs(&self, key: &Key) -> BTreeSet<String> {
        let world = &self.context.world;
        let at = Key::new(&key.namespace, names::retention_cron_job(&key.name));
        let owner = world.cron_jobs.get(&at).map(|c| c.meta.uid.clone());
        let label = Key::new(&key.namespace, names::label_value(&key.name));
        let jobs = world.jobs.group(&label).into_iter();
        let jobs = jobs.filter(|(_, job)| owner.is_some() && job.meta.owner == owner);
        jobs.map(|(_, job)| job.meta.uid.to_string()).collect()
    }

    /// Subscribes to what concerns the policy, and takes an approval in.
    fn subscribe(&self, turn: &mut Turn<'_, Self>) {
        if !turn.memory.listening {
            turn.memory.listening = true;
            let reporter = turn.reporter.clone();
            self.context.leases.listen_policy(turn.uid, move |event| {
                if let Event::Approved { hash, restic_id } = event {
                    reporter.send(Report::Approved { hash, restic_id });
                }
            });
            let reporter = turn.reporter.clone();
            self.context
                .operations
                .listen(turn.uid, move || reporter.send(Report::Operation));
        }
        if let Some(Report::Approved { hash, restic_id }) = turn.report.take() {
            turn.memory.approvals.insert((hash, restic_id));
        }
    }

    /// The policies of this cluster that are bound to a physical repository, as a run without a hub takes them.
    pub(crate) fn own_policies(&self, restic_id: &str) -> Vec<RetentionPolicySpec> {
        let world = &self.context.world;
        let bound = |repository: &Key| {
            let repository = world.repositories.get(repository);
            repository
                .and_then(|r| r.status.as_ref()?.repository_id.clone())
                .as_deref()
                == Some(restic_id)
        };
        let all = world.policies.filter(|_, _| true).into_iter();
        let mut policies: Vec<RetentionPolicySpec> = all
            .filter_map(|(key, policy)| {
                let reference = &policy.spec.repository_ref;
                let at = Key::new(reference.namespace_or(&key.namespace), &reference.name);
                let spec = || policies::spec_of(&key, &policy, &self.context.cluster, restic_id);
                bound(&at).then(spec)
            })
            .collect();
        policies.sort_by(|a, b| a.source.cmp(&b.source));
        policies
    }

    /// What the last applied run left, as the policies of this cluster know it: the guard of a run without a hub.
    pub(crate) fn own_baseline(&self, restic_id: &str) -> Vec<Baseline> {
        let own: HashSet<String> = self.own_policies(restic_id).into_iter().map(|p| p.uid).collect();
        let all = self.context.world.policies.filter(|_, _| true).into_iter();
        let newest = all
            .filter(|(_, policy)| own.contains(policy.uid()))
            .filter_map(|(_, policy)| policy.status.clone())
            .filter(|status| !status.left.is_empty())
            .max_by_key(|status| status.last_run.as_ref().map(|time| time.0));
        let left = newest.map(|status| status.left).unwrap_or_default();
        left.into_iter()
            .map(|left| Baseline {
                key: left.key,
                left: u32::try_from(left.snapshots).unwrap_or_default(),
            })
            .collect()
    }

    /// Name of a policy in the fleet.
    pub(crate) fn source(&self, key: &Key) -> String {
        format!("{}/{key}", self.context.cluster)
    }
}

/// A policy as a run takes it, without its source: the hub knows the name of the cluster.
#[must_use]
pub fn policy_spec(key: &Key, policy: &GlobalRetentionPolicy, restic_id: &str) -> RetentionPolicySpec {
    RetentionPolicySpec {
        source: String::new(),
        ..policies::spec_of(key, policy, "", restic_id)
    }
}

impl Kind for RetentionKind {
    type Memory = Memory;
    type Report = Report;
    const NAME: &'static str = "GlobalRetentionPolicy";

    fn uid(&self, key: &Key) -> Option<String> {
        self.context.world.policies.get(key).map(|p| p.uid().to_owned())
    }

    fn keys(&self) -> Vec<Key> {
        self.context.world.policies.keys()
    }

    async fn turn(&self, mut turn: Turn<'_, Self>) -> Outcome {
        let (key, now) = (turn.key, turn.now);
        let world = &self.context.world;
        let Some(policy) = world.policies.get(key).filter(|p| p.uid() == turn.uid) else {
            return Outcome::default();
        };
        if policy.metadata.deletion_timestamp.is_some() {
            return children::release(&self.context, key, &*policy, COMPAT_FINALIZER).await;
        }
        self.subscribe(&mut turn);
        let old = policy.status.clone().unwrap_or_default();
        let mut new = old.clone();
        let mut failed = false;
        let mut next = None;
        let reference = &policy.spec.repository_ref;
        let at = Key::new(reference.namespace_or(&key.namespace), &reference.name);
        let restic_id = world
            .repositories
            .get(&at)
            .and_then(|r| r.status.as_ref()?.repository_id.clone());
        let fingerprint =
            restic_id.map(|id| policies::spec_of(key, &policy, &self.context.cluster, &id).fingerprint);
        status::adopt_preview(&mut new, &policy, fingerprint);
        // Results first: what they say of an approval decides what is made.
        let operations = self.context.operations.of(turn.uid);
        runs::record(
            &mut new,
            &policy,
            &operations,
            &self.jobs(key),
            &self.source(key),
            now,
        );
        match validate::validate(key, &policy) {
            Err(error) => {
                ready(
                    &mut new,
                    &policy,
                    Status::False,
                    error.reason(),
                    &error.to_string(),
                    now,
                );
                new.next_run = None;
                if consent::ended(world, key, &policy.spec.repository_ref) {
                    failed |= self.withdraw(key).await.is_err();
                }
            }
            Ok(valid) => {
                next = self
                    .carry_out(&mut turn, &policy, &valid, &mut new, &mut failed)
                    .await;
            }
        }
        failed |= self.finish(key, &policy, &old, &new).await.is_err();
        // Their results are recorded now, or they find that the policy refers to something else.
        self.context.operations.wake(turn.uid);
        Outcome { next, failed }
    }

    fn gone(&self, _: &Key, uid: &str) {
        self.context.leases.forget_policy(uid);
        self.context.operations.forget_owner(uid);
    }

    async fn crashed(&self, key: &Key, uid: &str, failures: u32) {
        let Some(policy) = self.context.world.policies.get(key).filter(|p| p.uid() == uid) else {
            return;
        };
        let old = policy.status.clone().unwrap_or_default();
        let mut new = old.clone();
        let text =
            format!("the controller of this resource crashed {failures} times in a row; its log says why");
        ready(
            &mut new,
            &policy,
            Status::False,
            reasons::CRASHED,
            &text,
            self.context.clock.now(),
        );
        let _ = self
            .context
            .write_status(&self.context.world.policies, key, uid, &old, &new)
            .await;
    }
}

impl RetentionKind {
    /// Decides on a valid spec, and makes what follows. Returns when the schedule is due.
    async fn carry_out(
        &self,
        turn: &mut Turn<'_, Self>,
        policy: &GlobalRetentionPolicy,
        valid: &Valid,
        new: &mut GlobalRetentionPolicyStatus,
        failed: &mut bool,
    ) -> Option<Timestamp> {
        let (key, now) = (turn.key, turn.now);
        let world = &self.context.world;
        let labels = world.namespaces.get(&Key::new("", &key.namespace));
        let labels = labels.map(|n| n.labels.clone()).unwrap_or_default();
        let repository = world.repositories.get(&valid.repository);
        let usable = consent::usable(&valid.repository, &key.namespace, repository.as_deref(), &labels);
        let repository: &ResticRepository = match usable {
            Ok(repository) => repository,
            Err(blocked) => {
                let (reason, message, refused) = match blocked {
                    Blocked::Wait { reason, message } => (reason, message, false),
                    Blocked::Refused { message } => (reasons::NAMESPACE_NOT_ALLOWED, message, true),
                };
                self.repository_ready(new, policy, false, reason, &message, now);
                ready(new, policy, Status::False, reason, &message, now);
                if refused || consent::ended(world, key, &policy.spec.repository_ref) {
                    *failed |= self.withdraw(key).await.is_err();
                    new.next_run = None;
                }
                return None;
            }
        };
        self.repository_ready(
            new,
            policy,
            true,
            reasons::REPOSITORY_READY,
            "the repository is ready",
            now,
        );
        let id = repository
            .status
            .as_ref()
            .and_then(|s| s.repository_id.as_deref());
        match self.allowed(id.unwrap_or_default(), new).await {
            Ok(Ok(())) => {}
            Ok(Err((reason, text))) => {
                ready(new, policy, Status::False, reason, &text, now);
                let cron_job = Key::new(&key.namespace, names::retention_cron_job(&key.name));
                *failed |= children::suspend(&self.context, cron_job).await.is_err();
                new.next_run = None;
                return None;
            }
            Err(error) => {
                *failed |= !matches!(error, ApplyError::NotLeader);
                return None;
            }
        }
        match self.ensure(turn, policy, valid, repository, new).await {
            Ok(()) => {
                let mut text = if valid.suspend {
                    "suspended: no runs; snapshots this policy keeps remain protected".to_owned()
                } else {
                    format!("scheduled: {} ({})", valid.cron, valid.timezone)
                };
                if !self.context.leases.is_shared() {
                    text.push_str("; no hub is configured: the lock covers this cluster only");
                }
                if !valid.without_effect.is_empty() {
                    text = format!("{text}; not in effect yet: {}", valid.without_effect.join(", "));
                }
                ready(
                    new,
                    policy,
                    Status::True,
                    reasons::RETENTION_CONFIGURED,
                    &text,
                    now,
                );
            }
            Err(ApplyError::NotLeader) => {}
            Err(error) => {
                *failed = true;
                let refused = matches!(error, ApplyError::Invalid(_) | ApplyError::Forbidden(_));
                if refused || conditions::get(&new.conditions, types::READY).is_none() {
                    let reason = if refused {
                        reasons::CRON_JOB_FAILED
                    } else {
                        reasons::API_ERROR
                    };
                    ready(new, policy, Status::False, reason, &error.to_string(), now);
                }
            }
        }
        let at = Key::new(&key.namespace, names::retention_cron_job(&key.name));
        let last = world.cron_jobs.get(&at)?.last_schedule;
        new.next_run = crate::backup::next(&valid.schedule, valid.suspend, last, now);
        let due = new.next_run.as_ref()?;
        due.0.checked_add(SignedDuration::from_secs(1)).ok()
    }

    /// Whether this cluster may do maintenance on a repository; otherwise the reason, and a sentence.
    async fn allowed(
        &self,
        restic_id: &str,
        status: &GlobalRetentionPolicyStatus,
    ) -> Result<Result<(), (&'static str, String)>, ApplyError> {
        let context = &self.context;
        if let Some(text) = context.certificate.differs(&status.conditions, types::READY) {
            return Ok(Err((reasons::CLUSTER_NAME_DIFFERS, text)));
        }
        let allowed = context.shared.allowed(context, restic_id).await?;
        Ok(allowed.map_err(|text| (reasons::HUB_REQUIRED, text)))
    }

    fn repository_ready(
        &self,
        status: &mut GlobalRetentionPolicyStatus,
        policy: &GlobalRetentionPolicy,
        value: bool,
        reason: &str,
        text: &str,
        now: Timestamp,
    ) {
        let generation = policy.metadata.generation;
        conditions::set(
            &mut status.conditions,
            types::REPOSITORY_READY,
            value.into(),
            reason,
            text,
            generation,
            now,
        );
    }
}

/// Condition Ready.
fn ready(
    status: &mut GlobalRetentionPolicyStatus,
    policy: &GlobalRetentionPolicy,
    value: Status,
    reason: &str,
    text: &str,
    now: Timestamp,
) {
    status.observed_generation = policy.metadata.generation;
    let generation = policy.metadata.generation;
    conditions::set(
        &mut status.conditions,
        types::READY,
        value,
        reason,
        text,
        generation,
        now,
    );
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::context::test_context;

    #[tokio::test]
    async fn a_name_that_differs_from_the_certificates_stops_maintenance_and_names_both() {
        let kind = RetentionKind {
            context: test_context(),
            image: String::new(),
            retry_lock: String::new(),
        };
        let status = GlobalRetentionPolicyStatus::default();
        assert_eq!(kind.allowed("id", &status).await.unwrap(), Ok(()));
        kind.context.certificate.welcomed("b");
        let (reason, text) = kind.allowed("id", &status).await.unwrap().unwrap_err();
        assert_eq!(reason, "ClusterNameDiffers");
        assert!(text.contains("\"a\"") && text.contains("\"b\""), "{text}");
    }
}
