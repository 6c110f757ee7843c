//! `fleet audit`: what ran and what people did, in pages or followed, and whether it is all there.

use std::time::Duration;

use jiff::Timestamp;
use proto::text::cleaned;
use proto::time::from_unix_millis;
use proto::v1::{AuditRequest, AuditResponse, Decision, VerifyAuditRequest, VerifyAuditResponse};
use serde_json::{Value, json};

use crate::arguments::{Audit, AuditCommand, Format, HubArguments};
use crate::client::Client;
use crate::document::API_VERSION;
use crate::failure::{Failure, code};
use crate::maintenance::{document, more, print, render};
use crate::output::{line, note};
use crate::render::align;
use crate::text::{counted, rfc3339};

/// How often what follows is asked for.
const AGAIN: Duration = Duration::from_secs(1);

/// Pages that are asked for before a person is asked to go on.
const PAGES: usize = 20;

/// Carries a command out.
pub async fn audit(hub: &HubArguments, arguments: &Audit) -> Result<u8, Failure> {
    if let Some(AuditCommand::Verify { known, output }) = &arguments.command {
        return verify(hub, known.as_deref(), *output).await;
    }
    let mut client = Client::connect(hub).await?;
    let request = AuditRequest {
        repository: arguments.repository.clone().unwrap_or_default(),
        limit: arguments.limit,
        before: arguments.before.clone(),
        who: arguments.who.clone(),
        what: arguments.what.clone(),
        cluster: arguments.cluster.clone(),
        since: arguments.since.map(|at| from_unix_millis(at.as_millisecond())),
        after: None,
        follow: String::new(),
    };
    let answer = found(&mut client, request.clone()).await?;
    if arguments.watch {
        let shown = answer.decisions.iter().rev();
        shown.for_each(|decision| line(&followed(arguments.output, decision)));
        return follow(&mut client, arguments.output, request, answer.follow).await;
    }
    if answer.entries.is_empty()
        && answer.decisions.is_empty()
        && answer.next_before.is_empty()
        && matches!(arguments.output, Format::Table | Format::Wide)
    {
        note("nothing matches: nothing has run under the maintenance lock, and nobody did anything");
        return Ok(0);
    }
    let names = answer
        .entries
        .iter()
        .map(|e| format!("{}/{}", e.restic_id, e.token));
    print(arguments.output, &document::audit(&answer), names, || {
        render::audit(&answer, Timestamp::now())
    });
    more(arguments.output, &answer.next_before);
    Ok(0)
}

/// The first page on which there is anything: in a small scope the hub may have looked through many entries for none.
async fn found(client: &mut Client, mut request: AuditRequest) -> Result<AuditResponse, Failure> {
    for _ in 1..PAGES {
        let answer = client.audit(request.clone()).await?;
        let empty = answer.entries.is_empty() && answer.decisions.is_empty();
        if !empty || answer.next_before.is_empty() {
            return Ok(answer);
        }
        request.before = answer.next_before;
    }
    client.audit(request).await
}

/// Prints what people do, one line each, until it is interrupted.
async fn follow(
    client: &mut Client,
    output: Format,
    mut request: AuditRequest,
    mut last: String,
) -> Result<u8, Failure> {
    loop {
        tokio::time::sleep(AGAIN).await;
        request.follow = last;
        let answer = client.audit(request.clone()).await?;
        let new = answer.decisions.iter();
        new.for_each(|decision| line(&followed(output, decision)));
        last = answer.follow;
    }
}

/// One line of what is followed.
fn followed(output: Format, decision: &Decision) -> String {
    match output {
        Format::Json | Format::Yaml => document::decision(decision).to_string(),
        Format::Name if decision.id == 0 => rfc3339(decision.at.as_ref()).unwrap_or_default(),
        Format::Name => decision.id.to_string(),
        Format::Table | Format::Wide => {
            let at = rfc3339(decision.at.as_ref()).unwrap_or_default();
            let cells = [
                &at,
                &decision.who,
                &decision.what,
                &decision.subject,
                &decision.before,
                &decision.after,
            ];
            let cells = cells.into_iter().map(|cell| cleaned(cell));
            let cells: Vec<String> = cells.filter(|cell| !cell.is_empty()).collect();
            cells.join("  ")
        }
    }
}

