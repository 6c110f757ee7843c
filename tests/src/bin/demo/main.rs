//! `make demo`: two clusters with an application each back up into one repository, and the fleet shows it once. One has a
//! PostgreSQL as well, which hooks copy for its backup.
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a demonstration talks to a person"
)]

mod database;
mod integrity;
mod receiver;

use std::fs;
use std::panic::resume_unwind;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use tests::bed::RESTIC_PASSWORD;
use tests::{Bed, Cluster, Options, fleet, progress};

use receiver::Receiver;

const NAMESPACE: &str = "shop";

fn main() -> ExitCode {
    let start = Instant::now();
    match run() {
        Ok(login) => {
            println!("\nDone in {:.0?}. Look around:\n", start.elapsed());
            println!("  source .testbed/env; a=\"kubectl --kubeconfig $KUBECONFIG_A -n shop\"");
            println!("  fleet status                       # is everything backed up?");
            println!("  fleet repos -o wide                # one repository, two clusters, two URLs");
            println!("  restic snapshots                   # the same repository by restic itself");
            println!("  $a get rr,rb                       # what cluster a says of it");
            println!(
                "  $a get rb postgres-copy -o yaml    # hooks around the backup of a PostgreSQL, and how they went"
            );
            println!(
                "  $a get rr shared -o jsonpath='{{.status.integrityCheck}}'   # the check of the repository"
            );
            println!(
                "  tail .testbed/beds/demo/notifications.log                 # what a webhook has received"
            );
            println!("  target/*/debug/testbed partition b # and watch `fleet clusters`; heal b mends it");
            println!(
                "\nThe dashboard, whose certificate is of the demo's own authority; the login is good once:\n"
            );
            print!("{login}");
            println!("\n`make demo-down` removes everything. `fleet dashboard` prints another login.");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("demo: {error:#}");
            eprintln!(
                "The clusters are left running for a look: source .testbed/env. `make demo-down` removes them."
            );
            ExitCode::FAILURE
        }
    }
}

/// Returns where the dashboard is, and a login for it.
fn run() -> anyhow::Result<String> {
    let bed = unused(Bed::attach("demo")?)?;
    // Made of Debian's packages while the product starts.
    let workspace = bed.workspace.clone();
    let image = std::thread::spawn(move || workspace.postgresql_image());
    // A hub grants nothing for one life of a lease after its start; the demo does not wait for the usual five minutes.
    let hub = [
        ("FLEET_HUB_LEASE_TTL", "20s"),
        ("FLEET_HUB_LOCK_DELAY", "40s"),
        ("FLEET_HUB_UNSAFE_SHORT_LEASES", "true"),
        // Four times the spokes' probe deadline.
        ("FLEET_HUB_CREATION_HOLD", "40s"),
    ];
    fleet::install(&bed, &[("FLEET_PROBE_DEADLINE", "10s")], &hub)?;
    let urls = bed.servers().s3_urls();
    for (cluster, url) in bed.clusters().iter().zip(&urls) {
        progress(&format!(
            "cluster {}: an application, a repository at {url}/shared, a backup",
            cluster.name
        ));
        application(cluster)?;
        resources(&bed, cluster, &format!("s3:{url}/shared"))?;
    }
    let receiver = Receiver::start(&bed)?;
    image.join().unwrap_or_else(|panic| resume_unwind(panic))?;
    let database = database::start(&bed)?;
    ready(&bed)?;
    for round in ["first", "second"] {
        backups(&bed, round)?;
    }
    // Due while the database is backed up and brought back: nobody waits for the minute.
    policies(&bed)?;
    let before = database::back_up(&bed, &database, &receiver)?;
    restore(&bed)?;
    database::bring_back(&bed, &database, before)?;
    retention(&bed)?;
    integrity::check(&bed)?;
    // Nothing changes the repository any more; its statistics were read meanwhile.
    check(&bed)?;
    show(&bed)?;
    fleet::shell_ok(&bed, "fleet", &["dashboard", "--no-open"])
}

