//! The hook containers of a pod. Pure.

use k8s_openapi::api::core::v1::{
    Capabilities, Container, EnvVar, EnvVarSource, ObjectFieldSelector, PodSpec, PodTemplateSpec,
    ResourceRequirements, SecurityContext, Volume,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use super::{Plan, Subject};
use crate::pod::{self, USER};
use crate::world::{AFTER, BEFORE, RESTIC_CONTAINER};

/// Folder that the containers of a pod share: what the hook before has begun, and how restic has ended.
pub const DIR: &str = "/hooks";
/// Variable of the entrypoint: the file that it writes restic's exit code into.
const OUTCOME_VARIABLE: &str = "FLEET_OUTCOME";
/// Variables of a hook container: the plan, and the pod that it is in.
pub const PLAN_VARIABLE: &str = "FLEET_HOOKS";
pub const POD_NAME_VARIABLE: &str = "POD_NAME";
pub const POD_UID_VARIABLE: &str = "POD_UID";
const SHARED: &str = "hooks";
const TOKEN: &str = "hook-token";

/// Adds the containers of the hooks to a pod that runs restic. The token is mounted in them alone. `image` is that of
/// this binary.
pub fn install(template: &mut PodTemplateSpec, plan: &Plan, image: &str) {
    let Some(spec) = template.spec.as_mut() else {
        return;
    };
    let which = usize::from(plan.subject == Subject::Restore);
    // It begins first, so that it is there whatever becomes of the others, and the kubelet ends it last.
    let after = Container {
        restart_policy: Some("Always".to_owned()),
        ..container(AFTER[which], "after", plan, image, runs_as_root(spec))
    };
    let mut containers = vec![after];
    if plan.before.is_some() {
        containers.push(container(
            BEFORE[which],
            "before",
            plan,
            image,
            runs_as_root(spec),
        ));
    }
    for container in &mut containers {
        container
            .volume_mounts
            .get_or_insert_default()
            .push(pod::mount(SHARED, DIR, false));
    }
    containers.extend(spec.init_containers.take().unwrap_or_default());
    spec.init_containers = Some(containers);
    for container in spec.containers.iter_mut().filter(|c| c.name == RESTIC_CONTAINER) {
        let outcome = pod::variable(OUTCOME_VARIABLE, &format!("{DIR}/outcome"));
        container.env.get_or_insert_default().push(outcome);
        container
            .volume_mounts
            .get_or_insert_default()
            .push(pod::mount(SHARED, DIR, false));
    }
    let volumes = spec.volumes.get_or_insert_default();
    volumes.extend([pod::empty_dir(SHARED, Some("1Mi".to_owned())), token()]);
    let restic = spec.termination_grace_period_seconds.unwrap_or_default();
    spec.termination_grace_period_seconds = Some(plan.grace(restic));
}

fn runs_as_root(spec: &PodSpec) -> bool {
    let security = spec.security_context.as_ref();
    security.is_some_and(|s| s.run_as_user.is_none_or(|user| user == 0))
}

/// A container that runs hooks. It needs no root, whatever restic runs as.
pub(super) fn container(name: &str, command: &str, plan: &Plan, image: &str, root: bool) -> Container {
    let quantities = |memory: &str, cpu: Option<&str>| {
        let memory = ("memory".to_owned(), Quantity(memory.to_owned()));
        let cpu = cpu.map(|cpu| ("cpu".to_owned(), Quantity(cpu.to_owned())));
        Some(std::iter::once(memory).chain(cpu).collect())
    };
    let user = root.then_some(USER);
    pod::literal_container(Container {
        name: name.to_owned(),
        image: Some(image.to_owned()),
        image_pull_policy: Some("IfNotPresent".to_owned()),
        command: Some(vec!["fleet-spoke".to_owned()]),
        args: Some(vec!["hook".to_owned(), command.to_owned()]),
        env: Some(vec![
            pod::variable(PLAN_VARIABLE, &plan.json()),
            field(POD_NAME_VARIABLE, "metadata.name"),
            field(POD_UID_VARIABLE, pod::POD_UID),
        ]),
        resources: Some(ResourceRequirements {
            requests: quantities("32Mi", Some("10m")),
            limits: quantities("128Mi", None),
            ..ResourceRequirements::default()
        }),
        security_context: Some(SecurityContext {
            allow_privilege_escalation: Some(false),
            read_only_root_filesystem: Some(true),
            run_as_non_root: Some(true),
            run_as_user: user,
            run_as_group: user,
            capabilities: Some(Capabilities {
                drop: Some(vec!["ALL".to_owned()]),
                add: None,
            }),
            ..SecurityContext::default()
        }),
        volume_mounts: Some(vec![pod::token::mount(TOKEN)]),
        ..Container::default()
    })
}

fn field(name: &str, path: &str) -> EnvVar {
    EnvVar {
        name: name.to_owned(),
        value_from: Some(EnvVarSource {
            field_ref: Some(ObjectFieldSelector {
                api_version: Some("v1".to_owned()),
                field_path: path.to_owned(),
            }),
            ..EnvVarSource::default()
        }),
        ..EnvVar::default()
    }
}

/// The token of the containers of hooks.
pub(super) fn token() -> Volume {
    pod::token::volume(TOKEN)
}

#[cfg(test)]
#[path = "pod_tests.rs"]
mod tests;
