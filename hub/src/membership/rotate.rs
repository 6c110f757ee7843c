//! The steps of a rotation of the authority, and whom each would lock out.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, PoisonError};

use proto::certificate::KeyHash;
use proto::time::{from_unix_millis, to_unix_millis};
use proto::v1::{PersonBehind, RotateAuthorityRequest, RotateAuthorityResponse, RotationStep};
use tonic::Status;
use tracing::info;

use super::Membership;
use crate::access::people::{BROWSER, People, Session};
use crate::access::{Person, Verb, out_of_scope};
use crate::authority::{Authority, Rotation};
use crate::hub::Hub;
use crate::now;
use crate::store::{StoredCertificate, StoredDecision};

/// What is known of clusters in this run of the hub.
struct Known<'a> {
    /// Certificates that have not expired, of clusters that are waited for.
    certificates: &'a [StoredCertificate],
    /// Keys of the authorities that each has kept.
    trusted: &'a BTreeMap<Arc<str>, BTreeSet<KeyHash>>,
    /// Serial of the newest certificate that each is known to have.
    shown: &'a BTreeMap<Arc<str>, String>,
}

/// Whether the cluster of a certificate is waited for: not one that is banned, nor one that was forgotten and has not
/// connected since.
fn awaited(certificate: &StoredCertificate, banned: bool, present: bool) -> bool {
    !banned && (present || !certificate.forgotten)
}

/// Clusters that the next step would lock out, of those with a certificate that has not expired.
///
/// An activation locks out a cluster that does not trust the next authority yet: its next dial would refuse the hub. The
/// end of the old one locks out a cluster that does not have a certificate of the next one: one that was only issued may
/// not have arrived.
#[must_use]
fn behind(rotation: Rotation, active: &KeyHash, next: Option<&KeyHash>, known: &Known<'_>) -> Vec<String> {
    let trusts = |cluster: &str, key: &KeyHash| {
        let keys = known.trusted.get(cluster);
        keys.is_some_and(|keys| keys.contains(key))
    };
    let has_of = |cluster: &str, key: &KeyHash| {
        let shown = known.shown.get(cluster);
        let mut certificates = known.certificates.iter();
        let one = certificates.find(|one| one.cluster == cluster && Some(&one.serial) == shown);
        one.is_some_and(|one| one.authority == key)
    };
    let locked_out = |cluster: &str| match rotation {
        Rotation::Steady => false,
        Rotation::Announced => next.is_none_or(|next| !trusts(cluster, next)),
        Rotation::Activated => !has_of(cluster, active),
    };
    let clusters: BTreeSet<&str> = known
        .certificates
        .iter()
        .map(|one| one.cluster.as_str())
        .collect();
    let behind = clusters.into_iter().filter(|cluster| locked_out(cluster));
    behind.map(str::to_owned).collect()
}

impl Membership {
    async fn behind(&self, hub: &Hub, authority: &Authority) -> Result<Vec<String>, Status> {
        let certificates = hub.store().certificates(now()).await;
        let mut certificates = certificates.map_err(|error| Status::unavailable(error.to_string()))?;
        let present =
            |one: &StoredCertificate| hub.read(|inventory| inventory.member(&one.cluster).is_some());
        certificates.retain(|one| awaited(one, self.ban(&one.cluster).is_some(), present(one)));
        let next = authority.announced();
        let known = Known {
            certificates: &certificates,
            trusted: &self.trusted.lock().unwrap_or_else(PoisonError::into_inner),
            shown: &self.shown.lock().unwrap_or_else(PoisonError::into_inner),
        };
        Ok(behind(
            authority.rotation(),
            &authority.active(),
            next.as_ref(),
            &known,
        ))
    }

    /// Sessions of people that an activation would lock out: those whose CLI does not trust the next authority yet.
    fn people_behind(hub: &Hub, authority: &Authority) -> Vec<PersonBehind> {
        let (Rotation::Announced, Some(next)) = (authority.rotation(), authority.announced()) else {
            return Vec::new();
        };
        // A browser has authorities of its own.
        let behind = |session: &&Session| session.how != BROWSER && !session.trusts.contains(&next);
        let row = |session: &Session| PersonBehind {
            name: session.name.clone(),
            expires: Some(from_unix_millis(session.expires)),
        };
        let mut behind: Vec<PersonBehind> = hub
            .authority
            .read(|people| people.sessions(now()).filter(behind).map(row).collect());
        behind.sort_by(|a, b| a.name.cmp(&b.name));
        behind
    }

    /// Whether nobody would be locked out by a step.
    async fn refuse_behind(
        &self,
        hub: &Hub,
        authority: &Authority,
        step: RotationStep,
    ) -> Result<(), Status> {
        let behind = self.behind(hub, authority).await?;
        if !behind.is_empty() {
            let text = format!(
                "clusters would be locked out and have to join again: {}. Each is ready soon after it has connected; \
                 `fleet clusters rotate-authority` shows who is not. --force goes on without them",
                behind.join(", ")
            );
            return Err(Status::failed_precondition(text));
        }
        let people = Membership::people_behind(hub, authority);
        if step == RotationStep::Activate && !people.is_empty() {
            return Err(Status::failed_precondition(people_text(&people)));
        }
        Ok(())
    }

