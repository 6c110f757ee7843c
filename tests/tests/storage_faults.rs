//! Retention through a storage server that fails. For every n, the n-th request of a run is answered with 403, 404,
//! 500, an empty body, a cut connection or half an answer: no snapshot is removed that a policy keeps, and a run that
//! could not read says which read failed. Real restic, restic's REST server, and the worker's own code; no cluster.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stderr)]

#[path = "../../spoke/tests/weak_key.rs"]
mod weak_key;

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use proto::plan::{PlanLine, plan_hash};
use proto::v1::{Baseline, OperationOutcome, RetentionPolicySpec, RetentionRule, RetentionRun};
use spoke::worker::child::{Leave, Restic};
use spoke::worker::contend::Lease;
use spoke::worker::order::{FILE, Order};
use spoke::worker::retention;
use tests::proxy::{Action, Fate, Proxy, Request};
use tokio::sync::watch;

type Ids = BTreeSet<String>;

fn program(name: &str) -> PathBuf {
    let built = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../.testbed/bin")
        .join(name);
    if built.exists() {
        built
    } else {
        PathBuf::from(name)
    }
}

/// A REST server on a folder of repositories. It ends with the test.
struct Server {
    child: Child,
    address: SocketAddr,
    dir: tempfile::TempDir,
    /// Ids of the snapshots of clusters a and b, oldest first.
    snapshots: [Vec<String>; 2],
    restic_id: String,
    cases: AtomicU64,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

impl Server {
    fn start() -> Server {
        let dir = tempfile::tempdir().unwrap();
        let address = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
            .unwrap()
            .local_addr()
            .unwrap();
        let child = Command::new(program("rest-server"))
            .args(["--no-auth", "--listen", &address.to_string(), "--path"])
            .arg(dir.path().join("served"))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("rest-server; make restic builds it");
        let mut server = Server {
            child,
            address,
            dir,
            snapshots: Default::default(),
            restic_id: String::new(),
            cases: AtomicU64::new(0),
        };
        let end = Instant::now() + Duration::from_secs(20);
        while TcpStream::connect(address).is_err() {
            assert!(Instant::now() < end, "the REST server does not answer");
            std::thread::sleep(Duration::from_millis(20));
        }
        server.fill();
        server
    }

    fn pool(&self) -> PathBuf {
        self.dir.path().join("pool")
    }

