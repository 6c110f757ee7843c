//! The hub's authority is replaced while both clusters back up and prune, and a hub is made from nothing.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tests::bed::{HUB_LINK_PORT, HUB_VIEW_PORT};
use tests::fleet::{self, SYSTEM, shell};
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};

use super::retention::{make_snapshots, policy, start, until_run};
use super::support::{Place, bed, s3};

/// A person who has logged in on a machine of its own: by nothing but the address and the pin of the hub.
struct Login {
    file: PathBuf,
}

impl Login {
    fn of(name: &str, file: PathBuf) -> Login {
        let admin = |arguments: &[&str]| shell(bed(), "fleet", arguments, &[]).unwrap();
        admin(&["people", "bind", "--user", name, "--rights", "admin"]);
        let invited = admin(&["people", "invite", name]);
        let token = String::from_utf8(invited.stdout).unwrap();
        let next = String::from_utf8(invited.stderr).unwrap();
        let pin = next.split(' ').find(|word| word.starts_with("sha256:")).unwrap();
        let login = Login { file };
        let hub = bed().hub_address(HUB_VIEW_PORT);
        login.ok(&["login", "--hub", &hub, "--pin", pin, "--token", token.trim()]);
        login
    }

    /// Exit code, and all that was printed.
    fn run(&self, arguments: &[&str]) -> (i32, String) {
        let mut command = fleet::command(bed(), "env", &[]);
        let unset = ["FLEET_HUB", "FLEET_CA", "FLEET_CERT", "FLEET_KEY"];
        command.args(unset.iter().flat_map(|name| ["-u", name]));
        command.arg("fleet").args(arguments);
        command.env("FLEET_CONTEXTS", &self.file);
        let output = fleet::run_to_end(bed(), command).unwrap();
        let text = [output.stdout, output.stderr].concat();
        (output.status.code().unwrap(), String::from_utf8(text).unwrap())
    }

    fn ok(&self, arguments: &[&str]) -> String {
        let (code, text) = self.run(arguments);
        assert_eq!(code, 0, "fleet {arguments:?}: {text}");
        text
    }

    /// Waits until the next step of a rotation would lock nobody out.
    fn until_ready(&self, state: &str) {
        let end = Instant::now() + Duration::from_secs(90);
        loop {
            let (code, text) = self.run(&["clusters", "rotate-authority"]);
            assert!([0, 1].contains(&code), "{text}");
            assert!(text.contains(&format!("authority: {state}")), "{text}");
            if code == 0 {
                return;
            }
            assert!(Instant::now() < end, "after {state}: {text}");
            std::thread::sleep(Duration::from_millis(500));
        }
    }
}

/// The bed's admin has a certificate, of an authority that the test takes away.
struct Admin;

impl Drop for Admin {
    fn drop(&mut self) {
        let first = bed().clusters().into_iter().next().unwrap();
        if let Err(error) = fleet::log_in(bed(), &first) {
            eprintln!("the bed's admin has no certificate any more: {error:#}");
        }
    }
}

/// Every pod of hub and operators, and how often its containers were started again.
fn pods() -> Vec<String> {
    let format =
        "jsonpath={range .items[*]}{.metadata.uid} {.status.containerStatuses[*].restartCount}{'\\n'}{end}";
    let of = |cluster: &tests::Cluster| {
        let text = cluster
            .kubectl(&["get", "pods", "-n", SYSTEM, "-o", format])
            .unwrap();
        text.lines().map(str::to_owned).collect::<Vec<_>>()
    };
    let mut all: Vec<String> = bed().clusters().iter().flat_map(of).collect();
    all.sort();
    all
}

fn certificate_of(cluster: &str) -> (String, String) {
    let cluster = bed().cluster(cluster).unwrap();
    let value = |key: &str| {
        let template = format!("go-template={{{{index .data {key:?} | base64decode}}}}");
        let get = [
            "get",
            "secret",
            "-n",
            SYSTEM,
            "fleet-spoke-identity",
            "-o",
            &template,
        ];
        cluster.kubectl(&get).unwrap()
    };
    (value("tls.crt"), value("tls.key"))
}

