#![allow(clippy::unwrap_used)]

use proto::v1::{CertificateEnd, FleetPause, RepositoryBinding, Trouble, VersionCount};

use super::*;
use crate::check::finding::Outcome;
use crate::check::fixtures::{fleet, found, is, now};

#[test]
fn a_hub_that_is_away_is_bad_and_the_rest_is_unknown() {
    let all = findings(&Facts::none("the hub at x cannot be reached"), now());
    is(&all, "hub-reached", Outcome::Bad);
    let others = all.iter().filter(|of| of.id != "hub-reached");
    others.for_each(|of| assert_eq!(of.outcome, Outcome::Unknown, "{of:?}"));
}

#[test]
fn the_hubs_store_certificates_and_clock_are_judged() {
    let mut facts = fleet();
    let (health, _) = facts.health.as_mut().unwrap();
    health.store_well = false;
    health.as_of = Some(proto::time::from_unix(now().as_second() + 600));
    health.version = "0.0.1".to_owned();
    health.troubles = vec![Trouble {
        what: "copy".to_owned(),
        text: "it was never copied".to_owned(),
        ..Trouble::default()
    }];
    for (ends, outcome) in [
        (-1, Outcome::Bad),
        (86_400, Outcome::Bad),
        (15 * 86_400, Outcome::Good),
    ] {
        let (health, _) = facts.health.as_mut().unwrap();
        health.certificates = vec![CertificateEnd {
            name: "hub".to_owned(),
            ends: Some(proto::time::from_unix(now().as_second() + ends)),
        }];
        assert_eq!(
            found(&findings(&facts, now()), "hub-certificates").outcome,
            outcome,
            "{ends}"
        );
    }
    let (health, _) = facts.health.as_mut().unwrap();
    health.certificates = vec![CertificateEnd::default()];
    let all = findings(&facts, now());
    is(&all, "hub-certificates", Outcome::Bad);
    is(&all, "hub-store", Outcome::Bad);
    is(&all, "hub-clock", Outcome::Bad);
    is(&all, "hub-copy", Outcome::Note);
    is(&all, "hub-version", Outcome::Note);
    let (health, _) = facts.health.as_mut().unwrap();
    *health = HealthResponse::default();
    let all = findings(&facts, now());
    for id in ["hub-clock", "hub-version", "hub-certificates", "cluster-versions"] {
        is(&all, id, Outcome::Unknown);
    }
}

#[test]
fn clusters_that_are_silent_refused_or_in_part_are_named() {
    let mut facts = fleet();
    for (state, reason) in [("stale", ""), ("banned", "stolen"), ("conflict", "two report")] {
        let rows = facts.clusters.as_mut().unwrap();
        rows[0].state = state.to_owned();
        rows[0].reason = reason.to_owned();
        let all = findings(&facts, now());
        is(&all, "clusters-connected", Outcome::Bad);
        let text = &found(&all, "clusters-connected").text;
        assert!(text.contains(state) && text.contains(reason), "{text}");
    }
    facts.clusters.as_mut().unwrap()[0].complete = false;
    is(&findings(&facts, now()), "clusters-complete", Outcome::Bad);
    facts.clusters = Ok(Vec::new());
    is(&findings(&facts, now()), "clusters-connected", Outcome::Unknown);
    let (health, _) = facts.health.as_mut().unwrap();
    health.versions.push(VersionCount {
        version: "0.0.1".to_owned(),
        clusters: 3,
    });
    is(&findings(&facts, now()), "cluster-versions", Outcome::Note);
}

#[test]
fn a_pending_part_a_pause_a_login_and_the_verdict_are_seen() {
    let mut facts = fleet();
    facts.repositories.as_mut().unwrap()[0].bindings = vec![RepositoryBinding {
        cluster: "b".to_owned(),
        binding: "pending".to_owned(),
        binding_reason: "it has not shown that it can open it".to_owned(),
        ..RepositoryBinding::default()
    }];
    let status = facts.status.as_mut().unwrap();
    status.pause = Some(FleetPause::default());
    status.verdict = "not-safe".to_owned();
    facts.who.as_mut().unwrap().expires = Some(proto::time::from_unix(now().as_second() + 60));
    let all = findings(&facts, now());
    is(&all, "repositories-bound", Outcome::Bad);
    is(&all, "maintenance", Outcome::Note);
    is(&all, "hub-login", Outcome::Note);
    is(&all, "backed-up", Outcome::Bad);
    for (binding, outcome) in [
        ("", Outcome::Unknown),
        ("splendid", Outcome::Unknown),
        ("ended", Outcome::Note),
    ] {
        facts.repositories.as_mut().unwrap()[0].bindings[0].binding = binding.to_owned();
        is(&findings(&facts, now()), "repositories-bound", outcome);
    }
    facts.repositories.as_mut().unwrap()[0].bindings[0].binding = "bound".to_owned();
    let bound = findings(&facts, now());
    assert_eq!(found(&bound, "repositories-bound").outcome, Outcome::Good);
    // A word that this version does not know is no word for well.
    facts.status.as_mut().unwrap().verdict = "splendid".to_owned();
    is(&findings(&facts, now()), "backed-up", Outcome::Unknown);
}