/// The bed, made anew where an earlier demo has used it: what that has counted and pruned would be counted again.
fn unused(bed: Bed) -> anyhow::Result<Bed> {
    let namespace = ["get", "namespace", NAMESPACE, "--ignore-not-found", "-o", "name"];
    let mut used = false;
    for cluster in bed.clusters() {
        used |= !cluster.kubectl(&namespace)?.trim().is_empty();
    }
    if !used {
        return Ok(bed);
    }
    progress("the clusters of the demo before this one are removed");
    bed.down();
    Bed::up(&Options::new("demo"))
}

/// Waits until repository and backup of both clusters are as they should be.
fn ready(bed: &Bed) -> anyhow::Result<()> {
    for cluster in bed.clusters() {
        fleet::wait(
            &cluster,
            NAMESPACE,
            "resticrepository/shared",
            "condition=Ready",
            Duration::from_secs(120),
        )?;
        fleet::wait(
            &cluster,
            NAMESPACE,
            "resticbackup/orders",
            "condition=Ready",
            Duration::from_secs(60),
        )?;
    }
    Ok(())
}

/// One backup in each cluster.
fn backups(bed: &Bed, round: &str) -> anyhow::Result<()> {
    progress(&format!("{round} backup in both clusters"));
    for cluster in bed.clusters() {
        let run = format!(
            "backup.resticbackup.io/run={round}-{}",
            jiff::Timestamp::now().as_millisecond()
        );
        cluster.kubectl(&[
            "annotate",
            "-n",
            NAMESPACE,
            "resticbackup/orders",
            &run,
            "--overwrite",
        ])?;
    }
    for cluster in bed.clusters() {
        let count = if round == "first" { "1" } else { "2" };
        let done = format!("jsonpath={{.status.statistics.successfulBackups}}={count}");
        fleet::wait(
            &cluster,
            NAMESPACE,
            "resticbackup/orders",
            &done,
            Duration::from_secs(180),
        )?;
    }
    Ok(())
}

/// What a person sees of it.
fn show(bed: &Bed) -> anyhow::Result<()> {
    println!(
        "\n$ fleet repos -o wide\n{}",
        fleet::shell_ok(bed, "fleet", &["repos", "-o", "wide"])?
    );
    println!("$ fleet audit\n{}", fleet::shell_ok(bed, "fleet", &["audit"])?);
    println!(
        "$ fleet backups\n{}",
        fleet::shell_ok(bed, "fleet", &["backups"])?
    );
    println!("$ fleet status\n{}", fleet::shell_ok(bed, "fleet", &["status"])?);
    Ok(())
}

/// Both clusters' policies come due in the same minute: one run, one plan, the union of what they keep.
fn policies(bed: &Bed) -> anyhow::Result<()> {
    let due = jiff::Timestamp::now().as_second() / 60 * 60
        + if jiff::Timestamp::now().as_second() % 60 > 45 {
            120
        } else {
            60
        };
    let due = jiff::Timestamp::from_second(due)?
        .strftime("%M %H * * *")
        .to_string();
    progress(&format!(
        "retention in both clusters, due at {due} (UTC): a keeps the last of everything, b its own last two"
    ));
    for (cluster, rule) in bed.clusters().iter().zip([
        "{selector: {}, retention: {keepLast: 1}}",
        "{selector: {tags: [fleet.cluster=b]}, retention: {keepLast: 2}}",
    ]) {
        cluster.apply(&format!(
            "apiVersion: backup.resticbackup.io/v1alpha1\nkind: GlobalRetentionPolicy\nmetadata: {{name: nightly, namespace: {NAMESPACE}}}\n\
             spec: {{repositoryRef: {{name: shared}}, schedule: \"{due}\", prune: true, initialRun: Apply, guard: {{maxRemovedPercent: 60}}, policies: [{rule}]}}\n"
        ))?;
    }
    Ok(())
}

