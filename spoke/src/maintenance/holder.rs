//! One maintenance Job on its way through the gate: born suspended, opened once under a lease, shut when the lease is
//! lost, released when its end is proven. Pure. Times are milliseconds of this machine's clock since boot, suspend
//! included; no clock of another machine is ever asked.
//!
//! A Job that was opened can never be opened again, because its template cannot change any more. When it is shut, its
//! operation is at its end ([`Phase::Done`] with [`End::Interrupted`]); what is still wanted is done by another Job.

/// Milliseconds since boot.
pub type Instant = u64;

/// Renewals whose answer may still come.
const IN_FLIGHT: usize = 8;

/// The Job as the API server shows it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Observed {
    /// It is complete, failed, or deleted, and no pod of it is at work.
    pub ended: bool,
    /// It has come to its own end, well or not, whatever its pods still do: nothing more is started, and to suspend it would
    /// only hide its end.
    pub finished: bool,
    pub suspended: bool,
    /// It was started at some time (`status.startTime`): its template is fixed.
    pub begun: bool,
    /// Token that its pods are given.
    pub token: Option<u64>,
    /// Some pod of it may still be at work.
    pub pods: bool,
    /// Its container has started, and waits for the first renewal.
    pub started: bool,
    /// Its pod lives and moves, as far as anybody knows: Ready, its node not lost, progress within the bound.
    pub alive: bool,
    /// Token of a pod that disappeared without its end having been seen, as one that was deleted by force: it may be at
    /// work until its switch ends it.
    pub lost: Option<u64>,
}

impl Observed {
    /// Whether it was ever open.
    fn was_opened(&self) -> bool {
        self.begun || self.token.is_some() || !self.suspended
    }

    /// Whether it was open once and is shut: it can never be opened again.
    fn is_spent(&self) -> bool {
        self.suspended && (self.begun || self.token.is_some())
    }
}

/// What reaches a holder from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Input {
    /// Look at the Job and at the clock.
    Look,
    /// A new session with the grantor: what was sent in the old one may be lost.
    Connected,
    Granted {
        token: u64,
        ttl: u64,
        renew: u64,
    },
    /// The lease was granted, but cannot be used: a higher token has been seen for this repository, or what to do does
    /// not fit into a Job.
    Refused {
        token: u64,
    },
    Renewed {
        token: u64,
        seq: u64,
    },
    Revoked {
        token: u64,
    },
    Released {
        token: u64,
    },
    /// The API server has refused to open the Job under this token, and will refuse it again (such as 422). A request
    /// whose fate is not known is no refusal.
    OpenRefused {
        token: u64,
    },
}

/// What has to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Effect {
    Ask,
    /// Nothing is wanted any more. The Job was never opened with a token above this one; 0 if it never was opened.
    Withdraw {
        opened: u64,
    },
    Renew {
        token: u64,
        seq: u64,
    },
    /// Nothing of the operation is at work any more.
    Release {
        token: u64,
    },
    /// Let the Job's pods start, with this token.
    Open {
        token: u64,
    },
    /// End the Job's pods.
    Shut,
    /// Show the pod that the lease was renewed, for the n-th time.
    Count {
        renewals: u64,
    },
}

/// Why an operation was ended before its Job came to its own end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Interruption {
    /// No renewal was answered in time.
    LeaseLost,
    /// The grantor took the lease back: a person wanted it, or it was not ours any more.
    Revoked,
    /// The API server refused to open the Job.
    OpenRefused,
    /// Its container did not start in time.
    NotStarted,
    /// A pod disappeared without its end having been seen.
    PodLost,
    /// Somebody else opened or suspended the Job.
    Meddled,
    /// It was found shut after a restart of the operator.
    FoundShut,
}

/// How an operation came to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum End {
    /// Its Job has ended, well or not, or was deleted.
    Job,
    /// The Job is shut for ever: record it, remove the Job, and make another if it is still wanted.
    Interrupted(Interruption),
}

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

/// A lease.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Lease {
    pub token: u64,
    pub ttl: u64,
    pub renew: u64,
    /// Until when it is ours for sure. `None` before the first answer to a renewal: how long the grant travelled is
    /// not known.
    pub deadline: Option<Instant>,
    /// Renewals that were answered.
    pub renewals: u64,
    since: Instant,
    renew_at: Instant,
    seq: u64,
    sent: Vec<(u64, Instant)>,
    /// The container was seen to have started; the pod's first renewal has been sent.
    woken: bool,
    /// A renewal was due and not sent, for want of a sign of life.
    withheld: bool,
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

impl Lease {
    fn new(token: u64, ttl: u64, renew: u64, now: Instant) -> Lease {
        Lease {
            token,
            ttl,
            renew: renew.max(1),
            deadline: None,
            renewals: 0,
            since: now,
            renew_at: now,
            // Never the same twice: an answer to a question of an earlier life must not count.
            seq: now << 10,
            sent: Vec::new(),
            woken: false,
            withheld: false,
        }
    }

    fn is_over(&self, now: Instant) -> bool {
        self.deadline.is_some_and(|deadline| now >= deadline)
    }

    /// Takes the answer to a renewal. Returns whether it came in time.
    fn answered(&mut self, seq: u64, now: Instant) -> bool {
        let Some((_, sent)) = self.sent.iter().find(|(n, _)| *n == seq).copied() else {
            return false;
        };
        self.sent.retain(|(n, _)| *n > seq);
        let deadline = sent + self.ttl - self.ttl / 10;
        if now >= deadline || self.is_over(now) {
            return false;
        }
        self.deadline = self.deadline.max(Some(deadline));
        self.renewals += 1;
        true
    }

    /// Sends a renewal if one is due and the pod shows a sign of life, or is too young for one.
    fn renew(&mut self, job: Observed, start: Instant, now: Instant) -> Option<Effect> {
        let wake_pod = job.started && !self.woken;
        if now < self.renew_at && !wake_pod && !self.withheld {
            return None;
        }
        if now >= self.renew_at {
            self.renew_at = now + self.renew;
        }
        self.woken |= job.started;
        self.withheld = !(job.alive || now < start);
        if self.withheld {
            return None;
        }
        self.renew_at = now + self.renew;
        self.seq += 1;
        self.sent.push((self.seq, now));
        if self.sent.len() > IN_FLIGHT {
            self.sent.remove(0);
        }
        Some(Effect::Renew {
            token: self.token,
            seq: self.seq,
        })
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
#[path = "holder_tests.rs"]
mod tests;
