//! The hub's side: what a keeper does with the effects of its grantors, and with its store.

use std::collections::VecDeque;

use hub::lock::grantor::{Effect, Grantor, Holder, Phase, Terms};

use crate::guards::Guard;
use crate::world::{
    Answer, DELAY, Hub, Missing, Question, REPOSITORIES, TTL, What, World, hub_time, operation,
};

pub fn terms(missing: Missing) -> Terms {
    let delay = if missing.has(Guard::NoDelay) {
        0
    } else if missing.has(Guard::ShortDelay) {
        TTL / 2
    } else {
        DELAY
    };
    Terms {
        ttl: TTL,
        delay,
        drain: 0,
        patience: u64::MAX,
    }
}

/// A process starts on the store.
pub fn start(world: &mut World, missing: Missing) {
    world.store.epoch += 1;
    world.hubs_started += 1;
    if world.unnoticed.is_some() {
        world.unnoticed = Some(world.now);
    }
    let terms = terms(missing);
    let grantors = std::array::from_fn(|repo| {
        let record = world.store.records[repo].clone().map(|mut record| {
            if missing.has(Guard::NoGrace) {
                record.holder = None;
            }
            record
        });
        match record {
            // A grantor that was met before in this life, and remembers the token.
            Some(record) if missing.has(Guard::NoWaitAfterStart) && record.holder.is_none() => {
                let mut grantor = Grantor::fresh(0);
                grantor.ask(operation(0, 0), record.token, 0);
                grantor.withdraw(&operation(0, 0), 0);
                grantor
            }
            None if missing.has(Guard::NoWaitAfterStart) => Grantor::fresh(0),
            Some(record) => Grantor::restored(record, 0, &terms),
            // The very first start of a fleet: nothing can have been granted before.
            None if world.hubs_started == 1 => Grantor::fresh(0),
            None => Grantor::fresh(terms.expiry()),
        }
    });
    let old = terms.is_outdated(world.store.alive, world.now) && world.hubs_started > 1;
    let blind = missing.has(Guard::NoDetection) || missing.has(Guard::NoWaitAfterStart);
    if old && !blind && !missing.has(Guard::EpochsOnly) {
        world.unnoticed = None;
        world.store.restored = true;
    }
    world.store.alive = world.now;
    world.hubs.push(Hub {
        serial: world.hubs_started,
        epoch: world.store.epoch,
        born: world.now,
        learnt: None,
        grantors,
    });
    if world.store.restored {
        await_unknown(world, world.hubs.len() - 1, missing);
    }
}

fn await_unknown(world: &mut World, at: usize, missing: Missing) {
    let serial = world.hubs[at].serial;
    for repo in 0..REPOSITORIES {
        let Some(at) = world.hub(serial) else { return };
        let now = hub_time(world, &world.hubs[at]);
        world.hubs[at].learnt = Some(now);
        let effects = world.hubs[at].grantors[repo].store_restored(now, &terms(missing));
        carry_out(world, at, repo, effects, 0, missing);
    }
}

/// A cluster's operator connects; both learn the other's epoch.
pub fn connect(world: &mut World, n: usize, serial: u8, missing: Missing) {
    world.cut(n);
    let Some(at) = world.hub(serial) else { return };
    if world.spokes[n].epoch > world.hubs[at].epoch {
        if world.store.epoch != world.hubs[at].epoch && !missing.has(Guard::NoFence) {
            exit(world, at);
            return;
        }
        // Higher than any that its store has ever had: it was put back.
        world.unnoticed = None;
        let blind = missing.has(Guard::NoDetection) || missing.has(Guard::NoWaitAfterStart);
        if world.store.epoch == world.hubs[at].epoch && !blind {
            world.store.epoch = world.spokes[n].epoch + 1;
            world.hubs[at].epoch = world.store.epoch;
            world.store.restored = true;
            await_unknown(world, at, missing);
        }
    }
    let Some(at) = world.hub(serial) else { return };
    let spoke = &mut world.spokes[n];
    spoke.epoch = spoke.epoch.max(world.hubs[at].epoch);
    spoke.link = Some(serial);
}

/// A process ends; its streams with it.
pub fn exit(world: &mut World, at: usize) {
    let hub = world.hubs.remove(at);
    for n in 0..world.spokes.len() {
        if world.spokes[n].link == Some(hub.serial) {
            world.cut(n);
        }
    }
}

/// A question arrives.
pub fn answer(world: &mut World, n: usize, serial: u8, question: Question, missing: Missing) {
    let Some(at) = world.hub(serial) else { return };
    let now = hub_time(world, &world.hubs[at]);
    let terms = terms(missing);
    let (repo, seq) = match question {
        Question::Ask { repo, .. } | Question::Withdraw { repo, .. } | Question::Release { repo, .. } => {
            (repo, 0)
        }
        Question::Renew { repo, seq, .. } => (repo, seq),
    };
    let grantor = &mut world.hubs[at].grantors[repo];
    let effects = match question {
        Question::Ask { uid, seen, .. } => grantor.ask(operation(n, uid), seen, now),
        Question::Withdraw { uid, opened, .. } => grantor.withdraw(&operation(n, uid), opened),
        Question::Renew { uid, token, .. } => {
            let is_held = matches!(grantor.phase(), Phase::Held { .. } | Phase::Granting { .. });
            if missing.has(Guard::Unpinned) && !is_held && token > grantor.token() {
                grantor.store_restored(now, &terms);
            }
            grantor.renew(&operation(n, uid), token, now, &terms)
        }
        Question::Release { uid, token, .. } => release(grantor, n, uid, token, missing),
    };
    carry_out(world, at, repo, effects, seq, missing);
    advance(world, serial, missing);
}

