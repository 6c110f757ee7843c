use k8s_openapi::api::core::v1::{Namespace, PersistentVolumeClaim, Pod};
use kube::core::PartialObjectMeta;
use serde_json::{Value, json};

use super::*;

fn put_claim(world: &World, namespace: &str, name: &str, more: &Value) {
    let mut claim = json!({
        "metadata": { "name": name, "namespace": namespace, "uid": format!("uid-{name}"), "resourceVersion": "1",
                      "creationTimestamp": "2026-11-01T00:00:00Z" },
        "spec": { "resources": { "requests": { "storage": "10Gi" } } },
    });
    merge(&mut claim, more);
    let claim: PersistentVolumeClaim = serde_json::from_value(claim).unwrap();
    world
        .claims
        .put(Key::new(namespace, name), Arc::new(ClaimView::of(&claim)));
}

fn merge(into: &mut Value, more: &Value) {
    match (into, more) {
        (Value::Object(into), Value::Object(more)) => {
            for (name, value) in more {
                merge(into.entry(name.clone()).or_insert(Value::Null), value);
            }
        }
        (into, more) => *into = more.clone(),
    }
}

fn put_backup(world: &World, name: &str, version: u64, source: &Value, job: &Value) {
    let backup = json!({
        "apiVersion": "backup.resticbackup.io/v1alpha1", "kind": "ResticBackup",
        "metadata": { "name": name, "namespace": "shop", "uid": format!("uid-{name}"), "generation": version,
                      "resourceVersion": version.to_string() },
        "spec": { "repositoryRef": { "name": "nas" }, "schedule": "@daily", "source": source, "jobConfig": job },
    });
    let backup: ResticBackup = serde_json::from_value(backup).unwrap();
    world.backups.put(Key::new("shop", name), Arc::new(backup));
}

fn put_pod(world: &World, name: &str, app: &str, volumes: &[(&str, &str)]) {
    let volumes: Vec<Value> = volumes
        .iter()
        .map(|(name, claim)| json!({ "name": name, "persistentVolumeClaim": { "claimName": claim } }))
        .collect();
    let pod = json!({
        "metadata": { "name": name, "namespace": "shop", "uid": format!("uid-{name}"), "resourceVersion": "1",
                      "labels": { "app": app } },
        "spec": { "nodeName": "n", "containers": [{ "name": "c" }], "volumes": volumes },
    });
    let pod: Pod = serde_json::from_value(pod).unwrap();
    world
        .app_pods
        .put(Key::new("shop", name), Arc::new(AppPodView::of(&pod)));
}

fn open_of(report: &ClaimsReport) -> Vec<String> {
    let open = report.open.iter();
    open.map(|claim| format!("{}/{}", claim.namespace, claim.name))
        .collect()
}

/// Namespace, claims, covered.
fn counts(report: &ClaimsReport) -> Vec<(&str, u64, u64)> {
    let all = report.namespaces.iter();
    all.map(|of| (of.namespace.as_str(), of.claims, of.covered))
        .collect()
}

#[test]
fn a_claim_is_covered_by_who_names_it_and_by_who_finds_it_behind_pods() {
    let world = World::default();
    let coverage = Coverage::attached(&world);
    for name in [
        "named", "template", "volume", "beside", "dumped", "nobody", "cache", "made",
    ] {
        put_claim(&world, "shop", name, &json!({}));
    }
    let owner = json!({ "metadata": { "resourceVersion": "2", "ownerReferences": [{
        "apiVersion": "v1", "kind": "ResticBackup", "name": "named", "uid": "u", "controller": true }] } });
    put_claim(&world, "shop", "made", &owner);
    let deleting = json!({ "metadata": { "deletionTimestamp": "2026-11-02T00:00:00Z" } });
    put_claim(&world, "shop", "deleting", &deleting);
    put_claim(&world, "ops", "named", &json!({}));
    put_backup(
        &world,
        "named",
        1,
        &json!({ "pvc": { "claimName": "named" } }),
        &json!({ "cache": { "claimName": "cache" } }),
    );
    let template = json!({ "spec": { "containers": [], "volumes": [
        { "name": "data", "persistentVolumeClaim": { "claimName": "template" } }] } });
    let custom = json!({ "customSource": { "podTemplate": template, "backupPath": "/data" } });
    put_backup(&world, "custom", 1, &custom, &Value::Null);
    let selector = |app: &str| json!({ "matchLabels": { "app": app } });
    let volume = json!({ "podVolumeBackup": { "selector": selector("web"), "volumeName": "data" } });
    put_backup(&world, "volume", 1, &volume, &Value::Null);
    let dump = json!({ "stdin": { "filename": "d.sql", "exec": {
        "podSelector": selector("db"), "command": ["pg_dumpall"] } } });
    put_backup(&world, "dump", 1, &dump, &Value::Null);
    put_pod(&world, "web-0", "web", &[("data", "volume"), ("logs", "beside")]);
    put_pod(&world, "db-0", "db", &[("data", "dumped")]);
    let report = coverage.report(&world);
    assert_eq!(open_of(&report), ["ops/named", "shop/beside", "shop/nobody"]);
    assert_eq!(counts(&report), [("ops", 1, 0), ("shop", 6, 4)]);
    assert_eq!((report.open[1].bytes, report.cut), (10 << 30, false));
    assert_eq!(
        coverage.report(&world),
        report,
        "the same caches give the same report"
    );
}

