//! Recognises who sends a request, and decides whether an RPC is open to it. Holds what is bound to people in memory, as
//! the store has it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use proto::certificate::{self, Facts};
use tokio::sync::watch;
use tonic::Status;
use tonic::transport::CertificateDer;

use super::people::{Maker, People, hash};
use super::principal::{Grant, Method, Person, Principal, by_certificate};
use super::table::{self, Need};
use crate::Millis;
use crate::dashboard::cookie::CookieSession;
use crate::identity::{Identity, IdentityError, identify};

/// What a request brings along.
#[derive(Clone, Debug, Default)]
pub struct Evidence {
    /// Leaf of the client certificate, DER.
    pub certificate: Option<Vec<u8>>,
    /// Token of the header "authorization: Bearer", or of a page's cookie; it counts before the certificate.
    pub token: Option<String>,
}

impl Evidence {
    /// What the certificates of a connection, and the header or else the cookie of a request show.
    #[must_use]
    pub fn of(
        chain: Option<&[CertificateDer<'static>]>,
        authorization: Option<&str>,
        cookie: Option<&CookieSession>,
    ) -> Evidence {
        let leaf = chain.and_then(<[_]>::first);
        let token = authorization.and_then(|value| {
            let (scheme, token) = value.split_once(' ')?;
            scheme
                .eq_ignore_ascii_case("bearer")
                .then(|| token.trim().to_owned())
        });
        Evidence {
            certificate: leaf.map(|leaf| leaf.to_vec()),
            token: token.or_else(|| cookie.map(|cookie| cookie.0.clone())),
        }
    }
}

/// Knows people, and what they may do.
#[derive(Debug)]
pub struct Authority {
    /// Trust domain of the fleet.
    domain: Arc<str>,
    people: Mutex<People>,
    /// Rises with each change of rights and sessions.
    changed: watch::Sender<u64>,
}

impl Authority {
    /// An authority for a trust domain, which knows these people.
    #[must_use]
    pub fn new(domain: Arc<str>, people: People) -> Authority {
        Authority {
            domain,
            people: Mutex::new(people),
            changed: watch::channel(0).0,
        }
    }

    fn lock(&self) -> MutexGuard<'_, People> {
        self.people.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads what is known of people.
    pub fn read<R>(&self, f: impl FnOnce(&People) -> R) -> R {
        f(&self.lock())
    }

    /// Changes what is known of people, after the store has it.
    pub fn change<R>(&self, f: impl FnOnce(&mut People) -> R) -> R {
        let result = f(&mut self.lock());
        self.changed.send_modify(|count| *count += 1);
        result
    }

    /// News of changes: what is sent for longer has to ask again with [`Authority::again`].
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// Who it is, if it may call this RPC. The name goes with a refusal, as far as it is known.
    ///
    /// # Errors
    /// Unimplemented for an RPC that is not in the table, Unauthenticated without proof of who it is, PermissionDenied
    /// for who may not call it.
    pub fn admit(
        &self,
        path: &str,
        evidence: &Evidence,
        now: Millis,
    ) -> Result<Principal, (Principal, Status)> {
        let Some(need) = table::need(path) else {
            let status = Status::unimplemented(format!("this hub does not know {path}"));
            return Err((Principal::Anyone, status));
        };
        if need == Need::Anyone {
            return Ok(Principal::Anyone);
        }
        let principal = self
            .recognise(evidence, now)
            .map_err(|status| (Principal::Anyone, status))?;
        match allowed(&principal, need) {
            Ok(()) => Ok(principal),
            Err(status) => Err((principal, status)),
        }
    }

    fn recognise(&self, evidence: &Evidence, now: Millis) -> Result<Principal, Status> {
        if let Some(token) = &evidence.token {
            return self.by_session(hash(token), now).map(Principal::Person);
        }
        let Some(leaf) = &evidence.certificate else {
            return Err(Status::unauthenticated(IdentityError::NoCertificate.to_string()));
        };
        let identity =
            identify(leaf, &self.domain).map_err(|error| Status::permission_denied(error.to_string()))?;
        let Some((name, role)) = by_certificate(&identity) else {
            let Identity::Spoke { cluster } = identity else {
                return Err(Status::internal("a certificate of no kind"));
            };
            return Ok(Principal::Spoke { cluster });
        };
        let facts = certificate::read(leaf).map_err(|error| Status::permission_denied(error.to_string()))?;
        let own = role.map(Grant::everywhere);
        self.by_certificate(name, own, facts).map(Principal::Person)
    }

    fn by_certificate(
        &self,
        name: Arc<str>,
        own: Option<Grant>,
        facts: Facts,
    ) -> Result<Arc<Person>, Status> {
        if let Some(reason) = self.read(|people| people.refuses(&name, &facts)) {
            return Err(Status::unauthenticated(reason));
        }
        let person = self.person(name, Vec::new(), Method::Certificate(own));
        Ok(Arc::new(person.certified(facts)))
    }

    fn by_session(&self, hash: [u8; 32], now: Millis) -> Result<Arc<Person>, Status> {
        let found = self.read(|people| people.session(&hash, now).cloned());
        let Some(session) = found else {
            return Err(Status::unauthenticated(
                "the session has ended or was revoked: log in again with `fleet login`",
            ));
        };
        let revoked = |maker: &Maker| self.read(|people| people.refuses(&session.name, &maker.facts()));
        if let Some(reason) = session.maker.as_ref().and_then(revoked) {
            return Err(Status::unauthenticated(reason));
        }
        let method = Method::Session {
            hash,
            how: session.how,
            maker: session.maker,
        };
        let person = self.person(session.name.as_str().into(), session.groups, method);
        Ok(Arc::new(person.valid_until(Some(session.expires))))
    }

