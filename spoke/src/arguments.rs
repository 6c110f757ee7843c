//! The command line: the operator, and what the binary does in pods that the operator makes.

use clap::{Parser, Subcommand};

use crate::config::Config;
use crate::hook::{HookConfig, OwedConfig};
use crate::stream::Stream;
use crate::worker::WorkerConfig;

/// The operator of one cluster.
#[derive(Clone, Debug, Parser)]
#[command(name = "fleet-spoke", version)]
pub struct Arguments {
    #[command(flatten)]
    pub config: Config,

    #[command(subcommand)]
    pub command: Option<Command>,
}

/// What else the binary does: it also runs in pods that the operator makes.
#[derive(Clone, Debug, Subcommand)]
pub enum Command {
    /// Work on a repository under the maintenance lock.
    #[command(subcommand)]
    Maintenance(Maintenance),
    /// The output of a command on its way to restic.
    #[command(subcommand)]
    Stream(Stream),
    /// Run the hooks of a backup or a restore.
    #[command(subcommand)]
    Hook(HookCommand),
}

/// Which hooks.
#[derive(Clone, Debug, Subcommand)]
pub enum HookCommand {
    /// The one before the run.
    Before(HookConfig),
    /// Those after it, when this container is told to end.
    After(HookConfig),
    /// Those that a run owes.
    Owed(OwedConfig),
}

/// Work under the maintenance lock.
#[derive(Clone, Debug, Subcommand)]
pub enum Maintenance {
    /// Removes the snapshots that no policy of any cluster keeps.
    Retention(WorkerConfig),
    /// Removes restic's locks whose processes are dead.
    Unlock(WorkerConfig),
    /// Checks the integrity of the repository.
    Check(WorkerConfig),
    /// Adds the key of a new password, or removes a key.
    Key(WorkerConfig),
}
