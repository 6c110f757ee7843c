//! restic as a child of the maintenance pod: watched by the dead man's switch, and ended in time.

use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::process::{Child, Command};
use tokio::sync::watch;

use super::contend::Lease;
use super::limits::Limit;
use super::streams::{collect, pass_on};
use super::switch::Instant;
use super::{GRACE, LOOK};
use crate::clock::since_boot;
use crate::restic::{Failure, cause_of, class_of, classify, terminate};

/// What restic's last lines of stderr are kept of.
const STDERR_MAX: usize = 16 << 10;
/// The same of a command of which every line is read.
const LINES_MAX: usize = 1 << 20;

/// What the pod may do, by its switch and its signals.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Leave {
    /// The first renewal has not been seen yet.
    NotYet,
    Go,
    /// restic gets SIGTERM, and has until `kill`, by the clock since boot, to remove its lock.
    End {
        why: Why,
        kill: Instant,
    },
}

/// Why a run ends before its time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    LeaseLost,
    Signal,
}

/// Why a command did not do what it was to.
#[derive(Debug, thiserror::Error)]
pub enum Stopped {
    #[error("{0}")]
    Failed(#[from] Failure),
    #[error("the lease was lost: no renewal was seen for its lifetime")]
    LeaseLost,
    #[error("the pod was told to end")]
    Signal,
    #[error("{0}")]
    Alarm(String),
    /// Whose lock it is, in words.
    #[error(
        "restic's lock {0} is in the way: that run is over, and its lock is removed by an operation of its own, after which this one is tried again"
    )]
    StaleLock(String),
}

impl From<Why> for Stopped {
    fn from(why: Why) -> Self {
        match why {
            Why::LeaseLost => Stopped::LeaseLost,
            Why::Signal => Stopped::Signal,
        }
    }
}

/// Why a command has to be killed after it has printed a line.
pub type Alarm = Box<dyn Fn(&str) -> Option<String> + Send + Sync>;

/// What a command printed.
#[derive(Clone, Debug, Default)]
pub struct Printed {
    pub stdout: Vec<u8>,
    /// A line of stderr that shows that restic left something out, although it ends with exit code 0.
    pub incomplete: Option<String>,
}

/// A command that came to its own end.
#[derive(Clone, Debug, Default)]
pub struct Examined {
    /// `None` if a signal ended it.
    pub code: Option<i32>,
    /// Its last lines of stderr.
    pub lines: String,
}

/// Runs restic.
#[derive(Clone)]
pub struct Restic {
    pub program: PathBuf,
    /// Longest time for a command that only reads.
    pub read_limit: Duration,
    /// How long a command waits for restic's lock of others, as restic takes it.
    pub retry_lock: String,
    /// Whether its stderr goes to ours.
    pub echo: bool,
    /// Flags that every command of this repository needs.
    pub flags: Vec<String>,
    /// What its environment has beside ours.
    pub variables: Vec<(String, String)>,
    pub leave: watch::Receiver<Leave>,
    /// Under which it works.
    pub lease: Lease,
    /// A command that takes a lock was killed, so that it could not remove it.
    pub lock_left: Arc<AtomicBool>,
}

impl Restic {
    /// Runs one command to its end and returns what it printed. Its stderr goes to ours.
    ///
    /// # Errors
    /// restic's failure, that it had to stop, or why it had not come to its end within the limit.
    pub async fn run(&self, arguments: &[String], limit: Limit) -> Result<Vec<u8>, Stopped> {
        let printed = self.execute(arguments, limit, None).await?;
        Ok(printed.stdout)
    }

    /// As [`Restic::run`], with an eye on what it prints: on a line of stdout for which `alarm` has a reason, restic is
    /// killed at once. Its lock stays behind.
    ///
    /// # Errors
    /// As of [`Restic::run`], and [`Stopped::Alarm`].
    pub async fn run_watched(
        &self,
        arguments: &[String],
        alarm: Option<Alarm>,
        limit: Limit,
    ) -> Result<(), Stopped> {
        self.execute(arguments, limit, alarm).await.map(drop)
    }

    /// A command that only reads, with all that is known of whether it could.
    ///
    /// # Errors
    /// As of [`Restic::run`].
    pub async fn read(&self, arguments: &[String]) -> Result<Printed, Stopped> {
        let limit = Limit::Whole(self.read_limit);
        self.execute(arguments, limit, None).await
    }

    /// As [`Restic::run_watched`] for a command whose failure is to be read line by line: any exit code is a result.
    ///
    /// # Errors
    /// That it had to stop, or why it had not come to its end within the limit.
    pub async fn examine(&self, arguments: &[String], limit: Limit) -> Result<Examined, Stopped> {
        let watched: Option<Alarm> = Some(Box::new(|_| None));
        let ended = self.carry_out(arguments, limit, watched, LINES_MAX).await?;
        Ok(Examined {
            code: ended.status.code(),
            lines: ended.lines,
        })
    }

    async fn execute(
        &self,
        arguments: &[String],
        limit: Limit,
        alarm: Option<Alarm>,
    ) -> Result<Printed, Stopped> {
        let ended = self.carry_out(arguments, limit, alarm, STDERR_MAX).await?;
        match ended.status.code() {
            Some(0) => Ok(Printed {
                stdout: ended.stdout.map_err(broken)?,
                incomplete: ended.incomplete,
            }),
            code => Err(classify(code, &ended.lines).into()),
        }
    }

