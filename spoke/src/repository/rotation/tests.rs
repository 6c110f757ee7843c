use serde_json::json;

use super::super::Work;
use super::*;
use crate::kind::Plan;
use crate::kind::table::{NoRestic, Table, at, condition};
use crate::site::Site;
use crate::testing::config;

fn job(name: &str, began: i64, over: bool) -> (Key, JobView) {
    let at = |second| Timestamp::from_second(second).unwrap();
    let view = JobView {
        of: Some(Key::new("shop", "orders")),
        start: Some(at(began)),
        end: over.then(|| (Some(at(began + 5)), crate::world::JobEnd::Complete)),
        ..JobView::default()
    };
    (Key::new("shop", name), view)
}

#[test]
fn runs_that_began_before_the_switch_are_named_until_they_are_over() {
    let world = World::default();
    let backup: crds::ResticBackup = serde_json::from_value(json!({
        "apiVersion": "backup.resticbackup.io/v1alpha1", "kind": "ResticBackup",
        "metadata": { "name": "orders", "namespace": "shop" },
        "spec": { "repositoryRef": { "name": "nas" }, "schedule": "@daily", "source": { "pvc": { "claimName": "data" } } },
    }))
    .unwrap();
    world.backups.put(Key::new("shop", "orders"), Arc::new(backup));
    for (key, view) in [
        job("early", 10, false),
        job("over", 10, true),
        job("late", 30, false),
    ] {
        world.jobs.put(key, Arc::new(view));
    }
    let nas = Key::new("shop", "nas");
    let switched = Timestamp::from_second(20).unwrap();
    assert_eq!(early_runs(&world, &nas, switched), ["Job shop/early"]);
    assert!(early_runs(&world, &Key::new("shop", "other"), switched).is_empty());
}

const OLD: &str = "0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a";
const NEW: &str = "1b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1b";

/// A repository that was opened with key `key` and version 7 of its Secret.
fn table(
    annotations: &serde_json::Value,
    key: &str,
    rotation: &serde_json::Value,
) -> Table<RepositoryController> {
    let now = at(1_767_225_600).wall;
    let repository = json!({
        "apiVersion": "backup.resticbackup.io/v1alpha1", "kind": "ResticRepository",
        "metadata": { "name": "nas", "namespace": "shop", "uid": "u", "generation": 1, "annotations": annotations },
        "spec": { "repositoryURL": "s3:h/b", "credentialsSecretRef": { "name": "nas" } },
        "status": {
            "repositoryID": "id", "keyID": key, "credentialsVersion": "7", "observedGeneration": 1,
            "passwordRotation": rotation, "statistics": { "asOf": now.to_string() },
            "conditions": [{ "type": "Ready", "status": "True", "reason": "RepositoryAccessible", "message": "",
                             "lastTransitionTime": now.to_string(), "observedGeneration": 1 }],
        },
    });
    let controller = RepositoryController::new(&Site::of_tests(), Arc::new(NoRestic), &config());
    Table::new(controller, repository)
}

fn observed(secret: &str) -> Observed {
    Observed {
        secret: Some(secret.to_owned()),
        shared: true,
        ..Observed::default()
    }
}

fn job_name(plan: &Plan<RepositoryController>) -> Option<String> {
    plan.children.job.as_ref()?.metadata.name.clone()
}

#[test]
fn a_person_starts_a_change_and_its_job_follows() {
    let asked = json!({ "backup.resticbackup.io/rotate-password": "one" });
    let plan = table(&asked, OLD, &json!(null)).plan(&observed("7"));
    assert_eq!(job_name(&plan).as_deref(), Some("resticrotate-nas"));
    assert_eq!(
        condition(&plan.status.conditions, "PasswordRotation").0,
        "True/KeyAdding"
    );
    let plan = table(&json!({}), OLD, &json!(null)).plan(&observed("7"));
    assert!(job_name(&plan).is_none() && plan.status.password_rotation.is_none());
    assert_eq!(condition(&plan.status.conditions, "PasswordRotation").0, "");
}

#[test]
fn what_was_found_with_another_secret_shows_no_key() {
    let asked =
        json!({ "backup.resticbackup.io/rotate-password": "one", "backup.resticbackup.io/remove-key": OLD });
    let added = json!({ "request": "one", "step": "Added", "oldKey": OLD, "newKey": NEW });
    let plan = table(&asked, NEW, &added).plan(&observed("7"));
    assert_eq!(job_name(&plan).as_deref(), Some("resticrotate-nas"));
    assert!(plan.status.password_rotation.as_ref().unwrap().switched.is_some());
    let plan = table(&asked, NEW, &added).plan(&observed("8"));
    assert_eq!(job_name(&plan), None);
    let (shown, text) = condition(&plan.status.conditions, "PasswordRotation");
    assert_eq!(shown, "True/OldKeyStays");
    assert!(text.contains("not known which key"), "{text}");
    let known = |work: &Work| matches!(work, Work::Look { key_known: true, .. });
    assert!(
        plan.work.iter().all(|task| !known(&task.work)),
        "the look asks for it"
    );
    assert!(plan.next.is_some());
}
