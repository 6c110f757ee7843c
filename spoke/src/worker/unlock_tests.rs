use std::ops::{Deref, DerefMut};
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use tokio::sync::watch;

use super::super::bench::{self, executable};
use super::super::child::Leave;
use super::*;

/// A repository with one snapshot, and the real restic.
struct Bench(bench::Bench);

impl Deref for Bench {
    type Target = bench::Bench;

    fn deref(&self) -> &bench::Bench {
        &self.0
    }
}

impl DerefMut for Bench {
    fn deref_mut(&mut self) -> &mut bench::Bench {
        &mut self.0
    }
}

impl Bench {
    fn new() -> Bench {
        let bench = bench::Bench::new();
        let file = bench.dir.path().join("file").display().to_string();
        std::fs::write(&file, "x".repeat(100_000)).unwrap();
        bench.well(&["backup", &file]);
        Bench(bench)
    }

    fn code(&self, arguments: &[&str]) -> Option<i32> {
        self.command(arguments).output().unwrap().status.code()
    }

    fn locks(&self) -> BTreeSet<String> {
        let files = std::fs::read_dir(self.dir.path().join("repository/locks")).unwrap();
        let names = files.map(|f| f.unwrap().file_name().to_string_lossy().into_owned());
        names.filter(|name| locks::is_id(name)).collect()
    }

