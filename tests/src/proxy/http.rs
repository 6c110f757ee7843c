//! As much of HTTP/1.1 as a proxy needs that passes messages on byte by byte.

use std::io;

use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, BufReader};
use tokio::net::tcp::OwnedReadHalf;

/// Longest head of a request or an answer, in bytes.
const HEAD: usize = 64 << 10;

/// How long a body is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Body {
    Length(u64),
    Chunked,
    /// Until the connection ends.
    Rest,
}

/// First line and headers of a request or an answer.
#[derive(Debug)]
pub(super) struct Head {
    pub(super) bytes: Vec<u8>,
    pub(super) method: String,
    pub(super) path: String,
    /// Of a request its version, of an answer its code.
    pub(super) first: [String; 3],
    /// Names in lower case.
    pub(super) headers: Vec<(String, String)>,
}

impl Head {
    /// The next head; `None` when the connection has ended before it.
    pub(super) async fn read(reader: &mut BufReader<OwnedReadHalf>) -> io::Result<Option<Head>> {
        let mut bytes = Vec::new();
        loop {
            let start = bytes.len();
            let left = (HEAD - start) as u64;
            let read = (&mut *reader).take(left).read_until(b'\n', &mut bytes).await?;
            if read == 0 && bytes.is_empty() {
                return Ok(None);
            }
            if bytes.last() != Some(&b'\n') {
                return Err(io::ErrorKind::InvalidData.into());
            }
            if matches!(&bytes[start..], b"\r\n" | b"\n") {
                // An empty line before a request is allowed.
                if start == 0 {
                    bytes.clear();
                    continue;
                }
                return Head::parse(bytes).map(Some);
            }
        }
    }

    fn parse(bytes: Vec<u8>) -> io::Result<Head> {
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let mut lines = text.lines();
        let mut first = lines.next().unwrap_or_default().splitn(3, ' ').map(str::to_owned);
        let first = [(); 3].map(|()| first.next().unwrap_or_default());
        if first[1].is_empty() {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let headers = lines.filter_map(|line| line.split_once(':'));
        let headers = headers
            .map(|(name, value)| (name.trim().to_ascii_lowercase(), value.trim().to_owned()))
            .collect();
        Ok(Head {
            bytes,
            method: first[0].clone(),
            path: first[1].clone(),
            first,
            headers,
        })
    }

    /// Whether a header's list holds a word.
    pub(super) fn has(&self, name: &str, word: &str) -> bool {
        let values = self.headers.iter().filter(|(n, _)| n == name);
        values
            .flat_map(|(_, value)| value.split(','))
            .any(|v| v.trim().eq_ignore_ascii_case(word))
    }

    pub(super) fn closes(&self) -> bool {
        let old = self.first[0] == "HTTP/1.0" || self.first[2] == "HTTP/1.0";
        self.has("connection", "close") || old
    }

    pub(super) fn code(&self) -> io::Result<u16> {
        self.first[1]
            .parse()
            .map_err(|_| io::ErrorKind::InvalidData.into())
    }

    fn body(&self, unknown: Body) -> io::Result<Body> {
        if self.has("transfer-encoding", "chunked") {
            return Ok(Body::Chunked);
        }
        match self.headers.iter().find(|(name, _)| name == "content-length") {
            Some((_, length)) => length
                .parse()
                .map(Body::Length)
                .map_err(|_| io::ErrorKind::InvalidData.into()),
            None => Ok(unknown),
        }
    }

    pub(super) fn request_body(&self) -> io::Result<Body> {
        self.body(Body::Length(0))
    }

    /// Body of the answer to a request of this method.
    pub(super) fn answer_body(&self, method: &str) -> io::Result<Body> {
        if method == "HEAD" || matches!(self.code()?, 204 | 304) {
            return Ok(Body::Length(0));
        }
        self.body(Body::Rest)
    }
}

/// Copies one body, as it is on the wire.
pub(super) async fn copy(
    from: &mut BufReader<OwnedReadHalf>,
    to: &mut (impl AsyncWrite + Unpin),
    body: Body,
) -> io::Result<()> {
    match body {
        Body::Length(length) => copy_length(from, to, length).await,
        Body::Rest => tokio::io::copy_buf(from, to).await.map(drop),
        Body::Chunked => {
            loop {
                let line = copy_line(from, to).await?;
                let size = line.split(';').next().unwrap_or_default().trim();
                let size = u64::from_str_radix(size, 16).map_err(|_| io::ErrorKind::InvalidData)?;
                if size == 0 {
                    break;
                }
                // With the line's end after it.
                copy_length(from, to, size + 2).await?;
            }
            // Trailers.
            while !copy_line(from, to).await?.trim().is_empty() {}
            Ok(())
        }
    }
}

async fn copy_length(
    from: &mut BufReader<OwnedReadHalf>,
    to: &mut (impl AsyncWrite + Unpin),
    length: u64,
) -> io::Result<()> {
    let copied = tokio::io::copy_buf(&mut from.take(length), to).await?;
    if copied < length {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(())
}

async fn copy_line(
    from: &mut BufReader<OwnedReadHalf>,
    to: &mut (impl AsyncWrite + Unpin),
) -> io::Result<String> {
    let mut line = Vec::new();
    from.take(HEAD as u64).read_until(b'\n', &mut line).await?;
    if line.last() != Some(&b'\n') {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    to.write_all(&line).await?;
    Ok(String::from_utf8_lossy(&line).into_owned())
}
