//! `spec.backendOptions` of a repository: options of restic's back ends (`-o`) that a resource, or a kit, may set. A list of what is
//! allowed: none of these runs a program, leads to another storage, or makes what is stored unreadable. Pure.

use std::collections::BTreeMap;

use super::Backend;

/// What an option takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Takes {
    /// Digits, not 0.
    Number,
    Switch,
    /// One of these.
    Word(&'static [&'static str]),
    /// Letters, digits, `-` and `_`.
    Name,
    /// Digits and a unit, such as 90s.
    Duration,
}

/// restic 0.18, `restic options`. Not `sftp.command`, `sftp.args`, `rclone.program` and `rclone.args`, which run programs.
const ALLOWED: &[(&str, Takes)] = &[
    ("azure.access-tier", Takes::Word(&["Hot", "Cool", "Cold"])),
    ("azure.connections", Takes::Number),
    ("b2.connections", Takes::Number),
    ("gs.connections", Takes::Number),
    ("gs.region", Takes::Name),
    ("rclone.connections", Takes::Number),
    ("rclone.timeout", Takes::Duration),
    ("rest.connections", Takes::Number),
    ("s3.bucket-lookup", Takes::Word(&["auto", "dns", "path"])),
    ("s3.connections", Takes::Number),
    ("s3.list-objects-v1", Takes::Switch),
    ("s3.region", Takes::Name),
    ("s3.retries", Takes::Number),
    (
        "s3.storage-class",
        Takes::Word(&[
            "STANDARD",
            "STANDARD_IA",
            "ONEZONE_IA",
            "INTELLIGENT_TIERING",
            "REDUCED_REDUNDANCY",
        ]),
    ),
    ("sftp.connections", Takes::Number),
    ("swift.connections", Takes::Number),
];

/// Why an option cannot be given to restic.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OptionError {
    #[error("{name:?} is not an option of this back end that may be set; it takes {allowed}")]
    Unknown { name: String, allowed: String },
    #[error("{name}: {value:?} cannot be used; it takes {takes}")]
    Value {
        name: String,
        value: String,
        takes: String,
    },
}

impl Backend {
    /// Its name in the options of restic.
    fn prefix(self) -> &'static str {
        match self {
            Backend::S3 => "s3.",
            Backend::Sftp => "sftp.",
            Backend::Rest => "rest.",
            Backend::Azure => "azure.",
            Backend::Gs => "gs.",
            Backend::B2 => "b2.",
            Backend::Swift => "swift.",
            Backend::Rclone => "rclone.",
            Backend::Local => "local.",
        }
    }
}

impl Takes {
    fn fits(self, value: &str) -> bool {
        let digits =
            |text: &str| !text.is_empty() && text.len() <= 6 && text.bytes().all(|b| b.is_ascii_digit());
        match self {
            Takes::Number => digits(value) && value.bytes().any(|b| b != b'0'),
            Takes::Switch => ["true", "false"].contains(&value),
            Takes::Word(words) => words.contains(&value),
            Takes::Name => {
                let fits = |b: u8| b.is_ascii_alphanumeric() || b"-_".contains(&b);
                (1..=64).contains(&value.len()) && value.bytes().all(fits)
            }
            Takes::Duration => value.strip_suffix(['s', 'm', 'h']).is_some_and(digits),
        }
    }

    fn words(self) -> String {
        match self {
            Takes::Number => "a number above 0".to_owned(),
            Takes::Switch => "true or false".to_owned(),
            Takes::Word(words) => words.join(", "),
            Takes::Name => "letters, digits, - and _".to_owned(),
            Takes::Duration => "a duration such as 90s".to_owned(),
        }
    }
}

/// Checks the options of a repository.
///
/// # Errors
/// The first one that may not be set, or not so.
pub fn check_options(backend: Backend, options: &BTreeMap<String, String>) -> Result<(), OptionError> {
    for (name, value) in options {
        let of_backend = |(allowed, _): &&(&str, Takes)| allowed.starts_with(backend.prefix());
        let Some((_, takes)) = ALLOWED
            .iter()
            .filter(of_backend)
            .find(|(allowed, _)| allowed == name)
        else {
            let allowed: Vec<&str> = ALLOWED.iter().filter(of_backend).map(|(name, _)| *name).collect();
            return Err(OptionError::Unknown {
                name: name.clone(),
                allowed: allowed.join(", "),
            });
        };
        if !takes.fits(value) {
            return Err(OptionError::Value {
                name: name.clone(),
                value: value.clone(),
                takes: takes.words(),
            });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(url: &str, name: &str, value: &str) -> Result<(), String> {
        let options = BTreeMap::from([(name.to_owned(), value.to_owned())]);
        check_options(Backend::of(url).unwrap(), &options).map_err(|error| error.to_string())
    }

    #[test]
    fn options_that_run_programs_or_belong_to_another_back_end_are_refused() {
        for (url, name, value) in [
            ("sftp:u@h:/x", "sftp.command", "sh"),
            ("sftp:u@h:/x", "sftp.args", "-o ProxyCommand=sh"),
            ("rclone:box:x", "rclone.program", "/bin/sh"),
            ("rclone:box:x", "rclone.args", "serve"),
            ("s3:h/b", "azure.access-tier", "Hot"),
            ("s3:h/b", "s3.unsafe-anonymous-auth", "true"),
            ("azure:c:/", "azure.access-tier", "Archive"),
            ("s3:h/b", "s3.storage-class", "GLACIER"),
            ("s3:h/b", "s3.connections", "0"),
            ("s3:h/b", "s3.connections", "5 -o x"),
            ("gs:b:/", "gs.region", "us,x=1"),
            ("rest:https://h/", "rest.connections", ""),
        ] {
            assert!(check(url, name, value).is_err(), "{name}={value}");
        }
        let error = check("azure:c:/", "tier", "Hot").unwrap_err();
        assert!(error.contains("azure.access-tier, azure.connections"), "{error}");
    }

    #[test]
    fn each_back_end_takes_its_own_options() {
        for (url, name, value) in [
            ("s3:h/b", "s3.bucket-lookup", "path"),
            ("s3:h/b", "s3.storage-class", "STANDARD_IA"),
            ("s3:h/b", "s3.list-objects-v1", "true"),
            ("azure:c:/", "azure.access-tier", "Hot"),
            ("gs:b:/", "gs.region", "europe-west3"),
            ("b2:b:x", "b2.connections", "10"),
            ("swift:c:/", "swift.connections", "2"),
            ("sftp:u@h:/x", "sftp.connections", "2"),
            ("rest:https://h/", "rest.connections", "20"),
            ("rclone:box:x", "rclone.timeout", "90s"),
        ] {
            assert_eq!(check(url, name, value), Ok(()), "{name}={value}");
        }
    }

    /// As long as restic calls them so.
    #[test]
    fn restic_knows_each_option() {
        let built = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../.testbed/bin/restic");
        let program = if built.exists() { built } else { "restic".into() };
        let printed = std::process::Command::new(program)
            .arg("options")
            .output()
            .unwrap();
        let text = String::from_utf8(printed.stdout).unwrap();
        for (name, _) in ALLOWED {
            let knows = text
                .lines()
                .any(|line| line.split_whitespace().next() == Some(name));
            assert!(knows, "{name}");
        }
    }
}
