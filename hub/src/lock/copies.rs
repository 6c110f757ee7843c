//! Tells the stores of copied repositories apart: asks clusters whether they list a lock of restic that one of them holds, keeps
//! what that shows, and separates the maintenance locks. See [`crate::copies`].

mod tell;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use proto::plan::is_id;
use proto::v1::hub_message::Body;
use proto::v1::{Collection, RepositoryCopies, StoreProbe, StoreProbeAnswer};
use tracing::{info, warn};

use super::keeper::Keeper;
use crate::copies;
use crate::copies::place::{Excluded, Found, as_asked, conclude};
use crate::copies::probe::{Answer, Finding, Instant, Probe, Step};
use crate::copies::shown::{Scene, unclear};

/// A cluster whose lock showed nothing holds another one after this time.
const AGAIN: Instant = 10 * 60_000;
/// Longest time that a lock is held: a probe ends much earlier.
const HOLD: Instant = 5 * 60_000;

/// A snapshot that a cluster reports and that another one's listing lacks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Suspect {
    pub cluster: Arc<str>,
    /// Full id.
    pub snapshot: String,
    /// The cluster whose listing lacks it.
    pub by: Arc<str>,
}

/// A probe that is under way.
struct Asked {
    number: u64,
    probe: Probe,
    /// Locations of each cluster when it began.
    urls: BTreeMap<Arc<str>, String>,
}

/// What is known of one restic id beside what is kept.
#[derive(Default)]
pub(super) struct Known {
    /// Locations of each cluster as they were at the last look.
    seen: HashMap<Arc<str>, String>,
    probe: Option<Asked>,
    excluded: Excluded,
    suspect: Option<Suspect>,
    /// When clusters last held a lock.
    tried: HashMap<Arc<str>, Instant>,
    /// Places that are found and not in force yet: a lock is in use.
    pub(super) due: BTreeMap<Arc<str>, Found>,
    /// What each cluster was sent last.
    told: HashMap<Arc<str>, RepositoryCopies>,
    /// Nothing is in question, and every cluster that is connected was told: looked at again when something changes.
    settled: bool,
}

/// All restic ids of which the store is in question.
#[derive(Default)]
pub(super) struct Copies {
    pub(super) known: BTreeMap<Arc<str>, Known>,
    last: u64,
    /// Revision of the last look.
    looked: Option<u64>,
}

impl Copies {
    /// A session begins: its cluster is sent everything anew.
    pub fn attached(&mut self, cluster: &Arc<str>) {
        self.known.values_mut().for_each(|known| {
            known.told.remove(cluster);
            known.settled &= !known.seen.contains_key(cluster);
            // Where it is a member it may be what was missing.
            if known.seen.contains_key(cluster) {
                known.tried.clear();
            }
        });
    }

    /// Why the store of a key is in question beyond what the inventory shows.
    fn in_question(&self, restic_id: &str) -> Option<&'static str> {
        let known = self.known.get(restic_id)?;
        if !known.due.is_empty() {
            return Some("the locks of its stores are being separated");
        }
        known.suspect.as_ref().map(|_| {
            "a snapshot that one cluster reports is missing from what another one lists, so it may be in two stores"
        })
    }
}

impl Keeper {
    /// Why nothing may be removed from a store because it is not known who uses it.
    pub(super) fn store_unclear(&self, key: &str) -> Option<String> {
        let id = copies::restic_id(key);
        let question = self.copies.in_question(id).map(str::to_owned);
        question.or_else(|| self.hub.read(|inventory| unclear(inventory, key, None)))
    }

    /// Why an operation of a cluster waits, whatever it is: the lock that it asks for may not be that of its store.
    pub(super) fn place_unclear(&self, key: &str, cluster: &str) -> Option<String> {
        let id = copies::restic_id(key);
        let known = self.copies.known.get(id);
        if known.is_some_and(|known| !known.due.is_empty()) {
            return self.copies.in_question(id).map(str::to_owned);
        }
        self.hub.read(|inventory| {
            let apart = inventory.places().of(id).any(|place| *place.store != *key);
            let unclear = || unclear(inventory, key, Some(cluster));
            apart.then(unclear).flatten()
        })
    }

    /// A listing lacks what a cluster reports.
    pub(super) fn suspect(&mut self, key: &str, suspect: Suspect) {
        let known = self
            .copies
            .known
            .entry(copies::restic_id(key).into())
            .or_default();
        if known.suspect.as_ref() != Some(&suspect) {
            warn!(repository = key, cluster = %suspect.cluster, snapshot = suspect.snapshot, "a snapshot is missing from a later listing");
            known.tried.clear();
        }
        known.suspect = Some(suspect);
        known.settled = false;
    }

