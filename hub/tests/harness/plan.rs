//! A run that ends with a plan.

use proto::plan::plan_hash;
use proto::v1::hub_message::Body as Told;
use proto::v1::spoke_message::Body;
use proto::v1::{LeaseRelease, OperationOutcome, PlanPart};

use super::{ID, Spoke};

/// What the plan of [`ends`] removes.
pub fn snapshot() -> String {
    "5".repeat(64)
}

/// Hash of that plan.
pub fn hash() -> String {
    plan_hash(ID, [snapshot().as_str()])
}

/// The run of operation "job" ends with a plan of one snapshot, which is sent in two parts.
pub async fn ends(spoke: &mut Spoke, token: u64, result: &str) {
    ends_with(spoke, token, result, &[]).await;
}

/// The same, of a snapshot with tags. Policies of clusters a and b took part.
pub async fn ends_with(spoke: &mut Spoke, token: u64, result: &str, tags: &[&str]) {
    ends_of(spoke, token, result, (tags, "p")).await;
}

/// The same, of an operation that belongs to the resource with this uid.
pub async fn ends_of(spoke: &mut Spoke, token: u64, result: &str, (tags, owner): (&[&str], &str)) {
    let policy = |source: &str| serde_json::json!({ "source": source, "generation": 1 });
    let document = serde_json::json!({ "plan": {
        "resticId": ID, "hash": hash(), "snapshots": 9, "remove": [{ "id": snapshot(), "tags": tags }],
        "policies": [policy("a/ns/p"), policy("b/ns/secret")],
        "left": [{ "key": "cluster/a", "left": 8 }],
    } });
    let data = document.to_string().into_bytes();
    let outcome = OperationOutcome {
        result: result.to_owned(),
        plan: hash(),
        ..OperationOutcome::default()
    };
    let release = LeaseRelease {
        operation: "job".to_owned(),
        restic_id: ID.to_owned(),
        token,
        outcome: Some(outcome),
        plan_bytes: data.len() as u64,
        policy: owner.to_owned(),
        ..LeaseRelease::default()
    };
    for (n, half) in data.chunks(data.len().div_ceil(2)).enumerate() {
        let part = PlanPart {
            operation: "job".to_owned(),
            restic_id: ID.to_owned(),
            token,
            offset: if n == 0 { 0 } else { data.len().div_ceil(2) as u64 },
            data: half.to_vec(),
        };
        spoke.say(Body::PlanPart(part)).await;
    }
    spoke.say(Body::LeaseRelease(release)).await;
    spoke
        .until("the release", |told| match told {
            Told::LeaseReleased(released) if released.token == token => Some(()),
            _ => None,
        })
        .await;
}
