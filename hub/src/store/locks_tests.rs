use proto::plan::{cut, whole};
use proto::v1::{Baseline, OperationOutcome};

use super::super::{
    AuditQuery, CheckedDamage, DecisionQuery, DecisionStore as _, HubStore as _, StoredEnd, StoredPlan,
};
use super::*;

fn of(repositories: Vec<String>) -> AuditQuery {
    AuditQuery {
        of: Some(repositories),
        ..AuditQuery::default()
    }
}

fn granted(token: u64) -> (StoredLock, StoredGrant) {
    let lock = StoredLock {
        restic_id: "r".to_owned(),
        token,
        holder: Some(("a".to_owned(), "job".to_owned(), "retention ns/p".to_owned())),
        delayed: false,
        revoked: true,
    };
    let audit = StoredAudit {
        restic_id: "r".to_owned(),
        token,
        cluster: "a".to_owned(),
        operation: "job".to_owned(),
        subject: "retention ns/p".to_owned(),
        granted: i64::try_from(token).unwrap(),
        ended: None,
        policies: vec!["a/ns/p@1".to_owned()],
        covered: Vec::new(),
        outcome: None,
        clusters: vec!["a".to_owned(), "b".to_owned()],
        plan: String::new(),
    };
    let grant = StoredGrant {
        audit,
        approved: String::new(),
        ask: vec![1, 2],
    };
    (lock, grant)
}

fn plan(id: &str, state: &str, made: i64) -> StoredPlan {
    StoredPlan {
        id: id.to_owned(),
        restic_id: "r".to_owned(),
        hash: format!("hash-{id}"),
        state: state.to_owned(),
        made,
        cluster: "a".to_owned(),
        policy: "uid".to_owned(),
        token: 1,
        ..StoredPlan::default()
    }
}

fn end(token: u64, result: &str, plan: Option<StoredPlan>) -> StoredEnd {
    StoredEnd {
        restic_id: "r".to_owned(),
        token,
        ended: 9,
        outcome: Some(OperationOutcome {
            result: result.to_owned(),
            ..OperationOutcome::default()
        }),
        plan,
        document: b"{}".to_vec(),
        baseline: (result == "Applied").then(|| left(&[("cluster/a", 7)])),
        damage: None,
    }
}

fn left(list: &[(&str, u32)]) -> Vec<Baseline> {
    let entry = |(key, left): &(&str, u32)| Baseline {
        key: (*key).to_owned(),
        left: *left,
    };
    whole(list.iter().map(entry).collect())
}

async fn open(dir: &tempfile::TempDir) -> Sqlite {
    let store = Sqlite::open(&dir.path().join("fleet.db")).await.unwrap();
    store.begin().await.unwrap();
    store
}

async fn states(store: &Sqlite) -> Vec<String> {
    let plans = store.plans(10, None).await.unwrap();
    plans
        .into_iter()
        .map(|p| format!("{}={}", p.id, p.state))
        .collect()
}

fn decided() -> StoredDecision {
    StoredDecision {
        at: 4,
        who: "ann".to_owned(),
        what: "approve-plan".to_owned(),
        ..StoredDecision::default()
    }
}

#[tokio::test]
async fn grants_and_ends_survive_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir).await;
    let (lock, grant) = granted(7);
    store
        .save_lock(lock.clone(), Some(grant.clone()), None)
        .await
        .unwrap();
    assert!(
        store.save_lock(lock.clone(), Some(grant), None).await.is_err(),
        "a token is granted once"
    );
    store.cover("r", 7, "b: retention ns/q".to_owned()).await.unwrap();
    store.cover("r", 7, "b: retention ns/q".to_owned()).await.unwrap();
    store.finish(end(7, "Applied", None)).await.unwrap();
    let unknown = StoredEnd {
        outcome: None,
        document: Vec::new(),
        ..end(7, "", None)
    };
    store.finish(unknown).await.unwrap();
    drop(store);
    let store = open(&dir).await;
    assert_eq!(store.locks().await.unwrap(), [lock]);
    let entries = store.audit(of(vec!["r".to_owned()])).await.unwrap();
    assert_eq!((entries[0].ended, entries[0].covered.len()), (Some(9), 1));
    assert!(
        entries[0].outcome.as_ref().is_some_and(|o| !o.is_empty()),
        "kept by a second end"
    );
    assert_eq!(store.document("r", 7).await.unwrap(), Some(b"{}".to_vec()));
    assert_eq!(store.asked("r", 7).await.unwrap(), Some(vec![1, 2]));
    assert_eq!(store.asked("r", 8).await.unwrap(), None);
    let history = store.history("r").await.unwrap();
    assert_eq!(history.participants.len(), 2);
    assert_eq!(
        history.baseline,
        [("cluster/a".to_owned(), 7), ("whole".to_owned(), 0)]
    );
    assert!(store.audit(of(Vec::new())).await.unwrap().is_empty());
    let lower = StoredLock {
        token: 3,
        ..granted(3).0
    };
    store.save_lock(lower, None, None).await.unwrap();
    assert_eq!(store.locks().await.unwrap()[0].token, 7);
}

