//! Questions about one object, about what happened, and about the installation.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};

use super::{Format, duration, since};
use crate::completion;

/// Which cluster is looked at by the person's own kubectl.
#[derive(Clone, Debug, Default, Args)]
pub struct KubeArguments {
    /// File of kubectl, in place of $KUBECONFIG or ~/.kube/config. Looks at that cluster, without a hub.
    #[arg(long, global = true)]
    pub kubeconfig: Option<PathBuf>,
    /// Context of kubectl, in place of the present one. Looks at that cluster, without a hub.
    #[arg(long, global = true)]
    pub kube_context: Option<String>,
}

#[derive(Debug, Args)]
pub struct Get {
    /// [KIND] NAME: CLUSTER/NAMESPACE/NAME, the name or id of a repository, or the name of a cluster. KIND is backup, repo,
    /// policy, restore or cluster, and needed only where a name is of several.
    #[arg(required = true, num_args = 1..=2, value_name = "NAME", add = completion::objects())]
    pub object: Vec<String>,
    /// table, wide, json, yaml or name.
    #[arg(short, long, value_enum, default_value_t = Format::Table)]
    pub output: Format,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Kind {
    Backup,
    Restore,
    Maintenance,
    Operation,
    Decision,
}

#[derive(Debug, Args)]
pub struct Activity {
    /// Only these clusters.
    #[arg(short, long, value_delimiter = ',', add = completion::clusters())]
    pub cluster: Vec<String>,
    /// Only these kinds.
    #[arg(long, value_enum, value_delimiter = ',')]
    pub kind: Vec<Kind>,
    /// Only what is not older, such as 24h or 2026-11-01T00:00:00Z.
    #[arg(long, value_parser = since)]
    pub since: Option<jiff::Timestamp>,
    /// Most entries, up to 200.
    #[arg(long, default_value_t = 50)]
    pub limit: u32,
    /// Where the page begins: what the page before ended with.
    #[arg(long, default_value = "")]
    pub before: String,
    /// Goes on with what happens from now on. Survives a restart of the hub.
    #[arg(short, long, conflicts_with = "before")]
    pub watch: bool,
    /// table, wide, json, yaml or name.
    #[arg(short, long, value_enum, default_value_t = Format::Table)]
    pub output: Format,
}

#[derive(Debug, Args)]
pub struct Check {
    /// Repeats the checks until all are well, for this long, such as 2m.
    #[arg(long, value_parser = duration, value_name = "TIME")]
    pub wait: Option<Duration>,
    /// Shows only what is not well.
    #[arg(long)]
    pub short: bool,
    /// Namespace of operator and hub.
    #[arg(long, default_value = SYSTEM)]
    pub system_namespace: String,
    /// table, wide, json, yaml or name.
    #[arg(short, long, value_enum, default_value_t = Format::Table)]
    pub output: Format,
}

/// Where `deploy/` installs.
pub const SYSTEM: &str = "restic-fleet-system";

#[derive(Debug, Args)]
pub struct Bundle {
    /// A file that does not exist yet, such as support.tar.gz.
    pub file: PathBuf,
    /// Namespace of operator and hub.
    #[arg(long, default_value = SYSTEM)]
    pub system_namespace: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Shell {
    Bash,
    Zsh,
    Fish,
}
