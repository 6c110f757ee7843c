//! `make bench`: figures against goals. One API server whose etcd syncs to disk; the spoke runs as a process of this
//! machine with the rights of its ServiceAccount, so that its memory, its start and each of its requests can be seen.
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a benchmark talks to a person"
)]

mod controller;
mod entrypoint;
mod lease;
mod link;
mod retention;
mod spoke;

use std::fmt::Write as _;
use std::process::ExitCode;

use tests::{Bed, Options, fleet};

/// One line of the result.
struct Figure {
    name: &'static str,
    value: f64,
    unit: &'static str,
    goal: &'static str,
}

fn main() -> ExitCode {
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("bench: {error}");
            return ExitCode::FAILURE;
        }
    };
    let result = run(&runtime);
    if let Ok(bed) = Bed::attach("bench") {
        bed.down();
    }
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Measures the parts that the arguments name, or all; only all are written down.
fn run(runtime: &tokio::runtime::Runtime) -> anyhow::Result<()> {
    let parts: Vec<String> = std::env::args().skip(1).collect();
    let wanted = |part: &str| parts.is_empty() || parts.iter().any(|p| p == part);
    let options = Options {
        clusters: vec!["a".to_owned()],
        fsync: true,
        ..Options::new("bench")
    };
    let bed = Bed::up(&options)?;
    let mut figures = Vec::new();
    if wanted("controller") {
        let cluster = bed.cluster("a")?;
        fleet::install_crds(&cluster)?;
        let deploy = bed.workspace.root.join("deploy/spoke");
        for file in ["10-namespace.yaml", "20-rbac.yaml"] {
            cluster.kubectl(&["apply", "-f", &deploy.join(file).to_string_lossy()])?;
        }
        figures.extend(runtime.block_on(controller::controller(&bed, &cluster))?);
    }
    if wanted("entrypoint") {
        figures.extend(entrypoint::entrypoint(&bed)?);
    }
    if wanted("lease") {
        figures.extend(runtime.block_on(lease::lease(&bed))?);
    }
    if wanted("link") {
        figures.extend(runtime.block_on(link::link(&bed))?);
    }
    if wanted("retention") {
        figures.extend(retention::retention(&bed)?);
    }
    let mut text = String::new();
    for figure in &figures {
        let Figure {
            name,
            value,
            unit,
            goal,
        } = figure;
        let _ = writeln!(text, "figure {name} = {:.2} {unit} (goal {goal})", value.abs());
    }
    print!("{text}");
    if parts.is_empty() {
        write_down(&bed, &text)?;
    }
    Ok(())
}

/// The middle one.
fn median(times: &mut [f64]) -> f64 {
    times.sort_by(f64::total_cmp);
    times.get(times.len() / 2).copied().unwrap_or(f64::NAN)
}

fn write_down(bed: &Bed, figures: &str) -> anyhow::Result<()> {
    let cores = std::thread::available_parallelism()?;
    let memory = std::fs::read_to_string("/proc/meminfo")?;
    let memory: f64 = memory
        .lines()
        .find_map(|l| {
            l.strip_prefix("MemTotal:")?
                .trim()
                .trim_end_matches(" kB")
                .parse()
                .ok()
        })
        .unwrap_or(f64::NAN);
    let text = format!(
        "# Benchmarks\n\nWritten by `make bench`; figures of one run on one machine. Ratios compare two things measured in the same run.\n\n\
         - machine: {cores} cores, {:.0} GiB\n- Kubernetes {}, one API server, etcd with fsync, on the same cores as everything else\n- restic {}\n- {}\n\n```\n{figures}```\n\n\
         `create_1000_backups_ratio_to_bare_client`: from the first create until all 1,000 ResticBackups are Ready with their CronJobs, by a bare client's time for the same writes (create, ServiceAccount, CronJob, status; 16 workers). \
         `idle_api_requests_per_minute`: by the API server's audit log, watches and the leader's lease apart. \
         `restart_settle_time`: from the start of the process until every actor has taken its turn. \
         `backup_wall_time`: median of seven turns each, 300 MB in 2,000 files; the start of a pod comes on top. \
         `lease_grant`: from the question to the grant over mTLS on the loopback, 1,000 times, each durable in SQLite with fsync before it is answered. `disk_sync`: 4 KiB written and synced on the same disk, for comparison. \
         `reconnect_1000_objects_unchanged`: bytes of all messages of both directions, without TLS and HTTP/2, from the Hello to the first heartbeat when the spoke's digest agrees with what the hub holds; `connect_1000_objects_first`: the same for a cluster that the hub does not know. \
         `retention_run_ratio`: median of three runs of `fleet-spoke maintenance retention`, from its start to its result with 10 policies over 10,240 snapshots and without prune, by ten calls of `restic forget --dry-run` one after the other; the run lists, decides, forgets and looks again.\n",
        memory / 1024.0 / 1024.0,
        tests::tools::KUBERNETES,
        tests::tools::RESTIC,
        jiff::Timestamp::now().strftime("%Y-%m-%d"),
    );
    std::fs::write(bed.workspace.root.join("docs/benchmarks.md"), text)?;
    Ok(())
}
