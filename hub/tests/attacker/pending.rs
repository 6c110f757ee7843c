//! What a cluster reports that is not bound to the repository.

use super::*;

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
