//! Who may change a repository: one operation at a time, with a token that rises for ever. Pure: no clock, no store, no
//! network. Times are milliseconds of the hub's own monotonic clock; clocks of two machines are never compared.
//!
//! A grant is answered only after it is durable ([`Effect::Commit`], then [`Grantor::committed`]). What was held when
//! the hub stopped is held again when it starts, for a full lifetime. A holder that fell silent is followed by a delay,
//! which only its own proven end cuts short. A token that is higher than any that is known shows that the hub has lost
//! its memory (its store was restored from a backup): who renews under it holds the lock, and if nobody does, whoever
//! may hold it is waited for.

use std::collections::BTreeMap;
use std::sync::Arc;

/// Milliseconds of one machine's monotonic clock.
pub type Instant = u64;

/// How long things last, in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Terms {
    /// Life of a lease from its last renewal, as the holder counts it. The hub waits a tenth longer.
    pub ttl: u64,
    /// Pause after a lease that ended without a word: longer than a cut-off holder's last requests take to arrive.
    pub delay: u64,
    /// Longest time that a grant waits for running backups to end.
    pub drain: u64,
    /// A waiting operation whose spoke is away for longer is forgotten; a spoke that comes back asks again.
    pub patience: u64,
}

impl Terms {
    /// Life of a lease by the hub's clock.
    #[must_use]
    pub fn expiry(&self) -> u64 {
        self.ttl + self.ttl / 10 + 1
    }
}

/// What a spoke wants to do.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Operation {
    pub cluster: Arc<str>,
    /// Unique in its cluster: the uid of the Job.
    pub id: Arc<str>,
    /// For people, such as `retention shop/nightly`.
    pub subject: Arc<str>,
}

impl Operation {
    /// One that the hub does not remember.
    #[must_use]
    pub fn unknown() -> Operation {
        Operation {
            cluster: "".into(),
            id: "".into(),
            subject: "".into(),
        }
    }

    /// Whether it is one that the hub does not remember.
    #[must_use]
    pub fn is_unknown(&self) -> bool {
        self.id.is_empty()
    }
}

/// An operation with its token.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Grant {
    pub operation: Operation,
    pub token: u64,
    pub since: Instant,
}

/// Where the lock stands.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub enum Phase {
    #[default]
    Free,
    /// Backups are asked to hold; the operation gets the lock when none runs, or when the time is over.
    Draining { operation: Operation, until: Instant },
    /// On its way to disk. Nobody knows of it yet.
    Granting(Grant),
    Held {
        grant: Grant,
        expires: Instant,
        renewed: Instant,
        /// A person has taken it back; renewals are refused.
        revoked: bool,
    },
    /// The last holder fell silent.
    Delay { grant: Grant, until: Instant },
}

/// An operation that waits.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Waiter {
    pub operation: Operation,
    pub since: Instant,
    /// When its spoke was last connected.
    pub seen: Instant,
}

/// What is kept of a lock.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Record {
    pub token: u64,
    /// Who holds it, or held it last while the delay runs.
    pub holder: Option<Operation>,
    pub delayed: bool,
}

/// What has to be done, in this order.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Effect {
    /// Keep; what follows is done only after it is on disk.
    Commit(Record),
    /// The record that was just kept is a grant: call [`Grantor::committed`].
    Confirm(u64),
    Grant(Grant),
    Renewed {
        operation: Operation,
        token: u64,
    },
    Revoke {
        operation: Operation,
        token: u64,
        reason: &'static str,
    },
    /// A release was heard, and is kept.
    Released {
        operation: Operation,
        token: u64,
    },
}

/// The lock of one repository.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Grantor {
    phase: Phase,
    /// Highest token that was ever granted.
    token: u64,
    waiting: Vec<Waiter>,
    /// Last token that each waiting cluster was granted: who was served longest ago comes first.
    served: BTreeMap<Arc<str>, u64>,
}

/// Tokens of a hub that was forgotten are believed up to here: there are enough left above.
const BELIEVED: u64 = 1 << 60;
const STALE: &str = "the lease is no longer yours";
const TAKEN_BACK: &str = "the lease was taken back by a person";

