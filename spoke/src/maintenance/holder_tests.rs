use proptest::prelude::*;

use super::*;

const BORN: Observed = Observed {
    ended: false,
    suspended: true,
    token: None,
    pods: false,
    started: false,
    lost: None,
};
const OPEN: Observed = Observed {
    suspended: false,
    token: Some(5),
    pods: true,
    ..BORN
};

/// Number of the n-th renewal of a lease that was granted at a time.
fn seq(granted: u64, n: u64) -> u64 {
    (granted << 10) + n
}

fn granted() -> Input {
    Input::Granted {
        token: 5,
        ttl: 100,
        renew: 20,
    }
}

/// A holder with a lease that was renewed at 10.
fn held() -> Holder {
    let mut holder = Holder::new();
    assert_eq!(holder.step(Input::Look, BORN, 0), [Effect::Ask]);
    assert_eq!(
        holder.step(granted(), BORN, 10),
        [Effect::Renew {
            token: 5,
            seq: seq(10, 1)
        }]
    );
    let opened = holder.step(
        Input::Renewed {
            token: 5,
            seq: seq(10, 1),
        },
        BORN,
        11,
    );
    assert_eq!(opened, [Effect::Open { token: 5 }]);
    holder
}

#[test]
fn the_gate_opens_only_after_a_renewal_was_answered() {
    let mut holder = held();
    assert_eq!(holder.wake(), Some(30));
    assert_eq!(holder.step(Input::Look, OPEN, 29), []);
    assert_eq!(
        holder.step(Input::Look, OPEN, 30),
        [Effect::Renew {
            token: 5,
            seq: seq(10, 2)
        }]
    );
    let told = holder.step(
        Input::Renewed {
            token: 5,
            seq: seq(10, 2),
        },
        OPEN,
        31,
    );
    assert_eq!(told, [Effect::Count { renewals: 2 }]);
}

#[test]
fn a_pod_that_has_started_is_told_at_once() {
    let mut holder = held();
    let started = Observed {
        started: true,
        ..OPEN
    };
    assert_eq!(
        holder.step(Input::Look, started, 15),
        [Effect::Renew {
            token: 5,
            seq: seq(10, 2)
        }]
    );
    assert_eq!(holder.step(Input::Look, started, 16), []);
}

#[test]
fn the_deadline_counts_from_the_sending_of_the_last_renewal_that_was_answered() {
    let mut holder = held();
    holder.step(Input::Look, OPEN, 30);
    assert_eq!(
        holder.step(Input::Look, OPEN, 50),
        [Effect::Renew {
            token: 5,
            seq: seq(10, 3)
        }]
    );
    // The answer to the second arrives late.
    holder.step(
        Input::Renewed {
            token: 5,
            seq: seq(10, 2),
        },
        OPEN,
        60,
    );
    holder.step(Input::Look, OPEN, 70);
    holder.step(Input::Look, OPEN, 90);
    holder.step(Input::Look, OPEN, 110);
    assert!(!holder.step(Input::Look, OPEN, 119).contains(&Effect::Shut));
    assert_eq!(holder.step(Input::Look, OPEN, 120), [Effect::Shut]);
}

#[test]
fn what_is_shut_is_released_when_its_pods_are_gone_and_asked_for_again() {
    let mut holder = held();
    assert_eq!(holder.step(Input::Revoked { token: 5 }, OPEN, 20), [Effect::Shut]);
    let ending = Observed {
        suspended: true,
        ..OPEN
    };
    assert_eq!(
        holder.step(Input::Look, ending, 21),
        [],
        "its pod is still at work"
    );
    let gone = Observed {
        pods: false,
        ..ending
    };
    assert_eq!(holder.step(Input::Look, gone, 22), [Effect::Release { token: 5 }]);
    assert_eq!(
        holder.step(Input::Connected, gone, 23),
        [Effect::Release { token: 5 }],
        "said again in a new session"
    );
    assert_eq!(holder.step(Input::Released { token: 5 }, gone, 24), [Effect::Ask]);
}

