//! fleet: the fleet from a terminal.

mod arguments;
mod arriving;
mod audit;
mod authorities;
mod client;
mod clusters;
mod connection;
mod contexts;
mod dashboard;
mod document;
mod failure;
mod history;
mod hub;
mod init;
mod kit;
mod login;
mod loopback;
mod maintenance;
mod membership;
mod migrate;
mod operations;
mod output;
mod people;
mod pin;
mod policies;
mod rebuild;
mod render;
mod restores;
mod run;
mod snapshots;
mod text;

use std::process::ExitCode;

use clap::Parser as _;

#[tokio::main]
async fn main() -> ExitCode {
    // tonic asks for a process-wide provider.
    rustls::crypto::ring::default_provider().install_default().ok();
    run::main(arguments::Arguments::parse()).await
}
