//! One watch: a collection as it is, and then what changes. A watch keeps no rows: what its viewer was shown is worked out
//! of a copy of the inventory, which shares all that has not changed since.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use prost::Message as _;
use proto::time::from_unix_millis;
use proto::v1::watch_event::Body;
use proto::v1::{Begin, Bookmark, Collection, Filter, Row, WatchEvent, WatchHeartbeat};
use sha2::{Digest as _, Sha256};
use tokio::sync::mpsc;
use tokio::time::{interval, sleep, timeout};
use tonic::Status;

use crate::access::{self, Need, Person, Principal, Sight, Verb};
use crate::hub::Hub;
use crate::inventory::Inventory;
use crate::metrics::Open;
use crate::query::Wanted;
use crate::seen::Seen;
use crate::{Millis, now, policies, restores, rows};

/// Events on their way to one viewer.
pub const BUFFER: usize = 64;
/// Changes within this time are one answer: nobody reads faster.
const COALESCE: Duration = Duration::from_millis(100);
/// A viewer that reads nothing for this long is let go: its copy of the inventory would keep everything as it was.
const PATIENCE: Duration = Duration::from_secs(60);

type Events = mpsc::Sender<Result<WatchEvent, Status>>;

/// One watch.
pub struct Watch {
    pub hub: Arc<Hub>,
    pub person: Arc<Person>,
    pub collection: Collection,
    pub filter: Wanted,
    pub start: Start,
    pub events: Events,
}

/// Where a watch begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// With everything.
    New,
    /// After a revision up to which its viewer knows everything.
    After(u64),
    /// With everything, as what its viewer knows is of another view.
    Anew,
}

impl Start {
    /// By what a viewer names, and the view that it gets now.
    #[must_use]
    pub fn of(after: u64, named: &[u8], view: &[u8]) -> Start {
        match (after, named == view) {
            (0, _) => Start::New,
            (after, true) => Start::After(after),
            (_, false) => Start::Anew,
        }
    }
}

/// Names what is seen by whom and through which filter.
#[must_use]
pub fn view(collection: Collection, filter: &Filter, sight: &Sight) -> Vec<u8> {
    let mut hash = Sha256::new();
    hash.update(i32::from(collection).to_be_bytes());
    hash.update(filter.encode_to_vec());
    hash.update(format!("{sight:?}"));
    hash.finalize().to_vec()
}

/// The viewer has gone, or does not read.
#[derive(Debug)]
pub struct Gone;

/// What a viewer was shown last.
struct Shown {
    inventory: Inventory,
    sight: Sight,
}

impl Watch {
    /// Until its viewer goes, or may not see anything any more.
    ///
    /// # Errors
    /// When the viewer has gone.
    pub async fn run(self) -> Result<(), Gone> {
        let _open = Open::count(&self.hub.metrics.watches);
        let mut revisions = self.hub.revisions();
        let mut rights = self.hub.authority.changes();
        let mut beat = interval(self.hub.watch_heartbeat);
        beat.reset();
        let mut sight = self.person.sight(Verb::See);
        let mut shown: Option<Shown> = None;
        loop {
            revisions.mark_unchanged();
            let bookmark = shown.as_ref().is_none_or(|shown| shown.sight != sight);
            let next = match shown.take() {
                None => self.begin(&sight).await?,
                shown => self.send(&sight, shown).await?,
            };
            let revision = next.inventory.revision();
            shown = Some(next);
            if bookmark {
                let view = view(self.collection, self.filter.of(), &sight);
                self.tell(revision, Body::Bookmark(Bookmark { view })).await?;
            }
            loop {
                let ends = self.person.until.map(|until| until.saturating_sub(now()));
                tokio::select! {
                    _ = beat.tick() => self.tell(revision, Body::Heartbeat(WatchHeartbeat {})).await?,
                    changed = revisions.changed() => {
                        if changed.is_err() {
                            return Ok(());
                        }
                        sleep(COALESCE).await;
                        break;
                    }
                    _ = rights.changed() => match self.rights() {
                        Err(status) => return self.end(status).await,
                        Ok(now) if now != sight => {
                            sight = now;
                            break;
                        }
                        Ok(_) => {}
                    },
                    () = ended(ends) => {
                        return self.end(Status::unauthenticated("the certificate or session has ended")).await;
                    }
                    () = self.events.closed() => return Ok(()),
                }
            }
        }
    }

    /// What the viewer may see by the rights of now.
    fn rights(&self) -> Result<Sight, Status> {
        let person = self.hub.authority.again(&self.person, now())?;
        access::allowed(&Principal::Person(person.clone()), Need::Verb(Verb::See))?;
        Ok(person.sight(Verb::See))
    }

    /// Sends what the viewer does not know.
    async fn begin(&self, sight: &Sight) -> Result<Shown, Gone> {
        if let Start::After(revision) = self.start
            && let Some(shown) = self.replay(sight, revision).await?
        {
            return Ok(shown);
        }
        if self.start != Start::New {
            let revision = self.hub.read(Inventory::revision);
            self.tell(revision, Body::Begin(Begin {})).await?;
        }
        self.send(sight, None).await
    }

