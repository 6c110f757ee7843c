//! What follows a Job that has ended.

use super::*;

#[tokio::test]
async fn a_finished_job_whose_result_is_recorded_after_its_release_stays() {
    let mut bench = Bench::following().await;
    bench.api.change(JOB, |job| {
        job["metadata"]["annotations"] = json!({
            names::ANNOTATION_RESTIC_ID: "one", names::ANNOTATION_REPOSITORY: "ns/r",
            names::ANNOTATION_OWNER_UID: "p", names::ANNOTATION_RELEASED: "5",
        });
        job["spec"]["suspend"] = json!(false);
        job["spec"]["template"]["metadata"]["annotations"] = json!({
            names::ANNOTATION_TOKEN: "5", names::ANNOTATION_LEASE_TTL: "300000",
            names::ANNOTATION_LEASE_RENEW: "60000",
        });
        job["status"] = json!({ "startTime": "2026-11-25T00:00:00Z",
                                "conditions": [{ "type": "Complete", "status": "True" }] });
    });
    bench.put_pod(&json!({}));
    bench.pod_ends(r#"{"result":"Applied","removed":3}"#);
    bench.handle.lead();
    let result = bench
        .until("the result", |b| b.context.operations.of("p").pop()?.finished)
        .await;
    assert_eq!(result.outcome.removed, 3);
    bench.owner.recorded.store(true, Ordering::Relaxed);
    bench.context.operations.wake("p");
    bench.until_left().await;
    let job = bench.api.get(JOB).expect("the Job stays as history");
    assert_eq!(job["spec"]["suspend"], false);
}

/// The Job that follows one which has failed by itself with this message.
async fn follower(message: &str) -> Option<JobView> {
    let mut bench = Bench::new().await;
    bench.open().await;
    bench.api.change(JOB, |job| {
        job["status"]["conditions"] = json!([{ "type": "Failed", "status": "True" }]);
    });
    bench.pod_ends(message);
    bench.owner.recorded.store(true, Ordering::Relaxed);
    bench
        .until("the result", |b| b.context.operations.of("p").pop()?.finished)
        .await;
    bench.context.operations.wake("p");
    bench.until("the release", |b| b.released()).await;
    bench.give_back();
    bench.until_left().await;
    let kept = bench.api.get(JOB).unwrap();
    assert_eq!(kept["metadata"]["annotations"][names::ANNOTATION_RELEASED], "5");
    let next = format!(
        "/apis/batch/v1/namespaces/ns/jobs/cron-{}",
        names::short_hash(b"first")
    );
    let next: Job = serde_json::from_value(bench.api.get(&next)?).unwrap();
    Some(JobView::of(&next))
}

#[tokio::test]
async fn a_run_that_met_the_lock_of_a_dead_one_gives_its_lease_back_and_is_tried_again_later() {
    let told = r#"{"result":"Failed","reason":"StaleLock","message":"x"}"#;
    let next = follower(told).await.unwrap();
    let pause = next.not_before.unwrap() - jiff::Timestamp::now();
    let seconds = pause.total(jiff::Unit::Second).unwrap();
    assert!((2000.0..=2400.0).contains(&seconds), "{pause}");
}

#[tokio::test]
async fn a_run_whose_restic_left_its_lock_is_followed_when_that_lock_should_be_gone() {
    let told = r#"{"result":"Interrupted","reason":"LeaseLost","message":"x","lockLeft":true}"#;
    let next = follower(told).await.unwrap();
    let pause = next.not_before.unwrap() - jiff::Timestamp::now();
    assert!(pause.total(jiff::Unit::Second).unwrap() > 2000.0, "{pause}");
    assert_eq!(next.follows.as_deref(), Some("StaleLock"));
}

#[tokio::test]
async fn a_job_that_asks_later_says_what_for() {
    let mut bench = Bench::new().await;
    for (follows, reason, part) in [
        (Some("StaleLock"), "RepositoryLocked", "removed first"),
        (Some("PodNotStarted"), "PodNeverStarted", "did not start"),
        // Made by an earlier version.
        (None, "WaitingForLock", "did not do its work"),
    ] {
        bench.api.change(JOB, |job| {
            let later = jiff::Timestamp::now().as_second() + 600;
            job["metadata"]["annotations"][names::ANNOTATION_NOT_BEFORE] = json!(later.to_string());
            job["metadata"]["annotations"][names::ANNOTATION_FOLLOWS] = json!(follows.unwrap_or_default());
        });
        bench.watch();
        bench
            .until(reason, |b| match b.context.operations.of("p").pop()?.progress {
                Progress::Waiting {
                    reason: told,
                    message,
                } => (told == reason && message.contains(part)).then_some(()),
                _ => None,
            })
            .await;
    }
}

#[tokio::test]
async fn a_job_deleted_after_its_pod_had_ended_keeps_the_pods_report() {
    let mut bench = Bench::new().await;
    bench.open().await;
    bench.pod_ends(r#"{"result":"Applied","plan":"hash","removed":3}"#);
    bench.api.0.lock().unwrap().1.remove(JOB);
    bench.watch();
    let result = bench
        .until("the result", |b| b.context.operations.of("p").pop()?.finished)
        .await;
    assert_eq!(
        (result.outcome.result.as_str(), result.outcome.removed),
        ("Applied", 3)
    );
}

#[tokio::test]
async fn a_pod_that_lost_its_lease_or_was_told_to_end_is_followed_and_other_failures_are_not() {
    let told = r#"{"result":"Interrupted","reason":"LeaseLost","message":"x"}"#;
    assert_eq!(follower(told).await.map(|next| next.not_before), Some(None));
    let told = r#"{"result":"Interrupted","reason":"Stopped","message":"x"}"#;
    assert_eq!(follower(told).await.map(|next| next.not_before), Some(None));
    let told = r#"{"result":"Failed","reason":"RepositoryLocked","message":"x"}"#;
    assert_eq!(follower(told).await, None);
}

#[tokio::test]
async fn a_lock_that_a_person_takes_back_is_followed_by_no_job() {
    let mut bench = Bench::new().await;
    bench.open().await;
    bench.deliver(hub_message::Body::LeaseRevoke(LeaseRevoke {
        operation: "first".to_owned(),
        token: 5,
        reason: "the lease was taken back by a person".to_owned(),
        restic_id: "one".to_owned(),
        by_person: true,
    }));
    bench
        .until("the shut gate", |b| {
            (b.api.get(JOB)?["spec"]["suspend"] == true).then_some(())
        })
        .await;
    bench.pod_ends("");
    bench.owner.recorded.store(true, Ordering::Relaxed);
    let result = bench
        .until("the result", |b| b.context.operations.of("p").pop()?.finished)
        .await;
    assert_eq!(
        (result.outcome.result.as_str(), result.outcome.reason.as_str()),
        ("Interrupted", "TakenBack")
    );
    bench.context.operations.wake("p");
    bench.until("the release", |b| b.released()).await;
    bench.give_back();
    bench.until_left().await;
    let jobs = bench
        .api
        .0
        .lock()
        .unwrap()
        .1
        .keys()
        .filter(|path| path.contains("/jobs/"))
        .count();
    assert_eq!(jobs, 0);
}

#[tokio::test]
async fn a_job_that_the_api_server_refuses_to_open_gives_its_lock_back_and_says_so() {
    let mut bench = Bench::new().await;
    bench.asks().await;
    // Started and suspended again behind the operator's back: its template is fixed.
    bench.api.change(JOB, |job| {
        job["status"] = json!({ "startTime": "2026-11-25T00:00:00Z" })
    });
    bench.grant(run("a"));
    let renew = bench.renewal().await;
    bench.answer(&renew, None);
    bench.until("the release", |b| b.released()).await;
    bench.give_back();
    let result = bench
        .until("the result", |b| b.context.operations.of("p").pop()?.finished)
        .await;
    assert_eq!(result.outcome.reason, "OpenRefused", "{result:?}");
    assert!(result.outcome.message.contains("immutable"), "{result:?}");
    bench.owner.recorded.store(true, Ordering::Relaxed);
    bench.context.operations.wake("p");
    bench.until_left().await;
    assert!(bench.api.get(JOB).is_none());
}
