//! When something can happen, and what follows from it.

use hub::lock::grantor::Phase;
use spoke::maintenance::holder::Input;
use stateright::{Model, Property};

use crate::action::{Action, FIRST_FAULT};
use crate::guards::Guard;
use crate::world::{LAG, Missing, Pod, Rates, TTL, World, node_time};
use crate::{keeper, operator, pod};

#[derive(Clone, Copy, Debug)]
pub struct Lock {
    pub missing: Missing,
    pub tick: u64,
    pub until: u64,
    pub faults: u8,
    pub jobs: u8,
    pub rates: Rates,
    /// Streams carry all at once, containers start at once, and only the faults that lead furthest happen.
    pub coarse: bool,
}

impl Lock {
    /// What can happen now.
    pub fn possible(&self, world: &World, actions: &mut Vec<Action>) {
        if world.now < self.until && self.time_may_pass(world) {
            actions.push(Action::Tick);
        }
        for n in 0..world.spokes.len() {
            self.of_spoke(world, n, actions);
        }
        for (at, pod) in world.pods.iter().enumerate() {
            self.of_pod(world, at, pod, actions);
        }
        match world.hubs.is_empty() {
            true => {
                actions.push(Action::HubStart);
                // A copy that is younger than a life is put back by nobody.
                if world.copied && world.now > world.copy.alive + TTL * 11 / 10 + 1 && !world.ever_put_back {
                    actions.push(Action::PutBack);
                }
            }
            false => self.of_hub(world, actions),
        }
        if self.coarse {
            // Clusters are alike: the first is the first that connects.
            let second = |n: usize| n == 1 && world.spokes[0].epoch == 0;
            actions.retain(|action| match action {
                Action::Up(_) | Action::Down(_) | Action::Late(_) | Action::Copy => false,
                Action::BreakCommit | Action::Repoint(_) | Action::RefuseOpen(_) => false,
                Action::Stall(_) | Action::Revoke(_) | Action::SecondHub => false,
                Action::Connect(n, _) => !second(*n),
                _ => true,
            });
        }
    }

    fn may_fail(&self, world: &World) -> bool {
        world.faults < self.faults
    }

    /// The kubelet's lag is bounded: that is what the delay is for. And after a store was put back, some cluster that
    /// has met the hub before connects within one life of a lease. Nothing else is bounded.
    pub fn time_may_pass(&self, world: &World) -> bool {
        let late = |pod: &Pod| {
            let waits = pod.visible && !pod.cut_off && !pod.paused && !pod.dead && pod.switch.is_some();
            waits && pod.file != pod.count && world.now + self.tick > pod.counted + LAG
        };
        let unnoticed = world.unnoticed.is_some_and(|since| {
            !world.hubs.is_empty() && (world.now + self.tick - since) * world.rates.hub / 10 >= TTL
        });
        !unnoticed && !world.pods.iter().any(late)
    }

    fn of_spoke(&self, world: &World, n: usize, actions: &mut Vec<Action>) {
        let spoke = &world.spokes[n];
        if !spoke.up {
            actions.push(Action::SpokeStart(n));
            return;
        }
        if spoke.stalled {
            actions.push(Action::Unstall(n));
        }
        if spoke.link.is_some() {
            if !spoke.questions.is_empty() || (!spoke.answers.is_empty() && spoke.works()) {
                actions.push(Action::Exchange(n));
            }
            if !spoke.questions.is_empty() {
                actions.push(Action::Up(n));
            }
            if !spoke.answers.is_empty() && spoke.works() {
                actions.push(Action::Down(n));
            }
            // To a second hub, although the first can still be reached.
            if spoke.works() {
                let others = world.hubs.iter().filter(|hub| Some(hub.serial) > spoke.link);
                actions.extend(others.map(|hub| Action::Connect(n, hub.serial)));
            }
        } else if spoke.works() {
            actions.extend(world.hubs.iter().map(|hub| Action::Connect(n, hub.serial)));
        }
        if !spoke.late.is_empty() && !world.hubs.is_empty() {
            actions.push(Action::Late(n));
        }
        if spoke.works() && spoke.job.is_none() && spoke.left > 0 {
            actions.push(Action::Make(n));
        }
        if self.may_fail(world) {
            if spoke.link.is_some() {
                actions.push(Action::Cut(n));
            }
            actions.extend([Action::SpokeCrash(n), Action::HandOver(n), Action::Repoint(n)]);
            if !spoke.stalled {
                actions.push(Action::Stall(n));
            }
            if let Some(job) = &spoke.job {
                match job.token {
                    None if !job.refused => actions.push(Action::RefuseOpen(n)),
                    Some(_) => actions.push(Action::Orphan(n)),
                    None => {}
                }
            }
        }
    }

