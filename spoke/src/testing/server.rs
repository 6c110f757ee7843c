//! The server as tests use it: what is stored, what fails, and what was requested.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::http;
use kube::{Client, Resource};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::Instant;

use super::clock::PausedClock;
use super::faults::{Fault, Request};
use super::id::{Id, Part};
use super::serve::Inner;
use crate::clock::Clock as _;

/// Longest time, by tokio's clock, that a test waits for a state.
const PATIENCE: Duration = Duration::from_secs(24 * 3600);

/// An API server in memory. Clones are the same server.
#[derive(Clone)]
pub struct ApiServer(Arc<Inner>);

impl Default for ApiServer {
    fn default() -> ApiServer {
        ApiServer::new()
    }
}

impl ApiServer {
    /// A server with namespaces kube-system and default.
    #[must_use]
    pub fn new() -> ApiServer {
        let server = ApiServer(Arc::new(Inner {
            objects: Mutex::default(),
            script: Mutex::default(),
            logs: Mutex::default(),
            clock: PausedClock::default(),
            version: watch::channel(0).0,
            cuts: watch::channel(0).0,
        }));
        server.namespace("kube-system");
        server.namespace("default");
        server
    }

    /// A client of this server. Needs a tokio runtime.
    #[must_use]
    pub fn client(&self) -> Client {
        self.client_of("")
    }

    /// A client whose requests are logged under a name.
    #[must_use]
    pub fn client_of(&self, name: &str) -> Client {
        let (server, name) = (self.0.clone(), name.to_owned());
        let service = tower::service_fn(move |request: http::Request<kube::client::Body>| {
            let (server, name) = (server.clone(), name.clone());
            async move { server.serve(&name, request).await }
        });
        Client::new(service, "default")
    }

    /// The server's wall clock.
    #[must_use]
    pub fn clock(&self) -> PausedClock {
        self.0.clock
    }

