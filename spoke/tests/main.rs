//! The operator from outside: its pods' programs, restic, receivers of notifications.
//! One program, since each would be compiled and linked with all that they share.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stderr)]

mod entrypoint;
mod layers;
mod notify;
mod observability;
mod oracle;
mod possession;
mod restore;
mod settings;
mod stream;
mod weak_key;
