//! When a repository is asked, and what an answer means. Pure.

use std::time::Duration;

use crds::conditions::{self, reasons, types};
use crds::{ResticRepositoryStatus, names};
use jiff::{SignedDuration, Timestamp};

use crate::backoff::{Backoff, Jitter};
use crate::restic::{Failure, Statistics};
use crate::secrets::SecretError;

/// What a question depends on: when any of it changes, an answer under way no longer counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inputs {
    pub generation: i64,
    /// resourceVersion of the Secret; `None` while there is none.
    pub secret: Option<String>,
}

/// What is remembered of the last attempt.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Attempts {
    /// Inputs of the last answer.
    pub inputs: Option<Inputs>,
    /// Failed attempts in a row with these inputs.
    pub failures: u32,
    /// When the next one is due.
    pub next: Option<Timestamp>,
    /// When the repository last opened.
    pub opened: Option<Timestamp>,
}

/// What to do now.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// Ask the repository.
    Ask,
    /// Nothing until a time, or until something changes.
    Wait(Option<Timestamp>),
}

/// The clocks of two clusters may differ by this much; figures of a later time were not read yet.
const CLOCKS: SignedDuration = SignedDuration::from_mins(10);

/// Whether the repository has to be asked now. `collects`: its figures are read with each look. Otherwise the look is a
/// cheap one, and their age does not matter.
#[must_use]
pub fn step(
    status: &ResticRepositoryStatus,
    inputs: &Inputs,
    attempts: &Attempts,
    (interval, collects): (Duration, bool),
    now: Timestamp,
) -> Step {
    let due = |at: Timestamp| {
        if at <= now {
            Step::Ask
        } else {
            Step::Wait(Some(at))
        }
    };
    // An answer to these very questions, by this process: its own back-off counts.
    if attempts.inputs.as_ref() == Some(inputs) && attempts.failures > 0 {
        return attempts.next.map_or(Step::Wait(None), due);
    }
    let unchanged =
        status.observed_generation == Some(inputs.generation) && status.credentials_version == inputs.secret;
    // That another cluster has read figures does not say that the repository opens from here.
    let its_own = status
        .statistics
        .as_ref()
        .is_some_and(|s| s.collected_by.is_none());
    let as_of = status
        .statistics
        .as_ref()
        .and_then(|s| s.as_of.as_ref())
        .map(|t| t.0)
        .filter(|as_of| as_of.duration_since(now) <= CLOCKS);
    let last = if collects {
        as_of
    } else {
        attempts.opened.or(as_of.filter(|_| its_own))
    };
    match last {
        // Also after a restart: the status still holds, and nothing is asked before it is due.
        Some(last) if unchanged && conditions::is_true(&status.conditions, types::READY) => due(last
            .checked_add(SignedDuration::try_from(interval).unwrap_or_default())
            .unwrap_or(now)),
        _ => Step::Ask,
    }
}

/// What came of asking.
#[derive(Clone, Debug, PartialEq)]
pub enum Answer {
    /// The repository opened.
    Open {
        id: String,
        initialized: bool,
        /// Statistics are extra: without them the repository is as ready as with them. `None` where another cluster
        /// collects them.
        statistics: Option<Result<Statistics, Failure>>,
    },
    /// The credentials are not usable.
    Credentials(SecretError),
    /// The API server failed to serve the Secret: nothing is known anew of the repository.
    Unasked(String),
    /// Another id than the one in the status.
    Changed {
        was: String,
        is: String,
    },
    /// It was there before (its id is in the status) and is gone.
    Missing {
        id: String,
    },
    /// There is none, and none is to be created.
    Absent,
    /// `init` failed.
    InitFailed(Failure),
    Failed(Failure),
}

