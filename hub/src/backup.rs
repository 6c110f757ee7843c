//! FleetHub: the backup of the hub's own store, for a person who cannot reach its volume, what a lost cluster is made again
//! of, and the pause of all maintenance.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::ensure;
use proto::v1::fleet_hub_server::FleetHub;
use proto::v1::hub_backup_part::Body;
use proto::v1::{
    HubBackupPart, HubBackupRequest, HubBackupSummary, KeepBackupRequest, KeepBackupResponse,
    ManifestsRequest, PauseFleetRequest, PauseFleetResponse, ResumeFleetRequest, ResumeFleetResponse,
};
use sha2::{Digest as _, Sha256};
use tokio::fs::File;
use tokio::io::AsyncReadExt as _;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};
use tracing::{info, warn};

use crate::access::{self, Person, Verb, out_of_scope};
use crate::hub::Hub;
use crate::lock::Command;
use crate::manifests;
use crate::parts::{end, pass};
use crate::store::StoredDecision;
use crate::store::copy::Copied;
use crate::{Millis, now};

/// Bytes of one part.
const PART: usize = 256 << 10;
/// Parts on their way to the reader.
const BUFFER: usize = 4;
const NOT_READ: &str = "nobody reads it";

type Parts = mpsc::Sender<Result<HubBackupPart, Status>>;

/// The service.
pub struct BackupService {
    hub: Arc<Hub>,
    /// The file in the making is beside it: a hub may write nowhere else.
    store: PathBuf,
    /// One at a time: it takes as much of the volume as the store.
    turn: Arc<Semaphore>,
    sent: Arc<Mutex<Option<Sent>>>,
}

/// The backup that was sent last, which somebody may have.
struct Sent {
    sha256: Vec<u8>,
    /// Milliseconds since 1970.
    made: Millis,
}

impl BackupService {
    /// A service on a hub whose store is this file.
    #[must_use]
    pub fn new(hub: Arc<Hub>, store: &Path) -> BackupService {
        BackupService {
            hub,
            store: store.to_owned(),
            turn: Arc::new(Semaphore::new(1)),
            sent: Arc::default(),
        }
    }

    /// When the backup with this digest was made, if it was sent last.
    fn made(&self, sha256: &[u8]) -> Option<Millis> {
        let sent = self.sent.lock().unwrap_or_else(PoisonError::into_inner);
        let sent = sent.as_ref().filter(|sent| sent.sha256 == sha256);
        sent.map(|sent| sent.made)
    }

    /// A backup as an open file that has no name any more, so that nothing is left of it.
    async fn make(&self) -> Result<(File, Copied), Status> {
        let failed =
            |error: &dyn std::fmt::Display| Status::unavailable(format!("no backup was made: {error}"));
        let mut name = self.store.as_os_str().to_owned();
        name.push(".sent");
        let name = PathBuf::from(name);
        // Of a hub that was killed meanwhile.
        let _ = tokio::fs::remove_file(&name).await;
        let copied = self.hub.backup_to(name.clone()).await;
        let copied = copied.map_err(|error| failed(&error))?;
        let opened = File::open(&name).await;
        let removed = tokio::fs::remove_file(&name).await;
        let file = opened.and_then(|file| removed.map(|()| file));
        Ok((file.map_err(|error| failed(&error))?, copied))
    }
}

#[tonic::async_trait]
impl FleetHub for BackupService {
    type BackupStream = ReceiverStream<Result<HubBackupPart, Status>>;
    type ManifestsStream = manifests::Parts;

    async fn backup(
        &self,
        request: Request<HubBackupRequest>,
    ) -> Result<Response<Self::BackupStream>, Status> {
        let person = access::person(&request)?;
        let who = everywhere(&request, Verb::Administer, "the store of the hub")?;
        let turn = self.turn.clone().try_acquire_owned();
        let turn =
            turn.map_err(|_| Status::unavailable("another backup is being made; try again when it is done"))?;
        let written = self.hub.store().decide(decision(&who, now())).await;
        written.map_err(|error| Status::unavailable(error.to_string()))?;
        let (file, copied) = self.make().await?;
        info!(%who, bytes = copied.bytes, "a backup of the store is sent");
        let (parts, stream) = mpsc::channel(BUFFER);
        let (hub, sent) = (self.hub.clone(), self.sent.clone());
        tokio::spawn(async move {
            if let Err(error) = send(file, copied, (&hub, &person, &parts), &sent, turn).await {
                warn!(%who, %error, "a backup of the store was not sent to its end");
                end(&parts, Status::unavailable(error.to_string())).await;
            }
        });
        Ok(Response::new(ReceiverStream::new(stream)))
    }

