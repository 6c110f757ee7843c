//! Backups in their usual order, the worst first, which is kept: a page costs a page.

use proto::v1::Collection;

use super::{Found, Page, Sort, Token, Wanted, number};
use crate::health::Health;
use crate::seen::Seen;

/// The page of backups after a place, of a filter that takes by state alone.
pub(super) fn page<'a>(seen: Seen<'a>, filter: &Wanted, after: Option<Token>, size: usize) -> Page<'a> {
    let wanted = &filter.of.states;
    let takes = |health: Health| wanted.is_empty() || wanted.iter().any(|state| state == health.as_str());
    let mut rows: Vec<(Sort, Found<'a>)> = Vec::new();
    for health in Health::ALL.into_iter().filter(|health| takes(*health)) {
        let sort = number(health as u64);
        // What stands before the place is on an earlier page.
        let from = match &after {
            Some(token) if sort < token.at => continue,
            Some(token) if sort == token.at => Some(token.key.as_str()),
            _ => None,
        };
        let room = (size + 1).saturating_sub(rows.len());
        let found = seen.in_state(health, from).take(room);
        rows.extend(found.map(|held| (sort.clone(), Found::Held(Collection::Backups, held))));
    }
    let more = rows.len() > size;
    rows.truncate(size);
    Page {
        rows,
        more,
        total: seen.tally().fitting(takes),
    }
}
