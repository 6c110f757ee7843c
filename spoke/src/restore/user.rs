//! Who a restore runs as: the security context of its own spec, or that of the backup. Pure.

use crds::ResticBackup;
use crds::conditions::reasons;
use k8s_openapi::api::core::v1::PodSecurityContext;

use super::Wait;
use super::validate::{Target, Valid};
use crate::pod::runs_as_root;

/// The security context, to be laid over the defaults.
///
/// # Errors
/// That of the backup cannot be read.
pub(super) fn security(
    valid: &Valid,
    backup: Option<&ResticBackup>,
) -> Result<Option<PodSecurityContext>, Wait> {
    let security = match &valid.job.security {
        Some(own) => Some(own.clone()),
        None => inherited(backup)?.map(|security| match valid.target {
            Target::New(_) => security,
            // The kubelet would change group and mode of all files of the application that uses the claim.
            Target::Existing(_) => unchanging(security),
        }),
    };
    Ok(match security {
        Some(security) if valid.dry_run => Some(unchanging(security)),
        security => security,
    })
}

/// That of the backup, unless it is root's: root is an explicit choice of each restore.
fn inherited(backup: Option<&ResticBackup>) -> Result<Option<PodSecurityContext>, Wait> {
    let config = backup.and_then(|backup| backup.spec.job_config.as_ref());
    let security = config.map(|config| config.parsed_security_context());
    let security = security.transpose().map_err(|error| Wait {
        reason: reasons::INVALID_SPEC,
        message: format!(
            "the ResticBackup cannot be read: {error}; correct it, or set spec.jobConfig.securityContext of the restore"
        ),
    })?;
    Ok(security.flatten().filter(|security| !runs_as_root(security)))
}

/// The same groups, without the change of the volume that an fsGroup is.
fn unchanging(security: PodSecurityContext) -> PodSecurityContext {
    let mut groups = security.supplemental_groups.unwrap_or_default();
    groups.extend(security.fs_group);
    PodSecurityContext {
        fs_group: None,
        fs_group_change_policy: None,
        supplemental_groups: (!groups.is_empty()).then_some(groups),
        ..security
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::restore::validate::validate;
    use crate::world::Key;

    fn of(backup: Value, restore: Value) -> Value {
        let config = |security: Value| match security {
            Value::Null => json!({}),
            security => json!({ "securityContext": security }),
        };
        let backup = serde_json::from_value(json!({
            "apiVersion": "backup.resticbackup.io/v1alpha1", "kind": "ResticBackup", "metadata": { "name": "orders" },
            "spec": { "repositoryRef": { "name": "nas" }, "schedule": "@daily", "source": { "pvc": { "claimName": "d" } },
                      "jobConfig": config(backup) },
        }))
        .unwrap();
        let mut spec =
            json!({ "backupRef": { "name": "orders" }, "target": { "pvc": { "claimName": "back" } } });
        let own = restore.as_object().unwrap().clone();
        spec.as_object_mut().unwrap().extend(own);
        let restore = serde_json::from_value(json!({
            "apiVersion": "backup.resticbackup.io/v1alpha1", "kind": "ResticRestore",
            "metadata": { "name": "r", "namespace": "shop" }, "spec": spec,
        }))
        .unwrap();
        let valid = validate(&Key::new("shop", "r"), &restore).unwrap();
        serde_json::to_value(security(&valid, Some(&backup)).unwrap()).unwrap()
    }

    #[test]
    fn a_restore_runs_as_the_backup_does_unless_it_says_otherwise() {
        let backup = json!({ "runAsUser": 999, "runAsGroup": 998, "fsGroup": 997 });
        let new = json!({ "target": { "newPVC": { "name": "n" } } });
        assert_eq!(of(backup.clone(), new), backup);
        assert_eq!(
            of(backup.clone(), json!({})),
            json!({ "runAsUser": 999, "runAsGroup": 998, "supplementalGroups": [997] }),
            "the files of an existing claim keep their group"
        );
        let own = json!({ "jobConfig": { "securityContext": { "runAsUser": 1, "fsGroup": 2 } } });
        assert_eq!(of(backup, own), json!({ "runAsUser": 1, "fsGroup": 2 }));
        assert_eq!(of(Value::Null, json!({})), Value::Null);
    }

    #[test]
    fn root_has_to_be_asked_for_in_the_restore() {
        for root in [json!({ "runAsUser": 0 }), json!({ "runAsNonRoot": false })] {
            assert_eq!(of(root.clone(), json!({})), Value::Null, "{root}");
            let own = json!({ "jobConfig": { "securityContext": root } });
            assert_eq!(of(Value::Null, own), root);
        }
    }

    #[test]
    fn a_dry_run_changes_no_group_of_a_volume() {
        let own = json!({ "options": { "dryRun": true },
                          "jobConfig": { "securityContext": { "fsGroup": 2, "supplementalGroups": [7] } } });
        assert_eq!(of(Value::Null, own), json!({ "supplementalGroups": [7, 2] }));
    }
}
