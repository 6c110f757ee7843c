//! Rights that are bound to people and groups, login tokens and sessions. Pure.

use std::collections::HashMap;

use sha2::{Digest as _, Sha256};

use super::principal::Grant;
use super::scope::Scope;
use super::verb::{Role, Verbs};
use crate::Millis;

/// Whom rights are bound to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Subject {
    /// A person by name.
    User(String),
    /// Everybody whose login names the group.
    Group(String),
}

impl Subject {
    /// "user" or "group", and the name.
    #[must_use]
    pub fn parts(&self) -> (&'static str, &str) {
        match self {
            Subject::User(name) => ("user", name),
            Subject::Group(name) => ("group", name),
        }
    }
}

/// Rights of a person or a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RoleBinding {
    pub id: u64,
    pub subject: Subject,
    /// As it was written: a role, or verbs with commas between them.
    pub rights: String,
    pub verbs: Verbs,
    pub scope: Scope,
    pub created: Millis,
    pub created_by: String,
}

/// A login token that was not used yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Invite {
    /// SHA-256 of the token.
    pub hash: [u8; 32],
    pub name: String,
    pub groups: Vec<String>,
    pub expires: Millis,
    /// Of the certificate of a person that has made it for itself.
    pub role: Option<Role>,
    /// Its session ends then, if not before.
    pub until: Option<Millis>,
}

/// A person who has logged in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Session {
    /// SHA-256 of the token that is sent with each request.
    pub hash: [u8; 32],
    pub name: String,
    pub groups: Vec<String>,
    /// "token" or "oidc".
    pub how: String,
    /// What it gives a right to by itself.
    pub role: Option<Role>,
    pub created: Millis,
    pub expires: Millis,
}

/// Beginning of every login token, so that it is recognised in a log or a repository.
pub const LOGIN_PREFIX: &str = "fleet-login-";
/// Beginning of every session token.
pub const SESSION_PREFIX: &str = "fleet-session-";

/// What is kept of a token: it is random and long, so a plain hash is enough.
#[must_use]
pub fn hash(token: &str) -> [u8; 32] {
    Sha256::digest(token.as_bytes()).into()
}

/// Names of people and groups: 1 to 253 visible ASCII characters without a comma.
#[must_use]
pub fn is_name(text: &str) -> bool {
    (1..=253).contains(&text.len()) && text.chars().all(|c| c.is_ascii_graphic() && c != ',')
}

/// All bindings and sessions.
#[derive(Debug, Default)]
pub struct People {
    bindings: Vec<RoleBinding>,
    sessions: HashMap<[u8; 32], Session>,
}

impl People {
    /// People as they were kept.
    #[must_use]
    pub fn new(bindings: Vec<RoleBinding>, sessions: Vec<Session>) -> People {
        People {
            bindings,
            sessions: sessions
                .into_iter()
                .map(|session| (session.hash, session))
                .collect(),
        }
    }

    /// All bindings, by id.
    #[must_use]
    pub fn bindings(&self) -> &[RoleBinding] {
        &self.bindings
    }

    /// What is bound to a person and its groups.
    #[must_use]
    pub fn grants(&self, name: &str, groups: &[String]) -> Vec<Grant> {
        let bound = |subject: &Subject| match subject {
            Subject::User(user) => user == name,
            Subject::Group(group) => groups.contains(group),
        };
        let bindings = self.bindings.iter().filter(|binding| bound(&binding.subject));
        let grant = |binding: &RoleBinding| Grant {
            verbs: binding.verbs,
            scope: binding.scope.clone(),
        };
        bindings.map(grant).collect()
    }

    /// The session of a token, if it has not ended.
    #[must_use]
    pub fn session(&self, hash: &[u8; 32], now: Millis) -> Option<&Session> {
        self.sessions.get(hash).filter(|session| session.expires > now)
    }

    /// Sessions that have not ended.
    pub fn sessions(&self, now: Millis) -> impl Iterator<Item = &Session> {
        self.sessions
            .values()
            .filter(move |session| session.expires > now)
    }

    /// Takes a binding in that was made durable.
    pub fn bind(&mut self, binding: RoleBinding) {
        self.bindings.push(binding);
    }

    /// Takes out a binding that was removed.
    pub fn unbind(&mut self, id: u64) {
        self.bindings.retain(|binding| binding.id != id);
    }

    /// Takes a session in that was made durable, and forgets those that have ended.
    pub fn open(&mut self, session: Session, now: Millis) {
        self.sessions.retain(|_, session| session.expires > now);
        self.sessions.insert(session.hash, session);
    }

    /// Ends a session.
    pub fn close(&mut self, hash: &[u8; 32]) {
        self.sessions.remove(hash);
    }

    /// Ends all sessions of a person; the answer is how many there were.
    pub fn revoke(&mut self, name: &str) -> usize {
        let before = self.sessions.len();
        self.sessions.retain(|_, session| session.name != name);
        before - self.sessions.len()
    }
}

#[cfg(test)]
mod tests {
    use super::super::verb::Verb;
    use super::*;

    #[test]
    fn rights_come_by_name_and_by_group() {
        let binding = |id, subject, rights: &str| RoleBinding {
            id,
            subject,
            rights: rights.to_owned(),
            verbs: rights.parse().unwrap(),
            scope: Scope::default(),
            created: 0,
            created_by: String::new(),
        };
        let mut people = People::default();
        people.bind(binding(1, Subject::User("ann".to_owned()), "viewer"));
        people.bind(binding(2, Subject::Group("ops".to_owned()), "run"));
        people.bind(binding(3, Subject::Group("ann".to_owned()), "admin"));
        let verbs = |people: &People, groups: &[String]| {
            let grants = people.grants("ann", groups);
            [Verb::See, Verb::Run, Verb::Administer]
                .map(|verb| grants.iter().any(|grant| grant.verbs.has(verb)))
        };
        assert_eq!(verbs(&people, &[]), [true, false, false]);
        assert_eq!(verbs(&people, &["ops".to_owned()]), [true, true, false]);
        people.unbind(2);
        assert_eq!(verbs(&people, &["ops".to_owned()]), [true, false, false]);
    }

    #[test]
    fn a_session_ends_in_time_and_with_its_person() {
        let session = |token: &str, name: &str, expires| Session {
            hash: hash(token),
            name: name.to_owned(),
            groups: Vec::new(),
            how: "token".to_owned(),
            role: None,
            created: 0,
            expires,
        };
        let mut people = People::new(Vec::new(), vec![session("a", "ann", 10), session("b", "bob", 10)]);
        assert!(people.session(&hash("a"), 9).is_some() && people.session(&hash("a"), 10).is_none());
        assert_eq!(people.revoke("ann"), 1);
        assert!(people.session(&hash("a"), 9).is_none() && people.session(&hash("b"), 9).is_some());
    }
}