async fn verify(hub: &HubArguments, known: Option<&str>, output: Format) -> Result<u8, Failure> {
    let wrong = || Failure::Usage("--known takes an id and a hash, such as 812:9d1a…".to_owned());
    let known = known
        .map(|text| {
            let (id, hash) = text.split_once(':').ok_or_else(wrong)?;
            Ok((id.parse::<u64>().map_err(|_| wrong())?, hash.to_owned()))
        })
        .transpose()?;
    let mut client = Client::connect(hub).await?;
    let request = VerifyAuditRequest {
        known: known.as_ref().map_or(0, |(id, _)| *id),
    };
    let answer = client.verify_audit(request).await?;
    let finding = finding(&answer, known.as_ref());
    match output {
        Format::Json | Format::Yaml => {
            print(
                output,
                &verified(&answer, finding.as_deref()),
                std::iter::empty(),
                String::new,
            );
        }
        Format::Name => line(&format!("{}:{}", answer.head, hex::encode(&answer.hash))),
        Format::Table | Format::Wide => line(&verdict(&answer, finding.as_deref())),
    }
    Ok(if finding.is_some() { code::FINDING } else { 0 })
}

/// What is not as it was; `None` when everything is.
fn finding(answer: &VerifyAuditResponse, known: Option<&(u64, String)>) -> Option<String> {
    if !answer.fault.is_empty() {
        return Some(format!("entry {}: {}", answer.fault_id, answer.fault));
    }
    let (id, hash) = known?;
    if answer.known_hash.is_empty() {
        // It may have been removed because of its age.
        let text = if *id <= answer.anchor {
            format!(
                "entry {id} is not kept any more: the oldest that is kept is after {}",
                answer.anchor
            )
        } else {
            format!("there is no entry {id}")
        };
        return Some(text);
    }
    let is = hex::encode(&answer.known_hash);
    (is != *hash)
        .then(|| format!("entry {id} has the hash {is}: the audit was made anew from there or before"))
}

fn verdict(answer: &VerifyAuditResponse, finding: Option<&str>) -> String {
    let head = format!("{}:{}", answer.head, hex::encode(&answer.hash));
    match finding {
        Some(finding) => format!("NOT AS WRITTEN  {}", cleaned(finding)),
        None => align(&[
            vec![
                "AS WRITTEN".to_owned(),
                counted(answer.entries, "entry", "entries"),
            ],
            vec!["newest".to_owned(), head.clone()],
            vec![
                "next".to_owned(),
                format!("note it elsewhere, and compare later: fleet audit verify --known {head}"),
            ],
        ])
        .trim_end()
        .to_owned(),
    }
}

fn verified(answer: &VerifyAuditResponse, finding: Option<&str>) -> Value {
    json!({
        "apiVersion": API_VERSION, "kind": "AuditVerification", "asOf": rfc3339(answer.as_of.as_ref()),
        "asWritten": finding.is_none(), "finding": finding, "entries": answer.entries, "removedUpTo": answer.anchor,
        "newest": answer.head, "hash": hex::encode(&answer.hash),
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn answer() -> VerifyAuditResponse {
        VerifyAuditResponse {
            entries: 3,
            anchor: 2,
            head: 5,
            hash: vec![0xab, 0xcd],
            ..VerifyAuditResponse::default()
        }
    }

    #[test]
    fn what_was_noted_earlier_is_compared() {
        let known = |id, hash: &str| Some((id, hash.to_owned()));
        assert_eq!(finding(&answer(), None), None);
        let found = VerifyAuditResponse {
            known_hash: vec![0x12],
            ..answer()
        };
        assert_eq!(finding(&found, known(4, "12").as_ref()), None);
        assert!(
            finding(&found, known(4, "13").as_ref())
                .unwrap()
                .contains("made anew")
        );
        assert!(
            finding(&answer(), known(2, "12").as_ref())
                .unwrap()
                .contains("not kept any more")
        );
        assert!(
            finding(&answer(), known(6, "12").as_ref())
                .unwrap()
                .contains("there is no entry 6")
        );
        let faulty = VerifyAuditResponse {
            fault_id: 4,
            fault: "changed".to_owned(),
            ..found
        };
        assert_eq!(finding(&faulty, None).unwrap(), "entry 4: changed");
    }
}
