//! What people log in with, and what is given to them.

use clap::{Args, Subcommand};

use super::Format;

#[derive(Debug, Args)]
pub struct Login {
    /// What `fleet people invite` printed; "-" reads it from standard input, where no other program of the machine sees it.
    #[arg(long, required_unless_present = "oidc")]
    pub token: Option<String>,
    /// By the issuer that the hub trusts: you confirm the login in a browser, on any machine.
    #[arg(long, conflicts_with = "token")]
    pub oidc: bool,
    /// Name of the context; the hub's host unless given.
    #[arg(long)]
    pub name: Option<String>,
}

#[derive(Debug, Args)]
pub struct Dashboard {
    /// Opens no browser.
    #[arg(long)]
    pub no_open: bool,
    /// table, json, yaml, or name for the address alone.
    #[arg(short, long, value_enum, default_value_t = Format::Table)]
    pub output: Format,
}

#[derive(Debug, Subcommand)]
pub enum ContextsCommand {
    /// Logins, and which one is used.
    List {
        /// table, wide, json, yaml or name.
        #[arg(short, long, value_enum, default_value_t = Format::Table)]
        output: Format,
    },
    /// Uses another login from now on.
    Use {
        /// Its name.
        name: String,
    },
}

#[derive(Debug, Subcommand)]
pub enum PeopleCommand {
    /// Rights that are bound, and who is logged in.
    List {
        /// table, wide, json, yaml or name.
        #[arg(short, long, value_enum, default_value_t = Format::Table)]
        output: Format,
    },
    /// Gives rights to a person or a group.
    Bind(Bind),
    /// Takes rights away.
    Unbind {
        /// As `fleet people list` shows it.
        id: u64,
    },
    /// Makes a login token: good once, for 15 minutes.
    Invite {
        /// Name of the person.
        name: String,
        /// Groups that the session is in.
        #[arg(long, value_delimiter = ',')]
        group: Vec<String>,
    },
    /// Ends all sessions of a person, and its login tokens.
    Revoke {
        /// Name of the person.
        name: String,
    },
}

#[derive(Debug, Args)]
pub struct Bind {
    /// Name of a person: of its login token or its certificate.
    #[arg(long, required_unless_present = "group", conflicts_with = "group")]
    pub user: Option<String>,
    /// Name of a group.
    #[arg(long)]
    pub group: Option<String>,
    /// viewer, operator or admin; or verbs: see, browse, run, restore, approve, hold, enrol, ban, administer.
    #[arg(long, visible_alias = "role")]
    pub rights: String,
    /// Only these clusters; * stands for any characters.
    #[arg(short, long, value_delimiter = ',')]
    pub cluster: Vec<String>,
    /// Only these namespaces.
    #[arg(short, long, value_delimiter = ',')]
    pub namespace: Vec<String>,
    /// Only these repositories, by the names of their ResticRepositories or by restic id.
    #[arg(short, long, value_delimiter = ',')]
    pub repository: Vec<String>,
}
