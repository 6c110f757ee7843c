//! What a browser gets from the view's port: the dashboard's files, a login that ends in a cookie, and gRPC-Web under
//! that cookie. [`origin`] decides which requests come from a page of this hub; everything else about rights is decided by
//! [`crate::access`], as for every other client.

pub mod cookie;
mod files;
mod login;
pub mod origin;

use std::convert::Infallible;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::body::Bytes;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::http::{HeaderValue, Method, Request, Response, StatusCode};
use futures::FutureExt as _;
use futures::future::BoxFuture;
use http_body_util::{BodyExt as _, Full};
use tonic::body::Body;
use tower::{Layer, Service};

use self::cookie::CookieSession;
use self::origin::Sender;
use crate::access::refusals::Refusals;
use crate::people::PeopleService;

/// Paths of RPCs begin with it.
const RPC: &str = "/fleet.v1.";

/// Answers requests for pages, and lets those for RPCs through with the session of their cookie.
#[derive(Clone)]
pub struct DashboardLayer {
    login: Arc<login::Login>,
}

impl DashboardLayer {
    /// A layer whose logins open sessions of this service.
    #[must_use]
    pub fn new(people: Arc<PeopleService>, refusals: Refusals) -> DashboardLayer {
        let login = Arc::new(login::Login::new(people, refusals));
        DashboardLayer { login }
    }
}

impl<S> Layer<S> for DashboardLayer {
    type Service = Dashboard<S>;

    fn layer(&self, inner: S) -> Dashboard<S> {
        Dashboard {
            inner,
            login: self.login.clone(),
        }
    }
}

/// A service behind the layer.
#[derive(Clone)]
pub struct Dashboard<S> {
    inner: S,
    login: Arc<login::Login>,
}

impl<S> Service<Request<Body>> for Dashboard<S>
where
    S: Service<Request<Body>, Response = Response<Body>>,
    S::Future: Send + 'static,
    S::Error: Send + 'static,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = BoxFuture<'static, Result<Response<Body>, S::Error>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        if !request.uri().path().starts_with(RPC) {
            let login = self.login.clone();
            return page(login, request).map(Ok).boxed();
        }
        match origin::sender(&request) {
            Sender::Program => {}
            Sender::OwnPage => {
                if let Some(token) = cookie::session(request.headers()) {
                    request.extensions_mut().insert(CookieSession(token));
                }
            }
            Sender::OtherPage => {
                let why = "this request does not come from a page of this hub";
                return ready(secured(text(StatusCode::FORBIDDEN, why)));
            }
            Sender::Unknown => {
                let why = "an RPC takes application/grpc, or application/grpc-web from a page of this hub";
                return ready(secured(text(StatusCode::UNSUPPORTED_MEDIA_TYPE, why)));
            }
        }
        self.inner.call(request).boxed()
    }
}

fn ready<E: Send + 'static>(answer: Response<Body>) -> BoxFuture<'static, Result<Response<Body>, E>> {
    futures::future::ready(Ok(answer)).boxed()
}

/// Whatever is not an RPC.
async fn page(login: Arc<login::Login>, request: Request<Body>) -> Response<Body> {
    let path = request.uri().path().to_owned();
    let head = request.method() == Method::HEAD;
    let mut answer = match (request.method(), path.as_str()) {
        (&Method::POST, "/login") => login.log_in(request).await,
        (&Method::POST, "/logout") => login.log_out(request).await,
        (&Method::GET | &Method::HEAD, "/about.json") => login.about(&request),
        (&Method::GET | &Method::HEAD, path) => files::answer(path, request.headers()),
        _ => text(StatusCode::METHOD_NOT_ALLOWED, "this path takes GET"),
    };
    if head {
        *answer.body_mut() = Body::empty();
    }
    secured(answer)
}

/// Only what this hub serves is loaded, run or framed, and no address of a page goes to another site.
const HEADERS: [(&str, &str); 5] = [
    (
        "content-security-policy",
        "default-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'; object-src 'none'",
    ),
    ("x-content-type-options", "nosniff"),
    ("referrer-policy", "no-referrer"),
    ("cross-origin-opener-policy", "same-origin"),
    ("cross-origin-resource-policy", "same-origin"),
];

fn secured(mut answer: Response<Body>) -> Response<Body> {
    for (name, value) in HEADERS {
        answer.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    answer
}

fn text(status: StatusCode, text: &'static str) -> Response<Body> {
    content(
        status,
        "text/plain; charset=utf-8",
        Bytes::from_static(text.as_bytes()),
    )
}

fn json(status: StatusCode, value: &serde_json::Value) -> Response<Body> {
    content(status, "application/json", value.to_string().into())
}

/// An answer that nothing keeps.
fn content(status: StatusCode, kind: &'static str, bytes: Bytes) -> Response<Body> {
    let body = Full::new(bytes).map_err(|never: Infallible| match never {});
    let mut answer = Response::new(Body::new(body));
    *answer.status_mut() = status;
    let headers = answer.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    answer
}
