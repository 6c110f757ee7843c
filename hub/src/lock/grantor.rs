//! Who may change a repository: one operation at a time, with a token that rises for ever. Pure: no clock, no store, no
//! network. Times are milliseconds of the hub's own monotonic clock; clocks of two machines are never compared.
//!
//! A grant is answered only after it is durable ([`Effect::Commit`], then [`Grantor::committed`]). What was held when
//! the hub stopped is held again when it starts, for a full lifetime, and nothing new is granted before one is over. A
//! holder that fell silent is followed by a delay, which only its own proven end cuts short, or a person who has
//! checked. A store that was restored from a backup forgets grants: [`Grantor::store_restored`] then waits for holders
//! that are not known, and only during that wait is a token believed that this hub did not grant.

mod keeping;
mod passing;

use std::collections::BTreeMap;
use std::sync::Arc;

pub use super::lease::{Effect, Grant, Holder, Instant, Operation, Phase, Record, Terms, Waiter};

/// The lock of one repository.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Grantor {
    phase: Phase,
    /// Highest token that was ever granted.
    token: u64,
    /// Highest token that any cluster has seen. The next grant is above it.
    floor: u64,
    /// No new grant before this time.
    not_before: Instant,
    /// Until then a token is believed that this hub did not grant.
    believes_until: Instant,
    /// The last record could not be kept: it is due again before anything is answered.
    unkept: bool,
    waiting: Vec<Waiter>,
    /// Last token that each waiting cluster was granted: who was served longest ago comes first.
    served: BTreeMap<Arc<str>, u64>,
}

/// Tokens that were not granted here are believed up to this one: there are enough left above.
const BELIEVED: u64 = 1 << 60;
const STALE: &str = "the lease is no longer yours";
/// Reason of a revocation by a person.
pub const TAKEN_BACK: &str = "the lease was taken back by a person";

impl Grantor {
    /// A lock that no store remembers. The hub may have started a short time ago, so nothing is granted before
    /// `not_before`: one life of a lease ([`Terms::expiry`]) after that start.
    #[must_use]
    pub fn fresh(not_before: Instant) -> Grantor {
        Grantor {
            not_before,
            ..Grantor::default()
        }
    }

    /// The same lock, whose next grant is above a token.
    #[must_use]
    pub fn above(mut self, token: u64) -> Grantor {
        self.floor = self.floor.max(token);
        self
    }

    /// The hub's store was restored from a backup: grants were made that it does not know. Who held or waited for the
    /// lock by its record still may; beside that somebody unknown is waited for, for a lease's life and the delay, and
    /// only in that time may a holder show a higher token. Called for each repository, also for one that is met later
    /// in that time (then with the time of the detection), and again after a start of the hub in that time: a record
    /// does not show that a known holder was met during the wait.
    pub fn store_restored(&mut self, now: Instant, terms: &Terms) -> Vec<Effect> {
        self.yield_place(now);
        self.await_unknown(now, terms);
        vec![self.commit()]
    }

    fn await_unknown(&mut self, now: Instant, terms: &Terms) {
        let over = now + terms.expiry() + terms.delay;
        self.not_before = self.not_before.max(over);
        self.believes_until = self.believes_until.max(over);
        match &mut self.phase {
            Phase::Held { .. } => {}
            // A genuine delay keeps its holder: nobody else may cut it short.
            Phase::Delay { until, .. } => *until = over.max(*until),
            _ => self.free(),
        }
    }

    /// Nobody that is known holds it any more.
    fn free(&mut self) {
        self.phase = match self.believes_until {
            0 => Phase::Free,
            until => Phase::Delay {
                holder: Holder::Unknown,
                token: self.token,
                since: until,
                until,
            },
        };
    }

    /// Where it stands.
    #[must_use]
    pub fn phase(&self) -> &Phase {
        &self.phase
    }

    /// Highest token so far.
    #[must_use]
    pub fn token(&self) -> u64 {
        self.token
    }

    /// Before this time nothing new is granted; 0 once it has passed.
    #[must_use]
    pub fn not_before(&self) -> Instant {
        self.not_before
    }

    /// Who waits, in the order of asking. The one for whom backups are drained is not among them.
    #[must_use]
    pub fn waiting(&self) -> &[Waiter] {
        &self.waiting
    }

