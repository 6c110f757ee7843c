//! Texts of notifications, and their bodies for each kind of receiver. Pure.

use crds::notifications::{NtfyConfig, SlackConfig};
use serde_json::{Map, Value, json};

use super::{Figures, Notification, Occasion};
use crate::units;

/// One line: what, and what of it.
#[must_use]
pub fn title(notification: &Notification) -> String {
    let subject = &notification.subject;
    let thing = match subject.kind {
        "ResticBackup" => "Backup",
        "ResticRestore" => "Restore",
        "ResticRepository" => "Repository",
        "GlobalRetentionPolicy" => "Retention",
        other => other,
    };
    let outcome = match notification.change.occasion {
        Occasion::Success => "Succeeded",
        Occasion::Failure | Occasion::RestoreFailed => "Failed",
        Occasion::Partial => "Partially Failed",
        Occasion::Suspicious => "Suspicious",
        Occasion::Stale => "Stale",
        Occasion::Damage => "Damaged",
        Occasion::ApprovalWanted => "Waits For Approval",
        Occasion::RestoreCompleted => "Completed",
    };
    format!(
        "{}/{} - {thing} {outcome}",
        subject.key.namespace, subject.key.name
    )
}

/// Message, figures and cluster, in lines.
#[must_use]
pub fn text(notification: &Notification) -> String {
    let change = &notification.change;
    let mut lines = Vec::new();
    match &change.reason {
        Some(reason) if !change.message.starts_with(reason.as_str()) => {
            lines.push(format!("{reason}: {}", change.message));
        }
        _ => lines.push(change.message.clone()),
    }
    if let Some(figures) = &change.figures {
        lines.extend(duration(figures).map(|duration| format!("Duration: {duration}")));
        let size = figures.size.and_then(|size| u64::try_from(size).ok());
        lines.extend(size.map(|size| format!("Size: {}", units::bytes(size))));
        lines.extend(figures.files.map(|files| format!("Files: {files}")));
        let snapshot = figures.snapshot.as_deref().and_then(|id| id.get(..8));
        lines.extend(snapshot.map(|snapshot| format!("Snapshot: {snapshot}")));
    }
    lines.push(format!("Cluster: {}", notification.subject.cluster));
    lines.join("\n")
}

fn duration(figures: &Figures) -> Option<String> {
    let seconds = jiff::SignedDuration::try_from_secs_f64(figures.duration?).ok()?;
    Some(units::duration(seconds))
}

/// ntfy's "publish as JSON".
#[must_use]
pub fn ntfy(config: &NtfyConfig, notification: &Notification) -> Value {
    let sign = match notification.change.occasion {
        Occasion::Success | Occasion::RestoreCompleted => "white_check_mark",
        Occasion::Failure | Occasion::Damage | Occasion::RestoreFailed => "x",
        _ => "warning",
    };
    let tags = if config.tags.is_empty() {
        vec![sign.to_owned()]
    } else {
        config.tags.clone()
    };
    json!({
        "topic": config.topic,
        "title": title(notification),
        "message": text(notification),
        "priority": config.priority,
        "tags": tags,
    })
}

/// What incoming webhooks of Slack take.
#[must_use]
pub fn slack(config: &SlackConfig, notification: &Notification) -> Value {
    let escaped = |text: String| {
        text.replace('&', "&amp;")
            .replace('<', "&lt;")
            .replace('>', "&gt;")
    };
    let text = format!(
        "*{}*\n{}",
        escaped(title(notification)),
        escaped(text(notification))
    );
    let mut body = json!({ "text": text });
    if let Some(channel) = &config.channel {
        body["channel"] = json!(channel);
    }
    body
}

/// The whole notification: `{type, timestamp, data}`.
#[must_use]
pub fn document(notification: &Notification) -> Value {
    let change = &notification.change;
    let mut data = Map::new();
    for (name, value) in values(notification) {
        if !matches!(name, "type" | "time") && !value.is_empty() {
            data.insert(name.to_owned(), json!(value));
        }
    }
    if let Some(figures) = &change.figures {
        let time = |time: Option<jiff::Timestamp>| time.map(|time| time.to_string());
        let all = [
            ("startTime", json!(time(figures.started))),
            ("durationSeconds", json!(figures.duration)),
            ("sizeBytes", json!(figures.size)),
            ("files", json!(figures.files)),
            ("lastSuccess", json!(time(figures.last_success))),
        ];
        let known = all.into_iter().filter(|(_, value)| !value.is_null());
        data.extend(known.map(|(name, value)| (name.to_owned(), value)));
    }
    json!({ "type": change.occasion.as_str(), "timestamp": notification.time.to_string(), "data": data })
}

