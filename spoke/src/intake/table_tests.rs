use std::collections::BTreeSet;
use std::sync::Arc;

use crds::common::CrossNamespaceObjectReference;
use crds::restore::RestorePhase;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::world::Stored as _;

#[test]
fn a_run_that_ends_moves_the_queue() {
    let world = World::default();
    let job = |of: &str, parked: bool| JobView {
        of: Some(Key::new("a", of)),
        parked,
        suspended: parked,
        ..JobView::default()
    };
    let woken = |old: JobView, new: Option<JobView>| {
        let mut change = Change::touched(Key::new("a", "one-1"), Arc::new(old));
        change.new = new.map(Arc::new);
        let woken = wakes(&world, JOB, &change);
        woken.iter().any(|(reader, _)| *reader == Reader::Queue)
    };
    let ended = JobView {
        end: Some((None, crate::world::JobEnd::Complete)),
        ..job("one", false)
    };
    assert!(woken(job("one", false), Some(ended.clone())));
    assert!(woken(job("one", false), None), "it was deleted");
    assert!(woken(job("one", true), Some(job("one", false))), "it was opened");
    assert!(!woken(job("one", false), Some(job("one", false))));
    assert!(!woken(ended, None), "an old one is cleaned up");
}

const NAMESPACES: [&str; 2] = ["a", "b"];

/// Two short names and two that do not fit into a label.
fn name(n: u8) -> String {
    match n % 4 {
        0 => "one".to_owned(),
        1 => "two".to_owned(),
        n => format!("{}{n}", "x".repeat(70)),
    }
}

fn keys() -> impl Iterator<Item = Key> {
    let names = || (0..4).map(name);
    NAMESPACES
        .into_iter()
        .flat_map(move |ns| names().map(move |name| Key::new(ns, name)))
}

fn object<K: serde::de::DeserializeOwned>(
    kind: &str,
    key: &Key,
    version: usize,
    spec: &Value,
    status: &Value,
) -> Arc<K> {
    let object = json!({
        "apiVersion": "backup.resticbackup.io/v1alpha1", "kind": kind,
        "metadata": { "name": &*key.name, "namespace": &*key.namespace, "uid": format!("{kind}/{key}"),
                      "resourceVersion": version.to_string() },
        "spec": spec, "status": status,
    });
    Arc::new(serde_json::from_value(object).unwrap())
}

/// One change of a random world: which object, whether it goes, and what it refers to.
#[derive(Clone, Debug)]
struct Op {
    kind: u8,
    namespace: u8,
    name: u8,
    gone: bool,
    reference: u8,
    elsewhere: Option<u8>,
    other: u8,
    phase: u8,
}

fn op() -> impl Strategy<Value = Op> {
    let reference = (0u8..4, proptest::option::of(0u8..2), 0u8..4, 0u8..5);
    (0u8..5, 0u8..2, 0u8..4, proptest::bool::weighted(0.2), reference).prop_map(
        |(kind, namespace, name, gone, (reference, elsewhere, other, phase))| Op {
            kind,
            namespace,
            name,
            gone,
            reference,
            elsewhere,
            other,
            phase,
        },
    )
}

