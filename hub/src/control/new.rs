//! A new command, checked against what the hub knows.

use prost::Message as _;
use proto::v1::{CommandBody, CommandOptions};
use tonic::Status;

use crate::access::{self, Person, Verb};
use crate::authority;
use crate::commands::{self, About, Record};
use crate::hub::Hub;
use crate::seen::repository_of;
use crate::{Millis, now};

/// How long a command may wait to begin unless it says so.
const BEGIN_WITHIN: Millis = 3_600_000;
/// The longest such time: a spoke remembers for that long what it has done.
const BEGIN_WITHIN_MAX: Millis = 24 * 3_600_000;
/// Longest id that a client may choose.
const REQUEST_ID_MAX: usize = 128;
/// Largest encoded command.
const BODY_MAX: usize = 32 << 10;

/// A command that is taken in.
///
/// # Errors
/// What is wrong with it, or that the person may not ask for it.
pub(super) fn record(
    hub: &Hub,
    person: &Person,
    verb: Verb,
    options: &CommandOptions,
    body: CommandBody,
) -> Result<Record, Status> {
    let who = &*person.name;
    let about = commands::about(&body)
        .ok_or_else(|| Status::invalid_argument("name the resource: cluster, namespace and name"))?;
    let cluster = options.cluster.as_str();
    let (restic_id, repository) = repository(hub, person, verb, cluster, &about)?;
    let within = within(options.begin_within_ms)?;
    let request = options.request_id.as_str();
    if request.len() > REQUEST_ID_MAX {
        return Err(Status::invalid_argument("a request id has 128 bytes at most"));
    }
    let encoded = body.encode_to_vec();
    if encoded.len() > BODY_MAX {
        return Err(Status::invalid_argument(
            "the command is too large: name fewer paths",
        ));
    }
    let created = now();
    Ok(Record {
        id: commands::id(created, random()?),
        cluster: cluster.to_owned(),
        what: about.what.to_owned(),
        subject: subject(&about),
        who: who.to_owned(),
        request: (!request.is_empty()).then(|| format!("{who} {request}")),
        created,
        expires: created.saturating_add(within),
        changed: created,
        body: encoded,
        restic_id,
        repository,
        ..Record::default()
    })
}

/// Repository of the resource that a command names: its restic id, and the name of its ResticRepository; empty where the hub
/// does not know the resource yet.
fn repository(
    hub: &Hub,
    person: &Person,
    verb: Verb,
    cluster: &str,
    about: &About<'_>,
) -> Result<(String, String), Status> {
    let (known, found, whole) = hub.read(|inventory| {
        let member = inventory.member(cluster);
        let found = commands::find(inventory, cluster, about).map(|held| {
            let (id, name) = repository_of(held);
            (id.to_owned(), name.to_owned())
        });
        let whole = member.is_some_and(|member| member.complete());
        (member.is_some(), found, whole)
    });
    let names = found.as_ref().map(|(id, name)| [id.as_str(), name.as_str()]);
    let names = names.as_ref().map_or(&[][..], |names| &names[..]);
    let subject = subject(about);
    if !person.sight(verb).takes(cluster, &about.name.namespace, names) {
        let what = format!("{cluster}/{subject}");
        return Err(access::out_of_scope(person, verb, &what));
    }
    if !known {
        return Err(Status::not_found(format!(
            "there is no cluster {cluster:?}; `fleet clusters` lists them"
        )));
    }
    // What the hub does not know may have been made a moment ago only where its picture has gaps.
    if found.is_none() && whole {
        return Err(Status::not_found(format!(
            "cluster {cluster} has no {} {subject}",
            about.kind.as_str()
        )));
    }
    Ok(found.unwrap_or_default())
}

fn subject(about: &About<'_>) -> String {
    format!("{}/{}", about.name.namespace, about.name.name)
}

fn within(asked: u64) -> Result<Millis, Status> {
    match Millis::try_from(asked).unwrap_or(Millis::MAX) {
        0 => Ok(BEGIN_WITHIN),
        within if within <= BEGIN_WITHIN_MAX => Ok(within),
        _ => Err(Status::invalid_argument(
            "an operation waits for 24 hours at most to begin",
        )),
    }
}

/// Which snapshots are the backup's only its cluster knows: a right in a scope is one to restore the latest of them.
pub(super) fn within_backup(person: &Person, verb: Verb, body: &CommandBody) -> Result<(), Status> {
    if !commands::names_snapshot(body) || person.sight(verb).is_everything() {
        return Ok(());
    }
    Err(Status::permission_denied(format!(
        "a snapshot by its id may be one of another backup: leave the snapshot out, and the latest of the backup is \
         restored, or have the right {verb} over the whole fleet"
    )))
}

fn random() -> Result<u32, Status> {
    let bytes = authority::random().map_err(|error| Status::internal(error.to_string()))?;
    Ok(u32::from_be_bytes(bytes))
}