impl Grantor {
    /// A lock as its record tells it, after a restart of the hub. Renewals are not kept, so a holder gets a full
    /// lifetime to be heard of, and a delay starts anew.
    #[must_use]
    pub fn restored(record: Record, now: Instant, terms: &Terms) -> Grantor {
        let phase = match record.holder {
            None => Phase::Free,
            Some(operation) => {
                let grant = Grant {
                    operation,
                    token: record.token,
                    since: now,
                };
                if record.delayed {
                    Phase::Delay {
                        grant,
                        until: now + terms.delay,
                    }
                } else {
                    Phase::Held {
                        grant,
                        expires: now + terms.expiry(),
                        renewed: now,
                        revoked: false,
                    }
                }
            }
        };
        Grantor {
            phase,
            token: record.token,
            ..Grantor::default()
        }
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

    /// Who waits, in the order of asking.
    #[must_use]
    pub fn waiting(&self) -> &[Waiter] {
        &self.waiting
    }

    /// Whether there is nothing to remember but the token.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.phase == Phase::Free && self.waiting.is_empty()
    }

    /// A spoke asks, perhaps again. Who holds the lock already is told so again, under the same token. `seen`: a token
    /// that its cluster has seen granted for this repository; 0 if it does not say.
    pub fn ask(&mut self, operation: Operation, seen: u64, now: Instant, terms: &Terms) -> Vec<Effect> {
        match &self.phase {
            Phase::Held {
                grant,
                revoked: false,
                ..
            } if grant.operation == operation => {
                return vec![Effect::Grant(grant.clone())];
            }
            Phase::Granting(grant) if grant.operation == operation => return Vec::new(),
            Phase::Draining { operation: first, .. } if *first == operation => return Vec::new(),
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
        if !self.is_forgotten(seen) {
            return Vec::new();
        }
        self.yield_place(now);
        self.token = seen;
        let grant = Grant {
            operation: Operation::unknown(),
            token: seen,
            since: now,
        };
        self.phase = Phase::Delay {
            grant,
            until: now + terms.expiry() + terms.delay,
        };
        vec![Effect::Commit(self.record())]
    }

    /// Whether a token was granted by a hub that this one does not remember, and nobody holds the lock now.
    fn is_forgotten(&self, token: u64) -> bool {
        let held = matches!(self.phase, Phase::Granting(_) | Phase::Held { .. });
        !held && token > self.token && token <= BELIEVED
    }

    /// Whoever is about to be granted the lock waits again, as the first.
    fn yield_place(&mut self, now: Instant) {
        let operation = match std::mem::take(&mut self.phase) {
            Phase::Draining { operation, .. } => operation,
            Phase::Granting(grant) => grant.operation,
            _ => return,
        };
        let waiter = Waiter {
            operation,
            since: now,
            seen: now,
        };
        self.waiting.insert(0, waiter);
    }

    /// An operation is not wanted any more. `opened`: the highest token that it ever worked under; it never heard of a
    /// grant above it.
    pub fn withdraw(&mut self, operation: &Operation, opened: u64) -> Vec<Effect> {
        self.waiting.retain(|w| w.operation != *operation);
        match &self.phase {
            Phase::Draining { operation: first, .. } if first == operation => {
                self.phase = Phase::Free;
                Vec::new()
            }
            Phase::Held { grant, .. } | Phase::Delay { grant, .. }
                if grant.operation == *operation && grant.token > opened =>
            {
                self.phase = Phase::Free;
                vec![Effect::Commit(self.record())]
            }
            _ => Vec::new(),
        }
    }

    /// A holder is still at work.
    pub fn renew(&mut self, operation: &Operation, token: u64, now: Instant, terms: &Terms) -> Vec<Effect> {
        let operation = operation.clone();
        if self.is_forgotten(token) {
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
            return vec![
                Effect::Commit(self.record()),
                Effect::Renewed { operation, token },
            ];
        }
        match &mut self.phase {
            Phase::Held {
                grant,
                expires,
                renewed,
                revoked,
            } if grant.token == token && grant.operation == operation => {
                if *revoked {
                    return vec![Effect::Revoke {
                        operation,
                        token,
                        reason: TAKEN_BACK,
                    }];
                }
                *expires = now + terms.expiry();
                *renewed = now;
                vec![Effect::Renewed { operation, token }]
            }
            _ => vec![Effect::Revoke {
                operation,
                token,
                reason: STALE,
            }],
        }
    }

    /// The operation's Job has ended, or its pods are proven gone. One that arrives in a later reign changes nothing.
    pub fn release(&mut self, operation: &Operation, token: u64) -> Vec<Effect> {
        let mut effects = Vec::new();
        let held = match &self.phase {
            Phase::Held { grant, .. } | Phase::Delay { grant, .. } => Some(grant),
            _ => None,
        };
        let is_its = |o: &Operation| o == operation || o.is_unknown();
        if held.is_some_and(|grant| grant.token == token && is_its(&grant.operation)) {
            self.phase = Phase::Free;
            effects.push(Effect::Commit(self.record()));
        }
        effects.push(Effect::Released {
            operation: operation.clone(),
            token,
        });
        effects
    }

    /// A person takes the lock back. The holder shuts its Job and says so; until then nobody else gets it.
    ///
    /// # Errors
    /// When this token does not hold the lock.
    pub fn revoke(&mut self, token: u64) -> Result<Vec<Effect>, &'static str> {
        match &mut self.phase {
            Phase::Held { grant, revoked, .. } if grant.token == token => {
                *revoked = true;
                Ok(vec![Effect::Revoke {
                    operation: grant.operation.clone(),
                    token,
                    reason: TAKEN_BACK,
                }])
            }
            _ => Err("no operation holds the lock under this token"),
        }
    }

