//! Rights that are bound to people and groups, login tokens and sessions. Pure.

use std::collections::HashMap;

use proto::certificate::{Facts, KeyHash};
use serde::{Deserialize, Serialize};
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
    /// Of a person that has made it for itself by a certificate.
    pub maker: Option<Maker>,
    /// Its session ends then, if not before.
    pub until: Option<Millis>,
}

/// A certificate by which a person has made a login token for itself: the session has its role, and ends with it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Maker {
    /// "viewer", "operator" or "admin"; empty for a certificate without a role.
    pub role: String,
    pub serial: String,
    pub begins: Millis,
}

impl Maker {
    /// What the certificate gives a right to by itself. A role that this version does not know gives none.
    #[must_use]
    pub fn grant(&self) -> Option<Grant> {
        Role::of(&self.role).map(Grant::everywhere)
    }

    /// As far as a revocation looks at it.
    #[must_use]
    pub fn facts(&self) -> Facts {
        Facts {
            serial: self.serial.clone(),
            begins: self.begins,
            expires: Millis::MAX,
            key: KeyHash::default(),
        }
    }
}

/// How a session of the dashboard was opened: there is no CLI behind it.
pub const BROWSER: &str = "browser";

/// A person who has logged in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Session {
    /// SHA-256 of the token that is sent with each request.
    pub hash: [u8; 32],
    pub name: String,
    pub groups: Vec<String>,
    /// "token", "oidc" or [`BROWSER`].
    pub how: String,
    /// The certificate by which its person has made the login token for itself.
    pub maker: Option<Maker>,
    pub created: Millis,
    pub expires: Millis,
    /// Keys of the authorities that the person's CLI trusts the hub by, as far as it has told.
    pub trusts: Vec<KeyHash>,
}

/// Certificates of people that are refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Revocation {
    /// Of this person, those whose validity begins before `at`; empty for one by its serial.
    pub name: String,
    /// Lower-case hex digits.
    pub serial: String,
    pub at: Millis,
    pub by: String,
}

impl Revocation {
    fn takes(&self, name: &str, certificate: &Facts) -> bool {
        if self.serial.is_empty() {
            self.name == name && certificate.begins < self.at
        } else {
            self.serial == certificate.serial
        }
    }
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
    revoked: Vec<Revocation>,
}

impl People {
    /// People as they were kept.
    #[must_use]
    pub fn new(bindings: Vec<RoleBinding>, sessions: Vec<Session>, revoked: Vec<Revocation>) -> People {
        People {
            bindings,
            revoked,
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

    /// Ends all sessions that were made by a certificate.
    pub fn end_made(&mut self) {
        self.sessions.retain(|_, session| session.maker.is_none());
    }

    /// Certificates that are refused.
    #[must_use]
    pub fn revoked(&self) -> &[Revocation] {
        &self.revoked
    }

    /// Why a certificate of a person is refused, if it is.
    #[must_use]
    pub fn refuses(&self, name: &str, certificate: &Facts) -> Option<String> {
        let revocation = self.revoked.iter().find(|one| one.takes(name, certificate))?;
        Some(format!(
            "certificate {} of {name} was revoked by {}: log in with `fleet login`, or have another one made",
            certificate.serial, revocation.by
        ))
    }

    /// Takes a revocation in that was made durable, in place of an earlier one of the same certificates.
    pub fn refuse(&mut self, revocation: Revocation) {
        let same = |one: &Revocation| one.name == revocation.name && one.serial == revocation.serial;
        self.revoked.retain(|one| !same(one));
        self.revoked.push(revocation);
    }

    /// A person's CLI trusts these authorities from now on.
    pub fn trusts(&mut self, hash: &[u8; 32], keys: Vec<KeyHash>) {
        if let Some(session) = self.sessions.get_mut(hash) {
            session.trusts = keys;
        }
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
    fn a_certificate_is_revoked_by_its_serial_or_with_all_that_a_person_had() {
        let certificate = |serial: &str, begins| Facts {
            serial: serial.to_owned(),
            begins,
            expires: 100,
            key: [0; 32],
        };
        let revoke = |name: &str, serial: &str, at| Revocation {
            name: name.to_owned(),
            serial: serial.to_owned(),
            at,
            by: "root".to_owned(),
        };
        let mut people = People::default();
        people.refuse(revoke("", "a1", 50));
        assert!(
            people
                .refuses("ann", &certificate("a1", 60))
                .unwrap()
                .contains("a1 of ann")
        );
        assert_eq!(people.refuses("ann", &certificate("a2", 10)), None);
        people.refuse(revoke("ann", "", 50));
        assert!(people.refuses("ann", &certificate("a2", 49)).is_some());
        assert_eq!(
            people.refuses("ann", &certificate("a3", 50)),
            None,
            "it was made later"
        );
        assert_eq!(people.refuses("bob", &certificate("b1", 10)), None);
        people.refuse(revoke("ann", "", 70));
        assert_eq!(people.revoked().len(), 2);
        assert!(people.refuses("ann", &certificate("a3", 50)).is_some());
    }

    #[test]
    fn a_session_ends_in_time_and_with_its_person() {
        let session = |token: &str, name: &str, expires| Session {
            hash: hash(token),
            name: name.to_owned(),
            groups: Vec::new(),
            how: "token".to_owned(),
            maker: None,
            created: 0,
            expires,
            trusts: Vec::new(),
        };
        let sessions = vec![session("a", "ann", 10), session("b", "bob", 10)];
        let mut people = People::new(Vec::new(), sessions, Vec::new());
        assert!(people.session(&hash("a"), 9).is_some() && people.session(&hash("a"), 10).is_none());
        assert_eq!(people.revoke("ann"), 1);
        assert!(people.session(&hash("a"), 9).is_none() && people.session(&hash("b"), 9).is_some());
    }
}
