//! Hooks around a run: what a spec asks for, the containers that do it, what these may do, and the Job that makes up for
//! what a run owes. Pure.
//!
//! ```text
//! pod of a run:  sidecar post-…-hook ─ starts first, ends last ──────────────────────────► after, onFailure
//!                init container pre-…-hook ─ before ─►  container restic ─ outcome ─►
//! status:        openHooks: a run is entered when it is first seen, and leaves when its hooks are known to have ended well
//! Job …-hook-…:  runs what a run owes that is over: its pod was killed, evicted or lost, or the hook failed
//! ```

pub mod follow;
mod job;
mod plan;
mod pod;
mod rights;

pub use job::job;
pub use plan::{BadHook, Hook, Owner, Plan, Subject, given};
pub use pod::{DIR, PLAN_VARIABLE, POD_NAME_VARIABLE, POD_UID_VARIABLE, install};
pub use rights::{Grant, Needs, grant};
