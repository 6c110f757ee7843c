//! Opens the repositories of a kit, with restic and nothing else.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use serde::Deserialize;
use tokio::process::Command;

use super::allowed::{is_file, is_option, variables};
use super::file::{Kit, RESTIC, Repository};

/// restic itself goes on for a quarter of an hour where a server does not answer.
const LIMIT: Duration = Duration::from_secs(60);

/// What came of a repository.
pub enum Opened {
    /// It has the id of the kit, or the kit has none; its snapshots.
    Well { id: String, snapshots: usize },
    /// It can be opened, and holds no snapshot: nothing could be restored from it.
    Empty { id: String },
    /// Why not.
    Not(String),
}

#[derive(Deserialize)]
struct Config {
    id: String,
}

/// The version of the restic of this machine.
///
/// # Errors
/// When there is none.
pub async fn version() -> Result<String, String> {
    let output = Command::new("restic")
        .arg("version")
        .stdin(Stdio::null())
        .output()
        .await;
    let output =
        output.map_err(|error| format!("restic cannot be run: {error}; install restic {RESTIC} or later"))?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let word = text.split_whitespace().nth(1).unwrap_or_default();
    Ok(word.to_owned())
}

/// Whether a version is at least another one.
#[must_use]
pub fn is_at_least(version: &str, wanted: &str) -> bool {
    let parts = |text: &str| -> Vec<u32> {
        let core = text.split(['-', '+']).next().unwrap_or_default();
        core.split('.')
            .map(|part| part.parse().unwrap_or_default())
            .collect()
    };
    parts(version) >= parts(wanted)
}

/// Opens one of them. Values that the kit does not have come from the environment.
pub async fn open(repository: &Repository, given: &BTreeMap<String, String>) -> Opened {
    match attempt(repository, given).await {
        Ok((id, snapshots)) if repository.id.is_empty() || repository.id == id => match snapshots {
            0 => Opened::Empty { id },
            snapshots => Opened::Well { id, snapshots },
        },
        Ok((id, _)) => Opened::Not(format!(
            "another repository lies there: it has the id {id}, the kit says {}",
            repository.id
        )),
        Err(why) => Opened::Not(why),
    }
}

/// Why a repository of a kit is not opened at all: restic would be given what the operator does not take, such as a command
/// that it runs.
fn refused(repository: &Repository) -> Option<String> {
    let url = &repository.url;
    let mut names = repository.variables.keys();
    if let Some(name) = names.find(|name| !variables(url).any(|allowed| allowed == name.as_str())) {
        return Some(format!(
            "the kit has the variable {name:?}, which the operator does not give to restic: take it out"
        ));
    }
    let mut options = repository.options.iter();
    let (name, value) = options.find(|(name, value)| !is_option(url, name, value))?;
    Some(format!(
        "the kit has the option {name:?} with {value:?}, which the operator does not give to restic: take it out"
    ))
}

async fn attempt(
    repository: &Repository,
    given: &BTreeMap<String, String>,
) -> Result<(String, usize), String> {
    if let Some(why) = refused(repository) {
        return Err(why);
    }
    let folder = tempfile::Builder::new().prefix("fleet-kit-").tempdir();
    let folder = folder.map_err(|error| format!("no temporary folder: {error}"))?;
    let environment = environment(repository, given, folder.path())?;
    let config = restic(repository, &environment, &["cat", "config", "--no-lock"]).await?;
    let config: Config =
        serde_json::from_str(&config).map_err(|error| format!("restic's answer cannot be read: {error}"))?;
    let listed = restic(
        repository,
        &environment,
        &["list", "snapshots", "--no-lock", "-q"],
    )
    .await?;
    Ok((
        config.id,
        listed.lines().filter(|line| !line.trim().is_empty()).count(),
    ))
}

/// Variables for restic. Files lie in the folder.
fn environment(
    repository: &Repository,
    given: &BTreeMap<String, String>,
    folder: &Path,
) -> Result<BTreeMap<String, String>, String> {
    let mut environment = BTreeMap::new();
    for (name, value) in &repository.variables {
        let from_kit = value.is_some();
        let value = value.as_ref().or_else(|| given.get(name));
        let value = value.ok_or_else(|| {
            format!(
                "the kit has no {name}; set it in the environment (it is in Secret {})",
                repository.secret
            )
        })?;
        // In the environment it is the path already.
        let value = match is_file(name) && from_kit {
            true => file(folder, name, value)?,
            false => value.clone(),
        };
        environment.insert(name.clone(), value);
    }
    if !repository.key_hint.is_empty() {
        environment.insert("RESTIC_KEY_HINT".to_owned(), repository.key_hint.clone());
    }
    Ok(environment)
}

fn file(folder: &Path, name: &str, content: &str) -> Result<String, String> {
    let path = folder.join(name);
    let mut options = std::fs::OpenOptions::new();
    let opened = options.write(true).create_new(true).mode(0o600).open(&path);
    let written = opened.and_then(|mut file| file.write_all(content.as_bytes()));
    written.map_err(|error| format!("{name} cannot be written to a file: {error}"))?;
    Ok(path.display().to_string())
}

