//! FleetView: what viewers ask. Answers count from one revision, and are read from a copy of the inventory.

use std::pin::Pin;
use std::sync::Arc;

use futures::Stream;
use proto::time::from_unix_millis;
use proto::v1::fleet_view_server::FleetView;
use proto::v1::{
    AcceptClusterRequest, AcceptClusterResponse, ActivityRequest, ActivityResponse, AuditRequest,
    AuditResponse, Collection, CoverageRequest, CoverageResponse, DecideBindingRequest,
    DecideBindingResponse, DecidePlanRequest, DecidePlanResponse, FleetPause, ForgetClusterRequest,
    ForgetClusterResponse, GetRequest, GetResponse, HealthRequest, HealthResponse, HistoryRequest,
    HistoryResponse, ListRequest, ListResponse, LocksRequest, LocksResponse, PlansRequest, PlansResponse,
    ReleaseLockRequest, ReleaseLockResponse, StatusRequest, StatusResponse, StorageRequest, StorageResponse,
    WatchEvent, WatchRequest,
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use crate::access::{self, Verb};
use crate::collect::history::history;
use crate::hub::Hub;
use crate::inventory::Inventory;
use crate::lock::Command;
use crate::query::{self, QueryError, Wanted};
use crate::seen::Seen;
use crate::watch::{self, BUFFER, Start, Watch};
use crate::{activity, audit, clusters, coverage, get, status, storage, verdict, watcher};

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
        let list = move |inventory: &Inventory| query::list(Seen::new(inventory, &sight), &request);
        self.hub.look(list).await?.map(Response::new).map_err(refused)
    }

    async fn status(&self, request: Request<StatusRequest>) -> Result<Response<StatusResponse>, Status> {
        let sight = access::person(&request)?.sight(Verb::See);
        // Before the inventory is read: what is loaded afterwards is not in the answer.
        let loaded = self.hub.is_loaded();
        // All that it takes is kept.
        let everything = sight.is_everything();
        let delayed = self.hub.delayed();
        let answer = move |inventory: &Inventory| status::status(Seen::new(inventory, &sight), &delayed);
        let mut status = if everything {
            answer(&self.hub.snapshot())
        } else {
            self.hub.look(answer).await?
        };
        if !loaded {
            verdict::LOADING.0.clone_into(&mut status.verdict);
            verdict::LOADING.1.clone_into(&mut status.reason);
        }
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

    async fn get(&self, request: Request<GetRequest>) -> Result<Response<GetResponse>, Status> {
        let person = access::person(&request)?;
        get::get(&self.hub, &person, request.get_ref())
            .await
            .map(Response::new)
    }

    async fn activity(
        &self,
        request: Request<ActivityRequest>,
    ) -> Result<Response<ActivityResponse>, Status> {
        let person = access::person(&request)?;
        activity::activity(&self.hub, &person, request.get_ref())
            .await
            .map(Response::new)
    }

    async fn health(&self, request: Request<HealthRequest>) -> Result<Response<HealthResponse>, Status> {
        let person = access::person(&request)?;
        Ok(Response::new(watcher::health(&self.hub, &person).await))
    }

    async fn coverage(
        &self,
        request: Request<CoverageRequest>,
    ) -> Result<Response<CoverageResponse>, Status> {
        let sight = access::person(&request)?.sight(Verb::See);
        let request = request.into_inner();
        let answer = move |inventory: &Inventory| coverage::coverage(Seen::new(inventory, &sight), &request);
        self.hub.look(answer).await?.map(Response::new).map_err(refused)
    }

    async fn storage(&self, request: Request<StorageRequest>) -> Result<Response<StorageResponse>, Status> {
        let person = access::person(&request)?;
        storage::storage(&self.hub, &person, request.into_inner())
            .await
            .map(Response::new)
    }

    async fn watch(&self, request: Request<WatchRequest>) -> Result<Response<Self::WatchStream>, Status> {
        let person = access::person(&request)?;
        let WatchRequest {
            filter, after, view, ..
        } = request.get_ref().clone();
        let collection = request.get_ref().collection();
        if collection == Collection::Unspecified {
            return Err(refused(QueryError::Collection));
        }
        let filter = filter.unwrap_or_default();
        let sight = person.sight(Verb::See);
        let inventory = self.hub.snapshot();
        query::check_filter(Seen::new(&inventory, &sight), collection, &filter).map_err(refused)?;
        drop(inventory);
        let (events, stream) = mpsc::channel(BUFFER);
        let hub = self.hub.clone();
        let watch = Watch {
            hub,
            person,
            collection,
            start: Start::of(after, &view, &watch::view(collection, &filter, &sight)),
            filter: Wanted::new(filter),
            events,
        };
        tokio::spawn(async move {
            // An error means that the viewer has gone.
            let _ = watch.run().await;
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(stream))))
    }
}

fn refused(error: QueryError) -> Status {
    Status::invalid_argument(error.to_string())
}
