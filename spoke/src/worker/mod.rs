//! What runs in a maintenance pod.

pub mod switch;
