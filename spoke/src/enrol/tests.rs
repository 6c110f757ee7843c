//! A spoke that joins, on an API server in memory and a hub over real TLS.

use std::sync::{Arc, Mutex};

use proto::v1::EnrolResponse;
use proto::v1::fleet_enrol_server::{FleetEnrol, FleetEnrolServer};
use rcgen::{BasicConstraints, CertificateSigningRequestParams, IsCa, Issuer};
use serde_json::json;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::transport::{Identity as ServerIdentity, Server, ServerTlsConfig};
use tonic::{Request, Response, Status};

use super::*;
use crate::context::test_context_on;
use crate::testing::ApiServer;

/// A hub that signs what it is asked for, unless it is to fail.
struct Hub {
    issuer: Issuer<'static, KeyPair>,
    authority: Vec<u8>,
    /// Signing requests so far.
    asked: Mutex<Vec<Vec<u8>>>,
    /// Refusals and failures that come first.
    fails: Mutex<Vec<Status>>,
}

/// The hub as the server has it.
struct Served(Arc<Hub>);

#[tonic::async_trait]
impl FleetEnrol for Served {
    async fn enrol(&self, request: Request<EnrolRequest>) -> Result<Response<EnrolResponse>, Status> {
        let request = request.into_inner();
        assert!(
            request.token.starts_with("token") && request.cluster == "a" && request.cluster_uid == "uid-of-a"
        );
        self.0.asked.lock().unwrap().push(request.csr.clone());
        if let Some(status) = self.0.fails.lock().unwrap().pop() {
            return Err(status);
        }
        let csr = CertificateSigningRequestParams::from_der(&request.csr.as_slice().into()).unwrap();
        let leaf = csr.signed_by(&self.0.issuer).unwrap().der().to_vec();
        let certificate = IssuedCertificate {
            chain: vec![leaf, self.0.authority.clone()],
            authorities: vec![self.0.authority.clone()],
        };
        Ok(Response::new(EnrolResponse {
            certificate: Some(certificate),
        }))
    }
}

struct Scene {
    hub: Arc<Hub>,
    url: String,
    api: ApiServer,
    context: Arc<Context>,
    place: Place,
}

impl Scene {
    async fn new() -> Scene {
        rustls::crypto::ring::default_provider().install_default().ok();
        let key = KeyPair::generate().unwrap();
        let mut parameters = CertificateParams::default();
        parameters.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        let authority = parameters.self_signed(&key).unwrap();
        let issuer = Issuer::new(parameters, key);
        let own = KeyPair::generate().unwrap();
        let leaf = CertificateParams::new(vec!["hub".to_owned()]).unwrap();
        let leaf = leaf.signed_by(&own, &issuer).unwrap();
        let identity = ServerIdentity::from_pem(leaf.pem() + &authority.pem(), own.serialize_pem());
        let hub = Arc::new(Hub {
            issuer,
            authority: authority.der().to_vec(),
            asked: Mutex::default(),
            fails: Mutex::default(),
        });
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("https://{}", listener.local_addr().unwrap());
        let server = Server::builder()
            .tls_config(ServerTlsConfig::new().identity(identity))
            .unwrap()
            .add_service(FleetEnrolServer::new(Served(hub.clone())));
        tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
        let api = ApiServer::new();
        api.namespace("system");
        let context = test_context_on(api.client());
        Scene {
            hub,
            url,
            api,
            context,
            place: Place {
                namespace: "system".to_owned(),
                server_name: "hub".to_owned(),
            },
        }
    }

    fn pin(&self) -> KeyHash {
        proto::certificate::read(&self.hub.authority).unwrap().key
    }

    /// As a person applies it.
    fn invite(&self, token: &str, pin: &KeyHash) {
        use base64::Engine as _;
        let base64 = |text: &str| base64::engine::general_purpose::STANDARD.encode(text);
        self.api.put(&json!({ "apiVersion": "v1", "kind": "Secret", "metadata": { "name": JOIN, "namespace": "system" },
            "data": { "token": base64(token), "pin": base64(&hex::encode(pin)), "enrol": base64(&self.url),
                      "hub": base64("https://hub:8443"), "cluster": base64("a") } }));
    }

    async fn certificate(&self) -> Result<Held, String> {
        let held = certificate(&self.place, &self.context).await;
        held.map_err(|error| format!("{error:#}"))
    }

