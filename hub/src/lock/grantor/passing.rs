//! What the passing of time does to a lock: leases and delays end, drains are over, the next one is granted.

use super::{Effect, Grant, Grantor, Holder, Instant, Operation, Phase, Terms, Waiter};

impl Grantor {
    /// Time has passed, or something changed. `busy`: backups run into this repository. `connected`: a grant can reach
    /// a cluster's spoke.
    pub fn advance(
        &mut self,
        now: Instant,
        terms: &Terms,
        busy: bool,
        connected: impl Fn(&str) -> bool,
    ) -> Vec<Effect> {
        self.advance_where(now, terms, busy, |_| true, connected)
    }

    /// The same. `may`: an operation may begin. Of others those that may not are left out, as if they did not wait yet: their
    /// storage has no place for another one.
    pub fn advance_where(
        &mut self,
        now: Instant,
        terms: &Terms,
        busy: bool,
        may: impl Fn(&Operation) -> bool,
        connected: impl Fn(&str) -> bool,
    ) -> Vec<Effect> {
        let can = |operation: &Operation| connected(&operation.cluster) && may(operation);
        let first = match &mut self.phase {
            Phase::Draining { first, .. } => Some(first),
            _ => None,
        };
        for waiter in self.waiting.iter_mut().chain(first) {
            if connected(&waiter.operation.cluster) {
                waiter.seen = now;
            }
        }
        self.waiting
            .retain(|w| now.saturating_sub(w.seen) < terms.patience);
        let mut changed = self.expire(now, terms);
        if self.phase == Phase::Free
            && now >= self.not_before
            && let Some(first) = self.next(can)
        {
            self.phase = Phase::Draining {
                first,
                until: now + terms.drain,
            };
        }
        if let Phase::Draining { until, .. } = &self.phase
            && (!busy || now >= *until)
            && let Some(first) = self.drained(&connected, can)
        {
            return vec![self.grant(first, now)];
        }
        changed |= std::mem::take(&mut self.unkept);
        if changed {
            return vec![self.commit()];
        }
        Vec::new()
    }

    /// Lets a lease or a delay end whose time is over. Returns whether the record has changed.
    fn expire(&mut self, now: Instant, terms: &Terms) -> bool {
        if now >= self.believes_until {
            self.believes_until = 0;
        }
        if now >= self.not_before {
            self.not_before = 0;
        }
        match &self.phase {
            Phase::Held { grant, expires, .. } if now >= *expires => {
                self.phase = Phase::Delay {
                    holder: Holder::Known(grant.operation.clone()),
                    token: grant.token,
                    since: grant.since,
                    until: now + terms.delay,
                };
                true
            }
            Phase::Delay { until, .. } if now >= *until => {
                self.free();
                true
            }
            _ => false,
        }
    }

    /// Who gets the lock at the end of a drain. A cluster that is away keeps its place, and is passed over.
    fn drained(
        &mut self,
        connected: impl Fn(&str) -> bool,
        can: impl Fn(&Operation) -> bool,
    ) -> Option<Waiter> {
        let Phase::Draining { first, .. } = std::mem::take(&mut self.phase) else {
            return None;
        };
        if connected(&first.operation.cluster) {
            return Some(first);
        }
        self.waiting.insert(0, first);
        self.next(can)
    }

    fn grant(&mut self, first: Waiter, now: Instant) -> Effect {
        self.token = self.token.max(self.floor) + 1;
        let grant = Grant {
            operation: first.operation,
            token: self.token,
            since: now,
        };
        self.served.insert(grant.operation.cluster.clone(), self.token);
        let waiting = &self.waiting;
        self.served
            .retain(|cluster, _| waiting.iter().any(|w| w.operation.cluster == *cluster));
        self.phase = Phase::Granting {
            grant: grant.clone(),
            asked: first.since,
        };
        self.unkept = false;
        Effect::Commit {
            record: self.record(),
            grant: Some(grant),
        }
    }

    /// Since when the first operation waits that could begin now, among those that `can`; `None` while none could.
    #[must_use]
    pub fn could_begin(&self, now: Instant, can: impl Fn(&Operation) -> bool) -> Option<Instant> {
        let free = self.phase == Phase::Free && now >= self.not_before;
        let waiting = self.waiting.iter().filter(|w| free && can(&w.operation));
        waiting.map(|waiter| waiter.since).min()
    }

    /// The operation that a drain is for, or would be among those that `can`.
    #[must_use]
    pub fn upcoming(&self, can: impl Fn(&Operation) -> bool) -> Option<&Operation> {
        if let Phase::Draining { first, .. } = &self.phase {
            return Some(&first.operation);
        }
        let at = self.next_at(can)?;
        self.waiting.get(at).map(|waiter| &waiter.operation)
    }

    /// The next operation: of the cluster that was served longest ago, the one that waits longest.
    fn next(&mut self, can: impl Fn(&Operation) -> bool) -> Option<Waiter> {
        let at = self.next_at(can)?;
        Some(self.waiting.remove(at))
    }

    fn next_at(&self, can: impl Fn(&Operation) -> bool) -> Option<usize> {
        let candidates = self.waiting.iter().enumerate();
        let (at, _) = candidates
            .filter(|(_, w)| can(&w.operation))
            .min_by_key(|(at, w)| (self.served.get(&w.operation.cluster).copied().unwrap_or(0), *at))?;
        Some(at)
    }
}
