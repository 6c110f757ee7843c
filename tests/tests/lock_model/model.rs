//! The transitions: state machines of hub, spoke and pod as the product runs them, with what is around them.

use std::collections::{BTreeSet, VecDeque};

use hub::lock::grantor::{Effect as HubEffect, Grantor, Operation, Phase, Terms};
use spoke::maintenance::holder::{Effect, Holder, Input, Observed};
use spoke::worker::switch::{Switch, Verdict};
use stateright::{Model, Property};

use crate::world::{Action, At, DELAY, LAG, Message, Mutation, Pod, SPOKES, Spoke, TTL, World};

pub struct Lock {
    pub mutation: Mutation,
    pub ticks: u64,
}

impl Lock {
    fn terms(&self) -> Terms {
        let none = self.mutation == Mutation::NoDelay;
        Terms {
            ttl: TTL,
            delay: if none { 0 } else { DELAY },
            drain: 0,
            patience: u64::MAX,
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
        let mut queue: VecDeque<HubEffect> = effects.into();
        let index = |operation: &Operation| operation.cluster.parse::<usize>().unwrap();
        while let Some(effect) = queue.pop_front() {
            match effect {
                HubEffect::Commit(record) => {
                    // Told first, kept never: as if the hub crashed in between.
                    let granting = matches!(queue.front(), Some(HubEffect::Confirm(_)));
                    if !(self.mutation == Mutation::TellBeforeCommit && granting) {
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
                    let to = index(&grant.operation);
                    world.network.insert(Message::Grant(to, grant.token));
                }
                HubEffect::Renewed { operation, token } => {
                    let renewed = Message::Renewed(index(&operation), token, seq);
                    world.network.insert(renewed);
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

    fn observed(&self, spoke: &Spoke) -> Observed {
        let hidden = self.mutation == Mutation::EarlyRelease && spoke.suspended;
        let at_work = !hidden && spoke.pods.iter().any(|pod| pod.visible);
        let forced = self.mutation == Mutation::ForceIsAnEnd;
        Observed {
            ended: spoke.ended && !at_work,
            suspended: spoke.suspended,
            token: spoke.token,
            pods: at_work,
            started: at_work,
            lost: spoke.lost.filter(|_| !forced),
        }
    }

    fn feed(&self, world: &mut World, n: usize, input: Input) {
        let now = world.now;
        let spoke = &mut world.spokes[n];
        let observed = self.observed(spoke);
        let Some(holder) = spoke.holder.as_mut() else {
            return;
        };
        for effect in holder.step(input, observed, now) {
            match effect {
                Effect::Ask => drop(world.network.insert(Message::Ask(n))),
                Effect::Withdraw { opened } => drop(world.network.insert(Message::Withdraw(n, opened))),
                Effect::Renew { token, seq } => drop(world.network.insert(Message::Renew(n, token, seq))),
                Effect::Release { token } => drop(world.network.insert(Message::Release(n, token))),
                Effect::Open { token } => {
                    spoke.suspended = false;
                    spoke.token = Some(token);
                    let mut switch = Switch::new(TTL - TTL / 10, now);
                    switch.observe(Some(0), now);
                    spoke.pods.push(Pod {
                        switch,
                        token,
                        count: 0,
                        counted: now,
                        file: 0,
                        deleting: false,
                        ending: false,
                        paused: false,
                        visible: true,
                    });
                }
                Effect::Shut => {
                    spoke.suspended = true;
                    for pod in spoke.pods.iter_mut().filter(|pod| pod.visible) {
                        pod.ending = true;
                    }
                }
                Effect::Count { .. } => {
                    for pod in spoke.pods.iter_mut().filter(|pod| pod.visible) {
                        if pod.count == pod.file {
                            pod.counted = now;
                        }
                        pod.count += 1;
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

    /// What a pod does by itself, as soon as it runs: it looks at its file, and stops when its lease is over.
    fn settle_pods(&self, world: &mut World) {
        let now = world.now;
        for pod in world.spokes.iter_mut().flat_map(|spoke| &mut spoke.pods) {
            if pod.paused {
                continue;
            }
            pod.switch.observe(Some(pod.file), now);
            if pod.deleting && !self.may_act(pod, now) {
                pod.deleting = false;
                pod.ending = true;
            }
        }
        let deleting = world.pods().filter(|(_, pod)| pod.deleting && !pod.paused);
        world.overlap |= deleting.count() > 1;
    }

    /// A pod's process is no more.
    fn end_pod(world: &mut World, (n, i): At) {
        let spoke = &mut world.spokes[n];
        let pod = spoke.pods.remove(i);
        if pod.visible {
            // One that was told to end leaves a Job that may go on; one that ended itself has failed it.
            spoke.ended |= !spoke.suspended;
            // Kubernetes deletes the pods of a suspended Job.
            spoke.seen_to_end = !spoke.suspended;
        }
    }

    fn start_spoke(&self, world: &mut World, n: usize) {
        let now = world.now;
        let spoke = &mut world.spokes[n];
        let visible = spoke.seen_to_end || spoke.pods.iter().any(|pod| pod.visible);
        // What its store had remembered is gone; a Job without pods was once opened, and nobody saw how it ended.
        spoke.lost = spoke.token.filter(|_| !visible);
        spoke.holder = Some(match (spoke.token, spoke.suspended) {
            (Some(token), false) => Holder::adopted(token, TTL, 1, now),
            (Some(token), true) => Holder::after(token),
            _ => Holder::new(),
        });
        self.feed(world, n, Input::Look);
    }

    fn deliver(&self, world: &mut World, message: Message) -> Option<()> {
        let terms = self.terms();
        match message {
            Message::Ask(n) => {
                let ask = |hub: &mut Grantor, now| hub.ask(Lock::operation(n), 0, now, &terms);
                self.at_hub(world, ask, 0)?;
            }
            Message::Renew(n, token, seq) => {
                let renew = |hub: &mut Grantor, now| hub.renew(&Lock::operation(n), token, now, &terms);
                self.at_hub(world, renew, seq)?;
            }
            Message::Release(n, token) => {
                let any = self.mutation == Mutation::AnyRelease;
                let release = |hub: &mut Grantor, _| match holder_of(hub).filter(|_| any) {
                    Some(holder) => hub.release(&Lock::operation(holder), hub.token()),
                    None => hub.release(&Lock::operation(n), token),
                };
                self.at_hub(world, release, 0)?;
            }
            Message::Withdraw(n, opened) => {
                let withdraw = |hub: &mut Grantor, _| hub.withdraw(&Lock::operation(n), opened);
                self.at_hub(world, withdraw, 0)?;
            }
            Message::Grant(n, token) => {
                let granted = Input::Granted {
                    token,
                    ttl: TTL,
                    renew: 1,
                };
                self.feed(world, n, granted);
            }
            Message::Renewed(n, token, seq) => self.feed(world, n, Input::Renewed { token, seq }),
            Message::Revoke(n, token) => self.feed(world, n, Input::Revoked { token }),
            Message::Released(n, token) => self.feed(world, n, Input::Released { token }),
        }
        Some(())
    }

    fn pod_actions(&self, world: &World, actions: &mut Vec<Action>) {
        for (at, pod) in world.pods() {
            if pod.file != pod.count && pod.visible {
                actions.push(Action::Sync(at));
            }
            if pod.paused {
                actions.push(Action::Resume(at));
                continue;
            }
            if !pod.deleting && !pod.ending && self.may_act(pod, world.now) {
                actions.push(Action::Delete(at));
            }
            if pod.deleting {
                actions.push(Action::Finish(at));
            } else if pod.is_stopped(world.now) {
                actions.push(Action::PodGone(at));
            }
            if world.pod_faults < 1 {
                if pod.deleting {
                    actions.push(Action::Pause(at));
                    actions.push(Action::Kill(at));
                }
                if pod.visible {
                    actions.push(Action::ForceDelete(at));
                }
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
            seen_to_end: false,
            lost: None,
            pods: Vec::new(),
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
            pod_faults: 0,
            left_lock: false,
            overlap: false,
            fallen: false,
        };
        for n in 0..SPOKES {
            self.feed(&mut world, n, Input::Look);
        }
        vec![world]
    }

    fn actions(&self, world: &World, actions: &mut Vec<Action>) {
        // The kubelet's lag is bounded: what the delay is there for. Pauses are not.
        let late = |pod: &Pod| pod.visible && pod.file != pod.count && world.now - pod.counted >= LAG;
        if world.now < self.ticks && !world.pods().any(|(_, pod)| late(pod)) {
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
        }
        self.pod_actions(world, actions);
    }

    fn next_state(&self, last: &World, action: Action) -> Option<World> {
        let mut world = last.clone();
        match action {
            Action::Tick => {
                world.now += 1;
                if world.hub.is_some() {
                    self.at_hub(&mut world, |_, _| Vec::new(), 0)?;
                }
            }
            // It can be delivered once more some other time.
            Action::Deliver(message) => self.deliver(&mut world, message)?,
            Action::HubCrash => {
                world.hub = None;
                world.hub_crashes += 1;
            }
            Action::HubStart => {
                let restored = world.disk.clone().map_or_else(Grantor::default, |mut record| {
                    if self.mutation == Mutation::NoGrace {
                        record.holder = None;
                    }
                    Grantor::restored(record, world.now, &self.terms())
                });
                world.hub = Some(restored);
            }
            Action::SpokeCrash(n) => {
                world.spokes[n].holder = None;
                world.spoke_crashes += 1;
            }
            Action::SpokeStart(n) => self.start_spoke(&mut world, n),
            Action::Look(n) => self.feed(&mut world, n, Input::Look),
            Action::Sync(at) => {
                let pod = world.pod(at)?;
                pod.file = pod.count;
            }
            // restic refuses to run beside a lock that somebody left behind, and the run fails.
            Action::Delete(at) if world.left_lock => Lock::end_pod(&mut world, at),
            Action::Delete(at) => world.pod(at)?.deleting = true,
            Action::Finish((n, i)) => {
                world.spokes[n].ended |= world.spokes[n].pods[i].visible;
                Lock::end_pod(&mut world, (n, i));
            }
            Action::PodGone(at) => Lock::end_pod(&mut world, at),
            Action::Pause(at) => {
                world.pod(at)?.paused = true;
                world.pod_faults += 1;
            }
            Action::Resume(at) => {
                let (now, mutation) = (world.now, self.mutation);
                let pod = world.pod(at)?;
                pod.paused = false;
                if mutation == Mutation::FreshAfterPause {
                    // As if it had looked at its file all the time.
                    let found = pod.switch.clone();
                    pod.switch = looked_at(found, now);
                }
            }
            Action::Kill(at) => {
                world.left_lock = true;
                world.pod_faults += 1;
                Lock::end_pod(&mut world, at);
            }
            Action::ForceDelete(at) => {
                world.pod_faults += 1;
                let pod = world.pod(at)?;
                pod.visible = false;
                let lost = (pod.count > 0).then_some(pod.token);
                let spoke = &mut world.spokes[at.0];
                spoke.lost = spoke.lost.max(lost);
                spoke.ended |= !spoke.suspended;
            }
        }
        self.settle_pods(&mut world);
        (world != *last).then_some(world)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always("no two delete phases overlap", |_, w: &World| !w.overlap),
            Property::always("tokens rise for ever", |_, w: &World| !w.fallen),
        ]
    }
}

/// A switch that looked at an unchanged file just now.
fn looked_at(mut switch: Switch, now: u64) -> Switch {
    // No count is lower: nothing but the time of the look changes.
    switch.observe(Some(0), now);
    switch
}

fn holder_of(hub: &Grantor) -> Option<usize> {
    match hub.phase() {
        Phase::Held { grant, .. } | Phase::Delay { grant, .. } => grant.operation.cluster.parse().ok(),
        _ => None,
    }
}
