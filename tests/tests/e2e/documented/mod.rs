//! The commands of README and docs, against clusters with the product in them.

mod chapters;
mod fleet;
mod kubectl;

#[path = "../../documents/pages.rs"]
mod pages;
#[path = "../../documents/shell.rs"]
mod shell;
#[path = "../../documents/typed.rs"]
mod typed;
