//! The hub from outside: over real sockets, with its real store.
//! One program, since each would be compiled and linked with all that they share.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod access;
mod attacker;
mod away;
mod browse;
mod changed;
mod check;
mod collect;
mod commands;
mod copied;
mod copies;
mod dashboard;
mod dashboard_contract;
mod dashboard_pages;
mod enrolment;
mod fleet;
mod given;
mod guarded;
mod harness;
mod issuer;
mod lost;
mod observability;
mod oidc;
mod ownership;
mod pause;
mod people;
mod places;
mod rotation;
mod settings;
mod store_faults;
mod versions;
mod view;
