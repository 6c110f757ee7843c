//! What the hooks of one resource may do: in its namespace, with its own account, and no more than they need. Pure.

use k8s_openapi::api::rbac::v1::{PolicyRule, Role, RoleBinding, RoleRef, Subject};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::{Hook, Plan};
use crate::pod::hashed;
use crate::world::Key;

/// Role and RoleBinding, of one name.
#[derive(Clone, Debug)]
pub struct Rights {
    pub role: Role,
    pub binding: RoleBinding,
}

/// Those of a resource's hooks. `metadata` is that of both objects.
#[must_use]
pub fn rights(key: &Key, plan: &Plan, metadata: &ObjectMeta) -> Rights {
    let rule = |group: &str, resource: &str, verbs: &[&str]| PolicyRule {
        api_groups: Some(vec![group.to_owned()]),
        resources: Some(vec![resource.to_owned()]),
        verbs: verbs.iter().map(|&verb| verb.to_owned()).collect(),
        ..PolicyRule::default()
    };
    let mut rules = vec![rule("", "pods", &["get", "list"])];
    if plan.hooks().any(|hook| matches!(hook, Hook::Exec { .. })) {
        // Over a WebSocket it is a GET, and newer API servers ask for create as well.
        rules.push(rule("", "pods/exec", &["get", "create"]));
    }
    if plan.hooks().any(|hook| matches!(hook, Hook::Job { .. })) {
        rules.push(rule("batch", "jobs", &["get", "create"]));
    }
    let name = metadata.name.clone().unwrap_or_default();
    Rights {
        role: hashed(Role {
            metadata: metadata.clone(),
            rules: Some(rules),
        }),
        binding: hashed(RoleBinding {
            metadata: metadata.clone(),
            role_ref: RoleRef {
                api_group: Some("rbac.authorization.k8s.io".to_owned()),
                kind: "Role".to_owned(),
                name,
            },
            subjects: Some(vec![Subject {
                kind: "ServiceAccount".to_owned(),
                name: plan.account.clone(),
                namespace: Some(key.namespace.to_string()),
                api_group: None,
            }]),
        }),
    }
}
