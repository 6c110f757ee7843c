//! An in-memory API server behind a real [`kube::Client`], for tests of the shell: what the product sends is parsed,
//! stored and watched as by Kubernetes, and each request can be made to fail.
//!
//! - `objects`, `rules`, `id`: what is stored, its versions, deletion, garbage collection, what a write may change. Pure.
//! - `fields`: server-side apply: who owns which field. Pure.
//! - `faults`: which requests fail, and the log of all requests.
//! - `call`, `serve`, `watch`: requests in, responses and watches out. `server`: what tests do with it.
//! - `workloads`: what the Job and CronJob controllers and the kubelet would do, one step per call.
//! - `spoke`, `restic`: a whole spoke on it, and repositories in memory.
//!
//! Time is tokio's: with `#[tokio::test(start_paused = true)]` an hour passes at once. [`PausedClock`] is the wall clock
//! that moves with it.

mod call;
mod clock;
mod faults;
mod fields;
mod id;
#[cfg(test)]
mod intake_tests;
#[cfg(test)]
mod notify_tests;
mod objects;
#[cfg(test)]
mod progress_tests;
pub mod restic;
#[cfg(test)]
mod retention_tests;
mod rules;
mod serve;
mod server;
#[cfg(test)]
mod server_tests;
#[cfg(test)]
mod shell_tests;
pub mod spoke;
mod watch;
mod workloads;

pub use clock::{Longest, PausedClock};
pub use faults::{Action, Fault, Request};
pub use server::ApiServer;
pub use workloads::End;

/// Settings as without any arguments.
#[cfg(test)]
pub fn config() -> crate::config::Config {
    use clap::Parser as _;
    crate::arguments::Arguments::parse_from(["fleet-spoke"]).config
}
