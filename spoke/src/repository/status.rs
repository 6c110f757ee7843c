//! The status that follows from an answer. Pure.

use crds::ResticRepositoryStatus;
use crds::conditions::{self, Conditions, Status, reasons, types, whole_seconds};
use crds::repository::{HostStatistics, RepositoryStatistics, ResticLock};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::answer::{Answer, Inputs};
use super::locks::{Content, Verdict, Watch};
use crate::restic::Statistics;
use crate::units;

/// Hosts listed in a status; a repository of a thousand clusters must still fit an object.
pub(super) const HOSTS_MAX: usize = 100;
/// Locks listed in a status.
const LOCKS_MAX: usize = 20;

/// The status after an answer. What is not known anew stays: a repository out of reach keeps its id and last figures.
#[must_use]
pub fn after(
    old: &ResticRepositoryStatus,
    answer: &Answer,
    inputs: &Inputs,
    now: Timestamp,
) -> ResticRepositoryStatus {
    let mut status = old.clone();
    let (reason, message) = answer.reason();
    if let Answer::Unasked(_) = answer {
        unasked(&mut status, reason, &message, inputs.generation, now);
        return status;
    }
    status.observed_generation = Some(inputs.generation);
    status.credentials_version.clone_from(&inputs.secret);
    if let Answer::Open { id, statistics, .. } = answer {
        status.repository_id = Some(id.clone());
        status.changed_id = None;
        if let Some(Ok(statistics)) = statistics {
            status.statistics = Some(figures(statistics, now));
        }
    }
    // A look that fails afterwards says nothing of what lies there: the other id stays.
    if let Answer::Changed { is, .. } = answer {
        status.changed_id = Some(is.clone());
    }
    let ready = matches!(answer, Answer::Open { .. });
    // Created once, accessible from the next look on: no transition of its own.
    Conditions::at(&mut status.conditions, Some(inputs.generation), now).set(
        types::READY,
        ready,
        reason,
        message,
    );
    status
}

/// Stands between the message of the last look that took place and why the one after it did not.
const NOT_ASKED: &str = "; this may be out of date, as the last look at the repository failed: ";

/// The repository was not asked: condition Ready stays as it is, and its message says so. Ready is Unknown if the
/// repository was never asked.
fn unasked(status: &mut ResticRepositoryStatus, reason: &str, text: &str, generation: i64, now: Timestamp) {
    unopened(status);
    let list = &mut status.conditions;
    let mut known = list
        .iter_mut()
        .filter(|c| c.type_ == types::READY && ![reasons::CHECKING, reason].contains(&&*c.reason));
    match known.next() {
        Some(ready) => {
            let last = ready.message.split(NOT_ASKED).next().unwrap_or_default();
            ready.message = format!("{last}{NOT_ASKED}{text}");
        }
        None => {
            Conditions::at(list, Some(generation), now).set(types::READY, Status::Unknown, reason, text);
        }
    }
}

/// The status of a spec that cannot be worked with.
#[must_use]
pub fn invalid(
    old: &ResticRepositoryStatus,
    message: &str,
    generation: i64,
    now: Timestamp,
) -> ResticRepositoryStatus {
    let mut status = old.clone();
    status.observed_generation = Some(generation);
    Conditions::at(&mut status.conditions, Some(generation), now).set(
        types::READY,
        false,
        reasons::INVALID_SPEC,
        message,
    );
    status
}

/// Drops the original operator's word that a repository is ready which this one has never opened.
fn unopened(status: &mut ResticRepositoryStatus) {
    if status.repository_id.is_none() {
        let conditions = &mut status.conditions;
        conditions.retain(|condition| condition.type_ != types::READY || condition.status != "True");
    }
}

/// The status while the first answer is awaited. A repository that was looked at before keeps what is known of it.
#[must_use]
pub fn checking(old: &ResticRepositoryStatus, generation: i64, now: Timestamp) -> ResticRepositoryStatus {
    let mut status = old.clone();
    unopened(&mut status);
    if conditions::get(&status.conditions, types::READY).is_none() {
        let text = "checking the repository; if there is none, it is created once the hub, where one is configured, grants permission";
        Conditions::at(&mut status.conditions, Some(generation), now).set(
            types::READY,
            Status::Unknown,
            reasons::CHECKING,
            text,
        );
    }
    status
}

/// restic's locks as people see them, the longest known first.
#[must_use]
pub fn locks(watch: &Watch, judged: &[(&str, Verdict)]) -> Vec<ResticLock> {
    let seen = watch.locks().into_iter().take(LOCKS_MAX);
    let because = |id: &str| {
        let verdict = judged.iter().find(|(of, _)| *of == id);
        verdict.and_then(|(_, verdict)| Some(verdict.kept_because()?.to_owned()))
    };
    seen.map(|(id, seen)| {
        let file = match &seen.content {
            Content::Read(file) => Some(file),
            Content::Unread | Content::Unreadable(_) => None,
        };
        let text = |text: &String| Some(text.clone()).filter(|text| !text.is_empty());
        ResticLock {
            id: id.to_owned(),
            exclusive: file.is_some_and(|file| file.exclusive),
            user: file.and_then(|file| text(&file.user)),
            host: file.and_then(|file| text(&file.host)),
            created: file.map(|file| Time(whole_seconds(file.time))),
            unchanged_since: Some(Time(whole_seconds(seen.first.wall))),
            kept_because: because(id),
        }
    })
    .collect()
}

