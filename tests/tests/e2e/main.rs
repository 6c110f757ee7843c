//! The product on real clusters, with real restic and real storage. Needs the bed that `tests/run.sh` brings up.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stderr)]

mod admission;
mod api;
mod backups;
mod conditions;
mod faults;
mod hooks;
mod locks;
mod notify;
mod restores;
mod retention;
mod rights;
mod source;
mod support;
mod upgrade;
mod why;
