//! Whether the certificate of this cluster is used, or a new one is asked for with a join token. Pure.

use crds::conditions::reasons;
use jiff::Timestamp;

use super::secret::{Held, Join};
use crate::exchange::Uncertified;

/// What the next dial does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Connects with the certificate that is there.
    Use,
    /// Joins first. With a certificate that is still good, that one is used if the token is refused.
    Enrol,
    /// Waits for a person, who reads this.
    Blocked(Uncertified),
}

/// What the next dial does at a time.
#[must_use]
pub fn decide(cluster: &str, held: Option<&Held>, join: Option<&Join>, now: Timestamp) -> Step {
    // A token that was applied after the one that this certificate is of: a person wants the cluster to join again.
    let fresh = join.is_some_and(|join| held.is_none_or(|held| held.joined != join.hash()));
    if fresh {
        return Step::Enrol;
    }
    match held {
        Some(held) if now.as_millisecond() < held.facts.expires => Step::Use,
        Some(held) => Step::Blocked(Uncertified {
            reason: reasons::CLUSTER_CERTIFICATE_EXPIRED,
            text: format!(
                "the certificate of this cluster has expired at {} and could not be renewed; join again: run `fleet clusters \
                 join {cluster}` and apply what it prints",
                timestamp(held.facts.expires)
            ),
        }),
        None => Step::Blocked(Uncertified {
            reason: reasons::CLUSTER_NOT_JOINED,
            text: format!(
                "this cluster has no certificate of the hub: run `fleet clusters join {cluster}` and apply what it prints, or \
                 install one by hand as Secret fleet-spoke-tls"
            ),
        }),
    }
}

fn timestamp(millis: i64) -> String {
    Timestamp::from_millisecond(millis).map_or_else(|_| "an unknown time".to_owned(), |time| time.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proto::certificate::Facts;

    fn join(token: &str) -> Join {
        Join {
            token: token.to_owned(),
            ..Join::default()
        }
    }

    fn held(token: &str) -> Held {
        Held {
            facts: Facts {
                serial: "1".to_owned(),
                begins: 0,
                expires: 1_000,
                key: [0; 32],
            },
            joined: join(token).hash(),
            ..Held::of_tests()
        }
    }

    fn at(millis: i64, held: Option<&Held>, join: Option<&Join>) -> Step {
        decide("a", held, join, Timestamp::from_millisecond(millis).unwrap())
    }

    #[test]
    fn a_token_is_used_once_and_a_later_one_joins_again() {
        assert_eq!(at(0, None, Some(&join("one"))), Step::Enrol);
        assert_eq!(at(999, Some(&held("one")), Some(&join("one"))), Step::Use);
        assert_eq!(at(999, Some(&held("one")), None), Step::Use);
        assert_eq!(at(0, Some(&held("one")), Some(&join("two"))), Step::Enrol);
    }

    #[test]
    fn what_is_missing_is_said_with_what_to_do() {
        for (held, join) in [(None, None), (Some(held("one")), Some(join("one")))] {
            let Step::Blocked(blocked) = at(1_000, held.as_ref(), join.as_ref()) else {
                panic!("it goes on")
            };
            assert!(blocked.text.contains("fleet clusters join a"), "{blocked}");
            let expired = blocked.reason == reasons::CLUSTER_CERTIFICATE_EXPIRED;
            assert_eq!(expired, held.is_some());
        }
    }
}
