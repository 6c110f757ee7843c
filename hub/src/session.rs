//! What a spoke's messages mean. Pure: a message in, a change of the inventory and an answer out.
//!
//! Parts are kept aside and become one change with the last of them, so that the inventory is never half a state.

use std::collections::HashMap;

use prost::bytes::{Bytes, BytesMut};
use proto::digest::Digest;
use proto::v1::spoke_message::Body;
use proto::v1::{Hello, ObjectUpdate, Tombstone};

use crate::Millis;

/// Two requests for the whole inventory are at least this far apart: a spoke that never agrees must not be a load.
const RESYNC_PAUSE: Millis = 30_000;
/// As people read it; a test keeps it true.
const SPOKEN: &str = "2 to 2";
/// What a uid costs besides its bytes.
const OVERHEAD: usize = 64;

/// One session with one spoke.
#[derive(Debug)]
pub struct Session {
    /// Most bytes that are kept aside.
    limit: usize,
    arriving: Option<Arriving>,
    /// The spoke and the hub began with the same inventory, or a whole one has arrived.
    complete: bool,
    asked: Option<Millis>,
}

/// Parts that are kept aside.
#[derive(Debug, Default)]
struct Arriving {
    whole: bool,
    updates: HashMap<String, Bytes>,
    gone: Vec<String>,
    bytes: usize,
}

/// States that are applied together.
#[derive(Debug, Default, PartialEq)]
pub struct Update {
    /// uid and state as the spoke encoded it.
    pub states: Vec<(String, Bytes)>,
    /// uids.
    pub gone: Vec<String>,
    /// Nothing else exists.
    pub whole: bool,
}

/// What a message asks of the hub.
#[derive(Debug, Default, PartialEq)]
pub struct Effect {
    pub update: Option<Update>,
    /// What is held is not what the spoke has.
    pub doubt: bool,
    /// Ask for the whole inventory, and why.
    pub resync: Option<&'static str>,
}

/// What ends a session.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum Broken {
    #[error("this hub speaks protocol versions {ours}, the spoke {0} to {1}; update the older of the two", ours = SPOKEN)]
    Protocol(u32, u32),
    #[error("the first message must be a Hello, and only the first")]
    Hello,
    #[error("the cluster reports more than {0} bytes; raise --max-bytes of the hub")]
    TooLarge(usize),
}

/// The protocol version of a session.
///
/// # Errors
/// When there is none in common.
pub fn agree(hello: &Hello) -> Result<u32, Broken> {
    let version = hello.protocol_max.min(proto::PROTOCOL_MAX);
    if version < hello.protocol_min.max(proto::PROTOCOL_MIN) {
        return Err(Broken::Protocol(hello.protocol_min, hello.protocol_max));
    }
    Ok(version)
}

impl Session {
    /// A session after its Hello. `up_to_date` when the Hello agreed with what is held; `limit` in bytes of the resources of one
    /// inventory. Their manifests, which it does not tell from them, may be as much again.
    #[must_use]
    pub fn new(up_to_date: bool, limit: usize) -> Session {
        Session {
            limit,
            arriving: None,
            complete: up_to_date,
            asked: None,
        }
    }

