//! restic's JSON, as far as it is read here. Unknown fields are ignored, missing ones tolerated.

use std::collections::{BTreeMap, HashMap};

use jiff::Timestamp;
use k8s_openapi::ByteString;
use serde::Deserialize;

use super::{Failure, FileNode, Source, Statistics};

/// Most sources of one repository.
const SOURCES: usize = 2_000;

/// `cat config`.
#[derive(Deserialize)]
struct Config {
    id: String,
}

/// One element of `snapshots --json`.
#[derive(Deserialize)]
struct Snapshot {
    time: Timestamp,
    #[serde(default)]
    hostname: String,
    /// May be null.
    tags: Option<Vec<String>>,
    summary: Option<Summary>,
}

/// Written by restic 0.17 and later.
#[derive(Deserialize)]
struct Summary {
    #[serde(default)]
    total_files_processed: u64,
}

/// `stats --mode raw-data --json`.
#[derive(Default, Deserialize)]
struct RawData {
    #[serde(default)]
    total_size: u64,
    #[serde(default)]
    total_uncompressed_size: u64,
}

/// `init --json`.
#[derive(Deserialize)]
struct Initialized {
    id: String,
}

/// Id of a repository out of its config.
pub fn config_id(stdout: &[u8]) -> Result<String, Failure> {
    parse::<Config>(stdout, "cat config").and_then(|config| checked(config.id))
}

/// Id of a new repository.
pub fn initialized_id(stdout: &[u8]) -> Result<String, Failure> {
    parse::<Initialized>(stdout, "init").and_then(|done| checked(done.id))
}

/// One element of `key list --json`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Key {
    id: String,
    /// The password that was given opens it.
    #[serde(default)]
    current: bool,
}

impl Key {
    /// Whether it has this id.
    #[must_use]
    pub fn is(&self, id: &str) -> bool {
        self.id == id
    }
}

/// The keys of a repository.
pub fn keys(stdout: &[u8]) -> Result<Vec<Key>, Failure> {
    parse::<Vec<Key>>(stdout, "key list")
}

/// Id of the key that the repository was opened with, 64 hex digits.
pub fn key_in_use(keys: &[Key]) -> Result<String, Failure> {
    let present = keys.iter().find(|key| key.current);
    let present = present.ok_or_else(|| Failure::Other("restic key list names no key in use".to_owned()));
    checked(present?.id.clone())
}

/// All snapshots. Tags and paths may be null.
pub fn snapshots(stdout: &[u8]) -> Result<Vec<super::Snapshot>, Failure> {
    Ok(parse::<Option<Vec<super::Snapshot>>>(stdout, "snapshots")?.unwrap_or_default())
}

/// `ls --json`: a line for each file, and others. A list that was cut off in the middle of a line is taken as far as it goes.
#[must_use]
pub fn folder(stdout: &[u8]) -> Vec<FileNode> {
    let lines = stdout.split(|byte| *byte == b'\n');
    lines
        .filter_map(|line| serde_json::from_slice(line).ok())
        .collect()
}

/// `find --json`: what was found in each snapshot.
pub fn found(stdout: &[u8]) -> Result<Vec<FileNode>, Failure> {
    #[derive(Deserialize)]
    struct Found {
        #[serde(default)]
        matches: Option<Vec<FileNode>>,
    }
    if stdout.trim_ascii().is_empty() {
        return Ok(Vec::new());
    }
    let found = parse::<Option<Vec<Found>>>(stdout, "find")?.unwrap_or_default();
    Ok(found
        .into_iter()
        .flat_map(|found| found.matches.unwrap_or_default())
        .collect())
}

/// `cat masterkey`.
#[derive(Deserialize)]
struct MasterKey {
    mac: Mac,
    encrypt: ByteString,
}

#[derive(Deserialize)]
struct Mac {
    k: ByteString,
    r: ByteString,
}

