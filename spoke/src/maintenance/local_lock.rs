//! When the lock of this cluster may be given to an operation, if there is no hub. Pure: what is kept (a Kubernetes
//! Lease), what is seen of the holder's Job and pods, and a clock. Times are milliseconds since boot.
//!
//! A holder that gives its lease back frees the lock at once. Of any other the end may not have been seen: it is waited
//! for as the hub waits, for a life of the lease and the delay, from the later of two times: when its Job was first seen
//! to have ended with no pod at work, and its last renewal.

use std::collections::HashMap;

/// Milliseconds since boot.
pub type Instant = u64;

/// How long things last, in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Terms {
    pub ttl: u64,
    pub delay: u64,
}

/// A Lease as it is kept. An empty holder: nobody.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept {
    pub holder: String,
    pub token: u64,
}

/// Who wants the lock.
#[derive(Clone, Copy, Debug)]
pub struct Ask<'a> {
    pub operation: &'a str,
    /// Highest token that the cluster has seen for the repository. The next one is above it.
    pub seen: u64,
}

/// What is known of the holder, as long as it has not given the lease back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sight {
    /// Its Job has ended, or is not there.
    pub ended: bool,
    /// Some pod of it may be at work.
    pub at_work: bool,
}

/// What is to be done about an ask.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Keep this grant, and answer it then.
    Grant { token: u64 },
    /// It was granted before, under this token.
    Again { token: u64 },
    /// Somebody else has it. `until`: when the wait for a holder that fell silent is over.
    Wait { holder: String, until: Option<Instant> },
}

/// What one process remembers of the locks.
#[derive(Clone, Debug)]
pub struct LocalLock {
    terms: Terms,
    holders: HashMap<String, Holder>,
}

/// What is remembered of a holder.
#[derive(Clone, Debug)]
struct Holder {
    kept: Kept,
    renewed: Option<Instant>,
    /// Since when it has ended, and nothing of it is at work.
    ended: Option<Instant>,
}

impl LocalLock {
    /// Nothing is remembered yet.
    #[must_use]
    pub fn new(terms: Terms) -> LocalLock {
        LocalLock {
            terms,
            holders: HashMap::new(),
        }
    }

    /// A renewal of the holder was answered.
    pub fn renewed(&mut self, repository: &str, kept: &Kept, now: Instant) {
        self.holder(repository, kept).renewed = Some(now);
    }

    /// Who holds the lock was looked at.
    pub fn look(&mut self, repository: &str, kept: &Kept, sight: Sight, now: Instant) {
        let holder = self.holder(repository, kept);
        let gone = sight.ended && !sight.at_work;
        holder.ended = gone.then(|| holder.ended.unwrap_or(now));
    }

    /// Whether an ask may be granted.
    #[must_use]
    pub fn decide(&self, repository: &str, kept: Option<&Kept>, ask: Ask<'_>, now: Instant) -> Decision {
        let known = self.holders.get(repository);
        let Some(kept) = kept else {
            // A Lease that somebody deleted under its holder is still that holder's.
            return match known.filter(|h| !h.kept.holder.is_empty()) {
                Some(holder) => self.after(holder, ask, now),
                None => Decision::Grant { token: ask.seen + 1 },
            };
        };
        // Under a token that it has seen a pod was lost: that has to run out first.
        if kept.holder == ask.operation && kept.token > ask.seen {
            return Decision::Again { token: kept.token };
        }
        if kept.holder.is_empty() {
            let token = kept.token.max(ask.seen) + 1;
            return Decision::Grant { token };
        }
        match known.filter(|holder| holder.kept == *kept) {
            Some(holder) => self.after(holder, ask, now),
            None => Decision::Wait {
                holder: kept.holder.clone(),
                until: None,
            },
        }
    }

    /// The lease was given back, or never used.
    pub fn freed(&mut self, repository: &str) {
        self.holders.remove(repository);
    }

    fn after(&self, holder: &Holder, ask: Ask<'_>, now: Instant) -> Decision {
        let expiry = self.terms.ttl + self.terms.ttl / 10 + 1;
        let silent = holder.ended.map(|ended| ended.max(holder.renewed.unwrap_or(0)));
        let until = silent.map(|since| since + expiry + self.terms.delay);
        if until.is_some_and(|until| now >= until) {
            let token = holder.kept.token.max(ask.seen) + 1;
            return Decision::Grant { token };
        }
        Decision::Wait {
            holder: holder.kept.holder.clone(),
            until,
        }
    }