#[test]
fn an_ended_job_is_released_and_done() {
    let mut holder = held();
    let ended = Observed {
        ended: true,
        pods: false,
        ..OPEN
    };
    assert_eq!(
        holder.step(Input::Look, ended, 20),
        [Effect::Release { token: 5 }]
    );
    assert_eq!(holder.step(Input::Released { token: 4 }, ended, 21), []);
    assert_eq!(holder.step(Input::Released { token: 5 }, ended, 22), []);
    assert_eq!(*holder.phase(), Phase::Done);
    let late = holder.step(granted(), ended, 23);
    assert_eq!(
        late,
        [Effect::Release { token: 5 }],
        "a grant that comes too late is given back"
    );
}

#[test]
fn an_adopted_job_renews_first_and_opens_nothing() {
    let mut holder = Holder::adopted(5, 100, 20, 1000);
    assert_eq!(
        holder.step(Input::Look, OPEN, 1000),
        [Effect::Renew {
            token: 5,
            seq: seq(1000, 1)
        }]
    );
    assert_eq!(
        holder.step(Input::Revoked { token: 5 }, OPEN, 1001),
        [Effect::Shut]
    );
    let mut silent = Holder::adopted(5, 100, 20, 1000);
    assert!(silent.step(Input::Look, OPEN, 1090).contains(&Effect::Shut));
}

#[test]
fn a_lease_that_was_given_back_is_not_taken_again() {
    let mut holder = held();
    let gone = Observed {
        suspended: true,
        ..BORN
    };
    holder.step(Input::Revoked { token: 5 }, gone, 20);
    holder.step(Input::Released { token: 5 }, gone, 21);
    assert_eq!(
        holder.step(granted(), gone, 22),
        [Effect::Release { token: 5 }],
        "a late word"
    );
    assert!(matches!(holder.phase(), Phase::Waiting { .. }));
}

#[test]
fn an_operator_that_restarts_while_a_pod_ends_gives_the_lease_back_only_when_it_is_gone() {
    let mut restarted = Holder::after(5);
    let ending = Observed {
        suspended: true,
        ..OPEN
    };
    assert_eq!(restarted.step(Input::Look, ending, 20), []);
    assert_eq!(restarted.step(granted(), ending, 21), [], "told again by the hub");
    let gone = Observed {
        pods: false,
        ..ending
    };
    assert_eq!(
        restarted.step(Input::Look, gone, 22),
        [Effect::Release { token: 5 }]
    );
}

#[test]
fn the_lease_of_a_pod_whose_end_was_not_seen_runs_out() {
    let mut holder = held();
    let failed = Observed {
        ended: true,
        pods: false,
        lost: Some(5),
        ..OPEN
    };
    assert_eq!(
        holder.step(Input::Look, failed, 20),
        [Effect::Withdraw { opened: 5 }]
    );
    assert_eq!(holder.step(granted(), failed, 21), [], "and is not given back");
    let mut shut = held();
    let waits = Observed {
        suspended: true,
        pods: false,
        lost: Some(5),
        ..OPEN
    };
    assert_eq!(shut.step(Input::Look, waits, 20), []);
    assert_eq!(shut.step(Input::Look, waits, 20 + ASK_AGAIN), [Effect::Ask]);
    assert_eq!(shut.step(granted(), waits, 21 + ASK_AGAIN), []);
    let higher = Input::Granted {
        token: 6,
        ttl: 100,
        renew: 20,
    };
    assert!(matches!(
        shut.step(higher, waits, 22 + ASK_AGAIN)[..],
        [Effect::Renew { token: 6, .. }]
    ));
}

#[test]
fn a_lower_token_than_one_seen_before_is_given_back() {
    let mut holder = Holder::new();
    holder.step(Input::Look, BORN, 0);
    assert_eq!(
        holder.step(Input::Refused { token: 3 }, BORN, 1),
        [Effect::Release { token: 3 }]
    );
}

#[test]
fn a_grant_that_cannot_be_used_is_not_asked_for_again_at_once() {
    let mut holder = Holder::new();
    holder.step(Input::Look, BORN, 0);
    holder.step(Input::Refused { token: 3 }, BORN, 1);
    assert_eq!(holder.step(Input::Released { token: 3 }, BORN, 2), []);
    assert_eq!(holder.wake(), Some(2 + ASK_AGAIN));
    assert_eq!(holder.step(Input::Look, BORN, 2 + ASK_AGAIN), [Effect::Ask]);
}

