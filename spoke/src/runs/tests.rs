use super::*;
use crate::pod::message::Message;
use crate::world::{JobEnd, Termination};

type Told = Message<serde_json::Value>;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

fn job(end: Option<JobEnd>, change: impl FnOnce(&mut JobView)) -> JobView {
    let mut job = JobView {
        start: Some(at(100)),
        end: end.map(|end| (Some(at(200)), end)),
        ..JobView::default()
    };
    job.meta.uid = "job".into();
    change(&mut job);
    job
}

fn failed(reason: &str) -> Option<JobEnd> {
    Some(JobEnd::Failed {
        reason: reason.into(),
        message: "the Job's words".into(),
    })
}

fn pod(phase: &str, change: impl FnOnce(&mut PodView)) -> PodView {
    let mut pod = PodView {
        phase: phase.into(),
        user: Some(65532),
        ..PodView::default()
    };
    pod.meta.uid = "pod".into();
    change(&mut pod);
    pod
}

fn ended(exit_code: i32, reason: &str, message: &str) -> Option<Termination> {
    Some(Termination {
        exit_code,
        reason: reason.into(),
        message: message.into(),
        started: Some(at(110)),
        finished: Some(at(190)),
    })
}

fn run(job: JobView, pods: Vec<PodView>, notices: &[(&str, &str, &str)]) -> JobWithPods {
    let key = |n: usize| Key::new("ns", format!("p{n}"));
    let notices = notices.iter().map(|(about, reason, text)| {
        let notice = Notice::new(reason, text, at(105));
        ((*about).into(), Arc::new(notice))
    });
    JobWithPods {
        key: Key::new("ns", "resticbackup-a"),
        job: Arc::new(job),
        pods: pods
            .into_iter()
            .enumerate()
            .map(|(n, pod)| (key(n), Arc::new(pod)))
            .collect(),
        notices: notices.collect(),
        delivery: crate::world::Delivery::complete(Timestamp::MIN),
        ..JobWithPods::default()
    }
}

fn words(run: &JobWithPods, now: i64) -> (String, String) {
    match state::<Told>(run, at(now)) {
        State::Waiting {
            words: Some(words), ..
        } => (words.reason, words.text),
        other => panic!("{other:?}"),
    }
}

fn ending(run: &JobWithPods) -> Ending<Told> {
    match state::<Told>(run, at(300)) {
        State::Ended(ended) => ended.ending,
        other => panic!("{other:?}"),
    }
}

fn reason(run: &JobWithPods) -> &'static str {
    report(ending(run), "backup").map_or_else(|(reason, _)| reason, |_| "reported")
}

