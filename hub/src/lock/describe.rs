//! Locks as `fleet locks` shows them. Pure.

use proto::v1::{Lock, LockWaiter};

use super::grantor::{Grantor, Holder, Instant, Operation, Phase};

/// The row of a lock.
#[must_use]
pub fn lock(
    restic_id: &str,
    repository: &str,
    (grantor, crowded): (&Grantor, Option<&str>),
    now: Instant,
    connected: impl Fn(&str) -> bool,
) -> Lock {
    let mut lock = Lock {
        restic_id: restic_id.to_owned(),
        repository: repository.to_owned(),
        token: grantor.token(),
        ..Lock::default()
    };
    stand(&mut lock, grantor.phase(), now);
    let waiters = grantor.waiting().iter().map(|waiter| LockWaiter {
        cluster: waiter.operation.cluster.to_string(),
        subject: waiter.operation.subject.to_string(),
        waited_ms: now.saturating_sub(waiter.since),
        reason: if connected(&waiter.operation.cluster) {
            reason(grantor, crowded)
        } else {
            "its spoke is not connected; it keeps its place for 10 minutes".to_owned()
        },
    });
    lock.waiters = waiters.collect();
    lock
}

/// Where it stands, with the holder and the times.
fn stand(lock: &mut Lock, phase: &Phase, now: Instant) {
    let holder = |lock: &mut Lock, operation: &Operation| {
        lock.cluster = operation.cluster.to_string();
        lock.subject = operation.subject.to_string();
    };
    match phase {
        Phase::Free => lock.state = "free".to_owned(),
        Phase::Draining { first, until } => {
            lock.state = "draining".to_owned();
            holder(lock, &first.operation);
            lock.ends_ms = until.saturating_sub(now);
        }
        Phase::Granting { grant, .. } => {
            lock.state = "granting".to_owned();
            holder(lock, &grant.operation);
        }
        Phase::Held {
            grant,
            expires,
            renewed,
            revoked,
        } => {
            lock.state = "held".to_owned();
            holder(lock, &grant.operation);
            lock.held_ms = now.saturating_sub(grant.since);
            lock.renewed_ms = now.saturating_sub(*renewed);
            lock.ends_ms = expires.saturating_sub(now);
            lock.revoked = *revoked;
        }
        Phase::Delay {
            holder: last, until, ..
        } => {
            lock.state = "delayed".to_owned();
            if let Some(operation) = last.operation() {
                holder(lock, operation);
            }
            lock.ends_ms = until.saturating_sub(now);
        }
    }
}

/// What a waiter waits for; `crowded` if that is a place on its storage host. Holds no times, so that it is sent again only
/// when it has changed.
#[must_use]
pub fn reason(grantor: &Grantor, crowded: Option<&str>) -> String {
    match grantor.phase() {
        Phase::Free if crowded.is_some() => crowded.unwrap_or_default().to_owned(),
        Phase::Free if grantor.not_before() > 0 => {
            "it is next; after a start of the hub nothing is granted for one life of a lease".to_owned()
        }
        Phase::Free => "it is next".to_owned(),
        Phase::Draining { first, .. } => format!(
            "{} of {} is next, and waits for running backups to end",
            first.operation.subject, first.operation.cluster
        ),
        Phase::Granting { grant, .. } => format!(
            "{} of {} is next",
            grant.operation.subject, grant.operation.cluster
        ),
        Phase::Held { grant, .. } => format!(
            "held by {} of {}, token {}",
            grant.operation.subject, grant.operation.cluster, grant.token
        ),
        Phase::Delay {
            holder: Holder::Unknown,
            ..
        } => "the hub's store was restored from a backup, and may have lost a grant; the lock waits until every pod \
              that could have one has ended"
            .to_owned(),
        Phase::Delay {
            holder: Holder::Known(operation),
            token,
            ..
        } => format!(
            "{} of {} fell silent with token {token}; its pod ends itself, and the lock waits until that is certain",
            operation.subject, operation.cluster
        ),
    }
}