fn carry_out(world: &World, op: &Op, version: usize) {
    let key = Key::new(NAMESPACES[usize::from(op.namespace)], name(op.name));
    let mut reference = json!({ "name": name(op.reference) });
    if let Some(namespace) = op.elsewhere {
        reference["namespace"] = json!(NAMESPACES[usize::from(namespace)]);
    }
    let none = Value::Null;
    match (op.kind, op.gone) {
        (0, true) => drop(world.repositories.remove(&key, None)),
        (1, true) => drop(world.backups.remove(&key, None)),
        (2, true) => drop(world.restores.remove(&key, None)),
        (3, true) => drop(world.policies.remove(&key, None)),
        (_, true) => drop(world.jobs.remove(&key, None)),
        (0, _) => {
            let spec =
                json!({ "repositoryURL": "s3:h/b", "credentialsSecretRef": { "name": name(op.other) } });
            let status = json!({ "repositoryID": name(op.reference) });
            let value = object("ResticRepository", &key, version, &spec, &status);
            world.repositories.put(key, value);
        }
        (1, _) => {
            let spec = json!({ "schedule": "@daily", "repositoryRef": reference,
                               "source": { "pvc": { "claimName": name(op.other) } } });
            let value = object("ResticBackup", &key, version, &spec, &none);
            world.backups.put(key, value);
        }
        (2, _) => {
            let target = match op.phase % 2 {
                0 => json!({ "pvc": { "claimName": name(op.other) } }),
                _ => json!({ "newPVC": { "name": name(op.other), "size": "1Gi" } }),
            };
            let origin = ["backupRef", "repositoryRef"][usize::from(op.other % 2)];
            let spec = json!({ origin: reference, "target": target });
            let phases = [
                none,
                json!("Pending"),
                json!("InProgress"),
                json!("Completed"),
                json!("Failed"),
            ];
            let status = json!({ "phase": phases[usize::from(op.phase)] });
            let value = object("ResticRestore", &key, version, &spec, &status);
            world.restores.put(key, value);
        }
        (3, _) => {
            let spec = json!({ "repositoryRef": reference, "schedule": "@daily",
                               "policies": [{ "selector": {}, "retention": { "keepDaily": 7 } }] });
            let value = object("GlobalRetentionPolicy", &key, version, &spec, &none);
            world.policies.put(key, value);
        }
        _ => {
            let kinds = ["ResticRestore", "ResticRepository", "CronJob", "ResticBackup"];
            let meta = Meta {
                uid: "job".into(),
                version: version as u64,
                owner_name: Some((kinds[usize::from(op.other)].into(), name(op.reference).into())),
                ..Meta::default()
            };
            let job = JobView {
                meta,
                of: Some(key.sibling(crds::names::label_value(&name(op.reference)))),
                type_: op.phase.is_multiple_of(2).then(|| "retention".into()),
                ..JobView::default()
            };
            world.jobs.put(key, Arc::new(job));
        }
    }
}

type Woken = BTreeSet<(Reader, Key)>;

/// What the table wakes for an object that appears.
fn table<V>(world: &World, rows: &[Row<V>], key: &Key, value: Arc<V>) -> Woken {
    let change = Change {
        key: key.clone(),
        old: None,
        new: Some(value),
        echo: false,
    };
    let woken = wakes(world, rows, &change).into_iter();
    woken
        .filter(|(reader, _)| !matches!(reader, Reader::Scripts | Reader::Queue))
        .collect()
}

/// The same by looking at every object of the world.
struct Scan<'a>(&'a World);

