//! What a retention operation is given to do: by the policies of now, over restarts of the hub, and never by what a
//! person has rejected. What cannot be composed or passed on is not granted, and people see why.

use crate::harness::plan::{ends, hash};
use crate::harness::{Fleet, ID, Spoke, ask, keep_last, member, policy, repository};
use proto::digest::run_hash;
use proto::v1::hub_message::Body as Told;
use proto::v1::object_state::Body as Object;
use proto::v1::spoke_message::Body;
use proto::v1::{
    DecidePlanRequest, LeaseAsk, LeaseGrant, LeaseRelease, LeaseRenew, Lock, ObjectState, OperationKind,
    PlansRequest, RetentionRule, RetentionRun,
};
use sqlx::sqlite::{SqliteConnectOptions, SqlitePool};

fn approved(operation: &str) -> Body {
    Body::LeaseAsk(LeaseAsk {
        approved: hash(),
        ..ask(operation)
    })
}

async fn granted(spoke: &mut Spoke, operation: &str) -> LeaseGrant {
    spoke
        .until("a grant", |told| match told {
            Told::LeaseGrant(grant) if grant.operation == operation => Some(grant.clone()),
            _ => None,
        })
        .await
}

fn renewal(token: u64, seq: u64, run: &RetentionRun) -> Body {
    Body::LeaseRenew(LeaseRenew {
        operation: "job".to_owned(),
        restic_id: ID.to_owned(),
        token,
        seq,
        run_hash: run_hash(run),
    })
}

async fn renewed(spoke: &mut Spoke, seq: u64) -> Option<RetentionRun> {
    spoke
        .until("an answer", |told| match told {
            Told::LeaseRenewed(renewed) if renewed.seq == seq => Some(renewed.run.clone()),
            _ => None,
        })
        .await
}

async fn waits(spoke: &mut Spoke, operation: &str) -> String {
    spoke
        .until("a reason", |told| match told {
            Told::LeaseWaiting(waiting) if waiting.operation == operation && waiting.position == 0 => {
                Some(waiting.reason.clone())
            }
            _ => None,
        })
        .await
}

/// A person decides about the only plan.
async fn decide(fleet: &Fleet, approve: bool) {
    let mut view = fleet.operator().await;
    let plans = view.plans(PlansRequest::default()).await.unwrap().into_inner();
    let request = DecidePlanRequest {
        plan: plans.plans[0].id.clone(),
        hash: hash(),
        approve,
    };
    view.decide_plan(request).await.unwrap();
}

/// A policy whose rules do not fit into a pod.
fn endless() -> ObjectState {
    let mut object = policy(keep_last(1));
    if let Some(Object::Policy(policy)) = &mut object.body
        && let Some(spec) = &mut policy.spec
    {
        spec.rules = endless_rules();
    }
    object
}

fn endless_rules() -> Vec<RetentionRule> {
    let rule = RetentionRule {
        tags: vec!["t".repeat(200)],
        ..keep_last(1)
    };
    vec![rule; 1200]
}

/// All policies of the repository are as the cluster has reported them.
async fn until_rules(fleet: &Fleet, count: usize) {
    let rules = |fleet: &Fleet| {
        fleet.running.hub.read(|inventory| {
            let policies = inventory.policies_of(ID);
            let specs = policies.filter_map(|held| held.policy()?.spec.clone());
            specs.map(|spec| spec.rules.len()).sum::<usize>()
        })
    };
    fleet
        .until("the policy", async |fleet| rules(fleet) == count)
        .await;
}

async fn lock(fleet: &Fleet) -> Lock {
    let locks = fleet.locks().await.locks;
    locks.into_iter().next().unwrap()
}

#[tokio::test]
async fn a_policy_that_changes_after_a_restart_of_the_hub_reaches_the_run() {
    // Long enough for the spoke to come back within it.
    let fleet = Fleet::with(&["--lease-ttl", "3s", "--lock-delay", "7s"]).await;
    let mut spoke = member(&fleet).await;
    spoke.say(approved("job")).await;
    let grant = granted(&mut spoke, "job").await;
    let run = grant.run.unwrap();
    drop(spoke);
    let fleet = fleet.restart().await;
    let mut spoke = fleet.spoke("a").await;
    spoke.say(renewal(grant.token, 1, &run)).await;
    assert_eq!(renewed(&mut spoke, 1).await, None, "nothing has changed");
    spoke.tell(vec![repository(ID), policy(keep_last(30))]).await;
    spoke.say(renewal(grant.token, 2, &run)).await;
    let changed = renewed(&mut spoke, 2).await.expect("the run of now");
    assert_eq!(changed.policies[0].rules[0].keep_last, 30);
    assert_eq!(changed.approved, hash(), "what was approved before still is");
}

