//! Locks, plans and the audit as documents.

use proto::v1::{
    AuditEntry, AuditResponse, Decision, Lock, LockWaiter, LocksResponse, OperationOutcome, Plan,
    PlansResponse, ResticLock,
};
use serde_json::{Value, json};

use crate::document::API_VERSION;
use crate::text::rfc3339;

fn text(text: &str) -> Value {
    if text.is_empty() { Value::Null } else { json!(text) }
}

/// A list of locks.
#[must_use]
pub fn locks(answer: &LocksResponse) -> Value {
    let items: Vec<Value> = answer.locks.iter().map(lock).collect();
    json!({ "apiVersion": API_VERSION, "kind": "LockList", "asOf": rfc3339(answer.as_of.as_ref()), "items": items })
}

fn restic_lock(lock: &ResticLock) -> Value {
    json!({
        "id": lock.id, "exclusive": lock.exclusive, "user": text(&lock.user), "host": text(&lock.host),
        "created": rfc3339(lock.created.as_ref()), "unchangedSince": rfc3339(lock.unchanged_since.as_ref()),
        "keptBecause": text(&lock.kept_because),
    })
}

fn lock(lock: &Lock) -> Value {
    let restic: Vec<Value> = lock.restic_locks.iter().map(restic_lock).collect();
    let waiter = |w: &LockWaiter| json!({ "cluster": w.cluster, "subject": w.subject, "waitedMilliseconds": w.waited_ms, "reason": w.reason });
    let waiters: Vec<Value> = lock.waiters.iter().map(waiter).collect();
    json!({
        "resticID": lock.restic_id, "repository": text(&lock.repository), "state": lock.state, "token": lock.token,
        "cluster": text(&lock.cluster), "subject": text(&lock.subject), "heldMilliseconds": lock.held_ms,
        "renewedMillisecondsAgo": lock.renewed_ms, "endsInMilliseconds": lock.ends_ms, "revoked": lock.revoked, "waiters": waiters,
        "resticLocks": restic,
    })
}

/// A list of plans.
#[must_use]
pub fn plans(answer: &PlansResponse) -> Value {
    let items: Vec<Value> = answer.plans.iter().map(one_plan).collect();
    json!({ "apiVersion": API_VERSION, "kind": "PlanList", "asOf": rfc3339(answer.as_of.as_ref()), "nextBefore": text(&answer.next_before), "items": items })
}

/// One plan, with all that it removes.
#[must_use]
pub fn plan(plan: &Plan) -> Value {
    let mut value = one_plan(plan);
    value["apiVersion"] = json!(API_VERSION);
    value["kind"] = json!("Plan");
    value["plan"] = serde_json::from_str::<Value>(&plan.document).map_or(Value::Null, |d| d["plan"].clone());
    value
}

fn one_plan(plan: &Plan) -> Value {
    json!({
        "id": plan.id, "resticID": plan.restic_id, "repository": text(&plan.repository), "hash": plan.hash, "state": plan.state,
        "made": rfc3339(plan.made.as_ref()), "cluster": plan.cluster, "subject": plan.subject, "token": plan.token,
        "outcome": outcome(plan.outcome.as_ref()), "decidedBy": text(&plan.decided_by),
        "decided": rfc3339(plan.decided.as_ref()), "documentMissing": text(&plan.document_missing),
    })
}

/// The audit.
#[must_use]
pub fn audit(answer: &AuditResponse) -> Value {
    let entry = |e: &AuditEntry| {
        json!({
            "token": e.token, "resticID": e.restic_id, "repository": text(&e.repository), "cluster": e.cluster, "subject": e.subject,
            "granted": rfc3339(e.granted.as_ref()), "ended": rfc3339(e.ended.as_ref()), "outcome": outcome(e.outcome.as_ref()),
            "policies": e.policies, "covered": e.covered, "plan": text(&e.plan),
        })
    };
    let items: Vec<Value> = answer.entries.iter().map(entry).collect();
    let decisions: Vec<Value> = answer.decisions.iter().map(decision).collect();
    json!({
        "apiVersion": API_VERSION, "kind": "AuditList", "asOf": rfc3339(answer.as_of.as_ref()),
        "nextBefore": text(&answer.next_before), "items": items, "decisions": decisions,
    })
}

/// What a person did.
#[must_use]
pub fn decision(d: &Decision) -> Value {
    json!({
        "id": d.id, "at": rfc3339(d.at.as_ref()), "who": d.who, "what": d.what, "subject": d.subject,
        "cluster": text(&d.cluster), "namespace": text(&d.namespace), "resticID": text(&d.restic_id),
        "before": text(&d.before), "after": text(&d.after), "hash": hex::encode(&d.hash),
    })
}

fn outcome(outcome: Option<&OperationOutcome>) -> Value {
    let Some(o) = outcome else { return Value::Null };
    let freed = (o.pruned && o.bytes_before >= o.bytes_after).then(|| o.bytes_before - o.bytes_after);
    json!({
        "result": o.result, "reason": text(&o.reason), "message": o.message, "plan": text(&o.plan), "snapshots": o.snapshots,
        "planned": o.planned, "removed": o.removed, "keptByOthers": o.kept_by_others, "bytesFreed": freed, "pruned": o.pruned,
        "unmatched": o.unmatched, "removedLocks": o.removed_locks,
    })
}
