//! What a restic prints, while it runs.

use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, BufReader};
use tokio::process::{ChildStderr, ChildStdout};
use tokio::sync::watch;

use super::child::Alarm;
use super::limits::{Progress, counts};
use super::switch::Instant;
use crate::clock::since_boot;

/// Reads stdout to its end, raises the alarm, and notes when a line shows progress. With `echo`, counts go to the pod's log,
/// where the operator finds them.
pub async fn collect(
    mut stdout: ChildStdout,
    echo: bool,
    alarm: Option<Alarm>,
    raised: watch::Sender<Option<String>>,
    moved: watch::Sender<Instant>,
) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut progress = Progress::default();
    let Some(alarm) = alarm else {
        return stdout.read_to_end(&mut bytes).await.map(|_| bytes);
    };
    let mut seen = 0;
    while stdout.read_buf(&mut bytes).await? > 0 {
        while let Some(length) = bytes[seen..].iter().position(|byte| *byte == b'\n') {
            let line = String::from_utf8_lossy(&bytes[seen..seen + length]);
            if progress.is_news(&line) {
                moved.send_replace(since_boot());
                if echo && counts(&line).is_some() {
                    super::log(&line);
                }
            }
            if let Some(why) = alarm(&line) {
                raised.send_if_modified(|first| first.is_none() && first.replace(why).is_none());
            }
            seen += length + 1;
        }
    }
    Ok(bytes)
}

/// Passes lines on to the pod's log, keeps the last `keep` bytes of them, and the first that shows that restic left something
/// out.
pub async fn pass_on(stderr: ChildStderr, echo: bool, keep: usize) -> (String, Option<String>) {
    let mut lines = BufReader::new(stderr).split(b'\n');
    let (mut text, mut incomplete) = (String::new(), None);
    while let Ok(Some(line)) = lines.next_segment().await {
        let line = String::from_utf8_lossy(&line).into_owned();
        if echo {
            super::log(&line);
        }
        if incomplete.is_none() && leaves_out(&line) {
            incomplete = Some(line.clone());
        }
        text.push_str(&line);
        text.push('\n');
        if text.len() > keep {
            let cut = text
                .char_indices()
                .map(|(at, _)| at)
                .find(|at| text.len() - at <= keep / 2);
            text.drain(..cut.unwrap_or(0));
        }
    }
    (text, incomplete)
}

/// Whether a line means that restic could not read snapshots, and goes on without them.
fn leaves_out(line: &str) -> bool {
    line.contains("Ignoring \"") || line.contains("could not load snapshot")
}
