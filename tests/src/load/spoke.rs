//! Simulated spokes. Each has a connection and a certificate of its own, introduces itself with the digest of what it holds,
//! reports all of it when the hub does not agree, and sends a heartbeat at the hub's interval. One that is cut off dials
//! again as a real spoke does.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use proto::digest::{Digest, object_hash};
use proto::possession::{MasterKey, prove};
use proto::v1::fleet_link_client::FleetLinkClient;
use proto::v1::hub_message::Body as Told;
use proto::v1::spoke_message::Body;
use proto::v1::{
    CreationDone, CreationRequest, Delta, Heartbeat, Hello, HubMessage, Inventory, ObjectUpdate, SpokeMessage,
};
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::JoinHandle;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;
use tonic::transport::{Certificate, ClientTlsConfig, Endpoint, Identity};

use super::shape::{Shape, name};
use super::socket::connect;
use crate::pki::{Authority, Names};

/// Spokes that dial or report for the first time at the same time.
const ARRIVING: usize = 256;
/// Pauses between attempts: from the first to the longest, doubled, at random below.
const FIRST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(60);
/// A session that lasts this long was a good one.
const STABLE: Duration = Duration::from_secs(30);

/// What all spokes count.
#[derive(Default)]
pub struct Counts {
    /// Bytes sent over TCP.
    pub sent: Arc<AtomicU64>,
    /// Sessions that are open and in which the hub has everything.
    pub complete: AtomicUsize,
    /// Inventories that were sent.
    pub inventories: AtomicU64,
    /// Attempts that failed.
    pub failed: AtomicU64,
    /// When each of the sessions since the last `mark` was complete.
    at: Mutex<Vec<Instant>>,
}

impl Counts {
    /// Forgets the times of sessions.
    pub fn mark(&self) {
        self.at.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// Seconds from a moment until each session was complete.
    #[must_use]
    pub fn since(&self, begin: Instant) -> Vec<f64> {
        let at = self.at.lock().unwrap_or_else(PoisonError::into_inner);
        let seconds = at
            .iter()
            .map(|at| at.saturating_duration_since(begin).as_secs_f64());
        seconds.collect()
    }

    fn completed(&self) {
        self.complete.fetch_add(1, Ordering::Relaxed);
        let mut at = self.at.lock().unwrap_or_else(PoisonError::into_inner);
        at.push(Instant::now());
    }
}

/// All spokes.
pub struct Fleet {
    pub shape: Shape,
    pub counts: Arc<Counts>,
    changes: Vec<mpsc::Sender<usize>>,
    tasks: Vec<JoinHandle<()>>,
}

impl Fleet {
    /// Makes a certificate for each spoke by the authority in a folder, and starts them all.
    ///
    /// # Errors
    /// When a certificate cannot be made.
    pub fn start(shape: Shape, dir: &Path, address: SocketAddr) -> anyhow::Result<Fleet> {
        let authority = Authority::load(dir, "ca")?;
        let ca = std::fs::read_to_string(dir.join("ca.crt"))?;
        let (counts, room) = (Arc::new(Counts::default()), Arc::new(Semaphore::new(ARRIVING)));
        let (mut changes, mut tasks) = (Vec::new(), Vec::new());
        for cluster in 0..shape.clusters {
            let endpoint = endpoint(&authority, dir, &ca, &name(cluster))?;
            let (digest, objects) = Shape::digest(&shape.inventory(cluster));
            let (sender, receiver) = mpsc::channel(64);
            let spoke = Spoke {
                shape,
                cluster,
                endpoint,
                address,
                counts: counts.clone(),
                room: room.clone(),
                changes: receiver,
                versions: HashMap::new(),
                digest,
                objects,
            };
            changes.push(sender);
            tasks.push(tokio::spawn(spoke.run()));
        }
        Ok(Fleet {
            shape,
            counts,
            changes,
            tasks,
        })
    }