    fn restic(&self, repository: &Path, arguments: &[&str]) -> String {
        let output = Command::new(program("restic"))
            .args(["--no-cache", "-q", "-r"])
            .arg(repository)
            .args(arguments)
            .env("RESTIC_PASSWORD", "p")
            .output()
            .expect("restic; make restic builds it");
        let told = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "restic {arguments:?}: {told}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// Four snapshots of each of two clusters, one a year.
    fn fill(&mut self) {
        let pool = self.pool();
        weak_key::repository(&pool);
        let config: serde_json::Value =
            serde_json::from_str(&self.restic(&pool, &["cat", "config", "--json"])).unwrap();
        config["id"].as_str().unwrap().clone_into(&mut self.restic_id);
        let file = self.dir.path().join("file");
        for (at, (cluster, host)) in [("a", "orders"), ("b", "web")].into_iter().enumerate() {
            for year in 2023..=2026 {
                std::fs::write(&file, format!("{cluster} {year}")).unwrap();
                let before = ids(&pool);
                let (tag, time) = (
                    format!("fleet.cluster={cluster}"),
                    format!("{year}-06-01 12:00:00"),
                );
                let file = file.display().to_string();
                self.restic(
                    &pool,
                    &["backup", "--host", host, "--tag", &tag, "--time", &time, &file],
                );
                let new: Vec<String> = ids(&pool).difference(&before).cloned().collect();
                assert_eq!(new.len(), 1);
                self.snapshots[at].extend(new);
            }
        }
    }

    /// A repository of its own for one run. Files of a repository never change, so they are linked.
    fn case(&self) -> Case {
        let name = format!("case-{}", self.cases.fetch_add(1, Ordering::Relaxed));
        let at = self.dir.path().join("served").join(&name);
        link(&self.pool(), &at);
        let lease = self.dir.path().join("lease").join(&name);
        std::fs::create_dir_all(&lease).unwrap();
        Case { name, at, lease }
    }

    /// Four policies of two clusters. Only `a/ns/years` keeps the third snapshot of a, only `b/ns/three` the second of b.
    fn order(&self) -> RetentionRun {
        let policy = |source: &str, rule: RetentionRule| RetentionPolicySpec {
            source: source.to_owned(),
            generation: 1,
            max_removed_percent: 100,
            rules: vec![rule],
            ..RetentionPolicySpec::default()
        };
        let rule = RetentionRule::default;
        let of = |cluster: &str| vec![format!("fleet.cluster={cluster}")];
        RetentionRun {
            restic_id: self.restic_id.clone(),
            clusters: vec!["a".to_owned(), "b".to_owned()],
            policies: vec![
                policy(
                    "a/ns/last",
                    RetentionRule {
                        keep_last: 1,
                        ..rule()
                    },
                ),
                policy(
                    "a/ns/years",
                    RetentionRule {
                        tags: of("a"),
                        keep_yearly: 2,
                        ..rule()
                    },
                ),
                policy(
                    "b/ns/three",
                    RetentionRule {
                        tags: of("b"),
                        keep_last: 3,
                        ..rule()
                    },
                ),
                policy(
                    "b/ns/web",
                    RetentionRule {
                        hostname: "web".to_owned(),
                        keep_within: "1y1d".to_owned(),
                        ..rule()
                    },
                ),
            ],
            ..RetentionRun::default()
        }
    }

    /// What these policies remove.
    fn expected(&self) -> Ids {
        let [a, b] = &self.snapshots;
        [&a[0], &a[1], &b[0]].into_iter().cloned().collect()
    }

    fn proxy(&self) -> Proxy {
        Proxy::start((Ipv4Addr::LOCALHOST, 0).into(), self.address, |_| Action::pass()).unwrap()
    }
}

/// A repository, and the order of its run.
struct Case {
    name: String,
    at: PathBuf,
    lease: PathBuf,
}

/// What a run did.
struct Ran {
    outcome: OperationOutcome,
    plans: Vec<PlanLine>,
    removed: Ids,
}

impl Case {
    fn give(&self, order: &RetentionRun) {
        let new = self.lease.join("new");
        std::fs::write(&new, serde_json::to_string(order).unwrap()).unwrap();
        std::fs::rename(new, self.lease.join(FILE)).unwrap();
    }

