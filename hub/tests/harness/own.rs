//! A hub with an authority of its own, and clusters that join it.

use std::path::Path;
use std::time::Duration;

use clap::Parser as _;
use hub::access::Role;
use hub::config::{Config, Span};
use hub::run::{Running, start};
use proto::v1::fleet_clusters_client::FleetClustersClient;
use proto::v1::fleet_enrol_client::FleetEnrolClient;
use proto::v1::fleet_view_client::FleetViewClient;
use proto::v1::hub_message::Body as Told;
use proto::v1::spoke_message::Body;
use proto::v1::{
    CertificateRequest, CertificateStored, CreateJoinTokenRequest, CreateJoinTokenResponse, EnrolRequest,
    Hello, IssuedCertificate, LocksRequest, LocksResponse,
};
use rcgen::{CertificateParams, KeyPair};
use tokio_util::sync::CancellationToken;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Error, Identity};

use super::{Spoke, open_session};

pub struct Own {
    pub dir: tempfile::TempDir,
    stop: CancellationToken,
    more: &'static [&'static str],
    pub running: Running,
}

/// A cluster's key, and the certificate that it has for it.
#[derive(Clone)]
pub struct Holder {
    pub key: String,
    pub certificate: IssuedCertificate,
}

pub fn pem(der: &[u8]) -> String {
    hub::authority::certificate_pem(der)
}

/// A new key, PEM, and a signing request for it, DER.
pub fn request() -> (String, Vec<u8>) {
    let key = KeyPair::generate().unwrap();
    let request = CertificateParams::default().serialize_request(&key).unwrap();
    (key.serialize_pem(), request.der().to_vec())
}

fn config(dir: &Path, more: &[&str]) -> Config {
    let store = dir.join("fleet.db").to_str().unwrap().to_owned();
    let mut arguments = vec!["fleet-hub", "--store", &store];
    let addresses = [
        "--link-address",
        "--view-address",
        "--enrol-address",
        "--admin-address",
    ];
    arguments.extend(addresses.iter().flat_map(|flag| [flag, "127.0.0.1:0"]));
    let short = "--heartbeat-interval 10s --drain-limit 1s --unsafe-short-leases --trust-domain fleet --lease-ttl 1s --lock-delay 4s";
    arguments.extend(short.split_whitespace());
    arguments.extend(more);
    Config::parse_from(arguments)
}

impl Own {
    pub async fn new() -> Own {
        Own::with(&[]).await
    }

