//! `make bench`: figures against goals. One API server whose etcd syncs to disk; the spoke runs as a process of this
//! machine with the rights of its ServiceAccount, so that its memory, its start and each of its requests can be seen.
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::cast_precision_loss,
    reason = "a benchmark talks to a person, and its counts are small"
)]
#![cfg_attr(test, allow(clippy::unwrap_used, reason = "a test that panics has failed"))]

mod audit;
mod collector;
mod controller;
mod entrypoint;
mod fleet;
mod lease;
mod link;
mod load;
mod renewals;
mod report;
mod retention;
mod runs;
mod scale;
mod spoke;

use std::process::ExitCode;

use clap::{Parser, ValueEnum};
use tests::tools::Workspace;
use tests::{Bed, Options, progress};
use tokio::runtime::Runtime;

use report::Report;

/// Backups of the two measurements that the goals are about.
const BACKUPS: usize = 1_000;
const MANY: usize = 10_000;
/// Clusters and resources of the simulated fleet.
const SPOKES: usize = 1_000;
/// Of one that has no goals yet.
const MANY_SPOKES: usize = 10_000;
const RESOURCES: usize = 100;
const MANY_CLUSTERS: &str = "10,000 clusters of 100 resources";
/// Figures of an earlier hub, which stay on the page for comparison.
const BEFORE: &str = "1,000 clusters of 100 resources, when readers held writers up";
/// Seconds of the longer idle time.
const IDLE: u64 = 300;

/// Measures all parts, or those that are named, and writes their sections of docs/benchmarks.md. With other numbers than
/// the goals are about it only prints.
#[derive(Clone, Debug, Parser)]
struct Settings {
    /// Parts to measure.
    parts: Vec<Part>,
    /// Build profile of the binaries that are measured.
    #[arg(long, default_value = "release")]
    profile: String,
    /// Backups of part `controller`.
    #[arg(long, default_value_t = BACKUPS)]
    backups: usize,
    /// Backups of part `scale`.
    #[arg(long, default_value_t = MANY)]
    many: usize,
    /// Seconds for which part `scale` watches an idle spoke.
    #[arg(long, default_value_t = IDLE)]
    idle: u64,
    /// Clusters of part `fleet`, and resources of each.
    #[arg(long, default_value_t = SPOKES)]
    spokes: usize,
    #[arg(long, default_value_t = RESOURCES)]
    resources: usize,
    /// Another hub for part `fleet`, whose figures are only printed.
    #[arg(long)]
    hub: Option<std::path::PathBuf>,
}

/// In this order, those that take long at the end: a run that is interrupted has the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Part {
    /// 1,000 backups.
    Controller,
    /// What the entrypoint adds to restic, in backups and restores.
    Entrypoint,
    /// Grants of the maintenance lock.
    Lease,
    /// Bytes of a reconnect.
    Link,
    /// A hub with simulated clusters and its viewers.
    Fleet,
    /// A retention run of ten policies.
    Retention,
    /// 10,000 backups that have run once. About half an hour.
    Scale,
    /// Requests to a storage for figures that stay fresh. On a bed of its own, so it is the last.
    Collector,
}

impl Part {
    fn title(self) -> &'static str {
        match self {
            Part::Controller => "1,000 backups",
            Part::Entrypoint => "Entrypoint of a backup",
            Part::Lease => "Grants of the maintenance lock",
            Part::Link => "Link to the hub",
            Part::Fleet => "1,000 clusters of 100 resources",
            Part::Retention => "Retention",
            Part::Scale => "10,000 backups that have run once",
            Part::Collector => "Figures of a repository",
        }
    }
}

impl Settings {
    fn wanted(&self) -> Vec<Part> {
        let all = Part::value_variants().iter().copied();
        all.filter(|part| self.parts.is_empty() || self.parts.contains(part))
            .collect()
    }

