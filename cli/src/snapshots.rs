//! Snapshots, and the files in them, read through a cluster.

use std::io::Write as _;
use std::path::Path;

use jiff::Timestamp;
use proto::v1::{
    AnswerPart, FetchFile, FetchFileRequest, FileRow, FindFiles, FindFilesRequest, ListFolder,
    ListFolderRequest, ListSnapshots, ListSnapshotsRequest, ReadOptions, SnapshotRow,
};
use serde_json::{Value, json};
use tonic::Streaming;

use crate::arguments::{Format, HubArguments, SnapshotList, SnapshotsCommand};
use crate::arriving::{self, Arriving};
use crate::client::Client;
use crate::document::API_VERSION;
use crate::failure::{Failure, code};
use crate::operations::Target;
use crate::output::{line, note, print};
use crate::render::align;
use crate::run::yaml;
use crate::text::{ago, bytes, rfc3339};

fn options(repository: &str) -> Result<Option<ReadOptions>, Failure> {
    let target = Target::parse(repository)?;
    Ok(Some(ReadOptions {
        cluster: target.cluster,
        repository: Some(target.name),
    }))
}

/// All rows of an answer, and whether some were left out.
async fn rows(
    client: &Client,
    mut answer: Streaming<AnswerPart>,
) -> Result<(Vec<SnapshotRow>, Vec<FileRow>, bool), Failure> {
    let (mut snapshots, mut files, mut cut) = (Vec::new(), Vec::new(), false);
    while let Some(part) = answer.message().await.map_err(|status| client.broken(&status))? {
        snapshots.extend(part.snapshots);
        files.extend(part.files);
        cut |= part.cut;
    }
    Ok((snapshots, files, cut))
}

/// Carries a command out.
pub async fn snapshots(hub: &HubArguments, command: &SnapshotsCommand) -> Result<u8, Failure> {
    match command {
        SnapshotsCommand::List(asked) => list(hub, asked).await,
        SnapshotsCommand::Ls {
            repository,
            snapshot,
            path,
            output,
        } => {
            let request = ListFolderRequest {
                options: options(repository)?,
                question: Some(ListFolder {
                    snapshot: snapshot.clone(),
                    path: path.clone(),
                }),
            };
            let client = Client::connect(hub).await?;
            let answer = client.answer(client.control().list_folder(request)).await?;
            files(&client, answer, *output).await
        }
        SnapshotsCommand::Find {
            repository,
            snapshot,
            pattern,
            output,
        } => {
            let request = FindFilesRequest {
                options: options(repository)?,
                question: Some(FindFiles {
                    snapshot: snapshot.clone(),
                    pattern: pattern.clone(),
                }),
            };
            let client = Client::connect(hub).await?;
            let answer = client.answer(client.control().find_files(request)).await?;
            files(&client, answer, *output).await
        }
        SnapshotsCommand::Get {
            repository,
            snapshot,
            path,
            to,
        } => {
            let request = FetchFileRequest {
                options: options(repository)?,
                question: Some(FetchFile {
                    snapshot: snapshot.clone(),
                    path: path.clone(),
                }),
            };
            get(hub, request, to.as_deref()).await
        }
    }
}

async fn list(hub: &HubArguments, asked: &SnapshotList) -> Result<u8, Failure> {
    let request = ListSnapshotsRequest {
        options: options(&asked.repository)?,
        question: Some(ListSnapshots {
            host: asked.host.clone(),
            tags: asked.tag.clone(),
            limit: asked.limit,
        }),
    };
    let client = Client::connect(hub).await?;
    let answer = client.answer(client.control().list_snapshots(request)).await?;
    let (snapshots, _, cut) = rows(&client, answer).await?;
    let items: Vec<Value> = snapshots.iter().map(snapshot_document).collect();
    match asked.output {
        Format::Json => line(&format!("{:#}", document("SnapshotList", &items, cut))),
        Format::Yaml => print(&yaml(&document("SnapshotList", &items, cut))),
        Format::Name => snapshots.iter().for_each(|snapshot| line(&snapshot.id)),
        Format::Table | Format::Wide if snapshots.is_empty() => note("no snapshot matches"),
        format @ (Format::Table | Format::Wide) => {
            print(&snapshot_table(
                &snapshots,
                format == Format::Wide,
                Timestamp::now(),
            ));
        }
    }
    Ok(told(cut))
}

