//! `spec.restic.extraArgs`: options of `restic backup` that a resource may set. A list of what is allowed: none of these
//! reads a file, runs a command, or changes repository, identity or output. Pure.

/// What an option takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Takes {
    /// Nothing, or true or false behind a `=`.
    Switch,
    Text,
    /// Digits.
    Number,
    /// Digits, and a unit such as K or G.
    Size,
    /// As Go writes it, such as 5m.
    Duration,
    /// One of these.
    Word(&'static [&'static str]),
    /// Some of these, with commas; may be empty.
    Words(&'static [&'static str]),
    /// File name without a folder, `:` and the beginning of its content. With a folder it would read any file.
    Marker,
    /// Tags with commas, none of them reserved.
    Tags,
}

struct Rule {
    name: &'static str,
    short: Option<char>,
    takes: Takes,
}

const fn rule(name: &'static str, short: Option<char>, takes: Takes) -> Rule {
    Rule { name, short, takes }
}

/// restic 0.18, `backup --help`.
const ALLOWED: &[Rule] = &[
    rule("cleanup-cache", None, Takes::Switch),
    rule(
        "compression",
        None,
        Takes::Word(&["auto", "off", "fastest", "better", "max"]),
    ),
    rule("exclude", Some('e'), Takes::Text),
    rule("exclude-caches", None, Takes::Switch),
    rule("exclude-if-present", None, Takes::Marker),
    rule("exclude-larger-than", None, Takes::Size),
    rule("force", Some('f'), Takes::Switch),
    rule("group-by", Some('g'), Takes::Words(&["host", "paths", "tags"])),
    rule("iexclude", None, Takes::Text),
    rule("ignore-ctime", None, Takes::Switch),
    rule("ignore-inode", None, Takes::Switch),
    rule("limit-download", None, Takes::Number),
    rule("limit-upload", None, Takes::Number),
    rule("no-extra-verify", None, Takes::Switch),
    rule("no-scan", None, Takes::Switch),
    rule("one-file-system", Some('x'), Takes::Switch),
    rule("pack-size", None, Takes::Number),
    rule("read-concurrency", None, Takes::Number),
    rule("retry-lock", None, Takes::Duration),
    rule("skip-if-unchanged", None, Takes::Switch),
    rule("stuck-request-timeout", None, Takes::Duration),
    rule("tag", None, Takes::Tags),
    rule("with-atime", None, Takes::Switch),
];

/// Options whose place is elsewhere in the API, and where.
const ELSEWHERE: &[(&[&str], &str)] = &[
    (
        &["-r", "--repo", "--repository-file"],
        "the repository is set by spec.repositoryRef",
    ),
    (
        &[
            "-p",
            "--password-file",
            "--password-command",
            "--insecure-no-password",
        ],
        "the password comes from the repository's Secret",
    ),
    (
        &["--no-lock"],
        "a backup without a lock can be destroyed by a prune",
    ),
    (
        &["--json", "-q", "--quiet", "-v", "--verbose"],
        "the result is read from restic's output",
    ),
    (
        &["-n", "--dry-run"],
        "it would look like a backup and store nothing",
    ),
    (
        &["--stdin", "--stdin-filename", "--stdin-from-command"],
        "the source is set by spec.source",
    ),
    (
        &["--files-from", "--files-from-raw", "--files-from-verbatim"],
        "the source is set by spec.source.pvc.paths",
    ),
    (
        &["--exclude-file", "--iexclude-file"],
        "it would read a file of the pod; write spec.source.pvc.excludes instead",
    ),
    (&["-H", "--host"], "write spec.restic.hostname instead"),
    (
        &["--cache-dir", "--no-cache"],
        "the cache is set by spec.cache of the ResticRepository",
    ),
    (
        &["-o", "--option"],
        "an extended option can run a command with the repository's keys",
    ),
    (
        &["--cacert", "--tls-client-cert", "--insecure-tls"],
        "certificates come from the repository's Secret",
    ),
    (&["--"], "it would turn what follows into paths"),
];

/// The options of a list, each one argument with its value: `--name` or `--name=value`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options {
    pub arguments: Vec<String>,
    /// restic may end well without a snapshot.
    pub skip_unchanged: bool,
}

/// An argument that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("spec.restic.extraArgs: {argument:?} cannot be used: {why}")]
pub struct BadOption {
    argument: String,
    why: String,
}

