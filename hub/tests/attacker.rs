//! What a client with a valid spoke certificate, and without the password of a repository, can do to those who have it:
//! nothing, and it is counted.

use crate::harness::{Fleet, ID, OTHER, Spoke, ask, keep_last, master, object, policy, repository};
use proto::possession::prove;
use proto::v1::hub_message::Body as Told;
use proto::v1::object_state::Body as Object;
use proto::v1::spoke_message::Body;
use proto::v1::{
    AuditRequest, Collection, CreationDone, CreationRequest, DecideBindingRequest, Hello, LeaseAsk,
    LeaseRelease, LeaseRenew, LeaseWithdraw, ListRequest, PlanPart, PlansRequest, RepositoryRow,
    RepositoryState, RepositoryStatistics, RetentionRule, row,
};

/// An honest cluster with a repository and a policy, and an attacker that claims both.
async fn victims() -> (Fleet, Spoke, Spoke) {
    let fleet = Fleet::new().await;
    let mut honest = fleet.spoke("honest").await;
    honest.tell(vec![repository(ID), policy(keep_last(30))]).await;
    honest.prove(ID, 1).await;
    fleet.until_binding("honest", ID, "bound").await;
    let attacker = fleet.spoke("attacker").await;
    attacker.tell(vec![repository(ID), policy(keep_last(1))]).await;
    fleet.until_binding("attacker", ID, "pending").await;
    (fleet, honest, attacker)
}

async fn row(fleet: &Fleet) -> RepositoryRow {
    let request = ListRequest {
        collection: Collection::Repositories.into(),
        ..ListRequest::default()
    };
    let rows = fleet
        .operator()
        .await
        .list(request)
        .await
        .unwrap()
        .into_inner()
        .rows;
    let found = rows.into_iter().find(|row| row.key == ID).unwrap();
    let Some(row::Body::Repository(row)) = found.body else {
        panic!()
    };
    row
}

#[tokio::test]
async fn a_lease_of_a_repository_of_others_is_refused_and_drains_nobody() {
    let (fleet, mut honest, mut attacker) = victims().await;
    attacker.ask("job").await;
    let reason = attacker
        .until("a reason", |told| match told {
            Told::LeaseWaiting(waiting) => Some(waiting.reason.clone()),
            _ => None,
        })
        .await;
    assert!(reason.contains("fleet repos accept"), "{reason}");
    fleet.until_refused("ask", "pending").await;
    assert!(fleet.locks().await.locks.is_empty());
    honest.ask("job").await;
    honest.granted().await;
    let drained = |told: &Told| matches!(told, Told::Drain(_));
    assert!(!attacker.told.iter().any(drained));
}

#[tokio::test]
async fn a_renewal_under_a_token_that_nobody_granted_holds_nothing() {
    let (fleet, honest, mut attacker) = victims().await;
    let renew = |restic_id: &str| {
        Body::LeaseRenew(LeaseRenew {
            operation: "job".to_owned(),
            restic_id: restic_id.to_owned(),
            token: 1 << 59,
            seq: 1,
            run_hash: Vec::new(),
        })
    };
    attacker.say(renew(ID)).await;
    fleet.until_refused("renew", "pending").await;
    // Also where it is bound.
    attacker.tell(vec![repository(OTHER)]).await;
    fleet.until_binding("attacker", OTHER, "bound").await;
    attacker.say(renew(OTHER)).await;
    attacker
        .until("a refusal", |told| match told {
            Told::LeaseRevoke(revoke) if revoke.restic_id == OTHER => Some(()),
            _ => None,
        })
        .await;
    assert!(fleet.locks().await.locks.iter().all(|lock| lock.token < 1 << 59));
    drop(honest);
}

#[tokio::test]
async fn a_token_that_was_never_seen_delays_nobody() {
    let (fleet, mut honest, attacker) = victims().await;
    let seen = |restic_id: &str| {
        Body::LeaseAsk(LeaseAsk {
            restic_id: restic_id.to_owned(),
            seen_token: 1 << 60,
            ..ask("job")
        })
    };
    attacker.say(seen(ID)).await;
    fleet.until_refused("ask", "pending").await;
    attacker.tell(vec![repository(OTHER)]).await;
    fleet.until_binding("attacker", OTHER, "bound").await;
    attacker.say(seen(OTHER)).await;
    fleet.until_refused("ask", "token").await;
    honest.ask("job").await;
    assert_eq!(honest.granted().await.token, 1);
}

