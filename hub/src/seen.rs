//! The part of the inventory that a person sees. Pure. What is outside of it is neither listed nor counted nor named.

use std::sync::Arc;

use crate::access::Sight;
use crate::health::Health;
use crate::inventory::{Counts, Held, Inventory, Member};

/// An inventory through the eyes of a person.
#[derive(Clone, Copy)]
pub struct Seen<'a> {
    pub inventory: &'a Inventory,
    sight: &'a Sight,
}

impl<'a> Seen<'a> {
    /// What of an inventory is in a scope.
    #[must_use]
    pub fn new(inventory: &'a Inventory, sight: &'a Sight) -> Seen<'a> {
        Seen { inventory, sight }
    }

    /// All of an inventory: for what the hub does on its own.
    #[must_use]
    pub fn whole(inventory: &'a Inventory) -> Seen<'a> {
        static EVERYTHING: Sight = Sight::EVERYTHING;
        Seen::new(inventory, &EVERYTHING)
    }

    /// Whether it is all of it.
    #[must_use]
    pub fn is_everything(&self) -> bool {
        self.sight.is_everything()
    }

    /// Whether a resource is seen.
    #[must_use]
    pub fn held(&self, held: &Held) -> bool {
        if self.is_everything() {
            return true;
        }
        let (id, name) = repository_of(held);
        self.sight.takes(&held.cluster, held.namespace(), &[id, name])
    }

    /// Whether what is in a namespace of a cluster is seen, whatever it has to do with repositories.
    #[must_use]
    pub fn namespace(&self, cluster: &str, namespace: &str) -> bool {
        self.sight.takes(cluster, namespace, &[])
    }

    /// Whether something of a cluster may be seen.
    #[must_use]
    pub fn reaches(&self, cluster: &str) -> bool {
        self.sight.reaches_cluster(cluster)
    }

    /// Backups of these clusters, or of all, that are seen.
    pub fn backups(self, clusters: &'a [String]) -> impl Iterator<Item = &'a Arc<Held>> {
        let all = self.inventory.index().backups(clusters);
        all.filter(move |held| self.held(held))
    }

    /// How many backups that are seen are in which state.
    #[must_use]
    pub fn tally(self) -> Counts {
        if self.is_everything() {
            return self.inventory.index().judged().total();
        }
        let mut counts = Counts::default();
        for member in self.inventory.members() {
            if self.sight.reaches_cluster(&member.name) {
                counts.merge(&self.tally_of(member));
            }
        }
        counts
    }

    /// The same of one cluster.
    #[must_use]
    pub fn tally_of(self, member: &Member) -> Counts {
        let judged = self.inventory.index().judged();
        if self.sight.takes_cluster(&member.name) {
            return judged.of_cluster(&member.name);
        }
        let mut counts = Counts::default();
        let of_cluster = [member.name.to_string()];
        for held in self.inventory.index().backups(&of_cluster) {
            if let Some(health) = judged.health(&held.place).filter(|_| self.held(held)) {
                counts.add(health);
            }
        }
        counts
    }

    /// Backups that are seen in a state, by place, after one if it is given.
    pub fn in_state(
        self,
        health: Health,
        after: Option<&str>,
    ) -> impl Iterator<Item = &'a Arc<Held>> + use<'a> {
        let index = self.inventory.index();
        let places = index.judged().in_state(health, after);
        let all = places.filter_map(move |place| index.backup(place));
        all.filter(move |held| self.held(held))
    }

    /// Resources that bind a physical repository and are seen.
    pub fn bindings(self, key: &'a str) -> impl Iterator<Item = &'a Arc<Held>> {
        let all = self.inventory.index().bindings(key);
        all.filter(move |held| self.held(held))
    }

    /// Whether a physical repository is seen: one of its bindings is.
    #[must_use]
    pub fn repository(&self, key: &str) -> bool {
        // Of one that nobody binds any more only the whole fleet is left.
        self.is_everything() || self.inventory.index().bindings(key).any(|held| self.held(held))
    }

    /// Whether all of a physical repository is seen.
    #[must_use]
    pub fn whole_repository(&self, key: &str) -> bool {
        let mut bindings = self.inventory.index().bindings(key);
        self.is_everything() || (self.repository(key) && bindings.all(|held| self.held(held)))
    }

    /// Physical repositories that are seen.
    pub fn repositories(self) -> impl Iterator<Item = &'a Arc<str>> {
        let all = self.inventory.index().repositories();
        all.filter(move |key| self.repository(key))
    }

    /// Whether a cluster is seen: all of it is in the scope, or one of its resources.
    #[must_use]
    pub fn cluster(&self, member: &Member) -> bool {
        self.sight.takes_cluster(&member.name)
            || (self.sight.reaches_cluster(&member.name)
                && member.objects.values().any(|held| self.held(held)))
    }

    /// Clusters that are seen.
    pub fn members(self) -> impl Iterator<Item = &'a Member> {
        self.inventory
            .members()
            .filter(move |member| self.cluster(member))
    }

    /// One cluster, if it is seen.
    #[must_use]
    pub fn member(&self, name: &str) -> Option<&'a Member> {
        self.inventory.member(name).filter(|member| self.cluster(member))
    }

    /// Repositories and backups of a cluster that are seen.
    #[must_use]
    pub fn counts(&self, member: &Member) -> (u64, u64) {
        if self.sight.takes_cluster(&member.name) {
            return (member.repositories, member.backups);
        }
        let seen = member.objects.values().filter(|held| self.held(held));
        seen.fold((0, 0), |(repositories, backups), held| {
            (
                repositories + u64::from(held.repository().is_some()),
                backups + u64::from(held.backup().is_some()),
            )
        })
    }

    /// Whether what a namespace of a cluster does with a physical repository is seen.
    #[must_use]
    pub fn part(&self, key: &str, cluster: &str, namespace: &str) -> bool {
        if self.is_everything() {
            return true;
        }
        let bindings = self.inventory.index().bindings(key);
        let of_cluster = bindings.filter(|held| &*held.cluster == cluster);
        let names: Vec<&str> = std::iter::once(key)
            .chain(of_cluster.map(|held| held.name()))
            .collect();
        self.sight.takes(cluster, namespace, &names)
    }

    /// The same of "<cluster>/<namespace>/<name>", with anything behind it.
    #[must_use]
    pub fn source(&self, key: &str, source: &str) -> bool {
        let mut parts = source.splitn(3, '/');
        match (parts.next(), parts.next(), parts.next()) {
            (Some(cluster), Some(namespace), Some(_)) => self.part(key, cluster, namespace),
            _ => self.is_everything(),
        }
    }

    /// The same of an operation such as "retention <namespace>/<name>".
    #[must_use]
    pub fn operation(&self, key: &str, cluster: &str, subject: &str) -> bool {
        self.part(key, cluster, namespace_of(subject))
    }
}

/// The namespace in the subject of an operation such as "retention <namespace>/<name>"; empty when it names none, which
/// only a scope over all namespaces takes.
#[must_use]
pub fn namespace_of(subject: &str) -> &str {
    let last = subject.rsplit(' ').next().unwrap_or_default();
    last.split_once('/').map_or("", |(namespace, _)| namespace)
}

/// Id and name of the repository that a resource is or uses.
pub(crate) fn repository_of(held: &Held) -> (&str, &str) {
    if let Some(repository) = held.repository() {
        return (&repository.restic_id, held.name());
    }
    if let Some(backup) = held.backup() {
        return (backup.restic_id(), backup.repository_name());
    }
    if let Some(policy) = held.policy() {
        return (&policy.restic_id, &policy.repository_name);
    }
    held.restore().map_or(("", ""), |restore| {
        (restore.restic_id.as_str(), restore.repository_name.as_str())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_subject_names_its_namespace_last() {
        assert_eq!(namespace_of("retention ops/main"), "ops");
        assert_eq!(namespace_of("check of nas ops/main"), "ops");
        assert_eq!(namespace_of("unlock"), "");
        assert_eq!(namespace_of(""), "");
    }
}
