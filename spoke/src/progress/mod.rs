//! Reads from the logs of running pods how far they have come, and wakes those whose status shows it. The pods have no access
//! to the API server, and a termination message exists only at the end.
//!
//! A budget of its own: [`PACE`] for the whole cluster, [`turns::EACH`] per pod, nothing in the first half minute of a run, and
//! no request while nothing runs. The pod that has waited longest is next, so a thousand of them are read less often, not
//! faster.

mod turns;

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tracing::debug;

use crate::context::Context;
use crate::operation::BEHALF;
use crate::restic::progress::newest;
use crate::runs::progress::works;
use crate::world::{Key, PodView, RESTIC_CONTAINER};

use turns::Turns;

/// Between two requests.
const PACE: Duration = Duration::from_millis(250);
/// Between two looks at the cache for pods whose turn it is.
const LOOK: Duration = Duration::from_secs(5);
/// Lines and bytes of the end of a log. A line about progress comes every ten seconds, with two names of files in it.
const LINES: i64 = 5;
const BYTES: i64 = 32 << 10;

/// Types of Jobs whose progress no status shows.
const UNSHOWN: [&str; 2] = ["unlock", BEHALF];

/// Wakes the actors whose status shows how far a pod has come.
pub type Wake = Arc<dyn Fn(&Key, &PodView) + Send + Sync>;

/// Looks until it is stopped.
pub async fn run(context: Arc<Context>, wake: Wake, stop: CancellationToken) {
    tokio::select! {
        () = read_all(&context, &wake) => {}
        () = stop.cancelled() => {}
    }
}

async fn read_all(context: &Context, wake: &Wake) {
    let mut turns = Turns::default();
    loop {
        sleep(LOOK).await;
        if !context.leader.is_leader() {
            turns = Turns::default();
            continue;
        }
        let pods = reporting(context);
        let uids: HashSet<&str> = pods.iter().map(|(_, pod)| &*pod.meta.uid).collect();
        context.world.reports.keep(&uids);
        turns.keep(&uids);
        for (key, pod) in turns.due(&pods, context.clock.now()) {
            sleep(PACE).await;
            let present = context.world.pods.get(key);
            let goes_on = present.is_some_and(|now| now.meta.uid == pod.meta.uid && works(&now));
            if goes_on && context.leader.is_leader() {
                let failed = !read(context, wake, (key, pod)).await;
                turns.read(&pod.meta.uid, failed, context.clock.now());
            }
        }
    }
}

/// Pods that may have something to report, and somebody who shows it.
fn reporting(context: &Context) -> Vec<(Key, Arc<PodView>)> {
    let (world, pods) = (&context.world, &context.world.pods);
    let pods = pods.filter(|_, pod| works(pod) && pod.since.is_some());
    let shown = |(key, pod): &(Key, Arc<PodView>)| {
        let job = job_of(key, pod).and_then(|at| world.jobs.get(&at));
        job.is_some_and(|job| !UNSHOWN.contains(&job.type_.as_deref().unwrap_or_default()))
    };
    pods.into_iter().filter(shown).collect()
}

fn job_of(key: &Key, pod: &PodView) -> Option<Key> {
    let (kind, name) = pod.meta.owner_name.as_ref()?;
    (**kind == *"Job").then(|| key.sibling(name))
}

/// Whether the log could be read.
async fn read(context: &Context, wake: &Wake, (key, pod): (&Key, &PodView)) -> bool {
    let tail = context
        .applier
        .log_end(key, RESTIC_CONTAINER, (LINES, BYTES))
        .await;
    let log = match tail {
        Ok(log) => log,
        Err(error) => {
            // Such as of a node that does not answer. A run goes on without its progress being known.
            debug!(pod = %key, %error, "the end of a log could not be read");
            return false;
        }
    };
    let job = job_of(key, pod).map(|at| at.name.to_string()).unwrap_or_default();
    let report = newest(&log, &job, context.clock.now());
    if report.is_some_and(|report| context.world.reports.put(&pod.meta.uid, report)) {
        wake(key, pod);
    }
    true
}
