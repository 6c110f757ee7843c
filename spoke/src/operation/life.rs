//! What a Job and its pods show of whether the operation lives, moves, has ended or was lost. Pure.
//!
//! The lease is renewed with a sign of life only: the container runs and its pod is Ready, which the node controller takes
//! back when the node stops reporting. How far restic has come is not visible from outside without reading logs all the
//! time; the bound on progress is therefore the Job's own `activeDeadlineSeconds`, and some minutes more for its
//! controller to act on it.

use crate::maintenance::holder::Observed;
use crate::world::{JobView, PodView};

/// Time that the Job controller has to end a Job whose active deadline has passed.
const DEADLINE_GRACE: u64 = 600_000;

/// What is known of a Job's pods.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pods {
    /// Some pod may still be at work.
    pub active: bool,
    /// A container runs.
    pub started: bool,
    /// It runs on a node that reports.
    pub alive: bool,
    /// Token of a pod whose end was not observed, and which may be at work.
    pub lost: Option<u64>,
}

impl Pods {
    /// Sums up the pods that are there. `remembered` is the token of one that disappeared.
    #[must_use]
    pub fn of<'a>(pods: impl IntoIterator<Item = &'a PodView>, remembered: Option<u64>) -> Pods {
        let mut known = Pods {
            lost: remembered,
            ..Pods::default()
        };
        for pod in pods.into_iter().filter(|pod| pod.is_active()) {
            known.active = true;
            known.started |= pod.started;
            known.alive |= pod.is_alive();
            known.lost = known.lost.max(pod.unproven());
        }
        known
    }
}

/// What the holder sees. `settled` is true when there is nothing to wait for before the lease may be released: the result
/// is recorded and the plan read. `open` is the time in milliseconds for which the Job is known to be open.
#[must_use]
pub fn observed(job: Option<&JobView>, pods: Pods, settled: bool, unwanted: bool, open: u64) -> Observed {
    let Some(job) = job else {
        return Observed {
            ended: settled && !pods.active,
            suspended: true,
            pods: pods.active,
            lost: pods.lost,
            ..Observed::default()
        };
    };
    let spent = job.is_spent();
    let never_opened = job.suspended && !spent;
    let over = job.end.is_some() || (unwanted && never_opened);
    let deadline = job
        .deadline
        .and_then(|s| u64::try_from(s).ok())
        .map(|s| s.saturating_mul(1000));
    let in_time = deadline.is_none_or(|deadline| open < deadline.saturating_add(DEADLINE_GRACE));
    Observed {
        ended: over && settled && !pods.active,
        finished: job.end.is_some(),
        suspended: job.suspended,
        begun: job.start.is_some() || job.shut.is_some(),
        token: job.lease.map(|lease| lease.token),
        // A Job that is shut releases its lease when no pod is left: not before its result is recorded either.
        pods: pods.active || (spent && !settled),
        started: pods.started,
        alive: pods.alive && in_time,
        lost: pods.lost,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::world::{JobEnd, JobLease};

    fn pod(change: impl FnOnce(&mut PodView)) -> PodView {
        let mut pod = PodView {
            phase: "Running".into(),
            started: true,
            ready: true,
            scheduled: true,
            token: Some(7),
            renewals: 3,
            ..PodView::default()
        };
        change(&mut pod);
        pod
    }

    fn job(change: impl FnOnce(&mut JobView)) -> JobView {
        let mut job = JobView {
            lease: Some(JobLease {
                token: 7,
                ttl: 300_000,
                renew: 60_000,
            }),
            start: jiff::Timestamp::from_second(1).ok(),
            ..JobView::default()
        };
        change(&mut job);
        job
    }

    #[test]
    fn a_pod_shows_a_sign_of_life_while_its_node_reports() {
        let of = |pod: &PodView| Pods::of([pod], None);
        assert!(of(&pod(|_| ())).alive);
        assert!(
            !of(&pod(|p| p.ready = false)).alive,
            "the node controller has set Ready=False"
        );
        let pulling = pod(|p| {
            p.phase = "Pending".into();
            p.started = false;
        });
        assert!(of(&pulling).active && !of(&pulling).alive);
    }

    #[test]
    fn an_end_without_the_kubelets_word_is_a_loss() {
        let collected = pod(|p| p.phase = "Failed".into());
        let pods = Pods::of([&collected], None);
        assert_eq!((pods.active, pods.lost), (true, Some(7)));
        let ended = pod(|p| {
            p.phase = "Failed".into();
            p.stopped = true;
        });
        assert_eq!(Pods::of([&ended], None), Pods::default());
        assert_eq!(Pods::of([], Some(7)).lost, Some(7), "it disappeared");
    }

    #[test]
    fn nothing_is_released_before_the_result_is_recorded() {
        let complete = job(|j| j.end = Some((None, JobEnd::Complete)));
        assert!(!observed(Some(&complete), Pods::default(), false, false, 0).ended);
        assert!(observed(Some(&complete), Pods::default(), true, false, 0).ended);
        let shut = job(|j| j.suspended = true);
        assert!(observed(Some(&shut), Pods::default(), false, false, 0).pods);
        assert!(!observed(Some(&shut), Pods::default(), true, false, 0).pods);
        assert!(!observed(None, Pods::default(), false, false, 0).ended);
    }

    #[test]
    fn a_job_that_hangs_beyond_its_deadline_shows_no_life() {
        let open = job(|j| j.deadline = Some(3600));
        let pods = Pods::of([&pod(|_| ())], None);
        assert!(observed(Some(&open), pods, false, false, 3_600_000).alive);
        assert!(!observed(Some(&open), pods, false, false, 4_200_000).alive);
    }

    #[test]
    fn one_that_waits_and_is_not_wanted_any_more_is_over() {
        let waits = job(|j| {
            j.suspended = true;
            j.lease = None;
            j.start = None;
        });
        assert!(observed(Some(&waits), Pods::default(), true, true, 0).ended);
        assert!(!observed(Some(&waits), Pods::default(), true, false, 0).ended);
        let open = job(|_| ());
        assert!(
            !observed(Some(&open), Pods::default(), true, true, 0).ended,
            "it is shut first"
        );
    }
}
