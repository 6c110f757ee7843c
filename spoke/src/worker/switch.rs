//! The dead man's switch of a maintenance pod. Pure. Each renewal of the lease raises a count that the pod sees as a
//! file; restic may run only while the count has moved within the lease's lifetime. So a pod whose operator, hub or
//! network is gone ends itself before anybody else can be granted the lease, and one that starts late, under a lease
//! that was lost meanwhile, never begins.

/// Milliseconds since boot, suspend included.
pub type Instant = u64;

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
}

/// What the switch allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// No renewal has been seen to arrive yet.
    NotYet,
    Go,
    /// The lease is lost, or was never there.
    Stop,
}

impl Switch {
    /// A switch that is thrown when no renewal is seen for `lifetime` milliseconds.
    #[must_use]
    pub fn new(lifetime: u64, now: Instant) -> Switch {
        Switch {
            lifetime,
            started: now,
            last: None,
            looked: now,
            moved: None,
        }
    }

    /// The count was looked at; `None` if it could not be read. A count that has risen did so at some time since the
    /// last look. A pod that was paused in between cannot know when, so the earliest of these times is taken.
    pub fn observe(&mut self, count: Option<u64>, now: Instant) {
        let Some(count) = count else { return };
        if self.last.is_some_and(|last| count > last) {
            self.moved = Some(self.looked);
        }
        self.last = self.last.max(Some(count));
        self.looked = now;
    }

    /// What may be done now.
    #[must_use]
    pub fn verdict(&self, now: Instant) -> Verdict {
        match self.moved {
            Some(moved) if now.saturating_sub(moved) < self.lifetime => Verdict::Go,
            None if now.saturating_sub(self.started) < self.lifetime => Verdict::NotYet,
            _ => Verdict::Stop,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_count_proves_nothing() {
        let mut switch = Switch::new(100, 0);
        switch.observe(Some(7), 1);
        switch.observe(Some(7), 50);
        assert_eq!(switch.verdict(50), Verdict::NotYet);
        switch.observe(Some(8), 60);
        assert_eq!(switch.verdict(60), Verdict::Go);
    }

    #[test]
    fn silence_for_a_lifetime_throws_it() {
        let mut switch = Switch::new(100, 0);
        assert_eq!(switch.verdict(100), Verdict::Stop, "nothing was ever heard");
        switch.observe(Some(0), 1);
        switch.observe(Some(1), 10);
        switch.observe(None, 50);
        assert_eq!(switch.verdict(100), Verdict::Go);
        assert_eq!(switch.verdict(101), Verdict::Stop);
    }

    #[test]
    fn a_renewal_that_came_during_a_pause_is_as_old_as_the_pause() {
        let mut switch = Switch::new(100, 0);
        switch.observe(Some(0), 1);
        switch.observe(Some(1), 10);
        switch.observe(Some(1), 20);
        // Paused from here on; the lease may have been lost right after this renewal.
        switch.observe(Some(2), 140);
        assert_eq!(switch.verdict(140), Verdict::Stop);
        let mut brief = Switch::new(100, 0);
        brief.observe(Some(0), 1);
        brief.observe(Some(1), 90);
        assert_eq!(brief.verdict(90), Verdict::Go);
    }

    #[test]
    fn a_count_that_falls_is_no_renewal() {
        let mut switch = Switch::new(100, 0);
        switch.observe(Some(5), 1);
        switch.observe(Some(6), 2);
        switch.observe(Some(3), 90);
        assert_eq!(switch.verdict(101), Verdict::Stop);
    }
}
