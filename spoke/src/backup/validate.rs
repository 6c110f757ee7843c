//! A spec as it may be worked with. What comes after reads only this.

use crds::backup::ResticConfig;
use crds::common::BadPart;
use crds::conditions::reasons;
use crds::schedule::{Schedule, ScheduleError};
use crds::{ResticBackup, names};

use super::options::{self, BadOption};
use crate::hooks::{self, BadHook, Subject};
use crate::pod::{JobSettings, SOURCE_DIR, job_settings};
use crate::site::Site;
use crate::world::Key;

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
    pub hooks: Option<hooks::Plan>,
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
    #[error(transparent)]
    Option(#[from] BadOption),
    #[error("spec.restic.tags: {0:?} is reserved: tags that begin with fleet. say whose a snapshot is")]
    Tag(String),
    #[error("spec.restic.{0}")]
    Image(String),
    #[error(transparent)]
    Part(#[from] BadPart),
    #[error(transparent)]
    Hook(#[from] BadHook),
}

impl Invalid {
    /// Reason of condition Ready.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Invalid::Schedule(_) => reasons::INVALID_SCHEDULE,
            Invalid::Sources(_) => reasons::INVALID_SOURCE,
            Invalid::NotSupported(_) => reasons::SOURCE_NOT_SUPPORTED,
            Invalid::Image(_) => reasons::IMAGE_NOT_ALLOWED,
            Invalid::Path(_) | Invalid::Option(_) | Invalid::Tag(_) | Invalid::Part(_) | Invalid::Hook(_) => {
                reasons::INVALID_SPEC
            }
        }
    }

    /// A CronJob that an earlier version made of this spec must not run on: it might give the repository's keys away.
    #[must_use]
    pub fn is_unsafe(&self) -> bool {
        matches!(self, Invalid::Option(_) | Invalid::Tag(_) | Invalid::Image(_))
    }
}

/// Checks what the schema cannot, and what it checks again: an object may be older than the schema.
pub fn validate(key: &Key, site: &Site, backup: &ResticBackup) -> Result<Valid, Invalid> {
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
    if let Some(tag) = restic.tags.iter().find_map(|tag| options::reserved(tag)) {
        return Err(Invalid::Tag(tag.to_owned()));
    }
    // Two clusters may well use the same host name, and even the same name: these tell their snapshots apart.
    let identity = [
        format!("fleet.cluster={}", site.cluster),
        format!("fleet.cluster-uid={}", site.cluster_uid),
        format!("fleet.backup={key}"),
    ];
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
    if pvc.include_lost_and_found != Some(true) {
        arguments.extend(["--exclude".to_owned(), format!("{SOURCE_DIR}/lost+found")]);
    }
    let options = options::parse(&restic.extra_args)?.arguments;
    // The parent is the last snapshot of this very backup: host and paths are the same for backups of one name in all
    // clusters, and each would read all files again after the other's run. The tags tell them apart.
    if !options.iter().any(|option| option.starts_with("--group-by=")) {
        arguments.extend(["--group-by", "host,paths,tags"].map(str::to_owned));
    }
    arguments.extend(options);
    arguments.push("--".to_owned());
    arguments.extend(paths(&pvc.paths)?);
    let image = restic.image.clone().filter(|image| !image.is_empty());
    let image = image.unwrap_or_else(|| crds::RESTIC_IMAGE.to_owned());
    if !site.images.allows(&image) {
        return Err(Invalid::Image(site.images.refusal(&image)));
    }
    let job = job_settings(spec.job_config.as_ref())?;
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
        image,
        hooks: hooks(key, backup, job.service_account.as_deref())?,
        job,
    })
}

fn hooks(key: &Key, backup: &ResticBackup, account: Option<&str>) -> Result<Option<hooks::Plan>, BadHook> {
    let owner = hooks::Owner {
        kind: "ResticBackup".to_owned(),
        name: key.name.to_string(),
        uid: backup.metadata.uid.clone().unwrap_or_default(),
    };
    let own = || names::backup_service_account(&key.name);
    let account = account.map_or_else(own, str::to_owned);
    let given = backup.spec.hooks.clone().unwrap_or_default();
    let given = [&given.pre_backup, &given.post_backup, &given.on_failure].map(Option::as_ref);
    hooks::given(Subject::Backup, (owner, account), given)
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
        validate(&Key::new("shop", "orders"), &Site::of_tests(), &backup)
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
            "fleet.cluster-uid=uid-of-a",
            "--tag",
            "fleet.backup=shop/orders",
            "--exclude",
            "/backup/lost+found",
            "--group-by",
            "host,paths,tags",
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
    fn lost_and_found_of_the_file_system_is_left_out_unless_it_is_asked_for() {
        let excluded = |value: Value| {
            let pvc = json!({ "source": { "pvc": { "claimName": "d", "includeLostAndFound": value } } });
            let arguments = check(pvc).unwrap().arguments;
            arguments.contains(&"/backup/lost+found".to_owned())
        };
        assert!(excluded(Value::Null) && excluded(json!(false)) && !excluded(json!(true)));
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
    fn what_could_give_the_keys_away_is_refused_and_stops_what_runs() {
        for (restic, reason, part) in [
            (
                json!({ "extraArgs": ["/proc/self/environ"] }),
                "InvalidSpec",
                "spec.restic.extraArgs",
            ),
            (
                json!({ "extraArgs": ["-o", "sftp.command=id"] }),
                "InvalidSpec",
                "spec.restic.extraArgs",
            ),
            (
                json!({ "tags": ["fleet.backup=shop/other"] }),
                "InvalidSpec",
                "spec.restic.tags",
            ),
            (
                json!({ "tags": ["a, fleet.cluster=b"] }),
                "InvalidSpec",
                "spec.restic.tags",
            ),
            (
                json!({ "image": "evil/x:1" }),
                "ImageNotAllowed",
                "--allowed-images",
            ),
        ] {
            let error = check(json!({ "restic": restic.clone() })).unwrap_err();
            assert_eq!(error.reason(), reason, "{restic}");
            assert!(error.to_string().contains(part) && error.is_unsafe(), "{error}");
        }
        assert!(!check(json!({ "source": {} })).unwrap_err().is_unsafe());
        let good = json!({ "restic": { "tags": ["fleet"], "extraArgs": ["--exclude", "a b"], "image": "restic/restic:1" } });
        let valid = check(good).unwrap();
        assert!(valid.arguments.contains(&"--exclude=a b".to_owned()));
        assert_eq!(valid.image, "restic/restic:1");
    }

    #[test]
    fn who_groups_otherwise_does_so() {
        let own = json!({ "restic": { "extraArgs": ["-g", "paths"] } });
        let arguments = check(own).unwrap().arguments;
        assert!(arguments.contains(&"--group-by=paths".to_owned()));
        assert!(!arguments.contains(&"--group-by".to_owned()), "{arguments:?}");
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
}
