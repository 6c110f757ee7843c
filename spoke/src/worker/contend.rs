//! Commands that need restic's own lock. A lock of a process that may be alive is waited for. One of a maintenance run
//! with a lower fencing token is not: the time of that run was over before this one was granted its token, so no process
//! removes the lock any more. The operation that does needs the lease that this run holds.

use proto::v1::RetentionRun;

use super::child::{Alarm, Restic, Stopped};
use super::unlock::{list, read_one};
use crate::restic::Failure;
use crate::restic::locks::owner_in_words;
use crate::restic::locks::{LockFile, LockOwner};

/// Each lock that is read costs a process that derives the key.
const READS: usize = 16;

/// Under what a pod works.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lease {
    /// Name of this cluster; empty if it is not known.
    pub cluster: String,
    /// Fencing token.
    pub token: u64,
}

/// Runs a command. `alarm` makes the alarm of one attempt, as of [`Restic::run_watched`].
///
/// # Errors
/// As of [`Restic::run`], and [`Stopped::StaleLock`].
pub async fn exclusive(
    restic: &Restic,
    run: &RetentionRun,
    arguments: &[String],
    alarm: impl Fn() -> Option<Alarm>,
) -> Result<(), Stopped> {
    match restic.run_watched(arguments, alarm()).await {
        Err(Stopped::Failed(Failure::Locked(_))) => {}
        other => return other,
    }
    if let Some(words) = stale(restic, run).await? {
        return Err(Stopped::StaleLock(words));
    }
    let mut patient = arguments.to_vec();
    // In front of what is not a flag.
    patient.splice(1..1, ["--retry-lock".to_owned(), restic.retry_lock.clone()]);
    restic.run_watched(&patient, alarm()).await
}

/// The first lock for which no wait is of use, in words. Locks that cannot be read are waited for.
async fn stale(restic: &Restic, run: &RetentionRun) -> Result<Option<String>, Stopped> {
    let ids = match list(restic).await {
        Ok(ids) => ids,
        Err(Stopped::Failed(failure)) => {
            super::log(&format!("restic's locks cannot be listed: {failure}"));
            return Ok(None);
        }
        Err(stopped) => return Err(stopped),
    };
    for id in ids.into_iter().take(READS) {
        let file = read_one(restic, &id).await?;
        if let Some(file) = file.filter(|file| is_stale(file, &restic.lease, run)) {
            let id = id.get(..10).unwrap_or(&id);
            return Ok(Some(format!("{id} of {}", owner_in_words(&file))));
        }
    }
    Ok(None)
}

/// Whether a lock is of a maintenance run whose time is over. Tokens of another cluster can be compared with ours if the
/// hub that made this run grants to that cluster too. Pure.
fn is_stale(file: &LockFile, lease: &Lease, run: &RetentionRun) -> bool {
    let LockOwner::Fleet { cluster, token, .. } = LockOwner::parse(&file.user, &file.host) else {
        return false;
    };
    let has_policy = |cluster: &str| {
        let mut sources = run.policies.iter().filter_map(|p| p.source.split_once('/'));
        sources.any(|(of, _)| of == cluster)
    };
    let comparable = cluster == lease.cluster || run.clusters.contains(&cluster) || has_policy(&cluster);
    token > 0 && token < lease.token && comparable
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;
    use std::sync::Arc;
    use std::time::Duration;

    use jiff::Timestamp;
    use proto::v1::RetentionPolicySpec;
    use tokio::sync::watch;

    use super::super::child::Leave;
    use super::*;

    /// What `exclusive` makes of a lock of this user, and the commands that restic was given.
    async fn meet(user: &str) -> (Result<(), Stopped>, Vec<String>) {
        let dir = tempfile::tempdir().unwrap();
        let (program, calls) = (dir.path().join("restic"), dir.path().join("calls"));
        let (id, time) = ("ab".repeat(32), "2026-11-25T18:04:34Z");
        let script = format!(
            r#"#!/bin/sh
echo "$*" >> {calls}
case "$*" in
"list locks"*) echo {id} ;;
"cat lock {id}"*) echo '{{"time":"{time}","exclusive":true,"hostname":"h","username":"{user}"}}' ;;
*--retry-lock*) exit 0 ;;
*) exit 11 ;;
esac
"#,
            calls = calls.display()
        );
        std::fs::write(&program, script).unwrap();
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
        let (_leave, receiver) = watch::channel(Leave::Go);
        let restic = Restic {
            program,
            read_limit: Duration::from_secs(60),
            retry_lock: "30m".to_owned(),
            echo: false,
            flags: Vec::new(),
            variables: Vec::new(),
            leave: receiver,
            lease: Lease {
                cluster: "a".to_owned(),
                token: 5,
            },
            lock_left: Arc::default(),
        };
        let arguments = ["forget", "x"].map(str::to_owned);
        let met = exclusive(&restic, &RetentionRun::default(), &arguments, || None).await;
        let calls = std::fs::read_to_string(calls).unwrap();
        (met, calls.lines().map(str::to_owned).collect())
    }

    #[tokio::test]
    async fn a_lock_of_a_run_that_is_over_ends_the_next_one_at_once() {
        let (met, calls) = meet("fleet:a:job:4").await;
        let Err(Stopped::StaleLock(words)) = met else {
            panic!("{met:?}")
        };
        assert_eq!(words, "ababababab of operation job of cluster a, token 4");
        assert!(
            !calls.iter().any(|call| call.contains("--retry-lock")),
            "{calls:?}"
        );
    }

    #[tokio::test]
    async fn a_lock_of_a_backup_is_waited_for() {
        for user in ["fleet:a:pod:0", "root", "fleet:a:job:6"] {
            let (met, calls) = meet(user).await;
            assert!(met.is_ok(), "{user}: {met:?}");
            assert_eq!(calls[0], "forget x");
            assert_eq!(calls.last().unwrap(), "forget --retry-lock 30m x");
        }
    }

    #[test]
    fn only_a_lower_token_of_the_same_grantor_is_not_waited_for() {
        let policy = RetentionPolicySpec {
            source: "c/shop/p".to_owned(),
            ..RetentionPolicySpec::default()
        };
        let run = RetentionRun {
            clusters: vec!["b".to_owned()],
            policies: vec![policy],
            ..RetentionRun::default()
        };
        let lease = Lease {
            cluster: "a".to_owned(),
            token: 5,
        };
        let stale = |user: &str| {
            let file = LockFile {
                time: Timestamp::UNIX_EPOCH,
                exclusive: true,
                host: "h".to_owned(),
                user: user.to_owned(),
                pid: 1,
            };
            is_stale(&file, &lease, &run)
        };
        assert!(stale("fleet:a:job:4") && stale("fleet:b:job:1") && stale("fleet:c:job:1"));
        assert!(!stale("fleet:a:pod:0"), "a backup may be alive");
        assert!(!stale("fleet:a:job:5") && !stale("fleet:b:job:6"));
        assert!(!stale("fleet:d:job:1"), "tokens of another grantor say nothing");
        assert!(!stale("root") && !stale(""));
    }
}
