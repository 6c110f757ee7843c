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

use crate::collect::history::history;
use crate::hub::Hub;
use crate::inventory::Inventory;
use crate::lock::Command;
use crate::metrics::Open;
use crate::query::{self, QueryError};
use crate::{clusters, identity, now, rows, status};

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
        identity::viewer(&request)?;
        let request = request.into_inner();
        self.hub
            .read(|inventory| query::list(inventory, &request))
            .map(Response::new)
            .map_err(refused)
    }

    async fn status(&self, request: Request<StatusRequest>) -> Result<Response<StatusResponse>, Status> {
        identity::viewer(&request)?;
        let mut status = self.hub.read(status::status);
        status.pause = self.hub.paused().map(|pause| FleetPause {
            since: Some(from_unix_millis(pause.since)),
            who: pause.who,
            reason: pause.reason,
        });
        Ok(Response::new(status))
    }

    async fn locks(&self, request: Request<LocksRequest>) -> Result<Response<LocksResponse>, Status> {
        identity::viewer(&request)?;
        let request = request.into_inner();
        let answer = self.hub.locks.ask(|reply| Command::Locks(request, reply)).await?;
        Ok(Response::new(answer))
    }

    async fn release_lock(
        &self,
        request: Request<ReleaseLockRequest>,
    ) -> Result<Response<ReleaseLockResponse>, Status> {
        let who = identity::operator(&request)?;
        let request = request.into_inner();
        self.hub
            .locks
            .ask(|reply| Command::Revoke(request, who, reply))
            .await??;
        Ok(Response::new(ReleaseLockResponse {}))
    }

    async fn plans(&self, request: Request<PlansRequest>) -> Result<Response<PlansResponse>, Status> {
        identity::viewer(&request)?;
        let request = request.into_inner();
        let answer = self
            .hub
            .locks
            .ask(|reply| Command::Plans(request, reply))
            .await??;
        Ok(Response::new(answer))
    }

    async fn decide_plan(
        &self,
        request: Request<DecidePlanRequest>,
    ) -> Result<Response<DecidePlanResponse>, Status> {
        let who = identity::operator(&request)?;
        let request = request.into_inner();
        self.hub
            .locks
            .ask(|reply| Command::Decide(request, who, reply))
            .await??;
        Ok(Response::new(DecidePlanResponse {}))
    }

    async fn audit(&self, request: Request<AuditRequest>) -> Result<Response<AuditResponse>, Status> {
        identity::viewer(&request)?;
        let request = request.into_inner();
        let answer = self
            .hub
            .locks
            .ask(|reply| Command::Audit(request, reply))
            .await??;
        Ok(Response::new(answer))
    }

    async fn decide_binding(
        &self,
        request: Request<DecideBindingRequest>,
    ) -> Result<Response<DecideBindingResponse>, Status> {
        let who = identity::operator(&request)?;
        let request = request.into_inner();
        let effect = self
            .hub
            .locks
            .ask(|reply| Command::Bind(request, who, reply))
            .await??;
        Ok(Response::new(DecideBindingResponse { effect }))
    }

    async fn forget_cluster(
        &self,
        request: Request<ForgetClusterRequest>,
    ) -> Result<Response<ForgetClusterResponse>, Status> {
        let who = identity::operator(&request)?;
        let ForgetClusterRequest { cluster, confirm } = request.into_inner();
        clusters::forget(&self.hub, &cluster, confirm, &who)
            .await
            .map(Response::new)
    }

    async fn accept_cluster(
        &self,
        request: Request<AcceptClusterRequest>,
    ) -> Result<Response<AcceptClusterResponse>, Status> {
        let who = identity::operator(&request)?;
        let AcceptClusterRequest { cluster, cluster_uid } = request.into_inner();
        clusters::accept(&self.hub, &cluster, &cluster_uid, &who).await?;
        Ok(Response::new(AcceptClusterResponse {}))
    }

    async fn history(&self, request: Request<HistoryRequest>) -> Result<Response<HistoryResponse>, Status> {
        identity::viewer(&request)?;
        history(&self.hub, request.get_ref()).await.map(Response::new)
    }

    async fn watch(&self, request: Request<WatchRequest>) -> Result<Response<Self::WatchStream>, Status> {
        identity::viewer(&request)?;
        let WatchRequest { filter, .. } = request.get_ref().clone();
        let collection = request.get_ref().collection();
        if collection == Collection::Unspecified {
            return Err(refused(QueryError::Collection));
        }
        let filter = filter.unwrap_or_default();
        self.hub
            .read(|inventory| query::check_filter(inventory, collection, &filter))
            .map_err(refused)?;
        let (events, stream) = mpsc::channel(BUFFER);
        let hub = self.hub.clone();
        tokio::spawn(async move {
            // An error means that the viewer has gone.
            let _ = watch(&hub, collection, filter, &events).await;
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(stream))))
    }
}

