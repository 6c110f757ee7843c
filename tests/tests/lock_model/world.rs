//! What there is in the model: hubs on one store, clusters with an operator and its Job, pods, and the streams between.

use std::collections::VecDeque;

use hub::lock::grantor::{Grantor, Operation, Record};
use spoke::maintenance::holder::Holder;
use spoke::worker::switch::Switch;

use crate::guards::Guard;

/// Life of a lease. The holder and the pod use nine tenths of it by their clocks, the hub waits for a tenth more by its.
pub const TTL: u64 = 100;
pub const RENEW: u64 = 20;
/// As the hub demands it outside of tests: two lives.
pub const DELAY: u64 = 2 * TTL;
/// A renewal that the operator writes reaches the pod's file within this time. A renewal that was answered in its last
/// moment, shown as late as can be, lets a pod act until `2 TTL + LAG` when its clocks are a tenth slow; the hub waits
/// for `2.82 TTL` when its own is a tenth fast.
pub const LAG: u64 = 80;
/// How long restic may take to end after SIGTERM.
pub const GRACE: u64 = 27;
pub const START: u64 = 160;
pub const ASK_AGAIN: u64 = 40;
pub const SPOKES: usize = 2;
pub const REPOSITORIES: usize = 2;

/// What a spoke sends to the hub.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Question {
    Ask {
        uid: u8,
        repo: usize,
        seen: u64,
    },
    Withdraw {
        uid: u8,
        repo: usize,
        opened: u64,
    },
    Renew {
        uid: u8,
        repo: usize,
        token: u64,
        seq: u64,
    },
    Release {
        uid: u8,
        repo: usize,
        token: u64,
    },
}

/// What a hub sends to a spoke.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Answer {
    pub uid: u8,
    pub repo: usize,
    pub token: u64,
    pub what: What,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum What {
    Grant,
    Renewed(u64),
    Revoke,
    Released,
}

/// What a hub keeps.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Store {
    pub epoch: u64,
    pub records: [Option<Record>; REPOSITORIES],
    /// It was found to be restored from a backup, and the wait for who is not known is not over.
    pub restored: bool,
    /// When a hub last ran on it.
    pub alive: u64,
}

/// A hub's process.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Hub {
    pub serial: u8,
    pub epoch: u64,
    pub born: u64,
    /// When it learnt that its store was restored, by its own clock.
    pub learnt: Option<u64>,
    pub grantors: [Grantor; REPOSITORIES],
}

/// A maintenance Job, as the API server has it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Job {
    pub uid: u8,
    pub repo: usize,
    pub suspended: bool,
    pub token: Option<u64>,
    pub ended: bool,
    /// The API server refuses to open it.
    pub refused: bool,
}

/// An operation in the memory of an operator.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Operating {
    pub uid: u8,
    pub repo: usize,
    pub holder: Holder,
}

/// A cluster.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Spoke {
    /// Which repository the policy means.
    pub policy: usize,
    pub job: Option<Job>,
    /// Jobs that were made, and how many may still be.
    pub made: u8,
    pub left: u8,
    /// Memories of two replicas, of which one leads.
    pub replicas: [Option<Operating>; 2],
    pub leader: usize,
    pub up: bool,
    /// Its process is stopped, and runs again later.
    pub stalled: bool,
    /// Pods whose end was not seen, as the caches remember them: uid and token.
    pub lost: Option<(u8, u64)>,
    /// A pod of the present Job was seen to end.
    pub seen_to_end: bool,
    /// Highest token by repository, and of which Job.
    pub seen: [(u64, u8); REPOSITORIES],
    /// Highest epoch of a hub that it was connected to.
    pub epoch: u64,
    /// The hub that it is connected to.
    pub link: Option<u8>,
    pub questions: VecDeque<Question>,
    pub answers: VecDeque<Answer>,
    /// Questions of sessions that are over, which still reach the hub.
    pub late: Vec<Question>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Pod {
    pub spoke: usize,
    pub uid: u8,
    /// Where its restic works.
    pub repo: usize,
    pub token: u64,
    /// Renewals as the API server has them, since when the file is behind, and as the file has them.
    pub count: u64,
    pub counted: u64,
    pub file: u64,
    /// `None` until its container has started.
    pub switch: Option<Switch>,
    pub deleting: bool,
    /// SIGTERM was sent; SIGKILL follows at this time of its own clock.
    pub kill: Option<u64>,
    pub paused: bool,
    /// The API server has no contact with its node.
    pub cut_off: bool,
    /// The API server has it, under its Job.
    pub visible: bool,
    /// Its process has ended, and its node could not report it.
    pub dead: bool,
}

