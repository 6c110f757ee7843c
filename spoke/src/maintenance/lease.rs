//! A lease that is held: until when it is ours, and when it is renewed. Pure.

use super::inputs::{Effect, Observed};

/// Milliseconds since boot.
pub type Instant = u64;

/// Renewals whose answer may still come.
const IN_FLIGHT: usize = 8;

/// A lease.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Lease {
    pub token: u64,
    pub ttl: u64,
    pub renew: u64,
    /// Until when it is ours for sure. `None` before the first answer to a renewal: how long the grant travelled is
    /// not known.
    pub deadline: Option<Instant>,
    /// Renewals that were answered.
    pub renewals: u64,
    pub(super) since: Instant,
    pub(super) renew_at: Instant,
    seq: u64,
    sent: Vec<(u64, Instant)>,
    /// The container was seen to have started; the pod's first renewal has been sent.
    pub(super) woken: bool,
    /// A renewal was due and not sent, for want of a sign of life.
    withheld: bool,
}

impl Lease {
    pub(super) fn new(token: u64, ttl: u64, renew: u64, now: Instant) -> Lease {
        Lease {
            token,
            ttl,
            renew: renew.max(1),
            deadline: None,
            renewals: 0,
            since: now,
            renew_at: now,
            // Never the same twice: an answer to a question of an earlier life must not count.
            seq: now << 10,
            sent: Vec::new(),
            woken: false,
            withheld: false,
        }
    }

    pub(super) fn is_over(&self, now: Instant) -> bool {
        self.deadline.is_some_and(|deadline| now >= deadline)
    }

    /// Takes the answer to a renewal. Returns whether it came in time.
    pub(super) fn answered(&mut self, seq: u64, now: Instant) -> bool {
        let Some((_, sent)) = self.sent.iter().find(|(n, _)| *n == seq).copied() else {
            return false;
        };
        self.sent.retain(|(n, _)| *n > seq);
        let deadline = sent + self.ttl - self.ttl / 10;
        if now >= deadline || self.is_over(now) {
            return false;
        }
        self.deadline = self.deadline.max(Some(deadline));
        self.renewals += 1;
        true
    }

    /// Sends a renewal if one is due and the pod shows a sign of life, or is too young for one.
    pub(super) fn renew(&mut self, job: Observed, start: Instant, now: Instant) -> Option<Effect> {
        let wake_pod = job.started && !self.woken;
        if now < self.renew_at && !wake_pod && !self.withheld {
            return None;
        }
        if now >= self.renew_at {
            self.renew_at = now + self.renew;
        }
        self.woken |= job.started;
        self.withheld = !(job.alive || now < start);
        if self.withheld {
            return None;
        }
        self.renew_at = now + self.renew;
        self.seq += 1;
        self.sent.push((self.seq, now));
        if self.sent.len() > IN_FLIGHT {
            self.sent.remove(0);
        }
        Some(Effect::Renew {
            token: self.token,
            seq: self.seq,
        })
    }
}
