//! Is everything backed up? One verdict, the counts, and what needs a person, worst first.

use std::collections::{BTreeMap, HashMap};

use proto::time::from_unix_millis;
use proto::v1::{Attention, StatusResponse, row::Body};

use crate::health::Health;
use crate::inventory::Inventory;
use crate::{rows, waits};

/// More than this nobody reads at night.
const ATTENTION_MAX: usize = 20;

/// The answer as of the inventory's revision.
#[must_use]
pub fn status(inventory: &Inventory) -> StatusResponse {
    let mut by_state: HashMap<String, u64> = HashMap::new();
    // Backups with the same state for the same reason are one matter.
    let mut causes: BTreeMap<(Health, String), (String, u64, String)> = BTreeMap::new();
    let (mut bad, mut unknown) = (false, false);
    for held in inventory.index().backups(&[]) {
        let (health, reason) = rows::health(inventory, held);
        *by_state.entry(health.as_str().to_owned()).or_default() += 1;
        bad |= health.is_unsafe();
        unknown |= health.is_unknown();
        if health.is_unsafe() || health == Health::Never {
            let entry = causes
                .entry((health, reason))
                .or_insert_with(|| (held.place.to_string(), 0, held.cluster.to_string()));
            entry.1 += 1;
        }
    }
    let stale: Vec<_> = inventory.members().filter(|member| member.stale).collect();
    let verdict = match (bad, unknown || !stale.is_empty() || by_state.is_empty()) {
        (true, _) => "not-safe",
        (false, true) => "unknown",
        (false, false) => "safe",
    };
    let repositories: Vec<_> = inventory
        .index()
        .repositories()
        .filter_map(|key| rows::repository(inventory, key))
        .collect();
    let stored = repositories.iter().filter_map(|row| match &row.body {
        Some(Body::Repository(repository)) => repository.statistics.as_ref().map(|s| s.stored_bytes),
        _ => None,
    });
    let mut needs_you: Vec<Attention> = causes
        .into_iter()
        .map(|((health, reason), (first, count, _))| Attention {
            state: health.as_str().to_owned(),
            subject: if count == 1 {
                first.clone()
            } else {
                format!("{first} and {} more", count - 1)
            },
            detail: reason,
            count,
            next: if count == 1 {
                format!("fleet backups {first}")
            } else {
                format!("fleet backups --state {health}")
            },
        })
        .collect();
    needs_you.extend(waits::all(inventory));
    needs_you.extend(stale.iter().map(|member| Attention {
        state: Health::Stale.as_str().to_owned(),
        subject: member.name.to_string(),
        detail: format!(
            "{} backups, silent; what is shown is the last that is known",
            member.backups
        ),
        count: member.backups,
        next: format!("fleet clusters {}", member.name),
    }));
    needs_you.truncate(ATTENTION_MAX);
    StatusResponse {
        revision: inventory.revision(),
        as_of: Some(from_unix_millis(inventory.now())),
        verdict: verdict.to_owned(),
        clusters: inventory.members().count() as u64,
        clusters_stale: stale.len() as u64,
        repositories: repositories.len() as u64,
        backups: inventory.index().backup_count() as u64,
        backups_by_state: by_state,
        stored_bytes: stored.sum(),
        needs_you,
    }
}