    /// Runs the worker through the proxy, from its first request on.
    fn run(&self, proxy: &Proxy, rules: impl Fn(&Request) -> Action + Send + Sync + 'static) -> Ran {
        proxy.set(rules);
        proxy.reset();
        let before = ids(&self.at);
        // Held, or the permission would be lost.
        let (permission, leave) = watch::channel(Leave::Go);
        let variables = [
            (
                "RESTIC_REPOSITORY",
                format!("rest:{}/{}/", proxy.url(), self.name),
            ),
            ("RESTIC_PASSWORD", "p".to_owned()),
            ("GOMAXPROCS", "1".to_owned()),
        ];
        let restic = Restic {
            program: program("restic"),
            read_limit: Duration::from_secs(4),
            echo: false,
            flags: vec!["--no-cache".to_owned()],
            variables: variables.map(|(name, value)| (name.to_owned(), value)).into(),
            leave,
            lock_left: std::sync::Arc::default(),
            retry_lock: "30m".to_owned(),
            lease: Lease::default(),
        };
        let plans = Mutex::new(Vec::new());
        let print = |line: &str| plans.lock().unwrap().push(serde_json::from_str(line).unwrap());
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let outcome = runtime.block_on(retention::run(&Order::in_folder(&self.lease), &restic, print));
        drop(permission);
        proxy.set(|_| Action::pass());
        let removed = before.difference(&ids(&self.at)).cloned().collect();
        let plans = plans.into_inner().unwrap();
        Ran {
            outcome,
            plans,
            removed,
        }
    }
}

/// Snapshots of a repository, as files.
fn ids(repository: &Path) -> Ids {
    let files = std::fs::read_dir(repository.join("snapshots")).unwrap();
    files
        .map(|f| f.unwrap().file_name().into_string().unwrap())
        .collect()
}

fn link(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap().map(Result::unwrap) {
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            link(&entry.path(), &target);
        } else {
            std::fs::hard_link(entry.path(), target).unwrap();
        }
    }
}

const KINDS: [(&str, Fate); 6] = [
    ("403", Fate::Status(403)),
    ("404", Fate::Status(404)),
    ("500", Fate::Status(500)),
    ("empty", Fate::Empty),
    ("cut", Fate::Cut),
    ("half", Fate::Half),
];

/// What a run that failed names.
const READS: [&str; 6] = [
    "restic cat config",
    "restic snapshots",
    "restic list snapshots",
    "the dry run ",
    "restic forget",
    "are still there",
];

fn judge(ran: &Ran, expected: &Ids, what: &str) {
    let outcome = &ran.outcome;
    let words = format!(
        "{what}: {} {}: {}",
        outcome.result, outcome.reason, outcome.message
    );
    assert!(
        ran.removed.is_subset(expected),
        "{words}: removed {:?}",
        ran.removed
    );
    match outcome.result.as_str() {
        // It could read, be it at the second try.
        "Applied" => assert_eq!(ran.removed, *expected, "{words}"),
        "Failed" => {
            assert!(!outcome.reason.is_empty(), "{words}");
            assert!(READS.iter().any(|read| outcome.message.contains(read)), "{words}");
            if outcome.message.starts_with("nothing was removed") {
                assert!(ran.removed.is_empty() && outcome.removed == 0, "{words}");
            }
        }
        _ => panic!("{words}"),
    }
    // Never more than was really removed.
    assert!(outcome.removed as usize <= ran.removed.len(), "{words}");
}

#[test]
fn no_fault_of_the_storage_removes_what_a_policy_keeps() {
    let server = Server::start();
    let expected = server.expected();
    let (clean, reading) = {
        let (proxy, case) = (server.proxy(), server.case());
        case.give(&server.order());
        let ran = case.run(&proxy, |_| Action::pass());
        assert_eq!(
            (ran.outcome.result.as_str(), &ran.removed),
            ("Applied", &expected),
            "{}",
            ran.outcome.message
        );
        assert_eq!(ran.plans.len(), 1);
        let plan = &ran.plans[0].plan;
        let listed: Ids = plan.remove.iter().map(|r| r.id.clone()).collect();
        assert_eq!(listed, expected);
        assert_eq!(
            plan.hash,
            plan_hash(&server.restic_id, listed.iter().map(String::as_str))
        );
        let log = proxy.log();
        // The last listing before restic forget takes its lock ends the reading.
        let lock = log
            .iter()
            .position(|e| e.method == "POST" && e.path.contains("/locks/"));
        let before = &log[..lock.unwrap()];
        let reading = before.iter().rposition(|e| e.path.ends_with("/snapshots/"));
        (proxy.count(), reading.unwrap() as u64)
    };
    // Refusals are never tried again, so each request counts; what is tried again is sampled.
    let mut cases: Vec<(&str, Fate, u64, bool)> = Vec::new();
    for (at, (name, fate)) in KINDS.into_iter().enumerate() {
        let every = if at < 2 { 1 } else { 4 };
        let numbers = (1..=clean).filter(|n| n % every == at as u64 % every);
        cases.extend(numbers.map(|n| (name, fate, n, false)));
    }
    // And storage that stays away from some request on.
    cases.extend(
        (1..=clean)
            .step_by(9)
            .map(|n| ("403 from here on", Fate::Status(403), n, true)),
    );
    // restic itself tries again for 15 minutes, which the worker bounds as long as it only reads.
    cases.extend(
        (1..=reading)
            .step_by(20)
            .map(|n| ("500 from here on", Fate::Status(500), n, true)),
    );
    let total = cases.len();
    assert!(clean >= 60 && total >= 200, "{clean} requests, {total} cases");
    let (next, hit, failed) = (AtomicU64::new(0), AtomicU64::new(0), AtomicU64::new(0));
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                let proxy = server.proxy();
                while let Some(&(name, fate, n, lasting)) =
                    cases.get(next.fetch_add(1, Ordering::Relaxed) as usize)
                {
                    let case = server.case();
                    case.give(&server.order());
                    let start = Instant::now();
                    let ran = case.run(&proxy, move |request| {
                        let now = request.number == n || (lasting && request.number > n);
                        if now { Action::of(fate) } else { Action::pass() }
                    });
                    let log = proxy.log();
                    let victim = log.iter().find(|entry| entry.number == n);
                    let what = format!(
                        "{name} to request {n} ({:?})",
                        victim.map(|e| (&e.method, &e.path))
                    );
                    judge(&ran, &expected, &what);
                    assert!(
                        start.elapsed() < Duration::from_secs(60),
                        "{what}: {:?}",
                        start.elapsed()
                    );
                    hit.fetch_add(u64::from(victim.is_some()), Ordering::Relaxed);
                    failed.fetch_add(u64::from(ran.outcome.result == "Failed"), Ordering::Relaxed);
                    std::fs::remove_dir_all(&case.at).unwrap();
                }
            });
        }
    });
    let (hit, failed) = (hit.into_inner(), failed.into_inner());
    eprintln!("{total} faults in runs of {clean} requests: {hit} were met, {failed} made the run fail");
    // Nearly all of them came up: two dry runs go side by side, so that the last number may not.
    assert!(hit as usize * 100 >= total * 97, "{hit} of {total}");
    assert!(failed as usize * 5 >= total, "{failed} of {total}");
}

