//! What a turn of a policy does. Pure. Its operations start with the Jobs of its CronJob, and with a Job of their own for
//! a plan that was approved.

use std::collections::BTreeSet;
use std::sync::Arc;

use crds::conditions::{Conditions, reasons, types};
use crds::{GlobalRetentionPolicy, GlobalRetentionPolicyStatus, ResticRepository, names};
use kube::ResourceExt as _;

use super::validate::Valid;
use super::{
    Found, Observed, Planning, RetentionController, State, approval, build, damage, own, policies, runs,
    status,
};
use crate::consent::{self, Blocked};
use crate::kind::{
    self, Applied, Children, Credentials, Input, Permission, Plan, RefusedBecause, Removal, Run, Settled,
    failed_as,
};
use crate::world::Key;

/// Plans.
pub(super) fn plan(
    planning: &Planning,
    input: &Input<'_, RetentionController>,
    observed: &Observed,
) -> Plan<RetentionController> {
    let (generation, now) = (input.generation(), input.now.wall);
    let mut state = input.state.clone();
    // An approval is kept until its Job is made.
    for Found::Approved { hash, restic_id } in input.found {
        state.approvals.insert((hash.clone(), restic_id.clone()));
    }
    let mut status = recorded(planning, input, observed);
    // Shown again by `conclude`, where a run can begin.
    status.next_run = None;
    let mut conditions = Conditions::at(&mut status.conditions, generation, now);
    let mut children = Children::default();
    match (input.valid, usable(input, observed)) {
        (Err(invalid), _) => {
            conditions.set(types::READY, false, invalid.reason(), invalid.to_string());
            children.removals = if observed.consent_ended {
                withdrawal(input.key)
            } else {
                suspension(input, observed)
            };
        }
        (Ok(_), Err(blocked)) => {
            let (reason, message, refused) = match blocked {
                Blocked::Wait { reason, message } => (reason, message, false),
                Blocked::Refused { message } => (reasons::NAMESPACE_NOT_ALLOWED, message, true),
            };
            conditions
                .set(types::REPOSITORY_READY, false, reason, &message)
                .set(types::READY, false, reason, &message);
            children.removals = if refused || observed.consent_ended {
                withdrawal(input.key)
            } else {
                suspension(input, observed)
            };
        }
        (Ok(valid), Ok(repository)) => {
            let (reason, text) = (reasons::REPOSITORY_READY, "the repository is ready");
            conditions.set(types::REPOSITORY_READY, true, reason, text);
            children = objects(planning, input, valid, repository);
            if let Some(permission) = &mut children.permission {
                let named = observed.name_differs.clone();
                permission.denied = named.or_else(|| own::hub_required(planning.is_partial, observed.shared));
            }
            let hashes = approvals(input, &state, repository, &mut status);
            children.runs = asked_runs(input, observed, &status, hashes);
        }
    }
    Plan {
        children,
        ..Plan::status(status, state)
    }
}

/// The status with the results of runs. They come first: they decide whether an approval is still to be acted on.
fn recorded(
    planning: &Planning,
    input: &Input<'_, RetentionController>,
    observed: &Observed,
) -> GlobalRetentionPolicyStatus {
    let (key, policy) = (input.key, input.resource);
    let mut status = input.status();
    let bound = observed
        .repository
        .as_ref()
        .and_then(|r| r.status.as_ref()?.repository_id.clone());
    let fingerprint = bound
        .as_ref()
        .map(|id| policies::spec_of(key, policy, &planning.cluster, id).fingerprint);
    status::adopt_preview(&mut status, policy, fingerprint);
    let present: BTreeSet<String> = observed.jobs.iter().map(|job| job.meta.uid.to_string()).collect();
    runs::record(
        &mut status,
        policy,
        (&observed.operations, &observed.works),
        &present,
        &format!("{}/{key}", planning.cluster),
        input.now.wall,
    );
    let others = observed.others.iter();
    let others = others.filter_map(|(other, policy)| Some((other.to_string(), policy.status.as_ref()?)));
    approval::settled_by_others(&mut status, others, input.generation(), input.now.wall);
    let repository = observed.repository.as_deref();
    damage::show(&mut status, repository, input.generation(), input.now.wall);
    // The last known one stays while the repository is deleted or was not opened yet.
    if bound.is_some() && status.repository_id.is_some() && bound != status.repository_id {
        // Figures of another repository.
        status.left.clear();
    }
    status.repository_id = bound.or(status.repository_id);
    status
}

