//! What the pods of one resource may do in the API server: in its namespace, with its own account, and no more than they
//! need. Rights name no labels: which pods are meant cannot be said in them. Pure.

use k8s_openapi::api::rbac::v1::{PolicyRule, Role, RoleBinding, RoleRef, Subject};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::{Hook, Plan};
use crate::pod::hashed;

/// Role and RoleBinding, of one name.
pub type Grant = (Role, RoleBinding);

/// What an account needs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Needs {
    /// Commands in pods.
    pub exec: bool,
    /// Jobs.
    pub jobs: bool,
}

impl Needs {
    /// Everything that hooks may need.
    pub const ALL: Needs = Needs {
        exec: true,
        jobs: true,
    };

    /// These and others.
    #[must_use]
    pub fn and(self, other: Needs) -> Needs {
        Needs {
            exec: self.exec || other.exec,
            jobs: self.jobs || other.jobs,
        }
    }

    /// Of hooks.
    #[must_use]
    pub fn of(plan: Option<&Plan>) -> Needs {
        let any = |is: fn(&Hook) -> bool| plan.is_some_and(|plan| plan.hooks().any(is));
        Needs {
            exec: any(|hook| matches!(hook, Hook::Exec { .. })),
            jobs: any(|hook| matches!(hook, Hook::Job { .. })),
        }
    }
}

/// What gives it to an account. `metadata` is that of both objects. Nothing where nothing is needed.
#[must_use]
pub fn grant(metadata: &ObjectMeta, account: &str, needs: Needs) -> Option<Grant> {
    if needs == Needs::default() {
        return None;
    }
    let rule = |group: &str, resource: &str, verbs: &[&str]| PolicyRule {
        api_groups: Some(vec![group.to_owned()]),
        resources: Some(vec![resource.to_owned()]),
        verbs: verbs.iter().map(|&verb| verb.to_owned()).collect(),
        ..PolicyRule::default()
    };
    let mut rules = vec![rule("", "pods", &["get", "list"])];
    // A WebSocket begins with GET, and newer API servers ask for create as well.
    rules.extend(needs.exec.then(|| rule("", "pods/exec", &["create", "get"])));
    rules.extend(needs.jobs.then(|| rule("batch", "jobs", &["create", "get"])));
    let role = Role {
        metadata: metadata.clone(),
        rules: Some(rules),
    };
    let binding = RoleBinding {
        metadata: metadata.clone(),
        role_ref: RoleRef {
            api_group: Some("rbac.authorization.k8s.io".to_owned()),
            kind: "Role".to_owned(),
            name: metadata.name.clone().unwrap_or_default(),
        },
        subjects: Some(vec![Subject {
            kind: "ServiceAccount".to_owned(),
            name: account.to_owned(),
            namespace: metadata.namespace.clone(),
            api_group: None,
        }]),
    };
    Some((hashed(role), hashed(binding)))
}
