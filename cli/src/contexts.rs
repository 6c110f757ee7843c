//! Logins in a file: which hub, whose certificate it must have, and the session. The file is its owner's alone.

use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::failure::Failure;

/// One login.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Context {
    pub name: String,
    /// `https://host:port` of the hub's view.
    pub hub: String,
    pub server_name: String,
    /// PEM of the authority that signed the hub's certificate.
    pub ca: String,
    /// Who is logged in.
    pub person: String,
    pub session: String,
    /// RFC 3339.
    pub expires: String,
}

/// All logins.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Contexts {
    /// Name of the one that is used.
    pub current: String,
    pub contexts: Vec<Context>,
}

impl Contexts {
    /// A login by name, or the present one.
    #[must_use]
    pub fn find(&self, name: Option<&str>) -> Option<&Context> {
        let name = name.unwrap_or(&self.current);
        self.contexts.iter().find(|context| context.name == name)
    }

    /// Keeps a login in place of one of the same name, and uses it.
    pub fn put(&mut self, context: Context) {
        self.current.clone_from(&context.name);
        self.contexts.retain(|other| other.name != context.name);
        self.contexts.push(context);
        self.contexts.sort_by(|a, b| a.name.cmp(&b.name));
    }

    /// Forgets a login; another is used only when a person says so.
    pub fn remove(&mut self, name: &str) {
        self.contexts.retain(|context| context.name != name);
        if self.current == name {
            self.current.clear();
        }
    }
}

/// The file: `$FLEET_CONTEXTS`, or `fleet/contexts.json` in the folder for settings.
///
/// # Errors
/// When no folder is known.
pub fn path() -> Result<PathBuf, Failure> {
    let variable = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
    if let Some(path) = variable("FLEET_CONTEXTS") {
        return Ok(path.into());
    }
    let settings = variable("XDG_CONFIG_HOME")
        .map(PathBuf::from)
        .or_else(|| variable("HOME").map(|home| PathBuf::from(home).join(".config")));
    let none = || Failure::Usage("neither FLEET_CONTEXTS, XDG_CONFIG_HOME nor HOME is set".to_owned());
    Ok(settings.ok_or_else(none)?.join("fleet/contexts.json"))
}

/// Reads the file; without one there are no logins.
///
/// # Errors
/// When others may read it, or it is none of ours.
pub fn load(path: &Path) -> Result<Contexts, Failure> {
    let failed = |error| Failure::File {
        path: path.display().to_string(),
        error,
    };
    let metadata = match fs::metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Contexts::default()),
        Err(error) => return Err(failed(error)),
    };
    if metadata.mode() & 0o077 != 0 {
        return Err(Failure::Usage(format!(
            "others may read {0}, and it holds your session: chmod 600 {0}, and log in again if somebody could have read it",
            path.display()
        )));
    }
    let text = fs::read_to_string(path).map_err(failed)?;
    serde_json::from_str(&text)
        .map_err(|error| Failure::Usage(format!("{} is no file of logins: {error}", path.display())))
}

/// Writes the file, whole or not at all.
///
/// # Errors
/// When it cannot be written.
pub fn save(path: &Path, contexts: &Contexts) -> Result<(), Failure> {
    let write = || -> std::io::Result<()> {
        if let Some(folder) = path.parent().filter(|folder| !folder.exists()) {
            fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
        }
        let text = serde_json::to_string_pretty(contexts)?;
        let new = path.with_extension(format!("new{}", std::process::id()));
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&new)?;
        let written = file.write_all(text.as_bytes()).and_then(|()| file.sync_all());
        let kept = written.and_then(|()| fs::rename(&new, path));
        if kept.is_err() {
            let _ = fs::remove_file(&new);
        }
        kept
    };
    write().map_err(|error| Failure::File {
        path: path.display().to_string(),
        error,
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn context(name: &str) -> Context {
        Context {
            name: name.to_owned(),
            session: "s".to_owned(),
            ..Context::default()
        }
    }

    #[test]
    fn the_file_is_its_owners_alone_and_a_laxer_one_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("fleet/contexts.json");
        assert_eq!(load(&path).unwrap(), Contexts::default());
        let mut contexts = Contexts::default();
        contexts.put(context("a"));
        save(&path, &contexts).unwrap();
        save(&path, &contexts).unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().mode() & 0o777;
        assert_eq!((mode(&path), mode(path.parent().unwrap())), (0o600, 0o700));
        assert_eq!(load(&path).unwrap(), contexts);
        for lax in [0o640, 0o604, 0o660] {
            fs::set_permissions(&path, fs::Permissions::from_mode(lax)).unwrap();
            assert!(load(&path).unwrap_err().to_string().contains("chmod 600"));
        }
    }

    #[test]
    fn a_login_takes_the_place_of_one_of_its_name_and_none_follows_a_logout() {
        let mut contexts = Contexts::default();
        contexts.put(context("b"));
        contexts.put(context("a"));
        contexts.put(context("b"));
        assert_eq!((contexts.contexts.len(), contexts.current.as_str()), (2, "b"));
        assert_eq!(contexts.find(Some("a")).unwrap().name, "a");
        contexts.remove("b");
        assert_eq!((contexts.find(None), contexts.contexts.len()), (None, 1));
    }
}
