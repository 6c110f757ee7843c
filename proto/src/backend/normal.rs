//! The one reading of a repository's Secret: what an operator gives to restic, and what a recovery kit holds, is what comes out
//! here. A Secret made from a file ends in a line break, an editor may have written CRLF: what cannot belong to a value is
//! taken off, and what restic cannot be given is a fault with its key and byte. Pure.

use std::collections::BTreeMap;

use super::{Backend, FileKey};

/// Variable, and default key, of the repository's password.
pub const PASSWORD_VARIABLE: &str = "RESTIC_PASSWORD";
/// A byte order mark, as editors on Windows put before text.
const MARK: &[u8] = b"\xef\xbb\xbf";
/// The one variable whose value may have several lines: a policy in JSON.
const POLICY: &str = "RESTIC_AWS_ASSUME_ROLE_POLICY";

/// What is wrong with a key of a Secret. Never names a value.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    #[error("it is not there; put the repository password there")]
    NoPassword,
    #[error("it is empty; put the repository password there")]
    EmptyPassword,
    #[error("byte 0x{byte:02x} at position {at} (from 0): {why}")]
    Byte { byte: u8, at: usize, why: &'static str },
    #[error("it is not there or empty; put {0} there")]
    NoFile(&'static str),
    #[error("no {0:?} is in it; put the file's content there, not its path")]
    NotPem(&'static str),
}

/// What can be read of a Secret.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Values {
    /// Allowed variables and contents of files, by the key of the Secret that holds each; the password is always under
    /// [`PASSWORD_VARIABLE`].
    pub values: BTreeMap<String, String>,
    /// What is wrong, by key. An operator gives nothing to restic if there is any.
    pub faults: Vec<(String, Fault)>,
}

impl Values {
    fn take(&mut self, key: &str, variable: &str, read: Result<Option<String>, Fault>) {
        match read {
            Ok(Some(value)) => {
                self.values.insert(variable.to_owned(), value);
            }
            Ok(None) => {}
            Err(fault) => self.faults.push((key.to_owned(), fault)),
        }
    }
}

/// How a value may be changed without becoming another one, and what it may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    /// The repository's password. Blanks may belong to it, and so may a line break inside.
    RepositoryPassword,
    /// A password of the storage: one line, blanks may belong to it.
    Password,
    /// A name, a key, a token, a URL: one line that neither begins nor ends with blanks.
    Word,
    /// Several lines whose ends do not matter.
    Text,
}

impl Form {
    fn of(variable: &str) -> Form {
        match variable {
            POLICY => Form::Text,
            "ST_KEY" => Form::Password,
            _ if variable.contains("PASS") => Form::Password,
            _ => Form::Word,
        }
    }
}

/// Key of the password: the one that a resource names, or RESTIC_PASSWORD where the named one is absent, because the original
/// operator ignored `key`.
pub fn password_key(named: Option<&str>, has: impl Fn(&str) -> bool) -> &str {
    match named.filter(|key| !key.is_empty()) {
        Some(key) if has(key) || !has(PASSWORD_VARIABLE) => key,
        _ => PASSWORD_VARIABLE,
    }
}

/// Password, allowed variables and files of a repository. `key` is where its resource says that the password is, `value` what a
/// key of the Secret holds.
pub fn values<'a>(backend: Backend, key: Option<&str>, value: impl Fn(&str) -> Option<&'a [u8]>) -> Values {
    let mut read = Values::default();
    let key = password_key(key, |key| value(key).is_some());
    let password = value(key).ok_or(Fault::NoPassword).and_then(password);
    read.take(key, PASSWORD_VARIABLE, password.map(Some));
    for key in backend.variables() {
        let text = value(key).map(|bytes| variable(bytes, Form::of(key)));
        read.take(key, key, text.transpose());
    }
    for file in backend.files() {
        let text = value(file.key).map(|bytes| content(file, bytes)).transpose();
        let text = text.map(|text| text.filter(|text| !text.is_empty()));
        let text = match text {
            Ok(None) if !file.needed.is_empty() => Err(Fault::NoFile(file.needed)),
            text => text,
        };
        read.take(file.key, file.key, text);
    }
    read
}

/// A repository's password.
///
/// # Errors
/// When restic cannot be given it.
pub fn password(bytes: &[u8]) -> Result<String, Fault> {
    let text = variable(bytes, Form::RepositoryPassword)?;
    match text.is_empty() {
        true => Err(Fault::EmptyPassword),
        false => Ok(text),
    }
}

/// The text of a variable.
fn variable(bytes: &[u8], form: Form) -> Result<String, Fault> {
    let bad = |at: usize, why: &'static str| bad(bytes, at, why);
    if bytes.starts_with(MARK) {
        return Err(bad(
            0,
            "it begins with a byte order mark, which an editor put before the text",
        ));
    }
    let text = std::str::from_utf8(bytes).map_err(|e| bad(e.valid_up_to(), "it is not UTF-8"))?;
    let kept = match form {
        Form::RepositoryPassword | Form::Password => text.trim_end_matches(['\n', '\r']),
        Form::Word | Form::Text => text.trim_matches(|c: char| c.is_ascii_whitespace()),
    };
    let before = text.len() - text.trim_start_matches(|c: char| c.is_ascii_whitespace()).len();
    let offset = if matches!(form, Form::Word | Form::Text) {
        before
    } else {
        0
    };
    let forbidden = |c: char| match form {
        Form::RepositoryPassword | Form::Text => c == '\0',
        Form::Password | Form::Word => c.is_control(),
    };
    match kept.find(forbidden) {
        Some(at) if kept[at..].starts_with('\0') => Err(bad(offset + at, "a variable cannot hold it")),
        Some(at) => Err(bad(
            offset + at,
            "the value has to be one line without control characters",
        )),
        None => Ok(kept.to_owned()),
    }
}

/// The text of a file: lines that end in LF, the last one too. ssh reads no key without either.
fn content(file: &FileKey, bytes: &[u8]) -> Result<String, Fault> {
    let bad = |at: usize, why: &'static str| bad(bytes, at, why);
    let start = if bytes.starts_with(MARK) { MARK.len() } else { 0 };
    let text = std::str::from_utf8(&bytes[start..]);
    let text = text.map_err(|e| bad(start + e.valid_up_to(), "it is not UTF-8"))?;
    if let Some(at) = text.find('\0') {
        return Err(bad(start + at, "it is not a text"));
    }
    let trimmed = text.trim();
    if trimmed.is_empty() {
        return Ok(String::new());
    }
    if let Some(line) = file.holds.iter().find(|line| !trimmed.contains(**line)) {
        return Err(Fault::NotPem(line));
    }
    Ok(format!("{}\n", trimmed.replace("\r\n", "\n")))
}

fn bad(bytes: &[u8], at: usize, why: &'static str) -> Fault {
    Fault::Byte {
        byte: bytes.get(at).copied().unwrap_or_default(),
        at,
        why,
    }
}
