//! Who may do what: the one list from which `deploy/spoke/20-rbac.yaml` is generated, and which the end-to-end tests
//! compare with what the API server's audit log says that the operator did.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::ServiceAccount;
use k8s_openapi::api::rbac::v1::{
    ClusterRole, ClusterRoleBinding, PolicyRule, Role, RoleBinding, RoleRef, Subject,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde_json::Value;

use crate::GROUP;

/// Namespace of the operator.
pub const NAMESPACE: &str = "restic-fleet-system";
/// ServiceAccount of the operator.
pub const ACCOUNT: &str = "fleet-spoke";

/// File of people's roles, which the chart has, too.
pub const PEOPLE: &str = "25-people.yaml";

/// What is done with resources, and what for.
#[derive(Clone, Copy, Debug)]
pub struct Right {
    pub group: &'static str,
    pub resources: &'static [&'static str],
    pub verbs: &'static [&'static str],
    pub because: &'static str,
}

const fn right(
    group: &'static str,
    resources: &'static [&'static str],
    verbs: &'static [&'static str],
    because: &'static str,
) -> Right {
    Right {
        group,
        resources,
        verbs,
        because,
    }
}

const KINDS: &[&str] = &[
    "resticrepositories",
    "resticbackups",
    "resticrestores",
    "globalretentionpolicies",
];
const STATUSES: &[&str] = &[
    "resticrepositories/status",
    "resticbackups/status",
    "resticrestores/status",
    "globalretentionpolicies/status",
];
const FINALIZERS: &[&str] = &[
    "resticrepositories/finalizers",
    "resticbackups/finalizers",
    "resticrestores/finalizers",
    "globalretentionpolicies/finalizers",
];

/// The one resource of the list that is in no namespace itself.
const NAMESPACES: &str = "namespaces";
/// The one resource of the list that an installation may do without.
const EXEC: &str = "pods/exec";

/// In the whole cluster, or all but [`NAMESPACES`] in those namespaces alone that the operator watches.
pub const CLUSTER: &[Right] = &[
    right(
        GROUP,
        KINDS,
        &["list", "watch", "patch"],
        "Read; patched only to take a finalizer of the original operator off, and to set spec.suspend when the hub is told to \
         (--allow=suspend).",
    ),
    right(
        GROUP,
        &["globalretentionpolicies"],
        &["create", "patch", "delete"],
        "The policy of a backup with spec.retention. Of others nothing is changed but spec.suspend, when the hub is told to.",
    ),
    right(
        GROUP,
        &["resticrestores"],
        &["create"],
        "Restores that a person asks the hub for. The operator creates none without --allow=restore.",
    ),
    right(GROUP, STATUSES, &["patch"], "What is observed."),
    right(
        GROUP,
        FINALIZERS,
        &["update"],
        "Owner references that block deletion need it, where that admission plugin is on. It is never called.",
    ),
    right(
        "batch",
        &["cronjobs"],
        &["get", "list", "watch", "create", "patch"],
        "Schedules. Read one by one when a Job is made from one, and when one is taken over that another program has written.",
    ),
    right(
        "batch",
        &["jobs"],
        &["get", "list", "watch", "create", "patch", "delete"],
        "Runs by request, restores and maintenance. Patched to open and to shut maintenance.",
    ),
    right(
        "",
        &["serviceaccounts"],
        &["list", "watch", "create", "patch"],
        "Accounts of the pods.",
    ),
    right(
        "rbac.authorization.k8s.io",
        &["roles", "rolebindings"],
        &["list", "watch", "create", "patch", "delete"],
        "For hooks, and for a backup with spec.source.stdin.exec: what their pods may do.",
    ),
    right(
        "",
        &[EXEC],
        &["get", "create"],
        "Never used by the operator: it can only grant what it has, to hooks that run a command in a pod and to the pods of a \
         backup with spec.source.stdin.exec. Without this rule such a backup says that its Role is refused, and all others work.",
    ),
    right(
        "",
        &["configmaps"],
        &["list", "watch", "create", "patch", "delete"],
        "The entrypoint of the pods, in each namespace that has a backup.",
    ),
    right(
        "",
        &["secrets"],
        &["get", "list", "watch", "create", "patch", "delete"],
        "Watched by metadata only, read one by one when a repository is opened; written: the location and credentials of a repository as its pods get them, and \
         what a resource gets of a repository that allows its namespace; in the operator's own namespace, key and certificate of the cluster.",
    ),
    right(
        "",
        &["pods", "persistentvolumeclaims"],
        &["get", "list", "watch"],
        "Whether a claim is there, bound and a file system.",
    ),
    right(
        "",
        &[NAMESPACES],
        &["get", "list", "watch"],
        "What labels a namespace has, and the uid of kube-system, which names the cluster.",
    ),
    right(
        "",
        &["persistentvolumeclaims"],
        &["create"],
        "The claim that a restore asks for (spec.target.newPVC), and that of a backup's cache (spec.jobConfig.cache). Never changed, \
         never deleted.",
    ),
    right(
        "",
        &["pods"],
        &["patch", "delete"],
        "A maintenance pod is told of each renewal of its lease by an annotation. A finished pod of a backup or a restore \
         is deleted when its result is recorded: it would hold the claim.",
    ),
    right(
        "",
        &["events"],
        &["list", "watch"],
        "Why a pod of ours is not created or not started; asked for by kind and reason.",
    ),
    right(
        "",
        &["pods/log"],
        &["get"],
        "The plan of a retention run, and the last lines of a pod that runs: how far it has come.",
    ),
    right("events.k8s.io", &["events"], &["create", "patch"], "Events."),
];

