//! FleetView: what viewers ask. Answers count from one revision; watches coalesce by row, so a slow reader costs a set
//! of keys and nothing more.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::Arc;

use futures::Stream;
use proto::time::from_unix_millis;
use proto::v1::fleet_view_server::FleetView;
use proto::v1::watch_event::Body;
use proto::v1::{
    AcceptClusterRequest, AcceptClusterResponse, AuditRequest, AuditResponse, Bookmark, Collection,
    DecideBindingRequest, DecideBindingResponse, DecidePlanRequest, DecidePlanResponse, Filter, FleetPause,
    ForgetClusterRequest, ForgetClusterResponse, HistoryRequest, HistoryResponse, ListRequest, ListResponse,
    LocksRequest, LocksResponse, PlansRequest, PlansResponse, ReleaseLockRequest, ReleaseLockResponse, Row,
    StatusRequest, StatusResponse, WatchEvent, WatchHeartbeat, WatchRequest,
};
use tokio::sync::mpsc;
use tokio::time::{Duration, interval, sleep};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use crate::access::{self, Need, Person, Principal, Sight, Verb};
use crate::collect::history::history;
use crate::hub::Hub;
use crate::inventory::Inventory;
use crate::lock::Command;
use crate::metrics::Open;
use crate::query::{self, QueryError};
use crate::seen::Seen;
use crate::{Millis, audit, clusters, now, rows, status};

/// Events on their way to one viewer; the rest waits as keys.
const BUFFER: usize = 64;
/// Changes within this time are one answer: nobody reads faster.
const COALESCE: Duration = Duration::from_millis(100);

/// The service.
pub struct ViewService {
    hub: Arc<Hub>,
}

impl ViewService {
    /// A service on a hub.
    #[must_use]
    pub fn new(hub: Arc<Hub>) -> ViewService {
        ViewService { hub }
    }
}

#[tonic::async_trait]
impl FleetView for ViewService {
    type WatchStream = Pin<Box<dyn Stream<Item = Result<WatchEvent, Status>> + Send>>;

    async fn list(&self, request: Request<ListRequest>) -> Result<Response<ListResponse>, Status> {
        let sight = access::person(&request)?.sight(Verb::See);
        let request = request.into_inner();
        self.hub
            .read(|inventory| query::list(Seen::new(inventory, &sight), &request))
            .map(Response::new)
            .map_err(refused)
    }

    async fn status(&self, request: Request<StatusRequest>) -> Result<Response<StatusResponse>, Status> {
        let sight = access::person(&request)?.sight(Verb::See);
        let answer = |inventory: &Inventory| status::status(Seen::new(inventory, &sight));
        let mut status = self.hub.read(answer);
        status.pause = self.hub.paused().map(|pause| FleetPause {
            since: Some(from_unix_millis(pause.since)),
            who: pause.who,
            reason: pause.reason,
        });
        Ok(Response::new(status))
    }

    async fn locks(&self, request: Request<LocksRequest>) -> Result<Response<LocksResponse>, Status> {
        let sight = access::person(&request)?.sight(Verb::See);
        let request = request.into_inner();
        let asked = self.hub.locks.ask(|reply| Command::Locks(request, sight, reply));
        Ok(Response::new(asked.await?))
    }

    async fn release_lock(
        &self,
        request: Request<ReleaseLockRequest>,
    ) -> Result<Response<ReleaseLockResponse>, Status> {
        let person = access::person(&request)?;
        let request = request.into_inner();
        let asked = self
            .hub
            .locks
            .ask(|reply| Command::Revoke(request, person, reply));
        asked.await??;
        Ok(Response::new(ReleaseLockResponse {}))
    }

    async fn plans(&self, request: Request<PlansRequest>) -> Result<Response<PlansResponse>, Status> {
        let sight = access::person(&request)?.sight(Verb::See);
        let request = request.into_inner();
        let asked = self.hub.locks.ask(|reply| Command::Plans(request, sight, reply));
        Ok(Response::new(asked.await??))
    }

