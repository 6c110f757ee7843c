//! Secrets as they lie in the cluster: read when a repository is opened, and copied for a consumer in another namespace
//! with what is on the allow-list.

use std::collections::BTreeMap;

use crds::{ResticRepository, names};
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;

use super::{Credentials, SecretError, normalised};
use crate::apply::ApplyError;
use crate::children;
use crate::context::Context;
use crate::world::Key;

/// Part of every mark. Another one makes each copy anew: for when the same Secret is to be read in another way.
const FORMAT: u8 = 2;

/// A mark that tells which state of the source it was taken from, and the data.
pub type Projection = (String, BTreeMap<String, ByteString>);

/// What the Secret `name` of a consumer has to hold, if what it holds is not of the present state. `None` also where
/// the repository lies in the consumer's own namespace: a copy from a time when it did not is deleted then.
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
    if at.namespace == consumer.namespace {
        children::remove_credentials(context, &Key::new(&consumer.namespace, name)).await?;
        return Ok(None);
    }
    let present = context.world.secrets.get(&Key::new(&consumer.namespace, name));
    let mark = mark(context, at, repository);
    if present.is_some_and(|s| s.meta.applied.as_deref() == Some(&mark)) {
        return Ok(None);
    }
    let data = copy(context, at, repository).await?;
    let data = data.map_err(|error| ApplyError::Unavailable(error.to_string()))?;
    Ok(Some((mark, data)))
}

/// Tells which state of URL and Secret a copy was taken from, without reading any Secret.
#[must_use]
pub fn mark(context: &Context, at: &Key, repository: &ResticRepository) -> String {
    let source = Key::new(&at.namespace, &repository.spec.credentials_secret_ref.name);
    let version = context.world.secrets.get(&source).map(|s| s.meta.version);
    let key = repository.spec.credentials_secret_ref.key.as_deref();
    let of = format!(
        "{FORMAT}/{}/{}/{}",
        version.unwrap_or_default(),
        repository.spec.repository_url,
        key.unwrap_or_default()
    );
    names::short_hash(of.as_bytes())
}

/// Data for the pods of a repository: location, password, and what is on the allow-list, as restic takes them.
///
/// # Errors
/// The outer one when the API server does not answer, the inner one when the Secret is not what it should be.
pub async fn copy(
    context: &Context,
    at: &Key,
    repository: &ResticRepository,
) -> Result<Result<BTreeMap<String, ByteString>, SecretError>, ApplyError> {
    let source = Key::new(&at.namespace, &repository.spec.credentials_secret_ref.name);
    let secret: Option<Secret> = context.applier.get(&source).await?;
    Ok(normalised(repository, secret.as_ref()))
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
    Ok(super::credentials(repository, secret.as_ref()))
}
