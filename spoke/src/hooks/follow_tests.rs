use std::sync::Arc;

use serde_json::json;

use super::*;
use crate::hooks::{Hook, Owner, Subject};
use crate::world::{HookContainer, HookContainers, JobEnd, JobView, PodView, Termination};

const PREFIX: &str = "resticbackup-orders";

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

fn plan() -> Plan {
    let hook = |seconds| {
        Some(Hook::Exec {
            selector: serde_json::from_value(json!({ "matchLabels": { "app": "db" } })).unwrap(),
            container: None,
            command: vec!["true".to_owned()],
            seconds,
        })
    };
    Plan {
        subject: Subject::Backup,
        owner: Owner::default(),
        account: PREFIX.to_owned(),
        before: hook(60),
        after: hook(30),
        failure: None,
    }
}

fn ended(exit_code: i32, message: &str) -> Termination {
    Termination {
        exit_code,
        reason: "".into(),
        message: message.into(),
        started: Some(at(10)),
        finished: Some(at(20)),
    }
}

fn container(exit_code: i32, message: &str) -> Option<HookContainer> {
    Some(HookContainer {
        started: Some(at(10)),
        running: false,
        ended: Some(ended(exit_code, message)),
    })
}

const WELL: &str = r#"{"hooks":[{"name":"postBackup","how":"Succeeded"}]}"#;
const BEFORE: &str = r#"{"hooks":[{"name":"preBackup","how":"Succeeded"}]}"#;

/// A run with one pod: over, with this report of the hook after it; or at work.
fn run(uid: &str, after: Option<&str>) -> JobWithPods {
    let mut job = JobView {
        hooks: Some(plan().json().into()),
        end: after.map(|_| (Some(at(30)), JobEnd::Complete)),
        tried: after.is_some(),
        ..JobView::default()
    };
    job.meta.uid = uid.into();
    let over = after.is_some();
    let pod = PodView {
        phase: if over { "Succeeded" } else { "Running" }.into(),
        started: !over,
        scheduled: true,
        stopped: over,
        restic: over.then(|| ended(0, "")),
        hooks: HookContainers {
            before: container(0, BEFORE),
            after: container(if over { 0 } else { 137 }, after.unwrap_or_default()),
            grace: 30,
        },
        ..PodView::default()
    };
    JobWithPods {
        key: Key::new("ns", format!("run-{uid}")),
        job: Arc::new(job),
        pods: vec![(Key::new("ns", "p"), Arc::new(pod))],
        ..JobWithPods::default()
    }
}

fn uids(list: &[&str]) -> Vec<String> {
    list.iter().map(|&uid| uid.to_owned()).collect()
}

fn turn(old: &[OpenHooks], present: &[JobWithPods], counted: &[&str]) -> Followed {
    turn_with(old, present, counted, &[])
}

fn turn_with(old: &[OpenHooks], present: &[JobWithPods], counted: &[&str], made: &[JobWithPods]) -> Followed {
    let counted = uids(counted);
    let runs = Runs {
        present,
        gone: &[],
        before: &[],
        counted: &counted,
        made,
        spec: None,
        spec_known: true,
    };
    follow(old, PREFIX, &runs, at(100))
}

#[test]
fn a_run_that_waits_for_its_turn_is_not_entered() {
    let mut waits = run("a", None);
    let job = Arc::make_mut(&mut waits.job);
    (job.parked, job.suspended) = (true, true);
    waits.pods.clear();
    assert!(turn(&[], &[waits.clone()], &[]).open.is_empty());
    let entered = turn(&[], &[run("a", None)], &[]).open;
    assert!(turn(&entered, &[waits], &[]).open.is_empty());
}

#[test]
fn a_run_is_entered_when_it_is_first_seen_and_leaves_when_its_hooks_have_ended_well() {
    let first = turn(&[], &[run("a", None)], &[]);
    assert_eq!(
        (first.open[0].uid.as_str(), first.open[0].job.as_str()),
        ("a", "run-a")
    );
    assert!(first.open[0].owed.is_empty() && first.wanted.is_none());
    let goes_on = turn(&first.open, &[run("a", None)], &[]);
    assert_eq!(goes_on.open, first.open);
    let over = turn(&first.open, &[run("a", Some(WELL))], &["a"]);
    assert_eq!(over, Followed::default());
}