    /// Has a cluster report another state of one of its backups.
    ///
    /// # Errors
    /// When the spoke has ended.
    pub async fn change(&self, cluster: usize, backup: usize) -> anyhow::Result<()> {
        let sender = self.changes.get(cluster).context("no such cluster")?;
        Ok(sender.send(backup).await?)
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

fn endpoint(authority: &Authority, dir: &Path, ca: &str, cluster: &str) -> anyhow::Result<Endpoint> {
    let names = Names {
        common_name: cluster.to_owned(),
        uri: Some(format!("spiffe://fleet/spoke/{cluster}")),
        ..Names::default()
    };
    authority.issue("spoke", names)?;
    let read = |name: &str| std::fs::read(dir.join(name));
    let tls = ClientTlsConfig::new()
        .ca_certificate(Certificate::from_pem(ca))
        .identity(Identity::from_pem(read("spoke.crt")?, read("spoke.key")?))
        .domain_name("hub");
    let endpoint = Endpoint::from_static("https://hub").tls_config(tls)?;
    // As a real spoke sets them.
    Ok(endpoint
        .http2_keep_alive_interval(Duration::from_secs(25))
        .keep_alive_timeout(Duration::from_secs(10))
        .keep_alive_while_idle(true)
        .initial_stream_window_size(64 << 10)
        .initial_connection_window_size(128 << 10))
}

/// Sends a message of a spoke.
async fn say(out: &mpsc::Sender<SpokeMessage>, body: Body) -> anyhow::Result<()> {
    Ok(out.send(SpokeMessage { body: Some(body) }).await?)
}

/// Opens a session, up to its welcome.
async fn open(
    endpoint: &Endpoint,
    address: SocketAddr,
    sent: &Arc<AtomicU64>,
    hello: Hello,
) -> anyhow::Result<(
    mpsc::Sender<SpokeMessage>,
    Streaming<HubMessage>,
    proto::v1::Welcome,
)> {
    let channel = connect(endpoint, address, sent).await?;
    let (out, stream) = mpsc::channel(16);
    say(&out, Body::Hello(hello)).await?;
    let mut client = FleetLinkClient::new(channel);
    let mut answers = client.link(ReceiverStream::new(stream)).await?.into_inner();
    let first = answers.message().await?.context("no welcome")?;
    match first.body {
        Some(Told::Welcome(welcome)) => Ok((out, answers, welcome)),
        other => bail!("{other:?} is no welcome"),
    }
}

fn hello(cluster: &str, digest: &Digest, objects: u64) -> Hello {
    Hello {
        protocol_min: proto::PROTOCOL_MIN,
        protocol_max: proto::PROTOCOL_MAX,
        incarnation: format!("{cluster}-1"),
        version: "0.1.0".to_owned(),
        kubernetes_version: "v1.34.4".to_owned(),
        cluster_uid: format!("uid-of-{cluster}"),
        digest: digest.to_bytes(),
        objects,
        ..Hello::default()
    }
}

struct Spoke {
    shape: Shape,
    cluster: usize,
    endpoint: Endpoint,
    address: SocketAddr,
    counts: Arc<Counts>,
    room: Arc<Semaphore>,
    changes: mpsc::Receiver<usize>,
    /// Versions of the backups that have changed.
    versions: HashMap<usize, u64>,
    digest: Digest,
    objects: u64,
}

impl Spoke {
    async fn run(mut self) {
        let mut attempts = 0u32;
        loop {
            let begin = Instant::now();
            let mut complete = false;
            // How a session ended does not matter here: it is counted, and tried again.
            let _ = self.session(&mut complete).await;
            match complete {
                true => self.counts.complete.fetch_sub(1, Ordering::Relaxed),
                false => self.counts.failed.fetch_add(1, Ordering::Relaxed) as usize,
            };
            attempts = if begin.elapsed() > STABLE { 1 } else { attempts + 1 };
            tokio::time::sleep(self.pause(attempts, begin)).await;
        }
    }

    /// A time below the one that has doubled with each attempt.
    fn pause(&self, attempts: u32, begin: Instant) -> Duration {
        let most = FIRST
            .saturating_mul(1 << attempts.saturating_sub(1).min(6))
            .min(LONGEST);
        let random = object_hash(&name(self.cluster), &begin.elapsed().as_nanos().to_le_bytes());
        let part = f64::from(u16::from_le_bytes([random[0], random[1]])) / f64::from(u16::MAX);
        most.mul_f64(part)
    }

    async fn session(&mut self, complete: &mut bool) -> anyhow::Result<()> {
        let cluster = name(self.cluster);
        let room = self.room.clone();
        let arriving = room.acquire().await?;
        let hello = hello(&cluster, &self.digest, self.objects);
        let (out, mut answers, welcome) =
            open(&self.endpoint, self.address, &self.counts.sent, hello).await?;
        if !welcome.up_to_date {
            say(&out, self.inventory()).await?;
        }
        drop(arriving);
        self.counts.completed();
        *complete = true;
        let every = Duration::from_millis(welcome.heartbeat_interval_ms.into());
        // Spokes do not beat in step.
        let first = every.mul_f64(f64::from(u32::try_from(self.cluster % 1000)?) / 1000.0);
        let mut beat = tokio::time::interval_at(tokio::time::Instant::now() + first, every);
        loop {
            tokio::select! {
                _ = beat.tick() => {
                    let beat = Heartbeat { digest: self.digest.to_bytes(), objects: self.objects };
                    say(&out, Body::Heartbeat(beat)).await?;
                }
                backup = self.changes.recv() => {
                    let backup = backup.context("the fleet has ended")?;
                    let update = self.changed(backup);
                    let delta = Delta { updates: vec![update], ..Delta::default() };
                    say(&out, Body::Delta(delta)).await?;
                }
                message = answers.message() => {
                    let message = message?.context("the hub ended the session")?;
                    self.answer(&out, message).await?;
                }
            }
        }
    }

    async fn answer(&self, out: &mpsc::Sender<SpokeMessage>, message: HubMessage) -> anyhow::Result<()> {
        match message.body {
            Some(Told::Resync(_)) => say(out, self.inventory()).await,
            Some(Told::PossessionChallenge(asked)) => {
                let key = MasterKey {
                    mac_k: vec![1; 16],
                    mac_r: vec![2; 16],
                    encrypt: vec![3; 32],
                };
                let proof = prove(&key, &name(self.cluster), &asked.restic_id, &asked.nonce)?;
                say(out, Body::PossessionProof(proof)).await
            }
            _ => Ok(()),
        }
    }

    fn inventory(&self) -> Body {
        self.counts.inventories.fetch_add(1, Ordering::Relaxed);
        let mut updates = self.shape.inventory(self.cluster);
        for (backup, version) in &self.versions {
            if let Some(update) = updates.get_mut(*backup) {
                *update = self.shape.backup(self.cluster, *backup, *version);
            }
        }
        Body::Inventory(Inventory {
            first: true,
            last: true,
            updates,
        })
    }

    fn changed(&mut self, backup: usize) -> ObjectUpdate {
        let version = self.versions.entry(backup).or_default();
        let before = self.shape.backup(self.cluster, backup, *version);
        *version += 1;
        let after = self.shape.backup(self.cluster, backup, *version);
        self.digest.remove(&object_hash(&before.uid, &before.state));
        self.digest.add(&object_hash(&after.uid, &after.state));
        after
    }
}

/// A spoke that asks all the time for what the hub answers at once, out of its memory, and takes the time: how long the
/// messages of spokes wait.
pub struct Probe {
    times: Arc<Mutex<Vec<f64>>>,
    stop: watch::Sender<bool>,
    task: JoinHandle<anyhow::Result<()>>,
}

impl Probe {
    /// Connects and begins.
    ///
    /// # Errors
    /// When the hub does not take it.
    pub async fn start(dir: &Path, address: SocketAddr) -> anyhow::Result<Probe> {
        let authority = Authority::load(dir, "ca")?;
        let ca = std::fs::read_to_string(dir.join("ca.crt"))?;
        let endpoint = endpoint(&authority, dir, &ca, "probe")?;
        let hello = hello("probe", &Digest::default(), 0);
        let (out, mut answers, _) = open(&endpoint, address, &Arc::default(), hello).await?;
        say(
            &out,
            Body::Inventory(Inventory {
                first: true,
                last: true,
                updates: Vec::new(),
            }),
        )
        .await?;
        let (stop, stopped) = watch::channel(false);
        let times = Arc::new(Mutex::new(Vec::new()));
        let task = tokio::spawn({
            let times = times.clone();
            async move {
                let mut id = 0;
                while !*stopped.borrow() {
                    id += 1;
                    let start = Instant::now();
                    say(&out, Body::CreationRequest(CreationRequest { id })).await?;
                    loop {
                        let message = answers.message().await?.context("the hub ended the session")?;
                        if matches!(message.body, Some(Told::CreationGrant(grant)) if grant.id == id) {
                            break;
                        }
                    }
                    let taken = start.elapsed().as_secs_f64() * 1000.0;
                    times.lock().unwrap_or_else(PoisonError::into_inner).push(taken);
                    say(&out, Body::CreationDone(CreationDone { id })).await?;
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
                Ok(())
            }
        });
        Ok(Probe { times, stop, task })
    }

    /// The times since the last call, in milliseconds.
    #[must_use]
    pub fn take(&self) -> Vec<f64> {
        std::mem::take(&mut *self.times.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Ends it.
    ///
    /// # Errors
    /// When it has ended before.
    pub async fn end(self) -> anyhow::Result<()> {
        // An error means that it has ended, which the task says.
        let _ = self.stop.send(true);
        self.task.await?
    }
}
