//! The server: HTTP requests in, answers and watches out, over the stored objects.

use std::collections::HashMap;
use std::convert::Infallible;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http;
use futures::StreamExt as _;
use kube::{Client, Resource};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::Instant;

use super::call::Call;
use super::clock::PausedClock;
use super::faults::{Action, Fault, Request, Script};
use super::objects::{Id, Objects, Part, Refusal};
use super::watch::{Watch, line};
use crate::clock::Clock as _;

/// Longest time, by tokio's clock, that a test waits for a state.
const PATIENCE: Duration = Duration::from_secs(24 * 3600);
/// An API server in memory. Clones are the same server.
#[derive(Clone)]
pub struct ApiServer(Arc<Inner>);

pub struct Inner {
    objects: Mutex<Objects>,
    script: Mutex<Script>,
    logs: Mutex<HashMap<(String, String), String>>,
    clock: PausedClock,
    /// Last version; wakes watches.
    version: watch::Sender<u64>,
    /// Counts the times that all connections were cut.
    cuts: watch::Sender<u64>,
}

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

    /// A client whose requests can be told from those of others.
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
        let found = self.0.objects().list(&K::plural(&()), "");
        let decode = |(_, object): (Id, Arc<Value>)| serde_json::from_value(Value::clone(&object)).unwrap();
        found.into_iter().map(decode).collect()
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

impl Inner {
    pub(super) fn objects(&self) -> MutexGuard<'_, Objects> {
        self.objects.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn script(&self) -> MutexGuard<'_, Script> {
        self.script.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes objects, and wakes watches.
    fn change<T>(&self, change: impl FnOnce(&mut Objects) -> T) -> T {
        let mut objects = self.objects();
        let result = change(&mut objects);
        self.version.send_replace(objects.version);
        result
    }

    async fn serve(
        self: Arc<Self>,
        client: &str,
        request: http::Request<kube::client::Body>,
    ) -> io::Result<http::Response<Body>> {
        let (parts, body) = request.into_parts();
        let call = Call::parse(client, &parts);
        let (action, number) = {
            let mut script = self.script();
            let action = script.judge(&call.request);
            script.log.push(call.request.clone());
            (action, script.log.len() - 1)
        };
        match &action {
            Some(Action::Cut) => return Err(cut()),
            Some(Action::Panic) => panic!("as the test asks for"),
            Some(Action::Hang) => return std::future::pending().await,
            Some(Action::Delay(time)) => tokio::time::sleep(*time).await,
            _ => {}
        }
        let body = Body::new(body);
        let body = axum::body::to_bytes(body, usize::MAX)
            .await
            .map_err(io::Error::other)?;
        let answer = match &action {
            Some(Action::Refuse(code, message)) => Err(Refusal::new(*code, message)),
            _ => self.clone().answer(&call, &body),
        };
        let answer = answer.unwrap_or_else(|refusal| respond(refusal.code, &status(&refusal)));
        if action == Some(Action::LoseAnswer) {
            return Err(cut());
        }
        let mut script = self.script();
        if let Some(entry) = script
            .log
            .get_mut(number)
            .filter(|entry| entry.at == call.request.at)
        {
            entry.code = Some(answer.status().as_u16());
        }
        Ok(answer)
    }

    fn answer(self: Arc<Self>, call: &Call, body: &Bytes) -> Result<http::Response<Body>, Refusal> {
        let now = self.clock.now();
        let json = || serde_json::from_slice::<Value>(body).map_err(|e| Refusal::new(400, e.to_string()));
        let (id, part, manager) = (&call.id, call.part(), call.manager());
        let object = match call.request.verb {
            "watch" => return self.watch(call),
            "list" => return self.list(call),
            "log" => {
                let pod = (id.namespace.clone(), id.name.clone());
                let logs = self.logs.lock().unwrap_or_else(PoisonError::into_inner);
                let log = logs.get(&pod).cloned().unwrap_or_default();
                return Ok(http::Response::new(Body::from(log)));
            }
            "get" if id.resource.is_empty() => return Ok(respond(200, &version())),
            "get" => self.objects().get(id)?,
            "create" => {
                let body = json()?;
                let name = body["metadata"]["name"].as_str().unwrap_or_default().to_owned();
                let id = Id { name, ..id.clone() };
                let made = self.change(|objects| objects.create(id, body, part, &manager, now))?;
                return Ok(respond(201, &made));
            }
            "update" => {
                let body = json()?;
                self.change(|objects| objects.update(id, body, part, &manager, now))?
            }
            "apply" => {
                let (body, force) = (json()?, call.text("force") == "true");
                self.change(|objects| objects.apply(id, body, part, &manager, force, now))?
            }
            "patch" => {
                let body = json()?;
                self.change(|objects| {
                    let old = objects.get(id)?;
                    let next = patched(&old, body, &call.media)?;
                    objects.update(id, next, part, &manager, now)
                })?
            }
            _ => {
                let options = if body.is_empty() { Value::Null } else { json()? };
                match self.change(|objects| objects.delete(id, &options, now))? {
                    Some(marked) => marked,
                    None => return Ok(respond(200, &json!({ "kind": "Status", "status": "Success" }))),
                }
            }
        };
        Ok(respond(200, &call.view(&object)))
    }

