//! What a restic that runs prints: bounded, and read as it comes.

use futures::FutureExt as _;
use tokio::io::{AsyncBufReadExt as _, AsyncRead, AsyncReadExt as _, BufReader};

use super::Failure;
use super::classify::{cause_of, class_of};

/// 100,000 snapshots print about 75 MB; more would not fit the manager's memory.
const STDOUT_MAX: u64 = 96 << 20;
/// The last lines decide; a repository full of damage prints millions.
const STDERR_MAX: usize = 64 << 10;
/// Lines of one class after which restic's own retries (15 minutes) are not worth waiting for.
const CERTAIN: usize = 2;

/// Reads stdout and stderr at once, since a full pipe would stop restic. `Err` as soon as it is certain that restic retries in
/// vain: then stdout is not waited for.
pub(super) async fn read_both(
    stdout: impl AsyncRead + Unpin,
    stderr: impl AsyncRead + Unpin,
) -> Result<(std::io::Result<Vec<u8>>, String), Failure> {
    let mut watch = Box::pin(watch(stderr).fuse());
    let mut out = Box::pin(read_bounded(stdout).fuse());
    let mut printed = None;
    loop {
        tokio::select! {
            bytes = &mut out, if printed.is_none() => printed = Some(bytes),
            lines = &mut watch => {
                let stderr = lines?;
                let bytes = match printed {
                    Some(bytes) => bytes,
                    None => out.await,
                };
                return Ok((bytes, stderr));
            }
        }
    }
}

/// Reads stderr as it comes. `Err` as soon as it is certain that restic retries in vain.
pub(super) async fn watch(stderr: impl AsyncRead + Unpin) -> Result<String, Failure> {
    let mut lines = BufReader::new(stderr).split(b'\n');
    let (mut text, mut seen) = (String::new(), 0);
    while let Ok(Some(line)) = lines.next_segment().await {
        let line = String::from_utf8_lossy(&line).into_owned();
        if line.contains("retrying after")
            && let Some(class) = class_of(&line)
        {
            seen += 1;
            if seen >= CERTAIN {
                return Err(class(cause_of(&line)));
            }
        }
        text.push_str(&line);
        text.push('\n');
        if text.len() > STDERR_MAX {
            let keep = text
                .char_indices()
                .map(|(at, _)| at)
                .find(|at| text.len() - at <= STDERR_MAX / 2)
                .unwrap_or(0);
            text.drain(..keep);
        }
    }
    Ok(text)
}

async fn read_bounded(stdout: impl AsyncRead + Unpin) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    stdout.take(STDOUT_MAX).read_to_end(&mut bytes).await?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn two_retries_of_one_kind_are_enough() {
        let lines = "Stat(<config/>) returned error, retrying after 582ms: Get: dial tcp 10.0.0.1:9: connect: connection refused\n".repeat(3);
        let told = watch(lines.as_bytes()).await.unwrap_err();
        assert_eq!(
            told,
            Failure::Unreachable("Get: dial tcp 10.0.0.1:9: connect: connection refused".to_owned())
        );
    }

    #[tokio::test]
    async fn stderr_is_kept_in_bounds_and_its_end_counts() {
        let text = watch(format!("{}last\n", "line\n".repeat(100_000)).as_bytes())
            .await
            .unwrap();
        assert!(text.len() <= STDERR_MAX + 10 && text.ends_with("last\n"));
    }
}
