//! What one session sends about the resources of the cluster. Pure but for the caches and the outbox that it is given.
//!
//! The hub's copy is a view of the caches: an inventory converts all of them at one moment, and a change converts what was
//! marked since. Messages are queued in parts of bounded size, so that others may be sent between two parts.

use std::collections::{BTreeSet, HashMap, VecDeque};

use prost::Message as _;
use proto::digest::{Digest, ObjectHash, object_hash};
use proto::v1::{
    ClaimsReport, Delta, Heartbeat, Inventory, ObjectState, ObjectUpdate, SpokeMessage, Tombstone,
    spoke_message::Body,
};

use super::convert;
use crate::exchange::outbox::{Changes, Kind, Outbox, Place};
use crate::world::World;

/// Bytes of one part. On a line of 1 Mbit/s a lease message waits half a second for it.
const PART: usize = 64 << 10;

/// One connection's worth of state.
pub struct Session {
    /// uid and hash of what the hub holds after all that was queued.
    sent: HashMap<Place, (String, ObjectHash)>,
    digest: Digest,
    queue: VecDeque<Body>,
    encode: fn(&ObjectState) -> Vec<u8>,
}

impl Default for Session {
    fn default() -> Session {
        Session::encoding(convert::encode)
    }
}

impl Session {
    /// A session that encodes states in its own way, as a spoke of another version does.
    #[must_use]
    pub fn encoding(encode: fn(&ObjectState) -> Vec<u8>) -> Session {
        Session {
            sent: HashMap::new(),
            digest: Digest::default(),
            queue: VecDeque::new(),
            encode,
        }
    }

    /// Digest and number of all resources as of now, for Hello. If the hub holds the same, changes since are all that has to
    /// be sent.
    pub fn hello(&mut self, world: &World, outbox: &Outbox) -> (Vec<u8>, u64) {
        self.snapshot(world, outbox);
        (self.digest.to_bytes(), self.sent.len() as u64)
    }

    /// Queues the whole inventory as of now. Takes the place of all that was queued.
    pub fn inventory(&mut self, world: &World, outbox: &Outbox) {
        // Claims are no part of it.
        self.queue.retain(|body| matches!(body, Body::ClaimsReport(_)));
        let updates = self.snapshot(world, outbox);
        let mut parts = vec![Inventory {
            first: true,
            ..Inventory::default()
        }];
        let mut size = 0;
        for update in updates {
            let length = update.encoded_len();
            if size > 0 && size + length > PART {
                parts.push(Inventory::default());
                size = 0;
            }
            size += length;
            if let Some(part) = parts.last_mut() {
                part.updates.push(update);
            }
        }
        // Marked also when there is nothing to report: an empty inventory is a whole one.
        if let Some(part) = parts.last_mut() {
            part.last = true;
        }
        self.queue.extend(parts.into_iter().map(Body::Inventory));
    }

    /// Queues what has changed. Nothing while an earlier message is still in parts: the marks wait, and coalesce.
    pub fn changes(&mut self, world: &World, outbox: &Outbox) {
        if self.is_busy() {
            return;
        }
        let mut deltas = vec![Delta::default()];
        let mut size = 0;
        for place in marked(world, outbox.take()) {
            let (gone, update) = self.compare(world, outbox, place);
            let length =
                update.as_ref().map_or(0, |u| u.encoded_len()) + gone.as_ref().map_or(0, String::len);
            if size > 0 && size + length > PART {
                deltas.push(Delta::default());
                size = 0;
            }
            size += length;
            if let Some(delta) = deltas.last_mut() {
                delta.gone.extend(gone.map(|uid| Tombstone { uid }));
                delta.updates.extend(update);
            }
        }
        let last = deltas.len() - 1;
        for (n, delta) in deltas.iter_mut().enumerate() {
            delta.more = n < last;
        }
        deltas.retain(|delta| *delta != Delta::default());
        self.queue.extend(deltas.into_iter().map(Body::Delta));
    }