#[tokio::test]
async fn a_writer_of_an_earlier_epoch_is_fenced_in_every_write() {
    let dir = tempfile::tempdir().unwrap();
    let old = open(&dir).await;
    let new = open(&dir).await;
    let (lock, grant) = granted(1);
    let refused = [
        old.save_lock(lock.clone(), Some(grant), None).await,
        old.save_lock(lock, None, None).await,
        old.finish(end(1, "Applied", None)).await,
        old.cover("r", 1, "x".to_owned()).await,
        old.decide_plan("p", "approved", decided()).await,
        old.decide(decided()).await,
        old.save_binding(None, None, None).await,
        old.save(super::super::Batch::default()).await,
        old.forget("a", StoredDecision::default()).await,
        old.prune(0, 0).await,
        old.raise_epoch(9).await,
        old.verify().await,
    ];
    for (n, result) in refused.into_iter().enumerate() {
        assert!(
            result.as_ref().is_err_and(StoreError::is_fenced),
            "{n}: {result:?}"
        );
    }
    assert!(!old.is_well());
    assert!(new.locks().await.unwrap().is_empty(), "nothing was written");
    new.save_lock(granted(1).0, None, None).await.unwrap();
    assert!(new.is_well());
}

#[tokio::test]
async fn a_store_goes_on_above_an_epoch_that_was_seen() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir).await;
    store.raise_epoch(41).await.unwrap();
    store.save_lock(granted(1).0, None, None).await.unwrap();
    drop(store);
    let store = Sqlite::open(&dir.path().join("fleet.db")).await.unwrap();
    let start = store.begin().await.unwrap();
    assert_eq!((start.epoch, start.incarnation.len()), (43, 32));
}

#[tokio::test]
async fn an_approval_stays_until_a_run_under_it_and_comes_back_when_that_fails() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir).await;
    let grant = |token, approved: &str| {
        let (lock, grant) = granted(token);
        let approved = approved.to_owned();
        (lock, StoredGrant { approved, ..grant })
    };
    let take = async |token, approved: &str| {
        let (lock, grant) = grant(token, approved);
        store.save_lock(lock, Some(grant), None).await.unwrap();
    };
    take(1, "").await;
    store
        .finish(end(1, "ApprovalRequired", Some(plan("p-1", "waiting", 1))))
        .await
        .unwrap();
    store.decide_plan("p-1", "approved", decided()).await.unwrap();
    // Another run makes the same plan.
    take(2, "").await;
    let again = StoredPlan {
        cluster: "b".to_owned(),
        policy: "other".to_owned(),
        ..plan("p-1", "waiting", 2)
    };
    store
        .finish(end(2, "ApprovalRequired", Some(again)))
        .await
        .unwrap();
    assert_eq!(states(&store).await, ["p-1=approved"]);
    let told = store.approved("a").await.unwrap();
    assert_eq!(
        (told.len(), told[0].policy.as_str()),
        (1, "uid"),
        "told to who asked for it"
    );
    take(3, "hash-p-1").await;
    assert_eq!(states(&store).await, ["p-1=granted"]);
    assert!(store.approved("a").await.unwrap().is_empty());
    store.finish(end(3, "Failed", None)).await.unwrap();
    assert_eq!(states(&store).await, ["p-1=waiting"]);
    store.decide_plan("p-1", "approved", decided()).await.unwrap();
    take(4, "hash-p-1").await;
    // No end of run 4 was ever reported.
    take(5, "").await;
    assert_eq!(states(&store).await, ["p-1=waiting"]);
    store.decide_plan("p-1", "approved", decided()).await.unwrap();
    take(6, "hash-p-1").await;
    store
        .finish(end(6, "Applied", Some(plan("p-1", "applied", 6))))
        .await
        .unwrap();
    assert_eq!(states(&store).await, ["p-1=applied"]);
    assert_eq!(
        store
            .decisions(DecisionQuery {
                limit: 10,
                ..DecisionQuery::default()
            })
            .await
            .unwrap()
            .len(),
        3
    );
}

