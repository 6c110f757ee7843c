//! A retention run of many policies against what restic needs for the same decisions.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use proto::v1::{OperationOutcome, RetentionPolicySpec, RetentionRule, RetentionRun};
use tests::{Bed, progress};

use crate::median;
use crate::report::{Figure, Goal};

/// Snapshots before each run: `SEED` are backed up, and each turn of `restic rewrite` doubles them. Far quicker than
/// ten thousand backups.
pub const SNAPSHOTS: usize = SEED << DOUBLED;
const SEED: usize = 80;
const DOUBLED: usize = 7;
const POLICIES: u32 = 10;
const ROUNDS: usize = 3;
/// The key is derived as often as restic is called.
pub const PASSWORD: &str = "bench";

struct Tools<'a> {
    bed: &'a Bed,
    dir: &'a Path,
    profile: &'a str,
}

impl Tools<'_> {
    fn command(&self, program: &Path, repository: &Path, cache: &str) -> Command {
        let mut command = Command::new(program);
        command
            .env("RESTIC_REPOSITORY", repository)
            .env("RESTIC_PASSWORD", PASSWORD)
            .env("RESTIC_CACHE_DIR", self.dir.join(cache))
            .stdin(Stdio::null())
            .stderr(Stdio::null());
        command
    }

    /// Output of restic.
    fn restic(&self, repository: &Path, cache: &str, arguments: &[String]) -> anyhow::Result<Vec<u8>> {
        let program = self.bed.workspace.program("restic");
        let output = self
            .command(&program, repository, cache)
            .args(arguments)
            .output()?;
        ensure!(
            output.status.success(),
            "restic {} ended with {}",
            arguments.join(" "),
            output.status
        );
        Ok(output.stdout)
    }

    /// A repository of 10,240 snapshots: one a day of each of 128 hosts.
    fn fill(&self) -> anyhow::Result<PathBuf> {
        progress(&format!("a repository of {SNAPSHOTS} snapshots"));
        let (repository, data) = (self.dir.join("full"), self.dir.join("data"));
        std::fs::create_dir(&data)?;
        std::fs::write(data.join("file"), "bench")?;
        self.restic(&repository, "fill", &words("init --quiet"))?;
        let newest = jiff::Timestamp::now().as_second() - 86_400;
        let days: Vec<i64> = (0..).take(SEED).collect();
        let backup = |day: &i64| {
            let time = jiff::Timestamp::from_second(newest - day * 86_400)?;
            let mut arguments = words("backup --quiet --host seed --tag fleet.cluster=bench --time");
            arguments.extend([
                time.strftime("%Y-%m-%d %H:%M:%S").to_string(),
                data.display().to_string(),
            ]);
            self.restic(&repository, "fill", &arguments).map(drop)
        };
        std::thread::scope(|scope| {
            let halves = days
                .chunks(SEED / 2)
                .map(|half| scope.spawn(|| half.iter().try_for_each(backup)));
            let halves: Vec<_> = halves.collect();
            halves.into_iter().try_for_each(|half| {
                half.join()
                    .map_err(|_| anyhow::anyhow!("a thread panicked"))
                    .flatten()
            })
        })?;
        // Each host is doubled under another name.
        let mut hosts = vec!["seed".to_owned()];
        for turn in 0..DOUBLED {
            for host in hosts.clone() {
                let twin = format!("{host}-{turn}");
                let mut arguments = words("rewrite --quiet --host");
                arguments.extend([host, "--new-host".to_owned(), twin.clone()]);
                self.restic(&repository, "fill", &arguments)?;
                hosts.push(twin);
            }
        }
        let count = std::fs::read_dir(repository.join("snapshots"))?.count();
        ensure!(count == SNAPSHOTS, "{count} snapshots");
        Ok(repository)
    }

    /// The same repository again; its files never change, so they are linked.
    fn copy(&self, of: &Path, name: &str) -> anyhow::Result<PathBuf> {
        let to = self.dir.join(name);
        tests::process::run("cp", &["-rl", &of.to_string_lossy(), &to.to_string_lossy()])?;
        Ok(to)
    }

    /// Ten decisions by restic alone, in seconds.
    fn alone(&self, repository: &Path, cache: &str) -> anyhow::Result<f64> {
        let start = Instant::now();
        for n in 1..=POLICIES {
            let rest = format!("--group-by host,paths,tags --keep-daily {}", keep(n));
            self.restic(
                repository,
                cache,
                &words(&format!("forget --dry-run --json {rest}")),
            )?;
        }
        Ok(start.elapsed().as_secs_f64())
    }

    /// The pod's own program, from its start to its result, in seconds.
    fn run(
        &self,
        repository: &Path,
        cache: &str,
        restic_id: &str,
    ) -> anyhow::Result<(f64, OperationOutcome)> {
        let lease = self.dir.join("lease");
        std::fs::create_dir_all(&lease)?;
        std::fs::write(lease.join("order"), serde_json::to_string(&order(restic_id))?)?;
        let (program, message) = (
            self.bed.workspace.product(self.profile, "fleet-spoke"),
            self.dir.join("message"),
        );
        let mut command = self.command(&program, repository, cache);
        command
            .args(["maintenance", "retention", "--token", "1", "--lease-ttl", "60000"])
            .arg("--lease-dir")
            .arg(&lease)
            .arg("--restic")
            .arg(self.bed.workspace.program("restic"))
            .arg("--termination-log")
            .arg(&message)
            .stdout(Stdio::null());
        let done = AtomicBool::new(false);
        let (taken, status) = std::thread::scope(|scope| {
            // The lease is renewed as the operator does it, so that the pod begins and goes on.
            scope.spawn(|| {
                for count in 1.. {
                    if done.load(Ordering::Relaxed) {
                        return;
                    }
                    // The pod tells when it sees no renewal.
                    let _ = std::fs::write(lease.join("renewals"), format!("{count}"));
                    std::thread::sleep(Duration::from_millis(250));
                }
            });
            let start = Instant::now();
            let status = command.status();
            done.store(true, Ordering::Relaxed);
            (start.elapsed().as_secs_f64(), status)
        });
        ensure!(
            status?.success(),
            "the run failed: {}",
            std::fs::read_to_string(&message)?
        );
        Ok((taken, serde_json::from_str(&std::fs::read_to_string(message)?)?))
    }
}