async fn files(client: &Client, answer: Streaming<AnswerPart>, output: Format) -> Result<u8, Failure> {
    let (_, files, cut) = rows(client, answer).await?;
    Ok(show(&files, cut, output))
}

/// A file that was cut off on its way is none: it would look like the one that was backed up.
async fn get(hub: &HubArguments, request: FetchFileRequest, to: Option<&Path>) -> Result<u8, Failure> {
    to.map_or(Ok(()), arriving::free)?;
    let client = Client::connect(hub).await?;
    let mut answer = client.answer(client.control().fetch_file(request)).await?;
    let mut arriving = to.map(Arriving::begin).transpose()?;
    let mut out = std::io::stdout();
    let stdout = |error| Failure::Output {
        path: "stdout".to_owned(),
        error,
    };
    while let Some(part) = answer.message().await.map_err(|status| client.broken(&status))? {
        match &mut arriving {
            Some(arriving) => arriving.write(&part.data)?,
            None => out.write_all(&part.data).map_err(stdout)?,
        }
    }
    match arriving {
        Some(arriving) => arriving.finish()?,
        None => out.flush().map_err(stdout)?,
    }
    Ok(0)
}

/// Says that there is more.
fn told(cut: bool) -> u8 {
    if cut {
        note("there is more; narrow the question, or raise --limit");
        return code::FINDING;
    }
    0
}

fn show(files: &[FileRow], cut: bool, output: Format) -> u8 {
    let items: Vec<Value> = files.iter().map(file_document).collect();
    match output {
        Format::Json => line(&format!("{:#}", document("FileList", &items, cut))),
        Format::Yaml => print(&yaml(&document("FileList", &items, cut))),
        Format::Name => files.iter().for_each(|file| line(&file.path)),
        Format::Table | Format::Wide if files.is_empty() => note("nothing is there"),
        Format::Table | Format::Wide => print(&file_table(files)),
    }
    told(cut)
}

fn document(kind: &str, items: &[Value], cut: bool) -> Value {
    json!({ "apiVersion": API_VERSION, "kind": kind, "asOf": Timestamp::now().to_string(), "cut": cut, "items": items })
}

fn snapshot_document(snapshot: &SnapshotRow) -> Value {
    json!({ "id": snapshot.id, "time": rfc3339(snapshot.time.as_ref()), "host": snapshot.host, "tags": snapshot.tags,
            "paths": snapshot.paths, "bytes": snapshot.bytes, "files": snapshot.files })
}

fn file_document(file: &FileRow) -> Value {
    json!({ "path": file.path, "type": file.r#type, "size": file.size, "modified": rfc3339(file.modified.as_ref()) })
}

fn snapshot_table(snapshots: &[SnapshotRow], wide: bool, now: Timestamp) -> String {
    let heading = ["ID", "AGE", "HOST", "SIZE", "FILES", "TAGS"];
    let mut lines = vec![heading.map(str::to_owned).to_vec()];
    for snapshot in snapshots {
        let id = snapshot.id.get(..8).filter(|_| !wide).unwrap_or(&snapshot.id);
        lines.push(vec![
            id.to_owned(),
            ago(snapshot.time.as_ref(), now),
            snapshot.host.clone(),
            bytes(snapshot.bytes),
            snapshot.files.to_string(),
            snapshot.tags.join(","),
        ]);
    }
    align(&lines)
}

fn file_table(files: &[FileRow]) -> String {
    let mut lines = vec![["TYPE", "SIZE", "MODIFIED", "PATH"].map(str::to_owned).to_vec()];
    for file in files {
        lines.push(vec![
            file.r#type.clone(),
            bytes(file.size),
            rfc3339(file.modified.as_ref()).unwrap_or_else(|| "-".to_owned()),
            file.path.clone(),
        ]);
    }
    align(&lines)
}