#[tokio::test]
async fn a_genuine_delay_is_cut_short_by_nobody_else() {
    let (fleet, mut honest, attacker) = victims().await;
    honest.ask("job").await;
    let token = honest.granted().await.token;
    // It falls silent.
    let delayed = async |fleet: &Fleet| {
        let locks = fleet.locks().await.locks;
        locks.iter().any(|lock| lock.state == "delayed")
    };
    fleet.until("the delay", delayed).await;
    for token in [token, token + 1] {
        let release = LeaseRelease {
            operation: "job".to_owned(),
            restic_id: ID.to_owned(),
            token,
            ..LeaseRelease::default()
        };
        attacker.say(Body::LeaseRelease(release)).await;
        let withdraw = LeaseWithdraw {
            operation: "job".to_owned(),
            restic_id: ID.to_owned(),
            token: 0,
        };
        attacker.say(Body::LeaseWithdraw(withdraw)).await;
    }
    fleet
        .until("both refused", async |fleet| {
            fleet.refused("release", "pending") == 2 && fleet.refused("withdraw", "pending") == 2
        })
        .await;
    assert!(delayed(&fleet).await);
}

#[tokio::test]
async fn made_up_ids_leave_no_trace() {
    let (fleet, _honest, attacker) = victims().await;
    for n in 0..50 {
        let restic_id = format!("{n:064x}");
        attacker
            .say(Body::LeaseAsk(LeaseAsk {
                restic_id: restic_id.clone(),
                ..ask("job")
            }))
            .await;
        let release = LeaseRelease {
            operation: "job".to_owned(),
            restic_id,
            ..LeaseRelease::default()
        };
        attacker.say(Body::LeaseRelease(release)).await;
    }
    for restic_id in ["", "x", &"A".repeat(64), &"a".repeat(10_000)] {
        let restic_id = restic_id.to_owned();
        attacker
            .say(Body::LeaseAsk(LeaseAsk {
                restic_id,
                ..ask("job")
            }))
            .await;
    }
    fleet
        .until("all refused", async |fleet| {
            fleet.refused("ask", "not_bound") == 50
                && fleet.refused("release", "not_bound") == 50
                && fleet.refused("ask", "id") == 4
        })
        .await;
    assert!(fleet.locks().await.locks.is_empty());
    let audit = fleet
        .operator()
        .await
        .audit(AuditRequest::default())
        .await
        .unwrap();
    assert!(audit.into_inner().entries.is_empty());
}

#[tokio::test]
async fn an_improper_repository_id_is_shown_and_refused() {
    let (fleet, _honest, attacker) = victims().await;
    attacker.tell(vec![repository("not-an-id")]).await;
    fleet.until_refused("binding", "id").await;
}

#[tokio::test]
async fn a_policy_of_a_pending_cluster_takes_part_in_no_run() {
    let (fleet, mut honest, _attacker) = victims().await;
    honest.ask("job").await;
    let run = honest.granted().await.run.unwrap();
    assert_eq!(run.clusters, ["honest"]);
    let sources: Vec<&str> = run.policies.iter().map(|p| p.source.as_str()).collect();
    assert_eq!(
        sources,
        ["honest/ns/p"],
        "neither rules that remove nor a look at those of others"
    );
    assert_eq!(row(&fleet).await.policies, 1);
}

#[tokio::test]
async fn figures_of_a_pending_cluster_do_not_count() {
    let (fleet, honest, attacker) = victims().await;
    let figures = |stored_bytes, seconds| {
        let body = RepositoryState {
            restic_id: ID.to_owned(),
            statistics: Some(RepositoryStatistics {
                stored_bytes,
                as_of: Some(proto::time::from_unix(seconds)),
                ..RepositoryStatistics::default()
            }),
            ..RepositoryState::default()
        };
        object("nas", Object::Repository(body))
    };
    honest.tell(vec![figures(42, 1)]).await;
    attacker.tell(vec![figures(1, 253_402_300_000)]).await;
    fleet
        .until("both figures", async |fleet| {
            row(fleet).await.statistics.is_some()
                && fleet
                    .running
                    .hub
                    .read(|i| i.member("attacker").unwrap().complete())
        })
        .await;
    let shown = row(&fleet).await;
    assert_eq!(
        (
            shown.statistics.unwrap().stored_bytes,
            shown.statistics_from.as_str()
        ),
        (42, "honest")
    );
    let binding = shown.bindings.iter().find(|b| b.cluster == "attacker").unwrap();
    assert_eq!(binding.binding, "pending");
}

