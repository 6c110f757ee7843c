//! What is said of the stores of a restic id: that one is in question, and which others there are. Pure.

use super::place::{Member, Standing, members, standing};
use super::restic_id;
use crate::inventory::Inventory;

/// What the inventory shows of a restic id.
pub struct Scene {
    pub members: Vec<Member>,
    pub standing: Standing,
    /// Some cluster was found to use a store.
    placed: bool,
}

impl Scene {
    /// As of now.
    #[must_use]
    pub fn of(inventory: &Inventory, restic_id: &str) -> Scene {
        let members = members(inventory, restic_id);
        let standing = standing(restic_id, &members, inventory.places());
        let placed = inventory.places().of(restic_id).next().is_some();
        Scene {
            members,
            standing,
            placed,
        }
    }

    /// Why it is not known which clusters use a store; `None` if it is. `asker` is the cluster that asks for a lock.
    #[must_use]
    pub fn unclear(&self, key: &str, asker: Option<&str>) -> Option<String> {
        if self.members.len() < 2 && !self.placed {
            return None;
        }
        let Standing { placed, unplaced } = &self.standing;
        // A cluster of which it is not known may use any store.
        let concerns = |m: &&Member| {
            *m.store == *key
                || match asker {
                    Some(asker) => *m.cluster == *asker,
                    None => unplaced.contains(&m.cluster),
                }
        };
        let moved = |m: &Member| placed.get(&m.cluster).is_some_and(|store| *store != m.store);
        let mut concerned = self.members.iter().filter(concerns);
        let open = concerned.find(|m| unplaced.contains(&m.cluster) || moved(m))?;
        Some(format!(
            "cluster {} has the repository at {}, and it is not known yet whether that is the store of the others",
            open.cluster, open.urls
        ))
    }

    /// Other stores than one, in words; empty for none.
    #[must_use]
    pub fn others(&self, key: &str) -> String {
        let others: Vec<String> = self
            .members
            .iter()
            .filter(|m| self.placed && *m.store != *key)
            .map(|m| format!("{} at {}", m.cluster, m.urls))
            .collect();
        if others.is_empty() || !self.members.iter().any(|m| *m.store == *key) {
            return String::new();
        }
        format!(
            "a copy of the repository with the same id is used by cluster {}; each store has its own lock and is kept by the \
             runs of its own clusters",
            others.join(", ")
        )
    }
}

/// [`Scene::unclear`] as of now.
#[must_use]
pub fn unclear(inventory: &Inventory, key: &str, asker: Option<&str>) -> Option<String> {
    Scene::of(inventory, restic_id(key)).unclear(key, asker)
}

/// [`Scene::others`] as of now.
#[must_use]
pub fn others(inventory: &Inventory, key: &str) -> String {
    let id = restic_id(key);
    if inventory.places().of(id).next().is_none() {
        return String::new();
    }
    Scene::of(inventory, id).others(key)
}

#[cfg(test)]
#[path = "shown_tests.rs"]
mod tests;
