//! What there is in the model, and what can happen in it.

use std::collections::BTreeSet;

use hub::lock::grantor::{Grantor, Record};
use spoke::maintenance::holder::Holder;
use spoke::worker::switch::{Switch, Verdict};

/// Life of a lease, of which a pod uses all but a tenth; the hub waits for `TTL + 1`.
pub const TTL: u64 = 3;
/// A count that the API server tells reaches the pod's file within this time.
pub const LAG: u64 = 3;
/// A renewal that was answered in its last moment, told to the pod as late as can be, lets it act for another life.
pub const DELAY: u64 = LAG + TTL;
pub const SPOKES: usize = 2;

/// Guards, and how each is taken away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mutation {
    None,
    /// Nobody waits after a lease that ended without a word.
    NoDelay,
    /// A restarted hub thinks that every lease has expired.
    NoGrace,
    /// A grant is told before it is kept.
    TellBeforeCommit,
    /// A release counts whatever token it names.
    AnyRelease,
    /// The pod does not look at its switch.
    NoSwitch,
    /// The pod begins without having seen a renewal.
    NoFirstRenewal,
    /// A pod that was paused takes a renewal that it finds for a new one.
    FreshAfterPause,
    /// The spoke releases although its pod is still at work.
    EarlyRelease,
    /// The spoke takes a pod that was deleted by force for ended.
    ForceIsAnEnd,
}

/// Every guard.
pub const MUTATIONS: [Mutation; 9] = [
    Mutation::NoDelay,
    Mutation::NoGrace,
    Mutation::TellBeforeCommit,
    Mutation::AnyRelease,
    Mutation::NoSwitch,
    Mutation::NoFirstRenewal,
    Mutation::FreshAfterPause,
    Mutation::EarlyRelease,
    Mutation::ForceIsAnEnd,
];

#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Message {
    Ask(usize),
    Renew(usize, u64, u64),
    Release(usize, u64),
    Withdraw(usize, u64),
    Grant(usize, u64),
    Renewed(usize, u64, u64),
    Revoke(usize, u64),
    Released(usize, u64),
}

impl Message {
    /// The spoke that it comes from or goes to.
    pub fn of(&self) -> usize {
        match self {
            Message::Ask(n) | Message::Renew(n, ..) | Message::Release(n, _) | Message::Withdraw(n, _) => *n,
            Message::Grant(n, _) | Message::Renewed(n, ..) => *n,
            Message::Revoke(n, _) | Message::Released(n, _) => *n,
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Pod {
    pub switch: Switch,
    pub token: u64,
    /// Renewals as the API server tells them, and since when.
    pub count: u64,
    pub counted: u64,
    /// Renewals as its file tells them.
    pub file: u64,
    /// Its restic holds the exclusive lock and deletes.
    pub deleting: bool,
    /// Told to end by the spoke.
    pub ending: bool,
    pub paused: bool,
    /// The API server knows it. One that was deleted by force goes on unseen.
    pub visible: bool,
}

impl Pod {
    pub fn is_stopped(&self, now: u64) -> bool {
        self.ending || self.switch.verdict(now) == Verdict::Stop
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Spoke {
    /// `None` while its process is down.
    pub holder: Option<Holder>,
    /// The Job.
    pub suspended: bool,
    pub token: Option<u64>,
    pub ended: bool,
    /// The pod's end can be seen.
    pub seen_to_end: bool,
    /// What the spoke's store remembers of a pod whose end was not seen.
    pub lost: Option<u64>,
    pub pods: Vec<Pod>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct World {
    pub now: u64,
    pub hub: Option<Grantor>,
    pub disk: Option<Record>,
    pub spokes: Vec<Spoke>,
    /// What was sent can arrive at any time, any number of times, or never.
    pub network: BTreeSet<Message>,
    pub granted: Vec<u64>,
    pub hub_crashes: u8,
    pub spoke_crashes: u8,
    /// Pauses, kills and forced deletions of pods.
    pub pod_faults: u8,
    /// restic's exclusive lock was left behind by a pod that was killed.
    pub left_lock: bool,
    pub overlap: bool,
    pub fallen: bool,
}

/// A pod of a spoke.
pub type At = (usize, usize);

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    Tick,
    Deliver(Message),
    HubCrash,
    HubStart,
    SpokeCrash(usize),
    SpokeStart(usize),
    Look(usize),
    /// The kubelet brings the pod's file up to date.
    Sync(At),
    Delete(At),
    Finish(At),
    PodGone(At),
    Pause(At),
    Resume(At),
    Kill(At),
    ForceDelete(At),
}

impl World {
    pub fn pods(&self) -> impl Iterator<Item = (At, &Pod)> {
        let spokes = self.spokes.iter().enumerate();
        spokes.flat_map(|(n, spoke)| spoke.pods.iter().enumerate().map(move |(i, pod)| ((n, i), pod)))
    }

    pub fn pod(&mut self, (spoke, pod): At) -> Option<&mut Pod> {
        self.spokes.get_mut(spoke)?.pods.get_mut(pod)
    }

    pub fn all_ended(&self) -> bool {
        self.spokes.iter().all(|s| s.ended) && self.pods().next().is_none()
    }
}
