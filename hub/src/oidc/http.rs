//! Requests to the issuer: HTTPS, with a bound on time and length, without redirects.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use axum::http::{Method, Request, StatusCode, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::{ClientConfig, RootCertStore};
use serde_json::Value;
use tokio::time::timeout;

/// No issuer takes longer.
const LIMIT: Duration = Duration::from_secs(10);
/// No answer of an issuer is longer.
const LONGEST: usize = 1 << 20;

type Bytes = axum::body::Bytes;

/// The way to the issuer.
pub struct Http(Client<HttpsConnector<HttpConnector>, Full<Bytes>>);

/// An answer: its status, and JSON.
pub type Answer = (StatusCode, Value);

impl Http {
    /// Trusts the authorities of the machine, or those of a file alone.
    ///
    /// # Errors
    /// When the file cannot be read or holds no certificate.
    pub fn new(ca: Option<&Path>) -> anyhow::Result<Http> {
        let mut roots = RootCertStore::empty();
        match ca {
            Some(path) => {
                let named = || format!("cannot read the authorities of the issuer, {}", path.display());
                for certificate in CertificateDer::pem_file_iter(path).with_context(named)? {
                    roots.add(certificate.with_context(named)?).with_context(named)?;
                }
                anyhow::ensure!(!roots.is_empty(), "{} holds no certificate", path.display());
            }
            None => {
                let found = rustls_native_certs::load_native_certs();
                roots.add_parsable_certificates(found.certs);
            }
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let tls = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let connector = HttpsConnectorBuilder::new()
            .with_tls_config(tls)
            .https_or_http()
            .enable_http1()
            .build();
        Ok(Http(Client::builder(TokioExecutor::new()).build(connector)))
    }

    /// Reads JSON.
    ///
    /// # Errors
    /// When the issuer cannot be reached, or answers something else.
    pub async fn get(&self, url: &str) -> anyhow::Result<Answer> {
        let request = Request::builder()
            .method(Method::GET)
            .uri(url)
            .header(header::ACCEPT, "application/json")
            .body(Full::default())?;
        self.ask(request).await
    }

    /// Sends a form, and reads JSON.
    ///
    /// # Errors
    /// As above.
    pub async fn post(&self, url: &str, form: &[(&str, &str)]) -> anyhow::Result<Answer> {
        let body = query(form);
        let request = Request::builder()
            .method(Method::POST)
            .uri(url)
            .header(header::ACCEPT, "application/json")
            .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
            .body(Full::from(body))?;
        self.ask(request).await
    }

    async fn ask(&self, request: Request<Full<Bytes>>) -> anyhow::Result<Answer> {
        let url = request.uri().clone();
        let answer = async {
            let answer = self.0.request(request).await?;
            let status = answer.status();
            // What the issuer could not do now is no verdict about a login.
            let failed = status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS;
            anyhow::ensure!(!failed, "status {status}");
            let body = Limited::new(answer.into_body(), LONGEST).collect().await;
            let body = body.map_err(|error| anyhow::anyhow!("{error}"))?.to_bytes();
            let value = serde_json::from_slice(&body);
            anyhow::Ok((
                status,
                value.with_context(|| format!("status {status}, and no JSON"))?,
            ))
        };
        let answer = timeout(LIMIT, answer).await;
        let answer = answer
            .map_err(|_| anyhow::anyhow!("no answer in {LIMIT:?}"))
            .flatten();
        answer.with_context(|| format!("the issuer at {url} failed"))
    }
}

/// Fields as a form or the query of an address has them.
#[must_use]
pub fn query(fields: &[(&str, &str)]) -> String {
    let pairs = fields
        .iter()
        .map(|(name, value)| format!("{}={}", encoded(name), encoded(value)));
    pairs.collect::<Vec<_>>().join("&")
}

/// As a form has it.
fn encoded(text: &str) -> String {
    let mut out = String::new();
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => out.push(char::from(byte)),
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms_are_encoded() {
        assert_eq!(encoded("a b:c/ä~"), "a%20b%3Ac%2F%C3%A4~");
    }

    #[tokio::test]
    async fn an_issuer_that_cannot_answer_now_has_refused_nobody() {
        let answers = |status: StatusCode| {
            axum::Router::new().fallback(move || async move { (status, r#"{"error":"server_error"}"#) })
        };
        for (status, is_answer) in [
            (StatusCode::BAD_REQUEST, true),
            (StatusCode::SERVICE_UNAVAILABLE, false),
            (StatusCode::TOO_MANY_REQUESTS, false),
        ] {
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
            let url = format!("http://{}/token", listener.local_addr().unwrap());
            let server = tokio::spawn(axum::serve(listener, answers(status)).into_future());
            let answer = Http::new(None).unwrap().post(&url, &[]).await;
            assert_eq!(answer.is_ok(), is_answer, "{status}: {answer:?}");
            server.abort();
        }
    }
}
