//! Sessions that supersede each other, that agree at once, and clusters that an operator removes.

use proto::v1::{
    AcceptClusterRequest, BackupState, ForgetClusterRequest, Heartbeat, HubMessage, LeaseAsk, ObjectUpdate,
};
use tonic::{Code, Streaming};

use super::*;

/// A stream of a spoke: what it sends and what it receives.
struct Session {
    out: mpsc::Sender<SpokeMessage>,
    answers: Streaming<HubMessage>,
}

impl Session {
    async fn open(fleet: &Fleet, cluster: &str, hello: Hello) -> Session {
        let uri = format!("spiffe://fleet/spoke/{cluster}");
        let channel = fleet.dial(fleet.running.link.port(), Some(&uri)).await.unwrap();
        let (out, stream) = mpsc::channel(8);
        let hello = Hello {
            protocol_min: proto::PROTOCOL_MIN,
            protocol_max: proto::PROTOCOL_MAX,
            ..hello
        };
        let mut client = FleetLinkClient::new(channel);
        let body = Some(Body::Hello(hello));
        out.send(SpokeMessage { body }).await.unwrap();
        let answers = client
            .link(ReceiverStream::new(stream))
            .await
            .unwrap()
            .into_inner();
        Session { out, answers }
    }

    async fn say(&self, body: Body) {
        self.out.send(SpokeMessage { body: Some(body) }).await.unwrap();
    }

    async fn hear(&mut self) -> Result<hub_message::Body, tonic::Status> {
        let answer = tokio::time::timeout(Duration::from_secs(10), self.answers.message()).await;
        Ok(answer
            .expect("an answer in time")?
            .expect("an answer")
            .body
            .unwrap())
    }

    async fn welcome(&mut self) -> proto::v1::Welcome {
        match self.hear().await.unwrap() {
            hub_message::Body::Welcome(welcome) => welcome,
            other => panic!("{other:?}"),
        }
    }

    async fn report(&self, updates: Vec<ObjectUpdate>) {
        let whole = Inventory {
            updates,
            first: true,
            last: true,
        };
        self.say(Body::Inventory(whole)).await;
    }
}

fn running() -> ObjectState {
    ObjectState {
        uid: "b".into(),
        namespace: "ns".into(),
        name: "orders".into(),
        body: Some(object_state::Body::Backup(BackupState {
            repository_name: "nas".into(),
            restic_id: "a".repeat(64),
            running: true,
            ..Default::default()
        })),
        ..ObjectState::default()
    }
}

fn ask() -> LeaseAsk {
    LeaseAsk {
        operation: "job".into(),
        restic_id: "a".repeat(64),
        subject: "retention ns/p".into(),
        ..LeaseAsk::default()
    }
}

async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    for _ in 0..200 {
        if holds().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("{what} did not come");
}

async fn operator(fleet: &Fleet) -> FleetViewClient<Channel> {
    let uri = Some("spiffe://fleet/operator/ann");
    FleetViewClient::new(fleet.dial(fleet.running.view.port(), uri).await.unwrap())
}

async fn complete(fleet: &Fleet, cluster: &str) {
    let complete = || {
        fleet
            .running
            .hub
            .read(|i| i.member(cluster).is_some_and(|m| m.complete()))
    };
    until("a complete cluster", async || complete()).await;
}

#[tokio::test]
async fn a_session_that_agrees_sends_nothing_again() {
    let fleet = Fleet::new().await;
    let mut first = Session::open(&fleet, "a", Hello::default()).await;
    let welcome = first.welcome().await;
    assert!(!welcome.up_to_date && welcome.cluster == "a");
    let state = update(&repository("a", "s3:one"));
    let mut digest = proto::digest::Digest::default();
    digest.add(&proto::digest::object_hash(&state.uid, &state.state));
    let hello = || Hello {
        digest: digest.to_bytes(),
        objects: 1,
        ..Hello::default()
    };
    first.report(vec![state]).await;
    complete(&fleet, "a").await;
    drop(first);
    let mut second = Session::open(&fleet, "a", hello()).await;
    assert!(second.welcome().await.up_to_date);
    drop(second);
    let fleet = fleet.restart().await;
    let mut third = Session::open(&fleet, "a", hello()).await;
    assert!(
        third.welcome().await.up_to_date,
        "also after a restart of the hub"
    );
}

#[tokio::test]
async fn a_superseded_session_is_ended_at_once() {
    let fleet = Fleet::new().await;
    let mut old = Session::open(&fleet, "a", Hello::default()).await;
    old.welcome().await;
    let mut new = Session::open(&fleet, "a", Hello::default()).await;
    new.welcome().await;
    let ended = old.hear().await.unwrap_err();
    assert_eq!(ended.code(), Code::Aborted, "{ended}");
}

