//! The user that a pod runs as: the "restricted" Pod Security Standard, with `jobConfig.securityContext` laid over it.
//! Pure.

use k8s_openapi::api::core::v1::{PodSecurityContext, SeccompProfile};

/// uid and gid that pods run as by default; the original operator's.
pub const USER: i64 = 65532;

/// The given fields laid over the defaults. `own_volumes`: the kubelet may give the volumes to the pod's group.
#[must_use]
pub fn laid_over(given: PodSecurityContext, own_volumes: bool) -> PodSecurityContext {
    let root = runs_as_root(&given);
    let default = |value: i64| (!root).then_some(value);
    let group = given.run_as_group.or(default(USER));
    // Root needs no group to write, and ssh refuses a key that a group may read.
    let volumes = group.filter(|_| own_volumes && !root);
    let fs_group = given.fs_group.or(volumes);
    PodSecurityContext {
        run_as_non_root: given.run_as_non_root.or((!root).then_some(true)),
        run_as_user: given.run_as_user.or(default(USER)),
        run_as_group: group,
        fs_group,
        fs_group_change_policy: given
            .fs_group_change_policy
            .or_else(|| fs_group.map(|_| "OnRootMismatch".to_owned())),
        seccomp_profile: given.seccomp_profile.or_else(|| {
            Some(SeccompProfile {
                type_: "RuntimeDefault".to_owned(),
                localhost_profile: None,
            })
        }),
        ..given
    }
}

/// Whether a pod may run as root: by its uid, or as the image says.
#[must_use]
pub fn runs_as_root(security: &PodSecurityContext) -> bool {
    match security.run_as_user {
        Some(user) => user == 0,
        None => security.run_as_non_root == Some(false),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn laid(given: Value, own_volumes: bool) -> Value {
        let given = serde_json::from_value(given).unwrap();
        serde_json::to_value(laid_over(given, own_volumes)).unwrap()
    }

    #[test]
    fn given_fields_are_laid_over_the_defaults() {
        let seccomp = json!({ "type": "RuntimeDefault" });
        assert_eq!(
            laid(json!({ "runAsUser": 999 }), true),
            json!({ "runAsUser": 999, "runAsGroup": USER, "runAsNonRoot": true, "fsGroup": USER,
                    "fsGroupChangePolicy": "OnRootMismatch", "seccompProfile": seccomp })
        );
        assert_eq!(
            laid(json!({ "runAsUser": 999, "runAsGroup": 1000 }), true)["fsGroup"],
            1000
        );
        let own = json!({ "seccompProfile": { "type": "Unconfined" }, "supplementalGroups": [7] });
        assert_eq!(laid(own, true)["seccompProfile"]["type"], "Unconfined");
    }

    #[test]
    fn root_is_not_contradicted_by_the_defaults() {
        for root in [json!({ "runAsUser": 0 }), json!({ "runAsNonRoot": false })] {
            let laid = laid(root.clone(), true);
            assert!(
                laid["fsGroup"].is_null() && laid["runAsNonRoot"] != true,
                "{root}: {laid}"
            );
        }
        let image = laid(json!({ "runAsNonRoot": false }), true);
        assert!(image["runAsUser"].is_null(), "the image's user: {image}");
    }

    #[test]
    fn a_volume_of_an_application_is_not_given_to_a_group_unless_it_is_asked_for() {
        assert!(laid(json!({}), false)["fsGroup"].is_null());
        assert!(laid(json!({ "runAsGroup": 1000 }), false)["fsGroup"].is_null());
        assert_eq!(laid(json!({ "fsGroup": 5 }), false)["fsGroup"], 5);
    }
}