#[test]
fn a_job_that_was_opened_by_somebody_else_is_shut() {
    let mut waits = Holder::new();
    waits.step(Input::Look, BORN, 0);
    let by_hand = Observed { token: None, ..OPEN };
    assert_eq!(waits.step(Input::Look, by_hand, 1), [Effect::Shut]);
    let mut holds = held();
    let stale = Observed {
        token: Some(4),
        ..OPEN
    };
    assert_eq!(
        holds.step(Input::Look, stale, 15),
        [Effect::Shut],
        "its pods were told of an earlier lease"
    );
    let renewed = Input::Renewed {
        token: 5,
        seq: seq(10, 1),
    };
    assert!(
        !holds
            .step(renewed, stale, 16)
            .iter()
            .any(|e| matches!(e, Effect::Count { .. })),
        "and are not told of this one"
    );
}

fn input() -> impl Strategy<Value = Input> {
    let token = || 1u64..4;
    prop_oneof![
        4 => Just(Input::Look),
        1 => Just(Input::Connected),
        2 => token().prop_map(|token| Input::Granted { token, ttl: 100, renew: 20 }),
        1 => token().prop_map(|token| Input::Refused { token }),
        // One of the renewals that were sent; filled in below.
        3 => (token(), 0u64..20).prop_map(|(token, seq)| Input::Renewed { token, seq }),
        1 => token().prop_map(|token| Input::Revoked { token }),
        1 => token().prop_map(|token| Input::Released { token }),
    ]
}

fn observed() -> impl Strategy<Value = Observed> {
    (any::<bool>(), any::<bool>(), any::<bool>(), any::<bool>()).prop_map(
        |(ended, suspended, pods, started)| Observed {
            ended: ended && !pods,
            suspended,
            token: None,
            pods,
            started: pods && started,
            lost: None,
        },
    )
}

proptest! {
    /// Whatever comes in: the gate is opened only while a renewal of this very lease was answered less than a
    /// lifetime after it was sent, and a lease is released only when nothing can be at work under it.
    #[test]
    fn the_gate_is_never_open_without_a_lease(steps in prop::collection::vec((input(), observed(), 0u64..40), 0..120)) {
        let (mut holder, mut now) = (Holder::new(), 0);
        let mut sent: Vec<(u64, u64, u64)> = Vec::new();
        let mut answered: Option<(u64, u64)> = None;
        for (input, job, passed) in steps {
            now += passed;
            let input = match input {
                Input::Renewed { seq, .. } if !sent.is_empty() => {
                    let (token, seq, _) = sent[usize::try_from(seq).unwrap() % sent.len()];
                    Input::Renewed { token, seq }
                }
                other => other,
            };
            if let Input::Renewed { token, seq } = input
                && let Some((_, _, at)) = sent.iter().find(|(t, s, _)| (*t, *s) == (token, seq))
            {
                let at = (*at).max(answered.filter(|(t, _)| *t == token).map_or(0, |(_, at)| at));
                answered = Some((token, at));
            }
            let had_lease = matches!(holder.phase(), Phase::Held(_) | Phase::Closing { .. });
            for effect in holder.step(input, job, now) {
                match effect {
                    Effect::Renew { token, seq } => {
                        sent.retain(|(t, s, _)| (*t, *s) != (token, seq));
                        sent.push((token, seq, now));
                    }
                    Effect::Open { token } => {
                        prop_assert!(job.suspended && !job.ended && !job.pods);
                        let (by, at) = answered.expect("no renewal was answered");
                        prop_assert_eq!(by, token);
                        prop_assert!(now < at + 90);
                    }
                    Effect::Release { .. } if had_lease && !matches!(input, Input::Refused { .. }) => prop_assert!(job.ended || (job.suspended && !job.pods)),
                    Effect::Ask => prop_assert!(!job.ended),
                    _ => {}
                }
            }
            prop_assert!(holder.wake().is_none_or(|at| at > now), "{:?} wakes at once for ever", holder);
        }
    }
}
