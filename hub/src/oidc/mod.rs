//! Login by an OpenID Connect issuer. The hub is the client: it begins the device flow, the person confirms it in a browser
//! at the issuer, and the hub reads the ID token; no token of the issuer reaches the person's machine. [`claims`] (pure)
//! decides whom a token names.

pub mod claims;
mod http;

use std::collections::HashMap;
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
use self::http::Http;
use crate::Millis;
use crate::config::Config;

/// Logins that wait for their persons. They are begun by anybody, so there is a bound.
const PENDING: usize = 200;
/// Of those at most so many are begun a minute.
const BEGUN: usize = 60;
/// Keys that are not known are looked for at the issuer this often, in milliseconds.
const KEYS_AGAIN: Millis = 60_000;
/// Addresses and keys of the issuer are read anew this often.
const KNOWN_FOR: Millis = 3_600_000;
const DEVICE_GRANT: &str = "urn:ietf:params:oauth:grant-type:device_code";

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
    device: String,
    token: String,
    keys_at: String,
    keys: JwkSet,
    /// When it was read.
    at: Millis,
}

#[derive(Default)]
struct Pending {
    logins: HashMap<[u8; 32], Login>,
    /// Times of the last ones.
    begun: Vec<Millis>,
}

/// One login that waits for its person.
#[derive(Clone)]
struct Login {
    code: String,
    interval: Millis,
    /// The issuer must not be asked before.
    next: Millis,
    expires: Millis,
}

/// What a person needs to confirm a login.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Begun {
    pub address: String,
    /// With the code in it; empty if the issuer has none.
    pub whole_address: String,
    pub code: String,
    pub interval: Millis,
    pub expires: Millis,
}

/// Where a login stands.
#[derive(Debug)]
pub enum Step {
    /// The person has not confirmed it yet; ask again after so many milliseconds.
    Waits(Millis),
    Named(Named),
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

    /// Begins a login under a key that only its person has.
    ///
    /// # Errors
    /// ResourceExhausted when too many wait, Unavailable when the issuer fails.
    pub async fn begin(&self, key: [u8; 32], now: Millis) -> Result<Begun, Status> {
        self.pending.lock().await.admit(now)?;
        let known = self.known(now, false).await.map_err(|error| failed(&error))?;
        let mut form = vec![
            ("client_id", self.expected.client.as_str()),
            ("scope", &self.scopes),
        ];
        form.extend(self.secret.as_deref().map(|secret| ("client_secret", secret)));
        let answer = self.http.post(&known.device, &form).await;
        let (status, answer) = answer.map_err(|error| failed(&error))?;
        let text = |name: &str| {
            answer
                .get(name)
                .and_then(Value::as_str)
                .unwrap_or_default()
                .to_owned()
        };
        let number = |name: &str| answer.get(name).and_then(Value::as_i64);
        let code = text("device_code");
        if status != StatusCode::OK || code.is_empty() {
            let error = anyhow::anyhow!("it refuses to begin a login: {status} {}", text("error"));
            return Err(failed(&error));
        }
        let interval = number("interval").unwrap_or(5).clamp(1, 60) * 1000;
        let begun = Begun {
            address: text("verification_uri"),
            whole_address: text("verification_uri_complete"),
            code: text("user_code"),
            interval,
            expires: now + number("expires_in").unwrap_or(600).clamp(1, 3600) * 1000,
        };
        let login = Login {
            code,
            interval,
            next: now + interval,
            expires: begun.expires,
        };
        self.pending.lock().await.logins.insert(key, login);
        Ok(begun)
    }

