//! fleet-spoke: the operator of one cluster.
//!
//! [`run`] starts everything: the long-lived parts ([`services`], each supervised as a [`service`]) and the supervisors of
//! the kinds ([`root`]).
//!
//! One change, from watch to status: `intake` (watch events into stores and wake-ups) -> `kind` (one supervisor per
//! kind, one actor per resource, one turn at a time; one driver for all kinds) -> `repository`, `backup`, `restore` and
//! `retention` (validate, observe, plan, conclude: pure) -> `apply` (the only writer) -> `link` (latest status per
//! resource, on one stream to the hub).
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used))]

pub mod admin;
pub mod allow;
pub mod apply;
pub mod arguments;
pub mod backoff;
pub mod backup;
pub mod browse;
pub mod clock;
pub mod closed;
pub mod command;
pub mod config;
pub mod consent;
pub mod context;
pub mod credentials;
pub mod enrol;
pub mod events;
pub mod exchange;
pub mod exec;
pub mod hook;
pub mod hooks;
pub mod images;
pub mod intake;
pub mod kind;
pub mod leader;
pub mod link;
pub mod maintenance;
pub mod metrics;
pub mod notify;
pub mod operation;
pub mod paths;
pub mod pod;
pub mod possession;
pub mod probe;
pub mod progress;
pub mod queue;
pub mod repository;
pub mod restic;
pub mod restore;
pub mod retention;
pub mod root;
pub mod run;
pub mod runs;
pub mod schedule;
pub mod scripts;
pub mod secrets;
pub mod service;
pub mod services;
pub mod sharing;
pub mod site;
pub mod stream;
#[cfg(test)]
pub mod testing;
pub mod units;
pub mod worker;
pub mod world;