    /// Starts a command, and waits until a lock is there that was not there before.
    fn hold(&self, arguments: &[&str]) -> (Child, String) {
        let before = self.locks();
        let mut command = self.command(arguments);
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let mut child = command.spawn().unwrap();
        let start = Instant::now();
        while start.elapsed() < Duration::from_secs(60) {
            if let Some(id) = self.locks().difference(&before).next() {
                return (child, id.clone());
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        child.kill().unwrap();
        child.wait().unwrap();
        panic!("{arguments:?} took no lock");
    }

    /// A command that is killed while it holds its lock.
    fn killed(&self, arguments: &[&str]) -> String {
        let (mut child, id) = self.hold(arguments);
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(self.locks().contains(&id), "it was killed with its lock in place");
        id
    }

    /// A lock of another machine, written long ago. Its file is a snapshot's of that time: restic seals both alike, reads
    /// of a lock what a lock has, and that is time, host and user.
    fn old(&self, host: &str) -> String {
        let known = self.snapshots();
        let file = self.dir.path().join("file").display().to_string();
        let time = (Timestamp::now() - SignedDuration::from_mins(50))
            .strftime("%Y-%m-%d %H:%M:%S")
            .to_string();
        self.well(&["backup", "--host", host, "--time", &time, &file]);
        let id = self.snapshots().difference(&known).next().unwrap().clone();
        let at = |folder: &str| self.dir.path().join("repository").join(folder).join(&id);
        std::fs::copy(at("snapshots"), at("locks")).unwrap();
        id
    }

    fn snapshots(&self) -> BTreeSet<String> {
        let files = std::fs::read_dir(self.dir.path().join("repository/snapshots")).unwrap();
        let names = files.map(|f| f.unwrap().file_name().to_string_lossy().into_owned());
        names.collect()
    }

    async fn order(&self, locks: &[&String]) -> UnlockRun {
        let config = words(&["cat", "config", "--no-lock", "--json"]);
        let printed = self.restic.run(&config, Limit::Whole(SHORT)).await.unwrap();
        UnlockRun {
            restic_id: output::config_id(&printed).unwrap(),
            locks: locks.iter().map(|id| (*id).clone()).collect(),
            made_ms: Timestamp::now().as_millisecond(),
        }
    }

    async fn unlock(&self, locks: &[&String]) -> OperationOutcome {
        run(&self.order(locks).await, self.restic.clone(), "elsewhere").await
    }
}

fn own_host() -> String {
    std::fs::read_to_string(super::super::HOST_NAME)
        .unwrap()
        .trim()
        .to_owned()
}

#[tokio::test]
async fn locks_of_a_killed_backup_and_prune_go_and_the_next_prune_works() {
    let bench = Bench::new();
    let backup = bench.killed(&["backup", "--stdin"]);
    assert_eq!(bench.code(&["prune"]), Some(11), "a shared lock stops prune");
    let done = bench.unlock(&[&backup]).await;
    assert_eq!(
        (done.result.as_str(), &done.removed_locks),
        ("Applied", &vec![backup.clone()]),
        "{done:?}"
    );
    assert!(
        done.message.contains(&backup[..10]) && done.message.contains(" old"),
        "{}",
        done.message
    );

    let prune = bench.killed(&["prune"]);
    assert_eq!(
        bench.code(&["backup", "--stdin"]),
        Some(11),
        "an exclusive lock stops backups"
    );
    let done = bench.unlock(&[&prune]).await;
    assert_eq!(
        (done.result.as_str(), &done.removed_locks),
        ("Applied", &vec![prune])
    );
    assert!(done.message.contains("exclusive lock"), "{}", done.message);
    bench.well(&["prune"]);
    bench.well(&["check", "--read-data"]);
}

#[tokio::test]
async fn the_lock_of_a_live_restic_stays() {
    let bench = Bench::new();
    let dead = bench.killed(&["backup", "--stdin"]);
    let (mut live, lock) = bench.hold(&["backup", "--stdin"]);
    let done = bench.unlock(&[&dead]).await;
    assert_eq!(
        (done.result.as_str(), &done.removed_locks),
        ("Applied", &vec![dead])
    );
    assert_eq!(bench.locks(), BTreeSet::from([lock.clone()]));
    // Also when its id were given: restic's own rule is the second barrier.
    let done = bench.unlock(&[&lock]).await;
    assert_eq!(
        (done.result.as_str(), done.reason.as_str()),
        ("Failed", "NotRemoved"),
        "{done:?}"
    );
    assert_eq!(bench.locks(), BTreeSet::from([lock]));
    let mut input = live.stdin.take().unwrap();
    std::io::Write::write_all(&mut input, b"data").unwrap();
    drop(input);
    assert!(live.wait().unwrap().success(), "its backup comes to its end");
}

#[tokio::test]
async fn nothing_goes_while_restic_would_take_a_lock_that_was_not_found_dead() {
    let bench = Bench::new();
    let (known, unknown) = (bench.old("gone"), bench.old("asleep"));
    let done = bench.unlock(&[&known]).await;
    assert_eq!(
        (done.result.as_str(), done.reason.as_str()),
        ("Failed", "OtherLocks")
    );
    assert!(done.message.contains("asleep"), "{}", done.message);
    assert_eq!(bench.locks().len(), 2);
    let done = bench.unlock(&[&known, &unknown]).await;
    assert_eq!(
        (done.result.as_str(), done.removed_locks.len()),
        ("Applied", 2),
        "{done:?}"
    );
    assert!(
        done.message.contains("gone, 50m old"),
        "restic's 30 minutes: {}",
        done.message
    );

    // restic removes a lock of its own host at once if it knows no such process: another cluster's pod of this name?
    let dead = bench.old("gone");
    let (mut live, lock) = bench.hold(&["backup", "--stdin"]);
    let done = run(&bench.order(&[&dead]).await, bench.restic.clone(), &own_host()).await;
    assert_eq!(done.reason, "OtherLocks", "{done:?}");
    assert!(bench.locks().contains(&lock) && bench.locks().contains(&dead));
    live.kill().unwrap();
    live.wait().unwrap();
}

#[tokio::test]
async fn an_order_that_no_longer_fits_removes_nothing() {
    let bench = Bench::new();
    let dead = bench.old("gone");
    let gone = "ab".repeat(32);
    let done = bench.unlock(&[&dead, &gone]).await;
    assert_eq!(
        (done.result.as_str(), done.reason.as_str()),
        ("NothingToRemove", "LocksChanged")
    );
    let mut order = bench.order(&[&dead]).await;
    order.made_ms -= 30 * 60_000;
    let done = run(&order, bench.restic.clone(), "elsewhere").await;
    assert_eq!(
        (done.result.as_str(), done.reason.as_str()),
        ("Failed", "ClockSkew")
    );
    let other = UnlockRun {
        restic_id: gone,
        ..bench.order(&[&dead]).await
    };
    let done = run(&other, bench.restic.clone(), "elsewhere").await;
    assert_eq!(done.reason, "RepositoryChanged");
    assert_eq!(bench.locks().len(), 1);
}

#[tokio::test]
async fn nothing_goes_while_a_lock_cannot_be_read() {
    let mut bench = Bench::new();
    let (known, unknown) = (bench.old("gone"), bench.old("asleep"));
    let order = bench.order(&[&known]).await;
    bench.script(&format!(
        "case \"$*\" in 'cat lock {unknown}'*) echo 'dial tcp 10.0.0.1:443: connect: connection refused' >&2; exit 1;; esac\n\
         exec $RESTIC \"$@\""
    ));
    let done = run(&order, bench.restic.clone(), "elsewhere").await;
    assert_eq!(
        (done.result.as_str(), done.reason.as_str()),
        ("Failed", "RepositoryUnreachable"),
        "{done:?}"
    );
    assert_eq!(bench.locks().len(), 2);
}

#[tokio::test]
async fn a_damaged_repository_keeps_its_lock() {
    let bench = Bench::new();
    let dead = bench.old("gone");
    let mut packs = Vec::new();
    for folder in std::fs::read_dir(bench.dir.path().join("repository/data")).unwrap() {
        packs.extend(std::fs::read_dir(folder.unwrap().path()).unwrap());
    }
    for pack in packs {
        std::fs::remove_file(pack.unwrap().path()).unwrap();
    }
    let done = bench.unlock(&[&dead]).await;
    assert_eq!(
        (done.result.as_str(), done.reason.as_str()),
        ("Failed", "CheckFailed"),
        "{done:?}"
    );
    assert_eq!(bench.locks().len(), 1);
}

#[tokio::test]
async fn a_restic_that_was_killed_is_told_to_have_left_its_lock() {
    let bench = Bench::new();
    let (leave, receiver) = watch::channel(Leave::Go);
    let restic = Restic {
        leave: receiver,
        ..bench.restic.clone()
    };
    // Never ends: its input is silent. TERM is answered by removing the lock, so it is stopped first.
    let backup = words(&["backup", "--stdin-from-command", "--", "sleep", "600"]);
    let before = bench.locks();
    let running = tokio::spawn({
        let restic = restic.clone();
        async move { restic.run(&backup, Limit::Whole(CHECK)).await }
    });
    let lock = loop {
        if let Some(id) = bench.locks().difference(&before).next() {
            break id.clone();
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    };
    let printed = restic
        .run(&words(&["cat", "lock", &lock, "--no-lock"]), Limit::Whole(SHORT))
        .await
        .unwrap();
    let pid = locks::lock_file(&printed).unwrap().pid;
    let stopped = Command::new("kill").args(["-STOP", &pid.to_string()]).status();
    assert!(stopped.unwrap().success());
    leave.send_replace(Leave::End {
        why: super::super::child::Why::LeaseLost,
        kill: since_boot(),
    });
    assert!(matches!(running.await.unwrap(), Err(Stopped::LeaseLost)));
    assert!(bench.locks().contains(&lock));
    let told = super::super::left_behind(failed("LeaseLost", "x".to_owned()), &restic.lock_left);
    assert!(
        told.lock_left && told.message.contains("lock is still"),
        "{told:?}"
    );
}

#[test]
fn a_wall_clock_that_was_set_is_found_out() {
    let at = |second| Timestamp::from_second(second).unwrap();
    assert!(!stepped((0, at(1000)), (7_200_000, at(8200))));
    assert!(stepped((0, at(1000)), (7_200_000, at(8600))));
    assert!(stepped((0, at(1000)), (7_200_000, at(7800))));
}

/// What a check comes to with a restic that does this, and how often it was begun.
async fn checked(script: &str, time: Duration) -> (Option<Refusal>, usize) {
    let dir = tempfile::tempdir().unwrap();
    let (program, calls) = (dir.path().join("restic"), dir.path().join("calls"));
    let text = format!("#!/bin/sh\necho \"$*\" >> {}\n{script}\n", calls.display());
    executable(&program, &text);
    let (_leave, receiver) = watch::channel(Leave::Go);
    let restic = bench::restic(program, receiver);
    let refusal = check(&restic, time).await.unwrap();
    (refusal, std::fs::read_to_string(calls).unwrap().lines().count())
}

#[tokio::test]
async fn a_check_that_does_not_end_in_its_time_is_ended_once_and_says_so() {
    let (refusal, begun) = checked("exec sleep 600", Duration::from_millis(500)).await;
    assert_eq!((refusal.unwrap().reason, begun), ("CheckTimeout", 1));
    let (refusal, begun) = checked("exit 1", Duration::from_secs(3600)).await;
    assert_eq!(
        (refusal.unwrap().reason, begun),
        ("CheckFailed", 2),
        "it may be a backup's end"
    );
    // A second check would take as long as the first, for which there is no time.
    let (refusal, begun) = checked("sleep 0.5; exit 1", Duration::from_millis(900)).await;
    assert_eq!((refusal.unwrap().reason, begun), ("CheckFailed", 1));
    assert_eq!(checked("exit 0", Duration::from_secs(3600)).await, (None, 1));
}
