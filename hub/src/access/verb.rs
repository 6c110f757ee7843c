//! What a person may do, and the bundles that roles make of it. Pure.

use std::fmt;
use std::str::FromStr;

/// One right. Each also gives [`Verb::See`] in its scope: what cannot be seen cannot be decided about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Verb {
    /// Reads clusters, repositories, backups, locks, plans and the audit.
    See,
    /// Lists the files of snapshots, and fetches one.
    Browse,
    /// Starts, suspends and ends operations, and takes locks back.
    Run,
    /// Restores.
    Restore,
    /// Approves and rejects plans that remove snapshots.
    Approve,
    /// Keeps snapshots beyond every policy.
    Hold,
    /// Lets clusters into the fleet and into repositories, and removes them.
    Enrol,
    /// Bans clusters.
    Ban,
    /// Gives rights to people, and takes them away.
    Administer,
}

impl Verb {
    /// All of them.
    pub const ALL: [Verb; 9] = [
        Verb::See,
        Verb::Browse,
        Verb::Run,
        Verb::Restore,
        Verb::Approve,
        Verb::Hold,
        Verb::Enrol,
        Verb::Ban,
        Verb::Administer,
    ];

    /// As it is written.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Verb::See => "see",
            Verb::Browse => "browse",
            Verb::Run => "run",
            Verb::Restore => "restore",
            Verb::Approve => "approve",
            Verb::Hold => "hold",
            Verb::Enrol => "enrol",
            Verb::Ban => "ban",
            Verb::Administer => "administer",
        }
    }
}

impl fmt::Display for Verb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A set of verbs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Verbs(u16);

impl Verbs {
    /// Whether a verb is in the set.
    #[must_use]
    pub fn has(self, verb: Verb) -> bool {
        self.0 & (1 << verb as u8) != 0
    }

    /// The verbs of the set, in the order of [`Verb::ALL`].
    pub fn iter(self) -> impl Iterator<Item = Verb> {
        Verb::ALL.into_iter().filter(move |verb| self.has(*verb))
    }
}

impl FromIterator<Verb> for Verbs {
    fn from_iter<I: IntoIterator<Item = Verb>>(verbs: I) -> Verbs {
        let bits = verbs.into_iter().fold(0, |bits, verb| bits | (1 << verb as u8));
        // See comes with every other verb.
        Verbs(if bits == 0 {
            0
        } else {
            bits | (1 << Verb::See as u8)
        })
    }
}

/// A bundle of verbs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Role {
    Viewer,
    Operator,
    Admin,
}

impl Role {
    /// All of them.
    pub const ALL: [Role; 3] = [Role::Viewer, Role::Operator, Role::Admin];

    /// As it is written.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Role::Viewer => "viewer",
            Role::Operator => "operator",
            Role::Admin => "admin",
        }
    }

    /// The role that is written so.
    #[must_use]
    pub fn of(text: &str) -> Option<Role> {
        Role::ALL.into_iter().find(|role| role.as_str() == text)
    }

    /// What it may do.
    #[must_use]
    pub fn verbs(self) -> Verbs {
        match self {
            Role::Viewer => [Verb::See].into_iter().collect(),
            Role::Operator => Verb::ALL
                .into_iter()
                .filter(|verb| !matches!(verb, Verb::Ban | Verb::Administer))
                .collect(),
            Role::Admin => Verb::ALL.into_iter().collect(),
        }
    }
}

/// Why a text is neither a role nor a list of verbs.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error(
    "{0:?} is neither a role (viewer, operator, admin) nor a verb (see, browse, run, restore, approve, hold, enrol, ban, \
     administer)"
)]
pub struct NoVerb(String);

impl FromStr for Verbs {
    type Err = NoVerb;

    /// A role, or verbs with commas between them.
    fn from_str(text: &str) -> Result<Verbs, NoVerb> {
        if let Some(role) = Role::of(text) {
            return Ok(role.verbs());
        }
        let verbs = text.split(',').map(|word| {
            let found = Verb::ALL.into_iter().find(|verb| verb.as_str() == word);
            found.ok_or_else(|| NoVerb(word.to_owned()))
        });
        verbs.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roles_are_bundles_and_every_verb_sees() {
        assert_eq!("viewer".parse::<Verbs>().unwrap().iter().count(), 1);
        let operator: Verbs = "operator".parse().unwrap();
        assert!(operator.has(Verb::Enrol) && !operator.has(Verb::Ban) && !operator.has(Verb::Administer));
        assert!(Verb::ALL.into_iter().all(|verb| Role::Admin.verbs().has(verb)));
        let two: Verbs = "approve,hold".parse().unwrap();
        assert_eq!(
            two.iter().collect::<Vec<_>>(),
            [Verb::See, Verb::Approve, Verb::Hold]
        );
        for wrong in ["", "Viewer", "approve,", "approve, hold", "viewer,operator"] {
            assert!(wrong.parse::<Verbs>().is_err(), "{wrong}");
        }
    }
}