    fn holder(&mut self, repository: &str, kept: &Kept) -> &mut Holder {
        let new = || Holder {
            kept: kept.clone(),
            renewed: None,
            ended: None,
        };
        let holder = self.holders.entry(repository.to_owned()).or_insert_with(new);
        if holder.kept != *kept {
            *holder = new();
        }
        holder
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TERMS: Terms = Terms { ttl: 100, delay: 200 };
    /// A life and a tenth, and the delay.
    const WAIT: u64 = 111 + 200;
    const GONE: Sight = Sight {
        ended: true,
        at_work: false,
    };

    fn kept(token: u64) -> Kept {
        Kept {
            holder: "p".to_owned(),
            token,
        }
    }

    fn ask(operation: &str, seen: u64) -> Ask<'_> {
        Ask { operation, seen }
    }

    fn waits(lock: &LocalLock, now: Instant) -> Option<Option<Instant>> {
        match lock.decide("r", Some(&kept(3)), ask("q", 0), now) {
            Decision::Wait { until, .. } => Some(until),
            _ => None,
        }
    }

    #[test]
    fn a_free_lock_is_granted_above_every_token_that_was_seen() {
        let lock = LocalLock::new(TERMS);
        let free = Kept {
            holder: String::new(),
            token: 3,
        };
        let grant = |kept, seen| lock.decide("r", kept, ask("q", seen), 0);
        assert_eq!(grant(None, 0), Decision::Grant { token: 1 });
        assert_eq!(grant(None, 7), Decision::Grant { token: 8 });
        assert_eq!(grant(Some(&free), 0), Decision::Grant { token: 4 });
        assert_eq!(grant(Some(&free), 7), Decision::Grant { token: 8 });
    }

    #[test]
    fn who_has_it_gets_the_same_token_again() {
        let lock = LocalLock::new(TERMS);
        let again = lock.decide("r", Some(&kept(3)), ask("p", 2), 0);
        assert_eq!(again, Decision::Again { token: 3 });
        let lost = lock.decide("r", Some(&kept(3)), ask("p", 3), 0);
        assert!(matches!(lost, Decision::Wait { .. }), "its pod was lost under it");
    }

    #[test]
    fn the_wait_for_a_lost_pod_begins_when_it_was_lost_however_long_somebody_waited_before() {
        let mut lock = LocalLock::new(TERMS);
        let works = Sight {
            ended: false,
            at_work: true,
        };
        // Another policy waits for long while the holder works.
        for now in [0, 500, 1000] {
            lock.look("r", &kept(3), works, now);
            lock.renewed("r", &kept(3), now);
            assert_eq!(waits(&lock, now), Some(None));
        }
        // Its pod is deleted by force, and its Job has failed.
        lock.look("r", &kept(3), GONE, 1010);
        assert_eq!(waits(&lock, 1010), Some(Some(1010 + WAIT)));
        lock.look("r", &kept(3), GONE, 1200);
        assert_eq!(waits(&lock, 1010 + WAIT - 1), Some(Some(1010 + WAIT)));
        let granted = lock.decide("r", Some(&kept(3)), ask("q", 0), 1010 + WAIT);
        assert_eq!(granted, Decision::Grant { token: 4 });
    }

    #[test]
    fn a_renewal_after_that_begins_the_wait_anew() {
        let mut lock = LocalLock::new(TERMS);
        lock.look("r", &kept(3), GONE, 10);
        lock.renewed("r", &kept(3), 50);
        assert_eq!(waits(&lock, 10 + WAIT), Some(Some(50 + WAIT)));
    }

    #[test]
    fn a_pod_that_shows_itself_again_ends_the_wait() {
        let mut lock = LocalLock::new(TERMS);
        lock.look("r", &kept(3), GONE, 10);
        let back = Sight {
            ended: true,
            at_work: true,
        };
        lock.look("r", &kept(3), back, 200);
        assert_eq!(waits(&lock, 10 + WAIT), Some(None));
        lock.look("r", &kept(3), GONE, 300);
        assert_eq!(waits(&lock, 10 + WAIT), Some(Some(300 + WAIT)));
        // Another holder is another story.
        lock.look("r", &kept(4), GONE, 400);
        let next = lock.decide("r", Some(&kept(4)), ask("q", 0), 300 + WAIT);
        assert!(matches!(next, Decision::Wait { until: Some(until), .. } if until == 400 + WAIT));
    }

    #[test]
    fn a_holder_that_was_never_looked_at_is_waited_for() {
        let lock = LocalLock::new(TERMS);
        assert_eq!(waits(&lock, u64::MAX / 2), Some(None));
    }

    #[test]
    fn a_lease_that_was_deleted_under_its_holder_is_still_held() {
        let mut lock = LocalLock::new(TERMS);
        lock.renewed("r", &kept(3), 10);
        assert!(matches!(
            lock.decide("r", None, ask("q", 0), 20),
            Decision::Wait { .. }
        ));
        lock.freed("r");
        assert_eq!(
            lock.decide("r", None, ask("q", 3), 20),
            Decision::Grant { token: 4 }
        );
    }
}
