//! What a lease is made of: terms, operations, grants, where a lock stands, what is kept of it. Pure.

use std::sync::Arc;

/// Milliseconds of one machine's monotonic clock.
pub type Instant = u64;

/// How long things last, in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Terms {
    /// Life of a lease from its last renewal, as the holder counts it. The hub waits a tenth longer.
    pub ttl: u64,
    /// Pause after a lease that ended without a release: longer than a cut-off holder's last requests take to arrive.
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

    /// Whether a store may have lost grants, as its own sign of life shows when a hub starts on it: none was kept for
    /// longer than a lease lives. Either no hub ran for as long, or this is a copy that was made then. A copy can be of
    /// the same epoch as the store that was lost, so epochs alone do not show it. Both times are of the wall clock, in
    /// milliseconds.
    #[must_use]
    pub fn is_outdated(&self, kept_alive: u64, now: u64) -> bool {
        now.abs_diff(kept_alive) > self.expiry()
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

/// Who has a token.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Holder {
    Known(Operation),
    /// Somebody may have one that a hub granted whose store is lost.
    Unknown,
}

impl Holder {
    /// The operation, if it is known.
    #[must_use]
    pub fn operation(&self) -> Option<&Operation> {
        match self {
            Holder::Known(operation) => Some(operation),
            Holder::Unknown => None,
        }
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
    /// Backups are asked to hold; the first gets the lock when none runs, or when the time is over.
    Draining { first: Waiter, until: Instant },
    /// On its way to disk. Nobody knows of it yet.
    Granting { grant: Grant, asked: Instant },
    Held {
        grant: Grant,
        expires: Instant,
        renewed: Instant,
        /// A person has taken it back; renewals are refused.
        revoked: bool,
    },
    /// The last holder fell silent, or is not known.
    Delay {
        holder: Holder,
        token: u64,
        since: Instant,
        until: Instant,
    },
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
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Record {
    pub token: u64,
    /// Who holds it, or held it last while the delay runs.
    pub holder: Option<Holder>,
    pub delayed: bool,
    /// A person has taken it back from its holder.
    pub revoked: bool,
}

/// What has to be done, in this order. When a commit fails, nothing that follows it is done, and
/// [`Grantor::failed`] is called.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Effect {
    /// Keep. With a grant: call [`Grantor::committed`] once it is on disk.
    Commit {
        record: Record,
        grant: Option<Grant>,
    },
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
    /// A release was taken in, and is kept.
    Released {
        operation: Operation,
        token: u64,
    },
}
