//! What ran and what people did, for those who may see it: in pages, filtered, or followed.

mod cursor;

use std::collections::VecDeque;

use prost::Message as _;
use proto::time::{from_unix_millis, to_unix_millis};
use proto::v1::{AuditEntry, AuditRequest, AuditResponse, Decision, OperationOutcome};
use tonic::Status;

use self::cursor::Cursor;
use crate::access::{Person, Verb};
use crate::hub::Hub;
use crate::lock::narrow;
use crate::lock::people::{PAGE, SCANS, page, unavailable};
use crate::named;
use crate::seen::Seen;
use crate::store::{AuditCursor, AuditQuery, DecisionQuery, Entry, StoredAudit};
use crate::{Millis, now, rows};

/// The answer for a person.
///
/// # Errors
/// NotFound for a repository that there is none of, InvalidArgument for a cursor of another page, Unavailable when the store
/// fails.
pub async fn audit(hub: &Hub, request: &AuditRequest, person: &Person) -> Result<AuditResponse, Status> {
    let of = repositories(hub, &request.repository, person).await?;
    let since = request.since.as_ref().map_or(Millis::MIN, to_unix_millis);
    let asked = DecisionQuery {
        since,
        who: request.who.clone(),
        what: request.what.clone(),
        cluster: request.cluster.clone(),
        of: of.clone(),
        limit: PAGE,
        ..DecisionQuery::default()
    };
    if !request.follow.is_empty() {
        let after = cursor::followed(hub, &request.follow)?;
        return follow(hub, asked, after, person).await;
    }
    if let Some(after) = request.after {
        if !person.sight(Verb::See).is_everything() {
            let text = "ids count what is outside of your scope: a newer CLI follows without them";
            return Err(Status::invalid_argument(text));
        }
        return follow(hub, asked, after, person).await;
    }
    let limit = page(request.limit) as usize;
    let cursor = Cursor::open(hub, &request.before)?;
    let newest = hub.store().newest_decision().await;
    let newest = newest.map_err(|e| unavailable(&e))?;
    let runs = if request.who.is_empty() && request.what.is_empty() {
        let asked = AuditQuery {
            before: Some(cursor.run.clone()),
            of,
            cluster: request.cluster.clone(),
            since,
            limit: PAGE,
        };
        runs(hub, asked, limit, person, |_| true).await?
    } else {
        Found {
            items: VecDeque::new(),
            more: false,
            end: cursor.run.clone(),
        }
    };
    let decisions = decisions(hub, asked, cursor.decision, limit, person, |_| true).await?;
    let (mut answer, cursor) = merged(hub, cursor, runs, decisions, limit, person);
    answer.next_before = cursor.map_or(Ok(String::new()), |cursor| cursor.close(hub))?;
    go_on(hub, &mut answer, newest, person)?;
    Ok(answer)
}

/// Some that are seen, whether there may be more, and how far it was looked.
pub(crate) struct Found<T, C> {
    pub items: VecDeque<T>,
    pub more: bool,
    pub end: C,
}

impl<T, C> Found<T, C> {
    /// Whether the next one is not known: what was looked through is answered, and there may be more.
    fn is_open(&self) -> bool {
        self.items.is_empty() && self.more
    }
}

/// Runs that a person sees, and that are wanted.
pub(crate) async fn runs(
    hub: &Hub,
    mut asked: AuditQuery,
    limit: usize,
    person: &Person,
    wanted: impl Fn(&StoredAudit) -> bool,
) -> Result<Found<StoredAudit, AuditCursor>, Status> {
    let sight = person.sight(Verb::See);
    let mut items = VecDeque::new();
    let mut end = asked.before.clone().unwrap_or((Millis::MAX, String::new(), 0));
    for _ in 0..SCANS {
        let page = hub.store().audit(asked.clone()).await;
        let page = page.map_err(|e| unavailable(&e))?;
        let full = page.len() == PAGE as usize;
        if let Some(run) = page.last() {
            end = (run.granted, run.restic_id.clone(), run.token);
        }
        asked.before = Some(end.clone());
        let inventory = hub.snapshot();
        let seen = Seen::new(&inventory, &sight);
        let visible = |run: &StoredAudit| {
            wanted(run)
                && seen.repository(&run.restic_id)
                && seen.operation(&run.restic_id, &run.cluster, &run.subject)
        };
        items.extend(page.into_iter().filter(visible));
        if items.len() > limit || !full {
            return Ok(Found {
                more: full,
                items,
                end,
            });
        }
    }
    let more = true;
    Ok(Found { more, items, end })
}