fn usable<'a>(
    input: &Input<'_, RetentionController>,
    observed: &'a Observed,
) -> Result<&'a Arc<ResticRepository>, Blocked> {
    let reference = &input.resource.spec.repository_ref;
    let namespace = &input.key.namespace;
    let at = Key::new(reference.namespace_or(namespace), &reference.name);
    consent::usable(
        &at,
        namespace,
        observed.repository.as_ref(),
        observed.labels.as_deref(),
    )
}

fn withdrawal(key: &Key) -> Vec<Removal> {
    Removal::withdrawal(
        &key.namespace,
        names::retention_credentials(&key.name),
        names::retention_cron_job(&key.name),
    )
}

/// A CronJob as the original operator, or anybody else, has written it removes snapshots at its next start, without a
/// preview and without the lock: it starts nothing until it is made anew.
fn suspension(input: &Input<'_, RetentionController>, observed: &Observed) -> Vec<Removal> {
    let recorded = recorded_generation(input.resource);
    let foreign = observed
        .cron_job
        .as_ref()
        .filter(|cron_job| !cron_job.is_as_written(recorded) && cron_job.meta.is_for(Some(input.uid())));
    let at = || {
        let name = names::retention_cron_job(&input.key.name);
        Key::new(&input.key.namespace, name)
    };
    foreign.map(|_| Removal::Schedule(at())).into_iter().collect()
}

/// Generation of the CronJob after the spoke's last write.
fn recorded_generation(policy: &GlobalRetentionPolicy) -> Option<i64> {
    let status = policy.status.as_ref()?;
    status.cron_job_ref.as_ref()?.generation
}

/// Everything that a policy needs.
fn objects(
    planning: &Planning,
    input: &Input<'_, RetentionController>,
    valid: &Valid,
    repository: &Arc<ResticRepository>,
) -> Children {
    let (key, policy) = (input.key, input.resource);
    let at = |name: String| Key::new(&key.namespace, name);
    let restic_id = repository.status.as_ref().and_then(|s| s.repository_id.clone());
    let is_foreign = valid.repository.namespace != key.namespace;
    let own_account = valid.job.service_account.is_none();
    let (image, retry_lock) = (planning.image.as_str(), planning.retry_lock.as_str());
    let cron_job = build::cron_job(
        key,
        &planning.cluster,
        policy,
        valid,
        repository,
        (image, retry_lock),
    );
    Children {
        permission: Some(Permission {
            restic_id: restic_id.unwrap_or_default(),
            denied: None,
            otherwise_suspend: at(names::retention_cron_job(&key.name)),
        }),
        removals: if is_foreign {
            Vec::new()
        } else {
            vec![Removal::Credentials(at(names::retention_credentials(&key.name)))]
        },
        account: own_account.then(|| build::service_account(key, policy)),
        credentials: is_foreign.then(|| Credentials {
            metadata: build::credentials(key, policy),
            at: valid.repository.clone(),
            repository: repository.clone(),
        }),
        cron_job: Some((cron_job, recorded_generation(policy))),
        ..Children::default()
    }
}

/// Hashes of the plans that are approved for this repository. An approval is acted on until its run has an outcome.
fn approvals(
    input: &Input<'_, RetentionController>,
    state: &State,
    repository: &ResticRepository,
    status: &mut GlobalRetentionPolicyStatus,
) -> BTreeSet<String> {
    let annotated = input.resource.annotations().get(names::ANNOTATION_APPROVE);
    let annotated = annotated.map(String::as_str);
    let approval = approval::given(status, annotated, input.generation(), input.now.wall);
    let restic_id = repository.status.as_ref().and_then(|s| s.repository_id.as_ref());
    let at_hub = state
        .approvals
        .iter()
        .filter(|(_, about)| Some(about) == restic_id);
    let at_hub = at_hub.map(|(hash, _)| hash.clone());
    approval.into_iter().chain(at_hub).collect()
}

