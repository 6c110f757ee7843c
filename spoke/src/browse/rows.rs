//! Snapshots and files as rows of an answer, in parts of bounded size. Pure.

use prost::Message;
use proto::time::from_unix_millis;
use proto::v1::{FileRow, SnapshotRow};

use crate::restic::{FileNode, Snapshot};

/// Rows of one part.
const ROWS: usize = 200;
/// A part that is larger takes no more rows.
const PART_BYTES: usize = 256 << 10;
/// Paths of a snapshot that are shown, and its tags: count and bytes.
const LIST_MAX: usize = 64;
const LIST_BYTES: usize = 64 << 10;

/// Rows in parts that are bounded in count and, but for a row that is larger by itself, in size.
pub(super) fn parts<T: Message>(rows: impl Iterator<Item = T>) -> Vec<Vec<T>> {
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
pub(super) fn shortened(list: &[String]) -> Vec<String> {
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

pub(super) fn row(snapshot: &Snapshot) -> SnapshotRow {
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

pub(super) fn file(node: &FileNode) -> FileRow {
    FileRow {
        path: node.path.clone(),
        r#type: node.kind.clone(),
        size: node.size,
        modified: node.mtime.map(|time| from_unix_millis(time.as_millisecond())),
    }
}
