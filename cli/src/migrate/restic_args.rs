//! Arguments of restic, as a person has written them. Pure.

use serde_json::{Map, Value, json};

use super::keep::span;

/// A call of restic.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Call {
    /// Such as "backup"; empty where there is none.
    pub command: String,
    pub repository: Option<String>,
    pub host: Option<String>,
    pub tags: Vec<String>,
    pub paths: Vec<String>,
    pub excludes: Vec<String>,
    /// Patterns that do not look at upper and lower case.
    pub iexcludes: Vec<String>,
    /// Variables of ours with the content of a file that an option names. The path is empty where it is no file.
    pub files: Vec<(&'static str, String)>,
    /// Options that ours takes as they are.
    pub extra: Vec<String>,
    /// What a forget keeps, as ours writes it.
    pub keep: Map<String, Value>,
    /// It frees space.
    pub prune: bool,
    /// Options that are not carried over, and why.
    pub left_out: Vec<(String, String)>,
    /// Why it is not certain what a forget keeps. Then no rule is made of it.
    pub unclear: Vec<String>,
}

/// Options with a value.
const VALUED: [&str; 43] = [
    "repo",
    "repository-file",
    "password-file",
    "password-command",
    "key-hint",
    "cacert",
    "tls-client-cert",
    "cache-dir",
    "limit-upload",
    "limit-download",
    "option",
    "pack-size",
    "compression",
    "retry-lock",
    "http-user-agent",
    "stuck-request-timeout",
    "host",
    "tag",
    "exclude",
    "iexclude",
    "exclude-file",
    "iexclude-file",
    "exclude-if-present",
    "exclude-larger-than",
    "files-from",
    "files-from-verbatim",
    "files-from-raw",
    "group-by",
    "parent",
    "time",
    "read-concurrency",
    "stdin-filename",
    "keep-last",
    "keep-hourly",
    "keep-daily",
    "keep-weekly",
    "keep-monthly",
    "keep-yearly",
    "keep-within",
    "keep-tag",
    "path",
    "max-unused",
    "max-repack-size",
];
/// Options that spec.restic.extraArgs takes.
const EXTRA: [&str; 15] = [
    "compression",
    "exclude-caches",
    "exclude-if-present",
    "exclude-larger-than",
    "force",
    "ignore-ctime",
    "ignore-inode",
    "limit-download",
    "limit-upload",
    "no-scan",
    "one-file-system",
    "pack-size",
    "read-concurrency",
    "skip-if-unchanged",
    "with-atime",
];
/// Options that say nothing about what is stored, or that ours has in another place.
const SILENT: [&str; 10] = [
    "json",
    "quiet",
    "verbose",
    "no-cache",
    "cache-dir",
    "cleanup-cache",
    "retry-lock",
    "key-hint",
    "group-by",
    "parent",
];
/// Options of a forget that do not change what it keeps, or that a rule has.
const OF_FORGET: [&str; 18] = [
    "repository-file",
    "password-file",
    "password-command",
    "cacert",
    "repo",
    "option",
    "host",
    "tag",
    "prune",
    "compact",
    "tls-client-cert",
    "limit-upload",
    "limit-download",
    "max-unused",
    "max-repack-size",
    "repack-small",
    "repack-uncompressed",
    "repack-cacheable-only",
];
const COUNTS: [(&str, &str); 6] = [
    ("keep-last", "keepLast"),
    ("keep-hourly", "keepHourly"),
    ("keep-daily", "keepDaily"),
    ("keep-weekly", "keepWeekly"),
    ("keep-monthly", "keepMonthly"),
    ("keep-yearly", "keepYearly"),
];
const SPANS: [(&str, &str); 6] = [
    ("keep-within", "keepWithin"),
    ("keep-within-hourly", "keepWithinHourly"),
    ("keep-within-daily", "keepWithinDaily"),
    ("keep-within-weekly", "keepWithinWeekly"),
    ("keep-within-monthly", "keepWithinMonthly"),
    ("keep-within-yearly", "keepWithinYearly"),
];

