//! What repositories store, how that grows, and when there is no room any more.

use clap::Args;
use jiff::Timestamp;
use proto::v1::{StorageRequest, StorageResponse, StorageRow};
use serde_json::{Value, json};

use crate::arguments::{Format, HubArguments};
use crate::client::Client;
use crate::document::{API_VERSION, text};
use crate::failure::Failure;
use crate::output::{self, line, note, print};
use crate::render;
use crate::run::yaml;
use crate::text::{ago, bytes, counted, rfc3339, until};

#[derive(Debug, Args)]
pub struct Storage {
    /// Room for all repositories together, such as 10TiB: says when it is full.
    #[arg(long, value_parser = size)]
    pub capacity: Option<u64>,
    /// Days that the growth is worked out of, up to 732.
    #[arg(long, default_value_t = 90, value_parser = clap::value_parser!(u32).range(7..=732))]
    pub days: u32,
    /// table, wide, json, yaml or name.
    #[arg(short, long, value_enum, default_value_t = Format::Table)]
    pub output: Format,
}

/// Carries the command out.
pub async fn show(hub: &HubArguments, of: &Storage) -> Result<u8, Failure> {
    let client = Client::connect(hub).await?;
    let request = StorageRequest {
        days: of.days,
        capacity_bytes: of.capacity.unwrap_or_default(),
    };
    let answer = client.answer(client.view().storage(request)).await?;
    match of.output {
        Format::Json => line(&format!("{:#}", document(&answer))),
        Format::Yaml => print(&yaml(&document(&answer))),
        Format::Name => answer.rows.iter().for_each(|row| line(&row.restic_id)),
        format @ (Format::Table | Format::Wide) => {
            let now = Timestamp::now();
            if !answer.rows.is_empty() {
                let wide = format == Format::Wide;
                output::table(&table(&answer.rows, wide, now), wide);
            }
            let asked = of.capacity.is_some();
            summary(&answer, asked, now).iter().for_each(|text| note(text));
        }
    }
    Ok(0)
}

/// Bytes, such as `10TiB`, `500GB` or `1000000`.
fn size(text: &str) -> Result<u64, String> {
    const UNITS: [(&str, u64); 12] = [
        ("KiB", 1 << 10),
        ("MiB", 1 << 20),
        ("GiB", 1 << 30),
        ("TiB", 1 << 40),
        ("PiB", 1 << 50),
        ("kB", 1_000),
        ("KB", 1_000),
        ("MB", 1_000_000),
        ("GB", 1_000_000_000),
        ("TB", 1_000_000_000_000),
        ("PB", 1_000_000_000_000_000),
        ("B", 1),
    ];
    let unit = UNITS
        .into_iter()
        .find_map(|(unit, factor)| Some((text.strip_suffix(unit)?, factor)));
    let (number, factor) = unit.unwrap_or((text, 1));
    let count = number
        .trim()
        .parse::<u64>()
        .ok()
        .and_then(|n| n.checked_mul(factor));
    count
        .filter(|count| *count > 0)
        .ok_or_else(|| format!("{text:?} is not a size such as 10TiB or 500GB"))
}

fn growth(row: Option<i64>) -> String {
    match row {
        None => "-".to_owned(),
        Some(less @ ..0) => format!("-{}", bytes(less.unsigned_abs())),
        Some(more) => format!("+{}", bytes(more.unsigned_abs())),
    }
}

fn table(rows: &[StorageRow], wide: bool, now: Timestamp) -> String {
    let mut header = vec!["REPOSITORY", "STORED", "IN 30 DAYS", "SNAPSHOTS", "READ"];
    if wide {
        header.extend(["UNCOMPRESSED", "ID"]);
    }
    header.push("WHY");
    let mut lines = vec![header.into_iter().map(str::to_owned).collect::<Vec<_>>()];
    for row in rows {
        let known = |count: Option<u64>| count.map_or_else(|| "-".to_owned(), bytes);
        let mut cells = vec![
            row.name.clone(),
            known(row.stored_bytes),
            growth(row.growth_per_month),
            row.snapshots.to_string(),
            ago(row.at.as_ref(), now),
        ];
        if wide {
            cells.extend([known(row.uncompressed_bytes), row.restic_id.clone()]);
        }
        cells.push(row.growth_unknown.clone());
        lines.push(cells);
    }
    render::align(&lines)
}

