use std::sync::Arc;

use super::*;
use crate::world::{HookContainers, JobView, Key, Termination};

const NAMES: Names = Names {
    before: Some("preBackup"),
    after: Some("postBackup"),
    failure: Some("onFailure"),
};

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
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

fn report(told: &[(&str, How)]) -> String {
    let told = told.iter().map(|(name, how)| Told {
        name: (*name).to_owned(),
        how: *how,
        millis: 1250,
        message: String::new(),
    });
    let report = HookReport {
        hooks: told.collect(),
    };
    serde_json::to_string(&report).unwrap()
}

fn never_started() -> HookContainer {
    HookContainer::default()
}

fn running() -> HookContainer {
    HookContainer {
        started: Some(at(10)),
        running: true,
        ended: None,
    }
}

fn over(exit_code: i32, message: &str) -> HookContainer {
    HookContainer {
        started: Some(at(10)),
        running: false,
        ended: Some(ended(exit_code, message)),
    }
}

/// A pod that is over, with restic's exit code if it ran.
fn pod(before: HookContainer, after: HookContainer, restic: Option<i32>) -> PodView {
    PodView {
        phase: "Failed".into(),
        scheduled: true,
        stopped: true,
        restic: restic.map(|code| ended(code, "")),
        hooks: HookContainers {
            before: Some(before),
            after: Some(after),
            grace: 30,
        },
        ..PodView::default()
    }
}

fn run(pods: Vec<PodView>, deleted: Vec<PodView>) -> JobWithPods {
    let keyed = |pods: Vec<PodView>| {
        pods.into_iter()
            .map(|pod| (Key::new("ns", "p"), Arc::new(pod)))
            .collect()
    };
    JobWithPods {
        job: Arc::new(JobView::default()),
        pods: keyed(pods),
        deleted: keyed(deleted),
        ..JobWithPods::default()
    }
}

fn owed(run: &JobWithPods) -> Vec<&'static str> {
    outcome(NAMES, run, false).owed
}

#[test]
fn nothing_is_owed_by_a_run_that_went_as_it_should() {
    let before = report(&[("preBackup", How::Succeeded)]);
    let after = report(&[("postBackup", How::Succeeded)]);
    let run = run(vec![pod(over(0, &before), over(0, &after), Some(0))], vec![]);
    let outcome = outcome(NAMES, &run, false);
    assert_eq!(outcome.owed, Vec::<&str>::new());
    let names: Vec<&str> = outcome.ran.iter().map(|hook| hook.name.as_str()).collect();
    assert_eq!(names, ["preBackup", "postBackup"]);
    assert_eq!(outcome.ran[0].duration.as_deref(), Some("1.2s"));
}

#[test]
fn the_hook_after_is_owed_exactly_when_the_one_before_may_have_begun() {
    let told = |how| over(1, &report(&[("preBackup", how)]));
    let killed = || over(137, "");
    for (before, expected) in [
        (told(How::Succeeded), true),
        (told(How::Failed), true),
        (told(How::Unknown), true),
        (killed(), true),
        (running(), true),
        (told(How::NotBegun), false),
        (never_started(), false),
    ] {
        let run = run(vec![pod(before.clone(), killed(), None)], vec![]);
        assert_eq!(owed(&run).contains(&"postBackup"), expected, "{before:?}");
    }
}

#[test]
fn the_hook_after_is_owed_unless_it_is_seen_to_have_ended_well() {
    let before = || over(0, &report(&[("preBackup", How::Succeeded)]));
    let told = |how| over(0, &report(&[("postBackup", how)]));
    for (after, expected) in [
        (told(How::Succeeded), false),
        (told(How::Failed), true),
        (told(How::NotBegun), true),
        (told(How::Unknown), true),
        (over(137, ""), true),
        (running(), true),
        (never_started(), true),
    ] {
        let run = run(vec![pod(before(), after.clone(), Some(0))], vec![]);
        assert_eq!(
            owed(&run),
            if expected { vec!["postBackup"] } else { vec![] },
            "{after:?}"
        );
    }
}

