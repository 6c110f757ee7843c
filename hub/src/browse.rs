//! Questions of people about snapshots and files, on their way to a spoke and back. Nothing is kept but the entry in the
//! audit, which is written before a question is sent. An answer is no faster than its reader.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use proto::text::{LONGEST, clean};
use proto::v1::hub_message::Body;
use proto::v1::question::What;
use proto::v1::{AnswerPart, Browse, BrowseMore, BrowsePart, HubMessage, Question, SnapshotRow};
use tokio::sync::mpsc;
use tokio::time::timeout;
use tonic::Status;

use crate::access::Sight;
use crate::outbound::Outgoing;

/// Parts of one answer that a spoke may have sent before any was read, and one more.
const WINDOW: usize = 9;
/// A spoke that sends nothing for so long does not answer any more. It runs restic before the first part.
const SILENCE: Duration = Duration::from_secs(300);
/// Questions that are open in one cluster.
const OPEN_MAX: usize = 5;

type Parts = mpsc::Sender<BrowsePart>;

/// Open questions, and the sessions that they went out on.
pub struct Browsing {
    inner: Mutex<Inner>,
    last: AtomicU64,
}

#[derive(Default)]
struct Inner {
    sessions: HashMap<Arc<str>, Session>,
}

struct Session {
    number: u64,
    outgoing: Outgoing,
    open: HashMap<u64, Parts>,
}

/// An answer as it comes.
pub struct Answer<'a> {
    browsing: &'a Browsing,
    cluster: Arc<str>,
    id: u64,
    parts: mpsc::Receiver<BrowsePart>,
    over: bool,
}

impl Browsing {
    /// None open. Ids begin above those of every earlier start of the hub: a spoke may still work on a question of one.
    #[must_use]
    pub fn new(epoch: u64) -> Browsing {
        Browsing {
            inner: Mutex::default(),
            last: AtomicU64::new(epoch << 32),
        }
    }

    /// A session has begun.
    pub fn attach(&self, cluster: &Arc<str>, number: u64, outgoing: Outgoing) {
        let mut inner = self.lock();
        if inner
            .sessions
            .get(cluster)
            .is_some_and(|present| present.number > number)
        {
            return;
        }
        let session = Session {
            number,
            outgoing,
            open: HashMap::new(),
        };
        inner.sessions.insert(cluster.clone(), session);
    }

    /// A session has ended, and with it every answer on it.
    pub fn detach(&self, cluster: &Arc<str>, number: u64) {
        let mut inner = self.lock();
        if inner
            .sessions
            .get(cluster)
            .is_some_and(|present| present.number == number)
        {
            inner.sessions.remove(cluster);
        }
    }

    /// A part of an answer has come. One that nobody waits for is dropped.
    pub fn part(&self, cluster: &Arc<str>, number: u64, mut part: BrowsePart) {
        clean_part(&mut part);
        let mut inner = self.lock();
        let session = inner
            .sessions
            .get_mut(cluster)
            .filter(|session| session.number == number);
        let Some(session) = session else { return };
        let (id, last) = (part.id, part.last);
        if let Some(parts) = session.open.get(&id)
            && parts.try_send(part).is_err()
        {
            // More than it may send, or nobody reads.
            session.open.remove(&id);
            session.more(id, 0);
        }
        if last {
            session.open.remove(&id);
        }
    }

