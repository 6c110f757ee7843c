//! Spokes of the version before this one and of one after it: by bytes that the earlier version's own code wrote, and by
//! messages with fields, kinds, values and bodies that this version does not know.

#[path = "../../proto/recorded/mod.rs"]
mod recorded;

use std::time::Duration;

use crate::harness::{Fleet, ID, keep_last, master, object, policy, repository};
use prost::Message as _;
use proto::digest::{Digest, object_hash};
use proto::possession::prove;
use proto::v1::hub_message::Body as Told;
use proto::v1::object_state::Body as Object;
use proto::v1::spoke_message::Body;
use proto::v1::{
    BackupResult, BackupRun, BackupState, CommandReport, Delta, Heartbeat, Hello, HubMessage, Inventory,
    LeaseAsk, LeaseGrant, ListRequest, ObjectState, ObjectUpdate, OperationKind, SpokeMessage, Tombstone,
};
use recorded::{Raw, field, later, unknown};
use tokio::sync::mpsc;
use tokio_stream::StreamExt as _;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Request, Status, Streaming};

const SOON: Duration = Duration::from_secs(20);

/// A session in bytes.
struct Stream {
    out: mpsc::Sender<Vec<u8>>,
    answers: Streaming<Vec<u8>>,
    told: Vec<Told>,
}

impl Stream {
    /// Opens a session of cluster a that begins with a message.
    async fn open(fleet: &Fleet, hello: Vec<u8>) -> Result<Stream, Status> {
        let identity = fleet.certificate("spiffe://fleet/spoke/a");
        let channel = fleet
            .connect(fleet.running.link.port(), Some(identity))
            .await
            .unwrap();
        let (out, stream) = mpsc::channel(64);
        out.send(hello).await.unwrap();
        let mut client = tonic::client::Grpc::new(channel);
        client.ready().await.unwrap();
        let path = "/fleet.v1.FleetLink/Link".parse().unwrap();
        let answers = client
            .streaming(Request::new(ReceiverStream::new(stream)), path, Raw)
            .await?;
        let (answers, told) = (answers.into_inner(), Vec::new());
        Ok(Stream { out, answers, told })
    }

    async fn send(&self, bytes: Vec<u8>) {
        self.out.send(bytes).await.unwrap();
    }

    async fn say(&self, body: Body) {
        self.send(encoded(body)).await;
    }

    /// The next message that is searched for.
    async fn until<T>(&mut self, what: &str, find: impl Fn(&Told) -> Option<T>) -> T {
        let wait = async {
            loop {
                let bytes = self.answers.next().await.expect("the stream goes on").unwrap();
                let told = HubMessage::decode(bytes.as_slice()).unwrap().body.unwrap();
                let found = find(&told);
                self.told.push(told);
                if let Some(found) = found {
                    return found;
                }
            }
        };
        let found = tokio::time::timeout(SOON, wait).await;
        found.unwrap_or_else(|_| panic!("{what} did not come"))
    }

    async fn granted(&mut self) -> LeaseGrant {
        let find = |told: &Told| match told {
            Told::LeaseGrant(grant) => Some(grant.clone()),
            _ => None,
        };
        self.until("a grant", find).await
    }

    /// Proves that the cluster can open the repository, if it is asked to.
    async fn prove(&mut self, fleet: &Fleet) {
        let is_proven = || {
            let bound =
                |inventory: &hub::inventory::Inventory| inventory.bindings().get("a", ID).unwrap().proven;
            fleet.running.hub.read(bound)
        };
        if !is_proven() {
            let find = |told: &Told| match told {
                Told::PossessionChallenge(asked) => Some(asked.nonce.clone()),
                _ => None,
            };
            let nonce = self.until("a challenge", find).await;
            self.say(Body::PossessionProof(prove(&master(1), "a", ID, &nonce).unwrap()))
                .await;
            fleet.until("the proof", async |_| is_proven()).await;
        }
    }

