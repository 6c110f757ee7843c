//! A hub over real mTLS sockets, and clients that hold a spoke's certificate and send what they like.
#![allow(clippy::unwrap_used, clippy::expect_used, dead_code)]

pub mod own;
pub mod plan;

use std::path::Path;
use std::time::Duration;

use clap::Parser as _;
use hub::access::Sight;
use hub::config::Config;
use hub::lock::Command;
use hub::run::{Running, start};
use prost::Message as _;
use proto::possession::{MasterKey, prove};
use proto::v1::fleet_control_client::FleetControlClient;
use proto::v1::fleet_link_client::FleetLinkClient;
use proto::v1::fleet_view_client::FleetViewClient;
use proto::v1::hub_message::Body as Told;
use proto::v1::object_state::Body as Object;
use proto::v1::spoke_message::Body;
use proto::v1::{
    Condition, Hello, Inventory, LeaseAsk, LeaseGrant, LocksRequest, LocksResponse, ObjectState,
    ObjectUpdate, PolicyState, RepositoryState, RetentionPolicySpec, RetentionRule, SpokeMessage, Welcome,
};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, SanType};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};

pub const ID: &str = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
pub const OTHER: &str = "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb";
/// Nothing in these tests takes longer.
const SOON: Duration = Duration::from_secs(20);

pub struct Fleet {
    pub dir: tempfile::TempDir,
    issuer: Issuer<'static, KeyPair>,
    stop: CancellationToken,
    more: Vec<String>,
    pub running: Running,
}

pub fn config(dir: &Path, more: &[&str]) -> Config {
    let path = |name: &str| dir.join(name).to_str().unwrap().to_owned();
    let files = [
        ("--tls-cert", path("hub.crt")),
        ("--tls-key", path("hub.key")),
        ("--tls-ca", path("ca.crt")),
        ("--authority-dir", path("authority")),
        ("--store", path("fleet.db")),
        ("--trust-domain", "fleet".to_owned()),
    ];
    let mut arguments: Vec<String> = vec!["fleet-hub".to_owned()];
    arguments.extend(files.into_iter().flat_map(|(flag, path)| [flag.to_owned(), path]));
    let short = "--link-address 127.0.0.1:0 --enrol-address 127.0.0.1:0 --view-address 127.0.0.1:0 --heartbeat-interval 10s --drain-limit 1s \
                 --unsafe-short-leases";
    arguments.extend(short.split_whitespace().map(str::to_owned));
    if !more.contains(&"--lease-ttl") {
        arguments.extend(["--lease-ttl", "1s", "--lock-delay", "4s"].map(str::to_owned));
    }
    if !more.contains(&"--admin-address") {
        arguments.extend(["--admin-address", "127.0.0.1:0"].map(str::to_owned));
    }
    arguments.extend(more.iter().map(|text| (*text).to_owned()));
    Config::parse_from(arguments)
}

fn issue(issuer: &Issuer<'static, KeyPair>, dns: &str, uri: Option<&str>) -> (String, String) {
    let key = KeyPair::generate().unwrap();
    let mut parameters = CertificateParams::new(vec![dns.to_owned()]).unwrap();
    let uri = uri.map(|uri| SanType::URI(uri.try_into().unwrap()));
    parameters.subject_alt_names.extend(uri);
    let certificate = parameters.signed_by(&key, issuer).unwrap();
    (certificate.pem(), key.serialize_pem())
}

impl Fleet {
    pub async fn new() -> Fleet {
        Fleet::with(&[]).await
    }

    /// With more arguments of the hub.
    pub async fn with(more: &[&str]) -> Fleet {
        rustls::crypto::ring::default_provider().install_default().ok();
        let dir = tempfile::tempdir().unwrap();
        let key = KeyPair::generate().unwrap();
        let mut parameters = CertificateParams::default();
        parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let ca = parameters.self_signed(&key).unwrap().pem();
        std::fs::write(dir.path().join("ca.crt"), ca).unwrap();
        let issuer = Issuer::new(parameters, key);
        let (cert, key) = issue(&issuer, "hub", None);
        std::fs::write(dir.path().join("hub.crt"), cert).unwrap();
        std::fs::write(dir.path().join("hub.key"), key).unwrap();
        let stop = CancellationToken::new();
        let running = start(&config(dir.path(), more), stop.clone()).await.unwrap();
        Fleet {
            dir,
            issuer,
            stop,
            more: more.iter().map(|text| (*text).to_owned()).collect(),
            running,
        }
    }