/// Of all of them together.
fn summary(answer: &StorageResponse, asked: bool, now: Timestamp) -> Vec<String> {
    let mut lines = vec![format!(
        "{}: {} stored, {} in 30 days",
        counted(answer.repositories, "repository", "repositories"),
        bytes(answer.stored_bytes),
        growth(answer.growth_per_month)
    )];
    if answer.unknown > 0 || answer.growth_unknown > 0 {
        lines.push(format!(
            "not in it: the size of {}, and the growth of {}",
            answer.unknown, answer.growth_unknown
        ));
    }
    if asked {
        lines.push(match rfc3339(answer.full.as_ref()) {
            Some(at) => format!(
                "full {} ({at}), if all goes on like this",
                until(answer.full.as_ref(), now)
            ),
            None => answer.full_unknown.clone(),
        });
    }
    lines
}

fn document(answer: &StorageResponse) -> Value {
    let item = |row: &StorageRow| {
        json!({
            "resticID": row.restic_id, "name": row.name, "storedBytes": row.stored_bytes,
            "uncompressedBytes": row.uncompressed_bytes, "snapshots": row.snapshots, "at": rfc3339(row.at.as_ref()),
            "growthPerMonthBytes": row.growth_per_month, "growthUnknown": text(&row.growth_unknown),
        })
    };
    let items: Vec<Value> = answer.rows.iter().map(item).collect();
    let points = answer.points.iter();
    let points: Vec<Value> = points
        .map(|p| json!({ "at": rfc3339(p.at.as_ref()), "storedBytes": p.stored_bytes, "repositories": p.repositories }))
        .collect();
    json!({
        "apiVersion": API_VERSION, "kind": "Storage", "asOf": rfc3339(answer.as_of.as_ref()), "storedBytes": answer.stored_bytes,
        "repositories": answer.repositories, "unknown": answer.unknown, "growthUnknown": answer.growth_unknown,
        "growthPerMonthBytes": answer.growth_per_month, "full": rfc3339(answer.full.as_ref()),
        "fullUnknown": text(&answer.full_unknown), "points": points, "items": items,
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_as_people_write_them() {
        for (text, bytes) in [
            ("10TiB", 10 << 40),
            ("500 GB", 500_000_000_000),
            ("7", 7),
            ("7B", 7),
        ] {
            assert_eq!(size(text), Ok(bytes), "{text}");
        }
        for none in ["", "TiB", "-1GB", "1.5GB", "0", "99999PiB", "ten"] {
            assert!(size(none).is_err(), "{none}");
        }
    }

    #[test]
    fn growth_and_what_is_not_known_are_shown() {
        let now = Timestamp::from_second(1_795_000_000).unwrap();
        let rows = vec![
            StorageRow {
                name: "nas".to_owned(),
                stored_bytes: Some(2048),
                growth_per_month: Some(-1024),
                ..StorageRow::default()
            },
            StorageRow {
                name: "new".to_owned(),
                growth_unknown: "its figures reach back for less than a week".to_owned(),
                ..StorageRow::default()
            },
        ];
        let text = table(&rows, true, now);
        assert!(
            text.contains("-1.0 KiB") && text.contains("less than a week"),
            "{text}"
        );
        let answer = StorageResponse {
            repositories: 2,
            unknown: 1,
            growth_unknown: 1,
            full: Some(proto::time::from_unix(1_795_000_000 + 3 * 86_400)),
            ..StorageResponse::default()
        };
        let lines = summary(&answer, true, now);
        assert!(
            lines[0].contains("2 repositories") && lines[1].contains("the size of 1"),
            "{lines:?}"
        );
        assert!(lines[2].starts_with("full in 3d"), "{lines:?}");
        assert_eq!(summary(&answer, false, now).len(), 2);
    }
}
