//! Pods that people bring: a template that restic is added to. What is in it must not reach restic's credentials, so it
//! may not share a namespace of processes or of the host, use what lies on the node, name a volume of restic's, or refer to
//! a Secret with credentials. Pure.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::{Capabilities, Container, PodSpec, PodTemplateSpec, Volume};
use serde_json::Value;

use super::stream::{RESERVED_CONTAINERS, RESERVED_VOLUMES};

pub mod given;

/// A template that was checked.
#[derive(Clone, Debug, PartialEq)]
pub struct Guest {
    pub spec: PodSpec,
    labels: BTreeMap<String, String>,
    annotations: BTreeMap<String, String>,
}

/// Why a template cannot be used, and what to do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadTemplate {
    #[error("{0} is not a core/v1 PodTemplateSpec: {1}")]
    Type(String, String),
    #[error("{0} is not known; correct or remove it")]
    Unknown(String),
    #[error("{0}: {1}")]
    Part(String, String),
    #[error(
        "the pods of a template cannot have ServiceAccount {0:?}, which the operator has made or could make; name another in \
         spec.jobConfig.serviceAccountName"
    )]
    Account(String),
}

/// Capabilities that the "baseline" Pod Security Standard lets a container add.
const CAPABILITIES: [&str; 14] = [
    "AUDIT_WRITE",
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "FSETID",
    "KILL",
    "MKNOD",
    "NET_BIND_SERVICE",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYS_CHROOT",
    "NET_RAW",
];
const SHARED: &str = "with it the credentials of a repository could be read";

impl Guest {
    /// Reads and checks a template. `field` is its place in the resource.
    ///
    /// # Errors
    /// What cannot be used, and why.
    pub fn parse(field: &str, value: &Value) -> Result<Guest, BadTemplate> {
        let template = given::template(field, value)?;
        let spec = template.spec.unwrap_or_default();
        check(&spec).map_err(|(part, why)| BadTemplate::Part(format!("{field}.spec{part}"), why))?;
        let metadata = template.metadata.unwrap_or_default();
        Ok(Guest {
            spec,
            labels: metadata.labels.unwrap_or_default(),
            annotations: metadata.annotations.unwrap_or_default(),
        })
    }

    /// All containers in the order in which they are started.
    pub fn containers(&self) -> impl Iterator<Item = &Container> {
        self.spec
            .init_containers
            .iter()
            .flatten()
            .chain(&self.spec.containers)
    }

    fn volumes(&self) -> impl Iterator<Item = &Volume> {
        self.spec.volumes.iter().flatten()
    }

    /// Claims of its volumes, and whether they are mounted to be written.
    pub fn claims(&self) -> impl Iterator<Item = (&str, bool)> {
        self.volumes().filter_map(|volume| {
            let claim = volume.persistent_volume_claim.as_ref()?;
            Some((claim.claim_name.as_str(), claim.read_only != Some(true)))
        })
    }

    /// Secrets that it refers to, in volumes and variables.
    #[must_use]
    pub fn secrets(&self) -> BTreeSet<&str> {
        secrets(&self.spec)
    }

    /// Some container of it can have the token of the pod's account.
    #[must_use]
    pub fn has_token(&self) -> bool {
        let sources = self
            .volumes()
            .filter_map(|volume| volume.projected.as_ref()?.sources.as_ref());
        sources
            .flatten()
            .any(|source| source.service_account_token.is_some())
    }

