//! A hub, the two replicas of one spoke, and the lines between them.

use std::collections::VecDeque;
use std::sync::Arc;

use hub::Moment;
use hub::hub::restored;
use hub::inventory::{Arrived, Change, Facts, Held, Introduction, Inventory, Limits};
use hub::session as hub_session;
use hub::store::{HubStore as _, Sqlite};
use prost::Message as _;
use proto::v1::spoke_message::Body;
use proto::v1::{
    Hello, HubMessage, Inventory as Part, ObjectState, ResyncRequest, SpokeMessage, Welcome, hub_message,
};
use spoke::link::{convert, session as spoke_session};

use crate::cluster::{Cluster, Picture, Replica};

/// One mend is missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mutant {
    None,
    /// Each part of an inventory is applied when it arrives.
    PartsAtOnce,
    /// Each part of a change is applied when it arrives.
    ChangesAtOnce,
    /// A session begins with what actors have reported since: here, with nothing of some kind.
    HalfInventory,
    /// The hub hashes what it has decoded.
    DecodedDigest,
    /// Every restored cluster counts as complete.
    CompleteUnseen,
    /// A session that was superseded still changes what is held.
    OldSessions,
}

impl Mutant {
    pub const ALL: [Mutant; 6] = [
        Mutant::PartsAtOnce,
        Mutant::ChangesAtOnce,
        Mutant::HalfInventory,
        Mutant::DecodedDigest,
        Mutant::CompleteUnseen,
        Mutant::OldSessions,
    ];
}

const LIMITS: Limits = Limits {
    stale_after: 30_000,
    grace: 15_000,
    objects: 10_000,
    bytes: 64 << 20,
};

/// The stream of one replica.
struct Line {
    spoke: spoke_session::Session,
    welcome: bool,
    to_hub: VecDeque<SpokeMessage>,
    to_spoke: VecDeque<HubMessage>,
    /// Session number and the hub's end, from the Hello on.
    hub: Option<(u64, hub_session::Session)>,
}

pub struct Fleet {
    pub cluster: Cluster,
    pub time: i64,
    /// Bytes of all messages that arrived.
    pub bytes: usize,
    pub resyncs: usize,
    pub up_to_date: usize,
    lines: [Option<Line>; 2],
    /// Sessions that the spoke has left, and the hub not yet.
    left: Vec<u64>,
    inventory: Inventory,
    store: Option<(tempfile::TempDir, Sqlite)>,
    sessions: u64,
    epoch: u64,
    ahead: bool,
    mutant: Mutant,
}

fn name() -> Arc<str> {
    "a".into()
}

/// A field that no hub knows yet.
fn encode_ahead(state: &ObjectState) -> Vec<u8> {
    let mut bytes = convert::encode(state);
    bytes.extend([0xf8, 0x07, 0x01]);
    bytes
}

impl Fleet {
    pub fn new(ahead: bool, mutant: Mutant) -> Fleet {
        Fleet {
            cluster: Cluster::new(),
            time: 0,
            bytes: 0,
            resyncs: 0,
            up_to_date: 0,
            lines: [None, None],
            left: Vec::new(),
            inventory: Inventory::new(LIMITS, 0, 0.into()),
            store: None,
            sessions: 0,
            epoch: 0,
            ahead,
            mutant,
        }
    }

    fn now(&self) -> Moment {
        self.time.into()
    }

    pub fn change(&mut self, f: impl FnOnce(&mut Cluster)) {
        f(&mut self.cluster);
    }

    /// A replica has become the leader: it dials.
    pub fn lead(&mut self, r: u8) {
        // The leader's lease has to run out first.
        self.time += 21_000;
        self.cut(r);
        let mut spoke = match self.ahead {
            true => spoke_session::Session::encoding(encode_ahead),
            false => spoke_session::Session::default(),
        };
        let Replica {
            world,
            outbox,
            incarnation,
        } = &self.cluster.replicas[usize::from(r)];
        let (digest, objects) = spoke.hello(world, outbox);
        let hello = Hello {
            protocol_min: proto::PROTOCOL_MIN,
            protocol_max: proto::PROTOCOL_MAX,
            incarnation: incarnation.clone(),
            version: "0.1.0".to_owned(),
            kubernetes_version: "v1.34.4".to_owned(),
            cluster_uid: "6f1ddd75-6d6e-4f3c-9d3e-8a5e2d0a7a11".to_owned(),
            digest,
            objects,
            ..Hello::default()
        };
        self.lines[usize::from(r)] = Some(Line {
            spoke,
            welcome: false,
            to_hub: VecDeque::from([SpokeMessage {
                body: Some(Body::Hello(hello)),
            }]),
            to_spoke: VecDeque::new(),
            hub: None,
        });
    }

    pub fn send(&mut self, r: u8) {
        let Replica { world, outbox, .. } = &self.cluster.replicas[usize::from(r)];
        let Some(line) = self.lines[usize::from(r)].as_mut().filter(|line| line.welcome) else {
            return;
        };
        if !line.spoke.is_busy() {
            line.spoke.changes(world, outbox);
        }
        line.to_hub.extend(line.spoke.next_part());
    }

