use std::ops::{Deref, DerefMut};
use std::path::{Path, PathBuf};

use crds::rules::RULES_VERSION;
use proto::v1::{RetentionPolicySpec, RetentionRule, RetentionRun};

use super::super::bench::{self, program};
use super::super::child::Leave;
use super::super::order::Order;
use super::*;

/// A repository with three snapshots.
struct Bench {
    bench: bench::Bench,
    id: String,
}

impl Deref for Bench {
    type Target = bench::Bench;

    fn deref(&self) -> &bench::Bench {
        &self.bench
    }
}

impl DerefMut for Bench {
    fn deref_mut(&mut self) -> &mut bench::Bench {
        &mut self.bench
    }
}

impl Bench {
    fn new() -> Bench {
        let bench = bench::Bench::new();
        let file = bench.dir.path().join("file").display().to_string();
        for byte in 1..4 {
            let noise: Vec<u8> = (0..200_000u32)
                .map(|n| (n.wrapping_mul(2_654_435_761 + byte) >> 13) as u8)
                .collect();
            std::fs::write(&file, noise).unwrap();
            bench.well(&["backup", "--host", "bench", &file]);
        }
        let config = bench.command(&["cat", "config"]).output().unwrap();
        let id = output::config_id(&config.stdout).unwrap();
        Bench { bench, id }
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
async fn a_lock_that_cannot_be_read_is_not_taken_for_none() {
    let mut bench = Bench::new();
    bench.damage();
    bench.script(&format!(
        "case \"$1 $2\" in 'list locks') echo {}; exit;;\n\
         'cat lock') echo 'dial tcp 10.0.0.1:443: connect: connection refused' >&2; exit 1;; esac\nexec $RESTIC \"$@\"",
        "a".repeat(64)
    ));
    let outcome = bench.check(&[1], 1).await;
    assert_eq!(
        summary(&outcome),
        ("Failed", "RepositoryUnreachable"),
        "{}",
        outcome.message
    );
}

#[tokio::test]
async fn an_id_that_holds_404_does_not_make_a_pack_missing() {
    let mut bench = Bench::new();
    for (text, result) in [
        ("strange answer for <data/404404>", "Failed"),
        ("unexpected HTTP response (404): 404 Not Found", "Damaged"),
    ] {
        let pack = "404".repeat(22)[..64].to_owned();
        bench.script(&format!(
            "case \"$1 $2\" in 'check --no-lock') echo 'pack {pack}: does not exist' >&2; echo 'Fatal: repository contains errors' >&2; exit 1;;\n\
             'cat pack') echo '{text} {pack}' >&2; exit 1;; esac\nexec $RESTIC \"$@\""
        ));
        assert_eq!(bench.check(&[], 0).await.result, result, "{text}");
    }
}

#[tokio::test]
async fn confirmed_damage_counts_though_a_later_part_has_no_result() {
    let mut bench = Bench::new();
    let pack = bench.damage();
    let damaged = part(&pack, 3);
    let others: Vec<u32> = (1..=3).filter(|number| *number != damaged).collect();
    bench.script(&format!(
        "case \"$*\" in *--read-data-subset={}/3*) echo 'connection refused' >&2; exit 1;; esac\nexec $RESTIC \"$@\"",
        others[1]
    ));
    let order = CheckRun {
        restic_id: bench.id.clone(),
        parts: vec![others[0], damaged, others[1]],
        of: 3,
    };
    let time = Duration::from_secs(120);
    let outcome = steps(&order, &bench.restic, time).await.unwrap();
    let message = &outcome.message;
    assert_eq!(summary(&outcome), ("Damaged", "DamagedPacks"), "{message}");
    assert_eq!(outcome.broken_packs, [pack.as_str()]);
    assert_eq!(outcome.checked, [others[0], damaged]);
    assert!(message.contains("connection refused"), "{message}");
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
