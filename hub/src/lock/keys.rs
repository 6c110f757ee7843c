//! Who opens a repository with which key of restic. Pure.

use crate::bindings::State;
use crate::inventory::Inventory;

/// Clusters that are named in a reason.
const NAMED: usize = 5;

/// Why a key of a repository has to stay; `None` if no cluster that is bound to it opens it with this key. A cluster that
/// has not shown with which key it opens the repository may be one that does.
#[must_use]
pub fn needed(inventory: &Inventory, restic_id: &str, key: &str) -> Option<String> {
    let bindings = inventory.bindings();
    let (mut using, mut unknown) = (Vec::new(), Vec::new());
    for cluster in bindings.bound(restic_id) {
        let resources = inventory.index().bindings(restic_id);
        let own = resources.filter(|held| held.cluster == *cluster);
        let keys: Vec<&str> = own
            .filter_map(|held| Some(held.repository()?.key_id.as_str()))
            .collect();
        let complete = inventory.member(cluster).is_some_and(|member| member.complete());
        if keys.contains(&key) {
            using.push(cluster.to_string());
        } else if keys.is_empty() || keys.contains(&"") || !complete {
            unknown.push(cluster.to_string());
        }
    }
    let pending = bindings.of(restic_id).filter(|b| b.state == State::Pending);
    let pending: Vec<String> = pending.map(|b| b.cluster.to_string()).collect();
    let parts = [
        (using, "opens the repository with this key"),
        (unknown, "has not shown with which key it opens the repository"),
        (pending, "reports the repository and is not bound to it yet"),
    ];
    let parts = parts.into_iter().filter(|(names, _)| !names.is_empty());
    let parts: Vec<String> = parts
        .map(|(names, what)| format!("{} {what}", list(&names)))
        .collect();
    (!parts.is_empty()).then(|| parts.join("; "))
}

fn list(names: &[String]) -> String {
    let more = names.len().saturating_sub(NAMED);
    let shown: Vec<&str> = names.iter().take(NAMED).map(String::as_str).collect();
    let tail = if more > 0 {
        format!(" and {more} more")
    } else {
        String::new()
    };
    format!("cluster {}{tail}", shown.join(", "))
}

#[cfg(test)]
#[path = "keys_tests.rs"]
mod tests;
