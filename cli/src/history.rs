//! Size and snapshots of a repository over time.

use proto::v1::{HistoryPoint, HistoryRequest, HistoryResponse};

use crate::arguments::{Format, History, HubArguments};
use crate::client::Client;
use crate::failure::Failure;
use crate::output::{self, line, note, print};
use crate::run::yaml;
use crate::text::{bytes, rfc3339};
use crate::{document, render};

/// Clusters and hosts of one row; the rest is counted.
const SOURCES: usize = 3;

/// Carries the command out.
pub async fn show(hub: &HubArguments, history: &History) -> Result<u8, Failure> {
    let mut client = Client::connect(hub).await?;
    let request = HistoryRequest {
        repository: history.repository.clone(),
        days: history.days,
    };
    let answer = client.history(request).await?;
    match history.output {
        Format::Json => line(&format!("{:#}", document::history(&answer))),
        Format::Yaml => print(&yaml(&document::history(&answer))),
        Format::Name => answer
            .points
            .iter()
            .filter_map(|point| rfc3339(point.at.as_ref()))
            .for_each(|at| line(&at)),
        Format::Table | Format::Wide if answer.points.is_empty() => {
            note("nothing was collected in that time; fleet repos -o wide shows who collects");
        }
        format @ (Format::Table | Format::Wide) => {
            let wide = format == Format::Wide;
            output::table(&table(&answer, wide), wide);
        }
    }
    Ok(0)
}

/// A row for each step, oldest first, with the growth since the one before.
fn table(answer: &HistoryResponse, wide: bool) -> String {
    let header = ["AT", "STORED", "GROWTH", "SNAPSHOTS", "FROM"].map(str::to_owned);
    let mut lines = vec![header.to_vec()];
    let mut before: Option<&HistoryPoint> = None;
    for point in &answer.points {
        lines.push(vec![
            rfc3339(point.at.as_ref()).unwrap_or_default(),
            bytes(point.stored_bytes),
            before.map_or_else(
                || "-".to_owned(),
                |before| growth(before.stored_bytes, point.stored_bytes),
            ),
            point.snapshots.to_string(),
            sources(point, wide),
        ]);
        before = Some(point);
    }
    render::align(&lines)
}

fn growth(before: u64, after: u64) -> String {
    match after.checked_sub(before) {
        Some(more) => format!("+{}", bytes(more)),
        None => format!("-{}", bytes(before - after)),
    }
}

fn sources(point: &HistoryPoint, wide: bool) -> String {
    let shown = if wide { point.sources.len() } else { SOURCES };
    let mut names: Vec<String> = point
        .sources
        .iter()
        .take(shown)
        .map(|s| match s.cluster.as_str() {
            "" => format!("{} {}", s.host, s.snapshots),
            cluster => format!("{cluster}/{} {}", s.host, s.snapshots),
        })
        .collect();
    let more = point.sources.len().saturating_sub(shown);
    if more > 0 {
        names.push(format!("{more} more"));
    }
    names.join(", ")
}

#[cfg(test)]
mod tests {
    use proto::v1::SourceCount;

    use super::*;

    #[test]
    fn growth_and_sources_are_shown_for_each_step() {
        let point = |seconds, stored_bytes, hosts: &[&str]| HistoryPoint {
            at: Some(proto::time::from_unix(seconds)),
            stored_bytes,
            snapshots: 7,
            sources: hosts
                .iter()
                .map(|host| SourceCount {
                    cluster: if host.starts_with("laptop") { "" } else { "a" }.to_owned(),
                    host: (*host).to_owned(),
                    snapshots: 2,
                })
                .collect(),
            ..HistoryPoint::default()
        };
        let answer = HistoryResponse {
            points: vec![
                point(1_795_000_000, 2048, &["x"]),
                point(1_795_003_600, 4096, &["x", "laptop\u{1b}[2J", "y", "z"]),
                point(1_795_007_200, 1024, &[]),
            ],
            ..HistoryResponse::default()
        };
        let text = table(&answer, false);
        assert!(text.contains("+2.0 KiB") && text.contains("-3.0 KiB"), "{text}");
        assert!(
            text.contains("a/x 2, laptop") && text.contains("1 more"),
            "{text}"
        );
        assert!(!text.contains('\u{1b}'), "{text}");
        assert!(table(&answer, true).contains("a/z 2"));
    }
}
