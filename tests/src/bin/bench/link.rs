//! What a reconnect costs on the wire when nothing has changed: messages of both directions, without TLS and HTTP/2.

use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use prost::Message as _;
use proto::digest::{Digest, object_hash};
use proto::v1::fleet_link_client::FleetLinkClient;
use proto::v1::spoke_message::Body;
use proto::v1::{
    BackupState, Condition, Heartbeat, Hello, HubMessage, Inventory, ObjectState, ObjectUpdate, SpokeMessage,
    Welcome, hub_message, object_state,
};
use tests::{Bed, progress};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;

use crate::lease::{Hub, certificates, dial};
use crate::report::{Figure, Goal};

const OBJECTS: u64 = 1_000;

/// One session, and the bytes of its messages.
struct Session {
    out: mpsc::Sender<SpokeMessage>,
    answers: Streaming<HubMessage>,
    bytes: usize,
}

impl Session {
    async fn open(dir: &std::path::Path, digest: &Digest) -> anyhow::Result<(Session, Welcome)> {
        let channel = dial(dir).await?;
        let (out, stream) = mpsc::channel(8);
        let hello = Hello {
            protocol_min: proto::PROTOCOL_MIN,
            protocol_max: proto::PROTOCOL_MAX,
            incarnation: "0".repeat(32),
            version: "0.1.0".to_owned(),
            kubernetes_version: tests::tools::KUBERNETES.to_owned(),
            cluster_uid: "6f1ddd75-6d6e-4f3c-9d3e-8a5e2d0a7a11".to_owned(),
            digest: digest.to_bytes(),
            objects: OBJECTS,
            ..Hello::default()
        };
        let message = SpokeMessage {
            body: Some(Body::Hello(hello)),
        };
        let bytes = message.encoded_len();
        out.send(message).await?;
        let answers = FleetLinkClient::new(channel)
            .link(ReceiverStream::new(stream))
            .await?;
        let mut session = Session {
            out,
            answers: answers.into_inner(),
            bytes,
        };
        let answer = tokio::time::timeout(Duration::from_secs(10), session.answers.message()).await??;
        let answer = answer.context("the hub ended the session")?;
        session.bytes += answer.encoded_len();
        match answer.body {
            Some(hub_message::Body::Welcome(welcome)) => Ok((session, welcome)),
            other => bail!("{other:?} instead of a welcome"),
        }
    }

    async fn say(&mut self, body: Body) -> anyhow::Result<()> {
        let message = SpokeMessage { body: Some(body) };
        self.bytes += message.encoded_len();
        self.out.send(message).await?;
        Ok(())
    }
}

fn backup(n: u64) -> ObjectUpdate {
    let condition = |r#type: &str| Condition {
        r#type: r#type.to_owned(),
        status: "True".to_owned(),
        reason: "Succeeded".to_owned(),
        message: "the last backup has succeeded".to_owned(),
        ..Condition::default()
    };
    let state = ObjectState {
        uid: format!("00000000-0000-4000-8000-{n:012}"),
        namespace: "shop".to_owned(),
        name: format!("backup-{n}"),
        conditions: ["Ready", "Progressing", "Suspended", "Stalled"]
            .map(condition)
            .to_vec(),
        body: Some(object_state::Body::Backup(BackupState {
            repository_name: "nas".to_owned(),
            restic_id: "a".repeat(64),
            schedule: "@daily".to_owned(),
            ..BackupState::default()
        })),
        ..ObjectState::default()
    };
    ObjectUpdate {
        uid: state.uid.clone(),
        state: state.encode_to_vec(),
    }
}

/// Bytes of a first connection, and of one without a change.
pub async fn link(bed: &Bed, profile: &str) -> anyhow::Result<Vec<Figure>> {
    progress(&format!("a reconnect with {OBJECTS} objects"));
    let dir = tempfile::tempdir_in(bed.dir())?;
    certificates(dir.path())?;
    let hub = Hub::start(bed, dir.path(), profile)?;
    let updates: Vec<ObjectUpdate> = (0..OBJECTS).map(backup).collect();
    let mut digest = Digest::default();
    updates
        .iter()
        .for_each(|u| digest.add(&object_hash(&u.uid, &u.state)));
    let (mut first, welcome) = Session::open(dir.path(), &digest).await?;
    ensure!(!welcome.up_to_date, "the hub holds what nobody has sent");
    let whole = Inventory {
        updates,
        first: true,
        last: true,
    };
    first.say(Body::Inventory(whole.clone())).await?;
    // The next session agrees when the hub has taken the inventory of the one before; one that comes too early ends that.
    let again = tests::wait_until("an agreement", Duration::from_secs(20), || async {
        let (mut session, welcome) = Session::open(dir.path(), &digest).await?;
        if welcome.up_to_date {
            return Ok(Some(session));
        }
        session.say(Body::Inventory(whole.clone())).await?;
        tokio::time::sleep(Duration::from_millis(500)).await;
        Ok(None)
    });
    let mut again = again.await?;
    let beat = Heartbeat {
        digest: digest.to_bytes(),
        objects: OBJECTS,
    };
    again.say(Body::Heartbeat(beat)).await?;
    drop(hub);
    #[allow(clippy::cast_precision_loss, reason = "some hundred thousand")]
    let figure = |name, bytes: usize, goal| Figure {
        name,
        value: bytes as f64,
        unit: "bytes",
        goal,
    };
    Ok(vec![
        figure("connect_1000_objects_first", first.bytes, Goal::Open),
        figure(
            "reconnect_1000_objects_unchanged",
            again.bytes,
            Goal::Below(2048.0),
        ),
    ])
}