/// Decisions that a person sees, and that are wanted.
pub(crate) async fn decisions(
    hub: &Hub,
    mut asked: DecisionQuery,
    before: u64,
    limit: usize,
    person: &Person,
    wanted: impl Fn(&Entry) -> bool,
) -> Result<Found<Entry, u64>, Status> {
    let (mut items, mut end) = (VecDeque::new(), before);
    for _ in 0..SCANS {
        asked.before = Some(end);
        let page = hub.store().decisions(asked.clone()).await;
        let page = page.map_err(|e| unavailable(&e))?;
        let full = page.len() == PAGE as usize;
        end = page.last().map_or(end, |entry| entry.id);
        items.extend(visible(hub, page, person).into_iter().filter(&wanted));
        if items.len() > limit || !full {
            return Ok(Found {
                more: full,
                items,
                end,
            });
        }
    }
    let more = true;
    Ok(Found { more, items, end })
}

/// Decisions that a person sees: its own, and those about what is in its scope. What is about no cluster and no repository
/// is about the whole fleet.
fn visible(hub: &Hub, mut entries: Vec<Entry>, person: &Person) -> Vec<Entry> {
    let sight = person.sight(Verb::See);
    let inventory = hub.snapshot();
    let seen = Seen::new(&inventory, &sight);
    entries.retain(|Entry { decision, .. }| {
        let about = (decision.cluster.as_str(), decision.restic_id.as_str());
        sight.is_everything()
            || *decision.who == *person.name
            || match about {
                ("", "") => false,
                ("", repository) => seen.whole_repository(repository),
                (cluster, "") => sight.takes_cluster(cluster),
                (cluster, repository) => seen.part(repository, cluster, &decision.namespace),
            }
    });
    entries
}

/// The newest of both, and where the next page begins; `None` after the last one. A page may be empty and not the last: so
/// much is looked through for each, and the next one goes on from there.
fn merged(
    hub: &Hub,
    mut cursor: Cursor,
    mut runs: Found<StoredAudit, AuditCursor>,
    mut decisions: Found<Entry, u64>,
    limit: usize,
    person: &Person,
) -> (AuditResponse, Option<Cursor>) {
    let mut answer = AuditResponse {
        as_of: Some(from_unix_millis(now())),
        ..AuditResponse::default()
    };
    for _ in 0..limit {
        // What is not known yet may be newer than what is.
        if runs.is_open() || decisions.is_open() {
            break;
        }
        let run = runs.items.front().map(|run| run.granted);
        let decision = decisions.items.front().map(|entry| entry.decision.at);
        if run.is_none() && decision.is_none() {
            break;
        }
        if run >= decision {
            if let Some(run) = runs.items.pop_front() {
                cursor.run = (run.granted, run.restic_id.clone(), run.token);
                answer.entries.push(row(hub, run, person));
            }
        } else if let Some(entry) = decisions.items.pop_front() {
            cursor.decision = entry.id;
            answer.decisions.push(decision_row(entry, person));
        }
    }
    if runs.items.is_empty() {
        cursor.run = runs.end;
    }
    if decisions.items.is_empty() {
        cursor.decision = decisions.end;
    }
    let left = !runs.items.is_empty() || !decisions.items.is_empty();
    let more = left || runs.more || decisions.more;
    (answer, more.then_some(cursor))
}

