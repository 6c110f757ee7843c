//! The part with clients: the location Secret, the look at the repository, Events.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crds::conditions::{self, reasons, types};
use crds::{ResticRepository, ResticRepositoryStatus, names};
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Resource as _;
use tracing::{info, warn};

use super::plan::{Answer, Inputs};
use super::validate::Valid;
use super::{Reply, Report, RepositoryKind, unlock};
use crate::apply::ApplyError;
use crate::events::Severity;
use crate::kind::Kind as _;
use crate::link::Creations;
use crate::restic::{Failure, Restic};
use crate::secrets::{Credentials, PASSWORD_VARIABLE, REPOSITORY_VARIABLE, cluster};
use crate::world::{Key, MetaView};

impl RepositoryKind {
    /// Secret with location and credentials for the pods, as the manager itself uses them. Not the repository's own
    /// Secret: that may hold line breaks and keys which no pod is to see, and a URL may hold a password, so it never
    /// stands in a pod's spec. Credentials that cannot be used are left out: no pod starts then.
    pub(super) async fn publish_location(
        &self,
        key: &Key,
        repository: &ResticRepository,
        valid: &Valid,
    ) -> Result<(), ApplyError> {
        let name = names::repository_location(&key.name);
        let hash = cluster::mark(&self.context, key, repository);
        let at = Key::new(&key.namespace, &name);
        let world = &self.context.world;
        if world
            .secrets
            .get(&at)
            .is_some_and(|s| s.meta.applied.as_deref() == Some(&hash))
        {
            return Ok(());
        }
        let location = || {
            let url = ByteString(valid.url.clone().into_bytes());
            BTreeMap::from([(REPOSITORY_VARIABLE.to_owned(), url)])
        };
        let data = cluster::copy(&self.context, key, repository).await?;
        let labels = [
            (names::LABEL_APP, names::APP.to_owned()),
            (names::LABEL_MANAGED_BY, names::APP.to_owned()),
            (names::LABEL_REPOSITORY, names::label_value(&key.name)),
        ];
        let secret = Secret {
            metadata: ObjectMeta {
                name: Some(name),
                namespace: Some(key.namespace.to_string()),
                labels: Some(labels.map(|(k, v)| (k.to_owned(), v)).into()),
                annotations: Some([(names::ANNOTATION_APPLIED.to_owned(), hash)].into()),
                owner_references: repository.controller_owner_ref(&()).map(|owner| vec![owner]),
                ..ObjectMeta::default()
            },
            data: Some(data.unwrap_or_else(|_| location())),
            ..Secret::default()
        };
        let written = self.context.applier.apply(&secret).await.inspect_err(|error| {
            if !matches!(error, ApplyError::NotLeader) {
                warn!(%error, "could not write the location Secret");
            }
        })?;
        let view = MetaView {
            meta: crate::world::Meta::of(&written.metadata),
        };
        world.secrets.put(at, Arc::new(view));
        Ok(())
    }

