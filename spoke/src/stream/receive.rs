//! The side of restic.

use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, BufReader};
use tokio::net::UnixStream;
use tokio::time::{Instant, sleep};

use super::epitaph;
use super::frame::{self, ASK, Frame, HOLD};

/// The source's container has to be there so soon: its image may have to be fetched first.
const PATIENCE: Duration = Duration::from_mins(15);
const AGAIN: Duration = Duration::from_millis(100);

/// How it ended.
#[derive(Debug, PartialEq, Eq)]
pub enum Received {
    Whole,
    /// The command ended well and wrote nothing.
    Nothing,
    Failed(String),
}

impl Received {
    /// As the exit code of this process. restic stores no snapshot unless it is 0.
    pub fn exit(self) -> ExitCode {
        match self {
            Received::Whole => ExitCode::SUCCESS,
            Received::Nothing => {
                super::complain(NOTHING);
                ExitCode::from(EMPTY)
            }
            Received::Failed(text) => {
                super::complain(&text);
                ExitCode::from(FAILED)
            }
        }
    }
}

const NOTHING: &str = "the command ended well and wrote nothing";
pub use crate::pod::message::{SOURCE_EMPTY as EMPTY, SOURCE_FAILED as FAILED};

/// Writes what the source sends to `out`.
pub async fn receive(socket: &Path, out: &mut (impl AsyncWrite + Unpin)) -> Received {
    match copy(socket, out).await {
        Ok(0) => Received::Nothing,
        Ok(_) => Received::Whole,
        Err(text) => Received::Failed(text),
    }
}

/// Bytes that were written.
async fn copy(socket: &Path, out: &mut (impl AsyncWrite + Unpin)) -> Result<u64, String> {
    let connection = connect(socket, ASK).await?;
    let mut from = BufReader::new(connection);
    let mut total = 0;
    loop {
        match frame::read(&mut from).await {
            Ok(Frame::Data(data)) => {
                total += data.len() as u64;
                out.write_all(&data)
                    .await
                    .map_err(|error| format!("restic takes no more data: {error}"))?;
            }
            Ok(Frame::End) => {
                out.flush().await.map_err(|error| error.to_string())?;
                return Ok(total);
            }
            Ok(Frame::Failed(text)) => return Err(text),
            Err(error) => {
                return Err(format!(
                    "the source's container ended before it could say how the command ended ({error}); see its log and state"
                ));
            }
        }
    }
}

/// Holds a connection until the source ends.
pub async fn hold(socket: &Path) -> Result<(), String> {
    let mut connection = connect(socket, HOLD).await?;
    // Nothing is ever sent.
    let _ = connection.read_u8().await;
    Ok(())
}

async fn connect(socket: &Path, purpose: u8) -> Result<UnixStream, String> {
    let end = Instant::now() + PATIENCE;
    loop {
        // Before the attempt: a source that ended in between has not answered it.
        let ended = std::fs::read_to_string(epitaph(socket));
        if let Ok(mut connection) = UnixStream::connect(socket).await
            && connection.write_u8(purpose).await.is_ok()
        {
            return Ok(connection);
        }
        if let Ok(text) = ended {
            return Err(text);
        }
        if Instant::now() >= end {
            return Err("the source's container did not start in time; see its log and state".to_owned());
        }
        sleep(AGAIN).await;
    }
}
