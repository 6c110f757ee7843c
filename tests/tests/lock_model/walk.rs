//! Random ways through the model, and the way out of wherever they lead.

use hub::lock::grantor::Phase as Grant;
use spoke::maintenance::holder::Phase;
use spoke::worker::switch::Verdict;
use stateright::Model as _;

use crate::action::{Action, FIRST_FAULT, KINDS};
use crate::model::Lock;
use crate::world::{ASK_AGAIN, DELAY, GRACE, Missing, Pod, Rates, START, TTL, World};

/// Steps of one walk.
const STEPS: usize = 300;
/// Each so many walks the way out is looked for.
const WAYS_OUT: u64 = 3;
/// Ticks within which everything must have ended once there are no more faults: for each Job that may still be made
/// a lease's life, the delay, and the limit of a start.
const ROUNDS: usize = 240;

/// Somebody who waits is granted the lock again within this time: a pod that never starts or is cut off while it is
/// young keeps it for the limit of a start; then its lease runs out, the delay passes, and what was asked meanwhile is
/// asked again. All of it by clocks that are a tenth slow, seen with the next tick.
const AGAIN: u64 = (START + TTL * 11 / 10 + 1 + DELAY + GRACE + ASK_AGAIN) * 10 / 9 + 40;

/// What was met.
#[derive(Debug, Default)]
pub struct Met {
    pub walks: u64,
    pub steps: u64,
    pub overlap: bool,
    pub fallen: bool,
    pub misled: bool,
    /// A world that nothing leads out of.
    pub stuck: Option<Box<World>>,
    /// How many walks met what shows that the walk is worth something.
    pub both_worked: u64,
    pub second_grant: u64,
    pub put_back: u64,
    pub interrupted: u64,
    /// What led to what must not be, with its times.
    pub way: Vec<(u64, Action)>,
}

impl Met {
    /// Whether anything was met that must not be.
    pub fn harm(&self) -> bool {
        self.overlap || self.fallen || self.misled || self.stuck.is_some()
    }
}

/// xorshift: the same ways each time.
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Random {
        let mut random = Random(0x9e37_79b9_7f4a_7c15 ^ seed.wrapping_mul(0xbf58_476d_1ce4_e5b9));
        for _ in 0..4 {
            random.below(2);
        }
        random
    }

    pub fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from((self.0 >> 11) % n as u64).unwrap()
    }
}

/// How often each kind of action is chosen.
const WEIGHTS: [usize; KINDS] = [
    12, 16, 2, 2, 1, 12, 8, 12, 6, 16, 2, 60, 4, 2, 2, 1, 250, // what follows: faults
    4, 3, 4, 3, 3, 3, 3, 3, 3, 3, 2, 5, 3, 4, 4, 4,
];

/// What a walk is fond of: what is rare on one is frequent on another, and most faults never happen on it.
struct Likes {
    weights: [usize; KINDS],
    /// Faults befall this cluster alone.
    victim: Option<usize>,
    /// Faults happen only while a pod deletes.
    at_work: bool,
    /// Of the victim: its runs take long; its kubelet takes as much time as it may; its operator stays away once it has
    /// lost its hub; its streams carry one message at a time.
    slow: bool,
    lazy: bool,
    away: bool,
    parts: bool,
    /// How often that what could be later happens early.
    early: usize,
    /// For how long the hub was not asked, at least, when the theme's faults begin.
    quiet: u64,
    /// How much quicker the other one is, and whether its runs take long too.
    hurry: usize,
    other_slow: bool,
    /// The victim comes to work without a fault; then the theme's faults befall it, each once, not before this time.
    staged: Option<u64>,
    theme: &'static [usize],
    done: u64,
}

