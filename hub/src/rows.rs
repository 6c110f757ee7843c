//! Rows as viewers read them, made of the inventory as of its revision.

use std::collections::BTreeMap;
use std::sync::Arc;

use proto::time::from_unix_millis;
use proto::v1::{
    BackupRow, ClusterRow, Freshness, RepositoryBinding, RepositoryRow, RepositoryStatistics, Row, row::Body,
};

use crate::Millis;
use crate::copies::shown;
use crate::health::{Evidence, Fresh, Health};
use crate::inventory::backup::Backup;
use crate::inventory::{Held, Inventory, Member};
use crate::seen::Seen;

/// Clocks of two machines may differ by this much.
const CLOCKS: Millis = 10 * 60_000;

/// States of a cluster, worst first.
pub const CLUSTER_STATES: [&str; 5] = ["banned", "conflict", "refused", "stale", "connected"];
/// States of a physical repository, worst first.
pub const REPOSITORY_STATES: [&str; 4] = ["unready", "stale", "degraded", "ready"];

/// How a backup is.
#[must_use]
pub fn health(inventory: &Inventory, held: &Held) -> (Health, String) {
    judged(inventory, held).map_or((Health::NotReady, String::new()), |(health, evidence)| {
        (health, evidence.reason(health))
    })
}

/// State of a backup.
#[must_use]
pub fn state(inventory: &Inventory, held: &Held) -> Health {
    let known = inventory.index().judged().health(&held.place);
    known.unwrap_or_else(|| health(inventory, held).0)
}

/// What was made of a backup, and what of.
fn judged<'a>(inventory: &Inventory, held: &'a Held) -> Option<(Health, Evidence<'a>)> {
    let evidence = Evidence {
        backup: held.backup()?,
        deadline: held.deadline,
        fresh: inventory.fresh(&held.cluster),
    };
    let known = inventory.index().judged().health(&held.place);
    let health = known.unwrap_or_else(|| evidence.health(inventory.now()));
    Some((health, evidence))
}

/// A backup's row.
#[must_use]
pub fn backup(inventory: &Inventory, held: &Held) -> Row {
    let judged = judged(inventory, held);
    let since = judged
        .as_ref()
        .and_then(|(health, evidence)| evidence.since(*health));
    let (state, reason) = judged.map_or((Health::NotReady, String::new()), |(health, evidence)| {
        (health, evidence.reason(health))
    });
    let row = BackupRow {
        cluster: held.cluster.to_string(),
        namespace: held.namespace().to_owned(),
        name: held.name().to_owned(),
        state: state.as_str().to_owned(),
        reason,
        backup: held.backup().map(Backup::state),
        ready: held.is_ready(),
        freshness: Some(freshness(inventory.fresh(&held.cluster))),
        due: held.deadline.map(|deadline| from_unix_millis(deadline.due)),
        since: since.map(from_unix_millis),
    };
    Row {
        key: held.place.to_string(),
        body: Some(Body::Backup(row)),
    }
}

/// State of a cluster, and why nothing is taken from it.
#[must_use]
pub fn cluster_state(member: &Member) -> (&'static str, &str) {
    let known = if member.stale { "stale" } else { "connected" };
    member.trouble().unwrap_or((known, ""))
}

/// A cluster's row, with the counts of what is seen.
#[must_use]
pub fn cluster(seen: Seen<'_>, member: &Member) -> Row {
    let unwell = seen.tally_of(member).fitting(Health::is_unsafe);
    let (repositories, backups) = seen.counts(member);
    let (state, reason) = cluster_state(member);
    let row = ClusterRow {
        name: member.name.to_string(),
        state: state.to_owned(),
        reason: if reason.is_empty() {
            member.unread()
        } else {
            reason.to_owned()
        },
        complete: member.complete(),
        freshness: Some(freshness(member.fresh())),
        version: member.facts.version.clone(),
        kubernetes_version: member.facts.kubernetes_version.clone(),
        connected_since: member.live.map(|live| from_unix_millis(live.since)),
        repositories,
        backups,
        backups_unwell: unwell,
        cluster_uid: member.facts.cluster_uid.clone(),
    };
    Row {
        key: member.name.to_string(),
        body: Some(Body::Cluster(row)),
    }
}

