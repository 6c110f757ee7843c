//! Which rows a filter takes. A resource and the row that is made of it are judged alike.

use memchr::memmem::Finder;
use proto::v1::{Collection, Filter, Row, row::Body};

use super::state;
use crate::inventory::{Held, Inventory, Member};
use crate::rows;
use crate::seen::repository_of;

/// A filter, with its text as it is compared.
pub struct Wanted {
    pub(super) of: Filter,
    /// `None` takes every text.
    text: Option<Finder<'static>>,
    /// The text may be a part of an id.
    is_hex: bool,
}

impl Wanted {
    /// A filter that was checked.
    #[must_use]
    pub fn new(of: Filter) -> Wanted {
        let text = of.text.to_lowercase();
        Wanted {
            text: (!text.is_empty()).then(|| Finder::new(&text).into_owned()),
            is_hex: text.bytes().all(|byte| byte.is_ascii_hexdigit()),
            of,
        }
    }

    /// As it was asked for.
    #[must_use]
    pub fn of(&self) -> &Filter {
        &self.of
    }

    /// Whether it takes everything.
    #[must_use]
    pub fn is_everything(&self) -> bool {
        self.is_by_state() && self.of.states.is_empty()
    }

    /// Whether it takes by state alone.
    pub(super) fn is_by_state(&self) -> bool {
        let Filter {
            clusters, namespaces, ..
        } = &self.of;
        clusters.is_empty() && namespaces.is_empty() && self.text.is_none()
    }

    /// Whether it takes a backup, policy or restore.
    pub(super) fn takes_held(&self, inventory: &Inventory, of: Collection, held: &Held) -> bool {
        let Filter {
            clusters,
            namespaces,
            states,
            ..
        } = &self.of;
        any(clusters, &held.cluster)
            && any(namespaces, held.namespace())
            && self.names(&held.place, repository_of(held).0)
            && (states.is_empty() || any(states, state(inventory, of, held)))
    }

    /// Whether it takes a cluster.
    pub(super) fn takes_member(&self, member: &Member) -> bool {
        any(&self.of.clusters, &member.name)
            && any(&self.of.states, rows::cluster_state(member).0)
            && self.contains(std::iter::once(&*member.name))
    }

    /// Whether it takes a row.
    #[must_use]
    pub fn takes(&self, row: &Row) -> bool {
        let Filter {
            clusters,
            namespaces,
            states,
            ..
        } = &self.of;
        match &row.body {
            Some(Body::Cluster(cluster)) => {
                any(clusters, &cluster.name)
                    && any(states, &cluster.state)
                    && self.contains(std::iter::once(cluster.name.as_str()))
            }
            Some(Body::Repository(repository)) => {
                let spaces = || repository.bindings.iter().map(|b| &b.namespace);
                let urls = repository.bindings.iter().map(|b| b.url.as_str());
                (clusters.is_empty() || repository.clusters.iter().any(|c| clusters.contains(c)))
                    && (namespaces.is_empty() || spaces().any(|n| namespaces.contains(n)))
                    && any(states, &repository.state)
                    && self.contains([repository.name.as_str(), &row.key].into_iter().chain(urls))
            }
            Some(Body::Backup(of)) => {
                let id = of.backup.as_ref().map_or("", |backup| &backup.restic_id);
                self.takes_of((&of.cluster, &of.namespace, &of.state), [&row.key, id])
            }
            Some(Body::Policy(of)) => {
                let id = of.policy.as_ref().map_or("", |policy| &policy.restic_id);
                self.takes_of((&of.cluster, &of.namespace, &of.state), [&row.key, id])
            }
            Some(Body::Restore(of)) => {
                let id = of.restore.as_ref().map_or("", |restore| &restore.restic_id);
                self.takes_of((&of.cluster, &of.namespace, &of.state), [&row.key, id])
            }
            None => false,
        }
    }

    fn takes_of(&self, (cluster, namespace, state): (&str, &str, &str), [key, id]: [&str; 2]) -> bool {
        any(&self.of.clusters, cluster)
            && any(&self.of.namespaces, namespace)
            && any(&self.of.states, state)
            && self.names(key, id)
    }

    /// Whether the text is a part of a key, or of an id.
    fn names(&self, key: &str, id: &str) -> bool {
        self.contains([key, if self.is_hex { id } else { "" }].into_iter())
    }

    fn contains<'a>(&self, mut texts: impl Iterator<Item = &'a str>) -> bool {
        let Some(wanted) = &self.text else {
            return true;
        };
        let plain = |text: &str| {
            text.bytes()
                .all(|byte| byte.is_ascii() && !byte.is_ascii_uppercase())
        };
        texts.any(|text| {
            // Names and ids, nearly always: nothing is copied.
            let found = match plain(text) {
                true => wanted.find(text.as_bytes()),
                false => wanted.find(text.to_lowercase().as_bytes()),
            };
            found.is_some()
        })
    }
}

/// Whether a value is wanted; an empty list takes every one.
pub(crate) fn any(wanted: &[String], value: &str) -> bool {
    wanted.is_empty() || wanted.iter().any(|w| w == value)
}
