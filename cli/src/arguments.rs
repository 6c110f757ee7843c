//! What is asked for.

mod acts;
#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod documented_tests;
mod init;
mod known;
mod look;
mod migrate;
mod people;
mod recovery;

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::completion;

pub use self::acts::*;
pub use self::init::*;
pub use self::known::*;
pub use self::look::*;
pub use self::migrate::*;
pub use self::people::*;
pub use self::recovery::*;

/// Is everything backed up, and how do you know?
#[derive(Debug, Parser)]
#[command(name = "fleet", version, about)]
pub struct Arguments {
    #[command(subcommand)]
    pub command: Command,
    #[command(flatten)]
    pub hub: HubArguments,
    #[command(flatten)]
    pub kube: KubeArguments,
}

/// How the hub is reached.
#[derive(Debug, Args)]
pub struct HubArguments {
    /// The hub's view, such as https://hub.example.org:8444.
    #[arg(long, env = "FLEET_HUB", global = true)]
    pub hub: Option<String>,
    /// Authority that signed the hub's certificate, PEM.
    #[arg(long, env = "FLEET_CA", global = true)]
    pub ca: Option<PathBuf>,
    /// Your certificate, PEM.
    #[arg(long, env = "FLEET_CERT", global = true)]
    pub cert: Option<PathBuf>,
    /// Its key, PEM.
    #[arg(long, env = "FLEET_KEY", global = true)]
    pub key: Option<PathBuf>,
    /// Name in the hub's certificate; "hub" unless given.
    #[arg(long, env = "FLEET_SERVER_NAME", global = true)]
    pub server_name: Option<String>,
    /// A login of `fleet login`, in place of the one that `fleet contexts use` chose.
    #[arg(long, env = "FLEET_CONTEXT", global = true, conflicts_with = "hub", add = completion::logins())]
    pub context: Option<String>,
    /// How long to wait for an answer, such as 10s. Does not end a --watch.
    #[arg(long, default_value = "10s", value_parser = duration, global = true)]
    pub timeout: Duration,
}

impl HubArguments {
    /// Name in the hub's certificate.
    #[must_use]
    pub fn server_name(&self) -> String {
        self.server_name.clone().unwrap_or_else(|| "hub".to_owned())
    }
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Verdict for the whole fleet, worst first.
    Status(Output),
    /// Why an object is not well, in a sentence, and what to do.
    Why(Get),
    /// One object with all that is known of it: facts with their age, conditions, 30 days, what belongs to it.
    Get(Get),
    /// What happened in the fleet, newest first.
    Activity(Activity),
    /// Whether the hub itself is well.
    Health {
        /// table, wide, json, yaml or name.
        #[arg(short, long, value_enum, default_value_t = Format::Table)]
        output: Format,
    },
    /// Looks at the installation, the links, rights, clocks, versions and resources of this cluster, and at the hub.
    #[command(alias = "doctor")]
    Check(Check),
    /// Writes a file for support: what fleet sees, our objects, Events and logs, without any secret.
    Bundle(Bundle),
    /// Clusters, and when they last reported.
    Clusters(Clusters),
    /// Physical repositories, each once however many clusters share it.
    Repos(Repos),
    /// Backups and their last results.
    Backups(Backups),
    /// Retention policies, when they run next and how they ended last.
    Policies(List),
    /// Restores and how far they have come.
    Restores(List),
    /// Volumes that no backup covers.
    Coverage(crate::coverage::Coverage),
    /// What repositories store, how that grows, and when there is no room any more.
    Storage(crate::storage::Storage),
    /// Runs, previews, suspends and resumes retention policies.
    #[command(subcommand)]
    Retention(RetentionCommand),
    /// Brings files back.
    #[command(subcommand)]
    Restore(RestoreCommand),
    /// Snapshots, and the files in them, read through a cluster.
    #[command(subcommand)]
    Snapshots(SnapshotsCommand),
    /// What clusters were asked to do, and what came of it.
    #[command(subcommand)]
    Operations(OperationsCommand),
    /// Who holds a repository for maintenance, and who waits.
    Locks(Locks),
    /// Who holds this repository, since when, and what each waiter waits for.
    WhyLocked(WhyLocked),
    /// Retention plans that wait for a person.
    #[command(subcommand)]
    Plan(Plan),
    /// Who ran what on which repository, and what people did, newest first.
    Audit(Audit),
    /// The hub itself.
    #[command(subcommand)]
    Hub(HubCommand),
    /// Pauses all maintenance: no operation begins. Backups, restores and what is under way go on.
    Pause {
        /// Shown to everybody, and to those who wait.
        #[arg(long)]
        reason: String,
    },
    /// Ends the pause.
    Resume,
    /// Logs in with a login token or at the issuer that the hub trusts, and keeps the session.
    Login(Login),
    /// The dashboard's address, and a login token for it that is good once. Opens the browser on a terminal with a screen.
    Dashboard(Dashboard),
    /// Ends the session, and forgets it.
    Logout,
    /// Who the hub takes you for, and what you may do.
    Whoami {
        /// table, wide, json, yaml or name.
        #[arg(short, long, value_enum, default_value_t = Format::Table)]
        output: Format,
    },
    /// Logins on this machine.
    #[command(subcommand)]
    Contexts(ContextsCommand),
    /// Rights of people and groups.
    #[command(subcommand)]
    People(PeopleCommand),
    /// A recovery kit: what to keep outside of the cluster, to read its repositories with nothing but restic.
    Kit(Kit),
    /// Moves in from another tool: makes resources of ours of its resources, and keeps its history.
    #[command(subcommand)]
    Migrate(MigrateCommand),
    /// Version of fleet, the hub, and the clusters.
    Version {
        /// Only that of this program.
        #[arg(long)]
        client: bool,
        /// table, wide, json, yaml or name.
        #[arg(short, long, value_enum, default_value_t = Format::Table)]
        output: Format,
    },
    /// Prints a script that completes commands and names in your shell: source <(fleet completion bash)
    Completion {
        /// Which shell.
        shell: Shell,
    },
}