/// Faults that are worth more together.
const THEMES: [&[usize]; 17] = [
    &[],
    &[CUT],
    &[SPOKE_CRASH],
    &[STALL],
    &[STALL, PAUSE],
    &[SPOKE_CRASH, PAUSE],
    &[CUT, PAUSE],
    &[SPOKE_CRASH, HUB_CRASH],
    &[SPOKE_CRASH, HUB_CRASH, COPY],
    &[STALL, HUB_CRASH, COPY],
    &[SPOKE_CRASH, FORCE],
    &[CUT_NODE],
    &[CUT_NODE, POD_GC, HAND_OVER],
    &[SECOND_HUB],
    &[SECOND_HUB, CUT],
    &[HUB_CRASH, BREAK_COMMIT],
    &[REPOINT, CUT],
];
/// What is hardest on the times: a cluster loses its operator in the middle of its work, with clocks that are slow, and a
/// hub's that is fast.
const HARD: [&[usize]; 4] = [
    &[SPOKE_CRASH],
    &[STALL],
    &[SPOKE_CRASH, HUB_CRASH],
    &[SPOKE_CRASH, HUB_CRASH, COPY],
];
const COPY: usize = 17;
const CUT: usize = 18;
const HUB_CRASH: usize = 19;
const SECOND_HUB: usize = 20;
const BREAK_COMMIT: usize = 21;
const SPOKE_CRASH: usize = 22;
const HAND_OVER: usize = 23;
const STALL: usize = 24;
const REPOINT: usize = 25;
const PAUSE: usize = 28;
const CUT_NODE: usize = 29;
const POD_GC: usize = 30;
const FORCE: usize = 31;

impl Likes {
    fn new(random: &mut Random, hard: bool) -> Likes {
        let mut weights = WEIGHTS.map(|weight| weight * [1, 2, 2, 4, 8][random.below(5)]);
        let theme = match hard {
            true => HARD[random.below(HARD.len())],
            false => THEMES[random.below(THEMES.len())],
        };
        let mut faults: Vec<usize> = theme.to_vec();
        for _ in 0..random.below(3) {
            faults.push(FIRST_FAULT + random.below(KINDS - FIRST_FAULT));
        }
        for (kind, weight) in weights.iter_mut().enumerate().skip(FIRST_FAULT) {
            *weight = if faults.contains(&kind) { *weight } else { 0 };
        }
        let mut often = || hard || random.below(3) > 0;
        let (slow, lazy, away) = (often(), often(), often());
        let at_work = often() && !theme.contains(&BREAK_COMMIT);
        let other_slow = random.below(3) == 0;
        let is_due = hard || random.below(3) > 0;
        let staged = !theme.is_empty() && !theme.contains(&BREAK_COMMIT) && is_due;
        Likes {
            weights,
            other_slow,
            staged: staged.then(|| 20 * random.below(12) as u64),
            theme,
            done: 0,
            victim: [None, Some(0), Some(0), Some(1)][random.below(4)].or(staged.then_some(0)),
            at_work,
            slow,
            lazy,
            away,
            parts: random.below(if hard { 2 } else { 3 }) == 0,
            early: [0, 1, 4][random.below(3)],
            quiet: if hard { [0, 30, 50, 70][random.below(4)] } else { 0 },
            hurry: if hard { 64 } else { [1, 8, 64][random.below(3)] },
        }
    }

    fn of(&self, model: &Lock, world: &World, action: Action) -> usize {
        let weight = self.weights[action.kind()];
        let spoke = action.spoke(world);
        let is_victim = spoke.is_some() && spoke == self.victim;
        if action.kind() >= FIRST_FAULT {
            let spared = spoke.is_some() && self.victim.is_some() && !is_victim;
            return match (spared, self.staged) {
                (true, _) => 0,
                (false, Some(from)) => self.of_theme(world, action, from),
                (false, None) if self.at_work && !self.works(world) && action != Action::Copy => 0,
                (false, None) => weight,
            };
        }
        if spoke.is_some() && !is_victim {
            return match action {
                Action::Finish(_) if self.other_slow => 1,
                _ => weight * self.hurry,
            };
        }
        if !is_victim {
            return weight;
        }
        match action {
            Action::Finish(_) if self.slow => usize::from(world.now.is_multiple_of(200)),
            Action::SpokeStart(_) | Action::Unstall(_) if self.away => 0,
            // It runs again when it does most harm.
            Action::Resume(_) | Action::Unstall(_) | Action::NodeBack(_) if self.slow => {
                let works = world
                    .pods
                    .iter()
                    .any(|p| p.deleting && Some(p.spoke) != self.victim);
                if works { weight * 8 } else { 0 }
            }
            // Nobody leaves a hub that answers.
            Action::Connect(n, _) if world.spokes[n].link.is_some() => 0,
            Action::Connect(n, _) if self.away && world.spokes[n].epoch > 0 => 0,
            Action::Sync(at) if self.lazy && !world.pods[at].paused => {
                if !model.time_may_pass(world) || presses(model, world, n_of(world, at)) {
                    weight * 8
                } else {
                    self.early
                }
            }
            // As early at the hub and as late at the operator as can be.
            Action::Up(n) if self.parts && !world.spokes[n].answers.is_empty() => 0,
            Action::Up(_) if self.parts => weight * 8,
            Action::Down(n)
                if self.parts && !is_last_moment(model, world, n) && !presses(model, world, n) =>
            {
                self.early
            }
            Action::Exchange(_) if self.parts => 0,
            _ => weight,
        }
    }