impl Answer {
    /// Reason and message of condition Ready.
    #[must_use]
    pub fn reason(&self) -> (&'static str, String) {
        match self {
            Answer::Open {
                initialized: true, ..
            } => (
                reasons::REPOSITORY_INITIALIZED,
                "the repository was created and is accessible".to_owned(),
            ),
            Answer::Open { statistics, .. } => {
                let tail = match statistics {
                    None | Some(Ok(_)) => String::new(),
                    Some(Err(failure)) => format!("; its statistics could not be read: {failure}"),
                };
                (
                    reasons::REPOSITORY_ACCESSIBLE,
                    format!("the repository is accessible{tail}"),
                )
            }
            Answer::Credentials(error @ SecretError::Missing(_)) => {
                (reasons::CREDENTIALS_NOT_FOUND, error.to_string())
            }
            Answer::Credentials(error) => (reasons::CREDENTIALS_INVALID, error.to_string()),
            Answer::Unasked(text) => (reasons::API_ERROR, text.clone()),
            Answer::Changed { was, is } => (
                reasons::REPOSITORY_CHANGED,
                format!(
                    "another repository ({is}) lies where {} was: the storage was emptied and initialised again, or it is another storage. \
                     No backup runs, and no retention run of either begins. Bring the known one back, or accept the other one, with all that it \
                     holds: kubectl annotate --overwrite resticrepository NAME {}={}",
                    short(was),
                    names::ANNOTATION_ACCEPT_REPOSITORY,
                    short(is)
                ),
            ),
            Answer::Absent => (
                reasons::REPOSITORY_MISSING,
                "there is no repository at this location, and none is created (spec.initialize: Never); correct repositoryURL, bring the repository back, or write initialize: IfMissing to start an empty one".to_owned(),
            ),
            Answer::Missing { id } => (
                reasons::REPOSITORY_MISSING,
                format!(
                    "repository {} is not at this location, and is not created anew by itself; correct repositoryURL if it was changed, bring the repository back, or delete this ResticRepository and create it again to start an empty one",
                    short(id)
                ),
            ),
            Answer::InitFailed(failure) => (
                reasons::INITIALIZATION_FAILED,
                format!("the repository could not be created: {failure}"),
            ),
            Answer::Failed(failure) => reason_of(failure),
        }
    }

    /// Time until the next attempt: shortest retry interval times a factor, doubling, at most `max`. `None` where only a
    /// change of the spec or the Secret helps; that change wakes the actor.
    #[must_use]
    pub fn retry_after(&self, failures: u32, retry: Duration) -> Option<Duration> {
        const MAX: Duration = Duration::from_secs(600);
        let factor = match self {
            Answer::Credentials(_) => return None,
            Answer::Open { .. } => 4,
            Answer::Failed(Failure::WrongPassword) => 20,
            Answer::Failed(Failure::Locked(_)) => 2,
            Answer::Failed(Failure::Damaged(_) | Failure::Forbidden(_))
            | Answer::Missing { .. }
            | Answer::Absent
            | Answer::Changed { .. } => 4,
            Answer::Failed(_) | Answer::InitFailed(_) | Answer::Unasked(_) => 1,
        };
        let first = retry.saturating_mul(factor);
        Some(Backoff::new(first, MAX.max(first), Jitter::None).ceiling(failures))
    }
}

/// What to check, by the text of the failure.
fn to_connect(text: &str) -> &'static str {
    if text.contains("x509") || text.contains("certificate") {
        "add the authority that signed the server's certificate as RESTIC_CACERT (PEM) to the Secret"
    } else {
        "check repositoryURL and the network"
    }
}

