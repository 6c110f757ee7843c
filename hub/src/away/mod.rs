//! A policy whose cluster is away is run by another cluster that is bound to the repository. [`facts`] shows what there is
//! (pure), [`decide`] chooses (pure), [`order`] makes the command (pure); this looks at intervals and gives it. What the
//! cluster then does is a run like any other: under the lock, with all policies, guard and approval.

pub mod decide;
pub mod facts;
pub mod order;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use prost::Message as _;
use proto::v1::LeaseAsk;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use self::decide::{Repository, Run, decide};
use crate::commands::{Record, State};
use crate::hub::{Hub, millis};
use crate::lock::is_conclusive;
use crate::store::{AuditQuery, StoreError, StoredAudit, StoredPlan};
use crate::{Millis, now};

/// How often it is looked, unless policies are run after a shorter time.
const LOOK: Duration = Duration::from_secs(30);
/// Runs of a repository that are read at most.
const RUNS: u32 = 50;
/// Times at which a policy was due that are gone through in one look.
const TIMES: usize = 100;

/// Looks for policies that another cluster is to run.
pub struct Away {
    hub: Arc<Hub>,
    /// How long a policy must have been due, and its cluster away.
    after: Duration,
    /// When the repository last had a run, or one was asked for, as far as was looked up.
    ran: HashMap<Arc<str>, Millis>,
    /// For which time it was last asked for a run of a repository, and how many requests of that time did not begin in time.
    attempts: HashMap<Arc<str>, (Millis, u32)>,
}

impl Away {
    /// With what a hub keeps.
    #[must_use]
    pub fn new(hub: Arc<Hub>, after: Duration) -> Away {
        Away {
            hub,
            after,
            ran: HashMap::new(),
            attempts: HashMap::new(),
        }
    }