impl Scan<'_> {
    fn backups(&self, take: impl Fn(&Key, &ResticBackup) -> bool) -> Woken {
        let found = self.0.backups.filter(take).into_iter();
        found.map(|(key, _)| (Reader::Backups, key)).collect()
    }

    fn policies(&self, take: impl Fn(&Key, &GlobalRetentionPolicy) -> bool) -> Woken {
        let found = self.0.policies.filter(take).into_iter();
        found.map(|(key, _)| (Reader::Policies, key)).collect()
    }

    fn repositories(&self, take: impl Fn(&Key, &ResticRepository) -> bool) -> Woken {
        let found = self.0.repositories.filter(take).into_iter();
        found.map(|(key, _)| (Reader::Repositories, key)).collect()
    }

    /// Restores that have not ended.
    fn restores(&self, take: impl Fn(&Key, &ResticRestore) -> bool) -> Woken {
        let ended = [RestorePhase::Completed, RestorePhase::Failed];
        self.restores_except(&ended, take)
    }

    /// Restores in other phases than these.
    fn restores_except(&self, phases: &[RestorePhase], take: impl Fn(&Key, &ResticRestore) -> bool) -> Woken {
        let is = |restore: &ResticRestore| {
            let phase = restore.status.as_ref().and_then(|s| s.phase);
            phase.is_some_and(|phase| phases.contains(&phase))
        };
        let found = self
            .0
            .restores
            .filter(|key, restore| !is(restore) && take(key, restore));
        found
            .into_iter()
            .map(|(key, _)| (Reader::Restores, key))
            .collect()
    }

    fn of_repository(&self, at: &Key) -> Woken {
        let uses = |reference: Option<&CrossNamespaceObjectReference>, from: &Key| {
            reference.is_some_and(|r| repository(from, r) == *at)
        };
        let through = |from: &Key, restore: &ResticRestore| {
            let backup = restore.spec.backup_ref.as_ref().map(|r| repository(from, r));
            let found = backup.and_then(|key| Some((self.0.backups.get(&key)?, key)));
            found.is_some_and(|(backup, key)| uses(Some(&backup.spec.repository_ref), &key))
        };
        let mut woken = self.backups(|key, b| uses(Some(&b.spec.repository_ref), key));
        woken.extend(self.policies(|key, p| uses(Some(&p.spec.repository_ref), key)));
        woken.extend(self.restores(|key, r| uses(r.spec.repository_ref.as_ref(), key) || through(key, r)));
        woken
    }

    fn of_secret(&self, at: &Key) -> Woken {
        let mut woken = self.repositories(|key, r| {
            key.namespace == at.namespace && *r.spec.credentials_secret_ref.name == *at.name
        });
        for (_, place) in woken.clone() {
            woken.extend(self.policies(|key, p| repository(key, &p.spec.repository_ref) == place));
            woken.extend(self.backups(|key, b| {
                key.namespace != place.namespace && repository(key, &b.spec.repository_ref) == place
            }));
        }
        woken
    }

    fn of_claim(&self, at: &Key) -> Woken {
        let mut woken = self.backups(|key, backup| {
            let claim = backup.spec.source.pvc.as_ref();
            key.namespace == at.namespace && claim.is_some_and(|pvc| *pvc.claim_name == *at.name)
        });
        // The pod of one that has failed holds the claim.
        woken.extend(self.restores_except(&[RestorePhase::Completed], |key, restore| {
            let target = &restore.spec.target;
            let existing = target.pvc.as_ref().is_some_and(|pvc| *pvc.claim_name == *at.name);
            let new = target.new_pvc.as_ref().is_some_and(|pvc| *pvc.name == *at.name);
            key.namespace == at.namespace && (existing || new)
        }));
        woken
    }

    fn of_namespace(&self, name: &str) -> Woken {
        let abroad = |key: &Key, reference: &CrossNamespaceObjectReference| {
            *key.namespace == *name && repository(key, reference).namespace != key.namespace
        };
        let mut woken = self.backups(|key, backup| abroad(key, &backup.spec.repository_ref));
        woken.extend(self.policies(|key, policy| abroad(key, &policy.spec.repository_ref)));
        woken.extend(self.restores(|key, _| *key.namespace == *name));
        woken
    }

    /// A Job, or a pod of it.
    fn of_job(&self, job: Option<&JobView>, of: Option<&Key>, namespace: &Key) -> Woken {
        let owner = job.and_then(|job| job.meta.owner_name.clone());
        let mut woken = Woken::new();
        match owner {
            Some((kind, name)) if *kind == *"ResticRestore" => {
                let at = namespace.sibling(&*name);
                woken.extend(self.0.restores.get(&at).map(|_| (Reader::Restores, at)));
            }
            Some((kind, name)) if *kind == *"ResticRepository" => {
                let at = namespace.sibling(&*name);
                woken.extend(self.0.repositories.get(&at).map(|_| (Reader::Repositories, at)));
            }
            _ => {
                let Some(label) = of else { return woken };
                let is = |key: &Key| {
                    key.namespace == label.namespace && crds::names::label_value(&key.name) == *label.name
                };
                woken.extend(self.backups(|key, _| is(key)));
                woken.extend(self.policies(|key, _| is(key)));
            }
        }
        woken
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn the_table_finds_what_a_scan_finds(ops in proptest::collection::vec(op(), 1..80)) {
        let world = World::default();
        for (version, op) in ops.iter().enumerate() {
            carry_out(&world, op, version + 1);
        }
        let scan = Scan(&world);
        for key in keys() {
            if let Some(repository) = world.repositories.get(&key) {
                prop_assert_eq!(table(&world, REPOSITORY, &key, repository.clone()), scan.of_repository(&key));
            }
            if let Some(backup) = world.backups.get(&key) {
                let named = |from: &Key, r: &ResticRestore| r.spec.backup_ref.as_ref().is_some_and(|r| repository(from, r) == key);
                prop_assert_eq!(table(&world, BACKUP, &key, backup), scan.restores(named));
            }
            let child = key.sibling(crds::names::backup_retention(&key.name));
            let spec = json!({ "repositoryRef": { "name": "none" }, "schedule": "@daily", "policies": [] });
            let policy = object("GlobalRetentionPolicy", &child, 1, &spec, &Value::Null);
            prop_assert_eq!(table(&world, POLICY, &child, policy), scan.backups(|backup, _| *backup == key));
            let meta = Arc::new(MetaView::default());
            prop_assert_eq!(table(&world, SECRET, &key, meta), scan.of_secret(&key));
            prop_assert_eq!(table(&world, CLAIM, &key, Arc::default()), scan.of_claim(&key));
            if let Some(job) = world.jobs.get(&key) {
                let mut expected = scan.of_job(Some(&job), job.of.as_ref(), &key);
                if job.type_.is_some() {
                    expected.insert((Reader::Operations, key.clone()));
                }
                prop_assert_eq!(table(&world, JOB, &key, job.clone()), expected);
            }
            // A pod whose Job is of this name, and perhaps gone.
            let pod = PodView {
                meta: Meta { owner_name: Some(("Job".into(), key.name.as_ref().into())), ..Meta::default() },
                of: Some(key.sibling(crds::names::label_value(&key.name))),
                token: Some(1),
                ..PodView::default()
            };
            let mut expected = scan.of_job(world.jobs.get(&key).as_deref(), pod.of.as_ref(), &key);
            expected.insert((Reader::Operations, key.clone()));
            prop_assert_eq!(table(&world, POD, &key.sibling("pod"), Arc::new(pod)), expected);
            let ids: Vec<Key> = world.repositories.find(Index::ResticId, &Key::new("", &*key.name));
            let bound = scan.repositories(|_, r| r.status.as_ref().is_some_and(|s| s.repository_id.as_deref() == Some(&*key.name)));
            prop_assert_eq!(ids.into_iter().map(|id| (Reader::Repositories, id)).collect::<Woken>(), bound);
        }
        for namespace in NAMESPACES {
            let key = Key::new("", namespace);
            let woken = table(&world, NAMESPACE, &key, Arc::new(NamespaceView::default()));
            prop_assert_eq!(woken, scan.of_namespace(namespace));
        }
    }
}

