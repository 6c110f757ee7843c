//! GlobalRetentionPolicies as owners of maintenance operations.

use std::sync::Arc;

use crds::{GlobalRetentionPolicy, names};
use jiff::Timestamp;
use proto::digest::run_hash;
use proto::v1::{ClusterUid, OperationKind, RetentionRun};

use super::own;
use crate::closed;
use crate::context::Context;
use crate::exchange::Pinned;
use crate::operation::{Assignment, Closed, Order, Owner, order};
use crate::world::{JobView, Key, Stored as _};

/// Policies as owners.
pub struct RetentionOwner {
    context: Arc<Context>,
}

impl RetentionOwner {
    /// The policies of this cluster.
    #[must_use]
    pub fn new(context: Arc<Context>) -> RetentionOwner {
        RetentionOwner { context }
    }

    /// The run without a hub. Under its own name this cluster reaches no snapshot that carries another uid.
    fn own_run(&self, pinned: &Pinned, job: &JobView) -> RetentionRun {
        let (world, cluster) = (&self.context.world, &self.context.cluster);
        RetentionRun {
            restic_id: pinned.restic_id.clone(),
            policies: own::policies(world, cluster, &pinned.restic_id),
            clusters: vec![cluster.clone()],
            approved: job.approved.as_deref().unwrap_or_default().to_owned(),
            baseline: own::baseline(world, cluster, &pinned.restic_id),
            cluster_uids: vec![ClusterUid {
                cluster: cluster.clone(),
                uid: self.context.site.cluster_uid.clone(),
            }],
            damage: own::damage(world, &pinned.restic_id),
            ..RetentionRun::default()
        }
    }

    /// The policy that an operation was pinned to.
    fn policy(&self, pinned: &Pinned) -> Option<Arc<GlobalRetentionPolicy>> {
        let policy = self.context.world.policies.get(&pinned.owner)?;
        (policy.uid() == pinned.owner_uid).then_some(policy)
    }

    /// The policy whose CronJob controls a Job.
    fn of_job(&self, at: &Key, job: &JobView) -> Option<(Key, Arc<GlobalRetentionPolicy>)> {
        let (kind, cron_job) = job.meta.owner_name.as_ref()?;
        let label = job.of.as_ref().filter(|_| &**kind == "CronJob")?;
        let world = &self.context.world;
        let present = world.cron_jobs.get(&Key::new(&at.namespace, cron_job))?;
        if Some(&present.meta.uid) != job.meta.owner.as_ref() {
            return None;
        }
        // The label is cut and hashed when the name is long.
        let its = |key: &Key| *names::retention_cron_job(&key.name) == **cron_job;
        match world.policies.get(label).filter(|_| its(label)) {
            Some(policy) => Some((label.clone(), policy)),
            None => world
                .policies
                .filter(|key, _| key.namespace == at.namespace && its(key))
                .into_iter()
                .next(),
        }
    }
}

/// Nothing is removed, whatever was approved: every policy shows what it would remove.
fn shows_only(run: &mut RetentionRun) {
    run.approved.clear();
    run.policies.iter_mut().for_each(|policy| policy.preview = true);
}

/// What the hub gives a run without one.
pub(super) const WITHOUT_RUN: &str = "the hub granted the lock without a run; the policies of this cluster alone must not decide about a repository that others may use";

/// The order of a run: with the damage and the suspicious backups that this cluster knows of and the hub may not yet.
///
/// # Errors
/// When it is for another repository, or too long.
pub(super) fn order_of(
    context: &Context,
    pinned: &Pinned,
    job: &JobView,
    mut run: RetentionRun,
) -> Result<Order, String> {
    if run.restic_id != pinned.restic_id {
        return Err(format!("the hub sent a run for repository {}", run.restic_id));
    }
    let what = format!(
        "{} policies in {} clusters",
        run.policies.len(),
        run.clusters.len()
    );
    // The hub knows its own run by this.
    let hash = run_hash(&run);
    // What this cluster has just found may not have reached the hub.
    if run.damage.is_empty() {
        run.damage = own::damage(&context.world, &pinned.restic_id);
    }
    for hold in own::holds(&context.world, &context.cluster) {
        if run.policies.iter().all(|policy| policy.uid != hold.uid) {
            run.policies.push(hold);
        }
    }
    if job.preview {
        shows_only(&mut run);
    }
    order(&run, hash, &what)
}