    pub async fn restart(self) -> Fleet {
        self.restart_after(std::time::Duration::ZERO).await
    }

    /// Starts the hub again when its store is older.
    pub async fn restart_after(self, age: std::time::Duration) -> Fleet {
        self.restart_on(async |_| tokio::time::sleep(age).await).await
    }

    /// Starts the hub again after a change to the folder of its store.
    pub async fn restart_on(self, change: impl AsyncFnOnce(&Path)) -> Fleet {
        self.stop.cancel();
        self.running.ended().await.unwrap();
        change(self.dir.path()).await;
        let stop = CancellationToken::new();
        let more: Vec<&str> = self.more.iter().map(String::as_str).collect();
        let running = start(&config(self.dir.path(), &more), stop.clone())
            .await
            .unwrap();
        Fleet {
            dir: self.dir,
            issuer: self.issuer,
            stop,
            more: self.more,
            running,
        }
    }

    /// As above, with other arguments.
    pub async fn restart_with(mut self, more: &[&str], change: impl AsyncFnOnce(&Path)) -> Fleet {
        self.more = more.iter().map(|text| (*text).to_owned()).collect();
        self.restart_on(change).await
    }

    /// Stops the hub, and gives back what is needed to start another.
    pub async fn stop(self) -> tempfile::TempDir {
        self.stop.cancel();
        self.running.ended().await.unwrap();
        self.dir
    }

    /// A certificate and its key, PEM.
    pub fn certificate(&self, uri: &str) -> (String, String) {
        issue(&self.issuer, "peer", Some(uri))
    }

    async fn dial(&self, port: u16, uri: &str) -> Channel {
        let identity = issue(&self.issuer, "peer", Some(uri));
        self.connect(port, Some(identity)).await.unwrap()
    }

    /// With a certificate and its key, PEM, or without.
    pub async fn connect(
        &self,
        port: u16,
        identity: Option<(String, String)>,
    ) -> Result<Channel, tonic::transport::Error> {
        let authorities = self.running.hub.membership.authorities();
        let ca: String = authorities.iter().map(|der| own::pem(der)).collect();
        let mut tls = ClientTlsConfig::new()
            .ca_certificate(Certificate::from_pem(ca))
            .domain_name("hub");
        if let Some((cert, key)) = identity {
            tls = tls.identity(Identity::from_pem(cert, key));
        }
        let endpoint = Endpoint::from_shared(format!("https://127.0.0.1:{port}")).unwrap();
        endpoint.tls_config(tls)?.connect().await
    }

    /// A connection of a person to the view, such as `person/ann`.
    pub async fn view_as(&self, who: &str) -> Channel {
        let uri = format!("spiffe://fleet/{who}");
        self.dial(self.running.view.port(), &uri).await
    }

