//! Who sends a request, and what that gives a right to. Pure.

use std::sync::Arc;

use proto::certificate::Facts;

use super::people::Maker;
use super::scope::Scope;
use super::verb::{Role, Verb, Verbs};
use crate::identity::Identity;

/// Verbs, and where they hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    pub verbs: Verbs,
    pub scope: Scope,
}

impl Grant {
    /// A role over the whole fleet.
    #[must_use]
    pub fn everywhere(role: Role) -> Grant {
        Grant {
            verbs: role.verbs(),
            scope: Scope::default(),
        }
    }
}

/// How a person was recognised.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Method {
    /// A certificate, with what it gives a right to by itself.
    Certificate(Option<Grant>),
    /// A session, by the hash of its token; `how` it was opened: "token", "oidc" or "browser"; and the certificate by which
    /// its person has made the login token for itself.
    Session {
        hash: [u8; 32],
        how: String,
        maker: Option<Maker>,
    },
}

impl Method {
    /// As people read it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        match self {
            Method::Certificate(_) => "certificate",
            Method::Session { how, .. } => how,
        }
    }
}

/// A person or a program with rights.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Person {
    pub name: Arc<str>,
    pub groups: Vec<String>,
    pub method: Method,
    /// When the certificate or the session ends, in milliseconds since 1970.
    pub until: Option<crate::Millis>,
    /// What a certificate is known by: one that is revoked ends what is open.
    pub certificate: Option<Facts>,
    grants: Vec<Grant>,
}

/// Who sends a request. The layer puts it into every request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Principal {
    Spoke {
        cluster: Arc<str>,
    },
    Person(Arc<Person>),
    /// Nobody: only for RPCs that are open to everyone.
    Anyone,
}

impl Person {
    /// A person with these rights.
    #[must_use]
    pub fn new(name: Arc<str>, groups: Vec<String>, method: Method, grants: Vec<Grant>) -> Person {
        Person {
            name,
            groups,
            method,
            until: None,
            certificate: None,
            grants,
        }
    }

    /// The same until a time, in milliseconds since 1970.
    #[must_use]
    pub fn valid_until(self, until: Option<crate::Millis>) -> Person {
        Person { until, ..self }
    }

    /// The same by a certificate, as long as that is valid.
    #[must_use]
    pub fn certified(self, certificate: Facts) -> Person {
        Person {
            until: Some(certificate.expires),
            certificate: Some(certificate),
            ..self
        }
    }

    /// What it may do, and where.
    #[must_use]
    pub fn grants(&self) -> &[Grant] {
        &self.grants
    }

    /// The certificate that a login token of this person for itself is made by; that of its session where it has one.
    #[must_use]
    pub fn maker(&self) -> Option<Maker> {
        match (&self.method, &self.certificate) {
            (Method::Session { maker, .. }, _) => maker.clone(),
            (Method::Certificate(own), Some(facts)) => {
                let is = |role: &Role| own.as_ref() == Some(&Grant::everywhere(*role));
                Some(Maker {
                    role: Role::ALL.into_iter().find(is).map_or("", Role::as_str).to_owned(),
                    serial: facts.serial.clone(),
                    begins: facts.begins,
                })
            }
            (Method::Certificate(_), None) => None,
        }
    }

    /// Whether it may do something somewhere.
    #[must_use]
    pub fn has(&self, verb: Verb) -> bool {
        self.grants.iter().any(|grant| grant.verbs.has(verb))
    }

    /// Where it may do something.
    #[must_use]
    pub fn sight(&self, verb: Verb) -> Sight {
        let scopes: Vec<Scope> = self
            .grants
            .iter()
            .filter(|grant| grant.verbs.has(verb))
            .map(|grant| grant.scope.clone())
            .collect();
        if scopes.iter().any(Scope::is_everything) {
            Sight(None)
        } else {
            Sight(Some(scopes))
        }
    }
}

