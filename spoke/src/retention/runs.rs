//! The runs of a policy under way and finished, taken from the board of operations into its status. Pure.

use std::collections::{BTreeMap, BTreeSet};

use crds::{GlobalRetentionPolicy, GlobalRetentionPolicyStatus};
use jiff::Timestamp;

use super::status::{self, Run};
use crate::exchange::{Operation, Progress};
use crate::runs::progress::{self, Running};
use crate::world::Key;

/// Records results, once each, and what is under way. `present` are the uids of the policy's Jobs, `source` its name in the
/// fleet.
pub(super) fn record(
    status: &mut GlobalRetentionPolicyStatus,
    policy: &GlobalRetentionPolicy,
    (operations, works): (&[Operation], &BTreeMap<Key, Running>),
    present: &BTreeSet<String>,
    source: &str,
    now: Timestamp,
) {
    for finished in operations
        .iter()
        .filter_map(|operation| operation.finished.as_ref())
    {
        if status.counted_jobs.contains(&finished.operation) {
            continue;
        }
        let mut outcome = finished.outcome.clone();
        outcome.unmatched.retain(|name| name == source);
        let run = Run {
            source,
            outcome: &outcome,
            started: finished.started,
            finished: finished.finished,
            token: finished.token,
            by: finished.by.as_deref(),
        };
        status::count(status, policy, &run, now);
        // Acted on, whatever came of it: to give it again, the annotation is removed and set anew.
        if finished.approved.is_some() {
            status.last_approval.clone_from(&finished.approved);
        }
        status.counted_jobs.push(finished.operation.clone());
    }
    let known = |uid: &String| {
        let finished = operations
            .iter()
            .filter_map(|operation| operation.finished.as_ref());
        present.contains(uid) || finished.map(|f| &f.operation).any(|operation| operation == uid)
    };
    // A Job that was deleted, and whose operation is over, can be recorded by nobody again.
    status.counted_jobs.retain(known);
    under_way(status, policy, operations, now);
    let works: Vec<Running> = works.values().cloned().collect();
    status.progress = progress::shown(&works, status.progress.as_ref());
}

fn under_way(
    status: &mut GlobalRetentionPolicyStatus,
    policy: &GlobalRetentionPolicy,
    operations: &[Operation],
    now: Timestamp,
) {
    let active = operations.iter().filter(|o| o.progress != Progress::Ended);
    status.active = active.map(|o| o.job.name.to_string()).collect();
    let running = operations.iter().filter(|o| o.progress == Progress::Running);
    let running: Vec<String> = running.map(|o| o.job.name.to_string()).collect();
    let waiting = operations.iter().find_map(|o| match &o.progress {
        Progress::Waiting { reason, message } => Some((*reason, message.clone())),
        _ => None,
    });
    status::progress(status, policy.metadata.generation, &running, waiting, now);
}

#[cfg(test)]
mod tests {
    use crds::conditions::{self, types};
    use proto::v1::OperationOutcome;
    use serde_json::json;

    use super::*;
    use crate::exchange::Finished;
    use crate::world::Key;

    fn policy() -> GlobalRetentionPolicy {
        serde_json::from_value(json!({
            "apiVersion": "backup.resticbackup.io/v1alpha1", "kind": "GlobalRetentionPolicy", "metadata": { "name": "p", "generation": 1 },
            "spec": { "repositoryRef": { "name": "nas" }, "schedule": "@daily", "policies": [] },
        }))
        .unwrap()
    }

    fn operation(uid: &str, result: Option<&str>, approved: Option<&str>) -> Operation {
        Operation {
            job_type: "retention".to_owned(),
            job: Key::new("ns", format!("job-{uid}")),
            progress: if result.is_some() {
                Progress::Ended
            } else {
                Progress::Running
            },
            finished: result.map(|result| Finished {
                operation: uid.to_owned(),
                outcome: OperationOutcome {
                    result: result.to_owned(),
                    ..OperationOutcome::default()
                },
                started: None,
                finished: Timestamp::from_second(50).ok(),
                token: Some(7),
                by: None,
                approved: approved.map(str::to_owned),
            }),
        }
    }

    fn take(status: &mut GlobalRetentionPolicyStatus, operations: &[Operation], present: &[&str]) {
        let present = present.iter().map(|uid| (*uid).to_owned()).collect();
        record(
            status,
            &policy(),
            (operations, &BTreeMap::new()),
            &present,
            "a/ns/p",
            Timestamp::from_second(60).unwrap(),
        );
    }

    #[test]
    fn a_result_is_recorded_once_and_remembered_while_its_job_is_there() {
        let mut status = GlobalRetentionPolicyStatus::default();
        take(&mut status, &[operation("u", Some("Applied"), None)], &["u"]);
        assert_eq!(
            (status.last_run_result.as_deref(), status.last_run_token),
            (Some("Applied"), Some(7))
        );
        status.last_run_token = None;
        take(&mut status, &[operation("u", Some("Applied"), None)], &["u"]);
        assert_eq!(status.last_run_token, None, "not again");
        // Its Job was deleted, and the lease is not given back yet.
        take(&mut status, &[operation("u", Some("Applied"), None)], &[]);
        assert_eq!(status.counted_jobs, ["u"]);
        take(&mut status, &[], &[]);
        assert!(status.counted_jobs.is_empty());
    }

    #[test]
    fn an_approval_is_spent_together_with_the_outcome_of_its_run() {
        let mut status = GlobalRetentionPolicyStatus::default();
        take(&mut status, &[operation("u", None, None)], &["u"]);
        assert_eq!((status.last_approval.as_ref(), status.active.len()), (None, 1));
        take(
            &mut status,
            &[operation("u", Some("Failed"), Some("hash"))],
            &["u"],
        );
        assert_eq!(status.last_approval.as_deref(), Some("hash"));
    }

    #[test]
    fn an_interruption_is_told() {
        let mut status = GlobalRetentionPolicyStatus::default();
        take(&mut status, &[operation("u", Some("Interrupted"), None)], &["u"]);
        assert!(conditions::is_true(&status.conditions, types::DEGRADED));
        assert_eq!(status.last_run_result.as_deref(), Some("Interrupted"));
    }
}
