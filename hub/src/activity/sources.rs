//! Where activity comes from: the store, and of restores the inventory.

use proto::time::{from_unix_millis, to_unix_millis};
use proto::v1::{ActivityEntry, ActivityKind, ActivityResult, BackupResult, OperationOutcome, RestoreState};
use tonic::Status;

use super::merge::{Cursor, Found, Item, Place};
use super::{About, Asked, Kind};
use crate::Millis;
use crate::access::{Person, Sight};
use crate::audit;
use crate::commands::{Record, State};
use crate::hub::Hub;
use crate::inventory::{Held, Inventory};
use crate::lock::people::{PAGE, SCANS, unavailable};
use crate::restores;
use crate::seen::Seen;
use crate::store::runs::{RunQuery, StoredRun};
use crate::store::{AuditQuery, DecisionQuery, Entry, StoredAudit};

/// What people command is listed as operations, with what came of it.
const COMMANDED: [&str; 1] = ["command"];

/// Runs of backups.
pub(super) async fn runs(hub: &Hub, sight: &Sight, asked: &Asked, cursor: &Cursor) -> Result<Found, Status> {
    let of = match (&asked.about, asked.clusters.first()) {
        (About::Everything, _) => None,
        (About::Resource(Kind::Backup, name), Some(cluster)) => {
            let (namespace, name) = name.split_once('/').unwrap_or_default();
            Some((cluster.clone(), namespace.to_owned(), name.to_owned()))
        }
        _ => return Ok(Found::default()),
    };
    if !asked.takes(ActivityKind::Backup) {
        return Ok(Found::default());
    }
    let mut query = RunQuery {
        before: cursor.run,
        since: asked.since,
        clusters: asked.clusters.clone(),
        of,
        limit: PAGE,
    };
    let mut found = Found::default();
    for _ in 0..SCANS {
        let page = hub.store().runs(query.clone()).await;
        let page = page.map_err(|error| unavailable(&error))?;
        found.more = page.len() == PAGE as usize;
        query.before = page.last().map(|(id, run)| (run.ended, *id)).or(query.before);
        found.looked = query.before.map(|(ended, id)| Place::Run(ended, id));
        let sees =
            |run: &StoredRun| sight.takes(&run.cluster, &run.namespace, &[&run.restic_id, &run.repository]);
        let page = page.into_iter().filter(|(_, run)| sees(run));
        found.items.extend(page.map(|(id, run)| item_of_run(id, run)));
        if found.items.len() > asked.limit || !found.more {
            break;
        }
    }
    Ok(found)
}

fn item_of_run(id: i64, run: StoredRun) -> Item {
    let result = match run.result {
        BackupResult::Succeeded => ActivityResult::Done,
        BackupResult::PartiallyFailed => ActivityResult::Partial,
        BackupResult::Failed => ActivityResult::Failed,
        BackupResult::Unspecified => ActivityResult::Unspecified,
    };
    Item {
        at: run.ended,
        place: Place::Run(run.ended, id),
        entry: ActivityEntry {
            kind: ActivityKind::Backup.into(),
            at: Some(from_unix_millis(run.ended)),
            began: run.began.map(from_unix_millis),
            ended: Some(from_unix_millis(run.ended)),
            cluster: run.cluster,
            subject: format!("{}/{}", run.namespace, run.name),
            what: "backup".to_owned(),
            result: result.into(),
            text: run.text,
            restic_id: run.restic_id,
            id: run.snapshot,
            bytes_added: run.added,
            ..ActivityEntry::default()
        },
    }
}

/// Restores that exist: the inventory has all of them.
pub(super) fn restores(hub: &Hub, sight: &Sight, asked: &Asked, cursor: &Cursor) -> Found {
    if !asked.takes(ActivityKind::Restore) {
        return Found::default();
    }
    let inventory = hub.snapshot();
    let seen = Seen::new(&inventory, sight);
    let named = |held: &Held| match &asked.about {
        About::Everything => true,
        About::Resource(kind, name) => *kind == Kind::Restore && *name == *held.local_name(),
        About::Repository(id) => held.restore().is_some_and(|restore| restore.restic_id == *id),
    };
    let all = inventory.index().restores();
    let all =
        all.filter(|held| asked.clusters.is_empty() || asked.clusters.iter().any(|c| **c == *held.cluster));
    let all = all.filter(|held| seen.held(held) && named(held));
    let mut items: Vec<Item> = all
        .filter_map(|held| {
            let restore = held.restore()?;
            let began = restore.started.as_ref().map(to_unix_millis);
            let at = began.or_else(|| held.created())?;
            let place = (at, held.place.to_string());
            let older = cursor.restore.as_ref().is_none_or(|before| place < *before);
            (older && at >= asked.since).then(|| item_of_restore(&inventory, held, restore, at))
        })
        .collect();
    let key = |item: &Item| match &item.place {
        Place::Restore(at, place) => (*at, place.clone()),
        _ => (item.at, String::new()),
    };
    items.sort_by_key(|item| std::cmp::Reverse(key(item)));
    let more = items.len() > asked.limit;
    items.truncate(asked.limit + 1);
    Found {
        items: items.into(),
        more,
        looked: None,
    }
}

