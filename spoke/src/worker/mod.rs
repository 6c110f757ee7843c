//! What runs in a maintenance pod: `fleet-spoke maintenance retention`, `unlock`, `check` or
//! `key`. It begins only when it has seen
//! a renewal of its lease, ends itself when no more come, and writes its result into the termination message.

#[cfg(test)]
mod bench;
mod check;
pub mod child;
pub mod contend;
mod document;
mod files;
mod findings;
pub mod forget;
mod guard;
mod key;
mod limits;
pub mod order;
mod outcome;
pub mod plan;
mod reads;
pub mod retention;
pub mod select;
mod shorten;
mod streams;
pub mod switch;
mod unlock;
mod votes;

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use clap::Args;
use proto::v1::{CheckRun, KeyRun, OperationOutcome, UnlockRun};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use crate::clock::since_boot;
use crate::config::RETRY_LOCK;
use crate::pod::{CLUSTER_VARIABLE, OPERATION_VARIABLE};
use crate::restic::locks::LockOwner;
use crate::secrets::{FILES_VARIABLE, NEW_PASSWORD_DIR, NEW_PASSWORD_FILE, PRIVATE_FILES_VARIABLE};
use child::{Leave, Restic, Why};
use contend::Lease;
use order::Order;
use shorten::bounded;
use switch::{Switch, Verdict};

/// Where the kernel shows the host name, as restic writes it into its locks.
const HOST_NAME: &str = "/proc/sys/kernel/hostname";
/// How often the count of renewals is looked at.
const LOOK: Duration = Duration::from_millis(200);
/// restic takes up to a minute to remove its lock after SIGTERM.
const GRACE: u64 = 80_000;
/// Longest time for a command that only reads: restic alone retries for 15 minutes, for which the lock would be held in
/// vain. Ten thousand snapshots without a cache take minutes.
const READ_LIMIT: Duration = Duration::from_secs(600);

/// Flags of a maintenance pod.
#[derive(Clone, Debug, Args)]
pub struct WorkerConfig {
    /// Fencing token of the lease. Without one nothing is done.
    #[arg(long, env = "FLEET_MAINTENANCE_TOKEN", default_value = "")]
    pub token: String,

    /// Life of the lease in milliseconds.
    #[arg(long, env = "FLEET_MAINTENANCE_TTL", default_value = "")]
    pub lease_ttl: String,

    /// Folder with `order` and `renewals`, kept up to date by the kubelet.
    #[arg(long, env = "FLEET_MAINTENANCE_DIR", default_value = "/fleet")]
    pub lease_dir: PathBuf,

    /// How long forget and prune wait for restic's lock of others.
    #[arg(long, default_value = RETRY_LOCK)]
    pub retry_lock: String,

    /// The restic binary.
    #[arg(long, env = "FLEET_RESTIC", default_value = "restic")]
    pub restic: PathBuf,

    /// Name of this cluster, and uid of the Job: restic's locks carry both.
    #[arg(long, env = CLUSTER_VARIABLE, default_value = "")]
    pub cluster: String,
    #[arg(long, env = OPERATION_VARIABLE, default_value = "")]
    pub operation: String,

    /// Namespace and name of the policy whose Job it is, as `shop/nightly`.
    #[arg(long, default_value = "")]
    pub policy: String,

    /// Variables that name credential files, each as `VARIABLE=/path`.
    #[arg(long, env = FILES_VARIABLE, default_value = "")]
    pub credential_files: String,

    /// Files to copy so that nobody but this user may read them, each as `/from=/to`.
    #[arg(long, env = PRIVATE_FILES_VARIABLE, default_value = "")]
    pub private_files: String,

    /// Where the result goes.
    #[arg(long, env = "TERMINATION_LOG", default_value = "/dev/termination-log")]
    pub termination_log: PathBuf,

    /// More flags for each restic command, after "--".
    #[arg(last = true)]
    pub flags: Vec<String>,
}

/// A line for the pod's log. stdout is for the plan alone.
fn log(line: &str) {
    // There is no other place for it when the log is gone.
    let _ = writeln!(std::io::stderr(), "{line}");
}