/// A world with one user of each kind, and what a change from `old` to `new` wakes.
fn woken<V>(rows: &[Row<V>], key: &Key, old: Arc<V>, new: Arc<V>) -> Vec<Reader> {
    let world = World::default();
    let one = Key::new("a", "one");
    let reference = json!({ "name": "one" });
    let backup = json!({ "schedule": "@daily", "repositoryRef": reference, "source": { "pvc": { "claimName": "one" } } });
    let restore = json!({ "backupRef": reference, "target": { "pvc": { "claimName": "one" } } });
    let repository = json!({ "repositoryURL": "s3:h/b", "credentialsSecretRef": { "name": "one" } });
    world.backups.put(
        one.clone(),
        object("ResticBackup", &one, 1, &backup, &Value::Null),
    );
    world.restores.put(
        one.clone(),
        object("ResticRestore", &one, 1, &restore, &Value::Null),
    );
    world.repositories.put(
        one.clone(),
        object("ResticRepository", &one, 1, &repository, &Value::Null),
    );
    let change = Change {
        key: key.clone(),
        old: Some(old),
        new: Some(new),
        echo: false,
    };
    wakes(&world, rows, &change)
        .into_iter()
        .map(|(reader, _)| reader)
        .collect()
}

#[test]
fn only_what_users_read_of_a_repository_wakes_them() {
    let one = Key::new("a", "one");
    let ready = |status: &str, reason: &str, message: &str| {
        json!([{ "type": "Ready", "status": status, "reason": reason, "message": message,
                 "lastTransitionTime": "2026-01-01T00:00:00Z" }])
    };
    let of = |url: &str, status: Value| -> Arc<ResticRepository> {
        let spec = json!({ "repositoryURL": url, "credentialsSecretRef": { "name": "one" } });
        object("ResticRepository", &one, 1, &spec, &status)
    };
    let base = || {
        of(
            "s3:h/b",
            json!({ "conditions": ready("True", "Ready", "3 snapshots"), "repositoryID": "f00d" }),
        )
    };
    let users = vec![Reader::Backups, Reader::Restores];
    let quiet = [
        json!({ "conditions": ready("True", "Ready", "4 snapshots"), "repositoryID": "f00d" }),
        json!({ "conditions": ready("True", "Ready", "3 snapshots"), "repositoryID": "f00d", "observedGeneration": 4,
                "locks": [{ "id": "l" }], "lastIntegrityCheckResult": "Succeeded", "credentialsVersion": "9" }),
    ];
    for status in quiet {
        assert_eq!(woken(REPOSITORY, &one, base(), of("s3:h/b", status)), []);
    }
    let loud = [
        json!({ "conditions": ready("False", "WrongPassword", "no"), "repositoryID": "f00d" }),
        json!({ "conditions": ready("True", "Ready", "3 snapshots"), "repositoryID": "beef" }),
    ];
    for status in loud {
        assert_eq!(woken(REPOSITORY, &one, base(), of("s3:h/b", status)), users);
    }
    let moved = of("s3:h/c", serde_json::to_value(&base().status).unwrap());
    assert_eq!(woken(REPOSITORY, &one, base(), moved), users);
    // Users quote why it is not ready.
    let because = |why: &str| {
        of(
            "s3:h/b",
            json!({ "conditions": ready("False", "Unreachable", why) }),
        )
    };
    assert_eq!(woken(REPOSITORY, &one, because("x"), because("x")), []);
    assert_eq!(woken(REPOSITORY, &one, because("x"), because("y")), users);
}

