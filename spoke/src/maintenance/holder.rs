//! One maintenance Job on its way through the gate: born suspended, opened under a lease, shut again when the lease is
//! lost, released when its end is proven. Pure. Times are milliseconds of this machine's clock since boot, suspend
//! included; no clock of another machine is ever asked.

/// Milliseconds since boot.
pub type Instant = u64;

/// Renewals whose answer may still come.
const IN_FLIGHT: usize = 8;

/// The Job as the API server shows it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Observed {
    /// It is complete, failed, or deleted.
    pub ended: bool,
    pub suspended: bool,
    /// Token that its pods are given.
    pub token: Option<u64>,
    /// Some pod of it may still be at work.
    pub pods: bool,
    /// Its container has started, and waits for the first renewal.
    pub started: bool,
    /// Token of a pod that went without its end having been seen, as one that was deleted by force: it may be at work
    /// until its switch is thrown.
    pub lost: Option<u64>,
}

/// What reaches a holder from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Input {
    /// Look at the Job and at the clock.
    Look,
    /// A new session with whoever grants: what was said in the old one may be lost.
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
}

/// What has to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Effect {
    Ask,
    /// The Job is gone while it waited. It was never opened with a token above this one.
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
    /// Tell the pod that the lease was renewed, for the n-th time.
    Count {
        renewals: u64,
    },
}

/// Where an operation stands.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Phase {
    /// The lease is asked for.
    Waiting {
        ask_again: Option<Instant>,
    },
    Held(Lease),
    /// The lease is lost: the Job must be shut, and its pods gone.
    Closing {
        token: u64,
    },
    /// Nothing is at work. Whoever grants must hear of it.
    Releasing {
        token: u64,
        say_again: Option<Instant>,
    },
    Done,
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
    renew_at: Instant,
    seq: u64,
    sent: Vec<(u64, Instant)>,
    /// The pod's first renewal has been sent.
    woken: bool,
}

/// The state machine of one Job.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Holder {
    phase: Phase,
    /// Highest token that was given back. A word about it that arrives late says nothing about the present.
    spent: u64,
    /// The last grant could not be used: the next question is put after a pause.
    refused: bool,
    /// Token of a pod whose end was never seen. It is not given back: whoever grants waits until it has run out.
    lost: Option<u64>,
}

/// A question that got no answer is asked again.
const ASK_AGAIN: u64 = 30_000;

impl Lease {
    fn new(token: u64, ttl: u64, renew: u64, now: Instant) -> Lease {
        Lease {
            token,
            ttl,
            renew: renew.max(1),
            deadline: None,
            renewals: 0,
            renew_at: now,
            // Never the same twice: an answer to a question of an earlier life must not count.
            seq: now << 10,
            sent: Vec::new(),
            woken: false,
        }
    }

    fn is_over(&self, now: Instant) -> bool {
        self.deadline.is_some_and(|deadline| now >= deadline)
    }
}

impl Holder {
    /// A Job that waits.
    #[must_use]
    pub fn new() -> Holder {
        Holder {
            phase: Phase::Waiting { ask_again: None },
            spent: 0,
            refused: false,
            lost: None,
        }
    }

    /// A Job that was shut under this token in a former life of the operator. Whether its pods were gone by then, and
    /// whether that was said, is not known.
    #[must_use]
    pub fn after(token: u64) -> Holder {
        Holder {
            phase: Phase::Closing { token },
            ..Holder::new()
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
            ..Holder::new()
        }
    }

    /// Where it stands.
    #[must_use]
    pub fn phase(&self) -> &Phase {
        &self.phase
    }

    /// When to look again although nothing happens.
    #[must_use]
    pub fn wake(&self) -> Option<Instant> {
        match &self.phase {
            Phase::Waiting { ask_again } => *ask_again,
            Phase::Held(lease) => Some(lease.deadline.map_or(lease.renew_at, |d| d.min(lease.renew_at))),
            Phase::Releasing { say_again, .. } => *say_again,
            Phase::Closing { .. } | Phase::Done => None,
        }
    }

    /// Takes an input, and says what to do about it and about the Job as it is.
    pub fn step(&mut self, input: Input, job: Observed, now: Instant) -> Vec<Effect> {
        let mut effects = Vec::new();
        self.take(input, job, now, &mut effects);
        self.look(job, now, &mut effects);
        effects
    }

