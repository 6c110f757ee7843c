//! What happened in the fleet, in one list: runs of backups, restores, maintenance, operations and decisions, newest first.

mod merge;
mod sources;

use proto::time::{from_unix_millis, to_unix_millis};
use proto::v1::{ActivityEntry, ActivityKind, ActivityRequest, ActivityResponse};
use tonic::Status;

use self::merge::{Cursor, merged};
use crate::access::{Person, Verb};
use crate::hub::Hub;
use crate::lock::people::{bad_cursor, page};
use crate::{Millis, now};

/// Use of the seal.
const PAGES: &str = "activity";
/// Pages that are looked through for what happened to one thing.
const ROUNDS: usize = 4;

/// What is asked for.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Asked {
    /// Empty takes all.
    pub clusters: Vec<String>,
    /// Empty takes all.
    pub kinds: Vec<ActivityKind>,
    pub since: Millis,
    pub about: About,
    pub limit: usize,
}

/// What it is about.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum About {
    #[default]
    Everything,
    /// "<namespace>/<name>" of a resource of the one cluster that is asked for.
    Resource(Kind, String),
    /// A repository, by its restic id.
    Repository(String),
}

/// Kind of a resource: two kinds may have one name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Backup,
    Policy,
    Restore,
}

impl Asked {
    fn takes(&self, kind: ActivityKind) -> bool {
        self.kinds.is_empty() || self.kinds.contains(&kind)
    }
}

/// The answer for a person.
///
/// # Errors
/// InvalidArgument for a cursor that is none, Unavailable when the store fails.
pub async fn activity(
    hub: &Hub,
    person: &Person,
    request: &ActivityRequest,
) -> Result<ActivityResponse, Status> {
    let asked = Asked {
        clusters: request.clusters.clone(),
        kinds: request.kinds().collect(),
        since: request.since.as_ref().map_or(0, to_unix_millis),
        about: About::Everything,
        limit: page(request.limit) as usize,
    };
    let cursor = match request.before.as_str() {
        "" => Cursor::default(),
        text => {
            let text = hub.seal.open(PAGES, text);
            text.and_then(|text| Cursor::parse(&text))
                .ok_or_else(bad_cursor)?
        }
    };
    let (entries, next) = look(hub, person, &asked, cursor).await?;
    // Its numbers count what is outside of a scope, too.
    let next = next.map(|next| hub.seal.close(PAGES, &next.text())).transpose();
    Ok(ActivityResponse {
        as_of: Some(from_unix_millis(now())),
        entries,
        next_before: next
            .map_err(|error| Status::internal(error.to_string()))?
            .unwrap_or_default(),
    })
}

/// The newest before a place, and where the next page begins.
async fn look(
    hub: &Hub,
    person: &Person,
    asked: &Asked,
    cursor: Cursor,
) -> Result<(Vec<ActivityEntry>, Option<Cursor>), Status> {
    let sight = person.sight(Verb::See);
    let found = vec![
        sources::runs(hub, &sight, asked, &cursor).await?,
        sources::restores(hub, &sight, asked, &cursor),
        sources::maintenance(hub, person, asked, &cursor).await?,
        sources::operations(hub, &sight, asked, &cursor).await?,
        sources::decisions(hub, person, asked, &cursor).await?,
    ];
    Ok(merged(found, cursor, asked.limit))
}

/// What happened to one thing lately.
///
/// # Errors
/// Unavailable when the store fails.
pub async fn lately(hub: &Hub, person: &Person, asked: &Asked) -> Result<Vec<ActivityEntry>, Status> {
    let (mut entries, mut cursor) = (Vec::new(), Cursor::default());
    for _ in 0..ROUNDS {
        let rest = Asked {
            limit: asked.limit - entries.len(),
            ..asked.clone()
        };
        let (more, next) = look(hub, person, &rest, cursor).await?;
        entries.extend(more);
        match next {
            Some(next) if entries.len() < asked.limit => cursor = next,
            _ => break,
        }
    }
    Ok(entries)
}
