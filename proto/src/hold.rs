//! Snapshots of one backup that nothing may remove for now.

use crate::v1::{RetentionPolicySpec, RetentionRule};

/// Why the snapshots of a suspicious backup stay.
pub const SUSPICIOUS: &str =
    "its source is suddenly far smaller than before, so all of its snapshots stay until that is accepted";

/// A part of a run that keeps every snapshot of a backup. It is a policy whose rules cannot be used: what its selector
/// matches stays, whatever others say, and readers of every version know that.
///
/// `cluster` is the name of the backup's cluster, `backup` its namespace and name as `shop/orders`, `uid` that of the
/// resource, and `why` one sentence for people.
#[must_use]
pub fn hold(cluster: &str, backup: &str, uid: &str, why: &str, rules_version: u32) -> RetentionPolicySpec {
    RetentionPolicySpec {
        // No policy has such a name.
        source: format!("{cluster}/{backup} (ResticBackup)"),
        uid: uid.to_owned(),
        rules: vec![RetentionRule {
            tags: vec![
                format!("fleet.cluster={cluster}"),
                format!("fleet.backup={backup}"),
            ],
            ..RetentionRule::default()
        }],
        rules_version,
        unclear: why.to_owned(),
        ..RetentionPolicySpec::default()
    }
}
