//! Where a page of the audit begins, and where one goes on that is followed. People get both sealed: their numbers count
//! what is outside of a scope, too.

use tonic::Status;

use crate::Millis;
use crate::hub::Hub;
use crate::lock::people::bad_cursor;
use crate::store::AuditCursor;

const PAGES: &str = "audit";
const FOLLOWED: &str = "audit-followed";

/// Where a page begins: after this run, and before this decision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cursor {
    pub run: AuditCursor,
    pub decision: u64,
}

impl Cursor {
    fn parse(text: &str) -> Result<Cursor, Status> {
        if text.is_empty() {
            return Ok(Cursor {
                run: (Millis::MAX, String::new(), 0),
                decision: u64::MAX,
            });
        }
        let parts: Vec<&str> = text.split('/').collect();
        let [granted, restic_id, token, decision] = parts.as_slice() else {
            return Err(bad_cursor());
        };
        let parse = || {
            Some(Cursor {
                run: (
                    granted.parse().ok()?,
                    (*restic_id).to_owned(),
                    token.parse().ok()?,
                ),
                decision: decision.parse().ok()?,
            })
        };
        parse().ok_or_else(bad_cursor)
    }

    /// As a person got it; empty for the first page.
    ///
    /// # Errors
    /// InvalidArgument for one of another kind, or of an earlier run of the hub.
    pub fn open(hub: &Hub, sealed: &str) -> Result<Cursor, Status> {
        if sealed.is_empty() {
            return Cursor::parse("");
        }
        let text = hub.seal.open(PAGES, sealed).ok_or_else(bad_cursor)?;
        Cursor::parse(&text)
    }

    /// For a person.
    ///
    /// # Errors
    /// Internal without random numbers.
    pub fn close(&self, hub: &Hub) -> Result<String, Status> {
        close(hub, PAGES, &self.text())
    }

    fn text(&self) -> String {
        let (granted, restic_id, token) = &self.run;
        format!("{granted}/{restic_id}/{token}/{}", self.decision)
    }
}

/// After which decision it goes on, as a person got it.
///
/// # Errors
/// InvalidArgument for one of another kind, or of an earlier run of the hub.
pub fn followed(hub: &Hub, sealed: &str) -> Result<u64, Status> {
    let text = hub.seal.open(FOLLOWED, sealed).ok_or_else(bad_cursor)?;
    text.parse().map_err(|_| bad_cursor())
}

/// The same for a person.
///
/// # Errors
/// Internal without random numbers.
pub fn follow(hub: &Hub, after: u64) -> Result<String, Status> {
    close(hub, FOLLOWED, &after.to_string())
}

fn close(hub: &Hub, used_for: &str, text: &str) -> Result<String, Status> {
    let sealed = hub.seal.close(used_for, text);
    sealed.map_err(|error| Status::internal(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_is_read_as_it_was_written() {
        let cursor = Cursor {
            run: (5, "ab".to_owned(), 7),
            decision: 9,
        };
        assert_eq!(Cursor::parse(&cursor.text()).unwrap(), cursor);
        let first = Cursor::parse("").unwrap();
        assert_eq!(Cursor::parse(&first.text()).unwrap(), first);
        for wrong in ["x", "1/a/2", "1/a/2/x", "1/a/2/3/4"] {
            assert!(Cursor::parse(wrong).is_err(), "{wrong}");
        }
    }
}
