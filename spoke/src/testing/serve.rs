//! HTTP requests in, answers and watches out, over the stored objects.

use std::collections::HashMap;
use std::convert::Infallible;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http;
use futures::StreamExt as _;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::Instant;

use super::call::Call;
use super::clock::PausedClock;
use super::faults::{Action, Script};
use super::id::{Id, Refusal};
use super::objects::Objects;
use super::watch::{Watch, line};
use crate::clock::Clock as _;

/// State of the server, shared by its clients.
pub struct Inner {
    pub(super) objects: Mutex<Objects>,
    pub(super) script: Mutex<Script>,
    pub(super) logs: Mutex<HashMap<(String, String), String>>,
    pub(super) clock: PausedClock,
    /// Last version; wakes watches.
    pub(super) version: watch::Sender<u64>,
    /// Counts the times that all connections were cut.
    pub(super) cuts: watch::Sender<u64>,
}

impl Inner {
    pub(super) fn objects(&self) -> MutexGuard<'_, Objects> {
        self.objects.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn script(&self) -> MutexGuard<'_, Script> {
        self.script.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes objects, and wakes watches.
    pub(super) fn change<T>(&self, change: impl FnOnce(&mut Objects) -> T) -> T {
        let mut objects = self.objects();
        let result = change(&mut objects);
        self.version.send_replace(objects.version);
        result
    }

    pub(super) async fn serve(
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
        let limit = call.number("limit").and_then(|n| usize::try_from(n).ok());
        let limit = limit.filter(|n| *n > 0).unwrap_or(usize::MAX);
        let found = objects.list(&call.id.resource, &call.id.namespace);
        let after = after.split_once('/').unwrap_or_default();
        let found = found.filter(|(id, _)| (id.namespace.as_str(), id.name.as_str()) > after);
        let found = found.filter(|(_, object)| call.selects(object));
        let mut found: Vec<_> = found.take(limit.saturating_add(1)).collect();
        let more = found.len() > limit;
        found.truncate(limit);
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
