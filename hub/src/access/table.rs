//! What each RPC of the hub needs. The layer refuses an RPC that is not listed here; `docs/access.md` and the tests of all
//! roles are made from this list.

use std::fmt::Write as _;

use super::verb::{Role, Verb};

/// What an RPC needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// The certificate of a spoke.
    Spoke,
    /// Nothing: the handler decides by what the request holds, such as a token.
    Anyone,
    /// Any person with a valid certificate or session.
    Person,
    /// A person with this verb in some scope; the handler applies the scope.
    Verb(Verb),
}

/// How the scope of a verb applies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// There is none: the RPC is about the sender itself.
    Own,
    /// Only what is in the scope is answered and counted.
    Seen,
    /// All that the request is about must be in the scope.
    Covered(&'static str),
    /// The scope must be the whole fleet.
    Everywhere,
}

impl Reach {
    /// In words.
    #[must_use]
    pub fn words(self) -> String {
        match self {
            Reach::Own => "of the sender itself".to_owned(),
            Reach::Seen => "what is in the scope is listed and counted, and nothing else".to_owned(),
            Reach::Covered(what) => format!("in the scope must be {what}"),
            Reach::Everywhere => "the scope must be the whole fleet".to_owned(),
        }
    }
}

/// One RPC.
#[derive(Clone, Copy, Debug)]
pub struct Rule {
    /// "/<package>.<service>/<method>".
    pub path: &'static str,
    pub need: Need,
    pub reach: Reach,
}

const fn rule(path: &'static str, need: Need, reach: Reach) -> Rule {
    Rule { path, need, reach }
}

const fn verb(path: &'static str, verb: Verb, reach: Reach) -> Rule {
    rule(path, Need::Verb(verb), reach)
}

const WHOLE_CLUSTER: Reach = Reach::Covered("all of the cluster");
const WHAT_GOES: Reach = Reach::Covered("every snapshot that the plan removes");
const RESOURCE: Reach = Reach::Covered("the resource that it is about");
const RESTORED: Reach = Reach::Covered(
    "the backup, of which the latest snapshot is restored; one that is named by its id needs the whole fleet",
);
const SNAPSHOT: Reach = Reach::Covered("the ResticRepository, and what has made the snapshot");

