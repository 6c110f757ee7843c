//! Filter, sort and page. A page begins after the last row of the one before, by its place in the order, so that
//! changes in between neither repeat rows nor lose any.

mod filter;
mod worst;

use std::cmp::Ordering;
use std::sync::Arc;

use proto::v1::{Collection, Filter, ListRequest, ListResponse, RepositoryRow, Row, row::Body};
use serde::{Deserialize, Serialize};

pub use self::filter::Wanted;
pub(crate) use self::filter::any;
use crate::health::Health;
use crate::inventory::{Held, Inventory, Member};
use crate::seen::Seen;
use crate::{Millis, policies, restores, rows};

/// Most rows of a page, and the default.
pub const PAGE_MAX: usize = 200;
/// Most names in the text of an error.
const NAMED: usize = 20;

/// What is wrong with a question.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum QueryError {
    #[error("name the collection: clusters, repositories, backups, policies or restores")]
    Collection,
    #[error("there is no column {column:?} to sort by; columns are {known}")]
    Sort { column: String, known: &'static str },
    #[error("there is no state {state:?} here; states are {known}")]
    State { state: String, known: String },
    #[error("there is no cluster {cluster:?}; {known}")]
    Cluster { cluster: String, known: String },
    #[error("the page token is not one of this hub; start with the first page")]
    Token,
}

/// Place of a row in an order: what it is sorted by, then its key.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
enum Sort {
    Number(i64),
    Text(String),
}

#[derive(Serialize, Deserialize)]
struct Token {
    by: String,
    at: Sort,
    key: String,
}

/// Columns by collection.
const CLUSTER_COLUMNS: &str = "state, name, backups, repositories, unwell, heard";
const REPOSITORY_COLUMNS: &str = "state, name, size, snapshots, backups";
const BACKUP_COLUMNS: &str = "state, name, cluster, namespace, last, next, size";
const POLICY_COLUMNS: &str = "state, name, cluster, namespace, last";
const RESTORE_COLUMNS: &str = "state, name, cluster, namespace, started, finished";

/// Answers a question as of the inventory's revision.
///
/// # Errors
/// When the question cannot be answered as it was put.
pub fn list(seen: Seen<'_>, request: &ListRequest) -> Result<ListResponse, QueryError> {
    let collection = request.collection();
    let filter = Wanted::new(request.filter.clone().unwrap_or_default());
    check_filter(seen, collection, &filter.of)?;
    let (column, descending) = match request.sort.strip_prefix('-') {
        Some(column) => (column, true),
        None => (request.sort.as_str(), false),
    };
    check(collection, column)?;
    let after = match request.page_token.as_str() {
        "" => None,
        token => Some(
            parse(token)
                .filter(|token| token.by == request.sort)
                .ok_or(QueryError::Token)?,
        ),
    };
    let size = match request.page_size as usize {
        0 => PAGE_MAX,
        size => size.min(PAGE_MAX),
    };
    let worst_first = collection == Collection::Backups && matches!(column, "" | "state") && !descending;
    // What only few match is sorted sooner than found in the order of the whole fleet.
    let page = if worst_first && filter.is_by_state() {
        worst::page(seen, &filter, after, size)
    } else {
        sorted(seen, collection, &filter, (column, descending), after, size)?
    };
    Ok(answer(seen, request, page))
}

/// A page of what was found.
struct Page<'a> {
    rows: Vec<(Sort, Found<'a>)>,
    /// There is another page.
    more: bool,
    total: u64,
}

/// All that match, sorted.
fn sorted<'a>(
    seen: Seen<'a>,
    collection: Collection,
    filter: &'a Wanted,
    (column, descending): (&str, bool),
    after: Option<Token>,
    size: usize,
) -> Result<Page<'a>, QueryError> {
    let mut places: Vec<(Sort, Found<'_>)> = Vec::new();
    let mut total = 0;
    for found in candidates(seen, collection, filter)? {
        total += 1;
        let sort = found.sort(seen, column)?;
        let of_page = after.as_ref().is_none_or(|token| {
            direction(sort.cmp(&token.at), descending).then_with(|| found.key().cmp(&token.key))
                == Ordering::Greater
        });
        if of_page {
            places.push((sort, found));
        }
    }
    let order = |a: &(Sort, Found<'_>), b: &(Sort, Found<'_>)| {
        direction(a.0.cmp(&b.0), descending).then_with(|| a.1.key().cmp(b.1.key()))
    };
    let more = places.len() > size;
    if more {
        places.select_nth_unstable_by(size, order);
        places.truncate(size);
    }
    places.sort_by(order);
    Ok(Page {
        rows: places,
        more,
        total,
    })
}

fn answer(seen: Seen<'_>, request: &ListRequest, page: Page<'_>) -> ListResponse {
    let inventory = seen.inventory;
    let next = page.rows.last().filter(|_| page.more).map(|(at, found)| Token {
        by: request.sort.clone(),
        at: at.clone(),
        key: found.key().to_owned(),
    });
    ListResponse {
        revision: inventory.revision(),
        as_of: Some(proto::time::from_unix_millis(inventory.now())),
        rows: page.rows.into_iter().map(|(_, found)| found.row(seen)).collect(),
        total: page.total,
        next_page_token: next
            .and_then(|token| serde_json::to_vec(&token).ok())
            .map(hex::encode)
            .unwrap_or_default(),
    }
}

