//! What each RPC of the hub needs. The layer refuses an RPC that is not listed here; `docs/access.md` and the tests of all
//! roles are made from this list.

use super::verb::Verb;

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

/// One RPC.
#[derive(Clone, Copy, Debug)]
pub struct Rule {
    /// "/<package>.<service>/<method>".
    pub path: &'static str,
    pub need: Need,
    /// How its scope applies, for people.
    pub scope: &'static str,
}

const fn rule(path: &'static str, need: Need, scope: &'static str) -> Rule {
    Rule { path, need, scope }
}

const SNAPSHOT: &str = "the ResticRepository, and what has made the snapshot";
const RESOURCE: &str = "the resource that it is about";
const SEES: &str = "only what is in the scope is listed and counted";

/// Every RPC of every listener of the hub.
pub const RULES: &[Rule] = &[
    rule("/fleet.v1.FleetLink/Link", Need::Spoke, "its own cluster"),
    rule("/fleet.v1.FleetView/List", Need::Verb(Verb::See), SEES),
    rule("/fleet.v1.FleetView/Watch", Need::Verb(Verb::See), SEES),
    rule("/fleet.v1.FleetView/Status", Need::Verb(Verb::See), SEES),
    rule("/fleet.v1.FleetView/Locks", Need::Verb(Verb::See), SEES),
    rule(
        "/fleet.v1.FleetView/Plans",
        Need::Verb(Verb::See),
        "plans of which every snapshot that goes is in the scope",
    ),
    rule("/fleet.v1.FleetView/Audit", Need::Verb(Verb::See), SEES),
    rule(
        "/fleet.v1.FleetControl/RunBackup",
        Need::Verb(Verb::Run),
        RESOURCE,
    ),
    rule(
        "/fleet.v1.FleetControl/RunRetention",
        Need::Verb(Verb::Run),
        RESOURCE,
    ),
    rule(
        "/fleet.v1.FleetControl/PreviewRetention",
        Need::Verb(Verb::Run),
        RESOURCE,
    ),
    rule("/fleet.v1.FleetControl/RunCheck", Need::Verb(Verb::Run), RESOURCE),
    rule("/fleet.v1.FleetControl/Unlock", Need::Verb(Verb::Run), RESOURCE),
    rule("/fleet.v1.FleetControl/Suspend", Need::Verb(Verb::Run), RESOURCE),
    rule("/fleet.v1.FleetControl/Resume", Need::Verb(Verb::Run), RESOURCE),
    rule(
        "/fleet.v1.FleetControl/CreateRestore",
        Need::Verb(Verb::Restore),
        RESOURCE,
    ),
    rule(
        "/fleet.v1.FleetControl/ListOperations",
        Need::Verb(Verb::See),
        SEES,
    ),
    rule("/fleet.v1.FleetControl/GetOperation", Need::Verb(Verb::See), SEES),
    rule(
        "/fleet.v1.FleetControl/WatchOperation",
        Need::Verb(Verb::See),
        SEES,
    ),
    rule(
        "/fleet.v1.FleetControl/CancelOperation",
        Need::Verb(Verb::See),
        "the verb that the operation itself needs, for its resource",
    ),
    rule(
        "/fleet.v1.FleetControl/ListSnapshots",
        Need::Verb(Verb::Browse),
        SNAPSHOT,
    ),
    rule(
        "/fleet.v1.FleetControl/ListFolder",
        Need::Verb(Verb::Browse),
        SNAPSHOT,
    ),
    rule(
        "/fleet.v1.FleetControl/FindFiles",
        Need::Verb(Verb::Browse),
        SNAPSHOT,
    ),
    rule(
        "/fleet.v1.FleetControl/FetchFile",
        Need::Verb(Verb::Browse),
        SNAPSHOT,
    ),
    rule(
        "/fleet.v1.FleetView/ReleaseLock",
        Need::Verb(Verb::Run),
        "the holder",
    ),
    rule(
        "/fleet.v1.FleetView/DecidePlan",
        Need::Verb(Verb::Approve),
        "every snapshot that goes",
    ),
    rule(
        "/fleet.v1.FleetView/DecideBinding",
        Need::Verb(Verb::Enrol),
        "all of the cluster",
    ),
    rule(
        "/fleet.v1.FleetView/ForgetCluster",
        Need::Verb(Verb::Enrol),
        "all of the cluster",
    ),
    rule(
        "/fleet.v1.FleetView/AcceptCluster",
        Need::Verb(Verb::Enrol),
        "all of the cluster",
    ),
];

/// What an RPC needs; `None` for one that is not known.
#[must_use]
pub fn need(path: &str) -> Option<Need> {
    RULES.iter().find(|rule| rule.path == path).map(|rule| rule.need)
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
}
