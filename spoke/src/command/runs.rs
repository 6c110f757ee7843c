//! Runs of backups, retention policies and checks: a Job from the CronJob's template, made by the actor of the resource,
//! with the id of the command in its name. It waits for the queue and for the maintenance lock like any other.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::handler::{Handler, Lane, Order, Step, Subject, Tools};
use crate::allow::Allow;
use crate::context::Context;
use crate::exchange::{Behalf, CommandedRun, Progress};
use crate::queue;
use crate::world::{JobView, Key, Stored as _, World};
use crds::conditions::{self, types};
use crds::integrity::IntegrityCheck;
use crds::{GlobalRetentionPolicy, names};
use futures::FutureExt as _;
use futures::future::BoxFuture;
use jiff::SignedDuration;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;

/// What is run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sort {
    Backup,
    Retention,
    /// Of a retention policy: shows what a run would remove.
    Preview,
    /// Retention of a repository, for a cluster that is away.
    Behalf,
    Check,
}

/// A run of a resource.
pub struct Run {
    pub sort: Sort,
    pub key: Key,
    /// What a retention run for another cluster is for.
    behalf: Option<(Behalf, String)>,
    /// Since when its Job is not there; 0 while it is.
    missing_since: AtomicU64,
}

/// A Job that is removed from one node is made anew for another in this time (milliseconds).
const MISSING_LIMIT: u64 = 30_000;

/// A Job that has ended counts by its own end when its resource has not recorded it in this time.
const RECORD_LIMIT: SignedDuration = SignedDuration::from_secs(90);

impl Run {
    pub fn new(sort: Sort, key: Key) -> Run {
        Run {
            sort,
            key,
            behalf: None,
            missing_since: AtomicU64::new(0),
        }
    }

    /// A retention run of the repository with this restic id, for a cluster that is away.
    pub fn on_behalf(key: Key, behalf: Behalf, restic_id: String) -> Run {
        Run {
            behalf: Some((behalf, restic_id)),
            ..Run::new(Sort::Behalf, key)
        }
    }

