//! What the hub shows of itself and of its clusters. The judgement is pure.

use jiff::Timestamp;
use proto::v1::row::Body;
use proto::v1::{
    ClusterRow, Collection, HealthResponse, ListRequest, RepositoryRow, StatusResponse, WhoAmIResponse,
};

use super::finding::{Fact, Finding, judge};
use super::install::differs;
use super::kube::words;
use crate::arguments::HubArguments;
use crate::client::Client;
use crate::failure::Failure;
use crate::text::{ago, time, until};

/// A login that ends sooner is named.
const LOGIN_SOON: i64 = 3600;
/// A certificate that ends sooner is named.
const CERTIFICATE_SOON: i64 = 14 * 86_400;

/// What was seen of a hub.
#[derive(Clone, Debug)]
pub struct Facts {
    /// Its address, when it has answered.
    pub reached: Fact<String>,
    pub who: Fact<WhoAmIResponse>,
    /// Its health, and this machine's clock in the middle of the question.
    pub health: Fact<(HealthResponse, Timestamp)>,
    pub status: Fact<StatusResponse>,
    pub clusters: Fact<Vec<ClusterRow>>,
    pub repositories: Fact<Vec<RepositoryRow>>,
}

/// Looks at the hub; `None` where none is configured.
pub async fn look(arguments: &HubArguments) -> Option<Facts> {
    match Client::connect(arguments).await {
        Ok(client) => Some(look_through(client).await),
        Err(Failure::NotConfigured("FLEET_HUB", _)) => None,
        Err(failure) => Some(Facts::none(&words(failure))),
    }
}

impl Facts {
    /// Nothing was seen.
    fn none(why: &str) -> Facts {
        let why = || why.to_owned();
        Facts {
            reached: Err(why()),
            who: Err(why()),
            health: Err(why()),
            status: Err(why()),
            clusters: Err(why()),
            repositories: Err(why()),
        }
    }
}

async fn look_through(mut client: Client) -> Facts {
    // A hub that does not answer this does not answer the rest either, and each question would wait for it.
    let who = match client.who_am_i().await {
        Ok(who) => who,
        Err(failure) => return Facts::none(&words(failure)),
    };
    let before = Timestamp::now();
    let health = client.health().await.map_err(words);
    let middle = (before.as_millisecond() + Timestamp::now().as_millisecond()) / 2;
    let here = Timestamp::from_millisecond(middle).unwrap_or(before);
    let status = client.status().await.map_err(words);
    let clusters = rows(&mut client, Collection::Clusters).await.map(|rows| {
        let rows = rows.into_iter().filter_map(|body| match body {
            Body::Cluster(row) => Some(row),
            _ => None,
        });
        rows.collect()
    });
    let repositories = rows(&mut client, Collection::Repositories).await.map(|rows| {
        let rows = rows.into_iter().filter_map(|body| match body {
            Body::Repository(row) => Some(row),
            _ => None,
        });
        rows.collect()
    });
    Facts {
        reached: Ok(client.address().to_owned()),
        who: Ok(who),
        health: health.map(|health| (health, here)),
        status,
        clusters,
        repositories,
    }
}

async fn rows(client: &mut Client, collection: Collection) -> Fact<Vec<Body>> {
    let request = ListRequest {
        collection: collection.into(),
        ..ListRequest::default()
    };
    let listing = client.list(request).await.map_err(words)?;
    Ok(listing.rows.into_iter().filter_map(|row| row.body).collect())
}

/// All findings about the hub.
#[must_use]
pub fn findings(facts: &Facts, now: Timestamp) -> Vec<Finding> {
    vec![
        reached(facts),
        login(facts, now),
        clock(facts),
        version(facts),
        store(facts),
        copy(facts, now),
        certificates(facts, now),
        connected(facts, now),
        complete(facts),
        versions(facts),
        super::bound::bound(facts),
        verdict(facts),
        paused(facts),
    ]
}

pub const AWAY: &str = "see hub-reached";

