//! Spokes know restic ids, the hub keys of stores: what comes from a cluster is about the store in which its repository lies,
//! and what is sent has the plain id. Pure.

use proto::plan::is_id;
use proto::v1::{HubMessage, RetentionRun, hub_message, spoke_message};

use super::{Places, restic_id};

/// Puts the key of the store in the place of the restic id of a message. A text that is no restic id stays as it is: that is
/// refused where it is checked, and no cluster names a store itself.
pub fn incoming(body: &mut spoke_message::Body, cluster: &str, places: &Places) {
    use spoke_message::Body;
    let id = match body {
        Body::LeaseAsk(message) => &mut message.restic_id,
        Body::LeaseWithdraw(message) => &mut message.restic_id,
        Body::LeaseRenew(message) => &mut message.restic_id,
        Body::LeaseRelease(message) => &mut message.restic_id,
        Body::PossessionProof(message) => &mut message.restic_id,
        Body::PlanPart(message) => &mut message.restic_id,
        Body::CollectorReport(message) => &mut message.restic_id,
        Body::StoreProbeAnswer(message) => &mut message.restic_id,
        Body::Hello(_)
        | Body::Inventory(_)
        | Body::Delta(_)
        | Body::Heartbeat(_)
        | Body::CreationRequest(_)
        | Body::CreationDone(_)
        | Body::CertificateRequest(_)
        | Body::TrustStored(_)
        | Body::CertificateStored(_)
        | Body::CommandReport(_)
        | Body::ClaimsReport(_)
        | Body::BrowsePart(_) => return,
    };
    if is_id(id) {
        *id = places.key(cluster, id).to_string();
    } else {
        // A cluster that wrote the key of a store would speak for one that it does not use.
        id.retain(|c| c != super::MARK);
    }
}

/// Puts the restic id in the place of the key of a store.
pub fn outgoing(message: &mut HubMessage) {
    use hub_message::Body;
    let Some(body) = &mut message.body else { return };
    let (id, run): (&mut String, Option<&mut RetentionRun>) = match body {
        Body::LeaseGrant(message) => (&mut message.restic_id, message.run.as_mut()),
        Body::LeaseRenewed(message) => (&mut message.restic_id, message.run.as_mut()),
        Body::LeaseRevoke(message) => (&mut message.restic_id, None),
        Body::LeaseReleased(message) => (&mut message.restic_id, None),
        Body::LeaseWaiting(message) => (&mut message.restic_id, None),
        Body::LeaseCovered(message) => (&mut message.restic_id, None),
        Body::Drain(message) => (&mut message.restic_id, None),
        Body::PlanApproved(message) => (&mut message.restic_id, None),
        Body::PossessionChallenge(message) => (&mut message.restic_id, None),
        Body::CollectorAssignment(message) => (&mut message.restic_id, None),
        Body::StoreProbe(message) => (&mut message.restic_id, None),
        Body::RepositoryCopies(message) => (&mut message.restic_id, None),
        Body::Welcome(_)
        | Body::Resync(_)
        | Body::CreationGrant(_)
        | Body::CertificateIssued(_)
        | Body::TrustBundle(_)
        | Body::CertificateRefused(_)
        | Body::Command(_)
        | Body::CommandSettled(_)
        | Body::Browse(_)
        | Body::BrowseMore(_)
        | Body::HeartbeatAnswer(_) => return,
    };
    plain(id);
    if let Some(run) = run {
        plain(&mut run.restic_id);
    }
}

fn plain(id: &mut String) {
    let length = restic_id(id).len();
    id.truncate(length);
}

#[cfg(test)]
mod tests {
    use proto::v1::{LeaseAsk, LeaseGrant};

    use super::super::Place;
    use super::*;

    #[test]
    fn a_cluster_speaks_of_its_own_store_and_is_answered_with_the_plain_id() {
        let id = "a".repeat(64);
        let mut places = Places::default();
        places.put(Place {
            restic_id: id.as_str().into(),
            cluster: "b".into(),
            store: format!("{id}@2").into(),
            urls: String::new(),
        });
        let said = |cluster: &str, restic_id: &str| {
            let ask = LeaseAsk {
                restic_id: restic_id.to_owned(),
                ..LeaseAsk::default()
            };
            let mut body = spoke_message::Body::LeaseAsk(ask);
            incoming(&mut body, cluster, &places);
            match body {
                spoke_message::Body::LeaseAsk(ask) => ask.restic_id,
                _ => String::new(),
            }
        };
        assert_eq!(said("a", &id), id);
        assert_eq!(said("b", &id), format!("{id}@2"));
        assert!(
            !super::super::is_key(&said("a", &format!("{id}@2"))),
            "no cluster names a store"
        );
        let grant = LeaseGrant {
            restic_id: format!("{id}@2"),
            run: Some(RetentionRun {
                restic_id: format!("{id}@2"),
                ..RetentionRun::default()
            }),
            ..LeaseGrant::default()
        };
        let mut message = HubMessage {
            body: Some(hub_message::Body::LeaseGrant(grant)),
        };
        outgoing(&mut message);
        let Some(hub_message::Body::LeaseGrant(grant)) = message.body else {
            panic!()
        };
        assert_eq!((grant.restic_id, grant.run.unwrap().restic_id), (id.clone(), id));
    }
}