    /// Restic ids of which something has changed since the last look, or is in question.
    fn unsettled(&mut self) -> BTreeSet<Arc<str>> {
        let inventory = self.hub.snapshot();
        let changes = inventory.changes();
        let touched = self.copies.looked.replace(changes.revision());
        let touched = touched.and_then(|at| changes.since(at, Collection::Repositories));
        let id = |key: &Arc<str>| -> Arc<str> { copies::restic_id(key).into() };
        let touched: Option<BTreeSet<Arc<str>>> = touched.map(|keys| keys.iter().map(id).collect());
        let known = &self.copies.known;
        let open = |id: &Arc<str>| {
            let settled = known.get(id).is_some_and(|known| known.settled);
            !settled || touched.as_ref().is_none_or(|touched| touched.contains(id))
        };
        let shared = inventory.bindings().shared().map(id);
        let all = shared.chain(inventory.places().ids().cloned());
        all.chain(known.keys().cloned()).filter(open).collect()
    }

    /// Goes on with what is in question. Costs what has changed.
    pub(super) async fn look_at_copies(&mut self) {
        for id in self.unsettled() {
            self.look_at(&id).await;
            if self.fenced.is_some() {
                return;
            }
        }
        self.copies.known.retain(|_, known| {
            let told = known
                .told
                .values()
                .any(|told| !told.copies.is_empty() || !told.unclear.is_empty());
            told || known.probe.is_some() || known.suspect.is_some() || !known.seen.is_empty()
        });
    }

    async fn look_at(&mut self, id: &Arc<str>) {
        let scene = self.hub.read(|inventory| Scene::of(inventory, id));
        let known = self.copies.known.entry(id.clone()).or_default();
        known
            .seen
            .retain(|cluster, _| scene.members.iter().any(|m| m.cluster == *cluster));
        let is_member = |cluster: &Arc<str>| scene.members.iter().any(|m| m.cluster == *cluster);
        known.excluded.retain(|cluster, _| is_member(cluster));
        known.tried.retain(|cluster, _| is_member(cluster));
        let mut changed = false;
        for member in &scene.members {
            let before = known.seen.insert(member.cluster.clone(), member.urls.clone());
            if before.is_some_and(|before| before != member.urls) {
                known.excluded.remove(&member.cluster);
                changed = true;
            }
        }
        if changed {
            // What was found or is being asked may be about another location.
            known.tried.clear();
            known.due.clear();
            if let Some(asked) = known.probe.take() {
                self.give_up(id, &asked);
            }
        }
        let known = self.copies.known.entry(id.clone()).or_default();
        // Another location that is known to lead to another store than before.
        let moved = scene.members.iter().filter(|m| {
            let placed = scene.standing.placed.get(&m.cluster);
            placed.is_some_and(|store| *store != m.store)
        });
        let moved: BTreeMap<Arc<str>, Found> = moved
            .filter_map(|m| {
                let found = Found {
                    store: scene.standing.placed.get(&m.cluster)?.clone(),
                    urls: m.urls.clone(),
                };
                Some((m.cluster.clone(), found))
            })
            .collect();
        if known.due.is_empty() {
            known.due = moved;
        }
        if !known.due.is_empty() {
            self.place(id, &scene.members).await;
        } else if known.probe.is_some() {
            self.advance_probe(id, None).await;
        } else {
            self.begin_probe(id, &scene).await;
        }
        let told = self.tell_copies(id);
        if let Some(known) = self.copies.known.get_mut(id) {
            let in_question = known.probe.is_some() || known.suspect.is_some() || !known.due.is_empty();
            known.settled = told && !in_question && scene.standing.unplaced.is_empty();
        }
    }

    /// Begins a probe where something is in question. The cluster in question holds the lock; where it cannot, or that showed
    /// nothing, another one does.
    async fn begin_probe(&mut self, id: &Arc<str>, scene: &Scene) {
        let now = self.now();
        let Some(known) = self.copies.known.get(id) else {
            return;
        };
        if scene.members.len() < 2 || (scene.standing.unplaced.is_empty() && known.suspect.is_none()) {
            return;
        }
        let connected = |cluster: &&Arc<str>| self.sessions.contains_key(*cluster);
        let tried = |cluster: &Arc<str>| {
            known
                .tried
                .get(cluster)
                .is_some_and(|at| now.saturating_sub(*at) < AGAIN)
        };
        let suspect = known.suspect.as_ref().map(|suspect| &suspect.cluster);
        let placed = scene.standing.placed.keys();
        let mut candidates = suspect.into_iter().chain(&scene.standing.unplaced).chain(placed);
        let Some(witness) = candidates.find(|c| connected(c) && !tried(c)).cloned() else {
            return;
        };
        let others = scene.members.iter().map(|m| &m.cluster);
        let others: Vec<Arc<str>> = others
            .filter(|c| **c != witness && connected(c))
            .cloned()
            .collect();
        if others.is_empty() {
            return;
        }
        let margin = (self.settings.terms.ttl / 10).min(30_000);
        let (probe, step) = Probe::begin(witness.clone(), others, (now, margin));
        self.copies.last += 1;
        let number = (self.hub.epoch << 32) + self.copies.last;
        let Some(known) = self.copies.known.get_mut(id) else {
            return;
        };
        known.tried.insert(witness, now);
        let urls = scene.members.iter().map(|m| (m.cluster.clone(), m.urls.clone()));
        known.probe = Some(Asked {
            number,
            probe,
            urls: urls.collect(),
        });
        self.step(id, step).await;
    }

