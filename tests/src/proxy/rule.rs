//! What becomes of a request.

use std::net::SocketAddr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// What is known of a request when its fate is decided.
#[derive(Clone, Debug)]
pub struct Request {
    /// From 1, in the order of coming.
    pub number: u64,
    pub method: String,
    /// As in the request line, with the query.
    pub path: String,
    pub client: SocketAddr,
}

/// What is done to a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Fate {
    /// The server answers it.
    Pass,
    /// The proxy answers with this code and no body; the server does not see it.
    Status(u16),
    /// The proxy answers 200 with no body; the server does not see it.
    Empty,
    /// The connection is cut; the server does not see the request.
    Cut,
    /// The server does what is asked, then the connection is cut without an answer.
    Lost,
    /// The server answers, and the connection is cut in the middle of the answer's body.
    Half,
}

/// What is done to a request, and how long it takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Action {
    pub fate: Fate,
    /// Waited before `fate` happens. A client that closes its connection meanwhile has taken the request back.
    #[serde(default)]
    pub before: Duration,
    /// Waited between the server's answer and its delivery.
    #[serde(default)]
    pub after: Duration,
}

impl Action {
    #[must_use]
    pub const fn of(fate: Fate) -> Action {
        Action {
            fate,
            before: Duration::ZERO,
            after: Duration::ZERO,
        }
    }

    #[must_use]
    pub const fn pass() -> Action {
        Action::of(Fate::Pass)
    }

    #[must_use]
    pub const fn status(code: u16) -> Action {
        Action::of(Fate::Status(code))
    }

    #[must_use]
    pub const fn empty() -> Action {
        Action::of(Fate::Empty)
    }

    #[must_use]
    pub const fn cut() -> Action {
        Action::of(Fate::Cut)
    }

    #[must_use]
    pub const fn before(self, before: Duration) -> Action {
        Action { before, ..self }
    }

    #[must_use]
    pub const fn after(self, after: Duration) -> Action {
        Action { after, ..self }
    }
}

/// A rule as data, for a proxy in another process. Every part that is set must match.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Rule {
    #[serde(default)]
    pub method: Option<String>,
    /// The path contains this.
    #[serde(default)]
    pub containing: Option<String>,
    /// The path does not contain this.
    #[serde(default)]
    pub without: Option<String>,
    /// The client's address starts with this.
    #[serde(default)]
    pub client: Option<String>,
    pub action: Action,
}

impl Rule {
    /// A rule for each request of a method.
    #[must_use]
    pub fn each(method: &str, action: Action) -> Rule {
        Rule {
            method: Some(method.to_owned()),
            containing: None,
            without: None,
            client: None,
            action,
        }
    }

    /// Only where the path contains this.
    #[must_use]
    pub fn containing(self, part: &str) -> Rule {
        Rule {
            containing: Some(part.to_owned()),
            ..self
        }
    }

    /// Only where the path does not contain this.
    #[must_use]
    pub fn without(self, part: &str) -> Rule {
        Rule {
            without: Some(part.to_owned()),
            ..self
        }
    }

    fn matches(&self, request: &Request) -> bool {
        self.method.as_ref().is_none_or(|m| *m == request.method)
            && self.containing.as_ref().is_none_or(|p| request.path.contains(p))
            && self.without.as_ref().is_none_or(|p| !request.path.contains(p))
            && self
                .client
                .as_ref()
                .is_none_or(|c| request.client.ip().to_string().starts_with(c))
    }
}

/// The first rule that matches decides; what none matches passes.
#[must_use]
pub fn decide(rules: &[Rule], request: &Request) -> Action {
    let rule = rules.iter().find(|rule| rule.matches(request));
    rule.map_or(Action::pass(), |rule| rule.action)
}