#[tokio::test]
async fn figures_of_tomorrow_do_not_count_even_of_a_bound_cluster() {
    let (fleet, honest, _attacker) = victims().await;
    let body = RepositoryState {
        restic_id: ID.to_owned(),
        statistics: Some(RepositoryStatistics {
            as_of: Some(proto::time::from_unix(253_402_300_000)),
            ..RepositoryStatistics::default()
        }),
        url: "changed".to_owned(),
        ..RepositoryState::default()
    };
    honest.tell(vec![object("nas", Object::Repository(body))]).await;
    fleet
        .until("the change", async |fleet| {
            row(fleet).await.bindings.iter().any(|b| b.url == "changed")
        })
        .await;
    assert_eq!(row(&fleet).await.statistics, None);
}

#[tokio::test]
async fn another_key_under_the_id_is_an_alarm_and_no_binding() {
    let (fleet, _honest, mut attacker) = victims().await;
    attacker.prove(ID, 9).await;
    fleet
        .until("the alarm", async |fleet| !row(fleet).await.alarm.is_empty())
        .await;
    let shown = row(&fleet).await;
    assert!(
        shown.alarm.contains("honest") && shown.alarm.contains("attacker"),
        "{}",
        shown.alarm
    );
    fleet.until_binding("attacker", ID, "pending").await;
    fleet.until_binding("honest", ID, "bound").await;
}

#[tokio::test]
async fn a_proof_of_somebody_else_or_of_another_question_does_not_count() {
    let (fleet, _honest, mut attacker) = victims().await;
    let nonce = attacker
        .until("a challenge", |told| match told {
            Told::PossessionChallenge(asked) => Some(asked.nonce.clone()),
            _ => None,
        })
        .await;
    // One that the honest cluster's spoke could have made, and one without a question.
    for proof in [
        prove(&master(1), "honest", ID, &nonce).unwrap(),
        prove(&master(1), "attacker", ID, &[7; 32]).unwrap(),
    ] {
        attacker.say(Body::PossessionProof(proof)).await;
    }
    fleet
        .until("both refused", async |fleet| fleet.refused("proof", "proof") == 2)
        .await;
    fleet.until_binding("attacker", ID, "pending").await;
}

#[tokio::test]
async fn who_has_the_key_is_bound_without_a_person() {
    let (fleet, mut honest, mut other) = victims().await;
    other.prove(ID, 1).await;
    fleet.until_binding("attacker", ID, "bound").await;
    honest.ask("job").await;
    let run = honest.granted().await.run.unwrap();
    assert_eq!(run.clusters, ["attacker", "honest"]);
}

#[tokio::test]
async fn a_person_binds_and_unbinds_and_it_is_in_the_audit() {
    let (fleet, mut honest, mut other) = victims().await;
    let mut view = fleet.operator().await;
    let decide = |accept| DecideBindingRequest {
        repository: ID.to_owned(),
        cluster: "attacker".to_owned(),
        accept,
    };
    view.decide_binding(decide(true)).await.unwrap();
    other.ask("job").await;
    let grant = other.granted().await;
    view.decide_binding(decide(false)).await.unwrap();
    let renew = LeaseRenew {
        operation: "job".to_owned(),
        restic_id: ID.to_owned(),
        token: grant.token,
        ..LeaseRenew::default()
    };
    other.say(Body::LeaseRenew(renew)).await;
    other
        .until("the lease to be taken back", |told| match told {
            Told::LeaseRevoke(revoke) => Some(revoke.reason.clone()),
            _ => None,
        })
        .await;
    fleet.until_refused("renew", "ended").await;
    // It can still give back what it had.
    let release = LeaseRelease {
        operation: "job".to_owned(),
        restic_id: ID.to_owned(),
        token: grant.token,
        ..LeaseRelease::default()
    };
    other.say(Body::LeaseRelease(release)).await;
    honest.ask("job").await;
    assert!(honest.granted().await.token > grant.token);
    let audit = view.audit(AuditRequest::default()).await.unwrap().into_inner();
    let decisions: Vec<String> = audit
        .decisions
        .iter()
        .map(|d| format!("{} {} {}>{}", d.who, d.what, d.before, d.after))
        .collect();
    assert_eq!(
        decisions,
        ["ann end-binding bound>ended", "ann accept-binding pending>bound"]
    );
}

