//! The next certificate of this cluster, asked for on the open link.

use std::time::Duration;

use proto::certificate::KeyHash;
use proto::renewal::due;
use proto::v1::spoke_message::Body;
use proto::v1::{CertificateIssued, CertificateRequest, CertificateStored, TrustBundle, TrustStored};
use tokio::time::Instant;
use tracing::{info, warn};

use super::config::LinkConfig;
use crate::context::Context;
use crate::enrol::{self, Held};

/// How long a request waits for its answer before the next one, as a part of the certificate's life, and at most.
const PARTS: u32 = 20;
const PAUSE: Duration = Duration::from_secs(600);
/// When another authority signs from now on, the certificates of a fleet are renewed within this time.
const ROTATION: Duration = Duration::from_secs(30);

/// State of one session.
pub(super) struct Renewal {
    /// `None` where a person has installed the certificate: then nothing is renewed.
    held: Option<Held>,
    /// When the next certificate is asked for.
    pub at: Option<Instant>,
    /// Key of the certificate that was asked for, PEM.
    asked: Option<String>,
}

impl Renewal {
    /// Of a session that was opened with a certificate.
    pub fn new(held: Option<Held>, context: &Context) -> Renewal {
        let mut renewal = Renewal {
            held,
            at: None,
            asked: None,
        };
        renewal.plan(context);
        renewal
    }

    fn plan(&mut self, context: &Context) {
        let Some(held) = &self.held else { return };
        let expires = held.facts.expires;
        context.metrics.certificate.expiry.set(seconds(expires));
        let due = due(held.facts.begins, expires, context.random.unit());
        self.at = Some(Instant::now() + until(due, context));
    }

    /// Asks for the next certificate, with a key that was never used.
    pub fn ask(&mut self, context: &Context) -> Option<Body> {
        let life = self
            .held
            .as_ref()?
            .facts
            .expires
            .saturating_sub(self.held.as_ref()?.facts.begins);
        let pause = Duration::from_millis(u64::try_from(life).unwrap_or_default()) / PARTS;
        self.at = Some(Instant::now() + pause.clamp(Duration::from_millis(200), PAUSE));
        let key = enrol::new_key().and_then(|key| Ok((enrol::request(&key)?, key)));
        match key {
            Ok((csr, key)) => {
                self.asked = Some(key);
                Some(Body::CertificateRequest(CertificateRequest { csr }))
            }
            Err(error) => {
                warn!("no key could be made for the next certificate: {error:#}");
                failed(context, "lost");
                None
            }
        }
    }

    /// Keeps what was issued. Until it is kept the certificate of before is used, and asked for again. The answer names what
    /// was kept.
    pub async fn issued(
        &mut self,
        config: &LinkConfig,
        context: &Context,
        issued: CertificateIssued,
    ) -> Option<Body> {
        let (held, key, certificate) = (self.held.as_ref()?, self.asked.take()?, issued.certificate?);
        match enrol::renewed(&config.place, &context.applier, held, &certificate, &key).await {
            Ok(held) => {
                info!(
                    serial = held.facts.serial,
                    "the certificate of this cluster was renewed"
                );
                let serial = held.facts.serial.clone();
                self.held = Some(held);
                self.plan(context);
                Some(Body::CertificateStored(CertificateStored { serial }))
            }
            Err(error) => {
                warn!("the next certificate could not be kept: {error:#}");
                failed(context, "lost");
                None
            }
        }
    }

    /// The hub issues none now.
    pub fn refused(&mut self, context: &Context, reason: &str) {
        self.asked = None;
        failed(context, "refused");
        warn!(reason, "the hub issues no certificate; it is asked again");
    }

    /// Keeps the authorities that the hub announces. The answer names them.
    pub async fn trust(
        &mut self,
        config: &LinkConfig,
        context: &Context,
        bundle: &TrustBundle,
    ) -> Option<Body> {
        let held = self.held.as_mut()?;
        let kept = enrol::trust(&config.place, &context.applier, held, &bundle.authorities).await;
        if outdated(held.signer, &bundle.active) {
            let soon = Instant::now() + ROTATION.mul_f64(context.random.unit().clamp(0.0, 1.0));
            self.at = Some(self.at.map_or(soon, |at| at.min(soon)));
        }
        match kept {
            Ok(keys) => Some(Body::TrustStored(TrustStored {
                keys: keys.into_iter().map(|key| key.to_vec()).collect(),
            })),
            Err(error) => {
                warn!("the authorities of the hub could not be kept: {error:#}");
                failed(context, "lost");
                None
            }
        }
    }
}

fn failed(context: &Context, outcome: &str) {
    let failures = &context.metrics.certificate.failures;
    failures.with_label_values(&[outcome]).inc();
}

/// Whether a certificate is of an authority that does not sign any more.
fn outdated(signer: Option<KeyHash>, active: &[u8]) -> bool {
    !active.is_empty() && signer.is_some_and(|signer| signer != active)
}

fn until(time: i64, context: &Context) -> Duration {
    let left = time.saturating_sub(context.clock.now().as_millisecond());
    Duration::from_millis(u64::try_from(left).unwrap_or_default())
}

#[allow(clippy::cast_precision_loss, reason = "seconds since 1970 fit")]
fn seconds(millis: i64) -> f64 {
    (millis / 1000) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_of_an_authority_that_went_is_renewed() {
        assert!(outdated(Some([1; 32]), &[2; 32]));
        assert!(!outdated(Some([1; 32]), &[1; 32]));
        assert!(!outdated(None, &[1; 32]), "who signed it is not known");
        assert!(!outdated(Some([1; 32]), &[]), "an earlier hub says nothing");
    }
}
