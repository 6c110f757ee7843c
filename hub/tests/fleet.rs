//! A hub over real mTLS sockets: what spokes report is what viewers read.

use std::path::Path;
use std::time::Duration;

use clap::Parser as _;
use hub::config::Config;
use hub::run::{Running, start};
use proto::v1::fleet_link_client::FleetLinkClient;
use proto::v1::fleet_view_client::FleetViewClient;
use proto::v1::spoke_message::Body;
use proto::v1::{
    Collection, Condition, Hello, Inventory, ListRequest, ObjectState, RepositoryRow, RepositoryState,
    RepositoryStatistics, SpokeMessage, StatusRequest, WatchRequest, hub_message, object_state, row,
    watch_event,
};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, SanType};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};

mod sessions;

/// Certificates of a fleet in a folder, and a hub that uses them.
struct Fleet {
    dir: tempfile::TempDir,
    issuer: Issuer<'static, KeyPair>,
    stop: CancellationToken,
    running: Running,
}

fn config(dir: &Path) -> Config {
    let path = |name: &str| dir.join(name).to_str().unwrap().to_owned();
    let (cert, key, ca, store) = (path("hub.crt"), path("hub.key"), path("ca.crt"), path("fleet.db"));
    Config::parse_from([
        "fleet-hub",
        "--link-address",
        "127.0.0.1:0",
        "--view-address",
        "127.0.0.1:0",
        "--admin-address",
        "127.0.0.1:0",
        "--tls-cert",
        &cert,
        "--tls-key",
        &key,
        "--tls-ca",
        &ca,
        "--trust-domain",
        "fleet",
        "--store",
        &store,
        "--heartbeat-interval",
        "200ms",
        "--stale-after",
        "2s",
        "--disconnect-grace",
        "1s",
        "--watch-heartbeat",
        "300ms",
        // Nothing is granted for one life after a start.
        "--unsafe-short-leases",
        "--lease-ttl",
        "300ms",
        "--lock-delay",
        "600ms",
    ])
}

fn issue(issuer: &Issuer<'static, KeyPair>, dns: &str, uri: Option<&str>) -> (String, String) {
    let key = KeyPair::generate().unwrap();
    let mut parameters = CertificateParams::new(vec![dns.to_owned()]).unwrap();
    parameters
        .subject_alt_names
        .extend(uri.map(|uri| SanType::URI(uri.try_into().unwrap())));
    (
        parameters.signed_by(&key, issuer).unwrap().pem(),
        key.serialize_pem(),
    )
}

impl Fleet {
    async fn new() -> Fleet {
        rustls::crypto::ring::default_provider().install_default().ok();
        let dir = tempfile::tempdir().unwrap();
        let key = KeyPair::generate().unwrap();
        let mut parameters = CertificateParams::default();
        parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        std::fs::write(
            dir.path().join("ca.crt"),
            parameters.self_signed(&key).unwrap().pem(),
        )
        .unwrap();
        let issuer = Issuer::new(parameters, key);
        let (cert, key) = issue(&issuer, "hub", None);
        std::fs::write(dir.path().join("hub.crt"), cert).unwrap();
        std::fs::write(dir.path().join("hub.key"), key).unwrap();
        let stop = CancellationToken::new();
        let running = start(&config(dir.path()), stop.clone()).await.unwrap();
        Fleet {
            dir,
            issuer,
            stop,
            running,
        }
    }

    async fn restart(self) -> Fleet {
        self.stop.cancel();
        self.running.ended().await.unwrap();
        let stop = CancellationToken::new();
        let running = start(&config(self.dir.path()), stop.clone()).await.unwrap();
        Fleet {
            dir: self.dir,
            issuer: self.issuer,
            stop,
            running,
        }
    }

    async fn dial(&self, port: u16, uri: Option<&str>) -> Result<Channel, tonic::transport::Error> {
        let ca = std::fs::read(self.dir.path().join("ca.crt")).unwrap();
        let mut tls = ClientTlsConfig::new()
            .ca_certificate(Certificate::from_pem(ca))
            .domain_name("hub");
        if let Some(uri) = uri {
            let (cert, key) = issue(&self.issuer, "peer", Some(uri));
            tls = tls.identity(Identity::from_pem(cert, key));
        }
        Endpoint::from_shared(format!("https://127.0.0.1:{port}"))
            .unwrap()
            .tls_config(tls)
            .unwrap()
            .connect()
            .await
    }

    async fn view(&self) -> FleetViewClient<Channel> {
        FleetViewClient::new(
            self.dial(self.running.view.port(), Some("spiffe://fleet/viewer/ann"))
                .await
                .unwrap(),
        )
    }

