//! One cluster: what its API server holds, what a hub should show of it, and the caches of its replicas.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use serde_json::{Value, json};
use spoke::exchange::Outbox;
use spoke::world::{Key, Undecodable, World};

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    Repository,
    Backup,
    Policy,
    Restore,
}

/// A resource as the API server has it.
#[derive(Clone)]
struct Object {
    uid: String,
    generation: u64,
    /// Repository: its restic id. Policy: the last one that it was bound to.
    id: Option<String>,
    broken: bool,
}

/// What can be told apart of a state, by uid.
pub type Picture = BTreeMap<String, String>;

/// The caches of one replica.
pub struct Replica {
    pub world: World,
    pub outbox: Arc<Outbox>,
    /// Process of the replica.
    pub incarnation: String,
}

pub struct Cluster {
    objects: BTreeMap<(Kind, u16), Object>,
    version: u64,
    pub replicas: [Replica; 2],
    /// Every state that the cluster was ever in.
    pub history: HashSet<Picture>,
}

impl Cluster {
    pub fn new() -> Cluster {
        let replica = |n: u8| empty(&format!("{n}-0"));
        let mut cluster = Cluster {
            objects: BTreeMap::new(),
            version: 0,
            replicas: [replica(0), replica(1)],
            history: HashSet::new(),
        };
        // It was never empty: a hub that shows nothing must not call that complete.
        cluster.put(Kind::Repository, 9);
        cluster
    }

    pub fn put(&mut self, kind: Kind, n: u8) {
        self.write(kind, n.into(), |_| {});
    }

    pub fn put_backup(&mut self, n: u16) {
        self.write(Kind::Backup, n, |_| {});
    }

    pub fn break_policy(&mut self, n: u8) {
        self.write(Kind::Policy, n.into(), |object| object.broken = true);
    }

    pub fn bind(&mut self, n: u8, id: Option<u8>) {
        let id = id.map(|id| format!("{id}").repeat(64));
        self.write(Kind::Repository, n.into(), |object| object.id = id);
    }

    pub fn delete(&mut self, kind: Kind, n: u8) {
        if let Some(object) = self.objects.remove(&(kind, n.into())) {
            let key = key(kind, n.into());
            for Replica { world, .. } in &self.replicas {
                match kind {
                    Kind::Repository => drop(world.repositories.remove(&key, Some(&object.uid))),
                    Kind::Backup => drop(world.backups.remove(&key, Some(&object.uid))),
                    Kind::Policy => drop(world.policies.remove(&key, Some(&object.uid))),
                    Kind::Restore => drop(world.restores.remove(&key, Some(&object.uid))),
                }
            }
        }
        self.remember();
    }

    /// A replica starts anew: it lists, and remembers nothing.
    pub fn restart(&mut self, replica: u8) {
        self.version += 1;
        let fresh = empty(&format!("{replica}-{}", self.version));
        let version = self.version;
        for ((kind, n), object) in &self.objects {
            watched(&fresh, *kind, *n, object, version);
        }
        self.replicas[usize::from(replica)] = fresh;
    }

    /// What a hub should show now.
    pub fn picture(&self) -> Picture {
        let states = self.objects.iter().map(|((kind, n), object)| {
            let generation = object.generation;
            let text = match kind {
                Kind::Repository => format!("repository {n} {generation} {}", text(object.id.as_ref())),
                Kind::Backup => format!("backup {n} {generation} {}", text(self.id_of(*n % 2).as_ref())),
                Kind::Policy => format!("policy {n} {generation} {}", object.broken),
                Kind::Restore => {
                    let backup = self.objects.contains_key(&(Kind::Backup, *n));
                    let id = backup.then(|| self.id_of(*n % 2)).flatten();
                    format!("restore {n} {generation} {}", text(id.as_ref()))
                }
            };
            (object.uid.clone(), text)
        });
        states.collect()
    }

    /// Policies that were ever bound while they lived: by uid, with what they were last bound to.
    pub fn bindings(&self) -> BTreeMap<String, String> {
        let policies = self.objects.iter().filter(|((kind, _), _)| *kind == Kind::Policy);
        policies
            .filter_map(|(_, object)| Some((object.uid.clone(), object.id.clone()?)))
            .collect()
    }