    /// Whether a victim deletes.
    fn works(&self, world: &World) -> bool {
        let its = |p: &Pod| p.deleting && self.victim.is_none_or(|v| v == p.spoke);
        world.pods.iter().any(its)
    }

    /// A fault of the theme happens once, in the middle of the victim's work, and best when a renewal is on its way to
    /// the pod.
    fn of_theme(&self, world: &World, action: Action, from: u64) -> usize {
        let best = |p: &Pod| p.deleting && p.file != p.count && p.counted == world.now;
        let old = |p: &Pod| self.quiet == 0 || unanswered(world, p) >= self.quiet;
        let now = self.works(world) && (!self.lazy || world.pods.iter().any(|p| best(p) && old(p)));
        let due = (now && world.now >= from) || self.done != 0 || action == Action::Copy;
        let once = self.done & (1 << action.kind()) == 0;
        if due && once && self.theme.contains(&action.kind()) {
            return 1000;
        }
        0
    }
}

/// How long ago a hub last answered a renewal of a pod's lease.
fn unanswered(world: &World, pod: &Pod) -> u64 {
    let answered = world
        .hubs
        .iter()
        .filter_map(|hub| match hub.grantors[pod.repo].phase() {
            Grant::Held { grant, renewed, .. } if grant.token == pod.token => {
                Some(hub.born + renewed * 10 / world.rates.hub)
            }
            _ => None,
        });
    world.now - answered.max().unwrap_or(0)
}

fn n_of(world: &World, at: usize) -> usize {
    world.pods[at].spoke
}

/// Whether a pod of a cluster will have to end with the next tick.
fn presses(model: &Lock, world: &World, n: usize) -> bool {
    let next = (world.now + model.tick) * world.rates.node[n] / 10;
    let its = world.pods.iter().filter(|p| p.spoke == n && p.kill.is_none());
    let mut switches = its.filter_map(|p| p.switch.as_ref());
    switches.any(|switch| matches!(switch.verdict(next), Verdict::Stop { .. }))
}

/// Whether an operator that holds a lease will have lost it with the next tick.
fn is_last_moment(model: &Lock, world: &World, n: usize) -> bool {
    let spoke = &world.spokes[n];
    let held = spoke.replicas[spoke.leader].as_ref().map(|o| o.holder.phase());
    let Some(Phase::Held(lease)) = held else {
        return true;
    };
    let next = (world.now + model.tick) * world.rates.operator[n] / 10;
    lease.deadline.is_none_or(|deadline| next >= deadline)
}

fn rates(random: &mut Random, hard: bool) -> Rates {
    if hard {
        return Rates {
            hub: 11,
            operator: [9, 9],
            node: [9, 9],
        };
    }
    let mut rate = || [9, 9, 10, 11, 11][random.below(5)];
    Rates {
        hub: rate(),
        operator: [rate(), rate()],
        node: [rate(), rate()],
    }
}

/// Walks through the model until something is met that must not be, or so many walks are done.
pub fn walk(missing: Missing, walks: u64) -> Met {
    let mut met = Met::default();
    for n in 0..walks {
        met.walks += 1;
        one(missing, n, &mut met);
        if met.harm() {
            break;
        }
    }
    met
}

