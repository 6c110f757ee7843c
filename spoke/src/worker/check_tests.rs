use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use crds::rules::RULES_VERSION;
use proto::v1::{RetentionPolicySpec, RetentionRule, RetentionRun};
use tokio::sync::watch;

use super::super::child::Leave;
use super::super::contend::Lease;
use super::super::order::Order;
use super::*;

/// A repository with three snapshots, and a restic.
struct Bench {
    dir: tempfile::TempDir,
    leave: watch::Sender<Leave>,
    restic: Restic,
    id: String,
}

fn program() -> PathBuf {
    let built = Path::new(env!("CARGO_MANIFEST_DIR")).join("../.testbed/bin/restic");
    if built.exists() {
        built
    } else {
        PathBuf::from("restic")
    }
}

impl Bench {
    fn new() -> Bench {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name).display().to_string();
        let variables = [
            ("RESTIC_REPOSITORY", path("repository")),
            ("RESTIC_PASSWORD", "p".to_owned()),
            ("RESTIC_CACHE_DIR", path("cache")),
        ];
        let (leave, receiver) = watch::channel(Leave::Go);
        let restic = Restic {
            program: program(),
            read_limit: Duration::from_secs(60),
            echo: true,
            flags: Vec::new(),
            variables: variables.map(|(k, v)| (k.to_owned(), v)).into(),
            leave: receiver,
            lock_left: Arc::default(),
            retry_lock: "30m".to_owned(),
            lease: Lease::default(),
        };
        let mut bench = Bench {
            dir,
            leave,
            restic,
            id: String::new(),
        };
        bench.well(&["init"]);
        let file = bench.dir.path().join("file").display().to_string();
        for byte in 1..4 {
            let noise: Vec<u8> = (0..200_000u32)
                .map(|n| (n.wrapping_mul(2_654_435_761 + byte) >> 13) as u8)
                .collect();
            std::fs::write(&file, noise).unwrap();
            bench.well(&["backup", "--host", "bench", &file]);
        }
        let config = bench.command(&["cat", "config"]).output().unwrap();
        bench.id = output::config_id(&config.stdout).unwrap();
        bench
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(program());
        // A repair leaves copies of pack files where it is started.
        command.args(arguments).current_dir(self.dir.path());
        command.envs(self.restic.variables.iter().map(|(k, v)| (k, v)));
        command
    }

    fn well(&self, arguments: &[&str]) {
        let out = self.command(arguments).output().unwrap();
        let stderr = String::from_utf8_lossy(&out.stderr);
        assert!(out.status.success(), "{arguments:?}: {stderr}");
    }

    /// Pack files with data, the largest first.
    fn packs(&self) -> Vec<PathBuf> {
        let folders = std::fs::read_dir(self.dir.path().join("repository/data")).unwrap();
        let files = folders.flat_map(|folder| std::fs::read_dir(folder.unwrap().path()).unwrap());
        let mut files: Vec<PathBuf> = files.map(|file| file.unwrap().path()).collect();
        files.sort_by_key(|file| std::cmp::Reverse(file.metadata().unwrap().len()));
        files
    }

    /// Changes a byte in the middle of a pack file. Returns its id.
    fn damage(&self) -> String {
        let pack = self.packs().remove(0);
        let mut bytes = std::fs::read(&pack).unwrap();
        bytes[100] ^= 0xff;
        std::fs::remove_file(&pack).unwrap();
        std::fs::write(&pack, bytes).unwrap();
        name(&pack)
    }

    /// Replaces restic by a script, in which `$RESTIC` is the real one.
    fn script(&mut self, text: &str) {
        use std::os::unix::fs::PermissionsExt as _;
        let path = self.dir.path().join("script");
        let head = format!(
            "#!/bin/sh\nRESTIC={}\ncd {}\n",
            program().display(),
            self.dir.path().display()
        );
        std::fs::write(&path, format!("{head}{text}\n")).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        self.restic.program = path;
    }

    async fn check(&self, parts: &[u32], of: u32) -> OperationOutcome {
        let order = CheckRun {
            restic_id: self.id.clone(),
            parts: parts.to_vec(),
            of,
        };
        run(&order, self.restic.clone()).await
    }
}

fn name(pack: &Path) -> String {
    pack.file_name().unwrap().to_string_lossy().into_owned()
}

/// Part of `of` in which restic reads a pack.
fn part(pack: &str, of: u32) -> u32 {
    u32::from_str_radix(&pack[..2], 16).unwrap() % of + 1
}

fn summary(outcome: &OperationOutcome) -> (&str, &str) {
    (&outcome.result, &outcome.reason)
}

