//! Whether a repository may be used from a namespace, and whether it is ready to be. Pure.

use std::borrow::Borrow;
use std::collections::BTreeMap;

use crds::common::CrossNamespaceObjectReference;
use crds::conditions::{self, reasons, types};
use crds::repository::{AllowedNamespaces, NamespacesFrom};
use crds::{ResticRepository, ResticRepositoryStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, LabelSelector};

use crate::world::{Key, World};

/// Why a repository is not ready that nobody has looked at.
const NOT_CHECKED: &str = "not checked yet";

/// Whether a condition waits for a repository that is still being checked.
#[must_use]
pub fn is_being_checked(condition: &Condition) -> bool {
    let why = condition
        .message
        .rsplit_once(" is not ready: ")
        .map(|(_, why)| why);
    let checking = |why: &str| why == NOT_CHECKED || why.starts_with(reasons::CHECKING);
    condition.reason == reasons::REPOSITORY_NOT_READY && why.is_some_and(checking)
}

/// Why a repository cannot be used.
#[derive(Debug, PartialEq, Eq)]
pub enum Blocked {
    /// It is not there, or not ready.
    Wait { reason: &'static str, message: String },
    /// Its owner does not, or no longer, consent.
    Refused { message: String },
}

/// The repository `at` as a resource in `namespace` may use it. `labels` are those of the namespace, absent while it is
/// not in the cache.
///
/// # Errors
/// Why it may not, or not yet.
pub fn usable<'a, R: Borrow<ResticRepository>>(
    at: &Key,
    namespace: &str,
    repository: Option<&'a R>,
    labels: Option<&BTreeMap<String, String>>,
) -> Result<&'a R, Blocked> {
    let Some(found) = repository else {
        let foreign = match *at.namespace == *namespace {
            true => String::new(),
            // One that is not watched is not known not to exist.
            false => format!(
                "; an operator with --namespaces sees it only if {} is one of them",
                at.namespace
            ),
        };
        return Err(Blocked::Wait {
            reason: reasons::REPOSITORY_NOT_FOUND,
            message: format!(
                "ResticRepository {at} does not exist; create it, or correct spec.repositoryRef{foreign}"
            ),
        });
    };
    let repository = found.borrow();
    let allowed = repository.spec.allowed_namespaces.as_ref();
    let consent = if *at.namespace == *namespace {
        Some(true)
    } else {
        allows(allowed, labels)
    };
    let Some(consent) = consent else {
        return Err(Blocked::Wait {
            reason: reasons::REPOSITORY_NOT_READY,
            message: format!(
                "namespace {namespace} is not known yet, and its labels decide whether ResticRepository {at} may be used in it"
            ),
        });
    };
    if !consent {
        let message = format!(
            "ResticRepository {at} does not allow namespace {namespace}; its owner can allow it with spec.allowedNamespaces: {{from: Selector, selector: {{matchLabels: {{kubernetes.io/metadata.name: {namespace}}}}}}}, which hands the repository's password and keys to that namespace"
        );
        return Err(Blocked::Refused { message });
    }
    let status = repository.status.as_ref();
    if !status.is_some_and(ResticRepositoryStatus::is_open) {
        let ready = status.and_then(|s| conditions::get(&s.conditions, types::READY));
        let why = ready.filter(|c| c.status != "True").map_or_else(
            || NOT_CHECKED.to_owned(),
            |c| format!("{}: {}", c.reason, c.message),
        );
        return Err(Blocked::Wait {
            reason: reasons::REPOSITORY_NOT_READY,
            message: format!("ResticRepository {at} is not ready: {why}"),
        });
    }
    Ok(found)
}

/// Why nothing that writes into a repository begins, if its spec says so.
#[must_use]
pub fn read_only(at: &Key, repository: &ResticRepository) -> Option<String> {
    repository.spec.read_only.then(|| {
        format!("ResticRepository {at} is read-only: nothing that writes into it begins while its spec.readOnly is true")
    })
}

/// Whether a resource refers to a repository in another namespace that does not exist, or does not allow this namespace
/// any more: a copy of its credentials must not stay, whatever else is wrong with the resource.
#[must_use]
pub fn ended(world: &World, key: &Key, reference: &CrossNamespaceObjectReference) -> bool {
    let at = Key::new(reference.namespace_or(&key.namespace), &reference.name);
    // A repository that cannot be decoded, or a namespace whose labels are not known yet, has not taken anything back.
    let Some(namespace) = world.namespaces.get(&Key::new("", &key.namespace)) else {
        return false;
    };
    at.namespace != key.namespace
        && world.repositories.undecodable(&at).is_none()
        && !consents(world.repositories.get(&at).as_deref(), &namespace.labels)
}

fn consents(repository: Option<&ResticRepository>, labels: &BTreeMap<String, String>) -> bool {
    repository.is_some_and(|r| allows(r.spec.allowed_namespaces.as_ref(), Some(labels)) == Some(true))
}

/// Whether a repository may be used from another namespace than its own, with these labels. `None` if that depends on
/// labels that are not known.
fn allows(allowed: Option<&AllowedNamespaces>, labels: Option<&BTreeMap<String, String>>) -> Option<bool> {
    let Some(allowed) = allowed else {
        return Some(false);
    };
    match (allowed.from, &allowed.selector) {
        (NamespacesFrom::All, _) => Some(true),
        // An empty selector would match everything; without one nothing is meant.
        (NamespacesFrom::Same, _) | (NamespacesFrom::Selector, None) => Some(false),
        (NamespacesFrom::Selector, Some(selector)) => labels.map(|labels| matches(selector, labels)),
    }
}

