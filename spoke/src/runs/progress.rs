//! How far runs have come, as a status shows it. Pure, but for [`of_jobs`], which reads the cache.

use std::collections::BTreeMap;
use std::sync::Arc;

use crds::progress::RunProgress;

use super::JobWithPods;
use crate::world::{Key, PodView, World};

/// A run that is under way.
#[derive(Clone, Debug, Default)]
pub struct Running {
    pub job: String,
    /// restic of this run is at work.
    pub works: bool,
    /// The newest report of it, if there is one.
    pub report: Option<Arc<RunProgress>>,
}

impl Running {
    /// One whose state is [`super::State::Running`].
    #[must_use]
    pub fn of(run: &JobWithPods) -> Running {
        Running {
            job: run.key.name.to_string(),
            works: run.pods.iter().any(|(_, pod)| works(pod)),
            report: run.report.clone(),
        }
    }
}

/// Whether restic of a pod is at work: it may have something to report.
#[must_use]
pub fn works(pod: &PodView) -> bool {
    pod.started && pod.restic.is_none() && !pod.is_over() && !pod.meta.deleting
}

/// The newest report of the pods of a Job that are at work.
pub(super) fn newest<'a>(
    world: &World,
    pods: impl IntoIterator<Item = &'a Arc<PodView>>,
) -> Option<Arc<RunProgress>> {
    let pods = pods.into_iter().filter(|pod| works(pod));
    let reports = pods.filter_map(|pod| world.reports.get(&pod.meta.uid));
    reports.max_by_key(|report| report.as_of.0)
}

/// Maintenance Jobs that are under way.
#[must_use]
pub fn of_jobs<'a>(world: &World, jobs: impl IntoIterator<Item = &'a Key>) -> BTreeMap<Key, Running> {
    let jobs = jobs.into_iter();
    jobs.map(|at| (at.clone(), of_job(world, at))).collect()
}

fn of_job(world: &World, at: &Key) -> Running {
    let job = world.jobs.get(at);
    let uid = job.as_ref().map(|job| &*job.meta.uid).unwrap_or_default();
    let pods = world.pods.group(&Key::new("", uid));
    Running {
        job: at.name.to_string(),
        works: pods.iter().any(|(_, pod)| works(pod)),
        report: newest(world, pods.iter().map(|(_, pod)| pod)),
    }
}

/// What a status shows of those that are under way, the one that began last at the end. `before` is what it shows already:
/// it stays for a run that goes on and that was not looked at since a start of the operator.
#[must_use]
pub fn shown(running: &[Running], before: Option<&RunProgress>) -> Option<RunProgress> {
    let working = running.iter().rev().filter(|run| run.works);
    let mut shown = working.filter_map(|run| match &run.report {
        Some(report) => Some(RunProgress::clone(report)),
        None => before.filter(|before| before.job == run.job).cloned(),
    });
    shown.next()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn progress(job: &str, percent: i32) -> RunProgress {
        serde_json::from_value(
            serde_json::json!({ "job": job, "asOf": "2026-11-26T12:00:00Z", "percent": percent }),
        )
        .unwrap()
    }

    fn run(job: &str, works: bool, percent: Option<i32>) -> Running {
        Running {
            job: job.to_owned(),
            works,
            report: percent.map(|percent| Arc::new(progress(job, percent))),
        }
    }

    #[test]
    fn the_run_that_began_last_is_shown_and_none_that_is_over() {
        let percent = |running: &[Running], before: Option<&RunProgress>| shown(running, before)?.percent;
        let (old, new) = (run("old", true, Some(10)), run("new", true, Some(20)));
        assert_eq!(percent(&[old.clone(), new], None), Some(20));
        // restic has ended, or has not begun again.
        assert_eq!(percent(&[old, run("new", false, Some(20))], None), Some(10));
        assert_eq!(percent(&[], Some(&progress("old", 10))), None);
    }

    #[test]
    fn after_a_start_of_the_operator_a_run_shows_what_it_did_until_it_is_looked_at() {
        let before = progress("a", 30);
        assert_eq!(
            shown(&[run("a", true, None)], Some(&before)),
            Some(before.clone())
        );
        assert_eq!(shown(&[run("b", true, None)], Some(&before)), None, "another run");
        assert_eq!(shown(&[run("a", false, None)], Some(&before)), None);
    }
}
