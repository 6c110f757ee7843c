//! One cluster collects the figures of each repository. [`decide`] chooses it (pure), this owns the choice in one task:
//! keeps it before it is told, tells each cluster who collects ([`look`]), and takes reports of the present one alone.

pub mod decide;
pub mod history;
mod look;
mod reported;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use proto::time::from_unix_millis;
use proto::v1::CollectorReport;
use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use self::decide::{Standing, heard};
use self::reported::Reported;
use crate::hub::Hub;
use crate::inventory::figures::Latest;
use crate::outbound::Outgoing;
use crate::store::collect::{HOUR, StoredFigures};
use crate::store::{HubStore, StoreError};
use crate::{Millis, Moment, clean, evidence, lock};

/// Commands on their way.
const COMMANDS: usize = 1024;
/// Assignments are looked at this often.
const TICK: Duration = Duration::from_millis(500);
/// Old points of series are removed once in so many looks.
const PRUNE: u64 = 7200;
/// Bounds of the time between two readings that a cluster may name.
const INTERVALS: (Millis, Millis) = (1_000, 7 * 24 * HOUR);
/// No honest report waits longer.
const AGE: Millis = 24 * HOUR;

/// What the task has to do.
pub enum Command {
    Attach {
        cluster: Arc<str>,
        session: u64,
        outgoing: Outgoing,
        /// The spoke collects only when it is appointed.
        collects: bool,
    },
    Detach {
        cluster: Arc<str>,
        session: u64,
    },
    Report {
        cluster: Arc<str>,
        session: u64,
        report: Box<CollectorReport>,
    },
}

/// The way to the task.
#[derive(Clone)]
pub struct Collectors {
    commands: mpsc::Sender<Command>,
}

impl Collectors {
    /// A way, and its other end.
    #[must_use]
    pub fn new() -> (Collectors, mpsc::Receiver<Command>) {
        let (commands, receiver) = mpsc::channel(COMMANDS);
        (Collectors { commands }, receiver)
    }

    /// Sends a command.
    pub async fn tell(&self, command: Command) {
        // An error means that the hub is stopping.
        let _ = self.commands.send(command).await;
    }
}

/// A spoke's present session.
struct Session {
    number: u64,
    outgoing: Outgoing,
    collects: bool,
    /// What it was sent last, by repository.
    told: HashMap<Arc<str>, Told>,
}

/// An assignment as it was sent: cluster, epoch, and when the figures in it were read.
type Told = (String, u64, Option<Millis>);

/// All collectors.
pub struct Appointer {
    hub: Arc<Hub>,
    store: Arc<dyn HubStore>,
    standing: BTreeMap<Arc<str>, Standing>,
    /// Time between two readings as the collector names it.
    intervals: HashMap<Arc<str>, Millis>,
    sessions: HashMap<Arc<str>, Session>,
    /// Repositories as they were reported when they were looked at last.
    reported: BTreeMap<Arc<str>, Reported>,
    /// Revision of the last look.
    looked: Option<u64>,
    /// Repositories to look at again: what is reported of them has changed, or not all were told.
    open: BTreeSet<Arc<str>>,
    /// Clusters that have connected, or are gone.
    moved: BTreeSet<Arc<str>>,
}

