//! Stored objects and their history. Pure: no I/O, and time is given.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::fields::{self, Owners};
use super::id::{Id, Part, Refusal};
use super::rules::{has_finalizers, immutable, keep, metadata, preconditions, seconds, without_status};

/// One change of one object.
pub struct Change {
    pub version: u64,
    pub id: Id,
    pub before: Option<Arc<Value>>,
    /// Of a deleted object: its last state, with the version of the deletion.
    pub after: Arc<Value>,
    pub deleted: bool,
}

struct Entry {
    object: Arc<Value>,
    owners: Owners,
}

/// All objects, and every change since the last compaction.
#[derive(Default)]
pub struct Objects {
    /// resourceVersion of the last change.
    pub version: u64,
    /// Watches from before this version are refused with 410.
    pub compacted: u64,
    pub history: Vec<Change>,
    entries: BTreeMap<Id, Entry>,
}

impl Objects {
    pub fn get(&self, id: &Id) -> Result<Arc<Value>, Refusal> {
        let entry = self.entries.get(id).ok_or_else(|| Refusal::not_found(id))?;
        Ok(entry.object.clone())
    }

    /// Objects of a resource in the order of their names; of all namespaces if `namespace` is empty.
    pub fn list(&self, resource: &str, namespace: &str) -> impl Iterator<Item = (&Id, &Arc<Value>)> {
        let first = Id::new(resource, namespace, "");
        let entries = self.entries.range(first..);
        entries
            .take_while(move |(id, _)| {
                id.resource == resource && (namespace.is_empty() || id.namespace == namespace)
            })
            .map(|(id, entry)| (id, &entry.object))
    }

    pub fn create(
        &mut self,
        mut id: Id,
        mut object: Value,
        part: Part,
        manager: &str,
        now: Timestamp,
    ) -> Result<Arc<Value>, Refusal> {
        fields::strip_nulls(&mut object);
        if let (true, Some(prefix)) = (id.name.is_empty(), object["metadata"]["generateName"].as_str()) {
            id.name = format!("{prefix}{:05}", self.version + 1);
        }
        if id.name.is_empty() {
            return Err(Refusal::new(
                422,
                "metadata.name: Required value: name or generateName is required",
            ));
        }
        if self.entries.contains_key(&id) {
            let message = format!("{} {:?} already exists", id.resource, id.name);
            return Err(Refusal {
                reason: "AlreadyExists",
                ..Refusal::new(409, message)
            });
        }
        if !id.namespace.is_empty() && self.get(&Id::new("namespaces", "", &id.namespace)).is_err() {
            return Err(Refusal::not_found(&Id::new("namespaces", "", &id.namespace)));
        }
        if part == Part::Main {
            object.as_object_mut().map(|map| map.remove("status"));
        }
        self.version += 1;
        let version = self.version;
        let meta = metadata(&mut object);
        meta.insert("name".to_owned(), json!(id.name));
        if !id.namespace.is_empty() {
            meta.insert("namespace".to_owned(), json!(id.namespace));
        }
        meta.entry("uid")
            .or_insert_with(|| json!(format!("00000000-0000-4000-8000-{version:012}")));
        meta.insert("creationTimestamp".to_owned(), json!(seconds(now)));
        meta.insert("generation".to_owned(), json!(1));
        meta.insert("resourceVersion".to_owned(), json!(version.to_string()));
        let mut owners = Owners::new();
        fields::updated(&Value::Null, &object, &mut owners, manager);
        let object = Arc::new(object);
        self.store(id, None, object.clone(), owners, now);
        Ok(object)
    }

    /// Replaces an object by `next`. What a client cannot change is kept.
    pub fn update(
        &mut self,
        id: &Id,
        mut next: Value,
        part: Part,
        manager: &str,
        now: Timestamp,
    ) -> Result<Arc<Value>, Refusal> {
        let old = self.get(id)?;
        preconditions(id, &old, &next["metadata"])?;
        fields::strip_nulls(&mut next);
        keep(&old, &mut next, part);
        let mut owners = self.entries[id].owners.clone();
        fields::updated(&old, &next, &mut owners, manager);
        self.commit(id, old, next, owners, now)
    }

    /// Server-side apply; creates the object if it is not there.
    pub fn apply(
        &mut self,
        id: &Id,
        body: Value,
        part: Part,
        manager: &str,
        force: bool,
        now: Timestamp,
    ) -> Result<Arc<Value>, Refusal> {
        let Ok(old) = self.get(id) else {
            if part == Part::Status {
                return Err(Refusal::not_found(id));
            }
            if let Some(uid) = body["metadata"]["uid"].as_str() {
                return Err(Refusal::new(
                    409,
                    format!("uid mismatch: {uid} is given, and no object exists"),
                ));
            }
            return self.create(id.clone(), body, part, manager, now);
        };
        preconditions(id, &old, &body["metadata"])?;
        let mut owners = self.entries[id].owners.clone();
        let mut next = fields::apply(&old, &body, &mut owners, manager, force)
            .map_err(|conflicts| Refusal::new(409, format!("Apply failed: {}", conflicts.join(", "))))?;
        keep(&old, &mut next, part);
        self.commit(id, old, next, owners, now)
    }