/// Pods, notices about them as (about, reason, text), and the reason and a part of the text that follow.
type Case<'a> = (Vec<PodView>, &'a [(&'a str, &'a str, &'a str)], &'a str, &'a str);

#[test]
fn a_container_that_fails_before_restic_is_named_with_its_words() {
    let dump = ended(7, "Error", "no such table\n").unwrap();
    let failing = pod("Failed", |pod| pod.unprepared = Some(("dump".into(), dump)));
    let over = run(job(failed("BackoffLimitExceeded"), |_| ()), vec![failing], &[]);
    let State::Ended(Ended {
        ending: Ending::Failed { job: text },
        ..
    }) = state::<Told>(&over, at(300))
    else {
        panic!()
    };
    assert!(
        text.contains("container dump") && text.contains("exit code 7"),
        "{text}"
    );
    assert!(text.ends_with("no such table"), "{text}");
    let busy = run(
        job(None, |_| ()),
        vec![pod("Pending", |pod| pod.preparing = true)],
        &[],
    );
    assert_eq!(state::<Told>(&busy, at(300)), State::Running);
}

#[test]
fn what_keeps_a_job_from_running_is_told_in_the_words_of_kubernetes() {
    let pending = |change: fn(&mut PodView)| vec![pod("Pending", change)];
    let pull = |p: &mut PodView| p.waiting = Some(("ImagePullBackOff".into(), "no such image".into()));
    let bare = |p: &mut PodView| p.waiting = Some(("CreateContainerError".into(), "".into()));
    let cases: [Case<'_>; 10] = [
        (
            vec![],
            &[("job", "FailedCreate", "exceeded quota: q")],
            "FailedCreate",
            "no pod of resticbackup-a can be created: exceeded quota: q",
        ),
        (vec![], &[], "NoPod", "no Event explains it"),
        (
            pending(|p| p.unschedulable = Some("1 Insufficient cpu".into())),
            &[],
            "Unschedulable",
            "1 Insufficient cpu",
        ),
        (pending(pull), &[], "ImagePullBackOff", "no such image"),
        (pending(bare), &[], "CreateContainerError", "CreateContainerError"),
        (
            pending(|_| ()),
            &[("pod", "FailedMount", "path \"/x\" does not exist")],
            "FailedMount",
            "path \"/x\" does not exist",
        ),
        // Events of another pod, or of the time before its volumes were mounted, do not explain it.
        (
            pending(|_| ()),
            &[("other", "FailedMount", "path")],
            "ContainerCreating",
            "being started",
        ),
        (
            pending(|p| p.prepared = true),
            &[("pod", "FailedMount", "path")],
            "ContainerCreating",
            "being started",
        ),
        // A sidecar runs while the image of restic cannot be pulled.
        (
            vec![pod("Running", pull)],
            &[],
            "ImagePullBackOff",
            "no such image",
        ),
        (
            vec![pod("Failed", |p| p.restic = ended(1, "Error", ""))],
            &[],
            "NextAttempt",
            "another attempt",
        ),
    ];
    for (pods, notices, expected, part) in cases {
        let run = run(job(None, |_| ()), pods, notices);
        let (reason, text) = words(&run, 120);
        assert!(
            reason == expected && text.contains(part),
            "{expected}: {reason}: {text}"
        );
        // Most of these things pass by themselves in the first seconds.
        let State::Waiting { words: None, again } = state::<Told>(&run, at(119)) else {
            panic!("{expected}: too early")
        };
        assert_eq!(again, Some(at(120)));
    }
    let suspended = run(job(None, |j| j.suspended = true), vec![], &[]);
    assert_eq!(words(&suspended, 120).0, "JobSuspended");
}

#[test]
fn a_job_runs_when_its_container_does() {
    let started = run(job(None, |_| ()), vec![pod("Running", |p| p.started = true)], &[]);
    assert_eq!(state::<Told>(&started, at(101)), State::Running);
    let older = pod("Failed", |p| p.restic = ended(1, "Error", ""));
    let again = run(
        job(None, |_| ()),
        vec![older, pod("Running", |p| p.started = true)],
        &[],
    );
    assert_eq!(state::<Told>(&again, at(400)), State::Running);
}

#[test]
fn each_end_from_outside_has_its_own_reason() {
    const STOPPED: &str = r#"{"exitCode":130}"#;
    let disrupted = |reason: &'static str| {
        move |p: &mut PodView| {
            p.restic = ended(130, "Error", STOPPED);
            p.disruption = Some((reason.into(), "its words".into()));
        }
    };
    let backoff = || failed("BackoffLimitExceeded");
    let cases: Vec<(Option<JobEnd>, PodView, &str)> = vec![
        (
            backoff(),
            pod("Failed", |p| p.restic = ended(137, "OOMKilled", "")),
            "OutOfMemory",
        ),
        // restic was killed and the shell that started it was not: as the kubelet reports, and the cgroup.
        (
            backoff(),
            pod("Failed", |p| {
                p.restic = ended(137, "OOMKilled", r#"{"exitCode":137}"#)
            }),
            "OutOfMemory",
        ),
        (
            backoff(),
            pod("Failed", |p| {
                p.restic = ended(137, "Error", r#"{"exitCode":137,"outOfMemory":true}"#);
            }),
            "OutOfMemory",
        ),
        (
            Some(JobEnd::Complete),
            pod("Succeeded", |p| {
                p.restic = ended(0, "Completed", r#"{"outOfMemory":true}"#)
            }),
            "reported",
        ),
        (
            backoff(),
            pod("Failed", |p| {
                p.restic = ended(137, "Error", r#"{"exitCode":137}"#)
            }),
            "reported",
        ),
        (
            failed("DeadlineExceeded"),
            pod("Failed", |p| p.restic = ended(137, "Error", "")),
            "DeadlineExceeded",
        ),
        (
            failed("DeadlineExceeded"),
            pod("Failed", |p| p.restic = ended(130, "Error", STOPPED)),
            "DeadlineExceeded",
        ),
        (
            backoff(),
            pod("Failed", |p| p.restic = ended(130, "Error", STOPPED)),
            "reported",
        ),
        (
            backoff(),
            pod("Failed", |p| p.restic = ended(2, "Error", "")),
            "ContainerFailed",
        ),
        (
            backoff(),
            pod("Failed", |p| p.restic = ended(137, "Error", "")),
            "ContainerFailed",
        ),
        (
            backoff(),
            pod("Failed", |p| p.reason = "Evicted".into()),
            "Evicted",
        ),
        (
            backoff(),
            pod("Failed", disrupted("EvictionByEvictionAPI")),
            "Evicted",
        ),
        (
            backoff(),
            pod("Failed", disrupted("PreemptionByScheduler")),
            "Evicted",
        ),
        (
            backoff(),
            pod("Failed", disrupted("DeletionByTaintManager")),
            "NodeLost",
        ),
        (
            backoff(),
            pod("Running", disrupted("DeletionByPodGC")),
            "NodeLost",
        ),
        (
            backoff(),
            pod("Running", |p| {
                p.restic = ended(130, "Error", STOPPED);
                p.meta.deleting = true;
            }),
            "PodDeleted",
        ),
        (
            backoff(),
            pod("Running", |p| p.meta.deleting = true),
            "PodDeleted",
        ),
        (
            failed("DeadlineExceeded"),
            pod("Pending", |p| p.unschedulable = Some("no node".into())),
            "PodNeverStarted",
        ),
        (
            failed("DeadlineExceeded"),
            pod("Running", |_| ()),
            "DeadlineExceeded",
        ),
        (backoff(), pod("Failed", |_| ()), "JobFailed"),
        (Some(JobEnd::Complete), pod("Succeeded", |_| ()), "ResultLost"),
    ];
    for (end, pod, expected) in cases {
        let text = format!("{end:?} {pod:?}");
        let there = run(job(end.clone(), |_| ()), vec![pod.clone()], &[]);
        assert_eq!(reason(&there), expected, "{text}");
        // An evicted pod goes before its Job is marked.
        let mut deleted = there;
        deleted.deleted = std::mem::take(&mut deleted.pods);
        assert_eq!(reason(&deleted), expected, "deleted: {text}");
    }
}

#[test]
fn the_limit_that_was_reached_is_named() {
    let killed = |limit: Option<&str>| {
        let pod = pod("Failed", |p| {
            p.restic = ended(137, "OOMKilled", "");
            p.memory_limit = limit.map(Into::into);
        });
        let run = run(job(failed("BackoffLimitExceeded"), |_| ()), vec![pod], &[]);
        report(ending(&run), "backup").unwrap_err().1
    };
    let text = killed(Some("64Mi"));
    assert!(
        text.contains("limit of 64Mi") && text.contains("limits.memory"),
        "{text}"
    );
    assert!(killed(None).contains("the node ran out of memory"));
}

#[test]
fn without_any_pod_the_job_and_what_was_said_of_it_are_left() {
    let deadline = || job(failed("DeadlineExceeded"), |_| ());
    let refused = run(
        deadline(),
        vec![],
        &[("job", "FailedCreate", "exceeded quota: q")],
    );
    let (reason, text) = report(ending(&refused), "backup").unwrap_err();
    assert!(
        reason == "PodNeverStarted" && text.contains("exceeded quota"),
        "{text}"
    );
    let mut known = run(deadline(), vec![], &[]);
    known.last_words = Some("no such image".to_owned());
    assert!(
        report(ending(&known), "backup")
            .unwrap_err()
            .1
            .contains("no such image")
    );
    known.last_words = None;
    assert_eq!(
        ending(&known),
        Ending::Deadline {
            message: "the Job's words".to_owned()
        }
    );
    let lost = run(job(Some(JobEnd::Complete), |_| ()), vec![], &[]);
    assert_eq!(ending(&lost), Ending::Lost);
    assert_eq!(
        state::<Told>(&lost, at(205)),
        State::Settling(at(210)),
        "two watches"
    );
    let original = run(job(Some(JobEnd::Complete), |j| j.original = true), vec![], &[]);
    assert_eq!(ending(&original), Ending::Unreported { exit: 0 });
    let deleting = run(job(None, |j| j.meta.deleting = true), vec![], &[]);
    assert_eq!(ending(&deleting), Ending::Deleted);
}

#[test]
fn without_a_watch_of_pods_nothing_is_concluded_from_a_missing_pod() {
    let unknown = |mut run: JobWithPods| {
        run.delivery = Delivery::default();
        run
    };
    let jobs = [
        job(None, |_| ()),
        job(Some(JobEnd::Complete), |_| ()),
        job(failed("BackoffLimitExceeded"), |_| ()),
    ];
    for job in jobs {
        for pods in [vec![], vec![pod("Pending", |_| ())]] {
            let run = unknown(run(
                job.clone(),
                pods,
                &[("job", "FailedCreate", "exceeded quota: q")],
            ));
            assert_eq!(state::<Told>(&run, at(5000)), State::Settling(at(5010)));
        }
    }
    // What was seen is known.
    let done = pod("Succeeded", |p| {
        p.restic = ended(0, "Completed", r#"{"exitCode":0}"#)
    });
    let run = unknown(run(job(Some(JobEnd::Complete), |_| ()), vec![done], &[]));
    assert_eq!(reason(&run), "reported");
}

#[test]
fn of_several_attempts_the_last_counts() {
    let first = pod("Failed", |p| {
        p.restic = ended(1, "Error", r#"{"exitCode":1}"#);
        if let Some(termination) = &mut p.restic {
            termination.finished = Some(at(150));
        }
    });
    let second = pod("Succeeded", |p| {
        p.restic = ended(0, "Completed", r#"{"exitCode":0}"#)
    });
    let both = run(job(Some(JobEnd::Complete), |_| ()), vec![second, first], &[]);
    let Ending::Message(message) = ending(&both) else {
        panic!()
    };
    assert_eq!(message.exit_code, 0);
}

#[test]
fn a_sidecar_that_stays_keeps_no_result_back_and_is_ended() {
    let with = |exit: i32, limit: i32| {
        let text = format!("{{\"exitCode\":{exit}}}");
        let pod = pod("Running", |p| p.restic = ended(exit, "Error", &text));
        run(job(None, |j| j.backoff_limit = limit), vec![pod], &[])
    };
    let done = with(0, 3);
    assert_eq!(state::<Told>(&done, at(195)), State::Settling(at(200)));
    assert_eq!(reason(&done), "reported");
    assert_eq!(lingering([&done], at(215)), (vec![], Some(at(220))));
    let ends = |job: &JobWithPods, with_job: bool| {
        let lingering = lingering([job], at(300)).0;
        assert_eq!(lingering.len(), 1);
        lingering[0].pod == Key::new("ns", "p0") && lingering[0].job.is_some() == with_job
    };
    assert!(ends(&done, true));
    // Another attempt is to follow: the pod is ended, and the Job is not.
    let failed = with(1, 3);
    assert!(matches!(state::<Told>(&failed, at(300)), State::Waiting { .. }));
    assert!(ends(&failed, false));
    let last = with(1, 0);
    assert_eq!(reason(&last), "reported");
    assert!(ends(&last, true));
    let silent = pod("Running", |p| p.restic = ended(0, "Completed", ""));
    let original = run(job(None, |j| j.original = true), vec![silent], &[]);
    assert_eq!(ending(&original), Ending::Unreported { exit: 0 });
    let running = run(job(None, |_| ()), vec![pod_running()], &[]);
    assert_eq!(lingering([&running], at(300)), (vec![], None));
}

fn pod_running() -> PodView {
    pod("Running", |p| p.started = true)
}

#[test]
fn the_hint_names_the_user_of_the_pod() {
    assert!(owner_hint(Some(65532)).contains("user 65532; set spec.jobConfig.securityContext.runAsUser"));
    assert!(!owner_hint(Some(0)).contains("runAsUser"), "it is root already");
}

#[test]
fn a_cron_job_is_blamed_for_what_came_after_its_last_job() {
    let notice = Notice::new("FailedCreate", "exceeded quota", at(50));
    assert_eq!(
        not_created("c", Some(&notice), None).unwrap().reason,
        "FailedCreate"
    );
    assert!(not_created("c", Some(&notice), Some(at(40))).is_some());
    assert_eq!(not_created("c", Some(&notice), Some(at(60))), None);
}
