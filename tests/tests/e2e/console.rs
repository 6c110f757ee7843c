//! What a person types: the ten tasks of docs/ux.md, with as many commands as stand there, and no secret in a bundle.

use std::cell::Cell;

use serde_json::{Value, json};
use tests::fleet;

use crate::support::{Place, bed, s3};

/// A person who counts.
struct Console {
    typed: Cell<usize>,
    kubeconfig: String,
}

impl Console {
    fn new(place: &Place) -> Console {
        Console {
            typed: Cell::new(0),
            kubeconfig: place.cluster.kubeconfig().to_string_lossy().into_owned(),
        }
    }

    /// Exit code, data, and what was said besides.
    fn run(&self, program: &str, arguments: &[&str]) -> (i32, String, String) {
        self.typed.set(self.typed.get() + 1);
        let kubeconfig = [("KUBECONFIG", self.kubeconfig.as_str())];
        let output = fleet::shell(bed(), program, arguments, &kubeconfig).unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        (
            output.status.code().unwrap(),
            text(output.stdout),
            text(output.stderr),
        )
    }

    /// What is printed by a command that ends well.
    fn well(&self, program: &str, arguments: &[&str]) -> String {
        let (code, text, said) = self.run(program, arguments);
        assert_eq!(code, 0, "{arguments:?}: {text}{said}");
        text
    }

    /// Ends a task: the page names this many commands for it.
    fn done(&self, task: usize) {
        let page = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/ux.md")).unwrap();
        let row = page
            .lines()
            .find(|line| line.starts_with(&format!("| {task} |")))
            .unwrap();
        let cell = row.split('|').nth(3).unwrap();
        let count = cell.split(':').next().unwrap().trim().parse::<usize>().unwrap();
        assert_eq!(self.typed.replace(0), count, "task {task}: {cell}");
    }
}

/// The findings of a check, by name.
fn outcome(check: &Value, id: &str) -> String {
    let items = check["items"].as_array().unwrap();
    let of = items.iter().find(|of| of["check"] == id);
    of.unwrap_or_else(|| panic!("no {id} in {check:#}"))["outcome"]
        .as_str()
        .unwrap()
        .to_owned()
}

