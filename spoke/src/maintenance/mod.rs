//! The gate of maintenance: suspended Jobs, opened one at a time per repository.

pub mod holder;
