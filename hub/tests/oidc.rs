//! Logins by an OpenID Connect issuer: one of our own that can misbehave, and a real one.

use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::harness::Fleet;
use crate::issuer::{Now, issuer};
use proto::v1::fleet_admin_client::FleetAdminClient;
use proto::v1::{
    BeginLoginRequest, BeginLoginResponse, BindRequest, LoginRequest, LoginResponse, WhoAmIRequest,
};
use tonic::transport::Channel;
use tonic::{Code, Request, Status};

async fn fleet(issuer: &str) -> Fleet {
    Fleet::with(&["--oidc-issuer", issuer, "--oidc-client-id", "fleet"]).await
}

async fn nobody(fleet: &Fleet) -> FleetAdminClient<Channel> {
    let port = fleet.running.view.port();
    FleetAdminClient::new(fleet.connect(port, None).await.unwrap())
}

async fn begin(client: &mut FleetAdminClient<Channel>) -> BeginLoginResponse {
    client
        .begin_login(BeginLoginRequest::default())
        .await
        .unwrap()
        .into_inner()
}

/// Asks until the person has confirmed, or the login is over.
async fn finish(client: &mut FleetAdminClient<Channel>, login: &str) -> Result<LoginResponse, Status> {
    let ask = async {
        loop {
            let request = LoginRequest {
                login: login.to_owned(),
                ..LoginRequest::default()
            };
            let answer = client.login(request).await?.into_inner();
            if answer.wait_ms == 0 {
                return Ok(answer);
            }
            tokio::time::sleep(Duration::from_millis(answer.wait_ms.into())).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), ask).await.unwrap()
}

/// Name, groups and verbs of a session.
async fn me(fleet: &Fleet, session: &str) -> (String, Vec<String>, Vec<String>) {
    let mut request = Request::new(WhoAmIRequest {});
    let bearer = format!("Bearer {session}").parse().unwrap();
    request.metadata_mut().insert("authorization", bearer);
    let answer = nobody(fleet).await.who_am_i(request).await.unwrap().into_inner();
    let verbs = answer.grants.into_iter().flat_map(|grant| grant.verbs);
    assert_eq!(answer.method, "oidc");
    (answer.name, answer.groups, verbs.collect())
}