#[test]
fn what_was_found_behind_pods_stays_covered_while_the_backup_stays_as_it_is() {
    let world = World::default();
    let coverage = Coverage::attached(&world);
    put_claim(&world, "shop", "data", &json!({}));
    let volume = |name: &str| {
        json!({ "podVolumeBackup": {
        "selector": { "matchLabels": { "app": "web" } }, "volumeName": name } })
    };
    put_backup(&world, "web", 1, &volume("data"), &Value::Null);
    assert_eq!(
        open_of(&coverage.report(&world)),
        ["shop/data"],
        "no pod shows it yet"
    );
    put_pod(&world, "web-0", "web", &[("data", "data")]);
    assert_eq!(coverage.report(&world).open.len(), 0);
    world.app_pods.remove(&Key::new("shop", "web-0"), None);
    assert_eq!(coverage.report(&world).open.len(), 0, "scaled down for the night");
    put_backup(&world, "web", 2, &volume("other"), &Value::Null);
    assert_eq!(
        open_of(&coverage.report(&world)),
        ["shop/data"],
        "it backs something else up"
    );
    put_backup(&world, "web", 3, &volume("data"), &Value::Null);
    put_pod(&world, "web-1", "web", &[("data", "data")]);
    assert_eq!(coverage.report(&world).open.len(), 0);
    world.backups.remove(&Key::new("shop", "web"), None);
    assert_eq!(
        open_of(&coverage.report(&world)),
        ["shop/data"],
        "nobody does any more"
    );
}

#[test]
fn an_exclusion_is_that_of_the_claim_or_of_its_namespace() {
    let world = World::default();
    let coverage = Coverage::attached(&world);
    let annotated = |pairs: &[(&str, &str)]| {
        let all: BTreeMap<&str, &str> = pairs.iter().copied().collect();
        json!({ "metadata": { "annotations": all } })
    };
    let namespace = json!({ "metadata": { "name": "scratch", "uid": "n", "resourceVersion": "1",
        "annotations": { (names::ANNOTATION_EXCLUDE): "scratch space" } } });
    let namespace: PartialObjectMeta<Namespace> = serde_json::from_value(namespace).unwrap();
    world
        .namespaces
        .put(Key::new("", "scratch"), Arc::new(NamespaceView::of(&namespace)));
    put_claim(&world, "scratch", "plain", &json!({}));
    let own = annotated(&[
        (names::ANNOTATION_EXCLUDE, "a cache"),
        (names::ANNOTATION_EXCLUDE_UNTIL, "2027-03-01"),
    ]);
    put_claim(&world, "scratch", "own", &own);
    let faulty = annotated(&[(names::ANNOTATION_EXCLUDE, "")]);
    put_claim(&world, "scratch", "faulty", &faulty);
    put_claim(&world, "shop", "faulty", &faulty);
    let report = coverage.report(&world);
    let open: Vec<(&str, &str, bool, bool)> = report
        .open
        .iter()
        .map(|c| {
            (
                c.name.as_str(),
                c.exclusion.as_str(),
                c.excluded_until.is_some(),
                c.exclusion_fault.is_empty(),
            )
        })
        .collect();
    let wanted = [
        ("faulty", "scratch space", false, true),
        ("own", "a cache", true, true),
        ("plain", "scratch space", false, true),
        ("faulty", "", false, false),
    ];
    assert_eq!(open, wanted);
}

#[tokio::test]
async fn only_what_matters_wakes() {
    let world = World::default();
    let coverage = Coverage::attached(&world);
    let woken = || async {
        tokio::time::timeout(std::time::Duration::from_millis(20), coverage.changed())
            .await
            .is_ok()
    };
    put_claim(&world, "shop", "data", &json!({}));
    assert!(woken().await);
    put_claim(
        &world,
        "shop",
        "data",
        &json!({ "metadata": { "resourceVersion": "2", "labels": { "a": "b" } } }),
    );
    assert!(!woken().await, "a label");
    put_claim(
        &world,
        "shop",
        "data",
        &json!({ "metadata": { "resourceVersion": "3",
        "annotations": { (names::ANNOTATION_EXCLUDE): "a cache" } } }),
    );
    assert!(woken().await);
    put_pod(&world, "p", "web", &[]);
    assert!(!woken().await, "a pod without a claim");
    put_pod(&world, "q", "web", &[("data", "data")]);
    assert!(woken().await);
    world.app_pods.remove(&Key::new("shop", "q"), None);
    assert!(!woken().await, "one that ends");
    put_backup(
        &world,
        "web",
        1,
        &json!({ "pvc": { "claimName": "data" } }),
        &Value::Null,
    );
    assert!(woken().await);
    assert!(!woken().await);
}
