//! The recipes for PostgreSQL, as they are in deploy/examples, with a server that is written to all the time.

use serde_json::{Value, json};
use tests::images::postgresql::{self, POSTGRESQL};
use tests::{Database, database, fleet};

use crate::support::{Place, bed, s3};

/// How docs/recipes.md loads a dump of a whole server: the roles of both are called postgres.
const FILTER: &str = r"sed -i -e '/^\\connect/,$b' -e '/^DROP ROLE IF EXISTS postgres;$/d' -e '/^CREATE ROLE postgres;$/d' /back/cluster.sql";
const LOAD: &str = "psql --username=postgres --set ON_ERROR_STOP=1 --quiet --file=/back/cluster.sql postgres";
/// The same for a dump of one database.
const LOAD_ONE: &str =
    "pg_restore --username=postgres --exit-on-error --create --dbname=postgres /back/orders.dump";
/// The same for a copy of all files, before a server starts.
const VERIFY: &str = "pg_verifybackup /var/lib/postgresql/base";

/// An example with the names that it has here.
fn example(file: &str) -> Value {
    let mut object = database::example(&bed().workspace, file).unwrap();
    object["metadata"]["namespace"] = Value::Null;
    let spec = &mut object["spec"];
    if !spec["repositoryRef"].is_null() {
        spec["repositoryRef"] = json!({ "name": "nas" });
    }
    if !spec["target"]["newPVC"].is_null() {
        spec["target"]["newPVC"]["storageClassName"] = json!("local");
    }
    object
}

fn name(object: &Value) -> &str {
    object["metadata"]["name"].as_str().unwrap()
}

/// A server that has been written to for some time, with all that the examples name.
fn server(place: &Place) -> Database {
    postgresql::load(&place.cluster).unwrap();
    for claim in ["postgres-data", "postgres-copy"] {
        fleet::local_volume(&place.cluster, &place.namespace, claim).unwrap();
    }
    let claims = [
        ("postgres-data", "/var/lib/postgresql"),
        ("postgres-copy", "/backup"),
    ];
    let server = Database::start(&place.cluster, &place.namespace, "postgres", &[], &claims).unwrap();
    server.create("a password").unwrap();
    place.apply(&[
        json!({ "apiVersion": "v1", "kind": "Secret", "metadata": { "name": "postgres-backup" }, "stringData": { "password": "a password" } }),
    ]);
    server
}

/// A backup as the example describes it; returns the newest order that was committed before it began.
fn back_up(place: &Place, server: &Database, backup: &Value) -> u64 {
    place.apply(std::slice::from_ref(backup));
    place.until_ready(&format!("resticbackup/{}", name(backup)));
    let before = server.newest().unwrap();
    let run = place.run(name(backup), "1");
    assert_eq!(run["result"], "Succeeded", "{run:#}");
    server.until_newer(before).unwrap();
    for hook in run["hooks"].as_array().into_iter().flatten() {
        assert_eq!(hook["result"], "Succeeded", "{run:#}");
    }
    before
}

/// Restores into a new claim.
fn bring_back(place: &Place, restore: &Value) -> String {
    let claim = restore["spec"]["target"]["newPVC"]["name"].as_str().unwrap();
    fleet::volume_for(&place.cluster, &place.namespace, claim).unwrap();
    place.apply(std::slice::from_ref(restore));
    place.until(&format!("resticrestore/{}", name(restore)), "Completed", |o| {
        o["status"]["phase"] == "Completed"
    });
    claim.to_owned()
}

/// A new server with a dump from a new claim.
fn loaded(place: &Place, name: &str, restore: &Value, commands: &[&str]) -> Database {
    let claim = bring_back(place, restore);
    let claims = [(claim.as_str(), "/back")];
    let server = Database::start(&place.cluster, &place.namespace, name, &[], &claims).unwrap();
    for command in commands {
        server.exec(&["sh", "-c", command]).unwrap();
    }
    server
}

/// What was committed before a backup is in its copy, each transaction whole, and with the same content.
fn same(server: &Database, copy: &Database, before: u64) {
    let newest = copy.check().unwrap();
    assert!(
        newest >= before,
        "order {before} was committed before the backup, and {newest} is the newest in it"
    );
    assert_eq!(server.digest(newest).unwrap(), copy.digest(newest).unwrap());
    eprintln!("{before} orders before the backup, {newest} in it");
}

/// A copy of all files is as the server wrote it.
fn verified(place: &Place, claim: &str) {
    let mount = json!({ "name": "back", "mountPath": "/var/lib/postgresql" });
    let command: Vec<&str> = VERIFY.split(' ').collect();
    let container =
        json!({ "name": "verify", "image": POSTGRESQL, "command": command, "volumeMounts": [mount] });
    let volume = json!({ "name": "back", "persistentVolumeClaim": { "claimName": claim } });
    place.apply(&[
        json!({ "apiVersion": "v1", "kind": "Pod", "metadata": { "name": "verify" }, "spec": {
            "restartPolicy": "Never", "containers": [container], "volumes": [volume] } }),
    ]);
    place.until("pod/verify", "Succeeded", |o| o["status"]["phase"] == "Succeeded");
}

#[test]
#[ignore = "needs clusters: make test"]
fn a_server_that_is_written_to_comes_back_from_each_recipe_with_every_row() {
    let place = Place::new("b", "postgresql");
    place.apply(&[place.repository("nas", &s3(0, "postgresql"))]);
    let server = server(&place);
    let mut network = example("postgresql-network.yaml");
    let dump = &mut network["spec"]["source"]["stdin"]["pod"]["podTemplate"]["spec"]["containers"][0];
    dump["image"] = json!(POSTGRESQL);
    assert_eq!(dump["env"][0]["name"], "PGHOST");
    // There is no DNS here.
    dump["env"][0]["value"] = json!(server.address().unwrap());

    let writer = server.write().unwrap();
    let whole = back_up(&place, &server, &example("postgresql.yaml"));
    let one = back_up(&place, &server, &network);
    let files = back_up(&place, &server, &example("postgresql-volume.yaml"));
    drop(writer);

    let mut restore_one = example("restores/postgresql.yaml");
    restore_one["metadata"]["name"] = json!("orders-back");
    restore_one["spec"]["backupRef"] = json!({ "name": name(&network) });
    restore_one["spec"]["target"]["newPVC"]["name"] = json!("orders-back");
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let restore = example("restores/postgresql.yaml");
            let loaded = loaded(&place, "loaded", &restore, &[FILTER, LOAD]);
            same(&server, &loaded, whole);
        });
        scope.spawn(|| {
            let loaded = loaded(&place, "loaded-one", &restore_one, &[LOAD_ONE]);
            same(&server, &loaded, one);
        });
        let claim = bring_back(&place, &example("restores/postgresql-volume.yaml"));
        verified(&place, &claim);
        let data = [("PGDATA", "/var/lib/postgresql/base")];
        let claims = [(claim.as_str(), "/var/lib/postgresql")];
        let started = Database::start(&place.cluster, &place.namespace, "started", &data, &claims).unwrap();
        same(&server, &started, files);
    });

    let recipes = std::fs::read_to_string(bed().workspace.root.join("docs/recipes.md")).unwrap();
    for command in [FILTER, LOAD, LOAD_ONE, VERIFY] {
        assert!(
            recipes.contains(command),
            "docs/recipes.md has another command than {command}"
        );
    }
}