#[tokio::test]
async fn a_flood_of_creations_has_one_place_and_every_other_one_is_somebody_elses() {
    let (fleet, mut honest, mut attacker) = victims().await;
    for id in 1..=200 {
        attacker.say(Body::CreationRequest(CreationRequest { id })).await;
    }
    let granted = |told: &Told| match told {
        Told::CreationGrant(grant) => Some(grant.id),
        _ => None,
    };
    let first = attacker.until("a creation", granted).await;
    honest.say(Body::CreationRequest(CreationRequest { id: 1 })).await;
    // Both have asked when the first one ends.
    honest.tell(vec![repository(ID)]).await;
    fleet
        .until("the question", async |fleet| row(fleet).await.policies == 0)
        .await;
    attacker.say(Body::CreationDone(CreationDone { id: first })).await;
    attacker
        .say(Body::CreationRequest(CreationRequest { id: 999 }))
        .await;
    let mut served = 0;
    let mut seen = std::collections::HashSet::from([first]);
    loop {
        // The one place that the flood has may come before, and no other.
        let next = tokio::select! {
            id = honest.until("a creation", granted) => { assert_eq!(id, 1); break; }
            id = attacker.until("a creation", granted) => id,
        };
        if !seen.insert(next) {
            // The same grant, sent again to the one that asked again.
            continue;
        }
        served += 1;
        assert!(served <= 1, "the flood was served {served} times first");
        attacker.say(Body::CreationDone(CreationDone { id: next })).await;
        attacker
            .say(Body::CreationRequest(CreationRequest { id: 1000 }))
            .await;
    }
}

#[tokio::test]
async fn a_flood_of_waiting_operations_is_cut_off() {
    let (fleet, mut honest, attacker) = victims().await;
    attacker.tell(vec![repository(OTHER)]).await;
    fleet.until_binding("attacker", OTHER, "bound").await;
    for n in 0..100 {
        let operation = format!("job-{n}");
        let restic_id = OTHER.to_owned();
        attacker
            .say(Body::LeaseAsk(LeaseAsk {
                restic_id,
                ..ask(&operation)
            }))
            .await;
    }
    fleet
        .until("the rest refused", async |fleet| {
            fleet.refused("ask", "too_many") == 36
        })
        .await;
    honest.ask("job").await;
    honest.granted().await;
}

#[tokio::test]
async fn an_operation_is_pinned_to_its_repository() {
    let (fleet, mut honest, _attacker) = victims().await;
    let mut second = repository(OTHER);
    second.uid = "second".to_owned();
    honest.tell(vec![repository(ID), second]).await;
    fleet.until_binding("honest", OTHER, "bound").await;
    honest.ask("job").await;
    let token = honest.granted().await.token;
    let moved = LeaseRenew {
        operation: "job".to_owned(),
        restic_id: OTHER.to_owned(),
        token,
        ..LeaseRenew::default()
    };
    honest.say(Body::LeaseRenew(moved)).await;
    honest
        .until("a refusal", |told| match told {
            Told::LeaseRevoke(revoke) if revoke.restic_id == OTHER => Some(()),
            _ => None,
        })
        .await;
    let restic_id = OTHER.to_owned();
    honest
        .say(Body::LeaseAsk(LeaseAsk {
            restic_id,
            ..ask("job")
        }))
        .await;
    fleet.until_refused("ask", "malformed").await;
}

#[tokio::test]
async fn rules_that_restic_would_refuse_stop_nobody_elses_run() {
    let (fleet, mut honest, mut other) = victims().await;
    let rules = RetentionRule {
        keep_within: "x".to_owned(),
        tags: vec!["a\0b".to_owned()],
        ..RetentionRule::default()
    };
    other.tell(vec![repository(ID), policy(rules)]).await;
    other.prove(ID, 1).await;
    fleet.until_binding("attacker", ID, "bound").await;
    honest.ask("job").await;
    let run = honest.granted().await.run.unwrap();
    let of = |source: &str| run.policies.iter().find(|p| p.source == source).unwrap();
    assert!(!of("attacker/ns/p").unclear.is_empty());
    assert!(
        of("attacker/ns/p")
            .rules
            .iter()
            .all(|r| r.keep_within.is_empty() && r.tags.is_empty())
    );
    assert!(of("honest/ns/p").unclear.is_empty());
}

