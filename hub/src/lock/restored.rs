//! A store that was restored from a copy has forgotten grants. It shows by its age, or by a cluster that has seen more
//! than the store knows. Nothing is granted then until every lease that may have been forgotten has run out.

use std::sync::Arc;

use proto::time::from_unix_millis;
use tracing::warn;

use super::SeenHub;
use super::grantor::{Grant, Operation};
use super::keeper::{Keeper, Reply};
use crate::authorize::Refusal;
use crate::now as wall_clock;
use crate::store::copy::PutBack;
use crate::store::{Age, StoreError, StoredAudit, StoredDecision};

/// No hub has started so often since a store was copied that this difference is honest.
const EPOCHS: u64 = 1_000_000;

impl Keeper {
    /// Judges the store by its age, before anything is granted.
    pub(super) async fn judge_age(&mut self) {
        match self.store.put_back().await {
            Ok(None) => {}
            Ok(Some(put_back)) => self.note_put_back(put_back).await,
            Err(error) => self.failed(
                error,
                "whether the store was put back from a backup could not be read",
            ),
        }
        // An age that is not known is not a young one.
        let age = match self.store.age().await {
            Ok(age) => Some(age),
            Err(error) => {
                self.failed(error, "the age of the store could not be read");
                None
            }
        };
        // A store that is used for the first time has granted nothing.
        if self.hub.epoch > 1 {
            let now = wall_clock();
            let unsigned = |time: i64| u64::try_from(time).unwrap_or_default();
            let terms = self.settings.terms;
            let outdated = age.is_none_or(|age| {
                terms.is_outdated(unsigned(age.alive), unsigned(now)) || now < age.waits_until
            });
            if outdated {
                warn!(
                    "no hub worked on this store for longer than a lease lives, so it may be an older copy: nothing is granted until every lease that it may have lost has run out"
                );
                self.wait_for_the_forgotten().await;
            }
        }
        self.sign_of_life().await;
    }

    /// Notes in the audit that the store was put back: what is missing in it between the two times was never decided.
    async fn note_put_back(&mut self, PutBack { at, made }: PutBack) {
        let made = from_unix_millis(made).to_string();
        warn!(%made, "the store was put back from a backup: nothing is granted until every lease that it may have lost has run out");
        let decision = StoredDecision {
            at,
            who: "fleet-hub restore".to_owned(),
            what: "restore-store".to_owned(),
            subject: "store of the hub".to_owned(),
            after: format!("as of {made}"),
            ..StoredDecision::default()
        };
        if let Err(error) = self.store.note_put_back(decision).await {
            self.failed(error, "the audit misses that the store was put back");
        }
    }

    /// Enters a grant that the store has lost into the audit. Returns whether it is there.
    pub(super) async fn note_forgotten(&mut self, id: &Arc<str>, operation: &Operation, token: u64) -> bool {
        self.enter(id, operation, token).await.is_ok()
    }

    /// The grant of an operation that has ended, if the store has lost it; the audit has it then.
    pub(super) async fn forgotten(
        &mut self,
        id: &Arc<str>,
        operation: &Operation,
        token: u64,
    ) -> Result<Option<Grant>, ()> {
        let (now, floor) = (self.now(), self.hub.token_floor);
        // What is granted after a restore is above the floor.
        let lost = token <= floor || self.repository(id).grantor.is_forgotten(token, now);
        let entered = lost && token > 0 && self.enter(id, operation, token).await?;
        Ok(entered.then(|| Grant {
            operation: operation.clone(),
            token,
            since: now,
        }))
    }

    /// Whether the audit has an entry of this operation that has not ended: a new one if the token has none.
    async fn enter(&mut self, id: &Arc<str>, operation: &Operation, token: u64) -> Result<bool, ()> {
        let subject = match &*operation.subject {
            "" => "not known: granted before the store was put back",
            subject => subject,
        };
        let audit = StoredAudit {
            restic_id: id.to_string(),
            token,
            cluster: operation.cluster.to_string(),
            operation: operation.id.to_string(),
            subject: subject.to_owned(),
            granted: wall_clock(),
            ..StoredAudit::default()
        };
        let entered = self.store.note_forgotten(audit).await;
        entered.map_err(|error: StoreError| {
            self.failed(error, "the audit misses a grant that the store has lost");
        })
    }

    /// Notes that this hub works on the store. A hub that cannot read its store answers no renewals: another one may have
    /// taken it over.
    pub(super) async fn look(&mut self) {
        let due = self.signed + self.settings.terms.ttl / 4;
        if self.now() >= due {
            return self.sign_of_life().await;
        }
        let read = self.store.verify().await;
        self.blind = read.is_err();
        if let Err(error) = read {
            self.failed(error, "the store could not be read");
        }
    }

    async fn sign_of_life(&mut self) {
        let terms = self.settings.terms;
        let left = self
            .restored
            .map(|at| (at + terms.expiry() + terms.delay).saturating_sub(self.now()));
        let now = wall_clock();
        let left = left.map_or(0, |left| i64::try_from(left).unwrap_or(i64::MAX / 2));
        self.hub.metrics.restored.set(i64::from(left > 0));
        let age = Age {
            alive: now,
            waits_until: if left > 0 { now + left } else { 0 },
        };
        let written = self.store.keep_age(age).await;
        self.blind = written.is_err();
        match written {
            Ok(()) => self.signed = self.now(),
            Err(error) => self.failed(error, "the store could not be written"),
        }
    }

    async fn wait_for_the_forgotten(&mut self) {
        let (now, terms) = (self.now(), self.settings.terms);
        self.restored = Some(now);
        self.hub.creations(|creations, now| creations.pause(now));
        let ids: Vec<Arc<str>> = self.repositories.keys().cloned().collect();
        for id in ids {
            if let Some(repository) = self.repositories.get_mut(&id) {
                let effects = repository.grantor.store_restored(now, &terms);
                self.carry_out(&id, effects, Reply::default()).await;
            }
        }
        self.signed = 0;
    }

    /// What a cluster has seen of the hub shows whether the store is an older copy, or another one. It is believed once
    /// in each run of the hub: it costs the fleet a wait, and must not be a way to keep everybody waiting.
    pub(super) async fn compare(&mut self, cluster: &Arc<str>, (incarnation, epoch): SeenHub) {
        let same = incarnation == self.hub.incarnation;
        if incarnation.is_empty() || (same && epoch <= self.hub.epoch) {
            return;
        }
        if same && epoch > self.hub.epoch.saturating_add(EPOCHS) {
            return self.refuse(cluster, "hello", Refusal::Restore);
        }
        // Also when it is known already: the next start must not find out anew.
        if same && let Err(error) = self.store.raise_epoch(epoch).await {
            return self.failed(error, "the epoch could not be raised");
        }
        if self.restored.is_some() {
            return;
        }
        if same {
            warn!(%cluster, seen = epoch, epoch = self.hub.epoch, "this store was restored from a backup: nothing is granted until every lease that it may have lost has run out");
        } else {
            warn!(%cluster, seen = incarnation, incarnation = self.hub.incarnation, "this store is not the one that the cluster has seen: nothing is granted until every lease of the other hub has run out");
        }
        self.wait_for_the_forgotten().await;
        self.sign_of_life().await;
    }
}