    pub fn beat(&mut self, r: u8) {
        if let Some(line) = self.lines[usize::from(r)].as_mut().filter(|line| line.welcome)
            && !line.spoke.is_busy()
        {
            line.spoke.beat();
            line.to_hub.extend(line.spoke.next_part());
        }
    }

    pub fn answer(&mut self, r: u8) {
        let Replica { world, outbox, .. } = &self.cluster.replicas[usize::from(r)];
        let Some(line) = self.lines[usize::from(r)].as_mut() else {
            return;
        };
        let Some(message) = line.to_spoke.pop_front() else {
            return;
        };
        self.bytes += message.encoded_len();
        match message.body.unwrap() {
            hub_message::Body::Welcome(welcome) => {
                line.welcome = true;
                self.up_to_date += usize::from(welcome.up_to_date);
                if !welcome.up_to_date {
                    line.spoke.inventory(world, outbox);
                }
            }
            hub_message::Body::Resync(_) => {
                self.resyncs += 1;
                line.spoke.inventory(world, outbox);
            }
            other => panic!("{other:?}"),
        }
    }

    /// The line breaks, with all that is on it. The hub learns of it later.
    pub fn cut(&mut self, r: u8) {
        if let Some(line) = self.lines[usize::from(r)].take()
            && let Some((number, _)) = line.hub
        {
            self.left.push(number);
        }
    }

    pub fn seen(&mut self, _: u8) {
        let now = self.now();
        for number in std::mem::take(&mut self.left) {
            self.inventory.detach(&name(), number, now);
        }
    }

    pub fn restart(&mut self, r: u8) {
        self.cut(r);
        self.cluster.restart(r);
    }

    /// The hub takes one message, as its link does.
    pub fn deliver(&mut self, r: u8) {
        let Some(mut line) = self.lines[usize::from(r)].take() else {
            return;
        };
        let keep = match line.to_hub.pop_front() {
            None => true,
            Some(message) => {
                self.bytes += message.encoded_len();
                self.take(&mut line, message.body.unwrap())
            }
        };
        if keep {
            self.lines[usize::from(r)] = Some(line);
        } else if let Some((number, _)) = line.hub {
            let now = self.now();
            self.inventory.detach(&name(), number, now);
        }
    }

    /// Whether the session goes on.
    fn take(&mut self, line: &mut Line, body: Body) -> bool {
        let now = self.now();
        if let Body::Hello(hello) = body {
            return self.greet(line, hello);
        }
        let Some((number, session)) = &mut line.hub else {
            return false;
        };
        let number = *number;
        let present = self.inventory.hear(&name(), number, now).is_ok();
        let number = match self.inventory.member("a").and_then(|member| member.live) {
            Some(live) if self.mutant == Mutant::OldSessions => live.session,
            _ if present => number,
            _ => return false,
        };
        let held = self.inventory.holdings("a");
        let body = self.mutate(body);
        let Ok(effect) = session.take(Some(body), held, now.steady) else {
            return false;
        };
        if effect.doubt && self.inventory.doubt(&name(), number, now).is_err() {
            return false;
        }
        if let Some(update) = effect.update {
            let upserts = update.states.into_iter().map(|(uid, mut state)| {
                if self.mutant == Mutant::DecodedDigest {
                    state = ObjectState::decode(state.as_slice()).unwrap().encode_to_vec();
                }
                Arrived {
                    held: Held::new(&name(), &uid, &state, None, now.wall),
                    state,
                }
            });
            let change = Change {
                upserts: upserts.collect(),
                gone: update.gone,
                whole: update.whole,
            };
            if self.inventory.apply(&name(), number, change, now).is_err() {
                return false;
            }
        }
        if let Some(reason) = effect.resync {
            let ask = ResyncRequest {
                reason: reason.to_owned(),
            };
            line.to_spoke.push_back(HubMessage {
                body: Some(hub_message::Body::Resync(ask)),
            });
        }
        true
    }

    fn greet(&mut self, line: &mut Line, hello: Hello) -> bool {
        let now = self.now();
        self.sessions += 1;
        let number = self.sessions;
        let introduction = Introduction {
            facts: Facts {
                cluster_uid: hello.cluster_uid,
                version: hello.version,
                kubernetes_version: hello.kubernetes_version,
            },
            incarnation: hello.incarnation,
            digest: hello.digest,
            objects: hello.objects,
            retains: false,
            retains_with_policy: false,
            namespaces: Vec::new(),
        };
        let Ok(up_to_date) = self.inventory.attach(&name(), number, introduction, now) else {
            return false;
        };
        line.hub = Some((number, hub_session::Session::new(up_to_date, LIMITS.bytes)));
        let welcome = Welcome {
            session: number,
            protocol: proto::PROTOCOL_MAX,
            hub_epoch: self.epoch,
            heartbeat_interval_ms: 10_000,
            cluster: "a".to_owned(),
            hub_incarnation: "6f1ddd756d6e4f3c9d3e8a5e2d0a7a11".to_owned(),
            up_to_date,
            appoints_collectors: true,
        };
        line.to_spoke.push_back(HubMessage {
            body: Some(hub_message::Body::Welcome(welcome)),
        });
        true
    }

