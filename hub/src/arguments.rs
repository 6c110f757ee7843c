//! The command line of fleet-hub: a hub, or what the first operator needs of one.

use std::path::PathBuf;
use std::str::FromStr;

use clap::{Parser, Subcommand};

use crate::access::Role;

use crate::config::{Config, Span};

/// Sees every physical repository of a fleet once.
#[derive(Debug, Parser)]
#[command(name = "fleet-hub", version)]
pub struct Arguments {
    #[command(subcommand)]
    pub command: Option<Command>,
    #[command(flatten)]
    pub config: Config,
}

/// A SHA-256.
#[derive(Clone, Debug)]
pub struct Digest(pub Vec<u8>);

impl FromStr for Digest {
    type Err = String;

    fn from_str(text: &str) -> Result<Digest, String> {
        let bytes = hex::decode(text).ok().filter(|bytes| bytes.len() == 32);
        bytes
            .map(Digest)
            .ok_or_else(|| "64 digits in hex are expected".to_owned())
    }
}

/// What else the program does.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Prints a certificate of a person, its key and the authority to trust: one PEM file for FLEET_CERT, FLEET_KEY and
    /// FLEET_CA. Reads the authority's folder, so anyone who may run this in the hub's pod can do everything. The audit has an
    /// entry of it.
    OperatorCertificate {
        /// Name of the person, which the audit shows.
        name: String,
        /// What the person may do in the whole fleet.
        #[arg(long, value_enum, default_value_t = Role::Admin)]
        role: Role,
        /// How long it is valid, such as 12h or 30d.
        #[arg(long, default_value = "24h")]
        valid: Span,
    },
    /// Writes a backup of the store to a file, also while a hub works on it.
    Backup {
        /// A file that does not exist yet. Keep it as safe as the store.
        file: PathBuf,
    },
    /// Puts a backup in the place of the store, while no hub works on it.
    Restore {
        /// A file that `backup` has written, or - for standard input.
        file: PathBuf,
        /// Replaces a store that exists. It is kept beside, with the suffix .replaced.
        #[arg(long)]
        replace: bool,
        /// SHA-256 that standard input must have, in hex.
        #[arg(long)]
        sha256: Option<Digest>,
    },
}
