//! What people log in with, and what is given to them.

use clap::{Args, Subcommand};

use super::Format;
use crate::pin::Pin;

#[derive(Debug, Args)]
pub struct Login {
    /// What `fleet people invite` printed; "-" reads it from standard input, where no other program of the machine sees it.
    #[arg(long, required_unless_present = "oidc")]
    pub token: Option<String>,
    /// By the issuer that the hub trusts: you confirm the login in a browser, which is opened if that is possible.
    #[arg(long, conflicts_with = "token")]
    pub oidc: bool,
    /// In a browser on this machine, also if none can be opened: its address is printed.
    #[arg(long, requires = "oidc", conflicts_with = "device")]
    pub browser: bool,
    /// In a browser on any machine, with a code that is printed.
    #[arg(long, requires = "oidc")]
    pub device: bool,
    /// The hub's authority by the hash of its key, as `fleet people invite` prints it: sha256: and 64 hex digits. In place of
    /// --ca; the hub presents the authority, and it is compared before anything is sent.
    #[arg(long)]
    pub pin: Option<Pin>,
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
    /// Refuses certificates of a person from now on, and ends what is open by them.
    RevokeCertificate {
        /// Name of the person: all of its certificates that were made until now.
        #[arg(required_unless_present = "serial", conflicts_with = "serial")]
        name: Option<String>,
        /// Only the one with this serial, in hex digits, as the audit shows it.
        #[arg(long)]
        serial: Option<String>,
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
