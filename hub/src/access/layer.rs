//! The layer before every RPC of every listener: who it is, and whether the table allows it. What is refused here never
//! reaches a handler; what a handler refuses because of a scope is recorded here as well.

use std::sync::Arc;
use std::task::{Context, Poll};

use axum::http::header::AUTHORIZATION;
use axum::http::{HeaderMap, Request, Response};
use futures::FutureExt as _;
use futures::future::BoxFuture;
use proto::certificate::AUTHORITIES_HEADER;
use tonic::body::Body;
use tonic::transport::server::{TcpConnectInfo, TlsConnectInfo};
use tonic::{Code, Status};
use tower::{Layer, Service};

use super::authority::Evidence;
use super::principal::Principal;
use super::refusals::{Refusal, Refusals, name};
use crate::dashboard::cookie::CookieSession;
use crate::hub::Hub;
use crate::now;

/// What is answered while a hub that has just started still reads its store.
const WHILE_LOADING: [&str; 2] = ["/fleet.v1.FleetView/Status", "/fleet.v1.FleetAdmin/WhoAmI"];

/// Puts a [`super::Principal`] into each request, or answers with the refusal.
#[derive(Clone)]
pub struct AccessLayer {
    hub: Arc<Hub>,
    refusals: Refusals,
}

impl AccessLayer {
    /// A layer that asks this hub who may do what, and has refusals recorded.
    #[must_use]
    pub fn new(hub: Arc<Hub>, refusals: Refusals) -> AccessLayer {
        AccessLayer { hub, refusals }
    }
}

impl<S> Layer<S> for AccessLayer {
    type Service = Guarded<S>;

    fn layer(&self, inner: S) -> Guarded<S> {
        Guarded {
            inner,
            access: self.clone(),
        }
    }
}

/// A service behind the layer.
#[derive(Clone)]
pub struct Guarded<S> {
    inner: S,
    access: AccessLayer,
}

impl<S, B> Service<Request<B>> for Guarded<S>
where
    B: Send + 'static,
    S: Service<Request<B>, Response = Response<Body>> + Clone + Send + 'static,
    S::Future: Send + 'static,
    S::Error: Send + 'static,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = BoxFuture<'static, Result<Response<Body>, S::Error>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        let path = request.uri().path().to_owned();
        let connection = request.extensions().get::<TlsConnectInfo<TcpConnectInfo>>();
        let chain = connection.and_then(TlsConnectInfo::peer_certs);
        let header = request.headers().get(AUTHORIZATION);
        let evidence = Evidence::of(
            chain.as_ref().map(|chain| chain.as_slice()),
            header.and_then(|value| value.to_str().ok()),
            request.extensions().get::<CookieSession>(),
        );
        let refusals = self.access.refusals.clone();
        let note = move |who: String, path: String, why: &Status| {
            if matches!(why.code(), Code::PermissionDenied | Code::Unauthenticated) {
                let why = why.message().to_owned();
                refusals.note(Refusal {
                    at: now(),
                    who,
                    path,
                    why,
                });
            }
        };
        match self.access.hub.authority.admit(&path, &evidence, now()) {
            Ok(principal) => {
                let who = name(&principal);
                let is_person = matches!(principal, Principal::Person(_));
                request.extensions_mut().insert(principal);
                let (mut inner, hub) = (self.inner.clone(), self.access.hub.clone());
                // The one that is ready is used, and its copy is the next.
                std::mem::swap(&mut inner, &mut self.inner);
                let watched = async move {
                    if !WHILE_LOADING.contains(&path.as_str()) {
                        hub.loaded().await;
                    }
                    let mut answer = inner.call(request).await;
                    if let Ok(answer) = &mut answer {
                        if let Some(status) = refused(answer.headers()) {
                            note(who, path, &status);
                        }
                        if is_person {
                            let trusted = hub.membership.trust.now().header.clone();
                            answer.headers_mut().insert(AUTHORITIES_HEADER, trusted);
                        }
                    }
                    answer
                };
                watched.boxed()
            }
            Err((principal, status)) => {
                note(name(&principal), path, &status);
                futures::future::ready(Ok(status.into_http())).boxed()
            }
        }
    }
}

/// The refusal in an answer without a message: its status is in the headers.
fn refused(headers: &HeaderMap) -> Option<Status> {
    Status::from_header_map(headers).filter(|status| status.code() != Code::Ok)
}