/// Runs retention, and reports the outcome.
pub async fn retention(config: WorkerConfig) -> ExitCode {
    let outcome = match prepare(&config) {
        Ok((order, restic)) => {
            let mut outcome = retention::run(&order, &restic, print).await;
            outcome::own_first(&mut outcome, &format!("{}/{}", config.cluster, config.policy));
            left_behind(outcome, &restic.lock_left)
        }
        Err(unready) => unready.into(),
    };
    report(&config, outcome)
}

/// Removes left-over locks, and reports the outcome.
pub async fn unlock(config: WorkerConfig) -> ExitCode {
    let ready = prepare(&config).and_then(|(order, restic)| {
        let run = order.parse::<UnlockRun>();
        Ok((run.map_err(|text| Unready::new("NoOrder", text))?, restic))
    });
    let outcome = match ready {
        Ok((run, restic)) => {
            log(&format!(
                "{} locks, repository {}",
                run.locks.len(),
                run.restic_id
            ));
            let host = std::fs::read_to_string(HOST_NAME).unwrap_or_default();
            unlock::run(&run, restic, host.trim()).await
        }
        Err(unready) => unready.into(),
    };
    report(&config, outcome)
}

/// Checks the repository's integrity, and reports the outcome.
pub async fn check(config: WorkerConfig) -> ExitCode {
    let ready = prepare(&config).and_then(|(order, restic)| {
        let run = order.parse::<CheckRun>();
        Ok((run.map_err(|text| Unready::new("NoOrder", text))?, restic))
    });
    let outcome = match ready {
        Ok((run, restic)) => {
            log(&format!("a check of repository {}", run.restic_id));
            check::run(&run, restic).await
        }
        Err(unready) => unready.into(),
    };
    report(&config, outcome)
}

/// Adds or removes a key of the repository, and reports the outcome.
pub async fn key(config: WorkerConfig) -> ExitCode {
    let ready = prepare(&config).and_then(|(order, restic)| {
        let run = order.parse::<KeyRun>();
        Ok((run.map_err(|text| Unready::new("NoOrder", text))?, restic))
    });
    let outcome = match ready {
        Ok((run, restic)) => {
            log(&format!("a key of repository {}", run.restic_id));
            let left = restic.lock_left.clone();
            let new = Path::new(NEW_PASSWORD_DIR).join(NEW_PASSWORD_FILE);
            left_behind(key::run(&run, restic, &new).await, &left)
        }
        Err(unready) => unready.into(),
    };
    report(&config, outcome)
}

/// A restic that was killed leaves its lock, which keeps all others out until it is known as dead. The Job that follows
/// asks only when it should be removed.
fn left_behind(mut outcome: OperationOutcome, left: &AtomicBool) -> OperationOutcome {
    if left.load(Ordering::Acquire) {
        outcome.lock_left = true;
        outcome
            .message
            .push_str("; restic was killed, and its lock is still in the repository");
    }
    outcome
}

