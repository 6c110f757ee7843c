//! Without a hub: since when nothing shows that a holder of the lock lives. Pure. Times are milliseconds since boot.

/// The silence of one repository's holder.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Silence {
    /// Holder and token that it is about.
    of: Option<(String, u64)>,
    since: Option<u64>,
}

impl Silence {
    /// The holder was looked at. `silent` is true when its Job has ended, or is not there, and no pod of it may be at work
    /// as far as this cluster knows. Returns how long that has been so without interruption.
    pub fn observe(&mut self, holder: &str, token: u64, silent: bool, now: u64) -> u64 {
        if self.of.as_ref().is_none_or(|(h, t)| h != holder || *t != token) {
            *self = Silence {
                of: Some((holder.to_owned(), token)),
                since: None,
            };
        }
        if !silent {
            self.since = None;
            return 0;
        }
        now.saturating_sub(*self.since.get_or_insert(now))
    }

    /// A renewal of the holder was answered: its pod may work for a life of the lease from now on.
    pub fn renewed(&mut self) {
        self.since = None;
    }
}

/// How long a holder must have been silent before its lock is granted to another: its lease, a tenth more for clocks that
/// differ, and the delay for requests of its pod that are still under way.
#[must_use]
pub fn limit(ttl: u64, delay: u64) -> u64 {
    (ttl + ttl / 10).saturating_add(delay)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clock_starts_when_the_holder_falls_silent_and_not_when_somebody_begins_to_wait() {
        let mut silence = Silence::default();
        // Another policy waits for 15 minutes while the holder works.
        assert_eq!(silence.observe("job", 3, false, 0), 0);
        assert_eq!(silence.observe("job", 3, false, 900_000), 0);
        // Its pod is deleted by force.
        assert_eq!(silence.observe("job", 3, true, 901_000), 0);
        assert_eq!(silence.observe("job", 3, true, 931_000), 30_000);
    }

    #[test]
    fn a_renewal_and_another_holder_start_it_anew() {
        let mut silence = Silence::default();
        silence.observe("job", 3, true, 0);
        silence.renewed();
        assert_eq!(silence.observe("job", 3, true, 50_000), 0);
        assert_eq!(silence.observe("job", 4, true, 90_000), 0);
        assert_eq!(silence.observe("other", 4, true, 95_000), 0);
    }

    #[test]
    fn the_limit_is_a_life_and_the_delay() {
        assert_eq!(limit(300_000, 1_800_000), 330_000 + 1_800_000);
    }
}
