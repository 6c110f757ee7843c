//! The hub, as a viewer sees it.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use prost_types::Timestamp;
use proto::v1::fleet_hub_client::FleetHubClient;
use proto::v1::fleet_view_client::FleetViewClient;
use proto::v1::{
    AcceptClusterRequest, AuditRequest, AuditResponse, DecideBindingRequest, DecidePlanRequest,
    ForgetClusterRequest, ForgetClusterResponse, HubBackupPart, HubBackupRequest, HistoryRequest, HistoryResponse, PauseRequest, ResumeRequest, ListRequest, LocksRequest,
    LocksResponse, PlansRequest, PlansResponse, ReleaseLockRequest, Row, StatusRequest, StatusResponse,
    WatchEvent, WatchRequest,
};
use tokio::time::timeout;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};
use tonic::{Response, Status, Streaming};

use crate::arguments::HubArguments;
use crate::failure::Failure;

/// A connection to the hub.
pub struct Client {
    hub: String,
    limit: Duration,
    view: FleetViewClient<Channel>,
    own: FleetHubClient<Channel>,
    /// The hub has answered a request on this connection, so it trusts the certificate.
    answered: AtomicBool,
}

/// All pages of a list.
pub struct Listing {
    pub revision: u64,
    pub as_of: Option<Timestamp>,
    pub rows: Vec<Row>,
}

impl Client {
    /// Connects within the time given.
    pub async fn connect(arguments: &HubArguments) -> Result<Client, Failure> {
        let hub = arguments
            .hub
            .clone()
            .ok_or(Failure::NotConfigured("FLEET_HUB", "hub"))?;
        let file = |path: &Option<PathBuf>, variable, flag| {
            let path = path.as_deref().ok_or(Failure::NotConfigured(variable, flag))?;
            read(path)
        };
        let tls = ClientTlsConfig::new()
            .ca_certificate(Certificate::from_pem(file(&arguments.ca, "FLEET_CA", "ca")?))
            .identity(Identity::from_pem(
                file(&arguments.cert, "FLEET_CERT", "cert")?,
                file(&arguments.key, "FLEET_KEY", "key")?,
            ))
            .domain_name(&arguments.server_name);
        let endpoint = Endpoint::from_shared(hub.clone())
            .ok()
            .filter(|_| hub.starts_with("https://"))
            .and_then(|endpoint| endpoint.tls_config(tls).ok())
            .ok_or_else(|| Failure::Address(hub.clone()))?;
        let endpoint = endpoint
            .connect_timeout(arguments.timeout)
            .http2_keep_alive_interval(Duration::from_secs(20))
            .keep_alive_timeout(Duration::from_secs(10));
        let channel = timeout(arguments.timeout, endpoint.connect())
            .await
            .map_err(|_| Failure::Timeout(hub.clone()))?;
        let channel = channel.map_err(|error| Failure::connecting(&error, &hub))?;
        Ok(Client {
            hub,
            limit: arguments.timeout,
            view: FleetViewClient::new(channel.clone()),
            own: FleetHubClient::new(channel),
            answered: AtomicBool::new(false),
        })
    }

    /// Every row that a request takes.
    pub async fn list(&mut self, mut request: ListRequest) -> Result<Listing, Failure> {
        let mut listing = Listing {
            revision: 0,
            as_of: None,
            rows: Vec::new(),
        };
        loop {
            let mut view = self.view.clone();
            let page = self.answer(view.list(request.clone())).await?;
            listing.revision = page.revision;
            listing.as_of = page.as_of;
            listing.rows.extend(page.rows);
            if page.next_page_token.is_empty() {
                return Ok(listing);
            }
            request.page_token = page.next_page_token;
        }
    }

    /// The verdict.
    pub async fn status(&mut self) -> Result<StatusResponse, Failure> {
        let mut view = self.view.clone();
        self.answer(view.status(StatusRequest {})).await
    }

    /// The answer to a question.
    async fn answer<T>(
        &self,
        question: impl Future<Output = Result<Response<T>, Status>>,
    ) -> Result<T, Failure> {
        let answer = timeout(self.limit, question).await;
        let answer = answer.map_err(|_| Failure::Timeout(self.hub.clone()))?;
        let answer = answer.map_err(|status| self.broken(&status))?;
        self.answered.store(true, Ordering::Relaxed);
        Ok(answer.into_inner())
    }

