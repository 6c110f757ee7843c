//! Answers people's questions about snapshots and files, one at a time. restic runs here, with `--no-lock`: the hub has no
//! key, and nobody needs a right to exec into a pod. Bounded in time, size and count.

use std::sync::Arc;
use std::time::Duration;

use prost::Message;
use proto::time::from_unix_millis;
use proto::v1::question::What;
use proto::v1::{AnswerPart, Browse, FileRow, ListSnapshots, Question, SnapshotRow};
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tracing::info;

use crate::allow::Allow;
use crate::context::Context;
use crate::credentials;
use crate::restic::{FileNode, Restic, Snapshot};
use crate::secrets::Credentials;
use crate::world::Key;

/// Time for the whole of an answer.
const TIME: Duration = Duration::from_secs(15 * 60);
/// Rows of one part.
const ROWS: usize = 200;
/// A part that is larger takes no more rows.
const PART_BYTES: usize = 256 << 10;
/// Paths of a snapshot that are shown, and its tags: count and bytes.
const LIST_MAX: usize = 64;
const LIST_BYTES: usize = 64 << 10;
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

/// Rows in parts that are bounded in count and, but for a row that is larger by itself, in size.
fn parts<T: Message>(rows: impl Iterator<Item = T>) -> Vec<Vec<T>> {
    let (mut parts, mut part, mut size) = (Vec::new(), Vec::new(), 0);
    for row in rows {
        let of_row = row.encoded_len();
        if part.len() >= ROWS || (!part.is_empty() && size + of_row > PART_BYTES) {
            parts.push(std::mem::take(&mut part));
            size = 0;
        }
        size += of_row;
        part.push(row);
    }
    if !part.is_empty() {
        parts.push(part);
    }
    parts
}

/// The first of a snapshot's paths or tags. What is left out is counted in a last line.
fn shortened(list: &[String]) -> Vec<String> {
    let mut bytes = 0;
    let fits = list.iter().take(LIST_MAX).take_while(|text| {
        bytes += text.len();
        bytes <= LIST_BYTES
    });
    let mut short: Vec<String> = fits.cloned().collect();
    if short.len() < list.len() {
        short.push(format!("… and {} more", list.len() - short.len()));
    }
    short
}

fn row(snapshot: &Snapshot) -> SnapshotRow {
    let summary = snapshot.summary.clone().unwrap_or_default();
    SnapshotRow {
        id: snapshot.id.clone(),
        time: Some(from_unix_millis(snapshot.time.as_millisecond())),
        host: snapshot.hostname.clone(),
        tags: shortened(&snapshot.tags),
        paths: shortened(&snapshot.paths),
        bytes: summary.total_bytes_processed.unwrap_or_default(),
        files: summary.total_files_processed.unwrap_or_default(),
    }
}

fn file(node: &FileNode) -> FileRow {
    FileRow {
        path: node.path.clone(),
        r#type: node.kind.clone(),
        size: node.size,
        modified: node.mtime.map(|time| from_unix_millis(time.as_millisecond())),
    }
}

#[cfg(test)]
mod tests {
    use proto::v1::spoke_message::Body;
    use proto::v1::{BrowsePart, FindFiles, ListFolder, ObjectName};
    use serde_json::json;

    use super::*;
    use crate::testing::ApiServer;
    use crate::testing::restic::MemoryRestic;
    use crate::testing::spoke::{SHOP, Spoke, furnish};

    #[test]
    fn a_part_of_an_answer_is_bounded_whatever_a_snapshot_holds() {
        let few = vec!["a".to_owned(), "b".to_owned()];
        assert_eq!(shortened(&few), few);
        let many: Vec<String> = (0..1000).map(|n| format!("/{n}")).collect();
        let short = shortened(&many);
        assert_eq!((short.len(), short[64].as_str()), (65, "… and 936 more"));
        let long = vec!["x".repeat(60_000); 3];
        assert_eq!(shortened(&long)[1..], ["… and 2 more"]);
        let row = SnapshotRow {
            paths: shortened(&long),
            tags: shortened(&long),
            ..SnapshotRow::default()
        };
        let parts = parts(std::iter::repeat_n(row, 5));
        assert_eq!(parts.iter().map(Vec::len).collect::<Vec<_>>(), [2, 2, 1]);
    }

    fn question(name: &str, what: What) -> Question {
        let repository = Some(ObjectName {
            namespace: SHOP.to_owned(),
            name: name.to_owned(),
        });
        Question {
            repository,
            what: Some(what),
        }
    }

    /// All parts of the answer, the last one included.
    async fn ask(api: &ApiServer, spoke: &Spoke, id: u64, question: Question) -> Vec<BrowsePart> {
        let browsing = &spoke.context.browsing;
        browsing.ask(Browse {
            id,
            question: Some(question),
            who: "ann".to_owned(),
        });
        let mut parts = Vec::new();
        api.until("the end of an answer", |_| {
            for body in browsing.take() {
                if let Body::BrowsePart(part) = body {
                    browsing.more(id, 1);
                    parts.push(part);
                }
            }
            parts.last().is_some_and(|part| part.last).then_some(())
        })
        .await;
        parts
    }

