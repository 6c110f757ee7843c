//! Secrets as they lie in the cluster: read when a repository is opened, and copied for a consumer in another namespace
//! with what is on the allow-list.

use std::collections::BTreeMap;

use crds::{ResticRepository, names};
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;

use crate::apply::ApplyError;
use crate::context::Context;
use crate::secrets::{self, Credentials, Projection, REPOSITORY_VARIABLE, SecretError, normalised};
use crate::world::Key;

/// Part of every mark. Another one makes each copy anew: for when the same Secret is to be read in another way.
const FORMAT: u8 = 2;

/// Data for the Secret `name` of a consumer: location, password, and what is on the allow-list, as restic takes them;
/// `None` if the Secret is up to date. Of credentials that cannot be used only the location is left: no pod starts then.
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
    let reference = &repository.spec.credentials_secret_ref;
    let source = Key::new(&at.namespace, &reference.name);
    let version = world.secrets.get(&source).map(|s| s.meta.version);
    let url = &repository.spec.repository_url;
    let of = format!(
        "{FORMAT}/{}/{url}/{}",
        version.unwrap_or_default(),
        reference.key.as_deref().unwrap_or_default()
    );
    let mark = names::short_hash(of.as_bytes());
    let present = world.secrets.get(&Key::new(&consumer.namespace, name));
    if present.is_some_and(|s| s.meta.applied.as_deref() == Some(&mark)) {
        return Ok(None);
    }
    let secret: Option<Secret> = context.applier.get(&source).await?;
    let data = normalised(repository, secret.as_ref()).unwrap_or_else(|_| {
        let location = ByteString(url.clone().into_bytes());
        BTreeMap::from([(REPOSITORY_VARIABLE.to_owned(), location)])
    });
    Ok(Some((mark, data)))
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
