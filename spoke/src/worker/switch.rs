//! The dead man's switch of a maintenance pod. Pure. Each renewal of the lease raises a count that the pod sees as a
//! file; restic may run only while the count has moved within the lease's lifetime. So a pod whose operator, hub or
//! network is lost ends itself before anybody else can be granted the lease, and one that starts late, under a lease
//! that was lost meanwhile, never begins.
//!
//! All times are absolute: restic gets SIGTERM at three quarters of the life and killed at its end, and a pod that was
//! stopped for longer kills it as soon as it runs again.

/// Milliseconds since boot, suspend included.
pub type Instant = u64;

/// A wall clock that gains this much on the clock since boot shows that the machine stood still.
const STOOD_STILL: u64 = 60_000;

/// The switch.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Switch {
    lifetime: u64,
    started: Instant,
    /// The count as it was last seen. As it was found first it may be old, and proves nothing.
    last: Option<u64>,
    /// When it was last read.
    looked: Instant,
    /// A time after which the last renewal must have come.
    moved: Option<Instant>,
    /// The wall clock less the clock since boot: the smallest that was seen.
    offset: Option<i64>,
    /// The machine stood still without its clock since boot going on; from then on nothing is known.
    stood_still: Option<Instant>,
}

/// What the switch allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// No renewal has been seen to arrive yet.
    NotYet,
    Go,
    /// The lease is lost, or was never there: what runs has to end, and is killed at this time, which may have passed.
    Stop {
        kill: Instant,
    },
}

impl Switch {
    /// A switch that lets nothing run any more when no renewal was seen for `lifetime` milliseconds.
    #[must_use]
    pub fn new(lifetime: u64, now: Instant) -> Switch {
        Switch {
            lifetime,
            started: now,
            last: None,
            looked: now,
            moved: None,
            offset: None,
            stood_still: None,
        }
    }

    /// The count was looked at; `None` if it could not be read. A count that has risen did so at some time since the
    /// last look. A pod that was paused in between cannot know when, so the earliest of these times is taken.
    /// `wall`: milliseconds of the wall clock, since any fixed time.
    pub fn observe(&mut self, count: Option<u64>, now: Instant, wall: u64) {
        self.compare(now, wall);
        let Some(count) = count else { return };
        if self.last.is_some_and(|last| count > last) {
            self.moved = Some(self.looked);
        }
        self.last = self.last.max(Some(count));
        self.looked = now;
    }

    /// A hypervisor that stops a machine stops its clock since boot too, but not the time of the world. Only a wall
    /// clock that is set afterwards shows it.
    fn compare(&mut self, now: Instant, wall: u64) {
        let signed = |time: u64| i64::try_from(time).unwrap_or(i64::MAX);
        let offset = signed(wall).saturating_sub(signed(now));
        let least = self.offset.map_or(offset, |least| least.min(offset));
        self.offset = Some(least);
        if offset.saturating_sub(least) > signed(STOOD_STILL) {
            self.stood_still.get_or_insert(now);
        }
    }

    /// What may be done now.
    #[must_use]
    pub fn verdict(&self, now: Instant) -> Verdict {
        let kill = self.kill_at();
        let end = kill.saturating_sub(self.lifetime / 4);
        match self.moved {
            _ if self.stood_still.is_some() || now >= kill => Verdict::Stop { kill },
            // Before the first renewal nothing runs that would have to end.
            None => Verdict::NotYet,
            Some(_) if now >= end => Verdict::Stop { kill },
            Some(_) => Verdict::Go,
        }
    }

    /// When the lease is over for sure: nothing may run from then on.
    #[must_use]
    pub fn kill_at(&self) -> Instant {
        let over = self.moved.unwrap_or(self.started) + self.lifetime;
        self.stood_still.map_or(over, |at| at.min(over))
    }

    /// When restic is killed after a signal to the pod: after its grace, or when the lease is over.
    #[must_use]
    pub fn signalled(&self, now: Instant, grace: u64) -> Instant {
        self.kill_at().min(now + grace)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    impl Switch {
        fn look(&mut self, count: Option<u64>, now: Instant) {
            self.observe(count, now, 1_000_000 + now);
        }
    }

    #[test]
    fn the_first_count_proves_nothing() {
        let mut switch = Switch::new(100, 0);
        switch.look(Some(7), 1);
        switch.look(Some(7), 50);
        assert_eq!(switch.verdict(50), Verdict::NotYet);
        switch.look(Some(8), 60);
        assert_eq!(switch.verdict(60), Verdict::Go);
    }

    #[test]
    fn silence_ends_what_runs_at_three_quarters_and_kills_it_at_the_end() {
        let mut switch = Switch::new(100, 0);
        assert_eq!(switch.verdict(99), Verdict::NotYet);
        assert_eq!(
            switch.verdict(100),
            Verdict::Stop { kill: 100 },
            "there was never a renewal"
        );
        switch.look(Some(0), 1);
        switch.look(Some(1), 10);
        switch.look(None, 50);
        assert_eq!(switch.verdict(75), Verdict::Go);
        assert_eq!(switch.verdict(76), Verdict::Stop { kill: 101 });
    }

    #[test]
    fn a_renewal_that_came_during_a_pause_is_as_old_as_the_pause() {
        let mut switch = Switch::new(100, 0);
        switch.look(Some(0), 1);
        switch.look(Some(1), 10);
        switch.look(Some(1), 20);
        // Paused from here on; the lease may have been lost right after this renewal.
        switch.look(Some(2), 140);
        assert_eq!(
            switch.verdict(140),
            Verdict::Stop { kill: 120 },
            "the time to kill has passed"
        );
        let mut brief = Switch::new(100, 0);
        brief.look(Some(0), 1);
        brief.look(Some(1), 50);
        assert_eq!(brief.verdict(50), Verdict::Go);
    }

    #[test]
    fn a_count_that_falls_is_no_renewal() {
        let mut switch = Switch::new(100, 0);
        switch.look(Some(5), 1);
        switch.look(Some(6), 2);
        switch.look(Some(3), 70);
        assert_eq!(switch.verdict(76), Verdict::Stop { kill: 101 });
    }

    #[test]
    fn the_grace_of_a_signal_ends_with_the_lease() {
        let mut switch = Switch::new(100, 0);
        switch.look(Some(0), 10);
        switch.look(Some(1), 11);
        assert_eq!(switch.signalled(20, 30), 50);
        assert_eq!(switch.signalled(90, 30), 110);
        assert_eq!(switch.signalled(200, 30), 110, "it has passed");
    }

    #[test]
    fn a_wall_clock_that_jumps_shows_that_the_machine_stood_still() {
        let mut switch = Switch::new(1_000_000, 0);
        switch.observe(Some(0), 0, 5_000_000);
        switch.observe(Some(1), 200, 5_000_200);
        switch.observe(Some(2), 400, 5_060_400);
        assert_eq!(switch.verdict(400), Verdict::Go, "a step of the clock's keeper");
        switch.observe(Some(3), 600, 5_060_601);
        assert_eq!(switch.verdict(600), Verdict::Stop { kill: 600 });
        switch.observe(Some(4), 800, 5_000_800);
        assert_eq!(switch.verdict(800), Verdict::Stop { kill: 600 }, "for good");
        let mut back = Switch::new(1_000_000, 0);
        back.observe(Some(0), 0, 5_000_000);
        back.observe(Some(1), 200, 1_000_000);
        assert_eq!(back.verdict(200), Verdict::Go);
    }
}
