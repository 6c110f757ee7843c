//! The certificate of this cluster: whether there is one, and its name as the hub has read it. Snapshots are tagged with the
//! configured name and the hub knows the cluster by its certificate's, so a difference ends the session: no maintenance is
//! done, and the resources say why.

use std::sync::{Mutex, PoisonError};

use crds::conditions::{self, Status, reasons, types};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;

/// What the last Welcome said. Empty until then.
#[derive(Debug)]
pub struct CertificateName {
    /// FLEET_CLUSTER, or the name derived from the cluster's uid.
    configured: String,
    /// Without a hub no certificate names this cluster.
    linked: bool,
    certificate: Mutex<String>,
    /// Why there is no connection to the hub; empty while there is one.
    trouble: Mutex<String>,
    /// Whether there is a certificate to connect with; `None` until that was looked at.
    held: Mutex<Option<Result<(), Uncertified>>>,
}

/// This cluster has no certificate to connect with, and gets none without a person.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text}")]
pub struct Uncertified {
    /// Of the condition that says so.
    pub reason: &'static str,
    pub text: String,
}

/// What the resources say of all maintenance that waits for a person.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Waits {
    pub reason: String,
    pub text: String,
}

/// Reasons of that.
const REASONS: [&str; 3] = [
    reasons::CLUSTER_NAME_DIFFERS,
    reasons::CLUSTER_NOT_JOINED,
    reasons::CLUSTER_CERTIFICATE_EXPIRED,
];

impl CertificateName {
    /// Nothing is known of the certificate yet. `linked`: whether there is a hub.
    #[must_use]
    pub fn new(configured: &str, linked: bool) -> CertificateName {
        CertificateName {
            configured: configured.to_owned(),
            linked,
            certificate: Mutex::default(),
            trouble: Mutex::default(),
            held: Mutex::default(),
        }
    }

    /// Why there is no connection to the hub; empty while there is one, or none is to be.
    #[must_use]
    pub fn trouble(&self) -> String {
        let trouble = self.trouble.lock().unwrap_or_else(PoisonError::into_inner);
        trouble.clone()
    }

    /// Says why there is no connection to the hub; empty when there is one.
    pub fn set_trouble(&self, text: &str) {
        let mut trouble = self.trouble.lock().unwrap_or_else(PoisonError::into_inner);
        text.clone_into(&mut trouble);
    }

    /// The hub says the certificate's name. Returns whether that is news.
    pub fn welcomed(&self, certificate: &str) -> bool {
        let mut known = self.certificate.lock().unwrap_or_else(PoisonError::into_inner);
        let news = *known != certificate;
        certificate.clone_into(&mut known);
        news
    }

    /// The sentence that names both, if they differ. Until the hub has answered, what the resource says itself counts, as
    /// long as it is about the present configuration: a restart alone mends nothing.
    #[must_use]
    pub fn differs(&self, said: &[Condition], type_: &str) -> Option<String> {
        if !self.linked {
            return None;
        }
        let known = self.certificate.lock().unwrap_or_else(PoisonError::into_inner);
        if known.is_empty() {
            let said = conditions::get(said, type_)?;
            let about_this = said.message.starts_with(&beginning(&self.configured));
            return (said.reason == reasons::CLUSTER_NAME_DIFFERS && about_this)
                .then(|| said.message.clone());
        }
        (*known != self.configured).then(|| sentence(&self.configured, &known))
    }
}

impl CertificateName {
    /// It was looked at whether there is a certificate to connect with. Returns whether that is news.
    pub fn looked(&self, held: Result<(), Uncertified>) -> bool {
        let mut known = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        known.replace(held.clone()) != Some(held)
    }

    /// Why all maintenance waits for a person, if it does. Until the certificate was looked at, what the resource says
    /// itself counts.
    #[must_use]
    pub fn waits(&self, said: &[Condition], type_: &str) -> Option<Waits> {
        if let Some(text) = self.differs(said, type_) {
            let reason = reasons::CLUSTER_NAME_DIFFERS.to_owned();
            return Some(Waits { reason, text });
        }
        if !self.linked {
            return None;
        }
        let held = self.held.lock().unwrap_or_else(PoisonError::into_inner).clone();
        match held {
            Some(Err(Uncertified { reason, text })) => Some(Waits {
                reason: reason.to_owned(),
                text,
            }),
            Some(Ok(())) => None,
            None => conditions::get(said, type_)
                .filter(|said| REASONS[1..].contains(&said.reason.as_str()))
                .map(|said| Waits {
                    reason: said.reason.clone(),
                    text: said.message.clone(),
                }),
        }
    }
}

/// Whether a condition says that all maintenance waits for a person.
#[must_use]
pub fn says_so(condition: &Condition) -> bool {
    REASONS.contains(&condition.reason.as_str())
}

