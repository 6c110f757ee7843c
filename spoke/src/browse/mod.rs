//! Answers people's questions about snapshots and files, one at a time. restic runs here, with `--no-lock`: the hub has no
//! key, and nobody needs a right to exec into a pod. Bounded in time, size and count.

mod rows;

use std::sync::Arc;
use std::time::Duration;

use proto::v1::question::What;
use proto::v1::{AnswerPart, Browse, ListSnapshots, Question};
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tracing::info;

use self::rows::{file, parts, row};
use crate::allow::Allow;
use crate::context::Context;
use crate::credentials;
use crate::restic::{FileNode, Restic, Snapshot};
use crate::secrets::Credentials;
use crate::world::Key;

/// Time for the whole of an answer.
const TIME: Duration = Duration::from_secs(15 * 60);
/// Files and folders of one answer.
const FILES_MAX: usize = 10_000;
/// Snapshots of one answer, unless the question says so, and at most.
const SNAPSHOTS: usize = 100;
const SNAPSHOTS_MAX: usize = 1_000;
/// Bytes of a file.
const BYTES_MAX: u64 = 1 << 30;
/// Shortest beginning of an id.
const ID_MIN: usize = 8;

/// Why there is no answer.
enum Wrong {
    /// The cluster does not allow it.
    Refused(String),
    Failed(String),
    /// Nobody reads it.
    Unread,
}

impl From<String> for Wrong {
    fn from(text: String) -> Wrong {
        Wrong::Failed(text)
    }
}

impl From<crate::restic::Failure> for Wrong {
    fn from(failure: crate::restic::Failure) -> Wrong {
        Wrong::Failed(failure.to_string())
    }
}

/// Answers until `stop`.
pub async fn run(context: Arc<Context>, restic: Arc<dyn Restic>, stop: CancellationToken) {
    let work = async {
        loop {
            let Browse { id, question, who } = context.browsing.next().await;
            info!(who, "somebody reads a repository through the hub");
            let reader = Reader {
                context: &context,
                restic: restic.as_ref(),
                id,
            };
            let answered = tokio::select! {
                answered = timeout(TIME, reader.answer(question.unwrap_or_default())) => answered,
                () = context.browsing.unwanted(id) => continue,
            };
            let late = || Err(Wrong::Failed(format!("it took longer than {TIME:?}")));
            match answered.unwrap_or_else(|_| late()) {
                Ok(()) => context.browsing.end(id, "", false),
                Err(Wrong::Refused(text)) => context.browsing.end(id, &text, true),
                Err(Wrong::Failed(text)) => context.browsing.end(id, &text, false),
                Err(Wrong::Unread) => {}
            }
        }
    };
    tokio::select! {
        () = work => {}
        () = stop.cancelled() => {}
    }
}

/// One question.
struct Reader<'a> {
    context: &'a Context,
    restic: &'a dyn Restic,
    id: u64,
}

