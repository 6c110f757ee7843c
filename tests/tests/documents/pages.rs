//! README and docs, as the tests of what stands there read them: those of links and manifests here, and those of the commands
//! in the CLI.

use std::path::{Path, PathBuf};

/// Folder of the whole project.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("..")
        .canonicalize()
        .unwrap()
}

fn found(folder: &Path, pages: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap().flatten() {
        let path = entry.path();
        if path.is_dir() {
            found(&path, pages);
        } else if path.extension().is_some_and(|end| end == "md") {
            pages.push(path);
        }
    }
}

/// These pages of the top level and all of docs, with their texts.
pub fn pages(top: &[&str]) -> Vec<(PathBuf, String)> {
    let top = top.iter().map(|name| root().join(name));
    let mut pages: Vec<PathBuf> = top.filter(|path| path.exists()).collect();
    found(&root().join("docs"), &mut pages);
    let read = |path: PathBuf| {
        let text = std::fs::read_to_string(&path).unwrap();
        (path, text)
    };
    pages.into_iter().map(read).collect()
}

/// Lines outside and inside of code blocks, the latter with the word behind the fence.
pub fn lines(page: &str) -> Vec<(Option<String>, &str)> {
    let mut fence: Option<String> = None;
    let mut all = Vec::new();
    for line in page.lines() {
        match line.trim_start().strip_prefix("```") {
            Some(word) => {
                fence = if fence.is_some() {
                    None
                } else {
                    Some(word.trim().to_owned())
                }
            }
            None => all.push((fence.clone(), line)),
        }
    }
    all
}