/// Condition Waiting of a repository: present as long as all maintenance waits for a person, with the sentence that says
/// why.
pub fn mark(conditions: &mut Vec<Condition>, waits: Option<&Waits>, generation: Option<i64>, now: Timestamp) {
    let type_ = types::WAITING;
    match waits {
        Some(Waits { reason, text }) => {
            conditions::set(conditions, type_, Status::True, reason, text, generation, now);
        }
        None => conditions.retain(|c| c.type_ != type_ || !says_so(c)),
    }
}

fn beginning(configured: &str) -> String {
    format!("FLEET_CLUSTER is {configured:?} ")
}

/// Names both, and what to do.
#[must_use]
pub fn sentence(configured: &str, certificate: &str) -> String {
    format!(
        "{}and the certificate of this cluster names it {certificate:?}: no maintenance is done. Set FLEET_CLUSTER to {certificate:?} and restart the operator, or join as {configured:?} with `fleet clusters join`",
        beginning(configured)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn saying(reason: &str, text: &str) -> Vec<Condition> {
        let mut list = Vec::new();
        let now = Timestamp::UNIX_EPOCH;
        conditions::set(&mut list, types::READY, Status::False, reason, text, None, now);
        list
    }

    #[test]
    fn a_name_that_differs_is_told_with_both_until_it_agrees() {
        let name = CertificateName::new("a", true);
        assert_eq!(name.differs(&[], types::READY), None, "nothing is known yet");
        assert!(name.welcomed("b"));
        assert!(!name.welcomed("b"), "no news");
        let text = name.differs(&[], types::READY).unwrap();
        assert!(text.contains("\"a\"") && text.contains("\"b\""), "{text}");
        assert!(name.welcomed("a"));
        assert_eq!(
            name.differs(&saying(reasons::CLUSTER_NAME_DIFFERS, &text), types::READY),
            None
        );
    }

    #[test]
    fn a_restart_alone_does_not_take_back_what_was_told() {
        let said = saying(reasons::CLUSTER_NAME_DIFFERS, &sentence("a", "b"));
        let again = CertificateName::new("a", true);
        assert_eq!(again.differs(&said, types::READY), Some(sentence("a", "b")));
        let corrected = CertificateName::new("b", true);
        assert_eq!(corrected.differs(&said, types::READY), None);
        let other = saying(reasons::HUB_REQUIRED, &sentence("a", "b"));
        assert_eq!(again.differs(&other, types::READY), None);
        let alone = CertificateName::new("a", false);
        assert_eq!(alone.differs(&said, types::READY), None, "the hub was removed");
    }

    #[test]
    fn a_repository_says_it_as_long_as_it_is_so() {
        let name = CertificateName::new("a", true);
        let say = |list: &mut Vec<Condition>, name: &CertificateName| {
            let waits = name.waits(list, types::WAITING);
            mark(list, waits.as_ref(), Some(1), Timestamp::UNIX_EPOCH);
        };
        let mut list = saying(reasons::REPOSITORY_ACCESSIBLE, "");
        say(&mut list, &name);
        assert_eq!(list.len(), 1);
        name.welcomed("b");
        say(&mut list, &name);
        let said = conditions::get(&list, types::WAITING).unwrap();
        assert_eq!(
            (said.status.as_str(), said.reason.as_str()),
            ("True", "ClusterNameDiffers")
        );
        assert_eq!(said.message, sentence("a", "b"));
        name.welcomed("a");
        say(&mut list, &name);
        assert_eq!(list.len(), 1);
    }

    #[test]
    fn a_certificate_that_is_missing_is_told_until_there_is_one() {
        let name = CertificateName::new("a", true);
        let say = |list: &mut Vec<Condition>, name: &CertificateName| {
            let waits = name.waits(list, types::WAITING);
            mark(list, waits.as_ref(), Some(1), Timestamp::UNIX_EPOCH);
            let said = conditions::get(list, types::WAITING);
            said.map(|said| (said.reason.clone(), said.message.clone()))
        };
        let mut list = Vec::new();
        assert_eq!(say(&mut list, &name), None);
        let expired = || Uncertified {
            reason: reasons::CLUSTER_CERTIFICATE_EXPIRED,
            text: "join again".to_owned(),
        };
        assert!(name.looked(Err(expired())) && !name.looked(Err(expired())));
        let said = say(&mut list, &name).unwrap();
        assert_eq!(
            said,
            ("ClusterCertificateExpired".to_owned(), "join again".to_owned())
        );
        // After a restart nothing is known yet, which takes nothing back.
        let again = CertificateName::new("a", true);
        assert_eq!(say(&mut list, &again), Some(said));
        assert!(again.looked(Ok(())));
        assert_eq!(say(&mut list, &again), None);
        name.looked(Err(expired()));
        say(&mut list, &name);
        assert_eq!(
            say(&mut list, &CertificateName::new("a", false)),
            None,
            "the hub was removed"
        );
    }
}
