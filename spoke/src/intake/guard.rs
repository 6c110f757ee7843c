//! An object of one of our kinds, or what is known of it when this version cannot decode it. Unlike kube's guard this one
//! keeps the whole object: to which repository a policy is bound counts also when its rules cannot be read.

use std::borrow::Cow;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Resource;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer};

use super::{Broken, key};
use crate::world::{Key, Undecodable, slim};

/// A decoded object, or the record of one that does not decode.
#[derive(Clone, Debug)]
pub struct Guard<K> {
    pub object: Result<K, Undecodable>,
}

/// Key and object, or the record of one that does not decode.
pub(super) fn decode<K: Resource<DynamicType = ()>>(guard: Guard<K>) -> Result<(Key, K), Broken> {
    match guard.object {
        Ok(mut object) => {
            slim(object.meta_mut());
            Ok((key(&object), object))
        }
        Err(object) => {
            let (namespace, name) = (object.meta.namespace.as_deref(), object.meta.name.as_deref());
            let key = Key::new(namespace.unwrap_or_default(), name.unwrap_or_default());
            Err(Box::new((key, object)))
        }
    }
}

impl<'de, K: DeserializeOwned> Deserialize<'de> for Guard<K> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut raw = serde_json::Value::deserialize(deserializer)?;
        let object = match K::deserialize(&raw) {
            Ok(object) => Ok(object),
            Err(error) => {
                let meta = raw.get("metadata").unwrap_or(&serde_json::Value::Null);
                // Without metadata it is no object: the watch itself is broken.
                let mut meta = ObjectMeta::deserialize(meta).map_err(serde::de::Error::custom)?;
                slim(&mut meta);
                if let Some(fields) = raw.get_mut("metadata").and_then(serde_json::Value::as_object_mut) {
                    fields.remove("managedFields");
                }
                let error = error.to_string();
                Err(Undecodable { meta, error, raw })
            }
        };
        Ok(Guard { object })
    }
}

impl<K: Resource> Resource for Guard<K> {
    type DynamicType = K::DynamicType;
    type Scope = K::Scope;

    fn kind(dt: &Self::DynamicType) -> Cow<'_, str> {
        K::kind(dt)
    }

    fn group(dt: &Self::DynamicType) -> Cow<'_, str> {
        K::group(dt)
    }

    fn version(dt: &Self::DynamicType) -> Cow<'_, str> {
        K::version(dt)
    }

    fn plural(dt: &Self::DynamicType) -> Cow<'_, str> {
        K::plural(dt)
    }

    fn meta(&self) -> &ObjectMeta {
        match &self.object {
            Ok(object) => object.meta(),
            Err(broken) => &broken.meta,
        }
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        match &mut self.object {
            Ok(object) => object.meta_mut(),
            Err(broken) => &mut broken.meta,
        }
    }
}

#[cfg(test)]
mod tests {
    use crds::GlobalRetentionPolicy;
    use serde_json::json;

    use super::*;

    #[test]
    fn what_does_not_decode_is_kept_as_it_came() {
        let object = json!({
            "apiVersion": "backup.resticbackup.io/v1alpha1", "kind": "GlobalRetentionPolicy",
            "metadata": { "name": "p", "namespace": "shop", "uid": "u", "managedFields": [{}] },
            "spec": { "repositoryRef": { "name": "nas" }, "policies": "all" },
        });
        let guard: Guard<GlobalRetentionPolicy> = serde_json::from_value(object).unwrap();
        let broken = guard.object.unwrap_err();
        assert_eq!(broken.meta.uid.as_deref(), Some("u"));
        assert_eq!(broken.raw["spec"]["repositoryRef"]["name"], "nas");
        assert!(broken.raw["metadata"].get("managedFields").is_none());
    }
}
