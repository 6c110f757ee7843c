//! How long a durable grant of the maintenance lock takes: a hub of its own, asked over mTLS as a spoke asks.

use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use prost::Message as _;
use proto::v1::fleet_link_client::FleetLinkClient;
use proto::v1::hub_message;
use proto::v1::spoke_message::Body;
use proto::v1::{
    Hello, Inventory, LeaseAsk, LeaseRelease, ObjectState, ObjectUpdate, RepositoryState, SpokeMessage,
    object_state,
};
use tests::pki::{Authority, Names};
use tests::{Bed, progress};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};

use crate::report::{Figure, Goal};

/// Grants that are measured.
const GRANTS: u64 = 1000;
/// Those before them only warm up.
const WARM: u64 = 50;
pub const LINK: &str = "127.0.0.1:18443";

/// A hub as a process of this machine.
pub struct Hub(Child);

impl Hub {
    pub fn start(bed: &Bed, dir: &Path, profile: &str) -> anyhow::Result<Hub> {
        let path = |name: &str| dir.join(name);
        let program = bed.workspace.product(profile, "fleet-hub");
        let child = Command::new(program)
            .args(["--link-address", LINK, "--view-address", "127.0.0.1:0"])
            .args(["--admin-address", "127.0.0.1:0"])
            // Nothing is granted for one life of a lease after a start.
            .args(["--lease-ttl", "1s", "--lock-delay", "2s", "--unsafe-short-leases"])
            .arg("--tls-cert")
            .arg(path("hub.crt"))
            .arg("--tls-key")
            .arg(path("hub.key"))
            .arg("--tls-ca")
            .arg(path("ca.crt"))
            .args(["--trust-domain", "fleet"])
            .arg("--store")
            .arg(path("fleet.db"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(bed.dir().join("hub.log"))?)
            .spawn()?;
        Ok(Hub(child))
    }
}

impl Drop for Hub {
    fn drop(&mut self) {
        tests::process::signal(self.0.id(), "TERM");
        // Nothing more can be done about one that does not end.
        let _ = self.0.wait();
    }
}

/// The two directions of a spoke's stream.
struct Spoke {
    out: mpsc::Sender<SpokeMessage>,
    answers: Streaming<proto::v1::HubMessage>,
}

impl Spoke {
    async fn connect(dir: &Path) -> anyhow::Result<Spoke> {
        let channel = dial(dir).await?;
        let (out, stream) = mpsc::channel(8);
        let hello = Hello {
            protocol_min: proto::PROTOCOL_MIN,
            protocol_max: proto::PROTOCOL_MAX,
            incarnation: "bench".to_owned(),
            ..Hello::default()
        };
        // The hub answers when it has been greeted.
        let body = Some(Body::Hello(hello));
        out.send(SpokeMessage { body }).await?;
        let response = FleetLinkClient::new(channel)
            .link(ReceiverStream::new(stream))
            .await?;
        let answers = response.into_inner();
        let mut spoke = Spoke { out, answers };
        spoke
            .hear(|body| matches!(body, hub_message::Body::Welcome(_)).then_some(()))
            .await?;
        let inventory = Inventory {
            first: true,
            last: true,
            updates: vec![repository()],
        };
        spoke.say(Body::Inventory(inventory)).await?;
        Ok(spoke)
    }

    /// Waits until the hub has bound the cluster to its repository, and grants.
    async fn until_bound(&mut self) -> anyhow::Result<()> {
        let limit = Instant::now() + Duration::from_secs(20);
        while Instant::now() < limit {
            if tokio::time::timeout(Duration::from_secs(2), self.grant(0))
                .await
                .is_ok_and(|r| r.is_ok())
            {
                return Ok(());
            }
        }
        bail!("the hub grants nothing")
    }

    async fn say(&mut self, body: Body) -> anyhow::Result<()> {
        self.out.send(SpokeMessage { body: Some(body) }).await?;
        Ok(())
    }

    async fn hear<T>(&mut self, wanted: impl Fn(&hub_message::Body) -> Option<T>) -> anyhow::Result<T> {
        let limit = Instant::now() + Duration::from_secs(10);
        loop {
            let message = tokio::time::timeout_at(limit.into(), self.answers.message()).await??;
            let message = message.context("the hub ended the session")?;
            if let Some(found) = message.body.as_ref().and_then(&wanted) {
                return Ok(found);
            }
        }
    }