/// What of the fleet a verb reaches. Everything that reads or decides takes one, so that no scope is left out by mistake.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sight(Option<Vec<Scope>>);

impl Sight {
    /// The whole fleet: for what the hub does on its own.
    pub const EVERYTHING: Sight = Sight(None);

    /// Whether it is the whole fleet.
    #[must_use]
    pub fn is_everything(&self) -> bool {
        self.0.is_none()
    }

    /// Whether one scope fits; of the whole fleet every one does.
    fn any(&self, fits: impl FnMut(&Scope) -> bool) -> bool {
        self.0.as_ref().is_none_or(|scopes| scopes.iter().any(fits))
    }

    /// Whether it takes a resource; `repository` are the names by which its repository is known.
    #[must_use]
    pub fn takes(&self, cluster: &str, namespace: &str, repository: &[&str]) -> bool {
        self.any(|scope| scope.takes(cluster, namespace, repository))
    }

    /// Whether it takes all of a cluster.
    #[must_use]
    pub fn takes_cluster(&self, cluster: &str) -> bool {
        self.any(|scope| scope.is_whole_clusters() && scope.clusters.takes(cluster))
    }

    /// Whether it could take something of a cluster.
    #[must_use]
    pub fn reaches_cluster(&self, cluster: &str) -> bool {
        self.any(|scope| scope.clusters.takes(cluster))
    }
}

/// What a certificate gives a right to by itself.
#[must_use]
pub fn by_certificate(identity: &Identity) -> Option<(Arc<str>, Option<Role>)> {
    match identity {
        Identity::Spoke { .. } => None,
        Identity::Person { name } => Some((name.clone(), None)),
        Identity::Viewer { name } => Some((name.clone(), Some(Role::Viewer))),
        Identity::Operator { name } => Some((name.clone(), Some(Role::Operator))),
        Identity::Admin { name } => Some((name.clone(), Some(Role::Admin))),
    }
}

#[cfg(test)]
mod tests {
    use super::super::scope::Patterns;
    use super::*;

    fn grant(verbs: &str, clusters: &[&str], namespaces: &[&str]) -> Grant {
        let list = |texts: &[&str]| {
            let texts: Vec<String> = texts.iter().map(|t| (*t).to_owned()).collect();
            Patterns::new(&texts).unwrap()
        };
        Grant {
            verbs: verbs.parse().unwrap(),
            scope: Scope {
                clusters: list(clusters),
                namespaces: list(namespaces),
                ..Scope::default()
            },
        }
    }

    #[test]
    fn a_right_holds_in_its_own_scope_only() {
        let grants = vec![
            grant("viewer", &["prod-*"], &[]),
            grant("operator", &["dev"], &["shop"]),
        ];
        let ann = Person::new("ann".into(), Vec::new(), Method::Certificate(None), grants);
        assert!(ann.has(Verb::Approve) && !ann.has(Verb::Ban));
        let see = ann.sight(Verb::See);
        assert!(see.takes("prod-eu", "x", &[]) && see.takes("dev", "shop", &[]));
        assert!(!see.takes("dev", "x", &[]) && !see.takes("test", "shop", &[]));
        let approve = ann.sight(Verb::Approve);
        assert!(approve.takes("dev", "shop", &[]) && !approve.takes("prod-eu", "shop", &[]));
        assert!(see.takes_cluster("prod-eu") && !see.takes_cluster("dev") && see.reaches_cluster("dev"));
        assert!(
            !ann.sight(Verb::Ban).takes("dev", "shop", &[]),
            "no scope at all takes nothing"
        );
    }

    #[test]
    fn one_grant_for_everything_is_everything() {
        let grants = vec![grant("viewer", &["a"], &[]), Grant::everywhere(Role::Viewer)];
        let ann = Person::new("ann".into(), Vec::new(), Method::Certificate(None), grants);
        assert!(ann.sight(Verb::See).is_everything());
        assert!(!ann.sight(Verb::Run).is_everything());
    }
}
