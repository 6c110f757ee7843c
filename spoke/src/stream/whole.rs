//! Whether all that a command in another pod wrote has arrived. The container runtime gives what is left in a pipe two
//! seconds to leave it once the command has ended, and reports success whatever was lost: a slow reader gets a dump that
//! is cut short. So a shell writes a mark behind the output, which nobody else can know, and output without it is no output.

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

/// Writes its first argument behind the output of the command that follows, if that succeeds.
const SCRIPT: &str = r#"mark=$1; shift; "$@" || exit; printf %s "$mark""#;
/// Bytes of a mark.
const LENGTH: usize = 32;
const CHUNK: usize = 64 << 10;

/// A mark of its own for each command.
#[derive(Clone, Debug)]
pub struct Mark(String);

impl Mark {
    #[must_use]
    pub fn new() -> Mark {
        Mark(format!("{:032x}", rand::random::<u128>()))
    }

    /// The command by a shell that writes the mark behind its output.
    #[must_use]
    pub fn marked(&self, command: &[String]) -> Vec<String> {
        let shell = ["sh", "-c", SCRIPT, "sh", &self.0].map(str::to_owned);
        shell.into_iter().chain(command.iter().cloned()).collect()
    }

    /// Passes on what comes before the mark. Whether the mark came, and nothing behind it.
    ///
    /// # Errors
    /// When it cannot be read or written.
    pub async fn pass(
        &self,
        mut from: impl AsyncRead + Unpin,
        mut to: impl AsyncWrite + Unpin,
    ) -> std::io::Result<bool> {
        let (mut held, mut buffer) = (Vec::with_capacity(CHUNK + LENGTH), vec![0; CHUNK]);
        loop {
            let read = from.read(&mut buffer).await?;
            if read == 0 {
                break;
            }
            held.extend_from_slice(buffer.get(..read).unwrap_or_default());
            let before = held.len().saturating_sub(LENGTH);
            to.write_all(held.get(..before).unwrap_or_default()).await?;
            held.drain(..before);
        }
        let whole = held == self.0.as_bytes();
        if !whole {
            to.write_all(&held).await?;
        }
        to.shutdown().await?;
        Ok(whole)
    }
}

impl Default for Mark {
    fn default() -> Mark {
        Mark::new()
    }
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Output};

    use super::*;

    fn run(mark: &Mark, command: &[&str]) -> Output {
        let command: Vec<String> = command.iter().map(|&word| word.to_owned()).collect();
        let marked = mark.marked(&command);
        Command::new(&marked[0]).args(&marked[1..]).output().unwrap()
    }

    async fn passed(mark: &Mark, bytes: &[u8]) -> (Vec<u8>, bool) {
        let mut to = Vec::new();
        let whole = mark.pass(bytes, &mut to).await.unwrap();
        (to, whole)
    }

    #[tokio::test]
    async fn the_output_of_a_command_is_whole_only_with_its_mark_at_the_end() {
        let mark = Mark::new();
        for (script, output) in [
            ("printf 'a\\0b\\n'", &b"a\0b\n"[..]),
            ("true", b""),
            ("seq 50000", &[]),
        ] {
            let run = run(&mark, &["sh", "-c", script]);
            let (passed, whole) = passed(&mark, &run.stdout).await;
            assert!(whole, "{script}");
            if !output.is_empty() {
                assert_eq!(passed, output);
            }
            for lost in [1, LENGTH, run.stdout.len()] {
                let rest = &run.stdout[..run.stdout.len() - lost];
                assert!(
                    !super::tests::passed(&mark, rest).await.1,
                    "{script} without {lost} bytes"
                );
            }
        }
        assert!(
            !passed(&mark, Mark::new().0.as_bytes()).await.1,
            "of another command"
        );
    }

    #[test]
    fn the_end_of_a_command_and_its_arguments_stay_as_they_are() {
        let mark = Mark::new();
        let failed = run(&mark, &["sh", "-c", "echo a; exit 7"]);
        assert_eq!((failed.status.code(), &failed.stdout[..]), (Some(7), &b"a\n"[..]));
        let printed = run(&mark, &["printf", "%s|", "a b", "$HOME", "'\"", ""]);
        let text = String::from_utf8(printed.stdout).unwrap();
        assert_eq!(text.strip_suffix(&mark.0), Some("a b|$HOME|'\"||"));
        assert_eq!(run(&mark, &["no-such-program"]).status.code(), Some(127));
    }
}
