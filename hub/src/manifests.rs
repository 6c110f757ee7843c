//! What the resources of a cluster are made again of, as its spoke reported them last: for a cluster that was lost.

use std::sync::Arc;

use proto::time::from_unix_millis;
use proto::v1::manifest_part::Body;
use proto::v1::{Manifest, ManifestPart, ManifestsHead};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use crate::access::{Person, Verb};
use crate::get;
use crate::hub::Hub;
use crate::inventory::Held;
use crate::parts::{end, pass};
use crate::seen::Seen;

/// Parts on their way to the reader.
const BUFFER: usize = 16;

/// The parts of an answer.
pub type Parts = ReceiverStream<Result<ManifestPart, Status>>;

/// Begins an answer: the head, then each resource that the person sees.
///
/// # Errors
/// NotFound for a cluster that is not there or not seen.
pub fn manifests(hub: &Arc<Hub>, person: Arc<Person>, cluster: &str) -> Result<Parts, Status> {
    let sight = person.sight(Verb::See);
    let inventory = hub.snapshot();
    let seen = Seen::new(&inventory, &sight);
    let member = seen.member(cluster).ok_or_else(|| {
        Status::not_found(format!(
            "there is no cluster {cluster:?}; `fleet clusters` lists them"
        ))
    })?;
    let head = ManifestsHead {
        as_of: member.fresh().last_heard.map(from_unix_millis),
        cluster_uid: member.facts.cluster_uid.clone(),
        complete: member.complete() && sight.takes_cluster(cluster),
    };
    let wanted = member.objects.values();
    let wanted = wanted.filter(|held| kind(held).is_some() && seen.held(held));
    let mut held: Vec<Arc<Held>> = wanted.cloned().collect();
    // Repositories before what refers to them.
    held.sort_by_key(|held| {
        (
            held.repository().is_none(),
            held.backup().is_none(),
            held.place.clone(),
        )
    });
    let (parts, stream) = mpsc::channel(BUFFER);
    let hub = hub.clone();
    tokio::spawn(async move {
        if let Err(status) = send(&hub, &person, &parts, head, &held).await {
            end(&parts, status).await;
        }
    });
    Ok(ReceiverStream::new(stream))
}

async fn send(
    hub: &Hub,
    person: &Person,
    parts: &mpsc::Sender<Result<ManifestPart, Status>>,
    head: ManifestsHead,
    held: &[Arc<Held>],
) -> Result<(), Status> {
    let mut body = Body::Head(head);
    let mut rest = held.iter();
    loop {
        if !pass(hub, person, parts, ManifestPart { body: Some(body) }).await? {
            return Ok(());
        }
        body = loop {
            let Some(held) = rest.next() else {
                return Ok(());
            };
            if let Some(manifest) = manifest(hub, held).await? {
                break Body::Manifest(manifest);
            }
        };
    }
}

/// A resource; `None` for one that comes back with another.
async fn manifest(hub: &Hub, held: &Held) -> Result<Option<Manifest>, Status> {
    let state = get::state(hub, held).await?;
    if state.as_ref().is_some_and(|state| state.generated) {
        return Ok(None);
    }
    let restic_id = held.repository().map(|repository| repository.restic_id.clone());
    Ok(Some(Manifest {
        kind: kind(held).unwrap_or_default().to_owned(),
        namespace: held.namespace().to_owned(),
        name: held.name().to_owned(),
        manifest: state.map(|state| state.manifest).unwrap_or_default(),
        restic_id: restic_id.unwrap_or_default(),
    }))
}

/// Of what is made again.
fn kind(held: &Held) -> Option<&'static str> {
    match () {
        () if held.repository().is_some() => Some("ResticRepository"),
        () if held.backup().is_some() => Some("ResticBackup"),
        () if held.policy().is_some() => Some("GlobalRetentionPolicy"),
        () => None,
    }
}