    /// Asks a cluster.
    ///
    /// # Errors
    /// Unavailable when it is not connected, ResourceExhausted when too many are asking it.
    pub fn ask(&self, cluster: &str, question: Question, who: &str) -> Result<Answer<'_>, Status> {
        let mut inner = self.lock();
        let name = inner
            .sessions
            .get_key_value(cluster)
            .map(|(name, _)| name.clone());
        let Some((cluster, session)) =
            name.and_then(|name| Some((name.clone(), inner.sessions.get_mut(&name)?)))
        else {
            return Err(Status::unavailable(format!(
                "cluster {cluster} is not connected: its snapshots can be read when it is back"
            )));
        };
        if session.open.len() >= OPEN_MAX {
            return Err(Status::resource_exhausted(format!(
                "{OPEN_MAX} others are reading through cluster {cluster}; ask again in a moment"
            )));
        }
        let id = self.last.fetch_add(1, Ordering::Relaxed) + 1;
        let (sender, parts) = mpsc::channel(WINDOW);
        session.open.insert(id, sender);
        let browse = Browse {
            id,
            question: Some(question),
            who: who.to_owned(),
        };
        let sent = session.outgoing.send(HubMessage {
            body: Some(Body::Browse(browse)),
        });
        if let Err(status) = sent {
            session.open.remove(&id);
            return Err(status);
        }
        Ok(Answer {
            browsing: self,
            cluster,
            id,
            parts,
            over: false,
        })
    }

    fn more(&self, cluster: &Arc<str>, id: u64, parts: u32) {
        let mut inner = self.lock();
        if let Some(session) = inner.sessions.get_mut(cluster) {
            if parts == 0 {
                session.open.remove(&id);
            }
            session.more(id, parts);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Session {
    fn more(&self, id: u64, parts: u32) {
        let more = BrowseMore { id, parts };
        // An error ends the session, and with it the answer.
        let _ = self.outgoing.send(HubMessage {
            body: Some(Body::BrowseMore(more)),
        });
    }
}

impl Answer<'_> {
    /// The next part; `None` at the end.
    ///
    /// # Errors
    /// Unavailable when the connection to the cluster breaks, DeadlineExceeded when it is silent, PermissionDenied when it
    /// does not allow the question, FailedPrecondition when it cannot answer.
    pub async fn next(&mut self) -> Result<Option<AnswerPart>, Status> {
        if self.over {
            return Ok(None);
        }
        let part = timeout(SILENCE, self.parts.recv()).await;
        let part = part.map_err(|_| Status::deadline_exceeded("the cluster does not answer"))?;
        let Some(part) = part else {
            self.over = true;
            return Err(Status::unavailable(format!(
                "the connection to cluster {} broke in the middle of the answer: ask again",
                self.cluster
            )));
        };
        self.over = part.last;
        match part {
            BrowsePart {
                last: true,
                error,
                refused,
                ..
            } if !error.is_empty() => Err(match refused {
                true => Status::permission_denied(error),
                false => Status::invalid_argument(error),
            }),
            BrowsePart { part, .. } => Ok(part),
        }
    }

    /// A part was passed on: the cluster may send another one.
    pub fn read(&self) {
        if !self.over {
            self.browsing.more(&self.cluster, self.id, 1);
        }
    }
}

impl Drop for Answer<'_> {
    fn drop(&mut self) {
        if !self.over {
            self.browsing.more(&self.cluster, self.id, 0);
        }
    }
}

/// Whether a snapshot may be read: what made it is in the scope. `of` is the cluster that reads it, with its repository.
#[must_use]
pub fn reads(sight: &Sight, snapshot: &SnapshotRow, repository: &[&str]) -> bool {
    if sight.is_everything() {
        return true;
    }
    let tag = |name: &str| snapshot.tags.iter().find_map(|tag| tag.strip_prefix(name));
    let namespace = tag("fleet.backup=").and_then(|backup| Some(backup.split_once('/')?.0));
    // Of one without these tags nobody knows whose it is.
    sight.takes(
        tag("fleet.cluster=").unwrap_or_default(),
        namespace.unwrap_or_default(),
        repository,
    )
}

/// What is asked, for the audit.
#[must_use]
pub fn words(question: &Question) -> String {
    match &question.what {
        Some(What::ListSnapshots(_)) => "list snapshots".to_owned(),
        Some(What::ListFolder(asked)) => format!("list {}:{}", asked.snapshot, asked.path),
        Some(What::FindFiles(asked)) => format!("find {:?} in {}", asked.pattern, asked.snapshot),
        Some(What::FetchFile(asked)) => format!("fetch {}:{}", asked.snapshot, asked.path),
        None => String::new(),
    }
}

/// Text of clusters: bounded, and nothing in it moves a cursor. Paths of files stay as they are, since they are asked for
/// again; the CLI shows them safely.
fn clean_part(part: &mut BrowsePart) {
    clean(&mut part.error, LONGEST);
    for snapshot in part.part.iter_mut().flat_map(|part| &mut part.snapshots) {
        clean(&mut snapshot.host, LONGEST);
        snapshot.tags.iter_mut().for_each(|tag| clean(tag, LONGEST));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::scope::{Patterns, Scope};
    use crate::access::{Grant, Method, Person, Role, Verb};

    #[test]
    fn a_scope_reads_the_snapshots_of_its_own_clusters_and_namespaces_only() {
        let list = |text: &str| Patterns::new(&[text.to_owned()]).unwrap();
        let scope = Scope {
            clusters: list("a"),
            namespaces: list("shop"),
            ..Scope::default()
        };
        let grant = Grant {
            verbs: Role::Operator.verbs(),
            scope,
        };
        let ann = Person::new("ann".into(), Vec::new(), Method::Certificate(None), vec![grant]);
        let sight = ann.sight(Verb::Browse);
        let of = |tags: &[&str]| SnapshotRow {
            tags: tags.iter().map(|tag| (*tag).to_owned()).collect(),
            ..SnapshotRow::default()
        };
        assert!(reads(
            &sight,
            &of(&["fleet.cluster=a", "fleet.backup=shop/orders"]),
            &[]
        ));
        assert!(!reads(
            &sight,
            &of(&["fleet.cluster=b", "fleet.backup=shop/orders"]),
            &[]
        ));
        assert!(!reads(
            &sight,
            &of(&["fleet.cluster=a", "fleet.backup=crm/files"]),
            &[]
        ));
        assert!(!reads(&sight, &of(&[]), &[]), "nobody knows whose it is");
        assert!(reads(&Sight::EVERYTHING, &of(&[]), &[]));
    }
}