#[test]
fn what_a_run_owes_stays_in_the_status_until_a_job_has_run_it() {
    let open = turn(&[], &[run("a", None)], &[]).open;
    let owing = turn(&open, &[run("a", Some(""))], &["a"]);
    assert_eq!(owing.open[0].owed, ["postBackup"]);
    let (_, wanted) = owing.wanted.clone().unwrap();
    assert_eq!(wanted, owing.open[0]);
    // The Job of the run may be deleted meanwhile, and the operator restarted.
    let runs = Runs {
        present: &[],
        gone: &[],
        before: &[],
        counted: &[],
        made: &[],
        spec: Some(&plan()),
        spec_known: true,
    };
    let later = follow(&owing.open, PREFIX, &runs, at(200));
    assert_eq!((&later.open, later.wanted.is_some()), (&owing.open, true));

    let mut made = run("made", Some(""));
    made.key = Key::new("ns", names::hook_job(PREFIX, "a"));
    let mut pod = PodView::clone(&made.pods[0].1);
    pod.hooks = HookContainers::default();
    pod.restic = Some(ended(0, WELL));
    made.pods = vec![(Key::new("ns", "m"), Arc::new(pod))];
    let done = turn_with(&owing.open, &[run("a", Some(""))], &["a"], &[made]);
    assert_eq!((done.open.len(), done.wanted.is_none()), (0, true));
    let (job, ran) = &done.made_up[0];
    assert_eq!((job.as_str(), ran[0].result), ("run-a", HookResult::Succeeded));
}

#[test]
fn nothing_is_run_for_an_earlier_run_while_another_is_at_work() {
    let owed = OpenHooks {
        job: "run-a".to_owned(),
        uid: "a".to_owned(),
        owed: uids(&["postBackup"]),
        not_before: None,
    };
    let jobs = [run("a", Some("")), run("b", None)];
    let busy = turn(std::slice::from_ref(&owed), &jobs, &["a"]);
    assert!(busy.wanted.is_none() && busy.open.len() == 2);
    // Its own hook after has done it.
    let jobs = [run("a", Some("")), run("b", Some(WELL))];
    let done = turn(&busy.open, &jobs, &["a", "b"]);
    assert_eq!(done, Followed::default());
    // One whose hooks did not end well has not.
    let jobs = [run("a", Some("")), run("b", Some(""))];
    let both = turn(&busy.open, &jobs, &["a", "b"]);
    assert_eq!((both.open.len(), both.wanted.unwrap().1.uid.as_str()), (2, "a"));
}

#[test]
fn a_run_that_is_counted_and_closed_is_not_entered_again() {
    let counted = uids(&["a"]);
    let runs = Runs {
        present: &[run("a", Some(""))],
        gone: &[],
        before: &counted,
        counted: &counted,
        made: &[],
        spec: None,
        spec_known: true,
    };
    assert_eq!(follow(&[], PREFIX, &runs, at(100)), Followed::default());
}

#[test]
fn a_job_that_was_deleted_is_judged_by_its_pods() {
    let open = turn(&[], &[run("a", None)], &[]).open;
    let look = |gone: JobWithPods| {
        let runs = Runs {
            present: &[],
            gone: &[gone],
            before: &[],
            counted: &[],
            made: &[],
            spec: Some(&plan()),
            spec_known: true,
        };
        follow(&open, PREFIX, &runs, at(100))
    };
    assert_eq!(look(run("a", None)).open, open, "its pod is still at work");
    assert_eq!(look(run("a", Some(WELL))), Followed::default());
    let mut lost = run("a", None);
    lost.pods.clear();
    assert_eq!(look(lost).open[0].owed, ["postBackup"], "nobody saw its end");
}

#[test]
fn what_a_run_owes_is_not_forgotten_while_the_spec_cannot_be_read() {
    let owed = OpenHooks {
        job: "run-a".to_owned(),
        uid: "a".to_owned(),
        owed: uids(&["postBackup"]),
        not_before: None,
    };
    let look = |spec_known| {
        let runs = Runs {
            present: &[],
            gone: &[],
            before: &[],
            counted: &[],
            made: &[],
            spec: None,
            spec_known,
        };
        follow(std::slice::from_ref(&owed), PREFIX, &runs, at(100))
    };
    assert_eq!(look(false).open, std::slice::from_ref(&owed));
    assert_eq!(look(true).open, [], "the hooks were removed from the spec");
}
