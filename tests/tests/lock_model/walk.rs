//! Random ways through the model, and the way out of wherever they lead.

use std::collections::BTreeSet;

use stateright::Model as _;

use crate::model::Lock;
use crate::world::{Action, Message, Mutation, SPOKES, World};

/// Steps of one walk.
const STEPS: usize = 160;
/// A question that got no answer is put again after this time.
const AGAIN: u64 = 30_001;
/// Rounds after which both runs must have ended once nothing goes wrong any more.
const ROUNDS: usize = 40;
/// What follows from what happens at one time comes to rest within so many steps.
const SWEEPS: usize = 12;

/// What was met.
#[derive(Debug, Default)]
pub struct Met {
    pub steps: u64,
    pub overlap: bool,
    pub fallen: bool,
    pub both_end: bool,
    pub end_after_crash: bool,
    pub second_grant: bool,
    /// What led to an overlap or a fallen token, with its times.
    pub way: Vec<(u64, Action)>,
    /// A world that nothing leads out of.
    pub stuck: Option<Box<World>>,
}

/// Walks through the model, choosing among all that may happen, until a guard is seen to be missing or so many walks
/// are done. The seed is fixed, so that each failure can be had again.
pub fn walk(mutation: Mutation, walks: u64) -> Met {
    let model = Lock { mutation, ticks: 20 };
    let mut met = Met::default();
    let mut random = 0x9e37_79b9_7f4a_7c15_u64;
    let mut choose = |among: usize| {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        usize::try_from(random % among as u64).unwrap()
    };
    for n in 0..walks {
        let mut world = model.init_states().remove(0);
        let mut delivered = BTreeSet::new();
        let mut way = Vec::new();
        // Each walk has its own likes: what is rare on one is frequent on another, and some things never happen.
        let likes = WEIGHTS.map(|weight| weight * [0, 1, 1, 1, 2, 2, 4, 8][choose(8)]);
        // On every other walk a cluster is cut off at some time.
        let cut = (n % 2 == 1).then(|| (choose(SPOKES), choose(5) as u64));
        for _ in 0..STEPS {
            let mut actions = Vec::new();
            model.actions(&world, &mut actions);
            let is_cut_off = |action: &Action| match (action, cut) {
                (Action::Deliver(message), Some((spoke, at))) => world.now >= at && message.of() == spoke,
                _ => false,
            };
            let weight = |action: &Action| match is_cut_off(action) {
                true => 0,
                false => likes[kind(action, &delivered)],
            };
            let all: usize = actions.iter().map(weight).sum();
            if all == 0 {
                break;
            }
            let mut at = choose(all);
            let chosen = actions.into_iter().find(|action| {
                let weight = weight(action);
                let here = at < weight;
                at = at.saturating_sub(weight);
                here
            });
            let action = chosen.unwrap();
            if let Action::Deliver(message) = &action {
                delivered.insert(message.clone());
            }
            met.steps += 1;
            if let Some(next) = model.next_state(&world, action.clone()) {
                way.push((world.now, action));
                world = next;
            }
        }
        met.overlap |= world.overlap;
        met.fallen |= world.fallen;
        met.both_end |= world.all_ended();
        let ended = world.spokes.iter().any(|s| s.ended && s.pods.is_empty());
        met.end_after_crash |= world.hub_crashes > 0 && ended;
        met.second_grant |= world.granted.len() > 1;
        if met.overlap || met.fallen {
            met.way = way;
            break;
        }
        if mutation == Mutation::None && n % 20 == 0 {
            let out = way_out(&model, world);
            assert!(!out.overlap && !out.fallen, "{way:?} then {out:#?}");
            if !out.all_ended() {
                met.stuck = Some(Box::new(out));
                break;
            }
        }
    }
    met
}

/// How often each kind of what may happen is chosen: what is new arrives more often than what was delivered before,
/// and faults are rare.
const WEIGHTS: [usize; 15] = [1, 8, 8, 8, 8, 4, 4, 3, 16, 1, 3, 1, 1, 1, 4];

/// The kinds from here on are faults.
const FAULT: usize = 12;

fn kind(action: &Action, delivered: &BTreeSet<Message>) -> usize {
    match action {
        Action::Deliver(message) if delivered.contains(message) => 0,
        Action::Deliver(Message::Ask(_) | Message::Grant(..)) => 1,
        Action::Deliver(Message::Renew(..)) => 2,
        Action::Deliver(Message::Renewed(..)) => 3,
        Action::Deliver(Message::Release(..) | Message::Withdraw(..)) => 4,
        Action::Deliver(Message::Released(..) | Message::Revoke(..)) => 4,
        Action::Look(_) => 5,
        Action::Tick => 6,
        Action::Sync(_) => 7,
        Action::Delete(_) => 8,
        Action::Finish(_) | Action::PodGone(_) => 9,
        Action::HubStart | Action::SpokeStart(_) => 10,
        Action::Resume(_) => 11,
        Action::HubCrash | Action::SpokeCrash(_) => FAULT,
        Action::Kill(_) | Action::ForceDelete(_) => FAULT + 1,
        Action::Pause(_) => FAULT + 2,
    }
}

/// From here on nothing goes wrong: everybody runs, what is sent arrives, what can end ends.
fn way_out(model: &Lock, mut world: World) -> World {
    let mut heard = BTreeSet::new();
    for _ in 0..ROUNDS {
        if world.all_ended() {
            break;
        }
        let before = world.clone();
        // All that can happen at this time, and what follows from it.
        for _ in 0..SWEEPS {
            let Some(next) = sweep(model, &world, &mut heard) else {
                break;
            };
            world = next;
        }
        if world == before {
            world.now += AGAIN;
        }
        world = model.next_state(&world, Action::Tick).unwrap_or(world);
    }
    world
}

/// One after the other everything that is no fault and takes no time, each renewal once; `None` if it changes nothing.
fn sweep(model: &Lock, last: &World, heard: &mut BTreeSet<Message>) -> Option<World> {
    let mut world = last.clone();
    let mut actions = Vec::new();
    model.actions(&world, &mut actions);
    for action in actions {
        let takes_part = match &action {
            // A renewal is new each time; all else is said again and again by those who wait for an answer.
            Action::Deliver(message @ (Message::Renew(..) | Message::Renewed(..))) => {
                !heard.contains(message)
            }
            Action::Deliver(_) => true,
            Action::Tick => false,
            action => kind(action, heard) < FAULT,
        };
        let mut possible = Vec::new();
        model.actions(&world, &mut possible);
        if !takes_part || !possible.contains(&action) {
            continue;
        }
        if let Action::Deliver(message) = &action {
            heard.insert(message.clone());
        }
        if let Some(next) = model.next_state(&world, action) {
            world = next;
        }
    }
    (world != *last).then_some(world)
}
