//! The operator of one cluster.

use std::io::IsTerminal as _;
use std::process::ExitCode;

use clap::Parser as _;
use spoke::arguments::{Arguments, Command, HookCommand, Maintenance};
use spoke::config::{Config, DEFAULT_LOG, LogFormat};
use tracing_subscriber::EnvFilter;

// glibc's allocator keeps what a burst of a thousand resources needed; jemalloc gives it back.
#[cfg(feature = "jemalloc")]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

#[tokio::main]
async fn main() -> ExitCode {
    // tonic, kube and rustls each ask for a process-wide provider.
    rustls::crypto::ring::default_provider().install_default().ok();
    let Arguments { config, command } = Arguments::parse();
    match command {
        Some(Command::Maintenance(Maintenance::Retention(worker))) => {
            return spoke::worker::retention(worker).await;
        }
        Some(Command::Maintenance(Maintenance::Unlock(worker))) => {
            return spoke::worker::unlock(worker).await;
        }
        Some(Command::Hook(HookCommand::Before(hook))) => return spoke::hook::before(hook).await,
        Some(Command::Hook(HookCommand::After(hook))) => return spoke::hook::after(hook).await,
        Some(Command::Hook(HookCommand::Owed(owed))) => return spoke::hook::owed(owed).await,
        Some(Command::Maintenance(Maintenance::Check(worker))) => {
            return spoke::worker::check(worker).await;
        }
        Some(Command::Maintenance(Maintenance::Key(worker))) => return spoke::worker::key(worker).await,
        Some(Command::Stream(stream)) => return spoke::stream::run(stream).await,
        None => {}
    }
    log(&config);
    match spoke::run::run(config).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn log(config: &Config) {
    let filter = EnvFilter::try_new(&config.log).unwrap_or_else(|_| EnvFilter::new(DEFAULT_LOG));
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal());
    match config.log_format {
        LogFormat::Text => builder.init(),
        LogFormat::Json => builder.json().init(),
    }
}
