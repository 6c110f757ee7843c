//! A hub whose store was lost and put back from a backup, in the middle of the work of its spokes.

use std::path::{Path, PathBuf};

use crate::harness::{Fleet, ID, Spoke, ask, keep_last, member, policy, repository};
use hub::store::copy;
use proto::v1::fleet_hub_client::FleetHubClient;
use proto::v1::hub_backup_part::Body as Part;
use proto::v1::hub_message::Body as Told;
use proto::v1::spoke_message::Body;
use proto::v1::{
    AuditEntry, AuditRequest, Hello, HubBackupRequest, KeepBackupRequest, LeaseAsk, LeaseRelease, LeaseRenew,
    OperationOutcome,
};

/// A store that was put back grants tokens above this one.
const FLOOR: u64 = 1 << 16;

async fn backup(fleet: &Fleet) -> PathBuf {
    let file = fleet.dir.path().join("backup");
    fleet.running.hub.backup_to(file.clone()).await.unwrap();
    file
}

/// The store is lost; a new hub begins with the backup.
async fn lost(fleet: Fleet) -> Fleet {
    fleet
        .restart_on(async |dir: &Path| {
            let store = dir.join("fleet.db");
            for file in ["fleet.db", "fleet.db-wal", "fleet.db-shm"] {
                let _ = std::fs::remove_file(dir.join(file));
            }
            copy::restore(&dir.join("backup"), &store, None, false, hub::now())
                .await
                .unwrap();
        })
        .await
}

/// A spoke that was connected to the hub before, as it comes back.
async fn back(fleet: &Fleet, cluster: &str, seen: (&str, u64)) -> Spoke {
    let hello = Hello {
        hub_incarnation: seen.0.to_owned(),
        hub_epoch: seen.1,
        ..Hello::default()
    };
    fleet.spoke_that_says(cluster, hello).await
}

fn renewal(operation: &str, token: u64) -> Body {
    Body::LeaseRenew(LeaseRenew {
        operation: operation.to_owned(),
        restic_id: ID.to_owned(),
        token,
        seq: 1,
        run_hash: Vec::new(),
    })
}

async fn renewed(spoke: &mut Spoke, token: u64) {
    spoke
        .until("a renewal", |told| match told {
            Told::LeaseRenewed(renewed) if renewed.token == token => Some(()),
            Told::LeaseRevoke(revoke) => panic!("{revoke:?}"),
            _ => None,
        })
        .await;
}

async fn release(spoke: &mut Spoke, operation: &str, token: u64) {
    let release = LeaseRelease {
        operation: operation.to_owned(),
        restic_id: ID.to_owned(),
        token,
        outcome: Some(OperationOutcome {
            result: "Applied".to_owned(),
            ..OperationOutcome::default()
        }),
        policy: "p".to_owned(),
        ..LeaseRelease::default()
    };
    spoke.say(Body::LeaseRelease(release)).await;
    spoke
        .until("a release", |told| match told {
            Told::LeaseReleased(released) if released.token == token => Some(()),
            _ => None,
        })
        .await;
}

async fn audit(fleet: &Fleet) -> Vec<AuditEntry> {
    let answer = fleet.operator().await.audit(AuditRequest::default()).await;
    let mut entries = answer.unwrap().into_inner().entries;
    entries.sort_by_key(|entry| entry.token);
    entries
}

/// Cluster b, which waits for the lock.
async fn waiting(fleet: &Fleet) -> Spoke {
    let mut other = fleet.spoke("b").await;
    other.tell(vec![repository(ID), policy(keep_last(3))]).await;
    other.prove(ID, 1).await;
    fleet.until_binding("b", ID, "bound").await;
    other.ask("other").await;
    other
}

/// Nothing is granted to who waits, while the holder renews, for longer than a lease lives.
async fn stays_held(fleet: &Fleet, holder: &mut Spoke, token: u64) {
    for _ in 0..8 {
        holder.say(renewal("job", token)).await;
        renewed(holder, token).await;
        let locks = fleet.locks().await;
        let lock = locks.locks.first().unwrap();
        assert_eq!((lock.state.as_str(), lock.token), ("held", token), "{lock:?}");
        tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    }
}

