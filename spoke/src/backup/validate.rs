//! A spec as it may be worked with. What comes after reads only this.

use crds::backup::ResticConfig;
use crds::common::{BadPart, JobConfiguration};
use crds::conditions::reasons;
use crds::schedule::{Schedule, ScheduleError, resolve, seed};
use crds::{ResticBackup, names};

use super::arguments::arguments;
use super::cache::CacheClaim;
use super::retention::{BadRetention, Retention};
use super::source::Wanted;
use crate::hooks::{self, BadHook, Subject};
use crate::pod::guest::{BadTemplate, Guest};
use crate::pod::{JobSettings, job_settings};
use crate::restic::options::{self, BadOption};
use crate::site::Site;
use crate::world::Key;

/// A valid spec.
#[derive(Clone, Debug)]
pub struct Valid {
    pub repository: Key,
    pub schedule: Schedule,
    /// As Kubernetes takes it.
    pub cron: String,
    pub timezone: String,
    pub suspend: bool,
    pub source: Wanted,
    /// Arguments of restic after `backup`, paths included.
    pub arguments: Vec<String>,
    pub image: String,
    pub job: JobSettings,
    pub hooks: Option<hooks::Plan>,
    /// Where restic's cache stays between runs.
    pub cache: Option<CacheClaim>,
    /// A mistake in it does not keep the backup from running.
    pub(super) retention: Result<Option<Retention>, BadRetention>,
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
    #[error(
        "spec.jobConfig.{0} and {1} in spec.restic.extraArgs mean the same: keep one and remove the other"
    )]
    Twice(&'static str, &'static str),
    #[error("spec.restic.tags: {0:?} is reserved: tags that begin with fleet. say whose a snapshot is")]
    Tag(String),
    #[error("spec.restic.{0}")]
    Image(String),
    #[error(transparent)]
    Part(#[from] BadPart),
    #[error(transparent)]
    Hook(#[from] BadHook),
    #[error("spec.jobConfig.cache{0}")]
    Cache(String),
    #[error(
        "spec.jobConfig.serviceAccountName: {0:?} would get the right to run commands in pods, and with it every pod that has \
         this account, those with the repository's keys in reach; remove it: hooks and spec.source.stdin.exec have an account of \
         their own"
    )]
    Account(String),
    #[error(
        "the template of spec.source mounts a serviceAccountToken, and its pod's account may run commands in pods for \
         spec.hooks: the repository's keys would be in reach; remove the token, or the hooks"
    )]
    Token,
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
            Invalid::Path(_)
            | Invalid::Option(_)
            | Invalid::Twice(..)
            | Invalid::Tag(_)
            | Invalid::Part(_)
            | Invalid::Hook(_)
            | Invalid::Cache(_)
            | Invalid::Account(_)
            | Invalid::Token => reasons::INVALID_SPEC,
        }
    }

    /// A CronJob that an earlier version made of this spec must not run on: it might give the repository's keys away.
    #[must_use]
    pub fn is_unsafe(&self) -> bool {
        matches!(
            self,
            Invalid::Option(_) | Invalid::Tag(_) | Invalid::Image(_) | Invalid::Account(_) | Invalid::Token
        )
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
    let own = seed("ResticBackup", &backup.metadata);
    let cron = resolve(&spec.schedule, &own)?;
    let schedule = Schedule::parse(&cron, &timezone)?;
    let empty = ResticConfig::default();
    let restic = spec.restic.as_ref().unwrap_or(&empty);
    let source = Wanted::parse(&spec.source)?;
    let arguments = arguments(key, site, restic, spec.source.pvc.as_ref(), &source)?;
    let image = restic.image.clone().filter(|image| !image.is_empty());
    let image = image.unwrap_or_else(|| crds::RESTIC_IMAGE.to_owned());
    if !site.images.allows(&image) {
        return Err(Invalid::Image(site.images.refusal(&image)));
    }
    let job = settings(spec.job_config.as_deref(), &source)?;
    twice(&job, &options::parse(&restic.extra_args)?.arguments)?;
    let hooks = hooks(key, backup, job.service_account.as_deref())?;
    if source.executes() || hooks.is_some() {
        rights(job.service_account.as_deref(), source.guest())?;
    }
    let repository = Key::new(
        spec.repository_ref.namespace_or(&key.namespace),
        &spec.repository_ref.name,
    );
    let cache = CacheClaim::parse(key, &job, &source)?;
    Ok(Valid {
        cache,
        retention: Retention::parse(&repository, backup, &timezone),
        repository,
        schedule,
        cron: cron.trim().to_owned(),
        timezone,
        suspend: spec.suspend,
        arguments,
        image,
        hooks,
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

/// A limit is written once.
fn twice(job: &JobSettings, extra: &[String]) -> Result<(), Invalid> {
    let pairs = [
        ("limitUpload", "--limit-upload"),
        ("limitDownload", "--limit-download"),
    ];
    let in_both = |(_, flag): &(&str, &str)| {
        let of = |list: &[String]| {
            let mut names = list.iter().filter_map(|argument| argument.split_once('='));
            names.any(|(name, _)| name == *flag)
        };
        of(&job.limits) && of(extra)
    };
    match pairs.into_iter().find(in_both) {
        Some((field, flag)) => Err(Invalid::Twice(field, flag)),
        None => Ok(()),
    }
}

/// The rights of hooks and commands are those of the pod's account: nobody else may have it.
fn rights(account: Option<&str>, guest: Option<&Guest>) -> Result<(), Invalid> {
    match account {
        Some(account) => Err(Invalid::Account(account.to_owned())),
        None if guest.is_some_and(Guest::has_token) => Err(Invalid::Token),
        None => Ok(()),
    }
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
        if let Some(account) = job
            .service_account
            .as_deref()
            .filter(|name| names::is_of_credentials(name))
        {
            return Err(BadTemplate::Account(account.to_owned()).into());
        }
        job.security = job.security.or_else(|| guest.spec.security_context.clone());
    }
    Ok(job)
}

#[cfg(test)]
#[path = "validate_tests.rs"]
mod tests;
