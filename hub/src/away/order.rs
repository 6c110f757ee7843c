//! The command by which a cluster carries out retention that its own policies did not ask for. Pure.

use prost::Message as _;
use proto::v1::command_body::What;
use proto::v1::{CommandBody, ObjectName, RetainRepository};
use sha2::{Digest as _, Sha256};

use super::decide::{BEGIN_WITHIN, Candidate, Run};
use crate::Millis;
use crate::commands::{self, Record};
use crate::copies;

/// Who asks for it, as the audit names it.
const WHO: &str = "hub";

/// The id of the request, one for each time at which a policy of a repository was due. `attempt` counts those before it of the
/// same time that did not begin in time.
#[must_use]
pub fn request(run: &Run, attempt: u32) -> String {
    let request = format!("{WHO} away {} {}", run.repository, run.due);
    match attempt {
        0 => request,
        attempt => format!("{request} again {attempt}"),
    }
}

/// The command of a run in the place of a policy whose cluster is away. Its id follows from repository, time and attempt, so that
/// a hub that has forgotten it, or a second one, does not make a cluster run twice. It begins within the window of the policy.
#[must_use]
pub fn of_run(run: &Run, attempt: u32, now: Millis) -> Option<Record> {
    let what = RetainRepository {
        instead_of: run.source.clone(),
        ..RetainRepository::default()
    };
    let asked = (request(run, attempt), run.due);
    let record = record(&run.repository, &run.by, what, asked, now)?;
    let until = run.until.unwrap_or(Millis::MAX);
    Some(Record {
        expires: record.expires.min(until),
        ..record
    })
}

/// The command of a run under an approval that was given at a time, of a plan that such a run has made.
#[must_use]
pub fn of_approval(key: &str, by: &Candidate, hash: &str, given: Millis, now: Millis) -> Option<Record> {
    let what = RetainRepository {
        approved: hash.to_owned(),
        ..RetainRepository::default()
    };
    let request = format!("{WHO} approved {key} {hash} {given}");
    record(key, by, what, (request, given), now)
}

fn record(
    key: &str,
    by: &Candidate,
    what: RetainRepository,
    (request, at): (String, Millis),
    now: Millis,
) -> Option<Record> {
    let body = CommandBody {
        what: Some(What::RetainRepository(RetainRepository {
            repository: Some(ObjectName {
                namespace: by.namespace.clone(),
                name: by.name.clone(),
            }),
            // As its cluster knows it.
            restic_id: copies::restic_id(key).to_owned(),
            ..what
        })),
    };
    let what = commands::about(&body)?.what.to_owned();
    let digest = Sha256::digest(request.as_bytes());
    let number = digest.iter().take(4).fold(0, |n, byte| n << 8 | u32::from(*byte));
    Some(Record {
        id: commands::id(at, number),
        cluster: by.cluster.to_string(),
        body: body.encode_to_vec(),
        what,
        subject: format!("{}/{}", by.namespace, by.name),
        who: WHO.to_owned(),
        request: Some(request),
        created: now,
        expires: now.saturating_add(BEGIN_WITHIN),
        changed: now,
        restic_id: key.to_owned(),
        repository: by.name.clone(),
        ..Record::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(due: Millis) -> Run {
        Run {
            repository: format!("{}@2", "a".repeat(64)).into(),
            due,
            source: "a/shop/nightly".to_owned(),
            by: Candidate {
                cluster: "b".into(),
                namespace: "shop".to_owned(),
                name: "nas".to_owned(),
            },
            until: None,
        }
    }

    #[test]
    fn one_time_of_one_repository_makes_one_command() {
        let of = |due, now| of_run(&run(due), 0, now).unwrap();
        let (first, again) = (of(5, 100), of(5, 900));
        assert_eq!((&first.id, &first.request), (&again.id, &again.request));
        assert_ne!(first.id, of(6, 100).id);
        let other = Run {
            repository: "b".repeat(64).into(),
            ..run(5)
        };
        assert_ne!(first.id, of_run(&other, 0, 100).unwrap().id);
        assert_eq!((first.who.as_str(), first.subject.as_str()), ("hub", "shop/nas"));
        assert!(first.id.len() == 16 && first.expires > first.created);
    }

    #[test]
    fn a_run_begins_in_its_window_and_one_that_did_not_is_asked_for_under_another_id() {
        let until = |until| of_run(&Run { until, ..run(5) }, 0, 100).unwrap().expires;
        assert_eq!(until(None), 100 + BEGIN_WITHIN);
        assert_eq!(until(Some(900)), 900);
        assert_eq!(until(Some(100 + 2 * BEGIN_WITHIN)), 100 + BEGIN_WITHIN);
        let attempt = |attempt| of_run(&run(5), attempt, 100).unwrap();
        let (first, second, third) = (attempt(0), attempt(1), attempt(2));
        assert!(first.id != second.id && second.id != third.id);
        assert_ne!(first.request, second.request);
        assert_eq!(attempt(1).id, second.id);
    }

    #[test]
    fn the_cluster_is_told_the_id_that_it_knows_and_nothing_names_the_other_cluster() {
        let record = of_run(&run(5), 0, 100).unwrap();
        let body = CommandBody::decode(record.body.as_slice()).unwrap();
        let Some(What::RetainRepository(what)) = body.what else {
            panic!("{body:?}")
        };
        assert_eq!(what.restic_id, "a".repeat(64));
        assert_eq!(what.instead_of, "a/shop/nightly");
        // Who sees only this cluster sees these.
        for shown in [&record.what, &record.subject] {
            assert!(!shown.contains("nightly"), "{shown}");
        }
        let approved = of_approval("r", &run(5).by, "hash", 7, 100).unwrap();
        assert_ne!(
            approved.id,
            of_approval("r", &run(5).by, "hash", 8, 100).unwrap().id,
            "approved again"
        );
    }
}