    /// A spoke that reports one repository and stays connected as long as what is returned lives.
    async fn spoke(&self, cluster: &str, url: &str) -> mpsc::Sender<SpokeMessage> {
        let channel = self
            .dial(
                self.running.link.port(),
                Some(&format!("spiffe://fleet/spoke/{cluster}")),
            )
            .await
            .unwrap();
        let (out, stream) = mpsc::channel(8);
        let hello = Hello {
            protocol_min: proto::PROTOCOL_MIN,
            protocol_max: proto::PROTOCOL_MAX,
            ..Hello::default()
        };
        out.send(SpokeMessage {
            body: Some(Body::Hello(hello)),
        })
        .await
        .unwrap();
        let mut answers = FleetLinkClient::new(channel)
            .link(ReceiverStream::new(stream))
            .await
            .unwrap()
            .into_inner();
        let welcome = answers.message().await.unwrap().unwrap().body.unwrap();
        assert!(matches!(welcome, hub_message::Body::Welcome(_)));
        let state = update(&repository(cluster, url));
        let mut digest = proto::digest::Digest::default();
        digest.add(&proto::digest::object_hash(&state.uid, &state.state));
        let inventory = Inventory {
            updates: vec![state],
            first: true,
            last: true,
        };
        out.send(SpokeMessage {
            body: Some(Body::Inventory(inventory)),
        })
        .await
        .unwrap();
        tokio::spawn(async move { while let Ok(Some(_)) = answers.message().await {} });
        let beats = out.downgrade();
        tokio::spawn(async move {
            loop {
                tokio::time::sleep(Duration::from_millis(200)).await;
                let Some(out) = beats.upgrade() else { return };
                let beat = proto::v1::Heartbeat {
                    digest: digest.to_bytes(),
                    objects: 1,
                };
                if out
                    .send(SpokeMessage {
                        body: Some(Body::Heartbeat(beat)),
                    })
                    .await
                    .is_err()
                {
                    return;
                }
            }
        });
        out
    }

    async fn repositories(&self) -> Vec<RepositoryRow> {
        let request = ListRequest {
            collection: Collection::Repositories.into(),
            ..ListRequest::default()
        };
        let rows = self.view().await.list(request).await.unwrap().into_inner().rows;
        rows.into_iter()
            .filter_map(|r| match r.body {
                Some(row::Body::Repository(r)) => Some(r),
                _ => None,
            })
            .collect()
    }