/// What a template may name, in the order of [`crds::notifications::PLACEHOLDERS`].
fn values(notification: &Notification) -> [(&'static str, String); 13] {
    let (subject, change) = (&notification.subject, &notification.change);
    let snapshot = change
        .figures
        .as_ref()
        .and_then(|figures| figures.snapshot.clone());
    [
        ("id", notification.id.clone()),
        ("type", change.occasion.as_str().to_owned()),
        ("title", title(notification)),
        ("message", change.message.clone()),
        ("reason", change.reason.clone().unwrap_or_default()),
        ("time", notification.time.to_string()),
        ("cluster", subject.cluster.clone()),
        ("kind", subject.kind.to_owned()),
        ("namespace", subject.key.namespace.to_string()),
        ("name", subject.key.name.to_string()),
        ("uid", subject.uid.clone()),
        ("run", change.run.clone()),
        ("snapshot", snapshot.unwrap_or_default()),
    ]
}

/// Why a template makes no body.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadTemplate {
    #[error("bodyTemplate: there is no value {0:?}")]
    Unknown(String),
    #[error("bodyTemplate does not make a JSON document: {0}")]
    NotJson(String),
}

/// A template with values in the place of `{{name}}`. They are put in as they stand inside of a JSON string, in one pass:
/// what a value holds is never read as a placeholder or as JSON.
///
/// # Errors
/// It names a value that is not there, or the result is no JSON.
pub fn template(template: &str, notification: &Notification) -> Result<String, BadTemplate> {
    let values = values(notification);
    let (mut body, mut rest) = (String::new(), template);
    while let Some((before, after)) = rest.split_once("{{") {
        let Some((name, after)) = after.split_once("}}") else {
            break;
        };
        let found = values.iter().find(|(known, _)| *known == name.trim());
        let (_, value) = found.ok_or_else(|| BadTemplate::Unknown(name.trim().to_owned()))?;
        let quoted = Value::String(value.clone()).to_string();
        body.push_str(before);
        body.push_str(quoted.get(1..quoted.len() - 1).unwrap_or_default());
        rest = after;
    }
    body.push_str(rest);
    serde_json::from_str::<serde::de::IgnoredAny>(&body)
        .map_err(|error| BadTemplate::NotJson(error.to_string()))?;
    Ok(body)
}

/// Figures of a backup in Prometheus' text format, by the names of the original operator.
#[must_use]
pub fn pushgateway(notification: &Notification) -> String {
    let change = &notification.change;
    let figures = change.figures.clone().unwrap_or_default();
    #[allow(clippy::cast_precision_loss, reason = "metrics are floats")]
    let float = |value: Option<i64>| value.map(|value| value as f64);
    let second = |time: Option<jiff::Timestamp>| float(time.map(jiff::Timestamp::as_second));
    let success = f64::from(u8::from(change.occasion == Occasion::Success));
    let series = [
        (
            "backup_duration_seconds",
            "Duration of the backup operation in seconds",
            figures.duration,
        ),
        (
            "backup_start_timestamp",
            "Unix timestamp when the backup started",
            second(figures.started),
        ),
        (
            "backup_status",
            "Status of the backup (1 = success, 0 = failure)",
            Some(success),
        ),
        (
            "backup_snapshot_size_bytes",
            "Bytes in the backup snapshot",
            float(figures.size),
        ),
        (
            "backup_snapshot_files_total",
            "Number of files in the backup snapshot",
            float(figures.files),
        ),
        (
            "backup_last_success_timestamp",
            "Unix timestamp of the last backup that succeeded",
            second(figures.last_success),
        ),
    ];
    let line = |(name, help, value): (&str, &str, Option<f64>)| {
        value.map(|value| format!("# HELP {name} {help}\n# TYPE {name} gauge\n{name} {value}\n"))
    };
    series.into_iter().filter_map(line).collect()
}