fn item_of_restore(inventory: &Inventory, held: &Held, restore: &RestoreState, at: Millis) -> Item {
    let (state, text) = restores::state(inventory, held);
    let result = match state {
        "failed" => ActivityResult::Failed,
        "done" => ActivityResult::Done,
        "stale" => ActivityResult::Unspecified,
        _ => ActivityResult::Open,
    };
    Item {
        at,
        place: Place::Restore(at, held.place.to_string()),
        entry: ActivityEntry {
            kind: ActivityKind::Restore.into(),
            at: Some(from_unix_millis(at)),
            began: restore.started,
            ended: restore.finished,
            cluster: held.cluster.to_string(),
            subject: held.local_name().to_owned(),
            what: "restore".to_owned(),
            result: result.into(),
            text,
            restic_id: restore.restic_id.clone(),
            id: restore.snapshot_id.clone(),
            ..ActivityEntry::default()
        },
    }
}

/// Grants of maintenance locks.
pub(super) async fn maintenance(
    hub: &Hub,
    person: &Person,
    asked: &Asked,
    cursor: &Cursor,
) -> Result<Found, Status> {
    if !asked.takes(ActivityKind::Maintenance) {
        return Ok(Found::default());
    }
    let of = match &asked.about {
        About::Repository(id) => Some(vec![id.clone()]),
        _ => None,
    };
    // The store takes one cluster; several are sorted out here.
    let (cluster, several) = match asked.clusters.as_slice() {
        [] => (String::new(), false),
        [one] => (one.clone(), false),
        _ => (String::new(), true),
    };
    let query = AuditQuery {
        before: cursor.grant.clone().or(Some((Millis::MAX, String::new(), 0))),
        of,
        cluster,
        since: asked.since,
        limit: PAGE,
    };
    let taken = |run: &StoredAudit| {
        let named = match &asked.about {
            About::Resource(Kind::Policy, name) => run.subject == format!("retention {name}"),
            About::Resource(..) => false,
            _ => true,
        };
        named && (!several || asked.clusters.contains(&run.cluster))
    };
    let runs = audit::runs(hub, query, asked.limit, person, taken).await?;
    let (granted, id, token) = runs.end;
    let looked = Some(Place::Grant(granted, id, token));
    let items = runs.items.into_iter();
    Ok(Found {
        items: items.map(|run| item_of_grant(hub, person, run)).collect(),
        more: runs.more,
        looked,
    })
}

fn item_of_grant(hub: &Hub, person: &Person, mut run: StoredAudit) -> Item {
    let at = run.granted;
    let plan = std::mem::take(&mut run.plan);
    let row = audit::row(hub, run, person);
    let outcome: OperationOutcome = row.outcome.unwrap_or_default();
    let result = match (outcome.result.as_str(), row.ended.is_some()) {
        ("", false) => ActivityResult::Open,
        ("Applied" | "NothingToRemove" | "Preview" | "Passed", _) => ActivityResult::Done,
        ("ApprovalRequired" | "Interrupted", _) => ActivityResult::Partial,
        ("Failed" | "Damaged", _) => ActivityResult::Failed,
        _ => ActivityResult::Unspecified,
    };
    let what = row.subject.split(' ').next().unwrap_or_default().to_owned();
    let text = match (outcome.reason.as_str(), outcome.message.as_str()) {
        ("", "") => outcome.result,
        (reason, "") => reason.to_owned(),
        ("", message) => message.to_owned(),
        (reason, message) => format!("{reason}: {message}"),
    };
    Item {
        at,
        place: Place::Grant(at, row.restic_id.clone(), row.token),
        entry: ActivityEntry {
            kind: ActivityKind::Maintenance.into(),
            at: row.granted,
            began: row.granted,
            ended: row.ended,
            cluster: row.cluster,
            subject: row.subject,
            what,
            result: result.into(),
            text,
            restic_id: row.restic_id,
            id: plan,
            ..ActivityEntry::default()
        },
    }
}

