//! What a check found, and what all of them mean together. Pure.

use serde_json::{Value, json};

use crate::document::API_VERSION;
use crate::failure::code;
use crate::render::align;

/// How one thing is. What could not be looked at is unknown, and never good.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Outcome {
    /// A person has to act.
    Bad,
    /// It could not be looked at.
    Unknown,
    /// Worth knowing; nothing is wrong.
    Note,
    Good,
}

impl Outcome {
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Outcome::Bad => "BAD",
            Outcome::Unknown => "UNKNOWN",
            Outcome::Note => "NOTE",
            Outcome::Good => "GOOD",
        }
    }
}

/// What a check found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Stable: scripts know a check by it.
    pub id: &'static str,
    pub outcome: Outcome,
    /// What was seen, in one sentence.
    pub text: String,
    /// What to do; empty when nothing is to be done.
    pub hint: String,
}

impl Finding {
    pub fn good(id: &'static str, text: impl Into<String>) -> Finding {
        Finding::new(id, Outcome::Good, text, "")
    }

    pub fn note(id: &'static str, text: impl Into<String>, hint: impl Into<String>) -> Finding {
        Finding::new(id, Outcome::Note, text, hint)
    }

    pub fn bad(id: &'static str, text: impl Into<String>, hint: impl Into<String>) -> Finding {
        Finding::new(id, Outcome::Bad, text, hint)
    }

    pub fn unknown(id: &'static str, text: impl Into<String>, hint: impl Into<String>) -> Finding {
        Finding::new(id, Outcome::Unknown, text, hint)
    }

    fn new(id: &'static str, outcome: Outcome, text: impl Into<String>, hint: impl Into<String>) -> Finding {
        Finding {
            id,
            outcome,
            text: text.into(),
            hint: hint.into(),
        }
    }
}

/// Something that was looked at, or why it could not be.
pub type Fact<T> = Result<T, String>;

/// Judges a fact; one that could not be had is unknown.
pub fn judge<T>(id: &'static str, fact: &Fact<T>, hint: &str, judged: impl FnOnce(&T) -> Finding) -> Finding {
    match fact {
        Ok(fact) => judged(fact),
        Err(why) => Finding::unknown(id, format!("cannot be looked at: {why}"), hint),
    }
}

/// Exit code of all findings.
#[must_use]
pub fn exit(findings: &[Finding]) -> u8 {
    match findings.iter().map(|of| of.outcome).min() {
        Some(Outcome::Bad) => code::FINDING,
        // Nothing looked at is nothing known.
        Some(Outcome::Unknown) | None => code::UNKNOWN,
        Some(Outcome::Note | Outcome::Good) => 0,
    }
}

/// A line a finding, its hint below it, and what all of them mean.
#[must_use]
pub fn table(findings: &[Finding], short: bool) -> String {
    let lines: Vec<Vec<String>> = findings
        .iter()
        .filter(|of| !short || !matches!(of.outcome, Outcome::Good | Outcome::Note))
        .flat_map(|of| {
            let line = vec![of.outcome.word().to_owned(), of.id.to_owned(), of.text.clone()];
            let hint = vec![String::new(), String::new(), format!("→ {}", of.hint)];
            std::iter::once(line).chain((!of.hint.is_empty()).then_some(hint))
        })
        .collect();
    format!("{}{}\n", align(&lines), summary(findings))
}

/// In one line.
#[must_use]
pub fn summary(findings: &[Finding]) -> String {
    let count = |outcome| findings.iter().filter(|of| of.outcome == outcome).count();
    let (bad, unknown) = (count(Outcome::Bad), count(Outcome::Unknown));
    let verdict = match (bad, unknown) {
        (0, 0) => "WELL",
        (0, _) => "UNKNOWN",
        _ => "NOT WELL",
    };
    format!(
        "{verdict}  {} checks: {} good, {bad} bad, {unknown} unknown, {} notes",
        findings.len(),
        count(Outcome::Good),
        count(Outcome::Note)
    )
}

/// As JSON.
#[must_use]
pub fn document(findings: &[Finding], now: jiff::Timestamp) -> Value {
    let items: Vec<Value> = findings
        .iter()
        .map(|of| {
            json!({
                "check": of.id, "outcome": of.outcome.word(), "text": of.text,
                "hint": crate::document::text(&of.hint),
            })
        })
        .collect();
    json!({ "apiVersion": API_VERSION, "kind": "Check", "asOf": now.to_string(), "items": items })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_bad_comes_before_what_is_unknown_and_nothing_is_not_well() {
        let (good, bad) = (Finding::good("a", "x"), Finding::bad("b", "x", "y"));
        let unknown = judge::<()>("c", &Err("no rights".to_owned()), "get some", |()| good.clone());
        assert_eq!(unknown.outcome, Outcome::Unknown);
        assert_eq!(exit(&[good.clone(), unknown.clone(), bad.clone()]), code::FINDING);
        assert_eq!(exit(&[good.clone(), unknown.clone()]), code::UNKNOWN);
        assert_eq!(exit(&[good.clone(), Finding::note("d", "x", "y")]), 0);
        assert_eq!(exit(&[]), code::UNKNOWN);
        let text = table(&[good, unknown, bad], true);
        assert!(!text.contains("GOOD  "), "{text}");
        assert!(
            text.contains("→ get some")
                && text.ends_with("NOT WELL  3 checks: 1 good, 1 bad, 1 unknown, 0 notes\n"),
            "{text}"
        );
    }
}
