//! Storages that are emulated: what the manager and pods are given is what restic needs for them. `tests/run.sh backends`.

use serde_json::{Value, json};
use tests::emulators::{AZURE_ACCOUNT, AZURE_KEY, Azurite, BUCKET, fake_gcs};
use tests::fleet;
use tests::tools::Workspace;

use crate::retention::{policy, start, until_run};
use crate::support::{Place, bed, tree};

/// Creates the repository, backs up twice, restores byte for byte, and removes the first snapshot: all by the API.
fn whole(name: &str, url: &str, keys: Value, options: Value) {
    let place = Place::new("a", name);
    let mut data = json!({ "RESTIC_PASSWORD": "right horse" });
    data.as_object_mut()
        .unwrap()
        .extend(keys.as_object().unwrap().clone());
    let mut repository = place.repository("nas", url);
    repository["spec"]["credentialsSecretRef"]["name"] = json!("emulated");
    repository["spec"]["backendOptions"] = options;
    place.apply(&[
        json!({ "apiVersion": "v1", "kind": "Secret", "metadata": { "name": "emulated" }, "stringData": data }),
        repository,
        place.backup("orders", json!({ "name": "nas" }), json!({})),
    ]);
    place.until_ready("resticrepository/nas");
    place.until_ready("resticbackup/orders");
    let first = place.run("orders", "1");
    assert_eq!(first["result"], "Succeeded", "{first:#}");
    place.write("small/later.txt", b"more");
    let second = place.run("orders", "2");
    assert_eq!(second["result"], "Succeeded", "{second:#}");

    let restore = json!({ "apiVersion": "backup.resticbackup.io/v1alpha1", "kind": "ResticRestore", "metadata": { "name": "back" },
        "spec": { "backupRef": { "name": "orders" }, "snapshotID": "latest",
                  "target": { "newPVC": { "name": "fresh", "size": "1Gi" } }, "options": { "verify": true },
                  // The bed's new volumes belong to root.
                  "jobConfig": { "securityContext": { "runAsUser": 0 } } } });
    place.apply(&[restore]);
    let over = |o: &Value| {
        ["Completed", "Failed"]
            .map(|p| json!(p))
            .contains(&o["status"]["phase"])
    };
    let back = place.until("resticrestore/back", "its end", over);
    assert_eq!(back["status"]["phase"], "Completed", "{:#}", back["status"]);
    let fresh = fleet::volume_path(&place.cluster, name, "fresh").unwrap();
    assert_eq!(tree(fresh.as_ref()), tree(&place.data()));

    let more = json!({ "initialRun": "Apply", "prune": true, "guard": { "maxRemovedPercent": 100 } });
    let keep = json!([{ "selector": {}, "retention": { "keepLast": 1 } }]);
    place.apply(&[policy("p", keep, more)]);
    place.until_ready("globalretentionpolicy/p");
    start(&place, "p", "one");
    let ran = until_run(&place, "p", &json!({}));
    assert_eq!(
        (&ran["lastRunResult"], &ran["snapshotsRemoved"]),
        (&json!("Applied"), &json!(1)),
        "{ran:#}"
    );
    assert_eq!(place.run("orders", "3")["result"], "Succeeded");
}

#[test]
#[ignore = "needs clusters, Node.js and npm: make backends"]
fn azure_by_azurite() {
    let dir = tempfile::tempdir().unwrap();
    let azurite = Azurite::start(&Workspace::here(), dir.path(), &bed().plan().wan(1)).unwrap();
    let keys = json!({ "AZURE_ACCOUNT_NAME": AZURE_ACCOUNT, "AZURE_ACCOUNT_KEY": AZURE_KEY,
                       "AZURE_ENDPOINT_SUFFIX": azurite.suffix, "HTTPS_PROXY": azurite.proxy,
                       "RESTIC_CACERT": azurite.authority });
    // Where there is no container, restic tries to read for ever instead of saying so: a person makes it, here by restic.
    let mut command = std::process::Command::new(bed().workspace.program("restic"));
    let arguments = [
        "-o",
        "azure.access-tier=Hot",
        "-r",
        "azure:backups:/other",
        "init",
        "-q",
    ];
    command.args(arguments).env("RESTIC_PASSWORD", "other");
    let files = [("RESTIC_CACERT", "ca.pem")].map(|(name, file)| (name, dir.path().join(file)));
    std::fs::write(&files[0].1, &azurite.authority).unwrap();
    let variables = keys.as_object().unwrap().iter();
    command
        .envs(variables.map(|(name, value)| (name, value.as_str().unwrap())))
        .envs(files);
    assert!(command.status().unwrap().success());
    // restic leaves the header for the tier empty unless it is given one, which Azurite refuses.
    whole(
        "azure",
        "azure:backups:/",
        keys,
        json!({ "azure.access-tier": "Hot" }),
    );
}

#[test]
#[ignore = "needs clusters: make backends"]
fn google_by_fake_gcs_server() {
    let dir = tempfile::tempdir().unwrap();
    let server = fake_gcs(&Workspace::here(), dir.path(), &bed().plan().wan(1)).unwrap();
    let keys = json!({ "GOOGLE_PROJECT_ID": "fleet", "GOOGLE_ACCESS_TOKEN": "any",
                       "STORAGE_EMULATOR_HOST": format!("http://{}", server.address) });
    whole(
        "google",
        &format!("gs:{BUCKET}:/"),
        keys,
        json!({ "gs.connections": "4" }),
    );
}
