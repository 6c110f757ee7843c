//! Patterns of `--exclude` and `--iexclude`, as they have to be written where the volume lies in another place. A pattern
//! leaves out of ours what it leaves out of theirs, or it is not carried over. Pure.

/// Folder at which a backup of ours mounts the volume.
pub const SOURCE_DIR: &str = "/backup";

/// Where a container has a folder of a volume.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mounted {
    /// Parts of the path in the container.
    pub at: Vec<String>,
    /// Parts of the path in the volume.
    pub folder: Vec<String>,
}

/// Patterns of ours, and why others are not among them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Translated {
    pub patterns: Vec<String>,
    pub left: Vec<String>,
}

/// The parts of a path.
#[must_use]
pub fn parts(path: &str) -> Vec<String> {
    let parts = path.split('/').filter(|part| !part.is_empty() && *part != ".");
    parts.map(str::to_owned).collect()
}

/// Patterns for a volume that is mounted at these places; with `ignore_case` they are those of `--iexclude`.
#[must_use]
pub fn translated(patterns: &[String], mounts: &[Mounted], ignore_case: bool) -> Translated {
    let option = if ignore_case { "--iexclude" } else { "--exclude" };
    let mut found = Translated::default();
    let mut is_certain = true;
    for pattern in patterns.iter().filter(|pattern| !pattern.is_empty()) {
        let (mark, positive) = match pattern.strip_prefix('!') {
            Some(rest) => ("!", rest),
            None => ("", pattern.as_str()),
        };
        let ours: Result<Vec<_>, _> = mounts
            .iter()
            .map(|mounted| one(positive, mounted, ignore_case))
            .collect();
        match ours {
            Ok(ours) => {
                for pattern in ours.into_iter().flatten().map(|ours| format!("{mark}{ours}")) {
                    // Of several patterns the last one that matches counts.
                    found.patterns.retain(|there| *there != pattern);
                    found.patterns.push(pattern);
                }
            }
            Err(why) => {
                is_certain &= mark.is_empty();
                found
                    .left
                    .push(format!("{option}={pattern} is not carried over: {why}"));
            }
        }
    }
    if !is_certain {
        // What one of them takes back would be missing in ours.
        found.patterns.clear();
        found.left.push(format!(
            "nor is any other {option}, so that nothing is missing in ours"
        ));
    }
    found
}

/// The patterns that match in ours what this one matches in theirs.
fn one(pattern: &str, mounted: &Mounted, ignore_case: bool) -> Result<Vec<String>, String> {
    let all = parts(pattern);
    if all.iter().any(|part| part == "..") {
        return Err("it has a .. in it".to_owned());
    }
    let matches = |part: &str, name: &str| match ignore_case {
        true => may_match(&part.to_lowercase(), &name.to_lowercase()),
        false => may_match(part, name),
    };
    match pattern.starts_with('/') {
        true => anchored(&all, mounted, matches),
        false => anywhere(&all, mounted, matches),
    }
}

fn anchored(
    pattern: &[String],
    mounted: &Mounted,
    matches: impl Fn(&str, &str) -> bool,
) -> Result<Vec<String>, String> {
    for (part, name) in pattern.iter().zip(&mounted.at) {
        if !matches(part, name) {
            return Ok(Vec::new());
        }
        if part == "**" || part.contains('[') {
            return Err("what it means above the volume is not certain".to_owned());
        }
    }
    match pattern.get(mounted.at.len()..) {
        None | Some([]) => Err("it matches all of the volume".to_owned()),
        Some(below) => Ok(vec![inside(mounted, below)?]),
    }
}

/// A pattern that may begin at any folder. In the container it may begin above the volume; that of a ResticBackup begins in the
/// volume, but with an operator of an earlier version it may begin above as well, where other folders lie. So it is written as
/// it stands only if it begins above in neither.
fn anywhere(
    pattern: &[String],
    mounted: &Mounted,
    matches: impl Fn(&str, &str) -> bool,
) -> Result<Vec<String>, String> {
    let everything = || Err("it matches all of the volume".to_owned());
    let first = pattern.iter().position(|part| part != "**");
    let Some(rest) = first.and_then(|first| pattern.get(first..)) else {
        return everything();
    };
    let above = [parts(SOURCE_DIR), mounted.folder.clone()].concat();
    // How many parts of it may lie above the volume; all of them are the whole volume.
    let begins = |names: &[String]| -> Vec<usize> {
        let starts = (0..names.len()).filter_map(|start| {
            let names = names.get(start..)?;
            let fits = rest.iter().zip(names).all(|(part, name)| matches(part, name));
            fits.then_some(names.len().min(rest.len()))
        });
        starts.collect()
    };
    let restricted = || inside(mounted, &[&["**".to_owned()], rest].concat());
    if rest.iter().any(|part| part == "**") {
        let is_above = |names: &[String]| {
            let part = rest.first().map(String::as_str).unwrap_or_default();
            names.iter().any(|name| matches(part, name))
        };
        return match (is_above(&mounted.at), is_above(&above)) {
            (true, _) => Err("what it means above the volume is not certain".to_owned()),
            (false, true) => Ok(vec![restricted()?]),
            (false, false) => Ok(vec![pattern.join("/")]),
        };
    }
    let (theirs, ours) = (begins(&mounted.at), begins(&above));
    if theirs.contains(&rest.len()) {
        return everything();
    }
    if theirs.is_empty() && ours.is_empty() {
        return Ok(vec![pattern.join("/")]);
    }
    if theirs.iter().any(|count| has_class(rest.get(..*count))) {
        return Err("what it means above the volume is not certain".to_owned());
    }
    let mut all = vec![restricted()?];
    for count in theirs {
        all.push(inside(mounted, rest.get(count..).unwrap_or_default())?);
    }
    Ok(all)
}

/// Whether it is not certain what parts match.
fn has_class(parts: Option<&[String]>) -> bool {
    parts.into_iter().flatten().any(|part| part.contains('['))
}

/// A pattern below a folder of the volume, anchored.
fn inside(mounted: &Mounted, pattern: &[String]) -> Result<String, String> {
    if mounted
        .folder
        .iter()
        .any(|part| part.contains(['*', '?', '[', '\\']))
    {
        return Err("the folder of the volume has a wildcard in its name".to_owned());
    }
    Ok(format!(
        "/{}",
        [mounted.folder.clone(), pattern.to_vec()].concat().join("/")
    ))
}

/// Whether a part of a pattern may match a name: a class of characters stands for any one of them.
fn may_match(pattern: &str, name: &str) -> bool {
    let mut rest = pattern.chars();
    match rest.next() {
        None => name.is_empty(),
        Some('*') => {
            let rest = rest.as_str();
            name.char_indices()
                .map(|(at, _)| at)
                .chain([name.len()])
                .any(|at| name.get(at..).is_some_and(|name| may_match(rest, name)))
        }
        Some(c) => {
            let expected = match c {
                '?' => None,
                '[' => {
                    rest.by_ref().position(|c| c == ']');
                    None
                }
                '\\' => rest.next(),
                c => Some(c),
            };
            let mut names = name.chars();
            let next = names.next();
            next.is_some_and(|next| expected.is_none_or(|expected| expected == next))
                && may_match(rest.as_str(), names.as_str())
        }
    }
}