    async fn bench(arguments: &[&str]) -> (ApiServer, Arc<MemoryRestic>, Spoke) {
        let (api, restic) = (ApiServer::new(), Arc::new(MemoryRestic::default()));
        furnish(&api);
        let snapshot = |digit: &str, host: &str, day: u8| {
            serde_json::from_value::<Snapshot>(json!({
                "id": digit.repeat(64), "time": format!("2026-11-{day:02}T00:00:00Z"), "hostname": host,
                "tags": ["fleet.cluster=a"], "paths": ["/backup"],
            }))
            .unwrap()
        };
        restic.hold(vec![
            snapshot("a", "one", 1),
            snapshot("b", "two", 3),
            snapshot("c", "one", 2),
        ]);
        let files = (0..450).map(|n| FileNode {
            path: format!("/backup/{n:03}"),
            kind: "file".to_owned(),
            size: n,
            mtime: None,
        });
        restic.hold_files(files.collect());
        let all: Vec<&str> = ["--leader-elect", "false", "--hub", "https://127.0.0.1:1"]
            .into_iter()
            .chain(arguments.iter().copied())
            .collect();
        let spoke = Spoke::start_as("", &api, &restic, &all).await;
        api.until("the repository", |_| {
            let at = Key::new(SHOP, "nas");
            spoke.context.world.repositories.get(&at).map(drop)
        })
        .await;
        (api, restic, spoke)
    }

    #[tokio::test(start_paused = true)]
    async fn snapshots_are_listed_newest_first_and_bounded() {
        let (api, _, spoke) = bench(&[]).await;
        let list = |host: &str, limit| {
            question(
                "nas",
                What::ListSnapshots(ListSnapshots {
                    host: host.to_owned(),
                    limit,
                    ..ListSnapshots::default()
                }),
            )
        };
        let ids = |parts: &[BrowsePart]| {
            let rows = parts.iter().filter_map(|part| part.part.as_ref());
            let rows = rows.flat_map(|part| part.snapshots.iter().map(|s| s.id[..1].to_owned()));
            rows.collect::<String>()
        };
        let cut = |parts: &[BrowsePart]| parts.iter().any(|p| p.part.as_ref().is_some_and(|p| p.cut));
        let all = ask(&api, &spoke, 1, list("", 0)).await;
        assert_eq!((ids(&all).as_str(), cut(&all)), ("bca", false));
        let two = ask(&api, &spoke, 2, list("", 2)).await;
        assert_eq!((ids(&two).as_str(), cut(&two)), ("bc", true));
        assert_eq!(ids(&ask(&api, &spoke, 3, list("one", 0)).await), "ca");
        let wrong = ask(
            &api,
            &spoke,
            4,
            question("none", What::ListSnapshots(ListSnapshots::default())),
        )
        .await;
        assert!(
            wrong[0].error.contains("no ResticRepository shop/none"),
            "{wrong:?}"
        );
        spoke.stop().await;
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_says_first_which_snapshot_it_is_about() {
        let (api, restic, spoke) = bench(&[]).await;
        let folder = |snapshot: &str, path: &str| {
            question(
                "nas",
                What::ListFolder(ListFolder {
                    snapshot: snapshot.to_owned(),
                    path: path.to_owned(),
                }),
            )
        };
        let parts = ask(&api, &spoke, 1, folder("bbbbbbbb", "/backup")).await;
        let first = parts[0].part.as_ref().unwrap();
        assert_eq!((first.snapshots[0].host.as_str(), first.files.len()), ("two", 0));
        let rows: Vec<usize> = parts
            .iter()
            .filter_map(|p| Some(p.part.as_ref()?.files.len()))
            .collect();
        assert_eq!(rows, [0, 200, 200, 50]);
        for (snapshot, path, why) in [
            ("bbbb", "/backup", "at least 8"),
            ("dddddddd", "/backup", "no snapshot"),
            ("--help00", "/backup", "no snapshot"),
            ("bbbbbbbb", "backup", "not absolute"),
        ] {
            let wrong = ask(&api, &spoke, 2, folder(snapshot, path)).await;
            let error = &wrong.last().unwrap().error;
            assert!(error.contains(why), "{snapshot} {path}: {error}");
        }
        let failing = crate::restic::Failure::WrongPassword;
        restic.fail(Some(failing));
        let find = What::FindFiles(FindFiles {
            snapshot: "bbbbbbbb".to_owned(),
            pattern: "*".to_owned(),
        });
        let failed = ask(&api, &spoke, 3, question("nas", find)).await;
        assert!(
            failed[0].last && failed[0].error.contains("password"),
            "{failed:?}"
        );
        spoke.stop().await;
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_not_allowed_is_refused_and_restic_is_not_asked() {
        let (api, restic, spoke) = bench(&["--allow", "run"]).await;
        let before = restic
            .questions()
            .iter()
            .filter(|question| **question == "snapshots")
            .count();
        let refused = ask(
            &api,
            &spoke,
            1,
            question("nas", What::ListSnapshots(ListSnapshots::default())),
        )
        .await;
        let [refused] = refused.as_slice() else {
            panic!("{refused:?}")
        };
        assert!(
            refused.refused && refused.error.contains("add read to --allow"),
            "{refused:?}"
        );
        let after = restic
            .questions()
            .iter()
            .filter(|question| **question == "snapshots")
            .count();
        assert_eq!(before, after);
        spoke.stop().await;
    }
}
