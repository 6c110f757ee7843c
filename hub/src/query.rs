//! Filter, sort and page. A page begins after the last row of the one before, by its place in the order, so that
//! changes in between neither repeat rows nor lose any.

use std::cmp::Ordering;

use proto::v1::{
    BackupRow, ClusterRow, Collection, Filter, ListRequest, ListResponse, RepositoryRow, Row, row::Body,
};
use serde::{Deserialize, Serialize};

use crate::health::Health;
use crate::inventory::{Held, Inventory};
use crate::rows;
use crate::seen::Seen;

/// Most rows of a page, and the default.
pub const PAGE_MAX: usize = 200;
/// Most names in the text of an error.
const NAMED: usize = 20;

/// What is wrong with a question.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum QueryError {
    #[error("name the collection: clusters, repositories or backups")]
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

/// Answers a question as of the inventory's revision.
///
/// # Errors
/// When the question cannot be answered as it was put.
pub fn list(seen: Seen<'_>, request: &ListRequest) -> Result<ListResponse, QueryError> {
    let inventory = seen.inventory;
    let filter = request.filter.clone().unwrap_or_default();
    check_filter(seen, request.collection(), &filter)?;
    let (column, descending) = match request.sort.strip_prefix('-') {
        Some(column) => (column, true),
        None => (request.sort.as_str(), false),
    };
    let after = match request.page_token.as_str() {
        "" => None,
        token => Some(
            parse(token)
                .filter(|token| token.by == request.sort)
                .ok_or(QueryError::Token)?,
        ),
    };
    let mut places: Vec<(Sort, Found<'_>)> = Vec::new();
    for found in candidates(seen, request.collection(), &filter)? {
        places.push((found.sort(inventory, column)?, found));
    }
    // A column is checked even when no row is there to be sorted by it.
    check(request.collection(), column)?;
    let order = |a: &(Sort, Found<'_>), b: &(Sort, Found<'_>)| {
        direction(a.0.cmp(&b.0), descending).then_with(|| a.1.key().cmp(b.1.key()))
    };
    places.sort_by(order);
    let total = places.len() as u64;
    let size = match request.page_size as usize {
        0 => PAGE_MAX,
        size => size.min(PAGE_MAX),
    };
    let rest = places.into_iter().filter(|(sort, found)| {
        after.as_ref().is_none_or(|token| {
            direction(sort.cmp(&token.at), descending).then_with(|| found.key().cmp(&token.key))
                == Ordering::Greater
        })
    });
    let mut page: Vec<(Sort, Found<'_>)> = rest.take(size + 1).collect();
    let more = page.len() > size;
    page.truncate(size);
    let next = page.last().filter(|_| more).map(|(at, found)| Token {
        by: request.sort.clone(),
        at: at.clone(),
        key: found.key().to_owned(),
    });
    Ok(ListResponse {
        revision: inventory.revision(),
        as_of: Some(proto::time::from_unix_millis(inventory.now())),
        rows: page.into_iter().map(|(_, found)| found.row(inventory)).collect(),
        total,
        next_page_token: next
            .and_then(|token| serde_json::to_vec(&token).ok())
            .map(hex::encode)
            .unwrap_or_default(),
    })
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
    let Some(cluster) = unknown else {
        return Ok(());
    };
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
    Err(QueryError::Cluster {
        cluster: cluster.clone(),
        known,
    })
}

fn check_states(collection: Collection, filter: &Filter) -> Result<(), QueryError> {
    let known: Vec<&str> = match collection {
        Collection::Clusters => rows::CLUSTER_STATES.to_vec(),
        Collection::Repositories => rows::REPOSITORY_STATES.to_vec(),
        Collection::Backups => Health::ALL.iter().map(|health| health.as_str()).collect(),
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

/// A row that the filter takes. Backups are made into rows only when they are on the page: there may be a million.
enum Found<'a> {
    Backup(&'a Held),
    Row(Box<Row>),
}

impl Found<'_> {
    fn key(&self) -> &str {
        match self {
            Found::Backup(held) => &held.place,
            Found::Row(row) => &row.key,
        }
    }

    fn row(self, inventory: &Inventory) -> Row {
        match self {
            Found::Backup(held) => rows::backup(inventory, held),
            Found::Row(row) => *row,
        }
    }

    fn sort(&self, inventory: &Inventory, column: &str) -> Result<Sort, QueryError> {
        match self {
            Found::Backup(held) => backup_sort(inventory, held, column),
            Found::Row(row) => match &row.body {
                Some(Body::Cluster(cluster)) => cluster_sort(row, cluster, column),
                Some(Body::Repository(repository)) => repository_sort(row, repository, column),
                _ => Err(QueryError::Collection),
            },
        }
    }
}

fn number(count: u64) -> Sort {
    Sort::Number(i64::try_from(count).unwrap_or(i64::MAX))
}

fn worst(row: &Row) -> Sort {
    number(rows::rank(row) as u64)
}

fn cluster_sort(row: &Row, cluster: &ClusterRow, column: &str) -> Result<Sort, QueryError> {
    Ok(match column {
        "" | "state" => worst(row),
        "name" => Sort::Text(cluster.name.clone()),
        "backups" => number(cluster.backups),
        "repositories" => number(cluster.repositories),
        "unwell" => number(cluster.backups_unwell),
        "heard" => Sort::Number(rows::time(
            cluster.freshness.as_ref().and_then(|f| f.last_heard.as_ref()),
        )),
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

fn backup_sort(inventory: &Inventory, held: &Held, column: &str) -> Result<Sort, QueryError> {
    let backup = held.backup().cloned().unwrap_or_default();
    Ok(match column {
        "" | "state" => {
            let state = rows::health(inventory, held).0;
            number(Health::ALL.iter().position(|h| *h == state).unwrap_or_default() as u64)
        }
        "name" => Sort::Text(held.object.name.clone()),
        "cluster" => Sort::Text(held.cluster.to_string()),
        "namespace" => Sort::Text(held.object.namespace.clone()),
        "last" => Sort::Number(rows::time(backup.last_success.as_ref())),
        "next" => Sort::Number(rows::time(backup.next_run.as_ref())),
        "size" => number(backup.last_run.map_or(0, |run| run.bytes_processed)),
        _ => {
            return Err(QueryError::Sort {
                column: column.to_owned(),
                known: BACKUP_COLUMNS,
            });
        }
    })
}

fn candidates<'a>(
    seen: Seen<'a>,
    collection: Collection,
    filter: &'a Filter,
) -> Result<Box<dyn Iterator<Item = Found<'a>> + 'a>, QueryError> {
    Ok(match collection {
        Collection::Unspecified => return Err(QueryError::Collection),
        Collection::Clusters => Box::new(
            seen.members()
                .map(move |m| rows::cluster(seen, m))
                .filter(|row| takes(filter, row))
                .map(|row| Found::Row(Box::new(row))),
        ),
        Collection::Repositories => {
            let keys = seen.inventory.index().repositories();
            let all = keys.filter_map(move |key| rows::repository(seen, key));
            Box::new(
                all.filter(|row| takes(filter, row))
                    .map(|row| Found::Row(Box::new(row))),
            )
        }
        Collection::Backups => {
            let all = seen.backups(&filter.clusters).map(AsRef::as_ref);
            Box::new(
                all.filter(move |held| takes_backup(seen.inventory, filter, held))
                    .map(Found::Backup),
            )
        }
    })
}

fn takes_backup(inventory: &Inventory, filter: &Filter, held: &Held) -> bool {
    let repository = held.backup().map(|b| b.restic_id.clone()).unwrap_or_default();
    any(&filter.clusters, &held.cluster)
        && any(&filter.namespaces, &held.object.namespace)
        && (filter.states.is_empty() || any(&filter.states, rows::health(inventory, held).0.as_str()))
        && contains(filter, [&*held.place, &repository].into_iter())
}

/// Whether a filter takes a row.
#[must_use]
pub fn takes(filter: &Filter, row: &Row) -> bool {
    match &row.body {
        Some(Body::Cluster(cluster)) => {
            any(&filter.clusters, &cluster.name)
                && any(&filter.states, &cluster.state)
                && contains(filter, std::iter::once(cluster.name.as_str()))
        }
        Some(Body::Repository(repository)) => {
            let clusters = &repository.clusters;
            let namespaces = || repository.bindings.iter().map(|b| &b.namespace);
            (filter.clusters.is_empty() || clusters.iter().any(|c| filter.clusters.contains(c)))
                && (filter.namespaces.is_empty() || namespaces().any(|n| filter.namespaces.contains(n)))
                && any(&filter.states, &repository.state)
                && contains(
                    filter,
                    [repository.name.as_str(), &row.key]
                        .into_iter()
                        .chain(repository.bindings.iter().map(|b| b.url.as_str())),
                )
        }
        Some(Body::Backup(backup)) => takes_backup_row(filter, row, backup),
        None => false,
    }
}

fn takes_backup_row(filter: &Filter, row: &Row, backup: &BackupRow) -> bool {
    let repository = backup
        .backup
        .as_ref()
        .map(|b| b.restic_id.as_str())
        .unwrap_or_default();
    any(&filter.clusters, &backup.cluster)
        && any(&filter.namespaces, &backup.namespace)
        && any(&filter.states, &backup.state)
        && contains(filter, [row.key.as_str(), repository].into_iter())
}

fn any(wanted: &[String], value: &str) -> bool {
    wanted.is_empty() || wanted.iter().any(|w| w == value)
}

fn contains<'a>(filter: &Filter, mut texts: impl Iterator<Item = &'a str>) -> bool {
    let wanted = filter.text.to_lowercase();
    wanted.is_empty() || texts.any(|text| text.to_lowercase().contains(&wanted))
}