    /// Locks of repositories.
    pub async fn locks(&mut self, request: LocksRequest) -> Result<LocksResponse, Failure> {
        let mut view = self.view.clone();
        self.answer(view.locks(request)).await
    }

    /// Takes a lock back.
    pub async fn release_lock(&mut self, request: ReleaseLockRequest) -> Result<(), Failure> {
        let mut view = self.view.clone();
        self.answer(view.release_lock(request)).await.map(drop)
    }

    /// Removes a cluster, or asks what that would remove.
    pub async fn forget_cluster(
        &mut self,
        request: ForgetClusterRequest,
    ) -> Result<ForgetClusterResponse, Failure> {
        let mut view = self.view.clone();
        self.answer(view.forget_cluster(request)).await
    }

    /// Decides which of two clusters has a name.
    pub async fn accept_cluster(&mut self, request: AcceptClusterRequest) -> Result<(), Failure> {
        let mut view = self.view.clone();
        self.answer(view.accept_cluster(request)).await.map(drop)
    }

    /// Plans.
    pub async fn plans(&mut self, request: PlansRequest) -> Result<PlansResponse, Failure> {
        let mut view = self.view.clone();
        self.answer(view.plans(request)).await
    }

    /// Approves or rejects.
    pub async fn decide(&mut self, request: DecidePlanRequest) -> Result<(), Failure> {
        let mut view = self.view.clone();
        self.answer(view.decide_plan(request)).await.map(drop)
    }

    /// Who ran what.
    pub async fn audit(&mut self, request: AuditRequest) -> Result<AuditResponse, Failure> {
        let mut view = self.view.clone();
        self.answer(view.audit(request)).await
    }

    /// Decides about a cluster's part in a repository; the answer is what that means.
    pub async fn decide_binding(&mut self, request: DecideBindingRequest) -> Result<String, Failure> {
        let mut view = self.view.clone();
        let answer = self.answer(view.decide_binding(request)).await?;
        Ok(answer.effect)
    }

    /// A backup of the hub's store. The hub makes it before it answers, so the usual limit does not hold.
    pub async fn backup(&mut self) -> Result<Streaming<HubBackupPart>, Failure> {
        let answer = self.own.backup(HubBackupRequest {}).await;
        let answer = answer.map_err(|status| self.broken(&status))?;
        self.answered.store(true, Ordering::Relaxed);
        Ok(answer.into_inner())
    }

    /// Pauses all maintenance.
    pub async fn pause(&mut self, reason: String) -> Result<(), Failure> {
        let mut own = self.own.clone();
        self.answer(own.pause(PauseRequest { reason })).await.map(drop)
    }

    /// Ends the pause.
    pub async fn resume(&mut self) -> Result<(), Failure> {
        let mut own = self.own.clone();
        self.answer(own.resume(ResumeRequest {})).await.map(drop)
    }

    /// Figures of a repository over time.
    pub async fn history(&mut self, request: HistoryRequest) -> Result<HistoryResponse, Failure> {
        let mut view = self.view.clone();
        self.answer(view.history(request)).await
    }

    /// The next message of a stream that may stand still for no longer than an answer may take.
    pub async fn next<T>(&self, stream: &mut Streaming<T>) -> Result<Option<T>, Failure> {
        let next = timeout(self.limit, stream.message()).await;
        let next = next.map_err(|_| Failure::Timeout(self.hub.clone()))?;
        next.map_err(|status| self.broken(&status))
    }

    /// A watch.
    pub async fn watch(&mut self, request: WatchRequest) -> Result<Streaming<WatchEvent>, Failure> {
        let mut view = self.view.clone();
        self.answer(view.watch(request)).await
    }

    /// Failure of a request or a stream.
    pub fn broken(&self, status: &tonic::Status) -> Failure {
        Failure::of(status, &self.hub, self.answered.load(Ordering::Relaxed))
    }
}

fn read(path: &Path) -> Result<Vec<u8>, Failure> {
    std::fs::read(path).map_err(|error| Failure::File {
        path: path.display().to_string(),
        error,
    })
}