#[derive(Debug, Args)]
pub struct Locks {
    #[command(subcommand)]
    pub command: Option<LocksCommand>,
    /// table, wide, json, yaml or name.
    #[arg(short, long, value_enum, default_value_t = Format::Table)]
    pub output: Format,
}

#[derive(Debug, Subcommand)]
pub enum LocksCommand {
    /// Takes a lock back: its pod is ended, and only its end frees the repository.
    Release {
        /// Name or id of the repository.
        repository: String,
        /// Token that holds it, so that a later holder is never meant.
        #[arg(long)]
        token: u64,
        /// Ends the pause after a holder that fell silent: you have made certain that its pod has ended.
        #[arg(long)]
        i_checked: bool,
    },
}

#[derive(Debug, Args)]
pub struct WhyLocked {
    /// Name or id of the repository.
    #[arg(add = completion::repositories())]
    pub repository: String,
    /// table, wide, json, yaml or name.
    #[arg(short, long, value_enum, default_value_t = Format::Table)]
    pub output: Format,
}

#[derive(Debug, Subcommand)]
pub enum Plan {
    /// Plans, newest first.
    List {
        /// Most plans, up to 200.
        #[arg(long, default_value_t = 50)]
        limit: u32,
        /// Where the page begins: what the page before ended with.
        #[arg(long, default_value = "")]
        before: String,
        /// table, wide, json, yaml or name.
        #[arg(short, long, value_enum, default_value_t = Format::Table)]
        output: Format,
    },
    /// What a plan would remove, and why it waits.
    Show {
        /// Such as p-81f2ab34.
        plan: String,
        /// table, wide, json, yaml or name.
        #[arg(short, long, value_enum, default_value_t = Format::Table)]
        output: Format,
    },
    /// Approve a plan. Void if one of its snapshots has changed.
    Approve(Decision),
    /// Reject a plan.
    Reject(Decision),
}

#[derive(Debug, Args)]
pub struct Decision {
    /// Such as p-81f2ab34.
    pub plan: String,
    /// At least 8 digits of the hash that `fleet plan show` prints: you decide about what you have seen.
    #[arg(long)]
    pub hash: String,
}