    /// Asks the issuer once whether the person has confirmed.
    ///
    /// # Errors
    /// Unauthenticated when there is no such login, it was declined, or its token names nobody; Unavailable when the issuer
    /// fails.
    pub async fn step(&self, key: [u8; 32], now: Millis) -> Result<Step, Status> {
        let login = self.pending.lock().await.take(&key, now);
        let over = || Status::unauthenticated("this login is over or was never begun: begin it again");
        let login = match login.ok_or_else(over)? {
            Turn::Early(left) => return Ok(Step::Waits(left)),
            Turn::Due(login) => login,
        };
        let known = self.known(now, false).await.map_err(|error| failed(&error))?;
        let mut form = vec![
            ("grant_type", DEVICE_GRANT),
            ("device_code", login.code.as_str()),
            ("client_id", &self.expected.client),
        ];
        form.extend(self.secret.as_deref().map(|secret| ("client_secret", secret)));
        let answer = self.http.post(&known.token, &form).await;
        let (status, answer) = answer.map_err(|error| failed(&error))?;
        let text = |name: &str| answer.get(name).and_then(Value::as_str).unwrap_or_default();
        if status == StatusCode::OK {
            self.pending.lock().await.logins.remove(&key);
            return self.named(text("id_token"), &known, now).await.map(Step::Named);
        }
        match text("error") {
            "authorization_pending" => Ok(Step::Waits(login.interval)),
            "slow_down" => {
                let interval = login.interval + 5_000;
                self.pending.lock().await.slow(&key, interval, now);
                Ok(Step::Waits(interval))
            }
            error => {
                self.pending.lock().await.logins.remove(&key);
                Err(Status::unauthenticated(format!(
                    "the issuer ended this login: {error}"
                )))
            }
        }
    }

    /// Whom a token names; a key that is not known is looked for at the issuer.
    async fn named(&self, token: &str, known: &Known, now: Millis) -> Result<Named, Status> {
        let mut named = self.expected.verify(token, &known.keys, now);
        if named == Err(Rejected::UnknownKey) {
            let anew = self.known(now, true).await.map_err(|error| failed(&error))?;
            named = self.expected.verify(token, &anew.keys, now);
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
        let device = text("device_authorization_endpoint");
        let device = device.context("this issuer has no device flow, or not for this client")?;
        let (token, keys_at) = (text("token_endpoint")?, text("jwks_uri")?);
        for address in [&device, &token, &keys_at] {
            is_private(address)?;
        }
        let (status, keys) = self.http.get(&keys_at).await?;
        anyhow::ensure!(status == StatusCode::OK, "it does not publish its keys: {status}");
        let keys = serde_json::from_value(keys).context("its keys cannot be read")?;
        let found = Known {
            device,
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

/// Whether a login's turn to ask has come.
enum Turn {
    Early(Millis),
    Due(Login),
}

impl Pending {
    fn admit(&mut self, now: Millis) -> Result<(), Status> {
        self.logins.retain(|_, login| login.expires > now);
        self.begun.retain(|at| now.saturating_sub(*at) < 60_000);
        if self.logins.len() >= PENDING || self.begun.len() >= BEGUN {
            return Err(Status::resource_exhausted(
                "too many logins wait for their persons; try again in a minute",
            ));
        }
        self.begun.push(now);
        Ok(())
    }

    fn take(&mut self, key: &[u8; 32], now: Millis) -> Option<Turn> {
        let login = self.logins.get_mut(key).filter(|login| login.expires > now)?;
        if login.next > now {
            return Some(Turn::Early(login.next - now));
        }
        login.next = now + login.interval;
        Some(Turn::Due(login.clone()))
    }

    fn slow(&mut self, key: &[u8; 32], interval: Millis, now: Millis) {
        if let Some(login) = self.logins.get_mut(key) {
            (login.interval, login.next) = (interval, now + interval);
        }
    }
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

    #[test]
    fn the_issuer_is_asked_as_often_as_it_allows_and_logins_are_bounded() {
        let mut pending = Pending::default();
        let login = Login {
            code: String::new(),
            interval: 5_000,
            next: 5_000,
            expires: 60_000,
        };
        pending.logins.insert([1; 32], login);
        assert!(matches!(pending.take(&[1; 32], 1_000), Some(Turn::Early(4_000))));
        assert!(matches!(pending.take(&[1; 32], 5_000), Some(Turn::Due(_))));
        assert!(matches!(pending.take(&[1; 32], 5_001), Some(Turn::Early(4_999))));
        assert!(pending.take(&[2; 32], 5_000).is_none() && pending.take(&[1; 32], 60_000).is_none());
        assert!((0..BEGUN).all(|_| pending.admit(70_000).is_ok()));
        assert!(pending.logins.is_empty() && pending.admit(70_001).is_err());
        assert!(pending.admit(130_001).is_ok());
    }
}