/// Writes the termination message.
fn report(config: &WorkerConfig, outcome: OperationOutcome) -> ExitCode {
    log(&format!("{}: {}", outcome.result, outcome.message));
    let well = !matches!(outcome.result.as_str(), "Failed" | "Interrupted");
    let message = serde_json::to_string(&bounded(outcome)).unwrap_or_default();
    if let Err(error) = std::fs::write(&config.termination_log, message) {
        log(&format!("the result could not be written: {error}"));
        return ExitCode::FAILURE;
    }
    if well {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// The plan is the one line on stdout.
fn print(line: &str) {
    // There is no other place for it when the log is gone.
    let _ = writeln!(std::io::stdout(), "{line}");
}

/// Why a pod cannot begin.
#[derive(Debug)]
struct Unready {
    reason: &'static str,
    text: String,
}

impl Unready {
    fn new(reason: &'static str, text: impl Into<String>) -> Unready {
        let text = text.into();
        Unready { reason, text }
    }
}

impl From<Unready> for OperationOutcome {
    fn from(Unready { reason, text }: Unready) -> Self {
        failed(reason, text)
    }
}

/// Reads the lease, and starts to watch it.
fn prepare(config: &WorkerConfig) -> Result<(Order, Restic), Unready> {
    let number = |text: &str| text.parse::<u64>().ok().filter(|n| *n > 0);
    let (Some(token), Some(ttl)) = (number(&config.token), number(&config.lease_ttl)) else {
        let text = "this Job was started without the maintenance lock. Leave its suspend field alone: the operator opens it when it has the lock";
        return Err(Unready::new("NoLease", text));
    };
    let order = Order::in_folder(&config.lease_dir);
    log(&format!("token {token}"));
    let (leave, receiver) = watch::channel(Leave::NotYet);
    tokio::spawn(watch_lease(
        config.lease_dir.join("renewals"),
        ttl - ttl / 10,
        leave,
    ));
    // Such as the key of ssh and the hosts that it knows.
    files::private_files(&config.private_files)
        .map_err(|text| Unready::new("CredentialsUnreadable", text))?;
    let mut variables = files::credential_files(&config.credential_files);
    if !config.cluster.is_empty() {
        let user = LockOwner::user(&config.cluster, &config.operation, &config.token);
        variables.push(("USER".to_owned(), user));
    }
    let restic = Restic {
        program: config.restic.clone(),
        read_limit: READ_LIMIT,
        echo: true,
        flags: config.flags.clone(),
        variables,
        leave: receiver,
        lease: Lease {
            cluster: config.cluster.clone(),
            token,
        },
        lock_left: Arc::default(),
        retry_lock: config.retry_lock.clone(),
    };
    Ok((order, restic))
}

/// Turns renewals and signals into what may be done.
async fn watch_lease(renewals: PathBuf, lifetime: u64, leave: watch::Sender<Leave>) {
    let signals = (signal(SignalKind::terminate()), signal(SignalKind::interrupt()));
    let (Ok(mut term), Ok(mut int)) = signals else {
        leave.send_replace(Leave::End {
            why: Why::Signal,
            kill: since_boot(),
        });
        return;
    };
    let mut switch = Switch::new(lifetime, since_boot());
    loop {
        let now = since_boot();
        let count = std::fs::read_to_string(&renewals).ok();
        switch.observe(count.and_then(|text| text.trim().parse().ok()), now, wall());
        match switch.verdict(now) {
            Verdict::Go => {
                leave.send_if_modified(|l| std::mem::replace(l, Leave::Go) != Leave::Go);
            }
            Verdict::NotYet => {}
            Verdict::Stop { kill } => {
                let why = Why::LeaseLost;
                leave.send_replace(Leave::End { why, kill });
                return;
            }
        }
        tokio::select! {
            () = tokio::time::sleep(LOOK) => continue,
            _ = term.recv() => {}
            _ = int.recv() => {}
        }
        leave.send_replace(Leave::End {
            why: Why::Signal,
            kill: switch.signalled(since_boot(), GRACE),
        });
        return;
    }
}

/// Milliseconds of the wall clock.
fn wall() -> u64 {
    let time = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    time.ok()
        .and_then(|t| u64::try_from(t.as_millis()).ok())
        .unwrap_or_default()
}

fn failed(reason: &str, message: String) -> OperationOutcome {
    OperationOutcome {
        result: "Failed".to_owned(),
        reason: reason.to_owned(),
        message,
        ..OperationOutcome::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_pod_that_cannot_begin_says_what_it_lacks() {
        let dir = tempfile::tempdir().unwrap();
        let key = dir.path().join("id");
        std::fs::write(&key, "key").unwrap();
        let config = |token: &str, private_files: String| WorkerConfig {
            token: token.to_owned(),
            lease_ttl: "300000".to_owned(),
            lease_dir: dir.path().to_owned(),
            retry_lock: "30m".to_owned(),
            restic: "restic".into(),
            cluster: String::new(),
            operation: String::new(),
            policy: String::new(),
            credential_files: String::new(),
            private_files,
            termination_log: dir.path().join("log"),
            flags: Vec::new(),
        };
        let reason = |config: &WorkerConfig| {
            let unready = prepare(config).map(drop).unwrap_err();
            OperationOutcome::from(unready).reason
        };
        assert_eq!(reason(&config("", String::new())), "NoLease");
        // The key of ssh cannot be given to it.
        let copy = format!("{0}={0}/not-a-folder", key.display());
        assert_eq!(reason(&config("5", copy)), "CredentialsUnreadable");
    }
}
