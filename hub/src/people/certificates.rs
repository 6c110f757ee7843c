//! Certificates: which ones of people are refused, and which authorities those of the hub are of.

use proto::certificate::KeyHash;
use proto::time::from_unix_millis;
use proto::v1::{AuthoritiesRequest, AuthoritiesResponse, RevokeCertificateRequest, RevokedCertificate};
use tonic::Status;
use tracing::info;

use super::{PeopleService, decision, named};
use crate::access::people::Revocation;
use crate::access::{Method, Person};
use crate::lock::people::unavailable;
use crate::store::StoredDecision;

/// Most authorities of a bundle: three of the hub's own, and given ones.
const AUTHORITIES: usize = 64;
/// Longest serial, in hex digits: RFC 5280 allows 20 bytes.
const SERIAL: usize = 40;

/// Keys as they were sent.
pub fn keys(sent: Vec<Vec<u8>>) -> Vec<KeyHash> {
    let keys = sent.into_iter().filter_map(|key| KeyHash::try_from(key).ok());
    keys.take(AUTHORITIES).collect()
}

impl PeopleService {
    /// The authorities of now. What the person's CLI has kept is noted: an activation waits for it.
    pub(super) async fn trust(
        &self,
        person: &Person,
        request: AuthoritiesRequest,
    ) -> Result<AuthoritiesResponse, Status> {
        let kept = keys(request.kept);
        if let Method::Session { hash, .. } = &person.method
            && !kept.is_empty()
        {
            let _changing = self.changing.lock().await;
            let stored = self.hub.store().keep_trust(*hash, kept.clone()).await;
            stored.map_err(|error| unavailable(&error))?;
            self.hub.authority.change(|people| people.trusts(hash, kept));
        }
        Ok(AuthoritiesResponse {
            authorities: self.hub.membership.authorities(),
        })
    }

    /// Refuses certificates of a person: at the next request, and what is open ends.
    pub(super) async fn refuse_certificate(
        &self,
        by: &Person,
        request: RevokeCertificateRequest,
    ) -> Result<(), Status> {
        let RevokeCertificateRequest { name, serial } = request;
        let (subject, after) = match (name.as_str(), serial.as_str()) {
            ("", "") => return Err(Status::invalid_argument("name a person or a serial")),
            (_, "") => {
                named("name", &name)?;
                (name.clone(), "all certificates until now are refused".to_owned())
            }
            ("", _) => {
                proper_serial(&serial)?;
                (serial.clone(), format!("certificate {serial} is refused"))
            }
            _ => return Err(Status::invalid_argument("name a person or a serial, not both")),
        };
        let _changing = self.changing.lock().await;
        let decision = StoredDecision {
            after,
            ..decision(&by.name, "revoke-certificate", &subject)
        };
        let revocation = Revocation {
            name,
            serial,
            // As certificates have it: one that is made after this begins at this second at the earliest.
            at: decision.at.div_euclid(1000) * 1000,
            by: by.name.to_string(),
        };
        let kept = self
            .hub
            .store()
            .revoke_certificate(revocation.clone(), decision)
            .await;
        kept.map_err(|error| unavailable(&error))?;
        self.hub.authority.change(|people| people.refuse(revocation));
        info!(subject, by = &*by.name, "certificates of a person were revoked");
        Ok(())
    }
}

/// A revocation as it is listed.
pub fn row(revocation: &Revocation) -> RevokedCertificate {
    RevokedCertificate {
        name: revocation.name.clone(),
        serial: revocation.serial.clone(),
        at: Some(from_unix_millis(revocation.at)),
        by: revocation.by.clone(),
    }
}

fn proper_serial(serial: &str) -> Result<(), Status> {
    let digit = |c: char| c.is_ascii_digit() || ('a'..='f').contains(&c);
    if serial.len() <= SERIAL && !serial.starts_with('0') && serial.chars().all(digit) {
        return Ok(());
    }
    Err(Status::invalid_argument(format!(
        "the serial {serial:?} must be 1 to {SERIAL} digits of 0-9 and a-f, without zeros before them, as the audit has it"
    )))
}