#[tokio::test]
async fn a_lease_that_the_backup_holds_goes_on_and_the_next_one_is_above_all_that_was_lost() {
    let fleet = Fleet::new().await;
    let mut spoke = member(&fleet).await;
    spoke.ask("job").await;
    let token = spoke.granted().await.token;
    backup(&fleet).await;
    let seen = (fleet.running.hub.incarnation.clone(), fleet.running.hub.epoch);

    let fleet = lost(fleet).await;
    assert!(fleet.running.hub.epoch > seen.1 + 900);
    assert_eq!(fleet.running.hub.incarnation, seen.0);
    let mut other = waiting(&fleet).await;
    let mut spoke = back(&fleet, "a", (&seen.0, seen.1)).await;
    stays_held(&fleet, &mut spoke, token).await;
    release(&mut spoke, "job", token).await;
    let next = other.granted().await;
    assert!(next.token > FLOOR, "{}", next.token);
    let audit = audit(&fleet).await;
    let outcome = audit.first().unwrap().outcome.as_ref();
    assert_eq!(outcome.map(|o| o.result.as_str()), Some("Applied"));
    assert_eq!(audit.len(), 2);
}

#[tokio::test]
async fn a_grant_that_the_backup_does_not_know_is_waited_for_taken_up_and_entered_into_the_audit() {
    let fleet = Fleet::new().await;
    let mut spoke = member(&fleet).await;
    spoke.ask("before").await;
    let before = spoke.granted().await.token;
    release(&mut spoke, "before", before).await;
    backup(&fleet).await;
    spoke.ask("job").await;
    let token = spoke.granted().await.token;
    let seen = (fleet.running.hub.incarnation.clone(), fleet.running.hub.epoch);

    let fleet = lost(fleet).await;
    let mut other = waiting(&fleet).await;
    fleet
        .until("the wait for who is not known", async |fleet| {
            let locks = fleet.locks().await.locks;
            locks.first().is_some_and(|lock| lock.state == "delayed")
        })
        .await;
    let mut spoke = back(&fleet, "a", (&seen.0, seen.1)).await;
    stays_held(&fleet, &mut spoke, token).await;
    let entries = audit(&fleet).await;
    let tokens: Vec<u64> = entries.iter().map(|entry| entry.token).collect();
    assert_eq!(tokens, [before, token], "no line of before is lost: {entries:?}");
    release(&mut spoke, "job", token).await;
    let next = other.granted().await;
    assert!(next.token > FLOOR, "{}", next.token);
    let entries = audit(&fleet).await;
    let results: Vec<_> = entries.iter().map(|entry| entry.outcome.clone()).collect();
    let results: Vec<_> = results
        .iter()
        .map(|o| o.as_ref().map(|o| o.result.as_str()))
        .collect();
    assert_eq!(results, [Some("Applied"), Some("Applied"), None]);
    let decisions = fleet.operator().await.audit(AuditRequest::default()).await;
    let decisions = decisions.unwrap().into_inner().decisions;
    assert!(
        decisions.iter().any(|decision| decision.what == "restore-store"),
        "{decisions:?}"
    );
}

#[tokio::test]
async fn a_run_that_ended_while_there_was_no_hub_is_in_the_audit_of_the_store_that_was_put_back() {
    let fleet = Fleet::new().await;
    let mut spoke = member(&fleet).await;
    backup(&fleet).await;
    spoke.ask("job").await;
    let token = spoke.granted().await.token;

    let fleet = lost(fleet).await;
    let mut spoke = fleet.spoke("a").await;
    for _ in 0..2 {
        // The answer to the first may be lost.
        release(&mut spoke, "job", token).await;
    }
    let entries = audit(&fleet).await;
    let [entry] = entries.as_slice() else {
        panic!("{entries:?}")
    };
    assert_eq!((entry.token, entry.cluster.as_str()), (token, "a"));
    assert_eq!(entry.outcome.as_ref().unwrap().result, "Applied");
    let again = LeaseAsk {
        seen_token: token,
        ..ask("next")
    };
    spoke.say(Body::LeaseAsk(again)).await;
    assert!(spoke.granted().await.token > FLOOR);
}

#[tokio::test]
async fn a_backup_counts_once_its_receiver_has_it() {
    let fleet = Fleet::new().await;
    let channel = fleet.channel("spiffe://fleet/admin/ann").await;
    let mut client = FleetHubClient::new(channel);
    let counted = async || fleet.running.hub.store().last_copy().await.unwrap();
    let mut parts = client.backup(HubBackupRequest {}).await.unwrap().into_inner();
    let mut summary = None;
    while let Some(part) = parts.message().await.unwrap() {
        if let Some(Part::Summary(last)) = part.body {
            summary = Some(last);
        }
    }
    let summary = summary.unwrap();
    // All of it was sent; whether it is on a disk only its receiver knows.
    assert_eq!(counted().await, None);
    let other = KeepBackupRequest { sha256: vec![0; 32] };
    let refused = client.keep_backup(other).await.unwrap_err();
    assert_eq!(refused.code(), tonic::Code::FailedPrecondition);
    assert_eq!(counted().await, None);
    let sha256 = summary.sha256;
    client.keep_backup(KeepBackupRequest { sha256 }).await.unwrap();
    assert_eq!(counted().await, Some(summary.made_ms));
}
