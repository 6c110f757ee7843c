//! Writes a retention policy that a resource controls. Nothing of it goes into the cache here: the policy's own actor is
//! woken by the watch, which must find it new.

use crds::retention::GlobalRetentionPolicySpec;
use crds::{GlobalRetentionPolicy, names};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ManagedFieldsEntry;
use serde_json::{Map, Value, json};
use tracing::info;

use super::objects::key_of;
use super::refused::POLICY as KIND;
use super::{Cause, PolicyChange, Refused};
use crate::apply::{Applier, ApplyError, MANAGER};
use crate::context::Context;
use crate::pod::stale;
use crate::world::{Key, Meta};

/// Makes the policy what is wanted, suspends or deletes it.
pub(super) async fn change(context: &Context, change: PolicyChange) -> Result<(), Refused> {
    match change {
        PolicyChange::Apply(wanted) => {
            let written = apply(context, &wanted).await;
            written.map_err(|error| refused(key_of(&*wanted).name.to_string(), error))
        }
        PolicyChange::Suspend { at, uid } => {
            // Without its mark the next apply looks at it again.
            let patch = json!({ "metadata": { "uid": uid, "annotations": { names::ANNOTATION_APPLIED: null } },
                                "spec": { "suspend": true } });
            let written = context.applier.merge::<GlobalRetentionPolicy>(&at, &patch).await;
            match written {
                Ok(_) | Err(ApplyError::Gone(_) | ApplyError::Conflict(_)) => Ok(()),
                Err(error) => Err(refused(at.name.to_string(), error)),
            }
        }
        PolicyChange::Delete { at, uid } => {
            let deleted = context.applier.delete::<GlobalRetentionPolicy>(&at, &uid).await;
            deleted.map_err(|error| refused(at.name.to_string(), error))
        }
    }
}

fn refused(name: String, error: ApplyError) -> Refused {
    Refused {
        kind: KIND,
        name,
        cause: Cause::Write(error),
    }
}

async fn apply(context: &Context, wanted: &GlobalRetentionPolicy) -> Result<(), ApplyError> {
    let (applier, at) = (&context.applier, key_of(wanted));
    let owner = Meta::of(&wanted.metadata).owner;
    let Some(present) = context.world.policies.get(&at) else {
        // Not an apply: one that somebody else has made a moment ago would be taken over.
        return match applier.create(wanted).await {
            Ok(_) => {
                info!(policy = %at, "a retention policy was created");
                Ok(())
            }
            // The cache gets it, and then it is looked at again.
            Err(ApplyError::Conflict(_)) => Ok(()),
            Err(error) => Err(error),
        };
    };
    let meta = Meta::of(&present.metadata);
    if meta.owner != owner || meta.deleting {
        return Ok(());
    }
    let stale = stale(Some(&meta), &wanted.metadata);
    if !stale && is_as(&present.spec, &wanted.spec) {
        return Ok(());
    }
    let written = write(applier, &at, wanted, &present, stale).await;
    match written {
        // Another object has taken its name, or it was changed meanwhile: the cache gets it, and then it is looked at again.
        Err(ApplyError::Conflict(_) | ApplyError::Gone(_)) => Ok(()),
        written => written,
    }
}

async fn write(
    applier: &Applier,
    at: &Key,
    wanted: &GlobalRetentionPolicy,
    present: &GlobalRetentionPolicy,
    stale: bool,
) -> Result<(), ApplyError> {
    // A suspension that came with the backup's ends with it. Before the apply, whose mark says that all is done.
    if stale && present.spec.suspend && !wanted.spec.suspend {
        let Some(now) = applier.get::<GlobalRetentionPolicy>(at).await? else {
            return Ok(());
        };
        if !is_suspended_by_others(now.metadata.managed_fields.as_deref()) {
            // With the rules that are wanted, in one write: under the old ones it must not run for a moment.
            let mut spec = additions(&value(&now.spec), &value(&wanted.spec)).unwrap_or_else(|| json!({}));
            spec["suspend"] = Value::Null;
            let patch = json!({ "metadata": { "uid": present.metadata.uid, "resourceVersion": now.metadata.resource_version },
                                "spec": spec });
            applier.merge::<GlobalRetentionPolicy>(at, &patch).await?;
        }
    }
    let mut manifest = wanted.clone();
    manifest.metadata.uid.clone_from(&present.metadata.uid);
    let written = applier.apply(&manifest).await?;
    // What somebody else has added is not the apply's to remove.
    let wanted = kept(&written.spec, &wanted.spec);
    if let Some(patch) = additions(&value(&written.spec), &value(&wanted)) {
        let patch =
            json!({ "metadata": { "resourceVersion": written.metadata.resource_version }, "spec": patch });
        applier.merge::<GlobalRetentionPolicy>(at, &patch).await?;
    }
    Ok(())
}

/// Whether the policy is what is wanted. A person may suspend it besides.
pub fn is_as(present: &GlobalRetentionPolicySpec, wanted: &GlobalRetentionPolicySpec) -> bool {
    *present == kept(present, wanted)
}