    fn was_asked_again(&self) -> bool {
        self.told.iter().any(|told| matches!(told, Told::Resync(_)))
    }
}

fn encoded(body: Body) -> Vec<u8> {
    SpokeMessage { body: Some(body) }.encode_to_vec()
}

/// With the token that this hub has granted.
fn with_token(body: Body, token: u64) -> Body {
    match body {
        Body::LeaseRenew(renew) => Body::LeaseRenew(proto::v1::LeaseRenew { token, ..renew }),
        Body::PlanPart(part) => Body::PlanPart(proto::v1::PlanPart { token, ..part }),
        Body::LeaseRelease(release) => Body::LeaseRelease(proto::v1::LeaseRelease { token, ..release }),
        other => other,
    }
}

#[test]
fn nothing_of_an_earlier_version_is_lost_when_it_is_read() {
    for message in recorded::before_joining() {
        let again = match message.from_hub {
            true => HubMessage::decode(message.bytes.as_slice())
                .unwrap()
                .encode_to_vec(),
            false => SpokeMessage::decode(message.bytes.as_slice())
                .unwrap()
                .encode_to_vec(),
        };
        assert_eq!(
            hex::encode(again),
            hex::encode(&message.bytes),
            "{}",
            message.name
        );
    }
}

#[tokio::test]
async fn a_spoke_of_the_version_before_works_with_this_hub() {
    let fleet = Fleet::new().await;
    let mut messages = recorded::before_joining()
        .into_iter()
        .filter(|message| !message.from_hub);
    let hello = messages.next().unwrap();
    let mut stream = Stream::open(&fleet, hello.bytes).await.unwrap();
    let welcome = |told: &Told| matches!(told, Told::Welcome(_)).then_some(());
    stream.until("a welcome", welcome).await;
    let mut token = 0;
    for message in messages {
        let body = SpokeMessage::decode(message.bytes.as_slice())
            .unwrap()
            .body
            .unwrap();
        match body {
            // Of another challenge.
            Body::PossessionProof(_) => stream.prove(&fleet).await,
            Body::LeaseAsk(_) => {
                stream.send(message.bytes).await;
                let grant = stream.granted().await;
                token = grant.token;
                let run = grant.run.unwrap();
                assert_eq!(
                    (run.clusters.as_slice(), run.policies.len()),
                    (&["a".to_owned()][..], 1)
                );
                assert_eq!(run.policies[0].unclear, "");
            }
            Body::LeaseRenew(_) => {
                stream.say(with_token(body, token)).await;
                let renewed = |told: &Told| matches!(told, Told::LeaseRenewed(_)).then_some(());
                stream.until("the renewal", renewed).await;
            }
            Body::LeaseRelease(_) => {
                stream.say(with_token(body, token)).await;
                let released = |told: &Told| matches!(told, Told::LeaseReleased(_)).then_some(());
                stream.until("the release", released).await;
            }
            Body::CreationRequest(_) => {
                stream.send(message.bytes).await;
                let granted = |told: &Told| matches!(told, Told::CreationGrant(_)).then_some(());
                stream.until("the creation", granted).await;
            }
            Body::Inventory(_) => {
                stream.send(message.bytes).await;
                fleet.until_binding("a", ID, "bound").await;
                stream.prove(&fleet).await;
            }
            body => stream.say(with_token(body, token)).await,
        }
    }
    assert!(!stream.was_asked_again(), "its digest agrees: {:?}", stream.told);
    let appointed = stream
        .told
        .iter()
        .any(|told| matches!(told, Told::CollectorAssignment(_)));
    assert!(!appointed, "it collects as it always did");
    let totals = fleet.running.hub.read(|inventory| {
        let held = inventory.index().backup("a/shop/orders").cloned();
        held.and_then(|held| held.backup().map(|backup| backup.state().runs_total))
    });
    assert_eq!(totals, Some(8), "the change after the inventory counts");
}

