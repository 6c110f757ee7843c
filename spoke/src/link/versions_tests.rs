//! A whole spoke at hubs of the version before this one and of one after it. The hub here sends and receives bytes.

use std::convert::Infallible;
use std::sync::Arc;
use std::task::{Context as Poll, Poll as Polled};
use std::time::Duration;

use axum::http;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use futures::{FutureExt as _, StreamExt as _};
use prost::Message as _;
use proto::v1::hub_message::Body as Told;
use proto::v1::spoke_message::Body;
use proto::v1::{
    Browse, BrowsePart, Command, CommandBody, CommandReport, CommandState, Hello, HubMessage, ObjectName,
    Question, ResyncRequest, RunBackup, SpokeMessage, Welcome, command_body,
};
use rcgen::{CertificateParams, KeyPair};
use tempfile::TempDir;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tonic::server::{NamedService, StreamingService};
use tonic::transport::{Identity, Server, ServerTlsConfig};
use tonic::{Request, Response, Status, Streaming};
use tower::Service;

use super::recorded::{self, Raw, field, later};
use crate::testing::ApiServer;
use crate::testing::restic::MemoryRestic;
use crate::testing::spoke::{SHOP, Spoke, backup, furnish};

const SOON: Duration = Duration::from_secs(20);

type Answers = mpsc::Sender<Result<Vec<u8>, Status>>;

/// A session as the hub has it.
struct Session {
    from: Streaming<Vec<u8>>,
    to: Answers,
}

/// A hub that hands each session out.
#[derive(Clone)]
struct Hub(mpsc::Sender<Session>);

impl NamedService for Hub {
    const NAME: &'static str = "fleet.v1.FleetLink";
}

impl StreamingService<Vec<u8>> for Hub {
    type Response = Vec<u8>;
    type ResponseStream = BoxStream<'static, Result<Vec<u8>, Status>>;
    type Future = BoxFuture<'static, Result<Response<Self::ResponseStream>, Status>>;

    fn call(&mut self, request: Request<Streaming<Vec<u8>>>) -> Self::Future {
        let sessions = self.0.clone();
        async move {
            let (to, answers) = mpsc::channel(64);
            let from = request.into_inner();
            sessions.send(Session { from, to }).await.ok();
            Ok(Response::new(ReceiverStream::new(answers).boxed()))
        }
        .boxed()
    }
}

impl Service<http::Request<tonic::body::Body>> for Hub {
    type Response = http::Response<tonic::body::Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Poll<'_>) -> Polled<Result<(), Infallible>> {
        Polled::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<tonic::body::Body>) -> Self::Future {
        let hub = self.clone();
        async move { Ok(tonic::server::Grpc::new(Raw).streaming(hub, request).await) }.boxed()
    }
}

impl Session {
    async fn send(&self, bytes: Vec<u8>) {
        self.to.send(Ok(bytes)).await.unwrap();
    }

    /// The next message that is searched for.
    async fn until<T>(&mut self, what: &str, mut find: impl FnMut(Body) -> Option<T>) -> T {
        let wait = async {
            loop {
                let bytes = self.from.next().await.expect("the stream goes on").unwrap();
                let body = SpokeMessage::decode(bytes.as_slice()).unwrap().body.unwrap();
                if let Some(found) = find(body) {
                    return found;
                }
            }
        };
        let found = timeout(SOON, wait).await;
        found.unwrap_or_else(|_| panic!("{what} did not come"))
    }

    async fn hello(&mut self) -> Hello {
        let find = |body| match body {
            Body::Hello(hello) => Some(hello),
            other => panic!("{other:?} came before a Hello"),
        };
        self.until("a Hello", find).await
    }

    /// Names of all resources of the next whole inventory.
    async fn inventory(&mut self) -> Vec<String> {
        let mut names = Vec::new();
        let find = |body| match body {
            Body::Inventory(part) => {
                let states = part.updates.iter().map(|update| update.state.as_slice());
                names.extend(states.map(|state| proto::v1::ObjectState::decode(state).unwrap().name));
                part.last.then_some(())
            }
            _ => None,
        };
        self.until("an inventory", find).await;
        names.sort();
        names
    }

    async fn reported(&mut self, id: &str, state: CommandState) -> CommandReport {
        let find = |body| match body {
            Body::CommandReport(report) if report.id == id && report.state() == state => Some(report),
            _ => None,
        };
        self.until(&format!("{id} {state:?}"), find).await
    }
}

struct Bench {
    sessions: mpsc::Receiver<Session>,
    api: ApiServer,
    restic: Arc<MemoryRestic>,
    spoke: Spoke,
    _files: TempDir,
}

