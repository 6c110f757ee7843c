//! Commands from a person to a cluster and back: over real mTLS, with a spoke whose connection is cut, and a hub that is
//! started again in each state.

use std::time::Duration;

use crate::harness::{Fleet, Spoke, object};
use proto::v1::command_body::What;
use proto::v1::fleet_control_client::FleetControlClient;
use proto::v1::hub_message::Body as Told;
use proto::v1::object_state::Body as Object;
use proto::v1::spoke_message::Body;
use proto::v1::{
    AuditRequest, BackupState, CancelOperationRequest, Command, CommandOptions, CommandReport, CommandState,
    GetOperationRequest, ListOperationsRequest, ObjectName, Operation, RunBackup, RunBackupRequest,
    SuspendRequest, WatchOperationRequest,
};
use tonic::Code;
use tonic::transport::Channel;

const SOON: Duration = Duration::from_secs(20);

/// Spoke a with one backup.
async fn member(fleet: &Fleet) -> Spoke {
    let spoke = fleet.spoke("a").await;
    spoke
        .tell(vec![object("orders", Object::Backup(BackupState::default()))])
        .await;
    fleet
        .until("the backup", async |fleet| {
            fleet
                .running
                .hub
                .read(|inventory| inventory.index().backup_count() == 1)
        })
        .await;
    spoke
}

fn run(request_id: &str, within: u64) -> RunBackupRequest {
    let name = ObjectName {
        namespace: "ns".to_owned(),
        name: "orders".to_owned(),
    };
    RunBackupRequest {
        options: Some(CommandOptions {
            cluster: "a".to_owned(),
            request_id: request_id.to_owned(),
            begin_within_ms: within,
        }),
        command: Some(RunBackup { backup: Some(name) }),
    }
}

async fn ask(fleet: &Fleet, within: u64) -> Operation {
    let mut control = fleet.control("operator/ann").await;
    control.run_backup(run("", within)).await.unwrap().into_inner()
}

async fn get(control: &mut FleetControlClient<Channel>, id: &str) -> Operation {
    let request = GetOperationRequest { id: id.to_owned() };
    control.get_operation(request).await.unwrap().into_inner()
}