    /// Adds the template to a pod with restic in it. `first`: its containers run to their end before restic starts.
    /// Otherwise they run beside it.
    pub fn join(&self, template: &mut PodTemplateSpec, first: bool) {
        let ours = template.spec.take().unwrap_or_default();
        let mut guest = self.spec.clone();
        let all = guest
            .containers
            .iter_mut()
            .chain(guest.init_containers.iter_mut().flatten());
        all.for_each(restrict);
        let beside = if first {
            guest
                .init_containers
                .get_or_insert_default()
                .append(&mut guest.containers);
            Vec::new()
        } else {
            std::mem::take(&mut guest.containers)
        };
        let mut init = ours.init_containers.unwrap_or_default();
        init.extend(guest.init_containers.unwrap_or_default());
        let mut volumes = ours.volumes.unwrap_or_default();
        volumes.extend(guest.volumes.unwrap_or_default());
        let mut tolerations = ours.tolerations.unwrap_or_default();
        tolerations.extend(guest.tolerations.unwrap_or_default());
        let mut pull_secrets = ours.image_pull_secrets.unwrap_or_default();
        for secret in guest.image_pull_secrets.unwrap_or_default() {
            if !pull_secrets.contains(&secret) {
                pull_secrets.push(secret);
            }
        }
        let grace = ours
            .termination_grace_period_seconds
            .max(guest.termination_grace_period_seconds);
        template.spec = Some(PodSpec {
            containers: ours.containers.into_iter().chain(beside).collect(),
            init_containers: Some(init).filter(|list| !list.is_empty()),
            volumes: Some(volumes),
            tolerations: Some(tolerations).filter(|list| !list.is_empty()),
            termination_grace_period_seconds: grace,
            affinity: ours.affinity.or(guest.affinity),
            node_selector: ours.node_selector.or(guest.node_selector),
            priority_class_name: ours.priority_class_name.or(guest.priority_class_name),
            image_pull_secrets: Some(pull_secrets).filter(|list| !list.is_empty()),
            service_account_name: ours.service_account_name,
            automount_service_account_token: ours.automount_service_account_token,
            enable_service_links: guest.enable_service_links.or(ours.enable_service_links),
            restart_policy: ours.restart_policy,
            security_context: ours.security_context,
            ..guest
        });
        let metadata = template.metadata.get_or_insert_default();
        lay_under(metadata.labels.get_or_insert_default(), &self.labels);
        lay_under(metadata.annotations.get_or_insert_default(), &self.annotations);
    }
}

/// The "restricted" Pod Security Standard, and the last lines of its log where it fails, unless a container says otherwise.
fn restrict(container: &mut Container) {
    let words = "FallbackToLogsOnError";
    container
        .termination_message_policy
        .get_or_insert_with(|| words.to_owned());
    let security = container.security_context.get_or_insert_default();
    security.allow_privilege_escalation.get_or_insert(false);
    security.capabilities.get_or_insert_with(|| Capabilities {
        drop: Some(vec!["ALL".to_owned()]),
        add: None,
    });
}

/// Secrets that a pod can read without asking the API server.
#[must_use]
pub fn secrets(spec: &PodSpec) -> BTreeSet<&str> {
    let mut secrets: BTreeSet<&str> = BTreeSet::new();
    for volume in spec.volumes.iter().flatten() {
        secrets.extend(volume.secret.as_ref().and_then(|s| s.secret_name.as_deref()));
        let projected = volume.projected.as_ref().and_then(|p| p.sources.as_ref());
        let projected = projected.into_iter().flatten().filter_map(|p| p.secret.as_ref());
        secrets.extend(projected.map(|s| s.name.as_str()));
        let driver = volume
            .csi
            .as_ref()
            .and_then(|c| c.node_publish_secret_ref.as_ref());
        secrets.extend(driver.map(|s| s.name.as_str()));
    }
    let containers = spec.init_containers.iter().flatten().chain(&spec.containers);
    for container in containers {
        let all = container.env_from.iter().flatten();
        let all = all.filter_map(|from| from.secret_ref.as_ref());
        secrets.extend(all.map(|s| s.name.as_str()));
        let one = container.env.iter().flatten();
        let one = one.filter_map(|v| v.value_from.as_ref()?.secret_key_ref.as_ref());
        secrets.extend(one.map(|s| s.name.as_str()));
    }
    secrets
}

/// What a pod shares with its node, where the credentials of others are in use: the part below `spec`, and why it is
/// refused.
///
/// # Errors
/// The first such part.
pub fn shares_node(spec: &PodSpec) -> Result<(), (String, String)> {
    for (part, shared) in [
        (".hostPID", spec.host_pid),
        (".hostIPC", spec.host_ipc),
        (".hostNetwork", spec.host_network),
    ] {
        if shared == Some(true) {
            return Err((part.to_owned(), format!("it must not be true: {SHARED}")));
        }
    }
    for (n, volume) in spec.volumes.iter().flatten().enumerate() {
        if volume.host_path.is_some() {
            return Err((
                format!(".volumes[{n}]"),
                format!("hostPath cannot be used: {SHARED}"),
            ));
        }
    }
    for (list, containers) in [
        ("containers", Some(&spec.containers)),
        ("initContainers", spec.init_containers.as_ref()),
    ] {
        for (n, container) in containers.into_iter().flatten().enumerate() {
            let part = format!(".{list}[{n}]");
            privileges(container).map_err(|(rest, why)| (part + &rest, why))?;
        }
    }
    Ok(())
}

