//! One hub has a store, what it has promised survives it, and what people have decided is carried out.

use std::time::Duration;

use crate::harness::plan::{ends, hash, snapshot};
use crate::harness::{Fleet, ID, Spoke, config, keep_last, member, policy, repository};
use hub::run::start;
use hub::store::{HubStore as _, Sqlite};
use proto::v1::hub_message::Body as Told;
use proto::v1::spoke_message::Body;
use proto::v1::{
    AuditRequest, DecidePlanRequest, Delta, LeaseAsk, LeaseRelease, LeaseRenew, PlansRequest, Tombstone,
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio_util::sync::CancellationToken;

async fn ready(port: u16) -> Option<String> {
    let mut stream = tokio::net::TcpStream::connect(("127.0.0.1", port)).await.ok()?;
    let request = b"GET /readyz HTTP/1.1\r\nHost: hub\r\nConnection: close\r\n\r\n";
    stream.write_all(request).await.ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.ok()?;
    Some(answer)
}

async fn until_ready(port: u16, holds: impl Fn(&str) -> bool) {
    let wait = async {
        while !ready(port).await.is_some_and(|answer| holds(&answer)) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), wait).await.unwrap();
}

#[tokio::test]
async fn a_second_process_on_one_store_is_not_ready_until_the_first_has_ended() {
    let fleet = Fleet::new().await;
    let port = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let admin = format!("127.0.0.1:{port}");
    let stop = CancellationToken::new();
    let second = config(fleet.dir.path(), &["--admin-address", &admin]);
    let second = tokio::spawn({
        let stop = stop.clone();
        async move { start(&second, stop).await }
    });
    until_ready(port, |answer| {
        answer.contains("503") && answer.contains("another hub has it")
    })
    .await;
    assert!(!second.is_finished());
    let _dir = fleet.stop().await;
    until_ready(port, |answer| answer.contains("200")).await;
    stop.cancel();
    second.await.unwrap().unwrap().ended().await.unwrap();
}

#[tokio::test]
async fn a_hub_whose_store_was_taken_over_ends_and_answers_nobody() {
    let fleet = Fleet::new().await;
    let mut spoke = member(&fleet).await;
    let token = granted(&mut spoke, "").await;
    // A process on another machine, where the lock on the file does not reach.
    let other = Sqlite::open(&fleet.dir.path().join("fleet.db")).await.unwrap();
    other.begin().await.unwrap();
    let ended = tokio::time::timeout(Duration::from_secs(10), fleet.running.ended()).await;
    let error = ended.unwrap().unwrap_err().to_string();
    assert!(error.contains("another hub has taken this store over"), "{error}");
    spoke.say(Body::LeaseRenew(renew(token, 9))).await;
    let answer = async {
        while let Ok(Some(message)) = spoke.next().await {
            assert!(!matches!(message.body, Some(Told::LeaseRenewed(renewed)) if renewed.seq == 9));
        }
    };
    // The stream or stays silent.
    let _ = tokio::time::timeout(Duration::from_millis(500), answer).await;
}

async fn is_delayed(fleet: &Fleet) -> bool {
    fleet
        .locks()
        .await
        .locks
        .iter()
        .any(|lock| lock.state == "delayed")
}

/// A copy of the epoch in which the lost store was begins the epoch that every cluster has seen.
#[tokio::test]
async fn a_store_that_is_older_than_a_lease_waits_for_what_it_may_have_forgotten() {
    let fleet = Fleet::new().await;
    let mut spoke = member(&fleet).await;
    let token = granted(&mut spoke, "").await;
    let release = LeaseRelease {
        operation: "job".to_owned(),
        restic_id: ID.to_owned(),
        token,
        ..LeaseRelease::default()
    };
    spoke.say(Body::LeaseRelease(release)).await;
    spoke
        .until("the release", |told| {
            matches!(told, Told::LeaseReleased(_)).then_some(())
        })
        .await;
    drop(spoke);
    let fleet = fleet.restart().await;
    assert!(!is_delayed(&fleet).await, "a restart alone forgets nothing");
    let fleet = fleet.restart_after(Duration::from_millis(1500)).await;
    fleet
        .until("a wait for the forgotten", async |fleet| is_delayed(fleet).await)
        .await;
    let fleet = fleet.restart().await;
    fleet
        .until("a wait that survives another restart", async |fleet| {
            is_delayed(fleet).await
        })
        .await;
    let mut spoke = member(&fleet).await;
    assert!(granted(&mut spoke, "").await > token);
}

async fn granted(spoke: &mut Spoke, approved: &str) -> u64 {
    let approved = approved.to_owned();
    spoke
        .say(Body::LeaseAsk(LeaseAsk {
            approved,
            ..crate::harness::ask("job")
        }))
        .await;
    spoke.granted().await.token
}

fn renew(token: u64, seq: u64) -> LeaseRenew {
    LeaseRenew {
        operation: "job".to_owned(),
        restic_id: ID.to_owned(),
        token,
        seq,
        run_hash: Vec::new(),
    }
}

async fn approved(spoke: &mut Spoke) -> (String, String) {
    spoke
        .until("the approval", |told| match told {
            Told::PlanApproved(approved) => Some((approved.policy.clone(), approved.hash.clone())),
            _ => None,
        })
        .await
}

