//! Volumes that no backup covers.

use clap::Args;
use jiff::Timestamp;
use proto::v1::{ClaimRow, CoverageRequest, CoverageResponse};
use serde_json::{Value, json};

use crate::arguments::{Format, HubArguments};
use crate::client::Client;
use crate::document::{API_VERSION, freshness, text};
use crate::failure::Failure;
use crate::output::{self, line, note, print};
use crate::render;
use crate::run::yaml;
use crate::text::{ago, bytes, counted, rfc3339, until};

#[derive(Debug, Args)]
pub struct Coverage {
    /// Any part of cluster/namespace/claim.
    pub text: Option<String>,
    /// Only these clusters.
    #[arg(short, long)]
    pub cluster: Vec<String>,
    /// Only these namespaces.
    #[arg(short, long)]
    pub namespace: Vec<String>,
    /// uncovered, new (younger than a day) or excluded; uncovered and new unless given.
    #[arg(long)]
    pub state: Vec<String>,
    /// table, wide, json, yaml or name.
    #[arg(short, long, value_enum, default_value_t = Format::Table)]
    pub output: Format,
}

/// Carries the command out.
pub async fn show(hub: &HubArguments, of: &Coverage) -> Result<u8, Failure> {
    let client = Client::connect(hub).await?;
    let mut request = CoverageRequest {
        clusters: of.cluster.clone(),
        namespaces: of.namespace.clone(),
        states: of.state.clone(),
        text: of.text.clone().unwrap_or_default(),
        ..CoverageRequest::default()
    };
    let mut whole: Option<CoverageResponse> = None;
    loop {
        let page = client.answer(client.view().coverage(request.clone())).await?;
        request.page_token.clone_from(&page.next_page_token);
        match &mut whole {
            Some(whole) => whole.rows.extend(page.rows),
            None => whole = Some(page),
        }
        if request.page_token.is_empty() {
            break;
        }
    }
    let answer = whole.unwrap_or_default();
    match of.output {
        Format::Json => line(&format!("{:#}", document(&answer))),
        Format::Yaml => print(&yaml(&document(&answer))),
        Format::Name => answer.rows.iter().for_each(|row| line(&row.key)),
        format @ (Format::Table | Format::Wide) => {
            if !answer.rows.is_empty() {
                let wide = format == Format::Wide;
                output::table(&table(&answer.rows, wide, Timestamp::now()), wide);
            }
            summary(&answer).iter().for_each(|text| note(text));
        }
    }
    Ok(0)
}

fn table(rows: &[ClaimRow], wide: bool, now: Timestamp) -> String {
    let mut header = vec!["CLUSTER", "NAMESPACE", "CLAIM", "STATE", "SIZE", "CREATED"];
    if wide {
        header.extend(["EXCLUDED", "HEARD"]);
    }
    header.push("WHY");
    let mut lines = vec![header.into_iter().map(str::to_owned).collect::<Vec<_>>()];
    for row in rows {
        let size = match row.bytes {
            0 => "-".to_owned(),
            count => bytes(count),
        };
        let mut cells = vec![
            row.cluster.clone(),
            row.namespace.clone(),
            row.name.clone(),
            row.state.to_uppercase(),
            size,
            ago(row.created.as_ref(), now),
        ];
        if wide {
            cells.extend([
                until(row.excluded_until.as_ref(), now),
                render::stale(row.freshness.as_ref(), now),
            ]);
        }
        cells.push(row.reason.clone());
        lines.push(cells);
    }
    render::align(&lines)
}

/// What the rows do not show.
fn summary(answer: &CoverageResponse) -> Vec<String> {
    let mut lines = vec![format!(
        "{}: {} covered, {} uncovered, {} new, {} excluded",
        counted(answer.claims, "claim", "claims"),
        answer.covered,
        answer.uncovered,
        answer.new,
        answer.excluded
    )];
    if answer.unknown_clusters > 0 {
        lines.push(format!(
            "not known of {}; they have not reported their claims since the hub began, or their spoke is too old",
            named(answer.unknown_clusters, &answer.unknown)
        ));
    }
    if answer.partial_clusters > 0 {
        lines.push(format!(
            "known in part of {}: their operator watches some namespaces alone (--namespaces), and claims elsewhere are not counted",
            named(answer.partial_clusters, &answer.partial)
        ));
    }
    if answer.stale_clusters > 0 {
        lines.push(format!(
            "as silent: {}; their claims are those of their last report, and whether a backup still covers {} of the covered claims is not known",
            named(answer.stale_clusters, &answer.stale),
            answer.covered_stale
        ));
    }
    if answer.cut {
        lines.push("some cluster has more claims without a backup than it reports one by one".to_owned());
    }
    lines
}