#[derive(Debug, Subcommand)]
pub enum AuditCommand {
    /// Looks for entries of what people did that were removed or changed.
    Verify {
        /// An entry and its hash, as an earlier verification printed them: whether it is still the same.
        #[arg(long, value_name = "ID:HASH")]
        known: Option<String>,
        /// table, wide, json, yaml or name.
        #[arg(short, long, value_enum, default_value_t = Format::Table)]
        output: Format,
    },
}

#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct Audit {
    #[command(subcommand)]
    pub command: Option<AuditCommand>,
    /// Name or id of a repository; all of them unless given.
    pub repository: Option<String>,
    /// Only what this person did.
    #[arg(long, default_value = "")]
    pub who: String,
    /// Only what people did of this kind, such as approve-plan, login or refused.
    #[arg(long, default_value = "")]
    pub what: String,
    /// Only what is about this cluster.
    #[arg(short, long, default_value = "")]
    pub cluster: String,
    /// Only what is not older, such as 24h or 2026-11-01T00:00:00Z.
    #[arg(long, value_parser = since)]
    pub since: Option<jiff::Timestamp>,
    /// Goes on with what people do from now on.
    #[arg(short, long, conflicts_with = "before")]
    pub watch: bool,
    /// Most entries, up to 200.
    #[arg(long, default_value_t = 50)]
    pub limit: u32,
    /// Where the page begins: what the page before ended with.
    #[arg(long, default_value = "")]
    pub before: String,
    /// table, wide, json, yaml or name.
    #[arg(short, long, value_enum, default_value_t = Format::Table)]
    pub output: Format,
}

/// How answers are printed.
#[derive(Debug, Args)]
pub struct Output {
    /// table, wide, json, yaml or name.
    #[arg(short, long, value_enum, default_value_t = Format::Table)]
    pub output: Format,
    /// Watch for changes.
    #[arg(short, long)]
    pub watch: bool,
}

/// Which rows, in which order.
#[derive(Debug, Args)]
pub struct List {
    /// Part of a name, a URL or a repository id.
    pub text: Option<String>,
    /// Only these clusters.
    #[arg(short, long, value_delimiter = ',', add = completion::clusters())]
    pub cluster: Vec<String>,
    /// Only these namespaces.
    #[arg(short, long, value_delimiter = ',')]
    pub namespace: Vec<String>,
    /// Only rows in these states, such as failed,late.
    #[arg(long, value_delimiter = ',')]
    pub state: Vec<String>,
    /// Column to sort by; prefix with - to reverse. Worst first unless given.
    #[arg(long, default_value = "", allow_hyphen_values = true)]
    pub sort: String,
    #[command(flatten)]
    pub output: Output,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    Table,
    Wide,
    Json,
    Yaml,
    Name,
}

/// A time, or how long ago it is.
fn since(text: &str) -> Result<jiff::Timestamp, String> {
    if let Ok(at) = text.parse() {
        return Ok(at);
    }
    let wrong = || "write a time such as 2026-11-01T00:00:00Z, or a number and s, m, h or d".to_owned();
    let (text, days) = match text.strip_suffix('d') {
        Some(days) => (format!("{days}h"), 24),
        None => (text.to_owned(), 1),
    };
    let ago = duration(&text).map_err(|_| wrong())?.as_secs();
    let seconds = i64::try_from(ago.saturating_mul(days)).map_err(|_| wrong())?;
    let ago = jiff::SignedDuration::from_secs(seconds);
    jiff::Timestamp::now().checked_sub(ago).map_err(|_| wrong())
}

fn duration(text: &str) -> Result<Duration, String> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (count, unit) = text.split_at(digits);
    let unit = match unit {
        "s" | "" => 1,
        "m" => 60,
        "h" => 3600,
        _ => return Err("write a number and s, m or h, such as 10s".to_owned()),
    };
    let count: u64 = count
        .parse()
        .map_err(|_| "write a number and s, m or h, such as 10s".to_owned())?;
    Ok(Duration::from_secs(count.saturating_mul(unit)))
}
