//! Requests that fail by script, and the log of all requests.

use std::time::Duration;

use tokio::time::Instant;

/// A request as it was received.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    pub at: Instant,
    /// Name of the client, see [`super::ApiServer::client_of`].
    pub client: String,
    /// get, list, watch, create, update, patch, apply, delete, log.
    pub verb: &'static str,
    /// Plural, with the sub-resource behind a slash: `resticbackups/status`.
    pub resource: String,
    pub namespace: String,
    /// Empty for list, watch and create.
    pub name: String,
    /// HTTP status of the answer; `None` if there was none.
    pub code: Option<u16>,
}

impl Request {
    /// Whether it changes objects.
    #[must_use]
    pub fn is_write(&self) -> bool {
        !matches!(self.verb, "get" | "list" | "watch" | "log")
    }
}

/// What becomes of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// It is refused with an HTTP status, such as 403, and a message.
    Refuse(u16, String),
    /// It is never answered.
    Hang,
    /// The connection breaks before the request is carried out.
    Cut,
    /// The request is carried out, and the connection breaks before the answer.
    LoseAnswer,
    /// It is answered after a time.
    Delay(Duration),
    /// The caller panics where it waits for the answer, as from a defect in its own code.
    Panic,
}

/// Which requests fail: every one that matches verb, resource and name, after `skip` of them, `times` times.
#[derive(Clone, Debug)]
pub struct Fault {
    client: Option<String>,
    verb: Option<&'static str>,
    resource: Option<String>,
    name: Option<String>,
    skip: u32,
    times: u32,
    action: Action,
}

impl Fault {
    /// Every request from now on.
    #[must_use]
    pub fn new(action: Action) -> Fault {
        Fault {
            client: None,
            verb: None,
            resource: None,
            name: None,
            skip: 0,
            times: u32::MAX,
            action,
        }
    }

    /// Only requests of a client.
    #[must_use]
    pub fn from(self, client: &str) -> Fault {
        Fault {
            client: Some(client.to_owned()),
            ..self
        }
    }

    /// Only requests of a verb, and of a resource: see [`Request`].
    #[must_use]
    pub fn on(self, verb: &'static str, resource: &str) -> Fault {
        Fault {
            verb: Some(verb),
            resource: Some(resource.to_owned()),
            ..self
        }
    }

    /// Only requests about an object.
    #[must_use]
    pub fn named(self, name: &str) -> Fault {
        Fault {
            name: Some(name.to_owned()),
            ..self
        }
    }

    /// Not the first `skip` that match.
    #[must_use]
    pub fn after(self, skip: u32) -> Fault {
        Fault { skip, ..self }
    }

    /// Not more than `times`.
    #[must_use]
    pub fn times(self, times: u32) -> Fault {
        Fault { times, ..self }
    }

    fn matches(&self, request: &Request) -> bool {
        self.client
            .as_deref()
            .is_none_or(|client| client == request.client)
            && self.verb.is_none_or(|verb| verb == request.verb)
            && self.resource.as_deref().is_none_or(|r| r == request.resource)
            && self.name.as_deref().is_none_or(|name| name == request.name)
    }
}

/// Faults that are still to happen, and what happened.
#[derive(Debug, Default)]
pub struct Script {
    faults: Vec<Fault>,
    away: Option<Instant>,
    pub log: Vec<Request>,
}

impl Script {
    /// Adds a fault. The first one that matches a request is taken.
    pub fn add(&mut self, fault: Fault) {
        self.faults.push(fault);
    }

    /// Forgets all faults.
    pub fn clear(&mut self) {
        self.faults.clear();
        self.away = None;
    }

    /// Every request is cut until a time.
    pub fn away_until(&mut self, until: Instant) {
        self.away = Some(until);
    }

    /// What becomes of a request; `None` if it is served.
    pub fn judge(&mut self, request: &Request) -> Option<Action> {
        if self.away.is_some_and(|until| request.at < until) {
            return Some(Action::Cut);
        }
        for fault in self.faults.iter_mut().filter(|fault| fault.matches(request)) {
            if fault.skip > 0 {
                fault.skip -= 1;
            } else if fault.times > 0 {
                fault.times -= 1;
                return Some(fault.action.clone());
            }
        }
        None
    }
}
