//! Claims of the clusters: two pages without a backup, a new one, and exclusions of each sort. edge-7 reports none.

use hub::store::collect::{DAY, HOUR};
use proto::v1::spoke_message::Body;
use proto::v1::{Claim, ClaimsReport, NamespaceClaims};

use super::stage::ago;
use crate::harness::Spoke;

/// More than a page of the dashboard.
const OPEN: u64 = 56;
const GIB: u64 = 1 << 30;

fn claim(namespace: &str, name: &str, age: i64) -> Claim {
    Claim {
        namespace: namespace.to_owned(),
        name: name.to_owned(),
        created: ago(age),
        bytes: 20 * GIB,
        ..Claim::default()
    }
}

fn excluded(name: &str, reason: &str, until: Option<i64>) -> Claim {
    Claim {
        exclusion: reason.to_owned(),
        excluded_until: until.and_then(|ahead| ago(-ahead)),
        ..claim("shop", name, 90 * DAY)
    }
}

fn namespace(name: &str, claims: u64, covered: u64) -> NamespaceClaims {
    NamespaceClaims {
        namespace: name.to_owned(),
        claims,
        covered,
    }
}

pub async fn report(eu: &Spoke, us: &Spoke) {
    let mut open: Vec<Claim> = (0..OPEN)
        .map(|n| claim("ml", &format!("features-{n:02}"), 12 * DAY))
        .collect();
    open.extend([
        excluded("cache", "a cache, made anew by the build", None),
        excluded("import", "moves to the lake house", Some(20 * DAY)),
        excluded("ended", "was to be moved in spring", Some(-3 * DAY)),
        claim("shop", "fresh", 3 * HOUR),
        Claim {
            bytes: 0,
            created: None,
            exclusion_fault: "backup.resticbackup.io/exclude gives no reason".to_owned(),
            ..claim("shop", "sessions", DAY)
        },
    ]);
    let namespaces = vec![
        namespace("billing", 2, 2),
        namespace("ml", OPEN, 0),
        namespace("shop", 9, 4),
    ];
    let report = ClaimsReport {
        namespaces,
        open,
        cut: false,
    };
    eu.say(Body::ClaimsReport(report)).await;
    let report = ClaimsReport {
        namespaces: vec![namespace("crm", 3, 3)],
        ..ClaimsReport::default()
    };
    us.say(Body::ClaimsReport(report)).await;
}