/// Everything in a bundle, as one text.
fn unpacked(file: &std::path::Path) -> String {
    let output = std::process::Command::new("tar")
        .arg("xzOf")
        .arg(file)
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
#[ignore = "needs clusters: make long"]
fn the_ten_tasks_of_a_first_time_user() {
    let place = Place::new("b", "console");
    let person = Console::new(&place);
    let manifests = tempfile::tempdir().unwrap();
    let file = |name: &str| manifests.path().join(name).to_str().unwrap().to_owned();
    let objects = [
        place.repository("nas", &s3(0, "console")),
        place.backup("orders", json!({ "name": "nas" }), json!({})),
        // Its claim is not there.
        place.backup(
            "lost",
            json!({ "name": "nas" }),
            json!({ "source": { "pvc": { "claimName": "none" } } }),
        ),
    ];
    let list = json!({ "apiVersion": "v1", "kind": "List", "items": objects });
    std::fs::write(file("shop.json"), list.to_string()).unwrap();
    person.well("kubectl", &["apply", "-n", "console", "-f", &file("shop.json")]);
    let ready = [
        "wait",
        "-n",
        "console",
        "--for=condition=Ready",
        "resticbackup/orders",
        "--timeout=90s",
    ];
    person.well("kubectl", &ready);
    person.done(1);

    person.well("fleet", &["backups", "run", "b/console/orders"]);
    person.done(2);

    // Other tests are beside this one: the verdict is that of the fleet.
    let (code, text, _) = person.run("fleet", &["status"]);
    assert!(
        [1, 3].contains(&code) && text.contains("b/console/lost"),
        "{code}: {text}"
    );
    person.done(3);

    let (code, text, _) = person.run("fleet", &["why", "b/console/lost"]);
    assert_eq!(code, 1, "{text}");
    assert!(
        text.contains("NOTREADY") && text.contains("create it, or correct the name"),
        "{text}"
    );
    person.done(4);

    checked(&person);
    found(&person, &file("a.txt"));

    // The bed's own class makes volumes that only root may write, and a restore never becomes root by itself.
    let volume = fleet::volume_for(&place.cluster, "console", "again").unwrap();
    let restore = [
        "restore",
        "create",
        "b/console/orders",
        "--new-claim",
        "again",
        "--size",
        "1Gi",
        "--storage-class",
        "local",
    ];
    person.well("fleet", &restore);
    person.done(8);
    assert_eq!(std::fs::read(volume.join("small/a.txt")).unwrap(), b"hello");

    retained(&place, &person);

    let bundle = file("support.tar.gz");
    person.well("fleet", &["bundle", &bundle]);
    person.done(10);
    no_secret(std::path::Path::new(&bundle));
}

/// Task 5, and the same without a hub.
fn checked(person: &Console) {
    let (code, text, said) = person.run("fleet", &["check", "-o", "json"]);
    person.done(5);
    let check: Value = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}{said}"));
    // The claim that is not there.
    assert_eq!(
        (code, outcome(&check, "backups").as_str()),
        (1, "BAD"),
        "{check:#}"
    );
    for id in [
        "api-server",
        "kubernetes-version",
        "clock",
        "own-rights",
        "kinds-served",
        "kinds-established",
        "namespace",
        "operator-rights",
        "operator-available",
        "images",
        "operator-leads",
        "joined",
        "repository-secrets",
        "hub-reached",
        "hub-clock",
        "hub-store",
        "hub-certificates",
        "clusters-connected",
    ] {
        assert_eq!(outcome(&check, id), "GOOD", "{id}: {check:#}");
    }
    let (code, text, said) = person.run(
        "fleet",
        &["why", "console/lost", "--kubeconfig", &person.kubeconfig],
    );
    assert_eq!(code, 1, "{text}{said}");
    assert!(said.contains("only cluster b is seen"), "{said}");
    assert!(
        text.starts_with("backup b/console/lost is NOTREADY: PersistentVolumeClaimNotFound"),
        "{text}"
    );
    let rows = person.well(
        "fleet",
        &[
            "backups",
            "-n",
            "console",
            "-o",
            "name",
            "--kubeconfig",
            &person.kubeconfig,
        ],
    );
    assert_eq!(rows, "b/console/lost\nb/console/orders\n");
    person.typed.set(0);
}

/// Tasks 6 and 7.
fn found(person: &Console, to: &str) {
    let list = person.well("fleet", &["snapshots", "list", "b/console/nas", "-o", "name"]);
    let id = list.lines().next().unwrap().to_owned();
    let paths = person.well(
        "fleet",
        &["snapshots", "find", "b/console/nas", &id, "a.txt", "-o", "name"],
    );
    person.done(6);
    let path = paths.lines().find(|line| line.ends_with("a.txt")).unwrap();
    person.well(
        "fleet",
        &["snapshots", "get", "b/console/nas", &id, path, "--to", to],
    );
    person.done(7);
    assert_eq!(std::fs::read(to).unwrap(), b"hello");
}

/// Task 9.
fn retained(place: &Place, person: &Console) {
    place.apply(&[json!({
        "apiVersion": "backup.resticbackup.io/v1alpha1", "kind": "GlobalRetentionPolicy", "metadata": { "name": "nightly" },
        "spec": { "repositoryRef": { "name": "nas" }, "schedule": "@yearly",
                  "policies": [{ "selector": {}, "retention": { "keepLast": 1 } }] },
    })]);
    place.until_ready("globalretentionpolicy/nightly");
    let text = person.well("fleet", &["retention", "preview", "b/console/nightly"]);
    assert!(!text.is_empty());
    person.well("fleet", &["plan", "list"]);
    person.done(9);
}

/// What is in the Secrets of this bed is nowhere in the file.
fn no_secret(file: &std::path::Path) {
    let text = unpacked(file);
    assert!(
        text.contains("fleet-spoke") && text.contains("\"orders\""),
        "{} bytes",
        text.len()
    );
    let servers = bed().servers();
    let ((_, secret), (_, rest)) = (servers.s3_credentials(), servers.rest_credentials());
    for value in ["right horse", secret, rest] {
        assert!(!text.contains(value), "a secret is in the bundle");
    }
}