#[test]
fn a_pod_that_was_deleted_before_its_end_was_seen_may_have_done_anything() {
    let mut waiting = pod(never_started(), never_started(), None);
    waiting.phase = "Pending".into();
    assert_eq!(
        owed(&run(vec![], vec![waiting.clone()])),
        ["postBackup", "onFailure"]
    );
    waiting.scheduled = false;
    assert_eq!(
        owed(&run(vec![], vec![waiting])),
        Vec::<&str>::new(),
        "no kubelet had it"
    );
    assert_eq!(
        owed(&run(vec![], vec![])),
        ["postBackup", "onFailure"],
        "nobody saw a pod"
    );
    assert_eq!(
        outcome(NAMES, &run(vec![], vec![]), true),
        Outcome::default(),
        "there never was one"
    );
}

#[test]
fn on_failure_is_owed_where_restic_failed_and_nothing_reports_it() {
    let before = || over(0, &report(&[("preBackup", How::Succeeded)]));
    let after = |told: &[(&str, How)]| over(0, &report(told));
    for (after, restic, expected) in [
        (
            after(&[("postBackup", How::Succeeded)]),
            Some(137),
            vec!["onFailure"],
        ),
        (
            after(&[("postBackup", How::Succeeded), ("onFailure", How::Failed)]),
            Some(1),
            vec![],
        ),
        (after(&[("postBackup", How::Succeeded)]), Some(0), vec![]),
        (over(137, ""), Some(0), vec!["postBackup"]),
    ] {
        let run = run(vec![pod(before(), after, restic)], vec![]);
        assert_eq!(owed(&run), expected);
    }
}

#[test]
fn a_hook_whose_end_is_not_known_may_be_at_work_for_its_time_limit() {
    let killed = run(vec![pod(over(137, ""), over(137, ""), None)], vec![]);
    assert_eq!(outcome(NAMES, &killed, false).began, Some(at(10)));
    let before = report(&[("preBackup", How::Succeeded)]);
    let known = run(vec![pod(over(0, &before), over(137, ""), None)], vec![]);
    assert_eq!(outcome(NAMES, &known, false).began, None);
}

#[test]
fn without_a_hook_before_the_one_after_follows_every_run() {
    let names = Names {
        before: None,
        ..NAMES
    };
    let owed = |after| {
        let mut pod = pod(never_started(), after, Some(0));
        pod.hooks.before = None;
        outcome(names, &run(vec![pod], vec![]), false).owed
    };
    assert_eq!(owed(over(137, "")), ["postBackup"]);
    assert_eq!(owed(never_started()), Vec::<&str>::new());
}

#[test]
fn a_pod_is_busy_until_its_containers_have_ended_or_its_node_is_lost() {
    let busy = |change: fn(&mut PodView)| {
        let mut pod = pod(over(0, ""), running(), Some(0));
        (pod.phase, pod.stopped) = ("Running".into(), false);
        change(&mut pod);
        at_work(&run(vec![pod], vec![]))
    };
    assert!(busy(|_| ()));
    assert!(
        busy(|pod| pod.phase = "Failed".into()),
        "the kubelet still ends its sidecar"
    );
    assert!(!busy(|pod| (pod.phase, pod.stopped) = ("Failed".into(), true)));
    assert!(!busy(
        |pod| pod.disruption = Some(("DeletionByTaintManager".into(), "".into()))
    ));
    assert!(!busy(|pod| pod.hooks = HookContainers::default()));
}

#[test]
fn a_hook_after_that_was_not_called_for_is_owed_where_the_one_before_ran_all_the_same() {
    let before = over(0, &report(&[("preBackup", How::Succeeded)]));
    let after = over(0, &report(&[("postBackup", How::NotNeeded)]));
    let run = run(vec![pod(before, after, Some(0))], vec![]);
    assert_eq!(owed(&run), ["postBackup"]);
}