    /// Makes a namespace.
    pub fn namespace(&self, name: &str) {
        self.put(&json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": name } }));
    }

    /// Stores an object whole, status included, as other controllers and people do. It is made if it is not there.
    ///
    /// # Panics
    /// When Kubernetes would refuse it.
    pub fn put(&self, object: &impl Serialize) -> Value {
        let object = serde_json::to_value(object).unwrap();
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let meta = &object["metadata"];
        let id = Id {
            resource: plural(object["kind"].as_str().unwrap()),
            namespace: text(&meta["namespace"]),
            name: text(&meta["name"]),
        };
        let now = self.0.clock.now();
        let stored = self.0.change(|objects| match objects.get(&id) {
            Ok(_) => objects.update(&id, object, Part::All, "test", now),
            Err(_) => objects.create(id, object, Part::All, "test", now),
        });
        Value::clone(&stored.unwrap())
    }

    /// Changes an object as [`ApiServer::put`] does.
    ///
    /// # Panics
    /// When it is not there.
    pub fn edit<K: Resource<DynamicType = ()>>(
        &self,
        namespace: &str,
        name: &str,
        edit: impl FnOnce(&mut Value),
    ) {
        let id = Id::new(&K::plural(&()), namespace, name);
        let present = self.0.objects().get(&id);
        let mut object = Value::clone(&present.unwrap());
        edit(&mut object);
        self.put(&object);
    }

    /// An object, if it is there.
    #[must_use]
    pub fn get<K: Resource<DynamicType = ()> + DeserializeOwned>(
        &self,
        namespace: &str,
        name: &str,
    ) -> Option<K> {
        let object = self
            .0
            .objects()
            .get(&Id::new(&K::plural(&()), namespace, name))
            .ok()?;
        Some(serde_json::from_value(Value::clone(&object)).unwrap())
    }

    /// An object as JSON; null if it is not there.
    #[must_use]
    pub fn json<K: Resource<DynamicType = ()>>(&self, namespace: &str, name: &str) -> Value {
        let object = self.0.objects().get(&Id::new(&K::plural(&()), namespace, name));
        object.map_or(Value::Null, |object| Value::clone(&object))
    }

    /// All objects of a type, in the order of their namespaces and names.
    #[must_use]
    pub fn all<K: Resource<DynamicType = ()> + DeserializeOwned>(&self) -> Vec<K> {
        let objects = self.0.objects();
        let resource = K::plural(&());
        let found = objects.list(&resource, "");
        found
            .map(|(_, object)| serde_json::from_value(Value::clone(object)).unwrap())
            .collect()
    }

    /// Deletes an object as a person does. Nothing happens if it is not there.
    pub fn delete<K: Resource<DynamicType = ()>>(&self, namespace: &str, name: &str) {
        let id = Id::new(&K::plural(&()), namespace, name);
        let now = self.0.clock.now();
        let _ = self.0.change(|objects| objects.delete(&id, &Value::Null, now));
    }

    /// The kubelet has ended a pod that was deleted.
    pub(super) fn remove_pod(&self, namespace: &str, name: &str) {
        let (id, now) = (Id::new("pods", namespace, name), self.0.clock.now());
        let options = json!({ "gracePeriodSeconds": 0 });
        let _ = self.0.change(|objects| objects.delete(&id, &options, now));
    }

    /// Managers that own a field of an object, such as `["spec", "suspend"]`.
    #[must_use]
    pub fn owners<K: Resource<DynamicType = ()>>(
        &self,
        namespace: &str,
        name: &str,
        path: &[&str],
    ) -> Vec<String> {
        self.0
            .objects()
            .owners(&Id::new(&K::plural(&()), namespace, name), path)
    }

    /// What `kubectl logs` prints of a pod.
    pub fn set_log(&self, namespace: &str, pod: &str, log: &str) {
        let mut logs = self.0.logs.lock().unwrap();
        logs.insert((namespace.to_owned(), pod.to_owned()), log.to_owned());
    }

    /// Adds a fault. See [`ApiServer::heal`].
    pub fn fault(&self, fault: Fault) {
        self.0.script().add(fault);
    }

    /// Is not reachable for a time: watches break, and every request does.
    pub fn away(&self, time: Duration) {
        self.0.script().away_until(Instant::now() + time);
        self.cut_watches();
    }

    /// No more faults.
    pub fn heal(&self) {
        self.0.script().clear();
    }

    /// Breaks every watch.
    pub fn cut_watches(&self) {
        self.0.cuts.send_modify(|cuts| *cuts += 1);
    }

    /// Forgets all changes until now: a watch that begins at an older version gets 410 Gone.
    pub fn compact(&self) {
        let mut objects = self.0.objects();
        objects.compacted = objects.version;
    }

    /// Every request since [`ApiServer::forget_requests`].
    #[must_use]
    pub fn requests(&self) -> Vec<Request> {
        self.0.script().log.clone()
    }

    /// Requests that change objects.
    #[must_use]
    pub fn writes(&self) -> Vec<Request> {
        let log = self.requests();
        log.into_iter().filter(Request::is_write).collect()
    }

    /// Empties the log of requests.
    pub fn forget_requests(&self) {
        self.0.script().log.clear();
    }

    /// Waits until the server's objects or requests are as wanted.
    ///
    /// # Panics
    /// After a day by tokio's clock, with the last requests.
    pub async fn until<T>(&self, what: &str, mut state: impl FnMut(&ApiServer) -> Option<T>) -> T {
        let end = Instant::now() + PATIENCE;
        loop {
            if let Some(found) = state(self) {
                return found;
            }
            if Instant::now() >= end {
                let log = self.requests();
                let last = log.iter().rev().take(20).collect::<Vec<_>>();
                panic!("not reached: {what}; last requests: {last:#?}");
            }
            // Requests wake nobody; while time is paused, this costs nothing.
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    pub(super) fn now(&self) -> jiff::Timestamp {
        self.0.clock.now()
    }
}

fn plural(kind: &str) -> String {
    let kind = kind.to_lowercase();
    match kind.strip_suffix('y') {
        Some(stem) => format!("{stem}ies"),
        None => format!("{kind}s"),
    }
}