fn release(grantor: &mut Grantor, n: usize, uid: u8, token: u64, missing: Missing) -> Vec<Effect> {
    let held = match grantor.phase() {
        Phase::Held { grant, .. } => Some((grant.operation.clone(), grant.token)),
        Phase::Delay {
            holder: Holder::Known(operation),
            token,
            ..
        } => Some((operation.clone(), *token)),
        _ => None,
    };
    match held.filter(|_| missing.has(Guard::AnyRelease)) {
        Some((holder, token)) => grantor.release(&holder, token),
        None => grantor.release(&operation(n, uid), token),
    }
}

/// Time passes at a hub.
pub fn advance(world: &mut World, serial: u8, missing: Missing) {
    let terms = terms(missing);
    if let Some(at) = world.hub(serial)
        && world.store.epoch == world.hubs[at].epoch
    {
        world.store.alive = world.now;
    }
    for repo in 0..REPOSITORIES {
        let Some(at) = world.hub(serial) else { return };
        let now = hub_time(world, &world.hubs[at]);
        let hub = &mut world.hubs[at];
        if hub
            .learnt
            .is_some_and(|at| now >= at + terms.expiry() + terms.delay)
        {
            hub.learnt = None;
            world.store.restored = false;
        }
        let spokes = &world.spokes;
        let connected = |cluster: &str| {
            let n: usize = cluster.parse().unwrap();
            spokes[n].link == Some(serial)
        };
        let effects = world.hubs[at].grantors[repo].advance(now, &terms, false, connected);
        carry_out(world, at, repo, effects, 0, missing);
    }
}

/// Does what a grantor asks for, in order, as the keeper does.
fn carry_out(world: &mut World, at: usize, repo: usize, effects: Vec<Effect>, seq: u64, missing: Missing) {
    let serial = world.hubs[at].serial;
    let now = hub_time(world, &world.hubs[at]);
    let mut queue: VecDeque<Effect> = effects.into();
    while let Some(effect) = queue.pop_front() {
        let (operation, token, what) = match effect {
            Effect::Commit { record, grant } => {
                let at = world.hub(serial).unwrap();
                if world.store.epoch != world.hubs[at].epoch && !missing.has(Guard::NoFence) {
                    return exit(world, at);
                }
                if std::mem::take(&mut world.broken) {
                    if !missing.has(Guard::FailedCommitIgnored) {
                        world.hubs[at].grantors[repo].failed(now);
                        return;
                    }
                } else if !(missing.has(Guard::TellBeforeCommit) && grant.is_some()) {
                    // Answered first, kept never: as if the hub crashed in between.
                    world.store.records[repo] = Some(record);
                }
                if let Some(grant) = grant {
                    let terms = terms(missing);
                    queue.extend(world.hubs[at].grantors[repo].committed(grant.token, now, &terms));
                }
                continue;
            }
            Effect::Grant(grant) => {
                let of = (
                    grant.operation.cluster.parse().unwrap(),
                    grant.operation.id.parse().unwrap(),
                );
                let (highest, whose) = world.granted[repo];
                if (grant.token, of) != (highest, whose) {
                    world.fallen |= grant.token <= highest && !world.ever_put_back;
                    world.granted[repo] = (grant.token, of);
                    world.grants += 1;
                }
                (grant.operation, grant.token, What::Grant)
            }
            Effect::Renewed { operation, token } => {
                let at = world.hub(serial).unwrap();
                let fenced = world.store.epoch != world.hubs[at].epoch;
                if fenced && !missing.has(Guard::NoFence) && !missing.has(Guard::FenceForWritesOnly) {
                    return exit(world, at);
                }
                (operation, token, What::Renewed(seq))
            }
            Effect::Revoke { operation, token, .. } => (operation, token, What::Revoke),
            Effect::Released { operation, token } => (operation, token, What::Released),
        };
        let n: usize = operation.cluster.parse().unwrap();
        if world.spokes[n].link == Some(serial) {
            let uid = operation.id.parse().unwrap();
            world.spokes[n].answers.push_back(Answer {
                uid,
                repo,
                token,
                what,
            });
        }
    }
}

/// A person takes the lock back.
pub fn revoke(world: &mut World, serial: u8, repo: usize, missing: Missing) {
    let Some(at) = world.hub(serial) else { return };
    let grantor = &mut world.hubs[at].grantors[repo];
    let Phase::Held { grant, .. } = grantor.phase() else {
        return;
    };
    let token = grant.token;
    let effects = grantor.revoke(token).unwrap();
    carry_out(world, at, repo, effects, 0, missing);
}
