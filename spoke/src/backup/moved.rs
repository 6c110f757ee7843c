//! Runs that were made for a node where the data is not any more: the application moved between the making of a Job and the
//! start of its pod, and the template of a Job cannot change. They are made anew, and count as no run. Pure.

use crds::names;
use jiff::Timestamp;

use super::locate::Located;
use crate::kind::{Earlier, Removal, Run};
use crate::runs::{self, JobWithPods};

/// What takes the place of a run.
#[derive(Debug, PartialEq)]
pub struct Moved {
    pub job: String,
    pub removal: Removal,
    pub run: Run,
}

/// The runs to make anew. `cron_job` is the name of the CronJob.
#[must_use]
pub fn moved(runs: &[JobWithPods], located: &Located, cron_job: &str, now: Timestamp) -> Vec<Moved> {
    runs.iter()
        .filter(|run| is_astray(run, located, now))
        .map(|run| {
            let uid = run.job.meta.uid.to_string();
            let name = anew(cron_job, &uid);
            Moved {
                job: run.key.name.to_string(),
                removal: Removal::Job {
                    at: run.key.clone(),
                    uid,
                },
                run: Run {
                    name,
                    instead_of: Some(Earlier {
                        by_request: run.job.by_request,
                        since: run.job.parked_since.or(run.job.created),
                        command: run.job.command.as_deref().map(str::to_owned),
                    }),
                    ..Run::default()
                },
            }
        })
        .collect()
}

/// Name of the Job that takes the place of one with this uid.
#[must_use]
fn anew(cron_job: &str, uid: &str) -> String {
    let suffix = names::short_hash(format!("moved/{uid}").as_bytes());
    names::bounded(cron_job, &format!("-{suffix}"), names::LABEL_MAX)
}

/// It waits for a node where its data is not, and nothing of it has begun.
fn is_astray(run: &JobWithPods, located: &Located, now: Timestamp) -> bool {
    let (nodes, pinned) = (&located.placement.nodes, &run.job.nodes);
    if pinned.is_empty() || run.job.end.is_some() || run.job.meta.deleting || !run.deleted.is_empty() {
        return false;
    }
    // A pod that is not delivered yet may have begun to read.
    let old_enough = run
        .job
        .created
        .is_some_and(|at| now.duration_since(at) >= runs::PATIENCE);
    if run.delivery.since(now).is_none() || (run.pods.is_empty() && !old_enough) {
        return false;
    }
    let waits = run.pods.iter().all(|(_, pod)| {
        !pod.started && !pod.preparing && !pod.prepared && pod.restic.is_none() && pod.unprepared.is_none()
    });
    let elsewhere = !pinned.iter().any(|node| nodes.iter().any(|n| **n == **node));
    // Where nobody uses the data any more, its old node may still do.
    let hopeless = run.pods.iter().any(|(_, pod)| pod.unschedulable.is_some());
    waits && elsewhere && (!nodes.is_empty() || hopeless)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::world::{Delivery, JobView, Key, PodView};

    const NOW: Timestamp = Timestamp::UNIX_EPOCH;

    fn run(pinned: &[&str], pod: PodView) -> JobWithPods {
        let nodes = pinned.iter().map(|node| (*node).into()).collect();
        JobWithPods {
            key: Key::new("shop", "resticbackup-orders-1"),
            job: Arc::new(JobView {
                nodes,
                ..JobView::default()
            }),
            pods: vec![(Key::new("shop", "p"), Arc::new(pod))],
            delivery: Delivery::complete(Timestamp::MIN),
            ..JobWithPods::default()
        }
    }

    fn at(nodes: &[&str]) -> Located {
        let mut located = Located::default();
        located.placement.nodes = nodes.iter().map(|node| (*node).to_owned()).collect();
        located
    }

    #[test]
    fn a_run_that_waits_for_the_old_node_is_made_anew() {
        let astray = |run: &JobWithPods, nodes: &[&str]| {
            !moved(std::slice::from_ref(run), &at(nodes), "c", NOW).is_empty()
        };
        let waiting = run(&["n1"], PodView::default());
        assert!(astray(&waiting, &["n2"]));
        assert!(!astray(&waiting, &["n1", "n2"]) && !astray(&waiting, &[]));
        let unschedulable = PodView {
            unschedulable: Some("0/1 nodes".into()),
            ..PodView::default()
        };
        assert!(
            astray(&run(&["n1"], unschedulable.clone()), &[]),
            "its node is gone"
        );
        assert!(!astray(&run(&[], unschedulable), &["n2"]), "it may run anywhere");
        let begun = PodView {
            started: true,
            ..PodView::default()
        };
        assert!(!astray(&run(&["n1"], begun), &["n2"]), "it reads already");
        let mut unknown = waiting.clone();
        unknown.delivery = Delivery::default();
        assert!(!astray(&unknown, &["n2"]), "its pods are not watched");
        let mut new = waiting;
        new.pods.clear();
        assert!(!astray(&new, &["n2"]), "its pod may not be delivered yet");
        let mut job = JobView::clone(&new.job);
        job.created = NOW.checked_sub(runs::PATIENCE).ok();
        new.job = Arc::new(job);
        assert!(astray(&new, &["n2"]), "there is none");
    }
}
