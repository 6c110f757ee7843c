//! One maintenance Job on its way through the gate: born suspended, opened once under a lease, shut when the lease is
//! lost, released when its end is proven. Pure. Times are milliseconds of this machine's clock since boot, suspend
//! included; no clock of another machine is ever asked.
//!
//! A Job that was opened can never be opened again, because its template cannot change any more. When it is shut, its
//! operation is at its end ([`Phase::Done`] with [`End::Interrupted`]); what is still wanted is done by another Job.

pub use super::inputs::{Effect, End, Input, Interruption, Observed};
pub use super::lease::{Instant, Lease};

/// Where an operation stands.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Phase {
    /// The lease is asked for.
    Waiting {
        ask_again: Option<Instant>,
    },
    Held(Lease),
    /// The lease is given up: the Job must be shut, and its pods ended.
    Closing {
        token: u64,
    },
    /// Nothing is at work. The grantor must know.
    Releasing {
        token: u64,
        say_again: Option<Instant>,
    },
    Done(End),
}

/// How long is waited for what.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Limits {
    /// From a grant to the start of the container; so long the lease is renewed without a sign of life.
    pub start: u64,
    /// A question that got no answer is asked again after this time.
    pub ask_again: u64,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            start: 600_000,
            ask_again: 30_000,
        }
    }
}

/// The state machine of one Job.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Holder {
    phase: Phase,
    limits: Limits,
    /// Highest token that was given back. An answer about it that arrives late means nothing for the present.
    spent: u64,
    /// The last grant could not be used: the next question is put after a pause.
    refused: bool,
    /// Why the lease was given up.
    why: Option<Interruption>,
    /// Token of a pod whose end was never seen. It is not given back: it has to run out at the grantor.
    lost: Option<u64>,
}

impl Default for Phase {
    fn default() -> Phase {
        Phase::Waiting { ask_again: None }
    }
}

impl Holder {
    /// A Job that waits.
    #[must_use]
    pub fn new() -> Holder {
        Holder::default()
    }

    /// A Job that was shut under this token before the operator restarted. Whether its pods had ended by then, and
    /// whether the grantor knows, is not known.
    #[must_use]
    pub fn after(token: u64) -> Holder {
        Holder {
            phase: Phase::Closing { token },
            why: Some(Interruption::FoundShut),
            ..Holder::default()
        }
    }

    /// A Job that was found open after a restart of the operator. When its lease was last renewed is not known, so
    /// its pod's own switch decides; here it counts from now.
    #[must_use]
    pub fn adopted(token: u64, ttl: u64, renew: u64, now: Instant) -> Holder {
        let mut lease = Lease::new(token, ttl, renew, now);
        lease.deadline = Some(now + ttl - ttl / 10);
        Holder {
            phase: Phase::Held(lease),
            ..Holder::default()
        }
    }

    /// A Job whose lease was given back, or runs out at the grantor: nothing more is said about it.
    #[must_use]
    pub fn over(token: u64) -> Holder {
        Holder {
            phase: Phase::Done(End::Job),
            lost: Some(token),
            ..Holder::default()
        }
    }

    /// The same with other limits.
    #[must_use]
    pub fn within(mut self, limits: Limits) -> Holder {
        self.limits = limits;
        self
    }

    /// Where it stands.
    #[must_use]
    pub fn phase(&self) -> &Phase {
        &self.phase
    }

    /// Why the lease was given up, or is about to be.
    #[must_use]
    pub fn interruption(&self) -> Option<Interruption> {
        self.why
    }

    /// When to look again although nothing happens.
    #[must_use]
    pub fn wake(&self) -> Option<Instant> {
        match &self.phase {
            Phase::Waiting { ask_again } => *ask_again,
            Phase::Held(lease) => {
                let started = (!lease.woken).then(|| lease.since + self.limits.start);
                [lease.deadline, started]
                    .into_iter()
                    .flatten()
                    .fold(lease.renew_at, Instant::min)
                    .into()
            }
            Phase::Releasing { say_again, .. } => *say_again,
            Phase::Closing { .. } | Phase::Done(_) => None,
        }
    }

    /// Takes an input, and returns what to do about it and about the Job as it is.
    pub fn step(&mut self, input: Input, job: Observed, now: Instant) -> Vec<Effect> {
        let mut effects = Vec::new();
        self.take(input, job, now, &mut effects);
        self.judge(job, now);
        self.act(job, now, &mut effects);
        effects
    }

