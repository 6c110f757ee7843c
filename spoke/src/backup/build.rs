//! The objects of a backup. Pure: a valid spec and a repository in, manifests out.

use std::collections::BTreeMap;

use crds::common::ConcurrencyPolicy;
use crds::{ResticBackup, ResticRepository, names};
use k8s_openapi::api::batch::v1::{CronJob, CronJobSpec, JobSpec, JobTemplateSpec};
use k8s_openapi::api::core::v1::{
    PersistentVolumeClaim, PodTemplateSpec, ServiceAccount, Volume, VolumeMount,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::locate::Located;
use super::source::Wanted;
use super::validate::Valid;
use crate::hooks::{self, Grant, Needs};
use crate::pod::{self, Frame, Source, hashed, stream};
use crate::queue;
use crate::site::Site;
use crate::world::Key;

/// Everything that is made for a backup.
#[derive(Clone, Debug)]
pub struct Objects {
    pub service_account: Option<ServiceAccount>,
    /// Only where hooks run, or a command in another pod.
    pub grant: Option<Grant>,
    /// Metadata of the copy of the credentials. Only where the repository lies in another namespace.
    pub credentials: Option<ObjectMeta>,
    /// The claim of the cache, where one is made.
    pub cache: Option<PersistentVolumeClaim>,
    pub cron_job: CronJob,
}

/// What a Job of the backup carries: that it waits for its turn, and what is to be run around it.
fn marks(limited: bool, hooks: Option<&hooks::Plan>) -> Option<BTreeMap<String, String>> {
    let parked = limited.then(|| (names::ANNOTATION_PARKED.to_owned(), "true".to_owned()));
    let hooks = hooks.map(|plan| (names::ANNOTATION_HOOKS.to_owned(), plan.json()));
    let marks: BTreeMap<String, String> = parked.into_iter().chain(hooks).collect();
    Some(marks).filter(|marks| !marks.is_empty())
}

/// Builds the objects.
#[must_use]
pub fn build(
    key: &Key,
    site: &Site,
    backup: &ResticBackup,
    valid: &Valid,
    located: &Located,
    (repository, kept): (&ResticRepository, Needs),
) -> Objects {
    let meta = |name: String| pod::controlled(backup, key, name, labels(&key.name, true));
    let account = || pod::account(meta(names::backup_service_account(&key.name)));
    let service_account = valid.job.service_account.is_none().then(account);
    let credentials = foreign(key, valid).then(|| meta(names::backup_credentials(&key.name)));
    let source = Source::of(key, &valid.repository, names::backup_credentials(&key.name));
    let job = &valid.job;
    let hooks = valid.hooks.as_ref();
    let mut needs = Needs::of(hooks).and(kept);
    needs.exec |= valid.source.executes();
    let own = names::backup_service_account(&key.name);
    let account = job.service_account.as_deref().unwrap_or(&own);
    let grant = hooks::grant(&meta(own.clone()), account, needs);
    let mut template = pod_template(key, site, valid, located, (repository, &source));
    if let Some(plan) = hooks {
        hooks::install(&mut template, plan, &site.image);
    }
    let limited = queue::is_limited(site.limits, repository);
    let cron_job = CronJob {
        metadata: meta(names::backup_cron_job(&key.name)),
        spec: CronJobSpec {
            schedule: valid.cron.clone(),
            time_zone: Some(valid.timezone.clone()),
            concurrency_policy: Some(concurrency(job.concurrency, limited).as_str().to_owned()),
            suspend: Some(valid.suspend),
            starting_deadline_seconds: Some(pod::BACKUP_DEADLINE),
            successful_jobs_history_limit: Some(job.successful_history),
            failed_jobs_history_limit: Some(job.failed_history),
            job_template: job_template(key, valid, limited, template),
        },
        ..CronJob::default()
    };
    let cache = valid.cache.as_ref();
    Objects {
        service_account,
        grant,
        credentials,
        cache: cache.and_then(|cache| cache.made(|name| meta(name.to_owned()))),
        cron_job: hashed(cron_job),
    }
}

/// What the Job of each run is made from. Where runs are limited it begins suspended, until it has a place.
fn job_template(key: &Key, valid: &Valid, limited: bool, template: PodTemplateSpec) -> JobTemplateSpec {
    JobTemplateSpec {
        metadata: Some(ObjectMeta {
            labels: Some(labels(&key.name, false)),
            annotations: marks(limited, valid.hooks.as_ref()),
            ..ObjectMeta::default()
        }),
        spec: Some(JobSpec {
            suspend: limited.then_some(true),
            backoff_limit: Some(valid.job.backoff_limit),
            active_deadline_seconds: Some(valid.job.deadline),
            template,
            ..JobSpec::default()
        }),
    }
}

/// Where runs wait for their turn, the next slot must not end the run that is under way for one that only waits.
fn concurrency(given: ConcurrencyPolicy, limited: bool) -> ConcurrencyPolicy {
    match given {
        ConcurrencyPolicy::Replace if limited => ConcurrencyPolicy::Forbid,
        given => given,
    }
}

/// Whether the repository lies in another namespace.
fn foreign(key: &Key, valid: &Valid) -> bool {
    valid.repository.namespace != key.namespace
}

/// Metadata of a Job that runs hooks which a run of the backup owes.
#[must_use]
pub fn hook_job(key: &Key, backup: &ResticBackup) -> ObjectMeta {
    let labels = pod::labels(names::LABEL_BACKUP, "hook", &key.name, true);
    pod::controlled(backup, key, String::new(), labels)
}

fn labels(name: &str, top: bool) -> BTreeMap<String, String> {
    pod::labels(names::LABEL_BACKUP, "backup", name, top)
}

fn pod_template(
    key: &Key,
    site: &Site,
    valid: &Valid,
    located: &Located,
    (repository, source): (&ResticRepository, &Source),
) -> PodTemplateSpec {
    let mut arguments = vec![
        "backup".to_owned(),
        "--json".to_owned(),
        "--retry-lock".to_owned(),
        crate::config::RETRY_LOCK.to_owned(),
    ];
    arguments.extend(pod::repository_flags(repository, &valid.job));
    arguments.extend(valid.arguments.iter().cloned());
    let (script, script_volume) = pod::entrypoint();
    let (mounts, volumes) = data(valid, located);
    let folder = valid.source.filename().is_none();
    let folder = folder.then(|| pod::variable(pod::SOURCE_VARIABLE, pod::SOURCE_DIR));
    let mut template = Frame {
        job: &valid.job,
        service_account: names::backup_service_account(&key.name),
        image: valid.image.clone(),
        repository,
        source,
        command: vec![pod::ENTRYPOINT.to_owned()],
        arguments,
        mounts: mounts.into_iter().chain([script]).collect(),
        volumes: volumes.into_iter().chain([script_volume]).collect(),
        environment: folder
            .into_iter()
            .chain(pod::identity(&site.cluster, pod::POD_UID))
            .collect(),
        cache: valid.cache.as_ref().map(|cache| cache.claim.clone()),
        // Root may read what it does not own, and write nothing.
        root_capabilities: &["DAC_READ_SEARCH"],
        own_volumes: !writes_to_a_claim(valid),
    }
    .template(labels(&key.name, false));
    join(&mut template, site, valid);
    if let Some(spec) = &mut template.spec {
        located.placement.apply(spec);
    }
    template
}

/// Adds what the source needs beside restic.
fn join(template: &mut PodTemplateSpec, site: &Site, valid: &Valid) {
    let resources = valid.job.resources.as_ref();
    let spec = template.spec.get_or_insert_default();
    match &valid.source {
        Wanted::Claim(_) | Wanted::PodVolume(_) => {}
        Wanted::Custom(custom) => custom.guest.join(template, true),
        Wanted::Exec { exec, .. } => {
            stream::attach(spec, &site.image, resources);
            stream::exec(spec, &site.image, exec, resources);
        }
        Wanted::Command { guest, container, .. } => {
            stream::attach(spec, &site.image, resources);
            let mut guest = guest.clone();
            let mut containers = guest.spec.containers.iter_mut();
            if let Some(container) = containers.find(|c| c.name == *container) {
                stream::serve(container);
            }
            guest.join(template, false);
        }
    }
}

/// The kubelet would give all files of the claim to the group of the pod.
fn writes_to_a_claim(valid: &Valid) -> bool {
    valid
        .source
        .guest()
        .is_some_and(|guest| guest.claims().any(|(_, written)| written))
}

/// The mount of the data, and the volume unless a template brings it.
fn data(valid: &Valid, located: &Located) -> (Option<VolumeMount>, Option<Volume>) {
    let mounted = |volume: &str, folder: &Option<String>| VolumeMount {
        sub_path: folder.clone(),
        ..pod::mount(volume, pod::SOURCE_DIR, true)
    };
    match (&located.claim, &valid.source) {
        (Some((claim, folder)), _) => (
            Some(mounted("source-data", folder)),
            Some(pod::claim("source-data", claim, true)),
        ),
        (None, Wanted::Custom(custom)) => (Some(mounted(&custom.volume, &custom.sub_path)), None),
        (None, _) => (None, None),
    }
}

#[cfg(test)]
#[path = "build_tests.rs"]
mod tests;