    /// Looks until `stop`.
    ///
    /// # Errors
    /// When another process has taken the store over.
    pub async fn keep(mut self, stop: CancellationToken) -> Result<(), StoreError> {
        let mut look = interval((self.after / 4).clamp(Duration::from_millis(100), LOOK));
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = look.tick() => {}
                () = stop.cancelled() => return Ok(()),
            }
            match self.look().await {
                Err(fenced) if fenced.is_fenced() => return Err(fenced),
                Err(error) => warn!(%error, "policies of clusters that are away could not be looked at"),
                Ok(()) => {}
            }
        }
    }

    async fn look(&mut self) -> Result<(), StoreError> {
        // Nothing would be granted; when that ends, it is looked again.
        if self.hub.paused().is_some() {
            return Ok(());
        }
        let after = millis(self.after);
        let found = self
            .hub
            .look(move |inventory| facts::repositories(inventory, after))
            .await;
        let Ok(found) = found else {
            return Ok(());
        };
        let is_found = |id: &Arc<str>| found.iter().any(|of| of.id == *id);
        self.ran.retain(|id, _| is_found(id));
        self.attempts.retain(|id, _| is_found(id));
        for repository in found {
            self.tend(&repository, after).await?;
        }
        Ok(())
    }

    /// Gives the command that is due for a repository.
    async fn tend(&mut self, repository: &Repository, after: Millis) -> Result<(), StoreError> {
        let id = &repository.id;
        let known = self.ran.get(id).copied().unwrap_or(Millis::MIN);
        // The store is asked only when something seems to be due.
        if decide(repository, known, after, now()).is_none() {
            return Ok(());
        }
        let mut ran = known.max(self.last_run(repository).await?);
        let (mut settled, mut open) = (ran, false);
        for _ in 0..TIMES {
            let Some(run) = decide(repository, ran, after, now()) else {
                break;
            };
            match self.asked(&run).await? {
                Asked::At { time, ended } => {
                    ran = time.max(run.due);
                    // Of one that is open it is not known whether it begins in time.
                    open |= !ended;
                    if !open {
                        settled = ran;
                    }
                }
                Asked::Not(attempt) => {
                    self.give(&run, attempt).await?;
                    break;
                }
            }
        }
        self.ran.insert(id.clone(), settled);
        Ok(())
    }

    /// Whether a run was asked for, whatever came of it. One that did not begin in time is asked for again while it is due: its
    /// storage may have had no place for it.
    async fn asked(&mut self, run: &Run) -> Result<Asked, StoreError> {
        let known = self.attempts.get(&run.repository);
        let mut attempt = known
            .filter(|(due, _)| *due == run.due)
            .map_or(0, |(_, attempt)| *attempt);
        loop {
            let request = order::request(run, attempt);
            match self.hub.store().command_of(&request).await? {
                Some(asked) if asked.state == State::Expired => attempt += 1,
                Some(asked) => {
                    return Ok(Asked::At {
                        time: asked.created,
                        ended: asked.ended.is_some(),
                    });
                }
                None => break,
            }
        }
        self.attempts.insert(run.repository.clone(), (run.due, attempt));
        Ok(Asked::Not(attempt))
    }

    /// When the last run of a repository began that counts for all its policies: one that is under way, or has come to a result.
    async fn last_run(&self, repository: &Repository) -> Result<Millis, StoreError> {
        let since = repository.policies.iter().map(|policy| policy.since).min();
        let query = AuditQuery {
            of: Some(vec![repository.id.to_string()]),
            since: since.unwrap_or_default(),
            limit: RUNS,
            ..AuditQuery::default()
        };
        let store = self.hub.store();
        let mut last = Millis::MIN;
        for run in store.audit(query).await?.iter().filter(|run| counts(run)) {
            if run.granted <= last {
                continue;
            }
            let ask = store.asked(&repository.id, run.token).await?.unwrap_or_default();
            // Nothing is carried out of a preview that a person asked for.
            if !LeaseAsk::decode(ask.as_slice()).unwrap_or_default().preview {
                last = run.granted;
            }
        }
        Ok(last)
    }

    /// Gives the command of a run, and those of plans that were approved: a plan that is not as it was approved any more ends
    /// its own run alone.
    async fn give(&self, run: &Run, attempt: u32) -> Result<(), StoreError> {
        for plan in self.approved(run).await? {
            let given = plan.decided.unwrap_or(plan.made);
            self.submit(order::of_approval(
                &run.repository,
                &run.by,
                &plan.hash,
                given,
                now(),
            ))
            .await;
        }
        info!(repository = %run.repository, policy = run.source, cluster = %run.by.cluster, due = run.due,
              "a policy is due whose cluster is away: another cluster runs it");
        self.submit(order::of_run(run, attempt, now())).await;
        Ok(())
    }

    async fn submit(&self, record: Option<Record>) {
        let Some(record) = record else { return };
        // It is tried again with the next look.
        if let Err(status) = self.hub.commands.submit(record).await {
            warn!(
                reason = status.message(),
                "a run for a cluster that is away could not be asked for"
            );
        }
    }

    /// Plans of the repository that the cluster which is away has made, that a person has approved and nobody has carried out.
    /// Those of connected clusters reach them anyway.
    async fn approved(&self, run: &Run) -> Result<Vec<StoredPlan>, StoreError> {
        let away = run.source.split('/').next().unwrap_or_default();
        let plans = self.hub.store().approved(away).await?.into_iter();
        Ok(plans.filter(|plan| plan.restic_id == *run.repository).collect())
    }
}

/// Whether a run was asked for.
enum Asked {
    /// When, and whether it has come to its end.
    At { time: Millis, ended: bool },
    /// It is not, or did not begin in time; the number of the next request.
    Not(u32),
}

/// Whether a run counts for the policies that took part: it is under way, or has come to a result. Other operations have no
/// policies.
fn counts(run: &StoredAudit) -> bool {
    !run.policies.is_empty() && (run.ended.is_none() || is_conclusive(run.outcome.as_deref()))
}