    /// A list, in pages if a limit is given. `continue` is the version of the first page and the last name of this one.
    fn list(&self, call: &Call) -> Result<http::Response<Body>, Refusal> {
        let objects = self.objects();
        let (version, after) = match call.text("continue").split_once(' ') {
            Some((version, _)) if version.parse::<u64>().is_ok_and(|v| v < objects.compacted) => {
                return Err(Refusal::new(410, "The provided continue parameter is too old"));
            }
            Some((version, after)) => (version.to_owned(), after.to_owned()),
            None => (objects.version.to_string(), String::new()),
        };
        let place = |id: &Id| format!("{}/{}", id.namespace, id.name);
        let mut found = objects.list(&call.id.resource, &call.id.namespace);
        found.retain(|(id, object)| place(id) > after && call.selects(object));
        let limit = call
            .number("limit")
            .and_then(|n| usize::try_from(n).ok())
            .filter(|n| *n > 0);
        let more = limit.is_some_and(|limit| found.len() > limit);
        found.truncate(limit.unwrap_or(usize::MAX));
        let next = found
            .last()
            .filter(|_| more)
            .map(|(id, _)| format!("{version} {}", place(id)));
        let items: Vec<Value> = found.iter().map(|(_, object)| call.view(object)).collect();
        let meta = json!({ "resourceVersion": version, "continue": next.unwrap_or_default() });
        Ok(respond(
            200,
            &json!({ "apiVersion": "v1", "kind": "List", "metadata": meta, "items": items }),
        ))
    }

    fn watch(self: Arc<Self>, call: &Call) -> Result<http::Response<Body>, Refusal> {
        let from = call.number("resourceVersion").unwrap_or_default();
        if from < self.objects().compacted {
            let expired = Refusal::new(410, format!("too old resource version: {from}"));
            let line = line("ERROR", &status(&expired));
            let stream = futures::stream::iter([Ok::<_, Infallible>(line)]);
            return Ok(http::Response::new(Body::from_stream(stream)));
        }
        let watcher = Watch {
            call: call.clone(),
            seen: from,
            end: Instant::now() + Duration::from_secs(call.number("timeoutSeconds").unwrap_or(1800)),
            versions: self.version.subscribe(),
            cuts: self.cuts.subscribe(),
            server: self,
        };
        // An error, or the end, ends it.
        let stream = futures::stream::unfold(Some(watcher), |watcher| async {
            let mut watcher = watcher?;
            match watcher.next().await {
                Some(Ok(line)) => Some((Ok(line), Some(watcher))),
                Some(Err(error)) => Some((Err(error), None)),
                None => None,
            }
        });
        Ok(http::Response::new(Body::from_stream(stream.boxed())))
    }
}

fn patched(old: &Value, body: Value, media: &str) -> Result<Value, Refusal> {
    let mut next = old.clone();
    if media.contains("json-patch") {
        let patch: json_patch::Patch =
            serde_json::from_value(body).map_err(|e| Refusal::new(400, e.to_string()))?;
        json_patch::patch(&mut next, &patch).map_err(|e| Refusal::new(422, e.to_string()))?;
    } else if media.contains("merge-patch") && !media.contains("strategic") {
        json_patch::merge(&mut next, &body);
    } else {
        return Err(Refusal::new(415, format!("{media} is not supported")));
    }
    Ok(next)
}

fn respond(code: u16, body: &Value) -> http::Response<Body> {
    let mut response = http::Response::new(Body::from(body.to_string()));
    *response.status_mut() = http::StatusCode::from_u16(code).unwrap_or_default();
    response
}

fn status(refusal: &Refusal) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Status", "status": "Failure", "code": refusal.code,
        "reason": refusal.reason, "message": refusal.message,
    })
}

fn version() -> Value {
    let build = "2026-01-01T00:00:00Z";
    json!({
        "major": "1", "minor": "34", "gitVersion": "v1.34.0", "gitCommit": "", "gitTreeState": "clean",
        "buildDate": build, "goVersion": "go1.24", "compiler": "gc", "platform": "linux/amd64",
    })
}

pub(super) fn cut() -> io::Error {
    io::Error::new(io::ErrorKind::ConnectionReset, "the connection was cut")
}

fn plural(kind: &str) -> String {
    let kind = kind.to_lowercase();
    match kind.strip_suffix('y') {
        Some(stem) => format!("{stem}ies"),
        None => format!("{kind}s"),
    }
}
