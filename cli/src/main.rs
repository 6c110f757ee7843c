//! fleet: the fleet from a terminal.

mod activity;
mod advice;
mod again;
mod arguments;
mod arriving;
mod audit;
mod authorities;
mod bundle;
mod check;
mod client;
mod clusters;
mod completion;
mod connection;
mod contexts;
mod coverage;
mod dashboard;
mod detail;
mod document;
mod failure;
mod health;
mod history;
mod hub;
mod hub_restore;
mod init;
mod kit;
mod kubectl;
mod local;
mod login;
mod loopback;
mod maintenance;
mod membership;
mod migrate;
mod names;
mod objects;
mod operations;
mod output;
mod people;
mod pin;
mod policies;
mod rebuild;
#[cfg(test)]
mod reference;
mod render;
mod restores;
mod run;
mod snapshots;
mod sort;
mod storage;
mod text;
mod version;
mod watch;
mod why;

use std::process::ExitCode;

use names::Program;

fn main() -> ExitCode {
    // tonic asks for a process-wide provider.
    rustls::crypto::ring::default_provider().install_default().ok();
    let program = Program::started();
    // A shell that asks for a completion gets it, and nothing below runs.
    completion::answer(program);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    match runtime {
        Ok(runtime) => runtime.block_on(run::main(program, program.parse())),
        Err(error) => {
            output::note(&format!("fleet: cannot start: {error}"));
            ExitCode::from(failure::code::UNKNOWN)
        }
    }
}