#[tokio::test]
async fn a_sound_repository_passes_and_takes_no_lock_meanwhile() {
    let mut bench = Bench::new();
    bench.script("echo \"$*\" >> calls; exec $RESTIC \"$@\"");
    let outcome = bench.check(&[], 0).await;
    assert_eq!(summary(&outcome), ("Passed", ""));
    assert!(
        outcome.message.contains("no data was read"),
        "{}",
        outcome.message
    );
    let outcome = bench.check(&[2, 3], 3).await;
    assert_eq!((outcome.checked.as_slice(), outcome.checked_of), (&[2, 3][..], 3));
    let calls = std::fs::read_to_string(bench.dir.path().join("calls")).unwrap();
    let checks: Vec<&str> = calls.lines().filter(|call| call.starts_with("check")).collect();
    assert_eq!(
        checks,
        [
            "check --no-lock",
            "check --no-lock --read-data-subset=2/3",
            "check --no-lock --read-data-subset=3/3"
        ]
    );
}

#[tokio::test]
async fn a_damaged_pack_is_found_by_the_part_that_it_is_in_within_one_walk() {
    let bench = Bench::new();
    let pack = bench.damage();
    assert_eq!(
        summary(&bench.check(&[], 0).await),
        ("Passed", ""),
        "the structure is sound"
    );
    let mut found = Vec::new();
    for number in 1..=4 {
        let outcome = bench.check(&[number], 4).await;
        if outcome.result == "Damaged" {
            assert_eq!(outcome.reason, "DamagedPacks");
            assert_eq!(outcome.broken_packs, [pack.as_str()]);
            assert!(
                outcome.message.contains("ciphertext verification failed"),
                "{}",
                outcome.message
            );
            found.push(number);
        }
    }
    assert_eq!(found, [part(&pack, 4)]);
    bench.well(&["repair", "packs", &pack]);
    bench.well(&["repair", "snapshots", "--forget"]);
    assert_eq!(
        summary(&bench.check(&found, 4).await),
        ("Passed", ""),
        "it is mended"
    );
}

#[tokio::test]
async fn a_missing_pack_is_found_without_reading_data() {
    let bench = Bench::new();
    let pack = bench.packs().remove(0);
    std::fs::remove_file(&pack).unwrap();
    let outcome = bench.check(&[], 0).await;
    assert_eq!(summary(&outcome), ("Damaged", "MissingPacks"));
    assert_eq!(outcome.broken_packs, [name(&pack)]);
    assert!(outcome.message.contains("does not exist"), "{}", outcome.message);
    bench.well(&["repair", "index"]);
    bench.well(&["repair", "snapshots", "--forget"]);
    assert_eq!(summary(&bench.check(&[1], 1).await), ("Passed", ""));
}

#[tokio::test]
async fn a_pack_that_the_storage_has_and_does_not_list_is_not_missing() {
    let mut bench = Bench::new();
    let pack = name(&bench.packs()[0]);
    // Each listing lacks it, and it can be read.
    bench.script(&format!(
        "case $1 in check) echo 'pack {pack}: does not exist' >&2; echo 'Fatal: repository contains errors' >&2; exit 1;; esac\n\
         exec $RESTIC \"$@\""
    ));
    let outcome = bench.check(&[], 0).await;
    assert_eq!(outcome.result, "Failed");
    assert!(
        outcome.message.contains("listings are not complete"),
        "{}",
        outcome.message
    );
}

#[tokio::test]
async fn damage_that_a_second_check_does_not_find_is_none() {
    let mut bench = Bench::new();
    // As when a backup ends between two reads.
    bench.script(
        "case $1 in check) if mkdir seen 2>/dev/null; then echo '  id 22b8 not found in repository' >&2; exit 1; fi;; esac\n\
         exec $RESTIC \"$@\"",
    );
    assert_eq!(summary(&bench.check(&[], 0).await), ("Passed", ""));
    assert!(bench.dir.path().join("seen").exists());
}

#[tokio::test]
async fn damage_counts_once_two_checks_find_the_same() {
    let id = |letter: &str| letter.repeat(64);
    // What each check finds; "-" is a sound repository.
    for (finds, result, words) in [
        ("a b -", "Passed", String::new()),
        ("a b b", "Damaged", id("b")),
        ("a a", "Damaged", id("a")),
        ("a b c", "Failed", id("c")),
    ] {
        let mut bench = Bench::new();
        std::fs::write(bench.dir.path().join("finds"), finds.replace(' ', "\n")).unwrap();
        bench.script(
            "case $1 in check) next=$(sed -n 1p finds); sed -i 1d finds\n\
             [ \"$next\" = - ] && exit 0\n\
             echo \"  id $(printf '%064d' 0 | tr 0 $next) not found in repository\" >&2\n\
             echo 'Fatal: repository contains errors' >&2; exit 1;; esac\nexec $RESTIC \"$@\"",
        );
        let outcome = bench.check(&[], 0).await;
        assert_eq!(outcome.result, result, "{finds}: {}", outcome.message);
        assert!(outcome.message.contains(&words), "{finds}: {}", outcome.message);
        let left = std::fs::read_to_string(bench.dir.path().join("finds")).unwrap();
        assert_eq!(left, "", "{finds}");
    }
}

