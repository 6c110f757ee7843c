//! The series of a repository, as people read it.

use std::sync::Arc;

use proto::time::from_unix_millis;
use proto::v1::{HistoryPoint, HistoryRequest, HistoryResponse, SourceCount};
use tonic::Status;

use crate::access::{Person, Verb, out_of_scope};
use crate::hub::Hub;
use crate::named;
use crate::seen::Seen;
use crate::store::collect::{DAY, HOUR, StoredPoint};

/// Longest time that a series covers by the hour.
const BY_THE_HOUR: u32 = 7;
/// Longest time at all.
const LONGEST: u32 = 732;

/// Answers.
///
/// # Errors
/// When the text names no repository, or several, or the store cannot be read.
pub async fn history(
    hub: &Hub,
    person: &Person,
    request: &HistoryRequest,
) -> Result<HistoryResponse, Status> {
    let sight = person.sight(Verb::See);
    let (id, name, whole) = one(Seen::new(&hub.snapshot(), &sight), &request.repository)?;
    // Its figures are those of every cluster.
    if !whole {
        return Err(out_of_scope(person, Verb::See, "all of the repository"));
    }
    let days = match request.days {
        0 => BY_THE_HOUR,
        days => days.min(LONGEST),
    };
    let step = if days <= BY_THE_HOUR { HOUR } else { DAY };
    let now = crate::now();
    let points = hub.store().points(&id, step, now - i64::from(days) * DAY).await;
    let points = points.map_err(|error| Status::unavailable(format!("the store cannot be read: {error}")))?;
    Ok(HistoryResponse {
        as_of: Some(from_unix_millis(now)),
        restic_id: id.to_string(),
        repository: name,
        step_seconds: step.unsigned_abs() / 1000,
        points: points.into_iter().map(point).collect(),
    })
}

fn point(point: StoredPoint) -> HistoryPoint {
    let source = |(cluster, host, snapshots)| SourceCount {
        cluster,
        host,
        snapshots,
    };
    HistoryPoint {
        at: Some(from_unix_millis(point.at)),
        stored_bytes: point.stored,
        uncompressed_bytes: point.uncompressed,
        snapshots: point.snapshots,
        files: point.files,
        sources: point.sources.into_iter().map(source).collect(),
    }
}

/// The one repository that a text means, of those that are seen, with its name, and whether all of it is seen.
fn one(seen: Seen<'_>, text: &str) -> Result<(Arc<str>, String, bool), Status> {
    let mut found = named::repositories(seen, std::iter::empty(), text);
    match (found.pop(), found.len()) {
        (Some((id, name)), 0) => {
            let whole = seen.whole_repository(&id);
            Ok((id, name, whole))
        }
        (last, others) => Err(named::not_one(text, others + usize::from(last.is_some()))),
    }
}
