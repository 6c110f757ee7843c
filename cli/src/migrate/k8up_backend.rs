//! The backend of a part of a k8up Schedule: URL and credentials of its repository. Pure.

use std::collections::BTreeMap;

use serde_json::Value;

use super::k8up_parts::{over, part};
use super::secret::Source;
use crate::objects::{list, text};

/// A repository.
#[derive(Clone, Debug, Default)]
pub struct Backend {
    pub url: String,
    pub entries: BTreeMap<String, Source>,
    pub notes: Vec<String>,
}

/// Reads the backend of a part: what it says itself, and the Schedule's for the rest. Without a part it is the Schedule's.
///
/// # Errors
/// Why there is none that could be taken over.
pub fn backend(schedule: &Value, name: Option<&str>) -> Result<Backend, String> {
    let own = name.and_then(|name| part(schedule, name)?.get("backend"));
    let theirs = &over(own, schedule.pointer("/spec/backend"));
    if !theirs.is_object() {
        return Err(
            "its backend is that of the operator's environment; add spec.backend to it first".to_owned(),
        );
    }
    let mut found = Backend::default();
    found.entry(theirs, "RESTIC_PASSWORD", "/repoPasswordSecretRef");
    if found.entries.is_empty() {
        return Err(
            "its password is in the operator's environment; add spec.backend.repoPasswordSecretRef first"
                .to_owned(),
        );
    }
    found.url = found.of_kind(theirs)?;
    if !list(theirs, "/envFrom").is_empty() {
        found.notes.push(
            "its envFrom is not carried over: put these variables into the Secret of the ResticRepository"
                .to_owned(),
        );
    }
    if theirs.get("tlsOptions").is_some_and(Value::is_object) {
        found
            .notes
            .push("its tlsOptions are files of a volume: put the authority into the Secret as RESTIC_CACERT, a client certificate as RESTIC_TLS_CLIENT_CERT".to_owned());
    }
    if theirs.get("insecureTLS").and_then(Value::as_bool) == Some(true) {
        found.notes.push(
            "insecureTLS has no equal here: put the authority into the Secret as RESTIC_CACERT".to_owned(),
        );
    }
    Ok(found)
}

impl Backend {
    fn entry(&mut self, theirs: &Value, variable: &str, pointer: &str) {
        let Some(reference) = theirs.pointer(pointer) else {
            return;
        };
        let source = Source::whole(text(reference, "/name"), text(reference, "/key"));
        if !source.secret.is_empty() && !source.key.is_empty() {
            self.entries.insert(variable.to_owned(), source);
        }
    }

    fn of_kind(&mut self, theirs: &Value) -> Result<String, String> {
        type Read = fn(&mut Backend, &Value) -> Result<String, String>;
        // In the order in which k8up takes the first that is there.
        let kinds: [(&str, Read); 7] = [
            ("azure", Backend::azure),
            ("b2", Backend::b2),
            ("gcs", Backend::gcs),
            ("local", Backend::local),
            ("rest", Backend::rest),
            ("s3", Backend::s3),
            ("swift", Backend::swift),
        ];
        let mut found = kinds.into_iter().filter_map(|(name, read)| {
            let kind = theirs.get(name).filter(|value| value.is_object())?;
            Some((kind, read))
        });
        match found.next() {
            Some((kind, read)) => read(self, kind),
            None => Err("it names no back end".to_owned()),
        }
    }

    fn s3(&mut self, s3: &Value) -> Result<String, String> {
        self.entry(s3, "AWS_ACCESS_KEY_ID", "/accessKeyIDSecretRef");
        self.entry(s3, "AWS_SECRET_ACCESS_KEY", "/secretAccessKeySecretRef");
        if self.entries.len() < 3 {
            return Err(
                "its keys of S3 are in the operator's environment; write them into spec.backend.s3 first"
                    .to_owned(),
            );
        }
        Ok(format!(
            "s3:{}/{}",
            needed(s3, "endpoint")?,
            needed(s3, "bucket")?
        ))
    }

    fn rest(&mut self, rest: &Value) -> Result<String, String> {
        self.entry(rest, "RESTIC_REST_USERNAME", "/userSecretRef");
        // As k8up spells it.
        self.entry(rest, "RESTIC_REST_PASSWORD", "/passwordSecretReg");
        Ok(format!("rest:{}", needed(rest, "url")?))
    }

    fn azure(&mut self, azure: &Value) -> Result<String, String> {
        self.entry(azure, "AZURE_ACCOUNT_NAME", "/accountNameSecretRef");
        self.entry(azure, "AZURE_ACCOUNT_KEY", "/accountKeySecretRef");
        let path = Some(text(azure, "/path"))
            .filter(|path| !path.is_empty())
            .unwrap_or("/");
        Ok(format!("azure:{}:{path}", needed(azure, "container")?))
    }

    fn gcs(&mut self, gcs: &Value) -> Result<String, String> {
        self.entry(gcs, "GOOGLE_PROJECT_ID", "/projectIDSecretRef");
        self.entry(gcs, "GOOGLE_ACCESS_TOKEN", "/accessTokenSecretRef");
        Ok(format!("gs:{}:/", needed(gcs, "bucket")?))
    }

    fn b2(&mut self, b2: &Value) -> Result<String, String> {
        self.entry(b2, "B2_ACCOUNT_ID", "/accountIDSecretRef");
        self.entry(b2, "B2_ACCOUNT_KEY", "/accountKeySecretRef");
        Ok(format!("b2:{}:{}", needed(b2, "bucket")?, text(b2, "/path")))
    }

    fn swift(&mut self, swift: &Value) -> Result<String, String> {
        self.notes.push(
            "the variables of Swift (OS_…, ST_…) have to be put into the Secret of the ResticRepository"
                .to_owned(),
        );
        Ok(format!(
            "swift:{}:{}",
            needed(swift, "container")?,
            text(swift, "/path")
        ))
    }

    fn local(&mut self, _: &Value) -> Result<String, String> {
        Err("its repository is a folder of a volume: put a server in front of it (rest-server), and copy nothing".to_owned())
    }
}

/// A field of a back end that must not come from the operator's environment.
fn needed(kind: &Value, name: &str) -> Result<String, String> {
    match text(kind, &format!("/{name}")) {
        "" => Err(format!(
            "its {name} is that of the operator's environment; write it into spec.backend first"
        )),
        value => Ok(value.to_owned()),
    }
}