    /// What the goals are about, and not a trial.
    fn is_for_the_page(&self) -> bool {
        let numbers = (self.profile.as_str(), self.backups, self.many, self.idle);
        let fleet = [SPOKES, MANY_SPOKES].contains(&self.spokes) && self.resources == RESOURCES;
        numbers == ("release", BACKUPS, MANY, IDLE) && fleet && self.hub.is_none()
    }

    fn title(&self, part: Part) -> &'static str {
        match part {
            Part::Fleet if self.spokes == MANY_SPOKES => MANY_CLUSTERS,
            part => part.title(),
        }
    }
}

fn main() -> ExitCode {
    let settings = Settings::parse();
    let result = Runtime::new()
        .map_err(Into::into)
        .and_then(|runtime| run(&runtime, &settings));
    if let Ok(bed) = Bed::attach("bench") {
        bed.down();
    }
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn options() -> Options {
    Options {
        clusters: vec!["a".to_owned()],
        fsync: true,
        ..Options::new("bench")
    }
}

/// The bed without anything that was done to it. The one that is given is gone then.
fn fresh(bed: &Bed) -> anyhow::Result<Bed> {
    bed.down();
    Bed::up(&options())
}

/// Whether every part could be measured to its end. A missed goal is a result, not a failure.
fn run(runtime: &Runtime, settings: &Settings) -> anyhow::Result<bool> {
    let parts = settings.wanted();
    // A simulated fleet needs no cluster.
    let bed = parts
        .iter()
        .any(|part| *part != Part::Fleet)
        .then(|| Bed::up(&options()));
    let bed = bed.transpose()?;
    let workspace = Workspace::here();
    let page = workspace.root.join("docs/benchmarks.md");
    let page = settings.is_for_the_page().then_some(page);
    let titles = Part::value_variants().iter().map(|part| part.title());
    let all = titles.chain([MANY_CLUSTERS, BEFORE]).collect();
    let mut report = Report::new(page, all)?;
    for part in parts {
        progress(&format!("part: {}", settings.title(part)));
        report.begin(settings.title(part));
        let result = match (part, &bed) {
            (Part::Fleet, _) => runtime.block_on(fleet::fleet(&workspace, settings, &mut report)),
            (part, Some(bed)) => measure(runtime, bed, settings, part, &mut report),
            (_, None) => Ok(()),
        };
        if let Err(error) = &result {
            eprintln!("bench: {}: {error:#}", settings.title(part));
            show_log();
        }
        report.end(&result)?;
    }
    match report.missed().as_slice() {
        [] => println!("no goal was missed"),
        missed => println!("missed: {}", missed.join(", ")),
    }
    Ok(!report.failed())
}

/// The last lines of the spoke, whose log goes with the bed.
fn show_log() {
    let log = Bed::attach("bench").map(|bed| std::fs::read_to_string(bed.dir().join("spoke.log")));
    let Ok(Ok(log)) = log else { return };
    let lines: Vec<&str> = log.lines().collect();
    let last = lines.get(lines.len().saturating_sub(15)..).unwrap_or_default();
    last.iter().for_each(|line| eprintln!("spoke: {line}"));
}

fn measure(
    runtime: &Runtime,
    bed: &Bed,
    settings: &Settings,
    part: Part,
    report: &mut Report,
) -> anyhow::Result<()> {
    let profile = settings.profile.as_str();
    match part {
        Part::Controller => runtime.block_on(controller::controller(bed, settings, report)),
        Part::Entrypoint => report.add(entrypoint::entrypoint(bed)?),
        Part::Lease => report.add(runtime.block_on(lease::lease(bed, profile))?),
        Part::Link => report.add(runtime.block_on(link::link(bed, profile))?),
        // It was measured without a bed.
        Part::Fleet => Ok(()),
        Part::Retention => report.add(retention::retention(bed, profile)?),
        Part::Scale => runtime.block_on(scale::scale(bed, settings, report)),
        Part::Collector => report.add(collector::collector(bed, profile)?),
    }
}

/// The middle one.
fn median(times: &mut [f64]) -> f64 {
    times.sort_by(f64::total_cmp);
    times.get(times.len() / 2).copied().unwrap_or(f64::NAN)
}
