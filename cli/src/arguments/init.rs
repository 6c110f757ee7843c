//! What a hub is made with.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};

use super::duration;

#[derive(Debug, Args)]
pub struct Init {
    /// Host by which spokes and people reach the hub, a name or an address.
    #[arg(long)]
    pub address: String,
    /// Your name, as the audit has it: a-z, 0-9, '-' and '.'.
    #[arg(long, env = "USER")]
    pub admin: String,
    /// How the ports of the hub are reached at the address.
    #[arg(long, value_enum, default_value_t = Exposure::NodePort)]
    pub service: Exposure,
    /// Certificate and key of a given authority in one file, PEM, in place of one that the hub makes.
    #[arg(long)]
    pub authority: Option<PathBuf>,
    /// Another setting of the hub, such as FLEET_HUB_OIDC_ISSUER=https://issuer.example.org. May be repeated.
    #[arg(long, value_name = "NAME=VALUE", value_parser = setting)]
    pub set: Vec<(String, String)>,
    /// Image of the hub as you have pushed it, such as registry.example.org/backup/hub:v0.1.0. Without it the manifests name
    /// ghcr.io/restic-fleet/hub:dev, which nobody publishes.
    #[arg(long)]
    pub image: Option<String>,
    /// Prints the manifests and does nothing: for a repository that is applied by something else. Run this again without it
    /// when the hub is there, to log in.
    #[arg(long)]
    pub print: bool,
    /// How long to wait until the hub serves.
    #[arg(long, default_value = "3m", value_parser = duration)]
    pub wait: Duration,
    /// Name of the login; the address unless given.
    #[arg(long)]
    pub name: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Exposure {
    /// At ports 30443 to 30445 of the cluster's nodes.
    NodePort,
    /// At ports 8443 to 8445 of a load balancer.
    LoadBalancer,
}

/// A variable of the hub and its value.
fn setting(text: &str) -> Result<(String, String), String> {
    let proper = |name: &str| {
        let rest = name.strip_prefix("FLEET_HUB_").unwrap_or_default();
        !rest.is_empty()
            && rest
                .chars()
                .all(|c| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_')
    };
    match text.split_once('=').filter(|(name, _)| proper(name)) {
        Some((name, value)) => Ok((name.to_owned(), value.to_owned())),
        None => Err("write FLEET_HUB_NAME=VALUE; fleet-hub --help lists the names".to_owned()),
    }
}
