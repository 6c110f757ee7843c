//! Debian's Pushgateway and mailpit, each on a port of its own of the loopback.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use http_body_util::{BodyExt as _, Empty};
use hyper::body::Bytes;
use hyper_util::rt::TokioIo;
use serde_json::Value;

struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn run(program: &str, arguments: &[String]) -> Process {
    let child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
    Process(child.unwrap_or_else(|error| panic!("{program}: {error}; run `make bootstrap restic`")))
}

fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}

async fn get(port: u16, path: &str) -> Option<String> {
    let stream = tokio::net::TcpStream::connect(("127.0.0.1", port)).await.ok()?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .ok()?;
    tokio::spawn(connection);
    let request = hyper::Request::get(path)
        .header("host", "localhost")
        .body(Empty::<Bytes>::new())
        .ok()?;
    let response = sender.send_request(request).await.ok()?;
    let body = response.into_body().collect().await.ok()?.to_bytes();
    String::from_utf8(body.to_vec()).ok()
}

async fn until_ready(port: u16, path: &str) {
    let ready = async {
        while get(port, path).await.is_none() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), ready)
        .await
        .expect("a receiver does not start");
}

pub struct Pushgateway {
    _process: Process,
    port: u16,
}

impl Pushgateway {
    pub async fn start() -> Pushgateway {
        let port = free_port();
        let address = format!("--web.listen-address=127.0.0.1:{port}");
        let process = run("prometheus-pushgateway", &[address]);
        until_ready(port, "/-/ready").await;
        Pushgateway {
            _process: process,
            port,
        }
    }

    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    pub async fn scrape(&self) -> String {
        get(self.port, "/metrics").await.unwrap()
    }
}

pub struct Mailpit {
    _process: Process,
    folder: tempfile::TempDir,
    pub smtp: u16,
    http: u16,
}

impl Mailpit {
    /// With STARTTLS required, and one user.
    pub async fn start() -> Mailpit {
        Mailpit::secure("--smtp-require-starttls").await
    }

    /// With TLS from the first byte, and one user.
    pub async fn start_tls() -> Mailpit {
        Mailpit::secure("--smtp-require-tls").await
    }

    async fn secure(how: &str) -> Mailpit {
        let folder = tempfile::tempdir().unwrap();
        certificate(folder.path());
        std::fs::write(folder.path().join("users"), "fleet:right\n").unwrap();
        let path = |name: &str| folder.path().join(name).display().to_string();
        let arguments = [
            format!("--smtp-tls-cert={}", path("tls.crt")),
            format!("--smtp-tls-key={}", path("tls.key")),
            how.to_owned(),
            format!("--smtp-auth-file={}", path("users")),
        ];
        Mailpit::with(folder, &arguments).await
    }

    /// Without TLS and users.
    pub async fn start_plain() -> Mailpit {
        Mailpit::with(tempfile::tempdir().unwrap(), &[]).await
    }

    async fn with(folder: tempfile::TempDir, arguments: &[String]) -> Mailpit {
        let (smtp, http) = (free_port(), free_port());
        let mut all = vec![
            format!("--smtp=127.0.0.1:{smtp}"),
            format!("--listen=127.0.0.1:{http}"),
            "--disable-version-check".to_owned(),
            format!("--database={}", folder.path().join("mails").display()),
        ];
        all.extend(arguments.iter().cloned());
        let process = run("mailpit", &all);
        until_ready(http, "/readyz").await;
        Mailpit {
            _process: process,
            folder,
            smtp,
            http,
        }
    }

    /// PEM of the authority of its certificate.
    pub fn ca(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("ca.crt")).unwrap()
    }

    pub async fn messages(&self) -> Vec<Value> {
        let list = get(self.http, "/api/v1/messages").await.unwrap();
        let list: Value = serde_json::from_str(&list).unwrap();
        list["messages"].as_array().unwrap().clone()
    }

    /// The one message that it has received, whole.
    pub async fn only_message(&self) -> Value {
        let list = self.messages().await;
        let [message] = list.as_slice() else {
            panic!("{list:?}")
        };
        let id = message["ID"].as_str().unwrap();
        let whole = get(self.http, &format!("/api/v1/message/{id}")).await.unwrap();
        serde_json::from_str(&whole).unwrap()
    }
}

/// ca.crt, and tls.crt with tls.key for localhost.
fn certificate(folder: &Path) {
    let mut authority = rcgen::CertificateParams::new(Vec::new()).unwrap();
    authority.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let ca_key = rcgen::KeyPair::generate().unwrap();
    let ca = authority.self_signed(&ca_key).unwrap();
    let issuer = rcgen::Issuer::new(authority, ca_key);
    let key = rcgen::KeyPair::generate().unwrap();
    let names = vec!["localhost".to_owned()];
    let certificate = rcgen::CertificateParams::new(names)
        .unwrap()
        .signed_by(&key, &issuer)
        .unwrap();
    for (name, text) in [
        ("ca.crt", ca.pem()),
        ("tls.crt", certificate.pem()),
        ("tls.key", key.serialize_pem()),
    ] {
        std::fs::write(folder.join(name), text).unwrap();
    }
}