    async fn until(&self, what: &str, holds: impl Fn(&[RepositoryRow]) -> bool) {
        for _ in 0..100 {
            if holds(&self.repositories().await) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        panic!("{what} did not come: {:?}", self.repositories().await);
    }
}

fn update(object: &ObjectState) -> proto::v1::ObjectUpdate {
    proto::v1::ObjectUpdate {
        uid: object.uid.clone(),
        state: prost::Message::encode_to_vec(object),
    }
}

fn repository(cluster: &str, url: &str) -> ObjectState {
    let ready = Condition {
        r#type: "Ready".into(),
        status: "True".into(),
        ..Condition::default()
    };
    let statistics = RepositoryStatistics {
        stored_bytes: 42,
        as_of: Some(proto::time::from_unix(1)),
        ..Default::default()
    };
    let body = RepositoryState {
        url: url.to_owned(),
        restic_id: "a".repeat(64),
        statistics: Some(statistics),
        ..Default::default()
    };
    ObjectState {
        uid: format!("{cluster}-1"),
        namespace: "ns".into(),
        name: "nas".into(),
        conditions: vec![ready],
        body: Some(object_state::Body::Repository(body)),
        ..ObjectState::default()
    }
}

#[tokio::test]
async fn two_clusters_one_repository_one_row_and_staleness_shows() {
    let fleet = Fleet::new().await;
    let _a = fleet.spoke("a", "s3:http://one/bucket").await;
    let b = fleet.spoke("b", "s3:http://two/bucket").await;
    fleet
        .until(
            "one row of two clusters",
            |rows| matches!(rows, [row] if row.clusters == ["a", "b"] && row.state == "ready" && row.statistics.is_some()),
        )
        .await;
    let rows = fleet.repositories().await;
    assert_eq!(
        (
            rows[0].bindings.len(),
            rows[0].statistics.as_ref().unwrap().stored_bytes
        ),
        (2, 42)
    );

    drop(b);
    let stale_b = |rows: &[RepositoryRow]| {
        rows[0]
            .bindings
            .iter()
            .any(|b| b.cluster == "b" && b.freshness.as_ref().unwrap().stale)
    };
    fleet.until("b stale", stale_b).await;
    assert!(
        !fleet.repositories().await[0]
            .bindings
            .iter()
            .any(|b| b.cluster == "a" && b.freshness.as_ref().unwrap().stale)
    );
    let status = fleet
        .view()
        .await
        .status(StatusRequest {})
        .await
        .unwrap()
        .into_inner();
    assert_eq!((status.verdict.as_str(), status.clusters_stale), ("unknown", 1));
    let _b = fleet.spoke("b", "s3:http://two/bucket").await;
    fleet.until("b fresh again", |rows| !stale_b(rows)).await;
}

#[tokio::test]
async fn a_restarted_hub_knows_everything_and_calls_it_stale_until_confirmed() {
    let fleet = Fleet::new().await;
    let a = fleet.spoke("a", "s3:http://one/bucket").await;
    fleet.until("the row", |rows| rows.len() == 1).await;
    tokio::time::timeout(Duration::from_secs(5), async {
        while fleet.running.hub.read(|i| i.member("a").is_none()) {
            tokio::task::yield_now().await;
        }
    })
    .await
    .unwrap();
    let epoch = fleet.running.hub.epoch;
    drop(a);
    let fleet = fleet.restart().await;
    assert!(fleet.running.hub.epoch > epoch);
    let rows = fleet.repositories().await;
    assert_eq!((rows.len(), rows[0].state.as_str()), (1, "stale"));
    let _a = fleet.spoke("a", "s3:http://one/bucket").await;
    fleet.until("fresh", |rows| rows[0].state == "ready").await;
}

#[tokio::test]
async fn a_certificate_opens_only_its_own_door() {
    let fleet = Fleet::new().await;
    let (link, view) = (fleet.running.link.port(), fleet.running.view.port());
    let spoke = fleet.dial(view, Some("spiffe://fleet/spoke/a")).await.unwrap();
    let refused = FleetViewClient::new(spoke)
        .status(StatusRequest {})
        .await
        .unwrap_err();
    assert_eq!(refused.code(), tonic::Code::PermissionDenied);
    let viewer = fleet.dial(link, Some("spiffe://fleet/viewer/ann")).await.unwrap();
    let (_out, stream) = mpsc::channel::<SpokeMessage>(1);
    let refused = FleetLinkClient::new(viewer)
        .link(ReceiverStream::new(stream))
        .await
        .unwrap_err();
    assert_eq!(refused.code(), tonic::Code::PermissionDenied);
    // Without a certificate TLS 1.3 lets the connection stand until the first request.
    if let Ok(nobody) = fleet.dial(view, None).await {
        assert!(
            FleetViewClient::new(nobody)
                .status(StatusRequest {})
                .await
                .is_err()
        );
    }
}

#[tokio::test]
async fn a_watch_shows_what_is_then_a_bookmark_then_changes_and_heartbeats() {
    let fleet = Fleet::new().await;
    let a = fleet.spoke("a", "s3:http://one/bucket").await;
    fleet.until("the row", |rows| rows.len() == 1).await;
    let request = WatchRequest {
        collection: Collection::Repositories.into(),
        ..WatchRequest::default()
    };
    let mut events = fleet.view().await.watch(request).await.unwrap().into_inner();
    let mut seen = Vec::new();
    let mut changed = repository("a", "s3:http://three/bucket");
    changed.uid = "a-2".into();
    changed.name = "other".into();
    let mut told = false;
    tokio::time::timeout(Duration::from_secs(20), async {
        while let Some(event) = events.message().await.unwrap() {
            match event.body.unwrap() {
                watch_event::Body::Upsert(row) => {
                    let Some(row::Body::Repository(row)) = row.body else {
                        panic!()
                    };
                    seen.push(format!("row {}", row.bindings.len()));
                }
                watch_event::Body::Bookmark(_) => seen.push("bookmark".to_owned()),
                watch_event::Body::Heartbeat(_) => seen.push("heartbeat".to_owned()),
                watch_event::Body::Removed(_) => panic!("nothing was removed"),
                watch_event::Body::Begin(_) => {}
            }
            if !told && seen.iter().any(|s| s == "bookmark") {
                told = true;
                let delta = proto::v1::Delta {
                    updates: vec![update(&changed)],
                    ..Default::default()
                };
                a.send(SpokeMessage {
                    body: Some(Body::Delta(delta)),
                })
                .await
                .unwrap();
            }
            if seen.iter().any(|s| s == "row 2") && seen.last().is_some_and(|s| s == "heartbeat") {
                return;
            }
        }
    })
    .await
    .unwrap_or_else(|_| panic!("{seen:?}"));
    assert_eq!(seen[..2], ["row 1", "bookmark"]);
}
