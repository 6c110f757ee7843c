//! What clusters are asked to do, and what is read through them.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};

use super::{Format, List, duration};
use crate::completion;

#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct Backups {
    #[command(subcommand)]
    pub command: Option<BackupsCommand>,
    #[command(flatten)]
    pub list: List,
}

#[derive(Debug, Subcommand)]
pub enum BackupsCommand {
    /// Runs backups now.
    Run(Targets),
    /// Stops the schedules of backups.
    Suspend(Targets),
    /// Starts schedules again that `suspend` has stopped.
    Resume(Targets),
}

#[derive(Debug, Subcommand)]
pub enum RetentionCommand {
    /// Runs retention policies now: each removes what its rules do not keep.
    Run(Targets),
    /// Shows what a run would remove; nothing is removed. `fleet plan list` has the plan.
    Preview(Targets),
    /// Stops the schedules of policies. What they keep stays kept.
    Suspend(Targets),
    /// Starts schedules again that `suspend` has stopped.
    Resume(Targets),
}

#[derive(Debug, Subcommand)]
pub enum RestoreCommand {
    /// Creates a ResticRestore in the namespace of a backup, and waits for its end. The cluster's operator has to allow it
    /// (restore in --allow, which is off by default), or it is refused; a ResticRestore that is applied with kubectl is not.
    Create(Restore),
}

#[derive(Debug, Args)]
pub struct SnapshotList {
    /// CLUSTER/NAMESPACE/NAME of a ResticRepository.
    pub repository: String,
    /// Only those of this host.
    #[arg(long, default_value = "")]
    pub host: String,
    /// Only those with all of these tags.
    #[arg(long)]
    pub tag: Vec<String>,
    /// Most snapshots, up to 1000.
    #[arg(long, default_value_t = 100)]
    pub limit: u32,
    /// table, wide, json, yaml or name.
    #[arg(short, long, value_enum, default_value_t = Format::Table)]
    pub output: Format,
}

#[derive(Debug, Subcommand)]
pub enum SnapshotsCommand {
    /// Snapshots of a repository, newest first.
    List(SnapshotList),
    /// What is in a folder of a snapshot.
    Ls {
        /// CLUSTER/NAMESPACE/NAME of a ResticRepository.
        repository: String,
        /// Id, at least 8 digits of it.
        snapshot: String,
        /// Folder, as in the snapshot.
        #[arg(default_value = "/")]
        path: String,
        /// table, wide, json, yaml or name.
        #[arg(short, long, value_enum, default_value_t = Format::Table)]
        output: Format,
    },
    /// Files and folders of a snapshot by their names.
    Find {
        /// CLUSTER/NAMESPACE/NAME of a ResticRepository.
        repository: String,
        /// Id, at least 8 digits of it.
        snapshot: String,
        /// Name, with * and ?.
        pattern: String,
        /// table, wide, json, yaml or name.
        #[arg(short, long, value_enum, default_value_t = Format::Table)]
        output: Format,
    },
    /// Content of one file, up to 1 GiB, to a file or to stdout.
    Get {
        /// CLUSTER/NAMESPACE/NAME of a ResticRepository.
        repository: String,
        /// Id, at least 8 digits of it.
        snapshot: String,
        /// The file, as in the snapshot.
        path: String,
        /// File to write, which must not exist; stdout unless given.
        #[arg(long)]
        to: Option<PathBuf>,
    },
}

#[derive(Debug, Args)]
pub struct OperationList {
    /// Only those of these clusters.
    #[arg(short, long, value_delimiter = ',')]
    pub cluster: Vec<String>,
    /// Only those that have not ended.
    #[arg(long)]
    pub open: bool,
    /// Most operations, up to 200.
    #[arg(long, default_value_t = 50)]
    pub limit: u32,
    /// Where the page begins: what the page before ended with.
    #[arg(long, default_value = "")]
    pub before: String,
    /// table, wide, json, yaml or name.
    #[arg(short, long, value_enum, default_value_t = Format::Table)]
    pub output: Format,
}

#[derive(Debug, Subcommand)]
pub enum OperationsCommand {
    /// Newest first.
    List(OperationList),
    /// Everything about one operation.
    Show {
        /// Its id, or 6 characters of its beginning or end.
        operation: String,
        /// table, wide, json, yaml or name.
        #[arg(short, long, value_enum, default_value_t = Format::Table)]
        output: Format,
    },
    /// Waits until an operation has ended.
    Wait {
        /// Its id, or 6 characters of its beginning or end.
        operation: String,
    },
    /// Takes an operation back that has not begun.
    Cancel {
        /// Its id, or 6 characters of its beginning or end.
        operation: String,
        /// Does not wait for the answer of its cluster.
        #[arg(long)]
        no_wait: bool,
    },
}

/// What is to be done with which resources.
#[derive(Debug, Args)]
pub struct Targets {
    /// CLUSTER/NAMESPACE/NAME, as `fleet backups -o name` prints backups.
    #[arg(required = true, add = completion::objects())]
    pub targets: Vec<String>,
    #[command(flatten)]
    pub wait: Wait,
}

/// How long it may take to begin, and whether its end is waited for.
#[derive(Debug, Args)]
pub struct Wait {
    /// Does not begin later than this, such as 30m, up to 24h: an operation waits for a cluster that is away.
    #[arg(long, default_value = "1h", value_parser = within)]
    pub within: Duration,
    /// Prints the id, and does not wait for the end.
    #[arg(long)]
    pub no_wait: bool,
}

#[derive(Debug, Args)]
pub struct Restore {
    /// Backup whose snapshot it is: CLUSTER/NAMESPACE/NAME.
    #[arg(add = completion::backups())]
    pub backup: String,
    /// Id of the snapshot, or latest.
    #[arg(long, default_value = "latest")]
    pub snapshot: String,
    /// Existing claim that the files go to.
    #[arg(long, required_unless_present = "new_claim", conflicts_with = "new_claim")]
    pub claim: Option<String>,
    /// Folder in that claim.
    #[arg(long, requires = "claim")]
    pub path: Option<String>,
    /// Claim to create for the files.
    #[arg(long)]
    pub new_claim: Option<String>,
    /// Size of the new claim, such as 10Gi; as large as the snapshot needs unless given.
    #[arg(long, requires = "new_claim")]
    pub size: Option<String>,
    /// Storage class of the new claim.
    #[arg(long, requires = "new_claim")]
    pub storage_class: Option<String>,
    /// Folder of the snapshot whose content is restored.
    #[arg(long)]
    pub from: Option<String>,
    /// Only these paths.
    #[arg(long)]
    pub include: Vec<String>,
    /// All but these paths.
    #[arg(long)]
    pub exclude: Vec<String>,
    #[command(flatten)]
    pub wait: Wait,
}

/// A time that the hub takes.
fn within(text: &str) -> Result<Duration, String> {
    let within = duration(text)?;
    match within.as_secs() {
        0 => Err("nothing can begin in no time: write 1s or more".to_owned()),
        1..=86_400 => Ok(within),
        _ => Err("an operation waits for 24 hours at most to begin".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_to_begin_is_between_a_second_and_a_day() {
        assert_eq!(within("1s"), Ok(Duration::from_secs(1)));
        assert_eq!(within("24h"), Ok(Duration::from_secs(86_400)));
        for wrong in ["0s", "0", "25h", "x"] {
            assert!(within(wrong).is_err(), "{wrong}");
        }
    }
}
