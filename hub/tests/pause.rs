//! A person pauses all maintenance, over real sockets.

use crate::harness::{Fleet, ID, Spoke, keep_last, member, policy, repository};
use proto::v1::fleet_hub_client::FleetHubClient;
use proto::v1::hub_message::Body as Told;
use proto::v1::spoke_message::Body;
use proto::v1::{
    AuditRequest, LeaseRelease, LeaseRenew, LeaseWaiting, PauseFleetRequest, ResumeFleetRequest,
    StatusRequest,
};

async fn hub(fleet: &Fleet) -> FleetHubClient<tonic::transport::Channel> {
    FleetHubClient::new(fleet.channel("spiffe://fleet/operator/ann").await)
}

async fn pause(fleet: &Fleet, reason: &str) {
    let request = PauseFleetRequest {
        reason: reason.to_owned(),
    };
    hub(fleet).await.pause(request).await.unwrap();
}

async fn waits(spoke: &mut Spoke, operation: &str) -> LeaseWaiting {
    spoke
        .until("a reason to wait", |told| match told {
            Told::LeaseWaiting(waiting) if waiting.operation == operation => Some(waiting.clone()),
            Told::LeaseGrant(grant) if grant.operation == operation => panic!("{grant:?}"),
            _ => None,
        })
        .await
}

#[tokio::test]
async fn a_pause_grants_nothing_lets_a_holder_go_on_and_survives_a_restart() {
    let fleet = Fleet::new().await;
    let mut spoke = member(&fleet).await;
    spoke.ask("job").await;
    let token = spoke.granted().await.token;
    // One waits in the queue, and one asks later.
    spoke.ask("queued").await;
    waits(&mut spoke, "queued").await;
    pause(&fleet, "the storage moves").await;
    spoke.ask("later").await;
    let reason = waits(&mut spoke, "later").await.reason;
    assert!(reason.contains("paused by ann: the storage moves"), "{reason}");

    let renew = LeaseRenew {
        operation: "job".to_owned(),
        restic_id: ID.to_owned(),
        token,
        seq: 1,
        run_hash: vec![1],
    };
    spoke.say(Body::LeaseRenew(renew)).await;
    spoke
        .until("a renewal", |told| {
            matches!(told, Told::LeaseRenewed(r) if r.token == token).then_some(())
        })
        .await;
    let release = LeaseRelease {
        operation: "job".to_owned(),
        restic_id: ID.to_owned(),
        token,
        ..LeaseRelease::default()
    };
    spoke.say(Body::LeaseRelease(release)).await;
    // The one in the queue is next, and is not granted either.
    spoke
        .until("its reason", |told| match told {
            Told::LeaseWaiting(w) if w.operation == "queued" && w.reason.contains("paused") => Some(()),
            Told::LeaseGrant(grant) => panic!("{grant:?}"),
            _ => None,
        })
        .await;
    let mut view = fleet.operator().await;
    let status = view.status(StatusRequest {}).await.unwrap().into_inner();
    let shown = status.pause.unwrap();
    assert_eq!(
        (shown.who.as_str(), shown.reason.as_str()),
        ("ann", "the storage moves")
    );
    let again = hub(&fleet)
        .await
        .pause(PauseFleetRequest::default())
        .await
        .unwrap_err();
    assert_eq!(again.code(), tonic::Code::InvalidArgument);

    let fleet = fleet.restart().await;
    let mut spoke = fleet.spoke("a").await;
    spoke.tell(vec![repository(ID), policy(keep_last(3))]).await;
    spoke.ask("later").await;
    let reason = waits(&mut spoke, "later").await.reason;
    assert!(reason.contains("the storage moves"), "{reason}");
    hub(&fleet).await.resume(ResumeFleetRequest {}).await.unwrap();
    spoke.granted().await;
    let mut view = fleet.operator().await;
    let status = view.status(StatusRequest {}).await.unwrap().into_inner();
    assert_eq!(status.pause, None);
    let audit = view.audit(AuditRequest::default()).await.unwrap().into_inner();
    let what: Vec<&str> = audit.decisions.iter().map(|d| d.what.as_str()).collect();
    assert_eq!(what, ["resume", "pause"]);
    let twice = hub(&fleet).await.resume(ResumeFleetRequest {}).await.unwrap_err();
    assert_eq!(twice.code(), tonic::Code::FailedPrecondition);
}
