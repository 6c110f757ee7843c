//! Backups in their usual order, the worst first, which is kept: a page costs a page.

use proto::v1::Collection;

use super::{Found, Page, Sort, Token, Wanted, number};
use crate::health::Health;
use crate::inventory::Held;
use crate::seen::Seen;

/// The page of backups after a place.
pub(super) fn page<'a>(seen: Seen<'a>, filter: &Wanted, after: Option<Token>, size: usize) -> Page<'a> {
    let states: Vec<Health> = Health::ALL
        .into_iter()
        .filter(|health| filter.of.states.is_empty() || filter.of.states.iter().any(|s| s == health.as_str()))
        .collect();
    let takes = |held: &Held| filter.takes_held(seen.inventory, Collection::Backups, held);
    let mut rows: Vec<(Sort, Found<'a>)> = Vec::new();
    for health in &states {
        let sort = number(*health as u64);
        // What stands before the place is on an earlier page.
        let from = match &after {
            Some(token) if sort < token.at => continue,
            Some(token) if sort == token.at => Some(token.key.as_str()),
            _ => None,
        };
        let found = seen.in_state(*health, from).filter(|held| takes(held));
        let room = (size + 1).saturating_sub(rows.len());
        let found = found.take(room);
        rows.extend(found.map(|held| (sort.clone(), Found::Held(Collection::Backups, held))));
    }
    let more = rows.len() > size;
    rows.truncate(size);
    let total = if filter.is_by_state() {
        seen.tally().fitting(|health| states.contains(&health))
    } else {
        let all = states.iter().flat_map(|health| seen.in_state(*health, None));
        all.filter(|held| takes(held)).count() as u64
    };
    Page { rows, more, total }
}
