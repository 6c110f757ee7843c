//! What a spoke's messages mean. Pure: a message in, a change of the inventory and an answer out.

use std::collections::HashSet;

use proto::digest::Digest;
use proto::v1::spoke_message::Body;
use proto::v1::{Hello, ObjectState};

use crate::Millis;

/// Two askings for the whole inventory are at least this far apart: a spoke that never agrees must not be a load.
const RESYNC_PAUSE: Millis = 30_000;
/// As people read it; a test keeps it true.
const SPOKEN: &str = "1 to 1";

/// One session with one spoke.
#[derive(Debug, Default)]
pub struct Session {
    /// uids of an inventory that is arriving.
    arriving: Option<HashSet<String>>,
    /// A whole inventory has arrived.
    complete: bool,
    asked: Option<Millis>,
}

/// What a message asks of the hub.
#[derive(Debug, Default, PartialEq)]
pub struct Effect {
    pub upserts: Vec<ObjectState>,
    /// uids.
    pub gone: Vec<String>,
    /// The inventory is complete: only these uids exist.
    pub only: Option<HashSet<String>>,
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
}

/// The protocol version to speak.
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
    /// Whether the spoke has told everything.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.complete
    }

    /// Takes a message after the Hello. `held` is what the hub holds of the cluster: number and digest.
    ///
    /// # Errors
    /// When the message breaks the protocol.
    pub fn take(&mut self, body: Option<Body>, held: (u64, Digest), now: Millis) -> Result<Effect, Broken> {
        Ok(match body {
            Some(Body::Hello(_)) => return Err(Broken::Hello),
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
                | Body::PlanPart(_),
            ) => Effect::default(),
            Some(Body::Inventory(part)) => {
                if part.first {
                    self.arriving = Some(HashSet::new());
                }
                let Some(arriving) = &mut self.arriving else {
                    return Ok(self.ask("an inventory arrived without its beginning", now));
                };
                arriving.extend(part.objects.iter().map(|object| object.uid.clone()));
                let mut effect = Effect {
                    upserts: part.objects,
                    ..Effect::default()
                };
                if part.last {
                    effect.only = self.arriving.take();
                    self.complete = true;
                }
                effect
            }
            Some(Body::Delta(_)) if !self.complete => self.ask("a change arrived before the inventory", now),
            Some(Body::Delta(delta)) => {
                let gone = delta.gone.into_iter().map(|tombstone| tombstone.uid).collect();
                Effect {
                    upserts: delta.objects,
                    gone,
                    ..Effect::default()
                }
            }
            Some(Body::Heartbeat(beat)) => {
                let agrees = beat.objects == held.0 && beat.digest == held.1.to_bytes();
                if self.complete && !agrees {
                    self.ask("hub and spoke hold different inventories", now)
                } else {
                    Effect::default()
                }
            }
        })
    }

    fn ask(&mut self, reason: &'static str, now: Millis) -> Effect {
        let again = self
            .asked
            .is_some_and(|asked| now.saturating_sub(asked) < RESYNC_PAUSE);
        if again {
            return Effect::default();
        }
        self.asked = Some(now);
        Effect {
            resync: Some(reason),
            ..Effect::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use proto::v1::{Delta, Heartbeat, Inventory, Tombstone};

    use super::*;

    fn object(uid: &str) -> ObjectState {
        ObjectState {
            uid: uid.to_owned(),
            ..ObjectState::default()
        }
    }

    fn part(uids: &[&str], first: bool, last: bool) -> Option<Body> {
        Some(Body::Inventory(Inventory {
            objects: uids.iter().map(|u| object(u)).collect(),
            first,
            last,
            ..Default::default()
        }))
    }

    fn nothing() -> (u64, Digest) {
        (0, Digest::default())
    }

    #[test]
    fn only_a_complete_inventory_deletes() {
        let mut session = Session::default();
        let effect = session.take(part(&["a"], true, false), nothing(), 0).unwrap();
        assert!(effect.only.is_none() && !session.is_complete());
        let effect = session.take(part(&["b"], false, true), nothing(), 0).unwrap();
        assert_eq!(effect.only.unwrap().len(), 2);
        assert!(session.is_complete());
    }

    #[test]
    fn a_new_beginning_forgets_the_half_that_came_before() {
        let mut session = Session::default();
        session.take(part(&["a"], true, false), nothing(), 0).unwrap();
        let effect = session.take(part(&["b"], true, true), nothing(), 0).unwrap();
        assert_eq!(effect.only.unwrap(), HashSet::from(["b".to_owned()]));
    }

    #[test]
    fn what_comes_out_of_order_asks_for_everything() {
        let mut session = Session::default();
        let delta = || {
            Some(Body::Delta(Delta {
                objects: vec![object("a")],
                gone: vec![Tombstone { uid: "b".into() }],
                ..Default::default()
            }))
        };
        assert!(session.take(delta(), nothing(), 0).unwrap().resync.is_some());
        assert_eq!(
            session.take(delta(), nothing(), 1).unwrap(),
            Effect::default(),
            "asked already"
        );
        assert!(
            session
                .take(part(&[], false, true), nothing(), RESYNC_PAUSE)
                .unwrap()
                .resync
                .is_some()
        );
        session.take(part(&[], true, true), nothing(), 0).unwrap();
        assert_eq!(session.take(delta(), nothing(), 0).unwrap().gone, ["b"]);
    }

    #[test]
    fn a_heartbeat_that_does_not_agree_asks_for_everything() {
        let mut session = Session::default();
        session.take(part(&[], true, true), nothing(), 0).unwrap();
        let beat = |objects| {
            Some(Body::Heartbeat(Heartbeat {
                digest: Digest::default().to_bytes(),
                objects,
            }))
        };
        assert_eq!(session.take(beat(0), nothing(), 0).unwrap(), Effect::default());
        assert!(session.take(beat(1), nothing(), 0).unwrap().resync.is_some());
    }

    #[test]
    fn versions_are_agreed_on_or_refused() {
        let hello = |protocol_min, protocol_max| Hello {
            protocol_min,
            protocol_max,
            ..Hello::default()
        };
        assert_eq!(agree(&hello(1, 7)), Ok(1));
        assert!(agree(&hello(2, 7)).is_err());
        assert_eq!(
            SPOKEN,
            format!("{} to {}", proto::PROTOCOL_MIN, proto::PROTOCOL_MAX)
        );
        assert_eq!(
            Session::default().take(Some(Body::Hello(hello(1, 1))), nothing(), 0),
            Err(Broken::Hello)
        );
    }
}
