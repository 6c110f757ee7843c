//! The commands of one term of leadership.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::Bound;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use futures::{FutureExt as _, StreamExt as _};
use jiff::SignedDuration;
use prost::Message as _;
use proto::v1::{Command, CommandBody, CommandReport, CommandState};
use tracing::{info, warn};

use super::flight::{Flight, Landed};
use super::handler::{Handler, Lane, Order, Step, Tools, handler};
use super::ledger::{self, End, Entry, Known, Ledger};
use crate::clock::BootMillis;
use crate::exchange::Arrived;

/// A command that has not ended.
struct Item {
    handler: Arc<dyn Handler>,
    order: Order,
    cancelled: bool,
    /// The last report of this session.
    told: Option<CommandReport>,
    /// The hub has sent it in this session.
    asked: bool,
    /// What was not available is asked for again then.
    next_try: BootMillis,
    /// Pause after the next failure.
    pause: BootMillis,
    /// It is to be looked at.
    due: bool,
    /// A step of it is under way.
    flies: bool,
}

/// Pauses before what is not available is asked for again.
const PAUSE_MIN: BootMillis = 5_000;
const PAUSE_MAX: BootMillis = 60_000;
/// Steps that are under way at the same time.
const AT_ONCE: usize = 16;

/// The commands that have not ended, and the ledger.
pub(super) struct Desk {
    tools: Tools,
    namespace: String,
    ledger: Ledger,
    items: BTreeMap<String, Item>,
    /// What is in the ledger is not written yet.
    dirty: bool,
    /// Ends that are reported once they are written.
    ends: BTreeSet<String>,
    /// Ids of those that are to be looked at, in the order in which they came due.
    due: VecDeque<String>,
    /// Steps under way, and the resources that they are about.
    flights: FuturesUnordered<BoxFuture<'static, Landed>>,
    lanes: BTreeSet<Lane>,
}

impl Desk {
    /// A term begins with what is in the ledger.
    pub(super) fn new(tools: Tools, namespace: &str, ledger: Ledger) -> Desk {
        let (mut items, mut unread) = (BTreeMap::new(), Vec::new());
        for (id, entry) in ledger.unended() {
            match decoded(&entry.body).and_then(|body| handler(&body)) {
                Ok(handler) => {
                    items.insert(id.clone(), item(handler, id, None, entry.made.clone()));
                }
                Err(error) => {
                    warn!(id, error, "a command in the ledger cannot be read");
                    unread.push(id.clone());
                }
            }
        }
        let mut ledger = ledger;
        for id in &unread {
            let text = "another version of the operator has begun it";
            ledger.end(id, End::new(CommandState::Failed, text));
        }
        Desk {
            tools,
            namespace: namespace.to_owned(),
            ledger,
            items,
            dirty: !unread.is_empty(),
            ends: unread.into_iter().collect(),
            due: VecDeque::new(),
            flights: FuturesUnordered::new(),
            lanes: BTreeSet::new(),
        }
    }

    /// Whether there is anything to look at.
    pub(super) fn is_busy(&self) -> bool {
        !self.items.is_empty() || self.dirty || !self.ends.is_empty()
    }

    /// Takes what has arrived.
    pub(super) async fn receive(&mut self) {
        for arrived in self.tools.context.commands.take_arrived() {
            match arrived {
                Arrived::Command(command, before) => self.take(*command, before).await,
                Arrived::Settled(id) => {
                    let now = self.tools.context.clock.now();
                    self.dirty |= self.ledger.settle(&id, now);
                }
            }
        }
        self.advance().await;
    }

    async fn take(&mut self, command: Command, before: BootMillis) {
        let id = command.id.clone();
        if let Some(item) = self.items.get_mut(&id) {
            item.order.before = Some(before);
            item.cancelled |= command.cancel;
            item.told = None;
            item.asked = true;
            return;
        }
        let end = match self.ledger.known(&id) {
            Known::Open(Entry { end: Some(_), .. }) => {
                self.ends.insert(id);
                return;
            }
            // It could not be read.
            Known::Open(_) => End::new(
                CommandState::Failed,
                "another version of the operator has begun it",
            ),
            Known::Settled(state) => End::new(state, "it was reported to the hub before"),
            Known::Nothing => match self.accept(command, before).await {
                Ok(()) => return,
                Err(end) => end,
            },
        };
        self.tools.context.commands.report(report(&id, &end));
    }

