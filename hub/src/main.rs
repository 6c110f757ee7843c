//! The hub of a fleet.

use std::io::IsTerminal as _;
use std::path::Path;
use std::process::ExitCode;

use clap::Parser as _;
use hub::access::Role;
use hub::arguments::{Arguments, Command, Digest};
use hub::config::{Config, LogFormat, Span};
use hub::store::copy;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing_subscriber::EnvFilter;

// Ten thousand connections come and go; what they leave is given back.
#[cfg(feature = "jemalloc")]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

#[tokio::main]
async fn main() -> ExitCode {
    // tonic and rustls ask for a process-wide provider.
    rustls::crypto::ring::default_provider().install_default().ok();
    let Arguments { command, config } = Arguments::parse();
    let filter = EnvFilter::try_new(&config.log).unwrap_or_else(|_| EnvFilter::new("info"));
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal());
    match config.log_format {
        LogFormat::Text => builder.init(),
        LogFormat::Json => builder.json().init(),
    }
    let done = match command {
        Some(Command::OperatorCertificate { name, role, valid }) => {
            operator_certificate(&config, &name, role, valid).await
        }
        Some(Command::Backup { file }) => backup(&config, &file).await,
        Some(Command::Restore {
            file,
            replace,
            sha256,
        }) => restore(&config, &file, replace, sha256.as_ref()).await,
        None => run(config).await,
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn backup(config: &Config, file: &Path) -> anyhow::Result<()> {
    let folder = hub::membership::authority_folder(config);
    let copied = copy::backup(&config.store, folder.as_deref(), file, hub::now()).await?;
    copy::note(&config.store, copied.made).await;
    tracing::info!(file = %file.display(), bytes = copied.bytes, epoch = copied.epoch, "the backup is written");
    Ok(())
}

async fn restore(config: &Config, file: &Path, replace: bool, sha256: Option<&Digest>) -> anyhow::Result<()> {
    let folder = hub::membership::authority_folder(config);
    let received = match file == Path::new("-") {
        true => Some(copy::receive(
            std::io::stdin().lock(),
            &config.store,
            sha256.map(|digest| digest.0.as_slice()),
        )?),
        false => None,
    };
    let file = received.as_ref().map_or(file, |received| received.path());
    let copied = copy::restore(file, &config.store, folder.as_deref(), replace, hub::now()).await?;
    tracing::info!(
        store = %config.store.display(),
        made = %proto::time::from_unix_millis(copied.made),
        "the backup is in place; a hub that starts on it grants nothing until every lease that it may have lost has run out"
    );
    tracing::warn!(
        "what people did since the backup is not in it: repeat bans, revocations of certificates, cancellations of operations, changes of rights and a \
         pause that were made since. All people have to log in again, and login and join tokens that were not used are gone"
    );
    Ok(())
}

/// Written to standard output: the hub's image has no shell and no writable folder but the store's.
async fn operator_certificate(config: &Config, name: &str, role: Role, valid: Span) -> anyhow::Result<()> {
    use std::io::Write as _;
    let pem = hub::membership::operator_certificate(config, name, role, valid).await?;
    Ok(std::io::stdout().write_all(pem.as_bytes())?)
}

async fn run(config: Config) -> anyhow::Result<()> {
    let stop = CancellationToken::new();
    let (mut term, mut int) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let on_signal = stop.clone();
    tokio::spawn(async move {
        tokio::select! {
            _ = term.recv() => {}
            _ = int.recv() => {}
        }
        on_signal.cancel();
    });
    hub::run::start(&config, stop).await?.ended().await
}
