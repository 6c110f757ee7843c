//! The authorization code flow with PKCE (RFC 7636, RFC 8252): the person confirms in a browser on the machine of its CLI,
//! which waits on a loopback address for the code.
//!
//! The hub makes verifier and nonce and keeps them with the login, because it is the hub that shows both to the issuer: the
//! CLI passes the code on, and needs the key of the login for that. A code that another program of the machine has caught
//! is worth nothing without that key, and a page that sends a foreign code to the CLI does not know the state.

use std::net::IpAddr;

use axum::http::{StatusCode, Uri};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use tonic::Status;

use super::claims::Named;
use super::http::query;
use super::pending::{Browser, Flow, Login};
use super::{Oidc, failed};
use crate::Millis;
use crate::authority::random;

/// A person has this long to confirm, in milliseconds.
const LIFE: Millis = 600_000;

/// Where a browser is sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sent {
    pub address: String,
    /// Comes back with the code.
    pub state: String,
    pub expires: Millis,
}

impl Oidc {
    /// Begins a login in a browser, under a key that only its person has.
    ///
    /// # Errors
    /// InvalidArgument for a redirect that leaves the machine, ResourceExhausted when too many wait, Unavailable when the
    /// issuer fails, FailedPrecondition when it has no such flow.
    pub async fn send(
        &self,
        key: [u8; 32],
        redirect: String,
        source: Option<IpAddr>,
        now: Millis,
    ) -> Result<Sent, Status> {
        if !is_loopback(&redirect) {
            let text = "the redirect must be http://127.0.0.1:PORT/callback or http://[::1]:PORT/callback";
            return Err(Status::invalid_argument(text));
        }
        self.pending.lock().await.admit(source, now)?;
        let known = self.known(now, false).await.map_err(|error| failed(&error))?;
        let authorize = known.authorize.as_ref().ok_or_else(|| {
            Status::failed_precondition(
                "this issuer has no login in a browser: `fleet login --oidc --device`",
            )
        })?;
        let (verifier, nonce, state) = (text()?, text()?, text()?);
        let challenge = challenge(&verifier);
        let fields = [
            ("response_type", "code"),
            ("client_id", self.expected.client.as_str()),
            ("redirect_uri", &redirect),
            ("scope", &self.scopes),
            ("state", &state),
            ("nonce", &nonce),
            ("code_challenge", &challenge),
            ("code_challenge_method", "S256"),
        ];
        let joint = if authorize.contains('?') { '&' } else { '?' };
        let address = format!("{authorize}{joint}{}", query(&fields));
        let login = Login {
            flow: Flow::Browser(Browser {
                verifier,
                nonce,
                redirect,
            }),
            source,
            expires: now + LIFE,
        };
        let expires = login.expires;
        self.pending.lock().await.put(key, login);
        Ok(Sent {
            address,
            state,
            expires,
        })
    }

    /// Exchanges the code that came back. The login ends, whatever comes of it.
    ///
    /// # Errors
    /// Unauthenticated when there is no such login, the issuer refuses the code, or its token names nobody; Unavailable
    /// when the issuer fails.
    pub async fn exchange(&self, key: [u8; 32], code: &str, now: Millis) -> Result<Named, Status> {
        let login = self.pending.lock().await.take(&key, now)?;
        let known = self.known(now, false).await.map_err(|error| failed(&error))?;
        let mut form = vec![
            ("grant_type", "authorization_code"),
            ("code", code),
            ("redirect_uri", &login.redirect),
            ("client_id", &self.expected.client),
            ("code_verifier", &login.verifier),
        ];
        form.extend(self.secret.as_deref().map(|secret| ("client_secret", secret)));
        let answer = self.http.post(&known.token, &form).await;
        let (status, answer) = answer.map_err(|error| failed(&error))?;
        let text = |name: &str| answer.get(name).and_then(Value::as_str).unwrap_or_default();
        if status != StatusCode::OK {
            let refused = format!("the issuer ended this login: {}", text("error"));
            return Err(Status::unauthenticated(refused));
        }
        self.named(text("id_token"), Some(&login.nonce), &known, now)
            .await
    }
}

/// 256 random bits.
fn text() -> Result<String, Status> {
    let bytes = random::<32>().map_err(|error| Status::internal(error.to_string()))?;
    Ok(URL_SAFE_NO_PAD.encode(bytes))
}

/// What the issuer gets of a verifier.
fn challenge(verifier: &str) -> String {
    URL_SAFE_NO_PAD.encode(Sha256::digest(verifier))
}

/// Whether a redirect stays on the person's machine: a literal address, because a name may lead elsewhere.
fn is_loopback(redirect: &str) -> bool {
    let Ok(uri) = redirect.parse::<Uri>() else {
        return false;
    };
    let here = ["127.0.0.1", "[::1]"].into_iter().any(|host| {
        let port = uri.port_u16().unwrap_or_default();
        port > 0 && redirect == format!("http://{host}:{port}/callback")
    });
    here && uri.query().is_none()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_challenge_is_as_the_standard_has_it() {
        // RFC 7636, appendix B.
        assert_eq!(
            challenge("dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"),
            "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM"
        );
        assert_eq!(text().unwrap().len(), 43);
    }

    #[test]
    fn a_code_comes_back_to_the_machine_that_asked() {
        for good in ["http://127.0.0.1:49152/callback", "http://[::1]:1/callback"] {
            assert!(is_loopback(good), "{good}");
        }
        for bad in [
            "http://localhost:1/callback",
            "http://127.0.0.1/callback",
            "http://127.0.0.1:0/callback",
            "https://127.0.0.1:1/callback",
            "http://127.0.0.1:1/callback?x",
            "http://127.0.0.1:1/other",
            "http://127.0.0.1:1@evil.example/callback",
            "http://127.0.0.1.evil.example:1/callback",
            "http://10.0.0.1:1/callback",
            "",
        ] {
            assert!(!is_loopback(bad), "{bad}");
        }
    }
}
