//! The plan of a retention run, as its pod has logged it. It goes to the hub before the release of the lease.

use proto::plan::{CUT, is_mark};
use serde_json::{Value, json};
use tracing::warn;

use super::actor::{Operations, Report};
use super::record::{Plan, Record};
use crate::apply::ApplyError;
use crate::context::Context;
use crate::kind::WorkHandle;
use crate::world::{Key, RESTIC_CONTAINER};

/// How the plan's line in a pod's log begins.
const PLAN_LINE: &str = "{\"plan\":";
/// Longest plan that is sent, in bytes.
const PLAN_MAX: usize = 8 << 20;
/// Entries of each list that are sent of a plan that is longer.
const LIST_MAX: usize = 2000;
/// Attempts to read a log.
const ATTEMPTS: u32 = 3;

impl Operations {
    /// Whether the run has made a plan that was not read yet.
    pub(super) fn wants_plan(&self, record: &Record) -> bool {
        let job = self.job(&record.pinned.job, &record.pinned.operation);
        let ended = record
            .finished
            .as_ref()
            .is_some_and(|f| f.by.is_none() && !f.outcome.plan.is_empty());
        let logs = job.and_then(|job| self.owner(&job).map(|owner| owner.has_plan()));
        ended && logs == Some(true) && matches!(record.plan, Plan::Unread)
    }

    /// Starts to read the plan from the pod's log, once.
    pub(super) fn read_plan(&self, record: &mut Record, handle: &WorkHandle<Report>) {
        if !self.wants_plan(record) {
            return;
        }
        let pods = self.pods(&record.pinned);
        let newest = pods
            .iter()
            .max_by_key(|(_, pod)| pod.restic.as_ref().and_then(|t| t.finished));
        let Some((at, _)) = newest else {
            record.plan = Plan::Read(Vec::new());
            return;
        };
        let (context, at) = (self.context.clone(), at.clone());
        let work = async move { Report::Plan(read(&context, &at).await) };
        record.plan = Plan::Reading(handle.work(work, Report::Plan(None)));
    }
}

/// Reads the plan. `None` when the log cannot be read now: the kubelet may answer later.
async fn read(context: &Context, pod: &Key) -> Option<Vec<u8>> {
    for _ in 0..ATTEMPTS {
        match context.applier.log(pod, RESTIC_CONTAINER).await {
            Ok(log) => {
                return Some(last(&log));
            }
            Err(error @ (ApplyError::Gone(_) | ApplyError::Forbidden(_) | ApplyError::Invalid(_))) => {
                warn!(%pod, %error, "the plan could not be read from the pod's log");
                return Some(Vec::new());
            }
            Err(error) => warn!(%pod, %error, "the plan could not be read from the pod's log yet"),
        }
    }
    None
}

/// The plan that was carried out: the last of them, when a changed order was planned anew. A line that the log has cut off
/// is no plan.
fn last(log: &str) -> Vec<u8> {
    let whole = |line: &&str| serde_json::from_str::<serde::de::IgnoredAny>(line).is_ok();
    let mut plans = log.lines().rev().filter(|line| line.starts_with(PLAN_LINE));
    plans.find(whole).map(bounded).unwrap_or_default()
}

/// A plan as it is sent. Lists of one that is too long are cut, all others stay.
fn bounded(line: &str) -> Vec<u8> {
    if line.len() <= PLAN_MAX {
        return line.as_bytes().to_vec();
    }
    // One that the log has cut off is no document.
    let Ok(mut document) = serde_json::from_str::<Value>(line) else {
        return Vec::new();
    };
    if let Some(plan) = document["plan"].as_object_mut() {
        for (name, list) in plan.iter_mut() {
            let Some(list) = list.as_array_mut().filter(|list| list.len() > LIST_MAX) else {
                continue;
            };
            list.truncate(LIST_MAX);
            if name == "left" {
                // The guard would take what is missing for what was not there.
                list.retain(|entry| !entry["key"].as_str().is_some_and(is_mark));
                list.insert(0, json!({ "key": CUT, "left": 0 }));
            }
        }
        plan.insert("truncated".to_owned(), Value::Bool(true));
    }
    document.to_string().into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_whole_plan_counts() {
        let log = "token 5\n{\"plan\":{\"hash\":\"a\"}}\nthe order has changed\n{\"plan\":{\"hash\":\"b\"}}\n{\"plan\":{\"ha";
        assert_eq!(last(log), br#"{"plan":{"hash":"b"}}"#);
        assert!(last("nothing").is_empty());
    }

    #[test]
    fn every_list_of_a_long_plan_is_bounded() {
        let removal = |n: usize| json!({ "id": format!("{n:064x}"), "tags": ["x".repeat(300)] });
        let plan = |count: usize| {
            let list: Vec<Value> = (0..count).map(removal).collect();
            json!({ "plan": { "hash": "h", "remove": list, "previewed": list, "groups": [{ "remove": count }] } })
                .to_string()
        };
        assert_eq!(bounded(&plan(10)), plan(10).into_bytes());
        let bytes = bounded(&plan(15_000));
        assert!(bytes.len() < PLAN_MAX);
        let short: Value = serde_json::from_slice(&bytes).unwrap();
        for list in ["remove", "previewed"] {
            assert_eq!(short["plan"][list].as_array().unwrap().len(), LIST_MAX);
        }
        let left = |n: usize| json!({ "key": if n == 0 { "whole".to_owned() } else { format!("group/{n}") }, "left": 1 });
        let removed: Vec<Value> = (0..15_000).map(removal).collect();
        let cut = |count: usize| {
            let left: Vec<Value> = (0..count).map(left).collect();
            let plan =
                json!({ "plan": { "hash": "h", "remove": removed, "previewed": removed, "left": left } });
            let bytes = bounded(&plan.to_string());
            let line: proto::plan::PlanLine = serde_json::from_slice(&bytes).unwrap();
            (line.plan.left.len(), proto::plan::is_cut(&line.plan.left))
        };
        assert_eq!(
            (cut(LIST_MAX), cut(LIST_MAX + 1)),
            ((LIST_MAX, false), (LIST_MAX, true))
        );
        assert_eq!(
            (&short["plan"]["hash"], &short["plan"]["groups"][0]["remove"]),
            (&json!("h"), &json!(15_000))
        );
    }
}
