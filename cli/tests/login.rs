//! Logins of the program: by the pin of a hub, in a browser, and through a rotation of the hub's authority.

use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};

use crate::harness::own::Own;
use proto::v1::fleet_admin_client::FleetAdminClient;
use proto::v1::fleet_clusters_client::FleetClustersClient;
use proto::v1::{
    BindRequest, InviteRequest, InviteResponse, RotateAuthorityRequest, RotateAuthorityResponse, RotationStep,
};

/// A machine with logins.
struct Machine(tempfile::TempDir);

impl Machine {
    fn new() -> Machine {
        Machine(tempfile::tempdir().unwrap())
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_fleet"));
        command.args(arguments).env("XDG_CONFIG_HOME", self.0.path());
        for variable in [
            "FLEET_HUB",
            "FLEET_CA",
            "FLEET_CERT",
            "FLEET_KEY",
            "FLEET_SERVER_NAME",
            "FLEET_CONTEXT",
            "FLEET_CONTEXTS",
            "BROWSER",
            "DISPLAY",
            "WAYLAND_DISPLAY",
        ] {
            command.env_remove(variable);
        }
        command
    }

    /// Exit code, and everything that was printed.
    async fn run(&self, arguments: &[&str]) -> (i32, String) {
        let mut command = self.command(arguments);
        let output = tokio::task::spawn_blocking(move || command.output().unwrap())
            .await
            .unwrap();
        let text = [output.stdout, output.stderr].concat();
        (output.status.code().unwrap(), String::from_utf8(text).unwrap())
    }

    /// The authorities of the present login.
    fn authorities(&self) -> usize {
        let file = self.0.path().join("fleet/contexts.json");
        let text = std::fs::read_to_string(file).unwrap();
        text.matches("BEGIN CERTIFICATE").count()
    }
}

async fn invite(own: &Own, name: &str) -> InviteResponse {
    let mut admin = FleetAdminClient::new(own.operator().await);
    let bind = BindRequest {
        user: name.to_owned(),
        rights: "admin".to_owned(),
        ..BindRequest::default()
    };
    admin.bind(bind).await.unwrap();
    let invite = InviteRequest {
        name: name.to_owned(),
        ..InviteRequest::default()
    };
    admin.invite(invite).await.unwrap().into_inner()
}