fn reason_of(failure: &Failure) -> (&'static str, String) {
    match failure {
        Failure::WrongPassword => (
            reasons::WRONG_PASSWORD,
            "wrong password: the one in the Secret does not match this repository; correct RESTIC_PASSWORD, nothing was changed".to_owned(),
        ),
        Failure::Locked(text) => (reasons::REPOSITORY_LOCKED, format!("{text}; it is re-checked")),
        Failure::Unreachable(text) => (
            reasons::REPOSITORY_UNREACHABLE,
            format!("cannot connect to the storage: {text}; {}", to_connect(text)),
        ),
        Failure::DeadlineExceeded(limit) => (
            reasons::REPOSITORY_UNREACHABLE,
            format!("the storage did not answer within {}s; check repositoryURL and the network", limit.as_secs()),
        ),
        Failure::Forbidden(text) => (
            reasons::REPOSITORY_FORBIDDEN,
            format!("the storage refuses these credentials: {text}; check the access keys in the Secret and their rights"),
        ),
        Failure::Damaged(text) => (
            reasons::REPOSITORY_DAMAGED,
            format!("the repository is damaged: {text}; nothing was changed, restore its config from a copy of the storage"),
        ),
        // Only `Answer::Missing` and `init` deal with it; here for completeness.
        Failure::NoRepository => (reasons::REPOSITORY_MISSING, failure.to_string()),
        Failure::Exists | Failure::NotBegun | Failure::LockLost | Failure::Interrupted | Failure::FileUnreadable(_) | Failure::Other(_) => (reasons::RESTIC_FAILED, failure.to_string()),
    }
}

fn short(id: &str) -> &str {
    id.get(..10).unwrap_or(id)
}

#[cfg(test)]
mod tests {
    use crds::conditions::Status;
    use crds::repository::RepositoryStatistics;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn inputs() -> Inputs {
        Inputs {
            generation: 3,
            secret: Some("7".to_owned()),
        }
    }

    fn ready(as_of: i64) -> ResticRepositoryStatus {
        let mut status = ResticRepositoryStatus {
            observed_generation: Some(3),
            credentials_version: Some("7".to_owned()),
            statistics: Some(RepositoryStatistics {
                as_of: Some(Time(at(as_of))),
                ..RepositoryStatistics::default()
            }),
            ..ResticRepositoryStatus::default()
        };
        conditions::set(
            &mut status.conditions,
            types::READY,
            Status::True,
            "RepositoryAccessible",
            "",
            Some(3),
            at(as_of),
        );
        status
    }

    #[test]
    fn a_restart_asks_nothing_before_it_is_due() {
        let step = |now| {
            step(
                &ready(1000),
                &inputs(),
                &Attempts::default(),
                (HOUR, true),
                at(now),
            )
        };
        assert_eq!(step(1001), Step::Wait(Some(at(4600))));
        assert_eq!(step(4600), Step::Ask);
    }

    #[test]
    fn who_does_not_collect_looks_at_the_interval_and_who_is_appointed_reads_what_is_old() {
        let opened = |at_second| Attempts {
            opened: Some(at(at_second)),
            inputs: Some(inputs()),
            ..Attempts::default()
        };
        let step = |status: &ResticRepositoryStatus, attempts: &Attempts, collects, now| {
            step(status, &inputs(), attempts, (HOUR, collects), at(now))
        };
        // Figures of another cluster, one look of its own since.
        assert_eq!(
            step(&ready(1000), &opened(4000), false, 4700),
            Step::Wait(Some(at(7600)))
        );
        assert_eq!(step(&ready(1000), &opened(4000), false, 7600), Step::Ask);
        // Appointed: the figures are too old, and then they are not.
        assert_eq!(step(&ready(1000), &opened(4000), true, 4700), Step::Ask);
        assert_eq!(
            step(&ready(4700), &opened(4000), true, 4800),
            Step::Wait(Some(at(8300)))
        );
        // No figures yet: looks are enough while another one collects.
        let mut without = ready(1000);
        without.statistics = None;
        assert_eq!(
            step(&without, &opened(4000), false, 4001),
            Step::Wait(Some(at(7600)))
        );
        assert_eq!(step(&without, &opened(4000), true, 4001), Step::Ask);
        // After a restart figures of its own stand for a look; those of another cluster do not.
        let mut elsewhere = ready(4000);
        if let Some(statistics) = elsewhere.statistics.as_mut() {
            statistics.collected_by = Some("other".to_owned());
        }
        let restarted = Attempts::default();
        assert_eq!(
            step(&ready(4000), &restarted, false, 4001),
            Step::Wait(Some(at(7600)))
        );
        assert_eq!(step(&elsewhere, &restarted, false, 4001), Step::Ask);
        // Figures of tomorrow were read by a cluster whose clock is wrong.
        assert_eq!(step(&ready(90_000), &opened(4000), true, 4001), Step::Ask);
    }

