//! CronJobs that another program has changed, against an API server in memory.

use serde_json::{Value, json};

use super::*;
use crate::context::test_context_on;
use crate::testing::ApiServer;

fn cron_job(owner: &str, schedule: &str) -> Value {
    json!({
        "apiVersion": "batch/v1", "kind": "CronJob",
        "metadata": {
            "name": "c", "namespace": "default", "annotations": { names::ANNOTATION_APPLIED: "hash" },
            "ownerReferences": [{ "apiVersion": "v1", "kind": "ResticBackup", "name": "b", "uid": owner, "controller": true }],
        },
        "spec": { "schedule": schedule, "jobTemplate": { "spec": { "template": { "spec": { "containers": [] } } } } },
    })
}

fn of(value: Value) -> CronJob {
    serde_json::from_value(value).unwrap()
}

fn entry(manager: &str, operation: &str, spec: Value) -> Value {
    json!({ "manager": manager, "operation": operation, "apiVersion": "batch/v1", "fieldsType": "FieldsV1",
            "fieldsV1": { "f:metadata": {}, "f:spec": spec } })
}

struct Bed {
    server: ApiServer,
    context: Arc<Context>,
    contest: Contest,
}

impl Bed {
    fn new() -> Bed {
        let server = ApiServer::new();
        // An object whose owner is not there would be collected as garbage.
        for uid in ["o", "other"] {
            let meta = json!({ "name": uid, "namespace": "default", "uid": uid });
            server.put(&json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": meta }));
        }
        let context = test_context_on(server.client());
        Bed {
            server,
            context,
            contest: Contest::default(),
        }
    }

    /// Another program writes it, and the watch brings it.
    fn written(&self, owner: &str, entries: &[Value]) -> CronJob {
        let mut object = cron_job(owner, "5 5 5 5 5");
        object["metadata"]["managedFields"] = entries.into();
        let stored = of(self.server.put(&object));
        self.seen(&stored);
        self.server.forget_requests();
        stored
    }

    fn seen(&self, stored: &CronJob) {
        let view = Arc::new(CronJobView::of(stored));
        self.context.world.cron_jobs.put(key_of(stored), view);
    }

    async fn apply(&mut self, recorded: Option<i64>) -> Result<i64, Refused> {
        let wanted = of(cron_job("o", "0 0 * * *"));
        let applied = apply_cron_job(&self.context, &wanted, recorded, &mut self.contest).await;
        applied.map(|(_, view)| view.meta.generation)
    }

    fn verbs(&self) -> Vec<&'static str> {
        let requests = self.server.requests();
        self.server.forget_requests();
        requests.iter().map(|request| request.verb).collect()
    }

    fn schedule(&self) -> String {
        self.server.get::<CronJob>("default", "c").unwrap().spec.schedule
    }
}

#[tokio::test]
async fn a_cron_job_of_another_program_is_taken_over_before_it_is_applied() {
    let mut bed = Bed::new();
    bed.written(
        "o",
        &[entry(
            "manager",
            "Update",
            json!({ "f:schedule": {}, "f:suspend": {} }),
        )],
    );
    let generation = bed.apply(None).await.unwrap();
    assert_eq!(bed.verbs(), ["get", "patch", "apply"]);
    assert_eq!(bed.schedule(), "0 0 * * *");
    let stored = bed.server.json::<CronJob>("default", "c");
    let ours = &stored["metadata"]["managedFields"][1];
    assert_eq!(
        ours["fieldsV1"]["f:spec"],
        json!({ "f:schedule": {}, "f:suspend": {} })
    );
    assert_eq!(bed.apply(Some(generation)).await.unwrap(), generation);
    assert_eq!(bed.verbs(), [] as [&str; 0], "it is right already");
}

#[tokio::test]
async fn what_has_changed_since_it_was_read_is_not_taken_over() {
    let bed = Bed::new();
    let others = [entry("manager", "Update", json!({ "f:schedule": {} }))];
    let read = bed.written("o", &others);
    bed.server
        .edit::<CronJob>("default", "c", |object| object["spec"]["suspend"] = true.into());
    let taken = bed
        .context
        .applier
        .take_over(&of(cron_job("o", "0 0 * * *")), &read)
        .await;
    assert!(matches!(taken, Err(ApplyError::Conflict(_))), "{taken:?}");
    assert_eq!(bed.verbs(), ["patch"], "nothing is applied");
}

