//! Secrets as they lie in the cluster: read when a repository is opened, and copied for a consumer in another namespace
//! with what is on the allow-list.

use crds::{ResticRepository, names};
use k8s_openapi::api::core::v1::Secret;

use crate::apply::ApplyError;
use crate::context::Context;
use crate::secrets::{self, Credentials, Projection, SecretError, projected};
use crate::world::Key;

/// Data for the Secret `name` of a consumer in another namespace; `None` if the Secret is up to date.
///
/// # Errors
/// When the source cannot be read.
pub async fn projection(
    context: &Context,
    consumer: &Key,
    at: &Key,
    repository: &ResticRepository,
    name: &str,
) -> Result<Option<Projection>, ApplyError> {
    let world = &context.world;
    let source = Key::new(&at.namespace, &repository.spec.credentials_secret_ref.name);
    let version = world
        .secrets
        .get(&source)
        .map(|s| s.meta.version)
        .unwrap_or_default();
    let mark = names::short_hash(format!("{version}/{}", repository.spec.repository_url).as_bytes());
    let present = world.secrets.get(&Key::new(&consumer.namespace, name));
    if present.is_some_and(|s| s.meta.applied.as_deref() == Some(&mark)) {
        return Ok(None);
    }
    let secret: Option<Secret> = context.applier.get(&source).await?;
    let secret = secret.ok_or_else(|| ApplyError::Gone(format!("Secret {source}")))?;
    Ok(Some((mark, projected(repository, &secret))))
}

/// Credentials of a repository, as its Secret holds them now.
///
/// # Errors
/// The outer one when the API server does not answer, the inner one when the Secret is not what it should be.
pub async fn read(
    context: &Context,
    repository: &ResticRepository,
) -> Result<Result<Credentials, SecretError>, ApplyError> {
    let namespace = repository.metadata.namespace.as_deref().unwrap_or_default();
    let key = Key::new(namespace, &repository.spec.credentials_secret_ref.name);
    let secret: Option<Secret> = context.applier.get(&key).await?;
    Ok(secrets::credentials(repository, secret.as_ref()))
}
