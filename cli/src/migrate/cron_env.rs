//! The environment of a container, as far as it is known before it runs. Pure.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::secret::{self, Secrets, Source};
use crate::objects::{is_true, list, text};

/// Variables by which restic finds its storage, beside those of its back ends.
const PROXIES: [&str; 3] = ["HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY"];
/// Variables that name a file, and the variable that has its content: in ours, where not in theirs.
const FILES: [(&str, &str); 6] = [
    ("RESTIC_PASSWORD_FILE", "RESTIC_PASSWORD"),
    ("RESTIC_REPOSITORY_FILE", "RESTIC_REPOSITORY"),
    ("RESTIC_CACERT", "RESTIC_CACERT"),
    ("RESTIC_TLS_CLIENT_CERT", "RESTIC_TLS_CLIENT_CERT"),
    ("GOOGLE_APPLICATION_CREDENTIALS", "GOOGLE_APPLICATION_CREDENTIALS"),
    ("RCLONE_CONFIG", "RCLONE_CONFIG"),
];

/// Whether a variable of ours has the content of a file where restic's own has its path.
#[must_use]
pub fn names_a_file(variable: &str) -> bool {
    FILES.contains(&(variable, variable))
}

/// What pods refer to, as it was read.
#[derive(Clone, Copy, Debug)]
pub struct Known<'a> {
    pub secrets: &'a Secrets,
    /// By namespace and name, too.
    pub config_maps: &'a Secrets,
}

/// A container with its pod.
#[derive(Clone, Copy, Debug)]
pub struct Within<'a> {
    pub namespace: &'a str,
    pub pod: &'a Value,
    pub container: &'a Value,
}

/// What is known of it.
#[derive(Clone, Debug, Default)]
pub struct Environment {
    /// Values that are known.
    pub values: BTreeMap<String, String>,
    /// Where values for restic come from.
    sources: BTreeMap<String, Source>,
    /// Variables that are set, to what is not known.
    hidden: BTreeSet<String>,
    /// What is not known that restic would need, for people.
    pub unknown: Vec<String>,
    /// There are variables of which not even the names are known.
    has_gap: bool,
}

impl Environment {
    /// The URL of the repository.
    #[must_use]
    pub fn repository(&self) -> Option<String> {
        self.values
            .get("RESTIC_REPOSITORY")
            .map(|url| url.trim().to_owned())
    }

    /// What restic is given, without the repository.
    #[must_use]
    pub fn entries(&self) -> BTreeMap<String, Source> {
        self.sources.clone()
    }

    /// Whether a variable may be set to what is not known.
    #[must_use]
    pub fn may_hide(&self, name: &str) -> bool {
        self.hidden.contains(name) || (self.has_gap && !self.values.contains_key(name))
    }

    /// A text in which `$(NAME)` stands for a value, as Kubernetes reads it. With `for_shell`, a name that nothing sets stays
    /// as it is.
    ///
    /// # Errors
    /// What is not known of it.
    pub fn expand(&self, text: &str, for_shell: bool) -> Result<String, String> {
        let (mut done, mut rest) = (String::new(), text);
        while let Some((before, after)) = rest.split_once('$') {
            done.push_str(before);
            rest = after;
            if let Some(after) = rest.strip_prefix('$') {
                done.push('$');
                rest = after;
                continue;
            }
            let Some((name, after)) = rest.strip_prefix('(').and_then(|rest| rest.split_once(')')) else {
                done.push('$');
                continue;
            };
            match self.values.get(name) {
                Some(value) => {
                    done.push_str(value);
                    rest = after;
                }
                None if for_shell && !self.hidden.contains(name) => done.push('$'),
                None => return Err(format!("$({name}) is not known before it runs")),
            }
        }
        Ok(done + rest)
    }

