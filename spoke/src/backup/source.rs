//! `spec.source` as it may be worked with. Pure.

use crds::backup::{BackupSource, CustomSource, ExecSource, PodSource, PodVolumeSource};
use k8s_openapi::api::core::v1::Container;

use super::validate::Invalid;
use crate::pod::guest::Guest;
use crate::pod::stream::Exec;

/// What is to be backed up.
#[derive(Clone, Debug, PartialEq)]
pub enum Wanted {
    /// A claim, by its name.
    Claim(String),
    /// The claim behind a volume of running pods.
    PodVolume(PodVolumeSource),
    Custom(Custom),
    /// The output of a command in a running pod.
    Exec {
        filename: String,
        exec: Exec,
    },
    /// The output of a command in a pod of its own.
    Command {
        filename: String,
        guest: Guest,
        container: String,
    },
}

/// A pod that brings its own data.
#[derive(Clone, Debug, PartialEq)]
pub struct Custom {
    pub guest: Guest,
    /// The volume with the data, and the place in it. It is mounted, not given to restic as a path: the kubelet follows no
    /// link out of the volume, also when the template changes it meanwhile.
    pub volume: String,
    pub sub_path: Option<String>,
}

impl Wanted {
    /// Reads the source.
    ///
    /// # Errors
    /// What cannot be used, with the field to change.
    pub fn parse(source: &BackupSource) -> Result<Wanted, Invalid> {
        let given = [
            source.pvc.is_some(),
            source.pod_volume_backup.is_some(),
            source.custom_source.is_some(),
            source.stdin.is_some(),
        ];
        let count = given.iter().filter(|given| **given).count();
        if count != 1 {
            return Err(Invalid::Sources(count));
        }
        if let Some(pvc) = &source.pvc {
            return Ok(Wanted::Claim(pvc.claim_name.clone()));
        }
        if let Some(volume) = &source.pod_volume_backup {
            return Ok(Wanted::PodVolume(volume.clone()));
        }
        if let Some(custom) = &source.custom_source {
            return custom_source(custom).map(Wanted::Custom);
        }
        let stdin = source.stdin.as_ref().ok_or(Invalid::Sources(0))?;
        let filename = stdin.filename.clone();
        if filename.is_empty() || filename.contains(['/', '\n', '\0']) || matches!(&*filename, "." | "..") {
            return Err(Invalid::Source(format!(
                "stdin.filename: {filename:?} is not a file name, such as orders.sql"
            )));
        }
        match (&stdin.exec, &stdin.pod) {
            (Some(exec), None) => Ok(Wanted::Exec {
                filename,
                exec: in_pod(exec)?,
            }),
            (None, Some(pod)) => of_pod(filename, pod),
            _ => Err(Invalid::Source(
                "stdin needs exactly one of exec and pod".to_owned(),
            )),
        }
    }

    /// Name in the snapshot of what a command writes.
    #[must_use]
    pub fn filename(&self) -> Option<&str> {
        match self {
            Wanted::Exec { filename, .. } | Wanted::Command { filename, .. } => Some(filename),
            Wanted::Claim(_) | Wanted::PodVolume(_) | Wanted::Custom(_) => None,
        }
    }

    /// The template that restic is added to.
    #[must_use]
    pub fn guest(&self) -> Option<&Guest> {
        match self {
            Wanted::Custom(custom) => Some(&custom.guest),
            Wanted::Command { guest, .. } => Some(guest),
            Wanted::Claim(_) | Wanted::PodVolume(_) | Wanted::Exec { .. } => None,
        }
    }

    /// Whether it needs a right in the API server.
    #[must_use]
    pub fn executes(&self) -> bool {
        matches!(self, Wanted::Exec { .. })
    }
}

