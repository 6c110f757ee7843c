//! Moving in from another tool.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

#[derive(Debug, Subcommand)]
pub enum MigrateCommand {
    /// The operator that first defined these kinds: what behaves differently, and the policies to suspend meanwhile.
    Original(MoveIn),
    /// k8up: Schedules with their repositories, claims and retention.
    K8up(MoveIn),
    /// VolSync: ReplicationSources with the restic mover.
    Volsync(MoveIn),
    /// Velero: volumes that its file-system backup stores with restic.
    Velero(MoveIn),
    /// CronJobs that run restic, or a file of variables as a script outside of Kubernetes reads it.
    Cron(Cron),
    /// Starts our backups and stops the other tool's. Retention stays suspended. Without --yes it only says what it would do.
    Finish(Finish),
}

#[derive(Debug, Args)]
pub struct MoveIn {
    /// Only this namespace; all of them unless given.
    #[arg(short, long)]
    pub namespace: Option<String>,
    /// Writes what would be written; without it the manifests and notes are only printed.
    #[arg(long)]
    pub apply: bool,
    /// Our backups run beside the other tool's until `finish`; without it they are suspended. Retention is suspended in any
    /// case.
    #[arg(long)]
    pub running: bool,
}

#[derive(Debug, Args)]
pub struct Cron {
    #[command(flatten)]
    pub from: MoveIn,
    /// A file of NAME=VALUE lines (RESTIC_REPOSITORY, RESTIC_PASSWORD, …) instead of CronJobs: makes a ResticRepository of it.
    #[arg(long, requires = "name", requires = "namespace")]
    pub env_file: Option<PathBuf>,
    /// Name of that ResticRepository.
    #[arg(long, requires = "env_file")]
    pub name: Option<String>,
}

#[derive(Debug, Args)]
pub struct Finish {
    /// The tool that we came from.
    #[arg(value_enum)]
    pub tool: Tool,
    /// Only this namespace; all of them unless given.
    #[arg(short, long)]
    pub namespace: Option<String>,
    /// Does it; without this, only says what would be done.
    #[arg(long)]
    pub yes: bool,
    /// Also where a backup of ours has not succeeded yet.
    #[arg(long)]
    pub untried: bool,
}

/// A tool that backups are moved from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Tool {
    Original,
    K8up,
    Volsync,
    Velero,
    Cron,
}

impl Tool {
    /// As it is written on the command line and in labels.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Tool::Original => "original",
            Tool::K8up => "k8up",
            Tool::Volsync => "volsync",
            Tool::Velero => "velero",
            Tool::Cron => "cron",
        }
    }
}
