//! A spec as it may be worked with. What comes after reads only this.

use crds::ResticBackup;
use crds::backup::ResticConfig;
use crds::common::BadPart;
use crds::conditions::reasons;
use crds::schedule::{Schedule, ScheduleError};

use crate::pod::{JobSettings, job_settings};
use crate::world::Key;

/// Where a source is mounted, and what paths in snapshots begin with.
pub const SOURCE_DIR: &str = "/backup";

/// A valid spec.
#[derive(Clone, Debug)]
pub struct Valid {
    pub repository: Key,
    pub schedule: Schedule,
    /// As written.
    pub cron: String,
    pub timezone: String,
    pub suspend: bool,
    pub claim: String,
    /// Arguments of restic after `backup`, paths included.
    pub arguments: Vec<String>,
    pub image: String,
    pub job: JobSettings,
    /// Parts of the spec that are accepted and not acted on yet.
    pub without_effect: Vec<&'static str>,
}

/// Why a spec is refused, with the field to change.
#[derive(Debug, thiserror::Error)]
pub enum Invalid {
    #[error("spec.{0}")]
    Schedule(#[from] ScheduleError),
    #[error("spec.source needs exactly one of pvc, podVolumeBackup and customSource, and has {0}")]
    Sources(usize),
    #[error("spec.source.{0} is not supported yet; use spec.source.pvc")]
    NotSupported(&'static str),
    #[error("spec.source.pvc.paths: {0:?} leaves the volume; remove \"..\"")]
    Path(String),
    #[error("spec.restic.extraArgs: {argument:?} cannot be used: {why}")]
    Argument { argument: String, why: &'static str },
    #[error(transparent)]
    Part(#[from] BadPart),
}

impl Invalid {
    /// Reason of condition Ready.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Invalid::Schedule(_) => reasons::INVALID_SCHEDULE,
            Invalid::Sources(_) => reasons::INVALID_SOURCE,
            Invalid::NotSupported(_) => reasons::SOURCE_NOT_SUPPORTED,
            Invalid::Path(_) | Invalid::Argument { .. } | Invalid::Part(_) => reasons::INVALID_SPEC,
        }
    }
}

/// Arguments that would break what the controller relies on, and why.
const REFUSED: &[(&[&str], &str)] = &[
    (
        &["-r", "--repo", "--repository-file"],
        "the repository is set by spec.repositoryRef",
    ),
    (
        &[
            "-p",
            "--password-file",
            "--password-command",
            "--insecure-no-password",
        ],
        "the password comes from the repository's Secret",
    ),
    (
        &["--no-lock"],
        "a backup without a lock can be destroyed by a prune",
    ),
    (
        &["--json", "-q", "--quiet", "-v", "--verbose"],
        "the result is read from restic's output",
    ),
    (
        &["-n", "--dry-run"],
        "it would look like a backup and store nothing",
    ),
    (
        &["--stdin", "--stdin-filename", "--stdin-from-command"],
        "the source is set by spec.source",
    ),
    (
        &["--files-from", "--files-from-raw", "--files-from-verbatim"],
        "the source is set by spec.source.pvc.paths",
    ),
    (&["-H", "--host"], "write spec.restic.hostname instead"),
    (
        &["--cache-dir", "--no-cache"],
        "the cache is set by spec.cache of the ResticRepository",
    ),
    (&["--"], "it would turn what follows into paths"),
];

/// Checks what the schema cannot, and what it checks again: an object may be older than the schema.
pub fn validate(key: &Key, cluster: &str, backup: &ResticBackup) -> Result<Valid, Invalid> {
    let spec = &backup.spec;
    let timezone = spec
        .timezone
        .as_deref()
        .filter(|zone| !zone.is_empty())
        .unwrap_or("UTC")
        .to_owned();
    let schedule = Schedule::parse(&spec.schedule, &timezone)?;
    let source = &spec.source;
    let sources = [
        source.pvc.is_some(),
        source.pod_volume_backup.is_some(),
        source.custom_source.is_some(),
    ];
    let count = sources.iter().filter(|present| **present).count();
    let pvc = match (&source.pvc, count) {
        (Some(pvc), 1) => pvc,
        (None, 1) if source.pod_volume_backup.is_some() => {
            return Err(Invalid::NotSupported("podVolumeBackup"));
        }
        (None, 1) => return Err(Invalid::NotSupported("customSource")),
        _ => return Err(Invalid::Sources(count)),
    };
    let empty = ResticConfig::default();
    let restic = spec.restic.as_ref().unwrap_or(&empty);
    let mut arguments = vec![
        "--host".to_owned(),
        restic.hostname.clone().unwrap_or_else(|| key.name.to_string()),
    ];
    // Two clusters may well use the same host name: these tell their snapshots apart.
    let identity = [format!("fleet.cluster={cluster}"), format!("fleet.backup={key}")];
    for tag in restic.tags.iter().chain(&identity) {
        arguments.extend(["--tag".to_owned(), tag.clone()]);
    }
    for pattern in &pvc.excludes {
        // Anchored patterns are relative to the volume, as people see it.
        let anchored = if pattern.starts_with('/') {
            format!("{SOURCE_DIR}{pattern}")
        } else {
            pattern.clone()
        };
        arguments.extend(["--exclude".to_owned(), anchored]);
    }
    for argument in &restic.extra_args {
        check_argument(argument)?;
        arguments.push(argument.clone());
    }
    arguments.push("--".to_owned());
    arguments.extend(paths(&pvc.paths)?);
    Ok(Valid {
        repository: Key::new(
            spec.repository_ref.namespace_or(&key.namespace),
            &spec.repository_ref.name,
        ),
        schedule,
        cron: spec.schedule.trim().to_owned(),
        timezone,
        suspend: spec.suspend,
        claim: pvc.claim_name.clone(),
        arguments,
        image: restic
            .image
            .clone()
            .filter(|i| !i.is_empty())
            .unwrap_or_else(|| crds::RESTIC_IMAGE.to_owned()),
        job: job_settings(spec.job_config.as_ref())?,
        without_effect: without_effect(backup),
    })
}

fn check_argument(argument: &str) -> Result<(), Invalid> {
    let refuse = |why| {
        Err(Invalid::Argument {
            argument: argument.to_owned(),
            why,
        })
    };
    let name = argument.split('=').next().unwrap_or_default();
    if let Some((_, why)) = REFUSED.iter().find(|(names, _)| names.contains(&name)) {
        return refuse(why);
    }
    // Short flags may be written together, as in -vn, or with their value, as in -rs3:…
    let short = argument.strip_prefix('-').filter(|rest| !rest.starts_with('-'));
    if let Some(first) = short.and_then(|rest| rest.chars().next()) {
        let flag = format!("-{first}");
        if let Some((_, why)) = REFUSED.iter().find(|(names, _)| names.contains(&flag.as_str())) {
            return refuse(why);
        }
    }
    if argument.contains('\0') {
        return refuse("it holds a NUL character");
    }
    Ok(())
}

fn paths(paths: &[String]) -> Result<Vec<String>, Invalid> {
    if paths.is_empty() {
        return Ok(vec![SOURCE_DIR.to_owned()]);
    }
    let inside = |path: &String| {
        if path.split('/').any(|part| part == "..") {
            return Err(Invalid::Path(path.clone()));
        }
        let path = path.trim_matches('/');
        Ok(if path.is_empty() {
            SOURCE_DIR.to_owned()
        } else {
            format!("{SOURCE_DIR}/{path}")
        })
    };
    paths.iter().map(inside).collect()
}

fn without_effect(backup: &ResticBackup) -> Vec<&'static str> {
    let spec = &backup.spec;
    let hooks = spec
        .hooks
        .as_ref()
        .is_some_and(|h| h.pre_backup.is_some() || h.post_backup.is_some() || h.on_failure.is_some());
    let retention = spec
        .retention
        .as_ref()
        .is_some_and(|r| r.enabled.unwrap_or(r.policy.is_some()));
    let notifications = spec
        .notifications
        .as_ref()
        .is_some_and(|n| n.ntfy.is_some() || n.pushgateway.is_some());
    [
        (hooks, "hooks"),
        (retention, "retention"),
        (notifications, "notifications"),
    ]
    .into_iter()
    .filter_map(|(present, name)| present.then_some(name))
    .collect()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn check(spec: Value) -> Result<Valid, Invalid> {
        let mut full = json!({ "repositoryRef": { "name": "nas" }, "schedule": "@daily", "source": { "pvc": { "claimName": "data" } } });
        full.as_object_mut()
            .unwrap()
            .extend(spec.as_object().unwrap().clone());
        let backup: ResticBackup = serde_json::from_value(json!({
            "apiVersion": "backup.resticbackup.io/v1alpha1", "kind": "ResticBackup",
            "metadata": { "name": "orders", "namespace": "shop" }, "spec": full,
        }))
        .unwrap();
        validate(&Key::new("shop", "orders"), "a", &backup)
    }

    #[test]
    fn a_minimal_backup_takes_the_whole_volume() {
        let valid = check(json!({})).unwrap();
        let expected = [
            "--host",
            "orders",
            "--tag",
            "fleet.cluster=a",
            "--tag",
            "fleet.backup=shop/orders",
            "--",
            "/backup",
        ];
        assert_eq!(valid.arguments, expected);
        assert_eq!(
            (valid.timezone.as_str(), valid.repository),
            ("UTC", Key::new("shop", "nas"))
        );
    }

    #[test]
    fn paths_mean_the_same_with_and_without_a_slash() {
        let pvc = json!({ "source": { "pvc": { "claimName": "d", "paths": ["data", "/data/", "/"], "excludes": ["*.tmp", "/cache"] } } });
        let arguments = check(pvc).unwrap().arguments;
        assert!(arguments.ends_with(&[
            "--".into(),
            "/backup/data".into(),
            "/backup/data".into(),
            "/backup".into()
        ]));
        assert!(arguments.windows(2).any(|w| w == ["--exclude", "/backup/cache"]));
        let out = json!({ "source": { "pvc": { "claimName": "d", "paths": ["a/../../etc"] } } });
        assert_eq!(check(out).unwrap_err().reason(), "InvalidSpec");
    }

    #[test]
    fn what_would_break_the_contract_is_refused_with_a_reason() {
        for bad in [
            "--repo=x",
            "-rx",
            "--no-lock",
            "--dry-run",
            "-n",
            "--json",
            "--password-command=cat /x",
            "--host=h",
            "--",
            "-Hx",
        ] {
            let error = check(json!({ "restic": { "extraArgs": [bad] } })).unwrap_err();
            assert!(error.to_string().starts_with("spec.restic.extraArgs"), "{bad}");
        }
        for good in [
            "--exclude-caches",
            "--one-file-system",
            "--limit-upload=1000",
            "--skip-if-unchanged",
            "-x",
        ] {
            assert!(
                check(json!({ "restic": { "extraArgs": [good] } })).is_ok(),
                "{good}"
            );
        }
    }

    #[test]
    fn each_fault_has_its_reason() {
        assert_eq!(
            check(json!({ "schedule": "61 * * * *" })).unwrap_err().reason(),
            "InvalidSchedule"
        );
        assert_eq!(
            check(json!({ "timezone": "Mars" })).unwrap_err().reason(),
            "InvalidSchedule"
        );
        assert_eq!(
            check(json!({ "source": {} })).unwrap_err().reason(),
            "InvalidSource"
        );
        let custom = json!({ "source": { "customSource": { "podTemplate": {}, "backupPath": "/x" } } });
        assert_eq!(check(custom).unwrap_err().reason(), "SourceNotSupported");
        assert_eq!(
            check(json!({ "jobConfig": { "affinity": { "nodeAffinity": 1 } } }))
                .unwrap_err()
                .reason(),
            "InvalidSpec"
        );
    }

    #[test]
    fn what_has_no_effect_yet_is_named() {
        let spec = json!({ "retention": { "enabled": true, "policy": { "keepLast": 1 } }, "hooks": {}, "notifications": { "ntfy": { "serverURL": "http://n", "topic": "t" } } });
        assert_eq!(
            check(spec).unwrap().without_effect,
            ["retention", "notifications"]
        );
    }
}