/// The master key, its fields decoded. An error holds nothing of it.
pub fn master_key(stdout: &[u8]) -> Result<proto::possession::MasterKey, Failure> {
    let MasterKey { mac, encrypt } = serde_json::from_slice(stdout)
        .map_err(|_| Failure::Other("restic cat masterkey printed what is not understood".to_owned()))?;
    Ok(proto::possession::MasterKey {
        mac_k: mac.k.0,
        mac_r: mac.r.0,
        encrypt: encrypt.0,
    })
}

/// Stored bytes out of raw-data statistics.
pub fn stored_bytes(stdout: &[u8]) -> Result<u64, Failure> {
    parse::<RawData>(stdout, "stats").map(|raw| raw.total_size)
}

/// Figures out of a snapshot list and raw-data statistics.
pub fn statistics(snapshots: &[u8], raw: &[u8]) -> Result<Statistics, Failure> {
    let snapshots: Vec<Snapshot> =
        parse::<Option<Vec<Snapshot>>>(snapshots, "snapshots")?.unwrap_or_default();
    let raw: RawData = parse(raw, "stats")?;
    let mut hosts: HashMap<&str, (u64, Option<Timestamp>)> = HashMap::new();
    for snapshot in &snapshots {
        let (count, latest) = hosts.entry(&snapshot.hostname).or_default();
        *count += 1;
        *latest = (*latest).max(Some(snapshot.time));
    }
    let mut hosts: Vec<_> = hosts
        .into_iter()
        .map(|(host, (count, latest))| (host.to_owned(), count, latest))
        .collect();
    hosts.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
    let files = snapshots
        .iter()
        .map(|s| Some(s.summary.as_ref()?.total_files_processed))
        .sum();
    Ok(Statistics {
        stored: raw.total_size,
        uncompressed: raw.total_uncompressed_size,
        snapshots: snapshots.len() as u64,
        files,
        hosts,
        sources: sources(&snapshots),
    })
}

/// Who has made the snapshots, most first.
fn sources(snapshots: &[Snapshot]) -> Vec<Source> {
    let mut all: BTreeMap<(&str, &str, &str), (u64, Timestamp)> = BTreeMap::new();
    for snapshot in snapshots {
        let tags = snapshot.tags.iter().flatten();
        let mark = |name: &str| {
            tags.clone()
                .find_map(|tag| tag.strip_prefix(name))
                .unwrap_or_default()
        };
        let key = (
            mark("fleet.cluster="),
            mark("fleet.backup="),
            snapshot.hostname.as_str(),
        );
        let (count, newest) = all.entry(key).or_insert((0, snapshot.time));
        *count += 1;
        *newest = (*newest).max(snapshot.time);
    }
    let source =
        |((cluster, backup, host), (count, newest)): ((&str, &str, &str), (u64, Timestamp))| Source {
            cluster: cluster.to_owned(),
            backup: backup.to_owned(),
            host: host.to_owned(),
            snapshots: count,
            newest,
        };
    let mut sources: Vec<Source> = all.into_iter().map(source).collect();
    sources.sort_by_key(|source| std::cmp::Reverse(source.snapshots));
    sources.truncate(SOURCES);
    sources
}

fn parse<'a, T: Deserialize<'a>>(bytes: &'a [u8], command: &str) -> Result<T, Failure> {
    serde_json::from_slice(bytes)
        .map_err(|e| Failure::Other(format!("restic {command} printed what is not understood: {e}")))
}