#[tokio::test]
async fn a_rejected_plan_is_approved_for_no_run_that_follows_or_waits() {
    let fleet = Fleet::new().await;
    let mut spoke = member(&fleet).await;
    spoke.ask("job").await;
    let token = granted(&mut spoke, "job").await.token;
    ends(&mut spoke, token, "ApprovalRequired").await;
    decide(&fleet, true).await;
    spoke.say(approved("job")).await;
    let grant = granted(&mut spoke, "job").await;
    assert_eq!(grant.run.unwrap().approved, hash());
    ends(&mut spoke, grant.token, "Interrupted").await;
    // The successor of the interrupted run asks for the same, and waits while a person rejects it.
    spoke.ask("other").await;
    let first = granted(&mut spoke, "other").await;
    spoke.say(approved("job")).await;
    spoke
        .until("a place in the queue", |told| {
            matches!(told, Told::LeaseWaiting(waiting) if waiting.operation == "job").then_some(())
        })
        .await;
    decide(&fleet, false).await;
    let release = LeaseRelease {
        operation: "other".to_owned(),
        restic_id: ID.to_owned(),
        token: first.token,
        ..LeaseRelease::default()
    };
    spoke.say(Body::LeaseRelease(release)).await;
    let grant = granted(&mut spoke, "job").await;
    assert_eq!(grant.run.unwrap().approved, "", "it waited");
    ends(&mut spoke, grant.token, "Interrupted").await;
    // And one that is asked for after the rejection, at a hub that has forgotten the questions.
    drop(spoke);
    let fleet = fleet.restart().await;
    let mut spoke = fleet.spoke("a").await;
    spoke.say(approved("job")).await;
    let grant = granted(&mut spoke, "job").await;
    assert_eq!(grant.run.unwrap().approved, "", "it asked again");
}

#[tokio::test]
async fn a_run_that_cannot_be_composed_is_not_granted_and_people_see_why() {
    let fleet = Fleet::new().await;
    let mut spoke = member(&fleet).await;
    let options = SqliteConnectOptions::new().filename(fleet.dir.path().join("fleet.db"));
    let store = SqlitePool::connect_with(options).await.unwrap();
    let rename = async |from: &str, to: &str| {
        let query = format!("ALTER TABLE {from} RENAME TO {to}");
        let query = sqlx::query(sqlx::AssertSqlSafe(query));
        query.execute(&store).await.unwrap();
    };
    rename("participant", "unreadable").await;
    spoke.ask("job").await;
    let reason = waits(&mut spoke, "job").await;
    assert!(reason.contains("could not be read"), "{reason}");
    let shown = lock(&fleet).await;
    assert_eq!((shown.state.as_str(), shown.waiters.len()), ("free", 1));
    assert_eq!(shown.waiters[0].reason, reason);
    // An operation that is no retention run needs none.
    let unlock = LeaseAsk {
        kind: OperationKind::Unlock.into(),
        ..ask("unlock")
    };
    let failures = || fleet.running.hub.metrics.store_failures.get();
    let before = failures();
    spoke.say(Body::LeaseAsk(unlock)).await;
    let grant = granted(&mut spoke, "unlock").await;
    assert_eq!(grant.run, None);
    assert_eq!(failures(), before, "the history is not read for it");
    let release = LeaseRelease {
        operation: "unlock".to_owned(),
        restic_id: ID.to_owned(),
        token: grant.token,
        ..LeaseRelease::default()
    };
    spoke.say(Body::LeaseRelease(release)).await;
    rename("unreadable", "participant").await;
    spoke.ask("job").await;
    assert!(granted(&mut spoke, "job").await.run.is_some());
    let none = |told: &Told| matches!(told, Told::LeaseGrant(g) if g.operation == "job" && g.run.is_none());
    assert!(
        !spoke.told.iter().any(none),
        "a spoke without a run goes by its own policies alone"
    );
}

#[tokio::test]
async fn a_run_that_is_too_long_holds_no_lease_and_people_see_why() {
    let fleet = Fleet::new().await;
    let mut spoke = member(&fleet).await;
    spoke.ask("job").await;
    let grant = granted(&mut spoke, "job").await;
    let run = grant.run.unwrap();
    spoke.tell(vec![repository(ID), endless()]).await;
    until_rules(&fleet, 1200).await;
    // The answer was lost, so it is asked again; the lease that never arrived is free at once.
    spoke.ask("job").await;
    let reason = waits(&mut spoke, "job").await;
    assert!(reason.contains("remove or shorten policies"), "{reason}");
    let shown = lock(&fleet).await;
    assert_eq!(shown.state, "free");
    assert_eq!(shown.waiters[0].reason, reason);
    spoke.tell(vec![repository(ID), policy(keep_last(3))]).await;
    until_rules(&fleet, 1).await;
    spoke.ask("job").await;
    let again = granted(&mut spoke, "job").await;
    assert!(again.token > grant.token);
    assert!(lock(&fleet).await.waiters.is_empty());
    spoke.tell(vec![repository(ID), endless()]).await;
    until_rules(&fleet, 1200).await;
    // What its pod has already has fitted into it.
    let mut had = again.run.unwrap();
    had.policies[0].rules = endless_rules();
    spoke.say(renewal(again.token, 6, &had)).await;
    let answer = spoke
        .until("an answer", |told| match told {
            Told::LeaseRevoke(revoke) => Some(Err(revoke.reason.clone())),
            Told::LeaseRenewed(renewed) if renewed.seq == 6 => Some(Ok(renewed.run.clone())),
            _ => None,
        })
        .await;
    assert_eq!(answer, Ok(None));
    // It grows in the middle of the run: the lease is taken back, and no renewal is answered.
    spoke.say(renewal(again.token, 7, &run)).await;
    let revoked = spoke
        .until("the lease to be taken back", |told| match told {
            Told::LeaseRevoke(revoke) if revoke.token == again.token => Some(revoke.reason.clone()),
            Told::LeaseRenewed(renewed) if renewed.seq == 7 => Some("renewed".to_owned()),
            _ => None,
        })
        .await;
    assert!(revoked.contains("remove or shorten policies"), "{revoked}");
}