fn hub(own: &Own) -> String {
    format!("https://127.0.0.1:{}", own.running.view.port())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hub_is_trusted_by_the_pin_of_its_authority() {
    let own = Own::new().await;
    let (machine, hub) = (Machine::new(), hub(&own));
    let InviteResponse { token, pin, .. } = invite(&own, "ann").await;
    let login = async |pin: &str| {
        let pin = format!("sha256:{pin}");
        let arguments = ["login", "--hub", &hub, "--pin", &pin, "--token", &token];
        machine.run(&arguments).await
    };
    let (code, text) = login(&"0".repeat(64)).await;
    assert_eq!(code, 4, "{text}");
    assert!(text.contains("does not present the authority"), "{text}");
    // The token was not sent: it is still good.
    let (code, text) = login(&pin).await;
    assert_eq!(code, 0, "{text}");
    let (code, text) = machine.run(&["whoami"]).await;
    assert_eq!(code, 0, "{text}");
    assert_eq!(machine.authorities(), 1);
    let arguments = ["login", "--hub", &hub, "--token", "x"];
    let (code, text) = machine.run(&arguments).await;
    assert_eq!((code, text.contains("--pin sha256:")), (2, true), "{text}");
    let (code, text) = machine.run(&["people", "invite", "bob"]).await;
    assert_eq!(code, 0, "{text}");
    let next = format!("fleet login --hub {hub} --pin sha256:{pin} --token -");
    assert!(text.contains(&next), "{text}");
}

async fn rotate(own: &Own, step: RotationStep) -> Result<RotateAuthorityResponse, tonic::Status> {
    let request = RotateAuthorityRequest {
        step: step.into(),
        force: false,
    };
    let mut clusters = FleetClustersClient::new(own.operator().await);
    Ok(clusters.rotate_authority(request).await?.into_inner())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_login_works_all_through_a_rotation_of_the_authority() {
    let own = Own::new().await;
    let machine = Machine::new();
    let InviteResponse { token, pin, .. } = invite(&own, "ann").await;
    let (hub, pin) = (hub(&own), format!("sha256:{pin}"));
    let login = ["login", "--hub", &hub, "--pin", &pin, "--token", &token];
    let (code, text) = machine.run(&login).await;
    assert_eq!(code, 0, "{text}");
    rotate(&own, RotationStep::Begin).await.unwrap();
    let refused = rotate(&own, RotationStep::Activate).await.unwrap_err();
    assert!(refused.message().contains(": ann."), "{refused}");
    let (code, text) = machine.run(&["clusters", "rotate-authority"]).await;
    assert_eq!(code, 1, "{text}");
    assert!(
        text.contains("not fetched the next authority") && text.contains(": ann"),
        "{text}"
    );
    assert_eq!(machine.authorities(), 2, "the command has fetched it");
    let (code, text) = machine.run(&["clusters", "rotate-authority", "activate"]).await;
    assert_eq!(code, 0, "{text}");
    assert_eq!(machine.run(&["whoami"]).await.0, 0);
    rotate(&own, RotationStep::Retire).await.unwrap();
    let (code, text) = machine.run(&["whoami"]).await;
    assert_eq!(code, 0, "{text}");
    assert_eq!(machine.authorities(), 1, "the old one is trusted no more");
    let (code, text) = machine.run(&["whoami"]).await;
    assert_eq!(code, 0, "{text}");
}

/// Follows an address as a browser would.
fn browse(address: &str) -> String {
    use std::io::{Read as _, Write as _};
    let (host, path) = address.strip_prefix("http://").unwrap().split_once('/').unwrap();
    let mut stream = std::net::TcpStream::connect(host).unwrap();
    write!(
        stream,
        "GET /{path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"
    )
    .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    match answer.lines().find_map(|line| line.strip_prefix("location: ")) {
        Some(next) => browse(next),
        None => answer,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_person_logs_in_in_a_browser_that_comes_back() {
    let issuer = crate::issuer::issuer().await;
    issuer.now.lock().unwrap().error = "";
    let url: &'static str = issuer.url.clone().leak();
    let more: &'static [&'static str] = vec!["--oidc-issuer", url, "--oidc-client-id", "fleet"].leak();
    let own = Own::with(more).await;
    let InviteResponse { pin, .. } = invite(&own, "ann").await;
    let machine = Machine::new();
    let hub = hub(&own);
    let login = ["login", "--hub", &hub, "--pin", &pin, "--oidc", "--browser"];
    let mut command = machine.command(&login);
    let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
    let ended = tokio::task::spawn_blocking(move || {
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let text = lines.next().unwrap().unwrap();
        let address = text.split(' ').find(|word| word.starts_with("http")).unwrap();
        let page = browse(address);
        assert!(page.contains("You may close this page"), "{page}");
        let last = lines.next().unwrap().unwrap();
        (child.wait().unwrap().code(), last)
    });
    let (code, text) = ended.await.unwrap();
    assert_eq!(code, Some(0), "{text}");
    assert!(text.contains("logged in as oidc:ann@example.org until"), "{text}");
    // Opened by the program that the person has chosen.
    let opener = machine.0.path().join("opener");
    std::fs::write(&opener, "#!/bin/sh\nprintf '%s' \"$1\" > \"$0.address\"\n").unwrap();
    let run = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(&opener, run).unwrap();
    let mut command = machine.command(&login[..6]);
    let mut child = command.env("BROWSER", &opener).spawn().unwrap();
    let file = machine.0.path().join("opener.address");
    own.until("an opened browser", async || {
        std::fs::read_to_string(&file).is_ok_and(|address| !address.is_empty())
    })
    .await;
    let code = tokio::task::spawn_blocking(move || {
        browse(&std::fs::read_to_string(&file).unwrap());
        child.wait().unwrap().code()
    });
    assert_eq!(code.await.unwrap(), Some(0));
}

/// A browser takes the token that `fleet dashboard` prints, and the address is that of the page.
#[tokio::test(flavor = "multi_thread")]
async fn the_dashboard_has_a_login_for_who_is_logged_in() {
    let own = Own::new().await;
    let (machine, hub) = (Machine::new(), hub(&own));
    let InviteResponse { token, pin, .. } = invite(&own, "ann").await;
    let pin = format!("sha256:{pin}");
    let (code, text) = machine
        .run(&["login", "--hub", &hub, "--pin", &pin, "--token", &token])
        .await;
    assert_eq!(code, 0, "{text}");
    let (code, text) = machine.run(&["dashboard"]).await;
    assert_eq!(code, 0, "{text}");
    assert!(text.contains(&format!("address  {hub}/\n")), "{text}");
    let (code, text) = machine.run(&["dashboard", "-o", "json"]).await;
    assert_eq!(code, 0, "{text}");
    let printed: serde_json::Value = serde_json::from_str(&text).unwrap();
    let token = printed["token"].as_str().unwrap();
    let second = Machine::new();
    let (code, text) = second
        .run(&["login", "--hub", &hub, "--pin", &pin, "--token", token])
        .await;
    assert_eq!(code, 0, "{text}");
    let (_, text) = second.run(&["whoami"]).await;
    assert!(
        text.starts_with("ann by token") && text.contains("administer"),
        "{text}"
    );
    let (code, _) = second
        .run(&["login", "--hub", &hub, "--pin", &pin, "--token", token])
        .await;
    assert_eq!(code, 4, "it is good once");
}
