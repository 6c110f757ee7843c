//! Paths that people write. Pure.

/// Whether a path has a part `..`, and with it may leave the folder that it is relative to.
#[must_use]
pub fn goes_up(path: &str) -> bool {
    path.split('/').any(|part| part == "..")
}
