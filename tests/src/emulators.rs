//! Emulators of storages that nobody runs at home: Azurite for Azure's Blob Storage and fake-gcs-server for Google's Cloud
//! Storage, each ended with what started it.

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};

use crate::pki::{Authority, Names};
use crate::process::{Daemon, run};
use crate::progress;
use crate::tools::Workspace;

/// Account and key that Azurite takes.
pub const AZURE_ACCOUNT: &str = "fleet";
pub const AZURE_KEY: &str = "Zmxlc3QtdGVzdC1rZXktb2YtYXp1cml0ZS1mb3ItdGVzdHM=";
/// restic and Azure's library put the account in front of it.
const AZURE_SUFFIX: &str = "azurite.test";
/// Bucket of fake-gcs-server. restic does not make it there.
pub const BUCKET: &str = "fleet";

/// An emulator that runs.
pub struct Emulator {
    daemon: Daemon,
    /// Where it listens.
    pub address: String,
}

impl Drop for Emulator {
    fn drop(&mut self) {
        self.daemon.stop(Duration::from_secs(3));
    }
}

/// Azurite with TLS, as restic and Azure's library ask for it.
pub struct Azurite {
    _server: Emulator,
    /// AZURE_ENDPOINT_SUFFIX: what follows the account's name, with the port.
    pub suffix: String,
    /// HTTPS_PROXY: the account's name is in no DNS, and each connection through this proxy goes to Azurite.
    pub proxy: String,
    /// PEM.
    pub authority: String,
}

impl Azurite {
    /// Starts it on this address of the machine, with its files in `dir`.
    ///
    /// # Errors
    /// When it cannot be built or does not start.
    pub fn start(workspace: &Workspace, dir: &Path, host: &str) -> anyhow::Result<Azurite> {
        let program = workspace.azurite()?;
        fs::create_dir_all(dir)?;
        let names = Names {
            common_name: "azurite".to_owned(),
            dns: vec![format!("{AZURE_ACCOUNT}.blob.{AZURE_SUFFIX}")],
            ..Names::default()
        };
        Authority::create(dir, "azurite-ca")?.issue("azurite", names)?;
        let port = free_port(host)?;
        let script = program.display().to_string();
        let port_text = port.to_string();
        let arguments = [
            &script,
            "--blobHost",
            host,
            "--blobPort",
            &port_text,
            "--cert",
            "azurite.crt",
            "--key",
            "azurite.key",
            "--location",
            "azurite",
            "--skipApiVersionCheck",
            "--disableTelemetry",
            "--silent",
        ]
        .map(str::to_owned);
        let account = format!("{AZURE_ACCOUNT}:{AZURE_KEY}");
        let daemon = Daemon::new(dir, "azurite");
        daemon.start(
            None,
            Path::new("node"),
            &arguments,
            &[("AZURITE_ACCOUNTS", &account)],
        )?;
        let address = format!("{host}:{port}");
        let server = Emulator {
            daemon,
            address: address.clone(),
        };
        until_listens(&address)?;
        let listener = TcpListener::bind((host, 0))?;
        let proxy = format!("http://{}", listener.local_addr()?);
        std::thread::spawn(move || tunnel(&listener, &address));
        Ok(Azurite {
            _server: server,
            suffix: format!("{AZURE_SUFFIX}:{port}"),
            proxy,
            authority: fs::read_to_string(dir.join("azurite-ca.crt"))?,
        })
    }
}

