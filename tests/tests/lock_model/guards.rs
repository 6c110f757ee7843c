//! The guards of the protocol. Each is taken away once, by what stands around the product's machines in the model.

/// A guard, named after what happens without it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u64)]
pub enum Guard {
    /// Hub: nobody waits after a lease that ended in silence.
    NoDelay,
    /// Hub: the delay is half a life of a lease.
    ShortDelay,
    /// Hub: after a start it takes every lease for expired.
    NoGrace,
    /// Hub: after a start it grants what is free at once, whatever its store is.
    NoWaitAfterStart,
    /// Hub: a restored store is not known as such, by its age or by a cluster that has seen a higher epoch.
    NoDetection,
    /// Hub: only epochs show that a store was restored, not its age. A copy of the same epoch is not found then.
    EpochsOnly,
    /// Hub: a grant is answered before it is kept.
    TellBeforeCommit,
    /// Hub: a release counts whatever token it names.
    AnyRelease,
    /// Hub: what follows a failed commit is done all the same.
    FailedCommitIgnored,
    /// Store: every process that ever opened it may write.
    NoFence,
    /// Hub: answers renewals although another process has taken the store over; only its writes are refused.
    FenceForWritesOnly,
    /// Hub and operator: the repository of an operation is looked up anew, and the hub believes any token at any time.
    Unpinned,
    /// Operator: releases although its pod is still at work.
    EarlyRelease,
    /// Operator: a pod that was deleted by force has ended.
    ForceIsAnEnd,
    /// Operator: a pod that the pod collector removed with its node has ended.
    PodGcIsAnEnd,
    /// Operator: the pods of a Job that was deleted with `--cascade=orphan` have ended.
    OrphanIsAnEnd,
    /// Operator: after a restart it takes a pod that is not there any more for ended.
    UnseenIsAnEnd,
    /// Operator: renews without a sign of life.
    NoSignOfLife,
    /// Operator: an Open that the API server refuses is tried for ever, and no start has a limit.
    RefusalIgnored,
    /// Operator: uses what it remembers of an earlier leadership.
    KeptMemory,
    /// Pod: does not look at its switch.
    NoSwitch,
    /// Pod: begins without having seen a renewal.
    NoFirstRenewal,
    /// Pod: takes a renewal that it finds after a pause for a new one.
    FreshAfterPause,
    /// Pod: the time to kill counts from when it finds that its lease is over.
    GraceAfterPause,
}

/// All of them.
pub const GUARDS: [Guard; 24] = [
    Guard::NoDelay,
    Guard::ShortDelay,
    Guard::NoGrace,
    Guard::NoWaitAfterStart,
    Guard::NoDetection,
    Guard::EpochsOnly,
    Guard::TellBeforeCommit,
    Guard::AnyRelease,
    Guard::FailedCommitIgnored,
    Guard::NoFence,
    Guard::FenceForWritesOnly,
    Guard::Unpinned,
    Guard::EarlyRelease,
    Guard::ForceIsAnEnd,
    Guard::PodGcIsAnEnd,
    Guard::OrphanIsAnEnd,
    Guard::UnseenIsAnEnd,
    Guard::NoSignOfLife,
    Guard::RefusalIgnored,
    Guard::KeptMemory,
    Guard::NoSwitch,
    Guard::NoFirstRenewal,
    Guard::FreshAfterPause,
    Guard::GraceAfterPause,
];
