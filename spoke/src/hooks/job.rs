//! The Job that runs what a run owes. Pure.

use std::collections::BTreeMap;

use crds::hooks::OpenHooks;
use crds::names;
use k8s_openapi::api::batch::v1::{Job, JobSpec};
use k8s_openapi::api::core::v1::{PodSecurityContext, PodSpec, PodTemplateSpec, SeccompProfile};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::{Hook, Plan, pod};
use crate::pod::USER;
use crate::world::HOOK_CONTAINER;

/// An application left frozen is worse than another attempt.
const ATTEMPTS: i32 = 4;
/// Its result is in the status long before.
const KEPT_SECONDS: i32 = 24 * 3600;
/// For images, and for Kubernetes' pauses between attempts.
const PAUSES: i64 = 900;

/// The Job for one run. `metadata` has owner and labels; `prefix` is what the names of all objects of the resource begin
/// with, and `image` that of this binary.
#[must_use]
pub fn job(metadata: ObjectMeta, (prefix, image): (&str, &str), plan: &Plan, open: &OpenHooks) -> Job {
    let labels: BTreeMap<String, String> = metadata.labels.clone().unwrap_or_default();
    let mut container = pod::container(HOOK_CONTAINER, "owed", plan, image, false);
    let arguments = container.args.get_or_insert_default();
    arguments.extend(open.owed.iter().map(|name| format!("--hook={name}")));
    if let Some(at) = &open.not_before {
        arguments.push(format!("--not-before={}", at.0.as_second()));
    }
    let owed = open.owed.iter().filter_map(|name| plan.hook(name));
    let limit: i64 = owed
        .map(|hook: &Hook| i64::try_from(hook.longest().as_secs()).unwrap_or_default())
        .sum();
    let before = plan.before.as_ref().map(Hook::longest).unwrap_or_default();
    let wait = i64::try_from(before.as_secs()).unwrap_or_default();
    let spec = PodSpec {
        service_account_name: Some(plan.account.clone()),
        automount_service_account_token: Some(false),
        enable_service_links: Some(false),
        restart_policy: Some("Never".to_owned()),
        termination_grace_period_seconds: Some(limit + 15),
        security_context: Some(PodSecurityContext {
            run_as_non_root: Some(true),
            run_as_user: Some(USER),
            run_as_group: Some(USER),
            seccomp_profile: Some(SeccompProfile {
                type_: "RuntimeDefault".to_owned(),
                localhost_profile: None,
            }),
            ..PodSecurityContext::default()
        }),
        containers: vec![container],
        volumes: Some(vec![pod::token()]),
        ..PodSpec::default()
    };
    Job {
        metadata: ObjectMeta {
            name: Some(names::hook_job(prefix, &open.uid)),
            ..metadata
        },
        spec: Some(JobSpec {
            backoff_limit: Some(ATTEMPTS - 1),
            active_deadline_seconds: Some((limit + 15) * i64::from(ATTEMPTS) + wait + PAUSES),
            ttl_seconds_after_finished: Some(KEPT_SECONDS),
            template: PodTemplateSpec {
                metadata: Some(ObjectMeta {
                    labels: Some(labels),
                    ..ObjectMeta::default()
                }),
                spec: Some(spec),
            },
            ..JobSpec::default()
        }),
        ..Job::default()
    }
}
