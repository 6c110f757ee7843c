//! The commands of README and docs, against clusters with the product in them.

mod chapters;
mod fleet;
mod kubectl;

#[path = "../../documents/pages.rs"]
mod pages;
#[path = "../../documents/shell.rs"]
mod shell;

use std::path::Path;

/// Pages of the top level beside all of docs.
const TOP: [&str; 3] = ["README.md", "CONTRIBUTING.md", "SECURITY.md"];

/// What a page has as commands: lines of its code blocks, and what stands as code in its text.
fn typed(page: &str) -> Vec<String> {
    let outside = pages::lines(page).into_iter().filter(|(code, _)| code.is_none());
    let in_lines = outside.flat_map(|(_, line)| line.split('`').skip(1).step_by(2));
    let in_lines: Vec<String> = in_lines.map(str::to_owned).collect();
    shell::code(page).into_iter().chain(in_lines).collect()
}

/// A page as messages name it.
fn named(path: &Path) -> String {
    path.strip_prefix(pages::root())
        .unwrap_or(path)
        .display()
        .to_string()
}
