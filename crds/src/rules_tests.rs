use std::sync::LazyLock;

use kube::CustomResourceExt as _;
use kube::core::cel::Validator;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::GlobalRetentionPolicy;

/// Schema of one rule, as the API server gets it.
fn schema() -> &'static Value {
    static SCHEMA: LazyLock<Value> = LazyLock::new(rule_schema);
    &SCHEMA
}

fn rule_schema() -> Value {
    let crd = serde_json::to_value(GlobalRetentionPolicy::crd()).unwrap();
    let root = &crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
    root["properties"]["spec"]["properties"]["policies"]["items"].clone()
}

/// What the API server's CEL says of a rule.
fn admitted(schema: &Value, rule: &Value) -> Result<(), Vec<String>> {
    let refused = Validator::new().validate(schema, rule, None);
    refused.map_err(|errors| errors.iter().map(|e| e.message.clone()).collect())
}

fn parsed(rule: &Value) -> Result<(), BadRule> {
    let part: PolicyRule = serde_json::from_value(rule.clone()).unwrap();
    Rule::of(&part).check()
}

fn keeping(keep: Value) -> Value {
    json!({ "selector": {}, "retention": keep })
}

#[test]
fn a_span_is_read_as_restic_reads_it() {
    let span = |text: &str| Span::from_str(text).ok();
    let of = |years, months, days, hours| {
        Some(Span {
            years,
            months,
            days,
            hours,
        })
    };
    assert_eq!(span("1y6m"), of(1, 6, 0, 0));
    assert_eq!(span("2h14d"), of(0, 0, 14, 2));
    assert_eq!(span("0d"), of(0, 0, 0, 0));
    for wrong in [
        "", "2w", "3M", "5", "d", "5d3", "1y1y", "1234567d", " 5d", "5d ", "-5d", "+5d", "1.5d", "٣d", "5dd",
        "1d\n",
    ] {
        assert_eq!(span(wrong), None, "{wrong:?}");
    }
}

#[test]
fn what_restic_would_refuse_or_misread_is_refused_with_what_to_write() {
    let schema = schema();
    let refused = |rule: Value, words: &str| {
        let (cel, parser) = (admitted(schema, &rule).unwrap_err(), parsed(&rule).unwrap_err());
        assert!(cel.iter().any(|m| m.contains(words)), "{rule}: {cel:?}");
        assert!(parser.to_string().contains(words), "{rule}: {parser}");
    };
    refused(keeping(json!({})), "at least one keep rule");
    refused(
        keeping(json!({ "keepLast": 0, "keepWithin": "0d" })),
        "at least one keep rule",
    );
    refused(keeping(json!({ "keepWithin": "2w" })), "for weeks write days");
    refused(
        keeping(json!({ "keepLast": 1, "keepWithinDaily": "3M" })),
        "14d or 1y6m",
    );
    refused(keeping(json!({ "keepTags": ["gold"] })), "add keepLast: 1");
    let with_tag = |tag: &str| json!({ "selector": { "tags": [tag] }, "retention": { "keepLast": 1 } });
    for (tag, why) in [
        ("", BadText::Empty),
        (" ", BadText::Empty),
        ("a,b", BadText::Comma),
        (" a", BadText::Surrounded),
        ("a\nb", BadText::Control),
    ] {
        assert!(admitted(schema, &with_tag(tag)).is_err(), "{tag:?}");
        let expected = BadRule::Text("selector.tags", tag.to_owned(), why);
        assert_eq!(parsed(&with_tag(tag)), Err(expected));
    }
    let host = json!({ "selector": { "hostname": "a\nb" }, "retention": { "keepLast": 1 } });
    assert!(admitted(schema, &host).is_err() && parsed(&host).is_err());
    assert_eq!(
        parsed(&keeping(json!({ "keepLast": -1 }))),
        Err(BadRule::Negative("keepLast"))
    );
}

