//! Clusters, repositories and the hub itself.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};

use super::{Format, Init, List, Targets, duration};
use crate::completion;

#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct Clusters {
    #[command(subcommand)]
    pub command: Option<ClustersCommand>,
    #[command(flatten)]
    pub list: List,
}

#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct Repos {
    #[command(subcommand)]
    pub command: Option<ReposCommand>,
    #[command(flatten)]
    pub list: List,
}

#[derive(Debug, Subcommand)]
pub enum ClustersCommand {
    /// Removes a cluster that no longer exists. Its snapshots stay; what its policies keep is no longer kept by them.
    Forget {
        /// Name of the cluster.
        #[arg(add = completion::clusters())]
        cluster: String,
        /// Removes it; without this, only shows what would be removed.
        #[arg(long)]
        yes: bool,
    },
    /// Prints the one command that makes a cluster join, with a token that is good once.
    Join(Join),
    /// Ends a cluster's session at once and refuses new ones, until it is lifted.
    Ban {
        /// Name of the cluster.
        #[arg(add = completion::clusters())]
        cluster: String,
        /// Why, for the audit and for who looks at the cluster.
        #[arg(long, default_value = "")]
        reason: String,
    },
    /// Lifts a ban.
    Unban {
        /// Name of the cluster.
        #[arg(add = completion::clusters())]
        cluster: String,
        /// Certificates of before stay refused, as after a theft: the cluster has to join again.
        #[arg(long)]
        rejoin: bool,
    },
    /// Replaces the hub's authority step by step, without a restart.
    RotateAuthority(Rotate),
    /// Prints the resources of a cluster, as it reported them last: to make it again when it is lost.
    Rebuild(super::Rebuild),
    /// Decides which of two clusters that report under one name is the right one.
    Accept {
        /// Name of the cluster.
        #[arg(add = completion::clusters())]
        cluster: String,
        /// uid of its namespace kube-system.
        #[arg(long)]
        uid: String,
    },
}

#[derive(Debug, Args)]
pub struct Join {
    /// Name of the cluster: a-z, 0-9, '-' and '.'.
    pub cluster: String,
    /// How long the token in it may be used, such as 15m or 12h; one hour unless given, a day at most.
    #[arg(long, value_parser = duration)]
    pub valid: Option<Duration>,
    /// Where spokes connect, in place of what the hub was told (--link-url of the hub).
    #[arg(long)]
    pub link_url: Option<String>,
    /// Where they enrol, in place of what the hub was told (--enrol-url of the hub).
    #[arg(long)]
    pub enrol_url: Option<String>,
    /// command, or yaml: the manifest alone, to be kept with others.
    #[arg(short, long, value_enum, default_value_t = JoinFormat::Command)]
    pub output: JoinFormat,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum JoinFormat {
    Command,
    Yaml,
}

#[derive(Debug, Args)]
pub struct Rotate {
    /// What is done; without it, only shows where the rotation is.
    #[arg(value_enum)]
    pub step: Option<RotateStep>,
    /// Goes on although some clusters are locked out by it and have to join again.
    #[arg(long)]
    pub force: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum RotateStep {
    /// Makes the next authority, and announces it to all clusters.
    Begin,
    /// The next authority signs from now on; both are trusted.
    Activate,
    /// The old authority is no longer trusted.
    Retire,
}

#[derive(Debug, Subcommand)]
pub enum ReposCommand {
    /// Lets a cluster take part in a repository that others use, although it has not shown that it can open it.
    Accept(Binding),
    /// Ends a cluster's part in a repository: its policies keep and remove nothing there any more.
    Unbind(Binding),
    /// Runs the integrity check that a ResticRepository is configured with.
    Check(Targets),
    /// Removes the locks that dead processes have left. The cluster's operator has to allow it (unlock in --allow, which is off
    /// by default).
    Unlock(Targets),
    /// Size and snapshots over time: by the hour for up to 7 days, by the day for more.
    History(History),
}

#[derive(Debug, Subcommand)]
pub enum HubCommand {
    /// Makes a hub in the cluster of your kubectl, waits until it serves, and logs you in as its first admin. Run again, it
    /// changes what is different and logs you in anew.
    Init(Init),
    /// Writes a backup of the hub's store to a file. `fleet hub restore` puts it back.
    Backup {
        /// A file that does not exist yet. Keep it as safe as the hub's volume.
        file: PathBuf,
    },
    /// Puts a backup in the place of the store of the hub in the cluster of your kubectl. The hub is stopped for that, and
    /// started again, also when it fails. Interrupted, it leaves the hub stopped: run it again. It needs no login.
    Restore(HubRestore),
    /// Prints the authorities that certificates of the hub are of, PEM, with what will sign next during a rotation: for
    /// FLEET_CA. A login keeps them by itself.
    Authorities,
}

#[derive(Debug, Args)]
pub struct HubRestore {
    /// A file that `fleet hub backup` has written.
    pub file: PathBuf,
    /// Replaces the store that the hub has, also that of a hub that is new. It is kept beside, as fleet.db.replaced.
    #[arg(long)]
    pub replace: bool,
    /// How long each step may take: the hub's end, the start of the pod that writes the store, the hub's start.
    #[arg(long, default_value = "2m", value_parser = duration)]
    pub wait: Duration,
}

#[derive(Debug, Args)]
pub struct History {
    /// Name or id of the repository.
    #[arg(add = completion::repositories())]
    pub repository: String,
    /// Days back from now, up to 732.
    #[arg(long, default_value_t = 7, value_parser = clap::value_parser!(u32).range(1..=732))]
    pub days: u32,
    /// table, wide, json, yaml or name.
    #[arg(short, long, value_enum, default_value_t = Format::Table)]
    pub output: Format,
}

#[derive(Debug, Args)]
pub struct Binding {
    /// Name or id of the repository.
    #[arg(add = completion::repositories())]
    pub repository: String,
    /// Name of the cluster.
    #[arg(add = completion::clusters())]
    pub cluster: String,
}
