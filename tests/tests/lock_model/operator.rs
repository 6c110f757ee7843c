//! A cluster's side: what an operator does with the effects of a holder, and what Kubernetes does with a Job.

use spoke::maintenance::holder::{Effect, Holder, Input, Limits, Observed, Phase};

use crate::guards::Guard;
use crate::world::{
    ASK_AGAIN, Answer, GRACE, Job, Missing, Operating, Pod, Question, RENEW, START, Spoke, TTL, What, World,
    node_time, operator_time,
};

fn limits(missing: Missing) -> Limits {
    let endless = missing.has(Guard::RefusalIgnored);
    Limits {
        start: if endless { 1 << 40 } else { START },
        ask_again: ASK_AGAIN,
    }
}

/// The Job and its pods, as the caches of an operator have them.
fn observe(world: &World, n: usize, uid: u8, missing: Missing) -> Observed {
    let spoke = &world.spokes[n];
    let job = spoke.job.as_ref().filter(|job| job.uid == uid);
    let hidden = missing.has(Guard::EarlyRelease) && job.is_none_or(|job| job.suspended);
    let pods = || {
        let its = |pod: &&Pod| pod.spoke == n && pod.uid == uid && pod.visible;
        world.pods.iter().filter(its).filter(|_| !hidden)
    };
    let at_work = pods().next().is_some();
    Observed {
        ended: job.is_none_or(|job| job.ended) && !at_work,
        finished: job.is_some_and(|job| job.ended),
        suspended: job.is_none_or(|job| job.suspended),
        begun: job.is_some_and(|job| job.token.is_some()),
        token: job.and_then(|job| job.token),
        pods: at_work,
        started: pods().any(|pod| pod.switch.is_some()),
        alive: missing.has(Guard::NoSignOfLife) || pods().any(|pod| pod.switch.is_some() && !pod.cut_off),
        lost: spoke.lost.filter(|(of, _)| *of == uid).map(|(_, token)| token),
    }
}

/// The leader meets its Job for the first time.
fn adopt(world: &mut World, n: usize, missing: Missing) {
    let now = operator_time(world, n);
    let spoke = &world.spokes[n];
    let Some(job) = spoke.job.clone() else { return };
    let known = spoke.replicas[spoke.leader].as_ref();
    if known.is_some_and(|operating| operating.uid == job.uid) {
        return;
    }
    let visible = world
        .pods
        .iter()
        .any(|pod| pod.spoke == n && pod.uid == job.uid && pod.visible);
    let spoke = &mut world.spokes[n];
    // Nobody saw how its pod ended.
    if !visible && !spoke.seen_to_end && !missing.has(Guard::UnseenIsAnEnd) {
        spoke.lost = job.token.map(|token| (job.uid, token)).or(spoke.lost);
    }
    let holder = match (job.token, job.suspended) {
        (Some(token), false) => Holder::adopted(token, TTL, RENEW, now),
        (Some(token), true) => Holder::after(token),
        (None, _) => Holder::new(),
    };
    spoke.replicas[spoke.leader] = Some(Operating {
        uid: job.uid,
        repo: job.repo,
        holder: holder.within(limits(missing)),
    });
}

/// The leader looks at its Job, and does what is due.
pub fn look(world: &mut World, n: usize, missing: Missing) {
    if world.spokes[n].works() {
        adopt(world, n, missing);
        feed(world, n, Input::Look, missing);
    }
}

pub fn feed(world: &mut World, n: usize, input: Input, missing: Missing) {
    let mut next = Some(input);
    while let Some(input) = next.take() {
        let leader = world.spokes[n].leader;
        let Some(mut operating) = world.spokes[n].replicas[leader].take() else {
            return;
        };
        let now = operator_time(world, n);
        let seen = observe(world, n, operating.uid, missing);
        let effects = operating.holder.step(input, seen, now);
        for effect in effects {
            if let Effect::Shut = effect {
                let waits = matches!(operating.holder.phase(), Phase::Waiting { .. } | Phase::Done(_));
                world.misled |= waits && seen.token.is_some() && seen.pods;
            }
            if !carry_out(world, n, &operating, effect, missing) && !missing.has(Guard::RefusalIgnored) {
                let Effect::Open { token } = effect else {
                    unreachable!()
                };
                next = Some(Input::OpenRefused { token });
            }
        }
        let done = matches!(operating.holder.phase(), Phase::Done(_));
        let spoke = &mut world.spokes[n];
        if done {
            // What is still wanted is done by another Job.
            spoke.job.take_if(|job| job.uid == operating.uid);
        } else {
            spoke.replicas[leader] = Some(operating);
        }
    }
}

