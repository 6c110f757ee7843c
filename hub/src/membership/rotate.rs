//! The steps of a rotation of the authority, and whom each would lock out.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, PoisonError};

use proto::certificate::KeyHash;
use proto::v1::{RotateAuthorityRequest, RotateAuthorityResponse, RotationStep};
use tonic::Status;
use tracing::info;

use super::Membership;
use crate::access::{Person, Verb, out_of_scope};
use crate::authority::{Authority, Rotation};
use crate::hub::Hub;
use crate::now;
use crate::store::{StoredCertificate, StoredDecision};

/// Clusters that the next step would lock out, given the newest certificate of each that has not expired.
///
/// An activation locks out who does not trust the next authority yet: its next dial would refuse the hub. The end of the
/// old one locks out who has no certificate of the next one.
#[must_use]
fn behind(
    rotation: Rotation,
    active: &KeyHash,
    next: Option<&KeyHash>,
    newest: &BTreeMap<&str, &StoredCertificate>,
    trusted: &BTreeMap<Arc<str>, BTreeSet<KeyHash>>,
) -> Vec<String> {
    let trusts = |cluster: &str, key: &KeyHash| trusted.get(cluster).is_some_and(|keys| keys.contains(key));
    let locked_out = |cluster: &str, certificate: &StoredCertificate| match rotation {
        Rotation::Steady => false,
        Rotation::Announced => next.is_none_or(|next| !trusts(cluster, next)),
        Rotation::Activated => certificate.authority != active,
    };
    let of = newest
        .iter()
        .filter(|(cluster, certificate)| locked_out(cluster, certificate));
    of.map(|(cluster, _)| (*cluster).to_owned()).collect()
}

impl Membership {
    async fn behind(&self, hub: &Hub, authority: &Authority) -> Result<Vec<String>, Status> {
        let certificates = hub.store().certificates(now()).await;
        let certificates = certificates.map_err(|error| Status::unavailable(error.to_string()))?;
        let mut newest = BTreeMap::new();
        for certificate in &certificates {
            // Newest first.
            newest.entry(certificate.cluster.as_str()).or_insert(certificate);
        }
        let next = authority.announced();
        let trusted = self.trusted.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(behind(
            authority.rotation(),
            &authority.active(),
            next.as_ref(),
            &newest,
            &trusted,
        ))
    }

    async fn rotation(&self, hub: &Hub, authority: &Authority) -> Result<RotateAuthorityResponse, Status> {
        Ok(RotateAuthorityResponse {
            state: authority.rotation().as_str().to_owned(),
            behind: self.behind(hub, authority).await?,
            authorities: authority.keys().iter().map(hex::encode).collect(),
        })
    }
}

/// Does a step, or only shows where the rotation is.
///
/// # Errors
/// FailedPrecondition for a step that is not the next one, or that would lock clusters out; Unavailable when it cannot be
/// kept.
pub(super) async fn rotate(
    hub: &Hub,
    request: RotateAuthorityRequest,
    person: &Person,
) -> Result<RotateAuthorityResponse, Status> {
    if !person.sight(Verb::Administer).is_everything() {
        return Err(out_of_scope(
            person,
            Verb::Administer,
            "the authority of the fleet",
        ));
    }
    let who = &*person.name;
    let membership = &hub.membership;
    let authority = membership.authority.as_ref().ok_or_else(|| {
        Status::failed_precondition(
            "the hub trusts a given authority only (--tls-ca): replace it in its file",
        )
    })?;
    let step = request.step();
    if step == RotationStep::Unspecified {
        return membership.rotation(hub, authority).await;
    }
    let _deciding = membership.deciding.lock().await;
    let before = authority.rotation();
    if step != RotationStep::Begin && !request.force {
        let behind = membership.behind(hub, authority).await?;
        if !behind.is_empty() {
            let text = format!(
                "clusters would be locked out and have to join again: {}. Each is ready soon after it has connected; \
                 `fleet clusters rotate-authority` shows who is not. --force goes on without them",
                behind.join(", ")
            );
            return Err(Status::failed_precondition(text));
        }
    }
    let done = match step {
        RotationStep::Begin => authority.begin(now()),
        RotationStep::Activate => authority.activate(),
        RotationStep::Retire | RotationStep::Unspecified => authority.retire(),
    };
    done.map_err(|error| Status::failed_precondition(format!("{error:#}")))?;
    let decision = StoredDecision {
        at: now(),
        who: who.to_owned(),
        what: "rotate-authority".to_owned(),
        subject: hex::encode(authority.active()),
        before: before.as_str().to_owned(),
        after: authority.rotation().as_str().to_owned(),
        ..StoredDecision::default()
    };
    let written = hub.store().decide(decision).await;
    written.map_err(|error| Status::unavailable(error.to_string()))?;
    info!(
        who,
        state = authority.rotation().as_str(),
        "the authority is being rotated"
    );
    membership.rotation(hub, authority).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_would_be_locked_out_is_behind() {
        let (old, new) = ([1; 32], [2; 32]);
        let certificate = |authority: KeyHash| StoredCertificate {
            authority: authority.to_vec(),
            ..StoredCertificate::default()
        };
        let (of_old, of_new) = (certificate(old), certificate(new));
        let newest = BTreeMap::from([("ready", &of_new), ("slow", &of_old)]);
        let trusted = BTreeMap::from([
            (Arc::from("ready"), BTreeSet::from([old, new])),
            (Arc::from("slow"), BTreeSet::from([old])),
        ]);
        let ask = |rotation, active, next| behind(rotation, active, next, &newest, &trusted);
        assert!(ask(Rotation::Steady, &old, None).is_empty());
        assert_eq!(ask(Rotation::Announced, &old, Some(&new)), ["slow"]);
        assert_eq!(ask(Rotation::Activated, &new, None), ["slow"]);
        let nobody = BTreeMap::new();
        assert_eq!(
            behind(Rotation::Announced, &old, Some(&new), &newest, &nobody),
            ["ready", "slow"],
            "who was not heard of is not ready"
        );
    }
}
