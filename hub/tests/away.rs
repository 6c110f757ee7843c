//! A policy whose cluster is away is run by another cluster, over real sockets.

use std::time::Duration;

use crate::harness::plan::{ends_of, hash};
use crate::harness::{Fleet, ID, Spoke, ask, keep_last, policy, repository};
use proto::time::from_unix_millis;
use proto::v1::command_body::What;
use proto::v1::fleet_control_client::FleetControlClient;
use proto::v1::fleet_hub_client::FleetHubClient;
use proto::v1::hub_message::Body as Told;
use proto::v1::object_state::Body as Object;
use proto::v1::spoke_message::Body;
use proto::v1::{
    AuditRequest, Command, CommandReport, CommandState, DecidePlanRequest, Hello, LeaseAsk,
    ListOperationsRequest, MaintenanceWindow, ObjectState, OperationKind, PauseFleetRequest, PlansRequest,
    PolicyState, ResumeFleetRequest, RetainRepository,
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

/// The next two commands, in the order in which they came.
async fn two(spoke: &mut Spoke) -> [(Command, RetainRepository); 2] {
    let first = told(spoke).await.expect("a run for cluster a");
    let second = told(spoke).await.expect("a second command");
    [first, second]
}

#[tokio::test]
async fn a_run_that_did_not_begin_in_time_is_asked_for_again_while_it_is_due() {
    let fleet = Fleet::with(&AFTER).await;
    let a = joins(&fleet, "a", able(), vec![repository(ID), due(|_| ())]).await;
    let mut b = joins(&fleet, "b", able(), vec![repository(ID)]).await;
    drop(a);
    let (first, _) = told(&mut b).await.expect("a run for cluster a");
    assert!(told(&mut b).await.is_none(), "it may begin yet");
    let ends = |id: &str, state: CommandState| {
        Body::CommandReport(CommandReport {
            id: id.to_owned(),
            state: state.into(),
            ..CommandReport::default()
        })
    };
    b.say(ends(&first.id, CommandState::Expired)).await;
    let (second, what) = told(&mut b).await.expect("the same once more");
    assert_ne!(second.id, first.id);
    assert_eq!(what.instead_of, "a/ns/p");
    b.say(ends(&second.id, CommandState::Refused)).await;
    assert!(
        told(&mut b).await.is_none(),
        "it is asked for when it is due next"
    );
}

#[tokio::test]
async fn a_run_begins_in_the_window_of_its_policy_or_not_at_all() {
    let fleet = Fleet::with(&AFTER).await;
    let window = |policy: &mut PolicyState| {
        let now = hub::now();
        let (minute, hour) = (now / MINUTE % 60, now / (60 * MINUTE) % 24);
        policy.allowed_window = Some(MaintenanceWindow {
            schedule: format!("{minute} {hour} * * *"),
            length_ms: u64::try_from(now % MINUTE + 20_000).unwrap(),
            timezone: String::new(),
        });
    };
    let a = joins(&fleet, "a", able(), vec![repository(ID), due(window)]).await;
    let mut b = joins(&fleet, "b", able(), vec![repository(ID)]).await;
    drop(a);
    let (command, _) = told(&mut b).await.expect("a run for cluster a");
    let within = command.begin_within_ms;
    assert!((1..=20_000).contains(&within), "{within}");
}

#[tokio::test]
async fn a_preview_that_a_person_asked_for_is_no_run_of_a_policy() {
    let fleet = Fleet::with(&AFTER).await;
    let a = joins(&fleet, "a", able(), vec![repository(ID), due(|_| ())]).await;
    let mut b = joins(&fleet, "b", able(), vec![repository(ID)]).await;
    let preview = LeaseAsk {
        preview: true,
        ..asks("preview")
    };
    b.say(Body::LeaseAsk(preview)).await;
    let grant = b.granted().await;
    ends_of(&mut b, grant.token, "Preview", (&[], "nas")).await;
    drop(a);
    assert!(told(&mut b).await.is_some(), "the policy is due still");
}

#[tokio::test]
async fn an_approved_plan_of_the_cluster_that_is_away_is_a_command_beside_the_run_that_is_due() {
    let fleet = Fleet::with(&AFTER).await;
    let often = |policy: &mut PolicyState| policy.schedule = "@every 4s".to_owned();
    let objects = || vec![repository(ID), due(often)];
    let mut a = joins(&fleet, "a", able(), objects()).await;
    let mut b = joins(&fleet, "b", able(), vec![repository(ID)]).await;
    a.say(Body::LeaseAsk(LeaseAsk {
        policy: "p".to_owned(),
        ..asks("job")
    }))
    .await;
    let grant = a.granted().await;
    ends_of(&mut a, grant.token, "ApprovalRequired", (&[], "p")).await;
    let mut view = fleet.operator().await;
    let plans = view.plans(PlansRequest::default()).await.unwrap().into_inner();
    let plan = plans.plans.into_iter().next().unwrap();
    view.decide_plan(DecidePlanRequest {
        plan: plan.id,
        hash: plan.hash,
        approve: true,
    })
    .await
    .unwrap();
    drop(a);
    tokio::time::sleep(Duration::from_secs(4)).await;
    let [(_, approved), (_, due)] = two(&mut b).await;
    // The approval may be out of date: the run that is due must not end for that.
    assert_eq!(
        (approved.approved.as_str(), approved.instead_of.as_str()),
        (&*hash(), "")
    );
    assert_eq!((due.approved.as_str(), due.instead_of.as_str()), ("", "a/ns/p"));
}

#[tokio::test]
async fn a_cluster_that_retains_by_its_own_policies_alone_is_asked_where_it_has_one() {
    let fleet = Fleet::with(&AFTER).await;
    let with_policy = Hello {
        retains_with_policy: true,
        ..able()
    };
    let a = joins(&fleet, "a", able(), vec![repository(ID), due(|_| ())]).await;
    let mut b = joins(&fleet, "b", with_policy, vec![repository(ID)]).await;
    drop(a);
    assert!(told(&mut b).await.is_none(), "it would refuse");
    let later = due(|policy| policy.schedule = "0 0 1 1 *".to_owned());
    b.tell(vec![repository(ID), later]).await;
    assert!(told(&mut b).await.is_some());
}
