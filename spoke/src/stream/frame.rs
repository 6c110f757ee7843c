//! What goes over the connection: frames of a kind (one byte), a length (four bytes, big-endian) and as many bytes.

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

/// Longest frame in bytes. A longer one was not written by this program.
pub const LONGEST: usize = 1 << 20;

/// First byte of a connection that asks for the data, and of one that is held.
pub const ASK: u8 = b'R';
pub const HOLD: u8 = b'H';

/// A frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    Data(Vec<u8>),
    /// The command has ended well, and this was all.
    End,
    /// It has not, and why.
    Failed(String),
}

const DATA: u8 = 1;
const END: u8 = 2;
const FAILED: u8 = 3;

/// Writes a frame of data without a copy of it.
pub async fn write_data(to: &mut (impl AsyncWrite + Unpin), data: &[u8]) -> std::io::Result<()> {
    write(to, DATA, data).await
}

/// Writes the last frame.
pub async fn write_end(to: &mut (impl AsyncWrite + Unpin), end: &Result<(), String>) -> std::io::Result<()> {
    match end {
        Ok(()) => write(to, END, &[]).await?,
        Err(text) => write(to, FAILED, text.as_bytes()).await?,
    }
    to.flush().await
}

async fn write(to: &mut (impl AsyncWrite + Unpin), kind: u8, data: &[u8]) -> std::io::Result<()> {
    let length = u32::try_from(data.len()).map_err(|_| std::io::ErrorKind::InvalidInput)?;
    to.write_u8(kind).await?;
    to.write_u32(length).await?;
    to.write_all(data).await
}

/// Reads a frame.
///
/// # Errors
/// When the connection ends before it, or it is none.
pub async fn read(from: &mut (impl AsyncRead + Unpin)) -> std::io::Result<Frame> {
    let kind = from.read_u8().await?;
    let length = usize::try_from(from.read_u32().await?).unwrap_or(usize::MAX);
    if length > LONGEST {
        return Err(std::io::ErrorKind::InvalidData.into());
    }
    let mut data = vec![0; length];
    from.read_exact(&mut data).await?;
    match kind {
        DATA => Ok(Frame::Data(data)),
        END => Ok(Frame::End),
        FAILED => Ok(Frame::Failed(String::from_utf8_lossy(&data).into_owned())),
        _ => Err(std::io::ErrorKind::InvalidData.into()),
    }
}
