//! FleetAdmin: logins, rights of people, and the check of the audit. Everything is written to the store with its entry in
//! the audit before it counts.

mod certificates;
mod login;
mod rows;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use proto::time::from_unix_millis;
use proto::v1::fleet_admin_server::FleetAdmin;
use proto::v1::{
    AuthoritiesRequest, AuthoritiesResponse, BeginLoginRequest, BeginLoginResponse, BindRequest,
    BindResponse, CreateLoginRequest, CreateLoginResponse, InviteRequest, InviteResponse,
    ListBindingsRequest, ListBindingsResponse, LoginRequest, LoginResponse, LogoutRequest, LogoutResponse,
    PersonSession, RevokeCertificateRequest, RevokeCertificateResponse, RevokeRequest, RevokeResponse,
    UnbindRequest, UnbindResponse, VerifyAuditRequest, VerifyAuditResponse, WhoAmIRequest, WhoAmIResponse,
};
use tonic::{Request, Response, Status};

use self::rows::{binding_row, described, listed, named, scope, session_row, subject, wire};
use crate::access::people::{Invite, LOGIN_PREFIX, RoleBinding, hash};
use crate::access::{self, Method, Person, Verb, Verbs, out_of_scope};
use crate::authority;
use crate::hub::{Hub, millis};
use crate::lock::people::unavailable;
use crate::oidc::Oidc;
use crate::rate::Attempts;
use crate::store::StoredDecision;
use crate::{Millis, Moment, now};

/// How long a login token is good.
const INVITED: Duration = Duration::from_secs(15 * 60);
/// How long a login token is good that a person makes for itself.
const OWN: Duration = Duration::from_secs(5 * 60);
/// Login tokens in force that a person has made for itself at most, and for others.
const OWN_TOKENS: u32 = 10;
const INVITES: u32 = 1_000;
/// Most groups of a person.
const GROUPS: usize = 200;

/// The service.
pub struct PeopleService {
    hub: Arc<Hub>,
    /// How long a session lasts.
    lifetime: Millis,
    oidc: Option<Oidc>,
    /// Attempts to log in: anyone may make one.
    attempts: Mutex<Attempts>,
    /// One change at a time, so that memory has the order of the store.
    changing: tokio::sync::Mutex<()>,
}

impl PeopleService {
    /// A service on a hub, with the length of sessions and the issuer by which people log in.
    #[must_use]
    pub fn new(hub: Arc<Hub>, lifetime: Duration, oidc: Option<Oidc>) -> PeopleService {
        PeopleService {
            hub,
            lifetime: millis(lifetime),
            oidc,
            attempts: Mutex::new(Attempts::new(login::EACH, login::ALL, Moment::now().steady)),
            changing: tokio::sync::Mutex::default(),
        }
    }

    /// Keeps a login token, unless who makes it has `most` in force.
    async fn keep(&self, invite: Invite, most: u32, decision: StoredDecision) -> Result<(), Status> {
        let kept = self.hub.store().invite(invite, most, decision).await;
        match kept.map_err(|e| unavailable(&e))? {
            true => Ok(()),
            false => Err(Status::resource_exhausted(format!(
                "{most} login tokens that you have made are in force: use one, or wait until they expire"
            ))),
        }
    }
}

fn decision(who: &str, what: &str, subject: &str) -> StoredDecision {
    StoredDecision {
        at: now(),
        who: who.to_owned(),
        what: what.to_owned(),
        subject: subject.to_owned(),
        ..StoredDecision::default()
    }
}

/// 256 random bits.
fn random(prefix: &str) -> Result<String, Status> {
    let bytes = authority::random::<32>().map_err(|error| Status::internal(error.to_string()))?;
    Ok(format!("{prefix}{}", hex::encode(bytes)))
}

/// Who gives or takes rights: only a person that may do so everywhere.
fn admin<T>(request: &Request<T>) -> Result<Arc<Person>, Status> {
    let person = access::person(request)?;
    if person.sight(Verb::Administer).is_everything() {
        Ok(person)
    } else {
        Err(out_of_scope(&person, Verb::Administer, "the rights of people"))
    }
}

#[tonic::async_trait]
impl FleetAdmin for PeopleService {
    async fn begin_login(
        &self,
        request: Request<BeginLoginRequest>,
    ) -> Result<Response<BeginLoginResponse>, Status> {
        let source = request.remote_addr();
        self.attempt(source)?;
        let source = source.map(|source| source.ip());
        let issuer = self.issuer()?;
        let login = random("")?;
        let BeginLoginRequest { redirect } = request.into_inner();
        if !redirect.is_empty() {
            let sent = issuer.send(hash(&login), redirect, source, now()).await?;
            return Ok(Response::new(BeginLoginResponse {
                login,
                address: sent.address,
                state: sent.state,
                expires: Some(from_unix_millis(sent.expires)),
                ..BeginLoginResponse::default()
            }));
        }
        let begun = issuer.begin(hash(&login), source, now()).await?;
        Ok(Response::new(BeginLoginResponse {
            login,
            address: begun.address,
            whole_address: begun.whole_address,
            code: begun.code,
            wait_ms: u32::try_from(begun.interval).unwrap_or(u32::MAX),
            expires: Some(from_unix_millis(begun.expires)),
            state: String::new(),
        }))
    }

