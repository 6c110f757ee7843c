//! The authorities that certificates of the hub are of: what spokes and people are told to trust.

use std::sync::Arc;

use axum::http::HeaderValue;
use proto::certificate::{Announced, KeyHash, announcement, read};
use proto::v1::TrustBundle;
use tokio::sync::watch;

use crate::authority::Authority;

/// The authorities of one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trust {
    /// DER. The hub's own come first, of them the active one.
    pub authorities: Vec<Vec<u8>>,
    /// Key of the own authority that signs; `None` where only a given one is trusted.
    active: Option<KeyHash>,
    /// Their keys, as a header of answers to people.
    pub header: HeaderValue,
}

impl Trust {
    fn of(authority: Option<&Authority>, given: &[Vec<u8>]) -> Trust {
        let own = authority.map(Authority::bundle).unwrap_or_default();
        let own = own.iter().map(|der| der.to_vec());
        let authorities: Vec<Vec<u8>> = own.chain(given.iter().cloned()).collect();
        let facts = |der: &Vec<u8>| Some(read(der).ok()?.key);
        let keys: Vec<KeyHash> = authorities.iter().filter_map(facts).collect();
        let next = authority.and_then(Authority::announced);
        let announced = keys.iter().map(|key| Announced {
            key: *key,
            next: Some(*key) == next,
        });
        let header = HeaderValue::from_str(&announcement(&announced.collect::<Vec<_>>()));
        Trust {
            header: header.unwrap_or(HeaderValue::from_static("")),
            active: authority.map(Authority::active),
            authorities,
        }
    }

    /// What a spoke is told to trust; `None` without an own authority.
    #[must_use]
    pub fn bundle(&self) -> Option<TrustBundle> {
        Some(TrustBundle {
            authorities: self.authorities.clone(),
            active: self.active?.to_vec(),
        })
    }
}

/// The authorities of now, and news of them.
#[derive(Debug)]
pub struct Trusted(watch::Sender<Arc<Trust>>);

impl Trusted {
    /// Of the hub's own authority, and given ones (DER).
    #[must_use]
    pub fn new(authority: Option<&Authority>, given: &[Vec<u8>]) -> Trusted {
        Trusted(watch::channel(Arc::new(Trust::of(authority, given))).0)
    }

    /// The authorities of now.
    #[must_use]
    pub fn now(&self) -> Arc<Trust> {
        self.0.borrow().clone()
    }

    /// News of them.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<Arc<Trust>> {
        self.0.subscribe()
    }

    /// Takes changed authorities up.
    pub fn refresh(&self, authority: Option<&Authority>, given: &[Vec<u8>]) {
        let trust = Arc::new(Trust::of(authority, given));
        self.0.send_if_modified(|present| {
            let changed = *present != trust;
            *present = trust;
            changed
        });
    }
}