fn checked(id: String) -> Result<String, Failure> {
    if id.len() == 64 && id.bytes().all(|b| b.is_ascii_hexdigit()) {
        Ok(id)
    } else {
        Err(Failure::Damaged(
            "the repository's config holds no valid id".to_owned(),
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_added_up_per_host() {
        let snapshots = br#"[
            {"time":"2026-11-23T01:00:00.5Z","hostname":"a","summary":{"total_files_processed":3},"id":"x"},
            {"time":"2026-11-23T03:00:00+01:00","hostname":"a","summary":{"total_files_processed":4}},
            {"time":"2026-11-22T01:00:00Z","hostname":"b","summary":{"total_files_processed":5}}]"#;
        let got = statistics(
            snapshots,
            br#"{"total_size":10,"total_uncompressed_size":30,"future":1}"#,
        )
        .unwrap();
        assert_eq!(
            (got.stored, got.uncompressed, got.snapshots, got.files),
            (10, 30, 3, Some(12))
        );
        assert_eq!(got.hosts[0].0, "a");
        assert_eq!(got.hosts[0].2.unwrap().to_string(), "2026-11-23T02:00:00Z");
    }

    #[test]
    fn sources_are_told_apart_by_cluster_backup_and_host() {
        let snapshots = br#"[
            {"time":"2026-11-23T01:00:00Z","hostname":"h","tags":["fleet.cluster=a","fleet.backup=ns/x"]},
            {"time":"2026-11-24T01:00:00Z","hostname":"h","tags":["x","fleet.backup=ns/x","fleet.cluster=a"]},
            {"time":"2026-11-22T01:00:00Z","hostname":"h","tags":["fleet.cluster=b","fleet.backup=ns/x"]},
            {"time":"2026-11-21T01:00:00Z","hostname":"laptop","tags":null}]"#;
        let got = statistics(snapshots, b"{}").unwrap().sources;
        let seen: Vec<_> = got
            .iter()
            .map(|s| {
                (
                    s.cluster.as_str(),
                    s.backup.as_str(),
                    s.host.as_str(),
                    s.snapshots,
                )
            })
            .collect();
        assert_eq!(
            seen,
            [
                ("a", "ns/x", "h", 2),
                ("", "", "laptop", 1),
                ("b", "ns/x", "h", 1)
            ]
        );
        assert_eq!(got[0].newest.to_string(), "2026-11-24T01:00:00Z");
    }

    #[test]
    fn snapshots_of_old_versions_have_no_file_count() {
        let got = statistics(br#"[{"time":"2026-11-23T01:00:00Z","hostname":"a"}]"#, b"{}").unwrap();
        assert_eq!(got.files, None);
        assert_eq!(
            (got.sources[0].cluster.as_str(), got.sources[0].snapshots),
            ("", 1)
        );
        assert_eq!(statistics(b"null", b"{}").unwrap().snapshots, 0);
    }

    #[test]
    fn files_are_read_as_restic_prints_them() {
        let printed = br#"{"time":"2026-11-26T13:00:00Z","paths":["/backup"],"id":"5f","message_type":"snapshot","struct_type":"snapshot"}
{"name":"a.txt","type":"file","path":"/backup/a.txt","uid":0,"size":5,"mtime":"2026-11-26T12:00:00.5+01:00","message_type":"node","struct_type":"node"}
{"name":"small","type":"dir","path":"/backup/small","mtime":"2026-11-26T12:00:00Z","message_type":"node"}
{"name":"cut","type":"fi"#;
        let files = folder(printed);
        let all: Vec<_> = files
            .iter()
            .map(|f| (f.path.as_str(), f.kind.as_str(), f.size))
            .collect();
        assert_eq!(all, [("/backup/a.txt", "file", 5), ("/backup/small", "dir", 0)]);
        assert_eq!(files[0].mtime.unwrap().to_string(), "2026-11-26T11:00:00.5Z");
        let printed = br#"[{"matches":[{"path":"/backup/a.txt","type":"file","size":5,"permissions":"-rw"}],"hits":1,"snapshot":"5f"}]"#;
        assert_eq!(found(printed).unwrap()[0].path, "/backup/a.txt");
        assert_eq!(found(b"[]\n").unwrap(), []);
        assert_eq!(found(b"").unwrap(), []);
    }

    #[test]
    fn an_id_is_64_hex_digits() {
        assert!(config_id(format!("{{\"version\":2,\"id\":\"{}\"}}", "a".repeat(64)).as_bytes()).is_ok());
        assert!(config_id(br#"{"id":"short"}"#).is_err() && config_id(b"garbage").is_err());
    }
}