#[tokio::test]
async fn a_later_spoke_speaks_this_versions_protocol_or_is_refused_with_both() {
    let fleet = Fleet::new().await;
    let hello = |protocol_min, protocol_max| {
        let hello = Hello {
            protocol_min,
            protocol_max,
            incarnation: "one".to_owned(),
            ..Hello::default()
        };
        later(&encoded(Body::Hello(hello)))
    };
    let (ours, next) = (proto::PROTOCOL_MAX, proto::PROTOCOL_MAX + 1);
    let mut stream = Stream::open(&fleet, hello(ours, next)).await.unwrap();
    let welcome = |told: &Told| match told {
        Told::Welcome(welcome) => Some(welcome.protocol),
        _ => None,
    };
    assert_eq!(stream.until("a welcome", welcome).await, ours);
    let mut refused = Stream::open(&fleet, hello(next, next)).await.unwrap();
    let status = refused.answers.next().await.unwrap().unwrap_err();
    assert_eq!(status.code(), Code::FailedPrecondition);
    let text = status.message();
    assert!(
        text.contains(&format!("{next} to {next}")) && text.contains("update the older"),
        "{text}"
    );
}

/// A state with fields of a later version.
fn state(object: &ObjectState) -> ObjectUpdate {
    ObjectUpdate {
        uid: object.uid.clone(),
        state: [object.encode_to_vec(), unknown()].concat(),
    }
}

fn inventory(updates: &[ObjectUpdate]) -> Vec<u8> {
    later(&encoded(Body::Inventory(Inventory {
        first: true,
        last: true,
        updates: updates.to_vec(),
    })))
}

fn beat(updates: &[ObjectUpdate]) -> Vec<u8> {
    let mut digest = Digest::default();
    updates
        .iter()
        .for_each(|update| digest.add(&object_hash(&update.uid, &update.state)));
    later(&encoded(Body::Heartbeat(Heartbeat {
        digest: digest.to_bytes(),
        objects: updates.len() as u64,
    })))
}

#[tokio::test]
async fn what_a_later_spoke_reports_and_this_hub_cannot_read_keeps_its_snapshots() {
    let fleet = Fleet::new().await;
    let hello = Hello {
        protocol_min: proto::PROTOCOL_MIN,
        protocol_max: proto::PROTOCOL_MAX + 1,
        incarnation: "one".to_owned(),
        ..Hello::default()
    };
    let mut stream = Stream::open(&fleet, later(&encoded(Body::Hello(hello))))
        .await
        .unwrap();
    let whole = async |is: bool| {
        let what = format!("cluster a is known as a whole: {is}");
        let complete = async |fleet: &Fleet| {
            fleet.running.hub.read(|inventory| {
                inventory
                    .member("a")
                    .is_some_and(|member| member.complete() == is)
            })
        };
        fleet.until(&what, complete).await;
    };
    let known = [state(&repository(ID)), state(&policy(keep_last(3)))];
    // A kind of a later version: as a case of the body that this version has no name for.
    let meta = ObjectState {
        uid: "new".to_owned(),
        namespace: "ns".to_owned(),
        name: "new".to_owned(),
        ..ObjectState::default()
    };
    let newer = ObjectUpdate {
        uid: "new".to_owned(),
        state: [meta.encode_to_vec(), field(99, b"\x0a\x01x")].concat(),
    };
    let torn = ObjectUpdate {
        uid: "torn".to_owned(),
        state: vec![0xff; 9],
    };
    let mut token = 0;
    for (n, doubtful) in [&newer, &torn].into_iter().enumerate() {
        let all = [known.to_vec(), vec![doubtful.clone()]].concat();
        stream.send(inventory(&all)).await;
        stream.send(beat(&all)).await;
        fleet.until_binding("a", ID, "bound").await;
        stream.prove(&fleet).await;
        whole(false).await;
        let reason = fleet
            .running
            .hub
            .read(|inventory| inventory.member("a").unwrap().unread());
        assert!(reason.contains("update fleet-hub"), "{reason}");
        let operation = format!("job-{n}");
        stream.say(Body::LeaseAsk(crate::harness::ask(&operation))).await;
        let grant = stream.granted().await;
        assert_eq!(
            grant.run.unwrap().clusters,
            [] as [&str; 0],
            "all of its snapshots stay"
        );
        token = grant.token;
        let release = proto::v1::LeaseRelease {
            operation,
            restic_id: ID.to_owned(),
            token,
            policy: "p".to_owned(),
            ..proto::v1::LeaseRelease::default()
        };
        stream.say(Body::LeaseRelease(release)).await;
        let released = |told: &Told| matches!(told, Told::LeaseReleased(_)).then_some(());
        stream.until("the release", released).await;
    }
    let gone = Delta {
        gone: vec![Tombstone {
            uid: "torn".to_owned(),
        }],
        ..Delta::default()
    };
    stream.send(later(&encoded(Body::Delta(gone)))).await;
    stream.send(beat(&known)).await;
    whole(true).await;
    stream.say(Body::LeaseAsk(crate::harness::ask("last"))).await;
    let grant = stream.granted().await;
    assert!(grant.token > token);
    assert_eq!(grant.run.unwrap().clusters, ["a"]);
    assert!(
        !stream.was_asked_again(),
        "what cannot be read is in the digest as it was sent"
    );
}

