//! What can happen.

use crate::world::World;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    Tick,
    /// The streams of a cluster carry what is in them, and what follows from it, until nothing is left.
    Exchange(usize),
    /// The first message of one direction.
    Up(usize),
    Down(usize),
    /// A question of a session that is over.
    Late(usize),
    Connect(usize, u8),
    Make(usize),
    Begin(usize),
    Sync(usize),
    Delete(usize),
    Finish(usize),
    HubStart,
    SpokeStart(usize),
    Resume(usize),
    Unstall(usize),
    NodeBack(usize),
    PutBack,
    /// From here on: faults.
    Copy,
    Cut(usize),
    HubCrash(u8),
    SecondHub,
    BreakCommit,
    SpokeCrash(usize),
    HandOver(usize),
    Stall(usize),
    Repoint(usize),
    RefuseOpen(usize),
    Revoke(usize),
    Pause(usize),
    CutNode(usize),
    PodGc(usize),
    Force(usize),
    Orphan(usize),
}

impl Action {
    /// Its kind, as a number.
    pub fn kind(self) -> usize {
        match self {
            Action::Tick => 0,
            Action::Exchange(_) => 1,
            Action::Up(_) => 2,
            Action::Down(_) => 3,
            Action::Late(_) => 4,
            Action::Connect(..) => 5,
            Action::Make(_) => 6,
            Action::Begin(_) => 7,
            Action::Sync(_) => 8,
            Action::Delete(_) => 9,
            Action::Finish(_) => 10,
            Action::HubStart => 11,
            Action::SpokeStart(_) => 12,
            Action::Resume(_) => 13,
            Action::Unstall(_) => 14,
            Action::NodeBack(_) => 15,
            Action::PutBack => 16,
            Action::Copy => 17,
            Action::Cut(_) => 18,
            Action::HubCrash(_) => 19,
            Action::SecondHub => 20,
            Action::BreakCommit => 21,
            Action::SpokeCrash(_) => 22,
            Action::HandOver(_) => 23,
            Action::Stall(_) => 24,
            Action::Repoint(_) => 25,
            Action::RefuseOpen(_) => 26,
            Action::Revoke(_) => 27,
            Action::Pause(_) => 28,
            Action::CutNode(_) => 29,
            Action::PodGc(_) => 30,
            Action::Force(_) => 31,
            Action::Orphan(_) => 32,
        }
    }

    /// The cluster that it befalls.
    pub fn spoke(self, world: &World) -> Option<usize> {
        match self {
            Action::Exchange(n) | Action::Up(n) | Action::Down(n) | Action::Late(n) => Some(n),
            Action::Connect(n, _) | Action::Make(n) | Action::SpokeStart(n) | Action::Unstall(n) => Some(n),
            Action::Cut(n) | Action::SpokeCrash(n) | Action::HandOver(n) | Action::Stall(n) => Some(n),
            Action::Repoint(n) | Action::RefuseOpen(n) | Action::Orphan(n) => Some(n),
            Action::Begin(at) | Action::Sync(at) | Action::Delete(at) | Action::Finish(at) => {
                Some(world.pods[at].spoke)
            }
            Action::Resume(at) | Action::NodeBack(at) | Action::Pause(at) | Action::CutNode(at) => {
                Some(world.pods[at].spoke)
            }
            Action::PodGc(at) | Action::Force(at) => Some(world.pods[at].spoke),
            Action::Tick | Action::HubStart | Action::PutBack | Action::Copy | Action::HubCrash(_) => None,
            Action::SecondHub | Action::BreakCommit | Action::Revoke(_) => None,
        }
    }
}

pub const KINDS: usize = 33;
pub const FIRST_FAULT: usize = 17;