impl Owner for RetentionOwner {
    fn job_type(&self) -> &'static str {
        "retention"
    }

    fn kind(&self) -> OperationKind {
        OperationKind::Retention
    }

    fn assignment(&self, at: &Key, job: &JobView) -> Option<Assignment> {
        let (owner, policy) = self.of_job(at, job)?;
        let reference = &policy.spec.repository_ref;
        let place = Key::new(reference.namespace_or(&owner.namespace), &reference.name);
        let repository = self.context.world.repositories.get(&place);
        Some(Assignment {
            owner_uid: policy.uid().to_owned(),
            owner,
            repository: place,
            exists: repository.is_some(),
            restic_id: repository.and_then(|r| r.status.as_ref()?.repository_id.clone()),
        })
    }

    fn subject(&self, pinned: &Pinned) -> String {
        format!("retention {}", pinned.owner)
    }

    fn order(&self, pinned: &Pinned, job: &JobView, run: Option<RetentionRun>) -> Result<Order, String> {
        if let Some(text) = own::changed(&self.context.world, &pinned.restic_id) {
            return Err(text);
        }
        let run = match run {
            Some(run) => run,
            // The policies of other clusters are known to the hub alone.
            None if self.context.leases.is_shared() => return Err(WITHOUT_RUN.to_owned()),
            None => match own::hub_required(!self.context.site.namespaces.is_empty(), false) {
                Some(text) => return Err(text),
                None => self.own_run(pinned, job),
            },
        };
        order_of(&self.context, pinned, job, run)
    }

    fn closed(&self, pinned: &Pinned, now: Timestamp) -> Option<Closed> {
        let at = &pinned.repository;
        let repository = self.context.world.repositories.get(at);
        let policy = self.policy(pinned);
        let of_repository = repository.and_then(|repository| {
            let closed = closed::read_only(at, &repository, now);
            closed.or_else(|| closed::of_repository(at, &repository, now))
        });
        of_repository.or_else(|| closed::of_policy(&pinned.owner, &*policy?, now))
    }

    fn is_recomposed(&self) -> bool {
        !self.context.leases.is_shared()
    }

    fn is_recorded(&self, pinned: &Pinned) -> bool {
        let Some(policy) = self.policy(pinned) else {
            return true;
        };
        let status = policy.status.as_ref();
        status.is_some_and(|s| s.counted_jobs.contains(&pinned.operation))
    }

    fn has_plan(&self) -> bool {
        true
    }

    fn is_repeated(&self, pinned: &Pinned) -> bool {
        let policy = self.policy(pinned);
        policy.is_some_and(|p| p.metadata.deletion_timestamp.is_none() && !p.spec.suspend)
    }
}

#[cfg(test)]
mod tests {
    use crds::integrity::Damage;
    use serde_json::json;

    use super::*;
    use crate::context::test_context;
    use crate::exchange::Leases;
    use crate::restic::Snapshot;
    use crate::worker::select::reaches;

    fn owner(shared: bool) -> RetentionOwner {
        let mut context = test_context();
        Arc::get_mut(&mut context).unwrap().leases = Leases::new(shared).0;
        let repository = json!({
            "apiVersion": "backup.resticbackup.io/v1alpha1", "kind": "ResticRepository",
            "metadata": { "name": "nas", "namespace": "shop", "uid": "r", "resourceVersion": "1" },
            "spec": { "repositoryURL": "s3:h/b", "credentialsSecretRef": { "name": "nas" } },
            "status": { "repositoryID": "id" },
        });
        let repository = Arc::new(serde_json::from_value(repository).unwrap());
        context
            .world
            .repositories
            .put(Key::new("shop", "nas"), repository);
        let owner = RetentionOwner::new(context);
        policy(&owner, "nightly", 7);
        owner
    }