/// A run for each command of the hub, and one for each approved plan that no run carries out yet. The name follows from the plan and from the run
/// before, so that neither a crash nor a second approval starts another.
fn asked_runs(
    input: &Input<'_, RetentionController>,
    observed: &Observed,
    status: &GlobalRetentionPolicyStatus,
    hashes: BTreeSet<String>,
) -> Vec<Run> {
    let under_way = |hash: &String| {
        let mut jobs = observed.jobs.iter();
        jobs.any(|job| job.end.is_none() && job.approved.as_deref() == Some(hash))
    };
    let cron_job = names::retention_cron_job(&input.key.name);
    let run = |hash: String| {
        let seed = format!("{}/{hash}/{:?}", input.uid(), status.last_run_token);
        let suffix = format!("-{}", names::short_hash(seed.as_bytes()));
        Run {
            name: names::bounded(&cron_job, &suffix, names::LABEL_MAX),
            approves: Some(hash),
            ..Run::default()
        }
    };
    let commanded = observed.commands.iter().map(|command| Run {
        name: names::command_job(&cron_job, &command.id),
        command: Some(command.clone()),
        ..Run::default()
    });
    let approved = hashes.into_iter().filter(|hash| !under_way(hash)).map(run);
    approved.chain(commanded).collect()
}

/// Adds what follows from the objects.
pub(super) fn conclude(
    input: &Input<'_, RetentionController>,
    observed: &Observed,
    settled: &mut Settled<RetentionController>,
    applied: &Applied,
) {
    let Ok(valid) = input.valid else { return };
    let usable = usable(input, observed);
    if observed.consent_ended || matches!(usable, Err(Blocked::Refused { .. })) {
        return;
    }
    let (generation, now) = (input.generation(), input.now.wall);
    let status = &mut settled.status;
    let mut conditions = Conditions::at(&mut status.conditions, generation, now);
    match &applied.refused {
        Some(refused) if refused.kind == "Lease" => {
            if let RefusedBecause::NotAllowed(text) = &refused.cause {
                let reason = match observed.name_differs {
                    Some(_) => reasons::CLUSTER_NAME_DIFFERS,
                    None => reasons::HUB_REQUIRED,
                };
                conditions.set(types::READY, false, reason, text);
                settled.failed = false;
                return;
            }
        }
        Some(refused) => failed_as(&mut status.conditions, refused, generation, now),
        None if let Ok(repository) = &usable => {
            match consent::read_only(&valid.repository, repository) {
                Some(text) => conditions.set(types::READY, false, reasons::REPOSITORY_READ_ONLY, text),
                None => {
                    let text = scheduled(valid, observed.shared);
                    conditions.set(types::READY, true, reasons::RETENTION_CONFIGURED, text)
                }
            };
            // The hub sends one again in its next session if no run under it was granted by then.
            settled.state.approvals.clear();
        }
        // Nothing was applied: what is there stays as it is.
        None => {}
    }
    if let Some(reference) = kind::reference(applied) {
        status.cron_job_ref = Some(reference);
    }
    let cron_job = observed.cron_job.as_deref();
    status.next_run = kind::next_start(&valid.schedule, valid.suspend, applied, cron_job, now);
    settled.next = kind::turn_after(status.next_run.as_ref());
}

fn scheduled(valid: &Valid, shared: bool) -> String {
    let mut text = if valid.suspend {
        "suspended: no runs; snapshots this policy keeps remain protected".to_owned()
    } else {
        format!("scheduled: {} ({})", valid.cron, valid.timezone)
    };
    if !shared {
        text.push_str("; no hub is configured: the lock covers this cluster only");
    }
    text
}
