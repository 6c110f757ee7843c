//! Writes a retention policy that a resource controls. Nothing of it goes into the cache here: the policy's own actor is
//! woken by the watch, which must find it new.

use crds::GlobalRetentionPolicy;
use serde_json::{Map, Value, json};
use tracing::info;

use super::objects::key_of;
use super::refused::POLICY as KIND;
use super::{Cause, PolicyChange, Refused};
use crate::apply::ApplyError;
use crate::context::Context;
use crate::pod::stale;
use crate::world::Meta;

/// Makes the policy what is wanted, or deletes it.
pub(super) async fn change(context: &Context, change: PolicyChange) -> Result<(), Refused> {
    match change {
        PolicyChange::Apply(wanted) => {
            let written = apply(context, &wanted).await;
            written.map_err(|error| refused(key_of(&*wanted).name.to_string(), error))
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
    if present.spec == wanted.spec && !stale(Some(&meta), &wanted.metadata) {
        return Ok(());
    }
    let written = applier.apply(wanted).await?;
    // What somebody else has added is not the apply's to remove.
    if let Some(patch) = additions(&value(&written.spec), &value(&wanted.spec)) {
        let patch =
            json!({ "metadata": { "resourceVersion": written.metadata.resource_version }, "spec": patch });
        applier.merge::<GlobalRetentionPolicy>(&at, &patch).await?;
    }
    Ok(())
}

fn value(spec: &crds::retention::GlobalRetentionPolicySpec) -> Value {
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
