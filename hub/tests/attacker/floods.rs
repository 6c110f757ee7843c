//! A spoke that reports without end.

use super::*;

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
