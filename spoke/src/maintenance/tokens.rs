//! The highest fencing token that this cluster has seen for a repository, kept in a Kubernetes Lease before anything is
//! done under it. A hub whose store was restored from a backup may grant a token again: it is refused here.

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde_json::json;

use crate::apply::{Applier, ApplyError};
use crate::world::Key;

/// Highest token, as an annotation: a Lease's own counter has 32 bits.
const TOKEN: &str = "backup.resticbackup.io/highest-token";
const OPERATION: &str = "backup.resticbackup.io/operation";

/// Takes a token for an operation. A token comes back when it was seen before and is not below this one, the same
/// operation's excepted.
///
/// # Errors
/// When it could not be made durable.
pub async fn claim(
    applier: &Applier,
    namespace: &str,
    restic_id: &str,
    token: u64,
    operation: &str,
) -> Result<Option<u64>, ApplyError> {
    let key = Key::new(namespace, name("fleet-token", restic_id));
    let annotations = [
        (TOKEN.to_owned(), token.to_string()),
        (OPERATION.to_owned(), operation.to_owned()),
    ];
    let Some(present) = applier.get::<Lease>(&key).await? else {
        let lease = Lease {
            metadata: ObjectMeta {
                name: Some(key.name.to_string()),
                namespace: Some(key.namespace.to_string()),
                annotations: Some(annotations.into()),
                ..ObjectMeta::default()
            },
            spec: Some(LeaseSpec {
                holder_identity: Some(operation.to_owned()),
                ..LeaseSpec::default()
            }),
        };
        applier.create(&lease).await?;
        return Ok(None);
    };
    let seen = present.metadata.annotations.as_ref();
    let value = |name: &str| seen.and_then(|a| a.get(name)).cloned().unwrap_or_default();
    let highest: u64 = value(TOKEN).parse().unwrap_or_default();
    match token.cmp(&highest) {
        std::cmp::Ordering::Less => Ok(Some(highest)),
        std::cmp::Ordering::Equal => Ok((value(OPERATION) != operation).then_some(highest)),
        std::cmp::Ordering::Greater => {
            // The version makes it fail when another replica was quicker.
            let patch = json!({
                "metadata": { "resourceVersion": present.metadata.resource_version,
                              "annotations": { TOKEN: token.to_string(), OPERATION: operation } },
                "spec": { "holderIdentity": operation },
            });
            applier.merge::<Lease>(&key, &patch).await?;
            Ok(None)
        }
    }
}

/// The highest token that this cluster has seen for a repository; 0 for none.
///
/// # Errors
/// When it could not be read.
pub async fn highest(applier: &Applier, namespace: &str, restic_id: &str) -> Result<u64, ApplyError> {
    let key = Key::new(namespace, name("fleet-token", restic_id));
    let lease = applier.get::<Lease>(&key).await?;
    let annotations = lease.and_then(|lease| lease.metadata.annotations);
    let token = annotations.and_then(|a| a.get(TOKEN)?.parse().ok());
    Ok(token.unwrap_or_default())
}

/// A Lease's name for a repository.
pub(super) fn name(prefix: &str, restic_id: &str) -> String {
    let id: String = restic_id
        .chars()
        .filter(char::is_ascii_hexdigit)
        .take(32)
        .collect();
    format!("{prefix}-{id}")
}