#[test]
fn the_status_of_a_backup_wakes_nobody_but_its_repository_once_for_each_failed_run() {
    let one = Key::new("a", "one");
    let of = |result: &str, minute: u8| -> Arc<ResticBackup> {
        let spec = json!({ "schedule": "@daily", "repositoryRef": { "name": "one" }, "source": { "pvc": { "claimName": "one" } } });
        let last = json!({ "result": result, "completionTime": format!("2026-01-01T00:{minute:02}:00Z") });
        object("ResticBackup", &one, 1, &spec, &json!({ "lastBackup": last }))
    };
    assert_eq!(woken(BACKUP, &one, of("Succeeded", 1), of("Succeeded", 2)), []);
    assert_eq!(
        woken(BACKUP, &one, of("Succeeded", 1), of("Failed", 2)),
        [Reader::Repositories]
    );
    assert_eq!(woken(BACKUP, &one, of("Failed", 2), of("Failed", 2)), []);
    assert_eq!(
        woken(BACKUP, &one, of("Failed", 2), of("Failed", 3)),
        [Reader::Repositories]
    );
}

#[test]
fn a_claim_that_only_has_another_version_wakes_nobody() {
    let view = |version, deleting| {
        let meta = Meta {
            version,
            deleting,
            ..Meta::default()
        };
        Arc::new(ClaimView {
            meta,
            ..ClaimView::default()
        })
    };
    let one = Key::new("a", "one");
    assert_eq!(woken(CLAIM, &one, view(1, false), view(2, false)), []);
    assert_eq!(
        woken(CLAIM, &one, view(1, false), view(2, true)),
        [Reader::Backups, Reader::Restores]
    );
}

