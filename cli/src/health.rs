//! `fleet health`: whether the hub itself is well.

use std::fmt::Write as _;

use jiff::Timestamp;
use proto::text::cleaned;
use proto::v1::{CertificateEnd, HealthResponse, Trouble, VersionCount};
use serde_json::{Value, json};

use crate::arguments::{Format, HubArguments};
use crate::client::Client;
use crate::document::{API_VERSION, text};
use crate::failure::{Failure, code};
use crate::maintenance::print;
use crate::render::align;
use crate::text::{ago, bytes, rfc3339, until};

/// Carries the command out.
pub async fn health(hub: &HubArguments, output: Format) -> Result<u8, Failure> {
    let mut client = Client::connect(hub).await?;
    let answer = client.health().await?;
    let names = answer.troubles.iter().map(|trouble| trouble.what.clone());
    print(output, &document(&answer), names, || {
        table(&answer, Timestamp::now())
    });
    let well = answer.troubles.is_empty() && answer.store_well;
    Ok(if well { 0 } else { code::FINDING })
}

/// As JSON.
#[must_use]
pub fn document(answer: &HealthResponse) -> Value {
    let trouble = |of: &Trouble| json!({ "what": of.what, "text": of.text, "next": text(&of.next) });
    let version = |of: &VersionCount| json!({ "version": of.version, "clusters": of.clusters });
    let certificate = |of: &CertificateEnd| json!({ "name": of.name, "ends": rfc3339(of.ends.as_ref()) });
    json!({
        "apiVersion": API_VERSION, "kind": "Health", "asOf": rfc3339(answer.as_of.as_ref()), "version": text(&answer.version),
        "started": rfc3339(answer.started.as_ref()), "epoch": answer.epoch, "storeWell": answer.store_well,
        "storeBytes": answer.store_bytes, "storeCopied": rfc3339(answer.store_copied.as_ref()), "sessions": answer.sessions,
        "watches": answer.watches, "troubles": answer.troubles.iter().map(trouble).collect::<Vec<_>>(),
        "versions": answer.versions.iter().map(version).collect::<Vec<_>>(),
        "certificates": answer.certificates.iter().map(certificate).collect::<Vec<_>>(),
    })
}

fn table(answer: &HealthResponse, now: Timestamp) -> String {
    let word = match (answer.troubles.is_empty(), answer.store_well) {
        (true, true) => "WELL",
        _ => "NOT WELL",
    };
    let mut text = format!(
        "{word}  hub {} · up since {} · as of {}\n",
        cleaned(&answer.version),
        ago(answer.started.as_ref(), now),
        ago(answer.as_of.as_ref(), now)
    );
    let lines: Vec<Vec<String>> = answer
        .troubles
        .iter()
        .map(|of| vec![of.what.to_uppercase(), of.text.clone(), of.next.clone()])
        .collect();
    text.push_str(&align(&lines));
    let _ = writeln!(
        text,
        "{} clusters connected, {} viewers watch",
        answer.sessions, answer.watches
    );
    let copied = match answer.store_copied {
        None => "never copied".to_owned(),
        Some(at) => format!("copied {}", ago(Some(&at), now)),
    };
    let _ = writeln!(text, "store {}, {copied}", bytes(answer.store_bytes));
    for certificate in &answer.certificates {
        let ends = match certificate.ends {
            None => "its end is not known".to_owned(),
            // "due" of one that has ended would be no word for it.
            Some(at) => match until(Some(&at), now).as_str() {
                "due" => "has ended".to_owned(),
                left => format!("ends {left}"),
            },
        };
        let _ = writeln!(text, "certificate of {}: {ends}", cleaned(&certificate.name));
    }
    for version in &answer.versions {
        let _ = writeln!(
            text,
            "spoke {}: {} clusters",
            cleaned(&version.version),
            version.clusters
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_known_is_not_well_and_what_has_ended_says_so() {
        let now = Timestamp::from_second(1_795_000_000).unwrap_or_default();
        let answer = HealthResponse {
            certificates: vec![
                CertificateEnd {
                    name: "hub".to_owned(),
                    ends: None,
                },
                CertificateEnd {
                    name: "authority".to_owned(),
                    ends: Some(proto::time::from_unix(1_794_000_000)),
                },
            ],
            ..HealthResponse::default()
        };
        let text = table(&answer, now);
        assert!(text.starts_with("NOT WELL"), "{text}");
        assert!(
            text.contains("hub: its end is not known") && text.contains("authority: has ended"),
            "{text}"
        );
        assert!(text.contains("never copied"), "{text}");
        assert_eq!(document(&answer)["certificates"][0]["ends"], Value::Null);
    }
}