/// What is there already stays.
fn lay_under(present: &mut BTreeMap<String, String>, more: &BTreeMap<String, String>) {
    for (name, value) in more.iter().filter(|(name, _)| !name.starts_with(crds::GROUP)) {
        present.entry(name.clone()).or_insert_with(|| value.clone());
    }
}

/// The part that is wrong, below `spec`, and why.
type Wrong = (String, String);

fn check(spec: &PodSpec) -> Result<(), Wrong> {
    let wrong = |part: &str, why: &str| Err((part.to_owned(), why.to_owned()));
    if spec.containers.is_empty() {
        return wrong(".containers", "at least one container is needed");
    }
    if spec.share_process_namespace == Some(true) {
        return wrong(
            ".shareProcessNamespace",
            &format!("it must not be true: {SHARED}"),
        );
    }
    shares_node(spec)?;
    if spec
        .ephemeral_containers
        .as_ref()
        .is_some_and(|list| !list.is_empty())
    {
        return wrong(".ephemeralContainers", "a template cannot have any");
    }
    if spec.automount_service_account_token == Some(true) {
        return wrong(
            ".automountServiceAccountToken",
            "restic would get the token too; give a projected volume with serviceAccountToken to the containers that need one",
        );
    }
    if spec
        .restart_policy
        .as_deref()
        .is_some_and(|policy| policy != "Never")
    {
        return wrong(
            ".restartPolicy",
            "the pod is that of a Job, and runs once; write Never or leave it out",
        );
    }
    if spec.node_name.is_some() {
        return wrong(
            ".nodeName",
            "it would pass by the scheduler; write nodeSelector or affinity",
        );
    }
    let volumes = volumes(spec)?;
    for (part, list) in [
        ("containers", Some(&spec.containers)),
        ("initContainers", spec.init_containers.as_ref()),
    ] {
        for (n, container) in list.into_iter().flatten().enumerate() {
            let part = format!(".{part}[{n}]");
            of_container(container, &volumes).map_err(|(rest, why)| (part + &rest, why))?;
        }
    }
    Ok(())
}

/// Names of the volumes.
fn volumes(spec: &PodSpec) -> Result<BTreeSet<&str>, Wrong> {
    let mut known = BTreeSet::new();
    for (n, volume) in spec.volumes.iter().flatten().enumerate() {
        let part = format!(".volumes[{n}]");
        if RESERVED_VOLUMES.contains(&volume.name.as_str()) {
            return Err((
                part,
                format!(
                    "the name {:?} is that of a volume of restic's; choose another",
                    volume.name
                ),
            ));
        }
        known.insert(volume.name.as_str());
    }
    Ok(known)
}

fn of_container(container: &Container, volumes: &BTreeSet<&str>) -> Result<(), Wrong> {
    let wrong = |part: &str, why: String| Err((part.to_owned(), why));
    let name = container.name.as_str();
    if RESERVED_CONTAINERS.contains(&name) {
        return wrong(
            ".name",
            format!("the name {name:?} is that of a container of restic's; choose another"),
        );
    }
    let mounts = container.volume_mounts.iter().flatten().map(|m| m.name.as_str());
    let devices = container.volume_devices.iter().flatten().map(|d| d.name.as_str());
    if let Some(foreign) = mounts.chain(devices).find(|volume| !volumes.contains(volume)) {
        return wrong(
            ".volumeMounts",
            format!("volume {foreign:?} is not one of the template"),
        );
    }
    Ok(())
}

/// What a container may do beyond the "baseline" standard.
fn privileges(container: &Container) -> Result<(), Wrong> {
    let wrong = |part: &str, why: String| Err((part.to_owned(), why));
    let Some(security) = &container.security_context else {
        return Ok(());
    };
    let given = |part: &str| format!(".securityContext.{part}");
    if security.privileged == Some(true) {
        return wrong(&given("privileged"), format!("it must not be true: {SHARED}"));
    }
    if security
        .proc_mount
        .as_deref()
        .is_some_and(|mount| mount != "Default")
    {
        return wrong(&given("procMount"), "write Default or leave it out".to_owned());
    }
    let added = security.capabilities.as_ref().and_then(|c| c.add.as_ref());
    match added
        .into_iter()
        .flatten()
        .find(|c| !CAPABILITIES.contains(&c.as_str()))
    {
        Some(capability) => wrong(
            &given("capabilities"),
            format!("{capability} cannot be added: {SHARED}"),
        ),
        None => Ok(()),
    }
}

#[cfg(test)]
#[path = "guest_tests.rs"]
mod tests;
