//! The output of a command on its way to restic, from one container of a pod to another (`pod::stream` has the pod).
//!
//! The source's container listens. The one of restic connects twice: once for as long as it runs, so that the source ends
//! with it, and once when restic asks for the data. Only then the command starts: none runs for a repository that cannot be
//! opened. Nothing is a success unless the source says so: a connection that just ends is a failure, so a command that was
//! killed, or ran out of memory, leaves no snapshot.

mod exec;
mod frame;
mod offer;
mod receive;
mod tail;
mod whole;

use std::os::fd::AsFd as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Subcommand};

use crate::pod::stream::SOCKET;

/// What the program does in a pod whose data comes from a command.
#[derive(Clone, Debug, Subcommand)]
pub enum Stream {
    /// Copies the program to where the other containers find it.
    Install { to: PathBuf },
    /// Runs a command in this container, once restic asks for its output.
    Serve(Serve),
    /// Runs a command in another pod, once restic asks for its output.
    Exec(exec::Exec),
    /// Writes what the source sends to standard output.
    Receive(At),
    /// Holds a connection to the source: when it ends, the source ends.
    Hold(At),
}

/// Where the containers meet.
#[derive(Clone, Debug, Args)]
pub struct At {
    #[arg(long, default_value = SOCKET)]
    socket: PathBuf,
}

/// A command in this container.
#[derive(Clone, Debug, Args)]
pub struct Serve {
    #[command(flatten)]
    at: At,
    /// Program and arguments.
    #[arg(last = true, required = true)]
    command: Vec<String>,
}

/// The file beside the socket in which the source says why it has ended.
fn epitaph(socket: &Path) -> PathBuf {
    socket.with_extension("ended")
}

/// Does it. What went wrong is on standard error, which restic and the kubelet pass on.
pub async fn run(stream: Stream) -> ExitCode {
    let done = match stream {
        Stream::Install { to } => install(&to).map_err(|error| format!("cannot copy the program: {error}")),
        Stream::Serve(serve) => offer::offer(&serve.at.socket, offer::Local(serve.command)).await,
        Stream::Exec(exec) => {
            let socket = exec.at.socket.clone();
            offer::offer(&socket, exec).await
        }
        Stream::Receive(at) => return receive_all(&at.socket).await,
        Stream::Hold(at) => receive::hold(&at.socket).await,
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(text) => {
            complain(&text);
            ExitCode::FAILURE
        }
    }
}

async fn receive_all(socket: &Path) -> ExitCode {
    match standard_output() {
        Ok(mut out) => receive::receive(socket, &mut out).await.exit(),
        Err(error) => {
            complain(&format!("standard output cannot be used: {error}"));
            ExitCode::FAILURE
        }
    }
}

fn standard_output() -> std::io::Result<tokio::fs::File> {
    let own = std::io::stdout().as_fd().try_clone_to_owned()?;
    Ok(tokio::fs::File::from_std(std::fs::File::from(own)))
}

fn install(to: &Path) -> std::io::Result<()> {
    std::fs::copy(std::env::current_exe()?, to)?;
    std::fs::set_permissions(to, std::fs::Permissions::from_mode(0o755))
}

/// One line on standard error.
fn complain(text: &str) {
    use std::io::Write as _;
    // Nobody is left to tell where that fails.
    let _ = writeln!(std::io::stderr(), "{}", text.replace('\n', " "));
}