impl Reader<'_> {
    async fn answer(&self, question: Question) -> Result<(), Wrong> {
        let allowed = self.context.site.allowed.check(Allow::Read);
        allowed.map_err(Wrong::Refused)?;
        let name = question.repository.unwrap_or_default();
        let key = Key::new(&name.namespace, &name.name);
        let repository = self.context.world.repositories.get(&key);
        let repository =
            repository.ok_or_else(|| format!("there is no ResticRepository {key} in this cluster"))?;
        let credentials = credentials::read(self.context, &repository).await;
        let credentials = credentials.map_err(|error| format!("the Secret could not be read: {error}"))?;
        let credentials = credentials.map_err(|error| error.to_string())?;
        let all = self.restic.snapshots(&credentials).await?;
        match question.what {
            Some(What::ListSnapshots(asked)) => self.list(all, &asked).await,
            Some(What::ListFolder(asked)) => {
                let snapshot = self.about(&all, &asked.snapshot).await?;
                let path = absolute(&asked.path)?;
                let files = self.restic.folder(&credentials, &snapshot, path).await?;
                // The folder itself is in restic's list.
                let below = files
                    .into_iter()
                    .filter(|file| file.path.trim_end_matches('/') != path.trim_end_matches('/'));
                self.files(below.collect()).await
            }
            Some(What::FindFiles(asked)) => {
                let snapshot = self.about(&all, &asked.snapshot).await?;
                if asked.pattern.is_empty() {
                    return Err(Wrong::Failed("name what is to be found".to_owned()));
                }
                let found = self.restic.find(&credentials, &snapshot, &asked.pattern).await?;
                self.files(found).await
            }
            Some(What::FetchFile(asked)) => {
                let snapshot = self.about(&all, &asked.snapshot).await?;
                self.fetch(&credentials, &snapshot, absolute(&asked.path)?).await
            }
            None => Err(Wrong::Failed(
                "this version of the operator does not know the question: update it".to_owned(),
            )),
        }
    }

    async fn send(&self, part: AnswerPart) -> Result<(), Wrong> {
        match self.context.browsing.part(self.id, part).await {
            true => Ok(()),
            false => Err(Wrong::Unread),
        }
    }

    async fn list(&self, mut all: Vec<Snapshot>, asked: &ListSnapshots) -> Result<(), Wrong> {
        let limit = match usize::try_from(asked.limit).unwrap_or(SNAPSHOTS_MAX) {
            0 => SNAPSHOTS,
            limit => limit.min(SNAPSHOTS_MAX),
        };
        all.retain(|snapshot| {
            let host = asked.host.is_empty() || snapshot.hostname == asked.host;
            host && asked.tags.iter().all(|tag| snapshot.tags.contains(tag))
        });
        all.sort_by(|a, b| b.time.cmp(&a.time).then_with(|| a.id.cmp(&b.id)));
        let cut = all.len() > limit;
        all.truncate(limit);
        for snapshots in parts(all.iter().map(row)) {
            self.send(AnswerPart {
                snapshots,
                ..AnswerPart::default()
            })
            .await?;
        }
        self.cut(cut).await
    }

    /// The snapshot that a beginning of an id means, told before all else: who may read it is decided by it.
    async fn about(&self, all: &[Snapshot], id: &str) -> Result<String, Wrong> {
        let hex = id.len() >= ID_MIN && id.bytes().all(|b| b.is_ascii_hexdigit());
        let mut fit = all.iter().filter(|snapshot| hex && snapshot.id.starts_with(id));
        match (fit.next(), fit.next()) {
            (Some(one), None) => {
                self.send(AnswerPart {
                    snapshots: vec![row(one)],
                    ..AnswerPart::default()
                })
                .await?;
                Ok(one.id.clone())
            }
            (Some(_), Some(_)) => Err(Wrong::Failed(format!(
                "several snapshots begin with {id}: write more of the id"
            ))),
            (None, _) => Err(Wrong::Failed(format!(
                "there is no snapshot {id:?}; write at least {ID_MIN} digits of an id that `fleet snapshots list` shows"
            ))),
        }
    }

    async fn files(&self, mut files: Vec<FileNode>) -> Result<(), Wrong> {
        let cut = files.len() > FILES_MAX;
        files.truncate(FILES_MAX);
        for files in parts(files.iter().map(file)) {
            self.send(AnswerPart {
                files,
                ..AnswerPart::default()
            })
            .await?;
        }
        self.cut(cut).await
    }

    async fn cut(&self, cut: bool) -> Result<(), Wrong> {
        match cut {
            true => {
                self.send(AnswerPart {
                    cut,
                    ..AnswerPart::default()
                })
                .await
            }
            false => Ok(()),
        }
    }

    async fn fetch(&self, credentials: &Credentials, snapshot: &str, path: &str) -> Result<(), Wrong> {
        let (sink, mut bytes) = mpsc::channel(1);
        let dump = self.restic.dump(credentials, snapshot, path, sink);
        // It owns the channel: when it ends, restic is ended too.
        let forward = async move {
            let mut total = 0;
            while let Some(data) = bytes.recv().await {
                let data: Vec<u8> = data;
                total += data.len() as u64;
                if total > BYTES_MAX {
                    return Err(Wrong::Failed(
                        "the file is larger than 1 GiB: restore it".to_owned(),
                    ));
                }
                self.send(AnswerPart {
                    data,
                    ..AnswerPart::default()
                })
                .await?;
            }
            Ok(())
        };
        let (dumped, forwarded) = tokio::join!(dump, forward);
        forwarded?;
        Ok(dumped?)
    }
}

fn absolute(path: &str) -> Result<&str, String> {
    match path.starts_with('/') {
        true => Ok(path),
        false => Err(format!(
            "{path:?} is not absolute: write it as `fleet snapshots ls` shows it"
        )),
    }
}

#[cfg(test)]
mod tests;
