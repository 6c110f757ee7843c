//! Alerts of the hub: the fleet is not safe, silent, refused, paused, or the hub's own store is. The hub is reached by all
//! clusters and these faults show to all, so the test runs alone.

use std::path::Path;
use std::time::Duration;

use proto::v1::fleet_link_client::FleetLinkClient;
use proto::v1::spoke_message::Body;
use proto::v1::{Hello, LeaseAsk, SpokeMessage};
use serde_json::json;
use tests::bed::HUB_LINK_PORT;
use tests::fleet;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::{Certificate, ClientTlsConfig, Endpoint, Identity};

use super::prometheus::Prometheus;
use crate::support::{Place, bed, s3};

pub const ALERTS: &[&str] = &[
    "FleetNotSafe",
    "FleetClusterStale",
    "FleetClusterRefused",
    "FleetMaintenanceWaits",
    "FleetMaintenancePaused",
    "FleetHubBackupOld",
    "FleetHubRefuses",
];

fn fleet(arguments: &[&str]) -> String {
    fleet::shell_ok(bed(), "fleet", arguments).unwrap()
}

/// A session with the certificate of cluster `stranger`, from a cluster with this uid, that asks for locks of a repository
/// that is none of its own.
async fn stranger(uid: &str, asks: usize) -> anyhow::Result<()> {
    let [certificate, key] = bed().issue_spoke("stranger", "stranger")?;
    let authority = certificate.with_file_name("ca.crt");
    let read = |path: &Path| std::fs::read(path);
    let tls = ClientTlsConfig::new()
        .ca_certificate(Certificate::from_pem(read(&authority)?))
        .identity(Identity::from_pem(read(&certificate)?, read(&key)?))
        .domain_name("hub");
    let url = format!("https://{}:{HUB_LINK_PORT}", bed().plan().node(0));
    let channel = Endpoint::from_shared(url)?.tls_config(tls)?.connect().await?;
    let (out, stream) = mpsc::channel(64);
    let hello = Hello {
        protocol_min: proto::PROTOCOL_MIN,
        protocol_max: proto::PROTOCOL_MAX,
        incarnation: uid.to_owned(),
        cluster_uid: uid.to_owned(),
        ..Hello::default()
    };
    let say = async |body: Body| out.send(SpokeMessage { body: Some(body) }).await;
    say(Body::Hello(hello)).await?;
    let answers = FleetLinkClient::new(channel)
        .link(ReceiverStream::new(stream))
        .await;
    let mut answers = answers?.into_inner();
    answers.message().await?;
    for n in 0..asks {
        let ask = LeaseAsk {
            operation: format!("job-{n}"),
            restic_id: "c".repeat(64),
            ..LeaseAsk::default()
        };
        say(Body::LeaseAsk(ask)).await?;
        // An answer to each: the reason of the refusal.
        answers.message().await?;
    }
    Ok(())
}

#[test]
#[ignore = "needs clusters: make long"]
fn alerts_of_the_hub_come_with_their_cause_and_end_with_its_mend() {
    let (hub, cluster) = (bed().cluster("a").unwrap(), bed().cluster("b").unwrap());
    let prometheus = Prometheus::with_hub(cluster.clone(), hub, 19_194);
    let raised = |alert| prometheus.until_raised(alert, "", "");
    let ended = |alert| prometheus.until_ended(alert, "", "");
    let dir = tempfile::tempdir().unwrap();
    let backup = |name: &str| fleet(&["hub", "backup", dir.path().join(name).to_str().unwrap()]);
    // One that another test has made may be old by now.
    backup("before");
    for alert in ALERTS {
        ended(alert);
    }

    let place = Place::new("b", "alerts-hub");
    let policy = json!({ "apiVersion": "backup.resticbackup.io/v1alpha1", "kind": "GlobalRetentionPolicy",
        "metadata": { "name": "nightly" },
        "spec": { "repositoryRef": { "name": "nas" }, "schedule": "@yearly", "initialRun": "Apply",
                  "policies": [{ "selector": {}, "retention": { "keepLast": 1 } }] } });
    place.apply(&[place.repository("nas", &s3(0, "alerts-hub")), policy]);
    place.until_ready("globalretentionpolicy/nightly");

    place.apply(&[place.backup("lost", json!({ "name": "none" }), json!({}))]);
    raised("FleetNotSafe");
    place.kubectl(&["delete", "resticbackup/lost"]).unwrap();
    ended("FleetNotSafe");

    fleet(&["pause", "--reason", "an alert is tried"]);
    fleet(&["retention", "run", "b/alerts-hub/nightly", "--no-wait"]);
    raised("FleetMaintenancePaused");
    raised("FleetMaintenanceWaits");
    fleet(&["resume"]);
    ended("FleetMaintenancePaused");
    ended("FleetMaintenanceWaits");

    backup("first");
    raised("FleetHubBackupOld");
    backup("second");
    ended("FleetHubBackupOld");

    cluster.scale("fleet-spoke", 0).unwrap();
    raised("FleetClusterStale");
    cluster.scale("fleet-spoke", 2).unwrap();
    fleet::rollout(&cluster, "fleet-spoke").unwrap();
    ended("FleetClusterStale");

    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(stranger("one", 40)).unwrap();
    raised("FleetHubRefuses");
    // The refusals are past; the cluster that sent them is gone from the fleet.
    ended("FleetHubRefuses");
    // Another cluster under its name, while the first was just there.
    let second =
        runtime.block_on(async { tokio::time::timeout(Duration::from_secs(30), stranger("two", 0)).await });
    eprintln!("the second of one name: {second:?}");
    raised("FleetClusterRefused");
    fleet(&["clusters", "forget", "stranger", "--yes"]);
    ended("FleetClusterRefused");
}