    /// Sends what may have changed after a revision; `None` when that is too long ago, or of another start of the hub.
    async fn replay(&self, sight: &Sight, after: u64) -> Result<Option<Shown>, Gone> {
        let next = Shown {
            inventory: self.hub.snapshot(),
            sight: sight.clone(),
        };
        let revision = next.inventory.revision();
        let touched = next.inventory.changes().since(after, self.collection);
        let Some(touched) = touched.filter(|_| after <= revision) else {
            return Ok(None);
        };
        for key in touched {
            let row = row(Seen::new(&next.inventory, sight), self.collection, &key);
            let body = match row.filter(|row| self.filter.takes(row)) {
                Some(row) => Body::Upsert(row),
                // It may have been shown.
                None => Body::Removed(key.to_string()),
            };
            self.tell(revision, body).await?;
        }
        Ok(Some(next))
    }

    /// Sends what looks different from what was shown.
    async fn send(&self, sight: &Sight, shown: Option<Shown>) -> Result<Shown, Gone> {
        let next = Shown {
            inventory: self.hub.snapshot(),
            sight: sight.clone(),
        };
        let revision = next.inventory.revision();
        for key in touched(self.collection, &next, shown.as_ref()) {
            if let Some(body) = change(self.collection, &self.filter, &key, &next, shown.as_ref()) {
                self.tell(revision, body).await?;
            }
        }
        Ok(next)
    }

    async fn tell(&self, revision: u64, body: Body) -> Result<(), Gone> {
        self.put(Ok(event(revision, body))).await
    }

    async fn end(&self, status: Status) -> Result<(), Gone> {
        self.put(Err(status)).await
    }

    async fn put(&self, event: Result<WatchEvent, Status>) -> Result<(), Gone> {
        let sent = timeout(PATIENCE, self.events.send(event)).await;
        sent.map_err(|_| Gone)?.map_err(|_| Gone)
    }
}

/// After so many milliseconds; never for a certificate or session whose end is not known.
pub(crate) async fn ended(left: Option<Millis>) {
    match left {
        Some(left) => sleep(Duration::from_millis(u64::try_from(left).unwrap_or_default())).await,
        None => std::future::pending().await,
    }
}

/// What a viewer has to be sent about a row; `None` when it looks as it did.
fn change(
    collection: Collection,
    filter: &Wanted,
    key: &Arc<str>,
    next: &Shown,
    shown: Option<&Shown>,
) -> Option<Body> {
    let of = |shown: &Shown| {
        let row = row(Seen::new(&shown.inventory, &shown.sight), collection, key);
        row.filter(|row| filter.takes(row))
    };
    match (of(next), shown.and_then(of)) {
        (Some(row), before) if before.as_ref() != Some(&row) => Some(Body::Upsert(row)),
        (None, Some(_)) => Some(Body::Removed(key.to_string())),
        _ => None,
    }
}

/// Keys of the rows that may look different.
fn touched(collection: Collection, next: &Shown, shown: Option<&Shown>) -> BTreeSet<Arc<str>> {
    let known = shown.filter(|shown| shown.sight == next.sight);
    let changes = next.inventory.changes();
    let since = known.and_then(|known| changes.since(known.inventory.revision(), collection));
    // Too long ago, never, or by other rights: everything there is, and everything that was shown.
    since.unwrap_or_else(|| {
        let all = std::iter::once(next).chain(shown);
        all.flat_map(|shown| keys(Seen::new(&shown.inventory, &shown.sight), collection))
            .collect()
    })
}

fn keys(seen: Seen<'_>, collection: Collection) -> Vec<Arc<str>> {
    let index = seen.inventory.index();
    match collection {
        Collection::Clusters => seen.members().map(|member| member.name.clone()).collect(),
        Collection::Repositories => seen.repositories().cloned().collect(),
        Collection::Backups => seen.backups(&[]).map(|held| held.place.clone()).collect(),
        Collection::Policies => index.all_policies().map(|held| held.place.clone()).collect(),
        Collection::Restores => index.restores().map(|held| held.place.clone()).collect(),
        Collection::Unspecified => Vec::new(),
    }
}

/// The row of a key, if it is seen.
#[must_use]
pub fn row(seen: Seen<'_>, collection: Collection, key: &str) -> Option<Row> {
    let (inventory, index) = (seen.inventory, seen.inventory.index());
    match collection {
        Collection::Clusters => seen.member(key).map(|member| rows::cluster(seen, member)),
        Collection::Repositories => rows::repository(seen, key),
        Collection::Backups => {
            let held = index.backup(key).filter(|held| seen.held(held));
            held.map(|held| rows::backup(inventory, held))
        }
        Collection::Policies => {
            let held = index.policy(key).filter(|held| seen.held(held));
            held.map(|held| policies::row(inventory, held))
        }
        Collection::Restores => {
            let held = index.restore(key).filter(|held| seen.held(held));
            held.map(|held| restores::row(inventory, held))
        }
        Collection::Unspecified => None,
    }
}

fn event(revision: u64, body: Body) -> WatchEvent {
    WatchEvent {
        revision,
        as_of: Some(from_unix_millis(now())),
        body: Some(body),
    }
}

#[cfg(test)]
#[path = "watch_tests.rs"]
mod tests;
