use proptest::prelude::*;

use super::*;

mod model;

const ASK_AGAIN: u64 = 30_000;
const START: u64 = 600_000;

const BORN: Observed = Observed {
    ended: false,
    finished: false,
    suspended: true,
    begun: false,
    token: None,
    pods: false,
    started: false,
    alive: false,
    lost: None,
};
/// Open, and its pod is on its way.
const OPEN: Observed = Observed {
    suspended: false,
    begun: true,
    token: Some(5),
    pods: true,
    ..BORN
};
const RUNS: Observed = Observed {
    started: true,
    alive: true,
    ..OPEN
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

/// The same, and one renewal was counted on its pod, at 15.
fn at_work() -> Holder {
    let mut holder = held();
    assert_eq!(
        holder.step(Input::Look, RUNS, 15),
        [Effect::Renew {
            token: 5,
            seq: seq(10, 2)
        }]
    );
    let renewed = Input::Renewed {
        token: 5,
        seq: seq(10, 2),
    };
    assert_eq!(holder.step(renewed, RUNS, 16), [Effect::Count { renewals: 2 }]);
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
    let renewed = Input::Renewed {
        token: 5,
        seq: seq(10, 2),
    };
    assert_eq!(
        holder.step(renewed, OPEN, 31),
        [],
        "a pod that has not started can be removed without a trace"
    );
}

#[test]
fn a_pod_that_has_started_is_told_at_once() {
    let mut holder = at_work();
    assert_eq!(holder.step(Input::Look, RUNS, 17), []);
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

const ENDING: Observed = Observed {
    suspended: true,
    ..RUNS
};
const SHUT: Observed = Observed {
    suspended: true,
    pods: false,
    ..OPEN
};

#[test]
fn what_is_shut_is_released_when_its_pods_have_ended_and_is_at_its_end() {
    let mut holder = at_work();
    assert_eq!(holder.step(Input::Revoked { token: 5 }, RUNS, 20), [Effect::Shut]);
    assert_eq!(
        holder.step(Input::Look, ENDING, 21),
        [],
        "its pod is still at work"
    );
    assert_eq!(holder.step(Input::Look, SHUT, 22), [Effect::Release { token: 5 }]);
    assert_eq!(
        holder.step(Input::Connected, SHUT, 23),
        [Effect::Release { token: 5 }],
        "said again in a new session"
    );
    assert_eq!(holder.step(Input::Released { token: 5 }, SHUT, 24), []);
    assert_eq!(
        *holder.phase(),
        Phase::Done(End::Interrupted(Interruption::Revoked)),
        "its template cannot change any more"
    );
    assert_eq!(holder.wake(), None);
}

#[test]
fn a_job_that_was_never_opened_may_wait_again_after_a_lost_lease() {
    let mut holder = Holder::new();
    holder.step(Input::Look, BORN, 0);
    holder.step(granted(), BORN, 10);
    let late = Observed { pods: true, ..BORN };
    let renewed = Input::Renewed {
        token: 5,
        seq: seq(10, 1),
    };
    assert_eq!(holder.step(renewed, late, 11), [], "something of it is at work");
    assert_eq!(
        holder.step(Input::Look, BORN, 100),
        [Effect::Release { token: 5 }]
    );
    assert_eq!(
        holder.step(Input::Released { token: 5 }, BORN, 101),
        [Effect::Ask]
    );
    let mut taken = held();
    taken.step(Input::Revoked { token: 5 }, BORN, 12);
    taken.step(Input::Released { token: 5 }, BORN, 13);
    assert_eq!(
        *taken.phase(),
        Phase::Done(End::Interrupted(Interruption::Revoked)),
        "a person decides what comes next"
    );
}

#[test]
fn an_open_that_is_refused_ends_the_operation() {
    let mut holder = held();
    let refused = Input::OpenRefused { token: 5 };
    assert_eq!(holder.step(refused, BORN, 12), [Effect::Release { token: 5 }]);
    assert_eq!(
        holder.step(Input::Look, BORN, 12 + ASK_AGAIN),
        [Effect::Release { token: 5 }]
    );
    assert_eq!(
        holder.step(Input::Released { token: 5 }, BORN, 13 + ASK_AGAIN),
        []
    );
    assert_eq!(
        *holder.phase(),
        Phase::Done(End::Interrupted(Interruption::OpenRefused))
    );
    let mut other = held();
    assert_eq!(
        other.step(Input::OpenRefused { token: 4 }, BORN, 12),
        [Effect::Open { token: 5 }]
    );
    // An earlier try came through after all: its pod has seen no renewal, and is ended.
    let mut through = held();
    assert_eq!(through.step(refused, OPEN, 12), [Effect::Shut]);
}

#[test]
fn a_job_that_was_shut_by_somebody_is_never_opened_again() {
    let mut holder = at_work();
    assert_eq!(holder.step(Input::Look, ENDING, 20), []);
    assert!(matches!(holder.phase(), Phase::Closing { .. }));
    assert_eq!(holder.step(Input::Look, SHUT, 21), [Effect::Release { token: 5 }]);
    holder.step(Input::Released { token: 5 }, SHUT, 22);
    assert_eq!(
        *holder.phase(),
        Phase::Done(End::Interrupted(Interruption::Meddled))
    );
    // Opened by hand, without a lease, and shut: the API server knows that it was started.
    let mut waits = Holder::new();
    let by_hand = Observed { begun: true, ..BORN };
    assert_eq!(
        waits.step(Input::Look, by_hand, 0),
        [Effect::Withdraw { opened: 0 }]
    );
    assert_eq!(
        *waits.phase(),
        Phase::Done(End::Interrupted(Interruption::Meddled))
    );
}

#[test]
fn a_container_that_does_not_start_in_time_gives_the_lease_back() {
    let mut holder = held();
    let mut now = 30;
    while now < 10 + START {
        let effects = holder.step(Input::Look, OPEN, now);
        if let [Effect::Renew { token, seq }] = effects[..] {
            holder.step(Input::Renewed { token, seq }, OPEN, now);
        } else {
            panic!("{effects:?} at {now}");
        }
        now = holder.wake().unwrap();
    }
    assert_eq!(holder.step(Input::Look, OPEN, 10 + START), [Effect::Shut]);
    assert_eq!(
        holder.step(Input::Look, SHUT, 11 + START),
        [Effect::Release { token: 5 }]
    );
    holder.step(Input::Released { token: 5 }, SHUT, 12 + START);
    assert_eq!(
        *holder.phase(),
        Phase::Done(End::Interrupted(Interruption::NotStarted))
    );
}

#[test]
fn a_lease_is_renewed_only_while_the_pod_lives() {
    let limits = Limits {
        start: 30,
        ..Limits::default()
    };
    let silent = Observed { alive: false, ..RUNS };
    let mut holder = at_work().within(limits);
    let renews = |effects: &[Effect]| matches!(effects, [Effect::Renew { .. }]);
    assert!(renews(&holder.step(Input::Look, silent, 35)), "it is young");
    assert_eq!(holder.step(Input::Look, silent, 55), []);
    assert!(holder.wake().unwrap() > 55);
    assert!(renews(&holder.step(Input::Look, RUNS, 56)), "at once");
    assert_eq!(holder.step(Input::Look, silent, 76), []);
    assert_eq!(holder.step(Input::Look, silent, 96), []);
    // Renewed at 15, and answered, for 90.
    assert_eq!(holder.step(Input::Look, silent, 105), [Effect::Shut]);
    assert_eq!(holder.interruption(), Some(Interruption::LeaseLost));
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
    assert_eq!(*holder.phase(), Phase::Done(End::Job));
    let late = holder.step(granted(), ended, 23);
    assert_eq!(
        late,
        [Effect::Release { token: 5 }],
        "a grant that comes too late is given back"
    );
    assert_eq!(
        holder.step(Input::Refused { token: 6 }, ended, 24),
        [Effect::Release { token: 6 }],
        "one that cannot be used, too"
    );
}

#[test]
fn a_job_that_has_finished_is_not_suspended_however_late_its_result_is_recorded() {
    // It has come to its own end, and is not settled: the result is not recorded yet.
    let finished = Observed {
        finished: true,
        ended: false,
        pods: false,
        ..OPEN
    };
    let mut over = Holder::over(5);
    assert_eq!(over.step(Input::Look, finished, 20), [], "given back before");
    let mut lost = held();
    assert_eq!(
        lost.step(Input::Look, finished, 1000),
        [],
        "the lease has run out"
    );
    let mut revoked = held();
    assert_eq!(revoked.step(Input::Revoked { token: 5 }, finished, 20), []);
    for mut holder in [over, lost, revoked] {
        let settled = Observed {
            ended: true,
            ..finished
        };
        assert!(!holder.step(Input::Look, settled, 1001).contains(&Effect::Shut));
    }
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
    holder.step(Input::Look, BORN, 101);
    holder.step(Input::Released { token: 5 }, BORN, 102);
    assert!(matches!(holder.phase(), Phase::Waiting { .. }));
    assert_eq!(
        holder.step(granted(), BORN, 103),
        [Effect::Release { token: 5 }],
        "it was on its way for long"
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
    assert_eq!(restarted.step(granted(), ending, 21), [], "sent again by the hub");
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
    let mut holder = at_work();
    let failed = Observed {
        ended: true,
        pods: false,
        lost: Some(5),
        ..OPEN
    };
    assert_eq!(holder.step(Input::Look, failed, 20), []);
    assert_eq!(*holder.phase(), Phase::Done(End::Job));
    assert_eq!(holder.step(granted(), failed, 21), [], "and is not given back");
    let mut shut = at_work();
    let replaced = Observed {
        lost: Some(5),
        ..RUNS
    };
    assert_eq!(
        shut.step(Input::Look, replaced, 20),
        [Effect::Shut],
        "another pod of the Job would work beside it"
    );
    let waits = Observed {
        lost: Some(5),
        ..SHUT
    };
    assert_eq!(shut.step(Input::Look, waits, 21), []);
    assert_eq!(
        *shut.phase(),
        Phase::Done(End::Interrupted(Interruption::PodLost))
    );
    assert_eq!(shut.step(granted(), waits, 22), []);
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
    holds.step(Input::Look, BORN, 30);
    let stranger = Observed {
        token: Some(4),
        ..RUNS
    };
    let renewed = Input::Renewed {
        token: 5,
        seq: seq(10, 2),
    };
    assert_eq!(
        holds.step(renewed, stranger, 31),
        [Effect::Shut],
        "its pods have another token, and see no renewal of this one"
    );
}