type Events = mpsc::Sender<Result<WatchEvent, Status>>;

/// One watch, until its viewer goes.
async fn watch(
    hub: &Hub,
    collection: Collection,
    filter: Filter,
    events: &Events,
) -> Result<(), mpsc::error::SendError<Result<WatchEvent, Status>>> {
    let _open = Open::count(&hub.metrics.watches);
    let mut revisions = hub.revisions();
    let mut beat = interval(hub.watch_heartbeat);
    beat.reset();
    // What the viewer has been shown, by key.
    let mut shown: BTreeMap<String, Row> = BTreeMap::new();
    let mut revision = 0;
    let mut first = true;
    loop {
        revisions.mark_unchanged();
        let (at, changes) = hub.read(|inventory| {
            (
                inventory.revision(),
                difference(inventory, collection, &filter, revision, &shown),
            )
        });
        revision = at;
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
            events.send(Ok(event(revision, body))).await?;
        }
        if first {
            first = false;
            events
                .send(Ok(event(revision, Body::Bookmark(Bookmark {}))))
                .await?;
        }
        loop {
            tokio::select! {
                _ = beat.tick() => events.send(Ok(event(revision, Body::Heartbeat(WatchHeartbeat {})))).await?,
                changed = revisions.changed() => {
                    if changed.is_err() {
                        return Ok(());
                    }
                    sleep(COALESCE).await;
                    break;
                }
                () = events.closed() => return Ok(()),
            }
        }
    }
}

/// Rows that look different from what was shown at `since`; `None` for those that are no longer to be shown.
fn difference(
    inventory: &Inventory,
    collection: Collection,
    filter: &Filter,
    since: u64,
    shown: &BTreeMap<String, Row>,
) -> Vec<(String, Option<Row>)> {
    let touched: Vec<String> = match inventory.changes().since(since, collection) {
        Some(keys) => keys.iter().map(|key| key.to_string()).collect(),
        // Too long ago, or never: everything there is, and everything that was shown.
        None => all(inventory, collection)
            .into_iter()
            .chain(shown.keys().cloned())
            .collect(),
    };
    let mut changes = Vec::new();
    for key in touched {
        let row = row(inventory, collection, &key).filter(|row| query::takes(filter, row));
        match (row, shown.get(&key)) {
            (Some(row), before) if before != Some(&row) => changes.push((key, Some(row))),
            (None, Some(_)) => changes.push((key, None)),
            _ => {}
        }
    }
    changes
}

fn all(inventory: &Inventory, collection: Collection) -> Vec<String> {
    match collection {
        Collection::Clusters => inventory
            .members()
            .map(|member| member.name.to_string())
            .collect(),
        Collection::Repositories => inventory
            .index()
            .repositories()
            .map(|key| key.to_string())
            .collect(),
        Collection::Backups => inventory
            .index()
            .backups(&[])
            .map(|held| held.place.to_string())
            .collect(),
        Collection::Unspecified => Vec::new(),
    }
}

fn row(inventory: &Inventory, collection: Collection, key: &str) -> Option<Row> {
    match collection {
        Collection::Clusters => inventory
            .member(key)
            .map(|member| rows::cluster(inventory, member)),
        Collection::Repositories => rows::repository(inventory, key),
        Collection::Backups => inventory
            .index()
            .backup(key)
            .map(|held| rows::backup(inventory, held)),
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