/// Where an answer is followed from.
fn go_on(hub: &Hub, answer: &mut AuditResponse, after: u64, person: &Person) -> Result<(), Status> {
    answer.follow = cursor::follow(hub, after)?;
    if person.sight(Verb::See).is_everything() {
        answer.last = after;
    }
    Ok(())
}

/// Decisions after one, oldest first.
async fn follow(
    hub: &Hub,
    mut asked: DecisionQuery,
    after: u64,
    person: &Person,
) -> Result<AuditResponse, Status> {
    asked.after = Some(after);
    // Asked for first: what is written between the two questions is in the next answer.
    let newest = hub.store().newest_decision().await;
    let newest = newest.map_err(|e| unavailable(&e))?;
    let found = hub.store().decisions(asked).await;
    let found = found.map_err(|e| unavailable(&e))?;
    let last = match found.last() {
        Some(entry) if found.len() == PAGE as usize => entry.id,
        Some(entry) => entry.id.max(newest),
        None => newest.max(after),
    };
    let seen = visible(hub, found, person).into_iter();
    let mut answer = AuditResponse {
        as_of: Some(from_unix_millis(now())),
        decisions: seen.map(|entry| decision_row(entry, person)).collect(),
        ..AuditResponse::default()
    };
    go_on(hub, &mut answer, last, person)?;
    Ok(answer)
}

/// Repositories that a text means to a person; `None` means all. One that is gone is known by its id, as long as something
/// is noted about it.
async fn repositories(hub: &Hub, text: &str, person: &Person) -> Result<Option<Vec<String>>, Status> {
    if text.is_empty() {
        return Ok(None);
    }
    let sight = person.sight(Verb::See);
    let found: Vec<String> = {
        let inventory = hub.snapshot();
        let seen = Seen::new(&inventory, &sight);
        let meant = named::repositories(seen, std::iter::empty(), text);
        meant.into_iter().map(|(key, _)| key.to_string()).collect()
    };
    if !found.is_empty() {
        return Ok(Some(found));
    }
    let gone = AuditQuery {
        of: Some(vec![text.to_owned()]),
        limit: 1,
        ..AuditQuery::default()
    };
    let noted = hub.store().audit(gone).await;
    let noted = noted.map_err(|e| unavailable(&e))?;
    if noted.is_empty() || !sight.is_everything() {
        return Err(named::not_one(text, 0));
    }
    Ok(Some(vec![text.to_owned()]))
}

/// A run as a person sees it.
pub(crate) fn row(hub: &Hub, run: StoredAudit, person: &Person) -> AuditEntry {
    let sight = person.sight(Verb::See);
    hub.read(|inventory| {
        let seen = Seen::new(inventory, &sight);
        let mut row = AuditEntry {
            token: run.token,
            repository: rows::repository_name(seen, &run.restic_id),
            restic_id: run.restic_id,
            cluster: run.cluster,
            subject: run.subject,
            granted: Some(from_unix_millis(run.granted)),
            ended: run.ended.map(from_unix_millis),
            outcome: run
                .outcome
                .and_then(|bytes| OperationOutcome::decode(bytes.as_slice()).ok()),
            policies: run.policies,
            covered: run.covered,
            plan: run.plan,
        };
        narrow::entry(&mut row, seen);
        row
    })
}

fn decision_row(Entry { id, decision, hash }: Entry, person: &Person) -> Decision {
    // Ids count everything, and a chain is only seen whole.
    let (id, hash) = match person.sight(Verb::See).is_everything() {
        true => (id, hash),
        false => (0, Vec::new()),
    };
    Decision {
        at: Some(from_unix_millis(decision.at)),
        who: decision.who,
        what: decision.what,
        subject: decision.subject,
        restic_id: decision.restic_id,
        before: decision.before,
        after: decision.after,
        id,
        cluster: decision.cluster,
        namespace: decision.namespace,
        hash,
    }
}
