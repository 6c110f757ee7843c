//! A fault in the middle of deleting, and the judgement afterwards: the storage's own log against the audit.
//!
//! Cluster b carries out a run whose deletions the storage makes slow; cluster a waits for the lock. Then the fault
//! happens. a must get its turn without a person, both must be able to go on afterwards, and no deletion may lie outside
//! the time of its grant.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tests::proxy::{Action, Entry, Rule};
use tests::storage_log::{self, Grant, Verdict};

use super::{audit, lock, try_lock, two, worker};
use crate::retention::{make_snapshots, repository_id, restic, snapshots, start, until_run_within};
use crate::support::{Place, bed, faulty, fleet_json, keep_logs, rest, suite};

/// How long one deletion takes while a fault is awaited: five at a time, two packs for each snapshot.
const SLOW: Duration = Duration::from_secs(10);
/// Snapshots that b's run removes: its deletions take longer than a lease lives.
const REMOVED: u32 = 20;
/// From a fault to the next grant at most: a start of the hub, the life of a lease, the delay, and a busy machine.
const TURN: Duration = Duration::from_secs(240);
/// From a fault to a run that succeeds, with restic's own lock of a dead process in the way.
pub const MENDED: Duration = Duration::from_secs(600);

/// One fault.
pub trait Fault {
    /// Of its namespaces and its repository.
    const NAME: &'static str;
    /// What has to follow.
    const THEN: Then;
    /// Results of b's next run that show that its maintenance goes on.
    const AGAIN: &'static [&'static str] = &["Applied"];

    /// Before b's run starts.
    fn prepare(&mut self) {}

    /// Does the harm.
    fn inflict(&mut self, scene: &Scene);

    /// Ends the fault, as a person does sooner or later, once a was granted the lock. Nothing is done about any lock.
    fn mend(&mut self, _scene: &Scene) {}
}

/// What has to follow a fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Then {
    /// b's run is carried to its end, under the same token and by the same pod.
    GoesOn,
    /// b's run ends early, and a is granted the lock only when nothing of it is at work.
    Ends,
    /// Nobody can know what b's pod does: it ends itself, and a is granted the lock after lease and delay have run out.
    RunsOut,
    /// The same, but b's pod stands still and wakes up later.
    StandsStill,
    /// Whatever is safe.
    Either,
}

/// Two clusters with one repository; b deletes, slowly.
pub struct Scene {
    pub name: &'static str,
    pub a: Place,
    pub b: Place,
    /// restic id.
    pub id: String,
    /// Under which b deletes.
    pub token: u64,
    /// That deletes.
    pub pod: String,
    /// Grants that a hub without its present store would not know.
    grants: Mutex<Vec<Grant>>,
}

impl Scene {
    /// b is in the middle of deleting when this returns.
    fn deleting<F: Fault>(fault: &mut F) -> Scene {
        let (a, b) = two(F::NAME, [faulty(F::NAME), faulty(F::NAME)]);
        let id = repository_id(&a);
        make_snapshots(
            &rest(F::NAME),
            "a",
            &format!("{}/x", F::NAME),
            "x",
            1..REMOVED + 2,
        );
        fault.prepare();
        slow(F::NAME, SLOW);
        start(&b, "p", "struck");
        let mut scene = Scene {
            name: F::NAME,
            a,
            b,
            id,
            token: 0,
            pod: String::new(),
            grants: Mutex::default(),
        };
        // The first packs are deleted, the next ones are under way.
        within(TURN, "deletions by b", || scene.packs_of_b().len() > 5);
        let held = lock(&scene.id);
        assert_eq!(
            (&held["state"], &held["cluster"]),
            (&json!("held"), &json!("b")),
            "{held:#}"
        );
        scene.token = held["token"].as_u64().unwrap();
        within(TURN, "b's pod", || worker(&scene.b).is_some());
        scene.pod = worker(&scene.b).expect("b's pod deletes");
        scene
    }

    /// Packs that b's pods have deleted, or are deleting.
    pub fn packs_of_b(&self) -> Vec<Entry> {
        let mut log = bed()
            .servers()
            .rest_proxy()
            .log(&format!("/{}/", self.name))
            .unwrap();
        let prefix = self.b.cluster.pod_prefix();
        let packs = format!("{}/data", self.name_at_storage());
        log.retain(|e| storage_log::deletes(e, &packs) && e.client.starts_with(&prefix));
        log
    }

