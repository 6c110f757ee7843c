//! Who may do what. [`table`] lists every RPC with what it needs; [`layer`] stands before all of them, has [`authority`]
//! recognise the sender, and puts a [`Principal`] into the request. A handler takes it out with [`person`] or [`spoke`],
//! and what it reads or decides takes a [`Sight`]: the part of the fleet in which a [`Verb`] holds.
//!
//! A new RPC needs a line in [`table::RULES`]; without one it is refused.

pub mod authority;
pub mod layer;
pub mod people;
mod principal;
pub mod refusals;
pub mod scope;
pub mod table;
mod verb;

use std::sync::Arc;

use tonic::{Request, Status};

pub use authority::{Authority, allowed};
pub use layer::AccessLayer;
pub use principal::{Grant, Method, Person, Principal, Sight};
pub use table::Need;
pub use verb::{NoVerb, Role, Verb, Verbs};

fn principal<T>(request: &Request<T>) -> Result<&Principal, Status> {
    let principal = request.extensions().get::<Principal>();
    principal.ok_or_else(|| Status::internal("the hub did not check who sends this request"))
}

/// The person that sends a request.
///
/// # Errors
/// PermissionDenied for anyone else.
pub fn person<T>(request: &Request<T>) -> Result<Arc<Person>, Status> {
    match principal(request)? {
        Principal::Person(person) => Ok(person.clone()),
        other => Err(refused(other, Need::Person)),
    }
}

/// The cluster whose spoke sends a request.
///
/// # Errors
/// PermissionDenied for anyone else.
pub fn spoke<T>(request: &Request<T>) -> Result<Arc<str>, Status> {
    match principal(request)? {
        Principal::Spoke { cluster } => Ok(cluster.clone()),
        other => Err(refused(other, Need::Spoke)),
    }
}

fn refused(principal: &Principal, need: Need) -> Status {
    let refused = allowed(principal, need).err();
    refused.unwrap_or_else(|| Status::permission_denied("this request is not open to its sender"))
}

/// A refusal because of a scope. It does not say whether the thing exists.
#[must_use]
pub fn out_of_scope(person: &Person, verb: Verb, what: &str) -> Status {
    Status::permission_denied(format!(
        "{} may not {verb} {what}: it is not all in the scope of that right; `fleet whoami` shows it",
        person.name
    ))
}