/// What people made clusters do.
pub(super) async fn operations(
    hub: &Hub,
    sight: &Sight,
    asked: &Asked,
    cursor: &Cursor,
) -> Result<Found, Status> {
    if !asked.takes(ActivityKind::Operation) {
        return Ok(Found::default());
    }
    let taken = |record: &Record| {
        let names = [record.restic_id.as_str(), record.repository.as_str()];
        let named = match &asked.about {
            About::Everything => true,
            About::Resource(kind, name) => commanded(&record.what) == Some(*kind) && record.subject == *name,
            About::Repository(id) => record.restic_id == *id,
        };
        named && record.created >= asked.since && sight.takes(&record.cluster, record.namespace(), &names)
    };
    let (mut found, mut before) = (Found::default(), cursor.operation.clone());
    for _ in 0..SCANS {
        let page = hub
            .store()
            .commands(asked.clusters.clone(), false, PAGE, before.clone())
            .await;
        let page = page.map_err(|error| unavailable(&error))?;
        found.more =
            page.len() == PAGE as usize && page.last().is_some_and(|last| last.created >= asked.since);
        before = page.last().map(|last| (last.created, last.id.clone())).or(before);
        found.looked = before.clone().map(|(created, id)| Place::Operation(created, id));
        found
            .items
            .extend(page.into_iter().filter(taken).map(item_of_operation));
        if found.items.len() > asked.limit || !found.more {
            break;
        }
    }
    Ok(found)
}

/// Kind of the resource that a command is about.
fn commanded(what: &str) -> Option<Kind> {
    match what.rsplit(' ').next() {
        Some("backup" | "restore") => Some(Kind::Backup),
        Some("retention") => Some(Kind::Policy),
        _ => None,
    }
}

fn item_of_operation(record: Record) -> Item {
    let result = match record.state {
        State::Waiting | State::Sent | State::Accepted | State::Running => ActivityResult::Open,
        State::Done => ActivityResult::Done,
        State::Cancelled => ActivityResult::Partial,
        State::Failed | State::Refused | State::Expired => ActivityResult::Failed,
    };
    Item {
        at: record.created,
        place: Place::Operation(record.created, record.id.clone()),
        entry: ActivityEntry {
            kind: ActivityKind::Operation.into(),
            at: Some(from_unix_millis(record.created)),
            began: Some(from_unix_millis(record.created)),
            ended: record.ended.map(from_unix_millis),
            cluster: record.cluster,
            subject: record.subject,
            what: record.what,
            result: result.into(),
            text: record.text,
            who: record.who,
            restic_id: record.restic_id,
            id: record.id,
            ..ActivityEntry::default()
        },
    }
}

/// What people decided.
pub(super) async fn decisions(
    hub: &Hub,
    person: &Person,
    asked: &Asked,
    cursor: &Cursor,
) -> Result<Found, Status> {
    // A decision names a resource in words only.
    if !asked.takes(ActivityKind::Decision) || matches!(asked.about, About::Resource(..)) {
        return Ok(Found::default());
    }
    let (cluster, several) = match asked.clusters.as_slice() {
        [] => (String::new(), false),
        [one] => (one.clone(), false),
        _ => (String::new(), true),
    };
    let query = DecisionQuery {
        since: asked.since,
        cluster,
        of: match &asked.about {
            About::Repository(id) => Some(vec![id.clone()]),
            _ => None,
        },
        limit: PAGE,
        ..DecisionQuery::default()
    };
    let before = cursor.decision.unwrap_or(u64::MAX);
    let taken = |entry: &Entry| {
        let decision = &entry.decision;
        let commanded = COMMANDED.contains(&decision.what.as_str());
        !commanded && (!several || asked.clusters.contains(&decision.cluster))
    };
    let entries = audit::decisions(hub, query, before, asked.limit, person, taken).await?;
    Ok(Found {
        items: entries.items.into_iter().map(item_of_decision).collect(),
        more: entries.more,
        looked: Some(Place::Decision(entries.end)),
    })
}

fn item_of_decision(Entry { id, decision, .. }: Entry) -> Item {
    let refused = decision.what == "refused";
    let result = if refused {
        ActivityResult::Failed
    } else {
        ActivityResult::Done
    };
    let text = match (decision.before.as_str(), decision.after.as_str()) {
        ("", after) => after.to_owned(),
        (before, "") => format!("before: {before}"),
        (before, after) => format!("{before} -> {after}"),
    };
    Item {
        at: decision.at,
        place: Place::Decision(id),
        entry: ActivityEntry {
            kind: ActivityKind::Decision.into(),
            at: Some(from_unix_millis(decision.at)),
            cluster: decision.cluster,
            subject: decision.subject,
            what: decision.what,
            result: result.into(),
            text,
            who: decision.who,
            restic_id: decision.restic_id,
            id: id.to_string(),
            ..ActivityEntry::default()
        },
    }
}
