//! Retention across clusters on real pods: one lock, one plan.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tests::fleet;

use crate::support::{Place, SOON, bed, condition, fleet_json, s3};

/// restic with the password of the test's repositories.
pub fn restic(url: &str, arguments: &[&str]) -> String {
    let output = restic_command(url, arguments).output().unwrap();
    assert!(
        output.status.success(),
        "restic {arguments:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap()
}

/// The same, not yet started.
pub fn restic_command(url: &str, arguments: &[&str]) -> std::process::Command {
    let servers = bed().servers();
    let ((key, secret), (user, rest)) = (servers.s3_credentials(), servers.rest_credentials());
    let mut command = std::process::Command::new("restic");
    command.args(["-r", url]).args(arguments);
    command.envs([
        ("RESTIC_PASSWORD", "right horse"),
        ("AWS_ACCESS_KEY_ID", key),
        ("AWS_SECRET_ACCESS_KEY", secret),
        ("RESTIC_REST_USERNAME", user),
        ("RESTIC_REST_PASSWORD", rest),
    ]);
    command
        .env("RESTIC_CACERT", servers.rest_ca())
        .env("RESTIC_CACHE_DIR", bed().dir().join("restic-cache"));
    let path = std::env::var("PATH").unwrap_or_default();
    let own = bed().workspace.root.join(".testbed/bin");
    command.env("PATH", format!("{}:{path}", own.display()));
    command
}

/// Ids of the snapshots that carry all of these tags, oldest first.
pub fn snapshots(url: &str, tags: &str) -> Vec<String> {
    let mut arguments = vec!["snapshots", "--json", "--no-lock"];
    if !tags.is_empty() {
        arguments.extend(["--tag", tags]);
    }
    let list: Value = serde_json::from_str(&restic(url, &arguments)).unwrap();
    let mut list: Vec<(String, String)> = list
        .as_array()
        .unwrap()
        .iter()
        .map(|s| {
            (
                s["time"].as_str().unwrap().to_owned(),
                s["id"].as_str().unwrap().to_owned(),
            )
        })
        .collect();
    list.sort();
    list.into_iter().map(|(_, id)| id).collect()
}

/// Makes snapshots of one small file, as a backup of a cluster would, one a day.
pub fn make_snapshots(url: &str, cluster: &str, backup: &str, tag: &str, days: std::ops::Range<u32>) {
    // The same path each time: it is part of what makes a group.
    let dir = std::env::temp_dir().join(format!("fleet-{cluster}-{}", backup.replace('/', "-")));
    std::fs::create_dir_all(&dir).unwrap();
    for day in days {
        std::fs::write(
            dir.join("file"),
            format!("{cluster} {backup} {day} {:?}", Instant::now()),
        )
        .unwrap();
        let (cluster, backup) = (
            format!("fleet.cluster={cluster}"),
            format!("fleet.backup={backup}"),
        );
        let time = format!("2026-10-{day:02} 03:00:00");
        let path = dir.to_string_lossy().into_owned();
        restic(
            url,
            &[
                // A dead process may have left its lock, which is removed without a person.
                "backup",
                "-q",
                "--retry-lock",
                "10m",
                "--host",
                "orders",
                "--tag",
                &cluster,
                "--tag",
                &backup,
                "--tag",
                tag,
                "--time",
                &time,
                &path,
            ],
        );
    }
    std::fs::remove_dir_all(&dir).unwrap();
}

pub fn policy(name: &str, policies: Value, more: Value) -> Value {
    let mut spec = json!({ "repositoryRef": { "name": "nas" }, "schedule": "@yearly", "policies": policies });
    for (name, value) in more.as_object().unwrap() {
        spec[name] = value.clone();
    }
    json!({ "apiVersion": "backup.resticbackup.io/v1alpha1", "kind": "GlobalRetentionPolicy", "metadata": { "name": name }, "spec": spec })
}

/// A run now, as a person asks for it.
pub fn start(place: &Place, policy: &str, job: &str) {
    let from = format!("--from=cronjob/globalretention-{policy}");
    place.kubectl(&["create", "job", job, &from]).unwrap();
}

/// Waits for the next run's end. It may have to wait for a hub that was started just now, and for the lock of others.
pub fn until_run(place: &Place, policy: &str, before: &Value) -> Value {
    until_run_within(3 * SOON, place, policy, before)
}

/// The same, for what may take longer.
pub fn until_run_within(limit: Duration, place: &Place, policy: &str, before: &Value) -> Value {
    let ended = |o: &Value| {
        let status = &o["status"];
        (&status["lastRun"], &status["lastRunToken"]) != (&before["lastRun"], &before["lastRunToken"])
            && !status["lastRun"].is_null()
            && status["active"].is_null()
    };
    let policy = format!("globalretentionpolicy/{policy}");
    let object = place.until_within(limit, &policy, "the end of a run", ended);
    object["status"].clone()
}

/// Two clusters with the same repository, reached at two addresses.
fn shared(name: &str) -> (Place, Place, String) {
    let (a, b) = (Place::new("a", name), Place::new("b", name));
    a.apply(&[a.repository("nas", &s3(0, name))]);
    a.until_ready("resticrepository/nas");
    b.apply(&[b.repository("nas", &s3(1, name))]);
    b.until_ready("resticrepository/nas");
    (a, b, s3(0, name))
}

#[test]
#[ignore = "needs clusters: make test"]
fn policies_of_two_clusters_that_are_due_together_make_one_run_with_the_union_of_their_keeps() {
    let (a, b, url) = shared("union");
    make_snapshots(&url, "a", "union/orders", "x", 1..7);
    make_snapshots(&url, "b", "union/orders", "x", 1..7);
    let (of_a, of_b) = (
        snapshots(&url, "fleet.cluster=a"),
        snapshots(&url, "fleet.cluster=b"),
    );
    let apply = json!({ "initialRun": "Apply", "prune": true, "guard": { "maxRemovedPercent": 100 } });
    // Opposed: a keeps the newest of everything, b keeps three of its own.
    a.apply(&[policy(
        "everything",
        json!([{ "selector": {}, "retention": { "keepLast": 1 } }]),
        apply.clone(),
    )]);
    b.apply(&[policy(
        "own",
        json!([{ "selector": { "tags": ["x", "fleet.cluster=b"] }, "retention": { "keepLast": 3 } }]),
        apply,
    )]);
    a.until_ready("globalretentionpolicy/everything");
    b.until_ready("globalretentionpolicy/own");
    until_fleet_knows(&a, 2);
    start(&a, "everything", "first");
    start(&b, "own", "first");
    let (ran_a, ran_b) = (
        until_run(&a, "everything", &json!({})),
        until_run(&b, "own", &json!({})),
    );
    assert_eq!(
        ran_a["lastRunToken"], ran_b["lastRunToken"],
        "one run: {ran_a:#} {ran_b:#}"
    );
    for ran in [&ran_a, &ran_b] {
        assert_eq!(
            (&ran["lastRunResult"], &ran["snapshotsRemoved"]),
            (&json!("Applied"), &json!(8)),
            "{ran:#}"
        );
    }
    assert!(
        [&ran_a, &ran_b].iter().any(|r| r["lastRunBy"].is_string()),
        "one of them was covered"
    );
    assert_eq!(snapshots(&url, "fleet.cluster=a"), of_a[5..]);
    assert_eq!(
        snapshots(&url, "fleet.cluster=b"),
        of_b[3..],
        "what b keeps, a does not remove"
    );
    restic(&url, &["check", "--read-data", "-q"]);

    let audit = fleet_json(&["audit", &repository_id(&a)]);
    let entries = audit["items"].as_array().unwrap();
    assert_eq!(entries.len(), 1, "one token: {audit:#}");
    assert_eq!(entries[0]["outcome"]["removed"], 8, "{audit:#}");
    assert_eq!(entries[0]["policies"].as_array().unwrap().len(), 2, "{audit:#}");
    assert_eq!(entries[0]["covered"].as_array().unwrap().len(), 1, "{audit:#}");
}

/// restic id of the place's repository.
pub fn repository_id(place: &Place) -> String {
    place.get("resticrepository/nas")["status"]["repositoryID"]
        .as_str()
        .unwrap()
        .to_owned()
}

/// Waits until the hub has heard of so many policies of the place's repository.
pub fn until_fleet_knows(place: &Place, policies: usize) {
    let id = repository_id(place);
    crate::faults::until("the policies at the hub", || {
        fleet_json(&["repos", &id])["items"][0]["policies"] == policies
    });
}

/// The CLI's exit code and all that it printed.
fn fleet_code(arguments: &[&str]) -> (i32, String) {
    let output = fleet::shell(bed(), "fleet", arguments, &[]).unwrap();
    let text = [output.stdout, output.stderr].concat();
    (output.status.code().unwrap(), String::from_utf8(text).unwrap())
}

#[test]
#[ignore = "needs clusters: make test"]
fn a_first_run_shows_a_plan_over_the_guard_waits_and_a_changed_one_is_refused() {
    let place = Place::new("a", "guarded");
    let url = s3(0, "guarded");
    place.apply(&[place.repository("nas", &url)]);
    place.until_ready("resticrepository/nas");
    make_snapshots(&url, "a", "guarded/orders", "x", 1..7);
    let keep_one = json!([{ "selector": { "tags": ["x"] }, "retention": { "keepLast": 1 } }]);
    place.apply(&[policy("nightly", keep_one, json!({}))]);
    place.until_ready("globalretentionpolicy/nightly");
    until_fleet_knows(&place, 1);

    // By hand, as people do: it waits for the lock like any other, and gets it.
    start(&place, "nightly", "one");
    let first = until_run(&place, "nightly", &json!({}));
    assert_eq!(
        (&first["lastRunResult"], &first["snapshotsRemoved"]),
        (&json!("Preview"), &json!(0)),
        "{first:#}"
    );
    assert!(
        first["lastRunMessage"].as_str().unwrap().contains("5 of 6"),
        "{first:#}"
    );
    start(&place, "nightly", "two");
    let second = until_run(&place, "nightly", &first);
    assert_eq!(second["lastRunResult"], "ApprovalRequired", "{second:#}");
    let object = place.get("globalretentionpolicy/nightly");
    let waits = condition(&object, "ApprovalRequired");
    assert!(
        waits["status"] == "True" && waits["message"].as_str().unwrap().contains("84%"),
        "{waits:#}"
    );
    assert_eq!(snapshots(&url, "").len(), 6);

    let id = repository_id(&place);
    let plan = |state: &str| {
        let plans = fleet_json_any(&["plan", "list"]);
        let found = plans["items"]
            .as_array()
            .unwrap()
            .iter()
            .find(|p| p["resticID"] == *id && p["state"] == state)
            .cloned();
        found.unwrap_or_else(|| panic!("no {state} plan: {plans:#}"))
    };
    let waiting = plan("waiting");
    let (name, hash) = (
        waiting["id"].as_str().unwrap().to_owned(),
        waiting["hash"].as_str().unwrap().to_owned(),
    );
    let (code, text) = fleet_code(&["plan", "show", &name]);
    assert!(
        code == 6 && text.contains("NEEDS APPROVAL") && text.contains("guarded/orders"),
        "{text}"
    );
    let shown = fleet_json_any(&["plan", "show", &name]);
    assert_eq!(shown["plan"]["remove"].as_array().unwrap().len(), 5, "{shown:#}");
    assert_eq!(
        fleet_code(&["plan", "approve", &name, "--hash", "0123456789"]).0,
        6,
        "another hash"
    );

    // The newest is another now, so other snapshots would go.
    make_snapshots(&url, "a", "guarded/orders", "x", 7..8);
    assert_eq!(fleet_code(&["plan", "approve", &name, "--hash", &hash]).0, 0);
    let third = until_run(&place, "nightly", &second);
    assert_eq!(third["lastRunResult"], "ApprovalRequired", "{third:#}");
    assert!(
        third["lastRunMessage"]
            .as_str()
            .unwrap()
            .contains("was approved, and the plan made now"),
        "{third:#}"
    );
    assert_eq!(snapshots(&url, "").len(), 7, "nothing was removed");
    assert_eq!(
        fleet_code(&["plan", "approve", &name, "--hash", &hash]).0,
        6,
        "superseded"
    );

    // This time by annotation.
    let hash = third["plan"].as_str().unwrap().to_owned();
    let annotation = format!("backup.resticbackup.io/approve-plan={hash}");
    place
        .kubectl(&["annotate", "globalretentionpolicy/nightly", &annotation])
        .unwrap();
    let fourth = until_run(&place, "nightly", &third);
    assert_eq!(
        (&fourth["lastRunResult"], &fourth["snapshotsRemoved"]),
        (&json!("Applied"), &json!(6)),
        "{fourth:#}"
    );
    assert_eq!(snapshots(&url, "").len(), 1);
    assert_eq!(plan("applied")["hash"], *hash);

    // What matches nothing says so, and a rule that restic would refuse is not admitted.
    let nothing = json!([{ "selector": { "tags": ["no-such"] }, "retention": { "keepLast": 1 } }]);
    place.apply(&[policy("nightly", nothing, json!({}))]);
    until_generation(&place, "nightly", 2);
    start(&place, "nightly", "five");
    let fifth = until_run(&place, "nightly", &fourth);
    assert_eq!(fifth["lastRunResult"], "NothingToRemove", "{fifth:#}");
    let object = place.get("globalretentionpolicy/nightly");
    assert_eq!(
        condition(&object, "Degraded")["reason"],
        "NothingMatched",
        "{:#}",
        object["status"]
    );
    let tags_alone = json!([{ "selector": { "tags": ["x"] }, "retention": { "keepTags": ["no-such"] } }]);
    let refused = place
        .try_apply(&[policy("nightly", tags_alone, json!({}))])
        .unwrap_err()
        .to_string();
    assert!(refused.contains("add keepLast: 1"), "{refused}");
    assert_eq!(snapshots(&url, "").len(), 1);
    let zero = json!([{ "selector": {}, "retention": { "keepLast": 0 } }]);
    let refused = place
        .try_apply(&[policy("zero", zero, json!({}))])
        .unwrap_err()
        .to_string();
    assert!(refused.contains("at least one keep rule"), "{refused}");
}

/// Waits until spoke and hub have taken a change of a policy in.
fn until_generation(place: &Place, policy: &str, generation: i64) {
    place.until(&format!("globalretentionpolicy/{policy}"), "the change", |o| {
        o["status"]["observedGeneration"] == generation
    });
    // On its way to the hub within the link's coalescing time.
    std::thread::sleep(Duration::from_millis(500));
}

/// The CLI's JSON, whatever its exit code.
fn fleet_json_any(arguments: &[&str]) -> Value {
    let mut all = arguments.to_vec();
    all.extend(["-o", "json"]);
    let output = fleet::shell(bed(), "fleet", &all, &[]).unwrap();
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
#[ignore = "needs clusters: make test"]
fn a_repository_that_is_reached_by_two_back_ends_has_one_lock_and_one_plan() {
    let (a, b, url) = (
        Place::new("a", "backends"),
        Place::new("b", "backends"),
        s3(0, "backends"),
    );
    a.apply(&[a.repository("nas", &url)]);
    a.until_ready("resticrepository/nas");
    // The same bucket, for b through rclone's REST server.
    let by_rest = bed().servers().serve_by_rclone("backends").unwrap();
    b.apply(&[b.repository("nas", &by_rest)]);
    b.until_ready("resticrepository/nas");
    assert_eq!(repository_id(&a), repository_id(&b), "one physical repository");

    make_snapshots(&url, "a", "backends/x", "x", 1..4);
    make_snapshots(&url, "b", "backends/x", "x", 1..4);
    let more = json!({ "initialRun": "Apply", "prune": true, "guard": { "maxRemovedPercent": 100 } });
    for place in [&a, &b] {
        let own = format!("fleet.cluster={}", place.cluster.name);
        let rule = json!([{ "selector": { "tags": [own] }, "retention": { "keepLast": 1 } }]);
        place.apply(&[policy("own", rule, more.clone())]);
        place.until_ready("globalretentionpolicy/own");
    }
    until_fleet_knows(&a, 2);
    start(&b, "own", "first");
    start(&a, "own", "first");
    let (ran_a, ran_b) = (until_run(&a, "own", &json!({})), until_run(&b, "own", &json!({})));
    assert_eq!(
        ran_a["lastRunToken"], ran_b["lastRunToken"],
        "one run: {ran_a:#} {ran_b:#}"
    );
    assert_eq!(snapshots(&url, "").len(), 2, "the newest of each");
    restic(&url, &["check", "--read-data", "-q"]);
}