/// Reads a list as restic would: `--name=value`, `--name value` in two arguments, `-x`, `-evalue`, `-xf`.
///
/// # Errors
/// For the first argument that is not an allowed option or the value of one.
pub fn parse(arguments: &[String]) -> Result<Options, BadOption> {
    let mut options = Options::default();
    let mut rest = arguments.iter();
    while let Some(argument) = rest.next() {
        let bad = |why: String| BadOption {
            argument: argument.clone(),
            why,
        };
        if argument.contains('\0') {
            return Err(bad("it holds a NUL character".to_owned()));
        }
        if let Some(long) = argument.strip_prefix("--").filter(|long| !long.is_empty()) {
            let (name, value) = match long.split_once('=') {
                Some((name, value)) => (name, Some(value.to_owned())),
                None => (long, None),
            };
            let rule = ALLOWED.iter().find(|rule| rule.name == name);
            let rule = rule.ok_or_else(|| bad(unknown(&format!("--{name}"))))?;
            let value = match (value, rule.takes) {
                (None, Takes::Switch) => None,
                (None, _) => Some(
                    rest.next()
                        .cloned()
                        .ok_or_else(|| bad("its value is missing".to_owned()))?,
                ),
                (value, _) => value,
            };
            options.take(rule, value).map_err(bad)?;
            continue;
        }
        let Some(mut short) = argument.strip_prefix('-').filter(|s| !s.is_empty()) else {
            return Err(bad(unknown(argument)));
        };
        // Switches may be written together; the first with a value takes what is left.
        while let Some(letter) = short.chars().next() {
            let rule = ALLOWED.iter().find(|rule| rule.short == Some(letter));
            let rule = rule.ok_or_else(|| bad(unknown(&format!("-{letter}"))))?;
            short = short.get(letter.len_utf8()..).unwrap_or_default();
            let value = match (rule.takes, short) {
                (Takes::Switch, _) => match short.strip_prefix('=') {
                    Some(value) => Some(std::mem::take(&mut short)).and(Some(value.to_owned())),
                    None => None,
                },
                (_, "") => Some(
                    rest.next()
                        .cloned()
                        .ok_or_else(|| bad("its value is missing".to_owned()))?,
                ),
                (_, value) => {
                    short = "";
                    Some(value.strip_prefix('=').unwrap_or(value).to_owned())
                }
            };
            options.take(rule, value).map_err(bad)?;
        }
    }
    Ok(options)
}

impl Options {
    fn take(&mut self, rule: &Rule, value: Option<String>) -> Result<(), String> {
        let name = rule.name;
        let Some(value) = value else {
            self.skip_unchanged |= name == "skip-if-unchanged";
            self.arguments.push(format!("--{name}"));
            return Ok(());
        };
        fits(rule.takes, &value)?;
        if name == "skip-if-unchanged" {
            self.skip_unchanged = is_true(&value);
        }
        self.arguments.push(format!("--{name}={value}"));
        Ok(())
    }
}

/// As Go's strconv.ParseBool has it.
fn is_true(value: &str) -> bool {
    ["1", "t", "T", "true", "TRUE", "True"].contains(&value)
}

fn fits(takes: Takes, value: &str) -> Result<(), String> {
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let words = |list: &[&str]| list.join(", ");
    if value.contains(['\0', '\n', '\r']) {
        return Err("its value holds a NUL character or a line break".to_owned());
    }
    let good = match takes {
        Takes::Switch if is_true(value) || ["0", "f", "F", "false", "FALSE", "False"].contains(&value) => {
            Ok(())
        }
        Takes::Switch => Err("it takes true or false".to_owned()),
        Takes::Text if value.is_empty() => Err("its value is empty".to_owned()),
        Takes::Text => Ok(()),
        Takes::Number if digits(value) => Ok(()),
        Takes::Number => Err("it takes a number".to_owned()),
        Takes::Size if digits(value.trim_end_matches(['k', 'K', 'm', 'M', 'g', 'G', 't', 'T', 'b', 'B'])) => {
            Ok(())
        }
        Takes::Size => Err("it takes a size such as 100M".to_owned()),
        Takes::Duration if crds::schedule::parse_duration(value).is_some() => Ok(()),
        Takes::Duration => Err("it takes a duration such as 5m".to_owned()),
        Takes::Word(list) if list.contains(&value) => Ok(()),
        Takes::Word(list) => Err(format!("it takes one of {}", words(list))),
        Takes::Words(list)
            if value
                .split(',')
                .all(|word| word.is_empty() || list.contains(&word)) =>
        {
            Ok(())
        }
        Takes::Words(list) => Err(format!("it takes {}", words(list))),
        Takes::Marker => {
            let file = value.split(':').next().unwrap_or_default();
            if file.is_empty() || file == ".." || file.contains('/') {
                Err("it takes the name of a file without a folder".to_owned())
            } else {
                Ok(())
            }
        }
        Takes::Tags => Ok(()),
    };
    good?;
    match (takes, reserved(value)) {
        (Takes::Tags, Some(tag)) => Err(format!(
            "tag {tag:?} is reserved: tags that begin with fleet. say whose a snapshot is"
        )),
        (Takes::Tags, None) if value.trim().is_empty() => Err("its value is empty".to_owned()),
        _ => Ok(()),
    }
}