/// Every RPC of every listener of the hub.
pub const RULES: &[Rule] = &[
    rule("/fleet.v1.FleetLink/Link", Need::Spoke, Reach::Own),
    rule("/fleet.v1.FleetAdmin/BeginLogin", Need::Anyone, Reach::Own),
    rule("/fleet.v1.FleetEnrol/Enrol", Need::Anyone, Reach::Own),
    verb(
        "/fleet.v1.FleetClusters/CreateJoinToken",
        Verb::Enrol,
        WHOLE_CLUSTER,
    ),
    verb("/fleet.v1.FleetClusters/BanCluster", Verb::Ban, WHOLE_CLUSTER),
    verb("/fleet.v1.FleetClusters/UnbanCluster", Verb::Ban, WHOLE_CLUSTER),
    verb(
        "/fleet.v1.FleetClusters/RotateAuthority",
        Verb::Administer,
        Reach::Everywhere,
    ),
    rule("/fleet.v1.FleetAdmin/Login", Need::Anyone, Reach::Own),
    rule("/fleet.v1.FleetAdmin/Logout", Need::Person, Reach::Own),
    rule("/fleet.v1.FleetAdmin/WhoAmI", Need::Person, Reach::Own),
    rule("/fleet.v1.FleetAdmin/CreateLogin", Need::Person, Reach::Own),
    verb("/fleet.v1.FleetAdmin/Invite", Verb::Administer, Reach::Everywhere),
    verb(
        "/fleet.v1.FleetAdmin/ListBindings",
        Verb::Administer,
        Reach::Everywhere,
    ),
    verb("/fleet.v1.FleetAdmin/Bind", Verb::Administer, Reach::Everywhere),
    verb("/fleet.v1.FleetAdmin/Unbind", Verb::Administer, Reach::Everywhere),
    verb("/fleet.v1.FleetAdmin/Revoke", Verb::Administer, Reach::Everywhere),
    verb(
        "/fleet.v1.FleetAdmin/RevokeCertificate",
        Verb::Administer,
        Reach::Everywhere,
    ),
    rule("/fleet.v1.FleetAdmin/Authorities", Need::Person, Reach::Own),
    verb("/fleet.v1.FleetAdmin/VerifyAudit", Verb::See, Reach::Everywhere),
    verb("/fleet.v1.FleetHub/Backup", Verb::Administer, Reach::Everywhere),
    verb(
        "/fleet.v1.FleetHub/KeepBackup",
        Verb::Administer,
        Reach::Everywhere,
    ),
    verb("/fleet.v1.FleetHub/Pause", Verb::Run, Reach::Everywhere),
    verb("/fleet.v1.FleetHub/Resume", Verb::Run, Reach::Everywhere),
    verb("/fleet.v1.FleetHub/Manifests", Verb::See, Reach::Seen),
    verb(
        "/fleet.v1.FleetView/History",
        Verb::See,
        Reach::Covered("all of the repository"),
    ),
    verb("/fleet.v1.FleetView/List", Verb::See, Reach::Seen),
    verb("/fleet.v1.FleetView/Get", Verb::See, Reach::Seen),
    verb("/fleet.v1.FleetView/Activity", Verb::See, Reach::Seen),
    verb("/fleet.v1.FleetView/Health", Verb::See, Reach::Seen),
    verb("/fleet.v1.FleetView/Coverage", Verb::See, Reach::Seen),
    verb("/fleet.v1.FleetView/Storage", Verb::See, Reach::Seen),
    verb("/fleet.v1.FleetView/Watch", Verb::See, Reach::Seen),
    verb("/fleet.v1.FleetView/Status", Verb::See, Reach::Seen),
    verb("/fleet.v1.FleetView/Locks", Verb::See, Reach::Seen),
    verb("/fleet.v1.FleetView/Plans", Verb::See, WHAT_GOES),
    verb("/fleet.v1.FleetView/Audit", Verb::See, Reach::Seen),
    verb("/fleet.v1.FleetControl/RunBackup", Verb::Run, RESOURCE),
    verb("/fleet.v1.FleetControl/RunRetention", Verb::Run, RESOURCE),
    verb("/fleet.v1.FleetControl/PreviewRetention", Verb::Run, RESOURCE),
    verb("/fleet.v1.FleetControl/RunCheck", Verb::Run, RESOURCE),
    verb("/fleet.v1.FleetControl/Unlock", Verb::Run, RESOURCE),
    verb("/fleet.v1.FleetControl/Suspend", Verb::Run, RESOURCE),
    verb("/fleet.v1.FleetControl/Resume", Verb::Run, RESOURCE),
    verb("/fleet.v1.FleetControl/CreateRestore", Verb::Restore, RESTORED),
    verb("/fleet.v1.FleetControl/ListOperations", Verb::See, Reach::Seen),
    verb("/fleet.v1.FleetControl/GetOperation", Verb::See, Reach::Seen),
    verb("/fleet.v1.FleetControl/WatchOperation", Verb::See, Reach::Seen),
    verb(
        "/fleet.v1.FleetControl/CancelOperation",
        Verb::See,
        Reach::Covered("the resource of the operation, by the verb that it needs itself"),
    ),
    verb("/fleet.v1.FleetControl/ListSnapshots", Verb::Browse, SNAPSHOT),
    verb("/fleet.v1.FleetControl/ListFolder", Verb::Browse, SNAPSHOT),
    verb("/fleet.v1.FleetControl/FindFiles", Verb::Browse, SNAPSHOT),
    verb("/fleet.v1.FleetControl/FetchFile", Verb::Browse, SNAPSHOT),
    verb(
        "/fleet.v1.FleetView/ReleaseLock",
        Verb::Run,
        Reach::Covered("what holds the lock"),
    ),
    verb("/fleet.v1.FleetView/DecidePlan", Verb::Approve, WHAT_GOES),
    verb("/fleet.v1.FleetView/DecideBinding", Verb::Enrol, WHOLE_CLUSTER),
    verb("/fleet.v1.FleetView/ForgetCluster", Verb::Enrol, WHOLE_CLUSTER),
    verb("/fleet.v1.FleetView/AcceptCluster", Verb::Enrol, WHOLE_CLUSTER),
];

/// What an RPC needs; `None` for one that is not known.
#[must_use]
pub fn need(path: &str) -> Option<Need> {
    RULES.iter().find(|rule| rule.path == path).map(|rule| rule.need)
}

/// Kinds of senders, as the documentation and the tests walk them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Caller {
    /// No certificate, a bad one, or no session that is open.
    Nobody,
    Spoke,
    /// A person to whom nothing is bound.
    Stranger,
    /// A role, in a scope or in the whole fleet.
    Role {
        role: Role,
        scoped: bool,
    },
}

