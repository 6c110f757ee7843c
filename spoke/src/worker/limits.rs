//! How long one step of restic may take under the maintenance lock. Pure. The lease is renewed as long as the pod lives,
//! so a restic that hangs on dead storage would hold the lock until the Job's deadline, which is days: restic's own time
//! limits cover its HTTP back ends only, not sftp or rclone.
//!
//! A step whose length follows from its input has a limit as a whole. `prune` has none that would fit all repositories; it
//! reports its counts twice a minute, and is ended when they have stood still for too long.

use std::time::Duration;

use super::switch::Instant;
use crate::config::duration;

/// restic tries a request again for so long before it gives up.
const RETRIES: Duration = Duration::from_secs(15 * 60);
/// Opening the repository and loading its index, which prints nothing.
const INDEX: Duration = Duration::from_secs(45 * 60);
/// Deleting one snapshot's file on slow storage.
const PER_SNAPSHOT: Duration = Duration::from_secs(2);
/// Of `retry_lock`, when it cannot be read.
const RETRY_LOCK: Duration = Duration::from_secs(30 * 60);
/// All checks of one unlock. They and what is around them fit into the deadline of an unlock Job.
pub const CHECK: Duration = Duration::from_secs(20 * 3600);
/// restic counts the snapshots that it has checked; the first one may take as long as all others.
const CHECK_SILENCE: Duration = Duration::from_secs(3 * 3600);
/// restic prints its counts so often without a terminal: twice in a minute.
pub const PROGRESS: (&str, &str) = ("RESTIC_PROGRESS_FPS", "0.033333");

/// When a step is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// So long after its start.
    Whole(Duration),
    /// So long after it last showed progress.
    Silence(Duration),
    /// Whichever comes first.
    Both { whole: Duration, silence: Duration },
}

impl Limit {
    /// `restic forget` of so many snapshots. `retry_lock` is how long it waits for restic's lock of others, such as 30m.
    #[must_use]
    pub fn forget(snapshots: usize, retry_lock: &str) -> Limit {
        let count = u32::try_from(snapshots).unwrap_or(u32::MAX);
        Limit::Whole(waiting(retry_lock) + RETRIES + INDEX + PER_SNAPSHOT.saturating_mul(count))
    }

    /// `restic prune`. It is silent while it waits for restic's lock of others.
    #[must_use]
    pub fn prune(retry_lock: &str) -> Limit {
        Limit::Silence(waiting(retry_lock) + RETRIES + INDEX)
    }

    /// `restic check`, for which so much is left of [`CHECK`].
    #[must_use]
    pub fn check(left: Duration) -> Limit {
        Limit::Both {
            whole: left,
            silence: RETRIES + INDEX + CHECK_SILENCE,
        }
    }

    /// What is left of it. `started` and `moved` are when the step began and when it last showed progress.
    #[must_use]
    pub fn left(self, started: Instant, moved: Instant, now: Instant) -> Duration {
        let (since, limit) = match self {
            Limit::Whole(limit) => (started, limit),
            Limit::Silence(limit) => (moved.max(started), limit),
            Limit::Both { whole, silence } => {
                let left = |limit: Limit| limit.left(started, moved, now);
                return left(Limit::Whole(whole)).min(left(Limit::Silence(silence)));
            }
        };
        limit.saturating_sub(Duration::from_millis(now.saturating_sub(since)))
    }
}

fn waiting(retry_lock: &str) -> Duration {
    duration(retry_lock).unwrap_or(RETRY_LOCK)
}

/// What restic has printed last.
#[derive(Debug, Default)]
pub struct Progress {
    last: String,
}

impl Progress {
    /// Whether a line shows that restic has come further. It prints its counts on a timer, with the time that has passed
    /// in front of them: only the rest counts.
    pub fn is_news(&mut self, line: &str) -> bool {
        let counts = counts(line).unwrap_or(line);
        let news = counts != self.last;
        counts.clone_into(&mut self.last);
        news
    }
}