fn one(missing: Missing, n: u64, met: &mut Met) {
    let mut random = Random::new(n);
    let hard = random.below(4) == 0;
    let model = Lock {
        missing,
        tick: [10, 20][random.below(2)],
        until: 2000,
        faults: 1 + u8::try_from(random.below(8)).unwrap(),
        jobs: 2 + u8::try_from(random.below(7)).unwrap(),
        rates: rates(&mut random, hard),
        coarse: false,
    };
    let mut world = model.init_states().remove(0);
    let mut likes = Likes::new(&mut random, hard);
    let (mut actions, mut way) = (Vec::new(), Vec::new());
    for _ in 0..STEPS {
        actions.clear();
        model.possible(&world, &mut actions);
        let all: usize = actions
            .iter()
            .map(|action| likes.of(&model, &world, *action))
            .sum();
        if all == 0 {
            break;
        }
        let mut at = random.below(all);
        let chosen = actions.iter().copied().find(|action| {
            let weight = likes.of(&model, &world, *action);
            let here = at < weight;
            at = at.saturating_sub(weight);
            here
        });
        let action = chosen.unwrap();
        way.push((world.now, action));
        if action.kind() >= FIRST_FAULT && action != Action::Copy {
            likes.done |= 1 << action.kind();
        }
        model.apply(&mut world, action);
        met.steps += 1;
        if world.overlap || world.fallen || world.misled {
            break;
        }
    }
    met.overlap = world.overlap;
    met.fallen = world.fallen;
    met.misled = world.misled;
    met.both_worked += u64::from(world.spokes.iter().all(|s| s.made > 1));
    met.second_grant += u64::from(world.grants > 1);
    met.put_back += u64::from(world.ever_put_back);
    met.interrupted += u64::from(world.spokes.iter().any(|s| s.lost.is_some()));
    if !met.harm() && n.is_multiple_of(WAYS_OUT) {
        let nodes = n.is_multiple_of(2 * WAYS_OUT);
        if let Err(stuck) = way_out(&model, world, nodes) {
            met.overlap |= stuck.overlap;
            met.stuck = Some(stuck);
        }
    }
    if met.harm() {
        met.way = way;
    }
}

/// From here on there are no faults: everybody runs, what is sent arrives, what can end ends. Nodes that are cut off come
/// back, or stay away: then the cluster whose pod is on one of them waits, and nobody else.
fn way_out(model: &Lock, mut world: World, nodes: bool) -> Result<(), Box<World>> {
    let over = Lock {
        until: u64::MAX,
        faults: 0,
        ..*model
    };
    let held_up: Vec<usize> = world
        .pods
        .iter()
        .filter(|p| p.cut_off && !nodes)
        .map(|p| p.spoke)
        .collect();
    let mut actions = Vec::new();
    let (mut grants, mut since) = (world.grants, world.now);
    for _ in 0..ROUNDS {
        // All that can happen at this time, and what follows from it.
        for _ in 0..64 {
            actions.clear();
            over.possible(&world, &mut actions);
            let next = actions.iter().copied().find(|action| match action {
                Action::Tick | Action::Late(_) | Action::PutBack | Action::Up(_) | Action::Down(_) => false,
                Action::NodeBack(_) => nodes,
                action => action.kind() < FIRST_FAULT,
            });
            match next {
                Some(action) => over.apply(&mut world, action),
                None => break,
            }
        }
        if world.overlap || world.fallen || world.misled {
            return Err(Box::new(world));
        }
        let ended = |n: usize| {
            let spoke = &world.spokes[n];
            spoke.job.is_none() && spoke.left == 0
        };
        if (0..world.spokes.len()).all(|n| held_up.contains(&n) || ended(n)) {
            return Ok(());
        }
        if world.grants != grants {
            (grants, since) = (world.grants, world.now);
        }
        if world.now > since + AGAIN {
            return Err(Box::new(world));
        }
        over.apply(&mut world, Action::Tick);
    }
    Err(Box::new(world))
}
