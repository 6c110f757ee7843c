//! What is said of the stores of a restic id: that one is in question, and which others there are. Pure.

use super::place::{Member, members, standing};
use super::restic_id;
use crate::inventory::Inventory;

/// Why it is not known which clusters use a store; `None` if it is. `asker` is the cluster that asks for a lock.
#[must_use]
pub fn unclear(inventory: &Inventory, key: &str, asker: Option<&str>) -> Option<String> {
    let id = restic_id(key);
    let members = members(inventory, id);
    if members.len() < 2 && inventory.places().of(id).next().is_none() {
        return None;
    }
    let standing = standing(id, &members, inventory.places());
    // A cluster of which it is not known may use any store.
    let concerns = |m: &&Member| {
        *m.store == *key
            || match asker {
                Some(asker) => *m.cluster == *asker,
                None => standing.unplaced.contains(&m.cluster),
            }
    };
    let moved = |m: &Member| {
        standing
            .placed
            .get(&m.cluster)
            .is_some_and(|store| *store != m.store)
    };
    let mut concerned = members.iter().filter(concerns);
    let open = concerned.find(|m| standing.unplaced.contains(&m.cluster) || moved(m))?;
    Some(format!(
        "cluster {} has the repository at {}, and it is not known yet whether that is the store of the others",
        open.cluster, open.urls
    ))
}

/// Other stores with the id of a store, in words; empty for none.
#[must_use]
pub fn others(inventory: &Inventory, key: &str) -> String {
    let id = restic_id(key);
    if inventory.places().of(id).next().is_none() {
        return String::new();
    }
    let members = members(inventory, id);
    let others: Vec<String> = members
        .iter()
        .filter(|m| *m.store != *key)
        .map(|m| format!("{} at {}", m.cluster, m.urls))
        .collect();
    if others.is_empty() || !members.iter().any(|m| *m.store == *key) {
        return String::new();
    }
    format!(
        "a copy of the repository with the same id is used by cluster {}; each store has its own lock and is kept by the runs of \
         its own clusters",
        others.join(", ")
    )
}

#[cfg(test)]
#[path = "shown_tests.rs"]
mod tests;
