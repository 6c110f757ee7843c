//! The hub itself: its backup and the way back, and the pause of all maintenance.

use std::path::Path;

use proto::time::from_unix_millis;
use proto::v1::HubBackupSummary;
use proto::v1::hub_backup_part::Body;
use sha2::{Digest as _, Sha256};

use crate::arguments::{HubArguments, HubCommand, KubeArguments};
use crate::arriving::{self, Arriving};
use crate::authorities;
use crate::client::Client;
use crate::failure::Failure;
use crate::output::{note, print};

/// Carries a command out.
pub async fn run(hub: &HubArguments, kube: &KubeArguments, command: &HubCommand) -> Result<u8, Failure> {
    match command {
        HubCommand::Init(init) => crate::init::init(hub, kube, init).await,
        HubCommand::Backup { file } => {
            let summary = backup(hub, file).await?;
            note(&format!(
                "{}: {} bytes, the hub as of {}; `fleet hub restore` puts it back",
                file.display(),
                summary.bytes,
                from_unix_millis(summary.made_ms)
            ));
            Ok(0)
        }
        HubCommand::Restore(restore) => crate::hub_restore::restore(kube, restore).await,
        HubCommand::Authorities => {
            let mut client = Client::connect(hub).await?;
            let found = client.authorities().await?;
            print(&authorities::pem(found.iter().map(Vec::as_slice)));
            Ok(0)
        }
    }
}

/// Pauses for a reason, or resumes.
pub async fn pause(hub: &HubArguments, reason: Option<String>) -> Result<u8, Failure> {
    let mut client = Client::connect(hub).await?;
    match reason {
        Some(reason) => {
            client.pause(reason).await?;
            note(
                "maintenance is paused; what is under way goes on, and so do backups: fleet locks, fleet resume",
            );
        }
        None => {
            client.resume().await?;
            note("maintenance goes on: fleet locks");
        }
    }
    Ok(0)
}

/// The file appears when all of it has arrived.
async fn backup(hub: &HubArguments, file: &Path) -> Result<HubBackupSummary, Failure> {
    arriving::free(file)?;
    let mut client = Client::connect(hub).await?;
    // A hub that refuses leaves no file.
    let mut parts = client.backup().await?;
    let mut arriving = Arriving::begin(file)?;
    let (mut bytes, mut digest) = (0, Sha256::new());
    let summary = loop {
        let part = client.next(&mut parts).await?;
        match part.and_then(|part| part.body) {
            Some(Body::Data(data)) => {
                bytes += data.len() as u64;
                digest.update(&data);
                arriving.write(&data)?;
            }
            Some(Body::Summary(summary)) => break summary,
            None => return Err(Failure::Hub("it ended the backup before it was whole".to_owned())),
        }
    };
    if summary.bytes != bytes || summary.sha256 != digest.finalize().to_vec() {
        return Err(Failure::Hub(
            "the backup was damaged on its way; try again".to_owned(),
        ));
    }
    arriving.finish()?;
    // Only now: the hub shows how old the newest backup is that somebody has.
    if let Err(failure) = client.keep_backup(summary.sha256.clone()).await {
        note(&format!(
            "the backup is there, but the hub does not count it (FleetHubBackupOld): {failure}"
        ));
    }
    Ok(summary)
}