    #[test]
    fn a_changed_spec_or_secret_asks_at_once() {
        for changed in [
            Inputs {
                generation: 4,
                ..inputs()
            },
            Inputs {
                secret: Some("8".to_owned()),
                ..inputs()
            },
            Inputs {
                secret: None,
                ..inputs()
            },
        ] {
            let failed = Attempts {
                inputs: Some(inputs()),
                failures: 3,
                next: Some(at(9999)),
                opened: None,
            };
            assert_eq!(
                step(&ready(1000), &changed, &failed, (HOUR, true), at(1001)),
                Step::Ask
            );
        }
    }

    #[test]
    fn a_failure_waits_for_its_back_off() {
        let attempts = |next| Attempts {
            inputs: Some(inputs()),
            failures: 1,
            next,
            opened: None,
        };
        let status = ResticRepositoryStatus::default();
        assert_eq!(
            step(&status, &inputs(), &attempts(Some(at(50))), (HOUR, true), at(49)),
            Step::Wait(Some(at(50)))
        );
        assert_eq!(
            step(&status, &inputs(), &attempts(Some(at(50))), (HOUR, true), at(50)),
            Step::Ask
        );
        assert_eq!(
            step(&status, &inputs(), &attempts(None), (HOUR, true), at(50)),
            Step::Wait(None)
        );
    }

    #[test]
    fn each_failure_has_its_own_reason_and_back_off() {
        let retry = Duration::from_secs(30);
        let text = || "text".to_owned();
        for (answer, reason, first) in [
            (
                Answer::Credentials(SecretError::Missing(text())),
                "CredentialsNotFound",
                None,
            ),
            (
                Answer::Credentials(SecretError::EmptyPassword {
                    secret: text(),
                    key: text(),
                }),
                "CredentialsInvalid",
                None,
            ),
            (Answer::Unasked(text()), "ApiError", Some(30)),
            (Answer::Failed(Failure::WrongPassword), "WrongPassword", Some(600)),
            (
                Answer::Failed(Failure::Locked(text())),
                "RepositoryLocked",
                Some(60),
            ),
            (
                Answer::Failed(Failure::Unreachable(text())),
                "RepositoryUnreachable",
                Some(30),
            ),
            (
                Answer::Failed(Failure::DeadlineExceeded(retry)),
                "RepositoryUnreachable",
                Some(30),
            ),
            (
                Answer::Failed(Failure::Forbidden(text())),
                "RepositoryForbidden",
                Some(120),
            ),
            (
                Answer::Failed(Failure::Damaged(text())),
                "RepositoryDamaged",
                Some(120),
            ),
            (Answer::Failed(Failure::Other(text())), "ResticFailed", Some(30)),
            (Answer::Missing { id: text() }, "RepositoryMissing", Some(120)),
            (Answer::Absent, "RepositoryMissing", Some(120)),
            (
                Answer::Changed {
                    was: text(),
                    is: text(),
                },
                "RepositoryChanged",
                Some(120),
            ),
            (
                Answer::InitFailed(Failure::Exists),
                "InitializationFailed",
                Some(30),
            ),
        ] {
            assert_eq!(answer.reason().0, reason);
            assert_eq!(
                answer.retry_after(1, retry),
                first.map(Duration::from_secs),
                "{reason}"
            );
            assert!(
                answer.retry_after(40, retry) <= Some(Duration::from_secs(600)),
                "{reason}"
            );
        }
    }
}