/// What is wanted, with the suspension that is there.
fn kept(
    present: &GlobalRetentionPolicySpec,
    wanted: &GlobalRetentionPolicySpec,
) -> GlobalRetentionPolicySpec {
    GlobalRetentionPolicySpec {
        suspend: wanted.suspend || present.suspend,
        ..wanted.clone()
    }
}

/// Whether anybody but the operator has set spec.suspend. What is not known counts as a person's.
fn is_suspended_by_others(entries: Option<&[ManagedFieldsEntry]>) -> bool {
    let sets = |entry: &&ManagedFieldsEntry| {
        let fields = entry.fields_v1.as_ref();
        fields.is_some_and(|fields| fields.0.pointer("/f:spec/f:suspend").is_some())
    };
    let mut owners = entries.unwrap_or_default().iter().filter(sets).peekable();
    owners.peek().is_none() || owners.any(|entry| entry.manager.as_deref() != Some(MANAGER))
}

fn value(spec: &GlobalRetentionPolicySpec) -> Value {
    serde_json::to_value(spec).unwrap_or_default()
}

/// A merge patch that makes `present` what is wanted: fields that are not wanted become null. Nothing if they are equal.
fn additions(present: &Value, wanted: &Value) -> Option<Value> {
    if present == wanted {
        return None;
    }
    let (Value::Object(present), Value::Object(wanted)) = (present, wanted) else {
        return Some(wanted.clone());
    };
    let mut patch = Map::new();
    for (name, value) in present {
        let change = match wanted.get(name) {
            Some(wanted) => additions(value, wanted),
            None => Some(Value::Null),
        };
        patch.extend(change.map(|change| (name.clone(), change)));
    }
    let missing = wanted.iter().filter(|(name, _)| !present.contains_key(*name));
    patch.extend(missing.map(|(name, value)| (name.clone(), value.clone())));
    Some(Value::Object(patch))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::context::test_context_on;
    use crate::testing::{Action, ApiServer, Fault};

    #[tokio::test]
    async fn a_suspension_is_not_lifted_before_the_wanted_rules_are_in() {
        let server = ApiServer::new();
        let context = test_context_on(server.client());
        let policy = |daily: u32, suspend: bool| {
            json!({
                "apiVersion": "backup.resticbackup.io/v1alpha1", "kind": "GlobalRetentionPolicy",
                "metadata": { "name": "p", "namespace": "default" },
                "spec": { "repositoryRef": { "name": "nas" }, "schedule": "@daily", "suspend": suspend,
                          "policies": [{ "selector": {}, "retention": { "keepDaily": daily } }] },
            })
        };
        let mut object = policy(1, true);
        object["metadata"]["managedFields"] = json!([{ "manager": MANAGER, "operation": "Apply",
            "apiVersion": "backup.resticbackup.io/v1alpha1", "fieldsType": "FieldsV1",
            "fieldsV1": { "f:spec": { "f:suspend": {} } } }]);
        let present: GlobalRetentionPolicy = serde_json::from_value(server.put(&object)).unwrap();
        let wanted: GlobalRetentionPolicy = serde_json::from_value(policy(7, false)).unwrap();
        server
            .fault(Fault::new(Action::Refuse(500, "down".to_owned())).on("apply", "globalretentionpolicies"));
        let written = write(&context.applier, &key_of(&wanted), &wanted, &present, true).await;
        assert!(written.is_err());
        let stored: GlobalRetentionPolicy = server.get("default", "p").unwrap();
        assert!(!stored.spec.suspend);
        assert_eq!(stored.spec, wanted.spec);
    }

    #[test]
    fn a_suspension_that_only_the_operator_has_set_is_its_own() {
        let entry = |manager: &str, fields: Value| {
            let entry = json!({ "manager": manager, "operation": "Update", "fieldsV1": fields });
            serde_json::from_value::<ManagedFieldsEntry>(entry).unwrap()
        };
        let ours = entry(MANAGER, json!({ "f:spec": { "f:suspend": {} } }));
        let persons = entry("kubectl-edit", json!({ "f:spec": { "f:suspend": {} } }));
        let other = entry("kubectl-edit", json!({ "f:spec": { "f:schedule": {} } }));
        assert!(!is_suspended_by_others(Some(&[ours.clone(), other.clone()])));
        assert!(is_suspended_by_others(Some(&[ours, persons])));
        assert!(is_suspended_by_others(Some(&[other])) && is_suspended_by_others(None));
    }

    #[test]
    fn what_others_have_added_is_taken_out_again() {
        let wanted = json!({ "schedule": "@daily", "guard": { "maxRemovedPercent": 30 }, "policies": [1] });
        assert_eq!(additions(&wanted, &wanted), None);
        let present = json!({ "schedule": "@daily", "guard": { "maxRemovedPercent": 30, "more": 1 }, "policies": [1, 2],
                              "notifications": {} });
        assert_eq!(
            additions(&present, &wanted),
            Some(json!({ "guard": { "more": null }, "policies": [1], "notifications": null }))
        );
    }
}