    /// Whether time changes nothing: nobody holds it, waits for it, or is waited for.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.phase == Phase::Free && self.waiting.is_empty() && !self.unkept
    }

    /// What this operation holds under this token, or held until it fell silent.
    #[must_use]
    pub fn held_by(&self, operation: &Operation, token: u64) -> Option<Grant> {
        let (holder, of, since) = match &self.phase {
            Phase::Held { grant, .. } => (&grant.operation, grant.token, grant.since),
            Phase::Delay {
                holder: Holder::Known(holder),
                token,
                since,
                ..
            } => (holder, *token, *since),
            _ => return None,
        };
        (holder == operation && of == token).then(|| Grant {
            operation: holder.clone(),
            token,
            since,
        })
    }

    /// A spoke asks, perhaps again. An operation that holds the lock already gets the same grant once more. `seen`: the
    /// highest token that its cluster has seen for this repository, 0 for none; the next grant is above it.
    pub fn ask(&mut self, operation: Operation, seen: u64, now: Instant) -> Vec<Effect> {
        self.note(seen);
        match &mut self.phase {
            Phase::Held {
                grant,
                revoked: false,
                ..
            } if grant.operation == operation => {
                let grant = Effect::Grant(grant.clone());
                return self.after_kept(vec![grant]);
            }
            Phase::Granting { grant, .. } if grant.operation == operation => return Vec::new(),
            Phase::Draining { first, .. } if first.operation == operation => {
                first.seen = now;
                return Vec::new();
            }
            _ => {}
        }
        match self.waiting.iter_mut().find(|w| w.operation == operation) {
            Some(waiter) => waiter.seen = now,
            None => self.waiting.push(Waiter {
                operation,
                since: now,
                seen: now,
            }),
        }
        Vec::new()
    }

    /// A cluster has seen this token.
    fn note(&mut self, seen: u64) {
        if seen <= BELIEVED {
            self.floor = self.floor.max(seen);
        }
    }

    /// Who is about to be granted the lock waits again, as the first.
    fn yield_place(&mut self, now: Instant) {
        let first = match std::mem::take(&mut self.phase) {
            Phase::Draining { first, .. } => first,
            Phase::Granting { grant, asked } => Waiter {
                operation: grant.operation,
                since: asked,
                seen: now,
            },
            other => {
                self.phase = other;
                return;
            }
        };
        self.waiting.insert(0, first);
    }

    /// An operation is not wanted any more. `opened`: the highest token that it ever worked under; a grant above it
    /// never reached it.
    pub fn withdraw(&mut self, operation: &Operation, opened: u64) -> Vec<Effect> {
        self.waiting.retain(|w| w.operation != *operation);
        match &self.phase {
            Phase::Draining { first, .. } if first.operation == *operation => {
                self.free();
                Vec::new()
            }
            Phase::Held { grant, .. } if grant.operation == *operation && grant.token > opened => {
                self.free();
                vec![self.commit()]
            }
            Phase::Delay {
                holder: Holder::Known(holder),
                token,
                ..
            } if holder == operation && *token > opened => {
                self.free();
                vec![self.commit()]
            }
            _ => Vec::new(),
        }
    }

    /// A holder is still at work.
    pub fn renew(&mut self, operation: &Operation, token: u64, now: Instant, terms: &Terms) -> Vec<Effect> {
        let operation = operation.clone();
        if self.is_forgotten(token, now) {
            self.yield_place(now);
            self.token = token;
            self.phase = Phase::Held {
                grant: Grant {
                    operation: operation.clone(),
                    token,
                    since: now,
                },
                expires: now + terms.expiry(),
                renewed: now,
                revoked: false,
            };
            return vec![self.commit(), Effect::Renewed { operation, token }];
        }
        let answer = match &mut self.phase {
            Phase::Held {
                grant,
                expires,
                renewed,
                revoked,
            } if grant.token == token && grant.operation == operation => {
                if *revoked {
                    Effect::Revoke {
                        operation,
                        token,
                        reason: TAKEN_BACK,
                    }
                } else {
                    *expires = now + terms.expiry();
                    *renewed = now;
                    Effect::Renewed { operation, token }
                }
            }
            _ => {
                return vec![Effect::Revoke {
                    operation,
                    token,
                    reason: STALE,
                }];
            }
        };
        self.after_kept(vec![answer])
    }

    /// Whether a token was granted by a hub whose grants this store has lost. A higher one than any other that shows
    /// itself is the latest.
    #[must_use]
    pub fn is_forgotten(&self, token: u64, now: Instant) -> bool {
        now < self.believes_until && token > self.token && token <= BELIEVED
    }

    /// The operation's Job has ended, or its pods are proven to have ended. One that arrives in a later reign changes
    /// nothing, and the wait for an unknown holder is cut short by none.
    pub fn release(&mut self, operation: &Operation, token: u64) -> Vec<Effect> {
        let released = Effect::Released {
            operation: operation.clone(),
            token,
        };
        if self.held_by(operation, token).is_some() {
            self.free();
            return vec![self.commit(), released];
        }
        // Of a grant that this store has lost: its number is not given out again.
        if self.believes_until > 0 {
            self.note(token);
        }
        self.after_kept(vec![released])
    }

    /// A person takes the lock back. The holder shuts its Job and releases; until then nobody else gets it.
    ///
    /// # Errors
    /// When this token does not hold the lock.
    pub fn revoke(&mut self, token: u64) -> Result<Vec<Effect>, &'static str> {
        let Phase::Held { grant, revoked, .. } = &mut self.phase else {
            return Err("no operation holds the lock");
        };
        if grant.token != token {
            return Err("no operation holds the lock under this token");
        }
        *revoked = true;
        let revoke = Effect::Revoke {
            operation: grant.operation.clone(),
            token,
            reason: TAKEN_BACK,
        };
        Ok(vec![self.commit(), revoke])
    }

    /// A person has checked that nothing works under this token any more, and ends the delay. A wait for an unknown
    /// holder that is due beside it begins then, and is ended the same way.
    ///
    /// # Errors
    /// When the lock is not delayed under this token.
    pub fn release_delay(&mut self, token: u64) -> Result<Vec<Effect>, &'static str> {
        match &self.phase {
            Phase::Delay {
                holder, token: of, ..
            } if *of == token => {
                if *holder == Holder::Unknown {
                    (self.believes_until, self.not_before) = (0, 0);
                }
                self.free();
                Ok(vec![self.commit()])
            }
            _ => Err("the lock is not delayed under this token"),
        }
    }
}

#[cfg(test)]
#[path = "grantor_tests/mod.rs"]
mod tests;
