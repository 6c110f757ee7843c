//! A receiver of notifications: takes every request over HTTP and answers 200.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

/// Hands path and body of each request on, in their order. Does not return while the listener is good.
pub fn serve(listener: &TcpListener, mut received: impl FnMut(&str, &[u8])) {
    for stream in listener.incoming().flatten() {
        // A client that goes away has sent nothing.
        let _ = answer(stream, &mut received);
    }
}

fn answer(stream: TcpStream, received: &mut impl FnMut(&str, &[u8])) -> std::io::Result<()> {
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    let mut reader = BufReader::new(stream);
    let (mut path, mut length) = (String::new(), 0);
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 || line == "\r\n" {
            break;
        }
        let lower = line.to_lowercase();
        if let Some(value) = lower.strip_prefix("content-length:") {
            length = value.trim().parse().unwrap_or_default();
        } else if path.is_empty() {
            line.split(' ').nth(1).unwrap_or_default().clone_into(&mut path);
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    received(&path, &body);
    reader
        .get_mut()
        .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
}
