//! The last run of a repository before this start of the hub, for operations that have waited since before it: one that was
//! made before that run began needs none of its own.

use std::sync::Arc;

use prost::Message as _;
use proto::v1::{LeaseAsk, OperationOutcome};

use super::asks::signed;
use super::keeper::{Keeper, Recent};
use super::run::is_conclusive;
use crate::now as wall_clock;
use crate::store::{AuditQuery, StoreError};

/// Entries of the audit that are read: other operations may have followed the run.
const ENTRIES: u32 = 50;

impl Keeper {
    /// Reads it, once.
    pub(super) async fn recall_run(&mut self, id: &Arc<str>) {
        let repository = self.repository(id);
        if repository.recent.is_some() || repository.recalled {
            return;
        }
        match self.last_run(id).await {
            Ok(recent) => {
                let repository = self.repository(id);
                (repository.recent, repository.recalled) = (recent, true);
            }
            // Without it an operation has a run of its own.
            Err(error) => self.failed(error, "the last run of a repository could not be read"),
        }
    }

    async fn last_run(&self, id: &Arc<str>) -> Result<Option<Recent>, StoreError> {
        let query = AuditQuery {
            of: Some(vec![id.to_string()]),
            limit: ENTRIES,
            ..AuditQuery::default()
        };
        for run in self.store.audit(query).await? {
            let outcome = run.outcome.as_deref().map(OperationOutcome::decode);
            let Some(Ok(outcome)) = outcome.filter(|_| !run.policies.is_empty()) else {
                continue;
            };
            if !is_conclusive(&outcome.result) {
                continue;
            }
            let ask = self.store.asked(id, run.token).await?.unwrap_or_default();
            let ask = LeaseAsk::decode(ask.as_slice()).unwrap_or_default();
            // Nothing is carried out of a preview that a person asked for.
            if ask.preview {
                continue;
            }
            let age = wall_clock().saturating_sub(run.granted).max(0);
            return Ok(Some(Recent {
                started: signed(self.now()).saturating_sub(age),
                token: run.token,
                by: format!("{}: {}", run.cluster, run.subject),
                policy: ask.policy,
                policies: run.policies,
                shows: None,
                outcome,
            }));
        }
        Ok(None)
    }
}