    async fn login(&self, request: Request<LoginRequest>) -> Result<Response<LoginResponse>, Status> {
        let source = request.remote_addr();
        let opened = self.log_in(request.into_inner(), source, false);
        opened.await.map(Response::new)
    }

    async fn logout(&self, request: Request<LogoutRequest>) -> Result<Response<LogoutResponse>, Status> {
        let person = access::person(&request)?;
        let Method::Session { hash, .. } = person.method else {
            return Err(Status::failed_precondition(
                "a certificate has no session that could be ended",
            ));
        };
        self.close(hash, &person.name).await?;
        Ok(Response::new(LogoutResponse {}))
    }

    async fn who_am_i(&self, request: Request<WhoAmIRequest>) -> Result<Response<WhoAmIResponse>, Status> {
        let person = access::person(&request)?;
        let grant = |grant: &access::Grant| proto::v1::Grant {
            verbs: grant.verbs.iter().map(|verb| verb.to_string()).collect(),
            scope: Some(wire(&grant.scope)),
        };
        Ok(Response::new(WhoAmIResponse {
            name: person.name.to_string(),
            groups: person.groups.clone(),
            method: person.method.as_str().to_owned(),
            expires: person.until.map(from_unix_millis),
            grants: person.grants().iter().map(grant).collect(),
        }))
    }

    async fn invite(&self, request: Request<InviteRequest>) -> Result<Response<InviteResponse>, Status> {
        let person = admin(&request)?;
        let InviteRequest { name, groups } = request.into_inner();
        named("name", &name)?;
        if groups.len() > GROUPS {
            return Err(Status::invalid_argument(format!("at most {GROUPS} groups")));
        }
        groups.iter().try_for_each(|group| named("group", group))?;
        let token = random(LOGIN_PREFIX)?;
        let decision = StoredDecision {
            after: format!("groups {}", listed(&groups)),
            ..decision(&person.name, "invite", &name)
        };
        let expires = decision.at.saturating_add(millis(INVITED));
        let invite = Invite {
            hash: hash(&token),
            name,
            groups,
            expires,
            maker: None,
            until: None,
        };
        self.keep(invite, INVITES, decision).await?;
        Ok(Response::new(InviteResponse {
            token,
            expires: Some(from_unix_millis(expires)),
            pin: self.hub.membership.pin().unwrap_or_default(),
        }))
    }

    async fn create_login(
        &self,
        request: Request<CreateLoginRequest>,
    ) -> Result<Response<CreateLoginResponse>, Status> {
        let person = access::person(&request)?;
        let token = random(LOGIN_PREFIX)?;
        let decision = StoredDecision {
            after: "login token for itself".to_owned(),
            ..decision(&person.name, "invite", &person.name)
        };
        let expires = decision.at.saturating_add(millis(OWN));
        let invite = Invite {
            hash: hash(&token),
            name: person.name.to_string(),
            groups: person.groups.clone(),
            expires,
            maker: person.maker(),
            until: person.until,
        };
        self.keep(invite, OWN_TOKENS, decision).await?;
        Ok(Response::new(CreateLoginResponse {
            token,
            expires: Some(from_unix_millis(expires)),
        }))
    }

    async fn list_bindings(
        &self,
        request: Request<ListBindingsRequest>,
    ) -> Result<Response<ListBindingsResponse>, Status> {
        admin(&request)?;
        let now = now();
        let (bindings, mut sessions, revoked) = self.hub.authority.read(|people| {
            let bindings = people.bindings().iter().map(binding_row);
            let sessions = people.sessions(now).map(session_row);
            let revoked = people.revoked().iter().map(certificates::row);
            (
                bindings.collect(),
                sessions.collect::<Vec<_>>(),
                revoked.collect(),
            )
        });
        let order = |session: &PersonSession| {
            let created = session.created.as_ref().map(|at| (at.seconds, at.nanos));
            (session.name.clone(), created)
        };
        sessions.sort_by_key(order);
        Ok(Response::new(ListBindingsResponse {
            as_of: Some(from_unix_millis(now)),
            bindings,
            sessions,
            revoked,
        }))
    }

