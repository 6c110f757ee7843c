//! The program as a person runs it, at a hub over real sockets.
//! One program, since each would be compiled and linked with all that they share.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod asked;
#[path = "../../hub/tests/harness/mod.rs"]
mod harness;
mod hub;
#[path = "../../hub/tests/issuer/mod.rs"]
mod issuer;
mod kit;
mod kubeconfig;
mod login;
mod migrate;
mod person;
mod rebuild;
mod relay;
mod volsync;