    fn person(&self, name: Arc<str>, groups: Vec<String>, method: Method) -> Person {
        let mut grants = self.read(|people| people.grants(&name, &groups));
        match &method {
            Method::Certificate(own) => grants.extend(own.clone()),
            Method::Session { maker, .. } => grants.extend(maker.as_ref().and_then(Maker::grant)),
        }
        Person::new(name, groups, method, grants)
    }

    /// The same person with the rights of now: for what takes longer than one answer.
    ///
    /// # Errors
    /// Unauthenticated once its certificate or session has ended or was revoked.
    pub fn again(&self, person: &Person, now: Millis) -> Result<Arc<Person>, Status> {
        if person.until.is_some_and(|until| until <= now) {
            return Err(Status::unauthenticated("the certificate or session has ended"));
        }
        match (&person.method, &person.certificate) {
            (Method::Session { hash, .. }, _) => self.by_session(*hash, now),
            (Method::Certificate(own), Some(facts)) => {
                self.by_certificate(person.name.clone(), own.clone(), facts.clone())
            }
            (Method::Certificate(_), None) => Err(Status::internal("a certificate that was not read")),
        }
    }
}

/// Whether a principal has what an RPC needs. Pure.
///
/// # Errors
/// PermissionDenied, with what is missing.
pub fn allowed(principal: &Principal, need: Need) -> Result<(), Status> {
    let refuse = |text: String| Err(Status::permission_denied(text));
    match (principal, need) {
        (_, Need::Anyone) | (Principal::Spoke { .. }, Need::Spoke) | (Principal::Person(_), Need::Person) => {
            Ok(())
        }
        (Principal::Spoke { cluster }, _) => refuse(format!(
            "the spoke of cluster {cluster} may report and do nothing else: use the certificate or the login of a person"
        )),
        (Principal::Person(person), Need::Spoke) => refuse(format!(
            "{} is a person and may not report as a cluster: connect with a certificate for \
             spiffe://<trust domain>/spoke/<cluster>",
            person.name
        )),
        (Principal::Person(person), Need::Verb(verb)) if person.has(verb) => Ok(()),
        (Principal::Person(person), Need::Verb(verb)) => refuse(format!(
            "{} may not {verb}; `fleet whoami` shows what you may do, and an admin can change it with `fleet people bind`",
            person.name
        )),
        (Principal::Anyone, _) => Err(Status::unauthenticated("nobody is logged in")),
    }
}

#[cfg(test)]
mod tests {
    use super::super::people::Session;
    use super::super::verb::Verb;
    use super::*;

    const LIST: &str = "/fleet.v1.FleetView/List";

    fn token(token: &str) -> Evidence {
        Evidence::of(None, Some(&format!("bearer {token}")), None)
    }

    #[test]
    fn who_is_not_known_gets_nowhere() {
        let authority = Authority::new("fleet".into(), People::default());
        let code = |path: &str, evidence: &Evidence| authority.admit(path, evidence, 0).unwrap_err().1.code();
        assert_eq!(code(LIST, &Evidence::default()), tonic::Code::Unauthenticated);
        assert_eq!(code(LIST, &token("x")), tonic::Code::Unauthenticated);
        assert_eq!(
            code("/fleet.v1.FleetView/Unlisted", &Evidence::default()),
            tonic::Code::Unimplemented
        );
        assert_eq!(Evidence::of(None, Some("Basic x"), None).token, None);
    }

    #[test]
    fn a_session_is_a_person_without_rights_until_they_are_bound() {
        let session = Session {
            hash: hash("t"),
            name: "ann".to_owned(),
            groups: vec!["ops".to_owned()],
            how: "token".to_owned(),
            maker: None,
            created: 0,
            expires: 10,
            trusts: Vec::new(),
        };
        let people = People::new(Vec::new(), vec![session], Vec::new());
        let authority = Authority::new("fleet".into(), people);
        let refused = authority.admit(LIST, &token("t"), 1).unwrap_err();
        assert_eq!(refused.1.code(), tonic::Code::PermissionDenied);
        let Principal::Person(ann) = refused.0 else {
            panic!("the refusal names who it was")
        };
        let binding = super::super::people::RoleBinding {
            id: 1,
            subject: super::super::people::Subject::Group("ops".to_owned()),
            rights: "viewer".to_owned(),
            verbs: "viewer".parse().unwrap(),
            scope: super::super::scope::Scope::default(),
            created: 0,
            created_by: String::new(),
        };
        let mut news = authority.changes();
        authority.change(|people| people.bind(binding));
        assert!(news.has_changed().unwrap());
        news.mark_unchanged();
        assert!(authority.admit(LIST, &token("t"), 1).is_ok());
        assert!(authority.again(&ann, 1).unwrap().has(Verb::See));
        assert!(authority.again(&ann, 10).is_err(), "its session has ended");
        authority.change(|people| people.revoke("ann"));
        assert!(authority.again(&ann, 1).is_err() && authority.admit(LIST, &token("t"), 1).is_err());
    }
}
