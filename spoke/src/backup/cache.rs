//! The claim on which restic's cache of a backup stays between runs. Pure.

use std::collections::BTreeMap;

use crds::cache::Cache;
use crds::conditions::reasons;
use crds::names;
use k8s_openapi::api::core::v1::{
    PersistentVolumeClaim, PersistentVolumeClaimSpec, VolumeResourceRequirements,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::locate::Surroundings;
use super::source::Wanted;
use super::validate::Invalid;
use crate::pod::guest::Guest;
use crate::pod::{JobSettings, runs_as_root};
use crate::runs::{self, Unusable};
use crate::world::Key;

/// Field that names it.
pub const FIELD: &str = "spec.jobConfig.cache.claimName";

/// The claim of a cache.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CacheClaim {
    pub claim: String,
    /// Size and class, where it is made.
    made: Option<(String, Option<String>)>,
}

impl CacheClaim {
    /// What `spec.jobConfig.cache` asks for.
    ///
    /// # Errors
    /// restic could not write to it, or it is the source.
    pub fn parse(key: &Key, job: &JobSettings, source: &Wanted) -> Result<Option<CacheClaim>, Invalid> {
        let Some(cache) = &job.cache else {
            return Ok(None);
        };
        let claim = match cache {
            Cache::Claim(claim) => CacheClaim {
                claim: claim.clone(),
                made: None,
            },
            Cache::Made { size, class } => CacheClaim {
                claim: names::backup_cache(&key.name),
                made: Some((size.clone(), class.clone())),
            },
        };
        let is_source = match source {
            Wanted::Claim(name) => *name == claim.claim,
            Wanted::PodVolume(_) | Wanted::Exec { .. } | Wanted::Custom(_) | Wanted::Command { .. } => false,
        };
        let mut brought = source.guest().into_iter().flat_map(Guest::claims);
        if is_source || brought.any(|(name, _)| name == claim.claim) {
            return Err(Invalid::Cache(same(&claim.claim)));
        }
        let security = job.security.clone().unwrap_or_default();
        let mut claims = source.guest().into_iter().flat_map(Guest::claims);
        let writes = claims.any(|(_, written)| written);
        if writes && security.fs_group.is_none() && !runs_as_root(&security) {
            return Err(Invalid::Cache(
                ": the template of spec.source writes to a claim, so the volumes of the pod are given to no group, and restic \
                 could not write its cache; set spec.jobConfig.securityContext.fsGroup, which gives that claim to a group as \
                 well, or remove the cache"
                    .to_owned(),
            ));
        }
        Ok(Some(claim))
    }

    /// The claim to be made, with metadata by its name. It belongs to the backup.
    #[must_use]
    pub fn made(&self, metadata: impl FnOnce(&str) -> ObjectMeta) -> Option<PersistentVolumeClaim> {
        let (size, class) = self.made.clone()?;
        Some(PersistentVolumeClaim {
            metadata: metadata(&self.claim),
            spec: Some(PersistentVolumeClaimSpec {
                access_modes: Some(vec!["ReadWriteOnce".to_owned()]),
                storage_class_name: class,
                resources: Some(VolumeResourceRequirements {
                    requests: Some(BTreeMap::from([("storage".to_owned(), Quantity(size))])),
                    ..VolumeResourceRequirements::default()
                }),
                ..PersistentVolumeClaimSpec::default()
            }),
            ..PersistentVolumeClaim::default()
        })
    }

    /// Whether a run may mount it. One that has no volume yet gets it with the first run.
    ///
    /// # Errors
    /// What is waited for, or has to change.
    pub fn usable(&self, source: Option<&str>, found: &Surroundings) -> Result<(), Unusable> {
        if source == Some(&self.claim) {
            return Err(Unusable {
                reason: reasons::PVC_NOT_USABLE,
                message: format!("spec.jobConfig.cache{}", same(&self.claim)),
            });
        }
        match (found.claims.get(&self.claim), &self.made) {
            (Some(claim), None) => runs::writable(&self.claim, claim, FIELD),
            (None, None) => Err(runs::missing(&self.claim, FIELD)),
            // It is made, unless there is one of another owner: that is seen when it is written.
            (_, Some(_)) => Ok(()),
        }
    }
}

fn same(claim: &str) -> String {
    format!(": PersistentVolumeClaim {claim:?} is what is backed up; the cache needs another one")
}

#[cfg(test)]
#[path = "cache_tests.rs"]
mod tests;
