//! The environment of a container, as far as it is known before it runs. Pure.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::secret::{self, Secrets, Source};
use crate::objects::{list, text};

/// What is known of it.
#[derive(Clone, Debug, Default)]
pub struct Environment {
    /// Values that are known.
    pub values: BTreeMap<String, String>,
    /// Where values for restic come from.
    sources: BTreeMap<String, Source>,
    /// Variables for restic whose value is not known.
    pub unknown: Vec<String>,
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

    /// A word of a command, in which `$(NAME)` stands for a value.
    #[must_use]
    pub fn expand(&self, word: &str) -> String {
        let mut text = word.to_owned();
        for (name, value) in &self.values {
            text = text.replace(&format!("$({name})"), value);
        }
        text
    }

    fn set(&mut self, name: &str, value: Option<&str>, source: Source) {
        if let Some(value) = value {
            self.values.insert(name.to_owned(), value.to_owned());
        }
        let one = BTreeMap::from([(name.to_owned(), String::new())]);
        if !secret::variables("", &one).is_empty() {
            self.sources.insert(name.to_owned(), source);
        }
    }
}

/// Secrets that the variables and volumes of a pod refer to.
#[must_use]
pub fn secrets(pod: &Value) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for container in list(pod, "/initContainers")
        .iter()
        .chain(list(pod, "/containers"))
    {
        let from = list(container, "/envFrom")
            .iter()
            .map(|from| text(from, "/secretRef/name"));
        let env = list(container, "/env")
            .iter()
            .map(|one| text(one, "/valueFrom/secretKeyRef/name"));
        names.extend(from.chain(env).map(str::to_owned));
    }
    names.extend(
        list(pod, "/volumes")
            .iter()
            .map(|volume| text(volume, "/secret/secretName").to_owned()),
    );
    names.remove("");
    names
}

/// The environment of a container.
#[must_use]
pub fn environment(pod: &Value, container: &Value, namespace: &str, secrets: &Secrets) -> Environment {
    let mut found = Environment::default();
    let of = |name: &str| secrets.get(&(namespace.to_owned(), name.to_owned()));
    for from in list(container, "/envFrom") {
        let (name, prefix) = (text(from, "/secretRef/name"), text(from, "/prefix"));
        for (key, value) in of(name).into_iter().flatten() {
            found.set(&format!("{prefix}{key}"), Some(value), Source::whole(name, key));
        }
    }
    for one in list(container, "/env") {
        let name = text(one, "/name");
        let (secret, key) = (
            text(one, "/valueFrom/secretKeyRef/name"),
            text(one, "/valueFrom/secretKeyRef/key"),
        );
        if let Some(value) = one.get("value").and_then(Value::as_str) {
            let value = found.expand(value);
            found.set(name, Some(&value), Source::literal(&value));
        } else if !secret.is_empty() {
            let value = of(secret).and_then(|keys| keys.get(key)).map(String::as_str);
            found.set(name, value, Source::whole(secret, key));
        } else if ["RESTIC_", "AWS_", "AZURE_", "GOOGLE_", "B2_"]
            .iter()
            .any(|begin| name.starts_with(begin))
        {
            found.unknown.push(name.to_owned());
        }
    }
    // Files of mounted Secrets.
    for (variable, file) in [
        ("RESTIC_PASSWORD", "RESTIC_PASSWORD_FILE"),
        ("RESTIC_REPOSITORY", "RESTIC_REPOSITORY_FILE"),
    ] {
        let Some(path) = found.values.get(file).cloned() else {
            continue;
        };
        match mounted(pod, container, &path) {
            Some((secret, key)) => {
                let value = of(&secret)
                    .and_then(|keys| keys.get(&key))
                    .map(|value| value.trim().to_owned());
                found.set(variable, value.as_deref(), Source::whole(&secret, &key));
            }
            None => found.unknown.push(file.to_owned()),
        }
    }
    found
}

/// Secret and key behind a file of a container.
fn mounted(pod: &Value, container: &Value, path: &str) -> Option<(String, String)> {
    let mount = list(container, "/volumeMounts").iter().find(|mount| {
        let rest = path.strip_prefix(text(mount, "/mountPath").trim_end_matches('/'));
        rest.is_some_and(|rest| {
            rest.starts_with('/') || (rest.is_empty() && !text(mount, "/subPath").is_empty())
        })
    })?;
    let volumes = list(pod, "/volumes").iter();
    let volume = volumes
        .clone()
        .find(|volume| text(volume, "/name") == text(mount, "/name"))?;
    let secret = text(volume, "/secret/secretName");
    let below = path
        .strip_prefix(text(mount, "/mountPath").trim_end_matches('/'))?
        .trim_matches('/');
    let file = if below.is_empty() {
        text(mount, "/subPath")
    } else {
        below
    };
    let items = list(volume, "/secret/items");
    let item = items.iter().find(|item| text(item, "/path") == file);
    let key = item.map_or(file, |item| text(item, "/key"));
    (!secret.is_empty() && !key.is_empty()).then(|| (secret.to_owned(), key.to_owned()))
}

/// The variables of a file of `NAME=VALUE` lines, with or without `export`.
#[must_use]
pub fn lines(content: &str) -> BTreeMap<String, String> {
    let lines = content
        .lines()
        .map(str::trim)
        .filter(|line| !line.starts_with('#'));
    lines
        .filter_map(|line| {
            let (name, value) = line.strip_prefix("export ").unwrap_or(line).split_once('=')?;
            let value = value.trim();
            let quoted = ['"', '\''].iter().find_map(|quote| {
                let inner = value.strip_prefix(*quote)?;
                inner.strip_suffix(*quote)
            });
            Some((name.trim().to_owned(), quoted.unwrap_or(value).to_owned()))
        })
        .collect()
}
