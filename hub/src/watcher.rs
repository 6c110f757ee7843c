//! Whether the hub itself is well: its store, its certificates, the versions of its spokes.

use std::collections::BTreeMap;

use proto::time::from_unix_millis;
use proto::v1::{CertificateEnd, HealthResponse, Trouble, VersionCount};

use crate::access::{Person, Verb};
use crate::hub::Hub;
use crate::seen::Seen;
use crate::store::collect::DAY;
use crate::{Millis, Moment, now};

/// A certificate that ends sooner is named.
const ENDS_SOON: Millis = 14 * DAY;
/// A store that was not copied for longer is named.
const COPIED: Millis = 7 * DAY;

/// What is looked at.
#[derive(Clone, Debug)]
struct Facts {
    now: Millis,
    store_well: bool,
    copied: Result<Option<Millis>, String>,
    /// When each ends; `None` for one that cannot be read.
    certificates: Vec<(&'static str, Option<Millis>)>,
    /// Clusters by the version of their spoke.
    versions: BTreeMap<String, u64>,
}

/// The answer for a person, with the clusters that are seen.
pub async fn health(hub: &Hub, person: &Person) -> HealthResponse {
    let sight = person.sight(Verb::See);
    let inventory = hub.snapshot();
    let mut versions: BTreeMap<String, u64> = BTreeMap::new();
    for member in Seen::new(&inventory, &sight).members() {
        if !member.facts.version.is_empty() {
            *versions.entry(member.facts.version.clone()).or_default() += 1;
        }
    }
    drop(inventory);
    let facts = Facts {
        now: now(),
        store_well: hub.store().is_well(),
        copied: hub.store().last_copy().await.map_err(|error| error.to_string()),
        certificates: hub.files.certificates(),
        versions,
    };
    let mut counts: Vec<VersionCount> = facts
        .versions
        .iter()
        .map(|(version, clusters)| VersionCount {
            version: version.clone(),
            clusters: *clusters,
        })
        .collect();
    counts.sort_by_key(|count| std::cmp::Reverse(count.clusters));
    let ends = |(name, ends): &(&'static str, Option<Millis>)| CertificateEnd {
        name: (*name).to_owned(),
        ends: ends.map(from_unix_millis),
    };
    HealthResponse {
        as_of: Some(from_unix_millis(facts.now)),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        started: Some(from_unix_millis(facts.now - Moment::now().steady)),
        epoch: hub.epoch,
        troubles: troubles(&facts),
        store_well: facts.store_well,
        store_bytes: hub.files.store_bytes(),
        store_copied: facts.copied.ok().flatten().map(from_unix_millis),
        sessions: count(hub.metrics.sessions.get()),
        watches: count(hub.metrics.watches.get()),
        versions: counts,
        certificates: facts.certificates.iter().map(ends).collect(),
    }
}

fn count(gauge: i64) -> u64 {
    u64::try_from(gauge).unwrap_or_default()
}

/// What is wrong, worst first. Pure.
fn troubles(facts: &Facts) -> Vec<Trouble> {
    let trouble = |what: &str, text: String, next: &str| Trouble {
        what: what.to_owned(),
        text,
        next: next.to_owned(),
    };
    let mut troubles = Vec::new();
    if !facts.store_well {
        let text = "the last write to the store was not kept: what happens now is lost with a restart";
        troubles.push(trouble(
            "store",
            text.to_owned(),
            "look at the volume of the hub: full, or read-only?",
        ));
    }
    for (name, ends) in &facts.certificates {
        let text = match ends.map(|ends| ends - facts.now) {
            None => format!("the certificate of {name} cannot be read: when it ends is not known"),
            Some(ENDS_SOON..) => continue,
            Some(..=0) => format!("the certificate of {name} has ended"),
            Some(left) => format!("the certificate of {name} ends in {} days", left / DAY),
        };
        troubles.push(trouble(
            "certificate",
            text,
            "renew it; fleet clusters rotate-authority for the hub's own authority",
        ));
    }
    match facts.copied {
        Err(ref error) => {
            let text = format!("when the hub's store was last copied cannot be read: {error}");
            troubles.push(trouble("copy", text, "look at the log and the volume of the hub"));
        }
        Ok(None) => {
            let text = "the hub's store was never copied: locks, plans and the audit exist once".to_owned();
            troubles.push(trouble("copy", text, "fleet hub backup"));
        }
        Ok(Some(at)) if facts.now - at > COPIED => {
            let text = format!(
                "the last copy of the hub's store is {} days old",
                (facts.now - at) / DAY
            );
            troubles.push(trouble("copy", text, "fleet hub backup"));
        }
        Ok(Some(_)) => {}
    }
    let own = env!("CARGO_PKG_VERSION");
    let others: u64 = facts
        .versions
        .iter()
        .filter(|(version, _)| *version != own)
        .map(|(_, n)| n)
        .sum();
    if others > 0 {
        let text = format!("{others} clusters run another version than the hub ({own})");
        troubles.push(trouble("versions", text, "fleet clusters"));
    }
    troubles
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_is_named_worst_first() {
        let well = Facts {
            now: 100 * DAY,
            store_well: true,
            copied: Ok(Some(99 * DAY)),
            certificates: vec![("hub", Some(200 * DAY))],
            versions: BTreeMap::from([(env!("CARGO_PKG_VERSION").to_owned(), 3)]),
        };
        let named = |facts: &Facts| -> Vec<String> { troubles(facts).into_iter().map(|t| t.what).collect() };
        assert_eq!(named(&well), [""; 0]);
        let old = Facts {
            versions: BTreeMap::from([("0.0.1".to_owned(), 2)]),
            copied: Ok(Some(90 * DAY)),
            ..well.clone()
        };
        assert_eq!(named(&old), ["copy", "versions"]);
        let bad = Facts {
            store_well: false,
            copied: Ok(None),
            certificates: vec![
                ("hub", Some(113 * DAY)),
                ("clients", Some(114 * DAY)),
                ("authority", Some(99 * DAY)),
            ],
            ..well.clone()
        };
        assert_eq!(named(&bad), ["store", "certificate", "certificate", "copy"]);
        assert!(troubles(&bad)[2].text.contains("has ended"));
        // What could not be read is neither well nor absent.
        let unknown = Facts {
            copied: Err("disk I/O error".to_owned()),
            certificates: vec![("hub", None)],
            ..well
        };
        let texts: Vec<String> = troubles(&unknown).into_iter().map(|t| t.text).collect();
        assert!(texts[0].contains("hub cannot be read"), "{texts:?}");
        assert!(
            texts[1].contains("disk I/O error") && !texts[1].contains("never"),
            "{texts:?}"
        );
    }
}
