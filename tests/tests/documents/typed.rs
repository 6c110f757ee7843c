//! What README and docs tell their readers to type.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use super::{pages, shell};

/// Pages of the top level beside all of docs.
pub const TOP: [&str; 3] = ["README.md", "CONTRIBUTING.md", "SECURITY.md"];

/// What a page has as commands: lines of its code blocks, and what stands as code in its text.
pub fn typed(page: &str) -> Vec<String> {
    let outside = pages::lines(page).into_iter().filter(|(code, _)| code.is_none());
    let in_lines = outside.flat_map(|(_, line)| line.split('`').skip(1).step_by(2));
    let in_lines: Vec<String> = in_lines.map(str::to_owned).collect();
    shell::code(page).into_iter().chain(in_lines).collect()
}

/// A page as messages name it.
pub fn named(path: &Path) -> String {
    path.strip_prefix(pages::root())
        .unwrap_or(path)
        .display()
        .to_string()
}

/// Every `fleet …` of the pages, each with the pages that have it. The list of all commands has alternatives, which the CLI's
/// own tests read.
pub fn of_fleet() -> BTreeMap<String, BTreeSet<String>> {
    let mut all = BTreeMap::<String, BTreeSet<String>>::new();
    for (path, page) in pages::pages(&TOP) {
        let lines = typed(&page);
        let words = lines.iter().flat_map(|line| shell::commands(line));
        for words in words.filter(|words| words.len() > 1 && words[0] == "fleet") {
            let is_list = path.ends_with("cli.md") && words.iter().any(|word| word.contains('['));
            if !is_list {
                all.entry(line(&words)).or_default().insert(named(&path));
            }
        }
    }
    all
}

/// Words as a shell takes them apart again.
fn line(words: &[String]) -> String {
    let quoted = words
        .iter()
        .map(|word| match word.contains([' ', '*', '$', '{']) {
            true => format!("'{word}'"),
            false => word.clone(),
        });
    quoted.collect::<Vec<_>>().join(" ")
}
