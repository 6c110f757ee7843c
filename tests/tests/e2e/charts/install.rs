//! README's commands, out of README, on two clusters without anything: timed.

use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::Value;
use tests::bed::RESTIC_PASSWORD;
use tests::fleet::{SYSTEM, open_volume, volume_path};
use tests::{Cluster, images};

use super::{bare, chart, helm_ok, text};

/// What README promises.
const GOAL: Duration = Duration::from_secs(180);
const SECTION: &str = "\n## Install with Helm\n";
/// Where the images were pushed to, in the words of README.
const REGISTRY: &str = "registry.example.org/backup";
const NAMES: [&str; 2] = ["berlin", "paris"];

/// The commands of the section, block by block. `export` lines say what is the reader's own: `own` takes their place.
fn commands(readme: &str, own: &[(&str, String)]) -> Vec<String> {
    let (_, section) = readme.split_once(SECTION).unwrap();
    let section = section.split("\n## ").next().unwrap();
    let blocks = section.split("\n```sh\n").skip(1);
    let blocks: Vec<&str> = blocks.map(|block| block.split("\n```").next().unwrap()).collect();
    let (first, rest) = blocks.split_first().unwrap();
    let exported: Vec<&str> = first
        .lines()
        .flat_map(|line| line.strip_prefix("export ").expect(line).split_whitespace())
        .filter_map(|word| word.split_once('=').map(|(name, _)| name))
        .filter(|name| name.chars().all(|c| c.is_ascii_uppercase() || c == '_'))
        .collect();
    let given: Vec<&str> = own.iter().map(|(name, _)| *name).collect();
    assert_eq!(exported, given, "what README leaves to the reader");
    rest.iter().map(|block| (*block).to_owned()).collect()
}

/// One kubeconfig with a context for each cluster.
fn kubeconfig() -> std::path::PathBuf {
    let mut whole = serde_json::json!({ "apiVersion": "v1", "kind": "Config", "clusters": [], "users": [], "contexts": [] });
    for (cluster, name) in bare().clusters().iter().zip(NAMES) {
        let one: Value = serde_json::from_slice(&std::fs::read(cluster.kubeconfig()).unwrap()).unwrap();
        let mut add = |list: &str, part: &str| {
            let mut entry = one[list][0].clone();
            entry["name"] = name.into();
            if part == "context" {
                entry[part] = serde_json::json!({ "cluster": name, "user": name });
            }
            whole[list].as_array_mut().unwrap().push(entry);
        };
        add("clusters", "cluster");
        add("users", "user");
        add("contexts", "context");
    }
    let path = bare().dir().join("kubeconfig-of-both");
    std::fs::write(&path, whole.to_string()).unwrap();
    path
}

/// The images, as a cluster would have pulled them.
fn pull(cluster: &Cluster) {
    let tag = concat!("v", env!("CARGO_PKG_VERSION"));
    for (made, name) in [(images::SPOKE, "spoke"), (images::HUB, "hub")] {
        images::tag(&cluster.socket(), made, &format!("{REGISTRY}/{name}:{tag}")).unwrap();
    }
}

/// The application that is there already: a claim with data.
fn application(cluster: &Cluster) {
    let objects = "apiVersion: v1\nkind: Namespace\nmetadata: {name: shop}\n---\napiVersion: v1\nkind: PersistentVolumeClaim\n\
                   metadata: {name: orders-data, namespace: shop}\n\
                   spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Gi}}}\n";
    cluster.apply(objects).unwrap();
    open_volume(cluster, "shop", "orders-data").unwrap();
    let folder = volume_path(cluster, "shop", "orders-data").unwrap();
    std::fs::write(format!("{folder}/orders.csv"), "1;apples\n2;pears\n").unwrap();
}

