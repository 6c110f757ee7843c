//! Pods that have ended: Kubernetes keeps a claim from being deleted while any pod names it, a finished one too. So a pod
//! goes when its result is recorded, and its Job stays as history. That of a run that did not go well stays for its log,
//! until a newer run has ended or a day is over, and never while its claim is being deleted. Pure.

use jiff::{SignedDuration, Timestamp};

/// Longest time that the pod of a run which did not go well stays.
pub const KEPT: SignedDuration = SignedDuration::from_hours(24);

/// A Job that has ended, and whose result is recorded in the status.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ended {
    pub job_uid: String,
    pub at: Timestamp,
    /// All went well: the status has all that the log says.
    pub well: bool,
}

/// The Job whose pods may stay, and until when.
#[must_use]
pub fn kept(ended: &[Ended], claim_deleting: bool, now: Timestamp) -> Option<(&str, Timestamp)> {
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
}
