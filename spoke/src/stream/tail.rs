//! The last words of a command on standard error, which are passed on as they come.

use std::io::Write as _;

use tokio::io::{AsyncRead, AsyncReadExt as _};

/// Longest text in bytes that is kept.
const KEPT: usize = 400;

/// Passes everything on to this process's standard error, and returns the end of it on one line.
pub async fn pass_on(mut from: impl AsyncRead + Unpin) -> String {
    let (mut tail, mut buffer) = (Vec::new(), vec![0; 8192]);
    while let Ok(read @ 1..) = from.read(&mut buffer).await {
        let new = buffer.get(..read).unwrap_or_default();
        // Where the log cannot be written, the data still can.
        let _ = std::io::stderr().write_all(new);
        tail.extend_from_slice(new);
        let surplus = tail.len().saturating_sub(KEPT);
        tail.drain(..surplus);
    }
    one_line(&String::from_utf8_lossy(&tail))
}

/// Printable, on one line.
fn one_line(text: &str) -> String {
    let words = text.split(|c: char| c.is_whitespace() || c.is_control() || c == char::REPLACEMENT_CHARACTER);
    words
        .filter(|word| !word.is_empty())
        .collect::<Vec<_>>()
        .join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_end_of_a_long_text_is_kept_on_one_line() {
        let text = format!("{}\nlast\twords\u{7}\n", "x".repeat(10_000));
        let tail = pass_on(text.as_bytes()).await;
        assert!(tail.ends_with("x last words") && tail.len() <= KEPT, "{tail}");
    }
}