impl Bench {
    /// A spoke of cluster a with a repository and a backup, and its hub.
    async fn new() -> Bench {
        rustls::crypto::ring::default_provider().install_default().ok();
        let key = KeyPair::generate().unwrap();
        let certificate = CertificateParams::new(vec!["hub".to_owned()])
            .unwrap()
            .self_signed(&key)
            .unwrap();
        let files = tempfile::tempdir().unwrap();
        let (certificate, key) = (certificate.pem(), key.serialize_pem());
        for (name, content) in [
            ("ca.crt", &certificate),
            ("tls.crt", &certificate),
            ("tls.key", &key),
        ] {
            std::fs::write(files.path().join(name), content).unwrap();
        }
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("https://{}", listener.local_addr().unwrap());
        let (sender, sessions) = mpsc::channel(4);
        let tls = ServerTlsConfig::new().identity(Identity::from_pem(&certificate, &key));
        let server = Server::builder()
            .tls_config(tls)
            .unwrap()
            .add_service(Hub(sender));
        tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
        let (api, restic) = (ApiServer::new(), Arc::new(MemoryRestic::default()));
        furnish(&api);
        backup(&api, "orders");
        let folder = files.path().to_str().unwrap();
        let arguments = [
            "--leader-elect",
            "false",
            "--cluster",
            "a",
            "--hub",
            &url,
            "--tls-dir",
            folder,
        ];
        let spoke = Spoke::start_as("", &api, &restic, &arguments).await;
        Bench {
            sessions,
            api,
            restic,
            spoke,
            _files: files,
        }
    }

    async fn session(&mut self) -> Session {
        timeout(SOON, self.sessions.recv()).await.unwrap().unwrap()
    }
}

fn encoded(body: Told) -> Vec<u8> {
    HubMessage { body: Some(body) }.encode_to_vec()
}

fn named(name: &str) -> Option<ObjectName> {
    Some(ObjectName {
        namespace: SHOP.to_owned(),
        name: name.to_owned(),
    })
}

#[tokio::test]
async fn a_hub_of_the_version_before_is_enough() {
    let mut bench = Bench::new().await;
    let mut session = bench.session().await;
    let hello = session.hello().await;
    assert!(hello.protocol_min <= 2 && hello.protocol_max >= 2, "{hello:?}");
    let mut messages = recorded::before_joining()
        .into_iter()
        .filter(|message| message.from_hub);
    let welcome = messages.next().unwrap();
    assert_eq!(welcome.name, "Welcome");
    session.send(welcome.bytes).await;
    assert_eq!(session.inventory().await, ["nas", "orders"]);
    // Grants are of an operation that this cluster does not have: they change nothing, and end nothing.
    for message in messages {
        session.send(message.bytes).await;
    }
    let again = ResyncRequest {
        reason: "the test".to_owned(),
    };
    session.send(encoded(Told::Resync(again))).await;
    assert_eq!(session.inventory().await, ["nas", "orders"]);
    assert_eq!(bench.spoke.context.certificate.trouble(), "");
    let collects = async {
        while !bench.restic.questions().contains(&"statistics") {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(SOON, collects)
        .await
        .expect("nobody appoints collectors: each collects for itself");
    assert!(bench.api.all::<k8s_openapi::api::batch::v1::Job>().is_empty());
    bench.spoke.stop().await;
}

#[tokio::test]
async fn what_a_later_hub_sends_is_refused_with_what_to_do_or_passed_over() {
    let mut bench = Bench::new().await;
    let mut session = bench.session().await;
    let hello = session.hello().await;
    let welcome = Welcome {
        session: 1,
        protocol: hello.protocol_max,
        hub_epoch: 1,
        heartbeat_interval_ms: 10_000,
        cluster: "a".to_owned(),
        hub_incarnation: "new".to_owned(),
        ..Welcome::default()
    };
    session.send(later(&encoded(Told::Welcome(welcome)))).await;
    assert_eq!(session.inventory().await, ["nas", "orders"]);
    session.send(field(900, b"news")).await;
    // A command that is not known here.
    let command = |id: &str, what: Option<command_body::What>| Command {
        id: id.to_owned(),
        begin_within_ms: 60_000,
        body: what.map(|what| CommandBody { what: Some(what) }),
        who: "ann".to_owned(),
        cancel: false,
    };
    let unknown = [command("one", None).encode_to_vec(), field(3, &field(99, b"x"))].concat();
    session.send(field(30, &unknown)).await;
    let refused = session.reported("one", CommandState::Refused).await;
    assert!(refused.text.contains("update it"), "{}", refused.text);
    // A question that is not known here.
    let question = Question {
        repository: named("nas"),
        what: None,
    };
    let browse = Browse {
        id: 7,
        who: "ann".to_owned(),
        question: None,
    };
    let question = [question.encode_to_vec(), field(99, b"x")].concat();
    session
        .send(field(32, &[browse.encode_to_vec(), field(2, &question)].concat()))
        .await;
    let last = |body| match body {
        Body::BrowsePart(part @ BrowsePart { last: true, .. }) => Some(part.error),
        _ => None,
    };
    let error = session.until("an answer", last).await;
    assert!(error.contains("update it"), "{error}");
    // One that is, with more than is known.
    let run = command_body::What::RunBackup(RunBackup {
        backup: named("orders"),
    });
    session
        .send(later(&encoded(Told::Command(command("two", Some(run))))))
        .await;
    let running = session.reported("two", CommandState::Running).await;
    assert_eq!(running.object, "Job shop/resticbackup-orders-two");
    bench.spoke.stop().await;
}

#[tokio::test]
async fn a_hub_that_refuses_the_version_is_shown_with_its_words() {
    let mut bench = Bench::new().await;
    let mut session = bench.session().await;
    session.hello().await;
    let text = "this hub speaks protocol versions 3 to 3, the spoke 2 to 2; update the older of the two";
    session
        .to
        .send(Err(Status::failed_precondition(text)))
        .await
        .unwrap();
    let shown = async {
        while !bench.spoke.context.certificate.trouble().contains(text) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(SOON, shown).await.expect("its words are kept for people");
    bench.spoke.stop().await;
}