impl Appointer {
    /// As it was kept. Who collects keeps the age of its figures, and has one more reading at least to report: a hub that
    /// starts often would otherwise wait for ever for a collector that is away.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn start(hub: Arc<Hub>, store: Arc<dyn HubStore>) -> anyhow::Result<Appointer> {
        let now = Moment::now();
        let mut standing: BTreeMap<Arc<str>, Standing> = BTreeMap::new();
        let mut intervals = HashMap::new();
        for kept in store.collectors().await? {
            let id: Arc<str> = kept.restic_id.as_str().into();
            hub.change(|inventory| inventory.appointed(&id, &kept.cluster, kept.epoch));
            let cluster = kept.cluster.as_str().into();
            let of = Standing {
                cluster,
                epoch: kept.epoch,
                heard: now.steady,
            };
            standing.insert(id, of);
        }
        for StoredFigures {
            restic_id,
            cluster,
            at,
            report,
        } in store.collected().await?
        {
            let id: Arc<str> = restic_id.as_str().into();
            let between = between(&report);
            intervals.insert(id.clone(), between);
            if let Some(of) = standing.get_mut(&id).filter(|of| *of.cluster == *cluster) {
                of.heard = heard(now, between.clamp(INTERVALS.0, INTERVALS.1), at);
            }
            let latest = Latest { cluster, at, report };
            hub.change(|inventory| inventory.collect(&id, latest));
        }
        Ok(Appointer {
            hub,
            store,
            standing,
            intervals,
            sessions: HashMap::new(),
            reported: BTreeMap::new(),
            looked: None,
            open: BTreeSet::new(),
            moved: BTreeSet::new(),
        })
    }

    /// Works until `stop`.
    ///
    /// # Errors
    /// When another process has taken the store over.
    pub async fn keep(
        mut self,
        mut commands: mpsc::Receiver<Command>,
        stop: CancellationToken,
    ) -> Result<(), StoreError> {
        let mut tick = interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut rounds = 0u64;
        loop {
            let done = tokio::select! {
                command = commands.recv() => match command {
                    Some(command) => self.take(command).await,
                    None => return Ok(()),
                },
                _ = tick.tick() => {
                    rounds = rounds.wrapping_add(1);
                    self.look(rounds.is_multiple_of(PRUNE)).await
                }
                () = stop.cancelled() => return Ok(()),
            };
            match done {
                Err(fenced) if fenced.is_fenced() => return Err(fenced),
                Err(error) => {
                    warn!(%error, "a collector or its figures could not be kept; it is tried again");
                    self.hub.metrics.store_failures.inc();
                }
                Ok(()) => {}
            }
        }
    }

    async fn take(&mut self, command: Command) -> Result<(), StoreError> {
        match command {
            Command::Attach {
                cluster,
                session,
                outgoing,
                collects,
            } => {
                let newer = |present: &Session| present.number > session;
                if !self.sessions.get(&cluster).is_some_and(newer) {
                    let present = Session {
                        number: session,
                        outgoing,
                        collects,
                        told: HashMap::new(),
                    };
                    self.moved.insert(cluster.clone());
                    self.sessions.insert(cluster, present);
                }
                Ok(())
            }
            Command::Detach { cluster, session } => {
                if self.is_present(&cluster, session) {
                    self.sessions.remove(&cluster);
                    self.moved.insert(cluster);
                }
                Ok(())
            }
            Command::Report {
                cluster,
                session,
                report,
            } => {
                if self.is_present(&cluster, session) {
                    self.report(&cluster, *report).await
                } else {
                    Ok(())
                }
            }
        }
    }

    fn is_present(&self, cluster: &Arc<str>, session: u64) -> bool {
        self.sessions
            .get(cluster)
            .is_some_and(|present| present.number == session)
    }

    /// Takes what was collected, if it is the present collector's.
    async fn report(&mut self, cluster: &Arc<str>, mut report: CollectorReport) -> Result<(), StoreError> {
        let id: Arc<str> = report.restic_id.as_str().into();
        let bound = self
            .hub
            .read(|inventory| inventory.bindings().is_bound(cluster, &id));
        let standing = self.standing.get_mut(&id);
        let present = standing.filter(|s| s.cluster == *cluster && s.epoch == report.epoch && bound);
        let Some(standing) = present else {
            self.hub
                .metrics
                .refused
                .with_label_values(&["report", "collector"])
                .inc();
            // It is told again who collects.
            if let Some(session) = self.sessions.get_mut(cluster) {
                session.told.remove(&id);
                self.open.insert(id);
            }
            return Ok(());
        };
        clean::report(&mut report);
        let moment = Moment::now();
        standing.heard = moment.steady;
        let age = Millis::try_from(report.age_ms).unwrap_or(Millis::MAX).min(AGE);
        let at = moment.wall - age;
        let statistics = report.statistics.get_or_insert_default();
        statistics.as_of = Some(from_unix_millis(at));
        self.intervals.insert(id.clone(), between(&report));
        let figures = StoredFigures {
            restic_id: id.to_string(),
            cluster: cluster.to_string(),
            at,
            report: report.clone(),
        };
        self.store.collect(figures).await?;
        let latest = Latest {
            cluster: cluster.to_string(),
            at,
            report,
        };
        self.hub.change(|inventory| inventory.collect(&id, latest));
        self.compare(&id).await;
        Ok(())
    }

    /// Whether the listing has what other clusters report; if not, the repository may be in two stores.
    async fn compare(&self, id: &Arc<str>) {
        let lacking = self.hub.read(|inventory| evidence::lacking(inventory, id));
        if let Some(suspect) = lacking {
            let command = lock::Command::Suspect(id.clone(), suspect);
            self.hub.locks.tell(command).await;
        }
    }
}

/// Time between two readings.
fn between(report: &CollectorReport) -> Millis {
    Millis::try_from(report.interval_ms).unwrap_or(HOUR)
}