    /// Runs a command to its own end. `keep` is how many bytes of its stderr are kept.
    async fn carry_out(
        &self,
        arguments: &[String],
        limit: Limit,
        alarm: Option<Alarm>,
        keep: usize,
    ) -> Result<Ended, Stopped> {
        let mut leave = self.leave.clone();
        if let Leave::End { why, .. } = *leave.borrow_and_update() {
            return Err(why.into());
        }
        let mut child = self.spawn(arguments).map_err(broken)?;
        let (Some(stdout), Some(stderr)) = (child.stdout.take(), child.stderr.take()) else {
            return Err(Failure::Other("restic's output could not be read".to_owned()).into());
        };
        let (moved, moves) = watch::channel(0);
        let (raised, mut raise) = watch::channel(None);
        let out = tokio::spawn(collect(stdout, self.echo, alarm, raised, moved));
        let err = tokio::spawn(pass_on(stderr, self.echo, keep));
        let attended = attend(&mut child, leave, exceeded(limit, moves), &mut raise).await;
        let End {
            status,
            signalled,
            late,
        } = attended.map_err(broken)?;
        // Output that could not be read to its end is not the output.
        let stdout = out.await.map_err(std::io::Error::other).and_then(|read| read);
        let (lines, incomplete) = err.await.map_err(std::io::Error::other).map_err(broken)?;
        // No exit code: a signal that restic could not handle, ours or the kernel's.
        if status.code().is_none() && !arguments.iter().any(|a| a == "--no-lock") {
            self.lock_left.store(true, Ordering::Release);
        }
        if let Some(why) = raise.borrow_and_update().clone() {
            return Err(Stopped::Alarm(why));
        }
        match (signalled, late) {
            // It came to its end all the same, but what it relied on may not have held.
            (Some(why), _) => Err(why.into()),
            (None, Some(ran)) if status.code() != Some(0) => {
                let classed = |line| Some(class_of(line)?(cause_of(line)));
                let cause = lines.lines().rev().find_map(classed);
                Err(cause.unwrap_or_else(|| exceeding(limit, ran)).into())
            }
            (None, _) => Ok(Ended {
                status,
                stdout,
                lines,
                incomplete,
            }),
        }
    }

    fn spawn(&self, arguments: &[String]) -> std::io::Result<Child> {
        Command::new(&self.program)
            .args(arguments)
            .args(&self.flags)
            .envs(self.variables.iter().map(|(k, v)| (k, v)))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
    }
}

fn broken(error: std::io::Error) -> Failure {
    Failure::Other(format!("restic could not be run: {error}"))
}

/// A command that came to its own end.
struct Ended {
    status: ExitStatus,
    stdout: std::io::Result<Vec<u8>>,
    lines: String,
    incomplete: Option<String>,
}

/// How a child ended.
struct End {
    status: ExitStatus,
    /// Why the pod was to end meanwhile.
    signalled: Option<Why>,
    /// For how long it had run when its time was over.
    late: Option<Duration>,
}

/// Waits for a child, and ends it when the pod is to end, when its time is over, or when the alarm is raised.
async fn attend(
    child: &mut Child,
    mut leave: watch::Receiver<Leave>,
    over: impl Future<Output = Duration>,
    raise: &mut watch::Receiver<Option<String>>,
) -> std::io::Result<End> {
    tokio::pin!(over);
    let (mut signalled, mut late) = (None, None);
    loop {
        tokio::select! {
            status = child.wait() => {
                let status = status?;
                return Ok(End { status, signalled, late });
            }
            changed = leave.changed() => {
                let now = *leave.borrow_and_update();
                if let (Ok(()), Leave::End { why, kill }, None) = (changed, now, signalled) {
                    signalled = Some(why);
                    end(child, kill, &leave).await;
                }
            }
            Ok(()) = raise.changed() => {
                let _ = child.start_kill();
            }
            ran = &mut over, if late.is_none() => {
                late = Some(ran);
                end(child, since_boot() + GRACE, &leave).await;
            }
        }
    }
}

/// Resolves when a step's time is over, to how long it has run. `moves` has when it last showed progress.
async fn exceeded(limit: Limit, moves: watch::Receiver<Instant>) -> Duration {
    let started = since_boot();
    loop {
        let moved = *moves.borrow();
        let now = since_boot();
        match limit.left(started, moved, now) {
            Duration::ZERO => return Duration::from_millis(now.saturating_sub(started)),
            left => tokio::time::sleep(left).await,
        }
    }
}

/// What is reported of a step whose time was over after it had run for `ran`.
fn exceeding(limit: Limit, ran: Duration) -> Failure {
    match limit {
        Limit::Both { whole, silence } => {
            let limit = if ran < whole {
                Limit::Silence(silence)
            } else {
                Limit::Whole(whole)
            };
            exceeding(limit, ran)
        }
        Limit::Silence(limit) => Failure::Unreachable(format!(
            "restic made no progress for {} minutes and was ended; does the storage answer?",
            limit.as_secs() / 60
        )),
        Limit::Whole(limit) => Failure::DeadlineExceeded(limit),
    }
}

/// SIGTERM, then SIGKILL at `kill`, or when the lease is over: a command that hangs on dead storage must not outlive it.
/// The clock since boot decides, since timers stand still while the machine sleeps.
async fn end(child: &mut Child, kill: Instant, leave: &watch::Receiver<Leave>) {
    terminate(child);
    loop {
        let over = match *leave.borrow() {
            Leave::End { kill: over, .. } => kill.min(over),
            Leave::NotYet | Leave::Go => kill,
        };
        let left = Duration::from_millis(over.saturating_sub(since_boot()));
        if left.is_zero() {
            let _ = child.start_kill();
            return;
        }
        if tokio::time::timeout(left.min(LOOK), child.wait()).await.is_ok() {
            return;
        }
    }
}
