//! From a waiting Job to one that is open, and what a grant or a renewal brings it.

use super::*;

#[tokio::test]
async fn a_job_is_pinned_opened_counted_recorded_and_only_then_released() {
    let mut bench = Bench::new().await;
    bench.open().await;
    let pinned = bench.api.get(JOB).unwrap()["metadata"]["annotations"].clone();
    assert_eq!(
        (
            &pinned[names::ANNOTATION_RESTIC_ID],
            &pinned[names::ANNOTATION_REPOSITORY]
        ),
        (&json!("one"), &json!("ns/r"))
    );
    // The policies have changed: the order goes with the renewal.
    let renew = bench.renewal().await;
    // The kubelet writes at the same moment.
    bench.api.change(POD, |pod| pod["status"]["message"] = json!("x"));
    bench.answer(&renew, Some(run("b")));
    bench
        .until("the count", |b| {
            let annotations = b.api.get(POD)?["metadata"]["annotations"].clone();
            let hash = hex::encode(run_hash(&run("b")));
            (annotations[names::ANNOTATION_RENEWALS] == "1").then(|| {
                assert_eq!(annotations[names::ANNOTATION_ORDER_HASH], hash);
            })
        })
        .await;
    bench.api.change(JOB, |job| {
        job["status"]["conditions"] = json!([{ "type": "Complete", "status": "True" }]);
    });
    bench.pod_ends(r#"{"result":"Applied","removed":3}"#);
    let result = bench
        .until("the result", |b| b.context.operations.of("p").pop()?.finished)
        .await;
    assert_eq!((result.outcome.removed, result.token), (3, Some(5)));
    assert!(bench.released().is_none(), "its owner has not recorded it");
    bench.owner.recorded.store(true, Ordering::Relaxed);
    bench.context.operations.wake("p");
    let release = bench.until("the release", |b| b.released()).await;
    assert_eq!(
        (release.token, release.restic_id.as_str(), release.policy.as_str()),
        (5, "one", "p")
    );
    assert_eq!(release.outcome.unwrap().result, "Applied");
    bench.give_back();
    bench.until_left().await;
    let annotations = bench.api.get(JOB).unwrap()["metadata"]["annotations"].clone();
    assert_eq!(annotations[names::ANNOTATION_RELEASED], "5");
}

#[tokio::test]
async fn a_policy_that_means_another_repository_shuts_its_job_under_the_first_id_and_another_follows() {
    let mut bench = Bench::new().await;
    bench.open().await;
    "two".clone_into(&mut bench.owner.restic_id.lock().unwrap());
    bench.context.operations.wake("p");
    bench
        .until("the shut gate", |b| {
            (b.api.get(JOB)?["spec"]["suspend"] == true).then_some(())
        })
        .await;
    bench.pod_ends(r#"{"result":"Interrupted","reason":"Stopped"}"#);
    let result = bench
        .until("the result", |b| b.context.operations.of("p").pop()?.finished)
        .await;
    assert_eq!(result.outcome.reason, "RepositoryChanged");
    bench.owner.recorded.store(true, Ordering::Relaxed);
    bench.context.operations.wake("p");
    let release = bench.until("the release", |b| b.released()).await;
    assert_eq!((release.token, release.restic_id.as_str()), (5, "one"));
    for body in &bench.said {
        if let Body::LeaseRenew(renew) = body {
            assert_eq!(
                renew.restic_id, "one",
                "its token is never used for another repository"
            );
        }
    }
    bench.give_back();
    bench.until_left().await;
    assert!(bench.api.get(JOB).is_none(), "it can never be opened again");
    let next = format!(
        "/apis/batch/v1/namespaces/ns/jobs/cron-{}",
        names::short_hash(b"first")
    );
    assert_eq!(bench.api.get(&next).unwrap()["spec"]["suspend"], true);
}

/// A run that no Job can hold.
fn too_long() -> RetentionRun {
    let policy = |n| proto::v1::RetentionPolicySpec {
        source: format!("cluster-{n}/shop/nightly"),
        ..proto::v1::RetentionPolicySpec::default()
    };
    RetentionRun {
        policies: (0..10_000).map(policy).collect(),
        ..run("a")
    }
}

#[tokio::test]
async fn without_a_hub_policies_that_changed_since_the_grant_reach_the_pod_with_the_next_renewal() {
    let mut bench = Bench::new().await;
    *bench.owner.own.lock().unwrap() = Some(run("a"));
    bench.open().await;
    let renew = bench.renewal().await;
    *bench.owner.own.lock().unwrap() = Some(run("b"));
    bench.answer(&renew, None);
    let annotations = bench
        .until("the count", |b| {
            let annotations = b.api.get(POD)?["metadata"]["annotations"].clone();
            (annotations[names::ANNOTATION_RENEWALS] == "1").then_some(annotations)
        })
        .await;
    assert_eq!(
        annotations[names::ANNOTATION_ORDER_HASH],
        hex::encode(run_hash(&run("b")))
    );
}

/// A run that became too long after the Job was opened: `answer` is what the renewal brings.
async fn cannot_be_passed_on(mut bench: Bench, answer: Option<RetentionRun>) {
    let renew = bench.renewal().await;
    bench.answer(&renew, answer);
    bench
        .until("the shut gate", |b| {
            (b.api.get(JOB)?["spec"]["suspend"] == true).then_some(())
        })
        .await;
    let annotations = bench.api.get(POD).unwrap()["metadata"]["annotations"].clone();
    assert_eq!(annotations[names::ANNOTATION_RENEWALS], "0", "it removes nothing");
    bench.pod_ends("");
    bench.owner.recorded.store(true, Ordering::Relaxed);
    bench.context.operations.wake("p");
    let release = bench.until("the release", |b| b.released()).await;
    let outcome = release.outcome.unwrap();
    assert_eq!(
        (outcome.result.as_str(), outcome.reason.as_str()),
        ("Interrupted", "RunNotUsable")
    );
    assert!(outcome.message.contains("10000 policies"), "{}", outcome.message);
}

#[tokio::test]
async fn a_run_that_cannot_be_passed_on_gives_the_lease_back_with_its_reason() {
    let mut bench = Bench::new().await;
    bench.open().await;
    cannot_be_passed_on(bench, Some(too_long())).await;
    let mut bench = Bench::new().await;
    *bench.owner.own.lock().unwrap() = Some(run("a"));
    bench.open().await;
    *bench.owner.own.lock().unwrap() = Some(too_long());
    cannot_be_passed_on(bench, None).await;
}

#[tokio::test]
async fn a_grant_whose_run_does_not_fit_into_a_job_is_given_back_and_says_why() {
    let mut bench = Bench::new().await;
    bench.asks().await;
    bench.grant(too_long());
    let release = bench.until("the release", |b| b.released()).await;
    assert_eq!(release.token, 5);
    bench.give_back();
    bench
        .until("the reason", |b| {
            let progress = b.context.operations.of("p").pop()?.progress;
            format!("{progress:?}").contains("10000 policies").then_some(())
        })
        .await;
    assert_eq!(bench.api.get(JOB).unwrap()["spec"]["suspend"], true);
}
