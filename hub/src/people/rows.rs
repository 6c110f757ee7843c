//! Rights of people: what a request says of them, and how they are shown and stand in the audit.

use proto::time::from_unix_millis;
use proto::v1::PersonSession;
use tonic::Status;

use crate::access::people::{RoleBinding, Session, Subject, is_name};
use crate::access::scope::{Patterns, Scope};

pub(super) fn listed(list: &[String]) -> String {
    if list.is_empty() {
        "-".to_owned()
    } else {
        list.join(",")
    }
}

pub(super) fn named(what: &str, name: &str) -> Result<(), Status> {
    if is_name(name) {
        Ok(())
    } else {
        Err(Status::invalid_argument(format!(
            "the {what} {name:?} must be 1 to 253 visible ASCII characters without a comma"
        )))
    }
}

pub(super) fn subject(user: String, group: String) -> Result<Subject, Status> {
    let subject = match (user.as_str(), group.as_str()) {
        ("", "") => return Err(Status::invalid_argument("name a user or a group")),
        (_, "") => Subject::User(user),
        ("", _) => Subject::Group(group),
        _ => return Err(Status::invalid_argument("name a user or a group, not both")),
    };
    let (what, name) = subject.parts();
    named(what, name)?;
    Ok(subject)
}

pub(super) fn scope(scope: Option<proto::v1::Scope>) -> Result<Scope, Status> {
    let scope = scope.unwrap_or_default();
    let patterns =
        |list: &[String]| Patterns::new(list).map_err(|error| Status::invalid_argument(error.to_string()));
    Ok(Scope {
        clusters: patterns(&scope.clusters)?,
        namespaces: patterns(&scope.namespaces)?,
        repositories: patterns(&scope.repositories)?,
    })
}

pub(super) fn wire(scope: &Scope) -> proto::v1::Scope {
    proto::v1::Scope {
        clusters: scope.clusters.as_slice().to_vec(),
        namespaces: scope.namespaces.as_slice().to_vec(),
        repositories: scope.repositories.as_slice().to_vec(),
    }
}

/// Rights as the audit has them.
pub(super) fn described(rights: &str, scope: &Scope) -> String {
    let lists = [
        ("clusters", &scope.clusters),
        ("namespaces", &scope.namespaces),
        ("repositories", &scope.repositories),
    ];
    let narrowed = lists.iter().filter(|(_, patterns)| !patterns.is_everything());
    let parts: Vec<String> = narrowed
        .map(|(what, patterns)| format!("{what} {}", listed(patterns.as_slice())))
        .collect();
    if parts.is_empty() {
        format!("{rights} everywhere")
    } else {
        format!("{rights} in {}", parts.join("; "))
    }
}

pub(super) fn binding_row(binding: &RoleBinding) -> proto::v1::RoleBinding {
    let (user, group) = match &binding.subject {
        Subject::User(name) => (name.clone(), String::new()),
        Subject::Group(name) => (String::new(), name.clone()),
    };
    proto::v1::RoleBinding {
        id: binding.id,
        user,
        group,
        rights: binding.rights.clone(),
        scope: Some(wire(&binding.scope)),
        created: Some(from_unix_millis(binding.created)),
        created_by: binding.created_by.clone(),
    }
}

pub(super) fn session_row(session: &Session) -> PersonSession {
    PersonSession {
        name: session.name.clone(),
        groups: session.groups.clone(),
        method: session.how.clone(),
        created: Some(from_unix_millis(session.created)),
        expires: Some(from_unix_millis(session.expires)),
    }
}