async fn bind_ops(fleet: &Fleet) {
    let mut admin = FleetAdminClient::new(fleet.view_as("admin/root").await);
    let bind = BindRequest {
        group: "oidc:ops".to_owned(),
        rights: "viewer".to_owned(),
        ..BindRequest::default()
    };
    admin.bind(bind).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_person_that_the_issuer_names_has_what_is_bound_to_its_groups() {
    let issuer = issuer().await;
    let fleet = fleet(&issuer.url).await;
    bind_ops(&fleet).await;
    let mut client = nobody(&fleet).await;
    let begun = begin(&mut client).await;
    assert_eq!(
        (begun.code.as_str(), begun.address.as_str()),
        ("AB-CD", "http://x/device")
    );
    let request = || LoginRequest {
        login: begun.login.clone(),
        ..LoginRequest::default()
    };
    // A client that asks too often does not reach the issuer.
    for _ in 0..3 {
        assert!(client.login(request()).await.unwrap().into_inner().wait_ms > 0);
    }
    assert_eq!(issuer.now.lock().unwrap().asked, 0);
    issuer.now.lock().unwrap().error = "";
    let opened = finish(&mut client, &begun.login).await.unwrap();
    let (name, groups, verbs) = me(&fleet, &opened.session).await;
    assert_eq!(
        (name.as_str(), groups),
        ("oidc:ann@example.org", vec!["oidc:ops".to_owned()])
    );
    assert_eq!(verbs, ["see"]);
    let again = client.login(request()).await.unwrap_err();
    assert_eq!(again.code(), Code::Unauthenticated, "a login opens one session");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_for_another_client_or_with_another_key_opens_nothing() {
    let issuer = issuer().await;
    let fleet = fleet(&issuer.url).await;
    let mut client = nobody(&fleet).await;
    let mut login = async |now: Now| {
        *issuer.now.lock().unwrap() = now;
        let begun = begin(&mut client).await;
        finish(&mut client, &begun.login).await
    };
    let good = || Now {
        publishes: 1,
        audience: "fleet",
        ..Now::default()
    };
    let other = Now {
        audience: "other",
        ..good()
    };
    let refused = login(other).await.unwrap_err();
    assert!(
        refused.message().contains("InvalidAudience"),
        "{}",
        refused.message()
    );
    let unknown = Now { signs: 1, ..good() };
    let refused = login(unknown).await.unwrap_err();
    assert!(
        refused.message().contains("does not publish"),
        "{}",
        refused.message()
    );
    let declined = Now {
        error: "access_denied",
        ..good()
    };
    let refused = login(declined).await.unwrap_err();
    assert!(
        refused.message().contains("access_denied"),
        "{}",
        refused.message()
    );
    login(good()).await.unwrap();
    let none = LoginRequest {
        login: "f".repeat(64),
        ..LoginRequest::default()
    };
    let refused = nobody(&fleet).await.login(none).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unauthenticated);
}

/// Goes where a browser is sent, and gives back the code and the state that it would bring to the CLI.
async fn browse(address: &str) -> (String, String) {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let (host, path) = address.strip_prefix("http://").unwrap().split_once('/').unwrap();
    let mut stream = tokio::net::TcpStream::connect(host).await.unwrap();
    let request = format!("GET /{path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let mut lines = answer.lines();
    let back = lines.find_map(|line| line.strip_prefix("location: ")).unwrap();
    brought(back)
}

/// Code and state of the address that a browser is sent back to.
fn brought(back: &str) -> (String, String) {
    assert!(back.starts_with("http://127.0.0.1:9/callback?"), "{back}");
    let value = |name: &str| {
        let part = back.split(['?', '&']).find_map(|part| part.strip_prefix(name));
        part.unwrap().trim().replace("%2B", "+")
    };
    (value("code="), value("state="))
}

const BACK: &str = "http://127.0.0.1:9/callback";

#[tokio::test(flavor = "multi_thread")]
async fn a_code_that_a_browser_brings_opens_one_session_for_who_began_the_login() {
    let issuer = issuer().await;
    issuer.now.lock().unwrap().error = "";
    let fleet = fleet(&issuer.url).await;
    bind_ops(&fleet).await;
    let mut client = nobody(&fleet).await;
    let begin = async |redirect: &str| {
        let request = BeginLoginRequest {
            redirect: redirect.to_owned(),
        };
        nobody(&fleet).await.begin_login(request).await
    };
    let refused = begin("https://evil.example/callback").await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
    let login = |begun: &BeginLoginResponse, code: &str| LoginRequest {
        login: begun.login.clone(),
        code: code.to_owned(),
        ..LoginRequest::default()
    };
    let (mine, other) = (
        begin(BACK).await.unwrap().into_inner(),
        begin(BACK).await.unwrap().into_inner(),
    );
    let (code, state) = browse(&mine.address).await;
    assert_eq!(state, mine.state);
    // A code that was caught is for one login: the verifier of another does not fit it.
    let stolen = client.login(login(&other, &code)).await.unwrap_err();
    assert!(stolen.message().contains("invalid_grant"), "{stolen}");
    let (code, _) = browse(&mine.address).await;
    let opened = client.login(login(&mine, &code)).await.unwrap().into_inner();
    let (name, groups, verbs) = me(&fleet, &opened.session).await;
    assert_eq!(
        (name.as_str(), groups),
        ("oidc:ann@example.org", vec!["oidc:ops".to_owned()])
    );
    assert_eq!(verbs, ["see"]);
    let again = client.login(login(&mine, &code)).await.unwrap_err();
    assert_eq!(again.code(), Code::Unauthenticated, "a login opens one session");
    let begun = begin(BACK).await.unwrap().into_inner();
    let asked = login(&begun, "");
    let refused = client.login(asked).await.unwrap_err();
    assert_eq!(
        refused.code(),
        Code::Unauthenticated,
        "without a code there is nothing to ask for"
    );
    issuer.now.lock().unwrap().nonce = Some("of another login");
    let (code, _) = browse(&begun.address).await;
    let refused = client.login(login(&begun, &code)).await.unwrap_err();
    assert!(refused.message().contains("another login"), "{refused}");
}

/// An issuer's process that ends with the test.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The issuer of npm, installed beside the test bed's other programs.
fn real() -> (Process, String, std::path::PathBuf) {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let folder = root.join(".testbed/oidc-provider");
    std::fs::create_dir_all(&folder).unwrap();
    for name in ["package.json", "package-lock.json", "issuer.mjs", "confirm.mjs"] {
        std::fs::copy(
            root.join("tests/tools/oidc-provider").join(name),
            folder.join(name),
        )
        .unwrap();
    }
    static INSTALL: std::sync::Mutex<()> = std::sync::Mutex::new(());
    let installing = INSTALL.lock().unwrap();
    if !folder.join("node_modules/oidc-provider").exists() {
        let mut npm = Command::new("npm");
        npm.args(["ci", "--no-audit", "--no-fund"]).current_dir(&folder);
        assert!(npm.status().unwrap().success());
    }
    drop(installing);
    let mut node = Command::new("node");
    node.arg("issuer.mjs").current_dir(&folder).stderr(Stdio::null());
    let mut child = node.stdout(Stdio::piped()).spawn().unwrap();
    let out = std::io::BufReader::new(child.stdout.take().unwrap());
    let mut lines = std::io::BufRead::lines(out).map_while(Result::ok);
    let url = lines.find(|line| line.starts_with("http://")).unwrap();
    // What it writes later has to go somewhere.
    std::thread::spawn(move || lines.for_each(drop));
    (Process(child), url, folder)
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs node and npm"]
async fn a_real_issuer_names_a_person_that_confirms_in_its_pages() {
    let (_process, url, folder) = tokio::task::spawn_blocking(real).await.unwrap();
    let fleet = fleet(&url).await;
    bind_ops(&fleet).await;
    let mut client = nobody(&fleet).await;
    let begun = begin(&mut client).await;
    let first = LoginRequest {
        login: begun.login.clone(),
        ..LoginRequest::default()
    };
    tokio::time::sleep(Duration::from_millis(begun.wait_ms.into())).await;
    let waits = client.login(first).await.unwrap().into_inner();
    assert!(waits.wait_ms > 0, "it was confirmed by nobody");
    let confirmed = tokio::task::spawn_blocking(move || {
        let mut node = Command::new("node");
        node.args(["confirm.mjs", &begun.whole_address, "ann"])
            .current_dir(folder);
        (node.status().unwrap().success(), begun.login)
    });
    let (confirmed, login) = confirmed.await.unwrap();
    assert!(confirmed);
    let opened = finish(&mut client, &login).await.unwrap();
    let (name, groups, verbs) = me(&fleet, &opened.session).await;
    assert_eq!(
        (name.as_str(), groups),
        ("oidc:ann@example.org", vec!["oidc:ops".to_owned()])
    );
    assert_eq!(verbs, ["see"]);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs node and npm"]
async fn a_real_issuer_sends_a_browser_back_with_a_code_for_the_hub() {
    let (_process, url, folder) = tokio::task::spawn_blocking(real).await.unwrap();
    let secret = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(secret.path(), "kept-at-the-hub\n").unwrap();
    let fleet = Fleet::with(&[
        "--oidc-issuer",
        &url,
        "--oidc-client-id",
        "fleet-browser",
        "--oidc-client-secret-file",
        secret.path().to_str().unwrap(),
    ])
    .await;
    bind_ops(&fleet).await;
    let mut client = nobody(&fleet).await;
    let request = || BeginLoginRequest {
        redirect: BACK.to_owned(),
    };
    let begun = client.begin_login(request()).await.unwrap().into_inner();
    let other = client.begin_login(request()).await.unwrap().into_inner();
    let confirm = async |address: String| {
        let folder = folder.clone();
        let confirmed = tokio::task::spawn_blocking(move || {
            let mut node = Command::new("node");
            node.args(["confirm.mjs", &address, "ann", BACK])
                .current_dir(folder);
            let output = node.output().unwrap();
            assert!(
                output.status.success(),
                "{}",
                String::from_utf8_lossy(&output.stderr)
            );
            String::from_utf8(output.stdout).unwrap()
        });
        brought(&confirmed.await.unwrap())
    };
    let (code, state) = confirm(begun.address.clone()).await;
    assert_eq!(state, begun.state);
    let login = |begun: &BeginLoginResponse, code: &str| LoginRequest {
        login: begun.login.clone(),
        code: code.to_owned(),
        ..LoginRequest::default()
    };
    let opened = client.login(login(&begun, &code)).await.unwrap().into_inner();
    let (name, groups, verbs) = me(&fleet, &opened.session).await;
    assert_eq!(
        (name.as_str(), groups),
        ("oidc:ann@example.org", vec!["oidc:ops".to_owned()])
    );
    assert_eq!(verbs, ["see"]);
    let (code, _) = confirm(begun.address).await;
    let stolen = client.login(login(&other, &code)).await.unwrap_err();
    assert!(stolen.message().contains("invalid_grant"), "{stolen}");
}
