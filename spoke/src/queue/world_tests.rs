//! The queue of a cache.

use serde_json::json;

use super::*;
use crate::world::CronJobView;

/// A cluster whose repository has one place.
fn world() -> World {
    let world = World::default();
    let repository = json!({
        "apiVersion": "backup.resticbackup.io/v1alpha1", "kind": "ResticRepository",
        "metadata": { "name": "nas", "namespace": "shop", "uid": "r", "resourceVersion": "1" },
        "spec": { "repositoryURL": "s3:h/b", "credentialsSecretRef": { "name": "nas" }, "maxConcurrentBackups": 1 },
    });
    let repository: ResticRepository = serde_json::from_value(repository).unwrap();
    world
        .repositories
        .put(Key::new("shop", "nas"), Arc::new(repository));
    world
}

/// The backup with its CronJob, and what its status shows of its place.
fn backup(world: &World, name: &str, version: u64, suspend: bool, shown: (&str, Option<i32>)) {
    let mut cron_job = CronJobView::default();
    cron_job.meta.uid = format!("cron-{name}").into();
    world.cron_jobs.put(
        Key::new("shop", format!("resticbackup-{name}")),
        Arc::new(cron_job),
    );
    let backup = json!({
        "apiVersion": "backup.resticbackup.io/v1alpha1", "kind": "ResticBackup",
        "metadata": { "name": name, "namespace": "shop", "uid": name, "resourceVersion": version.to_string() },
        "spec": { "repositoryRef": { "name": "nas" }, "schedule": "@daily", "suspend": suspend, "source": {} },
        "status": { "conditions": [{ "type": "Waiting", "status": "True", "reason": "Parked", "message": shown.0,
                                     "lastTransitionTime": "2026-11-23T00:30:00Z" }], "queuePlace": shown.1 },
    });
    let backup: crds::ResticBackup = serde_json::from_value(backup).unwrap();
    assert!(world.backups.put(Key::new("shop", name), Arc::new(backup)));
}

fn job(world: &World, of: &str, version: u64, created: i64, view: JobView) {
    let mut job = JobView {
        of: Some(Key::new("shop", of)),
        created: Timestamp::from_second(created).ok(),
        ..view
    };
    job.meta.uid = of.into();
    job.meta.version = version;
    job.meta.owner = Some(format!("cron-{of}").into());
    job.meta.owner_name = Some(("CronJob".into(), format!("resticbackup-{of}").into()));
    assert!(world.jobs.put(Key::new("shop", format!("{of}-1")), Arc::new(job)));
}

fn parked_run() -> JobView {
    JobView {
        parked: true,
        suspended: true,
        ..JobView::default()
    }
}

const NOTHING: (&str, Option<i32>) = ("", None);

fn turns(world: &World, places: &Places) -> BTreeMap<String, Turn> {
    Queue::of(world, places, Limits::default()).turns()
}

#[test]
fn runs_of_the_cache_wait_for_the_one_that_runs() {
    let (world, places) = (world(), Places::default());
    for name in ["a", "b", "c"] {
        backup(&world, name, 1, false, NOTHING);
    }
    job(&world, "a", 1, 1, JobView::default());
    job(&world, "b", 1, 2, parked_run());
    job(&world, "c", 1, 3, parked_run());
    let ordered = |world: &World| {
        let begins = |uid: &str| turns(world, &places).get(uid) == Some(&Turn::Begins);
        ["a", "b", "c"].map(begins)
    };
    assert_eq!(ordered(&world), [false, false, false]);
    let end = Some((None, crate::world::JobEnd::Complete));
    job(
        &world,
        "a",
        2,
        1,
        JobView {
            end,
            ..JobView::default()
        },
    );
    assert_eq!(ordered(&world), [false, true, false]);
    places.report(&Key::new("shop", "b"), false);
    assert_eq!(ordered(&world), [false, false, true], "b may not run now");
    places.report(&Key::new("shop", "b"), true);
    assert_eq!(ordered(&world), [false, true, false]);
}

#[test]
fn a_run_of_the_schedule_stays_parked_while_its_backup_is_suspended() {
    let (world, places) = (world(), Places::default());
    backup(&world, "a", 1, true, NOTHING);
    job(&world, "a", 1, 1, parked_run());
    assert!(
        matches!(&turns(&world, &places)["a"], Turn::Waits(waits) if waits.words.text.contains("spec.suspend"))
    );
    let asked = JobView {
        by_request: true,
        ..parked_run()
    };
    job(&world, "a", 2, 1, asked);
    assert_eq!(turns(&world, &places)["a"], Turn::Begins, "it was asked for");
    backup(&world, "a", 2, false, NOTHING);
    job(&world, "a", 3, 1, parked_run());
    assert_eq!(turns(&world, &places)["a"], Turn::Begins);
}

#[test]
fn a_run_that_is_made_anew_keeps_its_rank() {
    let (world, places) = (world(), Places::default());
    for name in ["a", "b"] {
        backup(&world, name, 1, false, NOTHING);
    }
    job(&world, "a", 1, 2, parked_run());
    let anew = JobView {
        parked_since: Timestamp::from_second(1).ok(),
        ..parked_run()
    };
    job(&world, "b", 1, 3, anew);
    assert_eq!(turns(&world, &places)["b"], Turn::Begins);
}

#[test]
fn a_job_that_will_never_run_takes_no_place() {
    let (world, places) = (world(), Places::default());
    for name in ["a", "b"] {
        backup(&world, name, 1, false, NOTHING);
    }
    let begins = |world: &World| turns(world, &places).get("b") == Some(&Turn::Begins);
    job(&world, "b", 1, 2, parked_run());
    let mut goes = parked_run();
    goes.meta.deleting = true;
    job(&world, "a", 1, 1, goes);
    assert!(begins(&world), "a parked Job that is being deleted");
    job(&world, "a", 2, 1, parked_run());
    assert!(!begins(&world));
    world.cron_jobs.remove(&Key::new("shop", "resticbackup-a"), None);
    assert!(begins(&world), "the Job of a deleted namesake");
}

#[test]
fn only_those_look_whose_turn_it_is_or_whose_place_is_another() {
    let (world, places) = (world(), Places::default());
    let look = |world: &World| {
        let moved = moved(world, &places, Limits::default());
        moved.iter().map(|key| key.name.to_string()).collect::<Vec<_>>()
    };
    let names: Vec<String> = (10..50).map(|n| format!("b{n}")).collect();
    for (name, created) in names.iter().zip(1..) {
        let view = if created == 1 {
            JobView::default()
        } else {
            parked_run()
        };
        backup(&world, name, 1, false, NOTHING);
        job(&world, name, 1, created, view);
    }
    assert_eq!(look(&world), names[1..], "nothing is shown yet");
    for (uid, turn) in turns(&world, &places) {
        let Turn::Waits(waits) = turn else { panic!("{uid}") };
        backup(&world, &uid, 2, false, (&waits.words.text, waits.place));
    }
    assert_eq!(look(&world), [""; 0]);
    world.jobs.remove(&Key::new("shop", "b10-1"), None);
    assert_eq!(look(&world), names[1..22], "the next one, and twenty places");
    assert_eq!(places.turns().len(), 39, "backups read what was computed");
}
