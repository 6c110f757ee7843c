//! A policy whose cluster is away is run by another cluster, over real sockets.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod harness;

use std::time::Duration;

use harness::plan::{ends_of, hash};
use harness::{Fleet, ID, Spoke, ask, keep_last, policy, repository};
use proto::time::from_unix_millis;
use proto::v1::command_body::What;
use proto::v1::fleet_control_client::FleetControlClient;
use proto::v1::fleet_hub_client::FleetHubClient;
use proto::v1::hub_message::Body as Told;
use proto::v1::object_state::Body as Object;
use proto::v1::spoke_message::Body;
use proto::v1::{
    AuditRequest, Command, DecidePlanRequest, Hello, LeaseAsk, ListOperationsRequest, ObjectState,
    OperationKind, PauseFleetRequest, PlansRequest, PolicyState, ResumeFleetRequest, RetainRepository,
};

const AFTER: [&str; 4] = ["--away-after", "1s", "--coalesce-window", "1s"];
const MINUTE: i64 = 60_000;

/// The policy of cluster a, which was due two minutes ago and ran before that. It is due again tomorrow.
fn due(change: impl Fn(&mut PolicyState)) -> ObjectState {
    let mut policy = policy(keep_last(1));
    let at = hub::now() - 2 * MINUTE;
    if let Some(Object::Policy(body)) = &mut policy.body {
        let (minute, hour) = (at / MINUTE % 60, at / (60 * MINUTE) % 24);
        body.schedule = format!("{minute} {hour} * * *");
        body.timezone = Some(String::new());
        body.last_run = Some(from_unix_millis(at - MINUTE));
        change(body);
    }
    policy
}

async fn joins(fleet: &Fleet, cluster: &str, hello: Hello, objects: Vec<ObjectState>) -> Spoke {
    let mut spoke = fleet.spoke_that_says(cluster, hello).await;
    spoke.tell(objects).await;
    let proven = |fleet: &Fleet| {
        fleet.running.hub.read(|inventory| {
            let binding = inventory.bindings().get(cluster, ID);
            binding.is_some_and(|binding| binding.proven)
        })
    };
    if !proven(fleet) {
        spoke.prove(ID, 1).await;
    }
    fleet
        .until("its proof", async |fleet| {
            let whole = fleet
                .running
                .hub
                .read(|inventory| inventory.member(cluster).unwrap().complete());
            proven(fleet) && whole
        })
        .await;
    spoke
}

/// Of a spoke that runs retention for others.
fn able() -> Hello {
    Hello {
        retains_for_others: true,
        ..Hello::default()
    }
}

/// The next command, if one comes within three seconds.
async fn told(spoke: &mut Spoke) -> Option<(Command, RetainRepository)> {
    let wait = spoke.until("a command", |told| match told {
        Told::Command(command) => Some(command.clone()),
        _ => None,
    });
    let command = tokio::time::timeout(Duration::from_secs(3), wait).await.ok()?;
    match command.body.clone().unwrap().what.unwrap() {
        What::RetainRepository(what) => Some((command, what)),
        other => panic!("{other:?}"),
    }
}

fn asks(operation: &str) -> LeaseAsk {
    LeaseAsk {
        kind: OperationKind::Retention.into(),
        subject: "retention ns/nas".to_owned(),
        policy: "nas".to_owned(),
        ..ask(operation)
    }
}

/// The audit and the list of operations have the run as an act of the hub.
async fn as_the_hubs_own_act(fleet: &Fleet) {
    let mut view = fleet.operator().await;
    let audit = view.audit(AuditRequest::default()).await.unwrap().into_inner();
    let command = audit.decisions.iter().find(|d| d.what == "command").unwrap();
    assert_eq!(command.who, "hub");
    assert!(
        command
            .subject
            .contains("run retention for another cluster b/ns/nas"),
        "{command:?}"
    );
    let mut control = FleetControlClient::new(fleet.channel("spiffe://fleet/viewer/vic").await);
    let listed = control
        .list_operations(ListOperationsRequest::default())
        .await
        .unwrap();
    assert_eq!(listed.into_inner().operations.len(), 1);
}

