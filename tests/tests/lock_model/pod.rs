//! A pod and its restic, as the worker steers it, and the node that it runs on.

use spoke::worker::switch::{Switch, Verdict};

use crate::guards::Guard;
use crate::world::{Missing, Pod, TTL, World, node_time};

const LIFETIME: u64 = TTL - TTL / 10;

pub fn start(pod: &mut Pod, now: u64) {
    let mut switch = Switch::new(LIFETIME, now);
    switch.observe(Some(pod.file), now, now);
    pod.switch = Some(switch);
}

/// Whether restic may begin to delete.
pub fn may_begin(pod: &Pod, now: u64, missing: Missing) -> bool {
    let Some(switch) = &pod.switch else { return false };
    if pod.kill.is_some() || pod.paused || pod.deleting || pod.dead {
        return false;
    }
    match switch.verdict(now) {
        Verdict::Go => true,
        Verdict::NotYet => missing.has(Guard::NoFirstRenewal),
        Verdict::Stop { .. } => missing.has(Guard::NoSwitch),
    }
}

/// What pods do as soon as they run: look at their file, end restic in time, kill it in time.
pub fn settle(world: &mut World, missing: Missing) {
    let mut at = 0;
    while at < world.pods.len() {
        let now = node_time(world, world.pods[at].spoke);
        let pod = &mut world.pods[at];
        if pod.paused || pod.dead {
            at += 1;
            continue;
        }
        if let Some(switch) = &mut pod.switch {
            switch.observe(Some(pod.file), now, now);
            if let Verdict::Stop { kill } = switch.verdict(now)
                && pod.kill.is_none()
                && !missing.has(Guard::NoSwitch)
            {
                let late = missing.has(Guard::GraceAfterPause) && kill <= now;
                pod.kill = Some(if late { now + LIFETIME / 4 } else { kill });
            }
        }
        let is_over = pod.kill.is_some_and(|kill| now >= kill || !pod.deleting);
        if is_over {
            let pods = world.pods.len();
            end(world, at, false);
            at += usize::from(world.pods.len() == pods);
        } else {
            at += 1;
        }
    }
    for pod in &world.pods {
        let beside = |other: &&Pod| other.deleting && !other.paused && other.repo == pod.repo;
        world.overlap |= world.pods.iter().filter(beside).count() > 1;
    }
}

/// A pod's process ends, and the kubelet reports it, if it can.
pub fn end(world: &mut World, at: usize, well: bool) {
    let pod = &mut world.pods[at];
    // A node that is cut off cannot report that its pod has ended.
    if pod.visible && pod.cut_off {
        (pod.deleting, pod.dead) = (false, true);
        return;
    }
    let pod = world.pods.remove(at);
    if !pod.visible {
        return;
    }
    let spoke = &mut world.spokes[pod.spoke];
    if let Some(job) = spoke.job.as_mut().filter(|job| job.uid == pod.uid) {
        // One that ended itself has failed the Job; the pods of a suspended one are deleted.
        job.ended |= well || !job.suspended;
        spoke.seen_to_end = !job.suspended;
    }
}

/// A pod disappears from the API server without the kubelet's word.
pub fn disappear(world: &mut World, at: usize, guard: Guard, missing: Missing) {
    let pod = &mut world.pods[at];
    pod.visible = false;
    let spoke = &mut world.spokes[pod.spoke];
    // One that was never shown a renewal has not begun.
    if pod.count > 0 && spoke.up && !missing.has(guard) {
        spoke.lost = Some((pod.uid, pod.token));
    }
    spoke.seen_to_end |= missing.has(guard);
    let job = spoke.job.as_mut().filter(|job| job.uid == pod.uid);
    if guard == Guard::OrphanIsAnEnd {
        spoke.job = None;
    } else if let Some(job) = job {
        job.ended |= !job.suspended;
    }
}
