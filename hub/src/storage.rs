//! What all repositories store, how it grows, and when there is no room any more. [`forecast`] works it out (pure).

pub mod forecast;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use proto::time::{from_unix_millis, to_unix_millis};
use proto::v1::{StoragePoint, StorageRequest, StorageResponse, StorageRow};
use tonic::Status;

use self::forecast::{Unknown, days_until_full, float, per_day};
use crate::access::{Person, Verb};
use crate::hub::Hub;
use crate::inventory::{Held, Inventory};
use crate::lock::people::unavailable;
use crate::rows;
use crate::seen::Seen;
use crate::store::collect::{DAY, StoredSize};
use crate::{Millis, now};

/// Time that growth is worked out of, and the longest.
const USUAL: u32 = 90;
const LONGEST: u32 = 732;
/// Days of a month.
const MONTH: f64 = 30.0;
/// Most rows.
const ROWS: usize = 1_000;

/// Times and bytes of each repository, oldest first.
type Series = HashMap<String, Vec<(Millis, u64)>>;

/// The answer for a person.
///
/// # Errors
/// Unavailable when the store cannot be read.
pub async fn storage(hub: &Hub, person: &Person, request: StorageRequest) -> Result<StorageResponse, Status> {
    let days = match request.days {
        0 => USUAL,
        days => days.min(LONGEST),
    };
    let (sight, now) = (person.sight(Verb::See), now());
    let sizes = hub.store().sizes(now - i64::from(days) * DAY).await;
    let series = series(sizes.map_err(|error| unavailable(&error))?);
    let capacity = request.capacity_bytes;
    hub.look(move |inventory: &Inventory| answer(Seen::new(inventory, &sight), &series, capacity, now))
        .await
}

fn series(sizes: Vec<StoredSize>) -> Series {
    let mut series = Series::new();
    for size in sizes {
        series
            .entry(size.restic_id)
            .or_default()
            .push((size.at, size.stored));
    }
    series
}

/// Of the repositories that are seen as a whole: figures are those of every cluster. Pure.
fn answer(seen: Seen<'_>, series: &Series, capacity: u64, now: Millis) -> StorageResponse {
    let keys = seen.repositories().filter(|key| seen.whole_repository(key));
    let none: &[(Millis, u64)] = &[];
    let (mut answer, mut grows): (StorageResponse, Vec<f64>) = (StorageResponse::default(), Vec::new());
    let mut days: BTreeMap<Millis, (u64, u64)> = BTreeMap::new();
    for key in keys {
        let points = series.get(&**key).map_or(none, Vec::as_slice);
        let growth = per_day(points, now);
        let row = row(seen, key, growth);
        answer.repositories += 1;
        match row.stored_bytes {
            Some(bytes) => answer.stored_bytes = answer.stored_bytes.saturating_add(bytes),
            None => answer.unknown += 1,
        }
        match growth {
            Ok(rate) => grows.push(rate),
            Err(_) => answer.growth_unknown += 1,
        }
        add(&mut days, points, now);
        answer.rows.push(row);
    }
    let size = |row: &StorageRow| std::cmp::Reverse(row.stored_bytes);
    answer
        .rows
        .sort_by(|a, b| size(a).cmp(&size(b)).then_with(|| a.restic_id.cmp(&b.restic_id)));
    answer.rows.truncate(ROWS);
    let point = |(at, (stored_bytes, repositories))| StoragePoint {
        at: Some(from_unix_millis(at)),
        stored_bytes,
        repositories,
    };
    answer.points = days.into_iter().map(point).collect();
    answer.as_of = Some(from_unix_millis(now));
    let rate: f64 = grows.iter().sum();
    answer.growth_per_month = (!grows.is_empty()).then(|| month(rate));
    match full(answer.stored_bytes, capacity, (!grows.is_empty()).then_some(rate)) {
        Ok(days) => answer.full = Some(from_unix_millis(now.saturating_add(millis(days)))),
        Err(why) => why.clone_into(&mut answer.full_unknown),
    }
    answer
}

fn row(seen: Seen<'_>, key: &Arc<str>, growth: Result<f64, Unknown>) -> StorageRow {
    let held: Vec<&Arc<Held>> = seen.bindings(key).collect();
    let figures = rows::figures(seen.inventory, key, &held).map(|(_, statistics)| statistics);
    StorageRow {
        restic_id: key.to_string(),
        name: rows::repository_name(seen, key),
        stored_bytes: figures.map(|f| f.stored_bytes),
        uncompressed_bytes: figures.map(|f| f.uncompressed_bytes),
        snapshots: figures.map_or(0, |f| f.snapshots),
        at: figures
            .and_then(|f| f.as_of.as_ref())
            .map(|at| from_unix_millis(to_unix_millis(at))),
        growth_per_month: growth.ok().map(month),
        growth_unknown: growth.err().map_or("", Unknown::text).to_owned(),
    }
}

/// Adds a repository to each day from its first figure on: between two figures it has what it had.
fn add(days: &mut BTreeMap<Millis, (u64, u64)>, points: &[(Millis, u64)], now: Millis) {
    let mut rest = points.iter().peekable();
    while let Some((at, bytes)) = rest.next() {
        let begin = at - at.rem_euclid(DAY);
        let end = rest.peek().map_or(now, |(next, _)| next - next.rem_euclid(DAY));
        let mut day = begin;
        while day < end {
            let (sum, count) = days.entry(day).or_default();
            (*sum, *count) = (sum.saturating_add(*bytes), *count + 1);
            day += DAY;
        }
    }
}

/// Days until there is no room any more.
fn full(stored: u64, capacity: u64, rate: Option<f64>) -> Result<f64, &'static str> {
    match (capacity, rate) {
        (0, _) => Err("how much room there is was not said"),
        (capacity, None) if stored < capacity => Err("the growth of no repository is known"),
        (capacity, rate) => days_until_full(stored, capacity, rate.unwrap_or_default())
            .ok_or("at this rate it is not full within ten years"),
    }
}

#[allow(clippy::cast_possible_truncation, reason = "bytes of a month fit")]
fn month(rate: f64) -> i64 {
    (rate * MONTH).round() as i64
}

#[allow(clippy::cast_possible_truncation, reason = "ten years fit")]
fn millis(days: f64) -> Millis {
    (days * float(DAY.unsigned_abs())) as Millis
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_sum_up_what_each_repository_had_by_then() {
        let now = 10 * DAY + 5;
        let mut days = BTreeMap::new();
        add(&mut days, &[(6 * DAY + 7, 10), (8 * DAY + 7, 30)], now);
        add(&mut days, &[(9 * DAY, 100)], now);
        add(&mut days, &[], now);
        let wanted = [
            (6, (10, 1)),
            (7, (10, 1)),
            (8, (30, 1)),
            (9, (130, 2)),
            (10, (130, 2)),
        ];
        let wanted: BTreeMap<Millis, (u64, u64)> = wanted.into_iter().map(|(n, of)| (n * DAY, of)).collect();
        assert_eq!(days, wanted);
    }

    #[test]
    fn what_is_not_known_is_said() {
        assert!(full(5, 0, Some(1.0)).unwrap_err().contains("how much room"));
        assert!(full(5, 10, None).unwrap_err().contains("growth of no repository"));
        assert_eq!(full(10, 10, None), Ok(0.0), "it is full, whatever comes");
        assert_eq!(full(5, 10, Some(1.0)), Ok(5.0));
        assert!(full(5, 10, Some(-1.0)).unwrap_err().contains("ten years"));
    }
}