    /// The record of a grant is on disk.
    pub fn committed(&mut self, token: u64, now: Instant, terms: &Terms) -> Vec<Effect> {
        match std::mem::take(&mut self.phase) {
            Phase::Granting(grant) if grant.token == token => {
                self.phase = Phase::Held {
                    grant: grant.clone(),
                    expires: now + terms.expiry(),
                    renewed: now,
                    revoked: false,
                };
                vec![Effect::Grant(grant)]
            }
            other => {
                self.phase = other;
                Vec::new()
            }
        }
    }

    /// The record of a grant could not be kept. It may be on disk all the same, so the token is spent.
    pub fn failed(&mut self, token: u64, now: Instant) {
        if let Phase::Granting(grant) = &self.phase
            && grant.token == token
        {
            self.yield_place(now);
        }
    }

    /// Time has passed, or something changed. `busy`: backups run into this repository. `connected`: a cluster's spoke
    /// can be told of a grant.
    pub fn advance(
        &mut self,
        now: Instant,
        terms: &Terms,
        busy: bool,
        connected: impl Fn(&str) -> bool,
    ) -> Vec<Effect> {
        for waiter in &mut self.waiting {
            if connected(&waiter.operation.cluster) {
                waiter.seen = now;
            }
        }
        self.waiting
            .retain(|w| now.saturating_sub(w.seen) < terms.patience);
        let mut effects = Vec::new();
        match &self.phase {
            Phase::Held { grant, expires, .. } if now >= *expires => {
                let grant = grant.clone();
                self.phase = Phase::Delay {
                    grant,
                    until: now + terms.delay,
                };
                effects.push(Effect::Commit(self.record()));
            }
            Phase::Delay { until, .. } if now >= *until => {
                self.phase = Phase::Free;
                effects.push(Effect::Commit(self.record()));
            }
            _ => {}
        }
        if self.phase == Phase::Free
            && let Some(operation) = self.next(&connected)
        {
            self.phase = Phase::Draining {
                operation,
                until: now + terms.drain,
            };
        }
        if let Phase::Draining { operation, until } = &self.phase
            && (!busy || now >= *until)
        {
            self.token += 1;
            let grant = Grant {
                operation: operation.clone(),
                token: self.token,
                since: now,
            };
            self.served.insert(operation.cluster.clone(), self.token);
            let waiting = &self.waiting;
            self.served
                .retain(|cluster, _| waiting.iter().any(|w| w.operation.cluster == *cluster));
            self.phase = Phase::Granting(grant);
            effects.push(Effect::Commit(self.record()));
            effects.push(Effect::Confirm(self.token));
        }
        effects
    }

    /// The next operation: of the cluster that was served longest ago, the one that waits longest.
    fn next(&mut self, connected: impl Fn(&str) -> bool) -> Option<Operation> {
        let candidates = self.waiting.iter().enumerate();
        let (at, _) = candidates
            .filter(|(_, w)| connected(&w.operation.cluster))
            .min_by_key(|(at, w)| (self.served.get(&w.operation.cluster).copied().unwrap_or(0), *at))?;
        Some(self.waiting.remove(at).operation)
    }

    fn record(&self) -> Record {
        let (holder, delayed) = match &self.phase {
            Phase::Granting(grant) | Phase::Held { grant, .. } => (Some(grant.operation.clone()), false),
            Phase::Delay { grant, .. } => (Some(grant.operation.clone()), true),
            Phase::Free | Phase::Draining { .. } => (None, false),
        };
        Record {
            token: self.token,
            holder,
            delayed,
        }
    }
}

#[cfg(test)]
#[path = "grantor_tests.rs"]
mod tests;
