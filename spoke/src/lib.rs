//! fleet-spoke: the operator of one cluster.
//!
//! One change, from watch to status: `intake` (watch events into stores and wake-ups) -> `kind` (one supervisor per
//! kind, one actor per resource, one turn at a time) -> `repository` and `backup` (observe, validate, plan: pure; act:
//! the part with a client) -> `apply` (the only writer) -> `link` (latest status per resource, on one stream to the hub).
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used))]

pub mod admin;
pub mod apply;
pub mod backup;
pub mod children;
pub mod config;
pub mod consent;
pub mod context;
pub mod events;
pub mod intake;
pub mod kind;
pub mod leader;
pub mod link;
pub mod maintenance;
pub mod metrics;
pub mod operation;
pub mod pod;
pub mod possession;
pub mod repository;
pub mod restic;
pub mod restore;
pub mod retention;
pub mod root;
pub mod run;
pub mod runs;
pub mod scripts;
pub mod secrets;
pub mod units;
pub mod worker;
pub mod world;