    fn of_pod(&self, world: &World, at: usize, pod: &Pod, actions: &mut Vec<Action>) {
        if pod.cut_off && pod.visible {
            actions.push(Action::NodeBack(at));
        }
        if self.may_fail(world) || pod.cut_off {
            if pod.visible && pod.cut_off {
                actions.push(Action::PodGc(at));
            }
            if self.may_fail(world) && pod.visible {
                actions.push(Action::Force(at));
                if !pod.cut_off {
                    actions.push(Action::CutNode(at));
                }
            }
        }
        if pod.dead {
            return;
        }
        if pod.switch.is_none() && pod.kill.is_none() && pod.visible {
            actions.push(Action::Begin(at));
        }
        if pod.file != pod.count && pod.visible && !pod.cut_off && pod.switch.is_some() {
            actions.push(Action::Sync(at));
        }
        if pod.paused {
            actions.push(Action::Resume(at));
            return;
        }
        if pod::may_begin(pod, node_time(world, pod.spoke), self.missing) {
            actions.push(Action::Delete(at));
        }
        if pod.deleting {
            actions.push(Action::Finish(at));
            if self.may_fail(world) {
                actions.push(Action::Pause(at));
            }
        }
    }

    fn of_hub(&self, world: &World, actions: &mut Vec<Action>) {
        if !self.may_fail(world) {
            return;
        }
        actions.extend(world.hubs.iter().map(|hub| Action::HubCrash(hub.serial)));
        if world.hubs.len() == 1 {
            actions.push(Action::SecondHub);
        }
        if !world.broken {
            actions.push(Action::BreakCommit);
        }
        if !world.copied {
            actions.push(Action::Copy);
        }
        for hub in &world.hubs {
            for (repo, grantor) in hub.grantors.iter().enumerate() {
                if matches!(grantor.phase(), Phase::Held { revoked: false, .. }) {
                    actions.push(Action::Revoke(repo));
                }
            }
        }
    }

    /// Carries an action out.
    pub fn apply(&self, world: &mut World, action: Action) {
        let missing = self.missing;
        world.faults += u8::from(action.kind() >= FIRST_FAULT);
        match action {
            Action::Tick => {
                world.now += self.tick;
                for serial in world.hubs.iter().map(|hub| hub.serial).collect::<Vec<_>>() {
                    keeper::advance(world, serial, missing);
                }
            }
            Action::Exchange(n) => self.exchange(world, n),
            Action::Up(n) => self.up(world, n),
            Action::Down(n) => self.down(world, n),
            Action::Late(n) => {
                let question = world.spokes[n].late.remove(0);
                let serial = world.hubs[world.hubs.len() - 1].serial;
                keeper::answer(world, n, serial, question, missing);
            }
            Action::Connect(n, serial) => {
                keeper::connect(world, n, serial, missing);
                if world.spokes[n].link.is_some() {
                    operator::feed(world, n, Input::Connected, missing);
                }
            }
            Action::Make(n) => operator::make(&mut world.spokes[n]),
            Action::HubStart => keeper::start(world, missing),
            Action::SecondHub => keeper::start(world, missing),
            Action::HubCrash(serial) => {
                if let Some(at) = world.hub(serial) {
                    keeper::exit(world, at);
                }
            }
            Action::Copy => {
                world.copied = true;
                world.copy = world.store.clone();
            }
            Action::PutBack => {
                world.ever_put_back = true;
                let epoch = world.store.epoch;
                world.store = world.copy.clone();
                world.unnoticed = (world.store.epoch < epoch).then_some(world.now);
            }
            Action::BreakCommit => world.broken = true,
            Action::Revoke(repo) => self.revoke(world, repo),
            _ => self.apply_to_cluster(world, action),
        }
        if self.coarse {
            for at in 0..world.pods.len() {
                let now = node_time(world, world.pods[at].spoke);
                if world.pods[at].switch.is_none() {
                    pod::start(&mut world.pods[at], now);
                }
            }
        }
        for n in 0..world.spokes.len() {
            operator::look(world, n, missing);
        }
        pod::settle(world, missing);
    }