#[test]
fn a_restore_that_has_ended_is_found_by_the_claim_of_its_pod_at_most() {
    let one = Key::new("a", "one");
    let spec = json!({ "backupRef": { "name": "one" }, "target": { "pvc": { "claimName": "one" } } });
    let of = |phase: &str| -> Arc<ResticRestore> {
        object("ResticRestore", &one, 1, &spec, &json!({ "phase": phase }))
    };
    assert_eq!(of("InProgress").indexed(&one).len(), 3);
    assert_eq!(of("Completed").indexed(&one), []);
    assert_eq!(of("Failed").indexed(&one), [(Index::Claim, one.clone())]);
}

#[test]
fn a_backup_is_found_by_the_claims_of_its_template() {
    let volumes = json!([{ "name": "d", "persistentVolumeClaim": { "claimName": "data" } }, { "name": "e", "emptyDir": {} }]);
    let template = json!({ "spec": { "containers": [], "volumes": volumes } });
    let key = Key::new("shop", "orders");
    for source in [
        json!({ "customSource": { "backupPath": "/d", "podTemplate": template } }),
        json!({ "stdin": { "filename": "a", "pod": { "podTemplate": template } } }),
    ] {
        let backup: ResticBackup = serde_json::from_value(json!({
            "apiVersion": "backup.resticbackup.io/v1alpha1", "kind": "ResticBackup",
            "metadata": { "name": "orders", "namespace": "shop", "uid": "b" },
            "spec": { "repositoryRef": { "name": "nas" }, "schedule": "@daily", "source": source },
        }))
        .unwrap();
        assert!(
            backup
                .indexed(&key)
                .contains(&(Index::Claim, Key::new("shop", "data")))
        );
    }
}

#[test]
fn a_pod_wakes_the_backups_whose_selectors_match_it_now_or_did() {
    let world = World::default();
    for (name, app) in [("orders", "db"), ("shop", "web")] {
        let volume = json!({ "selector": { "matchLabels": { "app": app } }, "volumeName": "data" });
        let backup = json!({
            "apiVersion": "backup.resticbackup.io/v1alpha1", "kind": "ResticBackup",
            "metadata": { "name": name, "namespace": "ns", "uid": name, "resourceVersion": "1" },
            "spec": { "repositoryRef": { "name": "nas" }, "schedule": "@daily", "source": { "podVolumeBackup": volume } },
        });
        let backup = Arc::new(serde_json::from_value(backup).unwrap());
        world.backups.put(Key::new("ns", name), backup);
    }
    let pod = |app: &str, version: u64| {
        let mut pod = AppPodView {
            labels: [("app".to_owned(), app.to_owned())].into(),
            ..AppPodView::default()
        };
        pod.meta.version = version;
        Some(Arc::new(pod))
    };
    let woken = |old: Option<Arc<AppPodView>>, new: Option<Arc<AppPodView>>| {
        let change = Change {
            key: Key::new("ns", "pod"),
            old,
            new,
            echo: false,
        };
        let woken = wakes(&world, APP_POD, &change).into_iter();
        woken.map(|(_, key)| key.name.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(woken(None, pod("db", 1)), ["orders"]);
    assert_eq!(woken(pod("db", 1), pod("web", 2)), ["orders", "shop"]);
    assert_eq!(woken(pod("db", 1), None), ["orders"]);
    assert_eq!(woken(pod("db", 1), pod("db", 2)), [""; 0], "nothing that is read");
}