    /// Deletes an object, or marks it if finalizers hold it. `options` is a DeleteOptions.
    pub fn delete(
        &mut self,
        id: &Id,
        options: &Value,
        now: Timestamp,
    ) -> Result<Option<Arc<Value>>, Refusal> {
        let old = self.get(id)?;
        preconditions(id, &old, &options["preconditions"])?;
        let running = id.resource == "pods" && old["status"]["phase"] == "Running";
        let graceful = running && options["gracePeriodSeconds"] != 0;
        if options["propagationPolicy"] == "Orphan" {
            self.orphan(&old["metadata"]["uid"], now);
        }
        if graceful || has_finalizers(&old) {
            let mut next = Value::clone(&old);
            metadata(&mut next)
                .entry("deletionTimestamp")
                .or_insert_with(|| json!(seconds(now)));
            let owners = self.entries[id].owners.clone();
            return self.commit(id, old, next, owners, now).map(Some);
        }
        self.remove(id, now);
        Ok(None)
    }

    /// Managers that own a field.
    pub fn owners(&self, id: &Id, path: &[&str]) -> Vec<String> {
        let owners = self.entries.get(id).into_iter().flat_map(|entry| &entry.owners);
        let owning = owners.filter(|(_, paths)| paths.iter().any(|p| p.iter().eq(path)));
        owning.map(|(manager, _)| manager.clone()).collect()
    }

    fn commit(
        &mut self,
        id: &Id,
        old: Arc<Value>,
        mut next: Value,
        owners: Owners,
        now: Timestamp,
    ) -> Result<Arc<Value>, Refusal> {
        if next == *old {
            if let Some(entry) = self.entries.get_mut(id) {
                entry.owners = owners;
            }
            return Ok(old);
        }
        immutable(id, &old, &next)?;
        self.version += 1;
        let version = self.version.to_string();
        let respecified = without_status(&old) != without_status(&next);
        let meta = metadata(&mut next);
        meta.insert("resourceVersion".to_owned(), json!(version));
        if respecified {
            let generation = old["metadata"]["generation"].as_i64().unwrap_or_default();
            meta.insert("generation".to_owned(), json!(generation + 1));
        }
        let next = Arc::new(next);
        let released = next["metadata"]["deletionTimestamp"].is_string() && !has_finalizers(&next);
        self.store(id.clone(), Some(old.clone()), next.clone(), owners, now);
        if released && has_finalizers(&old) {
            self.remove(id, now);
        }
        Ok(next)
    }

    fn store(
        &mut self,
        id: Id,
        before: Option<Arc<Value>>,
        after: Arc<Value>,
        owners: Owners,
        now: Timestamp,
    ) {
        self.history.push(Change {
            version: self.version,
            id: id.clone(),
            before,
            after: after.clone(),
            deleted: false,
        });
        let owned = after["metadata"]["ownerReferences"].is_array();
        self.entries.insert(
            id,
            Entry {
                object: after,
                owners,
            },
        );
        if owned {
            self.collect(now);
        }
    }

    /// Takes an object out, and everything that it alone owns.
    fn remove(&mut self, id: &Id, now: Timestamp) {
        let Some(entry) = self.entries.remove(id) else {
            return;
        };
        self.version += 1;
        let mut last = Value::clone(&entry.object);
        metadata(&mut last).insert("resourceVersion".to_owned(), json!(self.version.to_string()));
        self.history.push(Change {
            version: self.version,
            id: id.clone(),
            before: Some(entry.object),
            after: Arc::new(last),
            deleted: true,
        });
        if id.resource == "namespaces" {
            let inside = self.entries.keys().filter(|other| other.namespace == id.name);
            for other in inside.cloned().collect::<Vec<_>>() {
                self.remove(&other, now);
            }
        }
        self.collect(now);
    }

    /// Garbage collection, as by background deletion: objects whose owners are all gone.
    fn collect(&mut self, now: Timestamp) {
        let lives = |uid: &Value| self.entries.values().any(|e| e.object["metadata"]["uid"] == *uid);
        let dead = self.entries.iter().filter(|(_, entry)| {
            let owners = entry.object["metadata"]["ownerReferences"].as_array();
            let marked = entry.object["metadata"]["deletionTimestamp"].is_string();
            !marked && owners.is_some_and(|o| !o.is_empty() && !o.iter().any(|o| lives(&o["uid"])))
        });
        for id in dead.map(|(id, _)| id.clone()).collect::<Vec<_>>() {
            // It may have gone with another one.
            let _ = self.delete(&id, &Value::Null, now);
        }
    }

    fn orphan(&mut self, uid: &Value, now: Timestamp) {
        let ids: Vec<Id> = self.entries.keys().cloned().collect();
        for id in ids {
            let Ok(old) = self.get(&id) else { continue };
            let mut next = Value::clone(&old);
            if let Some(owners) = next["metadata"]["ownerReferences"].as_array_mut() {
                owners.retain(|owner| owner["uid"] != *uid);
                let owners = self.entries[&id].owners.clone();
                let _ = self.commit(&id, old, next, owners, now);
            } else {
                continue;
            }
        }
    }
}
