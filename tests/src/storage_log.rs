//! The judge of deletions: what the storage was asked to delete, against what the audit says that was allowed.
//!
//! Every request that deletes a part of a repository (its `locks/` excepted: backups remove their own) must lie inside
//! the time of one grant of the maintenance lock, come from that cluster's pods, and not reach beyond a grant with a
//! higher token. Storage log and audit are read on the wall clock of one machine, in milliseconds since 1970.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use anyhow::Context as _;
use serde_json::Value;

use crate::proxy::Entry;

/// One grant of the maintenance lock, from the audit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    pub token: u64,
    pub cluster: String,
    pub subject: String,
    /// Milliseconds since 1970.
    pub granted: i64,
    /// The same; `None`: the holder was not heard of again, or it runs.
    pub ended: Option<i64>,
}

/// Grants in the answer of `fleet audit ID -o json`.
///
/// # Errors
/// A part that is missing or is not as described.
pub fn grants(audit: &Value) -> anyhow::Result<Vec<Grant>> {
    let items = audit["items"].as_array().context("the audit has no items")?;
    items.iter().map(grant).collect()
}

fn grant(entry: &Value) -> anyhow::Result<Grant> {
    let text = |name: &str| {
        let value = entry[name].as_str();
        value.with_context(|| format!("no {name} in {entry}"))
    };
    let time = |text: &str| -> anyhow::Result<i64> {
        let time: jiff::Timestamp = text
            .parse()
            .with_context(|| format!("{text} in {entry} is no time"))?;
        Ok(time.as_millisecond())
    };
    Ok(Grant {
        token: entry["token"].as_u64().context("an entry without a token")?,
        cluster: text("cluster")?.to_owned(),
        subject: text("subject")?.to_owned(),
        granted: time(text("granted")?)?,
        ended: entry["ended"].as_str().map(time).transpose()?,
    })
}

/// Subject of a grant that a hub enters anew because its store has lost it (`hub/src/lock/restored.rs`). It has the time of
/// that, and not of the grant.
const FORGOTTEN: &str = "not known: granted before the store was put back";

/// One list out of two that were read at different times: a hub whose store was put back to an older copy has
/// forgotten grants, or entered them anew. What is known of an end is kept. Two grants of one token stay two.
#[must_use]
pub fn merge(earlier: &[Grant], later: &[Grant]) -> Vec<Grant> {
    let mut all: Vec<Grant> = later.to_vec();
    for old in earlier {
        let anew = |new: &Grant| new.cluster == old.cluster && new.subject == FORGOTTEN;
        let same = |new: &&mut Grant| new.token == old.token && (new.granted == old.granted || anew(new));
        match all.iter_mut().find(same) {
            // The earlier time: what was deleted before the entry was made anew belongs to it.
            Some(new) => {
                let ended = new.ended.or(old.ended);
                *new = Grant { ended, ..old.clone() };
            }
            None => all.push(old.clone()),
        }
    }
    all.sort_by_key(|grant| (grant.token, grant.granted));
    all
}

/// What the judge found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// Deletions that were allowed, by token.
    pub deletes: BTreeMap<u64, usize>,
    /// One line for each that was not, and for each token that was granted twice.
    pub violations: Vec<String>,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "deletions by token: {:?}", self.deletes)?;
        // The first ones show what happened.
        for violation in self.violations.iter().take(10) {
            write!(f, "\n  {violation}")?;
        }
        match self.violations.len() {
            0..=10 => Ok(()),
            all => write!(f, "\n  and {} more", all - 10),
        }
    }
}

/// Judges the deletions in one repository.
///
/// `repository` is its path at the storage, such as `/bucket/name`; `networks` leads from the beginning of an address,
/// such as `10.65.`, to the cluster whose pods have it.
#[must_use]
pub fn judge(
    log: &[Entry],
    grants: &[Grant],
    repository: &str,
    networks: &BTreeMap<String, String>,
) -> Verdict {
    let mut verdict = Verdict::default();
    let mut tokens = BTreeSet::new();
    for grant in grants.iter().filter(|g| !tokens.insert(g.token)) {
        let line = format!("token {} was granted twice", grant.token);
        verdict.violations.push(line);
    }
    for delete in log.iter().filter(|entry| deletes(entry, repository)) {
        match allowed(delete, grants, networks) {
            Ok(token) => *verdict.deletes.entry(token).or_default() += 1,
            Err(reason) => verdict.violations.push(format!(
                "{} {} by {} at {}: {reason}",
                delete.method, delete.path, delete.client, delete.came.wall_ms
            )),
        }
    }
    verdict
}

/// Whether a request deletes something of a repository. One that never reached the server deleted nothing.
#[must_use]
pub fn deletes(entry: &Entry, repository: &str) -> bool {
    let (path, query) = entry.path.split_once('?').unwrap_or((&entry.path, ""));
    let name = repository.trim_end_matches('/');
    let inside = path.strip_prefix(name).and_then(|rest| rest.strip_prefix('/'));
    let several = entry.method == "POST"
        && query
            .split('&')
            .any(|part| part.trim_end_matches('=') == "delete");
    let own = inside.is_some_and(|rest| !rest.starts_with("locks/"));
    // S3's request for several objects names the bucket only.
    let holds = several && name.starts_with(path.trim_end_matches('/'));
    entry.sent.is_some() && (entry.method == "DELETE" && own || several && (own || holds))
}

/// The token under which a deletion was allowed, or why it was not.
fn allowed(delete: &Entry, grants: &[Grant], networks: &BTreeMap<String, String>) -> Result<u64, String> {
    let cluster = networks
        .iter()
        .find(|(prefix, _)| delete.client.starts_with(prefix.as_str()));
    let (_, cluster) = cluster.ok_or("no cluster has this address")?;
    let start = delete.came.wall_ms;
    // One that is still under way may delete at any later time.
    let end = delete.answered.or(delete.ended).map_or(i64::MAX, |m| m.wall_ms);
    let holder = grants
        .iter()
        .filter(|grant| grant.granted <= start)
        .max_by_key(|grant| (grant.granted, grant.token))
        .ok_or("nothing was granted before")?;
    if holder.cluster != *cluster {
        return Err(format!(
            "cluster {cluster} deletes under token {} of cluster {}",
            holder.token, holder.cluster
        ));
    }
    if let Some(ended) = holder.ended.filter(|ended| end > *ended) {
        return Err(format!(
            "token {} ended {} ms before it was done",
            holder.token,
            end.saturating_sub(ended)
        ));
    }
    let next = grants.iter().find(|g| g.token > holder.token && g.granted < end);
    match next {
        Some(next) => Err(format!(
            "it reaches beyond token {}: {} was granted at {}",
            holder.token, next.token, next.granted
        )),
        None => Ok(holder.token),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