    fn apply_to_cluster(&self, world: &mut World, action: Action) {
        let missing = self.missing;
        match action {
            Action::SpokeStart(n) => {
                let leader = world.spokes[n].leader;
                operator::lead(world, n, leader, missing);
            }
            Action::HandOver(n) => {
                let other = 1 - world.spokes[n].leader;
                operator::lead(world, n, other, missing);
            }
            Action::SpokeCrash(n) => {
                world.cut(n);
                let spoke = &mut world.spokes[n];
                spoke.replicas = [None, None];
                (spoke.up, spoke.lost) = (false, None);
            }
            Action::Cut(n) => world.cut(n),
            Action::Stall(n) => world.spokes[n].stalled = true,
            Action::Unstall(n) => world.spokes[n].stalled = false,
            Action::Repoint(n) => world.spokes[n].policy = 1 - world.spokes[n].policy,
            Action::RefuseOpen(n) => {
                if let Some(job) = &mut world.spokes[n].job {
                    job.refused = true;
                }
            }
            Action::Orphan(n) => {
                let uid = world.spokes[n].job.as_ref().map(|job| job.uid);
                let its = |pod: &Pod| pod.spoke == n && Some(pod.uid) == uid && pod.visible;
                match world.pods.iter().position(its) {
                    Some(at) => pod::disappear(world, at, Guard::OrphanIsAnEnd, missing),
                    None => world.spokes[n].job = None,
                }
            }
            Action::Begin(at) => {
                let now = node_time(world, world.pods[at].spoke);
                pod::start(&mut world.pods[at], now);
            }
            Action::Sync(at) => world.pods[at].file = world.pods[at].count,
            Action::Delete(at) => world.pods[at].deleting = true,
            Action::Finish(at) => pod::end(world, at, true),
            Action::Pause(at) => world.pods[at].paused = true,
            Action::Resume(at) => {
                let now = node_time(world, world.pods[at].spoke);
                let pod = &mut world.pods[at];
                pod.paused = false;
                if let Some(switch) = pod
                    .switch
                    .as_mut()
                    .filter(|_| missing.has(Guard::FreshAfterPause))
                {
                    // As if it had looked at its file all the time: no count is lower than this one.
                    switch.observe(Some(0), now, now);
                }
            }
            Action::CutNode(at) => world.pods[at].cut_off = true,
            Action::NodeBack(at) => self.node_back(world, at),
            Action::PodGc(at) => pod::disappear(world, at, Guard::PodGcIsAnEnd, missing),
            Action::Force(at) => pod::disappear(world, at, Guard::ForceIsAnEnd, missing),
            _ => {}
        }
    }

    fn node_back(&self, world: &mut World, at: usize) {
        let now = node_time(world, world.pods[at].spoke);
        let pod = &mut world.pods[at];
        pod.cut_off = false;
        if pod.dead {
            return pod::end(world, at, false);
        }
        let job = world.spokes[pod.spoke].job.as_ref();
        if job.is_none_or(|job| job.uid != pod.uid || job.suspended) {
            let over = pod
                .switch
                .as_ref()
                .map_or(now, |s| s.signalled(now, crate::world::GRACE));
            pod.kill = Some(pod.kill.map_or(over, |kill| kill.min(over)));
        }
    }

    fn up(&self, world: &mut World, n: usize) {
        let Some(serial) = world.spokes[n].link else {
            return;
        };
        if let Some(question) = world.spokes[n].questions.pop_front() {
            keeper::answer(world, n, serial, question, self.missing);
        }
    }

    fn down(&self, world: &mut World, n: usize) {
        if let Some(answer) = world.spokes[n].answers.pop_front() {
            operator::take(world, n, answer, self.missing);
        }
    }

    fn exchange(&self, world: &mut World, n: usize) {
        for _ in 0..16 {
            let spoke = &world.spokes[n];
            let answers = !spoke.answers.is_empty() && spoke.works();
            if spoke.link.is_none() || (spoke.questions.is_empty() && !answers) {
                return;
            }
            self.up(world, n);
            if world.spokes[n].works() {
                self.down(world, n);
                operator::look(world, n, self.missing);
            }
        }
    }

    fn revoke(&self, world: &mut World, repo: usize) {
        for serial in world.hubs.iter().map(|hub| hub.serial).collect::<Vec<_>>() {
            keeper::revoke(world, serial, repo, self.missing);
        }
    }
}

impl Model for Lock {
    type State = World;
    type Action = Action;

    fn init_states(&self) -> Vec<World> {
        let mut world = World::new(self.rates, self.jobs);
        keeper::start(&mut world, self.missing);
        for spoke in &mut world.spokes {
            operator::make(spoke);
        }
        vec![world]
    }

    fn actions(&self, world: &World, actions: &mut Vec<Action>) {
        self.possible(world, actions);
    }

    fn next_state(&self, last: &World, action: Action) -> Option<World> {
        let mut world = last.clone();
        self.apply(&mut world, action);
        (world != *last).then_some(world)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always("no two delete phases", |_, w: &World| !w.overlap),
            Property::always("tokens rise for ever", |_, w: &World| !w.fallen),
            Property::always("no stale memory shuts a Job", |_, w: &World| !w.misled),
        ]
    }
}
