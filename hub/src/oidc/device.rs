//! The device flow: the person confirms on any machine, and the issuer is asked until it has.

use std::net::IpAddr;

use axum::http::StatusCode;
use serde_json::Value;
use tonic::Status;

use super::claims::Named;
use super::pending::{Device, Flow, Login, Turn};
use super::{Oidc, failed};
use crate::Millis;

const GRANT: &str = "urn:ietf:params:oauth:grant-type:device_code";

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
    /// Begins a login under a key that only its person has.
    ///
    /// # Errors
    /// ResourceExhausted when too many wait, Unavailable when the issuer fails.
    pub async fn begin(&self, key: [u8; 32], source: Option<IpAddr>, now: Millis) -> Result<Begun, Status> {
        self.pending.lock().await.admit(source, now)?;
        let known = self.known(now, false).await.map_err(|error| failed(&error))?;
        let device = known.device.as_ref().ok_or_else(|| {
            Status::failed_precondition(
                "this issuer has no device flow, or not for this client: `fleet login --oidc --browser`",
            )
        })?;
        let mut form = vec![
            ("client_id", self.expected.client.as_str()),
            ("scope", &self.scopes),
        ];
        form.extend(self.secret.as_deref().map(|secret| ("client_secret", secret)));
        let answer = self.http.post(device, &form).await;
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
            flow: Flow::Device(Device {
                code,
                interval,
                next: now + interval,
            }),
            source,
            expires: begun.expires,
        };
        self.pending.lock().await.put(key, login);
        Ok(begun)
    }

    /// Asks the issuer once whether the person has confirmed.
    ///
    /// # Errors
    /// Unauthenticated when there is no such login, it was declined, or its token names nobody; Unavailable when the issuer
    /// fails.
    pub async fn step(&self, key: [u8; 32], now: Millis) -> Result<Step, Status> {
        let turn = self.pending.lock().await.turn(&key, now)?;
        let login = match turn {
            Turn::Early(left) => return Ok(Step::Waits(left)),
            Turn::Due(login) => login,
        };
        let known = self.known(now, false).await.map_err(|error| failed(&error))?;
        let mut form = vec![
            ("grant_type", GRANT),
            ("device_code", login.code.as_str()),
            ("client_id", &self.expected.client),
        ];
        form.extend(self.secret.as_deref().map(|secret| ("client_secret", secret)));
        let answer = self.http.post(&known.token, &form).await;
        let (status, answer) = answer.map_err(|error| failed(&error))?;
        let text = |name: &str| answer.get(name).and_then(Value::as_str).unwrap_or_default();
        if status == StatusCode::OK {
            self.pending.lock().await.end(&key);
            return {
                let named = self.named(text("id_token"), None, &known, now).await;
                named.map(Step::Named)
            };
        }
        match text("error") {
            "authorization_pending" => Ok(Step::Waits(login.interval)),
            "slow_down" => {
                let interval = login.interval + 5_000;
                self.pending.lock().await.slow(&key, interval, now);
                Ok(Step::Waits(interval))
            }
            error => {
                self.pending.lock().await.end(&key);
                Err(Status::unauthenticated(format!(
                    "the issuer ended this login: {error}"
                )))
            }
        }
    }
}