impl Caller {
    /// All of them, in the order of the page's columns.
    pub const ALL: [Caller; 7] = [
        Caller::Nobody,
        Caller::Spoke,
        Caller::Stranger,
        Caller::Role {
            role: Role::Viewer,
            scoped: false,
        },
        Caller::Role {
            role: Role::Operator,
            scoped: true,
        },
        Caller::Role {
            role: Role::Operator,
            scoped: false,
        },
        Caller::Role {
            role: Role::Admin,
            scoped: false,
        },
    ];

    /// Heading of its column.
    #[must_use]
    pub fn words(self) -> String {
        match self {
            Caller::Nobody => "nobody".to_owned(),
            Caller::Spoke => "spoke".to_owned(),
            Caller::Stranger => "person without rights".to_owned(),
            Caller::Role { role, scoped: true } => format!("{} in a scope", role.as_str()),
            Caller::Role { role, scoped: false } => role.as_str().to_owned(),
        }
    }
}

/// Whether an RPC is open to a kind of sender.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    Refused,
    InScope,
    Allowed,
}

impl Rule {
    /// What a kind of sender may expect.
    #[must_use]
    pub fn answer(&self, caller: Caller) -> Answer {
        let has = match (self.need, caller) {
            (Need::Anyone, _) | (Need::Spoke, Caller::Spoke) => true,
            (Need::Person, Caller::Stranger | Caller::Role { .. }) => true,
            (Need::Verb(verb), Caller::Role { role, .. }) => role.verbs().has(verb),
            _ => false,
        };
        match (has, caller, self.reach) {
            (false, ..) | (true, Caller::Role { scoped: true, .. }, Reach::Everywhere) => Answer::Refused,
            (true, Caller::Role { scoped: true, .. }, Reach::Seen | Reach::Covered(_)) => Answer::InScope,
            _ => Answer::Allowed,
        }
    }
}

/// The tables of `docs/access.md`.
#[must_use]
pub fn page() -> String {
    let mut text = String::from("| verb | ");
    let roles: Vec<&str> = Role::ALL.iter().map(|role| role.as_str()).collect();
    let _ = writeln!(
        text,
        "{} |\n|---|{}",
        roles.join(" | "),
        "---|".repeat(roles.len())
    );
    for verb in Verb::ALL {
        let has = Role::ALL.map(|role| if role.verbs().has(verb) { "yes" } else { "-" });
        let _ = writeln!(text, "| `{verb}` | {} |", has.join(" | "));
    }
    let callers = Caller::ALL.map(Caller::words);
    let _ = writeln!(text, "\n| RPC | needs | {} | scope |", callers.join(" | "));
    let _ = writeln!(text, "|---|---|{}---|", "---|".repeat(callers.len()));
    for rule in RULES {
        let needs = match rule.need {
            Need::Spoke => "a spoke's certificate".to_owned(),
            Need::Anyone => "nothing: it is how one gets in".to_owned(),
            Need::Person => "a person".to_owned(),
            Need::Verb(verb) => format!("`{verb}`"),
        };
        let answers = Caller::ALL.map(|caller| match rule.answer(caller) {
            Answer::Refused => "-",
            Answer::InScope => "in its scope",
            Answer::Allowed => "yes",
        });
        let path = rule.path.trim_start_matches("/fleet.v1.");
        let _ = writeln!(
            text,
            "| `{path}` | {needs} | {} | {} |",
            answers.join(" | "),
            rule.reach.words()
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn no_rpc_is_listed_twice() {
        let paths: BTreeSet<&str> = RULES.iter().map(|rule| rule.path).collect();
        assert_eq!(paths.len(), RULES.len());
    }

    /// `FLEET_WRITE_DOCS=1` writes the page anew.
    #[test]
    fn the_page_is_of_this_list() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/access.md");
        let text = std::fs::read_to_string(path).unwrap();
        let (begin, end) = ("<!-- made from hub/src/access/table.rs -->\n", "<!-- end -->");
        let (head, rest) = text.split_once(begin).unwrap();
        let (_, tail) = rest.split_once(end).unwrap();
        let wanted = format!("{head}{begin}\n{}\n{end}{tail}", page());
        if std::env::var_os("FLEET_WRITE_DOCS").is_some() {
            std::fs::write(path, &wanted).unwrap();
            return;
        }
        assert!(text == wanted, "docs/access.md is out of date: make gen");
    }
}
