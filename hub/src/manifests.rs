//! What the resources of a cluster are made again of, as its spoke reported them last: for a cluster that was lost. One whose
//! name another one has by now is kept for a while, and asked for by its uid.

use std::sync::Arc;

use prost::Message as _;
use proto::time::from_unix_millis;
use proto::v1::manifest_part::Body;
use proto::v1::{
    BackupHistory, BackupResult, Manifest, ManifestPart, ManifestsHead, ManifestsRequest, ObjectState,
    ReplacedCluster,
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use crate::access::{Person, Sight, Verb};
use crate::clean;
use crate::get;
use crate::hub::Hub;
use crate::inventory::{Held, Inventory, Member};
use crate::lock::people::unavailable;
use crate::parts::{end, pass};
use crate::seen::Seen;
use crate::store::replaced::{KEPT, Replaced};

/// Parts on their way to the reader, and states on their way from the store.
const BUFFER: usize = 16;

/// The parts of an answer.
pub type Parts = ReceiverStream<Result<ManifestPart, Status>>;

/// Whose resources an answer has.
enum Whose {
    /// What is held of the name.
    Present,
    Replaced(Replaced),
}

/// Begins an answer: the head, then each resource that the person sees.
///
/// # Errors
/// NotFound for a cluster that is not there or not seen, or whose uid is not known; Unavailable when the store fails.
pub async fn manifests(
    hub: &Arc<Hub>,
    person: Arc<Person>,
    request: &ManifestsRequest,
) -> Result<Parts, Status> {
    let (cluster, uid) = (&request.cluster, &request.reported_uid);
    let sight = person.sight(Verb::See);
    let inventory = hub.snapshot();
    let seen = Seen::new(&inventory, &sight);
    let missing = || {
        Status::not_found(format!(
            "there is no cluster {cluster:?}; `fleet clusters` lists them"
        ))
    };
    let member = inventory
        .member(cluster)
        .filter(|_| sight.reaches_cluster(cluster));
    let member = member.ok_or_else(missing)?;
    // One that is just being replaced is not written yet: what cannot be written may be missing in what is read.
    let is_written = hub.flush().await.is_ok();
    let mut replaced = replaced(hub, &inventory, &sight, member).await?;
    if !sight.takes_cluster(cluster) {
        replaced.retain(|(_, held)| !held.is_empty());
    }
    // One that has nothing yet of what the person sees may take the place of one that had.
    if seen.member(cluster).is_none() && replaced.is_empty() {
        return Err(missing());
    }
    let mut head = present(member, &sight);
    head.complete &= is_written;
    head.replaced = replaced.iter().map(|(of, held)| row(of, held.len())).collect();
    let (from, mut held) = if uid.is_empty() || *uid == head.reported_uid {
        let wanted = member.objects.values().filter(|held| is_wanted(held, seen));
        (Whose::Present, wanted.cloned().collect())
    } else {
        let found = replaced.into_iter().find(|(of, _)| of.cluster_uid == *uid);
        let (of, held) = found.ok_or_else(|| unknown(cluster, uid, &head))?;
        head.as_of = of.last_heard.map(from_unix_millis);
        head.complete = is_written && of.complete && sight.takes_cluster(cluster);
        head.reported_uid.clone_from(&of.cluster_uid);
        (Whose::Replaced(of), held)
    };
    // Repositories before what refers to them.
    held.sort_by_key(|held: &Arc<Held>| {
        (
            held.repository().is_none(),
            held.backup().is_none(),
            held.place.clone(),
        )
    });
    let (parts, stream) = mpsc::channel(BUFFER);
    let hub = hub.clone();
    tokio::spawn(async move {
        if let Err(status) = send(&hub, &person, &parts, head, &from, &held).await {
            end(&parts, status).await;
        }
    });
    Ok(ReceiverStream::new(stream))
}

/// The head for what is held of the name.
fn present(member: &Member, sight: &Sight) -> ManifestsHead {
    let origin = member.origin();
    // The one before is no less known for what the new one has not reported yet.
    let complete = match member.is_by_another() {
        true => origin.whole && member.unread().is_empty(),
        false => member.complete(),
    };
    ManifestsHead {
        as_of: origin.heard.map(from_unix_millis),
        cluster_uid: member.facts.cluster_uid.clone(),
        complete: complete && sight.takes_cluster(&member.name),
        reported_uid: origin.uid,
        replaced: Vec::new(),
    }
}

fn row(of: &Replaced, resources: usize) -> ReplacedCluster {
    ReplacedCluster {
        cluster_uid: of.cluster_uid.clone(),
        last_heard: of.last_heard.map(from_unix_millis),
        resources: resources as u64,
        kept_until: Some(from_unix_millis(of.at.saturating_add(KEPT))),
    }
}

fn unknown(cluster: &str, uid: &str, head: &ManifestsHead) -> Status {
    let replaced = head.replaced.iter().map(|one| one.cluster_uid.as_str());
    let known = std::iter::once(head.reported_uid.as_str()).chain(replaced);
    let known: Vec<&str> = known.filter(|uid| !uid.is_empty()).collect();
    Status::not_found(format!(
        "the hub has nothing of a cluster {cluster} with uid {uid}; it has what was reported by: {}",
        known.join(", ")
    ))
}

/// Clusters that had the name of one before it, with their resources that the person sees.
async fn replaced(
    hub: &Hub,
    inventory: &Inventory,
    sight: &Sight,
    member: &Member,
) -> Result<Vec<(Replaced, Vec<Arc<Held>>)>, Status> {
    let all = hub.store().replaced(&member.name).await;
    let all = all.map_err(|error| unavailable(&error))?;
    let kept = all
        .into_iter()
        .filter(|of| of.at.saturating_add(KEPT) > crate::now());
    let mut found = Vec::new();
    for of in kept {
        let (into, mut states) = mpsc::channel::<(String, Vec<u8>)>(BUFFER);
        let held = async {
            let mut held = Vec::new();
            while let Some((uid, state)) = states.recv().await {
                held.push(Arc::new(inventory.of_replaced(&member.name, &uid, &state)));
            }
            held
        };
        let (read, mut held) = tokio::join!(hub.store().replaced_states(&of, into), held);
        read.map_err(|error| unavailable(&error))?;
        held.retain(|held| is_wanted(held, Seen::new(inventory, sight)));
        found.push((of, held));
    }
    Ok(found)
}

async fn send(
    hub: &Hub,
    person: &Person,
    parts: &mpsc::Sender<Result<ManifestPart, Status>>,
    head: ManifestsHead,
    from: &Whose,
    held: &[Arc<Held>],
) -> Result<(), Status> {
    let mut body = Body::Head(head);
    let mut rest = held.iter();
    loop {
        if !pass(hub, person, parts, ManifestPart { body: Some(body) }).await? {
            return Ok(());
        }
        let Some(held) = rest.next() else {
            return Ok(());
        };
        body = Body::Manifest(manifest(hub, from, held).await?);
    }
}

async fn manifest(hub: &Hub, from: &Whose, held: &Held) -> Result<Manifest, Status> {
    let state = match from {
        Whose::Present => get::state(hub, held).await?,
        Whose::Replaced(of) => {
            let state = hub.store().replaced_state(of, &held.uid).await;
            let state = state.map_err(|error| unavailable(&error))?;
            let state = state.and_then(|state| ObjectState::decode(state.as_slice()).ok());
            state.map(|mut state| {
                clean::object(&mut state);
                state
            })
        }
    };
    let restic_id = held.repository().map(|repository| repository.restic_id.clone());
    let (manifest, owner) = state
        .map(|state| (state.manifest, state.owner))
        .unwrap_or_default();
    Ok(Manifest {
        kind: kind(held).unwrap_or_default().to_owned(),
        namespace: held.namespace().to_owned(),
        name: held.name().to_owned(),
        manifest,
        restic_id: restic_id.unwrap_or_default(),
        history: history(held),
        owner,
    })
}

/// What is known of the snapshots of a backup.
fn history(held: &Held) -> Option<BackupHistory> {
    let backup = held.backup()?;
    let partial = |result| result == BackupResult::PartiallyFailed;
    Some(BackupHistory {
        last_success: backup.last_success().map(from_unix_millis),
        partial: backup.last_run().is_some_and(|run| partial(run.result())),
    })
}

/// Whether a resource is made again, and seen.
fn is_wanted(held: &Held, seen: Seen<'_>) -> bool {
    // No resource of ours makes repositories and backups: a spoke of an earlier version calls those of any owner generated.
    let comes_back = held.policy().is_some() && held.object().is_some_and(|state| state.generated);
    kind(held).is_some() && !comes_back && seen.held(held)
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
