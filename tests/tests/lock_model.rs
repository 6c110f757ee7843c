//! A model checker on the maintenance lock: the very state machines of hub (`Grantor`), spoke (`Holder`) and pod
//! (`Switch`), with two clusters, one repository, a network that loses, doubles and reorders, crashes and restarts of
//! each party, and pods that are paused. Each guard is taken away once, to show that the check would see it.
//!
//! Not modelled: the hub's drain and queue order (property tests in the hub), and restic's own lock in the safety
//! property: delete phases must not overlap even without it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stderr)]

use std::collections::BTreeSet;

use hub::lock::grantor::{Effect as HubEffect, Grantor, Operation, Record, Terms};
use spoke::maintenance::holder::{Effect, Holder, Input, Observed};
use spoke::worker::switch::{Switch, Verdict};
use stateright::{Checker, Model, Property};

/// Life of a lease, of which a pod uses all but a tenth; the hub waits for `TTL + 1`.
const TTL: u64 = 2;
/// A pod that was paused, or whose renewal arrived late, may act for so long after the hub's clock says that it is over.
const PAUSE_MAX: u64 = 3;
const SPOKES: usize = 2;

/// Guards, and how each is taken away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mutation {
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
    /// The spoke releases although its pod is still at work.
    EarlyRelease,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Message {
    Ask(usize),
    Renew(usize, u64, u64),
    Release(usize, u64),
    Grant(usize, u64),
    Renewed(usize, u64, u64),
    Revoke(usize, u64),
    Released(usize, u64),
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Pod {
    switch: Switch,
    token: u64,
    /// Renewals as the API server tells them.
    count: u64,
    deleting: bool,
    /// Told to end by the spoke.
    ending: bool,
    paused: Option<u64>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Spoke {
    /// `None` while its process is down.
    holder: Option<Holder>,
    suspended: bool,
    token: Option<u64>,
    ended: bool,
    pod: Option<Pod>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct World {
    now: u64,
    hub: Option<Grantor>,
    disk: Option<Record>,
    spokes: Vec<Spoke>,
    /// What was sent can arrive at any time, any number of times, or never.
    network: BTreeSet<Message>,
    granted: Vec<u64>,
    hub_crashes: u8,
    spoke_crashes: u8,
    pauses: u8,
    overlap: bool,
    fallen: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Action {
    Tick,
    Deliver(Message),
    HubCrash,
    HubStart,
    SpokeCrash(usize),
    SpokeStart(usize),
    Look(usize),
    Delete(usize),
    Finish(usize),
    PodGone(usize),
    Pause(usize),
    Resume(usize),
}

struct Lock {
    mutation: Mutation,
    ticks: u64,
}

impl Lock {
    fn terms(&self) -> Terms {
        Terms {
            ttl: TTL,
            delay: if self.mutation == Mutation::NoDelay {
                0
            } else {
                PAUSE_MAX + 1
            },
            drain: 0,
            patience: 1000,
        }
    }

    fn operation(spoke: usize) -> Operation {
        Operation {
            cluster: spoke.to_string().into(),
            id: "job".into(),
            subject: "".into(),
        }
    }

    fn hub(&self, world: &mut World, effects: Vec<HubEffect>, seq: u64) {
        let mut queue: std::collections::VecDeque<HubEffect> = effects.into();
        let index = |operation: &Operation| operation.cluster.parse::<usize>().unwrap();
        while let Some(effect) = queue.pop_front() {
            match effect {
                HubEffect::Commit(record) => {
                    // Told first, kept never: as if the hub crashed in between.
                    if !(self.mutation == Mutation::TellBeforeCommit
                        && matches!(queue.front(), Some(HubEffect::Confirm(_))))
                    {
                        world.disk = Some(record);
                    }
                }
                HubEffect::Confirm(token) => {
                    let hub = world.hub.as_mut().unwrap();
                    queue.extend(hub.committed(token, world.now, &self.terms()));
                }
                HubEffect::Grant(grant) => {
                    if world.granted.last().is_none_or(|last| *last != grant.token) {
                        world.fallen |= world.granted.iter().any(|seen| *seen >= grant.token);
                        world.granted.push(grant.token);
                    }
                    world
                        .network
                        .insert(Message::Grant(index(&grant.operation), grant.token));
                }
                HubEffect::Renewed { operation, token } => {
                    world
                        .network
                        .insert(Message::Renewed(index(&operation), token, seq));
                }
                HubEffect::Revoke { operation, token, .. } => {
                    world.network.insert(Message::Revoke(index(&operation), token));
                }
                HubEffect::Released { operation, token } => {
                    world.network.insert(Message::Released(index(&operation), token));
                }
            }
        }
    }

    fn feed(&self, world: &mut World, n: usize, input: Input) {
        let now = world.now;
        let spoke = &mut world.spokes[n];
        let hidden = self.mutation == Mutation::EarlyRelease && spoke.suspended;
        let at_work = spoke.pod.is_some() && !hidden;
        let observed = Observed {
            ended: spoke.ended && !at_work,
            suspended: spoke.suspended,
            token: spoke.token,
            pods: at_work,
            started: at_work,
        };
        let Some(holder) = spoke.holder.as_mut() else {
            return;
        };
        for effect in holder.step(input, observed, now) {
            match effect {
                Effect::Ask => drop(world.network.insert(Message::Ask(n))),
                Effect::Withdraw => {}
                Effect::Renew { token, seq } => drop(world.network.insert(Message::Renew(n, token, seq))),
                Effect::Release { token } => drop(world.network.insert(Message::Release(n, token))),
                Effect::Open { token } => {
                    spoke.suspended = false;
                    spoke.token = Some(token);
                    let lifetime = TTL - TTL / 10;
                    let mut switch = Switch::new(lifetime, now);
                    switch.observe(Some(0), now);
                    spoke.pod = Some(Pod {
                        switch,
                        token,
                        count: 0,
                        deleting: false,
                        ending: false,
                        paused: None,
                    });
                }
                Effect::Shut => {
                    spoke.suspended = true;
                    if let Some(pod) = &mut spoke.pod {
                        pod.ending = true;
                    }
                }
                Effect::Count { .. } => {
                    if let Some(pod) = &mut spoke.pod {
                        pod.count += 1;
                        if pod.paused.is_none() {
                            pod.switch.observe(Some(pod.count), now);
                        }
                    }
                }
            }
        }
    }

    fn may_act(&self, pod: &Pod, now: u64) -> bool {
        match pod.switch.verdict(now) {
            Verdict::Go => true,
            Verdict::NotYet => self.mutation == Mutation::NoFirstRenewal,
            Verdict::Stop => self.mutation == Mutation::NoSwitch,
        }
    }

    /// What a pod whose lease is over does by itself, as soon as it runs: nothing more.
    fn stop_pods(&self, world: &mut World) {
        for spoke in &mut world.spokes {
            if let Some(pod) = &mut spoke.pod
                && pod.paused.is_none()
                && pod.deleting
                && !self.may_act(pod, world.now)
            {
                pod.deleting = false;
                pod.ending = true;
            }
        }
    }
}

impl Model for Lock {
    type State = World;
    type Action = Action;

    fn init_states(&self) -> Vec<World> {
        let spoke = Spoke {
            holder: Some(Holder::new()),
            suspended: true,
            token: None,
            ended: false,
            pod: None,
        };
        let mut world = World {
            now: 0,
            hub: Some(Grantor::default()),
            disk: None,
            spokes: vec![spoke; SPOKES],
            network: BTreeSet::new(),
            granted: Vec::new(),
            hub_crashes: 0,
            spoke_crashes: 0,
            pauses: 0,
            overlap: false,
            fallen: false,
        };
        for n in 0..SPOKES {
            self.feed(&mut world, n, Input::Look);
        }
        vec![world]
    }

    fn actions(&self, world: &World, actions: &mut Vec<Action>) {
        // A pause is bounded by the delay: what it is there for.
        let frozen = world.spokes.iter().any(|s| {
            s.pod
                .as_ref()
                .is_some_and(|p| p.paused.is_some_and(|since| world.now - since >= PAUSE_MAX))
        });
        if world.now < self.ticks && !frozen {
            actions.push(Action::Tick);
        }
        for message in &world.network {
            actions.push(Action::Deliver(message.clone()));
        }
        match &world.hub {
            Some(_) if world.hub_crashes < 1 => actions.push(Action::HubCrash),
            None => actions.push(Action::HubStart),
            Some(_) => {}
        }
        for (n, spoke) in world.spokes.iter().enumerate() {
            match &spoke.holder {
                Some(_) => {
                    actions.push(Action::Look(n));
                    if world.spoke_crashes < 1 {
                        actions.push(Action::SpokeCrash(n));
                    }
                }
                None => actions.push(Action::SpokeStart(n)),
            }
            let Some(pod) = &spoke.pod else { continue };
            match pod.paused {
                Some(_) => actions.push(Action::Resume(n)),
                None => {
                    if !pod.deleting && !pod.ending && self.may_act(pod, world.now) {
                        actions.push(Action::Delete(n));
                    }
                    if pod.deleting {
                        actions.push(Action::Finish(n));
                    } else if pod.ending || matches!(pod.switch.verdict(world.now), Verdict::Stop) {
                        actions.push(Action::PodGone(n));
                    }
                    if world.pauses < 1 && pod.deleting {
                        actions.push(Action::Pause(n));
                    }
                }
            }
        }
    }

    fn next_state(&self, last: &World, action: Action) -> Option<World> {
        let mut world = last.clone();
        let terms = self.terms();
        match action {
            Action::Tick => {
                world.now += 1;
                if let Some(mut hub) = world.hub.take() {
                    let effects = hub.advance(world.now, &terms, false, |_| true);
                    world.hub = Some(hub);
                    self.hub(&mut world, effects, 0);
                }
                self.stop_pods(&mut world);
            }
            Action::Deliver(message) => {
                // Delivered once more some other time, unless it can make no difference.
                match message {
                    Message::Ask(n) => {
                        self.at_hub(&mut world, |hub, now| hub.ask(Lock::operation(n), now), 0)?
                    }
                    Message::Renew(n, token, seq) => {
                        self.at_hub(
                            &mut world,
                            |hub, now| hub.renew(&Lock::operation(n), token, now, &terms),
                            seq,
                        )?;
                    }
                    Message::Release(n, token) => {
                        let any = self.mutation == Mutation::AnyRelease;
                        self.at_hub(
                            &mut world,
                            |hub, _| {
                                let present = hub.token();
                                let token = if any { present } else { token };
                                hub.release(
                                    &Lock::operation(if any { holder_of(hub).unwrap_or(n) } else { n }),
                                    token,
                                )
                            },
                            0,
                        )?;
                    }
                    Message::Grant(n, token) => self.feed(
                        &mut world,
                        n,
                        Input::Granted {
                            token,
                            ttl: TTL,
                            renew: 1,
                        },
                    ),
                    Message::Renewed(n, token, seq) => {
                        self.feed(&mut world, n, Input::Renewed { token, seq })
                    }
                    Message::Revoke(n, token) => self.feed(&mut world, n, Input::Revoked { token }),
                    Message::Released(n, token) => self.feed(&mut world, n, Input::Released { token }),
                }
            }
            Action::HubCrash => {
                world.hub = None;
                world.hub_crashes += 1;
            }
            Action::HubStart => {
                let restored = world.disk.clone().map_or_else(Grantor::default, |mut record| {
                    if self.mutation == Mutation::NoGrace {
                        record.holder = None;
                    }
                    Grantor::restored(record, world.now, &terms)
                });
                world.hub = Some(restored);
            }
            Action::SpokeCrash(n) => {
                world.spokes[n].holder = None;
                world.spoke_crashes += 1;
            }
            Action::SpokeStart(n) => {
                let now = world.now;
                let spoke = &mut world.spokes[n];
                spoke.holder = Some(match (spoke.token, spoke.suspended) {
                    (Some(token), false) => Holder::adopted(token, TTL, 1, now),
                    (Some(token), true) => Holder::after(token),
                    _ => Holder::new(),
                });
                self.feed(&mut world, n, Input::Look);
            }
            Action::Look(n) => self.feed(&mut world, n, Input::Look),
            Action::Delete(n) => {
                world.overlap |= world
                    .spokes
                    .iter()
                    .any(|s| s.pod.as_ref().is_some_and(|p| p.deleting));
                world.spokes[n].pod.as_mut()?.deleting = true;
            }
            Action::Finish(n) => {
                world.spokes[n].pod = None;
                world.spokes[n].ended = true;
            }
            Action::PodGone(n) => {
                let spoke = &mut world.spokes[n];
                spoke.pod = None;
                // A pod that was told to end leaves a Job that may go on; one that ended itself has failed it.
                spoke.ended |= !spoke.suspended;
            }
            Action::Pause(n) => {
                let now = world.now;
                world.spokes[n].pod.as_mut()?.paused = Some(now);
                world.pauses += 1;
            }
            Action::Resume(n) => {
                let now = world.now;
                let pod = world.spokes[n].pod.as_mut()?;
                pod.paused = None;
                let count = pod.count;
                pod.switch.observe(Some(count), now);
                self.stop_pods(&mut world);
            }
        }
        (world != *last).then_some(world)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always("no two delete phases overlap", |_, w: &World| !w.overlap),
            Property::always("tokens rise for ever", |_, w: &World| !w.fallen),
        ]
    }
}

impl Lock {
    fn at_hub(
        &self,
        world: &mut World,
        ask: impl FnOnce(&mut Grantor, u64) -> Vec<HubEffect>,
        seq: u64,
    ) -> Option<()> {
        let mut hub = world.hub.take()?;
        let mut effects = ask(&mut hub, world.now);
        effects.extend(hub.advance(world.now, &self.terms(), false, |_| true));
        world.hub = Some(hub);
        self.hub(world, effects, seq);
        Some(())
    }
}

fn holder_of(hub: &Grantor) -> Option<usize> {
    use hub::lock::grantor::Phase as Locked;
    match hub.phase() {
        Locked::Held { grant, .. } | Locked::Delay { grant, .. } => grant.operation.cluster.parse().ok(),
        _ => None,
    }
}

/// What was met on random ways through the model.
#[derive(Debug, Default)]
struct Met {
    steps: u64,
    overlap: bool,
    fallen: bool,
    both_end: bool,
    end_after_crash: bool,
    second_grant: bool,
    /// What led to an overlap or a fallen token, with its times.
    way: Vec<(u64, Action)>,
}

/// Walks through the model, choosing among all that may happen, until a guard is seen to be missing or so many walks
/// are done. The seed is fixed, so that each failure can be had again.
fn walk(mutation: Mutation, walks: u64) -> Met {
    let model = Lock { mutation, ticks: 16 };
    let mut met = Met::default();
    let mut random = 0x9e37_79b9_7f4a_7c15_u64;
    let mut choose = |among: usize| {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        usize::try_from(random % among as u64).unwrap()
    };
    for _ in 0..walks {
        let mut world = model.init_states().remove(0);
        let mut delivered = BTreeSet::new();
        let mut way = Vec::new();
        for _ in 0..90 {
            let mut actions = Vec::new();
            model.actions(&world, &mut actions);
            if actions.is_empty() {
                break;
            }
            // What is new arrives more often than what was delivered before, and faults are rare.
            let mut kinds: [Vec<Action>; 5] = Default::default();
            for action in actions {
                let kind = match &action {
                    Action::Deliver(message) if delivered.contains(message) => 3,
                    Action::Deliver(_) => 0,
                    Action::Tick => 2,
                    Action::HubCrash | Action::SpokeCrash(_) | Action::Pause(_) => 4,
                    _ => 1,
                };
                kinds[kind].push(action);
            }
            let weighed: Vec<&Vec<Action>> = [(0, 6), (1, 4), (2, 2), (3, 1), (4, 1)]
                .iter()
                .flat_map(|(kind, weight)| std::iter::repeat_n(&kinds[*kind], *weight))
                .filter(|actions| !actions.is_empty())
                .collect();
            let from = weighed[choose(weighed.len())];
            let action = from[choose(from.len())].clone();
            if let Action::Deliver(message) = &action {
                delivered.insert(message.clone());
            }
            met.steps += 1;
            if let Some(next) = model.next_state(&world, action.clone()) {
                way.push((world.now, action));
                world = next;
            }
        }
        let ended = world.spokes.iter().filter(|s| s.ended && s.pod.is_none()).count();
        met.overlap |= world.overlap;
        met.fallen |= world.fallen;
        met.both_end |= ended == SPOKES;
        met.end_after_crash |= world.hub_crashes > 0 && ended > 0;
        met.second_grant |= world.granted.len() > 1;
        if met.overlap || met.fallen {
            met.way = way;
            break;
        }
    }
    met
}

#[test]
fn no_two_delete_phases_overlap_and_tokens_rise() {
    // All that can happen in the first steps, in whatever order.
    let all = Lock {
        mutation: Mutation::None,
        ticks: 7,
    };
    let all = all
        .checker()
        .threads(2)
        .target_state_count(150_000)
        .spawn_bfs()
        .join();
    eprintln!("all: {} states, depth {}", all.state_count(), all.max_depth());
    all.assert_no_discovery("no two delete phases overlap");
    all.assert_no_discovery("tokens rise for ever");
    // And far beyond, along random ways, on which runs also come to their ends.
    let met = walk(Mutation::None, 60_000);
    eprintln!("{met:?}");
    assert!(!met.overlap && !met.fallen, "{met:?}");
    assert!(met.both_end && met.end_after_crash && met.second_grant, "{met:?}");
}

#[test]
fn each_guard_taken_away_is_seen() {
    for mutation in [
        Mutation::NoDelay,
        Mutation::NoGrace,
        Mutation::TellBeforeCommit,
        Mutation::AnyRelease,
        Mutation::NoSwitch,
        Mutation::NoFirstRenewal,
        Mutation::EarlyRelease,
    ] {
        let met = walk(mutation, 200_000);
        eprintln!("{mutation:?}: after {} steps", met.steps);
        let seen = if mutation == Mutation::TellBeforeCommit {
            met.fallen || met.overlap
        } else {
            met.overlap
        };
        assert!(seen, "{mutation:?} is not seen: {met:?}");
    }
}
