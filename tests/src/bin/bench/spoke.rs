//! The spoke under measurement.

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use serde_json::{Value, json};
use tests::{Bed, Cluster, fleet};

const ADMIN_PORT: u16 = 18080;
/// Life of a maintenance lease in seconds: the shortest outside of tests, so that a late renewal does not hide in the
/// interval at which they are due.
pub const LEASE_TTL: u64 = 120;
/// Clock ticks of /proc in a second.
const TICKS: f64 = 100.0;

/// The spoke as a process of this machine.
pub struct Spoke {
    child: Child,
    pub started: Instant,
}

impl Spoke {
    pub fn start(bed: &Bed, cluster: &Cluster, profile: &str) -> anyhow::Result<Spoke> {
        let token = cluster.kubectl(&[
            "create",
            "token",
            "-n",
            fleet::SYSTEM,
            "fleet-spoke",
            "--duration=2h",
        ])?;
        let mut kubeconfig: Value = serde_json::from_slice(&std::fs::read(cluster.kubeconfig())?)?;
        kubeconfig["users"][0]["user"] = json!({ "token": token.trim() });
        let file = bed.dir().join("spoke-kubeconfig");
        std::fs::write(&file, kubeconfig.to_string())?;
        let program = bed.workspace.product(profile, "fleet-spoke");
        ensure!(
            program.exists(),
            "{} is not built; run `make bench`",
            program.display()
        );
        let log = std::fs::File::create(bed.dir().join("spoke.log"))?;
        let address = format!("127.0.0.1:{ADMIN_PORT}");
        let cache = bed.dir().join("spoke-cache");
        let started = Instant::now();
        let child = Command::new(program)
            .args([
                "--cluster",
                "a",
                "--admin-address",
                &address,
                "--refresh-interval",
                "1h",
                "--identity",
                "bench",
                "--image",
                tests::images::SPOKE,
            ])
            .arg("--lease-ttl")
            .arg(format!("{LEASE_TTL}s"))
            .arg("--cache-dir")
            .arg(cache)
            .arg("--restic")
            .arg(bed.workspace.program("restic"))
            .env("KUBECONFIG", file)
            // As in deploy/Dockerfile.spoke.
            .env(
                "_RJEM_MALLOC_CONF",
                "narenas:1,dirty_decay_ms:1000,muzzy_decay_ms:0",
            )
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()?;
        Ok(Spoke { child, started })
    }

    pub fn metrics(&self) -> String {
        let url = format!("http://127.0.0.1:{ADMIN_PORT}/metrics");
        tests::process::run("curl", &["-sf", &url]).unwrap_or_default()
    }

    /// Sum of the series that begin with a text.
    pub fn sum(&self, prefix: &str) -> f64 {
        let metrics = self.metrics();
        metrics
            .lines()
            .filter(|l| l.starts_with(prefix))
            .filter_map(|l| l.rsplit(' ').next()?.parse::<f64>().ok())
            .sum()
    }

    /// A line of the process's status in MiB, such as VmRSS, or VmHWM for its highest.
    pub fn memory(&self, line: &str) -> anyhow::Result<f64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let value = status
            .lines()
            .find_map(|l| l.strip_prefix(line)?.strip_prefix(':'));
        let value = value.with_context(|| format!("no {line}"))?;
        let kib: f64 = value.trim().trim_end_matches(" kB").parse()?;
        Ok(kib / 1024.0)
    }

    /// Processor time so far in seconds.
    pub fn cpu(&self) -> anyhow::Result<f64> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id()))?;
        // After the name, which may hold spaces: state is the first, utime and stime are the 12th and the 13th.
        let (_, rest) = stat.rsplit_once(')').context("no stat")?;
        let ticks = rest.split_whitespace().skip(11).take(2);
        let ticks: Vec<f64> = ticks.map(str::parse).collect::<Result<_, _>>()?;
        Ok(ticks.iter().sum::<f64>() / TICKS)
    }

    /// Turns that backups have taken.
    pub fn turns(&self) -> f64 {
        self.sum("fleet_turns_total{kind=\"ResticBackup\"")
    }

    pub fn stop(mut self) -> anyhow::Result<()> {
        tests::process::signal(self.child.id(), "TERM");
        self.child.wait()?;
        Ok(())
    }
}

impl Drop for Spoke {
    fn drop(&mut self) {
        // One that has been stopped is no child any more; any other would outlive a part that failed.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// From the start of the process until so many turns were taken.
pub async fn until_turns(spoke: &Spoke, turns: usize, look: Duration) -> anyhow::Result<Duration> {
    loop {
        if spoke.turns() >= turns as f64 {
            return Ok(spoke.started.elapsed());
        }
        ensure!(
            spoke.started.elapsed() < Duration::from_secs(60),
            "the spoke did not settle: {}",
            spoke.metrics()
        );
        tokio::time::sleep(look).await;
    }
}

/// From the start of the process until the last turn of a backup, when each has taken one and there was none for `quiet`.
pub async fn until_quiet(
    spoke: &Spoke,
    backups: usize,
    quiet: Duration,
    limit: Duration,
) -> anyhow::Result<Duration> {
    let start = Instant::now();
    let (mut turns, mut last) = (spoke.turns(), Instant::now());
    loop {
        tokio::time::sleep(Duration::from_millis(500)).await;
        let now = spoke.turns();
        if now > turns {
            (turns, last) = (now, Instant::now());
        } else if turns >= backups as f64 && last.elapsed() >= quiet {
            return Ok(last.duration_since(spoke.started));
        }
        ensure!(
            start.elapsed() < limit,
            "the spoke is still at work after {limit:?}: {turns} turns"
        );
    }
}
