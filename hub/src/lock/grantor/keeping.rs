//! What is kept of a lock: read at a start, due with each change, and perhaps not kept.

use super::{Effect, Grant, Grantor, Holder, Instant, Phase, Record, Terms};

impl Grantor {
    /// A lock as it was kept, after a start of the hub. Renewals are not kept, so a holder gets a full lifetime to come
    /// back, a delay starts anew, and a free lock is granted to nobody for a lifetime.
    #[must_use]
    pub fn restored(record: Record, now: Instant, terms: &Terms) -> Grantor {
        let mut grantor = Grantor {
            token: record.token,
            not_before: now + terms.expiry(),
            ..Grantor::default()
        };
        match record.holder {
            None => {}
            Some(Holder::Unknown) => grantor.await_unknown(now, terms),
            Some(holder) if record.delayed => {
                grantor.phase = Phase::Delay {
                    holder,
                    token: record.token,
                    since: now,
                    until: now + terms.delay,
                };
            }
            Some(Holder::Known(operation)) => {
                grantor.phase = Phase::Held {
                    grant: Grant {
                        operation,
                        token: record.token,
                        since: now,
                    },
                    expires: now + terms.expiry(),
                    renewed: now,
                    revoked: record.revoked,
                };
            }
        }
        grantor
    }

    /// The record of a grant is on disk.
    pub fn committed(&mut self, token: u64, now: Instant, terms: &Terms) -> Vec<Effect> {
        match &self.phase {
            Phase::Granting { grant, .. } if grant.token == token => {
                let grant = grant.clone();
                self.phase = Phase::Held {
                    grant: grant.clone(),
                    expires: now + terms.expiry(),
                    renewed: now,
                    revoked: false,
                };
                vec![Effect::Grant(grant)]
            }
            _ => Vec::new(),
        }
    }

    /// A record could not be kept, and nothing that was to follow it was done. It may be on disk all the same, so the
    /// token of a grant is spent.
    pub fn failed(&mut self, now: Instant) {
        self.unkept = true;
        self.yield_granting(now);
    }

    fn yield_granting(&mut self, now: Instant) {
        if matches!(self.phase, Phase::Granting { .. }) {
            self.yield_place(now);
        }
    }

    pub(super) fn commit(&mut self) -> Effect {
        self.unkept = false;
        Effect::Commit {
            record: self.record(),
            grant: None,
        }
    }

    /// Answers that rest on a record which could not be kept before: it comes first.
    pub(super) fn after_kept(&mut self, mut effects: Vec<Effect>) -> Vec<Effect> {
        if self.unkept {
            effects.insert(0, self.commit());
        }
        effects
    }

    pub(super) fn record(&self) -> Record {
        let mut record = Record {
            token: self.token,
            ..Record::default()
        };
        match &self.phase {
            Phase::Granting { grant, .. } => record.holder = Some(Holder::Known(grant.operation.clone())),
            Phase::Held { grant, revoked, .. } => {
                record.holder = Some(Holder::Known(grant.operation.clone()));
                record.revoked = *revoked;
            }
            Phase::Delay { holder, .. } => {
                record.holder = Some(holder.clone());
                record.delayed = true;
            }
            Phase::Free | Phase::Draining { .. } => {}
        }
        record
    }
}