    fn take(&mut self, input: Input, job: Observed, now: Instant, effects: &mut Vec<Effect>) {
        match (&mut self.phase, input) {
            (Phase::Waiting { ask_again }, Input::Connected) => *ask_again = None,
            (Phase::Releasing { say_again, .. }, Input::Connected) => *say_again = None,
            // The question went through before the connection broke: the grantor shall know that it still counts.
            (Phase::Held(lease), Input::Connected) => lease.renew_at = now,
            (
                Phase::Waiting { .. } | Phase::Done(_),
                Input::Granted { token, .. } | Input::Refused { token },
            ) if self.lost == Some(token) => {}
            // It was given back, and the grantor may not know yet.
            (Phase::Waiting { .. }, Input::Granted { token, .. }) if token <= self.spent => {
                effects.push(Effect::Release { token });
            }
            (Phase::Waiting { .. }, Input::Granted { token, ttl, renew }) => {
                self.why = None;
                self.phase = Phase::Held(Lease::new(token, ttl, renew, now));
            }
            // Nothing runs under it, so it can be given back at once.
            (Phase::Waiting { .. }, Input::Refused { token }) => {
                self.refused = true;
                self.phase = Phase::Releasing {
                    token,
                    say_again: None,
                };
            }
            // A lease that came too late: nothing runs under it, or its end is known.
            (Phase::Done(_), Input::Granted { token, .. } | Input::Refused { token }) => {
                effects.push(Effect::Release { token });
            }
            (Phase::Held(lease), Input::Renewed { token, seq }) if lease.token == token => {
                // One that has not started needs none, and without any it can never begin.
                let waits = job.started && job.pods && job.lost.is_none();
                let its = !job.suspended && job.token == Some(token);
                if lease.answered(seq, now) && waits && its {
                    effects.push(Effect::Count {
                        renewals: lease.renewals,
                    });
                }
            }
            (Phase::Held(lease), Input::Revoked { token }) if lease.token == token => {
                self.close(token, Interruption::Revoked);
            }
            (Phase::Held(lease), Input::OpenRefused { token }) if lease.token == token => {
                self.close(token, Interruption::OpenRefused);
            }
            (Phase::Releasing { token: said, .. }, Input::Released { token }) if *said == token => {
                self.spent = self.spent.max(token);
                self.given_back(job, now);
            }
            _ => {}
        }
    }

    /// The lease is given up.
    fn close(&mut self, token: u64, why: Interruption) {
        self.why = Some(why);
        self.phase = Phase::Closing { token };
    }

    /// Where an operation stands that holds nothing any more. A Job that was never opened may wait again, unless the
    /// lease was taken from it or it can never be opened.
    fn given_back(&mut self, job: Observed, now: Instant) {
        let pause = std::mem::take(&mut self.refused);
        let waits = || Phase::Waiting {
            ask_again: pause.then_some(now + self.limits.ask_again),
        };
        self.phase = match self.why {
            _ if job.ended => Phase::Done(End::Job),
            None | Some(Interruption::LeaseLost) if !job.was_opened() => waits(),
            None => waits(),
            Some(why) => Phase::Done(End::Interrupted(why)),
        };
    }

    /// What the Job and the clock mean for where it stands.
    fn judge(&mut self, job: Observed, now: Instant) {
        if let Phase::Held(lease) = &self.phase {
            let token = lease.token;
            let silent = !lease.woken && !job.started && now >= lease.since + self.limits.start;
            let stranger = !job.suspended && job.token != Some(token);
            if job.ended {
                self.phase = Phase::Closing { token };
            } else if job.lost.is_some() {
                self.close(token, Interruption::PodLost);
            } else if lease.is_over(now) {
                self.close(token, Interruption::LeaseLost);
            } else if stranger || job.is_spent() {
                self.close(token, Interruption::Meddled);
            } else if silent {
                self.close(token, Interruption::NotStarted);
            }
        }
        if let Phase::Closing { token } = self.phase {
            self.lost = self.lost.max(job.lost);
            if job.ended || (job.suspended && !job.pods) {
                self.phase = Phase::Releasing {
                    token,
                    say_again: None,
                };
            }
        }
        // A pod whose end was not seen: the lease runs out, and is not given back.
        if let Phase::Releasing { .. } = self.phase
            && self.lost.is_some()
        {
            let why = self.why.unwrap_or(Interruption::PodLost);
            self.phase = Phase::Done(if job.ended {
                End::Job
            } else {
                End::Interrupted(why)
            });
        }
    }

    fn act(&mut self, job: Observed, now: Instant, effects: &mut Vec<Effect>) {
        // Pods may start under a lease that is held, and at no other time.
        let open = matches!(&self.phase, Phase::Held(lease) if job.token == Some(lease.token));
        if !open && !job.suspended && !job.ended && !job.finished {
            effects.push(Effect::Shut);
        }
        match &mut self.phase {
            Phase::Waiting { .. } if job.ended || (job.is_spent() && !job.pods) => {
                self.phase = Phase::Done(if job.ended {
                    End::Job
                } else {
                    End::Interrupted(Interruption::Meddled)
                });
                // The template knows the highest token that it was ever opened with.
                let opened = self.spent.max(job.token.or(job.lost).unwrap_or_default());
                effects.push(Effect::Withdraw { opened });
            }
            Phase::Waiting { ask_again } if ask_again.is_none_or(|at| now >= at) => {
                *ask_again = Some(now + self.limits.ask_again);
                if !job.was_opened() {
                    effects.push(Effect::Ask);
                }
            }
            Phase::Held(lease) => {
                effects.extend(lease.renew(job, lease.since + self.limits.start, now));
                if lease.deadline.is_some() && !job.was_opened() && !job.pods {
                    effects.push(Effect::Open { token: lease.token });
                }
            }
            Phase::Releasing { token, say_again } if say_again.is_none_or(|at| now >= at) => {
                *say_again = Some(now + self.limits.ask_again);
                effects.push(Effect::Release { token: *token });
            }
            _ => {}
        }
    }
}

#[cfg(test)]
#[path = "holder_tests/mod.rs"]
mod tests;
