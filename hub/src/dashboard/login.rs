//! Login and logout of browsers. A login token is exchanged for a session as by [`crate::people`], but the session goes
//! into a cookie and never to a script.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::http::header::SET_COOKIE;
use axum::http::{Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Limited};
use proto::time::to_unix_millis;
use proto::v1::LoginRequest;
use serde::Deserialize;
use serde_json::json;
use tonic::body::Body;
use tonic::transport::server::{TcpConnectInfo, TlsConnectInfo};
use tonic::{Code, Status};

use super::{cookie, files, json as answer, origin, text};
use crate::access::refusals::{Refusal, Refusals};
use crate::now;
use crate::people::PeopleService;

/// A token and its name.
const BODY_MAX: usize = 4 << 10;

pub struct Login {
    people: Arc<PeopleService>,
    refusals: Refusals,
}

/// One of both: a login token, or the login that BeginLogin gave.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Given {
    token: String,
    login: String,
}

/// Address of the browser, or of a proxy before it.
fn peer(request: &Request<Body>) -> Option<SocketAddr> {
    let connection = request.extensions().get::<TlsConnectInfo<TcpConnectInfo>>();
    connection.and_then(|tls| tls.get_ref().remote_addr())
}

impl Login {
    pub fn new(people: Arc<PeopleService>, refusals: Refusals) -> Login {
        Login { people, refusals }
    }

    /// What a page has to know before it asks who is logged in: that question would be a refusal in the audit each time
    /// that somebody opens the page without a session.
    pub fn about(&self, request: &Request<Body>) -> Response<Body> {
        let connection = request.extensions().get::<TlsConnectInfo<TcpConnectInfo>>();
        let certificate =
            connection.is_some_and(|tls| tls.peer_certs().is_some_and(|chain| !chain.is_empty()));
        let session = cookie::session(request.headers()).is_some_and(|token| self.people.has_session(&token));
        let about = json!({
            "version": env!("CARGO_PKG_VERSION"), "issuer": self.people.has_issuer(), "dashboard": files::present(),
            "person": certificate || session,
        });
        answer(StatusCode::OK, &about)
    }

    /// 200 with the cookie; 202 while the person has not confirmed at the issuer; else why not.
    pub async fn log_in(&self, request: Request<Body>) -> Response<Body> {
        // A login that another site begins would be one of somebody else.
        if !origin::own_page(&request) {
            return text(
                StatusCode::FORBIDDEN,
                "this request does not come from a page of this hub",
            );
        }
        let source = peer(&request);
        let body = Limited::new(request.into_body(), BODY_MAX).collect().await;
        let given = body
            .ok()
            .and_then(|body| serde_json::from_slice::<Given>(&body.to_bytes()).ok());
        let Some(Given { token, login }) = given else {
            return text(StatusCode::BAD_REQUEST, "a login is JSON with a token or a login");
        };
        let given = LoginRequest {
            token,
            login,
            ..LoginRequest::default()
        };
        let opened = self.people.log_in(given, source, true).await;
        let opened = match opened {
            Ok(opened) => opened,
            Err(status) => return self.refused(&status),
        };
        if opened.wait_ms > 0 {
            return answer(StatusCode::ACCEPTED, &json!({ "waitMs": opened.wait_ms }));
        }
        let expires = opened.expires.as_ref().map_or(0, to_unix_millis);
        let Some(cookie) = cookie::set(&opened.session, (expires - now()) / 1000) else {
            return text(
                StatusCode::INTERNAL_SERVER_ERROR,
                "the session cannot stand in a cookie",
            );
        };
        let mut done = answer(
            StatusCode::OK,
            &json!({ "name": opened.name, "expires": expires }),
        );
        done.headers_mut().insert(SET_COOKIE, cookie);
        done
    }

    fn refused(&self, status: &Status) -> Response<Body> {
        if matches!(status.code(), Code::Unauthenticated | Code::PermissionDenied) {
            self.refusals.note(Refusal {
                at: now(),
                who: "nobody".to_owned(),
                path: "/login".to_owned(),
                why: status.message().to_owned(),
            });
        }
        let http = match status.code() {
            Code::Unauthenticated => StatusCode::UNAUTHORIZED,
            Code::PermissionDenied => StatusCode::FORBIDDEN,
            Code::FailedPrecondition | Code::InvalidArgument => StatusCode::BAD_REQUEST,
            Code::ResourceExhausted => StatusCode::TOO_MANY_REQUESTS,
            _ => StatusCode::SERVICE_UNAVAILABLE,
        };
        answer(http, &json!({ "error": status.message() }))
    }

    /// Ends the session of the cookie, and takes the cookie away, even where the session has ended already.
    pub async fn log_out(&self, request: Request<Body>) -> Response<Body> {
        if !origin::own_page(&request) {
            return text(
                StatusCode::FORBIDDEN,
                "this request does not come from a page of this hub",
            );
        }
        // A request whose body is not read cannot be kept over an await.
        let token = cookie::session(request.headers());
        drop(request);
        if let Some(token) = token
            && let Err(status) = self.people.log_out(&token).await
        {
            return self.refused(&status);
        }
        let mut done = answer(StatusCode::OK, &json!({}));
        done.headers_mut().insert(SET_COOKIE, cookie::clear());
        done
    }
}
