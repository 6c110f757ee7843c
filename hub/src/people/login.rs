//! Logins: by a token, and at the issuer that the hub trusts.

use std::net::SocketAddr;
use std::sync::PoisonError;

use proto::certificate::KeyHash;
use proto::time::from_unix_millis;
use proto::v1::{LoginRequest, LoginResponse};
use tonic::Status;
use tracing::info;

use super::{PeopleService, certificates, decision, listed, random};
use crate::access::people::{BROWSER, Invite, SESSION_PREFIX, Session, hash};
use crate::lock::people::unavailable;
use crate::oidc::{Named, Oidc, Step};
use crate::rate::{Limit, TooMany};
use crate::store::StoredDecision;
use crate::{Millis, Moment, now};

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
/// Where a session is opened.
struct Way {
    /// At the dashboard.
    browser: bool,
    /// Authorities that the CLI trusts the hub by.
    trusts: Vec<KeyHash>,
}

impl PeopleService {
    async fn open(&self, named: Named, way: Way, invite: Option<&Invite>) -> Result<LoginResponse, Status> {
        let _changing = self.changing.lock().await;
        let (now, token) = (now(), random(SESSION_PREFIX)?);
        let Named { name, groups } = named;
        let how = match (way.browser, invite) {
            (true, _) => BROWSER,
            (false, Some(_)) => "token",
            (false, None) => "oidc",
        };
        let until = invite.and_then(|invite| invite.until).unwrap_or(Millis::MAX);
        let session = Session {
            hash: hash(&token),
            name: name.clone(),
            groups: groups.clone(),
            how: how.to_owned(),
            maker: invite.and_then(|invite| invite.maker.clone()),
            created: now,
            expires: now.saturating_add(self.lifetime).min(until),
            trusts: way.trusts,
        };
        let decision = StoredDecision {
            after: format!("session by {how}, groups {}", listed(&groups)),
            ..decision(&name, "login", &name)
        };
        let used = invite.map(|invite| invite.hash);
        let opened = self.hub.store().open_session(session.clone(), used, decision);
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

    /// Whether people can log in at an issuer.
    #[must_use]
    pub fn has_issuer(&self) -> bool {
        self.oidc.is_some()
    }

    /// Whether a session token is good.
    #[must_use]
    pub fn has_session(&self, token: &str) -> bool {
        let hash = hash(token);
        self.hub
            .authority
            .read(|people| people.session(&hash, now()).is_some())
    }

    /// Opens a session for a login token, or for a login that its person has confirmed at the issuer.
    ///
    /// # Errors
    /// Unauthenticated for a token that is not good, and what the issuer refuses.
    /// ResourceExhausted after too many attempts.
    pub async fn log_in(
        &self,
        request: LoginRequest,
        source: Option<SocketAddr>,
        browser: bool,
    ) -> Result<LoginResponse, Status> {
        let LoginRequest {
            token,
            login,
            trusts,
            code,
        } = request;
        let trusts = certificates::keys(trusts);
        let way = Way { browser, trusts };
        if !login.is_empty() {
            // A login that was begun is asked for again and again, and was counted when it began.
            if !self.issuer()?.waits(hash(&login), now()).await {
                self.attempt(source)?;
            }
            return match code.as_str() {
                "" => self.by_issuer(&login, way).await,
                code => {
                    let named = self.issuer()?.exchange(hash(&login), code, now()).await?;
                    self.open(named, way, None).await
                }
            };
        }
        self.attempt(source)?;
        let hash = hash(&token);
        let invited = self.hub.store().invited(hash, now()).await;
        let invite = invited.map_err(|e| unavailable(&e))?.ok_or_else(no_token)?;
        let named = Named {
            name: invite.name.clone(),
            groups: invite.groups.clone(),
        };
        self.open(named, way, Some(&invite)).await
    }

    /// Ends the session of a token, if it has not ended.
    ///
    /// # Errors
    /// Unavailable when that cannot be written.
    pub async fn log_out(&self, token: &str) -> Result<(), Status> {
        let hash = hash(token);
        let found = self
            .hub
            .authority
            .read(|people| people.session(&hash, now()).cloned());
        match found {
            Some(session) => self.close(hash, &session.name).await,
            None => Ok(()),
        }
    }

    pub(super) async fn close(&self, hash: [u8; 32], name: &str) -> Result<(), Status> {
        let _changing = self.changing.lock().await;
        let closed = self
            .hub
            .store()
            .close_session(hash, decision(name, "logout", name))
            .await;
        closed.map_err(|e| unavailable(&e))?;
        self.hub.authority.change(|people| people.close(&hash));
        Ok(())
    }

    pub(super) fn issuer(&self) -> Result<&Oidc, Status> {
        let text = "this hub trusts no issuer (--oidc-issuer): log in with a token of `fleet people invite`";
        self.oidc
            .as_ref()
            .ok_or_else(|| Status::failed_precondition(text))
    }

    /// Whether one more attempt is looked at. It costs neither the store nor the issuer anything until then.
    pub(super) fn attempt(&self, source: Option<SocketAddr>) -> Result<(), Status> {
        let mut attempts = self.attempts.lock().unwrap_or_else(PoisonError::into_inner);
        let taken = attempts.take(source.map(|source| source.ip()), Moment::now().steady);
        taken.map_err(|too_many| {
            Status::resource_exhausted(match too_many {
                TooMany::FromThere => "too many attempts to log in from this address; try again in a minute",
                TooMany::InAll => "too many attempts to log in; try again in a minute",
            })
        })
    }

    async fn by_issuer(&self, login: &str, way: Way) -> Result<LoginResponse, Status> {
        match self.issuer()?.step(hash(login), now()).await? {
            Step::Waits(left) => Ok(LoginResponse {
                wait_ms: u32::try_from(left).unwrap_or(u32::MAX).max(1),
                ..LoginResponse::default()
            }),
            Step::Named(named) => self.open(named, way, None).await,
        }
    }
}

fn no_token() -> Status {
    Status::unauthenticated(
        "this login token is not known, was used already, or is too old: run `fleet dashboard` again, or ask an admin for \
         another one, `fleet people invite NAME`",
    )
}