fn custom_source(custom: &CustomSource) -> Result<Custom, Invalid> {
    let guest = Guest::parse("spec.source.customSource.podTemplate", &custom.pod_template)?;
    runs_to_its_end(&guest)?;
    let path = custom.backup_path.trim_end_matches('/');
    if !custom.backup_path.starts_with('/') || crate::paths::goes_up(path) {
        return Err(Invalid::Source(format!(
            "customSource.backupPath: {:?} must begin with \"/\" and hold no \"..\"",
            custom.backup_path
        )));
    }
    let mounts = guest
        .containers()
        .flat_map(|container| container.volume_mounts.iter().flatten());
    let found = mounts.filter_map(|mount| Some((mount, below(path, &mount.mount_path)?)));
    // The deepest mount is what a container sees there.
    let found = found.max_by_key(|(mount, _)| mount.mount_path.trim_end_matches('/').len());
    let Some((mount, rest)) = found else {
        return Err(Invalid::Source(format!(
            "customSource.backupPath: no container of podTemplate mounts a volume at {:?} or above it; restic sees only what \
             lies in a volume",
            custom.backup_path
        )));
    };
    if mount
        .sub_path_expr
        .as_deref()
        .is_some_and(|expression| !expression.is_empty())
    {
        let text = "customSource.podTemplate: the volume of backupPath is mounted with subPathExpr, which restic cannot follow; write subPath";
        return Err(Invalid::Source(text.to_owned()));
    }
    let parts = [mount.sub_path.as_deref().unwrap_or_default(), rest].map(|part| part.trim_matches('/'));
    let parts: Vec<&str> = parts.into_iter().filter(|part| !part.is_empty()).collect();
    let (volume, sub_path) = (mount.name.clone(), parts.join("/"));
    Ok(Custom {
        guest,
        volume,
        sub_path: Some(sub_path).filter(|path| !path.is_empty()),
    })
}

/// What is left of a path below a folder.
fn below<'a>(path: &'a str, folder: &str) -> Option<&'a str> {
    let rest = path.strip_prefix(folder.trim_end_matches('/'))?;
    (rest.is_empty() || rest.starts_with('/')).then_some(rest)
}

/// Containers become init containers, which cannot have everything.
fn runs_to_its_end(guest: &Guest) -> Result<(), Invalid> {
    let goes_on = |c: &&Container| {
        c.liveness_probe.is_some()
            || c.readiness_probe.is_some()
            || c.startup_probe.is_some()
            || c.lifecycle.is_some()
    };
    match guest.spec.containers.iter().find(goes_on) {
        Some(container) => Err(Invalid::Source(format!(
            "customSource.podTemplate: container {:?} has a probe or a lifecycle, and is to end before restic starts; make it an \
             init container with restartPolicy Always if it is to run beside restic",
            container.name
        ))),
        None => Ok(()),
    }
}

fn in_pod(exec: &ExecSource) -> Result<Exec, Invalid> {
    let selector = &exec.pod_selector;
    let names = selector
        .match_labels
        .as_ref()
        .is_some_and(|labels| !labels.is_empty())
        || selector
            .match_expressions
            .as_ref()
            .is_some_and(|rules| !rules.is_empty());
    if !names {
        let text =
            "stdin.exec.podSelector must name a label: an empty one matches every pod of the namespace";
        return Err(Invalid::Source(text.to_owned()));
    }
    if exec.command.first().is_none_or(String::is_empty) {
        return Err(Invalid::Source(
            "stdin.exec.command needs a program, such as pg_dumpall".to_owned(),
        ));
    }
    Ok(Exec {
        selector: selector.clone(),
        container: exec.container.clone().filter(|name| !name.is_empty()),
        command: exec.command.clone(),
    })
}

fn of_pod(filename: String, pod: &PodSource) -> Result<Wanted, Invalid> {
    const FIELD: &str = "stdin.pod.podTemplate";
    let guest = Guest::parse(&format!("spec.source.{FIELD}"), &pod.pod_template)?;
    let wanted = pod.container.as_deref().filter(|name| !name.is_empty());
    let containers = &guest.spec.containers;
    let container = match (wanted, &containers[..]) {
        (Some(name), all) => all.iter().find(|c| c.name == name),
        (None, [only]) => Some(only),
        (None, _) => None,
    };
    let Some(container) = container else {
        let names: Vec<&str> = containers.iter().map(|c| c.name.as_str()).collect();
        let text = format!(
            "stdin.pod.container must be one of {FIELD}.spec.containers: {}",
            names.join(", ")
        );
        return Err(Invalid::Source(text));
    };
    if container.command.as_ref().is_none_or(Vec::is_empty) {
        let text = format!(
            "{FIELD}: container {:?} needs command: that of its image cannot be known",
            container.name
        );
        return Err(Invalid::Source(text));
    }
    let container = container.name.clone();
    Ok(Wanted::Command {
        filename,
        guest,
        container,
    })
}
