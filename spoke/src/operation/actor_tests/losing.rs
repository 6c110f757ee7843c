//! What becomes of a lease when an actor, a Job, its pod or the watch is lost, and outside of a window.

use super::*;

#[tokio::test]
async fn an_actor_that_panics_and_a_replica_that_leads_again_adopt_the_open_job() {
    let mut bench = Bench::new().await;
    bench.open().await;
    let first = bench.renewal().await;
    bench.owner.poison.store(true, Ordering::Relaxed);
    bench.context.operations.wake("p");
    let adopted = bench.renewal().await;
    assert!(
        adopted.token == 5 && adopted.seq > first.seq,
        "under the same token, by a new holder"
    );
    // a leads, b leads, a leads again.
    bench.handle.follow().await;
    bench.context.leases.reset();
    bench.said.clear();
    bench.handle.lead();
    let again = bench.renewal().await;
    assert!(again.token == 5 && again.seq > adopted.seq);
    assert_eq!(
        bench.api.get(JOB).unwrap()["spec"]["suspend"],
        false,
        "never shut"
    );
    bench.answer(&again, None);
    bench.counts().await;
}

#[tokio::test]
async fn a_job_deleted_beside_its_pod_is_released_when_the_pod_has_ended_and_not_if_its_end_was_not_seen() {
    let mut bench = Bench::new().await;
    bench.open().await;
    let renew = bench.renewal().await;
    bench.answer(&renew, None);
    bench.counts().await;
    bench.owner.recorded.store(true, Ordering::Relaxed);
    // delete --cascade=orphan: the pod loses its owner and works on.
    bench
        .api
        .change(POD, |pod| pod["metadata"]["ownerReferences"] = json!([]));
    bench.watch();
    bench.api.0.lock().unwrap().1.remove(JOB);
    bench.watch();
    bench.until_left().await;
    assert!(bench.released().is_none(), "its lease runs out at the grantor");
}

#[tokio::test]
async fn while_pods_are_not_watched_a_deleted_job_gives_nothing_back() {
    let mut bench = Bench::new().await;
    let annotations = bench.open_job().await;
    bench.owner.recorded.store(true, Ordering::Relaxed);
    // Its pod is made while the watch of pods has failed.
    let delivery = |change: Delivery| bench.context.world.pods.note(|pods| *pods = change);
    delivery(Delivery::default());
    bench.api.0.lock().unwrap().1.remove(JOB);
    bench.watch();
    let turn = bench.context.clock.since_boot();
    bench
        .until("some looks later", |b| {
            b.watch();
            (b.context.clock.since_boot() > turn + 300).then_some(())
        })
        .await;
    assert!(bench.released().is_none(), "a pod may be at work");
    bench.put_pod(&annotations);
    bench.watch();
    bench
        .context
        .world
        .pods
        .note(|pods| *pods = Delivery::complete(jiff::Timestamp::MIN));
    bench.pod_ends("");
    bench.until("the release", |b| b.released()).await;
}

#[tokio::test]
async fn a_lease_is_taken_and_renewed_while_ordinary_turns_hold_every_permit() {
    let mut bench = Bench::new().await;
    let context = bench.context.clone();
    let all = u32::try_from(crate::context::TURNS).unwrap();
    let _turns = context.turns.acquire_many(all).await.unwrap();
    bench.open().await;
    bench.renewal().await;
}

#[tokio::test]
async fn a_job_that_fails_after_its_pod_was_lost_gives_nothing_back_however_often_it_is_taken_up() {
    let mut bench = Bench::new().await;
    bench.open().await;
    let renew = bench.renewal().await;
    bench.answer(&renew, None);
    bench.counts().await;
    // Its node is deleted, and with it the pod's object.
    bench.watch();
    bench.api.0.lock().unwrap().1.remove(POD);
    bench.watch();
    bench
        .until("the shut gate", |b| {
            (b.api.get(JOB)?["spec"]["suspend"] == true).then_some(())
        })
        .await;
    bench.api.change(JOB, |job| {
        job["status"]["conditions"] =
            json!([{ "type": "Failed", "status": "True", "lastTransitionTime": "2026-11-25T00:00:00Z" }]);
    });
    bench.watch();
    let late = bench.api.get(JOB).unwrap();
    bench
        .until("the result", |b| b.context.operations.of("p").pop()?.finished)
        .await;
    bench.owner.recorded.store(true, Ordering::Relaxed);
    bench.context.operations.wake("p");
    bench.until_left().await;
    assert!(bench.api.get(JOB).is_none(), "it can never be opened again");
    // Another leader sees the Job, whose deletion has not come through the watch yet, and knows nothing of the pod.
    bench.handle.follow().await;
    bench.api.put(JOB, late);
    bench.watch();
    bench.handle.lead();
    bench
        .until("the Job is deleted again", |b| {
            b.api.get(JOB).is_none().then_some(())
        })
        .await;
    assert!(bench.released().is_none(), "its lease runs out at the grantor");
}

fn closed() -> Closed {
    Closed {
        text: "outside of the window, which opens tomorrow".to_owned(),
        again: jiff::Timestamp::now() + jiff::SignedDuration::from_hours(24),
    }
}

fn waits_for(b: &Bench, reason: &str) -> Option<String> {
    match b.context.operations.of("p").pop()?.progress {
        Progress::Waiting {
            reason: told,
            message,
        } => (told == reason).then_some(message),
        _ => None,
    }
}

#[tokio::test]
async fn outside_of_its_window_a_job_asks_for_nothing_and_says_until_when() {
    let mut bench = Bench::following().await;
    *bench.owner.closed.lock().unwrap() = Some(closed());
    bench.handle.lead();
    bench.watch();
    let message = bench
        .until("the reason", |b| waits_for(b, "MaintenanceClosed"))
        .await;
    assert!(message.contains("opens tomorrow"), "{message}");
    for _ in 0..20 {
        bench.watch();
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    bench.said.extend(bench.context.leases.take());
    let asked = |b: &Bench| b.said.iter().any(|body| matches!(body, Body::LeaseAsk(_)));
    assert!(!asked(&bench), "{:?}", bench.said);
    *bench.owner.closed.lock().unwrap() = None;
    bench.watch();
    bench.open().await;
    // What has begun goes on after the window.
    *bench.owner.closed.lock().unwrap() = Some(closed());
    bench.watch();
    let renew = bench.renewal().await;
    bench.answer(&renew, None);
    assert_eq!(bench.api.get(JOB).unwrap()["spec"]["suspend"], false);
}

#[tokio::test]
async fn a_grant_that_comes_after_the_window_is_given_back() {
    let mut bench = Bench::new().await;
    bench
        .until("the question", |b| {
            b.said
                .iter()
                .any(|body| matches!(body, Body::LeaseAsk(_)))
                .then_some(())
        })
        .await;
    *bench.owner.closed.lock().unwrap() = Some(closed());
    bench.grant(run("a"));
    let release = bench.until("the release", |b| b.released()).await;
    assert_eq!(release.token, 5);
    bench.give_back();
    bench
        .until("the reason", |b| waits_for(b, "MaintenanceClosed"))
        .await;
    assert_eq!(bench.api.get(JOB).unwrap()["spec"]["suspend"], true);
}
