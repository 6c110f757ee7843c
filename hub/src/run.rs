//! Starts everything, and stops it in order.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use anyhow::Context as _;
use futures::FutureExt as _;
use sqlx::migrate::MigrateError;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::access::refusals::{self, Refusals};
use crate::admin::{self, Admin};
use crate::away::Away;
use crate::collect::{Appointer, Collectors};
use crate::config::Config;
use crate::delays;
use crate::hub::Hub;
use crate::lock::{Keeper, Locks, Settings};
use crate::membership;
use crate::metrics::{Metrics, Scrape};
use crate::servers::{self, Task};
use crate::store::copy;
use crate::store::held::{self, Hold};
use crate::store::{HubStore, Sqlite};

/// How often a second process looks whether the store is free.
const RETRY: Duration = Duration::from_secs(1);

/// A hub that serves.
pub struct Running {
    pub hub: Arc<Hub>,
    /// Addresses as bound: ports may have been chosen by the system.
    pub link: SocketAddr,
    pub view: SocketAddr,
    /// Where the hub has an authority of its own.
    pub enrol: Option<SocketAddr>,
    tasks: Vec<Task>,
    /// The store is this process's own until everything has ended.
    _hold: Hold,
}

impl Running {
    /// Waits for the first part to end.
    ///
    /// # Errors
    /// What that part ended with.
    pub async fn ended(mut self) -> anyhow::Result<()> {
        let (first, _, rest) = futures::future::select_all(std::mem::take(&mut self.tasks)).await;
        let ended = first?;
        for task in rest {
            if ended.is_err() {
                // Nothing may be answered any more, not even what is on its way.
                task.abort();
                continue;
            }
            // An error means that it was ended with the others.
            let _ = tokio::time::timeout(Duration::from_secs(5), task).await;
        }
        ended
    }
}

/// Starts a hub that serves until `stop`.
///
/// # Errors
/// When certificates, store or addresses cannot be used.
pub async fn start(config: &Config, stop: CancellationToken) -> anyhow::Result<Running> {
    config.check()?;
    make_folder(config)?;
    let metrics = Metrics::new()?;
    let ready: Arc<OnceLock<Arc<dyn HubStore>>> = Arc::new(OnceLock::new());
    let scrape = Arc::new(OnceLock::new());
    let admin = Admin {
        metrics: metrics.clone(),
        store: ready.clone(),
        scrape: scrape.clone(),
    };
    let admin = tokio::spawn(admin::serve(config.admin_address, admin, stop.clone()));
    let hold = hold(config, &stop).await?;
    let store = open(config).await?;
    let (locks, commands) = Locks::new();
    let (collectors, reports) = Collectors::new();
    let hub = Hub::start(config, store.clone(), (locks, collectors), metrics).await?;
    let (refusals, refused) = Refusals::new();
    let servers = servers::start(config, &hub, refusals, &stop).await?;
    hub.load().await?;
    let appointer = Appointer::start(hub.clone(), store.clone()).await?;
    let keeper = Keeper::start(hub.clone(), store.clone(), Settings::of(config)).await?;
    // Requests wait until all of this is done.
    hub.set_loaded();
    // An error means that it is set already.
    let _ = ready.set(store.clone());
    let _ = scrape.set(Scrape::new(hub.clone()));
    info!(link = %servers.link, view = %servers.view, enrol = ?servers.enrol, "serving");
    let mut tasks = servers.tasks;
    tasks.extend([
        tokio::spawn(async move { admin.await?.context("cannot serve the admin address") }),
        tokio::spawn({
            let (hub, stop) = (hub.clone(), stop.clone());
            async move { Ok(hub.keep(stop).await?) }
        }),
        tokio::spawn({
            let (hub, stop) = (hub.clone(), stop.clone());
            async move { Ok(hub.commands.keep(stop).await?) }
        }),
        tokio::spawn({
            let stop = stop.clone();
            async move { Ok(appointer.keep(reports, stop).await?) }
        }),
        tokio::spawn({
            let stop = stop.clone();
            async move { Ok(refusals::record(store, refused, stop).await?) }
        }),
        tokio::spawn(delays::keep(hub.clone(), stop.clone()).map(Ok)),
        away(config, &hub, &stop),
        tokio::spawn(async move { Ok(keeper.keep(commands, stop).await?) }),
    ]);
    Ok(Running {
        hub,
        link: servers.link,
        view: servers.view,
        enrol: servers.enrol,
        tasks,
        _hold: hold,
    })
}

/// Has policies run whose clusters are away, unless that is off.
fn away(config: &Config, hub: &Arc<Hub>, stop: &CancellationToken) -> Task {
    let (hub, stop) = (hub.clone(), stop.clone());
    let after = config.away_after.0;
    tokio::spawn(async move {
        match after {
            Some(after) => Away::new(hub, after).keep(stop).await?,
            None => stop.cancelled().await,
        }
        Ok(())
    })
}

fn make_folder(config: &Config) -> anyhow::Result<()> {
    if let Some(dir) = config.store.parent() {
        std::fs::create_dir_all(dir)
            .with_context(|| format!("cannot make the store's folder {}", dir.display()))?;
    }
    Ok(())
}

async fn open(config: &Config) -> anyhow::Result<Arc<dyn HubStore>> {
    let path = &config.store;
    let folder = membership::authority_folder(config);
    let kept = copy::before_upgrade(path, folder.as_deref(), crate::now()).await;
    let kept = kept.with_context(|| {
        format!(
            "the store {} is of an earlier version and stays so, because no copy of it could be kept: the version before can \
             go on with it (docs/upgrade.md)",
            path.display()
        )
    })?;
    if let Some(file) = kept {
        info!(file = %file.display(), "the store is brought to this version; what it was before is kept for the way back");
    }
    let store = Sqlite::open(path).await;
    Ok(Arc::new(store.map_err(|error| not_opened(path, error))?))
}

/// Why a store was not opened, and what to do.
fn not_opened(path: &Path, error: anyhow::Error) -> anyhow::Error {
    let next = match error.downcast_ref() {
        Some(MigrateError::VersionMissing(_)) => format!(
            "a later version of fleet-hub has worked on it: go on with that one, or put back what it has kept of before \
             (fleet-hub restore --replace {}; docs/upgrade.md)",
            copy::kept_as(path).display()
        ),
        _ => "set --store to a file on a writable volume".to_owned(),
    };
    error.context(format!("cannot open the store {}; {next}", path.display()))
}

/// Waits until no other process has the store.
async fn hold(config: &Config, stop: &CancellationToken) -> anyhow::Result<Hold> {
    let mut told = false;
    loop {
        if let Some(hold) = held::take(&config.store)? {
            return Ok(hold);
        }
        if !std::mem::replace(&mut told, true) {
            warn!(
                store = %config.store.display(),
                "another hub has this store; this one serves nothing until that has ended (a fleet has one hub process per store)"
            );
        }
        tokio::select! {
            () = tokio::time::sleep(RETRY) => {}
            () = stop.cancelled() => anyhow::bail!("stopped while another hub had the store"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_store_of_a_later_version_names_the_way_back() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("fleet.db");
        let told = |error: anyhow::Error| format!("{:#}", not_opened(&path, error));
        let folder = Sqlite::open(dir.path()).await.err().unwrap();
        assert!(told(folder).contains("; set --store to a file"));
        let later = anyhow::Error::from(MigrateError::VersionMissing(99_999));
        let later = told(later);
        assert!(
            later.contains("fleet.db.before-upgrade") && later.contains("99999"),
            "{later}"
        );
    }
}
