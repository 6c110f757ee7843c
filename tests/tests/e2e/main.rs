//! The product on real clusters, with real restic and real storage. Needs the bed that `tests/run.sh` brings up.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stderr)]

mod admission;
mod alerts;
mod api;
mod authority;
mod backends;
mod backups;
mod charts;
mod commands;
mod conditions;
mod console;
mod dashboard;
mod documented;
mod enrolment;
mod faults;
mod hooks;
mod locks;
mod many;
mod migrate;
mod notify;
mod own_retention;
mod postgresql;
mod progress;
mod rebuild;
mod restores;
mod restores_options;
mod retention;
mod rights;
mod rotation;
mod source;
mod support;
mod upgrade;
mod versions;
mod why;