    fn policy(owner: &RetentionOwner, name: &str, daily: u32) {
        let policy = json!({
            "apiVersion": "backup.resticbackup.io/v1alpha1", "kind": "GlobalRetentionPolicy",
            "metadata": { "name": name, "namespace": "shop", "uid": name, "resourceVersion": daily.to_string() },
            "spec": { "repositoryRef": { "name": "nas" }, "schedule": "@daily",
                      "policies": [{ "selector": {}, "retention": { "keepDaily": daily } }] },
        });
        let policy = Arc::new(serde_json::from_value(policy).unwrap());
        owner.context.world.policies.put(Key::new("shop", name), policy);
    }

    fn order_of(owner: &RetentionOwner, run: Option<RetentionRun>) -> Result<Order, String> {
        let pinned = Pinned {
            operation: "job".to_owned(),
            job_type: "retention".to_owned(),
            job: Key::new("shop", "job"),
            owner: Key::new("shop", "nightly"),
            owner_uid: "nightly".to_owned(),
            repository: Key::new("shop", "nas"),
            restic_id: "id".to_owned(),
        };
        owner.order(&pinned, &JobView::default(), run)
    }

    fn own_run(owner: &RetentionOwner) -> RetentionRun {
        serde_json::from_str(&order_of(owner, None).unwrap().text).unwrap()
    }

    #[tokio::test]
    async fn without_a_hub_a_namesake_cluster_with_another_uid_is_out_of_reach() {
        let run = own_run(&owner(false));
        let reached = |uid: &str| {
            let tags = ["fleet.cluster=a".to_owned(), format!("fleet.cluster-uid={uid}")];
            let snapshot: Snapshot = serde_json::from_value(json!({
                "id": "ab".repeat(32), "time": "2026-11-25T00:00:00Z", "tags": tags,
            }))
            .unwrap();
            let policy = &run.policies[0];
            reaches(&run, policy, &policy.rules[0], &snapshot)
        };
        assert!(reached("uid-of-a"), "its own");
        assert!(!reached("uid-of-another-a"));
    }

    #[tokio::test]
    async fn without_a_hub_an_operator_of_some_namespaces_is_given_no_order() {
        let partial = |shared| {
            let mut owner = owner(shared);
            let context = Arc::get_mut(&mut owner.context).unwrap();
            context.site.namespaces = vec!["shop".to_owned()];
            owner
        };
        let refused = order_of(&partial(false), None).unwrap_err();
        assert!(refused.contains("--namespaces"), "{refused}");
        let of_hub = RetentionRun {
            restic_id: "id".to_owned(),
            ..RetentionRun::default()
        };
        assert!(order_of(&partial(true), Some(of_hub)).is_ok());
    }

    #[tokio::test]
    async fn without_a_hub_an_order_follows_the_policies_and_with_one_it_is_the_hubs() {
        let local = owner(false);
        let first = order_of(&local, None).unwrap();
        assert_eq!(order_of(&local, None).unwrap(), first);
        policy(&local, "nightly", 8);
        let changed = order_of(&local, None).unwrap();
        assert_ne!(changed.hash, first.hash, "a policy was changed");
        policy(&local, "weekly", 8);
        assert_ne!(
            order_of(&local, None).unwrap().hash,
            changed.hash,
            "one was added"
        );
        assert!(local.is_recomposed() && !owner(true).is_recomposed());
    }

    #[tokio::test]
    async fn damage_that_this_cluster_has_found_is_in_every_order() {
        let damage = |owner: &RetentionOwner, run: Option<RetentionRun>| {
            let order = order_of(owner, run.clone()).unwrap();
            let text = serde_json::from_str::<RetentionRun>(&order.text).unwrap().damage;
            (text, run.is_none_or(|run| run_hash(&run) == order.hash))
        };
        let of_hub = RetentionRun {
            restic_id: "id".to_owned(),
            ..RetentionRun::default()
        };
        let (local, shared) = (owner(false), owner(true));
        for (owner, run) in [(&local, None), (&shared, Some(of_hub.clone()))] {
            assert_eq!(damage(owner, run.clone()).0, "");
            let at = Key::new("shop", "nas");
            let mut repository = (*owner.context.world.repositories.get(&at).unwrap()).clone();
            repository.metadata.resource_version = Some("2".to_owned());
            let status = repository.status.get_or_insert_default();
            status.integrity_check.get_or_insert_default().damage = Some(Damage {
                message: "pack 1 does not exist".to_owned(),
                ..Damage::default()
            });
            owner.context.world.repositories.put(at, Arc::new(repository));
            let (text, known) = damage(owner, run);
            assert!(
                text.starts_with("ResticRepository shop/nas: ") && text.contains("pack 1"),
                "{text}"
            );
            assert!(known, "the hub knows its run by its hash");
        }
        let told = RetentionRun {
            damage: "of another cluster".to_owned(),
            ..of_hub
        };
        assert_eq!(damage(&shared, Some(told)).0, "of another cluster");
    }