#[tokio::test]
async fn an_approval_is_told_until_a_run_under_it_even_over_restarts_and_again_after_a_failure() {
    let fleet = Fleet::new().await;
    let mut spoke = member(&fleet).await;
    let token = granted(&mut spoke, "").await;
    // The hub forgets the question between grant and release.
    let fleet = fleet.restart().await;
    let mut spoke = {
        drop(spoke);
        member(&fleet).await
    };
    ends(&mut spoke, token, "ApprovalRequired").await;
    let mut view = fleet.operator().await;
    let plans = view
        .plans(PlansRequest::default())
        .await
        .unwrap()
        .into_inner()
        .plans;
    let plan = plans[0].id.clone();
    assert_eq!(
        (plans[0].state.as_str(), plans[0].document.as_str()),
        ("waiting", "")
    );
    let one = PlansRequest {
        plan: plan.clone(),
        ..PlansRequest::default()
    };
    let shown = view.plans(one.clone()).await.unwrap().into_inner().plans;
    assert!(shown[0].document.contains(&snapshot()), "{:?}", shown[0]);
    let decide = DecidePlanRequest {
        plan: plan.clone(),
        hash: hash(),
        approve: true,
    };
    view.decide_plan(decide.clone()).await.unwrap();
    assert_eq!(approved(&mut spoke).await, ("p".to_owned(), hash()));
    // Nobody acted on it; hub and spoke start again.
    let fleet = fleet.restart().await;
    drop(spoke);
    let mut spoke = fleet.spoke("a").await;
    assert_eq!(approved(&mut spoke).await, ("p".to_owned(), hash()));
    let token = granted(&mut spoke, &hash()).await;
    ends(&mut spoke, token, "Failed").await;
    let mut view = fleet.operator().await;
    let shown = view.plans(one.clone()).await.unwrap().into_inner().plans;
    assert_eq!(shown[0].state, "waiting");
    view.decide_plan(decide).await.unwrap();
    approved(&mut spoke).await;
    let token = granted(&mut spoke, &hash()).await;
    ends(&mut spoke, token, "Applied").await;
    let shown = view.plans(one).await.unwrap().into_inner().plans;
    assert_eq!(
        (shown[0].state.as_str(), shown[0].decided_by.as_str()),
        ("applied", "ann")
    );
    let audit = view.audit(AuditRequest::default()).await.unwrap().into_inner();
    assert!(audit.entries.iter().all(|entry| entry.ended.is_some()));
    assert_eq!(
        (audit.entries[0].plan.as_str(), audit.decisions.len()),
        (plan.as_str(), 2)
    );
}

#[tokio::test]
async fn a_renewal_is_answered_with_the_run_as_it_is_now() {
    let fleet = Fleet::new().await;
    let mut spoke = member(&fleet).await;
    spoke.ask("job").await;
    let grant = spoke.granted().await;
    let run = grant.run.unwrap();
    let renewal = |seq, run: &proto::v1::RetentionRun| LeaseRenew {
        run_hash: proto::digest::run_hash(run),
        ..renew(grant.token, seq)
    };
    let answer = async |spoke: &mut Spoke, seq| {
        spoke
            .until("an answer", |told| match told {
                Told::LeaseRenewed(renewed) if renewed.seq == seq => Some(renewed.run.clone()),
                _ => None,
            })
            .await
    };
    spoke.say(Body::LeaseRenew(renewal(1, &run))).await;
    assert_eq!(answer(&mut spoke, 1).await, None);
    spoke.tell(vec![repository(ID), policy(keep_last(30))]).await;
    spoke.say(Body::LeaseRenew(renewal(2, &run))).await;
    let changed = answer(&mut spoke, 2).await.unwrap();
    assert_eq!(changed.policies[0].rules[0].keep_last, 30);
    spoke.say(Body::LeaseRenew(renewal(3, &changed))).await;
    assert_eq!(answer(&mut spoke, 3).await, None);
}

/// Names of the policies that a run would be given.
async fn policies(spoke: &mut Spoke, operation: &str) -> Vec<(String, String)> {
    spoke.ask(operation).await;
    let run = spoke.granted().await.run.unwrap();
    let name = |policy: proto::v1::RetentionPolicySpec| (policy.source, policy.unclear);
    run.policies.into_iter().map(name).collect()
}

#[tokio::test]
async fn a_policy_that_vanished_keeps_over_a_restart_of_the_hub() {
    let fleet = Fleet::new().await;
    let spoke = member(&fleet).await;
    // A whole inventory without the policy, and no tombstone.
    spoke.tell(vec![repository(ID)]).await;
    let gone = async |fleet: &Fleet| fleet.running.hub.read(|i| i.policies_of(ID).next().is_none());
    fleet.until("an inventory without the policy", gone).await;
    drop(spoke);
    let fleet = fleet.restart().await;
    let mut spoke = fleet.spoke("a").await;
    spoke.tell(vec![repository(ID)]).await;
    let known = policies(&mut spoke, "first").await;
    assert_eq!(known.len(), 1, "{known:?}");
    assert_eq!(known[0].0, "a/ns/p");
    assert!(known[0].1.contains("missing"), "{known:?}");
    drop(spoke);
    // It comes back, and is deleted with a tombstone: nothing is remembered, by no later start either.
    let spoke = member(&fleet).await;
    fleet.until("the policy", async |fleet| !gone(fleet).await).await;
    let delta = Delta {
        gone: vec![Tombstone { uid: "p".to_owned() }],
        ..Delta::default()
    };
    spoke.say(Body::Delta(delta)).await;
    fleet.until("the deletion", gone).await;
    drop(spoke);
    let fleet = fleet.restart().await;
    assert_eq!(fleet.running.hub.read(|i| i.vanished_policies(ID).count()), 0);
}