    /// Notes a new command, or ends it at once.
    async fn accept(&mut self, command: Command, before: BootMillis) -> Result<(), End> {
        let context = self.tools.context.clone();
        let refused = |text: String| End::new(CommandState::Refused, text);
        let body = command.body.unwrap_or_default();
        let handler = handler(&body).map_err(refused)?;
        handler.allowed(&context).map_err(refused)?;
        if command.cancel {
            return Err(End::new(CommandState::Cancelled, "it had not begun"));
        }
        if context.clock.since_boot() >= before {
            return Err(End::new(CommandState::Expired, "it arrived too late"));
        }
        handler.check(&context).map_err(refused)?;
        let (now, left) = (context.clock.now(), i64::try_from(command.begin_within_ms));
        let until = now
            .checked_add(SignedDuration::from_millis(left.unwrap_or(i64::MAX)))
            .unwrap_or(now);
        let entry = Entry {
            body: STANDARD.encode(body.encode_to_vec()),
            who: command.who.clone(),
            until,
            made: None,
            end: None,
        };
        let mut ledger = self.ledger.clone();
        ledger.accept(&command.id, entry, now).map_err(refused)?;
        if let Err(error) = ledger::write(&context.applier, &self.namespace, &ledger).await {
            // Without an answer the hub sends it again.
            warn!(id = command.id, %error, "a command cannot be noted, and is not carried out now");
            return Ok(());
        }
        self.ledger = ledger;
        info!(
            id = command.id,
            who = command.who,
            "a command of the hub was accepted"
        );
        let mut item = item(handler, &command.id, Some(before), None);
        item.asked = true;
        self.items.insert(command.id, item);
        Ok(())
    }

    /// Looks at every command that is not being looked at.
    pub(super) async fn advance(&mut self) {
        for (id, item) in &mut self.items {
            if !item.flies && !item.due {
                item.due = true;
                self.due.push_back(id.clone());
            }
        }
        self.settle().await;
    }

    /// Resolves when a step has come to its end.
    pub(super) async fn landing(&mut self) -> Landed {
        match self.flights.next().await {
            Some(landed) => landed,
            None => std::future::pending().await,
        }
    }

    /// Takes a step that has come to its end.
    pub(super) async fn landed(&mut self, landed: Landed) {
        self.take_in(landed);
        self.settle().await;
    }

    /// Begins what there is room for, takes what ends at once, and reports what is new.
    async fn settle(&mut self) {
        loop {
            self.begin();
            match self.flights.next().now_or_never().flatten() {
                Some(landed) => self.take_in(landed),
                None => break,
            }
        }
        if self.dirty {
            self.write().await;
        }
        self.tell();
    }

    /// Begins steps in the order in which they came due: one for each resource, and [`AT_ONCE`] in all.
    fn begin(&mut self) {
        let mut later = VecDeque::new();
        while self.flights.len() < AT_ONCE
            && let Some(id) = self.due.pop_front()
        {
            let Some(lane) = self.items.get(&id).map(|item| item.handler.lane()) else {
                continue;
            };
            if !self.lanes.insert(lane) {
                later.push_back(id);
                continue;
            }
            let earlier = self.earlier(&id);
            let over = self.ledger.is_over(&id, self.tools.context.clock.now());
            let Some(item) = self.items.get_mut(&id) else {
                continue;
            };
            (item.due, item.flies) = (false, true);
            let now = self.tools.context.clock.since_boot();
            let paused = item.told.as_ref().filter(|_| now < item.next_try);
            let flight = Flight {
                tools: self.tools.clone(),
                handler: item.handler.clone(),
                order: item.order.clone(),
                cancelled: item.cancelled,
                forgotten: over && item.order.made.is_none(),
                held: earlier.or_else(|| paused.map(|told| told.text.clone())),
            };
            self.flights.push(flight.run().boxed());
        }
        later.append(&mut self.due);
        self.due = later;
    }

