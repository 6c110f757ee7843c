//! Secrets as they lie in the cluster: read when a repository is opened, and copied for a consumer in another namespace
//! with what is on the allow-list.

use std::collections::BTreeMap;
use std::sync::Arc;

use crds::{ResticRepository, names};
use futures::FutureExt as _;
use futures::future::BoxFuture;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;

use crate::apply::ApplyError;
use crate::context::Context;
use crate::notify::{self, Unread};
use crate::secrets::{
    self, Credentials, NEW_PASSWORD_KEY, PASSWORD_VARIABLE, Projection, REPOSITORY_VARIABLE, SecretError,
    normalised,
};
use crate::world::{Index, Key};

/// Part of every mark. Another one makes each copy anew: for when the same Secret is to be read in another way.
const FORMAT: u8 = 3;

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
    let mut data = normalised(repository, secret.as_ref()).unwrap_or_else(|_| {
        let location = ByteString(url.clone().into_bytes());
        BTreeMap::from([(REPOSITORY_VARIABLE.to_owned(), location)])
    });
    // The pod that adds its key runs beside the repository; copies for other namespaces hold the present password alone.
    if name == names::repository_location(&at.name) && consumer.namespace == at.namespace {
        let new = secret.as_ref().and_then(secrets::new_password);
        data.extend(new.map(|password| (NEW_PASSWORD_KEY.to_owned(), password)));
    }
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

/// Secrets of receivers of notifications. Who may write a resource chooses the receiver, and may not be allowed to read
/// Secrets: so keys of repositories and tokens of accounts are not read.
pub struct NotificationSecrets(pub Arc<Context>);

/// Types of a Secret that people make for such things.
const TYPES: [&str; 2] = ["Opaque", "kubernetes.io/basic-auth"];

const KEYS: Unread = Unread::Refused("it holds the keys of a repository");
const NAME: Unread = Unread::Refused("its name is one that the operator gives to its own; name it otherwise");

impl notify::Secrets for NotificationSecrets {
    fn read(&self, key: Key) -> BoxFuture<'_, Result<Option<notify::Data>, Unread>> {
        let context = &self.0;
        async move {
            let repositories = &context.world.repositories;
            // By its name also where the cache does not hold its repository yet.
            if names::is_of_credentials(&key.name) {
                return Err(NAME);
            }
            if !repositories.find(Index::Credentials, &key).is_empty() {
                return Err(KEYS);
            }
            let secret: Result<Option<Secret>, _> = context.applier.get(&key).await;
            match secret {
                Ok(secret) => secret.map(content).transpose(),
                Err(ApplyError::Forbidden(_)) => Err(Unread::Later("the operator is not allowed to read it")),
                Err(_) => Err(Unread::Later("the API server did not answer")),
            }
        }
        .boxed()
    }
}

fn content(secret: Secret) -> Result<notify::Data, Unread> {
    let type_ = secret.type_.as_deref().unwrap_or("Opaque");
    if !TYPES.contains(&type_) {
        return Err(Unread::Refused(
            "its type is neither Opaque nor kubernetes.io/basic-auth",
        ));
    }
    let data = secret.data.unwrap_or_default();
    if data.contains_key(REPOSITORY_VARIABLE) || data.contains_key(PASSWORD_VARIABLE) {
        return Err(KEYS);
    }
    Ok(data.into_iter().map(|(name, bytes)| (name, bytes.0)).collect())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::context::test_context_on;
    use crate::notify::Secrets as _;
    use crate::testing::{Action, ApiServer, Fault};

    #[test]
    fn keys_of_repositories_and_tokens_of_accounts_are_not_sent_to_receivers() {
        let secret = |type_: Option<&str>, key: &str| Secret {
            type_: type_.map(str::to_owned),
            data: Some(BTreeMap::from([(key.to_owned(), ByteString(b"x".to_vec()))])),
            ..Secret::default()
        };
        assert!(content(secret(None, "token")).is_ok());
        assert!(content(secret(Some("Opaque"), "token")).is_ok());
        assert!(content(secret(Some("kubernetes.io/service-account-token"), "token")).is_err());
        assert!(content(secret(Some("Opaque"), PASSWORD_VARIABLE)).is_err());
        assert!(content(secret(Some("Opaque"), REPOSITORY_VARIABLE)).is_err());
    }

    #[tokio::test]
    async fn the_secret_of_a_repository_is_not_sent_to_receivers_whatever_its_keys_are_called() {
        let api = ApiServer::new();
        api.namespace("shop");
        for name in ["nas", "hook", "resticbackup-orders-credentials"] {
            api.put(&json!({ "apiVersion": "v1", "kind": "Secret", "type": "Opaque",
                "metadata": { "name": name, "namespace": "shop" }, "data": { "password": "cA==" } }));
        }
        let context = test_context_on(api.client_of("me"));
        let repository = json!({ "apiVersion": "backup.resticbackup.io/v1alpha1", "kind": "ResticRepository",
            "metadata": { "name": "nas", "namespace": "shop" },
            "spec": { "repositoryURL": "rest:http://nas.lan/shop", "credentialsSecretRef": { "name": "nas", "key": "password" } } });
        let repository: ResticRepository = serde_json::from_value(repository).unwrap();
        let world = &context.world;
        world
            .repositories
            .put(Key::new("shop", "nas"), Arc::new(repository));
        let secrets = NotificationSecrets(context.clone());
        let read = |name: &str| secrets.read(Key::new("shop", name));
        assert_eq!(read("nas").await, Err(KEYS));
        assert_eq!(read("resticbackup-orders-credentials").await, Err(NAME));
        assert!(read("hook").await.unwrap().unwrap().contains_key("password"));
        assert_eq!(read("none").await, Ok(None));
        api.fault(Fault::new(Action::Refuse(403, "no".to_owned())).on("get", "secrets"));
        let refused = Unread::Later("the operator is not allowed to read it");
        assert_eq!(read("hook").await, Err(refused));
    }
}
