//! Pods that have ended: Kubernetes keeps a claim from being deleted while any pod names it, a finished one too. So a pod
//! goes when its result is recorded, and its Job stays as history. That of a run that did not go well stays for its log,
//! until a newer run has ended or a day is over, and never while its claim is being deleted. Pure.

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};

use super::JobWithPods;
use crate::world::{Key, PodView};

/// Longest time that the pod of a run which did not go well stays.
pub const KEPT: SignedDuration = SignedDuration::from_hours(24);

/// After this time a pod that could not be deleted is tried again.
const RETRY: SignedDuration = SignedDuration::from_secs(30);

/// A Job that has ended, and whose result is recorded in the status.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ended {
    pub job_uid: String,
    pub at: Timestamp,
    /// All went well: the status has all that the log says.
    pub well: bool,
}

/// A pod of a Job that has ended itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finished {
    pub at: Key,
    pub uid: String,
    pub job_uid: String,
}

/// The finished pods of a Job that has ended, those excepted that are being deleted.
#[must_use]
pub fn of(run: &JobWithPods) -> Vec<Finished> {
    let finished = |(_, pod): &&(Key, Arc<PodView>)| !pod.is_active() && !pod.meta.deleting;
    let pods = run.pods.iter().filter(|_| run.job.end.is_some());
    pods.filter(finished)
        .map(|(at, pod)| Finished {
            at: at.clone(),
            uid: pod.meta.uid.to_string(),
            job_uid: run.job.meta.uid.to_string(),
        })
        .collect()
}

/// The pods that go, and when to look again.
#[must_use]
pub fn released(
    ended: &[Ended],
    pods: &[Finished],
    claim_deleting: bool,
    now: Timestamp,
) -> (Vec<Finished>, Option<Timestamp>) {
    let kept = kept(ended, claim_deleting, now);
    let stays = |pod: &Finished| kept.filter(|(uid, _)| *uid == pod.job_uid);
    let recorded = |pod: &&Finished| ended.iter().any(|run| run.job_uid == pod.job_uid);
    let mut go = Vec::new();
    let mut next = None;
    for pod in pods.iter().filter(recorded) {
        match stays(pod) {
            Some((_, until)) => next = next.into_iter().chain([until]).min(),
            None => {
                go.push(pod.clone());
                next = next.into_iter().chain(now.checked_add(RETRY).ok()).min();
            }
        }
    }
    (go, next)
}

/// The Job whose pods may stay, and until when.
fn kept(ended: &[Ended], claim_deleting: bool, now: Timestamp) -> Option<(&str, Timestamp)> {
    let newest = ended.iter().max_by_key(|run| run.at)?;
    let until = newest.at.checked_add(KEPT).ok()?;
    (!newest.well && !claim_deleting && now < until).then_some((newest.job_uid.as_str(), until))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(job_uid: &str, at: i64, well: bool) -> Ended {
        Ended {
            job_uid: job_uid.to_owned(),
            at: Timestamp::from_second(at).unwrap(),
            well,
        }
    }

    #[test]
    fn only_the_last_run_keeps_its_pod_and_only_if_it_failed() {
        let at = |second| Timestamp::from_second(second).unwrap();
        let kept = |runs: &[Ended], deleting, now| {
            super::kept(runs, deleting, at(now)).map(|(uid, until)| (uid.to_owned(), until.as_second()))
        };
        let failed = [run("old", 10, false), run("new", 20, false)];
        let day = 24 * 3600;
        assert_eq!(kept(&failed, false, 30), Some(("new".to_owned(), 20 + day)));
        assert_eq!(kept(&failed, false, 20 + day), None, "a day is over");
        assert_eq!(kept(&failed, true, 30), None, "the claim is being deleted");
        assert_eq!(
            kept(&[run("old", 10, false), run("new", 20, true)], false, 30),
            None
        );
        assert_eq!(kept(&[], false, 30), None);
    }

    #[test]
    fn no_pod_goes_before_its_result_is_recorded() {
        let now = Timestamp::from_second(100).unwrap();
        let pod = |job: &str| Finished {
            at: Key::new("ns", format!("pod-of-{job}")),
            uid: job.to_owned(),
            job_uid: job.to_owned(),
        };
        let pods = [pod("good"), pod("failed"), pod("unrecorded")];
        let ended = [run("good", 10, true), run("failed", 20, false)];
        let (go, next) = released(&ended, &pods, false, now);
        assert_eq!(
            (go, next),
            (vec![pod("good")], Some(Timestamp::from_second(130).unwrap()))
        );
        let (go, _) = released(&ended, &pods, true, now);
        assert_eq!(go, [pod("good"), pod("failed")]);
        assert_eq!(released(&ended, &[pod("unrecorded")], true, now), (vec![], None));
    }
}
