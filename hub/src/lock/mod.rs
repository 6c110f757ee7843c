//! The maintenance lock of every physical repository.

pub mod grantor;