/// In the operator's namespace.
pub const OWN: &[Right] = &[right(
    "coordination.k8s.io",
    &["leases"],
    &["get", "create", "update", "patch"],
    "Leader election, the highest fencing token of each repository, and without a hub the lock itself.",
)];

fn rule(right: &Right) -> PolicyRule {
    let list = |texts: &[&str]| Some(texts.iter().map(|text| (*text).to_owned()).collect());
    PolicyRule {
        api_groups: list(&[right.group]),
        resources: list(right.resources),
        verbs: right.verbs.iter().map(|verb| (*verb).to_owned()).collect(),
        ..PolicyRule::default()
    }
}

fn named(name: &str, namespace: Option<&str>) -> ObjectMeta {
    ObjectMeta {
        name: Some(name.to_owned()),
        namespace: namespace.map(str::to_owned),
        ..ObjectMeta::default()
    }
}

/// A role that Kubernetes adds to its own of these names.
fn aggregated(name: &str, to: &[&str], resources: &[&str], verbs: &[&str]) -> ClusterRole {
    let label = |to: &&str| {
        let name = format!("rbac.authorization.k8s.io/aggregate-to-{to}");
        (name, "true".to_owned())
    };
    let labels: BTreeMap<String, String> = to.iter().map(label).collect();
    ClusterRole {
        metadata: ObjectMeta {
            labels: Some(labels),
            ..named(name, None)
        },
        rules: Some(vec![PolicyRule {
            api_groups: Some(vec![GROUP.to_owned()]),
            resources: Some(resources.iter().map(|r| (*r).to_owned()).collect()),
            verbs: verbs.iter().map(|v| (*v).to_owned()).collect(),
            ..PolicyRule::default()
        }]),
        ..ClusterRole::default()
    }
}

/// People's roles. Repositories name credentials and policies remove snapshots, so who may edit only reads these.
fn people() -> Vec<ClusterRole> {
    let write = ["create", "delete", "deletecollection", "patch", "update"];
    vec![
        aggregated(
            "restic-fleet-view",
            &["view", "edit", "admin"],
            &[KINDS, STATUSES].concat(),
            &["get", "list", "watch"],
        ),
        aggregated(
            "restic-fleet-edit",
            &["edit", "admin"],
            &["resticbackups", "resticrestores"],
            &write,
        ),
        aggregated(
            "restic-fleet-admin",
            &["admin"],
            &["resticrepositories", "globalretentionpolicies"],
            &write,
        ),
    ]
}

/// The objects of `20-rbac.yaml`, each with a comment.
fn operator() -> Vec<(String, Value)> {
    let because = |rights: &[Right]| {
        let line = |right: &Right| format!("#   {}: {}\n", right.resources.join(", "), right.because);
        rights.iter().map(line).collect::<String>()
    };
    let reference = |kind: &str, name: &str| RoleRef {
        api_group: Some("rbac.authorization.k8s.io".to_owned()),
        kind: kind.to_owned(),
        name: name.to_owned(),
    };
    let subjects = Some(vec![Subject {
        kind: "ServiceAccount".to_owned(),
        name: ACCOUNT.to_owned(),
        namespace: Some(NAMESPACE.to_owned()),
        api_group: None,
    }]);
    let leader = format!("{ACCOUNT}-leader");
    let value = |object: Result<Value, serde_json::Error>| object.unwrap_or_default();
    vec![
        (
            String::new(),
            value(serde_json::to_value(ServiceAccount {
                metadata: named(ACCOUNT, Some(NAMESPACE)),
                ..ServiceAccount::default()
            })),
        ),
        (
            because(CLUSTER),
            value(serde_json::to_value(ClusterRole {
                metadata: named(ACCOUNT, None),
                rules: Some(CLUSTER.iter().map(rule).collect()),
                ..ClusterRole::default()
            })),
        ),
        (
            String::new(),
            value(serde_json::to_value(ClusterRoleBinding {
                metadata: named(ACCOUNT, None),
                role_ref: reference("ClusterRole", ACCOUNT),
                subjects: subjects.clone(),
            })),
        ),
        (
            because(OWN),
            value(serde_json::to_value(Role {
                metadata: named(&leader, Some(NAMESPACE)),
                rules: Some(OWN.iter().map(rule).collect()),
            })),
        ),
        (
            String::new(),
            value(serde_json::to_value(RoleBinding {
                metadata: named(&leader, Some(NAMESPACE)),
                role_ref: reference("Role", &leader),
                subjects,
            })),
        ),
    ]
}

/// Rules by the name of the template in the chart that has them.
#[must_use]
pub fn templates() -> Vec<(&'static str, Vec<PolicyRule>)> {
    let of = |right: &&Right, resource: &str| right.resources.contains(&resource);
    let rules = |rights: &mut dyn Iterator<Item = &'static Right>| rights.map(rule).collect();
    let all = || CLUSTER.iter();
    vec![
        (
            "namespaced",
            rules(&mut all().filter(|r| !of(r, NAMESPACES) && !of(r, EXEC))),
        ),
        ("exec", rules(&mut all().filter(|r| of(r, EXEC)))),
        ("cluster", rules(&mut all().filter(|r| of(r, NAMESPACES)))),
        ("own", rules(&mut OWN.iter())),
    ]
}

/// Files below `deploy/spoke` and the objects in them, each with the comment before it.
#[must_use]
pub fn manifests() -> Vec<(&'static str, Vec<(String, Value)>)> {
    let people = people().into_iter().map(|role| {
        let comment = String::new();
        (comment, serde_json::to_value(role).unwrap_or_default())
    });
    vec![("20-rbac.yaml", operator()), (PEOPLE, people.collect())]
}