fn words(text: &str) -> Vec<String> {
    text.split(' ').map(str::to_owned).collect()
}

/// Daily snapshots that a policy keeps of each host: the first keeps most.
fn keep(policy: u32) -> u32 {
    71 - policy
}

fn order(restic_id: &str) -> RetentionRun {
    let policies = (1..=POLICIES).map(|n| RetentionPolicySpec {
        source: format!("bench/ns/p{n}"),
        generation: 1,
        rules: vec![RetentionRule {
            keep_daily: keep(n),
            ..RetentionRule::default()
        }],
        max_removed_percent: 50,
        ..RetentionPolicySpec::default()
    });
    RetentionRun {
        restic_id: restic_id.to_owned(),
        policies: policies.collect(),
        clusters: vec!["bench".to_owned()],
        ..RetentionRun::default()
    }
}

/// A repository of [`SNAPSHOTS`] snapshots below a folder.
pub fn fill(bed: &Bed, dir: &Path, profile: &str) -> anyhow::Result<PathBuf> {
    Tools { bed, dir, profile }.fill()
}

/// What a run costs.
pub fn retention(bed: &Bed, profile: &str) -> anyhow::Result<Vec<Figure>> {
    let dir = tempfile::tempdir_in(bed.dir())?;
    let tools = Tools {
        bed,
        dir: dir.path(),
        profile,
    };
    let full = tools.fill()?;
    let config: serde_json::Value =
        serde_json::from_slice(&tools.restic(&full, "fill", &words("cat config --json"))?)?;
    let id = config["id"].as_str().context("no id in restic's config")?;
    let (mut alone, mut runs, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        progress(&format!("retention, round {} of {ROUNDS}", round + 1));
        let repository = tools.copy(&full, &format!("round-{round}"))?;
        let plain = tools.alone(&repository, &format!("cache-{round}-alone"))?;
        let (taken, outcome) = tools.run(&repository, &format!("cache-{round}-run"), id)?;
        let left = std::fs::read_dir(repository.join("snapshots"))?.count();
        let expected = SNAPSHOTS / SEED * keep(1) as usize;
        ensure!(
            outcome.result == "Applied" && left == expected,
            "{left} snapshots are left, {expected} should be: {} {}",
            outcome.result,
            outcome.message
        );
        alone.push(plain);
        runs.push(taken);
        ratios.push(taken / plain);
        std::fs::remove_dir_all(&repository)?;
    }
    let figure = |name, value, unit, goal| Figure {
        name,
        value,
        unit,
        goal,
    };
    Ok(vec![
        figure(
            "retention_run_ratio_to_ten_dry_runs",
            median(&mut ratios),
            "x",
            Goal::AtMost(1.1),
        ),
        figure(
            "retention_run_10_policies_10240_snapshots",
            median(&mut runs),
            "s",
            Goal::Open,
        ),
        figure(
            "ten_dry_runs_10240_snapshots",
            median(&mut alone),
            "s",
            Goal::Open,
        ),
    ])
}