    /// Gives a variable the content of a file of the container.
    pub fn set_of_file(&mut self, within: Within<'_>, known: Known<'_>, variable: &str, path: &str) {
        let value_of = |all: &Secrets, file: &MountedFile| -> Option<String> {
            let keys = all.get(&(within.namespace.to_owned(), file.name.clone()))?;
            Some(keys.get(&file.key)?.trim().to_owned())
        };
        let found = mounted(within, path).and_then(|file| match file.is_secret {
            true => Some((
                value_of(known.secrets, &file)?,
                Source::whole(&file.name, &file.key),
            )),
            false => {
                let value = value_of(known.config_maps, &file)?;
                let source = Source::literal(&value);
                Some((value, source))
            }
        });
        match found {
            Some((value, source)) => self.set(variable, &value, source),
            None => self.hide(variable),
        }
    }

    fn set(&mut self, name: &str, value: &str, source: Source) {
        self.hidden.remove(name);
        self.values.insert(name.to_owned(), value.to_owned());
        let one = BTreeMap::from([(name.to_owned(), String::new())]);
        if PROXIES.contains(&name) || !secret::variables("", &one).is_empty() {
            self.sources.insert(name.to_owned(), source);
        }
    }

    fn hide(&mut self, name: &str) {
        self.values.remove(name);
        self.sources.remove(name);
        self.hidden.insert(name.to_owned());
        if secret::is_of_restic(name) || PROXIES.contains(&name) {
            self.unknown.push(format!("the value of {name}"));
        }
    }
}

/// Secrets that the variables and volumes of a pod refer to.
#[must_use]
pub fn secrets(pod: &Value) -> BTreeSet<String> {
    referred(
        pod,
        [
            "/secretRef/name",
            "/valueFrom/secretKeyRef/name",
            "/secret/secretName",
        ],
    )
}

/// ConfigMaps, alike.
#[must_use]
pub fn config_maps(pod: &Value) -> BTreeSet<String> {
    referred(
        pod,
        [
            "/configMapRef/name",
            "/valueFrom/configMapKeyRef/name",
            "/configMap/name",
        ],
    )
}

fn referred(pod: &Value, [from, env, volume]: [&str; 3]) -> BTreeSet<String> {
    let containers = || {
        list(pod, "/initContainers")
            .iter()
            .chain(list(pod, "/containers"))
    };
    let named = |objects: &Value, of: &str, name: &str| -> Vec<String> {
        let all = list(objects, of).iter();
        all.map(|one| text(one, name).to_owned()).collect()
    };
    let mut names: BTreeSet<String> = named(pod, "/volumes", volume).into_iter().collect();
    for container in containers() {
        names.extend(named(container, "/envFrom", from));
        names.extend(named(container, "/env", env));
    }
    names.remove("");
    names
}

/// The environment of a container.
#[must_use]
pub fn environment(within: Within<'_>, known: Known<'_>) -> Environment {
    let mut found = Environment::default();
    for from in list(within.container, "/envFrom") {
        all_of(&mut found, within, known, from);
    }
    for one in list(within.container, "/env") {
        variable(&mut found, within, known, one);
    }
    for (file, variable) in FILES {
        match found.values.get(file).cloned() {
            Some(path) => found.set_of_file(within, known, variable, &path),
            None if found.hidden.contains(file) => found.hide(variable),
            None => {}
        }
    }
    // restic prefers it to a password that is given.
    if found.values.contains_key("RESTIC_PASSWORD_COMMAND") {
        found.hide("RESTIC_PASSWORD");
    }
    found
}