/// What a line counts, without the time in front of it; `None` for a line of another kind.
pub fn counts(line: &str) -> Option<&str> {
    let (time, counts) = line.trim_start().split_once("] ")?;
    time.starts_with('[').then_some(counts)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tokio::sync::watch;

    use super::super::child::{Leave, Restic, Stopped};
    use super::super::contend::Lease;
    use super::super::since_boot;
    use super::*;
    use crate::restic::Failure;

    const MINUTE: u64 = 60_000;

    #[test]
    fn a_step_ends_by_its_length_or_by_its_silence() {
        let minutes = |n: u64| Duration::from_secs(60 * n);
        let whole = Limit::Whole(minutes(10));
        assert_eq!(whole.left(5, 9 * MINUTE, 5 + 9 * MINUTE), minutes(1));
        assert_eq!(whole.left(5, 9 * MINUTE, 5 + 11 * MINUTE), Duration::ZERO);
        let silence = Limit::Silence(minutes(10));
        assert_eq!(
            silence.left(5, 0, 5 + 4 * MINUTE),
            minutes(6),
            "nothing was printed yet"
        );
        assert_eq!(silence.left(5, 100 * MINUTE, 109 * MINUTE), minutes(1));
        assert_eq!(silence.left(5, 100 * MINUTE, 110 * MINUTE), Duration::ZERO);
        let both = Limit::Both {
            whole: minutes(20),
            silence: minutes(10),
        };
        assert_eq!(
            both.left(5, 12 * MINUTE, 5 + 14 * MINUTE),
            minutes(6),
            "as a whole"
        );
        assert_eq!(both.left(5, 0, 5 + 8 * MINUTE), minutes(2), "of silence");
    }

    #[test]
    fn the_limits_leave_time_for_the_lock_of_others_and_for_what_there_is_to_do() {
        let hours = |n: u64| Duration::from_secs(3600 * n);
        assert_eq!(Limit::prune("30m"), Limit::Silence(Duration::from_secs(90 * 60)));
        assert_eq!(Limit::prune("2h"), Limit::Silence(hours(3)));
        assert_eq!(Limit::prune("?"), Limit::prune("30m"));
        assert_eq!(Limit::forget(1800, "1h"), Limit::Whole(hours(3)));
    }

    #[test]
    fn the_same_counts_at_a_later_time_are_no_progress() {
        let mut progress = Progress::default();
        let lines = [
            ("removing 10 old packs", true),
            ("[0:00] 70.00%  7 / 10 files deleted", true),
            ("[1:00] 70.00%  7 / 10 files deleted", false),
            ("[1:02:00] 70.00%  7 / 10 files deleted", false),
            ("[1:03:00] 80.00%  8 / 10 files deleted", true),
            ("", true),
        ];
        for (line, news) in lines {
            assert_eq!(progress.is_news(line), news, "{line}");
        }
    }

    fn shell(leave: Leave) -> (Restic, watch::Sender<Leave>) {
        let (sender, leave) = watch::channel(leave);
        let restic = Restic {
            program: "/bin/sh".into(),
            read_limit: Duration::from_secs(60),
            retry_lock: "30m".to_owned(),
            echo: false,
            flags: Vec::new(),
            variables: Vec::new(),
            leave,
            lease: Lease::default(),
            lock_left: Arc::default(),
        };
        (restic, sender)
    }

    fn script(text: &str) -> Vec<String> {
        ["-c", text].map(str::to_owned).into()
    }

    #[tokio::test]
    async fn a_prune_that_prints_the_same_counts_for_ever_is_ended() {
        let (restic, _leave) = shell(Leave::Go);
        let limit = Limit::Silence(Duration::from_millis(1500));
        let counting = |times: u32, pause: &str, line: &str| {
            script(&format!(
                "i=0; while [ $i -lt {times} ]; do i=$((i+1)); echo \"{line}\"; sleep {pause}; done"
            ))
        };
        let start = since_boot();
        // It ends by itself after a while: if its time counted as progress, it would end well.
        let stands = counting(100, "0.05", "[0:$i] 70.00%  7 / 10 files deleted");
        let ended = restic.run_watched(&stands, Some(Box::new(|_| None)), limit).await;
        let Err(Stopped::Failed(Failure::Unreachable(text))) = ended else {
            panic!("{ended:?}")
        };
        assert!(text.contains("no progress"), "{text}");
        assert!(since_boot() >= start + 1500);
        // One that moves goes on for longer than that.
        let moves = counting(25, "0.1", "[0:00] $i / 25 files deleted");
        let ended = restic.run_watched(&moves, Some(Box::new(|_| None)), limit).await;
        assert!(ended.is_ok(), "{ended:?}");
    }

    #[tokio::test]
    async fn a_forget_that_hangs_is_ended_after_its_time() {
        let (restic, _leave) = shell(Leave::Go);
        let limit = Limit::Whole(Duration::from_millis(300));
        let ended = restic.run(&script("exec sleep 600"), limit).await;
        assert!(
            matches!(ended, Err(Stopped::Failed(Failure::DeadlineExceeded(_)))),
            "{ended:?}"
        );
    }
}