#[test]
fn a_repository_that_lists_nothing_has_lost_nothing() {
    let server = Server::start();
    let (proxy, case) = (server.proxy(), server.case());
    let mut order = server.order();
    order.policies.iter_mut().for_each(|p| p.preview = true);
    let no_snapshot = |request: &Request| {
        let listing = request.path.ends_with("/snapshots/") && request.method == "GET";
        if listing {
            Action::status(404)
        } else {
            Action::pass()
        }
    };
    case.give(&order);
    let ran = case.run(&proxy, no_snapshot);
    // To restic that is an empty repository; a preview of nothing is none.
    assert_eq!(
        (ran.outcome.result.as_str(), ran.outcome.snapshots),
        ("NothingToRemove", 0)
    );
    assert!(ran.outcome.shown.is_empty() && ran.removed.is_empty());
    order.baseline = vec![Baseline {
        key: "cluster/a".to_owned(),
        left: 4,
    }];
    case.give(&order);
    let ran = case.run(&proxy, no_snapshot);
    assert_eq!(
        (ran.outcome.result.as_str(), ran.outcome.reason.as_str()),
        ("Failed", "IncompleteRead")
    );
    assert!(
        ran.outcome.message.contains("lists no snapshot at all"),
        "{}",
        ran.outcome.message
    );
}

#[test]
fn deletes_that_the_storage_refuses_are_not_reported_as_done() {
    let server = Server::start();
    let (proxy, case) = (server.proxy(), server.case());
    case.give(&server.order());
    let ran = case.run(&proxy, |request| {
        let delete = request.method == "DELETE" && request.path.contains("/snapshots/");
        if delete {
            Action::status(403)
        } else {
            Action::pass()
        }
    });
    assert_eq!(
        (ran.outcome.result.as_str(), ran.outcome.reason.as_str()),
        ("Failed", "NotRemoved")
    );
    assert!(ran.removed.is_empty() && ran.outcome.removed == 0);
}

/// One policy keeps two snapshots more since the plan was made.
fn kinder(order: &RetentionRun) -> RetentionRun {
    let mut order = order.clone();
    order.policies[1].rules[0].keep_yearly = 4;
    order.policies[1].generation = 2;
    order
}