    fn asked(&self) -> Vec<Vec<u8>> {
        self.hub.asked.lock().unwrap().clone()
    }
}

fn key(request: &[u8]) -> Vec<u8> {
    let request = CertificateSigningRequestParams::from_der(&request.into()).unwrap();
    rcgen::PublicKeyData::subject_public_key_info(&request.public_key)
}

#[tokio::test]
async fn a_cluster_joins_once_and_every_replica_has_the_certificate() {
    let scene = Scene::new().await;
    let text = scene.certificate().await.err().unwrap();
    assert!(text.contains("fleet clusters join a"), "{text}");
    scene.invite("token one", &scene.pin());
    let held = scene.certificate().await.unwrap();
    assert_eq!(
        (held.hub.as_str(), held.signer),
        ("https://hub:8443", Some(scene.pin()))
    );
    let again = scene.certificate().await.unwrap();
    assert!(again == held && scene.asked().len() == 1, "read from the Secret");
    scene.api.put(&json!({ "apiVersion": "v1", "kind": "Secret", "metadata": { "name": JOIN, "namespace": "system" }, "data": {} }));
    assert!(
        scene.certificate().await.unwrap() == held,
        "what cannot be used takes nothing away"
    );
    let joined = membership(&scene.api.client(), "system").await.unwrap();
    assert!(joined.is_some());
    scene.api.delete::<Secret>("system", JOIN);
    assert!(
        scene.certificate().await.unwrap() == held,
        "also without the token"
    );
    let joined = membership(&scene.api.client(), "system").await.unwrap().unwrap();
    assert_eq!(
        (joined.cluster.as_str(), joined.hub.as_str()),
        ("a", "https://hub:8443")
    );
}

#[tokio::test]
async fn a_lost_answer_is_asked_for_again_with_the_same_key() {
    let scene = Scene::new().await;
    scene.invite("token one", &scene.pin());
    scene
        .hub
        .fails
        .lock()
        .unwrap()
        .push(Status::unavailable("the answer is lost"));
    let text = scene.certificate().await.err().unwrap();
    assert!(text.contains("the answer is lost"), "{text}");
    scene.certificate().await.unwrap();
    let asked = scene.asked();
    assert_eq!(asked.len(), 2);
    assert_eq!(key(&asked[0]), key(&asked[1]));
}

#[tokio::test]
async fn a_hub_of_another_authority_never_sees_the_token() {
    let scene = Scene::new().await;
    scene.invite("token one", &[7; 32]);
    let text = scene.certificate().await.err().unwrap();
    assert!(text.contains(pin::OTHER_HUB), "{text}");
    assert!(scene.asked().is_empty());
}

#[tokio::test]
async fn a_later_token_joins_again_and_a_bad_one_costs_no_good_certificate() {
    let scene = Scene::new().await;
    scene.invite("token one", &scene.pin());
    let first = scene.certificate().await.unwrap();
    scene
        .hub
        .fails
        .lock()
        .unwrap()
        .push(Status::permission_denied("it was used"));
    scene.invite("token two", &scene.pin());
    assert!(scene.certificate().await.unwrap() == first, "it is good still");
    let second = scene.certificate().await.unwrap();
    assert!(second.facts.key != first.facts.key, "another key");
    assert!(scene.certificate().await.unwrap() == second);
}

#[tokio::test]
async fn what_the_hub_announces_is_kept_for_the_next_dial() {
    let scene = Scene::new().await;
    scene.invite("token one", &scene.pin());
    let mut held = scene.certificate().await.unwrap();
    let next = CertificateParams::default()
        .self_signed(&KeyPair::generate().unwrap())
        .unwrap();
    let bundle = [scene.hub.authority.clone(), next.der().to_vec()];
    let keys = trust(&scene.place, &scene.context.applier, &mut held, &bundle)
        .await
        .unwrap();
    assert_eq!(keys.len(), 2);
    let kept = scene.certificate().await.unwrap();
    assert_eq!(kept.authorities.matches("BEGIN CERTIFICATE").count(), 2);
    assert!(
        trust(&scene.place, &scene.context.applier, &mut held, &[])
            .await
            .is_err(),
        "an empty bundle is none"
    );
    assert!(scene.certificate().await.unwrap() == kept);
}
