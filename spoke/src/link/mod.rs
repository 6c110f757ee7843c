//! The one stream to the hub. What goes out about resources is state, converted from the caches when it is sent; nothing in
//! the cluster waits for the hub.

mod client;
mod config;
mod conversation;
pub mod convert;
mod lanes;
mod manifest;
#[cfg(test)]
#[path = "../../../proto/recorded/mod.rs"]
mod recorded;
mod renewal;
mod seen;
pub mod session;
mod unclear;
#[cfg(test)]
mod versions_tests;

pub use client::{News, Wake, run};
pub use config::LinkConfig;
