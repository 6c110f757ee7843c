//! The maintenance lock. Each maintenance Job has a [`holder`] (pure), which its actor ([`crate::operation`]) feeds.
//! [`Leases`](crate::exchange::Leases) is the actor's client of the grantor: the hub, or without one a Kubernetes Lease
//! of this cluster ([`local`]). [`tokens`] keeps the highest token that this cluster has seen.

pub mod holder;
mod inputs;
mod lease;
mod local;
mod silence;
mod tokens;

pub use local::{Local, LocalGrantor};
pub use tokens::{claim, highest};
