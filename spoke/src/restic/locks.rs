//! restic's lock files: `list locks`, `cat lock`, and who holds one. Pure.

use jiff::Timestamp;
use serde::Deserialize;

use super::Failure;

/// Reason of a run that met restic's lock of one that is over.
pub const STALE_LOCK: &str = "StaleLock";

/// How the user name of whatever the fleet runs begins.
const PREFIX: &str = "fleet:";
/// Longest user or host name that is kept.
const NAME_MAX: usize = 300;

/// A lock file, as `cat lock` prints it. What is missing there is empty.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct LockFile {
    /// By the clock of the machine that wrote it.
    pub time: Timestamp,
    #[serde(default)]
    pub exclusive: bool,
    #[serde(default, rename = "hostname")]
    pub host: String,
    #[serde(default, rename = "username")]
    pub user: String,
    #[serde(default)]
    pub pid: i64,
}

/// Who holds a lock, as far as the lock file shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LockOwner {
    /// A process that the fleet has started.
    Fleet {
        cluster: String,
        /// uid of the Job of a maintenance operation, or of the pod of a backup or a restore; empty if it is not known.
        operation: String,
        /// Fencing token of the lease; 0 for what needs none.
        token: u64,
    },
    /// Only the machine is known. The host name of a pod is the pod's name: where a container runs as a user that its
    /// image knows (root), restic writes that user's name.
    Host(String),
}

impl LockOwner {
    /// Reads the owner out of user and host name of a lock. A cluster's name may hold colons.
    #[must_use]
    pub fn parse(user: &str, host: &str) -> LockOwner {
        let fleet = || {
            let (rest, token) = user.strip_prefix(PREFIX)?.rsplit_once(':')?;
            let (cluster, operation) = rest.rsplit_once(':')?;
            let token = token.parse().ok()?;
            (!cluster.is_empty()).then(|| LockOwner::Fleet {
                cluster: cluster.to_owned(),
                operation: operation.to_owned(),
                token,
            })
        };
        fleet().unwrap_or_else(|| LockOwner::Host(host.to_owned()))
    }

    /// The user name for it.
    #[must_use]
    pub fn user(cluster: &str, operation: &str, token: &str) -> String {
        format!("{PREFIX}{cluster}:{operation}:{token}")
    }
}

/// Ids that `list locks` prints, one on a line.
///
/// # Errors
/// When a line is no id: half a list is no list.
pub fn ids(stdout: &[u8]) -> Result<Vec<String>, Failure> {
    let text = String::from_utf8_lossy(stdout);
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    lines
        .map(|line| {
            if is_id(line) {
                Ok(line.to_owned())
            } else {
                Err(Failure::Other(format!(
                    "restic list locks printed what is not understood: {line}"
                )))
            }
        })
        .collect()
}

/// Whether a text is the id of a file in a repository.
#[must_use]
pub fn is_id(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

/// A lock out of `cat lock`.
///
/// # Errors
/// When it is not understood.
pub fn lock_file(stdout: &[u8]) -> Result<LockFile, Failure> {
    let file: LockFile = serde_json::from_slice(stdout)
        .map_err(|e| Failure::Other(format!("restic cat lock printed what is not understood: {e}")))?;
    Ok(LockFile {
        user: printable(&file.user),
        host: printable(&file.host),
        ..file
    })
}

/// A name as it may be shown: everybody who has the password can write a lock with any text.
fn printable(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(NAME_MAX).collect()
}

/// Who holds a lock, in words.
#[must_use]
pub fn owner_in_words(lock: &LockFile) -> String {
    match LockOwner::parse(&lock.user, &lock.host) {
        LockOwner::Fleet {
            cluster,
            operation,
            token: 0,
        } => format!("pod {operation} of cluster {cluster}"),
        LockOwner::Fleet {
            cluster,
            operation,
            token,
        } => format!("operation {operation} of cluster {cluster}, token {token}"),
        LockOwner::Host(host) if lock.user.is_empty() => format!("a process on {host}"),
        LockOwner::Host(host) => format!("{} on {host}", lock.user),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_owner_stands_in_the_user_name() {
        let fleet = |cluster: &str, operation: &str, token| LockOwner::Fleet {
            cluster: cluster.to_owned(),
            operation: operation.to_owned(),
            token,
        };
        for (user, owner) in [
            ("fleet:a:4f1c-9:8", fleet("a", "4f1c-9", 8)),
            ("fleet:eu:west:4f1c-9:0", fleet("eu:west", "4f1c-9", 0)),
            ("fleet:a::7", fleet("a", "", 7)),
            ("root", LockOwner::Host("h".to_owned())),
            ("", LockOwner::Host("h".to_owned())),
            ("fleet:a:op", LockOwner::Host("h".to_owned())),
            ("fleet:a:op:x", LockOwner::Host("h".to_owned())),
            ("fleet::op:1", LockOwner::Host("h".to_owned())),
        ] {
            assert_eq!(LockOwner::parse(user, "h"), owner, "{user}");
        }
        let user = LockOwner::user("a", "4f1c-9", "8");
        assert_eq!(LockOwner::parse(&user, "h"), fleet("a", "4f1c-9", 8));
    }

    #[test]
    fn half_a_list_is_no_list() {
        let id = "ab".repeat(32);
        assert_eq!(ids(format!("{id}\n\n{id}\n").as_bytes()).unwrap().len(), 2);
        assert!(ids(b"").unwrap().is_empty());
        assert!(ids(format!("{id}\nab12").as_bytes()).is_err());
        assert!(ids(format!("../{}\n", "a".repeat(61)).as_bytes()).is_err());
    }

    #[test]
    fn a_lock_is_read_as_restic_prints_it() {
        let printed = br#"{"time":"2026-11-25T18:04:34.805576726Z","exclusive":true,"hostname":"vm","username":"fleet:a:op:8","pid":26903,"uid":65532,"gid":65532}"#;
        let lock = lock_file(printed).unwrap();
        assert_eq!(
            (lock.exclusive, lock.host.as_str(), lock.pid, lock.user.as_str()),
            (true, "vm", 26903, "fleet:a:op:8")
        );
        let odd = format!(
            r#"{{"time":"2026-11-25T18:04:34Z","username":"a\u001b[2Jb{}"}}"#,
            "x".repeat(999)
        );
        let lock = lock_file(odd.as_bytes()).unwrap();
        assert!(lock.user.starts_with("a[2Jbx") && lock.user.len() == NAME_MAX && lock.host.is_empty());
        assert!(lock_file(b"{}").is_err() && lock_file(b"null").is_err());
    }
}