/// Whether the hub's link takes a certificate: a request of no spoke is refused by name, one without trust not at all.
async fn takes((certificate, key): &(String, String), authorities: &str) -> bool {
    let tls = ClientTlsConfig::new()
        .ca_certificate(Certificate::from_pem(authorities))
        .domain_name("hub")
        .identity(Identity::from_pem(certificate, key));
    let endpoint = Endpoint::from_shared(bed().hub_address(HUB_LINK_PORT)).unwrap();
    let channel: Result<Channel, _> = endpoint.tls_config(tls).unwrap().connect().await;
    let Ok(channel) = channel else { return false };
    let mut view = proto::v1::fleet_view_client::FleetViewClient::new(channel);
    let refused = view.status(proto::v1::StatusRequest {}).await.unwrap_err();
    // The link has no such service: it was reached, or the layer before it has recognised the spoke.
    matches!(
        refused.code(),
        tonic::Code::Unimplemented | tonic::Code::PermissionDenied
    ) && !refused.message().contains("transport")
}

/// A policy that took part in a run this short ago is given none of its own.
const COALESCED: Duration = Duration::from_secs(65);

/// Backs up and prunes again and again until it is told to stop; each run has to succeed.
fn work(place: &Place, name: &str, stop: &AtomicBool) -> (usize, usize) {
    let (mut backups, mut prunes, mut due) = (0, 0, Instant::now());
    let mut last = place.get("globalretentionpolicy/keep")["status"].clone();
    loop {
        let prune = Instant::now() >= due;
        if prune {
            start(place, "keep", &format!("{name}-{prunes}"));
            due = Instant::now() + COALESCED;
        }
        let run = place.run("orders", &format!("{name}-{backups}"));
        assert_eq!(run["result"], "Succeeded", "{run:#}");
        backups += 1;
        if prune {
            last = until_run(place, "keep", &last);
            assert_eq!(last["lastRunResult"], "Applied", "{last:#}");
            prunes += 1;
        }
        if stop.load(Ordering::Relaxed) {
            return (backups, prunes);
        }
    }
}

fn shared(name: &str) -> (Place, Place) {
    let places = (Place::new("a", name), Place::new("b", name));
    for (n, place) in [&places.0, &places.1].into_iter().enumerate() {
        place.apply(&[
            place.repository("nas", &s3(n, name)),
            place.backup("orders", json!({ "name": "nas" }), json!({})),
        ]);
        place.until_ready("resticrepository/nas");
        place.until_ready("resticbackup/orders");
        make_snapshots(
            &s3(0, name),
            &place.cluster.name,
            &format!("{name}/orders"),
            "x",
            1..4,
        );
        let tag = format!("fleet.cluster={}", place.cluster.name);
        place.apply(&[policy(
            "keep",
            json!([{ "selector": { "tags": [tag] }, "retention": { "keepLast": 2 } }]),
            json!({ "initialRun": "Apply", "prune": true, "guard": { "maxRemovedPercent": 100 } }),
        )]);
        place.until_ready("globalretentionpolicy/keep");
    }
    places
}

