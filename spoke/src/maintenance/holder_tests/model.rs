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

/// A holder, its Job, and what has passed between them.
struct Play<'a> {
    holder: Holder,
    now: u64,
    job: Observed,
    /// The highest token that was granted.
    granted: u64,
    /// How often the Job was opened.
    opened: u32,
    /// Renewals: token, number, when.
    sent: Vec<(u64, u64, u64)>,
    /// Until when the lease is ours, by the renewals that were answered: token, time.
    ours: Option<(u64, u64)>,
    given_back: Vec<u64>,
    met: &'a mut Met,
}

impl Play<'_> {
    /// What the holder hears of an event.
    fn input(&mut self, event: Event) -> Input {
        let holds = match self.holder.phase() {
            Phase::Held(lease) => lease.token,
            Phase::Closing { token } | Phase::Releasing { token, .. } => *token,
            _ => self.granted,
        };
        match event {
            Event::Connected => Input::Connected,
            Event::Granted(anew) => {
                self.granted += u64::from(anew || self.granted == 0);
                Input::Granted {
                    token: self.granted,
                    ttl: 100,
                    renew: 20,
                }
            }
            Event::Refused if matches!(self.holder.phase(), Phase::Waiting { .. }) => {
                self.met.refused += 1;
                self.granted += 1;
                Input::Refused { token: self.granted }
            }
            Event::Renewed(n) if !self.sent.is_empty() => {
                let (token, seq, _) = self.sent[self.sent.len() - 1 - n % self.sent.len()];
                Input::Renewed { token, seq }
            }
            Event::Revoked => Input::Revoked { token: holds },
            Event::Released => Input::Released { token: holds },
            Event::OpenRefused => Input::OpenRefused { token: holds },
            _ => Input::Look,
        }
    }

    /// What an event does to the Job and its pod.
    fn happens(&mut self, event: Event) {
        let job = &mut self.job;
        match event {
            Event::Started if job.pods => (job.started, job.alive) = (true, true),
            Event::Alive(alive) if job.started => job.alive = alive,
            Event::Finished if job.pods && !job.suspended => {
                (job.ended, job.pods, job.started, job.alive) = (true, false, false, false);
            }
            Event::Ended if job.suspended => (job.pods, job.started, job.alive) = (false, false, false),
            Event::Lost if job.started => {
                self.met.lost += 1;
                job.lost = job.token;
                (job.pods, job.started, job.alive) = (false, false, false);
            }
            Event::Meddled if !job.ended => {
                job.suspended = !job.suspended;
                (job.begun, job.pods) = (true, job.pods || !job.suspended);
            }
            _ => {}
        }
    }

    /// A renewal that was answered makes the lease ours for a life from when it was sent.
    fn counts(&mut self, token: u64, seq: u64) {
        let sent = self.sent.iter().find(|(t, s, _)| (*t, *s) == (token, seq));
        if let Some((_, _, at)) = sent {
            let before = self.ours.filter(|(t, _)| *t == token);
            let before = before.map_or(0, |(_, until)| until);
            self.ours = Some((token, before.max(at + 90)));
        }
    }

    fn is_ours(&self) -> bool {
        self.ours.is_some_and(|(_, until)| self.now < until)
    }

    /// What the holder wants done, where the Job was `before`: whether it may, and it is done.
    fn does(&mut self, effect: Effect, before: Observed) -> Result<(), TestCaseError> {
        match effect {
            Effect::Renew { token, seq } => {
                prop_assert!(matches!(self.holder.phase(), Phase::Held(lease) if lease.token == token));
                let twice = self.sent.iter().any(|(t, s, _)| (*t, *s) == (token, seq));
                prop_assert!(!twice, "the same twice");
                self.sent.push((token, seq, self.now));
            }
            Effect::Open { token } => {
                prop_assert!(before.suspended && !before.ended && !before.pods);
                prop_assert_eq!(self.ours.map(|(t, _)| t), Some(token), "no renewal was answered");
                prop_assert!(self.is_ours(), "too late");
                self.opened += 1;
                self.met.opened += 1;
                prop_assert_eq!(self.opened, 1, "a Job is opened once");
                let job = &mut self.job;
                (job.suspended, job.begun, job.token, job.pods) = (false, true, Some(token), true);
            }
            Effect::Count { .. } => {
                self.met.counted += 1;
                prop_assert!(before.started && before.lost.is_none() && !before.suspended);
                prop_assert_eq!(self.ours.map(|(t, _)| t), before.token);
                prop_assert!(self.is_ours(), "too late");
            }
            Effect::Release { token } => self.gives_back(token, before)?,
            Effect::Ask => prop_assert!(!before.ended && !before.begun),
            Effect::Shut => self.job.suspended = true,
            Effect::Withdraw { .. } => {}
        }
        Ok(())
    }

    fn gives_back(&mut self, token: u64, before: Observed) -> Result<(), TestCaseError> {
        self.met.released += 1;
        // A pod that somebody starts after that sees no renewal, and does not begin.
        let first = !self.given_back.contains(&token);
        let at_work =
            before.token == Some(token) && first && !before.ended && (before.pods || !before.suspended);
        prop_assert!(!at_work, "{token} was given back beside {before:?}");
        let unseen = first && before.lost == Some(token);
        prop_assert!(!unseen, "the end of {token} was never seen");
        self.given_back.push(token);
        Ok(())
    }

    /// What holds after each event.
    fn stands(&mut self, before: Observed) -> Result<(), TestCaseError> {
        let now = self.now;
        if let Phase::Held(lease) = self.holder.phase() {
            let given_back = self.given_back.contains(&lease.token);
            prop_assert!(!given_back, "held after it was given back");
            prop_assert!(lease.deadline.is_none_or(|at| now < at));
            prop_assert!(before.begun || before.suspended || before.token.is_none() || !before.ended);
        }
        let interrupted = matches!(self.holder.phase(), Phase::Done(End::Interrupted(_)));
        self.met.interrupted += u32::from(interrupted);
        let wakes = self.holder.wake().is_none_or(|at| at > now);
        prop_assert!(wakes, "{:?} wakes at once for ever", self.holder);
        Ok(())
    }
}

fn run(steps: &[(Event, u64)], met: &mut Met) -> Result<(), TestCaseError> {
    let limits = Limits {
        start: 150,
        ask_again: 40,
    };
    let mut play = Play {
        holder: Holder::new().within(limits),
        now: 0,
        job: BORN,
        granted: 0,
        opened: 0,
        sent: Vec::new(),
        ours: None,
        given_back: Vec::new(),
        met,
    };
    for (event, passed) in steps {
        play.now += passed;
        let input = play.input(*event);
        play.happens(*event);
        if let Input::Renewed { token, seq } = input {
            play.counts(token, seq);
        }
        let before = play.job;
        for effect in play.holder.step(input, before, play.now) {
            play.does(effect, before)?;
        }
        play.stands(before)?;
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