    fn mutate(&self, body: Body) -> Body {
        match (body, self.mutant) {
            (Body::Inventory(part), Mutant::PartsAtOnce) => Body::Inventory(Part {
                first: true,
                last: true,
                ..part
            }),
            (Body::Delta(delta), Mutant::ChangesAtOnce) => {
                Body::Delta(proto::v1::Delta { more: false, ..delta })
            }
            (Body::Inventory(part), Mutant::HalfInventory) => {
                let updates = part.updates.into_iter();
                Body::Inventory(Part {
                    updates: updates
                        .filter(|update| !update.uid.starts_with("Policy"))
                        .collect(),
                    ..part
                })
            }
            (body, _) => body,
        }
    }

    /// What has changed is written.
    pub async fn flush(&mut self) {
        if self.store.is_none() {
            let dir = tempfile::tempdir().unwrap();
            let store = Sqlite::open(&dir.path().join("fleet.db")).await.unwrap();
            self.store = Some((dir, store));
        }
        let (unsaved, _) = self.inventory.take_unsaved(usize::MAX);
        let mut batch = unsaved.batch(&self.inventory);
        if self.mutant == Mutant::CompleteUnseen {
            for cluster in &mut batch.clusters {
                cluster.complete = true;
            }
        }
        let (_, store) = self.store.as_ref().unwrap();
        store.save(batch).await.unwrap();
    }

    /// The hub is killed and starts again with what was written.
    pub async fn restart_hub(&mut self) {
        self.lines = [None, None];
        self.left.clear();
        self.epoch += 1;
        let kept = match &self.store {
            Some((_, store)) => hub::store::everything(store).await.unwrap(),
            None => Default::default(),
        };
        self.inventory = restored(LIMITS, self.epoch, kept, self.now());
    }

    pub fn is_complete(&self) -> bool {
        self.inventory
            .member("a")
            .is_some_and(hub::inventory::Member::complete)
    }

    fn picture(&self) -> Picture {
        let member = self.inventory.member("a").unwrap();
        let states = member.objects.iter().map(|(uid, held)| {
            let (kind, n) = held.name().split_once('-').unwrap();
            let (kind, generation) = (kind.to_lowercase(), held.generation);
            let rest = match held.policy() {
                Some(body) => (!body.spec.as_ref().unwrap().unclear.is_empty()).to_string(),
                None => held.restic_id().to_owned(),
            };
            (uid.to_string(), format!("{kind} {n} {generation} {rest}"))
        });
        states.collect()
    }

    /// What the hub calls complete is a past or present state of the cluster.
    pub fn check(&self) -> Result<(), String> {
        if !self.is_complete() {
            return Ok(());
        }
        let picture = self.picture();
        if self.cluster.history.contains(&picture) {
            return Ok(());
        }
        Err(format!(
            "a picture that never was: {picture:#?}, now {:#?}",
            self.cluster.picture()
        ))
    }

    /// Both ends of a line are served until nothing is on it.
    pub fn exchange(&mut self, r: u8) {
        for _ in 0..10_000 {
            self.deliver(r);
            self.answer(r);
            self.send(r);
            let line = self.lines[usize::from(r)].as_ref();
            if line.is_none_or(|line| {
                line.to_hub.is_empty() && line.to_spoke.is_empty() && !line.spoke.is_busy()
            }) {
                return;
            }
        }
        panic!("the line never falls silent");
    }

    /// Nothing happens any more: the hub comes to show the present state.
    pub fn settle(&mut self) -> Result<(), String> {
        self.lead(0);
        let mut resyncs = 0;
        for round in 0..4 {
            if round == 2 {
                resyncs = self.resyncs;
            }
            self.time += 31_000;
            self.exchange(0);
            self.check()?;
            self.beat(0);
            self.exchange(0);
            self.check()?;
        }
        if !self.is_complete() || self.resyncs > resyncs {
            return Err("the ends never agree".to_owned());
        }
        let (shown, present) = (self.picture(), self.cluster.picture());
        if shown != present {
            return Err(format!("shown {shown:#?}, present {present:#?}"));
        }
        let member = self.inventory.member("a").unwrap();
        for (uid, id) in self.cluster.bindings() {
            let bound = member.objects.get(uid.as_str()).and_then(|held| held.policy());
            let bound = bound.map(|policy| policy.restic_id.as_str()).unwrap_or_default();
            if bound != id {
                return Err(format!(
                    "policy {uid} was bound to {id} and is shown with {bound:?}"
                ));
            }
        }
        Ok(())
    }
}