/// Name that most bindings of a physical repository use, of those that are seen.
#[must_use]
pub fn repository_name(seen: Seen<'_>, key: &str) -> String {
    let mut names: BTreeMap<&str, usize> = BTreeMap::new();
    for held in seen
        .inventory
        .index()
        .bindings(key)
        .filter(|held| seen.held(held))
    {
        *names.entry(held.name()).or_default() += 1;
    }
    let most = names
        .iter()
        .max_by_key(|(name, count)| (**count, std::cmp::Reverse(**name)));
    most.map(|(name, _)| (*name).to_owned()).unwrap_or_default()
}

/// A physical repository's row, as far as it is seen; `None` when nothing that is seen binds it.
#[must_use]
pub fn repository(seen: Seen<'_>, key: &str) -> Option<Row> {
    let inventory = seen.inventory;
    let all = inventory.index().bindings(key);
    let held: Vec<&Arc<Held>> = all.filter(|held| seen.held(held)).collect();
    let whole = seen.whole_repository(key);
    let restic_id = held.first()?.repository().map(|r| r.restic_id.clone());
    let bindings: Vec<RepositoryBinding> = held.iter().map(|held| binding(inventory, held)).collect();
    let newest = figures(inventory, key, &held);
    let mut clusters: Vec<String> = bindings.iter().map(|b| b.cluster.clone()).collect();
    clusters.sort();
    clusters.dedup();
    let writers = held.iter().map(|held| writers(seen, held));
    let collected = inventory.collected(key);
    // Another cluster is named only to who sees it.
    let shown = |cluster: &str| whole || clusters.iter().any(|seen| seen == cluster);
    let collector = collected.map_or("", |collected| &collected.collector);
    let collector = Some(collector).filter(|c| shown(c)).unwrap_or_default();
    let from = newest.map(|(cluster, _)| cluster);
    let statistics_from = from.filter(|cluster| shown(cluster)).unwrap_or_default();
    let row = RepositoryRow {
        restic_id: restic_id.unwrap_or_default(),
        name: repository_name(seen, key),
        policies: inventory.policies_of(key).filter(|held| seen.held(held)).count() as u64,
        alarm: alarm(inventory, key, whole),
        state: repository_state(&bindings).to_owned(),
        clusters,
        statistics_from: statistics_from.to_owned(),
        statistics: newest.map(|(_, statistics)| narrowed(statistics.clone(), whole)),
        collector: collector.to_owned(),
        collector_epoch: collected.map_or(0, |collected| collected.epoch),
        freshness: Some(newest_freshness(&bindings)),
        backups: writers.sum(),
        bindings,
    };
    Some(Row {
        key: key.to_owned(),
        body: Some(Body::Repository(row)),
    })
}

fn repository_state(bindings: &[RepositoryBinding]) -> &'static str {
    let fresh = bindings.iter().filter(|b| !is_stale(b));
    let ready = fresh.clone().filter(|b| b.ready).count();
    match (fresh.count(), ready) {
        (0, _) => "stale",
        (_, 0) => "unready",
        (all, ready) if ready == all && all == bindings.len() => "ready",
        _ => "degraded",
    }
}

/// Backups that write to a repository resource and are seen.
fn writers(seen: Seen<'_>, repository: &Held) -> u64 {
    if seen.is_everything() {
        return seen.inventory.index().writers(&repository.place);
    }
    let of_cluster = [repository.cluster.to_string()];
    let backups = seen.backups(&of_cluster);
    let writes = |held: &&Arc<Held>| held.writes_to().is_some_and(|place| place == repository.place);
    backups.filter(writes).count() as u64
}

/// Hosts are those of all clusters: shown only with all of the repository.
fn narrowed(mut statistics: RepositoryStatistics, whole: bool) -> RepositoryStatistics {
    if !whole {
        statistics.hosts.clear();
    }
    statistics
}

/// As fresh as the freshest of its clusters.
fn newest_freshness(bindings: &[RepositoryBinding]) -> Freshness {
    Freshness {
        stale: bindings.iter().all(is_stale),
        last_heard: bindings
            .iter()
            .filter_map(|b| b.freshness.as_ref()?.last_heard)
            .max_by_key(|t| (t.seconds, t.nanos)),
    }
}