    pub async fn with(more: &'static [&'static str]) -> Own {
        rustls::crypto::ring::default_provider().install_default().ok();
        let dir = tempfile::tempdir().unwrap();
        let stop = CancellationToken::new();
        let running = start(&config(dir.path(), more), stop.clone()).await.unwrap();
        Own {
            dir,
            stop,
            more,
            running,
        }
    }

    pub async fn restart(self) -> Own {
        self.stop.cancel();
        self.running.ended().await.unwrap();
        let stop = CancellationToken::new();
        let running = start(&config(self.dir.path(), self.more), stop.clone())
            .await
            .unwrap();
        Own {
            stop,
            running,
            ..self
        }
    }

    pub fn bundle(&self) -> String {
        let membership = &self.running.hub.membership;
        membership.authorities().iter().map(|der| pem(der)).collect()
    }

    pub async fn dial(&self, port: u16, identity: Option<Identity>) -> Result<Channel, Error> {
        let mut tls = ClientTlsConfig::new()
            .ca_certificate(Certificate::from_pem(self.bundle()))
            .domain_name("hub");
        if let Some(identity) = identity {
            tls = tls.identity(identity);
        }
        let endpoint = Endpoint::from_shared(format!("https://127.0.0.1:{port}")).unwrap();
        endpoint.tls_config(tls).unwrap().connect().await
    }

    /// As the first operator gets it.
    pub async fn operator(&self) -> Channel {
        self.operator_for("1h").await
    }

    pub async fn operator_for(&self, valid: &str) -> Channel {
        let config = config(self.dir.path(), self.more);
        let valid: Span = valid.parse().unwrap();
        let file = hub::membership::operator_certificate(&config, "ann", Role::Admin, valid)
            .await
            .unwrap();
        let identity = Identity::from_pem(&file, &file);
        self.dial(self.running.view.port(), Some(identity)).await.unwrap()
    }

    pub async fn clusters(&self) -> FleetClustersClient<Channel> {
        FleetClustersClient::new(self.operator().await)
    }

    pub async fn view(&self) -> FleetViewClient<Channel> {
        FleetViewClient::new(self.operator().await)
    }

    pub async fn token(&self, cluster: &str) -> CreateJoinTokenResponse {
        let request = CreateJoinTokenRequest {
            cluster: cluster.to_owned(),
            valid_ms: 0,
        };
        let answer = self.clusters().await.create_join_token(request).await;
        answer.unwrap().into_inner()
    }

    pub async fn enrol(
        &self,
        cluster: &str,
        token: &str,
        csr: &[u8],
    ) -> Result<IssuedCertificate, tonic::Status> {
        let channel = self.dial(self.running.enrol.unwrap().port(), None).await.unwrap();
        let request = EnrolRequest {
            token: token.to_owned(),
            csr: csr.to_vec(),
            cluster: cluster.to_owned(),
            cluster_uid: format!("uid-of-{cluster}"),
        };
        let answer = FleetEnrolClient::new(channel).enrol(request).await?;
        Ok(answer.into_inner().certificate.unwrap())
    }

    /// A cluster that has joined.
    pub async fn join(&self, cluster: &str) -> Holder {
        let token = self.token(cluster).await.token;
        let (key, csr) = request();
        let certificate = self.enrol(cluster, &token, &csr).await.unwrap();
        Holder { key, certificate }
    }

    pub async fn connect(&self, cluster: &str, holder: &Holder) -> Result<Spoke, String> {
        let chain: String = holder.certificate.chain.iter().map(|der| pem(der)).collect();
        let identity = Identity::from_pem(chain, &holder.key);
        let channel = self.dial(self.running.link.port(), Some(identity)).await;
        let channel = channel.map_err(|error| format!("{error:?}"))?;
        let hello = Hello {
            cluster_uid: format!("uid-of-{cluster}"),
            ..Hello::default()
        };
        let session = open_session(channel, cluster, hello).await;
        session.map_err(|status| format!("{:?}: {}", status.code(), status.message()))
    }

    pub async fn locks(&self) -> LocksResponse {
        let locks = self.view().await.locks(LocksRequest::default()).await;
        locks.unwrap().into_inner()
    }

    /// What people and clusters did, newest first: what, and what came of it.
    pub async fn decisions(&self) -> Vec<(String, String)> {
        let request = proto::v1::AuditRequest {
            limit: 100,
            ..proto::v1::AuditRequest::default()
        };
        let audit = self.view().await.audit(request).await.unwrap().into_inner();
        let decisions = audit.decisions.into_iter();
        decisions
            .map(|decision| (decision.what, decision.after))
            .collect()
    }

    pub async fn until(&self, what: &str, holds: impl AsyncFn() -> bool) {
        let wait = async {
            while !holds().await {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        let waited = tokio::time::timeout(Duration::from_secs(20), wait).await;
        waited.unwrap_or_else(|_| panic!("{what} did not come"));
    }
}

/// How a session ends.
pub async fn end(spoke: &mut Spoke) -> tonic::Status {
    let read = async {
        loop {
            match spoke.next().await {
                Ok(Some(_)) => {}
                Ok(None) => panic!("it ended without a reason"),
                Err(status) => return status,
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(20), read)
        .await
        .expect("an end")
}

/// A certificate for a new key, which the spoke has not kept yet.
pub async fn renew(spoke: &mut Spoke) -> Holder {
    let (key, csr) = request();
    spoke
        .say(Body::CertificateRequest(CertificateRequest { csr }))
        .await;
    let certificate = spoke
        .until("a certificate", |told| match told {
            Told::CertificateIssued(issued) => issued.certificate.clone(),
            Told::CertificateRefused(refused) => panic!("{}", refused.reason),
            _ => None,
        })
        .await;
    Holder { key, certificate }
}

/// The spoke has kept a certificate.
pub async fn keep(spoke: &Spoke, holder: &Holder) {
    let serial = proto::certificate::read(&holder.certificate.chain[0])
        .unwrap()
        .serial;
    spoke
        .say(Body::CertificateStored(CertificateStored { serial }))
        .await;
}
