//! How many attempts to get in are looked at. Pure.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};

use crate::Millis;

/// How many attempts may come at once, and how many more each second.
#[derive(Clone, Copy, Debug)]
pub struct Limit {
    pub burst: i64,
    pub per_second: i64,
}

/// A bucket of attempts that fills up again.
#[derive(Clone, Copy, Debug)]
pub struct Rate {
    limit: Limit,
    /// In thousandths of an attempt.
    left: i64,
    at: Millis,
}

impl Rate {
    /// A full bucket.
    #[must_use]
    pub fn new(limit: Limit, now: Millis) -> Rate {
        Rate {
            limit,
            left: limit.burst * 1000,
            at: now,
        }
    }

    /// Whether one more attempt is looked at. `now` is by the steady clock.
    pub fn take(&mut self, now: Millis) -> bool {
        let enough = self.fill(now) >= 1000;
        if enough {
            self.left -= 1000;
        }
        enough
    }

    fn fill(&mut self, now: Millis) -> i64 {
        let passed = now.saturating_sub(self.at).clamp(0, 3_600_000);
        self.at = self.at.max(now);
        self.left = (self.left + passed * self.limit.per_second).min(self.limit.burst * 1000);
        self.left
    }

    fn is_full(&mut self, now: Millis) -> bool {
        self.fill(now) >= self.limit.burst * 1000
    }
}

/// Addresses that are remembered with their attempts.
const REMEMBERED: usize = 10_000;

/// Attempts by source address, and of all together.
#[derive(Debug)]
pub struct Attempts {
    each: Limit,
    all: Rate,
    sources: HashMap<IpAddr, Rate>,
}

/// Why an attempt is not looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TooMany {
    FromThere,
    InAll,
}

impl Attempts {
    /// None yet.
    #[must_use]
    pub fn new(each: Limit, all: Limit, now: Millis) -> Attempts {
        Attempts {
            each,
            all: Rate::new(all, now),
            sources: HashMap::new(),
        }
    }

    /// Whether one more attempt from an address is looked at. `now` is by the steady clock.
    ///
    /// # Errors
    /// Which bound it exceeds.
    pub fn take(&mut self, source: Option<IpAddr>, now: Millis) -> Result<(), TooMany> {
        let source = network(source.unwrap_or(IpAddr::V6(Ipv6Addr::UNSPECIFIED)));
        if self.sources.len() >= REMEMBERED && !self.sources.contains_key(&source) {
            self.sources.retain(|_, rate| !rate.is_full(now));
        }
        if self.sources.len() >= REMEMBERED && !self.sources.contains_key(&source) {
            return Err(TooMany::InAll);
        }
        let each = self.each;
        let rate = self.sources.entry(source).or_insert_with(|| Rate::new(each, now));
        // An address with too many takes nothing from the others.
        if !rate.take(now) {
            return Err(TooMany::FromThere);
        }
        if !self.all.take(now) {
            return Err(TooMany::InAll);
        }
        Ok(())
    }
}

/// One machine has a whole /64 of IPv6 addresses.
#[must_use]
pub fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() >> 64 << 64)),
        v4 @ IpAddr::V4(_) => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Limit = Limit {
        burst: 100,
        per_second: 20,
    };

    #[test]
    fn a_burst_is_taken_and_then_so_many_a_second() {
        let mut rate = Rate::new(LIMIT, 0);
        let taken = |rate: &mut Rate, now| (0..1000).filter(|_| rate.take(now)).count();
        assert_eq!(taken(&mut rate, 0), 100);
        assert_eq!(taken(&mut rate, 500), 10);
        assert_eq!(taken(&mut rate, 1_500), 20);
        assert_eq!(taken(&mut rate, 1_000), 0, "a clock that goes back gives nothing");
        assert_eq!(taken(&mut rate, 3_600_000), 100);
    }

    #[test]
    fn an_address_with_too_many_holds_up_no_other_one() {
        let each = Limit {
            burst: 10,
            per_second: 1,
        };
        let mut attempts = Attempts::new(each, LIMIT, 0);
        let source = |text: &str| Some(text.parse().unwrap());
        let taken = |attempts: &mut Attempts, from: &str| {
            let tries = (0..1000).filter(|_| attempts.take(source(from), 0).is_ok());
            tries.count()
        };
        assert_eq!(taken(&mut attempts, "10.0.0.1"), 10);
        assert_eq!(
            taken(&mut attempts, "::ffff:10.0.0.1"),
            0,
            "it is the same machine"
        );
        assert_eq!(attempts.take(source("10.0.0.1"), 0), Err(TooMany::FromThere));
        assert_eq!(taken(&mut attempts, "2001:db8::1"), 10);
        assert_eq!(
            taken(&mut attempts, "2001:db8::2"),
            0,
            "one network has one bound"
        );
        let more = (2..50).map(|n| taken(&mut attempts, &format!("10.0.0.{n}")));
        assert_eq!(more.sum::<usize>(), 80, "all together have one, too");
        assert_eq!(attempts.take(source("10.0.1.1"), 0), Err(TooMany::InAll));
    }

    #[test]
    fn addresses_are_forgotten_when_they_are_quiet() {
        let mut attempts = Attempts::new(LIMIT, LIMIT, 0);
        let source = |n: u32| Some(IpAddr::from(n.to_be_bytes()));
        let many = u32::try_from(REMEMBERED).unwrap();
        for n in 0..many {
            let _ = attempts.take(source(n), 0);
        }
        assert_eq!(attempts.take(source(many), 0), Err(TooMany::InAll));
        assert_eq!(attempts.take(source(many), 60_000), Ok(()));
        assert_eq!(attempts.sources.len(), 1);
    }
}