#[test]
fn what_cannot_be_used_of_a_selector_makes_it_match_more() {
    let tags = ["gold", "a,b", " "].map(str::to_owned);
    let rule = Rule {
        tags: &tags,
        hostname: "h\n",
        ..Rule::default()
    };
    assert_eq!(rule.usable_selector(), (vec!["gold".to_owned()], String::new()));
}

/// Texts near to what is meant, so that both answers come up.
fn span_text() -> impl Strategy<Value = String> {
    prop_oneof![
        "[0-9ymdhwM]{0,8}",
        "([0-9]{1,7}[ymdh]){1,5}",
        "0{1,3}[ymdh]",
        "[ \n-]?[0-9]{1,3}[ymdh][ \n]?",
        "\\PC{0,6}"
    ]
}

fn tag_text() -> impl Strategy<Value = String> {
    prop_oneof!["[a-z]{1,5}", "[ ,\t\n\r\u{a0}a]{0,4}", "\\PC{0,6}"]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, ..ProptestConfig::default() })]

    /// The schema takes a rule if and only if the parser does.
    #[test]
    fn schema_and_parser_agree(
        counts in proptest::collection::vec(proptest::option::of(0i32..3), 6),
        spans in proptest::collection::vec(proptest::option::weighted(0.3, span_text()), 6),
        tags in proptest::collection::vec(tag_text(), 0..3),
        keep_tags in proptest::collection::vec(tag_text(), 0..2),
        hostname in proptest::option::of("[a\n\r ]{0,3}"),
    ) {
        let mut keep = json!({ "keepTags": keep_tags });
        for (name, count) in COUNTS.iter().zip(counts) {
            if let Some(count) = count {
                keep[*name] = json!(count);
            }
        }
        for (name, span) in SPANS.iter().zip(spans) {
            if let Some(span) = span {
                keep[*name] = json!(span);
            }
        }
        let mut selector = json!({ "tags": tags });
        if let Some(hostname) = hostname {
            selector["hostname"] = json!(hostname);
        }
        let rule = json!({ "selector": selector, "retention": keep });
        let (cel, parser) = (admitted(schema(), &rule), parsed(&rule));
        prop_assert_eq!(cel.is_ok(), parser.is_ok(), "{} {:?} {:?}", rule, cel, parser);
    }
}

/// What the API server's CEL says of a backup's spec.retention.
fn retention_refusals(retention: &Value) -> Vec<String> {
    let crd = serde_json::to_value(crate::ResticBackup::crd()).unwrap();
    let root = &crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
    admitted(&root["properties"]["spec"]["properties"]["retention"], retention)
        .err()
        .unwrap_or_default()
}

#[test]
fn a_backups_retention_has_to_keep_something_only_where_it_is_on() {
    for off in [
        json!({}),
        json!({ "policy": {} }),
        json!({ "enabled": false, "policy": {} }),
        json!({ "enabled": false, "policy": { "keepTags": ["gold"] } }),
        json!({ "enabled": true, "policy": { "keepLast": 2 }, "groupBy": ["host"], "schedule": "0 4 * * *" }),
        json!({ "enabled": true, "policy": { "keepWithin": "1y" } }),
    ] {
        assert_eq!(retention_refusals(&off), Vec::<String>::new(), "{off}");
    }
    for (on, words) in [
        (json!({ "enabled": true }), "at least one keep rule"),
        (json!({ "enabled": true, "policy": {} }), "at least one keep rule"),
        (
            json!({ "enabled": true, "policy": { "keepLast": 0 } }),
            "at least one keep rule",
        ),
        (
            json!({ "enabled": true, "policy": { "keepTags": ["gold"] } }),
            "add keepLast: 1",
        ),
        (
            json!({ "policy": { "keepWithin": "2w" } }),
            "for weeks write days",
        ),
        (
            json!({ "groupBy": ["colour"] }),
            "groupBy takes host, tags and paths",
        ),
        (json!({ "schedule": "now" }), "five cron fields"),
    ] {
        let refused = retention_refusals(&on);
        assert!(
            refused.iter().any(|text| text.contains(words)),
            "{on}: {refused:?}"
        );
    }
}