    pub(super) fn kind(&self) -> &'static str {
        match self.sort {
            Sort::Backup => "ResticBackup",
            Sort::Retention | Sort::Preview => "GlobalRetentionPolicy",
            Sort::Check | Sort::Behalf => "ResticRepository",
        }
    }

    fn subject(&self) -> Subject {
        match self.sort {
            Sort::Backup => Subject::Backup,
            Sort::Retention | Sort::Preview => Subject::Policy,
            Sort::Check | Sort::Behalf => Subject::Repository,
        }
    }

    fn job(&self, id: &str) -> Key {
        let cron_job = match self.sort {
            Sort::Backup => names::backup_cron_job(&self.key.name),
            Sort::Retention | Sort::Preview => names::retention_cron_job(&self.key.name),
            Sort::Check => names::check_cron_job(&self.key.name),
            Sort::Behalf => names::behalf_job(&self.key.name),
        };
        self.key.sibling(names::command_job(&cron_job, id))
    }

    /// uid of the resource, and its conditions.
    fn resource(&self, world: &World) -> Option<(String, Vec<Condition>)> {
        match self.sort {
            Sort::Backup => {
                let it = world.backups.get(&self.key)?;
                let conditions = it.status.as_ref().map(|s| s.conditions.clone());
                Some((it.uid().to_owned(), conditions.unwrap_or_default()))
            }
            Sort::Retention | Sort::Preview => {
                let it = world.policies.get(&self.key)?;
                let conditions = it.status.as_ref().map(|s| s.conditions.clone());
                Some((it.uid().to_owned(), conditions.unwrap_or_default()))
            }
            Sort::Check | Sort::Behalf => {
                let it = world.repositories.get(&self.key)?;
                let conditions = it.status.as_ref().map(|s| s.conditions.clone());
                Some((it.uid().to_owned(), conditions.unwrap_or_default()))
            }
        }
    }

    /// What the actor is to make.
    fn wanted(&self, of: String, id: &str) -> CommandedRun {
        CommandedRun {
            of,
            id: id.to_owned(),
            preview: self.sort == Sort::Preview,
            behalf: self.behalf.as_ref().map(|(behalf, _)| behalf.clone()),
        }
    }

    /// Asks the actor for the Job, while there is time.
    fn ask(&self, tools: &Tools, order: &Order) -> Step {
        let context = &tools.context;
        let Some((uid, conditions)) = self.resource(&context.world) else {
            return Step::Waits(format!("{} {} is not there any more", self.kind(), self.key));
        };
        let Some(before) = order.before else {
            return Step::Waits(
                "the operator was started anew; the hub is asked how much time is left".to_owned(),
            );
        };
        context.commands.want(&self.wanted(uid, &order.id), before);
        (tools.wake)(self.subject(), self.key.clone());
        let ready = conditions::get(&conditions, types::READY);
        Step::Waits(match ready.filter(|ready| ready.status != "True") {
            Some(ready) => format!("{} {} is not ready: {}", self.kind(), self.key, ready.message),
            None => "its Job is about to be made".to_owned(),
        })
    }

    /// Where a Job stands that is there.
    fn follow(&self, context: &Context, id: &str, at: &Key, job: &JobView) -> Step {
        let object = format!("Job {at}");
        let ended = self.ended(context, id, at, job);
        if let Some(end) = ended {
            return Step::Ends(end.of(object));
        }
        let text = if let Some((_, end)) = &job.end {
            let past = job.end.as_ref().and_then(|(at, _)| *at);
            let limit = past.and_then(|past| past.checked_add(RECORD_LIMIT).ok());
            if limit.is_some_and(|limit| limit < context.clock.now()) {
                return Step::Ends(self.by_itself(end).of(object));
            }
            "it has ended, and its result is being recorded".to_owned()
        } else {
            self.doing(context, at, job)
        };
        Step::Runs {
            begun: !is_unbegun(job),
            object,
            uid: Some(job.meta.uid.to_string()),
            text,
        }
    }

    fn doing(&self, context: &Context, at: &Key, job: &JobView) -> String {
        let world = &context.world;
        let resource = self.resource(world);
        if self.sort == Sort::Backup {
            let waits = resource
                .as_ref()
                .and_then(|(_, c)| conditions::get(c, types::WAITING));
            return match waits.filter(|c| c.status == "True" && c.message.contains(&*at.name)) {
                Some(waits) => waits.message.clone(),
                None if queue::is_parked(job) => "it waits for its turn".to_owned(),
                None => "the backup is running".to_owned(),
            };
        }
        let operations = resource
            .map(|(uid, _)| context.operations.of(&uid))
            .unwrap_or_default();
        let progress = operations.into_iter().find(|o| o.job == *at).map(|o| o.progress);
        match progress {
            Some(Progress::Waiting { message, .. }) => message,
            _ if job.suspended => "it waits for the maintenance lock".to_owned(),
            _ => "it is running".to_owned(),
        }
    }

    /// Where a Job stands that was made for a command and is not there any more: it was made anew for another node, or is
    /// about to be, or is gone for good.
    fn missing(&self, tools: &Tools, order: &Order, at: &Key, made: &str) -> Step {
        let context = &tools.context;
        if self.sort == Sort::Backup {
            let now = context.clock.since_boot();
            let its = |job: &Key, view: &JobView| {
                job.namespace == at.namespace && view.command.as_deref() == Some(&*order.id)
            };
            if let Some((at, job)) = context.world.jobs.filter(its).first() {
                self.missing_since.store(0, Ordering::Relaxed);
                return self.follow(context, &order.id, at, job);
            }
            let known = self.recorded(&context.world, &order.id, &at.name).is_some();
            let since =
                self.missing_since
                    .compare_exchange(0, now.max(1), Ordering::Relaxed, Ordering::Relaxed);
            let since = since.map_or_else(|since| since, |_| now);
            if !known && now.saturating_sub(since) < MISSING_LIMIT {
                return Step::Runs {
                    begun: true,
                    object: format!("Job {at}"),
                    uid: None,
                    text: "its Job is gone; whether another one takes its place is waited for".to_owned(),
                };
            }
        }
        let end = self.gone(context, &order.id, &at.name, made);
        Step::Ends(end.of(format!("Job {at}")))
    }
}

/// Whether a policy of this cluster that is not suspended is for a repository.
fn has_policy(world: &World, restic_id: &str) -> bool {
    let is_for = |key: &Key, policy: &GlobalRetentionPolicy| {
        let reference = &policy.spec.repository_ref;
        let at = Key::new(reference.namespace_or(&key.namespace), &reference.name);
        let repository = world.repositories.get(&at).filter(|_| !policy.spec.suspend);
        repository
            .is_some_and(|r| r.status.as_ref().and_then(|s| s.repository_id.as_deref()) == Some(restic_id))
    };
    !world.policies.filter(is_for).is_empty()
}

/// Whether no pod of a Job was ever started, so that its deletion takes it back.
fn is_unbegun(job: &JobView) -> bool {
    job.suspended && job.start.is_none() && !job.is_spent() && job.end.is_none()
}

impl Handler for Run {
    fn allow(&self) -> Allow {
        match self.sort {
            Sort::Behalf => Allow::Retain,
            Sort::Backup | Sort::Retention | Sort::Preview | Sort::Check => Allow::Run,
        }
    }