/// The first reserved tag in a value of `--tag`, which restic splits at commas.
#[must_use]
pub fn reserved(tags: &str) -> Option<&str> {
    tags.split(',')
        .map(str::trim)
        .find(|tag| tag.starts_with("fleet."))
}

fn unknown(name: &str) -> String {
    if let Some((_, why)) = ELSEWHERE.iter().find(|(names, _)| names.contains(&name)) {
        return (*why).to_owned();
    }
    let list: Vec<String> = ALLOWED.iter().map(|rule| format!("--{}", rule.name)).collect();
    format!("allowed are {}", list.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(arguments: &[&str]) -> Result<Options, String> {
        let owned: Vec<String> = arguments.iter().map(|&a| a.to_owned()).collect();
        parse(&owned).map_err(|error| error.to_string())
    }

    #[test]
    fn each_spelling_of_an_allowed_option_is_taken() {
        for (written, read_as) in [
            (&["--exclude-caches"][..], &["--exclude-caches"][..]),
            (&["--exclude", "-v"], &["--exclude=-v"]),
            (&["--exclude=*.tmp"], &["--exclude=*.tmp"]),
            (&["-e", "*.tmp"], &["--exclude=*.tmp"]),
            (&["-e*.tmp"], &["--exclude=*.tmp"]),
            (&["-xf"], &["--one-file-system", "--force"]),
            (&["-xe", "a"], &["--one-file-system", "--exclude=a"]),
            (&["-x=false"], &["--one-file-system=false"]),
            (&["--limit-upload", "1000"], &["--limit-upload=1000"]),
            (&["--exclude-larger-than=100M"], &["--exclude-larger-than=100M"]),
            (
                &["--exclude-if-present", ".nobackup:x/y"],
                &["--exclude-if-present=.nobackup:x/y"],
            ),
            (&["--compression", "max"], &["--compression=max"]),
            (
                &["--group-by", "host,paths,tags"],
                &["--group-by=host,paths,tags"],
            ),
            (&["--group-by="], &["--group-by="]),
            (&["--retry-lock", "1h"], &["--retry-lock=1h"]),
            (&["--tag", "daily,db"], &["--tag=daily,db"]),
        ] {
            assert_eq!(read(written).unwrap().arguments, read_as, "{written:?}");
        }
    }

    #[test]
    fn nothing_else_gets_through() {
        for bad in [
            &["/proc/self/environ"][..],
            &["data"],
            &["-"],
            &["--"],
            &[""],
            &["--exclude-caches", "/etc"],
            &["--option=sftp.command=sh"],
            &["-o", "sftp.command=sh"],
            &["-osftp.command=sh"],
            &["-xo", "a=b"],
            &["--cacert=/x"],
            &["--exclude-file=/x"],
            &[
                "--exclude-if-present",
                "../../proc/self/environ:RESTIC_PASSWORD=a",
            ],
            &["--exclude-if-present=.."],
            &["--password-command=cat /x"],
            &["-rx"],
            &["-Hx"],
            &["-n"],
            &["--no-lock"],
            &["--repo", "x"],
            &["--host=h"],
            &["--json"],
            &["-v"],
            &["--time=2020-01-01"],
            &["--parent=abcd"],
            &["--exclude"],
            &["-e"],
            &["--no-scan=maybe"],
            &["--no-such"],
            &["--limit-upload=fast"],
            &["--compression=none"],
            &["--group-by=colour"],
            &["--tag=fleet.backup=shop/orders"],
            &["--tag", "a, fleet.cluster=b"],
        ] {
            let error = read(bad).unwrap_err();
            assert!(error.starts_with("spec.restic.extraArgs: "), "{bad:?}: {error}");
        }
        assert!(
            read(&["/proc/self/environ"])
                .unwrap_err()
                .contains("--exclude-caches, ")
        );
        assert!(read(&["-xo", "a=b"]).unwrap_err().contains("run a command"));
    }

    #[test]
    fn skip_if_unchanged_is_known_in_each_spelling() {
        for (written, skips) in [
            ("--skip-if-unchanged", true),
            ("--skip-if-unchanged=true", true),
            ("--skip-if-unchanged=1", true),
            ("--skip-if-unchanged=false", false),
            ("--exclude=--skip-if-unchanged", false),
        ] {
            assert_eq!(read(&[written]).unwrap().skip_unchanged, skips, "{written}");
        }
    }
}
