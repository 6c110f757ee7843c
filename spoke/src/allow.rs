//! What a hub may make this cluster do.

use std::fmt::{self, Display};

/// One sort of command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Allow {
    /// Lists snapshots, folders and files.
    Read,
    /// Runs of backups, retention policies and checks that exist.
    Run,
    /// Suspends and resumes them.
    Suspend,
    /// Creates restores.
    Restore,
    /// Removes left-over locks.
    Unlock,
    /// Retention of a repository by the policies of other clusters alone.
    Retain,
}

/// All of them.
const ALL: [Allow; 6] = [
    Allow::Read,
    Allow::Run,
    Allow::Suspend,
    Allow::Restore,
    Allow::Unlock,
    Allow::Retain,
];

impl Allow {
    /// As it is written in the option.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Allow::Read => "read",
            Allow::Run => "run",
            Allow::Suspend => "suspend",
            Allow::Restore => "restore",
            Allow::Unlock => "unlock",
            Allow::Retain => "retain",
        }
    }

    fn bit(self) -> u8 {
        1 << self as u8
    }
}

/// The sorts that `--allow` names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Allowed(u8);

impl Default for Allowed {
    /// As without the option.
    fn default() -> Allowed {
        Allowed(Allow::Read.bit() | Allow::Run.bit() | Allow::Suspend.bit())
    }
}

impl Allowed {
    /// Reads the option.
    ///
    /// # Errors
    /// Which word is none of them.
    pub fn parse(text: &str) -> Result<Allowed, String> {
        let words = text.split(',').map(str::trim).filter(|word| !word.is_empty());
        words
            .filter(|word| *word != "none")
            .try_fold(Allowed(0), |Allowed(bits), word| {
                let found = ALL.into_iter().find(|allow| allow.as_str() == word);
                found.map(|allow| Allowed(bits | allow.bit())).ok_or_else(|| {
                    format!("{word:?} is none of read, run, suspend, restore, unlock, retain and none")
                })
            })
    }

    /// Whether it is allowed.
    ///
    /// # Errors
    /// Which setting forbids it, in a sentence.
    pub fn check(self, allow: Allow) -> Result<(), String> {
        if self.0 & allow.bit() != 0 {
            return Ok(());
        }
        Err(format!(
            "this cluster does not allow its hub to do that: add {} to --allow of its operator (FLEET_ALLOW), which is {self}",
            allow.as_str()
        ))
    }
}

impl Display for Allowed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let named: Vec<&str> = ALL
            .into_iter()
            .filter(|allow| self.0 & allow.bit() != 0)
            .map(Allow::as_str)
            .collect();
        match named.as_slice() {
            [] => f.write_str("none"),
            named => f.write_str(&named.join(",")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn restores_and_unlocking_are_off_unless_they_are_named() {
        let default = Allowed::parse("read,run,suspend").unwrap();
        assert_eq!(default, Allowed::default());
        let refused = default.check(Allow::Restore).unwrap_err();
        assert!(
            refused.contains("add restore to --allow") && refused.contains("read,run,suspend"),
            "{refused}"
        );
        assert!(default.check(Allow::Unlock).is_err() && default.check(Allow::Run).is_ok());
        assert!(default.check(Allow::Retain).is_err());
        let none = Allowed::parse("none").unwrap();
        assert!(ALL.into_iter().all(|allow| none.check(allow).is_err()));
        assert_eq!(none.to_string(), "none");
        let all = Allowed::parse("read, run,suspend,restore,unlock,retain").unwrap();
        assert!(ALL.into_iter().all(|allow| all.check(allow).is_ok()));
        assert!(Allowed::parse("run,everything").is_err());
    }
}