    async fn decide_plan(
        &self,
        request: Request<DecidePlanRequest>,
    ) -> Result<Response<DecidePlanResponse>, Status> {
        let person = access::person(&request)?;
        let request = request.into_inner();
        let asked = self
            .hub
            .locks
            .ask(|reply| Command::Decide(request, person, reply));
        asked.await??;
        Ok(Response::new(DecidePlanResponse {}))
    }

    async fn audit(&self, request: Request<AuditRequest>) -> Result<Response<AuditResponse>, Status> {
        let person = access::person(&request)?;
        let answer = audit::audit(&self.hub, request.get_ref(), &person).await?;
        Ok(Response::new(answer))
    }

    async fn decide_binding(
        &self,
        request: Request<DecideBindingRequest>,
    ) -> Result<Response<DecideBindingResponse>, Status> {
        let person = access::person(&request)?;
        let request = request.into_inner();
        let asked = self.hub.locks.ask(|reply| Command::Bind(request, person, reply));
        let effect = asked.await??;
        Ok(Response::new(DecideBindingResponse { effect }))
    }

    async fn forget_cluster(
        &self,
        request: Request<ForgetClusterRequest>,
    ) -> Result<Response<ForgetClusterResponse>, Status> {
        let person = access::person(&request)?;
        let ForgetClusterRequest { cluster, confirm } = request.into_inner();
        let answer = clusters::forget(&self.hub, &cluster, confirm, &person).await?;
        Ok(Response::new(answer))
    }

    async fn accept_cluster(
        &self,
        request: Request<AcceptClusterRequest>,
    ) -> Result<Response<AcceptClusterResponse>, Status> {
        let person = access::person(&request)?;
        let AcceptClusterRequest { cluster, cluster_uid } = request.into_inner();
        clusters::accept(&self.hub, &cluster, &cluster_uid, &person).await?;
        Ok(Response::new(AcceptClusterResponse {}))
    }

    async fn history(&self, request: Request<HistoryRequest>) -> Result<Response<HistoryResponse>, Status> {
        let person = access::person(&request)?;
        history(&self.hub, &person, request.get_ref())
            .await
            .map(Response::new)
    }

    async fn watch(&self, request: Request<WatchRequest>) -> Result<Response<Self::WatchStream>, Status> {
        let person = access::person(&request)?;
        let WatchRequest { filter, .. } = request.get_ref().clone();
        let collection = request.get_ref().collection();
        if collection == Collection::Unspecified {
            return Err(refused(QueryError::Collection));
        }
        let filter = filter.unwrap_or_default();
        let sight = person.sight(Verb::See);
        self.hub
            .read(|inventory| query::check_filter(Seen::new(inventory, &sight), collection, &filter))
            .map_err(refused)?;
        let (events, stream) = mpsc::channel(BUFFER);
        let hub = self.hub.clone();
        let watch = Watch {
            hub,
            person,
            collection,
            filter,
            events,
        };
        tokio::spawn(async move {
            // An error means that the viewer has gone.
            let _ = watch.run().await;
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(stream))))
    }
}

type Events = mpsc::Sender<Result<WatchEvent, Status>>;

/// One watch.
struct Watch {
    hub: Arc<Hub>,
    person: Arc<Person>,
    collection: Collection,
    filter: Filter,
    events: Events,
}

type Gone = mpsc::error::SendError<Result<WatchEvent, Status>>;

