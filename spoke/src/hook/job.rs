//! A hook that is a Job.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crds::names;
use k8s_openapi::api::batch::v1::{Job, JobSpec};
use k8s_openapi::api::core::v1::{Pod, PodTemplateSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::ResourceExt as _;
use kube::api::{Api, ListParams, PostParams};
use tokio::time::sleep;

use super::{Attempt, Runner, log};
use crate::hooks::Subject;
use crate::runs::hooks::How;
use crate::world::{JobEnd, JobView};

/// How often the Job is looked at.
const LOOK: Duration = Duration::from_secs(1);
/// How long the Job stays for its log.
const KEPT_SECONDS: i32 = 3600;
/// Annotation: uid of the pod that made it.
const MADE_BY: &str = "backup.resticbackup.io/hook-of";

impl Runner {
    /// Makes the Job, or finds the one that an earlier start of this container has made, and waits for its end: for
    /// `limit`, and for `patience` until Kubernetes says so.
    pub(super) async fn job(
        &self,
        hook: &str,
        template: &PodTemplateSpec,
        (limit, patience): (Duration, Duration),
        begin: impl FnOnce() -> Result<(), String>,
    ) -> Attempt {
        let api = Api::<Job>::namespaced(self.client.clone(), &self.namespace);
        let wanted = self.wanted(hook, template, limit);
        let name = wanted.name_any();
        if let Err(text) = begin() {
            return Attempt::NotBegun(text);
        }
        match api.create(&PostParams::default(), &wanted).await {
            Ok(_) => log(&format!("{hook}: Job {name} was made")),
            Err(kube::Error::Api(status)) if status.code == 409 => match api.get_opt(&name).await {
                Ok(Some(job)) if job.annotations().get(MADE_BY) == Some(&self.pod_uid) => {}
                Ok(_) => return Attempt::NotBegun(format!("Job {name} exists, and is not of this run")),
                Err(error) => return Attempt::Ended(How::Unknown, format!("Job {name}: {error}")),
            },
            Err(kube::Error::Api(status)) => {
                return Attempt::NotBegun(format!("Job {name} cannot be made: {}", status.message));
            }
            Err(error) => return Attempt::Ended(How::Unknown, format!("Job {name}: {error}")),
        }
        self.end_of(&api, &name, (limit, patience)).await
    }

    fn wanted(&self, hook: &str, template: &PodTemplateSpec, limit: Duration) -> Job {
        let owner = &self.plan.owner;
        let label = match self.plan.subject {
            Subject::Backup => names::LABEL_BACKUP,
            Subject::Restore => names::LABEL_RESTORE,
        };
        let labels = [
            (names::LABEL_COMPONENT, "hook".to_owned()),
            (names::LABEL_TYPE, "hook".to_owned()),
            (label, names::label_value(&owner.name)),
        ];
        let suffix = format!("-{}", hook.to_lowercase());
        let room = names::LABEL_MAX.saturating_sub(suffix.len());
        Job {
            metadata: ObjectMeta {
                name: Some(names::bounded("", &self.pod_name, room) + &suffix),
                labels: Some(labels.map(|(k, v)| (k.to_owned(), v)).into()),
                annotations: Some(BTreeMap::from([(MADE_BY.to_owned(), self.pod_uid.clone())])),
                owner_references: Some(vec![OwnerReference {
                    api_version: format!("{}/{}", crds::GROUP, crds::VERSION),
                    kind: owner.kind.clone(),
                    name: owner.name.clone(),
                    uid: owner.uid.clone(),
                    controller: None,
                    block_owner_deletion: None,
                }]),
                ..ObjectMeta::default()
            },
            spec: Some(JobSpec {
                backoff_limit: Some(0),
                active_deadline_seconds: i64::try_from(limit.as_secs()).ok().map(|s| s.max(1)),
                ttl_seconds_after_finished: Some(KEPT_SECONDS),
                template: template.clone(),
                ..JobSpec::default()
            }),
            ..Job::default()
        }
    }

    async fn end_of(&self, api: &Api<Job>, name: &str, (limit, patience): (Duration, Duration)) -> Attempt {
        let start = Instant::now();
        let mut last = format!("Job {name} did not end within {limit:?}");
        while start.elapsed() < limit + patience {
            sleep(LOOK).await;
            let job = match api.get_opt(name).await {
                Ok(Some(job)) => JobView::of(&job),
                Ok(None) => return Attempt::Ended(How::Unknown, format!("Job {name} was deleted")),
                Err(error) => {
                    last = format!("Job {name} cannot be read: {error}");
                    continue;
                }
            };
            match job.end {
                None => {}
                Some((_, JobEnd::Complete)) => return Attempt::Ended(How::Succeeded, String::new()),
                Some((_, JobEnd::Failed { reason, message })) => {
                    let words = self.words(name).await;
                    return Attempt::Ended(How::Failed, format!("Job {name}: {reason}: {message}{words}"));
                }
            }
        }
        Attempt::Ended(How::Unknown, last)
    }

    /// What its containers said of their end.
    async fn words(&self, job: &str) -> String {
        let api = Api::<Pod>::namespaced(self.client.clone(), &self.namespace);
        let labels = format!("batch.kubernetes.io/job-name={job}");
        let Ok(pods) = api.list(&ListParams::default().labels(&labels)).await else {
            return String::new();
        };
        let statuses = pods.items.into_iter().filter_map(|pod| pod.status);
        let containers = statuses.flat_map(|status| status.container_statuses.unwrap_or_default());
        let ended = containers.filter_map(|c| Some((c.name, c.state?.terminated?)));
        let words = ended.filter(|(_, end)| end.exit_code != 0).map(|(name, end)| {
            let message = end.message.unwrap_or_default();
            format!("; container {name}: exit code {} {message}", end.exit_code)
                .trim_end()
                .to_owned()
        });
        words.collect()
    }
}