/// All variables of a Secret or ConfigMap.
fn all_of(found: &mut Environment, within: Within<'_>, known: Known<'_>, from: &Value) {
    let prefix = text(from, "/prefix");
    for (kind, all, pointer) in [
        ("Secret", known.secrets, "/secretRef"),
        ("ConfigMap", known.config_maps, "/configMapRef"),
    ] {
        let name = text(from, &format!("{pointer}/name"));
        if name.is_empty() {
            continue;
        }
        match all.get(&(within.namespace.to_owned(), name.to_owned())) {
            Some(keys) => {
                for (key, value) in keys {
                    let source = match kind {
                        "Secret" => Source::whole(name, key),
                        _ => Source::literal(value),
                    };
                    found.set(&format!("{prefix}{key}"), value, source);
                }
            }
            None if is_true(from, &format!("{pointer}/optional")) => {}
            None => {
                found.has_gap = true;
                found.unknown.push(format!("what {kind} {name} holds"));
            }
        }
    }
}

/// One variable.
fn variable(found: &mut Environment, within: Within<'_>, known: Known<'_>, one: &Value) {
    let name = text(one, "/name");
    let (secret, config_map) = ("/valueFrom/secretKeyRef", "/valueFrom/configMapKeyRef");
    let of = |all: &Secrets, pointer: &str| -> Option<String> {
        let key = (
            within.namespace.to_owned(),
            text(one, &format!("{pointer}/name")).to_owned(),
        );
        all.get(&key)?.get(text(one, &format!("{pointer}/key"))).cloned()
    };
    let read = if one.pointer(secret).is_some() {
        let source = Source::whole(
            text(one, &format!("{secret}/name")),
            text(one, &format!("{secret}/key")),
        );
        of(known.secrets, secret).map(|value| (value, source))
    } else if one.pointer(config_map).is_some() {
        of(known.config_maps, config_map).map(|value| (value.clone(), Source::literal(&value)))
    } else if text(one, "/valueFrom/fieldRef/fieldPath") == "metadata.namespace" {
        Some((within.namespace.to_owned(), Source::literal(within.namespace)))
    } else if one.get("valueFrom").is_some() {
        None
    } else {
        let value = found.expand(text(one, "/value"), false).ok();
        value.map(|value| (value.clone(), Source::literal(&value)))
    };
    let is_optional = [secret, config_map].map(|pointer| is_true(one, &format!("{pointer}/optional")));
    match read {
        Some((value, source)) => found.set(name, &value, source),
        None if is_optional.contains(&true) => {}
        None => found.hide(name),
    }
}

/// A file that is a key of a Secret or ConfigMap.
struct MountedFile {
    is_secret: bool,
    name: String,
    key: String,
}

/// What is behind a file of a container.
fn mounted(within: Within<'_>, path: &str) -> Option<MountedFile> {
    let below = |mount: &Value| {
        let rest = path.strip_prefix(text(mount, "/mountPath").trim_end_matches('/'))?;
        let sub = text(mount, "/subPath");
        match rest.strip_prefix('/') {
            Some(rest) => Some(rest.trim_matches('/').to_owned()).filter(|_| sub.is_empty()),
            None => Some(sub.to_owned()).filter(|sub| rest.is_empty() && !sub.is_empty()),
        }
    };
    let mount = list(within.container, "/volumeMounts")
        .iter()
        .filter(|mount| below(mount).is_some())
        .max_by_key(|mount| text(mount, "/mountPath").len())?;
    let file = below(mount)?;
    let volume = list(within.pod, "/volumes")
        .iter()
        .find(|volume| text(volume, "/name") == text(mount, "/name"))?;
    let is_secret = volume.get("secret").is_some();
    let (name, items) = match is_secret {
        true => (text(volume, "/secret/secretName"), list(volume, "/secret/items")),
        false => (text(volume, "/configMap/name"), list(volume, "/configMap/items")),
    };
    // With a list of items, only these are there.
    let item = items.iter().find(|item| text(item, "/path") == file);
    let key = match item {
        Some(item) => text(item, "/key").to_owned(),
        None if items.is_empty() => file,
        None => return None,
    };
    (!name.is_empty() && !key.is_empty()).then(|| MountedFile {
        is_secret,
        name: name.to_owned(),
        key,
    })
}

#[cfg(test)]
#[path = "cron_env_tests.rs"]
mod tests;
