//! A proxy in a process of its own: rules come in and the log goes out over a unix socket, one line of JSON each way.
//! The socket is a file, so it is reached from outside the proxy's network namespace.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::SocketAddr;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, bail};
use serde::{Deserialize, Serialize};

use super::{Action, Entry, Proxy, Rule, decide};

/// What a proxy is asked.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Question {
    /// Rules from here on.
    Rules(Vec<Rule>),
    /// Entries whose path contains this.
    Log(String),
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Answer {
    Done,
    Log(Vec<Entry>),
    Error(String),
}

/// Serves until it is killed.
///
/// # Errors
/// An address or a socket that cannot be used.
pub fn serve(listen: SocketAddr, upstream: SocketAddr, socket: &Path) -> anyhow::Result<()> {
    // What an earlier one has left.
    let _ = std::fs::remove_file(socket);
    let control =
        UnixListener::bind(socket).with_context(|| format!("cannot listen at {}", socket.display()))?;
    let proxy = Proxy::start(listen, upstream, |_| Action::pass())
        .with_context(|| format!("cannot listen at {listen}"))?;
    for stream in control.incoming() {
        // A client that has left is no reason to end.
        let _ = answer(&proxy, stream?);
    }
    Ok(())
}

fn answer(proxy: &Proxy, mut stream: UnixStream) -> anyhow::Result<()> {
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    let mut line = String::new();
    BufReader::new(stream.try_clone()?).read_line(&mut line)?;
    let answer = match serde_json::from_str(&line) {
        Ok(Question::Rules(rules)) => {
            proxy.set(move |request| decide(&rules, request));
            Answer::Done
        }
        Ok(Question::Log(part)) => {
            let mut log = proxy.log();
            log.retain(|entry| entry.path.contains(&part));
            Answer::Log(log)
        }
        Err(error) => Answer::Error(error.to_string()),
    };
    serde_json::to_writer(&stream, &answer)?;
    stream.write_all(b"\n")?;
    Ok(())
}

/// The other end of a proxy's socket.
#[derive(Clone, Debug)]
pub struct Control {
    socket: PathBuf,
}

impl Control {
    /// The proxy that listens at this socket.
    #[must_use]
    pub fn at(socket: &Path) -> Control {
        Control {
            socket: socket.to_owned(),
        }
    }

    /// Rules for all requests whose head comes from now on; an empty list passes everything.
    ///
    /// # Errors
    /// A proxy that does not answer.
    pub fn set(&self, rules: &[Rule]) -> anyhow::Result<()> {
        match self.ask(&Question::Rules(rules.to_vec()))? {
            Answer::Done => Ok(()),
            other => bail!("the proxy answered {other:?}"),
        }
    }

    /// Requests whose path contains `part`, in the order of coming.
    ///
    /// # Errors
    /// A proxy that does not answer.
    pub fn log(&self, part: &str) -> anyhow::Result<Vec<Entry>> {
        match self.ask(&Question::Log(part.to_owned()))? {
            Answer::Log(entries) => Ok(entries),
            other => bail!("the proxy answered {other:?}"),
        }
    }

    fn ask(&self, question: &Question) -> anyhow::Result<Answer> {
        let stream = UnixStream::connect(&self.socket);
        let mut stream = stream.with_context(|| format!("no proxy at {}", self.socket.display()))?;
        stream.set_read_timeout(Some(Duration::from_secs(30)))?;
        serde_json::to_writer(&stream, question)?;
        stream.write_all(b"\n")?;
        let mut line = String::new();
        BufReader::new(stream).read_line(&mut line)?;
        Ok(serde_json::from_str(&line)?)
    }
}
