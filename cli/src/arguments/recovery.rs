//! For the day on which a cluster, or more, is lost.

use std::path::PathBuf;

use clap::{Args, Subcommand};

#[derive(Debug, Args)]
pub struct Rebuild {
    /// Name of the cluster.
    pub cluster: String,
    /// Only this namespace.
    #[arg(short, long)]
    pub namespace: Option<String>,
    /// What the cluster with this uid had, of those that had the name one after the other. The hub keeps for 30 days what the
    /// clusters before the present one had.
    #[arg(long)]
    pub uid: Option<String>,
    /// Backups and policies are suspended in what is printed.
    #[arg(long)]
    pub suspended: bool,
    /// Adds a ResticRestore for each claim that was backed up, which makes the claim and fills it with the latest snapshot.
    /// Backups and policies are suspended then: resume them when the restores are over.
    #[arg(long)]
    pub restores: bool,
}

#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct Kit {
    #[command(subcommand)]
    pub command: Option<KitCommand>,
    #[command(flatten)]
    pub make: KitMake,
}

#[derive(Debug, Args)]
pub struct KitMake {
    /// Only this namespace; all of them unless given.
    #[arg(short, long)]
    pub namespace: Option<String>,
    /// Only the ResticRepository of this name.
    #[arg(long)]
    pub repository: Option<String>,
    /// File of the kit; printed unless given. It is made with mode 0600, and must not be there yet.
    #[arg(long)]
    pub to: Option<PathBuf>,
    /// Writes passwords and keys of the storage into it: anyone who has the file can read every backup.
    #[arg(long, requires = "to")]
    pub with_passwords: bool,
}

#[derive(Debug, Subcommand)]
pub enum KitCommand {
    /// Opens each repository of a kit with what is in it, by the restic of this machine, and compares its id.
    Verify {
        /// A kit.
        file: PathBuf,
    },
}
