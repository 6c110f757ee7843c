//! A policy whose cluster is away is run by another cluster that is bound to the repository. [`facts`] shows what there is
//! (pure), [`decide`] chooses (pure), [`order`] makes the command (pure); this looks at intervals and gives it. What the
//! cluster then does is a run like any other: under the lock, with all policies, guard and approval.

pub mod decide;
pub mod facts;
pub mod order;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use self::decide::{Repository, Run, decide};
use crate::hub::{Hub, millis};
use crate::lock::is_conclusive;
use crate::store::{AuditQuery, StoreError, StoredAudit};
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
}

impl Away {
    /// With what a hub keeps.
    #[must_use]
    pub fn new(hub: Arc<Hub>, after: Duration) -> Away {
        Away {
            hub,
            after,
            ran: HashMap::new(),
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
        self.ran.retain(|id, _| found.iter().any(|of| of.id == *id));
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
        for _ in 0..TIMES {
            let Some(run) = decide(repository, ran, after, now()) else {
                break;
            };
            match self.hub.store().command_of(&order::request(&run)).await? {
                // It was asked for then, whatever came of it.
                Some(asked) => ran = asked.created.max(run.due),
                None => {
                    self.give(&run).await?;
                    break;
                }
            }
        }
        self.ran.insert(id.clone(), ran);
        Ok(())
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
        let runs = self.hub.store().audit(query).await?;
        let counting = runs.iter().filter(|run| counts(run));
        Ok(counting.map(|run| run.granted).max().unwrap_or(Millis::MIN))
    }

    async fn give(&self, run: &Run) -> Result<(), StoreError> {
        let approved = self.approved(run).await?;
        let Some(record) = order::of_run(run, approved, now()) else {
            return Ok(());
        };
        info!(repository = %run.repository, policy = run.source, cluster = %run.by.cluster, due = run.due,
              "a policy is due whose cluster is away: another cluster runs it");
        // It is tried again with the next look.
        if let Err(status) = self.hub.commands.submit(record).await {
            warn!(
                reason = status.message(),
                "a run for a cluster that is away could not be asked for"
            );
        }
        Ok(())
    }

    /// Hash of a plan of the repository that a person has approved and nobody has carried out: of the cluster that is away, or
    /// of the one that runs in its place. Empty for none.
    async fn approved(&self, run: &Run) -> Result<String, StoreError> {
        let away = run.source.split('/').next().unwrap_or_default();
        for cluster in [away, &run.by.cluster] {
            let plans = self.hub.store().approved(cluster).await?;
            if let Some(plan) = plans.into_iter().find(|plan| plan.restic_id == *run.repository) {
                return Ok(plan.hash);
            }
        }
        Ok(String::new())
    }
}

/// Whether a run counts for the policies that took part: it is under way, or has come to a result. Other operations have no
/// policies.
fn counts(run: &StoredAudit) -> bool {
    !run.policies.is_empty() && (run.ended.is_none() || is_conclusive(run.outcome.as_deref()))
}
