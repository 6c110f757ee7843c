//! Who a peer is: the URI SAN of its client certificate, and nothing in its messages.
//!
//! `spiffe://<trust domain>/spoke/<cluster>` may report as that cluster; `/viewer/<name>`, `/operator/<name>` and
//! `/admin/<name>` give a person that role over the whole fleet, `/person/<name>` only what is bound to the name. The trust
//! domain has to be the fleet's own: an authority may sign for others, too.

use std::sync::Arc;

use tonic::transport::CertificateDer;
use tonic::{Request, Status};
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

/// What a certificate entitles to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Identity {
    /// Reports the state of one cluster.
    Spoke {
        /// Name of the cluster.
        cluster: Arc<str>,
    },
    /// Reads the fleet.
    Viewer {
        /// Name of the person or program.
        name: Arc<str>,
    },
    /// Reads the fleet, and runs and decides things in it.
    Operator {
        /// Name of the person or program.
        name: Arc<str>,
    },
    /// May do everything.
    Admin {
        /// Name of the person or program.
        name: Arc<str>,
    },
    /// May do what is bound to the name.
    Person {
        /// Name of the person or program.
        name: Arc<str>,
    },
}

/// Why a certificate names nobody. The text is what the peer reads.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum IdentityError {
    /// The peer sent no certificate.
    #[error("no client certificate of an authority that the hub trusts")]
    NoCertificate,
    /// The certificate does not parse.
    #[error("the client certificate cannot be read")]
    Unreadable,
    /// There is no SPIFFE URI, or several.
    #[error(
        "the client certificate must carry exactly one URI SAN that begins with spiffe://, it carries {0}; \
         spokes need spiffe://<trust domain>/spoke/<cluster>, readers spiffe://<trust domain>/viewer/<name>"
    )]
    NotOneUri(usize),
    /// The URI is of another shape.
    #[error(
        "the URI SAN {0:?} is neither spiffe://<trust domain>/spoke/<cluster> nor one of /viewer/<name>, /operator/<name>, /admin/<name> and \
         /person/<name>"
    )]
    UnknownRole(String),
    /// The URI is of another fleet.
    #[error("the certificate is of trust domain {0:?}, and this fleet is {1:?} (--trust-domain of the hub)")]
    ForeignDomain(String, String),
    /// The name would not do as a part of a row's key.
    #[error(
        "the name {0:?} in the URI SAN must be 1 to 253 of a-z, 0-9, '-' and '.', beginning and ending with a letter or digit"
    )]
    BadName(String),
}

/// Longest name of a cluster: a DNS subdomain, as Kubernetes has it.
const NAME_LIMIT: usize = 253;

/// What the leaf of a certificate chain entitles to in the fleet of a trust domain.
///
/// # Errors
/// When the certificate does not name exactly one spoke or viewer of this fleet.
pub fn identify(leaf: &[u8], domain: &str) -> Result<Identity, IdentityError> {
    let (_, certificate) = X509Certificate::from_der(leaf).map_err(|_| IdentityError::Unreadable)?;
    let names = certificate
        .subject_alternative_name()
        .map_err(|_| IdentityError::Unreadable)?;
    let uris: Vec<&str> = names
        .iter()
        .flat_map(|extension| extension.value.general_names.iter())
        .filter_map(|name| match name {
            GeneralName::URI(uri) if uri.starts_with("spiffe://") => Some(*uri),
            _ => None,
        })
        .collect();
    match uris.as_slice() {
        [uri] => parse(uri, domain),
        others => Err(IdentityError::NotOneUri(others.len())),
    }
}

fn parse(uri: &str, own: &str) -> Result<Identity, IdentityError> {
    let unknown = || IdentityError::UnknownRole(uri.to_owned());
    let rest = uri.strip_prefix("spiffe://").ok_or_else(unknown)?;
    let parts: Vec<&str> = rest.split('/').collect();
    let [domain, role, name] = parts.as_slice() else {
        return Err(unknown());
    };
    if domain.is_empty() {
        return Err(unknown());
    }
    if *domain != own {
        return Err(IdentityError::ForeignDomain((*domain).to_owned(), own.to_owned()));
    }
    let proper = |name: &str| {
        if proper_name(name) {
            Ok(Arc::from(name))
        } else {
            Err(IdentityError::BadName(name.to_owned()))
        }
    };
    match *role {
        "spoke" => Ok(Identity::Spoke {
            cluster: proper(name)?,
        }),
        "viewer" => Ok(Identity::Viewer { name: proper(name)? }),
        "operator" => Ok(Identity::Operator { name: proper(name)? }),
        "admin" => Ok(Identity::Admin { name: proper(name)? }),
        "person" => Ok(Identity::Person { name: proper(name)? }),
        _ => Err(unknown()),
    }
}

