//! Logins that wait for their persons. Pure. They are begun by anyone, so there are bounds.

use std::collections::HashMap;
use std::net::IpAddr;

use tonic::Status;

use super::over;
use crate::Millis;
use crate::rate::network;

/// Logins that wait, of one address and in all.
const FROM_THERE: usize = 50;
const IN_ALL: usize = 500;
/// Each asks the issuer: so many are begun a minute.
const BEGUN_THERE: usize = 20;
const BEGUN: usize = 120;

/// A login by the device flow.
#[derive(Clone, Debug)]
pub struct Device {
    pub code: String,
    pub interval: Millis,
    /// The issuer must not be asked before.
    pub next: Millis,
}

/// A login in a browser on the person's machine.
#[derive(Clone, Debug)]
pub struct Browser {
    pub verifier: String,
    pub nonce: String,
    pub redirect: String,
}

/// How a login goes on.
#[derive(Clone, Debug)]
pub enum Flow {
    Device(Device),
    Browser(Browser),
}

/// One login that waits for its person.
#[derive(Clone, Debug)]
pub struct Login {
    pub flow: Flow,
    pub source: Option<IpAddr>,
    pub expires: Millis,
}

/// All of them, by keys that only their persons have.
#[derive(Default)]
pub struct Pending {
    logins: HashMap<[u8; 32], Login>,
    /// Times and addresses of the last ones.
    begun: Vec<(Millis, Option<IpAddr>)>,
}

/// Whether a login's turn to ask has come.
#[derive(Debug)]
pub enum Turn {
    Early(Millis),
    Due(Device),
}

impl Pending {
    /// Whether another login may be begun from an address.
    ///
    /// # Errors
    /// ResourceExhausted when too many wait or were begun.
    pub fn admit(&mut self, source: Option<IpAddr>, now: Millis) -> Result<(), Status> {
        let source = source.map(network);
        self.logins.retain(|_, login| login.expires > now);
        self.begun.retain(|(at, _)| now.saturating_sub(*at) < 60_000);
        let there = self
            .logins
            .values()
            .filter(|login| login.source.map(network) == source);
        let begun_there = self.begun.iter().filter(|(_, from)| *from == source);
        let first = self.logins.values().map(|login| login.expires).min();
        let wait = first.map_or(0, |first| first.saturating_sub(now)) / 60_000 + 1;
        let too_many = |text: &str| {
            let text =
                format!("{text}; try again in {wait} min, or log in with a token of `fleet people invite`");
            Err(Status::resource_exhausted(text))
        };
        if there.count() >= FROM_THERE || begun_there.count() >= BEGUN_THERE {
            return too_many("too many logins from this address wait for their persons");
        }
        if self.logins.len() >= IN_ALL || self.begun.len() >= BEGUN {
            return too_many("too many logins wait for their persons");
        }
        self.begun.push((now, source));
        Ok(())
    }

    /// Keeps a login that was begun.
    pub fn put(&mut self, key: [u8; 32], login: Login) {
        self.logins.insert(key, login);
    }

    /// Whether there is one that is not over.
    #[must_use]
    pub fn waits(&self, key: &[u8; 32], now: Millis) -> bool {
        self.logins.get(key).is_some_and(|login| login.expires > now)
    }

    /// The turn of a login by the device flow.
    ///
    /// # Errors
    /// Unauthenticated when there is none.
    pub fn turn(&mut self, key: &[u8; 32], now: Millis) -> Result<Turn, Status> {
        let login = self.logins.get_mut(key).filter(|login| login.expires > now);
        let Some(Login {
            flow: Flow::Device(device),
            ..
        }) = login
        else {
            return Err(over());
        };
        if device.next > now {
            return Ok(Turn::Early(device.next - now));
        }
        device.next = now + device.interval;
        Ok(Turn::Due(device.clone()))
    }

    /// The issuer wants to be asked less often.
    pub fn slow(&mut self, key: &[u8; 32], interval: Millis, now: Millis) {
        if let Some(Login {
            flow: Flow::Device(device),
            ..
        }) = self.logins.get_mut(key)
        {
            (device.interval, device.next) = (interval, now + interval);
        }
    }

    /// Takes a login in a browser out: its code is good once.
    ///
    /// # Errors
    /// Unauthenticated when there is none.
    pub fn take(&mut self, key: &[u8; 32], now: Millis) -> Result<Browser, Status> {
        if !matches!(self.logins.get(key), Some(login) if matches!(login.flow, Flow::Browser(_))) {
            return Err(over());
        }
        match self.logins.remove(key) {
            Some(Login {
                flow: Flow::Browser(browser),
                expires,
                ..
            }) if expires > now => Ok(browser),
            _ => Err(over()),
        }
    }

    /// Ends a login.
    pub fn end(&mut self, key: &[u8; 32]) {
        self.logins.remove(key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn device(expires: Millis) -> Login {
        Login {
            flow: Flow::Device(Device {
                code: String::new(),
                interval: 5_000,
                next: 5_000,
            }),
            source: None,
            expires,
        }
    }

    #[test]
    fn the_issuer_is_asked_as_often_as_it_allows() {
        let mut pending = Pending::default();
        pending.put([1; 32], device(60_000));
        assert!(matches!(pending.turn(&[1; 32], 1_000), Ok(Turn::Early(4_000))));
        assert!(matches!(pending.turn(&[1; 32], 5_000), Ok(Turn::Due(_))));
        assert!(matches!(pending.turn(&[1; 32], 5_001), Ok(Turn::Early(4_999))));
        assert!(pending.take(&[1; 32], 5_002).is_err(), "no browser was sent away");
        assert!(pending.turn(&[2; 32], 5_000).is_err() && pending.turn(&[1; 32], 60_000).is_err());
    }

    #[test]
    fn a_login_in_a_browser_ends_with_the_first_code() {
        let mut pending = Pending::default();
        let browser = || Login {
            flow: Flow::Browser(Browser {
                verifier: "v".to_owned(),
                nonce: String::new(),
                redirect: String::new(),
            }),
            source: None,
            expires: 60_000,
        };
        pending.put([1; 32], browser());
        assert!(pending.turn(&[1; 32], 1).is_err());
        assert_eq!(pending.take(&[1; 32], 1).unwrap().verifier, "v");
        assert!(pending.take(&[1; 32], 1).is_err());
        pending.put([1; 32], browser());
        assert!(pending.take(&[1; 32], 60_000).is_err(), "it has expired");
    }

    #[test]
    fn logins_are_bounded_by_address_and_in_all() {
        let mut pending = Pending::default();
        let from = |n: u8| Some(IpAddr::from([10, 0, 0, n]));
        assert!((0..BEGUN_THERE).all(|_| pending.admit(from(1), 70_000).is_ok()));
        let refused = pending.admit(from(1), 70_001).unwrap_err();
        assert!(refused.message().contains("from this address"), "{refused}");
        for n in 2..7 {
            assert!((0..BEGUN_THERE).all(|_| pending.admit(from(n), 70_000).is_ok()));
        }
        let refused = pending.admit(from(9), 70_001).unwrap_err();
        assert!(!refused.message().contains("from this address"), "{refused}");
        assert!(pending.admit(from(1), 130_001).is_ok());
        for n in 0..50 {
            pending.put([n; 32], device(600_000));
        }
        assert!(pending.admit(None, 200_000).is_err(), "these wait for theirs");
        assert!(pending.admit(None, 600_000).is_ok());
    }
}
