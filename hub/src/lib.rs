//! fleet-hub: takes the state of every spoke over one mTLS stream each, and answers what the fleet looks like.
//!
//! The way of one message: [`link`] (stream and certificate) → [`session`] (what the message means, pure) →
//! [`inventory`] (latest state, revision, indexes) → [`store`] (written behind in batches), and from the inventory
//! [`rows`], [`query`] and [`status`] (what viewers read, pure) → [`view`] (list, watch, status). Before every request stands
//! [`access`], and before that, on the view, [`dashboard`] (pages and gRPC-Web of browsers).

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used))]

pub mod access;
pub mod activity;
pub mod admin;
pub mod arguments;
pub mod arrivals;
pub mod audit;
pub mod authority;
pub mod authorize;
pub mod away;
pub mod backup;
pub mod bans;
pub mod bindings;
pub mod browse;
pub mod clean;
pub mod clusters;
pub mod collect;
pub mod commands;
pub mod config;
pub mod control;
pub mod copies;
pub mod coverage;
pub mod creation;
pub mod dashboard;
pub mod delays;
pub mod enrol;
pub mod evidence;
pub mod files;
pub mod get;
pub mod health;
pub mod hub;
pub mod identity;
pub mod inventory;
pub mod link;
pub mod lock;
pub mod manifests;
pub mod membership;
pub mod metrics;
mod named;
pub mod oidc;
pub mod outbound;
mod parts;
pub mod people;
pub mod policies;
pub mod query;
pub mod rate;
pub mod restores;
pub mod rows;
pub mod run;
pub mod schedule;
pub mod seal;
pub mod seen;
pub mod servers;
pub mod session;
pub mod status;
pub mod storage;
pub mod store;
pub mod tls;
pub mod verdict;
pub mod view;
pub mod waits;
pub mod watch;
pub mod watcher;

/// Milliseconds since the Unix epoch, by the clock of the hub's machine.
pub type Millis = i64;

/// One moment by two clocks: the wall clock is what people read and may be set; the steady one only goes forward, and ages
/// are measured by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment {
    pub wall: Millis,
    /// Milliseconds since the process began.
    pub steady: Millis,
}

impl Moment {
    /// This moment. Only shells call it.
    #[must_use]
    pub fn now() -> Moment {
        static START: std::sync::LazyLock<std::time::Instant> =
            std::sync::LazyLock::new(std::time::Instant::now);
        Moment {
            wall: now(),
            steady: Millis::try_from(START.elapsed().as_millis()).unwrap_or(Millis::MAX),
        }
    }
}

impl From<Millis> for Moment {
    /// A moment at which both clocks show the same.
    fn from(time: Millis) -> Moment {
        Moment {
            wall: time,
            steady: time,
        }
    }
}

/// The present time. Only shells call it; decisions take the time as an argument.
#[must_use]
pub fn now() -> Millis {
    jiff::Timestamp::now().as_millisecond()
}