fn reached(facts: &Facts) -> Finding {
    match &facts.reached {
        Ok(address) => Finding::good(
            "hub-reached",
            format!("the hub at {address} answers and is trusted"),
        ),
        // The text says whether it is a matter of reach, of trust or of rights, and what to do.
        Err(why) => Finding::bad(
            "hub-reached",
            why,
            "fleet contexts list; in the hub's cluster: fleet check --kube-context CONTEXT",
        ),
    }
}

fn login(facts: &Facts, now: Timestamp) -> Finding {
    const ID: &str = "hub-login";
    judge(ID, &facts.who, AWAY, |who| {
        let left = time(who.expires.as_ref()).map(|at| at.duration_since(now).as_secs());
        let text = format!("you are {} until {}", who.name, until(who.expires.as_ref(), now));
        match left {
            None => Finding::unknown(
                ID,
                format!("you are {}, and when that ends is not known", who.name),
                "fleet whoami",
            ),
            Some(left) if left < LOGIN_SOON => Finding::note(
                ID,
                text.replace("until in", "for another"),
                "log in again: fleet login",
            ),
            Some(_) => Finding::good(ID, text.replace("until in", "for another")),
        }
    })
}

fn clock(facts: &Facts) -> Finding {
    const ID: &str = "hub-clock";
    judge(ID, &facts.health, AWAY, |(health, here)| {
        match time(health.as_of.as_ref()) {
            None => Finding::unknown(ID, "the hub does not say what time it is", "upgrade the hub"),
            Some(hub) => differs(ID, "the hub's clock", hub, *here),
        }
    })
}

fn version(facts: &Facts) -> Finding {
    const ID: &str = "hub-version";
    let own = env!("CARGO_PKG_VERSION");
    judge(ID, &facts.health, AWAY, |(health, _)| {
        match health.version.as_str() {
            "" => Finding::unknown(ID, "the hub does not say its version", "upgrade the hub"),
            hub if hub == own => Finding::good(ID, format!("hub and fleet are version {own}")),
            hub => Finding::note(
                ID,
                format!("the hub is version {hub}, fleet is {own}"),
                "use a fleet of the hub's version",
            ),
        }
    })
}

fn store(facts: &Facts) -> Finding {
    const ID: &str = "hub-store";
    judge(ID, &facts.health, AWAY, |(health, _)| {
        if health.store_well {
            return Finding::good(
                ID,
                format!(
                    "the hub's store keeps what is written: {}",
                    crate::text::bytes(health.store_bytes)
                ),
            );
        }
        let said = health.troubles.iter().find(|of| of.what == "store");
        let text = said.map_or("the last write to the hub's store was not kept", |of| {
            of.text.as_str()
        });
        Finding::bad(
            ID,
            text,
            "look at the volume of the hub: is it full, or read-only?",
        )
    })
}

fn copy(facts: &Facts, now: Timestamp) -> Finding {
    const ID: &str = "hub-copy";
    judge(ID, &facts.health, AWAY, |(health, _)| {
        let trouble = health.troubles.iter().find(|of| of.what == "copy");
        match trouble {
            Some(of) => Finding::note(ID, of.text.clone(), "fleet hub backup FILE"),
            None => Finding::good(
                ID,
                format!(
                    "the hub's store was copied {}",
                    ago(health.store_copied.as_ref(), now)
                ),
            ),
        }
    })
}

fn certificates(facts: &Facts, now: Timestamp) -> Finding {
    const ID: &str = "hub-certificates";
    judge(ID, &facts.health, AWAY, |(health, _)| {
        let hint = "fleet clusters rotate-authority for the hub's own authority; renew a given certificate (docs/enrolment.md)";
        let mut wrong = Vec::new();
        for of in &health.certificates {
            match time(of.ends.as_ref()).map(|at| at.duration_since(now).as_secs()) {
                None => wrong.push(format!("when the certificate of {} ends cannot be read", of.name)),
                Some(left) if left <= 0 => wrong.push(format!("the certificate of {} has ended", of.name)),
                Some(left) if left < CERTIFICATE_SOON => {
                    wrong.push(format!(
                        "the certificate of {} ends {}",
                        of.name,
                        until(of.ends.as_ref(), now)
                    ));
                }
                Some(_) => {}
            }
        }
        match (health.certificates.is_empty(), wrong.is_empty()) {
            (true, _) => Finding::unknown(ID, "the hub names no certificate", "upgrade the hub"),
            (_, false) => Finding::bad(ID, wrong.join("; "), hint),
            (_, true) => Finding::good(
                ID,
                format!(
                    "{} certificates are good for two weeks or more",
                    health.certificates.len()
                ),
            ),
        }
    })
}