fn parse(token: &str) -> Option<Token> {
    serde_json::from_slice(&hex::decode(token).ok()?).ok()
}

fn direction(order: Ordering, descending: bool) -> Ordering {
    if descending { order.reverse() } else { order }
}

fn check(collection: Collection, column: &str) -> Result<(), QueryError> {
    let known = match collection {
        Collection::Clusters => CLUSTER_COLUMNS,
        Collection::Repositories => REPOSITORY_COLUMNS,
        Collection::Backups => BACKUP_COLUMNS,
        Collection::Policies => POLICY_COLUMNS,
        Collection::Restores => RESTORE_COLUMNS,
        Collection::Unspecified => return Err(QueryError::Collection),
    };
    let there = column.is_empty() || known.split(", ").any(|name| name == column);
    if there {
        Ok(())
    } else {
        Err(QueryError::Sort {
            column: column.to_owned(),
            known,
        })
    }
}

/// A state that no row can have, or a cluster that has never connected, is a typing error, and "nothing matches" would
/// hide it.
///
/// # Errors
/// When a state of the filter is not one of the collection, or a cluster is not known.
pub fn check_filter(seen: Seen<'_>, collection: Collection, filter: &Filter) -> Result<(), QueryError> {
    check_states(collection, filter)?;
    let unknown = filter.clusters.iter().find(|name| seen.member(name).is_none());
    unknown.map_or(Ok(()), |cluster| Err(cluster_missing(seen, cluster)))
}

/// There is no such cluster; those that there are.
#[must_use]
pub(crate) fn cluster_missing(seen: Seen<'_>, cluster: &str) -> QueryError {
    let mut known: Vec<&str> = seen.members().map(|member| &*member.name).collect();
    let more = known.len().saturating_sub(NAMED);
    known.truncate(NAMED);
    let known = match (known.as_slice(), more) {
        ([], _) => "none has connected yet".to_owned(),
        (names, 0) => format!("clusters are {}", names.join(", ")),
        (names, more) => format!(
            "clusters are {} and {more} more: fleet clusters",
            names.join(", ")
        ),
    };
    QueryError::Cluster {
        cluster: cluster.to_owned(),
        known,
    }
}

fn check_states(collection: Collection, filter: &Filter) -> Result<(), QueryError> {
    let known: Vec<&str> = match collection {
        Collection::Clusters => rows::CLUSTER_STATES.to_vec(),
        Collection::Repositories => rows::REPOSITORY_STATES.to_vec(),
        Collection::Backups => Health::ALL.iter().map(|health| health.as_str()).collect(),
        Collection::Policies => policies::STATES.to_vec(),
        Collection::Restores => restores::STATES.to_vec(),
        Collection::Unspecified => return Err(QueryError::Collection),
    };
    match filter
        .states
        .iter()
        .find(|state| !known.contains(&state.as_str()))
    {
        None => Ok(()),
        Some(state) => Err(QueryError::State {
            state: state.clone(),
            known: known.join(", "),
        }),
    }
}

/// A row that the filter takes. Most are made into rows only when they are on the page: there may be a million.
enum Found<'a> {
    Held(Collection, &'a Held),
    Member(&'a Member),
    Row(Box<Row>),
}

impl Found<'_> {
    fn key(&self) -> &str {
        match self {
            Found::Held(_, held) => &held.place,
            Found::Member(member) => &member.name,
            Found::Row(row) => &row.key,
        }
    }

    fn row(self, seen: Seen<'_>) -> Row {
        let inventory = seen.inventory;
        match self {
            Found::Member(member) => rows::cluster(seen, member),
            Found::Held(Collection::Policies, held) => policies::row(inventory, held),
            Found::Held(Collection::Restores, held) => restores::row(inventory, held),
            Found::Held(_, held) => rows::backup(inventory, held),
            Found::Row(row) => *row,
        }
    }

    fn sort(&self, seen: Seen<'_>, column: &str) -> Result<Sort, QueryError> {
        let inventory = seen.inventory;
        match self {
            Found::Member(member) => cluster_sort(seen, member, column),
            Found::Held(of, held) => match column {
                "" | "state" => Ok(number(place_of(state(inventory, *of, held), *of))),
                "name" => Ok(Sort::Text(held.name().to_owned())),
                "cluster" => Ok(Sort::Text(held.cluster.to_string())),
                "namespace" => Ok(Sort::Text(held.namespace().to_owned())),
                _ => held_sort(held, *of, column),
            },
            Found::Row(row) => match &row.body {
                Some(Body::Repository(repository)) => repository_sort(row, repository, column),
                _ => Err(QueryError::Collection),
            },
        }
    }
}