#[test]
#[ignore = "needs clusters: make install-test"]
fn the_readme_makes_a_fleet_with_a_backup_in_three_minutes() {
    let bed = bare();
    let clusters = bed.clusters();
    clusters.iter().for_each(pull);
    application(&clusters[0]);
    let (key, secret) = bed.servers().s3_credentials();
    let own = [
        ("REGISTRY", REGISTRY.to_owned()),
        ("FIRST", NAMES[0].to_owned()),
        ("SECOND", NAMES[1].to_owned()),
        ("ADDRESS", clusters[0].node_ip()),
        ("NAMESPACE", "shop".to_owned()),
        ("CLAIM", "orders-data".to_owned()),
        ("REPOSITORY", format!("s3:{}/readme", bed.servers().s3_urls()[0])),
        ("AWS_ACCESS_KEY_ID", key.to_owned()),
        ("AWS_SECRET_ACCESS_KEY", secret.to_owned()),
        ("RESTIC_PASSWORD", RESTIC_PASSWORD.to_owned()),
    ];
    let readme = std::fs::read_to_string(bed.workspace.root.join("README.md")).unwrap();
    let blocks = commands(&readme, &own);
    assert!(blocks.len() >= 3);
    let home = tempfile::tempdir().unwrap();
    let programs = bed.workspace.product("dev", "fleet");
    let path = format!(
        "{}:{}:{}",
        bed.workspace.bin().display(),
        programs.parent().unwrap().display(),
        std::env::var("PATH").unwrap()
    );
    let kubeconfig = kubeconfig();
    let first = clusters[0].clone();
    // The bed's provisioner makes volumes that root alone may write to, and does not know fsGroup.
    let opener = std::thread::spawn(move || {
        let until = Instant::now() + GOAL;
        while Instant::now() < until {
            if open_volume(&first, SYSTEM, "fleet-hub").is_ok() {
                return;
            }
            std::thread::sleep(Duration::from_millis(200));
        }
    });
    let run = |block: &str| {
        let output = Command::new("bash")
            .args(["-euo", "pipefail", "-c", block])
            .current_dir(&bed.workspace.root)
            .env_clear()
            .env("PATH", &path)
            .env("HOME", home.path())
            .env("USER", "ann")
            .env("KUBECONFIG", &kubeconfig)
            .envs(own.iter().map(|(name, value)| (*name, value)))
            .output()
            .unwrap();
        let printed = format!("{}{}", text(&output.stdout), text(&output.stderr));
        assert!(output.status.success(), "{block}\n{printed}");
        printed
    };
    let start = Instant::now();
    for block in &blocks {
        let began = start.elapsed();
        let printed = run(block);
        eprintln!("{:.0?} for:\n{block}\n{printed}", start.elapsed() - began);
    }
    let took = start.elapsed();
    eprintln!("README's commands took {took:.0?}");
    opener.join().unwrap();
    assert!(
        took <= GOAL,
        "{took:.0?} from the first command to the first backup"
    );
    let items = |what: &str| -> Vec<Value> {
        let whole: Value = serde_json::from_str(&run(&format!("fleet {what} -o json 2>/dev/null"))).unwrap();
        whole["items"].as_array().unwrap().clone()
    };
    let connected = |rows: &[Value]| rows.iter().filter(|row| row["state"] == "connected").count();
    wait_for("two connected clusters", || connected(&items("clusters")) == 2);
    let backups = items("backups");
    assert_eq!(backups.len(), 1, "{backups:?}");
    let shown = backups[0].to_string();
    assert!(shown.contains("orders") && shown.contains("berlin"), "{shown}");
    an_upgrade_takes_no_cluster_out(&clusters[1], || connected(&items("clusters")));
}

fn wait_for(what: &str, holds: impl Fn() -> bool) {
    let until = Instant::now() + Duration::from_secs(90);
    while !holds() {
        assert!(Instant::now() < until, "{what} did not come");
        std::thread::sleep(Duration::from_millis(500));
    }
}

/// Also one that does not give the values of before but where the images are.
fn an_upgrade_takes_no_cluster_out(cluster: &Cluster, connected: impl Fn() -> usize) {
    let folder = chart("spoke").to_string_lossy().into_owned();
    let registry = format!("image.registry={REGISTRY}");
    let arguments = [
        "upgrade",
        "fleet-spoke",
        &folder,
        "--namespace",
        SYSTEM,
        "--set",
        &registry,
        "--set",
        "maxBackups=3",
        "--wait",
    ];
    helm_ok(cluster, &arguments);
    let identity = [
        "get",
        "secret",
        "-n",
        SYSTEM,
        "fleet-spoke-join",
        "fleet-spoke-identity",
        "-o",
        "name",
    ];
    assert_eq!(cluster.kubectl(&identity).unwrap().lines().count(), 2);
    wait_for("the clusters after an upgrade", || connected() == 2);
    // What was installed by Helm stays a fleet's when it is uninstalled: kinds and resources are there.
    helm_ok(
        cluster,
        &["uninstall", "fleet-spoke", "--namespace", SYSTEM, "--wait"],
    );
    let kinds = cluster.kubectl(&["get", "crd", "-o", "name"]).unwrap();
    assert_eq!(
        kinds
            .lines()
            .filter(|name| name.contains("backup.resticbackup.io"))
            .count(),
        4
    );
}