#[test]
#[ignore = "needs clusters: make test"]
fn the_authority_is_replaced_while_both_clusters_back_up_and_prune() {
    let (a, b) = shared("authority");
    let _admin = Admin;
    let ann = Login::of("ann", bed().dir().join("contexts-authority.json"));
    let (before, old) = (pods(), certificate_of("a"));
    let authorities = |ann: &Login| ann.ok(&["hub", "authorities"]);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    assert!(runtime.block_on(takes(&old, &authorities(&ann))));
    let stop = AtomicBool::new(false);
    let done = std::thread::scope(|scope| {
        let working = [&a, &b].map(|place| scope.spawn(|| work(place, "during", &stop)));
        let rotation = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            ann.ok(&["clusters", "rotate-authority", "begin"]);
            ann.until_ready("announced");
            ann.ok(&["clusters", "rotate-authority", "activate"]);
            assert!(
                runtime.block_on(takes(&old, &authorities(&ann))),
                "both are trusted"
            );
            ann.until_ready("activated");
            ann.ok(&["clusters", "rotate-authority", "retire"]);
            let connected = || {
                let text = ann.ok(&["clusters", "-o", "json"]);
                let all: Value = serde_json::from_str(&text).unwrap();
                let all = all["items"].as_array().unwrap();
                all.iter().filter(|row| row["state"] == "connected").count() == 2
            };
            let end = Instant::now() + Duration::from_secs(90);
            while !connected() {
                assert!(Instant::now() < end, "both clusters are connected again");
                std::thread::sleep(Duration::from_millis(300));
            }
        }));
        stop.store(true, Ordering::Relaxed);
        let done = working.map(|thread| thread.join().unwrap());
        rotation.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        done
    });
    for (backups, prunes) in done {
        assert!(backups >= 1 && prunes >= 1, "{backups} backups, {prunes} prunes");
    }
    // And afterwards, by the new certificates alone.
    let run = b.run("orders", "after");
    assert_eq!(run["result"], "Succeeded", "{run:#}");
    assert_eq!(pods(), before, "nothing was started again");
    let now = authorities(&ann);
    assert_eq!(now.matches("BEGIN CERTIFICATE").count(), 1);
    assert!(
        !runtime.block_on(takes(&old, &now)),
        "the old certificate is refused"
    );
    assert!(runtime.block_on(takes(&certificate_of("a"), &now)));
    let audit = ann.ok(&["audit", "--what", "rotate-authority", "-o", "json"]);
    let audit: Value = serde_json::from_str(&audit).unwrap();
    assert_eq!(audit["decisions"].as_array().unwrap().len(), 3, "{audit:#}");
    ann.ok(&["audit", "verify"]);
}

/// In the second cluster, which has none; it is removed again.
#[test]
#[ignore = "needs clusters: make test"]
fn a_hub_is_made_from_nothing_and_its_first_admin_is_logged_in() {
    let second = bed().cluster("b").unwrap();
    fleet::prepare_hub_volume(&second).unwrap();
    let file = bed().dir().join("contexts-init.json");
    let _ = std::fs::remove_file(&file);
    let ann = Login { file: file.clone() };
    let node = bed().plan().node(1);
    let kubeconfig = second.kubeconfig();
    let init = |more: &[&str]| {
        let mut command = fleet::command(bed(), "env", &[]);
        let unset = ["FLEET_HUB", "FLEET_CA", "FLEET_CERT", "FLEET_KEY"];
        command.args(unset.iter().flat_map(|name| ["-u", name]));
        command.args(["fleet", "hub", "init", "--admin", "ann", "--address", &node]);
        command
            .args(more)
            .env("FLEET_CONTEXTS", &file)
            .env("KUBECONFIG", &kubeconfig);
        let output = command.output().unwrap();
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{text}");
        (String::from_utf8(output.stdout).unwrap(), text)
    };
    let (manifests, _) = init(&["--print"]);
    assert!(manifests.contains("kind: Deployment") && !file.exists());
    let (_, text) = init(&[]);
    assert!(text.contains("logged in as ann until"), "{text}");
    let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&file).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600);
    let me = ann.ok(&["whoami"]);
    assert!(me.contains("administer") && me.contains("in everything"), "{me}");
    ann.ok(&["clusters", "join", "third", "-o", "yaml"]);
    // Again: a setting more, another login, the same authority.
    let authority = ann.ok(&["hub", "authorities"]);
    let (_, text) = init(&["--set", "FLEET_HUB_SESSION_LIFETIME=1h"]);
    assert!(text.contains("logged in as ann until"), "{text}");
    assert_eq!(ann.ok(&["hub", "authorities"]), authority);
    let bindings = ann.ok(&["people", "list", "-o", "name"]);
    assert_eq!(bindings.lines().count(), 1, "the role is bound once: {bindings}");
    let audit = ann.ok(&["audit", "--what", "operator-certificate", "-o", "json"]);
    let audit: Value = serde_json::from_str(&audit).unwrap();
    assert_eq!(audit["decisions"].as_array().unwrap().len(), 2, "{audit:#}");
    for object in [
        "deployment/fleet-hub",
        "service/fleet-hub",
        "configmap/fleet-hub-settings",
    ] {
        second.kubectl(&["delete", "-n", SYSTEM, object]).unwrap();
    }
}
