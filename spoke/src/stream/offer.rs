//! The side that has the data.

use std::future::Future;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use futures::future::BoxFuture;
use tokio::io::{AsyncRead, AsyncReadExt as _, BufWriter};
use tokio::net::unix::OwnedWriteHalf;
use tokio::net::{UnixListener, UnixStream};
use tokio::process::Command;
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::epitaph;
use super::frame::{self, ASK, HOLD};
use super::tail;

/// restic's container has to come so soon: its image may have to be fetched first.
const PATIENCE: Duration = Duration::from_mins(15);
/// A connection says at once what it is for.
const GREETING: Duration = Duration::from_secs(10);
const CHUNK: usize = 64 << 10;
const ENDED: &str = "restic has ended before the command";

/// A command that runs.
pub struct Running {
    pub output: Box<dyn AsyncRead + Send + Unpin>,
    /// How it ended, to be awaited after the end of the output. Dropping it ends the command.
    pub end: BoxFuture<'static, Result<(), String>>,
}

/// A command that can be started.
pub trait Source: Send {
    fn start(self) -> impl Future<Output = Result<Running, String>> + Send;
}

/// A command in this container.
pub struct Local(pub Vec<String>);

impl Source for Local {
    async fn start(self) -> Result<Running, String> {
        let (program, arguments) = self.0.split_first().ok_or("no command is given")?;
        let mut child = Command::new(program)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| format!("{program} cannot be started: {error}"))?;
        let (Some(output), Some(words)) = (child.stdout.take(), child.stderr.take()) else {
            return Err("the command has no output".to_owned());
        };
        let words = tokio::spawn(tail::pass_on(words));
        let program = program.clone();
        let end = async move {
            let status = child.wait().await.map_err(|error| error.to_string())?;
            if status.success() {
                return Ok(());
            }
            // What it has started may hold its standard error and go on.
            let words = timeout(Duration::from_secs(1), words).await;
            let words = words.ok().and_then(Result::ok).unwrap_or_default();
            Err(format!("{program} failed ({status}): {words}"))
        };
        Ok(Running {
            output: Box::new(output),
            end: Box::pin(end),
        })
    }
}

/// Offers the output of a command to the process that connects first.
///
/// # Errors
/// Why it did not arrive whole.
pub async fn offer(socket: &Path, source: impl Source) -> Result<(), String> {
    let done = listen(socket, source).await;
    if let Err(text) = &done {
        // Where it cannot be written, the one who asks waits until its own patience ends.
        let _ = std::fs::write(epitaph(socket), text);
    }
    done
}

async fn listen(socket: &Path, source: impl Source) -> Result<(), String> {
    let broken = |error: std::io::Error| format!("{}: {error}", socket.display());
    let listener = UnixListener::bind(socket).map_err(broken)?;
    // Containers of a pod may have different users.
    std::fs::set_permissions(socket, std::fs::Permissions::from_mode(0o666)).map_err(broken)?;
    let (held, mut let_go) = mpsc::channel(1);
    let first = timeout(PATIENCE, accept(&listener, &held)).await;
    let asked = match first {
        Err(_) => return Err("the container restic did not start in time".to_owned()),
        Ok(Some(asked)) => asked,
        Ok(None) => loop {
            tokio::select! {
                next = accept(&listener, &held) => if let Some(asked) = next { break asked },
                _ = let_go.recv() => return Err("restic has ended without asking for the data".to_owned()),
            }
        },
    };
    let (mut from, to) = asked.into_split();
    let transfer = transfer(to, source);
    tokio::pin!(transfer);
    loop {
        tokio::select! {
            biased;
            done = &mut transfer => return done,
            _ = let_go.recv() => return Err(ENDED.to_owned()),
            // Nothing is sent any more by who asked: this ends with the connection.
            _ = from.read_u8() => return Err(ENDED.to_owned()),
            // One that is held may come after the one that asks.
            _ = accept(&listener, &held) => {}
        }
    }
}

/// The next connection that asks for the data; `None` for one that is held from now on, or has ended already.
async fn accept(listener: &UnixListener, held: &mpsc::Sender<()>) -> Option<UnixStream> {
    loop {
        let Ok((mut connection, _)) = listener.accept().await else {
            continue;
        };
        match timeout(GREETING, connection.read_u8()).await {
            Ok(Ok(ASK)) => return Some(connection),
            Ok(Ok(HOLD)) => {
                let held = held.clone();
                tokio::spawn(async move {
                    // Nothing is ever sent: this ends with the connection.
                    let _ = connection.read_u8().await;
                    let _ = held.send(()).await;
                });
                return None;
            }
            // restic's container was killed before it could say so: as one that was held, and has ended.
            Ok(Err(_)) => {
                let _ = held.try_send(());
                return None;
            }
            Ok(Ok(_)) | Err(_) => {}
        }
    }
}

async fn transfer(connection: OwnedWriteHalf, source: impl Source) -> Result<(), String> {
    let mut to = BufWriter::with_capacity(CHUNK + 16, connection);
    let gone = |error: std::io::Error| format!("restic takes no more data: {error}");
    let end = match source.start().await {
        Err(text) => Err(text),
        Ok(mut running) => {
            let mut buffer = vec![0; CHUNK];
            let read = loop {
                match running.output.read(&mut buffer).await {
                    Ok(0) => break Ok(()),
                    Ok(read) => {
                        let data = buffer.get(..read).unwrap_or_default();
                        frame::write_data(&mut to, data).await.map_err(gone)?;
                    }
                    Err(error) => break Err(format!("the output of the command cannot be read: {error}")),
                }
            };
            // Its own words are better than those of a pipe.
            let end = running.end.await;
            end.and(read)
        }
    };
    frame::write_end(&mut to, &end).await.map_err(gone)?;
    end
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt as _;

    use super::*;

    async fn connect(socket: &Path, purpose: u8) -> UnixStream {
        loop {
            if let Ok(mut connection) = UnixStream::connect(socket).await {
                connection.write_u8(purpose).await.unwrap();
                return connection;
            }
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn a_connection_that_ends_before_it_says_what_it_is_for_ends_the_source() {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("socket");
        let offered = tokio::spawn({
            let socket = socket.clone();
            async move { offer(&socket, Local(vec!["true".to_owned()])).await }
        });
        while UnixStream::connect(&socket).await.is_err() {
            tokio::task::yield_now().await;
        }
        let done = timeout(Duration::from_secs(60), offered).await;
        let said = done.unwrap().unwrap().unwrap_err();
        assert!(said.contains("without asking for the data"), "{said}");
    }

    /// A command that writes nothing, and goes on unless it is ended.
    #[tokio::test]
    async fn a_command_ends_when_either_connection_of_restic_ends() {
        for ended in [ASK, HOLD] {
            let dir = tempfile::tempdir().unwrap();
            let socket = dir.path().join("socket");
            let command = ["sleep", "600"].map(str::to_owned).into();
            let offered = tokio::spawn({
                let socket = socket.clone();
                async move { offer(&socket, Local(command)).await }
            });
            let asks = connect(&socket, ASK).await;
            let holds = connect(&socket, HOLD).await;
            let _stays = if ended == ASK {
                drop(asks);
                holds
            } else {
                drop(holds);
                asks
            };
            let done = timeout(Duration::from_secs(60), offered).await;
            assert_eq!(done.unwrap().unwrap(), Err(ENDED.to_owned()));
        }
    }
}
