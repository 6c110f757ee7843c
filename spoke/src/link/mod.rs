//! The one stream to the hub. What goes out about resources is state, converted from the caches when it is sent; nothing in
//! the cluster waits for the hub.

mod client;
mod config;
mod conversation;
pub mod convert;
mod lanes;
mod renewal;
mod seen;
pub mod session;
mod unclear;

pub use client::{News, Wake, run};
pub use config::LinkConfig;