/// Clusters with their number, those that are named first.
fn named(clusters: u64, names: &[String]) -> String {
    let more = clusters.saturating_sub(names.len() as u64);
    let more = if more > 0 {
        format!(" and {more} more")
    } else {
        String::new()
    };
    let count = counted(clusters, "cluster", "clusters");
    format!("{count}: {}{more}", names.join(", "))
}

fn document(answer: &CoverageResponse) -> Value {
    let item = |row: &ClaimRow| {
        json!({
            "cluster": row.cluster, "namespace": row.namespace, "name": row.name, "state": row.state, "reason": text(&row.reason),
            "created": rfc3339(row.created.as_ref()), "bytes": if row.bytes == 0 { Value::Null } else { json!(row.bytes) },
            "excludedUntil": rfc3339(row.excluded_until.as_ref()), "freshness": freshness(row.freshness.as_ref()),
        })
    };
    let items: Vec<Value> = answer.rows.iter().map(item).collect();
    json!({
        "apiVersion": API_VERSION, "kind": "CoverageList", "asOf": rfc3339(answer.as_of.as_ref()), "claims": answer.claims,
        "covered": answer.covered, "uncovered": answer.uncovered, "new": answer.new, "excluded": answer.excluded,
        "unknownClusters": answer.unknown_clusters, "unknown": answer.unknown, "cut": answer.cut,
        "partialClusters": answer.partial_clusters, "partial": answer.partial, "staleClusters": answer.stale_clusters,
        "stale": answer.stale, "coveredStale": answer.covered_stale, "items": items,
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn answer() -> CoverageResponse {
        let row = ClaimRow {
            key: "a/shop/data".to_owned(),
            cluster: "a".to_owned(),
            namespace: "shop".to_owned(),
            name: "data".to_owned(),
            state: "uncovered".to_owned(),
            reason: "its exclusion\u{1b}[2J ended".to_owned(),
            created: Some(proto::time::from_unix(1_795_000_000)),
            ..ClaimRow::default()
        };
        CoverageResponse {
            claims: 3,
            covered: 2,
            uncovered: 1,
            unknown_clusters: 22,
            unknown: vec!["b".to_owned(), "c".to_owned()],
            partial_clusters: 1,
            partial: vec!["d".to_owned()],
            stale_clusters: 1,
            stale: vec!["e".to_owned()],
            covered_stale: 2,
            rows: vec![row],
            ..CoverageResponse::default()
        }
    }

    #[test]
    fn what_is_not_known_is_said_beside_the_rows() {
        let answer = answer();
        let now = Timestamp::from_second(1_795_003_600).unwrap();
        let table = table(&answer.rows, true, now);
        assert!(
            table.contains("UNCOVERED") && table.contains("60m ago"),
            "{table}"
        );
        assert!(!table.contains('\u{1b}'), "{table}");
        let lines = summary(&answer);
        assert_eq!(lines[0], "3 claims: 2 covered, 1 uncovered, 0 new, 0 excluded");
        assert!(lines[1].contains("22 clusters: b, c and 20 more"), "{lines:?}");
        assert!(
            lines[2].starts_with("known in part of 1 cluster: d: "),
            "{lines:?}"
        );
        assert!(
            lines[3].contains("1 cluster: e") && lines[3].contains("2 of the covered claims is not known"),
            "{lines:?}"
        );
        let document = document(&answer);
        assert_eq!(document["items"][0]["bytes"], Value::Null, "it is not known");
        assert_eq!(document["unknownClusters"], 22);
    }
}