#[test]
fn policies_that_change_while_the_plan_is_made_count() {
    let server = Server::start();
    let (proxy, case) = (server.proxy(), Arc::new(server.case()));
    let order = server.order();
    case.give(&order);
    let at = Arc::clone(&case);
    let (old, new) = (order.clone(), kinder(&order));
    // The order is replaced while the first dry run reads.
    let ran = case.run(&proxy, move |request| {
        if request.number == 40 {
            at.give(&new);
        }
        Action::pass()
    });
    let [_, b] = &server.snapshots;
    assert_eq!(
        (ran.outcome.result.as_str(), ran.removed),
        ("Applied", Ids::from([b[0].clone()]))
    );
    assert_eq!(ran.outcome.policies[1], "a/ns/years@2");
    assert_eq!(ran.plans.len(), 1);
    assert_eq!(ran.plans[0].plan.policies[1].generation, 2);

    // One that never comes to rest is not carried out.
    let case = Arc::new(server.case());
    case.give(&old);
    let (at, turns) = (Arc::clone(&case), AtomicU64::new(0));
    let ran = case.run(&proxy, move |request| {
        if request.path.ends_with("/snapshots/") && request.method == "GET" {
            let mut order = old.clone();
            order.policies[0].generation = i64::try_from(turns.fetch_add(1, Ordering::Relaxed)).unwrap();
            at.give(&order);
        }
        Action::pass()
    });
    assert_eq!(
        (ran.outcome.result.as_str(), ran.outcome.reason.as_str()),
        ("Failed", "PolicyChanged")
    );
    assert!(ran.removed.is_empty());
}

#[test]
fn a_policy_that_cannot_be_evaluated_is_named_and_the_others_go_on() {
    let server = Server::start();
    let (proxy, case) = (server.proxy(), server.case());
    let mut order = server.order();
    // As an older hub would hand it on: restic refuses it.
    order.policies[2].rules[0].keep_last = 0;
    order.policies[2].rules[0].keep_within = "2w".to_owned();
    case.give(&order);
    let ran = case.run(&proxy, |_| Action::pass());
    let [a, _] = &server.snapshots;
    let only_a = Ids::from([a[0].clone(), a[1].clone()]);
    assert_eq!(
        (ran.outcome.result.as_str(), ran.removed),
        ("Applied", only_a),
        "{}",
        ran.outcome.message
    );
    assert_eq!(ran.outcome.faults[0].source, "b/ns/three");
    assert!(
        ran.outcome.faults[0].text.contains("2w"),
        "{}",
        ran.outcome.faults[0].text
    );
}

/// A 404 to a listing is an empty list to restic, and everything is unused to a prune that sees no snapshot.
#[test]
fn a_prune_that_sees_no_snapshots_is_stopped_before_it_removes_data() {
    let server = Server::start();
    let (proxy, case) = (server.proxy(), server.case());
    let mut order = server.order();
    order.policies[0].prune = true;
    case.give(&order);
    let listings = AtomicU64::new(0);
    let clean = case.run(&proxy, |_| Action::pass());
    assert_eq!(
        (clean.outcome.result.as_str(), clean.outcome.pruned),
        ("Applied", true),
        "{}",
        clean.outcome.message
    );
    server.restic(&case.at, &["check", "--read-data"]);
    // The listing by prune is the first behind the lock file of prune.
    let case = server.case();
    case.give(&order);
    let ran = case.run(&proxy, move |request| {
        let locks = request.path.contains("/locks/") && request.method == "POST";
        let held = if locks {
            listings.fetch_add(1, Ordering::Relaxed) + 1
        } else {
            listings.load(Ordering::Relaxed)
        };
        let listing = request.path.ends_with("/snapshots/") && request.method == "GET";
        match (held, listing, request.method.as_str()) {
            (2.., true, _) => Action::status(404),
            // As long as over a network.
            (2.., _, "POST" | "DELETE") => Action::pass().before(Duration::from_millis(300)),
            _ => Action::pass(),
        }
    });
    assert_eq!(
        (ran.outcome.result.as_str(), ran.outcome.reason.as_str()),
        ("Failed", "IncompleteRead"),
        "{}",
        ran.outcome.message
    );
    assert!(
        ran.outcome.message.contains("it found 0 of 5 snapshots"),
        "{}",
        ran.outcome.message
    );
    server.restic(&case.at, &["unlock", "--remove-all"]);
    server.restic(&case.at, &["check", "--read-data"]);
}
