//! Arguments of `restic restore`, after the snapshot and the target. Pure.

use crds::restore::{PathMatching, ResticRestoreSpec, RestoreOptions};

use super::validate::Invalid;
use crate::paths;

/// What a file system keeps at its root for itself.
pub(super) const LOST_AND_FOUND: &str = "lost+found";

/// The arguments. `whole_volume`: the target is the root of its volume.
///
/// # Errors
/// The first path that cannot be used.
pub fn arguments(spec: &ResticRestoreSpec, whole_volume: bool) -> Result<Vec<String>, Invalid> {
    let options = spec.options.clone().unwrap_or_default();
    let mut arguments = selection(spec, options.path_matching)?;
    let deletes = options.delete == Some(true);
    if deletes && whole_volume {
        arguments.extend(["--exclude".to_owned(), format!("/{LOST_AND_FOUND}")]);
    }
    arguments.extend(
        switches(&options, spec.target.new_pvc.is_some())
            .into_iter()
            .map(str::to_owned),
    );
    Ok(arguments)
}

/// Holes in a claim that is there would give up space that its files may rely on.
fn switches(options: &RestoreOptions, new_claim: bool) -> Vec<&'static str> {
    let overwrite = if options.overwrite == Some(false) {
        "never"
    } else {
        "always"
    };
    let dry_run = options.dry_run == Some(true);
    let mut switches = vec!["--overwrite", overwrite];
    switches.extend(options.sparse.unwrap_or(new_claim).then_some("--sparse"));
    switches.extend((options.delete == Some(true)).then_some("--delete"));
    // restic refuses to compare what it has not written.
    switches.extend((options.verify == Some(true) && !dry_run).then_some("--verify"));
    if dry_run {
        switches.extend(["--dry-run", "-vv"]);
    }
    switches
}

/// The selection. restic refuses `--include` beside `--exclude`, and takes a negated pattern after those that it narrows;
/// before them it would have no effect.
fn selection(spec: &ResticRestoreSpec, matching: PathMatching) -> Result<Vec<String>, Invalid> {
    let (includes, excludes) = (&spec.include_paths, &spec.exclude_paths);
    let mut arguments = Vec::new();
    for path in includes {
        let pattern = pattern(matching, checked("includePaths", path)?);
        arguments.extend(["--include".to_owned(), pattern]);
    }
    for path in excludes {
        let pattern = pattern(matching, checked("excludePaths", path)?);
        arguments.extend(if includes.is_empty() {
            ["--exclude".to_owned(), pattern]
        } else {
            ["--include".to_owned(), format!("!{pattern}")]
        });
    }
    Ok(arguments)
}

/// As restic reads it. A leading `!` would negate: what is not meant is in the other list.
fn pattern(matching: PathMatching, path: &str) -> String {
    let special = |index: usize, c: char| match matching {
        PathMatching::Literal => matches!(c, '[' | ']' | '*' | '?' | '\\') || (index == 0 && c == '!'),
        PathMatching::Pattern => index == 0 && c == '!',
    };
    let mut pattern = String::with_capacity(path.len());
    for (index, c) in path.char_indices() {
        pattern.extend(special(index, c).then_some('\\'));
        pattern.push(c);
    }
    pattern
}

/// Paths are relative to the data, with or without a leading slash.
fn checked<'a>(field: &'static str, pattern: &'a str) -> Result<&'a str, Invalid> {
    let why = if pattern.is_empty() {
        "it is empty"
    } else if pattern.contains(['\0', '\n']) {
        "it holds a NUL character or a line break"
    } else if paths::goes_up(pattern) {
        "it holds \"..\""
    } else {
        return Ok(pattern);
    };
    Err(Invalid::Pattern {
        field,
        pattern: pattern.to_owned(),
        why,
    })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn of(spec: Value) -> String {
        let mut full = json!({ "target": { "pvc": { "claimName": "back" } } });
        full.as_object_mut()
            .unwrap()
            .extend(spec.as_object().unwrap().clone());
        let spec: ResticRestoreSpec = serde_json::from_value(full).unwrap();
        arguments(&spec, true).unwrap().join(" ")
    }

    #[test]
    fn what_is_excluded_follows_what_is_included() {
        let both = json!({ "excludePaths": ["*.log", "/d/tmp"], "includePaths": ["/d", "e"] });
        insta::assert_snapshot!(of(both), @"--include /d --include e --include !*.log --include !/d/tmp --overwrite always");
        let excluded = json!({ "excludePaths": ["*.log", "!bang"] });
        insta::assert_snapshot!(of(excluded), @r"--exclude *.log --exclude \!bang --overwrite always");
    }

    #[test]
    fn characters_of_patterns_are_escaped_where_paths_are_literal() {
        let paths = json!({ "includePaths": ["/d/a[1].txt", "!b", "c?*\\d"], "excludePaths": ["!e", "-f", "g!"],
                            "options": { "pathMatching": "Literal" } });
        insta::assert_snapshot!(of(paths), @r"--include /d/a\[1\].txt --include \!b --include c\?\*\\d --include !\!e --include !-f --include !g! --overwrite always");
    }

    #[test]
    fn options_become_switches() {
        let options = |options: Value| of(json!({ "options": options }));
        insta::assert_snapshot!(options(json!({ "overwrite": false, "verify": true, "sparse": false })), @"--overwrite never --verify");
        insta::assert_snapshot!(options(json!({ "sparse": true })), @"--overwrite always --sparse");
        let new = json!({ "target": { "newPVC": { "name": "n" } } });
        insta::assert_snapshot!(of(new), @"--overwrite always --sparse");
        insta::assert_snapshot!(options(json!({ "delete": true })), @"--exclude /lost+found --overwrite always --delete");
        insta::assert_snapshot!(options(json!({ "dryRun": true, "verify": true, "delete": true })), @"--exclude /lost+found --overwrite always --delete --dry-run -vv");
    }

    #[test]
    fn a_path_out_of_the_data_is_refused() {
        for path in ["", "a/../b", "a\nb", "a\0"] {
            assert!(checked("includePaths", path).is_err(), "{path:?}");
        }
    }
}