/// `false` if the API server refuses it.
fn carry_out(world: &mut World, n: usize, operating: &Operating, effect: Effect, missing: Missing) -> bool {
    let uid = operating.uid;
    let spoke = &mut world.spokes[n];
    let repo = if missing.has(Guard::Unpinned) {
        spoke.policy
    } else {
        operating.repo
    };
    match effect {
        Effect::Ask => {
            let seen = spoke.seen[repo].0;
            spoke.send(Question::Ask { uid, repo, seen });
        }
        Effect::Withdraw { opened } => spoke.send(Question::Withdraw { uid, repo, opened }),
        Effect::Renew { token, seq } => spoke.send(Question::Renew {
            uid,
            repo,
            token,
            seq,
        }),
        Effect::Release { token } => spoke.send(Question::Release { uid, repo, token }),
        Effect::Open { token } => return open(world, n, uid, token),
        Effect::Shut => shut(world, n, uid),
        Effect::Count { .. } => count(world, n, uid),
    }
    true
}

fn open(world: &mut World, n: usize, uid: u8, token: u64) -> bool {
    let now = world.now;
    let spoke = &mut world.spokes[n];
    let Some(job) = spoke.job.as_mut().filter(|job| job.uid == uid) else {
        return true;
    };
    if job.refused || job.token.is_some() {
        return false;
    }
    (job.token, job.suspended) = (Some(token), false);
    spoke.seen_to_end = false;
    world.pods.push(Pod {
        spoke: n,
        uid,
        repo: job.repo,
        token,
        count: 0,
        counted: now,
        file: 0,
        switch: None,
        deleting: false,
        kill: None,
        paused: false,
        cut_off: false,
        visible: true,
        dead: false,
    });
    true
}

/// The Job is suspended: the kubelet ends its pods, if it can be reached.
fn shut(world: &mut World, n: usize, uid: u8) {
    let node = node_time(world, n);
    if let Some(job) = &mut world.spokes[n].job {
        job.suspended = true;
    }
    let its = |pod: &&mut Pod| pod.spoke == n && pod.uid == uid && pod.visible && !pod.cut_off;
    for pod in world.pods.iter_mut().filter(its) {
        let over = pod.switch.as_ref().map_or(node, |s| s.signalled(node, GRACE));
        pod.kill = Some(pod.kill.map_or(over, |kill| kill.min(over)));
    }
}

fn count(world: &mut World, n: usize, uid: u8) {
    let now = world.now;
    for pod in &mut world.pods {
        if pod.spoke == n && pod.uid == uid && pod.visible {
            if pod.count == pod.file {
                pod.counted = now;
            }
            pod.count += 1;
        }
    }
}

/// An answer arrives.
pub fn take(world: &mut World, n: usize, answer: Answer, missing: Missing) {
    let spoke = &mut world.spokes[n];
    let Some(operating) = &spoke.replicas[spoke.leader] else {
        return;
    };
    let Answer {
        uid,
        repo,
        token,
        what,
    } = answer;
    if operating.uid != uid || (operating.repo != repo && !missing.has(Guard::Unpinned)) {
        return;
    }
    let input = match what {
        What::Grant => {
            let (highest, of) = spoke.seen[repo];
            if token < highest || (token == highest && of != uid) {
                Input::Refused { token }
            } else {
                spoke.seen[repo] = (token, uid);
                Input::Granted {
                    token,
                    ttl: TTL,
                    renew: RENEW,
                }
            }
        }
        What::Renewed(seq) => Input::Renewed { token, seq },
        What::Revoke => Input::Revoked { token },
        What::Released => Input::Released { token },
    };
    feed(world, n, input, missing);
}

/// The CronJob's next Job.
pub fn make(spoke: &mut Spoke) {
    spoke.made += 1;
    spoke.left -= 1;
    spoke.seen_to_end = false;
    spoke.job = Some(Job {
        uid: spoke.made,
        repo: spoke.policy,
        suspended: true,
        token: None,
        ended: false,
        refused: false,
    });
}

/// The operator's process starts, or a replica becomes the leader.
pub fn lead(world: &mut World, n: usize, leader: usize, missing: Missing) {
    world.cut(n);
    let spoke = &mut world.spokes[n];
    spoke.leader = leader;
    if !missing.has(Guard::KeptMemory) {
        spoke.replicas = [None, None];
    }
    (spoke.up, spoke.stalled) = (true, false);
    look(world, n, missing);
}
