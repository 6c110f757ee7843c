//! Login by an OpenID Connect issuer. The hub is the client: it begins the flow, the person confirms it in a browser at the
//! issuer, and the hub reads the ID token; no token of the issuer reaches the person's machine. [`claims`] (pure) decides
//! whom a token names.

mod browser;
pub mod claims;
mod device;
mod http;
mod pending;

use std::net::IpAddr;

use anyhow::Context as _;
use axum::http::{StatusCode, Uri};
use jsonwebtoken::jwk::JwkSet;
use serde_json::Value;
use tokio::sync::Mutex;
use tonic::Status;
use tracing::warn;

pub use self::claims::Named;
use self::claims::{Expected, Rejected};
pub use self::device::{Begun, Step};
use self::http::Http;
use self::pending::Pending;
use crate::Millis;
use crate::config::Config;

/// Keys that are not known are looked for at the issuer this often, in milliseconds.
const KEYS_AGAIN: Millis = 60_000;
/// Addresses and keys of the issuer are read anew this often.
const KNOWN_FOR: Millis = 3_600_000;

/// An issuer, and the logins at it that wait.
pub struct Oidc {
    expected: Expected,
    scopes: String,
    secret: Option<String>,
    http: Http,
    known: Mutex<Option<Known>>,
    pending: Mutex<Pending>,
}

/// What the issuer publishes about itself.
#[derive(Clone)]
struct Known {
    /// Where a device flow is begun, and where a browser goes; `None` for what the issuer does not offer.
    device: Option<String>,
    authorize: Option<String>,
    token: String,
    keys_at: String,
    keys: JwkSet,
    /// When it was read.
    at: Millis,
}

impl Oidc {
    /// The issuer that the hub is started with, if there is one.
    ///
    /// # Errors
    /// When the settings do not fit.
    pub fn of(config: &Config) -> anyhow::Result<Option<Oidc>> {
        let Some(issuer) = &config.oidc_issuer else {
            return Ok(None);
        };
        let client = config.oidc_client_id.clone();
        let client = client.context("--oidc-issuer needs --oidc-client-id")?;
        is_private(issuer)?;
        let secret = config.oidc_client_secret_file.as_ref().map(|path| {
            let text = std::fs::read_to_string(path);
            let text =
                text.with_context(|| format!("cannot read the client's secret, {}", path.display()))?;
            anyhow::Ok(text.trim().to_owned())
        });
        Ok(Some(Oidc {
            expected: Expected {
                issuer: issuer.clone(),
                client,
                user: config.oidc_user_claim.clone(),
                groups: config.oidc_groups_claim.clone(),
                prefix: config.oidc_prefix.clone(),
            },
            scopes: config.oidc_scopes.clone(),
            secret: secret.transpose()?,
            http: Http::new(config.oidc_ca.as_deref())?,
            known: Mutex::default(),
            pending: Mutex::default(),
        }))
    }

    /// Whether a login was begun under this key and is not over.
    pub async fn waits(&self, key: [u8; 32], now: Millis) -> bool {
        self.pending.lock().await.waits(&key, now)
    }

    /// Whom a token names; a key that is not known is looked for at the issuer.
    async fn named(
        &self,
        token: &str,
        nonce: Option<&str>,
        known: &Known,
        now: Millis,
    ) -> Result<Named, Status> {
        let mut named = self.expected.verify(token, &known.keys, nonce, now);
        if named == Err(Rejected::UnknownKey) {
            let anew = self.known(now, true).await.map_err(|error| failed(&error))?;
            named = self.expected.verify(token, &anew.keys, nonce, now);
        }
        named.map_err(|rejected| {
            warn!(%rejected, "a login at the issuer was refused");
            Status::unauthenticated(rejected.to_string())
        })
    }

    /// What the issuer publishes. `anew` reads it again unless that was a moment ago.
    async fn known(&self, now: Millis, anew: bool) -> anyhow::Result<Known> {
        let mut known = self.known.lock().await;
        let valid = if anew { KEYS_AGAIN } else { KNOWN_FOR };
        if let Some(known) = known
            .as_ref()
            .filter(|known| now.saturating_sub(known.at) < valid)
        {
            return Ok(known.clone());
        }
        let issuer = self.expected.issuer.trim_end_matches('/');
        let (status, found) = self
            .http
            .get(&format!("{issuer}/.well-known/openid-configuration"))
            .await?;
        anyhow::ensure!(status == StatusCode::OK, "it does not describe itself: {status}");
        let text = |name: &str| {
            let text = found.get(name).and_then(Value::as_str).map(str::to_owned);
            text.with_context(|| format!("its description has no {name}"))
        };
        let named = text("issuer")?;
        anyhow::ensure!(
            named == self.expected.issuer,
            "it calls itself {named:?}: write --oidc-issuer exactly so"
        );
        let (device, authorize) = (
            text("device_authorization_endpoint").ok(),
            text("authorization_endpoint").ok(),
        );
        let (token, keys_at) = (text("token_endpoint")?, text("jwks_uri")?);
        let ways = device.iter().chain(&authorize);
        for address in ways.chain([&token, &keys_at]) {
            is_private(address)?;
        }
        let (status, keys) = self.http.get(&keys_at).await?;
        anyhow::ensure!(status == StatusCode::OK, "it does not publish its keys: {status}");
        let keys = serde_json::from_value(keys).context("its keys cannot be read")?;
        let found = Known {
            device,
            authorize,
            token,
            keys_at,
            keys,
            at: now,
        };
        tracing::info!(
            keys = found.keys.keys.len(),
            at = found.keys_at,
            "read the keys of the issuer"
        );
        *known = Some(found.clone());
        Ok(found)
    }
}

fn over() -> Status {
    Status::unauthenticated("this login is over or was never begun: begin it again")
}

fn failed(error: &anyhow::Error) -> Status {
    warn!("the issuer failed: {error:#}");
    Status::unavailable(format!("the issuer failed: {error:#}"))
}

/// Codes and secrets go over HTTPS, or do not leave the machine.
fn is_private(address: &str) -> anyhow::Result<()> {
    let uri: Uri = address
        .parse()
        .with_context(|| format!("{address:?} is no address"))?;
    let host = uri.host().unwrap_or_default();
    let ip = host.trim_matches(['[', ']']).parse::<IpAddr>();
    let loopback = host == "localhost" || ip.is_ok_and(|ip| ip.is_loopback());
    let private = match uri.scheme_str() {
        Some("https") => true,
        Some("http") => loopback,
        _ => false,
    };
    anyhow::ensure!(private, "{address:?} must begin with https://");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_go_over_https_or_do_not_leave_the_machine() {
        for good in [
            "https://issuer.example.org/x",
            "http://127.0.0.1:3000",
            "http://[::1]/",
            "http://localhost:1",
        ] {
            assert!(is_private(good).is_ok(), "{good}");
        }
        for bad in [
            "http://issuer.example.org",
            "http://10.0.0.1",
            "ftp://127.0.0.1",
            "issuer",
            "",
        ] {
            assert!(is_private(bad).is_err(), "{bad}");
        }
    }
}
