//! Which runs owe hooks, and what is done about it: the list in the status goes on from turn to turn. Pure.

use crds::hooks::{HookResult, HookRun, OpenHooks};
use crds::names;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::Plan;
use crate::queue;
use crate::runs::hooks::{HookReport, outcome};
use crate::runs::{self, JobWithPods, State, hooks};
use crate::world::{Key, World};

/// What is known of the runs of a resource.
pub struct Runs<'a> {
    /// Those whose Jobs exist.
    pub present: &'a [JobWithPods],
    /// Those of the status whose Jobs do not ([`gone`]).
    pub gone: &'a [JobWithPods],
    /// uids of Jobs whose result is recorded, before this turn and after it.
    pub before: &'a [String],
    pub counted: &'a [String],
    /// Jobs that run what is owed ([`made`]).
    pub made: &'a [JobWithPods],
    /// The hooks of the spec as it is now, for runs of which no others are known.
    pub spec: Option<&'a Plan>,
    /// The spec can be read.
    pub spec_known: bool,
}

/// What follows.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Followed {
    pub open: Vec<OpenHooks>,
    /// A Job that runs what is owed.
    pub wanted: Option<(Plan, OpenHooks)>,
    /// What Jobs have made up for, by the Job of the run.
    pub made_up: Vec<(String, Vec<HookRun>)>,
    /// When to look again although nothing changes.
    pub next: Option<Timestamp>,
}

/// Runs in a status whose Jobs do not exist any more, with what is left of their pods.
#[must_use]
pub fn gone(world: &World, namespace: &str, open: &[OpenHooks], present: &[JobWithPods]) -> Vec<JobWithPods> {
    let missing = open.iter().filter(|entry| of(present, entry).is_none());
    missing
        .map(|entry| {
            let mut job = crate::world::JobView::default();
            job.meta.uid = entry.uid.as_str().into();
            JobWithPods::of(world, Key::new(namespace, &entry.job), job.into())
        })
        .collect()
}

/// The Jobs that were made for what is owed.
#[must_use]
pub fn made(world: &World, namespace: &str, prefix: &str, open: &[OpenHooks]) -> Vec<JobWithPods> {
    let keys = open
        .iter()
        .map(|entry| Key::new(namespace, names::hook_job(prefix, &entry.uid)));
    keys.filter_map(|key| Some(JobWithPods::of(world, key.clone(), world.jobs.get(&key)?)))
        .collect()
}

/// Goes through all runs.
#[must_use]
pub fn follow(old: &[OpenHooks], prefix: &str, runs: &Runs<'_>, now: Timestamp) -> Followed {
    let mut followed = Followed::default();
    for entry in entries(old, runs) {
        let plan = plan(&entry, runs);
        let Some(plan) = plan else {
            // What would have to be run is known again when the spec is; one without hooks owes nothing.
            if !runs.spec_known {
                followed.open.push(entry);
            }
            continue;
        };
        let entry = if entry.owed.is_empty() {
            match look(entry, &plan, runs) {
                Looked::Open(entry) => entry,
                Looked::Well { after_ran } => {
                    if after_ran {
                        followed.forget_older(prefix, runs);
                    }
                    continue;
                }
            }
        } else {
            entry
        };
        if !entry.owed.is_empty() {
            let made = runs
                .made
                .iter()
                .find(|job| *job.key.name == *names::hook_job(prefix, &entry.uid));
            match made.map(|made| runs::state::<HookReport>(made, now)) {
                Some(State::Ended(ended)) => {
                    let ran = made_up(&entry, ended.ending);
                    followed.made_up.push((entry.job.clone(), ran));
                    continue;
                }
                Some(State::Settling(at)) => followed.next = earlier(followed.next, Some(at)),
                Some(State::Waiting { again, .. }) => followed.next = earlier(followed.next, again),
                Some(State::Running) => {}
                None if followed.wanted.is_none() && !another_runs(&entry, runs) => {
                    followed.wanted = Some((plan, entry.clone()));
                }
                None => {}
            }
        }
        followed.open.push(entry);
    }
    followed
}

impl Followed {
    /// A later run has ended with its hooks: what an earlier one owes is done with it, unless a Job is at it.
    fn forget_older(&mut self, prefix: &str, runs: &Runs<'_>) {
        self.wanted = None;
        self.open.retain(|entry| {
            let name = names::hook_job(prefix, &entry.uid);
            entry.owed.is_empty() || runs.made.iter().any(|job| *job.key.name == *name)
        });
    }
}

fn earlier(one: Option<Timestamp>, other: Option<Timestamp>) -> Option<Timestamp> {
    one.into_iter().chain(other).min()
}