/// Reads the arguments behind `restic`.
#[must_use]
pub fn call(arguments: &[String]) -> Call {
    let mut call = Call::default();
    let mut rest = arguments.iter();
    let mut options = Vec::new();
    let mut only_paths = false;
    while let Some(word) = rest.next() {
        if only_paths || !word.starts_with('-') || word == "-" {
            match call.command.is_empty() {
                true => call.command.clone_from(word),
                false => call.paths.push(word.clone()),
            }
            continue;
        }
        if word == "--" {
            only_paths = true;
            continue;
        }
        let found = match word.strip_prefix("--") {
            Some(long) => match long.split_once('=') {
                Some((name, value)) => vec![(name.to_owned(), Some(value.to_owned()))],
                None => vec![(long.to_owned(), None)],
            },
            None => short(&call.command, word),
        };
        for (name, value) in found {
            let valued = VALUED.contains(&name.as_str()) || name.starts_with("keep-within-");
            let value = match value {
                None if valued => rest.next().cloned(),
                value => value,
            };
            call.option(&name, value.as_deref());
            options.push((name, value.unwrap_or_default()));
        }
    }
    if call.command == "forget" {
        call.unclear = unclear(&call, &options);
    }
    call
}

/// Why it is not certain what a forget keeps, or of which snapshots. An option that is not known here is a reason.
fn unclear(call: &Call, options: &[(String, String)]) -> Vec<String> {
    let mut reasons = Vec::new();
    for name in ["host", "tag"] {
        let values: Vec<&String> = options
            .iter()
            .filter(|one| one.0 == name)
            .map(|one| &one.1)
            .collect();
        if values.len() > 1 {
            reasons.push(format!("it has several --{name}"));
        }
        if values
            .iter()
            .any(|value| value.split(',').any(|part| part.trim().is_empty()))
        {
            reasons.push(format!("its --{name} is empty"));
        }
    }
    for (name, value) in options {
        let known = match name.as_str() {
            "group-by" => {
                let mut groups: Vec<&str> = value.split(',').map(str::trim).collect();
                groups.sort_unstable();
                groups == ["host", "paths"]
            }
            // A count below 0 and "unlimited" keep everything.
            name if COUNTS.iter().any(|(theirs, _)| *theirs == name) => {
                value.parse::<i64>().is_ok_and(|count| count >= 0)
            }
            name if SPANS.iter().any(|(theirs, _)| *theirs == name) => span(value).is_some(),
            // A list means all of its tags at once, which no rule of ours can say.
            "keep-tag" => !value.is_empty() && !value.contains(|c: char| c == ',' || c.is_whitespace()),
            name => SILENT.contains(&name) || OF_FORGET.contains(&name),
        };
        if !known {
            let value = if value.is_empty() {
                String::new()
            } else {
                format!("={value}")
            };
            reasons.push(format!(
                "--{}{value} changes what it removes",
                name.trim_start_matches('-')
            ));
        }
    }
    if !call.paths.is_empty() {
        reasons.push("it names snapshots".to_owned());
    }
    if !call.keep.is_empty() && call.keep.keys().all(|name| name == "keepTags") {
        reasons.push("--keep-tag alone is no rule of ours".to_owned());
    }
    reasons
}

