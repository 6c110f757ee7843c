#![allow(clippy::unwrap_used)]

use serde_json::json;

use super::*;
use crate::check::finding::Outcome;
use crate::check::fixtures::{all_good, cluster, found, is, now};
use crate::check::{hub, resources};

#[test]
fn a_cluster_in_which_all_is_well_has_only_good_findings_and_there_are_enough_of_them() {
    let facts = cluster();
    let mut all = findings(&facts, "sys");
    all.extend(resources::findings(&facts));
    all.extend(hub::findings(&crate::check::fixtures::fleet(), now()));
    all_good(&all);
    assert_eq!(all.len(), 42, "docs/ux.md names the number");
    let mut ids: Vec<&str> = all.iter().map(|of| of.id).collect();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), all.len(), "each check has an id of its own");
}

#[test]
fn what_cannot_be_looked_at_is_unknown_with_a_hint_and_never_good() {
    let no = || "forbidden".to_owned();
    let facts = Facts {
        version: Err(no()),
        clock: Err(no()),
        api: Err(no()),
        definitions: Err(no()),
        system: Err(no()),
        deployments: Err(no()),
        pods: Err(no()),
        leases: Err(no()),
        joined: Err(no()),
        claims: Err(no()),
        policies: Err(no()),
        webhooks: Err(no()),
        rules: Err(no()),
        secrets: Err(no()),
        objects: Err(no()),
        own: Err(no()),
    };
    let mut all = findings(&facts, "sys");
    all.extend(resources::findings(&facts));
    for of in &all {
        assert_eq!(of.outcome, Outcome::Unknown, "{of:?}");
        assert!(!of.hint.is_empty(), "{of:?}");
    }
}

#[test]
fn kinds_that_are_not_there_are_bad() {
    let mut facts = cluster();
    facts.api = Err(
        "kubectl failed: get: Error from server (NotFound): the server could not find the requested resource"
            .to_owned(),
    );
    is(&findings(&facts, "sys"), "kinds-served", Outcome::Bad);
    facts.api = Ok(json!({ "resources": [{ "name": "resticbackups" }] }));
    let all = findings(&facts, "sys");
    is(&all, "kinds-served", Outcome::Bad);
    assert!(!found(&all, "kinds-served").text.contains("resticbackups"));
    facts.definitions = Ok(json!({ "items": [] }));
    is(&findings(&facts, "sys"), "kinds-established", Outcome::Bad);
    let mut facts = cluster();
    facts.definitions.as_mut().unwrap()["items"][0]["status"]["conditions"][1]["status"] = json!("False");
    is(&findings(&facts, "sys"), "kinds-established", Outcome::Bad);
    let mut facts = cluster();
    facts.definitions.as_mut().unwrap()["items"][0]["status"]["storedVersions"] = json!(["v1", "v1alpha1"]);
    is(&findings(&facts, "sys"), "kinds-established", Outcome::Bad);
}

#[test]
fn clocks_that_differ_are_told_by_how_much() {
    let mut facts = cluster();
    for (seconds, outcome) in [
        (4, Outcome::Good),
        (-20, Outcome::Note),
        (45, Outcome::Bad),
        (-45, Outcome::Bad),
    ] {
        let clock = facts.clock.as_mut().unwrap();
        clock.server = clock.here + jiff::SignedDuration::from_secs(seconds);
        assert_eq!(
            found(&findings(&facts, "sys"), "clock").outcome,
            outcome,
            "{seconds}"
        );
    }
}

#[test]
fn an_old_cluster_rights_and_a_namespace_that_goes_are_seen() {
    let mut facts = cluster();
    facts.version = Ok(json!({ "serverVersion": { "gitVersion": "v1.27.1", "major": "1", "minor": "27" } }));
    facts.own = Ok(vec!["resticbackups".to_owned()]);
    facts.system =
        Err("kubectl failed: get: Error from server (NotFound): namespaces \"sys\" not found".to_owned());
    let all = findings(&facts, "sys");
    is(&all, "kubernetes-version", Outcome::Bad);
    is(&all, "own-rights", Outcome::Unknown);
    is(&all, "namespace", Outcome::Bad);
    facts.system = Ok(json!({ "metadata": { "deletionTimestamp": "2026-11-26T11:00:00Z" } }));
    is(&findings(&facts, "sys"), "namespace", Outcome::Bad);
    facts.system = Ok(json!({ "metadata": {} }));
    is(&findings(&facts, "sys"), "namespace", Outcome::Note);
}

#[test]
fn the_oldest_kubernetes_is_that_of_the_charts() {
    for chart in [
        include_str!("../../../deploy/charts/hub/Chart.yaml"),
        include_str!("../../../deploy/charts/spoke/Chart.yaml"),
    ] {
        let (major, minor) = super::OLDEST;
        assert!(
            chart.contains(&format!("kubeVersion: \">={major}.{minor}.0-0\"")),
            "{chart}"
        );
    }
}

#[test]
fn an_operator_is_installed_with_an_image_that_can_be_pulled() {
    let mut facts = cluster();
    facts.deployments = Ok(json!({ "items": [] }));
    facts.system = Err("Error from server (NotFound)".to_owned());
    let all = findings(&facts, "sys");
    for id in ["operator-available", "namespace"] {
        let hint = &found(&all, id).hint;
        assert!(
            hint.contains("-k deploy") && !hint.contains("deploy/spoke"),
            "{id}: {hint}"
        );
    }
}

#[test]
fn only_webhooks_that_can_stop_a_backup_are_named() {
    let mut facts = cluster();
    let hook = |name: &str, policy: &str, resource: &str| json!({ "webhooks": [{ "name": name, "failurePolicy": policy, "rules": [{ "resources": [resource] }] }] });
    facts.webhooks = Ok(json!({ "items": [
        hook("stops", "Fail", "pods"), hook("ignores", "Ignore", "pods"), hook("other", "Fail", "ingresses"),
    ] }));
    let all = findings(&facts, "sys");
    is(&all, "webhooks", Outcome::Note);
    let text = &found(&all, "webhooks").text;
    assert!(text.ends_with(": stops"), "{text}");
}