    fn allowed(&self, context: &Context) -> Result<(), String> {
        let (allowed, named) = (context.site.allowed, self.allow());
        let restic_id = self.behalf.as_ref().map(|(_, id)| id.as_str());
        // A run of a policy of this cluster carries out the policies of all clusters anyway.
        let carries_out = || restic_id.is_some_and(|id| has_policy(&context.world, id));
        if named == Allow::Retain && allowed.check(Allow::Run).is_ok() && carries_out() {
            return Ok(());
        }
        allowed.check(named)
    }

    fn lane(&self) -> Lane {
        Lane {
            subject: self.subject(),
            key: self.key.clone(),
        }
    }

    fn check(&self, context: &Context) -> Result<(), String> {
        let world = &context.world;
        if self.resource(world).is_none() {
            return Err(format!(
                "there is no {} {} in this cluster",
                self.kind(),
                self.key
            ));
        }
        match self.sort {
            Sort::Backup => Ok(()),
            Sort::Retention | Sort::Preview => {
                let suspended = world
                    .policies
                    .get(&self.key)
                    .is_some_and(|policy| policy.spec.suspend);
                let text = "the policy is suspended: resume it first (`fleet retention resume`)";
                if suspended { Err(text.to_owned()) } else { Ok(()) }
            }
            Sort::Check => {
                let repository = world.repositories.get(&self.key);
                let wanted = repository
                    .as_ref()
                    .and_then(|repository| repository.spec.integrity_check.as_ref())
                    .is_some_and(IntegrityCheck::is_wanted);
                let text = format!(
                    "ResticRepository {} has no integrity check: set spec.integrityCheck",
                    self.key
                );
                if wanted { Ok(()) } else { Err(text) }
            }
            Sort::Behalf => {
                let repository = world.repositories.get(&self.key);
                let status = repository
                    .as_ref()
                    .and_then(|repository| repository.status.as_ref());
                let id = status.and_then(|status| status.repository_id.as_deref());
                let meant = self.behalf.as_ref().map(|(_, id)| id.as_str());
                let text = format!(
                    "ResticRepository {} is not the repository that is meant",
                    self.key
                );
                if id.is_some() && id == meant {
                    Ok(())
                } else {
                    Err(text)
                }
            }
        }
    }

    fn advance<'a>(&'a self, tools: &'a Tools, order: &'a Order) -> BoxFuture<'a, Step> {
        let step = {
            let (at, world) = (self.job(&order.id), &tools.context.world);
            let job: Option<Arc<JobView>> = world.jobs.get(&at);
            match (job, &order.made) {
                (Some(job), made) if made.as_deref().is_none_or(|made| *made == *job.meta.uid) => {
                    if let Some((uid, _)) = self.resource(world) {
                        tools.context.commands.withdraw(&uid, &order.id);
                    }
                    self.follow(&tools.context, &order.id, &at, &job)
                }
                (_, Some(made)) => self.missing(tools, order, &at, made),
                _ => self.ask(tools, order),
            }
        };
        std::future::ready(step).boxed()
    }

    fn withdraw<'a>(&'a self, tools: &'a Tools, order: &'a Order) -> BoxFuture<'a, bool> {
        async move {
            let context = &tools.context;
            let uid = self.resource(&context.world).map(|(uid, _)| uid);
            if uid.is_some_and(|uid| !context.commands.withdraw(&uid, &order.id)) {
                return false;
            }
            let at = self.job(&order.id);
            // The cache may be behind.
            match context.applier.get::<Job>(&at).await {
                Ok(None) => order.made.is_none(),
                Ok(Some(job)) if is_unbegun(&JobView::of(&job)) => {
                    context.applier.delete_as_it_is(&at, &job).await.is_ok()
                }
                Ok(Some(_)) | Err(_) => false,
            }
        }
        .boxed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_command_has_one_job_whatever_the_length_of_a_name() {
        let job = |sort, name: &str, id: &str| {
            let run = Run::new(sort, Key::new("shop", name));
            run.job(id).name.to_string()
        };
        let id = "01kaxyz012345678";
        assert_eq!(
            job(Sort::Backup, "orders", id),
            format!("resticbackup-orders-{id}")
        );
        assert_eq!(job(Sort::Preview, "p", id), job(Sort::Retention, "p", id));
        assert_ne!(job(Sort::Behalf, "p", id), job(Sort::Check, "p", id));
        let long = job(Sort::Check, &"x".repeat(200), id);
        assert!(long.len() <= 63 && long.ends_with(id), "{long}");
        assert_ne!(long, job(Sort::Check, &"x".repeat(201), id));
    }
}
