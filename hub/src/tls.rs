//! TLS of the hub's listeners: what it presents and whom it trusts, replaced while it runs, and how many may knock.

mod accept;
mod keys;
mod served;

pub use self::accept::{Accepted, Bounds, accept};
pub use self::keys::{Keys, Listeners, certificates};