/// fake-gcs-server with an empty bucket, in memory.
///
/// # Errors
/// When it cannot be built or does not start.
pub fn fake_gcs(workspace: &Workspace, dir: &Path, host: &str) -> anyhow::Result<Emulator> {
    workspace.build_fake_gcs()?;
    fs::create_dir_all(dir)?;
    let port = free_port(host)?;
    let address = format!("{host}:{port}");
    let port_text = port.to_string();
    let arguments = [
        "-scheme",
        "http",
        "-host",
        host,
        "-port",
        &port_text,
        "-backend",
        "memory",
        "-public-host",
        &address,
        "-log-level",
        "error",
    ]
    .map(str::to_owned);
    let daemon = Daemon::new(dir, "fake-gcs-server");
    daemon.start(None, &workspace.program("fake-gcs-server"), &arguments, &[])?;
    let server = Emulator {
        daemon,
        address: address.clone(),
    };
    until_listens(&address)?;
    let body = format!("{{\"name\":\"{BUCKET}\"}}");
    let url = format!("http://{address}/storage/v1/b?project=fleet");
    let header = "Content-Type: application/json";
    run("curl", &["-sf", "-X", "POST", "-H", header, "-d", &body, &url])?;
    Ok(server)
}

impl Workspace {
    /// Azurite's program for blobs, installed by npm if it is not there.
    fn azurite(&self) -> anyhow::Result<PathBuf> {
        let (source, dir) = (
            self.root.join("tests/tools/azurite"),
            self.state().join("azurite"),
        );
        let program = dir.join("node_modules/azurite/dist/src/blob/main.js");
        let lock = "package-lock.json";
        let read = |dir: &Path| fs::read(dir.join(lock)).ok();
        if program.exists() && read(&dir) == read(&source) {
            return Ok(program);
        }
        progress("installing azurite with npm, about half a minute the first time");
        fs::create_dir_all(&dir)?;
        fs::copy(source.join("package.json"), dir.join("package.json"))?;
        let wanted = fs::read(source.join(lock))?;
        // npm ci compares both files; the lock is written last, so that one that was interrupted is done again.
        fs::write(dir.join(lock), &wanted)?;
        let status = Command::new("npm")
            .args(["ci", "--no-audit", "--no-fund", "--ignore-scripts"])
            .current_dir(&dir)
            .stdout(Stdio::null())
            .status()
            .context("npm is not installed: Azurite is a program of Node.js")?;
        if !status.success() || !program.exists() {
            fs::remove_file(dir.join(lock))?;
            bail!("azurite could not be installed; if packages could not be fetched, check npm's registry");
        }
        Ok(program)
    }
}

fn free_port(host: &str) -> anyhow::Result<u16> {
    Ok(TcpListener::bind((host, 0))?.local_addr()?.port())
}

fn until_listens(address: &str) -> anyhow::Result<()> {
    let end = Instant::now() + Duration::from_secs(30);
    while TcpStream::connect(address).is_err() {
        if Instant::now() > end {
            bail!("nothing listens on {address}");
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    Ok(())
}

/// A proxy that leads every CONNECT to one server, whatever name it is for.
fn tunnel(listener: &TcpListener, to: &str) {
    for client in listener.incoming().flatten() {
        let to = to.to_owned();
        std::thread::spawn(move || {
            // A client or a server that goes away ends its connection and no other.
            let _ = lead(client, &to);
        });
    }
}

fn lead(client: TcpStream, to: &str) -> std::io::Result<()> {
    let mut reader = BufReader::new(client.try_clone()?);
    let mut line = String::new();
    // TLS begins after the answer, so nothing of it is in the reader's buffer.
    while reader.read_line(&mut line)? > 2 {
        line.clear();
    }
    let server = TcpStream::connect(to)?;
    let mut answer = client.try_clone()?;
    answer.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n")?;
    let (mut from_server, mut to_client) = (server.try_clone()?, client.try_clone()?);
    let back = std::thread::spawn(move || {
        let copied = std::io::copy(&mut from_server, &mut to_client);
        let _ = to_client.shutdown(std::net::Shutdown::Write);
        copied
    });
    let (mut from_client, mut to_server) = (client, server);
    std::io::copy(&mut from_client, &mut to_server)?;
    to_server.shutdown(std::net::Shutdown::Write)?;
    let _ = back.join();
    Ok(())
}