    /// Queues the claims of the cluster.
    pub fn claims(&mut self, claims: ClaimsReport) {
        self.queue.push_back(Body::ClaimsReport(claims));
    }

    /// The next part of what is queued.
    pub fn next_part(&mut self) -> Option<SpokeMessage> {
        let body = self.queue.pop_front()?;
        Some(SpokeMessage { body: Some(body) })
    }

    /// Whether parts are queued.
    #[must_use]
    pub fn is_busy(&self) -> bool {
        !self.queue.is_empty()
    }

    /// Queues what the hub should hold after all that was queued, unless something is on its way.
    pub fn beat(&mut self) {
        if !self.is_busy() {
            self.queue.push_back(Body::Heartbeat(Heartbeat {
                digest: self.digest.to_bytes(),
                objects: self.sent.len() as u64,
            }));
        }
    }

    fn snapshot(&mut self, world: &World, outbox: &Outbox) -> Vec<ObjectUpdate> {
        // First: what changes while the caches are read is marked for the next message.
        outbox.take();
        self.sent.clear();
        self.digest = Digest::default();
        let places = everything(world).into_iter();
        places
            .filter_map(|place| self.compare(world, outbox, place).1)
            .collect()
    }

    /// What has to be sent about a place: the uid of what is no longer there, and the present state if it differs.
    fn compare(
        &mut self,
        world: &World,
        outbox: &Outbox,
        place: Place,
    ) -> (Option<String>, Option<ObjectUpdate>) {
        let present = convert::state(world, outbox, &place).map(|state| ObjectUpdate {
            state: (self.encode)(&state),
            uid: state.uid,
        });
        let hash = present
            .as_ref()
            .map(|update| object_hash(&update.uid, &update.state));
        let old = self.sent.remove(&place);
        if let Some((_, old)) = &old {
            self.digest.remove(old);
        }
        let gone = old.as_ref().map(|(uid, _)| uid);
        let gone = gone
            .filter(|uid| present.as_ref().is_none_or(|update| update.uid != **uid))
            .cloned();
        let (Some(update), Some(hash)) = (present, hash) else {
            return (gone, None);
        };
        self.digest.add(&hash);
        let known = old.is_some_and(|(uid, old)| uid == update.uid && old == hash);
        self.sent.insert(place, (update.uid.clone(), hash));
        (gone, (!known).then_some(update))
    }
}

fn everything(world: &World) -> BTreeSet<Place> {
    let of = |kind: Kind, keys: Vec<_>| keys.into_iter().map(move |key| (kind, key));
    let all = |keys: BTreeSet<_>| keys.into_iter().collect();
    of(Kind::Repository, all(world.repositories.all_keys()))
        .chain(of(Kind::Backup, all(world.backups.all_keys())))
        .chain(of(Kind::Policy, all(world.policies.all_keys())))
        .chain(of(Kind::Restore, world.restores.keys()))
        .collect()
}

/// Marked places, and those whose state is looked up through a marked one.
fn marked(world: &World, changes: Changes) -> BTreeSet<Place> {
    let Changes {
        dirty,
        rebound,
        restores,
    } = changes;
    let mut places: BTreeSet<Place> = dirty.into_iter().collect();
    for repository in &rebound {
        let backups = world.backups.group(repository).into_iter();
        places.extend(backups.map(|(key, _)| (Kind::Backup, key)));
    }
    if !rebound.is_empty() {
        // Few, and rarely.
        let policies = world.policies.all_keys().into_iter();
        places.extend(policies.map(|key| (Kind::Policy, key)));
    }
    if restores || !rebound.is_empty() {
        places.extend(world.restores.keys().into_iter().map(|key| (Kind::Restore, key)));
    }
    places
}

#[cfg(test)]
#[path = "session_tests.rs"]
mod tests;
