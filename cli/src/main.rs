//! fleet: the fleet from a terminal.

mod arguments;
mod client;
mod clusters;
mod document;
mod failure;
mod history;
mod hub;
mod maintenance;
mod output;
mod render;
mod run;
mod text;

use std::process::ExitCode;

use clap::Parser as _;

#[tokio::main]
async fn main() -> ExitCode {
    // tonic asks for a process-wide provider.
    rustls::crypto::ring::default_provider().install_default().ok();
    run::main(arguments::Arguments::parse()).await
}