#[tokio::test]
async fn a_claim_of_a_cache_is_made_once_and_one_of_somebody_else_is_not_used() {
    let bed = Bed::new();
    let claim = |owner: &str| -> PersistentVolumeClaim {
        serde_json::from_value(json!({ "metadata": { "name": "cache", "namespace": "default", "ownerReferences": [{
            "apiVersion": "backup.resticbackup.io/v1alpha1", "kind": "ResticBackup", "name": "b", "uid": owner,
            "controller": true }] }, "spec": { "accessModes": ["ReadWriteOnce"] } }))
        .unwrap()
    };
    create_owned_claim(&bed.context, &claim("o")).await.unwrap();
    assert_eq!(bed.verbs(), ["create"]);
    create_owned_claim(&bed.context, &claim("o")).await.unwrap();
    assert_eq!(bed.verbs(), [] as [&str; 0], "it is known");
    let refused = create_owned_claim(&bed.context, &claim("other"))
        .await
        .unwrap_err();
    assert!(refused.to_string().contains("claimName"), "{refused}");
    // The cache does not have it yet.
    bed.context
        .world
        .claims
        .remove(&Key::new("default", "cache"), None);
    assert!(create_owned_claim(&bed.context, &claim("other")).await.is_err());
    create_owned_claim(&bed.context, &claim("o")).await.unwrap();
}

#[tokio::test]
async fn whose_a_cron_job_is_shows_the_one_that_is_taken_over() {
    let mut bed = Bed::new();
    let others = [entry("manager", "Update", json!({ "f:schedule": {} }))];
    // The cache does not have the one of another resource yet.
    let before = bed.written("o", &others);
    bed.written("other", &others);
    bed.context.world.cron_jobs.remove(&key_of(&before), None);
    bed.seen(&before);
    let _ = bed.apply(None).await;
    assert_eq!(bed.verbs(), ["get", "apply"], "its fields stay with their owner");
    // And the other way round.
    let mut bed = Bed::new();
    let before = bed.written("other", &others);
    bed.server.delete::<CronJob>("default", "c");
    bed.written("o", &others);
    bed.context.world.cron_jobs.remove(&key_of(&before), None);
    bed.seen(&before);
    bed.apply(None).await.unwrap();
    assert_eq!(bed.verbs(), ["get", "patch", "apply"]);
}

#[tokio::test]
async fn what_the_spoke_has_suspended_itself_is_no_ones_to_be_taken_over_from() {
    let mut bed = Bed::new();
    let own = [
        entry("restic-fleet-spoke", "Apply", json!({ "f:schedule": {} })),
        entry("restic-fleet-spoke", "Update", json!({ "f:suspend": {} })),
    ];
    for _ in 0..10 {
        bed.written("o", &own);
        bed.apply(None).await.unwrap();
        assert_eq!(bed.verbs(), ["get", "apply"]);
    }
}

#[tokio::test]
async fn another_program_that_changes_it_each_time_is_named_and_not_answered_each_time() {
    let mut bed = Bed::new();
    let others = [entry("other-operator", "Update", json!({ "f:schedule": {} }))];
    let mut applied = 0;
    for _ in 0..20 {
        bed.written("o", &others);
        match bed.apply(Some(1000)).await {
            Ok(_) => applied += 1,
            Err(refused) => {
                assert_eq!(bed.verbs(), ["get"]);
                let text = refused.to_string();
                assert!(
                    text.starts_with("CronJob c: \"other-operator\" changes it"),
                    "{text}"
                );
            }
        }
    }
    assert_eq!((applied, bed.schedule().as_str()), (3, "5 5 5 5 5"));
}

#[tokio::test]
async fn a_cron_job_of_another_resource_is_not_suspended() {
    let mut bed = Bed::new();
    let of_other = bed.written("other", &[]);
    suspend(&bed.context, &key_of(&of_other), "o", &mut bed.contest)
        .await
        .unwrap();
    assert_eq!(bed.verbs(), [] as [&str; 0]);
    suspend(&bed.context, &key_of(&of_other), "other", &mut bed.contest)
        .await
        .unwrap();
    assert_eq!(bed.verbs(), ["patch"]);
    // The cache does not have the one that has taken its name yet.
    let mut bed = Bed::new();
    let ours = bed.written("o", &[]);
    bed.server.delete::<CronJob>("default", "c");
    bed.written("other", &[]);
    bed.context.world.cron_jobs.remove(&key_of(&ours), None);
    bed.seen(&ours);
    assert!(
        suspend(&bed.context, &key_of(&ours), "o", &mut bed.contest)
            .await
            .is_err()
    );
    let stored = bed.server.get::<CronJob>("default", "c").unwrap();
    assert_ne!(stored.spec.suspend, Some(true));
}

#[tokio::test]
async fn another_program_that_resumes_it_each_time_is_named_and_not_answered_each_time() {
    let mut bed = Bed::new();
    let mut suspensions = async |by: &str| {
        let mut done = 0;
        for _ in 0..20 {
            let stored = bed.written("o", &[entry(by, "Update", json!({ "f:suspend": {} }))]);
            match suspend(&bed.context, &key_of(&stored), "o", &mut bed.contest).await {
                Ok(()) => done += 1,
                Err(refused) => {
                    let text = refused.to_string();
                    assert!(
                        text.starts_with("CronJob c: \"other-operator\" changes it"),
                        "{text}"
                    );
                }
            }
        }
        done
    };
    assert_eq!(suspensions("other-operator").await, 3);
    assert_eq!(
        suspensions("restic-fleet-spoke").await,
        20,
        "nobody else has resumed it"
    );
}
