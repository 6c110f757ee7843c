//! A thousand backups: the spoke against a bare client that writes the same.

use std::time::Duration;

use anyhow::ensure;
use tests::{Bed, progress};

use crate::audit::Mark;
use crate::load::{self, Sample};
use crate::report::{Figure, Goal, Report};
use crate::spoke::Spoke;
use crate::{Settings, spoke};

/// Idle is watched for this long.
const IDLE: Duration = Duration::from_secs(60);

/// What a thousand backups cost.
pub async fn controller(bed: &Bed, settings: &Settings, report: &mut Report) -> anyhow::Result<()> {
    let (count, profile) = (settings.backups, settings.profile.as_str());
    let cluster = bed.cluster("a")?;
    load::install(bed, &cluster)?;
    let client = cluster.client().await?;
    let spoke = load::ready(bed, &cluster, profile, "warm")?;
    let sample = Sample::make(&cluster, &client).await?;
    spoke.stop()?;

    progress(&format!(
        "{count} backups by a bare client with {} workers",
        load::WORKERS
    ));
    load::prepare(bed, &cluster, "bare")?;
    let (bare, _) = load::bare(&client, &sample, count).await?;
    cluster.kubectl(&["delete", "namespace", "bare", "--wait=true", "--timeout=300s"])?;

    progress(&format!("{count} backups by the spoke"));
    let spoke = load::ready(bed, &cluster, profile, "load")?;
    let loaded = load::load(&client, count).await?;
    let writes = spoke.sum("fleet_api_writes_total");
    println!("bare client {bare:.1?}, spoke {loaded:.1?}");
    let cron_jobs = cluster.kubectl(&["get", "cronjobs", "-n", "load", "-o", "name"])?;
    let cron_jobs = cron_jobs.lines().count();
    ensure!(cron_jobs == count, "{cron_jobs} CronJobs");
    let figure = |name, value, unit, goal| Figure {
        name,
        value,
        unit,
        goal,
    };
    let ratio = loaded.as_secs_f64() / bare.as_secs_f64();
    report.add([
        figure(
            "create_1000_backups_ratio_to_bare_client",
            ratio,
            "x",
            Goal::AtMost(1.15),
        ),
        figure("create_1000_backups", loaded.as_secs_f64(), "s", Goal::Open),
        figure(
            "api_writes_per_backup",
            writes / count as f64,
            "requests",
            Goal::Open,
        ),
    ])?;

    progress(&format!("idle for {IDLE:?}"));
    tokio::time::sleep(Duration::from_secs(15)).await;
    let mark = Mark::now(&cluster)?;
    tokio::time::sleep(IDLE).await;
    let idle = mark.requests()?.all as f64 * 60.0 / IDLE.as_secs_f64();
    report.add([
        figure(
            "manager_memory_peak_1000_backups",
            spoke.memory("VmHWM")?,
            "MiB",
            Goal::AtMost(40.0),
        ),
        figure(
            "manager_memory_idle_1000_backups",
            spoke.memory("VmRSS")?,
            "MiB",
            Goal::AtMost(40.0),
        ),
        figure(
            "manager_memory_of_program_file_1000_backups",
            spoke.memory("RssFile")?,
            "MiB",
            Goal::Open,
        ),
        figure(
            "idle_api_requests_per_minute",
            idle,
            "requests",
            Goal::AtMost(0.0),
        ),
    ])?;
    spoke.stop()?;

    progress(&format!("restart with {count} backups"));
    let mark = Mark::now(&cluster)?;
    let spoke = Spoke::start(bed, &cluster, profile)?;
    // That of namespace `warm` is one more.
    let settled = spoke::until_turns(&spoke, count + 1, Duration::from_millis(20)).await?;
    tokio::time::sleep(Duration::from_secs(3)).await;
    let writes = mark.requests()?.writes;
    report.add([
        figure(
            "restart_settle_time_1000_backups",
            settled.as_secs_f64(),
            "s",
            Goal::AtMost(2.0),
        ),
        figure(
            "restart_writes_1000_backups",
            writes as f64,
            "requests",
            Goal::AtMost(0.0),
        ),
    ])?;
    spoke.stop()
}