    fn name_at_storage(&self) -> String {
        format!("/{}", self.name)
    }

    /// Whether a process of b's pod exists.
    pub fn at_work(&self) -> bool {
        let pids = self.b.cluster.container_pids(self.name, &self.pod, "restic");
        !pids.unwrap_or_default().is_empty()
    }

    /// Every grant so far, also those that a hub has forgotten meanwhile.
    pub fn grants(&self) -> Vec<Grant> {
        let now = storage_log::grants(&fleet_json(&["audit", &self.id])).unwrap();
        let mut all = self.grants.lock().unwrap();
        *all = storage_log::merge(&all, &now);
        all.clone()
    }

    /// The first grant above b's token; `None` also when there is no hub to ask.
    fn next_grant(&self) -> Option<Grant> {
        try_lock(&self.id).ok()?;
        self.grants().into_iter().find(|grant| grant.token > self.token)
    }

    /// Sends a signal to the processes of b's pod.
    pub fn signal(&self, name: &str) {
        let cluster = &self.b.cluster;
        cluster
            .signal_container(self.name, &self.pod, "restic", name)
            .unwrap();
    }

    fn verdict(&self) -> Verdict {
        let log = bed()
            .servers()
            .rest_proxy()
            .log(&format!("/{}/", self.name))
            .unwrap();
        storage_log::judge(
            &log,
            &self.grants(),
            &self.name_at_storage(),
            &bed().pod_networks(),
        )
    }

    /// No run held the maintenance lock in vain: what b's pod left of restic's locks cannot be waited for.
    fn judge_waits(&self) {
        for entry in audit(&self.id) {
            let reason = &entry["outcome"]["reason"];
            assert_ne!(reason, "RepositoryLocked", "{entry:#}");
            if reason == "StaleLock" {
                eprintln!(
                    "{}: token {}: {}",
                    self.name, entry["token"], entry["outcome"]["message"]
                );
            }
        }
    }

    /// Every deletion lay inside the time of its grant, and b's were among them.
    fn judge(&self) {
        let verdict = self.verdict();
        eprintln!("{}: {verdict}", self.name);
        assert!(
            verdict.violations.is_empty(),
            "{}: {verdict}\n{:#?}",
            self.name,
            self.grants()
        );
        let struck = verdict.deletes.get(&self.token).copied().unwrap_or_default();
        assert!(
            struck > REMOVED as usize,
            "the fault came in the middle of deleting: {verdict}"
        );
    }
}

/// Deletions take their time from here on; locks excepted, so that restic's own locks live as they always do.
pub fn slow(name: &str, time: Duration) {
    let each = Rule::each("DELETE", Action::pass().before(time)).containing(&format!("/{name}/data/"));
    bed().servers().rest_proxy().set(&[each]).unwrap();
}

/// Waits for a state that may take its time.
pub fn within(limit: Duration, what: &str, holds: impl Fn() -> bool) {
    let end = Instant::now() + limit;
    while !holds() {
        assert!(Instant::now() < end, "{what} did not come within {limit:?}");
        std::thread::sleep(Duration::from_millis(300));
    }
}

/// The whole of it.
pub fn strike<F: Fault>(mut fault: F) {
    let scene = Scene::deleting(&mut fault);
    let mut mended = false;
    let end = catch_unwind(AssertUnwindSafe(|| drive(&mut fault, &scene, &mut mended)));
    bed().servers().rest_proxy().set(&[]).unwrap();
    if let Err(panic) = end {
        keep_logs(bed());
        if try_lock(&scene.id).is_ok() {
            eprintln!("{}: {}", F::NAME, scene.verdict());
        }
        // The next test finds the bed as it was.
        if !mended {
            fault.mend(&scene);
        }
        resume_unwind(panic);
    }
}

