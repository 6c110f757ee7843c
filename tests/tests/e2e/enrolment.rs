//! Clusters join with a token, and leave when a person bans them.

use std::time::Duration;

use proto::v1::fleet_enrol_client::FleetEnrolClient;
use proto::v1::fleet_link_client::FleetLinkClient;
use proto::v1::hub_message::Body as Told;
use proto::v1::spoke_message::Body;
use proto::v1::{EnrolRequest, Hello, Inventory, SpokeMessage};
use rcgen::{CertificateParams, KeyPair};
use serde_json::Value;
use tests::bed::{HUB_ENROL_PORT, HUB_LINK_PORT};
use tests::fleet::{SYSTEM, shell_ok};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};

use super::support::bed;

fn fleet(arguments: &[&str]) -> String {
    shell_ok(bed(), "fleet", arguments).unwrap()
}

fn state(cluster: &str) -> Value {
    let all: Value = serde_json::from_str(&fleet(&["clusters", "-o", "json"])).unwrap();
    let found = all["items"]
        .as_array()
        .unwrap()
        .iter()
        .find(|row| row["name"] == cluster);
    found.map_or(Value::Null, |row| row["state"].clone())
}

fn until(what: &str, holds: impl Fn() -> bool) {
    let end = std::time::Instant::now() + Duration::from_secs(90);
    while !holds() {
        assert!(std::time::Instant::now() < end, "{what} did not come");
        std::thread::sleep(Duration::from_millis(300));
    }
}

async fn dial(port: u16, identity: Option<Identity>) -> Result<Channel, tonic::transport::Error> {
    let authority = std::fs::read(bed().admin_file()).unwrap();
    let mut tls = ClientTlsConfig::new()
        .ca_certificate(Certificate::from_pem(authority))
        .domain_name("hub");
    if let Some(identity) = identity {
        tls = tls.identity(identity);
    }
    let endpoint = Endpoint::from_shared(bed().hub_address(port)).unwrap();
    endpoint.tls_config(tls).unwrap().connect().await
}

fn pem(der: &[u8]) -> String {
    use base64::Engine as _;
    let base64 = base64::engine::general_purpose::STANDARD.encode(der);
    format!("-----BEGIN CERTIFICATE-----\n{base64}\n-----END CERTIFICATE-----\n")
}

/// A session that reports an empty cluster for as long as it lives; an error if the hub does not take it.
async fn report(
    identity: &Identity,
) -> Result<
    (
        mpsc::Sender<SpokeMessage>,
        tonic::Streaming<proto::v1::HubMessage>,
    ),
    String,
> {
    let channel = dial(HUB_LINK_PORT, Some(identity.clone()))
        .await
        .map_err(|e| format!("{e:?}"))?;
    let (out, stream) = mpsc::channel(8);
    let hello = Hello {
        protocol_min: proto::PROTOCOL_MIN,
        protocol_max: proto::PROTOCOL_MAX,
        cluster_uid: "uid-of-third".to_owned(),
        incarnation: "one".to_owned(),
        ..Hello::default()
    };
    let say = |body| SpokeMessage { body: Some(body) };
    out.send(say(Body::Hello(hello))).await.unwrap();
    let answers = FleetLinkClient::new(channel)
        .link(ReceiverStream::new(stream))
        .await;
    let mut answers = answers
        .map_err(|status| status.message().to_owned())?
        .into_inner();
    let first = answers
        .message()
        .await
        .map_err(|status| status.message().to_owned())?;
    assert!(matches!(first.and_then(|m| m.body), Some(Told::Welcome(_))));
    let whole = Inventory {
        first: true,
        last: true,
        ..Inventory::default()
    };
    out.send(say(Body::Inventory(whole))).await.unwrap();
    Ok((out, answers))
}

#[test]
#[ignore = "needs clusters: make test"]
fn every_cluster_of_the_bed_has_joined_with_a_token() {
    for cluster in bed().clusters() {
        until("a connected cluster", || state(&cluster.name) == "connected");
        let made_by_hand = [
            "get",
            "secret",
            "-n",
            SYSTEM,
            "fleet-spoke-tls",
            "--ignore-not-found",
        ];
        assert_eq!(cluster.kubectl(&made_by_hand).unwrap(), "");
        let identity = [
            "get",
            "secret",
            "-n",
            SYSTEM,
            "fleet-spoke-identity",
            "-o",
            "jsonpath={.data}",
        ];
        let identity: Value = serde_json::from_str(&cluster.kubectl(&identity).unwrap()).unwrap();
        assert!(
            identity["tls.crt"].is_string() && identity["next.key"].is_null(),
            "joined, and nothing is left over"
        );
        let token = [
            "get",
            "secret",
            "-n",
            SYSTEM,
            "fleet-spoke-join",
            "-o",
            "go-template={{.data.token | base64decode}}",
        ];
        let token = cluster.kubectl(&token).unwrap();
        let logs = [
            "logs",
            "-n",
            SYSTEM,
            "-l",
            "app.kubernetes.io/name=fleet-spoke",
            "--tail=-1",
        ];
        assert!(
            !cluster.kubectl(&logs).unwrap().contains(token.trim()),
            "a token stands in a log"
        );
    }
}

#[test]
#[ignore = "needs clusters: make test"]
fn a_third_cluster_joins_is_banned_cannot_report_and_may_again() {
    let printed = fleet(&["clusters", "join", "third", "-o", "yaml"]);
    let value = |key: &str| {
        let line = printed
            .lines()
            .find(|line| line.trim_start().starts_with(key))
            .unwrap();
        line.split_once(": ").unwrap().1.trim_matches('"').to_owned()
    };
    let key = KeyPair::generate().unwrap();
    let csr = CertificateParams::default()
        .serialize_request(&key)
        .unwrap()
        .der()
        .to_vec();
    let request = EnrolRequest {
        token: value("token:"),
        csr,
        cluster: "third".to_owned(),
        cluster_uid: "uid-of-third".to_owned(),
    };
    assert_eq!(value("enrol:"), bed().hub_address(HUB_ENROL_PORT));
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let identity = runtime.block_on(async {
        let channel = dial(HUB_ENROL_PORT, None).await.unwrap();
        let answer = FleetEnrolClient::new(channel).enrol(request).await.unwrap();
        let chain = answer.into_inner().certificate.unwrap().chain;
        let chain: String = chain.iter().map(|der| pem(der)).collect();
        Identity::from_pem(chain, key.serialize_pem())
    });
    let (out, mut answers) = runtime.block_on(report(&identity)).unwrap();
    until("the third cluster", || state("third") == "connected");
    fleet(&["clusters", "ban", "third", "--reason", "lost"]);
    let ended = runtime.block_on(async {
        loop {
            match answers.message().await {
                Ok(Some(_)) => {}
                Ok(None) => panic!("it ended without a reason"),
                Err(status) => return status.message().to_owned(),
            }
        }
    });
    assert!(ended.contains("banned by admin (lost)"), "{ended}");
    drop(out);
    let refused = runtime.block_on(report(&identity)).err().unwrap();
    assert!(refused.contains("fleet clusters unban third"), "{refused}");
    assert_eq!(state("third"), "banned");
    fleet(&["clusters", "unban", "third"]);
    let session = runtime.block_on(report(&identity)).unwrap();
    until("the third cluster again", || state("third") == "connected");
    drop(session);
    // What other tests count is the two real ones.
    until("its end", || {
        shell_ok(bed(), "fleet", &["clusters", "forget", "third", "--yes"]).is_ok()
    });
}
