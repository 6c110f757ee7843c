//! A hub as a process of this machine: its start, its end, and what it uses.

use std::fs::{self, File};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::pki::{Authority, Names};
use crate::process::signal;

/// Open files that the hub and its spokes may have; each connection is one on either side.
const FILES: u64 = 65_536;

/// Where the hub is, and its files.
pub struct Hub {
    program: PathBuf,
    dir: PathBuf,
    child: Option<Child>,
    pub link: SocketAddr,
    pub view: SocketAddr,
}

impl Hub {
    /// A hub with certificates and an empty store in a folder. Not started yet.
    ///
    /// # Errors
    /// When certificates cannot be written.
    pub fn prepare(program: &Path, dir: &Path, port: u16) -> anyhow::Result<Hub> {
        let authority = Authority::create(dir, "ca")?;
        authority.issue(
            "hub",
            Names {
                common_name: "hub".to_owned(),
                dns: vec!["hub".to_owned()],
                uri: Some("spiffe://fleet/hub".to_owned()),
                ..Names::default()
            },
        )?;
        let limit = getrlimit(Resource::Nofile);
        let files = limit.maximum.map_or(FILES, |most| most.min(FILES));
        setrlimit(
            Resource::Nofile,
            Rlimit {
                current: Some(files),
                maximum: limit.maximum,
            },
        )?;
        let local = |port| SocketAddr::from(([127, 0, 0, 1], port));
        Ok(Hub {
            program: program.to_owned(),
            dir: dir.to_owned(),
            child: None,
            link: local(port),
            view: local(port + 1),
        })
    }

    /// Folder of the certificates.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Starts it, and waits until it takes connections of viewers.
    ///
    /// # Errors
    /// When it does not start.
    pub async fn start(&mut self) -> anyhow::Result<()> {
        let dir = self.dir.clone();
        let path = |name: &str| dir.join(name);
        let log = File::options().create(true).append(true).open(path("hub.log"))?;
        let child = Command::new(&self.program)
            .args(["--link-address", &self.link.to_string()])
            .args(["--view-address", &self.view.to_string()])
            .args(["--admin-address", "127.0.0.1:0", "--trust-domain", "fleet"])
            .args(["--creation-hold", "1s", "--log", "warn"])
            .arg("--tls-cert")
            .arg(path("hub.crt"))
            .arg("--tls-key")
            .arg(path("hub.key"))
            .arg("--tls-ca")
            .arg(path("ca.crt"))
            .arg("--store")
            .arg(path("fleet.db"))
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .with_context(|| format!("cannot start {}", self.program.display()))?;
        self.child = Some(child);
        let end = Instant::now() + Duration::from_secs(120);
        while TcpStream::connect(self.view).is_err() {
            if Instant::now() > end || self.has_ended() {
                bail!("the hub does not serve; see {}", path("hub.log").display());
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        Ok(())
    }

    fn has_ended(&mut self) -> bool {
        let child = self.child.as_mut();
        child.is_none_or(|child| child.try_wait().is_ok_and(|ended| ended.is_some()))
    }

    /// Ends it as Kubernetes does.
    ///
    /// # Errors
    /// When it does not end within a minute.
    pub async fn stop(&mut self) -> anyhow::Result<()> {
        let Some(child) = &self.child else {
            return Ok(());
        };
        signal(child.id(), "TERM");
        let end = Instant::now() + Duration::from_secs(60);
        while !self.has_ended() {
            if Instant::now() > end {
                bail!("the hub does not end");
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        self.child = None;
        Ok(())
    }

    fn proc(&self, file: &str) -> anyhow::Result<String> {
        let pid = self.child.as_ref().context("the hub does not run")?.id();
        Ok(fs::read_to_string(format!("/proc/{pid}/{file}"))?)
    }

    /// Resident memory in MiB.
    ///
    /// # Errors
    /// When it does not run.
    pub fn memory(&self) -> anyhow::Result<f64> {
        let status = self.proc("status")?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib = line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<f64>().ok());
        Ok(kib.context("no VmRSS")? / 1024.0)
    }

    /// User and system time in seconds.
    ///
    /// # Errors
    /// When it does not run.
    pub fn cpu(&self) -> anyhow::Result<f64> {
        let stat = self.proc("stat")?;
        let (_, rest) = stat.rsplit_once(')').context("no stat")?;
        let mut fields = rest.split_whitespace().skip(11);
        let mut ticks = || fields.next().and_then(|field| field.parse::<f64>().ok());
        let both = ticks().zip(ticks()).map(|(user, system)| user + system);
        Ok(both.context("no times")? / 100.0)
    }

    /// Bytes of the store and its journal.
    #[must_use]
    pub fn store_bytes(&self) -> u64 {
        let of = |name: &str| fs::metadata(self.dir.join(name)).map_or(0, |metadata| metadata.len());
        of("fleet.db") + of("fleet.db-wal")
    }
}

impl Drop for Hub {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            signal(child.id(), "TERM");
            // Nothing more can be done about one that does not end.
            let _ = child.wait();
        }
    }
}