async fn until(fleet: &Fleet, id: &str, state: CommandState) -> Operation {
    let mut control = fleet.control("viewer/vic").await;
    let wait = async {
        loop {
            let operation = get(&mut control, id).await;
            if operation.state() == state {
                return operation;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(SOON, wait)
        .await
        .unwrap_or_else(|_| panic!("{id} did not become {state:?}"))
}

async fn received(spoke: &mut Spoke) -> Command {
    spoke
        .until("a command", |told| match told {
            Told::Command(command) => Some(command.clone()),
            _ => None,
        })
        .await
}

async fn report(spoke: &Spoke, id: &str, state: CommandState, text: &str) {
    let report = CommandReport {
        id: id.to_owned(),
        state: state.into(),
        text: text.to_owned(),
        object: "Job ns/j".to_owned(),
    };
    spoke.say(Body::CommandReport(report)).await;
}

async fn settled(spoke: &mut Spoke, id: &str) {
    spoke
        .until("that its end is kept", |told| match told {
            Told::CommandSettled(settled) if settled.id == id => Some(()),
            _ => None,
        })
        .await;
}

#[tokio::test]
async fn a_command_reaches_its_cluster_and_its_end_reaches_the_person() {
    let fleet = Fleet::new().await;
    let mut spoke = member(&fleet).await;
    let operation = ask(&fleet, 60_000).await;
    assert_eq!(
        (
            operation.what.as_str(),
            operation.subject.as_str(),
            operation.who.as_str()
        ),
        ("run backup", "ns/orders", "ann")
    );
    let command = received(&mut spoke).await;
    assert_eq!(
        (command.id.as_str(), command.who.as_str(), command.cancel),
        (operation.id.as_str(), "ann", false)
    );
    assert!(command.begin_within_ms > 30_000 && command.begin_within_ms <= 60_000);
    assert!(matches!(command.body.unwrap().what, Some(What::RunBackup(_))));
    let mut control = fleet.control("viewer/vic").await;
    let request = WatchOperationRequest {
        id: command.id.clone(),
    };
    let mut watch = control.watch_operation(request).await.unwrap().into_inner();
    assert_eq!(
        watch.message().await.unwrap().unwrap().state(),
        CommandState::Sent
    );
    report(&spoke, &command.id, CommandState::Running, "half").await;
    let running = watch.message().await.unwrap().unwrap();
    assert_eq!(
        (running.state(), running.text.as_str(), running.object.as_str()),
        (CommandState::Running, "half", "Job ns/j")
    );
    report(&spoke, &command.id, CommandState::Done, "snapshot 1\u{1b}[2J").await;
    settled(&mut spoke, &command.id).await;
    let done = watch.message().await.unwrap().unwrap();
    assert_eq!(
        (done.state(), done.text.as_str()),
        (CommandState::Done, "snapshot 1?[2J")
    );
    assert!(done.ended.is_some());
    assert!(
        watch.message().await.unwrap().is_none(),
        "the watch ends with the operation"
    );
    let audit = fleet
        .operator()
        .await
        .audit(AuditRequest::default())
        .await
        .unwrap()
        .into_inner();
    let text = format!("{audit:?}");
    assert!(
        text.contains("run backup a/ns/orders") && text.contains("ann"),
        "{text}"
    );
}

#[tokio::test]
async fn a_command_whose_answer_was_cut_off_is_sent_again_and_ends_once() {
    let fleet = Fleet::new().await;
    let mut spoke = member(&fleet).await;
    let id = ask(&fleet, 60_000).await.id;
    assert_eq!(received(&mut spoke).await.id, id);
    drop(spoke);
    let mut spoke = member(&fleet).await;
    let again = received(&mut spoke).await;
    assert_eq!(again.id, id);
    report(&spoke, &id, CommandState::Done, "well").await;
    settled(&mut spoke, &id).await;
    drop(spoke);
    let mut spoke = member(&fleet).await;
    let next = ask(&fleet, 60_000).await.id;
    assert_eq!(received(&mut spoke).await.id, next, "what has ended is not sent");
    report(&spoke, &id, CommandState::Failed, "late").await;
    settled(&mut spoke, &id).await;
    assert_eq!(until(&fleet, &id, CommandState::Done).await.text, "well");
}

#[tokio::test]
async fn to_a_cluster_that_is_away_it_waits_says_so_and_expires() {
    let fleet = Fleet::new().await;
    drop(member(&fleet).await);
    fleet
        .until("the cluster is away", async |fleet| {
            fleet.running.hub.commands.connected().await.is_empty()
        })
        .await;
    let id = ask(&fleet, 1_000).await.id;
    let mut control = fleet.control("viewer/vic").await;
    let list = control
        .list_operations(ListOperationsRequest::default())
        .await
        .unwrap()
        .into_inner();
    let [waiting] = list.operations.as_slice() else {
        panic!("{list:?}")
    };
    assert_eq!(waiting.state(), CommandState::Waiting);
    assert!(waiting.text.contains("a is not connected"), "{}", waiting.text);
    until(&fleet, &id, CommandState::Expired).await;
    let mut spoke = member(&fleet).await;
    let next = ask(&fleet, 60_000).await.id;
    assert_eq!(
        received(&mut spoke).await.id,
        next,
        "what has expired is not sent"
    );
}

#[tokio::test]
async fn one_that_was_sent_expires_by_the_word_of_its_cluster_only() {
    let fleet = Fleet::new().await;
    let mut spoke = member(&fleet).await;
    let id = ask(&fleet, 300).await.id;
    received(&mut spoke).await;
    drop(spoke);
    tokio::time::sleep(Duration::from_millis(1500)).await;
    until(&fleet, &id, CommandState::Sent).await;
    let mut spoke = member(&fleet).await;
    let asked = received(&mut spoke).await;
    assert_eq!(
        (asked.id.as_str(), asked.begin_within_ms),
        (id.as_str(), 0),
        "it must not begin any more"
    );
    report(&spoke, &id, CommandState::Expired, "").await;
    until(&fleet, &id, CommandState::Expired).await;
}

#[tokio::test]
async fn what_was_not_sent_is_cancelled_at_once_and_the_rest_by_its_cluster() {
    let fleet = Fleet::new().await;
    drop(member(&fleet).await);
    fleet
        .until("the cluster is away", async |fleet| {
            fleet.running.hub.commands.connected().await.is_empty()
        })
        .await;
    let mut control = fleet.control("operator/bob").await;
    let waiting = ask(&fleet, 60_000).await.id;
    let cancel = |id: &str| CancelOperationRequest { id: id.to_owned() };
    let gone = control
        .cancel_operation(cancel(&waiting))
        .await
        .unwrap()
        .into_inner();
    assert_eq!(
        (gone.state(), gone.cancelled_by.as_str()),
        (CommandState::Cancelled, "bob")
    );
    let again = control.cancel_operation(cancel(&waiting)).await.unwrap_err();
    assert_eq!(again.code(), Code::FailedPrecondition);
    let mut spoke = member(&fleet).await;
    let sent = ask(&fleet, 60_000).await.id;
    assert!(!received(&mut spoke).await.cancel);
    let asked = control
        .cancel_operation(cancel(&sent))
        .await
        .unwrap()
        .into_inner();
    assert_eq!(asked.state(), CommandState::Sent, "it may have begun");
    let taken_back = received(&mut spoke).await;
    assert!(taken_back.cancel && taken_back.id == sent);
    report(&spoke, &sent, CommandState::Cancelled, "it had not begun").await;
    until(&fleet, &sent, CommandState::Cancelled).await;
}

#[tokio::test]
async fn a_hub_that_is_started_again_knows_every_state_and_asks_for_the_ends() {
    let fleet = Fleet::new().await;
    let mut spoke = member(&fleet).await;
    let mut ids = Vec::new();
    for state in [
        None,
        Some(CommandState::Accepted),
        Some(CommandState::Running),
        Some(CommandState::Done),
    ] {
        let id = ask(&fleet, 60_000).await.id;
        assert_eq!(received(&mut spoke).await.id, id);
        if let Some(state) = state {
            report(&spoke, &id, state, "t").await;
            until(&fleet, &id, state).await;
        }
        ids.push(id);
    }
    drop(spoke);
    fleet
        .until("the cluster is away", async |fleet| {
            fleet.running.hub.commands.connected().await.is_empty()
        })
        .await;
    ids.push(ask(&fleet, 60_000).await.id);
    let fleet = fleet.restart().await;
    let states = [
        CommandState::Sent,
        CommandState::Accepted,
        CommandState::Running,
        CommandState::Done,
        CommandState::Waiting,
    ];
    for (id, state) in ids.iter().zip(states) {
        until(&fleet, id, state).await;
    }
    let mut spoke = member(&fleet).await;
    let mut asked = Vec::new();
    for _ in 0..4 {
        asked.push(received(&mut spoke).await.id);
    }
    let open: Vec<String> = [0, 1, 2, 4].map(|n: usize| ids[n].clone()).into();
    assert_eq!(asked, open, "in the order in which they were asked for");
    for id in &open {
        report(&spoke, id, CommandState::Done, "").await;
        until(&fleet, id, CommandState::Done).await;
    }
    let fleet = fleet.restart().await;
    for id in &ids {
        until(&fleet, id, CommandState::Done).await;
    }
}

#[tokio::test]
async fn a_request_that_is_repeated_is_one_operation_and_a_viewer_has_none() {
    let fleet = Fleet::new().await;
    let mut spoke = member(&fleet).await;
    let mut control = fleet.control("operator/ann").await;
    let first = control.run_backup(run("mine", 0)).await.unwrap().into_inner();
    let again = control.run_backup(run("mine", 0)).await.unwrap().into_inner();
    assert_eq!(first.id, again.id);
    let other = fleet
        .control("operator/bob")
        .await
        .run_backup(run("mine", 0))
        .await
        .unwrap()
        .into_inner();
    assert_ne!(other.id, first.id, "of another person");
    assert_eq!(received(&mut spoke).await.id, first.id);
    assert_eq!(received(&mut spoke).await.id, other.id);
    let mut viewer = fleet.control("viewer/vic").await;
    let code = |answer: Result<tonic::Response<Operation>, tonic::Status>| answer.unwrap_err().code();
    assert_eq!(code(viewer.run_backup(run("", 0)).await), Code::PermissionDenied);
    let mut unknown = run("", 0);
    unknown.command = Some(RunBackup {
        backup: Some(ObjectName {
            namespace: "ns".to_owned(),
            name: "none".to_owned(),
        }),
    });
    assert_eq!(code(control.run_backup(unknown).await), Code::NotFound);
    let mut elsewhere = run("", 0);
    "z".clone_into(&mut elsewhere.options.as_mut().unwrap().cluster);
    assert_eq!(code(control.run_backup(elsewhere).await), Code::NotFound);
    assert_eq!(
        code(control.run_backup(run("", 25 * 3_600_000)).await),
        Code::InvalidArgument
    );
    assert_eq!(
        code(control.suspend(SuspendRequest::default()).await),
        Code::InvalidArgument
    );
}

#[tokio::test]
async fn a_cluster_gets_no_more_commands_at_once_than_it_has_answered() {
    let fleet = Fleet::new().await;
    let mut spoke = member(&fleet).await;
    let mut ids = Vec::new();
    for _ in 0..40 {
        ids.push(ask(&fleet, 60_000).await.id);
    }
    let count = |spoke: &Spoke| {
        spoke
            .told
            .iter()
            .filter(|told| matches!(told, Told::Command(_)))
            .count()
    };
    for id in &ids[..16] {
        assert_eq!(received(&mut spoke).await.id, *id);
    }
    until(&fleet, &ids[16], CommandState::Waiting).await;
    for id in &ids {
        report(&spoke, id, CommandState::Done, "").await;
        settled(&mut spoke, id).await;
    }
    for id in &ids {
        until(&fleet, id, CommandState::Done).await;
    }
    assert_eq!(count(&spoke), 40, "each once");
}
