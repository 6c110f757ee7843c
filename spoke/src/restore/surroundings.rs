//! Whether everything is there that a restore names. Pure.

use std::sync::Arc;

use crds::conditions::reasons;
use crds::{ResticBackup, ResticRepository};
use k8s_openapi::api::core::v1::PodSecurityContext;

use super::select::Identity;
use super::target::{self, Claim};
use super::validate::{Origin, Target, Valid};
use super::{Observed, RestoreController, Wait, user};
use crate::consent::{self, Blocked};
use crate::kind::Input;
use crate::runs::JobWithPods;
use crate::site::Site;
use crate::world::Key;

/// What a restore needs of its surroundings.
pub(super) struct Ready {
    pub at: Key,
    pub repository: Arc<ResticRepository>,
    /// The backup that is referred to.
    pub backup: Option<Arc<ResticBackup>>,
    /// Image of the backup that is referred to, or the default.
    pub image: String,
    pub identity: Option<Identity>,
    /// Who the pod runs as.
    pub security: Option<PodSecurityContext>,
}

/// Finds it.
///
/// # Errors
/// What is waited for.
pub(super) fn find(
    site: &Site,
    input: &Input<'_, RestoreController>,
    observed: &Observed,
    valid: &Valid,
) -> Result<Ready, Wait> {
    let from = match &valid.origin {
        Origin::Backup(from) => Some(from),
        Origin::Repository(_) => None,
    };
    let Some(at) = observed.at.clone() else {
        let from = from.map(ToString::to_string).unwrap_or_default();
        return Err(Wait {
            reason: reasons::BACKUP_NOT_FOUND,
            message: format!(
                "ResticBackup {from} does not exist; create it, correct spec.backupRef, or name the repository in spec.repositoryRef"
            ),
        });
    };
    let (namespace, repository) = (&input.key.namespace, observed.repository.as_ref());
    let repository = consent::usable(&at, namespace, repository, observed.labels.as_deref())?.clone();
    if let Some(damage) = damage(&repository).filter(|_| valid.delete && !valid.dry_run) {
        return Err(damage);
    }
    let backup = observed.backup.as_ref();
    let image = image(site, backup.map(AsRef::as_ref))?;
    if let Some(secret) = &observed.key_in_hooks {
        return Err(Wait {
            reason: reasons::TEMPLATE_NOT_ALLOWED,
            message: format!(
                "a template of spec.hooks refers to Secret {secret:?}, which holds credentials of a repository: hooks get none of them"
            ),
        });
    }
    if let Claim::Wait(wait) = target::claim(&valid.target, input.uid(), observed.claim.as_deref()) {
        return Err(wait);
    }
    Ok(Ready {
        security: user::security(valid, backup.map(AsRef::as_ref))?,
        image,
        identity: from.zip(backup).map(|(from, b)| Identity::of(site, from, b)),
        at,
        repository,
        backup: observed.backup.clone(),
    })
}

/// What restic cannot read it takes for empty, and a deletion would follow that.
fn damage(repository: &ResticRepository) -> Option<Wait> {
    let damage = repository.status.as_ref()?.damage()?;
    Some(Wait {
        reason: reasons::REPOSITORY_DAMAGED,
        message: format!(
            "the repository is not as it should be, and spec.options.delete would delete files that it has lost: mend it, or remove the option ({})",
            damage.message
        ),
    })
}

impl From<Blocked> for Wait {
    fn from(blocked: Blocked) -> Wait {
        match blocked {
            Blocked::Wait { reason, message } => Wait { reason, message },
            Blocked::Refused { message } => Wait {
                reason: reasons::NAMESPACE_NOT_ALLOWED,
                message,
            },
        }
    }
}

fn image(site: &Site, backup: Option<&ResticBackup>) -> Result<String, Wait> {
    let image = backup.and_then(|backup| backup.spec.restic.as_ref()?.image.clone());
    let image = image.filter(|image| !image.is_empty());
    let image = image.unwrap_or_else(|| crds::RESTIC_IMAGE.to_owned());
    if !site.images.allows(&image) {
        return Err(Wait {
            reason: reasons::IMAGE_NOT_ALLOWED,
            message: site.images.refusal(&image),
        });
    }
    Ok(image)
}

/// What a Job needs and does not have any more, before any of its pods has started: the claim that this restore made,
/// or the consent of the repository's owner.
pub(super) fn lost(
    input: &Input<'_, RestoreController>,
    observed: &Observed,
    run: &JobWithPods,
    valid: &Valid,
) -> Option<Wait> {
    let mut pods = run.pods.iter();
    let began = pods.any(|(_, pod)| pod.started || pod.restic.is_some());
    if began || run.job.end.is_some() {
        return None;
    }
    if let Some(at) = observed.at.as_ref().filter(|_| observed.consent_ended) {
        return Some(Wait {
            reason: reasons::NAMESPACE_NOT_ALLOWED,
            message: format!(
                "ResticRepository {at} does not allow namespace {} any more",
                input.key.namespace
            ),
        });
    }
    let Target::New(new) = &valid.target else {
        return None;
    };
    if valid.dry_run {
        return None;
    }
    match target::claim(&valid.target, input.uid(), observed.claim.as_deref()) {
        Claim::Ready => None,
        Claim::Make => Some(Wait {
            reason: reasons::TARGET_EXISTS,
            message: format!(
                "PersistentVolumeClaim {:?} was deleted before the restore began; it is made again",
                new.name
            ),
        }),
        Claim::Wait(wait) => Some(wait),
    }
}