/// What a person has to look at; empty for nothing.
fn alarm(inventory: &Inventory, key: &str, whole: bool) -> String {
    let rival = inventory.bindings().key(key).map(|known| known.rival.clone());
    let damage = || {
        let (place, text) = inventory.damage_of(key)?;
        Some(format!("{place}: {text}"))
    };
    let rival = rival.filter(|rival| !rival.is_empty());
    if let Some((place, known, other)) = inventory.changed_of(key) {
        return match whole {
            true => format!("{place}: repository {other} lies where {known} was, and nobody has accepted it"),
            false => "another repository lies where it was, or it lies where another was".to_owned(),
        };
    }
    let copies = shown::others(inventory, key);
    if !copies.is_empty() {
        let narrow = "a copy of the repository with the same id is used by another cluster".to_owned();
        return if whole { copies } else { narrow };
    }
    if !whole {
        let rival = rival.map(|_| "two clusters have shown different keys for it");
        let damage = || damage().map(|_| "a check has found damage");
        return rival.or_else(damage).unwrap_or_default().to_owned();
    }
    rival.or_else(damage).unwrap_or_default()
}

/// Bytes that are stored in a physical repository; `None` when nothing that is seen binds it.
#[must_use]
pub fn stored_bytes(seen: Seen<'_>, key: &str) -> Option<u64> {
    let held: Vec<&Arc<Held>> = seen.bindings(key).collect();
    held.first()?;
    let figures = figures(seen.inventory, key, &held);
    Some(figures.map_or(0, |(_, statistics)| statistics.stored_bytes))
}

/// The figures of a repository, and the cluster that read them: what its collector reported, or where none did yet, the
/// newest that a bound cluster has for itself.
#[must_use]
pub fn figures<'a>(
    inventory: &'a Inventory,
    key: &str,
    held: &[&'a Arc<Held>],
) -> Option<(&'a str, &'a RepositoryStatistics)> {
    let collected = inventory.collected(key).and_then(|c| c.latest.as_ref());
    let collected = collected.and_then(|l| Some((l.cluster.as_str(), l.report.statistics.as_ref()?)));
    collected.or_else(|| {
        let (held, statistics) = newest_figures(inventory, key, held)?;
        Some((&*held.cluster, statistics))
    })
}

/// The newest figures of bound clusters, and who reported them. No honest figures are of tomorrow.
fn newest_figures<'a>(
    inventory: &Inventory,
    key: &str,
    held: &[&'a Arc<Held>],
) -> Option<(&'a Held, &'a RepositoryStatistics)> {
    let latest = inventory.now().saturating_add(CLOCKS);
    held.iter()
        .filter(|held| inventory.bindings().is_bound(&held.cluster, key))
        .filter_map(|held| Some((&***held, held.repository()?.statistics.as_ref()?)))
        .filter(|(_, statistics)| time(statistics.as_of.as_ref()) <= latest)
        .max_by_key(|(_, statistics)| statistics.as_of.as_ref().map(|t| (t.seconds, t.nanos)))
}

fn binding(inventory: &Inventory, held: &Held) -> RepositoryBinding {
    let condition = held.ready_condition();
    let known = inventory.bindings().get(&held.cluster, &held.row);
    RepositoryBinding {
        cluster: held.cluster.to_string(),
        namespace: held.namespace().to_owned(),
        name: held.name().to_owned(),
        url: held.repository().map(|r| r.url.clone()).unwrap_or_default(),
        ready: held.is_ready(),
        reason: condition.map(|c| c.reason.clone()).unwrap_or_default(),
        message: condition.map(|c| c.message.clone()).unwrap_or_default(),
        freshness: Some(freshness(inventory.fresh(&held.cluster))),
        binding: known.map(|b| b.state.as_str().to_owned()).unwrap_or_default(),
        binding_reason: known.map(|b| b.how.clone()).unwrap_or_default(),
    }
}

fn is_stale(binding: &RepositoryBinding) -> bool {
    binding.freshness.as_ref().is_none_or(|f| f.stale)
}

pub(crate) fn freshness(fresh: Fresh) -> Freshness {
    Freshness {
        stale: fresh.stale,
        last_heard: fresh.last_heard.map(from_unix_millis),
    }
}

/// How bad a row's state is: smaller is worse.
#[must_use]
pub fn rank(row: &Row) -> usize {
    match &row.body {
        Some(Body::Repository(row)) => REPOSITORY_STATES
            .iter()
            .position(|s| *s == row.state)
            .unwrap_or(0),
        // Their order is kept, or worked out without their rows.
        Some(Body::Cluster(_) | Body::Backup(_) | Body::Policy(_) | Body::Restore(_)) | None => 0,
    }
}

/// Milliseconds of a wire time, for sorting.
#[must_use]
pub fn time(time: Option<&prost_types::Timestamp>) -> Millis {
    time.map_or(Millis::MIN, proto::time::to_unix_millis)
}