    async fn bind(&self, request: Request<BindRequest>) -> Result<Response<BindResponse>, Status> {
        let person = admin(&request)?;
        let request = request.into_inner();
        let subject = subject(request.user, request.group)?;
        let scope = scope(request.scope)?;
        let verbs: Result<Verbs, _> = request.rights.parse();
        let verbs = verbs.map_err(|error| Status::invalid_argument(error.to_string()))?;
        if verbs.has(Verb::Administer) && !scope.is_everything() {
            let text = "a person who may administer people may take every right: that has no scope";
            return Err(Status::invalid_argument(text));
        }
        let _changing = self.changing.lock().await;
        let (kind, name) = subject.parts();
        let decision = StoredDecision {
            after: described(&request.rights, &scope),
            ..decision(&person.name, "bind", &format!("{kind} {name}"))
        };
        let mut binding = RoleBinding {
            id: 0,
            subject,
            rights: request.rights,
            verbs,
            scope,
            created: decision.at,
            created_by: person.name.to_string(),
        };
        let kept = self.hub.store().bind_role(binding.clone(), decision).await;
        binding.id = kept.map_err(|e| unavailable(&e))?;
        let id = binding.id;
        self.hub.authority.change(|people| people.bind(binding));
        Ok(Response::new(BindResponse { id }))
    }

    async fn unbind(&self, request: Request<UnbindRequest>) -> Result<Response<UnbindResponse>, Status> {
        let person = admin(&request)?;
        let UnbindRequest { id } = request.into_inner();
        let _changing = self.changing.lock().await;
        let found = self.hub.authority.read(|people| {
            let mut bindings = people.bindings().iter();
            bindings.find(|binding| binding.id == id).cloned()
        });
        let none = || {
            Status::not_found(format!(
                "there is no binding {id}; `fleet people list` shows them"
            ))
        };
        let binding = found.ok_or_else(none)?;
        let (kind, name) = binding.subject.parts();
        let decision = StoredDecision {
            before: described(&binding.rights, &binding.scope),
            ..decision(&person.name, "unbind", &format!("{kind} {name}"))
        };
        let removed = self.hub.store().unbind_role(id, decision).await;
        if !removed.map_err(|e| unavailable(&e))? {
            return Err(none());
        }
        self.hub.authority.change(|people| people.unbind(id));
        Ok(Response::new(UnbindResponse {}))
    }

    async fn revoke(&self, request: Request<RevokeRequest>) -> Result<Response<RevokeResponse>, Status> {
        let person = admin(&request)?;
        let RevokeRequest { name } = request.into_inner();
        named("name", &name)?;
        let _changing = self.changing.lock().await;
        let now = now();
        let count = |people: &access::people::People| {
            people
                .sessions(now)
                .filter(|session| session.name == name)
                .count()
        };
        let sessions = self.hub.authority.read(count);
        let decision = StoredDecision {
            before: format!("{sessions} sessions"),
            after: "0 sessions".to_owned(),
            ..decision(&person.name, "revoke", &name)
        };
        let revoked = self.hub.store().revoke(&name, decision).await;
        revoked.map_err(|e| unavailable(&e))?;
        self.hub.authority.change(|people| people.revoke(&name));
        Ok(Response::new(RevokeResponse {
            sessions: sessions as u64,
        }))
    }

    async fn revoke_certificate(
        &self,
        request: Request<RevokeCertificateRequest>,
    ) -> Result<Response<RevokeCertificateResponse>, Status> {
        let person = admin(&request)?;
        self.refuse_certificate(&person, request.into_inner()).await?;
        Ok(Response::new(RevokeCertificateResponse {}))
    }

    async fn authorities(
        &self,
        request: Request<AuthoritiesRequest>,
    ) -> Result<Response<AuthoritiesResponse>, Status> {
        let person = access::person(&request)?;
        self.trust(&person, request.into_inner()).await.map(Response::new)
    }

    async fn verify_audit(
        &self,
        request: Request<VerifyAuditRequest>,
    ) -> Result<Response<VerifyAuditResponse>, Status> {
        let person = access::person(&request)?;
        // Its answer counts the entries of all.
        if !person.sight(Verb::See).is_everything() {
            return Err(out_of_scope(&person, Verb::See, "the whole audit"));
        }
        let VerifyAuditRequest { known } = request.into_inner();
        let found = self.hub.store().verify_decisions(Some(known)).await;
        let found = found.map_err(|e| unavailable(&e))?;
        let (fault_id, fault) = found.fault.unwrap_or_default();
        Ok(Response::new(VerifyAuditResponse {
            as_of: Some(from_unix_millis(now())),
            entries: found.entries,
            anchor: found.anchor,
            head: found.head,
            hash: found.hash,
            fault_id,
            fault,
            known_hash: found.known.unwrap_or_default(),
        }))
    }
}