#[tokio::test]
async fn a_spoke_that_connects_during_a_drain_is_told() {
    let fleet = Fleet::new().await;
    let reports = || vec![update(&repository("a", "s3:one")), update(&running())];
    let mut first = Session::open(&fleet, "a", Hello::default()).await;
    first.welcome().await;
    first.report(reports()).await;
    complete(&fleet, "a").await;
    first.say(Body::LeaseAsk(ask())).await;
    let drains = |body: &hub_message::Body| matches!(body, hub_message::Body::Drain(d) if d.duration_ms > 0);
    while !drains(&first.hear().await.unwrap()) {}
    let mut second = Session::open(&fleet, "a", Hello::default()).await;
    while !drains(&second.hear().await.unwrap()) {}
}

/// A spoke that hears nothing for longer than a heartbeat's pause asks by a ping: one more packet for each, all day.
#[tokio::test]
async fn a_heartbeat_is_answered() {
    let fleet = Fleet::new().await;
    let mut session = Session::open(&fleet, "a", Hello::default()).await;
    session.welcome().await;
    session.say(Body::Heartbeat(Heartbeat::default())).await;
    let answer = |body: &hub_message::Body| matches!(body, hub_message::Body::HeartbeatAnswer(_));
    while !answer(&session.hear().await.unwrap()) {}
}

#[tokio::test]
async fn a_body_that_the_hub_does_not_know_is_ignored() {
    let fleet = Fleet::new().await;
    let mut session = Session::open(&fleet, "a", Hello::default()).await;
    session.welcome().await;
    session.out.send(SpokeMessage { body: None }).await.unwrap();
    session.report(vec![]).await;
    session
        .say(Body::Heartbeat(Heartbeat {
            digest: vec![0; 32],
            objects: 0,
        }))
        .await;
    complete(&fleet, "a").await;
}

#[tokio::test]
async fn a_cluster_is_forgotten_by_an_operator_and_only_while_it_is_away() {
    let fleet = Fleet::new().await;
    let mut session = Session::open(&fleet, "old", Hello::default()).await;
    session.welcome().await;
    session.report(vec![update(&repository("old", "s3:one"))]).await;
    complete(&fleet, "old").await;
    let request = |confirm| ForgetClusterRequest {
        cluster: "old".into(),
        confirm,
    };
    let viewer = fleet.view().await.forget_cluster(request(true)).await;
    assert_eq!(viewer.unwrap_err().code(), Code::PermissionDenied);
    let refused = operator(&fleet)
        .await
        .forget_cluster(request(true))
        .await
        .unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition, "{refused}");
    drop(session);
    // What was reported is in the store by now.
    let fleet = fleet.restart().await;
    assert_eq!(fleet.repositories().await.len(), 1);
    let mut operator = operator(&fleet).await;
    let shown = operator
        .forget_cluster(request(false))
        .await
        .unwrap()
        .into_inner();
    assert_eq!((shown.repositories, shown.forgotten), (1, false));
    assert!(
        operator
            .forget_cluster(request(true))
            .await
            .unwrap()
            .into_inner()
            .forgotten
    );
    assert!(fleet.repositories().await.is_empty());
    let fleet = fleet.restart().await;
    assert!(fleet.repositories().await.is_empty(), "it was written first");
}

#[tokio::test]
async fn two_clusters_under_one_name_are_both_refused_until_one_is_accepted() {
    let fleet = Fleet::new().await;
    let hello = |uid: &str| Hello {
        cluster_uid: uid.into(),
        incarnation: uid.into(),
        ..Hello::default()
    };
    let mut first = Session::open(&fleet, "a", hello("one")).await;
    first.welcome().await;
    let mut second = Session::open(&fleet, "a", hello("two")).await;
    let refused = second.hear().await.unwrap_err();
    assert!(
        refused.message().contains("fleet clusters accept a --uid"),
        "{refused}"
    );
    assert!(first.hear().await.is_err(), "the first is ended as well");
    let accept = AcceptClusterRequest {
        cluster: "a".into(),
        cluster_uid: "two".into(),
    };
    operator(&fleet).await.accept_cluster(accept).await.unwrap();
    let fleet = fleet.restart().await;
    let mut second = Session::open(&fleet, "a", hello("two")).await;
    second.welcome().await;
    assert!(
        Session::open(&fleet, "a", hello("one"))
            .await
            .hear()
            .await
            .is_err()
    );
}
