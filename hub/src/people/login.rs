//! Logins: by a token, and at the issuer that the hub trusts.

use std::net::SocketAddr;
use std::sync::PoisonError;

use proto::certificate::KeyHash;
use proto::time::from_unix_millis;
use proto::v1::{BeginLoginRequest, BeginLoginResponse, LoginRequest, LoginResponse};
use tonic::Status;
use tracing::info;

use super::{PeopleService, certificates, decision, listed, random};
use crate::access::people::{SESSION_PREFIX, Session, hash};
use crate::lock::people::unavailable;
use crate::oidc::{Oidc, Step};
use crate::rate::{Limit, TooMany};
use crate::store::StoredDecision;
use crate::{Moment, now};

/// Attempts to log in from one address: many people may share one behind a proxy.
pub(super) const EACH: Limit = Limit {
    burst: 60,
    per_second: 2,
};
/// And of all together.
pub(super) const ALL: Limit = Limit {
    burst: 300,
    per_second: 20,
};
impl PeopleService {
    async fn open(
        &self,
        name: String,
        groups: Vec<String>,
        (how, trusts): (&str, Vec<KeyHash>),
        invite: Option<[u8; 32]>,
    ) -> Result<LoginResponse, Status> {
        let _changing = self.changing.lock().await;
        let (now, token) = (now(), random(SESSION_PREFIX)?);
        let session = Session {
            hash: hash(&token),
            name: name.clone(),
            groups: groups.clone(),
            how: how.to_owned(),
            created: now,
            expires: now.saturating_add(self.lifetime),
            trusts,
        };
        let decision = StoredDecision {
            after: format!("session by {how}, groups {}", listed(&groups)),
            ..decision(&name, "login", &name)
        };
        let opened = self.hub.store().open_session(session.clone(), invite, decision);
        if !opened.await.map_err(|e| unavailable(&e))? {
            return Err(no_token());
        }
        let expires = Some(from_unix_millis(session.expires));
        self.hub.authority.change(|people| people.open(session, now));
        info!(name, how, "a person logged in");
        Ok(LoginResponse {
            name,
            session: token,
            expires,
            wait_ms: 0,
        })
    }

    fn issuer(&self) -> Result<&Oidc, Status> {
        let text = "this hub trusts no issuer (--oidc-issuer): log in with a token of `fleet people invite`";
        self.oidc
            .as_ref()
            .ok_or_else(|| Status::failed_precondition(text))
    }

    /// Whether one more attempt is looked at. It costs neither the store nor the issuer anything until then.
    fn attempt(&self, source: Option<SocketAddr>) -> Result<(), Status> {
        let mut attempts = self.attempts.lock().unwrap_or_else(PoisonError::into_inner);
        let taken = attempts.take(source.map(|source| source.ip()), Moment::now().steady);
        taken.map_err(|too_many| {
            Status::resource_exhausted(match too_many {
                TooMany::FromThere => "too many attempts to log in from this address; try again in a minute",
                TooMany::InAll => "too many attempts to log in; try again in a minute",
            })
        })
    }

    async fn by_issuer(&self, login: &str, trusts: Vec<KeyHash>) -> Result<LoginResponse, Status> {
        match self.issuer()?.step(hash(login), now()).await? {
            Step::Waits(left) => Ok(LoginResponse {
                wait_ms: u32::try_from(left).unwrap_or(u32::MAX).max(1),
                ..LoginResponse::default()
            }),
            Step::Named(named) => self.open(named.name, named.groups, ("oidc", trusts), None).await,
        }
    }

    /// Begins a login at the issuer.
    pub(super) async fn begin(
        &self,
        request: BeginLoginRequest,
        source: Option<SocketAddr>,
    ) -> Result<BeginLoginResponse, Status> {
        self.attempt(source)?;
        let source = source.map(|source| source.ip());
        let issuer = self.issuer()?;
        let login = random("")?;
        let BeginLoginRequest { redirect } = request;
        if !redirect.is_empty() {
            let sent = issuer.send(hash(&login), redirect, source, now()).await?;
            return Ok(BeginLoginResponse {
                login,
                address: sent.address,
                state: sent.state,
                expires: Some(from_unix_millis(sent.expires)),
                ..BeginLoginResponse::default()
            });
        }
        let begun = issuer.begin(hash(&login), source, now()).await?;
        Ok(BeginLoginResponse {
            login,
            address: begun.address,
            whole_address: begun.whole_address,
            code: begun.code,
            wait_ms: u32::try_from(begun.interval).unwrap_or(u32::MAX),
            expires: Some(from_unix_millis(begun.expires)),
            state: String::new(),
        })
    }

    /// Opens a session for a login token, or for a login at the issuer that its person has confirmed.
    pub(super) async fn enter(
        &self,
        request: LoginRequest,
        source: Option<SocketAddr>,
    ) -> Result<LoginResponse, Status> {
        let LoginRequest {
            token,
            login,
            trusts,
            code,
        } = request;
        let trusts = certificates::keys(trusts);
        if !login.is_empty() {
            // A login that was begun is asked for again and again, and was counted when it began.
            if !self.issuer()?.waits(hash(&login), now()).await {
                self.attempt(source)?;
            }
            return match code.as_str() {
                "" => self.by_issuer(&login, trusts).await,
                code => {
                    let named = self.issuer()?.exchange(hash(&login), code, now()).await?;
                    self.open(named.name, named.groups, ("oidc", trusts), None).await
                }
            };
        }
        self.attempt(source)?;
        let hash = hash(&token);
        let invited = self.hub.store().invited(hash, now()).await;
        let invite = invited.map_err(|e| unavailable(&e))?.ok_or_else(no_token)?;
        let opened = self.open(invite.name, invite.groups, ("token", trusts), Some(hash));
        opened.await
    }
}

fn no_token() -> Status {
    Status::unauthenticated(
        "this login token is not known, was used already, or is older than 15 minutes: ask an admin for another one, \
         `fleet people invite NAME`",
    )
}