fn of<'a>(runs: &'a [JobWithPods], entry: &OpenHooks) -> Option<&'a JobWithPods> {
    runs.iter().find(|run| *run.job.meta.uid == *entry.uid)
}

/// Those of the status, and the runs that are not in it yet.
fn entries(old: &[OpenHooks], runs: &Runs<'_>) -> Vec<OpenHooks> {
    let known = |uid: &str| old.iter().any(|entry| entry.uid == uid);
    // A Job that is both counted and not in the list has no hooks open any more: its entry went.
    let counted = |uid: &str| runs.before.iter().any(|counted| counted == uid);
    // A Job that waits for its turn has begun nothing, and owes nothing if it goes.
    let parked = |uid: &str| {
        let mut present = runs.present.iter();
        present.any(|run| *run.job.meta.uid == *uid && queue::is_parked(&run.job))
    };
    let begun = |run: &&JobWithPods| run.job.hooks.is_some() && !queue::is_parked(&run.job);
    let new = runs.present.iter().filter(begun);
    let new = new
        .filter(|run| !known(&run.job.meta.uid) && !counted(&run.job.meta.uid))
        .map(|run| OpenHooks {
            job: run.key.name.to_string(),
            uid: run.job.meta.uid.to_string(),
            ..OpenHooks::default()
        });
    let old = old.iter().filter(|entry| !parked(&entry.uid));
    old.cloned().chain(new).collect()
}

/// The hooks that the run was given; those of the spec where that is not known.
fn plan(entry: &OpenHooks, runs: &Runs<'_>) -> Option<Plan> {
    let given = of(runs.present, entry).and_then(|run| Plan::parse(run.job.hooks.as_deref()?));
    given.or_else(|| runs.spec.cloned())
}

enum Looked {
    Open(OpenHooks),
    /// Nothing is owed.
    Well {
        after_ran: bool,
    },
}

/// Looks at a run: what it owes is known when all of its pods are at their end.
fn look(mut entry: OpenHooks, plan: &Plan, runs: &Runs<'_>) -> Looked {
    let present = of(runs.present, &entry);
    let over = present.is_none() || runs.counted.contains(&entry.uid);
    let Some(run) = present.or_else(|| of(runs.gone, &entry)).filter(|_| over) else {
        return Looked::Open(entry);
    };
    if hooks::at_work(run) {
        return Looked::Open(entry);
    }
    let outcome = outcome(plan.names(), run, never(present));
    if outcome.owed.is_empty() {
        let after = plan.names().after;
        let after_ran = outcome.ran.iter().any(|ran| Some(ran.name.as_str()) == after);
        return Looked::Well { after_ran };
    }
    entry.owed = outcome.owed.iter().map(|&name| name.to_owned()).collect();
    let limit = plan.before.as_ref().map(super::Hook::longest).unwrap_or_default();
    let limit = SignedDuration::try_from(limit).unwrap_or_default();
    entry.not_before = outcome
        .began
        .and_then(|at| at.checked_add(limit).ok())
        .map(|at| Time(crds::conditions::whole_seconds(at)));
    Looked::Open(entry)
}

/// No pod of the Job was ever made.
#[must_use]
pub fn never(present: Option<&JobWithPods>) -> bool {
    present.is_some_and(|run| {
        run.job.end.is_some() && !run.job.tried && run.pods.is_empty() && run.deleted.is_empty()
    })
}

/// Another run is at work: what is run now would disturb it, and its own hooks follow.
fn another_runs(entry: &OpenHooks, runs: &Runs<'_>) -> bool {
    let others = runs.present.iter().filter(|run| *run.job.meta.uid != *entry.uid);
    let at_work = |run: &JobWithPods| {
        let pods = run.pods.iter();
        run.job.end.is_none()
            && pods
                .into_iter()
                .any(|(_, pod)| pod.started || pod.hooks.before_runs())
    };
    others.into_iter().any(at_work)
}

/// What a Job has made up for.
fn made_up(entry: &OpenHooks, ending: runs::Ending<HookReport>) -> Vec<HookRun> {
    match runs::report(ending, "hook") {
        Ok(report) => report.hooks.iter().filter_map(hooks::Told::shown).collect(),
        Err((_, message)) => {
            let failed = |name: &String| HookRun {
                name: name.clone(),
                result: HookResult::Failed,
                duration: None,
                message: Some(message.clone()),
            };
            entry.owed.iter().map(failed).collect()
        }
    }
}

#[cfg(test)]
#[path = "follow_tests.rs"]
mod tests;