/// `metav1.LabelSelector`; an operator that is not known matches nothing.
#[must_use]
pub fn matches(selector: &LabelSelector, labels: &BTreeMap<String, String>) -> bool {
    let equal = selector
        .match_labels
        .iter()
        .flatten()
        .all(|(name, value)| labels.get(name) == Some(value));
    let expressions = selector.match_expressions.iter().flatten().all(|rule| {
        let present = labels.get(&rule.key);
        let listed = present.is_some_and(|value| rule.values.iter().flatten().any(|v| v == value));
        match rule.operator.as_str() {
            "In" => listed,
            "NotIn" => !listed,
            "Exists" => present.is_some(),
            "DoesNotExist" => present.is_none(),
            _ => false,
        }
    });
    equal && expressions
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::{Value, json};

    use super::*;
    use crate::world::{Meta, NamespaceView};

    fn repository(allowed: Value) -> ResticRepository {
        serde_json::from_value(json!({
            "apiVersion": "backup.resticbackup.io/v1alpha1", "kind": "ResticRepository",
            "metadata": { "name": "nas", "namespace": "storage", "uid": "r", "resourceVersion": "1" },
            "spec": { "repositoryURL": "s3:h/b", "credentialsSecretRef": { "name": "nas" }, "allowedNamespaces": allowed },
        }))
        .unwrap()
    }

    #[test]
    fn consent_ends_with_its_withdrawal_and_with_the_repository() {
        let world = World::default();
        let label = ("kubernetes.io/metadata.name".to_owned(), "shop".to_owned());
        world.namespaces.put(
            Key::new("", "shop"),
            Arc::new(NamespaceView {
                meta: Meta::default(),
                labels: Arc::new([label].into()),
                ..NamespaceView::default()
            }),
        );
        let reference = |namespace: &str| CrossNamespaceObjectReference {
            name: "nas".to_owned(),
            namespace: Some(namespace.to_owned()),
        };
        let key = Key::new("shop", "orders");
        let ended_with = |repository: Option<ResticRepository>| {
            let at = Key::new("storage", "nas");
            world.repositories.remove(&at, None);
            if let Some(repository) = repository {
                world.repositories.put(at, Arc::new(repository));
            }
            ended(&world, &key, &reference("storage"))
        };
        let selector = json!({ "from": "Selector", "selector": { "matchLabels": { "kubernetes.io/metadata.name": "shop" } } });
        assert!(!ended_with(Some(repository(selector))));
        assert!(ended_with(Some(repository(json!({ "from": "Same" })))));
        assert!(ended_with(Some(repository(Value::Null))));
        assert!(ended_with(None));
        assert!(
            !ended(&world, &key, &reference("shop")),
            "the own namespace needs no consent"
        );
    }

    #[test]
    fn a_namespace_that_is_not_known_yet_is_waited_for_and_not_refused() {
        let at = Key::new("storage", "nas");
        // Labels that are taken as empty would let the one in and refuse the other.
        for rule in [
            json!({ "matchExpressions": [{ "key": "team", "operator": "DoesNotExist" }] }),
            json!({ "matchLabels": { "team": "shop" } }),
        ] {
            let selects = repository(json!({ "from": "Selector", "selector": rule }));
            let Err(Blocked::Wait { message, .. }) = usable(&at, "shop", Some(&selects), None) else {
                panic!("{rule}")
            };
            assert!(
                message.starts_with("namespace shop is not known yet"),
                "{message}"
            );
        }
        // What does not depend on labels is known.
        let closed = usable(&at, "shop", Some(&repository(Value::Null)), None).map(drop);
        assert!(matches!(closed, Err(Blocked::Refused { .. })));
        let own = usable(&at, "storage", Some(&repository(Value::Null)), None).map(drop);
        let Err(Blocked::Wait { message, .. }) = own else {
            panic!()
        };
        assert!(message.ends_with("is not ready: not checked yet"), "{message}");
    }

    #[test]
    fn the_original_operators_word_that_a_repository_is_ready_is_not_enough() {
        let mut ready = repository(Value::Null);
        let status = |id: Value| {
            json!({ "repositoryID": id, "conditions": [{ "type": "Ready", "status": "True", "reason": "RepositoryInitialized",
                    "message": "", "lastTransitionTime": "2026-11-23T00:00:00Z" }] })
        };
        let mut usable = |id| {
            ready.status = serde_json::from_value(status(id)).unwrap();
            usable(&Key::new("storage", "nas"), "storage", Some(&ready), None).map(drop)
        };
        assert_eq!(usable(json!("id")), Ok(()));
        let Err(Blocked::Wait { message, .. }) = usable(Value::Null) else {
            panic!()
        };
        assert!(message.ends_with("is not ready: not checked yet"), "{message}");
    }

    #[test]
    fn the_refusal_recommends_one_namespace_and_says_what_consent_gives() {
        let (at, closed) = (Key::new("storage", "nas"), repository(Value::Null));
        let refused = usable(&at, "shop", Some(&closed), Some(&BTreeMap::new()));
        let Err(Blocked::Refused { message }) = refused else {
            panic!()
        };
        for part in ["kubernetes.io/metadata.name: shop", "password"] {
            assert!(message.contains(part), "{message}");
        }
        assert!(!message.contains("All"), "{message}");
    }
}