#[tokio::test]
async fn a_new_plan_supersedes_what_waited_and_a_rejected_one_stays_so() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir).await;
    store
        .finish(end(1, "ApprovalRequired", Some(plan("p-1", "waiting", 1))))
        .await
        .unwrap();
    store.decide_plan("p-1", "rejected", decided()).await.unwrap();
    store
        .finish(end(1, "ApprovalRequired", Some(plan("p-1", "waiting", 1))))
        .await
        .unwrap();
    store
        .finish(end(2, "Preview", Some(plan("p-2", "preview", 2))))
        .await
        .unwrap();
    store
        .finish(end(3, "ApprovalRequired", Some(plan("p-3", "waiting", 3))))
        .await
        .unwrap();
    assert_eq!(
        states(&store).await,
        ["p-3=waiting", "p-2=superseded", "p-1=rejected"]
    );
    store.finish(end(4, "NothingToRemove", None)).await.unwrap();
    assert_eq!(
        states(&store).await,
        ["p-3=superseded", "p-2=superseded", "p-1=rejected"]
    );
    let page = store.plans(1, Some((3, "p-3".to_owned()))).await.unwrap();
    assert_eq!(page[0].id, "p-2");
    assert_eq!(store.plans_named("p-").await.unwrap().len(), 2);
    let by_hash = store.plans_named("hash-p-1").await.unwrap();
    assert_eq!(by_hash.len(), 1, "the status of a policy has the hash");
    assert_eq!(by_hash[0].id, "p-1");
    assert!(
        store.plans_named("hash-p-").await.unwrap().is_empty(),
        "too short"
    );
}

#[tokio::test]
async fn a_rejected_plan_stays_so_for_every_store_of_its_repository() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir).await;
    let made = end(1, "ApprovalRequired", Some(plan("p-1", "waiting", 1)));
    store.finish(made).await.unwrap();
    store.decide_plan("p-1", "rejected", decided()).await.unwrap();
    for (key, count) in [("r", 1), ("r@2", 1), ("rr", 0), ("rr@2", 0)] {
        let history = store.history(key).await.unwrap();
        assert_eq!(history.rejected.len(), count, "{key}");
    }
}

#[tokio::test]
async fn pages_of_the_audit_and_what_is_forgotten() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir).await;
    for token in 1..=5 {
        let (lock, grant) = granted(token);
        store.save_lock(lock, Some(grant), None).await.unwrap();
        let big = StoredEnd {
            document: vec![b'x'; 1000],
            ended: i64::try_from(token).unwrap(),
            ..end(token, "Failed", None)
        };
        store.finish(big).await.unwrap();
    }
    let tokens = async |before| {
        let page = AuditQuery {
            before,
            limit: 2,
            ..AuditQuery::default()
        };
        let page = store.audit(page).await.unwrap();
        page.into_iter().map(|e| e.token).collect::<Vec<_>>()
    };
    assert_eq!(tokens(None).await, [5, 4]);
    assert_eq!(tokens(Some((4, "r".to_owned(), 4))).await, [3, 2]);
    store.prune(2, 2500).await.unwrap();
    assert_eq!(
        tokens(Some((3, "r".to_owned(), 3))).await,
        [2],
        "older than the retention"
    );
    assert!(store.document("r", 5).await.unwrap().is_some());
    assert!(
        store.document("r", 3).await.unwrap().is_none(),
        "beyond the bound"
    );
}

#[tokio::test]
async fn damage_is_kept_for_each_resource_until_its_check_passes_or_its_cluster_is_forgotten() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir).await;
    let checked = async |cluster: &str, owner: &str, text: Option<&str>| {
        let damage = CheckedDamage {
            cluster: cluster.to_owned(),
            owner: owner.to_owned(),
            text: text.map(str::to_owned),
        };
        let end = StoredEnd {
            damage: Some(damage),
            ..end(1, "", None)
        };
        store.finish(end).await.unwrap();
    };
    let kept = async || {
        let damage = store.history("r").await.unwrap().damage;
        let texts = damage.into_iter().map(|(_, _, text)| text);
        texts.collect::<Vec<_>>()
    };
    checked("a", "one", Some("early")).await;
    checked("a", "one", Some("late")).await;
    checked("a", "two", Some("two")).await;
    checked("b", "one", Some("b")).await;
    assert_eq!(kept().await, ["late", "two", "b"]);
    assert!(store.history("s").await.unwrap().damage.is_empty());
    checked("a", "one", None).await;
    assert_eq!(kept().await, ["two", "b"]);
    store.forget("a", StoredDecision::default()).await.unwrap();
    assert_eq!(kept().await, ["b"]);
}

#[tokio::test]
async fn figures_that_a_later_list_lacks_are_forgotten() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir).await;
    let with = |baseline: Vec<Baseline>| StoredEnd {
        baseline: Some(baseline),
        ..end(7, "Applied", None)
    };
    let known = async || {
        let history = store.history("r").await.unwrap();
        let known = history.baseline.into_iter();
        known
            .map(|(key, left)| format!("{key}={left}"))
            .collect::<Vec<_>>()
    };
    let first = left(&[("cluster/a", 9), ("group/1", 4), ("group/2", 5)]);
    store.finish(with(first)).await.unwrap();
    let mut second = left(&[("cluster/a", 12), ("group/1", 3), ("group/2", 5), ("group/3", 4)]);
    cut(&mut second, 2);
    store.finish(with(second)).await.unwrap();
    assert_eq!(known().await, ["cluster/a=12", "cut=0", "group/1=3"]);
    store.finish(with(left(&[("cluster/a", 1)]))).await.unwrap();
    assert_eq!(known().await, ["cluster/a=1", "whole=0"]);
}
