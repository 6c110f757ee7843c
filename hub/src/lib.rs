//! fleet-hub: takes the state of every spoke over one mTLS stream each, and answers what the fleet looks like.
//!
//! The way of one message: [`link`] (stream and certificate) → [`session`] (what the message means, pure) →
//! [`inventory`] (latest state, revision, indexes) → [`store`] (written behind in batches), and from the inventory
//! [`rows`], [`query`] and [`status`] (what viewers read, pure) → [`view`] (list, watch, status).

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used))]

pub mod admin;
pub mod authorize;
pub mod bindings;
pub mod clean;
pub mod config;
pub mod creation;
pub mod health;
pub mod hub;
pub mod identity;
pub mod inventory;
pub mod link;
pub mod lock;
pub mod metrics;
pub mod query;
pub mod rows;
pub mod run;
pub mod schedule;
pub mod session;
pub mod status;
pub mod store;
pub mod view;

/// Milliseconds since the Unix epoch, by the clock of the hub's machine.
pub type Millis = i64;

/// The present time. Only shells call it; decisions take the time as an argument.
#[must_use]
pub fn now() -> Millis {
    jiff::Timestamp::now().as_millisecond()
}
