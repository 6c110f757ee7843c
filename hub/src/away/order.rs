//! The command by which a cluster carries out retention that its own policies did not ask for. Pure.

use prost::Message as _;
use proto::v1::command_body::What;
use proto::v1::{CommandBody, ObjectName, RetainRepository};
use sha2::{Digest as _, Sha256};

use super::decide::{Candidate, Run};
use crate::Millis;
use crate::commands::{self, Record};
use crate::copies;

/// Who asks for it, as the audit names it.
const WHO: &str = "hub";
/// How long the command may wait to begin.
const BEGIN_WITHIN: Millis = 3_600_000;

/// The id of the request, one for each time at which a policy of a repository was due.
#[must_use]
pub fn request(run: &Run) -> String {
    format!("{WHO} away {} {}", run.repository, run.due)
}

/// The command of a run in the place of a policy whose cluster is away, with the hash of the plan that a person has approved, if
/// there is one. Its id follows from repository and time, so that a hub
/// that has forgotten it, or a second one, does not make a cluster run twice.
#[must_use]
pub fn of_run(run: &Run, approved: String, now: Millis) -> Option<Record> {
    let request = request(run);
    let what = RetainRepository {
        instead_of: run.source.clone(),
        approved,
        ..RetainRepository::default()
    };
    record(&run.repository, &run.by, what, (request, run.due), now)
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
        }
    }

    #[test]
    fn one_time_of_one_repository_makes_one_command() {
        let of = |due, now| of_run(&run(due), String::new(), now).unwrap();
        let (first, again) = (of(5, 100), of(5, 900));
        assert_eq!((&first.id, &first.request), (&again.id, &again.request));
        assert_ne!(first.id, of(6, 100).id);
        let other = Run {
            repository: "b".repeat(64).into(),
            ..run(5)
        };
        assert_ne!(first.id, of_run(&other, String::new(), 100).unwrap().id);
        assert_eq!((first.who.as_str(), first.subject.as_str()), ("hub", "shop/nas"));
        assert!(first.id.len() == 16 && first.expires > first.created);
    }

    #[test]
    fn the_cluster_is_told_the_id_that_it_knows_and_nothing_names_the_other_cluster() {
        let record = of_run(&run(5), String::new(), 100).unwrap();
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