    /// A cluster has answered.
    pub(super) async fn probed(&mut self, cluster: &Arc<str>, answer: StoreProbeAnswer) {
        let id: Arc<str> = copies::restic_id(&answer.restic_id).into();
        let known = self.copies.known.get_mut(&id);
        let present = known.and_then(|known| known.probe.as_mut());
        let Some(Asked { probe, .. }) = present.filter(|asked| asked.number == answer.probe) else {
            return;
        };
        let held = probe.lock.is_empty() && *cluster == probe.witness;
        if held && is_id(&answer.lock) {
            probe.lock.clone_from(&answer.lock);
        }
        let found = match &answer {
            answer if !answer.error.is_empty() || probe.lock.is_empty() => Answer::Unknown,
            answer if answer.listed => Answer::Listed,
            _ => Answer::Missing,
        };
        info!(repository = %id, %cluster, ?found, error = answer.error, "probe of a store");
        self.advance_probe(&id, Some((cluster.clone(), found))).await;
    }

    async fn advance_probe(&mut self, id: &Arc<str>, answer: Option<(Arc<str>, Answer)>) {
        let now = self.now();
        let known = self.copies.known.get_mut(id);
        let Some(Asked { probe, .. }) = known.and_then(|known| known.probe.as_mut()) else {
            return;
        };
        let step = match answer {
            Some((cluster, answer)) => probe.answered(&cluster, answer, now),
            None => probe.advance(now),
        };
        self.step(id, step).await;
    }

    async fn step(&mut self, id: &Arc<str>, step: Step) {
        match step {
            Step::Wait => {}
            Step::Ask(clusters) => {
                let known = self.copies.known.get(id);
                let Some(Asked { number, probe, .. }) = known.and_then(|known| known.probe.as_ref()) else {
                    return;
                };
                let question = StoreProbe {
                    probe: *number,
                    restic_id: id.to_string(),
                    hold_ms: if probe.lock.is_empty() { HOLD } else { 0 },
                    lock: probe.lock.clone(),
                };
                for cluster in clusters {
                    self.send(&cluster, Body::StoreProbe(question.clone()));
                }
            }
            Step::End(found) => self.ended(id, found).await,
        }
    }

    /// A probe is over.
    async fn ended(&mut self, id: &Arc<str>, found: Option<Finding>) {
        let scene = self.hub.read(|inventory| Scene::of(inventory, id));
        let Some(known) = self.copies.known.get_mut(id) else {
            return;
        };
        let Some(asked) = known.probe.take() else {
            return;
        };
        let found = found.and_then(|found| as_asked(found, &asked.urls, &scene.members));
        if let Some(found) = &found {
            // A suspicion ends once the two clusters that gave rise to it were compared, or one is gone.
            let settled = |suspect: &Suspect| {
                let by = &suspect.by;
                let compared = found.present.contains(by) || found.absent.contains(by);
                let gone = !scene.members.iter().any(|m| m.cluster == *by);
                suspect.cluster == found.witness && (compared || gone)
            };
            if known.suspect.as_ref().is_some_and(settled) {
                known.suspect = None;
            }
            let (suspected, excluded) = (known.suspect.is_some(), &mut known.excluded);
            known.due = self.hub.read(|inventory| {
                conclude(
                    id,
                    (&scene.members, inventory.places()),
                    (found, suspected),
                    excluded,
                )
            });
        }
        self.give_up(id, &asked);
        if found.is_some() {
            self.place(id, &scene.members).await;
        }
    }

    /// The witness of a probe needs its lock no more.
    fn give_up(&mut self, id: &Arc<str>, asked: &Asked) {
        let give_up = StoreProbe {
            probe: asked.number,
            restic_id: id.to_string(),
            ..StoreProbe::default()
        };
        self.send(&asked.probe.witness, Body::StoreProbe(give_up));
    }
}