/// Waits until that run is over.
fn retention(bed: &Bed) -> anyhow::Result<()> {
    progress("the end of retention");
    for cluster in bed.clusters() {
        let applied = "jsonpath={.status.lastRunResult}=Applied";
        fleet::wait(
            &cluster,
            NAMESPACE,
            "globalretentionpolicy/nightly",
            applied,
            Duration::from_secs(240),
        )?;
    }
    let audit: serde_json::Value =
        serde_json::from_str(&fleet::shell_ok(bed, "fleet", &["audit", "-o", "json"])?)?;
    let runs = audit["items"].as_array().map_or(0, Vec::len);
    ensure!(runs == 1, "{runs} runs instead of one: {audit:#}");
    let left = |cluster: &str| -> anyhow::Result<usize> {
        let tags = format!("fleet.cluster={cluster},fleet.backup={NAMESPACE}/orders");
        let list = fleet::shell_ok(
            bed,
            "restic",
            &["snapshots", "--json", "--no-lock", "--tag", &tags],
        )?;
        Ok(serde_json::from_str::<Vec<serde_json::Value>>(&list)?.len())
    };
    let (of_a, of_b) = (left("a")?, left("b")?);
    ensure!(
        (of_a, of_b) == (1, 2),
        "{of_a} snapshots of a and {of_b} of b are left instead of 1 and 2"
    );
    Ok(())
}

/// Cluster b brings the files of cluster a's application back, from nothing but the repository.
fn restore(bed: &Bed) -> anyhow::Result<()> {
    progress("cluster b restores the files of cluster a");
    let (a, b) = (bed.cluster("a")?, bed.cluster("b")?);
    b.apply(&format!(
        "apiVersion: v1\nkind: PersistentVolumeClaim\nmetadata: {{name: from-a, namespace: {NAMESPACE}}}\n\
         spec: {{accessModes: [ReadWriteOnce], resources: {{requests: {{storage: 1Gi}}}}}}\n"
    ))?;
    fleet::open_volume(&b, NAMESPACE, "from-a")?;
    b.apply(&format!(
        "apiVersion: backup.resticbackup.io/v1alpha1\nkind: ResticRestore\nmetadata: {{name: from-a, namespace: {NAMESPACE}}}\n\
         spec: {{repositoryRef: {{name: shared}}, snapshotSelector: {{tags: [fleet.cluster=a, fleet.backup={NAMESPACE}/orders]}}, \
         target: {{pvc: {{claimName: from-a}}}}, options: {{verify: true}}}}\n"
    ))?;
    let done = "jsonpath={.status.phase}=Completed";
    fleet::wait(
        &b,
        NAMESPACE,
        "resticrestore/from-a",
        done,
        Duration::from_secs(120),
    )?;
    let (before, after) = (
        fleet::volume_path(&a, NAMESPACE, "orders-data")?,
        fleet::volume_path(&b, NAMESPACE, "from-a")?,
    );
    tests::process::run("diff", &["-r", &before, &after])
        .context("the restored files differ from those of cluster a")
        .map(drop)
}

/// Files that an application would write, on a claim of its own.
fn application(cluster: &Cluster) -> anyhow::Result<()> {
    cluster.apply(&format!(
        "apiVersion: v1\nkind: Namespace\nmetadata: {{name: {NAMESPACE}}}\n---\n\
         apiVersion: v1\nkind: PersistentVolumeClaim\nmetadata: {{name: orders-data, namespace: {NAMESPACE}}}\n\
         spec: {{accessModes: [ReadWriteOnce], resources: {{requests: {{storage: 1Gi}}}}}}\n"
    ))?;
    fleet::open_volume(cluster, NAMESPACE, "orders-data")?;
    cluster.apply(&format!(
        "apiVersion: apps/v1\nkind: Deployment\nmetadata: {{name: orders, namespace: {NAMESPACE}}}\nspec:\n  selector: {{matchLabels: {{app: orders}}}}\n  \
         template:\n    metadata: {{labels: {{app: orders}}}}\n    spec:\n      terminationGracePeriodSeconds: 1\n      securityContext: {{runAsUser: 65532, runAsNonRoot: true}}\n      containers:\n      - name: app\n        \
         image: {image}\n        imagePullPolicy: IfNotPresent\n        command: [sh, -c, 'mkdir -p /data/orders; i=0; while [ $i -lt 200 ]; do head -c 20000 /dev/urandom >/data/orders/$i; i=$((i+1)); done; echo {name} >/data/written; exec sleep 1000000']\n        \
         volumeMounts: [{{name: data, mountPath: /data}}]\n      volumes: [{{name: data, persistentVolumeClaim: {{claimName: orders-data}}}}]\n",
        image = tests::images::restic_image(),
        name = cluster.name,
    ))?;
    let file = format!(
        "{}/written",
        fleet::volume_path(cluster, NAMESPACE, "orders-data")?
    );
    let end = Instant::now() + Duration::from_secs(90);
    while !fs::exists(&file)? {
        ensure!(
            Instant::now() < end,
            "the application of cluster {} has not written its files",
            cluster.name
        );
        std::thread::sleep(Duration::from_millis(200));
    }
    Ok(())
}