/// Whether a name may be a cluster's or a person's.
#[must_use]
pub fn proper_name(name: &str) -> bool {
    let edge = |c: Option<char>| c.is_some_and(|c| c.is_ascii_lowercase() || c.is_ascii_digit());
    name.len() <= NAME_LIMIT
        && edge(name.chars().next())
        && edge(name.chars().last())
        && name
            .chars()
            .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '.')
}

/// The certificate of who sends a request.
///
/// # Errors
/// Unauthenticated without one.
pub fn leaf<T>(request: &Request<T>) -> Result<CertificateDer<'static>, Status> {
    let certificates: Option<Arc<Vec<CertificateDer<'static>>>> = request.peer_certs();
    let leaf = certificates.as_ref().and_then(|chain| chain.first().cloned());
    leaf.ok_or_else(|| Status::unauthenticated(IdentityError::NoCertificate.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roles() {
        assert_eq!(
            parse("spiffe://fleet/spoke/prod-eu", "fleet"),
            Ok(Identity::Spoke {
                cluster: "prod-eu".into()
            })
        );
        assert_eq!(
            parse("spiffe://a.b/viewer/ann", "a.b"),
            Ok(Identity::Viewer { name: "ann".into() })
        );
        assert_eq!(
            parse("spiffe://a.b/operator/ann", "a.b"),
            Ok(Identity::Operator { name: "ann".into() })
        );
        assert_eq!(
            parse("spiffe://a.b/admin/ann", "a.b"),
            Ok(Identity::Admin { name: "ann".into() })
        );
        assert_eq!(
            parse("spiffe://a.b/person/ann", "a.b"),
            Ok(Identity::Person { name: "ann".into() })
        );
    }

    #[test]
    fn anything_else_is_nobody() {
        for uri in [
            "spiffe://fleet/root/x",
            "spiffe://fleet/spoke",
            "spiffe://fleet/spoke/a/b",
            "spiffe:///spoke/a",
            "spiffe://fleet/Spoke/a",
            "https://fleet/spoke/a",
        ] {
            assert!(
                matches!(parse(uri, "fleet"), Err(IdentityError::UnknownRole(_))),
                "{uri}"
            );
        }
        for name in ["", "A", "a_b", "-a", "a-", "a b", "ä", &"a".repeat(254)] {
            assert_eq!(
                parse(&format!("spiffe://fleet/spoke/{name}"), "fleet"),
                Err(IdentityError::BadName(name.to_owned()))
            );
        }
    }

    #[test]
    fn another_trust_domain_is_refused_by_name() {
        for role in ["spoke", "viewer", "operator"] {
            let refused = parse(&format!("spiffe://elsewhere/{role}/a"), "fleet").unwrap_err();
            let text = refused.to_string();
            assert!(
                text.contains("\"elsewhere\"") && text.contains("\"fleet\""),
                "{text}"
            );
        }
    }

    #[test]
    fn certificates_are_read() {
        let with = |uris: &[&str]| {
            let key = rcgen::KeyPair::generate().unwrap();
            let mut params = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
            for uri in uris {
                params
                    .subject_alt_names
                    .push(rcgen::SanType::URI((*uri).try_into().unwrap()));
            }
            identify(params.self_signed(&key).unwrap().der(), "fleet")
        };
        assert_eq!(
            with(&["spiffe://fleet/spoke/a"]),
            Ok(Identity::Spoke { cluster: "a".into() })
        );
        assert_eq!(
            with(&["https://x", "spiffe://fleet/viewer/a"]),
            Ok(Identity::Viewer { name: "a".into() })
        );
        assert_eq!(with(&[]), Err(IdentityError::NotOneUri(0)));
        assert_eq!(
            with(&["spiffe://fleet/spoke/a", "spiffe://fleet/viewer/b"]),
            Err(IdentityError::NotOneUri(2))
        );
        assert_eq!(identify(b"junk", "fleet"), Err(IdentityError::Unreadable));
    }
}
