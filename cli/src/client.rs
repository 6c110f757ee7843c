//! The hub, as a viewer sees it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use prost_types::Timestamp;
use proto::v1::fleet_admin_client::FleetAdminClient;
use proto::v1::fleet_clusters_client::FleetClustersClient;
use proto::v1::fleet_control_client::FleetControlClient;
use proto::v1::fleet_hub_client::FleetHubClient;
use proto::v1::fleet_view_client::FleetViewClient;
use proto::v1::{
    AcceptClusterRequest, ActivityRequest, ActivityResponse, AuditRequest, AuditResponse, AuthoritiesRequest,
    BeginLoginRequest, BeginLoginResponse, BindRequest, Collection, CreateLoginRequest, CreateLoginResponse,
    DecideBindingRequest, DecidePlanRequest, ForgetClusterRequest, ForgetClusterResponse, GetRequest,
    GetResponse, HealthRequest, HealthResponse, HistoryRequest, HistoryResponse, HubBackupPart,
    HubBackupRequest, InviteRequest, InviteResponse, KeepBackupRequest, ListBindingsRequest,
    ListBindingsResponse, ListRequest, ListResponse, LocksRequest, LocksResponse, LoginRequest,
    LoginResponse, LogoutRequest, ManifestPart, ManifestsRequest, PauseFleetRequest, PlansRequest,
    PlansResponse, ReleaseLockRequest, ResumeFleetRequest, RevokeCertificateRequest, RevokeRequest, Row,
    StatusRequest, StatusResponse, UnbindRequest, VerifyAuditRequest, VerifyAuditResponse, WatchEvent,
    WatchRequest, WhoAmIRequest, WhoAmIResponse,
};
use tokio::time::timeout;
use tonic::{Code, Response, Status, Streaming};

use crate::arguments::HubArguments;
use crate::authorities::Trusted;
use crate::connection::{Authorized, Connection, connect};
use crate::failure::Failure;

