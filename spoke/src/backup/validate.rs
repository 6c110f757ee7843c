//! A spec as it may be worked with. What comes after reads only this.

use crds::backup::ResticConfig;
use crds::common::{BadPart, JobConfiguration};
use crds::conditions::reasons;
use crds::schedule::{Schedule, ScheduleError};
use crds::{ResticBackup, names};

use super::arguments::arguments;
use super::options::BadOption;
use super::source::Wanted;
use crate::hooks::{self, BadHook, Subject};
use crate::pod::guest::{self, BadTemplate};
use crate::pod::{JobSettings, job_settings};
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
    pub source: Wanted,
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
    #[error("spec.source needs exactly one of pvc, podVolumeBackup, customSource and stdin, and has {0}")]
    Sources(usize),
    #[error("spec.source.{0}")]
    Source(String),
    #[error(transparent)]
    Template(#[from] BadTemplate),
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
            Invalid::Sources(_) | Invalid::Source(_) => reasons::INVALID_SOURCE,
            Invalid::Template(_) => reasons::TEMPLATE_NOT_ALLOWED,
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
    let empty = ResticConfig::default();
    let restic = spec.restic.as_ref().unwrap_or(&empty);
    let source = Wanted::parse(&spec.source)?;
    let arguments = arguments(key, site, restic, spec.source.pvc.as_ref(), &source)?;
    let image = restic.image.clone().filter(|image| !image.is_empty());
    let image = image.unwrap_or_else(|| crds::RESTIC_IMAGE.to_owned());
    if !site.images.allows(&image) {
        return Err(Invalid::Image(site.images.refusal(&image)));
    }
    let job = settings(spec.job_config.as_ref(), &source)?;
    Ok(Valid {
        repository: Key::new(
            spec.repository_ref.namespace_or(&key.namespace),
            &spec.repository_ref.name,
        ),
        schedule,
        cron: spec.schedule.trim().to_owned(),
        timezone,
        suspend: spec.suspend,
        arguments,
        image,
        hooks: hooks(key, backup, job.service_account.as_deref())?,
        job,
        source,
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

/// `spec.jobConfig`, over what a template says of the whole pod.
fn settings(config: Option<&JobConfiguration>, source: &Wanted) -> Result<JobSettings, Invalid> {
    let mut job = job_settings(config)?;
    if let Some(guest) = source.guest() {
        let account = guest
            .spec
            .service_account_name
            .as_ref()
            .or(guest.spec.service_account.as_ref());
        job.service_account = job.service_account.or_else(|| account.cloned());
        if let Some(account) = job.service_account.as_deref().filter(|name| guest::is_ours(name)) {
            return Err(BadTemplate::Account(account.to_owned()).into());
        }
        job.security = job.security.or_else(|| guest.spec.security_context.clone());
    }
    Ok(job)
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
    fn every_example_is_valid() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/examples");
        let mut names = Vec::new();
        for file in std::fs::read_dir(folder).unwrap() {
            let path = file.unwrap().path();
            let backup: ResticBackup =
                serde_saphyr::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
            let valid = validate(&Key::new("shop", "orders"), &Site::of_tests(), &backup);
            assert!(valid.is_ok(), "{}: {:?}", path.display(), valid.err());
            names.push(path.file_stem().unwrap().to_string_lossy().into_owned());
        }
        for database in ["postgresql", "mariadb", "mongodb", "redis", "etcd", "sqlite"] {
            assert!(names.iter().any(|name| name == database), "{names:?}");
        }
    }

    #[test]
    fn a_source_that_cannot_be_worked_with_says_which_field() {
        let container = |more: Value| {
            let mut container = json!({ "name": "dump", "command": ["x"], "volumeMounts": [{ "name": "v", "mountPath": "/out", "subPath": "a/" }] });
            container
                .as_object_mut()
                .unwrap()
                .extend(more.as_object().unwrap().clone());
            json!({ "spec": { "containers": [container], "volumes": [{ "name": "v", "emptyDir": {} }] } })
        };
        let custom = |path: &str, template: Value| json!({ "customSource": { "podTemplate": template, "backupPath": path } });
        let pod = |name: Value, template: Value| json!({ "stdin": { "filename": "a", "pod": { "podTemplate": template, "container": name } } });
        let exec = |selector: Value, command: Value| json!({ "stdin": { "filename": "a", "exec": { "podSelector": selector, "command": command } } });
        let app = || json!({ "matchLabels": { "app": "db" } });
        let plain = || container(json!({}));
        for (source, reason, words) in [
            (
                custom("/elsewhere", plain()),
                "InvalidSource",
                "customSource.backupPath",
            ),
            (
                custom("/outside", plain()),
                "InvalidSource",
                "customSource.backupPath",
            ),
            (custom("out", plain()), "InvalidSource", "must begin with"),
            (custom("/out/../etc", plain()), "InvalidSource", "no \"..\""),
            (
                custom("/out", container(json!({ "lifecycle": {} }))),
                "InvalidSource",
                "restartPolicy Always",
            ),
            (
                custom(
                    "/out",
                    container(
                        json!({ "volumeMounts": [{ "name": "v", "mountPath": "/out", "subPathExpr": "$(A)" }] }),
                    ),
                ),
                "InvalidSource",
                "subPathExpr",
            ),
            (
                custom(
                    "/out",
                    json!({ "spec": { "hostPID": true, "containers": [{ "name": "a" }] } }),
                ),
                "TemplateNotAllowed",
                "customSource.podTemplate.spec.hostPID",
            ),
            (pod(json!("web"), plain()), "InvalidSource", "stdin.pod.container"),
            (
                pod(Value::Null, container(json!({ "command": [] }))),
                "InvalidSource",
                "needs command",
            ),
            (exec(json!({}), json!(["dump"])), "InvalidSource", "podSelector"),
            (exec(app(), json!([])), "InvalidSource", "command"),
            (exec(app(), json!([""])), "InvalidSource", "command"),
            (
                json!({ "stdin": { "filename": "a" } }),
                "InvalidSource",
                "exactly one of exec and pod",
            ),
            (
                json!({ "stdin": { "filename": "a/b", "exec": { "podSelector": app(), "command": ["x"] } } }),
                "InvalidSource",
                "filename",
            ),
        ] {
            let error = check(json!({ "source": source.clone() })).unwrap_err();
            assert!(
                error.reason() == reason && error.to_string().contains(words),
                "{source}: {error}"
            );
        }
        let mut template = plain();
        template["spec"]["serviceAccountName"] = json!("resticbackup-other");
        let job = json!({ "serviceAccountName": "resticbackup-other" });
        for spec in [
            json!({ "source": custom("/out", template) }),
            json!({ "source": custom("/out", plain()), "jobConfig": job }),
        ] {
            assert_eq!(
                check(spec).unwrap_err().reason(),
                "TemplateNotAllowed",
                "its right to run commands"
            );
        }
        let place = |path: &str| match check(json!({ "source": custom(path, plain()) })).unwrap().source {
            Wanted::Custom(custom) => custom.sub_path,
            other => panic!("{other:?}"),
        };
        assert_eq!(
            (place("/out/"), place("/out/b/c")),
            (Some("a".to_owned()), Some("a/b/c".to_owned()))
        );
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
        assert_eq!(check(custom).unwrap_err().reason(), "TemplateNotAllowed");
        assert_eq!(
            check(json!({ "jobConfig": { "affinity": { "nodeAffinity": 1 } } }))
                .unwrap_err()
                .reason(),
            "InvalidSpec"
        );
    }
}