#[tokio::test]
async fn values_and_messages_of_a_later_spoke_are_refused_or_passed_over() {
    let fleet = Fleet::new().await;
    let hello = Hello {
        protocol_min: proto::PROTOCOL_MIN,
        protocol_max: proto::PROTOCOL_MAX,
        incarnation: "one".to_owned(),
        ..Hello::default()
    };
    let mut stream = Stream::open(&fleet, encoded(Body::Hello(hello))).await.unwrap();
    let run = BackupRun {
        result: 99,
        ..BackupRun::default()
    };
    assert!(BackupResult::try_from(run.result).is_err());
    let backup = BackupState {
        schedule: "@daily".to_owned(),
        last_run: Some(run),
        ..BackupState::default()
    };
    let orders = ObjectState {
        created: Some(proto::time::from_unix_millis(hub::now())),
        ..object("orders", Object::Backup(backup))
    };
    let objects = [repository(ID), policy(keep_last(3)), orders];
    stream.send(inventory(&objects.each_ref().map(state))).await;
    fleet.until_binding("a", ID, "bound").await;
    stream.prove(&fleet).await;
    // A message, a state and an operation of a later version.
    stream.send(field(900, b"news")).await;
    let report = CommandReport {
        id: "0".repeat(16),
        state: 99,
        ..CommandReport::default()
    };
    stream.say(Body::CommandReport(report)).await;
    let ask = LeaseAsk {
        kind: 99,
        ..crate::harness::ask("rewrite")
    };
    assert!(OperationKind::try_from(ask.kind).is_err());
    stream.say(Body::LeaseAsk(ask)).await;
    let waits = |told: &Told| match told {
        Told::LeaseWaiting(waiting) if waiting.operation == "rewrite" => Some(waiting.reason.clone()),
        Told::LeaseGrant(grant) => panic!("{grant:?}"),
        _ => None,
    };
    let reason = stream.until("an answer", waits).await;
    assert!(reason.contains("kind 99: update fleet-hub"), "{reason}");
    // It holds nobody up.
    stream.say(Body::LeaseAsk(crate::harness::ask("job"))).await;
    assert_eq!(stream.granted().await.operation, "job");
    let mut view = fleet.operator().await;
    let rows = view.list(ListRequest {
        collection: proto::v1::Collection::Backups.into(),
        ..ListRequest::default()
    });
    let rows = rows.await.unwrap().into_inner().rows;
    let [row] = rows.as_slice() else {
        panic!("{rows:?}")
    };
    let Some(proto::v1::row::Body::Backup(row)) = &row.body else {
        panic!()
    };
    assert_eq!(row.state, "notready", "a result that is not known is not well");
    assert!(row.reason.contains("not known"), "{}", row.reason);
}
