//! Which volumes no backup covers, as clusters have reported it. Pure. What was not reported is not known, and not covered.

use proto::time::{from_unix_millis, to_unix_millis};
use proto::v1::{Claim, ClaimRow, CoverageRequest, CoverageResponse, NamespaceClaims};

use crate::Millis;
use crate::inventory::Member;
use crate::query::{PAGE_MAX, QueryError, any, cluster_missing};
use crate::rows::freshness;
use crate::seen::Seen;
use crate::store::collect::DAY;

/// A claim that is younger is new: its backup may come yet.
const GRACE: Millis = DAY;
/// Most clusters that are named as unknown, as known in part, or as silent.
const NAMED: usize = 20;

/// How a claim without a backup is, worst first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum State {
    Uncovered,
    New,
    Excluded,
}

impl State {
    const ALL: [State; 3] = [State::Uncovered, State::New, State::Excluded];

    fn as_str(self) -> &'static str {
        match self {
            State::Uncovered => "uncovered",
            State::New => "new",
            State::Excluded => "excluded",
        }
    }

    fn of(claim: &Claim, now: Millis) -> State {
        let time = |time: &prost_types::Timestamp| to_unix_millis(time);
        let ended = claim
            .excluded_until
            .as_ref()
            .is_some_and(|until| time(until) <= now);
        if !claim.exclusion.is_empty() && !ended {
            return State::Excluded;
        }
        let age = claim
            .created
            .as_ref()
            .map(|created| now.saturating_sub(time(created)));
        match age {
            Some(age) if age < GRACE => State::New,
            // One whose age is not known gets no grace.
            _ => State::Uncovered,
        }
    }
}

/// Why a claim is in its state, where that needs a word.
fn reason(claim: &Claim, state: State) -> String {
    match (state, claim.exclusion.as_str(), claim.excluded_until) {
        (State::Excluded, why, _) => why.to_owned(),
        (_, "", _) | (_, _, None) => claim.exclusion_fault.clone(),
        (_, why, Some(until)) => format!("its exclusion ended at {until}: {why}"),
    }
}

/// A claim that is shown.
struct Shown<'a> {
    state: State,
    key: String,
    claim: &'a Claim,
    member: &'a Member,
}

impl Shown<'_> {
    fn row(self) -> ClaimRow {
        let Shown {
            state,
            key,
            claim,
            member,
        } = self;
        ClaimRow {
            key,
            cluster: member.name.to_string(),
            namespace: claim.namespace.clone(),
            name: claim.name.clone(),
            state: state.as_str().to_owned(),
            reason: reason(claim, state),
            created: claim.created,
            bytes: claim.bytes,
            excluded_until: claim.excluded_until,
            freshness: Some(freshness(member.fresh())),
        }
    }
}

/// The answer as of the inventory's revision, of what is seen.
///
/// # Errors
/// When the question cannot be answered as it was put.
pub fn coverage(seen: Seen<'_>, request: &CoverageRequest) -> Result<CoverageResponse, QueryError> {
    let now = seen.inventory.now();
    let states = states(&request.states)?;
    let reached = |name: &str| seen.inventory.member(name).filter(|_| seen.reaches(name));
    if let Some(name) = request.clusters.iter().find(|name| reached(name).is_none()) {
        return Err(cluster_missing(seen, name));
    }
    let after = match request.page_token.as_str() {
        "" => None,
        token => Some(parse(token).ok_or(QueryError::Token)?),
    };
    let text = request.text.to_lowercase();
    let mut answer = CoverageResponse {
        as_of: Some(from_unix_millis(now)),
        ..CoverageResponse::default()
    };
    let mut shown: Vec<Shown<'_>> = Vec::new();
    let members = seen.inventory.members();
    for member in members.filter(|m| seen.reaches(&m.name) && any(&request.clusters, &m.name)) {
        let Some(report) = member.claims() else {
            name(&mut answer.unknown_clusters, &mut answer.unknown, member);
            continue;
        };
        answer.cut |= report.cut;
        if member.is_partial() {
            name(&mut answer.partial_clusters, &mut answer.partial, member);
        }
        if member.fresh().stale {
            name(&mut answer.stale_clusters, &mut answer.stale, member);
        }
        let asked =
            |namespace: &str| any(&request.namespaces, namespace) && seen.namespace(&member.name, namespace);
        let covered = report.namespaces.iter().filter(|of| asked(&of.namespace));
        covered.for_each(|of| add(&mut answer, of, member));
        for claim in report.open.iter().filter(|claim| asked(&claim.namespace)) {
            let state = State::of(claim, now);
            match state {
                State::Uncovered => answer.uncovered += 1,
                State::New => answer.new += 1,
                State::Excluded => answer.excluded += 1,
            }
            let key = format!("{}/{}/{}", member.name, claim.namespace, claim.name);
            if states.contains(&state) && (text.is_empty() || key.to_lowercase().contains(&text)) {
                shown.push(Shown {
                    state,
                    key,
                    claim,
                    member,
                });
            }
        }
    }
    answer.total = shown.len() as u64;
    (shown, answer.next_page_token) = page(shown, after, request.page_size as usize);
    answer.rows = shown.into_iter().map(Shown::row).collect();
    Ok(answer)
}

/// Counts the claims of a namespace, and apart those that a silent cluster has said are covered.
fn add(answer: &mut CoverageResponse, of: &NamespaceClaims, member: &Member) {
    answer.claims = answer.claims.saturating_add(of.claims);
    answer.covered = answer.covered.saturating_add(of.covered);
    if member.fresh().stale {
        answer.covered_stale = answer.covered_stale.saturating_add(of.covered);
    }
}

/// Counts a cluster, and names it while there are few.
fn name(count: &mut u64, names: &mut Vec<String>, member: &Member) {
    *count += 1;
    if names.len() < NAMED {
        names.push(member.name.to_string());
    }
}

/// The rows that follow `after`, worst first, and the token of the next page; empty when there is none.
fn page<'a>(
    mut shown: Vec<Shown<'a>>,
    after: Option<(State, String)>,
    size: usize,
) -> (Vec<Shown<'a>>, String) {
    shown.sort_by(|a, b| (a.state, &a.key).cmp(&(b.state, &b.key)));
    if let Some((state, key)) = after {
        shown.retain(|shown| (shown.state, &shown.key) > (state, &key));
    }
    let size = match size {
        0 => PAGE_MAX,
        size => size.min(PAGE_MAX),
    };
    let more = shown.len() > size;
    shown.truncate(size);
    let last = shown.last().filter(|_| more);
    let next = last.map(|last| token(last.state, &last.key)).unwrap_or_default();
    (shown, next)
}

/// States that are asked for.
fn states(names: &[String]) -> Result<Vec<State>, QueryError> {
    if names.is_empty() {
        return Ok(vec![State::Uncovered, State::New]);
    }
    let state = |name: &String| {
        let found = State::ALL.into_iter().find(|state| state.as_str() == name);
        found.ok_or_else(|| QueryError::State {
            state: name.clone(),
            known: State::ALL.map(State::as_str).join(", "),
        })
    };
    names.iter().map(state).collect()
}

fn token(state: State, key: &str) -> String {
    hex::encode(format!("{}/{key}", state.as_str()))
}

fn parse(token: &str) -> Option<(State, String)> {
    let text = String::from_utf8(hex::decode(token).ok()?).ok()?;
    let (state, key) = text.split_once('/')?;
    let state = State::ALL.into_iter().find(|known| known.as_str() == state)?;
    Some((state, key.to_owned()))
}

#[cfg(test)]
#[path = "coverage_tests.rs"]
mod tests;