    /// Takes a message after the Hello. `held` is what the hub holds of the cluster: number and digest.
    ///
    /// # Errors
    /// When the message breaks the protocol or a bound.
    pub fn take(&mut self, body: Option<Body>, held: (u64, Digest), now: Millis) -> Result<Effect, Broken> {
        Ok(match body {
            Some(Body::Hello(_)) => return Err(Broken::Hello),
            Some(Body::Inventory(part)) => {
                if part.first {
                    self.arriving = Some(Arriving {
                        whole: true,
                        ..Arriving::default()
                    });
                }
                if !self.arriving.as_ref().is_some_and(|arriving| arriving.whole) {
                    return Ok(self.lost("an inventory arrived without its beginning", now));
                }
                self.part(part.updates, Vec::new(), part.last)?
            }
            Some(Body::Delta(_)) if !self.complete => self.lost("a change arrived before the inventory", now),
            Some(Body::Delta(delta)) => {
                if self.arriving.get_or_insert_default().whole {
                    return Ok(self.lost("a change arrived in the middle of an inventory", now));
                }
                self.part(delta.updates, delta.gone, !delta.more)?
            }
            Some(Body::Heartbeat(beat)) => {
                let agrees = beat.objects == held.0 && beat.digest == held.1.to_bytes();
                if self.complete && self.arriving.is_none() && !agrees {
                    self.lost("hub and spoke hold different inventories", now)
                } else {
                    Effect::default()
                }
            }
            // A message of a newer spoke, or one that is not about the inventory.
            None
            | Some(
                Body::CreationRequest(_)
                | Body::CreationDone(_)
                | Body::LeaseAsk(_)
                | Body::LeaseWithdraw(_)
                | Body::LeaseRenew(_)
                | Body::LeaseRelease(_)
                | Body::PossessionProof(_)
                | Body::PlanPart(_)
                | Body::CollectorReport(_)
                | Body::CertificateRequest(_)
                | Body::CertificateStored(_)
                | Body::TrustStored(_)
                | Body::CommandReport(_)
                | Body::BrowsePart(_)
                | Body::ClaimsReport(_)
                | Body::StoreProbeAnswer(_),
            ) => Effect::default(),
        })
    }

    /// Takes a part in; the last one makes them a change.
    fn part(
        &mut self,
        updates: Vec<ObjectUpdate>,
        gone: Vec<Tombstone>,
        last: bool,
    ) -> Result<Effect, Broken> {
        let arriving = self.arriving.get_or_insert_default();
        for tombstone in gone {
            arriving.bytes += tombstone.uid.len() + OVERHEAD;
            arriving.updates.remove(&tombstone.uid);
            arriving.gone.push(tombstone.uid);
        }
        for (uid, state) in packed(updates) {
            arriving.bytes += uid.len() + state.len() + OVERHEAD;
            arriving.updates.insert(uid, state);
        }
        if arriving.bytes > self.limit.saturating_mul(2) {
            self.arriving = None;
            self.complete = false;
            return Err(Broken::TooLarge(self.limit));
        }
        if !last {
            return Ok(Effect::default());
        }
        let Arriving {
            whole, updates, gone, ..
        } = self.arriving.take().unwrap_or_default();
        self.complete |= whole;
        Ok(Effect {
            update: Some(Update {
                states: updates.into_iter().collect(),
                gone,
                whole,
            }),
            ..Effect::default()
        })
    }

    /// Something did not arrive: what is held is in doubt until a whole inventory has come.
    fn lost(&mut self, reason: &'static str, now: Millis) -> Effect {
        self.arriving = None;
        let again = self
            .asked
            .is_some_and(|asked| now.saturating_sub(asked) < RESYNC_PAUSE);
        if !again {
            self.asked = Some(now);
        }
        Effect {
            doubt: true,
            resync: (!again).then_some(reason),
            ..Effect::default()
        }
    }
}

/// The states of one message in one piece of memory. They live until they are written, and what is held of them much longer:
/// in pieces of their own they would lie between what is held, and leave holes there that nothing fills.
fn packed(updates: Vec<ObjectUpdate>) -> impl Iterator<Item = (String, Bytes)> {
    let length = updates.iter().map(|update| update.state.len()).sum();
    let mut pack = BytesMut::with_capacity(length);
    for update in &updates {
        pack.extend_from_slice(&update.state);
    }
    let mut pack = pack.freeze();
    let one = move |update: ObjectUpdate| (update.uid, pack.split_to(update.state.len()));
    updates.into_iter().map(one)
}

#[cfg(test)]
#[path = "session_tests.rs"]
mod tests;