    async fn rotation(&self, hub: &Hub, authority: &Authority) -> Result<RotateAuthorityResponse, Status> {
        Ok(RotateAuthorityResponse {
            state: authority.rotation().as_str().to_owned(),
            behind: self.behind(hub, authority).await?,
            authorities: authority.keys().iter().map(hex::encode).collect(),
            people: Membership::people_behind(hub, authority),
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
        membership.refuse_behind(hub, authority, step).await?;
    }
    // First, so that it can be done again where it fails: a session that a certificate of the retired authority has made would
    // outlive it.
    if step == RotationStep::Retire && before == Rotation::Activated {
        end_made(hub, who).await?;
    }
    let done = match step {
        RotationStep::Begin => authority.begin(now()),
        RotationStep::Activate => authority.activate(),
        RotationStep::Retire | RotationStep::Unspecified => authority.retire(),
    };
    done.map_err(|error| Status::failed_precondition(format!("{error:#}")))?;
    membership.refresh();
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

/// Ends the sessions and login tokens that people have made for themselves by certificates.
async fn end_made(hub: &Hub, who: &str) -> Result<(), Status> {
    let decision = StoredDecision {
        at: now(),
        who: who.to_owned(),
        what: "revoke".to_owned(),
        subject: "sessions that certificates have made".to_owned(),
        after: "an authority is retired".to_owned(),
        ..StoredDecision::default()
    };
    let ended = hub.store().end_made(decision).await;
    ended.map_err(|error| Status::unavailable(error.to_string()))?;
    hub.authority.change(People::end_made);
    Ok(())
}

/// Why an activation has to wait for people.
fn people_text(people: &[PersonBehind]) -> String {
    let until = |person: &PersonBehind| person.expires.as_ref().map_or(0, to_unix_millis);
    let last = people.iter().map(until).max().unwrap_or_default();
    let names: BTreeSet<&str> = people.iter().map(|person| person.name.as_str()).collect();
    let names: Vec<&str> = names.into_iter().collect();
    format!(
        "people would be locked out and have to log in again: {}. The CLI of each fetches the next authority with its next \
         command; the last of these sessions ends in {} min. --force goes on without them",
        names.join(", "),
        last.saturating_sub(now()).max(0) / 60_000 + 1,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_waits_for_a_cluster_that_is_banned_or_was_forgotten() {
        let of = |forgotten| StoredCertificate {
            forgotten,
            ..StoredCertificate::default()
        };
        let (banned, present) = (true, true);
        assert!(awaited(&of(false), !banned, present));
        assert!(
            awaited(&of(false), !banned, !present),
            "it has joined and will connect"
        );
        assert!(!awaited(&of(false), banned, present));
        assert!(!awaited(&of(true), !banned, !present));
        assert!(awaited(&of(true), !banned, present), "it has connected again");
    }

    #[test]
    fn a_cluster_that_would_be_locked_out_is_behind() {
        let (old, new) = ([1; 32], [2; 32]);
        let certificate = |cluster: &str, serial: &str, authority: KeyHash| StoredCertificate {
            cluster: cluster.to_owned(),
            serial: serial.to_owned(),
            authority: authority.to_vec(),
            ..StoredCertificate::default()
        };
        // Of the next authority each was issued one, and it has not arrived at "slow".
        let certificates = [
            certificate("ready", "1", old),
            certificate("ready", "2", new),
            certificate("slow", "3", old),
            certificate("slow", "4", new),
        ];
        let trusted = BTreeMap::from([
            (Arc::from("ready"), BTreeSet::from([old, new])),
            (Arc::from("slow"), BTreeSet::from([old])),
        ]);
        let shown = BTreeMap::from([
            (Arc::from("ready"), "2".to_owned()),
            (Arc::from("slow"), "3".to_owned()),
        ]);
        let known = Known {
            certificates: &certificates,
            trusted: &trusted,
            shown: &shown,
        };
        assert!(behind(Rotation::Steady, &old, None, &known).is_empty());
        assert_eq!(behind(Rotation::Announced, &old, Some(&new), &known), ["slow"]);
        assert_eq!(behind(Rotation::Activated, &new, None, &known), ["slow"]);
        let (trusted, shown) = (BTreeMap::new(), BTreeMap::new());
        let nothing = Known {
            trusted: &trusted,
            shown: &shown,
            ..known
        };
        for rotation in [Rotation::Announced, Rotation::Activated] {
            assert_eq!(
                behind(rotation, &new, Some(&new), &nothing),
                ["ready", "slow"],
                "one that was not heard of is not ready"
            );
        }
    }
}
