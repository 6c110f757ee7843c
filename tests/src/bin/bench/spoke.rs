//! The spoke under measurement.

use std::process::{Child, Command, Stdio};
use std::time::Instant;

use anyhow::{Context as _, ensure};
use serde_json::{Value, json};
use tests::{Bed, Cluster, fleet};

const ADMIN_PORT: u16 = 18080;

/// The spoke as a process of this machine.
pub struct Spoke {
    child: Child,
    pub started: Instant,
}

impl Spoke {
    pub fn start(bed: &Bed, cluster: &Cluster) -> anyhow::Result<Spoke> {
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
        let program = bed.workspace.product("release", "fleet-spoke");
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
            ])
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

    /// Resident memory in MiB.
    pub fn memory(&self) -> anyhow::Result<f64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let line = status
            .lines()
            .find_map(|l| l.strip_prefix("VmRSS:"))
            .context("no VmRSS")?;
        let kib: f64 = line.trim().trim_end_matches(" kB").parse()?;
        Ok(kib / 1024.0)
    }

    pub fn stop(mut self) -> anyhow::Result<()> {
        tests::process::signal(self.child.id(), "TERM");
        self.child.wait()?;
        Ok(())
    }
}