fn resources(bed: &Bed, cluster: &Cluster, url: &str) -> anyhow::Result<()> {
    let servers = bed.servers();
    let (key, secret) = servers.s3_credentials();
    // One cluster checks for all that share the repository.
    let check = if cluster.name == "a" {
        ", integrityCheck: {schedule: \"0 5 * * 0\", readDataSubset: 1/1}"
    } else {
        ""
    };
    let manifests = format!(
        "apiVersion: v1\nkind: Secret\nmetadata: {{name: shared, namespace: {NAMESPACE}}}\n\
         stringData: {{RESTIC_PASSWORD: {RESTIC_PASSWORD}, AWS_ACCESS_KEY_ID: {key}, AWS_SECRET_ACCESS_KEY: {secret}}}\n---\n\
         apiVersion: backup.resticbackup.io/v1alpha1\nkind: ResticRepository\nmetadata: {{name: shared, namespace: {NAMESPACE}}}\n\
         spec: {{repositoryURL: \"{url}\", credentialsSecretRef: {{name: shared}}, refreshInterval: 1m{check}}}\n---\n\
         apiVersion: backup.resticbackup.io/v1alpha1\nkind: ResticBackup\nmetadata: {{name: orders, namespace: {NAMESPACE}}}\n\
         spec: {{repositoryRef: {{name: shared}}, schedule: \"30 2 * * *\", timezone: Europe/Berlin, source: {{pvc: {{claimName: orders-data}}}}}}\n"
    );
    cluster.apply(&manifests).map(drop)
}

/// What the demonstration claims.
fn check(bed: &Bed) -> anyhow::Result<()> {
    progress("checking what the fleet shows against restic itself");
    for cluster in bed.clusters() {
        let added = cluster.kubectl(&[
            "get",
            "-n",
            NAMESPACE,
            "resticbackup/orders",
            "-o",
            "jsonpath={.status.lastBackup.bytesAdded}",
        ])?;
        let added: u64 = added
            .trim()
            .parse()
            .with_context(|| format!("bytesAdded is {added:?}"))?;
        ensure!(
            added < 100_000,
            "the second backup of cluster {} added {added} bytes: it was not incremental",
            cluster.name
        );
    }
    let snapshots: Vec<serde_json::Value> = serde_json::from_str(&fleet::shell_ok(
        bed,
        "restic",
        &["snapshots", "--json", "--no-lock"],
    )?)?;
    ensure!(
        snapshots.len() == 4,
        "restic shows {} snapshots instead of 4, one of them of the PostgreSQL",
        snapshots.len()
    );
    let raw = ["stats", "--mode", "raw-data", "--json", "--no-lock"];
    let raw: serde_json::Value = serde_json::from_str(&fleet::shell_ok(bed, "restic", &raw)?)?;
    // Statistics are read each minute here.
    let end = Instant::now() + Duration::from_secs(120);
    loop {
        let repos: serde_json::Value =
            serde_json::from_str(&fleet::shell_ok(bed, "fleet", &["repos", "-o", "json"])?)?;
        let items = repos["items"].as_array().cloned().unwrap_or_default();
        let one = items.len() == 1
            && items
                .iter()
                .all(|r| r["clusters"] == serde_json::json!(["a", "b"]));
        let size = items
            .first()
            .map(|r| r["statistics"]["storedBytes"].clone())
            .unwrap_or_default();
        if one && size == raw["total_size"] {
            break;
        }
        if Instant::now() > end {
            bail!(
                "the fleet shows {items:#?} instead of one repository of two clusters with {} bytes",
                raw["total_size"]
            );
        }
        std::thread::sleep(Duration::from_millis(500));
    }
    Ok(())
}