fn drive<F: Fault>(fault: &mut F, scene: &Scene, mended: &mut bool) {
    start(&scene.a, "p", "next");
    within(TURN, "a in the queue", || {
        lock(&scene.id)["waiters"]
            .as_array()
            .is_some_and(|w| w.len() == 1)
    });
    let struck = jiff::Timestamp::now().as_millisecond();
    fault.inflict(scene);
    follow(F::THEN, scene);
    let next = until_next_grant(scene);
    if matches!(F::THEN, Then::RunsOut | Then::StandsStill) {
        // The last renewal may have been a fifth of the life before the fault.
        let least = suite().silence() - suite().ttl / 5;
        let waited = next.granted - struck;
        assert!(
            u128::try_from(waited).unwrap() >= least.as_millis(),
            "granted {waited} ms after the fault instead of {least:?}"
        );
    }
    *mended = true;
    fault.mend(scene);
    assert!(!scene.at_work(), "b's pod is at work after {next:?}");
    bed().servers().rest_proxy().set(&[]).unwrap();
    go_on::<F>(scene);
    scene.judge();
    scene.judge_waits();
    if F::THEN == Then::GoesOn {
        let unlocks = |entry: &Value| {
            entry["subject"]
                .as_str()
                .is_some_and(|s| s.starts_with("unlock "))
        };
        let unlocks: Vec<Value> = audit(&scene.id).into_iter().filter(unlocks).collect();
        assert!(
            unlocks.is_empty(),
            "no process died that had a lock: {unlocks:#?}"
        );
    }
    restic(&rest(scene.name), &["check", "--read-data", "-q"]);
    assert_eq!(snapshots(&rest(scene.name), "x").len(), 1, "the newest is left");
}

/// What is to be seen between the fault and the next grant.
fn follow(then: Then, scene: &Scene) {
    let state = || try_lock(&scene.id).unwrap_or_default()["state"].clone();
    match then {
        Then::GoesOn => {
            slow(scene.name, Duration::from_millis(300));
            let ran = until_end(&scene.b, &json!({}), TURN);
            assert_eq!(
                (&ran["lastRunResult"], &ran["lastRunToken"]),
                (&json!("Applied"), &json!(scene.token)),
                "{ran:#}"
            );
            let jobs = scene.b.kubectl(&["get", "jobs", "-o", "name"]).unwrap();
            assert_eq!(jobs.lines().count(), 1, "adopted, no second Job: {jobs}");
        }
        Then::Ends => within(TURN, "the end of b's pod", || !works_alone(scene)),
        Then::RunsOut => {
            within(TURN, "the end of b's pod", || !works_alone(scene));
            within(TURN, "the delay", || {
                let next = scene.next_grant();
                assert_eq!(next, None, "granted without a delay");
                state() == "delayed"
            });
        }
        Then::StandsStill => {
            within(TURN, "the delay", || state() == "delayed");
            assert!(scene.at_work(), "it stands still");
        }
        Then::Either => {}
    }
}

/// Whether b's pod is at work; nobody else may be granted the lock while it is.
fn works_alone(scene: &Scene) -> bool {
    // In this order: it may end between the two questions.
    let next = scene.next_grant();
    let at_work = scene.at_work();
    assert!(!(at_work && next.is_some()), "b's pod is at work beside {next:?}");
    at_work
}

/// The first grant above b's token.
fn until_next_grant(scene: &Scene) -> Grant {
    within(TURN, "the next grant", || scene.next_grant().is_some());
    scene.next_grant().unwrap()
}

/// Waits for the end of a run of policy `p` after the one that `before` tells of.
pub fn until_end(place: &Place, before: &Value, limit: Duration) -> Value {
    until_run_within(limit, place, "p", before)
}

/// Maintenance of both clusters goes on: what was waiting is done, and each has one more run that removes something.
/// A run that fails is only tried again, as its schedule would.
fn go_on<F: Fault>(scene: &Scene) {
    let end = Instant::now() + MENDED;
    let idle = |place: &Place| {
        let idle = |o: &Value| o["status"]["active"].is_null();
        let object = place.until_within(MENDED, "globalretentionpolicy/p", "no run under way", idle);
        object["status"].clone()
    };
    // A run that waits would remove what the other's is to remove.
    for place in [&scene.a, &scene.b] {
        idle(place);
    }
    for (place, good) in [(&scene.a, &["Applied"][..]), (&scene.b, F::AGAIN)] {
        let mut last = idle(place);
        let more = format!("{}/{}", scene.name, place.cluster.name);
        for n in 1.. {
            make_snapshots(&rest(scene.name), &place.cluster.name, &more, "y", 1..4);
            start(place, "p", &format!("again-{n}"));
            last = until_end(place, &last, MENDED);
            if good.contains(&last["lastRunResult"].as_str().unwrap_or_default()) {
                break;
            }
            assert!(
                Instant::now() < end,
                "{}: no run succeeds: {last:#}",
                place.cluster.name
            );
        }
    }
}