impl Watch {
    /// Until its viewer goes, or may not see anything any more.
    async fn run(self) -> Result<(), Gone> {
        let _open = Open::count(&self.hub.metrics.watches);
        let mut revisions = self.hub.revisions();
        let mut rights = self.hub.authority.changes();
        let mut beat = interval(self.hub.watch_heartbeat);
        beat.reset();
        let mut sight = self.person.sight(Verb::See);
        // What the viewer has been shown, by key.
        let mut shown: BTreeMap<String, Row> = BTreeMap::new();
        let (mut revision, mut first) = (0, true);
        loop {
            revisions.mark_unchanged();
            revision = self.send(&sight, revision, &mut shown).await?;
            if std::mem::take(&mut first) {
                self.tell(revision, Body::Bookmark(Bookmark {})).await?;
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
                        Err(status) => return self.events.send(Err(status)).await,
                        Ok(now) if now != sight => {
                            // Everything is compared with what was shown.
                            (sight, revision) = (now, 0);
                            break;
                        }
                        Ok(_) => {}
                    },
                    () = ended(ends) => {
                        let status = Status::unauthenticated("the certificate or session has ended");
                        return self.events.send(Err(status)).await;
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

    /// Sends what has changed since a revision; the answer is the present one.
    async fn send(&self, sight: &Sight, since: u64, shown: &mut BTreeMap<String, Row>) -> Result<u64, Gone> {
        let (revision, changes) = self.hub.read(|inventory| {
            let seen = Seen::new(inventory, sight);
            (
                inventory.revision(),
                difference(seen, self.collection, &self.filter, since, shown),
            )
        });
        for (key, row) in changes {
            let body = match row {
                Some(row) => {
                    shown.insert(key, row.clone());
                    Body::Upsert(row)
                }
                None => {
                    shown.remove(&key);
                    Body::Removed(key)
                }
            };
            self.tell(revision, body).await?;
        }
        Ok(revision)
    }

    async fn tell(&self, revision: u64, body: Body) -> Result<(), Gone> {
        self.events.send(Ok(event(revision, body))).await
    }
}

/// After so many milliseconds; never for a certificate or session whose end is not known.
pub(crate) async fn ended(left: Option<Millis>) {
    match left {
        Some(left) => sleep(Duration::from_millis(u64::try_from(left).unwrap_or_default())).await,
        None => std::future::pending().await,
    }
}

/// Rows that look different from what was shown at `since`; `None` for those that are no longer to be shown.
fn difference(
    seen: Seen<'_>,
    collection: Collection,
    filter: &Filter,
    since: u64,
    shown: &BTreeMap<String, Row>,
) -> Vec<(String, Option<Row>)> {
    let touched: Vec<String> = match seen.inventory.changes().since(since, collection) {
        Some(keys) => keys.iter().map(|key| key.to_string()).collect(),
        // Too long ago, or never: everything there is, and everything that was shown.
        None => all(seen, collection)
            .into_iter()
            .chain(shown.keys().cloned())
            .collect(),
    };
    let mut changes = Vec::new();
    for key in touched {
        let row = row(seen, collection, &key).filter(|row| query::takes(filter, row));
        match (row, shown.get(&key)) {
            (Some(row), before) if before != Some(&row) => changes.push((key, Some(row))),
            (None, Some(_)) => changes.push((key, None)),
            _ => {}
        }
    }
    changes
}

fn all(seen: Seen<'_>, collection: Collection) -> Vec<String> {
    match collection {
        Collection::Clusters => seen.members().map(|member| member.name.to_string()).collect(),
        Collection::Repositories => seen.repositories().map(|key| key.to_string()).collect(),
        Collection::Backups => seen.backups(&[]).map(|held| held.place.to_string()).collect(),
        Collection::Unspecified => Vec::new(),
    }
}

fn row(seen: Seen<'_>, collection: Collection, key: &str) -> Option<Row> {
    match collection {
        Collection::Clusters => seen.member(key).map(|member| rows::cluster(seen, member)),
        Collection::Repositories => rows::repository(seen, key),
        Collection::Backups => seen
            .inventory
            .index()
            .backup(key)
            .filter(|held| seen.held(held))
            .map(|held| rows::backup(seen.inventory, held)),
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

fn refused(error: QueryError) -> Status {
    Status::invalid_argument(error.to_string())
}