/// A connection to the hub.
pub struct Client {
    hub: String,
    limit: Duration,
    view: FleetViewClient<Authorized>,
    own: FleetHubClient<Authorized>,
    admin: FleetAdminClient<Authorized>,
    pub(crate) clusters: FleetClustersClient<Authorized>,
    control: FleetControlClient<Authorized>,
    trusted: Trusted,
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
        Client::open(Connection::chosen(arguments)?, arguments.timeout).await
    }

    /// Connects within the time given.
    pub async fn open(connection: Connection, limit: Duration) -> Result<Client, Failure> {
        let (hub, trusted) = (connection.hub.clone(), Trusted::of(&connection));
        let (channel, session) = connect(connection, limit).await?;
        Ok(Client {
            hub,
            limit,
            view: FleetViewClient::with_interceptor(channel.clone(), session.clone()),
            own: FleetHubClient::with_interceptor(channel.clone(), session.clone()),
            admin: FleetAdminClient::with_interceptor(channel.clone(), session.clone()),
            clusters: FleetClustersClient::with_interceptor(channel.clone(), session.clone()),
            control: FleetControlClient::with_interceptor(channel, session),
            trusted,
            answered: AtomicBool::new(false),
        })
    }

    /// Address of the hub, as it is reached.
    pub fn address(&self) -> &str {
        &self.hub
    }

    /// Host of the hub, as it is reached.
    pub fn host(&self) -> String {
        let uri = self.hub.parse::<tonic::transport::Uri>().ok();
        let host = uri.as_ref().and_then(|uri| uri.host());
        host.unwrap_or_default().to_owned()
    }

    /// One page of a list.
    pub async fn page(&mut self, request: ListRequest) -> Result<ListResponse, Failure> {
        let mut view = self.view.clone();
        self.answer(view.list(request)).await
    }

    /// Every row that a request takes.
    pub async fn list(&mut self, mut request: ListRequest) -> Result<Listing, Failure> {
        let mut listing = Listing {
            revision: 0,
            as_of: None,
            rows: Vec::new(),
        };
        loop {
            let page = self.page(request.clone()).await?;
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

    /// What of the fleet is read.
    pub(crate) fn view(&self) -> FleetViewClient<Authorized> {
        self.view.clone()
    }

    /// One object with all that is known of it; `None` for what is not there, or not seen.
    pub async fn get(&mut self, collection: Collection, key: &str) -> Result<Option<GetResponse>, Failure> {
        let mut view = self.view.clone();
        let request = GetRequest {
            collection: collection.into(),
            key: key.to_owned(),
        };
        let found = async move {
            match view.get(request).await {
                Ok(answer) => Ok(answer.map(Some)),
                Err(status) if status.code() == Code::NotFound => Ok(Response::new(None)),
                Err(status) => Err(status),
            }
        };
        self.answer(found).await
    }

    /// What happened in the fleet.
    pub async fn activity(&mut self, request: ActivityRequest) -> Result<ActivityResponse, Failure> {
        let mut view = self.view.clone();
        self.answer(view.activity(request)).await
    }

    /// Whether the hub itself is well.
    pub async fn health(&mut self) -> Result<HealthResponse, Failure> {
        let mut view = self.view.clone();
        self.answer(view.health(HealthRequest {})).await
    }

    /// What makes clusters do something.
    pub(crate) fn control(&self) -> FleetControlClient<Authorized> {
        self.control.clone()
    }

    /// The answer to a question.
    pub(crate) async fn answer<T>(
        &self,
        question: impl Future<Output = Result<Response<T>, Status>>,
    ) -> Result<T, Failure> {
        let answer = timeout(self.limit, question).await;
        let answer = answer.map_err(|_| Failure::Timeout(self.hub.clone()))?;
        let answer = answer.map_err(|status| self.broken(&status))?;
        self.answered.store(true, Ordering::Relaxed);
        let heeded = self
            .trusted
            .heed(answer.metadata(), &self.admin, &self.hub, self.limit);
        heeded.await;
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

    /// The backup with this digest is on disk. A hub of an earlier version has counted it when it was made.
    pub async fn keep_backup(&mut self, sha256: Vec<u8>) -> Result<(), Failure> {
        let mut own = self.own.clone();
        let kept = async move {
            match own.keep_backup(KeepBackupRequest { sha256 }).await {
                Err(status) if status.code() == Code::Unimplemented => Ok(Response::new(())),
                answer => answer.map(|answer| answer.map(drop)),
            }
        };
        self.answer(kept).await
    }

    /// What a cluster's resources are made again of.
    pub async fn manifests(&mut self, request: ManifestsRequest) -> Result<Streaming<ManifestPart>, Failure> {
        let mut own = self.own.clone();
        self.answer(own.manifests(request)).await
    }

    /// Pauses all maintenance.
    pub async fn pause(&mut self, reason: String) -> Result<(), Failure> {
        let mut own = self.own.clone();
        self.answer(own.pause(PauseFleetRequest { reason }))
            .await
            .map(drop)
    }

    /// Ends the pause.
    pub async fn resume(&mut self) -> Result<(), Failure> {
        let mut own = self.own.clone();
        self.answer(own.resume(ResumeFleetRequest {})).await.map(drop)
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

    /// Begins a login at the issuer that the hub trusts: in a browser that comes back to `redirect`, or by the device flow
    /// without.
    pub async fn begin_login(&mut self, redirect: &str) -> Result<BeginLoginResponse, Failure> {
        let mut admin = self.admin.clone();
        let redirect = redirect.to_owned();
        self.answer(admin.begin_login(BeginLoginRequest { redirect }))
            .await
    }

    /// The authorities that certificates of the hub are of, DER.
    pub async fn authorities(&mut self) -> Result<Vec<Vec<u8>>, Failure> {
        let mut admin = self.admin.clone();
        let answer = self
            .answer(admin.authorities(AuthoritiesRequest::default()))
            .await?;
        Ok(answer.authorities)
    }

    /// Refuses certificates of a person.
    pub async fn revoke_certificate(&mut self, request: RevokeCertificateRequest) -> Result<(), Failure> {
        let mut admin = self.admin.clone();
        self.answer(admin.revoke_certificate(request)).await.map(drop)
    }

    /// Exchanges a login token, or a login that was confirmed, for a session.
    pub async fn login(&mut self, request: LoginRequest) -> Result<LoginResponse, Failure> {
        let mut admin = self.admin.clone();
        self.answer(admin.login(request)).await
    }

    /// Ends the session.
    pub async fn logout(&mut self) -> Result<(), Failure> {
        let mut admin = self.admin.clone();
        self.answer(admin.logout(LogoutRequest {})).await.map(drop)
    }

    /// Who the hub takes this client for.
    pub async fn who_am_i(&mut self) -> Result<WhoAmIResponse, Failure> {
        let mut admin = self.admin.clone();
        self.answer(admin.who_am_i(WhoAmIRequest {})).await
    }

    /// Makes a login token.
    pub async fn invite(&mut self, request: InviteRequest) -> Result<InviteResponse, Failure> {
        let mut admin = self.admin.clone();
        self.answer(admin.invite(request)).await
    }

    /// Makes a login token for the person itself.
    pub async fn create_login(&mut self) -> Result<CreateLoginResponse, Failure> {
        let mut admin = self.admin.clone();
        self.answer(admin.create_login(CreateLoginRequest {})).await
    }

    /// Rights that are bound, and sessions.
    pub async fn bindings(&mut self) -> Result<ListBindingsResponse, Failure> {
        let mut admin = self.admin.clone();
        self.answer(admin.list_bindings(ListBindingsRequest {})).await
    }

    /// Gives rights; the answer is the id of the binding.
    pub async fn bind(&mut self, request: BindRequest) -> Result<u64, Failure> {
        let mut admin = self.admin.clone();
        let answer = self.answer(admin.bind(request)).await?;
        Ok(answer.id)
    }

    /// Takes rights away.
    pub async fn unbind(&mut self, request: UnbindRequest) -> Result<(), Failure> {
        let mut admin = self.admin.clone();
        self.answer(admin.unbind(request)).await.map(drop)
    }

    /// Ends the sessions of a person; the answer is how many there were.
    pub async fn revoke(&mut self, request: RevokeRequest) -> Result<u64, Failure> {
        let mut admin = self.admin.clone();
        let answer = self.answer(admin.revoke(request)).await?;
        Ok(answer.sessions)
    }

    /// Looks through the whole audit.
    pub async fn verify_audit(
        &mut self,
        request: VerifyAuditRequest,
    ) -> Result<VerifyAuditResponse, Failure> {
        let mut admin = self.admin.clone();
        self.answer(admin.verify_audit(request)).await
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
