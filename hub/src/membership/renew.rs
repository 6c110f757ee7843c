//! The next certificate of a connected cluster.

use std::sync::Arc;

use proto::v1::hub_message::Body;
use proto::v1::{CertificateIssued, CertificateRefused};
use tracing::{info, warn};

use super::stored;
use crate::hub::Hub;
use crate::{Millis, Moment};

/// Certificates of one session: each one costs a write.
#[derive(Debug, Default)]
pub struct Renewals {
    last: Option<Millis>,
    /// Serial and end of the newest one, until the spoke has kept it.
    issued: Option<(String, Millis)>,
}

/// Shortest time between two certificates of one session, at most.
const PAUSE: Millis = 60_000;

impl Renewals {
    /// Whether another certificate may be issued, at a time of the steady clock.
    fn may(&mut self, life: Millis, now: Millis) -> bool {
        let pause = PAUSE.min(life / 10);
        let soon = self.last.is_some_and(|last| now.saturating_sub(last) < pause);
        if !soon {
            self.last = Some(now);
        }
        !soon
    }

    /// Answers a request.
    pub async fn answer(&mut self, hub: &Hub, cluster: &Arc<str>, request: &[u8]) -> Body {
        match self.issue(hub, cluster, request).await {
            Ok(issued) => Body::CertificateIssued(issued),
            Err(reason) => {
                warn!(%cluster, reason, "no certificate was issued");
                Body::CertificateRefused(CertificateRefused { reason })
            }
        }
    }

    /// The spoke has kept a certificate. When it ends, if it is the newest that was issued on this session.
    pub fn kept(&mut self, serial: &str) -> Option<Millis> {
        self.issued
            .take_if(|(issued, _)| issued == serial)
            .map(|(_, expires)| expires)
    }

    async fn issue(
        &mut self,
        hub: &Hub,
        cluster: &Arc<str>,
        request: &[u8],
    ) -> Result<CertificateIssued, String> {
        let life = hub
            .membership
            .authority
            .as_ref()
            .map_or(0, |authority| authority.life());
        if !self.may(life, Moment::now().steady) {
            return Err("the last certificate was issued only now; ask again in a minute".to_owned());
        }
        let signed = hub.membership.sign(cluster, request);
        let signed = signed.map_err(|error| error.to_string())?;
        let certificate = stored(cluster, &signed);
        let kept = hub.store().add_certificate(certificate.clone()).await;
        kept.map_err(|error| error.to_string())?;
        hub.membership.issued(&certificate);
        info!(%cluster, serial = signed.facts.serial, "a certificate was renewed");
        self.issued = Some((signed.facts.serial, signed.facts.expires));
        Ok(CertificateIssued {
            certificate: Some(signed.certificate),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_counts_as_that_of_a_certificate_which_the_spoke_has_kept() {
        let mut renewals = Renewals {
            issued: Some(("ab".to_owned(), 7)),
            ..Renewals::default()
        };
        assert_eq!(renewals.kept("cd"), None, "it was never issued here");
        assert_eq!(renewals.kept("ab"), Some(7));
        assert_eq!(renewals.kept("ab"), None);
    }

    #[test]
    fn a_session_gets_no_flood_of_certificates() {
        let mut renewals = Renewals::default();
        let day = 86_400_000;
        assert!(renewals.may(day, 0));
        assert!(!renewals.may(day, 59_999));
        assert!(renewals.may(day, 60_000));
        assert!(renewals.may(1_000, 60_100), "a short life is renewed more often");
    }
}
