//! The one stream to the hub. What goes out about resources is state, converted from the caches when it is sent; nothing in
//! the cluster waits for the hub.

mod client;
pub mod convert;
mod lanes;
mod seen;
pub mod session;

pub use client::{LinkConfig, News, Wake, run};