    /// What a command in turn waits for.
    fn earlier(&self, id: &str) -> Option<String> {
        let item = self.items.get(id).filter(|item| item.handler.in_turn())?;
        let lane = item.handler.lane();
        let mut before = self
            .items
            .range::<str, _>((Bound::Unbounded, Bound::Excluded(id)));
        // One of which the hub says nothing, as after its store was put back, holds up no other.
        let counts = |other: &Item| other.handler.in_turn() && other.order.before.is_some();
        let (first, _) = before.find(|(_, other)| counts(other) && other.handler.lane() == lane)?;
        Some(format!("it waits for {first}, which was given before it, to end"))
    }

    fn take_in(&mut self, landed: Landed) {
        self.lanes.remove(&landed.lane);
        let now = self.tools.context.clock.since_boot();
        if let Some(item) = self.items.get_mut(&landed.id) {
            item.flies = false;
            if landed.unavailable {
                item.next_try = now.saturating_add(item.pause);
                item.pause = item.pause.saturating_mul(2).min(PAUSE_MAX);
            } else if !landed.held {
                item.pause = PAUSE_MIN;
            }
        }
        self.record(&landed.id, landed.step);
    }

    fn record(&mut self, id: &str, step: Step) {
        let Some(item) = self.items.get_mut(id) else {
            return;
        };
        let told = match step {
            Step::Waits(text) | Step::Unavailable(text) => CommandReport {
                id: id.to_owned(),
                state: CommandState::Accepted.into(),
                text,
                object: String::new(),
            },
            Step::Runs {
                begun,
                object,
                uid,
                text,
            } => {
                if let Some(uid) = uid {
                    self.dirty |= self.ledger.made(id, &uid);
                    item.order.made.get_or_insert(uid);
                }
                CommandReport {
                    id: id.to_owned(),
                    state: if begun {
                        CommandState::Running.into()
                    } else {
                        CommandState::Accepted.into()
                    },
                    text,
                    object,
                }
            }
            Step::Ends(end) => {
                info!(
                    id,
                    state = end.state.as_str_name(),
                    text = end.text,
                    "a command of the hub has ended"
                );
                self.ledger.end(id, end);
                self.dirty = true;
                self.ends.insert(id.to_owned());
                self.items.remove(id);
                return;
            }
        };
        if item.told.as_ref() != Some(&told) {
            item.told = Some(told.clone());
            if item.asked {
                self.tools.context.commands.report(told);
            }
        }
    }

    /// Makes the ledger durable; only then are ends reported.
    async fn write(&mut self) {
        let written = ledger::write(&self.tools.context.applier, &self.namespace, &self.ledger).await;
        match written {
            Ok(()) => self.dirty = false,
            Err(error) => warn!(%error, "what was done of the hub's commands cannot be noted; tried again"),
        }
    }

    /// Reports ends.
    fn tell(&mut self) {
        if self.dirty {
            return;
        }
        for id in std::mem::take(&mut self.ends) {
            if let Known::Open(Entry { end: Some(end), .. }) = self.ledger.known(&id) {
                self.tools.context.commands.report(report(&id, end));
            }
        }
    }
}

fn item(handler: Arc<dyn Handler>, id: &str, before: Option<BootMillis>, made: Option<String>) -> Item {
    Item {
        handler,
        order: Order {
            id: id.to_owned(),
            before,
            made,
        },
        cancelled: false,
        told: None,
        asked: false,
        next_try: 0,
        pause: PAUSE_MIN,
        due: false,
        flies: false,
    }
}

fn decoded(body: &str) -> Result<CommandBody, String> {
    let bytes = STANDARD.decode(body).map_err(|error| error.to_string())?;
    CommandBody::decode(bytes.as_slice()).map_err(|error| error.to_string())
}

fn report(id: &str, end: &End) -> CommandReport {
    CommandReport {
        id: id.to_owned(),
        state: end.state.into(),
        text: end.text.clone(),
        object: end.object.clone(),
    }
}