    fn id_of(&self, repository: u16) -> Option<String> {
        self.objects.get(&(Kind::Repository, repository))?.id.clone()
    }

    fn write(&mut self, kind: Kind, n: u16, f: impl FnOnce(&mut Object)) {
        self.version += 1;
        let version = self.version;
        let object = self.objects.entry((kind, n)).or_insert_with(|| Object {
            uid: format!("{kind:?}-{n}-{version}"),
            generation: 0,
            id: None,
            broken: false,
        });
        object.generation = version;
        object.broken = false;
        f(object);
        self.show(kind, n);
        self.remember();
        // What the policies' actors write when they have seen it.
        let policies: Vec<u16> = self
            .objects
            .keys()
            .filter(|(k, _)| *k == Kind::Policy)
            .map(|(_, n)| *n)
            .collect();
        for n in policies {
            let id = self.id_of(n % 2);
            let Some(policy) = self.objects.get_mut(&(Kind::Policy, n)) else {
                continue;
            };
            if id.is_some() && policy.id != id {
                policy.id = id;
                self.version += 1;
                self.show(Kind::Policy, n);
            }
        }
    }

    fn show(&self, kind: Kind, n: u16) {
        for replica in &self.replicas {
            watched(replica, kind, n, &self.objects[&(kind, n)], self.version);
        }
    }

    fn remember(&mut self) {
        self.history.insert(self.picture());
    }
}

fn text(id: Option<&String>) -> &str {
    id.map_or("", String::as_str)
}

fn empty(incarnation: &str) -> Replica {
    let world = World::default();
    Replica {
        outbox: Outbox::attached(&world),
        world,
        incarnation: incarnation.to_owned(),
    }
}

fn key(kind: Kind, n: u16) -> Key {
    Key::new("ns", format!("{kind:?}-{n}"))
}

/// A watch event of a replica.
fn watched(replica: &Replica, kind: Kind, n: u16, object: &Object, version: u64) {
    let (world, key) = (&replica.world, key(kind, n));
    // Two states fill a part.
    let message = if n < 10 {
        "x".repeat(30_000)
    } else {
        "as usual".to_owned()
    };
    let condition = json!({ "type": "Ready", "status": "True", "reason": "Ok", "message": message,
        "lastTransitionTime": "2026-01-01T00:00:00Z" });
    let meta = json!({ "name": *key.name, "namespace": "ns", "uid": object.uid, "resourceVersion": version.to_string(),
        "generation": object.generation });
    let repository = json!({ "name": format!("Repository-{}", n % 2) });
    match kind {
        Kind::Repository => drop(world.repositories.put(key, decode(&meta, json!({
            "repositoryURL": "s3:x", "credentialsSecretRef": { "name": "s" },
        }), json!({ "repositoryID": object.id, "conditions": [condition] })))),
        Kind::Backup => drop(world.backups.put(key, decode(&meta, json!({
            "repositoryRef": repository, "schedule": "@daily", "source": { "pvc": { "claimName": "c" } },
        }), json!({ "conditions": [condition] })))),
        Kind::Restore => drop(world.restores.put(key, decode(&meta, json!({
            "backupRef": { "name": format!("Backup-{n}") }, "target": { "pvc": { "claimName": "c" } },
        }), json!({ "conditions": [condition] })))),
        Kind::Policy if object.broken => {
            let undecodable = Undecodable {
                meta: serde_json::from_value(meta).unwrap(),
                error: "of a newer version".to_owned(),
                raw: json!({ "spec": { "repositoryRef": repository }, "status": { "repositoryID": object.id } }),
            };
            drop(world.policies.put_undecodable(key, undecodable));
        }
        Kind::Policy => drop(world.policies.put(key, decode(&meta, json!({
            "repositoryRef": repository, "schedule": "@daily",
            "policies": [{ "selector": {}, "retention": { "keepDaily": 7 } }],
        }), json!({ "repositoryID": object.id, "conditions": [condition] })))),
    }
}

fn decode<K: serde::de::DeserializeOwned + kube::Resource<DynamicType = ()>>(
    meta: &Value,
    spec: Value,
    status: Value,
) -> Arc<K> {
    let object = json!({ "apiVersion": K::api_version(&()), "kind": K::kind(&()), "metadata": meta, "spec": spec, "status": status });
    Arc::new(serde_json::from_value(object).unwrap())
}