    async fn keep_backup(
        &self,
        request: Request<KeepBackupRequest>,
    ) -> Result<Response<KeepBackupResponse>, Status> {
        let who = everywhere(&request, Verb::Administer, "the store of the hub")?;
        let sha256 = request.into_inner().sha256;
        let made = self.made(&sha256).ok_or_else(|| {
            Status::failed_precondition(
                "this is not the backup that was sent last, or the hub has started since",
            )
        })?;
        let noted = self.hub.store().note_copy(made).await;
        noted.map_err(|error| Status::unavailable(error.to_string()))?;
        info!(%who, "the backup of the store that was sent is kept");
        Ok(Response::new(KeepBackupResponse {}))
    }

    async fn manifests(
        &self,
        request: Request<ManifestsRequest>,
    ) -> Result<Response<Self::ManifestsStream>, Status> {
        let person = access::person(&request)?;
        let parts = manifests::manifests(&self.hub, person, request.get_ref()).await?;
        Ok(Response::new(parts))
    }

    async fn pause(
        &self,
        request: Request<PauseFleetRequest>,
    ) -> Result<Response<PauseFleetResponse>, Status> {
        let who = everywhere(&request, Verb::Run, "maintenance of the fleet")?;
        let reason = request.into_inner().reason;
        let ask = |reply| Command::Pause(Some(reason), who, reply);
        self.hub.locks.ask(ask).await??;
        Ok(Response::new(PauseFleetResponse {}))
    }

    async fn resume(
        &self,
        request: Request<ResumeFleetRequest>,
    ) -> Result<Response<ResumeFleetResponse>, Status> {
        let who = everywhere(&request, Verb::Run, "maintenance of the fleet")?;
        self.hub
            .locks
            .ask(|reply| Command::Pause(None, who, reply))
            .await??;
        Ok(Response::new(ResumeFleetResponse {}))
    }
}

/// Who sends a request that is about the whole fleet.
fn everywhere<T>(request: &Request<T>, verb: Verb, what: &str) -> Result<Arc<str>, Status> {
    let person = access::person(request)?;
    if person.sight(verb).is_everything() {
        Ok(person.name.clone())
    } else {
        Err(out_of_scope(&person, verb, what))
    }
}

/// The entry in the audit. It is written first, and so the backup has it too.
fn decision(who: &str, at: Millis) -> StoredDecision {
    StoredDecision {
        at,
        who: who.to_owned(),
        what: "hub-backup".to_owned(),
        subject: "the store of the hub".to_owned(),
        ..StoredDecision::default()
    }
}

async fn send(
    mut file: File,
    copied: Copied,
    (hub, person, parts): (&Hub, &Person, &Parts),
    sent: &Mutex<Option<Sent>>,
    _turn: OwnedSemaphorePermit,
) -> anyhow::Result<()> {
    let mut digest = Sha256::new();
    let mut bytes = 0;
    let mut buffer = vec![0; PART];
    loop {
        let read = file.read(&mut buffer).await?;
        let data = buffer.get(..read).unwrap_or_default().to_vec();
        if data.is_empty() {
            break;
        }
        digest.update(&data);
        bytes += data.len() as u64;
        ensure!(pass(hub, person, parts, part(Body::Data(data))).await?, NOT_READ);
    }
    let summary = HubBackupSummary {
        bytes,
        sha256: digest.finalize().to_vec(),
        made_ms: copied.made,
        epoch: copied.epoch,
    };
    // Before its reader can confirm it.
    *sent.lock().unwrap_or_else(PoisonError::into_inner) = Some(Sent {
        sha256: summary.sha256.clone(),
        made: copied.made,
    });
    ensure!(
        pass(hub, person, parts, part(Body::Summary(summary))).await?,
        NOT_READ
    );
    Ok(())
}

fn part(body: Body) -> HubBackupPart {
    HubBackupPart { body: Some(body) }
}
