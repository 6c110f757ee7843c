//! Whether a repository may be used from a namespace, and whether it is ready to be. Pure.

use std::collections::BTreeMap;

use crds::ResticRepository;
use crds::conditions::{self, reasons, types};
use crds::repository::{AllowedNamespaces, NamespacesFrom};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;

use crate::world::Key;

/// Why a repository cannot be used.
#[derive(Debug, PartialEq, Eq)]
pub enum Blocked {
    /// It is not there, or not ready.
    Wait { reason: &'static str, message: String },
    /// Its owner does not, or no longer, consent.
    Refused { message: String },
}

/// The repository `at` as a resource in `namespace`, whose labels are `labels`, may use it.
///
/// # Errors
/// Why it may not, or not yet.
pub fn usable<'a>(
    at: &Key,
    namespace: &str,
    repository: Option<&'a ResticRepository>,
    labels: &BTreeMap<String, String>,
) -> Result<&'a ResticRepository, Blocked> {
    let Some(repository) = repository else {
        return Err(Blocked::Wait {
            reason: reasons::REPOSITORY_NOT_FOUND,
            message: format!(
                "ResticRepository {at} does not exist; create it, or correct spec.repositoryRef"
            ),
        });
    };
    if *at.namespace != *namespace && !allows(repository.spec.allowed_namespaces.as_ref(), labels) {
        let message = format!(
            "ResticRepository {at} does not allow namespace {namespace}; its owner has to set spec.allowedNamespaces on it, such as from: All"
        );
        return Err(Blocked::Refused { message });
    }
    let ready = repository
        .status
        .as_ref()
        .and_then(|s| conditions::get(&s.conditions, types::READY));
    if ready.is_none_or(|c| c.status != "True") {
        let why = ready.map_or_else(
            || "it has not been looked at yet".to_owned(),
            |c| format!("{}: {}", c.reason, c.message),
        );
        return Err(Blocked::Wait {
            reason: reasons::REPOSITORY_NOT_READY,
            message: format!("ResticRepository {at} is not ready: {why}"),
        });
    }
    Ok(repository)
}

/// Whether a repository may be used from a namespace with these labels, which is not its own.
#[must_use]
pub fn allows(allowed: Option<&AllowedNamespaces>, labels: &BTreeMap<String, String>) -> bool {
    match allowed {
        None => false,
        Some(allowed) => match allowed.from {
            NamespacesFrom::Same => false,
            NamespacesFrom::All => true,
            // An empty selector would match everything; without one nothing is meant.
            NamespacesFrom::Selector => allowed
                .selector
                .as_ref()
                .is_some_and(|selector| matches(selector, labels)),
        },
    }
}

/// `metav1.LabelSelector`; an operator that is not known matches nothing.
fn matches(selector: &LabelSelector, labels: &BTreeMap<String, String>) -> bool {
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