#[tokio::test]
async fn text_of_a_spoke_moves_no_cursor() {
    let (fleet, mut honest, _attacker) = victims().await;
    let subject = "retention \u{1b}[2J\u{202e}evil".to_owned();
    honest
        .say(Body::LeaseAsk(LeaseAsk {
            subject,
            ..ask("job")
        }))
        .await;
    honest.granted().await;
    let locks = fleet.locks().await.locks;
    assert_eq!(locks[0].subject, "retention ?[2J?evil");
}

#[tokio::test]
async fn a_plan_without_end_and_one_with_another_hash_are_not_kept() {
    let (fleet, mut honest, _attacker) = victims().await;
    honest.ask("job").await;
    let token = honest.granted().await.token;
    let part = |offset: u64, data: Vec<u8>| {
        Body::PlanPart(PlanPart {
            operation: "job".to_owned(),
            restic_id: ID.to_owned(),
            token,
            offset,
            data,
        })
    };
    for n in 0..9 {
        honest.say(part(n << 20, vec![b' '; 1 << 20])).await;
    }
    fleet.until_refused("plan", "too_many").await;
    let document = serde_json::json!({ "plan": { "resticId": ID, "hash": "0".repeat(64), "remove": [{ "id": "1".repeat(64) }] } });
    let document = document.to_string().into_bytes();
    let plan_bytes = document.len() as u64;
    honest.say(part(0, document)).await;
    let outcome = proto::v1::OperationOutcome {
        result: "ApprovalRequired".to_owned(),
        plan: "0".repeat(64),
        ..Default::default()
    };
    let release = LeaseRelease {
        operation: "job".to_owned(),
        restic_id: ID.to_owned(),
        token,
        outcome: Some(outcome),
        plan_bytes,
        policy: "p".to_owned(),
        ..LeaseRelease::default()
    };
    honest.say(Body::LeaseRelease(release)).await;
    honest
        .until("the release", |told| {
            matches!(told, Told::LeaseReleased(_)).then_some(())
        })
        .await;
    assert_eq!(fleet.refused("plan", "malformed"), 1);
    let plans = fleet
        .operator()
        .await
        .plans(PlansRequest::default())
        .await
        .unwrap();
    assert!(plans.into_inner().plans.is_empty());
}

#[tokio::test]
async fn an_announced_restore_costs_one_wait_and_not_one_after_another() {
    let (fleet, mut honest, attacker) = victims().await;
    let epoch = fleet.running.hub.epoch;
    let said = |hub_epoch| Hello {
        hub_incarnation: attacker.welcome.hub_incarnation.clone(),
        hub_epoch,
        ..Hello::default()
    };
    let _first = fleet.spoke_that_says("attacker", said(epoch + 5)).await;
    honest.ask("job").await;
    let waiting = honest
        .until("a reason", |told| match told {
            Told::LeaseWaiting(waiting) => Some(waiting.reason.clone()),
            _ => None,
        })
        .await;
    assert!(waiting.contains("restored"), "{waiting}");
    for more in 6..9 {
        let _again = fleet.spoke_that_says("attacker", said(epoch + more)).await;
    }
    honest.granted().await;
}

#[tokio::test]
async fn an_epoch_from_nowhere_is_not_believed() {
    let (fleet, mut honest, attacker) = victims().await;
    let hello = Hello {
        hub_incarnation: attacker.welcome.hub_incarnation.clone(),
        hub_epoch: u64::MAX - 1,
        ..Hello::default()
    };
    let _session = fleet.spoke_that_says("attacker", hello).await;
    fleet.until_refused("hello", "restore").await;
    honest.ask("job").await;
    honest.granted().await;
}

#[tokio::test]
async fn a_session_that_was_superseded_says_nothing_any_more() {
    let (fleet, mut old, _attacker) = victims().await;
    old.ask("job").await;
    let token = old.granted().await.token;
    let _new = fleet.spoke("honest").await;
    let release = LeaseRelease {
        operation: "job".to_owned(),
        restic_id: ID.to_owned(),
        token,
        ..LeaseRelease::default()
    };
    old.say(Body::LeaseRelease(release)).await;
    // The old stream ends, whatever was in it.
    let ended = async { while let Ok(Some(_)) = old.next().await {} };
    tokio::time::timeout(std::time::Duration::from_secs(10), ended)
        .await
        .unwrap();
    let locks = fleet.locks().await.locks;
    assert!(
        locks
            .iter()
            .any(|lock| lock.token == token && lock.state != "free")
    );
}
