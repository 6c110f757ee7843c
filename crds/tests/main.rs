//! The kinds against Kubernetes, restic and the original.
//! One program, since each would be compiled and linked with all that they share.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod drift;
mod kubernetes;
mod original;
mod reference;
mod restic;
#[path = "../../spoke/tests/weak_key.rs"]
mod weak_key;