    fn take(&mut self, input: Input, job: Observed, now: Instant, effects: &mut Vec<Effect>) {
        match (&mut self.phase, input) {
            (Phase::Waiting { ask_again }, Input::Connected) => *ask_again = None,
            (Phase::Releasing { say_again, .. }, Input::Connected) => *say_again = None,
            // The question went through before the connection broke: the hub shall know that it still counts.
            (Phase::Held(lease), Input::Connected) => lease.renew_at = now,
            (Phase::Waiting { .. } | Phase::Done, Input::Granted { token, .. })
                if self.lost == Some(token) => {}
            // It was given back, and whoever grants may not have heard of it.
            (Phase::Waiting { .. }, Input::Granted { token, .. }) if token <= self.spent => {
                effects.push(Effect::Release { token });
            }
            (Phase::Waiting { .. }, Input::Granted { token, ttl, renew }) => {
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
            // A lease of a former life: given back once nothing runs.
            (Phase::Done, Input::Granted { token, .. }) => effects.push(Effect::Release { token }),
            (Phase::Held(lease), Input::Renewed { token, seq }) if lease.token == token => {
                if let Some((_, sent)) = lease.sent.iter().find(|(n, _)| *n == seq).copied() {
                    lease.sent.retain(|(n, _)| *n > seq);
                    let deadline = sent + lease.ttl - lease.ttl / 10;
                    if now < deadline {
                        lease.deadline = lease.deadline.max(Some(deadline));
                        lease.renewals += 1;
                        if job.pods && !job.suspended && job.token == Some(token) {
                            effects.push(Effect::Count {
                                renewals: lease.renewals,
                            });
                        }
                    }
                }
            }
            (Phase::Held(lease), Input::Revoked { token }) if lease.token == token => {
                self.phase = Phase::Closing { token };
            }
            (Phase::Releasing { token: said, .. }, Input::Released { token }) if *said == token => {
                self.spent = self.spent.max(token);
                let pause = std::mem::take(&mut self.refused);
                self.phase = if job.ended {
                    Phase::Done
                } else {
                    Phase::Waiting {
                        ask_again: pause.then_some(now + ASK_AGAIN),
                    }
                };
            }
            _ => {}
        }
    }

    fn look(&mut self, job: Observed, now: Instant, effects: &mut Vec<Effect>) {
        if let Phase::Held(Lease { token, .. }) | Phase::Closing { token } = self.phase
            && job.lost == Some(token)
        {
            self.lost = Some(token);
            self.phase = Phase::Waiting {
                ask_again: Some(now + ASK_AGAIN),
            };
        }
        if let Phase::Held(lease) = &self.phase {
            let token = lease.token;
            // Pods of an ended Job have ended too.
            if job.ended {
                self.phase = Phase::Releasing {
                    token,
                    say_again: None,
                };
            } else if lease.is_over(now) {
                self.phase = Phase::Closing { token };
            }
        }
        if let Phase::Closing { token } = self.phase {
            if job.ended || (job.suspended && !job.pods) {
                self.phase = Phase::Releasing {
                    token,
                    say_again: None,
                };
            } else if !job.suspended {
                effects.push(Effect::Shut);
            }
        }
        // Opened by a person, or for an earlier lease: what its pods were told then does not count any more.
        let misled = match &self.phase {
            Phase::Waiting { .. } => true,
            Phase::Held(lease) => job.token != Some(lease.token),
            _ => false,
        };
        if misled && !job.suspended && !job.ended {
            effects.push(Effect::Shut);
        }
        match &mut self.phase {
            Phase::Waiting { .. } if job.ended => {
                self.phase = Phase::Done;
                effects.push(Effect::Withdraw {
                    opened: self.spent.max(self.lost.unwrap_or_default()),
                });
            }
            Phase::Waiting { ask_again } if ask_again.is_none_or(|at| now >= at) => {
                *ask_again = Some(now + ASK_AGAIN);
                effects.push(Effect::Ask);
            }
            Phase::Held(lease) => {
                let wake_pod = job.started && !lease.woken;
                if now >= lease.renew_at || wake_pod {
                    lease.woken |= job.started;
                    lease.seq += 1;
                    lease.sent.push((lease.seq, now));
                    if lease.sent.len() > IN_FLIGHT {
                        lease.sent.remove(0);
                    }
                    lease.renew_at = now + lease.renew;
                    effects.push(Effect::Renew {
                        token: lease.token,
                        seq: lease.seq,
                    });
                }
                // Pods of an earlier opening must be gone before the next one begins.
                if lease.deadline.is_some() && job.suspended && !job.pods {
                    effects.push(Effect::Open { token: lease.token });
                }
            }
            Phase::Releasing { token, say_again } if say_again.is_none_or(|at| now >= at) => {
                *say_again = Some(now + ASK_AGAIN);
                effects.push(Effect::Release { token: *token });
            }
            _ => {}
        }
    }
}

impl Default for Holder {
    fn default() -> Self {
        Holder::new()
    }
}

#[cfg(test)]
#[path = "holder_tests.rs"]
mod tests;