#[tokio::test]
async fn a_policy_is_run_by_another_cluster_once_and_does_not_run_again_when_its_own_is_back() {
    let fleet = Fleet::with(&AFTER).await;
    let a = joins(&fleet, "a", able(), vec![repository(ID), due(|_| ())]).await;
    let mut b = joins(&fleet, "b", able(), vec![repository(ID)]).await;
    assert!(told(&mut b).await.is_none(), "its own cluster is there");
    drop(a);
    let (command, what) = told(&mut b).await.expect("a run for cluster a");
    assert_eq!(what.instead_of, "a/ns/p");
    assert_eq!((what.restic_id.as_str(), what.approved.as_str()), (ID, ""));
    assert_eq!(what.repository.unwrap().name, "nas");
    assert_eq!(command.who, "hub");

    // A run of all policies, that of the cluster that is away included.
    b.say(Body::LeaseAsk(asks("job"))).await;
    let grant = b.granted().await;
    let run = grant.run.clone().unwrap();
    assert_eq!(run.policies.len(), 1);
    assert_eq!(run.policies[0].source, "a/ns/p");
    ends_of(&mut b, grant.token, "Applied", (&[], "nas")).await;
    assert!(told(&mut b).await.is_none(), "it has run for this time");

    as_the_hubs_own_act(&fleet).await;

    // Its Job of that time was made before, and waits since then.
    let mut a = joins(&fleet, "a", able(), vec![repository(ID), due(|_| ())]).await;
    let late = LeaseAsk {
        age_ms: 2 * 60_000,
        kind: OperationKind::Retention.into(),
        ..ask("late")
    };
    a.say(Body::LeaseAsk(late)).await;
    let by = a
        .until("that it was done", |told| match told {
            Told::LeaseCovered(covered) => Some(covered.by.clone()),
            Told::LeaseGrant(grant) => panic!("{grant:?}"),
            _ => None,
        })
        .await;
    assert_eq!(by, "b: retention ns/nas");

    // A hub that has restarted meanwhile has it in its audit, and a Job that was made later has a run of its own.
    let fleet = fleet.restart().await;
    let mut a = joins(&fleet, "a", able(), vec![repository(ID), due(|_| ())]).await;
    for (operation, age_ms) in [("older", 2 * 60_000), ("newer", 0)] {
        let ask = LeaseAsk {
            age_ms,
            kind: OperationKind::Retention.into(),
            ..ask(operation)
        };
        a.say(Body::LeaseAsk(ask)).await;
    }
    a.until("that the older one was done", |told| match told {
        Told::LeaseCovered(covered) if covered.operation == "older" => Some(()),
        Told::LeaseGrant(grant) if grant.operation == "older" => panic!("{grant:?}"),
        _ => None,
    })
    .await;
    assert_eq!(a.granted().await.operation, "newer");
}

#[tokio::test]
async fn a_policy_that_is_not_known_to_be_due_and_a_cluster_that_could_not_are_left_alone() {
    type Change = fn(&mut PolicyState);
    let cases: [(&str, Change, Hello); 6] = [
        ("suspended", |p| p.suspended = true, able()),
        ("in preview", |p| p.spec.as_mut().unwrap().preview = true, able()),
        (
            "unclear",
            |p| p.spec.as_mut().unwrap().unclear = "x".to_owned(),
            able(),
        ),
        ("of an earlier spoke", |p| p.timezone = None, able()),
        ("not due", |p| p.schedule = "0 0 1 1 *".to_owned(), able()),
        ("no other that could", |_| (), Hello::default()),
    ];
    for (case, change, hello) in cases {
        let fleet = Fleet::with(&AFTER).await;
        let a = joins(&fleet, "a", able(), vec![repository(ID), due(change)]).await;
        let mut b = joins(&fleet, "b", hello, vec![repository(ID)]).await;
        drop(a);
        assert!(told(&mut b).await.is_none(), "{case}");
        fleet.stop().await;
    }
}

#[tokio::test]
async fn nothing_is_asked_for_while_maintenance_is_paused_or_half_of_the_fleet_is_away() {
    let fleet = Fleet::with(&AFTER).await;
    let mut hub = FleetHubClient::new(fleet.channel("spiffe://fleet/operator/ann").await);
    let reason = "the storage moves".to_owned();
    hub.pause(PauseFleetRequest { reason }).await.unwrap();
    let a = joins(&fleet, "a", able(), vec![repository(ID), due(|_| ())]).await;
    let mut b = joins(&fleet, "b", able(), vec![repository(ID)]).await;
    let others = [fleet.spoke("c").await, fleet.spoke("d").await];
    drop(a);
    assert!(told(&mut b).await.is_none(), "paused");
    drop(others);
    tokio::time::sleep(Duration::from_secs(2)).await;
    hub.resume(ResumeFleetRequest {}).await.unwrap();
    assert!(told(&mut b).await.is_none(), "three of four are away");
    let _back = [fleet.spoke("c").await, fleet.spoke("d").await];
    assert!(told(&mut b).await.is_some());
}

#[tokio::test]
async fn an_approved_plan_of_such_a_run_is_carried_out_by_the_same_cluster() {
    let fleet = Fleet::with(&AFTER).await;
    let a = joins(&fleet, "a", able(), vec![repository(ID), due(|_| ())]).await;
    let mut b = joins(&fleet, "b", able(), vec![repository(ID)]).await;
    drop(a);
    told(&mut b).await.expect("a run for cluster a");
    b.say(Body::LeaseAsk(asks("job"))).await;
    let grant = b.granted().await;
    ends_of(&mut b, grant.token, "ApprovalRequired", (&[], "nas")).await;
    let mut view = fleet.operator().await;
    let plans = view.plans(PlansRequest::default()).await.unwrap().into_inner();
    let plan = plans.plans.into_iter().next().unwrap();
    let request = DecidePlanRequest {
        plan: plan.id,
        hash: plan.hash,
        approve: true,
    };
    view.decide_plan(request).await.unwrap();
    let (_, what) = told(&mut b).await.expect("a run under the approval");
    assert_eq!(what.approved, hash());
    let approved = LeaseAsk {
        approved: what.approved,
        ..asks("approved")
    };
    b.say(Body::LeaseAsk(approved)).await;
    assert_eq!(b.granted().await.run.unwrap().approved, hash());
}
