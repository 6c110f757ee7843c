//! `jobConfig.cache`: where restic's cache stays between runs.

use kube::KubeSchema;
use serde::{Deserialize, Serialize};

/// A claim on which restic's cache stays from one run to the next. A run then reads only what is new of the repository's
/// index and snapshots, and not all of it again.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("has(self.claimName) != has(self.size)").message(ONE),
    validation = Rule::new("!has(self.storageClassName) || has(self.size)").message(CLASS),
    validation = Rule::new("!has(self.size) || !has(oldSelf.size) || (self.size == oldSelf.size && \
has(self.storageClassName) == has(oldSelf.storageClassName) && \
(!has(self.storageClassName) || self.storageClassName == oldSelf.storageClassName))").message(FIXED)
)]
pub struct JobCache {
    /// A PersistentVolumeClaim in the namespace of the resource. Backups that share one need ReadWriteMany to run at the same
    /// time on several nodes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub claim_name: Option<String>,
    /// Makes a claim of this size, resticbackup-NAME-cache with ReadWriteOnce, which is deleted with the backup.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64))]
    #[x_kube(validation = Rule::new("isQuantity(self)").message("size must be a quantity such as 10Gi"))]
    pub size: Option<String>,
    /// Class of the claim that is made; the cluster's default unless given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub storage_class_name: Option<String>,
}

const ONE: &str = "jobConfig.cache needs exactly one of claimName and size: name a claim that is there, or give the size of one to be made";
const CLASS: &str =
    "jobConfig.cache.storageClassName is that of a claim to be made: give its size too, or remove it";
const FIXED: &str = "size and storageClassName of jobConfig.cache cannot be changed, as the claim is made once: remove jobConfig.cache, delete the claim resticbackup-NAME-cache, and write it anew";
pub(crate) const ONLY_BACKUPS: &str =
    "jobConfig.cache is for ResticBackups: other pods keep their cache while they run; remove it";

/// A valid cache.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cache {
    /// A claim that is there, by its name.
    Claim(String),
    /// One that is made.
    Made { size: String, class: Option<String> },
}

impl JobCache {
    /// What it asks for.
    ///
    /// # Errors
    /// Why that is not clear.
    pub fn parse(&self) -> Result<Cache, &'static str> {
        match (&self.claim_name, &self.size) {
            (Some(_), None) if self.storage_class_name.is_some() => Err(CLASS),
            (Some(claim), None) => Ok(Cache::Claim(claim.clone())),
            (None, Some(size)) => Ok(Cache::Made {
                size: size.clone(),
                class: self.storage_class_name.clone(),
            }),
            _ => Err(ONE),
        }
    }
}

#[cfg(test)]
mod tests {
    use kube::CustomResourceExt as _;
    use kube::core::cel::Validator;
    use serde_json::{Value, json};

    use super::*;

    fn part(of: &Value, old: Option<&Value>) -> bool {
        let crd = serde_json::to_value(crate::ResticBackup::crd()).unwrap();
        let path =
            "/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties/jobConfig/properties/cache";
        Validator::new()
            .validate(crd.pointer(path).unwrap(), of, old)
            .is_ok()
    }

    #[test]
    fn a_cache_is_a_claim_or_the_size_of_one() {
        for (cache, taken) in [
            (json!({ "claimName": "cache" }), true),
            (json!({ "size": "10Gi" }), true),
            (json!({ "size": "10Gi", "storageClassName": "fast" }), true),
            (json!({}), false),
            (json!({ "claimName": "cache", "size": "10Gi" }), false),
            (json!({ "claimName": "cache", "storageClassName": "fast" }), false),
            (json!({ "storageClassName": "fast" }), false),
        ] {
            let parsed: JobCache = serde_json::from_value(cache.clone()).unwrap();
            assert_eq!(
                (part(&cache, None), parsed.parse().is_ok()),
                (taken, taken),
                "{cache}"
            );
        }
    }

    #[test]
    fn the_claim_that_was_made_stays_as_it_is() {
        let (old, wider) = (json!({ "size": "1Gi" }), json!({ "size": "2Gi" }));
        assert!(part(&old, Some(&old)) && !part(&wider, Some(&old)));
        assert!(!part(
            &json!({ "size": "1Gi", "storageClassName": "fast" }),
            Some(&old)
        ));
        assert!(
            part(&json!({ "claimName": "own" }), Some(&old))
                && part(&old, Some(&json!({ "claimName": "own" })))
        );
    }

    #[test]
    fn only_backups_have_one() {
        let cached = json!({ "cache": { "size": "1Gi" } });
        for crd in [crate::ResticRestore::crd(), crate::GlobalRetentionPolicy::crd()] {
            let crd = serde_json::to_value(crd).unwrap();
            let path = "/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties/jobConfig";
            let schema = crd.pointer(path).unwrap();
            assert!(Validator::new().validate(schema, &cached, None).is_err());
            assert!(Validator::new().validate(schema, &json!({}), None).is_ok());
        }
    }
}