    #[tokio::test]
    async fn neither_a_repository_that_another_one_took_the_place_of_nor_that_one_is_given_an_order() {
        for (known, other) in [("id", "other"), ("another", "id")] {
            for shared in [false, true] {
                let owner = owner(shared);
                let of_hub = RetentionRun {
                    restic_id: "id".to_owned(),
                    ..RetentionRun::default()
                };
                let run = shared.then_some(of_hub);
                assert!(order_of(&owner, run.clone()).is_ok());
                let at = Key::new("shop", "swapped");
                let repository = json!({
                    "apiVersion": "backup.resticbackup.io/v1alpha1", "kind": "ResticRepository",
                    "metadata": { "name": "swapped", "namespace": "shop", "uid": "s", "resourceVersion": "1" },
                    "spec": { "repositoryURL": "s3:h/c", "credentialsSecretRef": { "name": "nas" } },
                    "status": { "repositoryID": known, "changedID": other },
                });
                let repository = Arc::new(serde_json::from_value(repository).unwrap());
                owner.context.world.repositories.put(at, repository);
                let refused = order_of(&owner, run).unwrap_err();
                assert!(refused.contains("shop/swapped"), "{refused}");
            }
        }
    }

    #[tokio::test]
    async fn a_backup_that_this_cluster_finds_suspicious_is_held_in_every_order() {
        let owner = owner(true);
        let backup = json!({
            "apiVersion": "backup.resticbackup.io/v1alpha1", "kind": "ResticBackup",
            "metadata": { "name": "orders", "namespace": "shop", "uid": "orders", "resourceVersion": "1" },
            "spec": { "repositoryRef": { "name": "nas" }, "schedule": "@daily",
                      "source": { "pvc": { "claimName": "data" } } },
            "status": { "suspicious": { "snapshotID": "ab", "bytes": 0, "usualBytes": 9 } },
        });
        let backup = Arc::new(serde_json::from_value(backup).unwrap());
        let of_hub = RetentionRun {
            restic_id: "id".to_owned(),
            ..RetentionRun::default()
        };
        let held = |run: &RetentionRun| {
            let order = order_of(&owner, Some(run.clone())).unwrap();
            let run: RetentionRun = serde_json::from_str(&order.text).unwrap();
            let uids = run.policies.into_iter().map(|policy| policy.uid);
            (uids.collect::<Vec<_>>(), order.hash == run_hash(&of_hub))
        };
        assert_eq!(held(&of_hub).0, [""; 0]);
        owner
            .context
            .world
            .backups
            .put(Key::new("shop", "orders"), backup);
        assert_eq!(held(&of_hub), (vec!["orders".to_owned()], true));
        let known = RetentionRun {
            policies: own::holds(&owner.context.world, "a"),
            ..of_hub.clone()
        };
        assert_eq!(held(&known).0, ["orders"], "the hub knows it already");
    }

    #[tokio::test]
    async fn a_grant_of_the_hub_without_a_run_is_no_order_of_the_own_policies() {
        let shared = owner(true);
        let refused = order_of(&shared, None).unwrap_err();
        assert!(refused.contains("without a run"), "{refused}");
        let run = RetentionRun {
            restic_id: "id".to_owned(),
            ..RetentionRun::default()
        };
        assert!(order_of(&shared, Some(run)).is_ok());
        let other = RetentionRun::default();
        assert!(order_of(&shared, Some(other)).is_err(), "for another repository");
    }
}
