//! The parts of a pod whose data comes from a command: the command runs in a container of its own, which knows nothing of
//! the repository, and what it writes goes through a socket to the container `restic`. Pure.
//!
//! ```text
//! init container `tools`: copies fleet-spoke into a volume
//! container `source`:     fleet-spoke stream exec | serve   -- runs the command once restic asks for its output
//! container `restic`:     restic backup --stdin-from-command -- fleet-spoke stream receive
//! ```

use k8s_openapi::api::core::v1::{Container, PodSpec, ResourceRequirements, SecurityContext, VolumeMount};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;

use super::frame::container_security;
use super::literal::literal_container;
use super::security::{USER, runs_as_root};
use super::{empty_dir, mount, token, variable};
use crate::world::{AFTER, BEFORE, RESTIC_CONTAINER};

/// Where the program lies in every container of the pod that needs it.
pub const PROGRAM: &str = "/fleet-tools/fleet-spoke";
const TOOLS: (&str, &str) = ("fleet-tools", "/fleet-tools");
/// Where the containers meet.
pub const SOCKET: &str = "/fleet-stream/socket";
const STREAM: (&str, &str) = ("fleet-stream", "/fleet-stream");
const TOKEN: &str = "fleet-token";
/// Variable of the container `restic`: the program that keeps the source's container running as long as it runs itself.
pub const VARIABLE: &str = "FLEET_STREAM";
/// Container of the command.
pub const SOURCE_CONTAINER: &str = "source";
const TOOLS_CONTAINER: &str = "tools";

/// Names of containers and volumes that a template cannot have.
pub const RESERVED_CONTAINERS: [&str; 5] = [
    RESTIC_CONTAINER,
    SOURCE_CONTAINER,
    TOOLS_CONTAINER,
    BEFORE[0],
    AFTER[0],
];
pub const RESERVED_VOLUMES: [&str; 11] = [
    "tmp",
    "cache",
    "users",
    "credentials",
    "ssh",
    "backup-script",
    TOOLS.0,
    STREAM.0,
    TOKEN,
    // Of hooks.
    "hooks",
    "hook-token",
];

/// A command in a running pod.
#[derive(Clone, Debug, PartialEq)]
pub struct Exec {
    pub selector: LabelSelector,
    pub container: Option<String>,
    pub command: Vec<String>,
}

/// What restic runs to get the data.
#[must_use]
pub fn receive() -> [String; 3] {
    [PROGRAM, "stream", "receive"].map(str::to_owned)
}

/// Adds to a pod what all of its containers need. `image` is that of this program.
pub fn attach(pod: &mut PodSpec, image: &str, resources: Option<&ResourceRequirements>) {
    let install = ["stream", "install", PROGRAM].map(str::to_owned);
    let tools = Container {
        volume_mounts: Some(vec![mount(TOOLS.0, TOOLS.1, false)]),
        ..own(pod, TOOLS_CONTAINER, image, install.into(), resources)
    };
    let volumes = pod.volumes.get_or_insert_default();
    volumes.push(empty_dir(TOOLS.0, None));
    volumes.push(empty_dir(STREAM.0, None));
    pod.init_containers.get_or_insert_default().insert(0, tools);
    if let Some(restic) = pod.containers.iter_mut().find(|c| c.name == RESTIC_CONTAINER) {
        restic.volume_mounts.get_or_insert_default().extend(mounts());
        restic
            .env
            .get_or_insert_default()
            .push(variable(VARIABLE, PROGRAM));
    }
}

/// Adds the container that runs a command in another pod. It alone gets a token of the pod's account.
pub fn exec(pod: &mut PodSpec, image: &str, exec: &Exec, resources: Option<&ResourceRequirements>) {
    let selector = serde_json::to_string(&exec.selector).unwrap_or_default();
    let mut arguments = vec![
        "stream".to_owned(),
        "exec".to_owned(),
        format!("--selector={selector}"),
    ];
    arguments.extend(exec.container.as_ref().map(|name| format!("--container={name}")));
    arguments.push("--".to_owned());
    arguments.extend(exec.command.iter().cloned());
    let mut mounts: Vec<VolumeMount> = mounts().into();
    mounts.push(token::mount(TOKEN));
    let source = Container {
        volume_mounts: Some(mounts),
        ..own(pod, SOURCE_CONTAINER, image, arguments, resources)
    };
    pod.containers.push(source);
    pod.volumes.get_or_insert_default().push(token::volume(TOKEN));
}

/// Has a container of a template write what its command writes to restic. Its texts are its own: they are expanded as in
/// any pod.
pub fn serve(container: &mut Container) {
    let command = container.command.take().unwrap_or_default();
    let arguments = container.args.take().unwrap_or_default();
    let program = [PROGRAM, "stream", "serve", "--"].map(str::to_owned);
    container.command = Some(program.into_iter().chain(command).collect());
    container.args = Some(arguments).filter(|arguments| !arguments.is_empty());
    container.volume_mounts.get_or_insert_default().extend(mounts());
}

/// The program cannot be changed by a container of a template: restic runs it too.
fn mounts() -> [VolumeMount; 2] {
    [mount(TOOLS.0, TOOLS.1, true), mount(STREAM.0, STREAM.1, false)]
}

/// A container of this program in a pod. It is never root, whatever restic is.
fn own(
    pod: &PodSpec,
    name: &str,
    image: &str,
    arguments: Vec<String>,
    resources: Option<&ResourceRequirements>,
) -> Container {
    let root = pod.security_context.as_ref().is_some_and(runs_as_root);
    literal_container(Container {
        name: name.to_owned(),
        image: Some(image.to_owned()),
        image_pull_policy: Some("IfNotPresent".to_owned()),
        command: Some(vec!["fleet-spoke".to_owned()]),
        args: Some(arguments),
        // A quota may want limits of every container.
        resources: resources.cloned(),
        security_context: Some(SecurityContext {
            run_as_user: root.then_some(USER),
            ..container_security(false, &[])
        }),
        termination_message_policy: Some("FallbackToLogsOnError".to_owned()),
        ..Container::default()
    })
}