/// State of the row of a resource.
fn state(inventory: &Inventory, of: Collection, held: &Held) -> &'static str {
    match of {
        Collection::Policies => policies::state(inventory, held).0,
        Collection::Restores => restores::state(inventory, held).0,
        _ => rows::state(inventory, held).as_str(),
    }
}

/// How bad a state is: smaller is worse.
fn place_of(state: &str, of: Collection) -> u64 {
    let at = match of {
        Collection::Policies => policies::STATES.iter().position(|s| *s == state),
        Collection::Restores => restores::STATES.iter().position(|s| *s == state),
        _ => Health::ALL.iter().position(|health| health.as_str() == state),
    };
    at.unwrap_or_default() as u64
}

fn number(count: u64) -> Sort {
    Sort::Number(i64::try_from(count).unwrap_or(i64::MAX))
}

fn worst(row: &Row) -> Sort {
    number(rows::rank(row) as u64)
}

fn cluster_sort(seen: Seen<'_>, member: &Member, column: &str) -> Result<Sort, QueryError> {
    let state = || {
        let known = rows::CLUSTER_STATES.iter();
        let at = known.take_while(|state| **state != rows::cluster_state(member).0);
        at.count() as u64
    };
    Ok(match column {
        "" | "state" => number(state()),
        "name" => Sort::Text(member.name.to_string()),
        "backups" => number(seen.counts(member).1),
        "repositories" => number(seen.counts(member).0),
        "unwell" => number(seen.tally_of(member).fitting(Health::is_unsafe)),
        "heard" => Sort::Number(member.last_heard.unwrap_or(Millis::MIN)),
        _ => {
            return Err(QueryError::Sort {
                column: column.to_owned(),
                known: CLUSTER_COLUMNS,
            });
        }
    })
}

fn repository_sort(row: &Row, repository: &RepositoryRow, column: &str) -> Result<Sort, QueryError> {
    let statistics = repository.statistics.as_ref();
    Ok(match column {
        "" | "state" => worst(row),
        "name" => Sort::Text(repository.name.clone()),
        "size" => number(statistics.map_or(0, |s| s.stored_bytes)),
        "snapshots" => number(statistics.map_or(0, |s| s.snapshots)),
        "backups" => number(repository.backups),
        _ => {
            return Err(QueryError::Sort {
                column: column.to_owned(),
                known: REPOSITORY_COLUMNS,
            });
        }
    })
}

fn held_sort(held: &Held, of: Collection, column: &str) -> Result<Sort, QueryError> {
    let time = |time: Option<&prost_types::Timestamp>| Some(Sort::Number(rows::time(time)));
    let (backup, policy, restore) = (held.backup(), held.policy(), held.restore());
    let run = backup.and_then(|backup| backup.last_run());
    let known = |time: Option<Option<Millis>>| Some(Sort::Number(time.flatten().unwrap_or(Millis::MIN)));
    let (sort, known) = match of {
        Collection::Policies => match column {
            "last" => (time(policy.and_then(|p| p.last_run.as_ref())), POLICY_COLUMNS),
            _ => (None, POLICY_COLUMNS),
        },
        Collection::Restores => match column {
            "started" => (time(restore.and_then(|r| r.started.as_ref())), RESTORE_COLUMNS),
            "finished" => (time(restore.and_then(|r| r.finished.as_ref())), RESTORE_COLUMNS),
            _ => (None, RESTORE_COLUMNS),
        },
        _ => match column {
            "last" => (known(backup.map(|b| b.last_success())), BACKUP_COLUMNS),
            "next" => (known(backup.map(|b| b.next_run())), BACKUP_COLUMNS),
            "size" => (
                Some(number(run.map_or(0, |run| run.bytes_processed))),
                BACKUP_COLUMNS,
            ),
            _ => (None, BACKUP_COLUMNS),
        },
    };
    sort.ok_or_else(|| QueryError::Sort {
        column: column.to_owned(),
        known,
    })
}

fn candidates<'a>(
    seen: Seen<'a>,
    collection: Collection,
    filter: &'a Wanted,
) -> Result<Box<dyn Iterator<Item = Found<'a>> + 'a>, QueryError> {
    let index = seen.inventory.index();
    let held = move |of: Collection, all: Box<dyn Iterator<Item = &'a Arc<Held>> + 'a>| {
        let taken = all.filter(move |held| seen.held(held) && filter.takes_held(seen.inventory, of, held));
        taken.map(move |held| Found::Held(of, held))
    };
    Ok(match collection {
        Collection::Unspecified => return Err(QueryError::Collection),
        Collection::Clusters => Box::new(
            seen.members()
                .filter(|member| filter.takes_member(member))
                .map(Found::Member),
        ),
        Collection::Repositories => {
            let all = index
                .repositories()
                .filter_map(move |key| rows::repository(seen, key));
            Box::new(
                all.filter(|row| filter.takes(row))
                    .map(|row| Found::Row(Box::new(row))),
            )
        }
        Collection::Backups => Box::new(held(collection, index.backups(&filter.of.clusters))),
        Collection::Policies => Box::new(held(collection, Box::new(index.all_policies()))),
        Collection::Restores => Box::new(held(collection, Box::new(index.restores()))),
    })
}