#[tokio::test]
async fn a_storage_that_fails_is_not_damage() {
    let mut bench = Bench::new();
    bench.damage();
    for (words, reason) in [
        (
            "Load(<data/d1>, 0, 0) returned error, retrying after 5.9s: connection refused",
            "RepositoryUnreachable",
        ),
        (
            "download error: unexpected HTTP response (500): 500 Internal Server Error",
            "ResticFailed",
        ),
        (
            "error: error loading index 8ec1: Access Denied.",
            "RepositoryForbidden",
        ),
    ] {
        bench.script(&format!(
            "case $1 in check) echo '{words}' >&2; echo 'Fatal: repository contains errors' >&2; exit 1;; esac\nexec $RESTIC \"$@\""
        ));
        let outcome = bench.check(&[1], 1).await;
        assert_eq!(
            summary(&outcome),
            ("Failed", reason),
            "{words}: {}",
            outcome.message
        );
        assert!(outcome.checked.is_empty() && outcome.broken_packs.is_empty());
    }
    std::fs::rename(bench.dir.path().join("repository"), bench.dir.path().join("away")).unwrap();
    bench.restic.program = program();
    assert_eq!(bench.check(&[1], 1).await.result, "Failed");
}

#[tokio::test]
async fn what_is_read_under_the_exclusive_lock_of_another_is_not_damage() {
    let mut bench = Bench::new();
    bench.damage();
    let lock = "{\"time\":\"2026-11-25T00:00:00Z\",\"exclusive\":true,\"hostname\":\"laptop\",\"username\":\"me\",\"pid\":7}";
    bench.script(&format!(
        "case \"$1 $2\" in 'list locks') echo {}; exit;; 'cat lock') echo '{lock}'; exit;; esac\nexec $RESTIC \"$@\"",
        "a".repeat(64)
    ));
    let outcome = bench.check(&[1], 1).await;
    assert_eq!(summary(&outcome), ("Failed", "RepositoryLocked"));
    assert!(outcome.message.contains("laptop"), "{}", outcome.message);
    bench.restic.program = program();
    assert_eq!(bench.check(&[1], 1).await.result, "Damaged");
}

#[tokio::test]
async fn a_check_that_loses_its_lease_or_its_time_has_no_result() {
    let mut bench = Bench::new();
    bench.script("case $1 in check) exec sleep 600;; esac\nexec $RESTIC \"$@\"");
    let order = CheckRun {
        restic_id: bench.id.clone(),
        ..CheckRun::default()
    };
    let late = steps(&order, &bench.restic, Duration::from_millis(300)).await;
    let outcome = without_result(&late.unwrap_err());
    assert_eq!(summary(&outcome), ("Failed", "CheckTimeout"));
    let kill = since_boot() + 5000;
    let why = super::super::child::Why::LeaseLost;
    let (checked, ()) = tokio::join!(bench.check(&[], 0), async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        bench.leave.send_replace(Leave::End { why, kill });
    });
    assert_eq!(summary(&checked), ("Interrupted", "LeaseLost"));
}

#[tokio::test]
async fn another_repository_is_not_checked() {
    let mut bench = Bench::new();
    bench.id = "0".repeat(64);
    assert_eq!(
        summary(&bench.check(&[], 0).await),
        ("Failed", "RepositoryChanged")
    );
}

#[tokio::test]
async fn nothing_is_removed_from_a_repository_that_is_damaged() {
    let bench = Bench::new();
    let lease = tempfile::tempdir().unwrap();
    let snapshots = || {
        let listed = bench.command(&["snapshots", "--json"]).output().unwrap();
        output::snapshots(&listed.stdout).unwrap().len()
    };
    let policy = RetentionPolicySpec {
        source: "a/ns/p".to_owned(),
        rules: vec![RetentionRule {
            hostname: "bench".to_owned(),
            keep_last: 1,
            ..RetentionRule::default()
        }],
        prune: true,
        max_removed_percent: 100,
        rules_version: RULES_VERSION,
        ..RetentionPolicySpec::default()
    };
    let mut order = RetentionRun {
        restic_id: bench.id.clone(),
        policies: vec![policy],
        damage: "ResticRepository a/ns/nas: pack 1 does not exist".to_owned(),
        ..RetentionRun::default()
    };
    let mut results = Vec::new();
    for _ in 0..2 {
        std::fs::write(lease.path().join("order"), serde_json::to_string(&order).unwrap()).unwrap();
        let in_folder = Order::in_folder(lease.path());
        let outcome = super::super::retention::run(&in_folder, &bench.restic, |_| {}).await;
        results.push((outcome.result, outcome.reason, snapshots()));
        order.damage.clear();
    }
    let expected = [("Failed", "RepositoryDamaged", 3), ("Applied", "", 1)];
    assert_eq!(
        results,
        expected.map(|(result, reason, left)| (result.to_owned(), reason.to_owned(), left))
    );
}
