//! The hub itself: its backup, and the pause of all maintenance.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use proto::time::from_unix_millis;
use proto::v1::HubBackupSummary;
use proto::v1::hub_backup_part::Body;
use sha2::{Digest as _, Sha256};

use crate::arguments::{HubArguments, HubCommand};
use crate::client::Client;
use crate::failure::Failure;
use crate::output::note;

/// Carries a command out.
pub async fn run(hub: &HubArguments, command: &HubCommand) -> Result<u8, Failure> {
    match command {
        HubCommand::Backup { file } => {
            let summary = backup(hub, file).await?;
            note(&format!(
                "{}: {} bytes, the hub as of {}; `fleet-hub restore` puts it back",
                file.display(),
                summary.bytes,
                from_unix_millis(summary.made_ms)
            ));
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
    if file.exists() {
        let text = format!("{} exists; choose another name", file.display());
        return Err(Failure::Usage(text));
    }
    let mut client = Client::connect(hub).await?;
    let partial = with_suffix(file, ".partial");
    let received = receive(&mut client, &partial).await;
    let placed = received.and_then(|summary| {
        std::fs::rename(&partial, file).map_err(|error| failed(file, error))?;
        Ok(summary)
    });
    if placed.is_err() {
        let _ = std::fs::remove_file(&partial);
    }
    placed
}

async fn receive(client: &mut Client, partial: &Path) -> Result<HubBackupSummary, Failure> {
    // A hub that refuses leaves no file.
    let mut parts = client.backup().await?;
    let mut out = create(partial).map_err(|error| failed(partial, error))?;
    let (mut bytes, mut digest) = (0, Sha256::new());
    let summary = loop {
        let part = client.next(&mut parts).await?;
        match part.and_then(|part| part.body) {
            Some(Body::Data(data)) => {
                bytes += data.len() as u64;
                digest.update(&data);
                out.write_all(&data).map_err(|error| failed(partial, error))?;
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
    out.sync_all().map_err(|error| failed(partial, error))?;
    Ok(summary)
}

/// Nobody else's to read from its first byte on.
fn create(partial: &Path) -> io::Result<File> {
    // Of an attempt that was killed.
    let _ = std::fs::remove_file(partial);
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(partial)
}

fn failed(path: &Path, error: io::Error) -> Failure {
    Failure::Output {
        path: path.display().to_string(),
        error,
    }
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}