async fn restic(
    repository: &Repository,
    environment: &BTreeMap<String, String>,
    arguments: &[&str],
) -> Result<String, String> {
    let mut command = Command::new("restic");
    command.args(["--no-cache", "-r", &repository.url]);
    for (name, value) in &repository.options {
        command.args(["-o", &format!("{name}={value}")]);
    }
    if let (Some(key), Some(known)) = (
        environment.get("SSH_PRIVATE_KEY"),
        environment.get("SSH_KNOWN_HOSTS"),
    ) {
        command.args([
            "-o",
            &format!("sftp.args=-i {key} -o UserKnownHostsFile={known} -o BatchMode=yes"),
        ]);
    }
    command.args(arguments).env_clear().envs(environment);
    // Nothing else of the environment: the kit alone has to be enough.
    for name in ["PATH", "HOME", "TMPDIR"] {
        if let Some(value) = std::env::var_os(name) {
            command.env(name, value);
        }
    }
    command.stdin(Stdio::null()).kill_on_drop(true);
    let output = match tokio::time::timeout(LIMIT, command.output()).await {
        Ok(output) => output.map_err(|error| format!("restic cannot be run: {error}"))?,
        Err(_) => {
            return Err(format!(
                "the storage did not answer within {} seconds",
                LIMIT.as_secs()
            ));
        }
    };
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let error = String::from_utf8_lossy(&output.stderr);
    let last = error
        .lines()
        .map(str::trim)
        .rfind(|line| !line.is_empty())
        .unwrap_or("it said nothing");
    let last: String = last.chars().filter(|c| !c.is_control()).take(300).collect();
    let meaning = match output.status.code() {
        Some(10) => "there is no repository: ",
        Some(12) => "the password is wrong: ",
        _ => "",
    };
    Err(format!("{meaning}{last}"))
}

/// Reads a kit.
///
/// # Errors
/// What it is instead.
pub fn read(text: &str) -> Result<Kit, String> {
    let kit: Kit = serde_saphyr::from_str(text).map_err(|error| format!("it is no recovery kit: {error}"))?;
    match (kit.api_version.as_str(), kit.kind.as_str()) {
        (super::file::API, "RecoveryKit") => Ok(kit),
        _ => Err("it is no recovery kit of this version".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_compared_by_number() {
        for (version, enough) in [
            ("0.18.1", true),
            ("0.19.0", true),
            ("0.18.10-dev", true),
            ("0.9.6", false),
            ("", false),
        ] {
            assert_eq!(is_at_least(version, "0.18.1"), enough, "{version}");
        }
    }

    #[test]
    fn a_kit_that_would_run_a_program_is_refused() {
        let of = |variable: &str, option: (&str, &str)| Repository {
            url: "sftp:u@h:/x".to_owned(),
            variables: [(variable.to_owned(), Some("x".to_owned()))].into(),
            options: [(option.0.to_owned(), option.1.to_owned())].into(),
            ..Repository::default()
        };
        let fits = ("sftp.connections", "2");
        assert_eq!(refused(&of("RESTIC_PASSWORD", fits)), None);
        for (variable, option, named) in [
            ("RESTIC_PASSWORD_COMMAND", fits, "RESTIC_PASSWORD_COMMAND"),
            ("LD_PRELOAD", fits, "LD_PRELOAD"),
            ("PATH", fits, "PATH"),
            ("RESTIC_PASSWORD", ("sftp.command", "sh"), "sftp.command"),
            (
                "RESTIC_PASSWORD",
                ("sftp.connections", "2,sftp.command=sh"),
                "sftp.command=sh",
            ),
        ] {
            let why = refused(&of(variable, option)).unwrap_or_default();
            assert!(why.contains(named) && why.contains("take it out"), "{why:?}");
        }
    }

    #[test]
    fn what_the_kit_does_not_have_comes_from_the_environment() {
        let folder = tempfile::tempdir().unwrap_or_else(|error| panic!("{error}"));
        let repository = Repository {
            variables: [
                ("RESTIC_PASSWORD".to_owned(), None),
                ("RESTIC_CACERT".to_owned(), Some("PEM".to_owned())),
            ]
            .into(),
            key_hint: "ab".to_owned(),
            ..Repository::default()
        };
        let missing = environment(&repository, &BTreeMap::new(), folder.path());
        assert!(missing.is_err_and(|why| why.contains("RESTIC_PASSWORD")));
        let folder = tempfile::tempdir().unwrap_or_else(|error| panic!("{error}"));
        let given = [("RESTIC_PASSWORD".to_owned(), "p".to_owned())].into();
        let found = environment(&repository, &given, folder.path()).unwrap_or_default();
        assert_eq!(found["RESTIC_PASSWORD"], "p");
        assert_eq!(
            std::fs::read_to_string(&found["RESTIC_CACERT"]).unwrap_or_default(),
            "PEM"
        );
        assert_eq!(found["RESTIC_KEY_HINT"], "ab");
    }
}
