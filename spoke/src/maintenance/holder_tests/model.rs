//! A holder among events that come in any order.

use super::*;

/// What happens around a holder. The Job and its pods answer to its effects, and now and then to somebody else.
#[derive(Clone, Copy, Debug)]
enum Event {
    Look,
    Connected,
    /// Granted anew, or again.
    Granted(bool),
    Refused,
    /// The answer to one of the renewals that were sent, of whatever age.
    Renewed(usize),
    Revoked,
    Released,
    OpenRefused,
    /// The pod starts, shows life or none, ends by itself, is seen to end after a Shut, or disappears.
    Started,
    Alive(bool),
    Finished,
    Ended,
    Lost,
    /// A person opens or suspends the Job.
    Meddled,
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        6 => Just(Event::Look),
        1 => Just(Event::Connected),
        4 => any::<bool>().prop_map(Event::Granted),
        1 => Just(Event::Refused),
        8 => (0usize..4).prop_map(Event::Renewed),
        1 => Just(Event::Revoked),
        2 => Just(Event::Released),
        1 => Just(Event::OpenRefused),
        3 => Just(Event::Started),
        2 => any::<bool>().prop_map(Event::Alive),
        1 => Just(Event::Finished),
        2 => Just(Event::Ended),
        1 => Just(Event::Lost),
        1 => Just(Event::Meddled),
    ]
}

/// What the property has met, so that it is known to assert something.
#[derive(Debug, Default)]
struct Met {
    opened: u32,
    counted: u32,
    released: u32,
    lost: u32,
    refused: u32,
    interrupted: u32,
}

fn run(steps: &[(Event, u64)], met: &mut Met) -> Result<(), TestCaseError> {
    let limits = Limits {
        start: 150,
        ask_again: 40,
    };
    let (mut holder, mut now, mut job) = (Holder::new().within(limits), 0, BORN);
    let (mut granted, mut opened) = (0u64, 0u32);
    let mut sent: Vec<(u64, u64, u64)> = Vec::new();
    // Until when the lease is ours, by the renewals that were answered.
    let mut ours: Option<(u64, u64)> = None;
    let mut given_back: Vec<u64> = Vec::new();
    for (event, passed) in steps {
        now += passed;
        let holds = match holder.phase() {
            Phase::Held(lease) => lease.token,
            Phase::Closing { token } | Phase::Releasing { token, .. } => *token,
            _ => granted,
        };
        let input = match *event {
            Event::Connected => Input::Connected,
            Event::Granted(anew) => {
                granted += u64::from(anew || granted == 0);
                Input::Granted {
                    token: granted,
                    ttl: 100,
                    renew: 20,
                }
            }
            Event::Refused if matches!(holder.phase(), Phase::Waiting { .. }) => {
                met.refused += 1;
                granted += 1;
                Input::Refused { token: granted }
            }
            Event::Renewed(n) if !sent.is_empty() => {
                let (token, seq, _) = sent[sent.len() - 1 - n % sent.len()];
                Input::Renewed { token, seq }
            }
            Event::Revoked => Input::Revoked { token: holds },
            Event::Released => Input::Released { token: holds },
            Event::OpenRefused => Input::OpenRefused { token: holds },
            _ => Input::Look,
        };
        match *event {
            Event::Started if job.pods => (job.started, job.alive) = (true, true),
            Event::Alive(alive) if job.started => job.alive = alive,
            Event::Finished if job.pods && !job.suspended => {
                (job.ended, job.pods, job.started, job.alive) = (true, false, false, false);
            }
            Event::Ended if job.suspended => (job.pods, job.started, job.alive) = (false, false, false),
            Event::Lost if job.started => {
                met.lost += 1;
                job.lost = job.token;
                (job.pods, job.started, job.alive) = (false, false, false);
            }
            Event::Meddled if !job.ended => {
                job.suspended = !job.suspended;
                (job.begun, job.pods) = (true, job.pods || !job.suspended);
            }
            _ => {}
        }
        if let Input::Renewed { token, seq } = input
            && let Some((_, _, at)) = sent.iter().find(|(t, s, _)| (*t, *s) == (token, seq))
        {
            let before = ours.filter(|(t, _)| *t == token).map_or(0, |(_, until)| until);
            ours = Some((token, before.max(at + 90)));
        }
        let before = job;
        for effect in holder.step(input, before, now) {
            match effect {
                Effect::Renew { token, seq } => {
                    prop_assert!(matches!(holder.phase(), Phase::Held(lease) if lease.token == token));
                    prop_assert!(
                        !sent.iter().any(|(t, s, _)| (*t, *s) == (token, seq)),
                        "the same twice"
                    );
                    sent.push((token, seq, now));
                }
                Effect::Open { token } => {
                    prop_assert!(before.suspended && !before.ended && !before.pods);
                    prop_assert_eq!(ours.map(|(t, _)| t), Some(token), "no renewal was answered");
                    prop_assert!(ours.is_some_and(|(_, until)| now < until), "too late");
                    opened += 1;
                    met.opened += 1;
                    prop_assert_eq!(opened, 1, "a Job is opened once");
                    (job.suspended, job.begun, job.token, job.pods) = (false, true, Some(token), true);
                }
                Effect::Count { .. } => {
                    met.counted += 1;
                    prop_assert!(before.started && before.lost.is_none() && !before.suspended);
                    prop_assert_eq!(ours.map(|(t, _)| t), before.token);
                    prop_assert!(ours.is_some_and(|(_, until)| now < until), "too late");
                }
                Effect::Release { token } => {
                    met.released += 1;
                    // A pod that somebody starts after that sees no renewal, and does not begin.
                    let first = !given_back.contains(&token);
                    let at_work = before.token == Some(token)
                        && first
                        && !before.ended
                        && (before.pods || !before.suspended);
                    prop_assert!(!at_work, "{token} was given back beside {before:?}");
                    prop_assert!(
                        !first || before.lost != Some(token),
                        "the end of {token} was never seen"
                    );
                    given_back.push(token);
                }
                Effect::Ask => prop_assert!(!before.ended && !before.begun),
                Effect::Shut => job.suspended = true,
                Effect::Withdraw { .. } => {}
            }
        }
        if let Phase::Held(lease) = holder.phase() {
            prop_assert!(!given_back.contains(&lease.token), "held after it was given back");
            prop_assert!(lease.deadline.is_none_or(|at| now < at));
            prop_assert!(before.begun || before.suspended || before.token.is_none() || !before.ended);
        }
        met.interrupted += u32::from(matches!(holder.phase(), Phase::Done(End::Interrupted(_))));
        prop_assert!(
            holder.wake().is_none_or(|at| at > now),
            "{:?} wakes at once for ever",
            holder
        );
    }
    Ok(())
}

/// Whatever comes in: the gate is opened once, and only while a renewal of this very lease was answered less than a
/// lifetime after it was sent; its pod is shown it only then; a lease is given back only when nothing can be at work under
/// it; and nothing is held that was given back.
#[test]
fn the_gate_is_never_open_without_a_lease() {
    let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig {
        failure_persistence: None,
        ..ProptestConfig::with_cases(3000)
    });
    let met = std::cell::RefCell::new(Met::default());
    let steps = prop::collection::vec((event(), 0u64..20), 0..120);
    runner
        .run(&steps, |steps| run(&steps, &mut met.borrow_mut()))
        .unwrap();
    let met = met.into_inner();
    let all = [
        met.opened,
        met.counted,
        met.released,
        met.lost,
        met.refused,
        met.interrupted,
    ];
    assert!(all.iter().all(|n| *n > 100), "{met:?}");
}