/// Tenths of the true time by which clocks go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Rates {
    pub hub: u64,
    pub operator: [u64; SPOKES],
    pub node: [u64; SPOKES],
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct World {
    pub now: u64,
    pub rates: Rates,
    pub store: Store,
    /// A copy that may be put back.
    pub copied: bool,
    pub copy: Store,
    /// The store was put back, and no hub knows yet. Since when a hub runs on it.
    pub unnoticed: Option<u64>,
    pub ever_put_back: bool,
    /// The next write fails.
    pub broken: bool,
    pub hubs: Vec<Hub>,
    pub hubs_started: u8,
    pub spokes: [Spoke; SPOKES],
    pub pods: Vec<Pod>,
    /// The last token that was granted, by repository, and whose it was.
    pub granted: [(u64, (usize, u8)); REPOSITORIES],
    pub grants: u32,
    pub faults: u8,
    /// What must never be.
    pub overlap: bool,
    pub fallen: bool,
    pub misled: bool,
}

/// The hub's clock, from its start.
pub fn hub_time(world: &World, hub: &Hub) -> u64 {
    (world.now - hub.born) * world.rates.hub / 10
}

pub fn operator_time(world: &World, n: usize) -> u64 {
    world.now * world.rates.operator[n] / 10
}

pub fn node_time(world: &World, n: usize) -> u64 {
    world.now * world.rates.node[n] / 10
}

pub fn operation(n: usize, uid: u8) -> Operation {
    Operation {
        cluster: n.to_string().into(),
        id: uid.to_string().into(),
        subject: "".into(),
    }
}

impl Spoke {
    pub fn new(left: u8) -> Spoke {
        Spoke {
            policy: 0,
            job: None,
            made: 0,
            left,
            replicas: [None, None],
            leader: 0,
            up: true,
            stalled: false,
            lost: None,
            seen_to_end: false,
            seen: [(0, 0); REPOSITORIES],
            epoch: 0,
            link: None,
            questions: VecDeque::new(),
            answers: VecDeque::new(),
            late: Vec::new(),
        }
    }

    pub fn works(&self) -> bool {
        self.up && !self.stalled
    }

    pub fn send(&mut self, question: Question) {
        if self.link.is_some() {
            self.questions.push_back(question);
        }
    }
}

impl World {
    pub fn new(rates: Rates, jobs: u8) -> World {
        World {
            now: 0,
            rates,
            store: Store::default(),
            copied: false,
            copy: Store::default(),
            unnoticed: None,
            ever_put_back: false,
            broken: false,
            hubs: Vec::new(),
            hubs_started: 0,
            spokes: [Spoke::new(jobs), Spoke::new(jobs)],
            pods: Vec::new(),
            granted: [(0, (0, 0)); REPOSITORIES],
            grants: 0,
            faults: 0,
            overlap: false,
            fallen: false,
            misled: false,
        }
    }

    pub fn hub(&self, serial: u8) -> Option<usize> {
        self.hubs.iter().position(|hub| hub.serial == serial)
    }

    /// What was in a session is lost, or comes late.
    pub fn cut(&mut self, n: usize) {
        let spoke = &mut self.spokes[n];
        spoke.link = None;
        spoke.answers.clear();
        spoke.late = spoke.questions.drain(..).collect();
        spoke.late.truncate(2);
    }
}

/// The guards that are missing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Missing(u64);

impl Missing {
    pub const NONE: Missing = Missing(0);
    pub const ALL: Missing = Missing(u64::MAX);

    pub fn only(guard: Guard) -> Missing {
        Missing(1 << guard as u64)
    }

    pub fn has(self, guard: Guard) -> bool {
        self.0 & (1 << guard as u64) != 0
    }
}