    /// Asks, is granted, and gives back: the time until the grant, in milliseconds.
    async fn grant(&mut self, n: u64) -> anyhow::Result<f64> {
        let (operation, restic_id) = (format!("job-{n}"), "a".repeat(64));
        let ask = LeaseAsk {
            operation: operation.clone(),
            restic_id: restic_id.clone(),
            subject: "retention bench/nightly".to_owned(),
            ..LeaseAsk::default()
        };
        let start = Instant::now();
        self.say(Body::LeaseAsk(ask)).await?;
        let granted = self.hear(|body| match body {
            hub_message::Body::LeaseGrant(grant) if grant.operation == operation => Some(grant.token),
            _ => None,
        });
        let token = granted.await?;
        let taken = start.elapsed().as_secs_f64() * 1000.0;
        let release = LeaseRelease {
            operation: operation.clone(),
            restic_id,
            token,
            ..LeaseRelease::default()
        };
        self.say(Body::LeaseRelease(release)).await?;
        let released = |body: &hub_message::Body| match body {
            hub_message::Body::LeaseReleased(released) => (released.token == token).then_some(()),
            _ => None,
        };
        self.hear(released).await?;
        Ok(taken)
    }
}

/// The repository that the cluster is bound to, because nobody else uses it.
fn repository() -> ObjectUpdate {
    let state = RepositoryState {
        restic_id: "a".repeat(64),
        ..RepositoryState::default()
    };
    let object = ObjectState {
        uid: "nas".to_owned(),
        namespace: "bench".to_owned(),
        name: "nas".to_owned(),
        body: Some(object_state::Body::Repository(state)),
        ..ObjectState::default()
    };
    ObjectUpdate {
        uid: object.uid.clone(),
        state: object.encode_to_vec(),
    }
}

/// 4 KiB written and synced, as often as there are grants, in milliseconds.
fn syncs(dir: &Path) -> anyhow::Result<Vec<f64>> {
    let mut file = File::create(dir.join("sync"))?;
    let mut times = Vec::new();
    for _ in 0..GRANTS {
        let start = Instant::now();
        file.write_all(&[7; 4096])?;
        file.sync_data()?;
        times.push(start.elapsed().as_secs_f64() * 1000.0);
    }
    Ok(times)
}

fn percentile(times: &mut [f64], percent: usize) -> anyhow::Result<f64> {
    times.sort_by(f64::total_cmp);
    let place = (times.len() * percent / 100).min(times.len().saturating_sub(1));
    times.get(place).copied().context("nothing was measured")
}

/// Certificates of a hub and a spoke in a folder.
pub fn certificates(dir: &Path) -> anyhow::Result<()> {
    let authority = Authority::create(dir, "ca")?;
    let names = |uri: &str| Names {
        common_name: "bench".to_owned(),
        dns: vec!["hub".to_owned()],
        uri: Some(uri.to_owned()),
        ..Names::default()
    };
    authority.issue("hub", names("spiffe://fleet/hub"))?;
    authority.issue("spoke", names("spiffe://fleet/spoke/bench"))?;
    Ok(())
}

/// A channel to the hub, as soon as it serves.
pub async fn dial(dir: &Path) -> anyhow::Result<Channel> {
    let read = |name: &str| std::fs::read(dir.join(name));
    let tls = ClientTlsConfig::new()
        .ca_certificate(Certificate::from_pem(read("ca.crt")?))
        .identity(Identity::from_pem(read("spoke.crt")?, read("spoke.key")?))
        .domain_name("hub");
    let endpoint = Endpoint::from_shared(format!("https://{LINK}"))?.tls_config(tls)?;
    tests::wait_until("the hub", Duration::from_secs(20), || async {
        Ok(endpoint.connect().await.ok())
    })
    .await
}

/// What a grant costs.
pub async fn lease(bed: &Bed, profile: &str) -> anyhow::Result<Vec<Figure>> {
    progress(&format!("{GRANTS} grants of the maintenance lock"));
    let dir = tempfile::tempdir_in(bed.dir())?;
    certificates(dir.path())?;
    let mut syncs = syncs(dir.path())?;
    let hub = Hub::start(bed, dir.path(), profile)?;
    let mut spoke = Spoke::connect(dir.path()).await?;
    spoke.until_bound().await?;
    let mut times = Vec::new();
    for n in 1..=WARM + GRANTS {
        let Ok(taken) = spoke.grant(n).await else {
            bail!(
                "grant {n} did not come; see {}",
                bed.dir().join("hub.log").display()
            );
        };
        if n > WARM {
            times.push(taken);
        }
    }
    drop(hub);
    let figure = |name, value, goal| Figure {
        name,
        value,
        unit: "ms",
        goal,
    };
    Ok(vec![
        figure("lease_grant_p50", percentile(&mut times, 50)?, Goal::Open),
        figure("lease_grant_p99", percentile(&mut times, 99)?, Goal::Below(10.0)),
        figure("disk_sync_p50", percentile(&mut syncs, 50)?, Goal::Open),
        figure("disk_sync_p99", percentile(&mut syncs, 99)?, Goal::Open),
    ])
}