fn figures(statistics: &Statistics, now: Timestamp) -> RepositoryStatistics {
    let hosts = statistics
        .hosts
        .iter()
        .take(HOSTS_MAX)
        .map(|(host, count, latest)| HostStatistics {
            host: host.clone(),
            snapshot_count: small(*count),
            latest_snapshot: latest.map(|time| Time(whole_seconds(time))),
        });
    RepositoryStatistics {
        total_size: Some(units::bytes(statistics.stored)),
        total_size_bytes: Some(signed(statistics.stored)),
        uncompressed_size_bytes: Some(signed(statistics.uncompressed)),
        compression_ratio: ratio(statistics.stored, statistics.uncompressed),
        total_file_count: statistics.files.map(signed),
        snapshot_count: Some(small(statistics.snapshots)),
        hosts: hosts.collect(),
        as_of: Some(Time(whole_seconds(now))),
        collected_by: None,
    }
}

/// A count as Kubernetes stores it.
pub(super) fn signed(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

/// The same in 32 bits.
pub(super) fn small(count: u64) -> i32 {
    i32::try_from(count).unwrap_or(i32::MAX)
}

/// Uncompressed by stored size, such as "2.41".
#[allow(clippy::cast_precision_loss, reason = "two digits are shown")]
pub(super) fn ratio(stored: u64, uncompressed: u64) -> Option<String> {
    (stored > 0).then(|| format!("{:.2}", uncompressed as f64 / stored as f64))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::restic::Failure;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn inputs() -> Inputs {
        Inputs {
            generation: 1,
            secret: Some("5".to_owned()),
        }
    }

    #[test]
    fn a_repository_out_of_reach_keeps_what_was_known() {
        let statistics = Some(Ok(Statistics {
            stored: 100,
            uncompressed: 250,
            snapshots: 2,
            ..Statistics::default()
        }));
        let open = Answer::Open {
            id: "f".repeat(64),
            initialized: false,
            statistics,
        };
        let status = after(&ResticRepositoryStatus::default(), &open, &inputs(), at(10));
        assert!(conditions::is_true(&status.conditions, types::READY));
        let away = after(
            &status,
            &Answer::Failed(Failure::Unreachable("x".to_owned())),
            &inputs(),
            at(20),
        );
        assert!(!conditions::is_true(&away.conditions, types::READY));
        assert_eq!(
            (&away.repository_id, &away.statistics),
            (&status.repository_id, &status.statistics)
        );
        assert_eq!(
            away.statistics.unwrap().compression_ratio.as_deref(),
            Some("2.50")
        );
    }

    #[test]
    fn a_known_repository_does_not_flap_while_it_is_asked_again() {
        let open = Answer::Open {
            id: "f".repeat(64),
            initialized: true,
            statistics: Some(Ok(Statistics::default())),
        };
        let status = after(&ResticRepositoryStatus::default(), &open, &inputs(), at(10));
        assert_eq!(checking(&status, 2, at(20)), status);
        assert!(
            !checking(&ResticRepositoryStatus::default(), 1, at(20))
                .conditions
                .is_empty()
        );
    }

    #[test]
    fn what_the_original_operator_has_called_ready_is_unknown_until_it_was_opened() {
        let mut original = ResticRepositoryStatus::default();
        let reason = reasons::REPOSITORY_INITIALIZED;
        Conditions::at(&mut original.conditions, Some(1), at(5)).set(types::READY, true, reason, "");
        let ready = |status: &ResticRepositoryStatus| {
            let ready = conditions::get(&status.conditions, types::READY).unwrap();
            (
                ready.status.clone(),
                ready.reason.clone(),
                ready.last_transition_time.0,
            )
        };
        let unknown = |reason: &str| ("Unknown".to_owned(), reason.to_owned(), at(10));
        assert_eq!(ready(&checking(&original, 1, at(10))), unknown(reasons::CHECKING));
        let answer = Answer::Unasked("no answer".to_owned());
        let status = after(&original, &answer, &inputs(), at(10));
        assert_eq!(ready(&status), unknown(answer.reason().0));
    }

    #[test]
    fn figures_are_those_that_were_read() {
        let statistics = Some(Ok(Statistics {
            stored: 2 << 20,
            uncompressed: 3 << 20,
            snapshots: 5,
            files: Some(12),
            hosts: vec![("orders".to_owned(), 5, Some(at(7)))],
            ..Statistics::default()
        }));
        let open = Answer::Open {
            id: "f".repeat(64),
            initialized: false,
            statistics,
        };
        let status = after(&ResticRepositoryStatus::default(), &open, &inputs(), at(10));
        assert_eq!(status.observed_generation, Some(1));
        let figures = status.statistics.unwrap();
        assert_eq!(
            (
                figures.total_size.as_deref(),
                figures.total_size_bytes,
                figures.total_file_count,
                figures.snapshot_count
            ),
            (Some("2.0 MiB"), Some(2 << 20), Some(12), Some(5))
        );
        assert_eq!(figures.as_of, Some(Time(at(10))));
        assert_eq!(
            (figures.hosts[0].host.as_str(), figures.hosts[0].snapshot_count),
            ("orders", 5)
        );
    }
}