    /// Looks at the repository.
    pub(super) fn ask(
        &self,
        repository: Arc<ResticRepository>,
        inputs: Inputs,
        known: Option<String>,
        known_locks: BTreeSet<String>,
    ) -> impl Future<Output = Report> + Send + 'static {
        let (context, restic) = (self.context.clone(), self.restic.clone());
        async move {
            let (mut password_key, mut locks) = (None, None);
            let answer = match cluster::read(&context, &repository).await {
                Ok(Ok(credentials)) => {
                    password_key =
                        Some(credentials.password_key.clone()).filter(|key| key != PASSWORD_VARIABLE);
                    let answer = look(restic.as_ref(), &credentials, known, &context.creations).await;
                    if matches!(answer, Answer::Open { .. }) {
                        locks = unlock::look(restic.as_ref(), &credentials, &known_locks)
                            .await
                            .ok();
                    }
                    answer
                }
                Ok(Err(error)) => Answer::Credentials(error),
                Err(error) => {
                    Answer::Failed(Failure::Other(format!("the Secret could not be read: {error}")))
                }
            };
            Report::Answer(Reply {
                inputs,
                answer,
                password_key,
                locks,
            })
        }
    }

    /// Events and log lines, on transitions only.
    pub(super) fn tell(
        &self,
        key: &Key,
        uid: &str,
        old: &ResticRepositoryStatus,
        new: &ResticRepositoryStatus,
    ) {
        let unlocked = |status: &ResticRepositoryStatus| status.last_unlock.clone().map(|last| last.job_uid);
        let degraded = |status: &ResticRepositoryStatus| {
            let condition = conditions::get(&status.conditions, types::DEGRADED)?;
            Some((condition.status.clone(), condition.reason.clone()))
        };
        if (unlocked(old), degraded(old)) != (unlocked(new), degraded(new))
            && let Some(condition) = conditions::get(&new.conditions, types::DEGRADED)
        {
            let severity = if condition.status == "True" {
                Severity::Warning
            } else {
                Severity::Normal
            };
            info!(object = %key, reason = condition.reason, message = condition.message, "restic's locks");
            self.context.events.publish(
                Self::NAME,
                key,
                uid,
                severity,
                &condition.reason,
                &condition.message,
            );
        }
        let before = conditions::get(&old.conditions, types::READY).map(|c| c.reason.as_str());
        let Some(after) = conditions::get(&new.conditions, types::READY) else {
            return;
        };
        // Created and accessible are both well.
        let quiet = [Some(reasons::REPOSITORY_INITIALIZED), Some(after.reason.as_str())].contains(&before);
        if after.reason == reasons::CHECKING
            || (quiet && after.status == "True")
            || before == Some(after.reason.as_str())
        {
            return;
        }
        let severity = if after.status == "True" {
            Severity::Normal
        } else {
            Severity::Warning
        };
        info!(object = %key, reason = after.reason, message = after.message, "repository");
        self.context
            .events
            .publish(Self::NAME, key, uid, severity, &after.reason, &after.message);
    }
}

/// One look. Only [`Failure::NoRepository`], and only where no repository was ever known, leads to `init`.
async fn look(
    restic: &dyn Restic,
    credentials: &Credentials,
    known: Option<String>,
    creations: &Creations,
) -> Answer {
    let (id, initialized) = match (restic.id(credentials).await, known) {
        (Ok(is), Some(was)) if is != was => return Answer::Changed { was, is },
        (Ok(id), _) => (id, false),
        (Err(Failure::NoRepository), Some(id)) => return Answer::Missing { id },
        (Err(Failure::NoRepository), None) => match create(restic, credentials, creations).await {
            Ok(created) => created,
            Err(answer) => return answer,
        },
        (Err(failure), _) => return Answer::Failed(failure),
    };
    let statistics = restic.statistics(credentials).await;
    Answer::Open {
        id,
        initialized,
        statistics,
    }
}

/// Creates the repository, or finds that another cluster has just done it. Two that create at the same moment would
/// leave one's config and the other's key behind, so each waits for its turn and looks again.
async fn create(
    restic: &dyn Restic,
    credentials: &Credentials,
    creations: &Creations,
) -> Result<(String, bool), Answer> {
    let permit = creations.permit().await;
    match restic.id(credentials).await {
        Err(Failure::NoRepository) => {}
        Ok(id) => return Ok((id, false)),
        Err(failure) => return Err(Answer::Failed(failure)),
    }
    match restic.init_before(credentials, permit.until()).await {
        Ok(id) => Ok((id, true)),
        // Somebody outside of the fleet was quicker: that repository must open with our password to count.
        Err(Failure::Exists) => restic
            .id(credentials)
            .await
            .map(|id| (id, false))
            .map_err(Answer::Failed),
        Err(failure @ (Failure::Unreachable(_) | Failure::Forbidden(_) | Failure::DeadlineExceeded(_))) => {
            Err(Answer::Failed(failure))
        }
        Err(failure) => Err(Answer::InitFailed(failure)),
    }
}

#[cfg(test)]
#[path = "look_tests.rs"]
mod tests;
