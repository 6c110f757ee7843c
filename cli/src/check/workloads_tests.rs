#![allow(clippy::unwrap_used)]

use serde_json::json;

use super::*;
use crate::check::finding::Outcome;
use crate::check::fixtures::{all_good, cluster, found, is};

#[test]
fn an_operator_that_is_not_there_or_not_available_is_bad() {
    let mut facts = cluster();
    facts.deployments = Ok(json!({ "items": [] }));
    let all = findings(&facts, "sys");
    is(&all, "operator-available", Outcome::Bad);
    is(&all, "operator-replicas", Outcome::Unknown);
    is(&all, "hub-available", Outcome::Note);
    let mut facts = cluster();
    let operator = &mut facts.deployments.as_mut().unwrap()["items"][0];
    operator["status"]["readyReplicas"] = json!(1);
    is(&findings(&facts, "sys"), "operator-replicas", Outcome::Bad);
    let operator = &mut facts.deployments.as_mut().unwrap()["items"][0];
    operator["status"]["conditions"][0] =
        json!({ "type": "Available", "status": "False", "reason": "MinimumReplicasUnavailable" });
    let all = findings(&facts, "sys");
    is(&all, "operator-available", Outcome::Bad);
    assert!(
        found(&all, "operator-available")
            .text
            .contains("MinimumReplicasUnavailable")
    );
    let operator = &mut facts.deployments.as_mut().unwrap()["items"][0];
    operator["spec"]["replicas"] = json!(0);
    is(&findings(&facts, "sys"), "operator-available", Outcome::Bad);
}

#[test]
fn a_deployment_of_another_name_is_known_by_its_label() {
    let mut facts = cluster();
    facts.deployments.as_mut().unwrap()["items"][0]["metadata"]["name"] = json!("release-spoke");
    all_good(&findings(&facts, "sys"));
}

#[test]
fn images_crashes_and_mixed_versions_are_seen() {
    let mut facts = cluster();
    let pods = facts.pods.as_mut().unwrap();
    pods["items"][0]["status"]["containerStatuses"][0]["state"] =
        json!({ "waiting": { "reason": "ImagePullBackOff", "message": "no such image" } });
    pods["items"][1]["status"]["containerStatuses"][0]["state"] =
        json!({ "waiting": { "reason": "CrashLoopBackOff" } });
    pods["items"][1]["spec"]["containers"][0]["image"] = json!("registry/fleet-spoke:2");
    let all = findings(&facts, "sys");
    is(&all, "images", Outcome::Bad);
    assert!(found(&all, "images").text.contains("no such image"));
    is(&all, "restarts", Outcome::Bad);
    is(&all, "one-image", Outcome::Note);
    facts.pods = Ok(json!({ "items": [] }));
    for id in ["images", "restarts", "one-image"] {
        is(&findings(&facts, "sys"), id, Outcome::Unknown);
    }
}

#[test]
fn a_leader_that_is_silent_or_whose_clock_is_wrong_is_bad() {
    for (renewed, outcome) in [
        ("2026-11-26T11:59:30Z", Outcome::Good),
        ("2026-11-26T11:58:00Z", Outcome::Bad),
        ("2026-11-26T12:02:00Z", Outcome::Bad),
        ("never", Outcome::Unknown),
    ] {
        let mut facts = cluster();
        facts.leases.as_mut().unwrap()["items"][0]["spec"]["renewTime"] = json!(renewed);
        assert_eq!(
            found(&findings(&facts, "sys"), "operator-leads").outcome,
            outcome,
            "{renewed}"
        );
    }
    let mut facts = cluster();
    facts.leases.as_mut().unwrap()["items"][0]["spec"]["holderIdentity"] = json!("");
    is(&findings(&facts, "sys"), "operator-leads", Outcome::Bad);
    facts.leases = Ok(json!({ "items": [] }));
    is(&findings(&facts, "sys"), "operator-leads", Outcome::Bad);
}

#[test]
fn a_volume_that_is_not_bound_is_bad_and_a_cluster_alone_is_a_note() {
    let mut facts = cluster();
    facts.claims.as_mut().unwrap()["items"][0]["status"]["phase"] = json!("Pending");
    facts.joined = Ok(serde_json::Value::Null);
    let all = findings(&facts, "sys");
    is(&all, "hub-volume", Outcome::Bad);
    is(&all, "joined", Outcome::Note);
}

#[test]
fn a_cluster_has_joined_by_the_secret_that_its_operator_keeps() {
    let mut facts = cluster();
    facts.joined = Ok(serde_json::Value::Null);
    facts.secrets = Ok(vec!["sys/fleet-spoke-join".to_owned()]);
    is(&findings(&facts, "sys"), "joined", Outcome::Bad);
    facts.secrets = Ok(vec!["sys/fleet-spoke-identity".to_owned()]);
    assert_eq!(found(&findings(&facts, "sys"), "joined").outcome, Outcome::Good);
    facts.secrets = Ok(vec!["elsewhere/fleet-spoke-identity".to_owned()]);
    is(&findings(&facts, "sys"), "joined", Outcome::Note);
    facts.secrets = Err("forbidden".to_owned());
    is(&findings(&facts, "sys"), "joined", Outcome::Unknown);
}
