//! What other tools keep, as ours write it. Pure.

use serde_json::{Map, Value, json};

use super::plan::Plan;

/// Rules that a policy takes.
const MOST: usize = 64;

/// Counts of an object under our names; zeros are no rules. The other tool's name stands first.
#[must_use]
pub fn counts(theirs: &Value, names: &[(&str, &str)]) -> Map<String, Value> {
    let counts = names.iter().filter_map(|(name, ours)| {
        let count = theirs.get(*name)?.as_i64().filter(|count| *count > 0)?;
        Some(((*ours).to_owned(), json!(count)))
    });
    counts.collect()
}

/// A span of restic (`14d`, `1y6m`) as ours takes it: without weeks, which restic does not know either.
#[must_use]
pub fn span(text: &str) -> Option<String> {
    let (mut number, mut units, mut parts) = (String::new(), Vec::new(), Vec::new());
    for c in text.trim().chars() {
        match c {
            '0'..='9' => number.push(c),
            'y' | 'm' | 'd' | 'h' if !number.is_empty() && !units.contains(&c) => {
                units.push(c);
                parts.push(format!("{}{c}", std::mem::take(&mut number)));
            }
            _ => return None,
        }
    }
    (number.is_empty() && !parts.is_empty()).then(|| parts.concat())
}

/// A duration of Go (`720h0m0s`) as a span; parts below an hour round up, so that nothing is kept for less.
#[must_use]
pub fn from_duration(text: &str) -> Option<String> {
    let (mut number, mut seconds) = (String::new(), 0_u64);
    for c in text.trim().chars() {
        let unit = match c {
            '0'..='9' => {
                number.push(c);
                continue;
            }
            'h' => 3600,
            'm' => 60,
            's' => 1,
            _ => return None,
        };
        let count: u64 = std::mem::take(&mut number).parse().ok()?;
        seconds = seconds.checked_add(count.checked_mul(unit)?)?;
    }
    let hours = seconds.div_ceil(3600);
    match hours {
        0 => None,
        hours if hours % 24 == 0 => Some(format!("{}d", hours / 24)),
        hours => Some(format!("{hours}h")),
    }
    .filter(|_| number.is_empty())
}

/// A rule of a policy. `selector` has `hostname` or `tags`; without `groups` it is restic's own grouping.
#[must_use]
pub fn rule(selector: Value, groups: &[&str], retention: &Map<String, Value>) -> Value {
    let mut rule = json!({ "selector": selector, "retention": retention });
    if !groups.is_empty() {
        rule["groupBy"] = json!(groups);
    }
    rule
}

/// Leaves out what a policy does not take: nothing is removed of what no rule selects.
pub fn cut(plan: &mut Plan, about: &str, rules: &mut Vec<Value>) {
    if rules.len() > MOST {
        let text = format!(
            "a policy has {MOST} rules at most: rules for the other backups have to be written by hand"
        );
        plan.note(about, text);
        rules.truncate(MOST);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_kept_for_less_than_before() {
        assert_eq!(span("14d").as_deref(), Some("14d"));
        assert_eq!(span("1y6m").as_deref(), Some("1y6m"));
        for not in ["2w", "14", "d", "1d1d", ""] {
            assert_eq!(span(not), None, "{not}");
        }
        assert_eq!(from_duration("720h0m0s").as_deref(), Some("30d"));
        assert_eq!(from_duration("36h30m0s").as_deref(), Some("37h"));
        assert_eq!(from_duration("90m").as_deref(), Some("2h"));
        for not in ["0s", "forever", "3d", "12"] {
            assert_eq!(from_duration(not), None, "{not}");
        }
    }

    #[test]
    fn zeros_are_no_rules() {
        let theirs = json!({ "hourly": 0, "daily": 7 });
        let ours = counts(&theirs, &[("hourly", "keepHourly"), ("daily", "keepDaily")]);
        assert_eq!(Value::Object(ours), json!({ "keepDaily": 7 }));
    }
}
