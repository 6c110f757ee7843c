//! Processes that outlive the command that started them, ended by their id and never by their name.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};

/// A daemon of a bed: `<dir>/<name>.pid` holds its id and its start time, `<dir>/<name>.log` what it printed.
#[derive(Clone, Debug)]
pub struct Daemon {
    dir: PathBuf,
    name: String,
}

impl Daemon {
    /// A daemon that may or may not run.
    #[must_use]
    pub fn new(dir: &Path, name: &str) -> Daemon {
        Daemon {
            dir: dir.to_owned(),
            name: name.to_owned(),
        }
    }

    /// Every daemon that left a pid file in a folder.
    pub fn all(dir: &Path) -> Vec<Daemon> {
        let entries = fs::read_dir(dir).into_iter().flatten().flatten();
        let names = entries.filter_map(|e| Some(e.file_name().to_str()?.strip_suffix(".pid")?.to_owned()));
        names.map(|name| Daemon::new(dir, &name)).collect()
    }

    /// Name of the daemon.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Starts it, inside a network namespace if one is given.
    pub fn start(
        &self,
        netns: Option<&str>,
        program: &Path,
        arguments: &[String],
        env: &[(&str, &str)],
    ) -> anyhow::Result<()> {
        let log = File::create(self.dir.join(format!("{}.log", self.name)))?;
        // setsid and nsenter replace themselves, so the id of the child is the id of the daemon.
        let mut command = Command::new("setsid");
        if let Some(netns) = netns {
            // Not `ip netns exec`: it mounts /sys anew and hides the cgroups from kubelet.
            command
                .arg("nsenter")
                .arg(format!("--net=/var/run/netns/{netns}"));
        }
        command
            .arg(program)
            .args(arguments)
            .envs(env.iter().copied())
            .current_dir(&self.dir);
        let child = command
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn();
        let child = child.with_context(|| format!("cannot start {}", self.name))?;
        let start = start_time(child.id()).unwrap_or_default();
        fs::write(
            self.dir.join(format!("{}.pid", self.name)),
            format!("{} {start}", child.id()),
        )?;
        Ok(())
    }

    /// Its process id while it runs. A recycled id has another start time and does not count.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        let text = fs::read_to_string(self.dir.join(format!("{}.pid", self.name))).ok()?;
        let (pid, start) = text.trim().split_once(' ')?;
        let pid: u32 = pid.parse().ok()?;
        (start_time(pid)?.to_string() == start).then_some(pid)
    }

    /// Ends it: SIGTERM, and SIGKILL when that has not ended it after `grace`.
    pub fn stop(&self, grace: Duration) {
        if let Some(pid) = self.pid() {
            signal(pid, "TERM");
            let end = Instant::now() + grace;
            while self.pid().is_some() && Instant::now() < end {
                std::thread::sleep(Duration::from_millis(20));
            }
            if self.pid().is_some() {
                signal(pid, "KILL");
            }
        }
        let _ = fs::remove_file(self.dir.join(format!("{}.pid", self.name)));
    }
}

/// Sends a signal by process id.
pub fn signal(pid: u32, name: &str) {
    let _ = Command::new("kill")
        .args([&format!("-{name}"), &pid.to_string()])
        .stderr(Stdio::null())
        .status();
}

/// Clock ticks after boot at which a process started; `None` when it is gone or a zombie.
fn start_time(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The command in parentheses may hold spaces: count fields after it.
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_whitespace();
    if fields.next()? == "Z" {
        return None;
    }
    fields.nth(18)?.parse().ok()
}

/// Processes whose command line names a path: what a killed kubelet or containerd has left.
#[must_use]
pub fn using(path: &Path) -> Vec<u32> {
    let needle = path.to_string_lossy().into_owned();
    let mine = std::process::id();
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries
        .filter_map(|e| e.file_name().to_str()?.parse::<u32>().ok())
        .filter(|pid| *pid != mine)
        .filter(|pid| {
            let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            let program = line.split(|b| *b == 0).next().unwrap_or_default();
            let shim = program.ends_with(b"containerd-shim-runc-v2");
            shim && String::from_utf8_lossy(&line).contains(&needle)
        })
        .collect()
}

/// Runs a command to its end; an error carries what it printed.
pub fn run(program: &str, arguments: &[&str]) -> anyhow::Result<String> {
    let output = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .output();
    let output = output.with_context(|| format!("cannot run {program}"))?;
    if !output.status.success() {
        bail!(
            "{program} {} failed: {}",
            arguments.join(" "),
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Runs a command whose failure does not matter.
pub fn attempt(program: &str, arguments: &[&str]) {
    let _ = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
}