fn connected(facts: &Facts, now: Timestamp) -> Finding {
    const ID: &str = "clusters-connected";
    judge(ID, &facts.clusters, AWAY, |rows| {
        let wrong: Vec<String> = rows
            .iter()
            .filter(|row| row.state != "connected")
            .map(|row| match row.reason.as_str() {
                "" => {
                    let heard = row.freshness.as_ref().and_then(|of| of.last_heard.as_ref());
                    format!("{} is {}, heard {}", row.name, row.state, ago(heard, now))
                }
                why => format!("{} is {}: {why}", row.name, row.state),
            })
            .collect();
        match (rows.len(), wrong.is_empty()) {
            (0, _) => Finding::unknown(
                ID,
                "no cluster has ever connected, or you see none",
                "fleet clusters join NAME",
            ),
            (count, true) => Finding::good(ID, format!("clusters are connected: {count}")),
            (_, false) => Finding::bad(
                ID,
                wrong.join("; "),
                "fleet why cluster NAME; in that cluster: fleet check",
            ),
        }
    })
}

fn complete(facts: &Facts) -> Finding {
    const ID: &str = "clusters-complete";
    judge(ID, &facts.clusters, AWAY, |rows| {
        let part = rows
            .iter()
            .filter(|row| !row.complete)
            .map(|row| row.name.as_str());
        let part: Vec<&str> = part.collect();
        match (rows.len(), part.is_empty()) {
            (0, _) => Finding::unknown(ID, "there is no cluster", "see clusters-connected"),
            (_, true) => Finding::good(ID, "the hub holds all that each cluster has"),
            (_, false) => Finding::bad(
                ID,
                format!("the hub does not hold all that these have: {}", part.join(", ")),
                "it does when they connect; until then all their snapshots stay",
            ),
        }
    })
}

fn versions(facts: &Facts) -> Finding {
    const ID: &str = "cluster-versions";
    judge(ID, &facts.health, AWAY, |(health, _)| {
        match health.versions.as_slice() {
            [] => Finding::unknown(ID, "no cluster has said its version", "see clusters-connected"),
            [one] if one.version == health.version => {
                Finding::good(ID, format!("all clusters run the hub's version, {}", one.version))
            }
            several => {
                let counts: Vec<String> = several
                    .iter()
                    .map(|of| format!("{} run {}", of.clusters, of.version))
                    .collect();
                Finding::note(
                    ID,
                    format!(
                        "the hub is version {}; of the clusters {}",
                        health.version,
                        counts.join(", ")
                    ),
                    "upgrade the clusters after the hub (docs/upgrade.md)",
                )
            }
        }
    })
}

fn verdict(facts: &Facts) -> Finding {
    const ID: &str = "backed-up";
    judge(ID, &facts.status, AWAY, |status| match status.verdict.as_str() {
        "safe" => Finding::good(ID, status.reason.clone()),
        "not-safe" => Finding::bad(ID, status.reason.clone(), "fleet status"),
        _ => Finding::unknown(ID, status.reason.clone(), "fleet status"),
    })
}

fn paused(facts: &Facts) -> Finding {
    const ID: &str = "maintenance";
    judge(ID, &facts.status, AWAY, |status| match &status.pause {
        None => Finding::good(ID, "maintenance is not paused"),
        Some(pause) => Finding::note(
            ID,
            format!("maintenance is paused by {}: {}", pause.who, pause.reason),
            "fleet resume",
        ),
    })
}

#[cfg(test)]
#[path = "hub_tests.rs"]
mod tests;