/// Names and values of short options that are written as one word.
fn short(command: &str, word: &str) -> Vec<(String, Option<String>)> {
    let mut letters = word.chars().skip(1);
    let name = match (letters.next(), command) {
        (Some('r'), _) => "repo",
        (Some('H'), "forget") => "keep-hourly",
        (Some('H'), _) => "host",
        (Some('e'), _) => "exclude",
        (Some('x'), _) => "one-file-system",
        (Some('f'), _) => "force",
        (Some('o'), _) => "option",
        (Some('p'), _) => "password-file",
        (Some('q'), _) => "quiet",
        (Some('v'), _) => "verbose",
        (Some('g'), _) => "group-by",
        (Some('n'), _) => "dry-run",
        (Some('c'), "forget") => "compact",
        (Some('l'), "forget") => "keep-last",
        (Some('d'), "forget") => "keep-daily",
        (Some('w'), "forget") => "keep-weekly",
        (Some('m'), "forget") => "keep-monthly",
        (Some('y'), "forget") => "keep-yearly",
        _ => word,
    };
    let value: String = letters.collect();
    let switch = [
        "one-file-system",
        "force",
        "quiet",
        "verbose",
        "dry-run",
        "compact",
    ]
    .contains(&name);
    if switch {
        let more = if value.is_empty() || value.starts_with('=') {
            Vec::new()
        } else {
            short(command, &format!("-{value}"))
        };
        return [vec![(name.to_owned(), None)], more].concat();
    }
    let value = value.strip_prefix('=').unwrap_or(&value).to_owned();
    let value = (!value.is_empty() && name != word).then_some(value);
    vec![(name.to_owned(), value)]
}

impl Call {
    fn option(&mut self, name: &str, value: Option<&str>) {
        let text = value.unwrap_or_default();
        let find = |list: &[(&str, &'static str)]| {
            let found = list.iter().find(|(theirs, _)| *theirs == name);
            found.map(|(_, ours)| *ours)
        };
        if let Some(ours) = find(&COUNTS) {
            match text.parse::<i64>() {
                Ok(count) if count > 0 => drop(self.keep.insert(ours.to_owned(), json!(count))),
                _ => {}
            }
            return;
        }
        if let Some(ours) = find(&SPANS) {
            match span(text) {
                Some(span) => drop(self.keep.insert(ours.to_owned(), json!(span))),
                None => self.leave(name, value, "it is no span of restic"),
            }
            return;
        }
        match name {
            "repo" => self.repository = Some(text.to_owned()),
            "host" => self.host = Some(text.to_owned()),
            "tag" => self.tags.extend(
                text.split(',')
                    .map(|tag| tag.trim().to_owned())
                    .filter(|tag| !tag.is_empty()),
            ),
            "exclude" => self.excludes.push(text.to_owned()),
            "iexclude" => self.iexcludes.push(text.to_owned()),
            "keep-tag" => {
                let tags = self.keep.entry("keepTags").or_insert_with(|| json!([]));
                if let Some(tags) = tags.as_array_mut() {
                    tags.push(json!(text));
                }
            }
            "prune" => self.prune = true,
            "repository-file" => self.files.push(("RESTIC_REPOSITORY", text.to_owned())),
            "password-file" => self.files.push(("RESTIC_PASSWORD", text.to_owned())),
            "password-command" => self.files.push(("RESTIC_PASSWORD", String::new())),
            "cacert" => self.files.push(("RESTIC_CACERT", text.to_owned())),
            "tls-client-cert" => self.files.push(("RESTIC_TLS_CLIENT_CERT", text.to_owned())),
            _ if SILENT.contains(&name) => {}
            _ if EXTRA.contains(&name) => self.extra.push(match value {
                Some(value) => format!("--{name}={value}"),
                None => format!("--{name}"),
            }),
            "option" => self.leave(
                name,
                value,
                "write it into backendOptions of the ResticRepository, if that takes it",
            ),
            "exclude-file" | "iexclude-file" => {
                self.leave(name, value, "write the patterns into source.pvc.excludes");
            }
            _ => self.leave(name, value, "ours has no such option"),
        }
    }

    fn leave(&mut self, name: &str, value: Option<&str>, why: &str) {
        let dashes = if name.starts_with('-') { "" } else { "--" };
        let option = match value {
            Some(value) => format!("{dashes}{name}={value}"),
            None => format!("{dashes}{name}"),
        };
        self.left_out.push((option, why.to_owned()));
    }
}

#[cfg(test)]
#[path = "restic_args_tests.rs"]
mod tests;
