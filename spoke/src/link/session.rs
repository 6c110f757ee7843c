//! What is said in one session, and what the hub holds of it by now. Pure but for the outbox it is given.

use std::collections::HashMap;

use prost::Message as _;
use proto::digest::{Digest, ObjectHash, object_hash};
use proto::v1::{Delta, Heartbeat, Inventory, ObjectState, SpokeMessage, Tombstone, spoke_message::Body};

use super::outbox::{Changes, Outbox};

/// Largest message; the hub reads with a bound too.
const CHUNK: usize = 256 << 10;

/// One connection's worth of state.
#[derive(Default)]
pub struct Session {
    seq: u64,
    sent: HashMap<String, ObjectHash>,
    digest: Digest,
}

impl Session {
    /// The next message.
    pub fn message(&mut self, body: Body) -> SpokeMessage {
        self.seq += 1;
        SpokeMessage {
            seq: self.seq,
            body: Some(body),
        }
    }

    /// The whole inventory, in parts of bounded size. The last one says so even when there is nothing to tell.
    pub fn inventory(&mut self, outbox: &Outbox) -> Vec<SpokeMessage> {
        self.sent.clear();
        self.digest = Digest::default();
        let mut parts = vec![Vec::new()];
        let mut size = 0;
        for object in outbox.all() {
            size += object.encoded_len();
            if size > CHUNK
                && let Some(part) = parts.last()
                && !part.is_empty()
            {
                parts.push(Vec::new());
                size = object.encoded_len();
            }
            self.note(&object);
            if let Some(part) = parts.last_mut() {
                part.push(ObjectState::clone(&object));
            }
        }
        let last = parts.len() - 1;
        let parts = parts.into_iter().enumerate();
        parts
            .map(|(n, objects)| {
                self.message(Body::Inventory(Inventory {
                    objects,
                    first: n == 0,
                    last: n == last,
                    ..Default::default()
                }))
            })
            .collect()
    }

    /// What has changed, in messages of bounded size.
    pub fn deltas(&mut self, outbox: &Outbox) -> Vec<SpokeMessage> {
        let Changes { objects, gone } = outbox.changes();
        let mut deltas = Vec::new();
        let mut delta = Delta::default();
        for uid in gone {
            if let Some(hash) = self.sent.remove(&uid) {
                self.digest.remove(&hash);
                delta.gone.push(Tombstone { uid });
            }
        }
        for object in objects {
            self.note(&object);
            delta.objects.push(ObjectState::clone(&object));
            if delta.encoded_len() > CHUNK {
                deltas.push(std::mem::take(&mut delta));
            }
        }
        if delta != Delta::default() {
            deltas.push(delta);
        }
        deltas
            .into_iter()
            .map(|delta| self.message(Body::Delta(delta)))
            .collect()
    }

    /// What the hub should hold after all that was sent.
    pub fn heartbeat(&mut self) -> SpokeMessage {
        let beat = Heartbeat {
            digest: self.digest.to_bytes(),
            objects: self.sent.len() as u64,
        };
        self.message(Body::Heartbeat(beat))
    }

    fn note(&mut self, object: &ObjectState) {
        let hash = object_hash(object);
        if let Some(old) = self.sent.insert(object.uid.clone(), hash) {
            self.digest.remove(&old);
        }
        self.digest.add(&hash);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The hub as link.proto describes it.
    #[derive(Default)]
    struct Receiver {
        held: HashMap<String, ObjectState>,
        arriving: Option<HashMap<String, ObjectState>>,
        digest: Vec<u8>,
    }

    impl Receiver {
        fn take(&mut self, message: SpokeMessage) {
            match message.body.unwrap() {
                Body::Inventory(part) => {
                    if part.first {
                        self.arriving = Some(HashMap::new());
                    }
                    let arriving = self.arriving.as_mut().unwrap();
                    arriving.extend(part.objects.into_iter().map(|o| (o.uid.clone(), o)));
                    if part.last {
                        self.held = self.arriving.take().unwrap();
                    }
                }
                Body::Delta(delta) => {
                    self.held
                        .extend(delta.objects.into_iter().map(|o| (o.uid.clone(), o)));
                    delta.gone.iter().for_each(|t| drop(self.held.remove(&t.uid)));
                }
                Body::Heartbeat(beat) => self.digest = beat.digest,
                _ => {}
            }
        }

        fn digest(&self) -> Vec<u8> {
            let mut digest = Digest::default();
            self.held.values().for_each(|o| digest.add(&object_hash(o)));
            digest.to_bytes()
        }
    }

    #[derive(Clone, Debug)]
    enum Happening {
        Put(u8, i64),
        Gone(u8),
        Deltas,
        /// The stream breaks after n messages of a new inventory.
        Cut(u8),
        Resync,
    }

    fn happening() -> impl Strategy<Value = Happening> {
        prop_oneof![
            (0u8..6, 0i64..3).prop_map(|(uid, generation)| Happening::Put(uid, generation)),
            (0u8..6).prop_map(Happening::Gone),
            Just(Happening::Deltas),
            (0u8..4).prop_map(Happening::Cut),
            Just(Happening::Resync),
        ]
    }

    fn state(uid: u8, generation: i64) -> ObjectState {
        // Large enough that an inventory needs several parts.
        ObjectState {
            uid: uid.to_string(),
            generation,
            name: "x".repeat(100_000),
            ..ObjectState::default()
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(200))]
        #[test]
        fn whatever_happens_the_hub_ends_up_with_the_truth(happenings in prop::collection::vec(happening(), 0..30)) {
            let (outbox, mut session, mut hub) = (Outbox::default(), Session::default(), Receiver::default());
            session.inventory(&outbox).into_iter().for_each(|m| hub.take(m));
            for happening in happenings {
                match happening {
                    Happening::Put(uid, generation) => outbox.put(state(uid, generation)),
                    Happening::Gone(uid) => outbox.gone(&uid.to_string()),
                    Happening::Deltas => session.deltas(&outbox).into_iter().for_each(|m| hub.take(m)),
                    Happening::Cut(after) => {
                        session = Session::default();
                        hub.arriving = None;
                        let before: Vec<String> = hub.held.keys().cloned().collect();
                        let parts = session.inventory(&outbox);
                        let cut = usize::from(after).min(parts.len() - 1);
                        parts.into_iter().take(cut).for_each(|m| hub.take(m));
                        prop_assert!(before.iter().all(|uid| hub.held.contains_key(uid)), "a cut inventory deleted something");
                        session = Session::default();
                        session.inventory(&outbox).into_iter().for_each(|m| hub.take(m));
                    }
                    Happening::Resync => session.inventory(&outbox).into_iter().for_each(|m| hub.take(m)),
                }
            }
            session.deltas(&outbox).into_iter().for_each(|m| hub.take(m));
            hub.take(session.heartbeat());
            let truth: HashMap<String, ObjectState> =
                outbox.all().into_iter().map(|o| (o.uid.clone(), ObjectState::clone(&o))).collect();
            prop_assert_eq!(&hub.held, &truth);
            prop_assert_eq!(hub.digest(), hub.digest.clone());
        }
    }
}
