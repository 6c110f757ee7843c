//! The one stream to the hub. What goes out is state: the latest of each resource, coalesced; nothing waits for the hub.

mod client;
pub mod convert;
mod creation;
mod outbox;
mod session;

pub use client::{LinkConfig, run};
pub use creation::Creations;
pub use outbox::Outbox;
