//! A PostgreSQL that is written to while hooks and a volume back it up, and that another cluster starts from the copy.

use std::time::Duration;

use anyhow::ensure;
use serde_json::{Value, json};
use tests::database::example;
use tests::images::postgresql;
use tests::{Bed, Database, fleet, progress};

use crate::NAMESPACE;
use crate::receiver::Receiver;

const BACKUP: &str = "resticbackup/postgres-copy";

/// The server in cluster a with its tables, as deploy/examples/postgresql-volume.yaml expects it.
pub fn start(bed: &Bed) -> anyhow::Result<Database> {
    progress("cluster a: a PostgreSQL");
    let a = bed.cluster("a")?;
    // The second is for the way back.
    for cluster in bed.clusters() {
        postgresql::load(&cluster)?;
    }
    for claim in ["postgres-data", "postgres-copy"] {
        fleet::local_volume(&a, NAMESPACE, claim)?;
    }
    let claims = [
        ("postgres-data", "/var/lib/postgresql"),
        ("postgres-copy", "/backup"),
    ];
    let server = Database::start(&a, NAMESPACE, "postgres", &[], &claims)?;
    server.create("a password")?;
    Ok(server)
}

/// One backup while orders come in. Returns the last order that was committed before it began.
pub fn back_up(bed: &Bed, server: &Database, receiver: &Receiver) -> anyhow::Result<u64> {
    let a = bed.cluster("a")?;
    let mut backup = example(&bed.workspace, "postgresql-volume.yaml")?;
    backup["metadata"]["namespace"] = json!(NAMESPACE);
    backup["spec"]["repositoryRef"] = json!({ "name": "shared" });
    backup["spec"]["notifications"] = json!({ "webhook": { "url": receiver.url } });
    a.apply(&backup.to_string())?;
    let limit = Duration::from_secs(60);
    fleet::wait(&a, NAMESPACE, BACKUP, "condition=Ready", limit)?;
    let writer = server.write()?;
    let before = server.newest()?;
    progress(&format!(
        "backup of the PostgreSQL by hooks, while it is written to; order {before} is committed"
    ));
    let run = "backup.resticbackup.io/run=database";
    a.kubectl(&["annotate", "-n", NAMESPACE, BACKUP, run])?;
    let done = "jsonpath={.status.statistics.successfulBackups}=1";
    fleet::wait(&a, NAMESPACE, BACKUP, done, Duration::from_secs(120))?;
    server.until_newer(before)?;
    drop(writer);
    hooks(bed)?;
    server.exec(&["test", "!", "-e", "/backup/base"])?;
    progress(&format!(
        "received: {}",
        receiver.until("success", "postgres-copy")?
    ));
    Ok(before)
}

/// Both hooks ran, and well.
fn hooks(bed: &Bed) -> anyhow::Result<()> {
    let get = [
        "get",
        "-n",
        NAMESPACE,
        BACKUP,
        "-o",
        "jsonpath={.status.lastBackup.hooks}",
    ];
    let text = bed.cluster("a")?.kubectl(&get)?;
    let hooks: Vec<Value> = serde_json::from_str(&text)?;
    ensure!(
        hooks.len() == 2 && hooks.iter().all(|hook| hook["result"] == "Succeeded"),
        "the hooks of the backup are {text}"
    );
    Ok(())
}

/// Cluster b starts a server from the copy, and every order is there.
pub fn bring_back(bed: &Bed, server: &Database, before: u64) -> anyhow::Result<()> {
    progress("cluster b restores the PostgreSQL of cluster a and starts it");
    let b = bed.cluster("b")?;
    let mut restore = example(&bed.workspace, "restores/postgresql-volume.yaml")?;
    let claim = "postgres-copy-back";
    fleet::volume_for(&b, NAMESPACE, claim)?;
    restore["metadata"]["namespace"] = json!(NAMESPACE);
    // Cluster b has no ResticBackup of it: the snapshot is found by what it carries.
    let tags = json!([
        "fleet.cluster=a",
        format!("fleet.backup={NAMESPACE}/postgres-copy")
    ]);
    restore["spec"] = json!({ "repositoryRef": { "name": "shared" }, "snapshotSelector": { "tags": tags },
        "target": { "newPVC": { "name": claim, "size": "1Gi", "storageClassName": "local" } },
        "jobConfig": restore["spec"]["jobConfig"] });
    b.apply(&restore.to_string())?;
    let object = "resticrestore/postgres-copy-back";
    let done = "jsonpath={.status.phase}=Completed";
    fleet::wait(&b, NAMESPACE, object, done, Duration::from_secs(120))?;
    let data = [("PGDATA", "/var/lib/postgresql/base")];
    let claims = [(claim, "/var/lib/postgresql")];
    let copy = Database::start(&b, NAMESPACE, "postgres", &data, &claims)?;
    let newest = copy.check()?;
    ensure!(
        newest >= before,
        "order {before} was committed before the backup, and {newest} is the newest in it"
    );
    ensure!(
        server.digest(newest)? == copy.digest(newest)?,
        "the orders of the two clusters differ"
    );
    progress(&format!(
        "all orders up to {newest} are there, each of them whole"
    ));
    Ok(())
}
