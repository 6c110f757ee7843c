//! What a [`Holder`](super::holder::Holder) sees, takes in and wants done, and how its operation ends.

/// The Job as the API server shows it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Observed {
    /// It is complete, failed, or deleted, and no pod of it is at work.
    pub ended: bool,
    /// It has come to its own end, well or not, whatever its pods still do: nothing more is started, and to suspend it would
    /// only hide its end.
    pub finished: bool,
    pub suspended: bool,
    /// It was started at some time (`status.startTime`): its template is fixed.
    pub begun: bool,
    /// Token that its pods are given.
    pub token: Option<u64>,
    /// Some pod of it may still be at work.
    pub pods: bool,
    /// Its container has started, and waits for the first renewal.
    pub started: bool,
    /// Its pod lives and moves, as far as anybody knows: Ready, its node not lost, progress within the bound.
    pub alive: bool,
    /// Token of a pod that disappeared without its end having been seen, as one that was deleted by force: it may be at
    /// work until its switch ends it.
    pub lost: Option<u64>,
}

impl Observed {
    /// Whether it was ever open.
    pub(super) fn was_opened(&self) -> bool {
        self.begun || self.token.is_some() || !self.suspended
    }

    /// Whether it was open once and is shut: it can never be opened again.
    pub(super) fn is_spent(&self) -> bool {
        self.suspended && (self.begun || self.token.is_some())
    }
}

/// What reaches a holder from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Input {
    /// Look at the Job and at the clock.
    Look,
    /// A new session with the grantor: what was sent in the old one may be lost.
    Connected,
    Granted {
        token: u64,
        ttl: u64,
        renew: u64,
    },
    /// The lease was granted, but cannot be used: a higher token has been seen for this repository, or what to do does
    /// not fit into a Job.
    Refused {
        token: u64,
    },
    Renewed {
        token: u64,
        seq: u64,
    },
    Revoked {
        token: u64,
    },
    Released {
        token: u64,
    },
    /// The API server has refused to open the Job under this token, and will refuse it again (such as 422). A request
    /// whose fate is not known is no refusal.
    OpenRefused {
        token: u64,
    },
}

/// What has to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Effect {
    Ask,
    /// Nothing is wanted any more. The Job was never opened with a token above this one; 0 if it never was opened.
    Withdraw {
        opened: u64,
    },
    Renew {
        token: u64,
        seq: u64,
    },
    /// Nothing of the operation is at work any more.
    Release {
        token: u64,
    },
    /// Let the Job's pods start, with this token.
    Open {
        token: u64,
    },
    /// End the Job's pods.
    Shut,
    /// Show the pod that the lease was renewed, for the n-th time.
    Count {
        renewals: u64,
    },
}

/// Why an operation was ended before its Job came to its own end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Interruption {
    /// No renewal was answered in time.
    LeaseLost,
    /// The grantor took the lease back: a person wanted it, or it was not ours any more.
    Revoked,
    /// The API server refused to open the Job.
    OpenRefused,
    /// Its container did not start in time.
    NotStarted,
    /// A pod disappeared without its end having been seen.
    PodLost,
    /// Somebody else opened or suspended the Job.
    Meddled,
    /// It was found shut after a restart of the operator.
    FoundShut,
}

/// How an operation came to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum End {
    /// Its Job has ended, well or not, or was deleted.
    Job,
    /// The Job is shut for ever: record it, remove the Job, and make another if it is still wanted.
    Interrupted(Interruption),
}