    /// A certificate that has ended, and its key, PEM.
    pub fn expired(&self, uri: &str) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let mut parameters = CertificateParams::new(vec!["peer".to_owned()]).unwrap();
        parameters.not_after = rcgen::date_time_ymd(2020, 1, 1);
        parameters
            .subject_alt_names
            .push(SanType::URI(uri.try_into().unwrap()));
        let certificate = parameters.signed_by(&key, &self.issuer).unwrap();
        (certificate.pem(), key.serialize_pem())
    }

    /// A connection to the hub's view.
    pub async fn channel(&self, uri: &str) -> Channel {
        self.dial(self.running.view.port(), uri).await
    }

    pub async fn operator(&self) -> FleetViewClient<Channel> {
        FleetViewClient::new(self.channel("spiffe://fleet/operator/ann").await)
    }

    /// What a person makes clusters do, as `spiffe://fleet/<role>`.
    pub async fn control(&self, role: &str) -> FleetControlClient<Channel> {
        let uri = format!("spiffe://fleet/{role}");
        FleetControlClient::new(self.dial(self.running.view.port(), &uri).await)
    }

    pub async fn spoke(&self, cluster: &str) -> Spoke {
        self.spoke_that_says(cluster, Hello::default()).await
    }

    pub async fn spoke_that_says(&self, cluster: &str, hello: Hello) -> Spoke {
        let uri = format!("spiffe://fleet/spoke/{cluster}");
        let channel = self.dial(self.running.link.port(), &uri).await;
        open_session(channel, cluster, hello).await.unwrap()
    }

    pub async fn locks(&self) -> LocksResponse {
        let locks = &self.running.hub.locks;
        let ask = locks.ask(|reply| Command::Locks(LocksRequest::default(), Sight::EVERYTHING, reply));
        ask.await.unwrap()
    }

    /// How often a message was refused for a reason.
    pub fn refused(&self, message: &str, reason: &str) -> u64 {
        self.running
            .hub
            .metrics
            .refused
            .with_label_values(&[message, reason])
            .get()
    }

    pub async fn until(&self, what: &str, holds: impl AsyncFn(&Fleet) -> bool) {
        let wait = async {
            while !holds(self).await {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(SOON, wait)
            .await
            .unwrap_or_else(|_| panic!("{what} did not come"));
    }

    pub async fn until_refused(&self, message: &str, reason: &str) {
        let what = format!("a refusal of {message} for {reason}");
        self.until(&what, async |fleet| fleet.refused(message, reason) > 0)
            .await;
    }

    pub async fn until_binding(&self, cluster: &str, id: &str, state: &str) {
        let what = format!("{cluster} {state}");
        self.until(&what, async |fleet| {
            fleet.running.hub.read(|inventory| {
                let binding = inventory.bindings().get(cluster, id);
                binding.is_some_and(|binding| binding.state.as_str() == state)
            })
        })
        .await;
    }
}

/// A session of a spoke, up to its welcome.
pub async fn open_session(channel: Channel, cluster: &str, hello: Hello) -> Result<Spoke, tonic::Status> {
    let (out, stream) = mpsc::channel(256);
    let hello = Hello {
        protocol_min: proto::PROTOCOL_MIN,
        protocol_max: proto::PROTOCOL_MAX,
        incarnation: if hello.incarnation.is_empty() {
            "one".to_owned()
        } else {
            hello.incarnation
        },
        ..hello
    };
    let mut spoke = Spoke {
        cluster: cluster.to_owned(),
        out,
        told: Vec::new(),
        answers: None,
        welcome: Welcome::default(),
    };
    spoke.say(Body::Hello(hello)).await;
    let mut client = FleetLinkClient::new(channel);
    let answers = client.link(ReceiverStream::new(stream)).await?;
    spoke.answers = Some(answers.into_inner());
    let first = spoke.next().await?.and_then(|message| message.body);
    match first {
        Some(Told::Welcome(welcome)) => spoke.welcome = welcome,
        other => panic!("{cluster}: {other:?} is no welcome"),
    }
    Ok(spoke)
}

pub struct Spoke {
    pub cluster: String,
    out: mpsc::Sender<SpokeMessage>,
    answers: Option<tonic::Streaming<proto::v1::HubMessage>>,
    /// Everything that the hub has sent so far.
    pub told: Vec<Told>,
    pub welcome: Welcome,
}

impl Spoke {
    pub async fn say(&self, body: Body) {
        let message = SpokeMessage { body: Some(body) };
        // The session may have been ended meanwhile.
        let _ = self.out.send(message).await;
    }

    pub async fn tell(&self, objects: Vec<ObjectState>) {
        let updates = objects.into_iter().map(|object| ObjectUpdate {
            uid: object.uid.clone(),
            state: object.encode_to_vec(),
        });
        let inventory = Inventory {
            first: true,
            last: true,
            updates: updates.collect(),
        };
        self.say(Body::Inventory(inventory)).await;
    }

    /// Reads until the hub sends what is waited for.
    pub async fn until<T>(&mut self, what: &str, mut find: impl FnMut(&Told) -> Option<T>) -> T {
        let cluster = self.cluster.clone();
        let read = async {
            loop {
                let message = self.answers.as_mut().unwrap().message().await.unwrap();
                let told = message
                    .unwrap_or_else(|| panic!("{cluster}: the stream ended"))
                    .body
                    .unwrap();
                let found = find(&told);
                self.told.push(told);
                if let Some(found) = found {
                    return found;
                }
            }
        };
        let found = tokio::time::timeout(SOON, read).await;
        found.unwrap_or_else(|_| panic!("{cluster}: {what} did not come"))
    }

    /// Answers the hub's question about a repository.
    pub async fn prove(&mut self, id: &str, key: u8) {
        let asked = self
            .until("a challenge", |told| match told {
                Told::PossessionChallenge(asked) if asked.restic_id == id => Some(asked.clone()),
                _ => None,
            })
            .await;
        let proof = prove(&master(key), &self.cluster, id, &asked.nonce).unwrap();
        self.say(Body::PossessionProof(proof)).await;
    }

    pub async fn ask(&self, operation: &str) {
        self.say(Body::LeaseAsk(ask(operation))).await;
    }

    pub async fn granted(&mut self) -> LeaseGrant {
        self.until("a grant", |told| match told {
            Told::LeaseGrant(grant) => Some(grant.clone()),
            _ => None,
        })
        .await
    }
}

pub fn ask(operation: &str) -> LeaseAsk {
    LeaseAsk {
        operation: operation.to_owned(),
        restic_id: ID.to_owned(),
        subject: "retention ns/p".to_owned(),
        policy: "p".to_owned(),
        ..LeaseAsk::default()
    }
}

pub fn master(key: u8) -> MasterKey {
    MasterKey {
        mac_k: vec![key; 16],
        mac_r: vec![2; 16],
        encrypt: vec![3; 32],
    }
}

pub fn object(uid: &str, body: Object) -> ObjectState {
    let ready = Condition {
        r#type: "Ready".to_owned(),
        status: "True".to_owned(),
        ..Condition::default()
    };
    ObjectState {
        uid: uid.to_owned(),
        namespace: "ns".to_owned(),
        name: uid.to_owned(),
        conditions: vec![ready],
        body: Some(body),
        ..ObjectState::default()
    }
}

pub fn repository(id: &str) -> ObjectState {
    let body = RepositoryState {
        url: "s3:http://one/bucket".to_owned(),
        restic_id: id.to_owned(),
        ..RepositoryState::default()
    };
    object("nas", Object::Repository(body))
}

pub fn policy(rule: RetentionRule) -> ObjectState {
    let spec = RetentionPolicySpec {
        rules: vec![rule],
        ..RetentionPolicySpec::default()
    };
    let body = PolicyState {
        repository_namespace: "ns".to_owned(),
        repository_name: "nas".to_owned(),
        restic_id: ID.to_owned(),
        spec: Some(spec),
        ..PolicyState::default()
    };
    object("p", Object::Policy(body))
}

pub fn keep_last(count: u32) -> RetentionRule {
    RetentionRule {
        keep_last: count,
        ..RetentionRule::default()
    }
}

impl Spoke {
    /// The next message, or the end.
    pub async fn next(&mut self) -> Result<Option<proto::v1::HubMessage>, tonic::Status> {
        self.answers.as_mut().unwrap().message().await
    }
}

/// Spoke a, bound to [`ID`] with proof, and one policy of it.
pub async fn member(fleet: &Fleet) -> Spoke {
    let mut spoke = fleet.spoke("a").await;
    spoke.tell(vec![repository(ID), policy(keep_last(3))]).await;
    fleet.until_binding("a", ID, "bound").await;
    if fleet
        .running
        .hub
        .read(|i| !i.bindings().get("a", ID).unwrap().proven)
    {
        spoke.prove(ID, 1).await;
    }
    spoke
}
