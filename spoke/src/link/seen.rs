//! The hub that this cluster has seen, kept in a Kubernetes Lease beside the tokens: incarnation of its store and highest
//! epoch. A hub that runs on an older copy of its store is known by it.

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde_json::json;

use crate::apply::{Applier, ApplyError};
use crate::world::Key;

const NAME: &str = "fleet-hub-seen";
const INCARNATION: &str = "backup.resticbackup.io/hub-incarnation";
const EPOCH: &str = "backup.resticbackup.io/hub-epoch";

/// A hub as it was seen; an empty incarnation if none was.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SeenHub {
    pub incarnation: String,
    pub epoch: u64,
}

impl SeenHub {
    /// What is to be remembered after a hub has introduced itself; `None` if that is known already. The epoch of one store
    /// never falls.
    #[must_use]
    pub fn after(&self, incarnation: &str, epoch: u64) -> Option<SeenHub> {
        let higher = incarnation != self.incarnation || epoch > self.epoch;
        (!incarnation.is_empty() && higher).then(|| SeenHub {
            incarnation: incarnation.to_owned(),
            epoch,
        })
    }
}

/// What is remembered.
///
/// # Errors
/// When it cannot be read.
pub async fn read(applier: &Applier, namespace: &str) -> Result<SeenHub, ApplyError> {
    let present = applier.get::<Lease>(&Key::new(namespace, NAME)).await?;
    let annotations = present
        .and_then(|lease| lease.metadata.annotations)
        .unwrap_or_default();
    Ok(SeenHub {
        incarnation: annotations.get(INCARNATION).cloned().unwrap_or_default(),
        epoch: annotations
            .get(EPOCH)
            .and_then(|text| text.parse().ok())
            .unwrap_or_default(),
    })
}

/// Remembers.
///
/// # Errors
/// When it could not be made durable.
pub async fn write(applier: &Applier, namespace: &str, seen: &SeenHub) -> Result<(), ApplyError> {
    let key = Key::new(namespace, NAME);
    let annotations = [
        (INCARNATION.to_owned(), seen.incarnation.clone()),
        (EPOCH.to_owned(), seen.epoch.to_string()),
    ];
    if applier.get::<Lease>(&key).await?.is_some() {
        let patch = json!({ "metadata": { "annotations": std::collections::BTreeMap::from(annotations) } });
        return applier.merge::<Lease>(&key, &patch).await.map(drop);
    }
    let lease = Lease {
        metadata: ObjectMeta {
            name: Some(key.name.to_string()),
            namespace: Some(key.namespace.to_string()),
            annotations: Some(annotations.into()),
            ..ObjectMeta::default()
        },
        spec: Some(LeaseSpec::default()),
    };
    applier.create(&lease).await.map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_epoch_falls_only_with_another_store() {
        let seen = SeenHub {
            incarnation: "a".to_owned(),
            epoch: 5,
        };
        assert_eq!(seen.after("a", 5), None);
        assert_eq!(seen.after("a", 4), None, "a restored store");
        assert_eq!(seen.after("a", 6).unwrap().epoch, 6);
        assert_eq!(seen.after("b", 1).unwrap().epoch, 1);
        assert_eq!(seen.after("", 9), None, "a hub of an earlier version");
    }
}
