#![allow(clippy::unwrap_used)]

use super::*;
use crate::migrate::cron_fixtures::{is_replaced, keys, moved, notes, planned, rules, script};
use crate::migrate::fixtures::{of_kind, valid};
use crate::migrate::secret::Secrets;

/// The same Secret in these namespaces, with the URL in each spelled so.
fn everywhere(places: &[(&str, &str)]) -> Secrets {
    let mut all = Secrets::new();
    for (namespace, url) in places {
        for ((_, name), mut values) in keys() {
            values.insert("RESTIC_REPOSITORY".to_owned(), (*url).to_owned());
            all.insert(((*namespace).to_owned(), name), values);
        }
    }
    all
}

const URL: &str = "s3:http://minio:9000/cron";

#[test]
fn a_forget_of_another_namespace_becomes_a_policy_over_what_all_of_them_store() {
    let jobs = [
        moved(script("store", "restic backup /data --host one"), "app1"),
        moved(script("store", "restic backup /data --host two"), "app2"),
        moved(script("clean", "restic forget --keep-daily 7 --prune"), "ops"),
    ];
    let secrets = everywhere(&[
        ("app1", URL),
        ("app2", "s3:http://minio:9000/cron/"),
        ("ops", URL),
    ]);
    let plan = planned(&jobs, &secrets);
    valid(&plan);
    let policies = of_kind(&plan, "GlobalRetentionPolicy");
    assert_eq!(policies.len(), 1, "{}", notes(&plan));
    assert_eq!(policies[0]["metadata"]["namespace"], "ops");
    assert_eq!(policies[0]["spec"]["prune"], true);
    let selectors: Vec<Value> = rules(&plan).iter().map(|rule| rule["selector"].clone()).collect();
    assert_eq!(
        selectors,
        [
            json!({ "hostname": "one" }),
            json!({ "hostname": "two" }),
            json!({ "hostname": "one", "tags": ["fleet.backup=app1/store"] }),
            json!({ "hostname": "two", "tags": ["fleet.backup=app2/store"] }),
        ]
    );
    assert!(is_replaced(&plan, "ops", "clean"));
    assert!(!notes(&plan).contains("runs restic forget"), "{}", notes(&plan));
}

#[test]
fn what_removes_and_has_no_policy_in_its_place_goes_on() {
    let secrets = everywhere(&[("app1", URL), ("ops", URL)]);
    for (command, why) in [
        (
            "restic forget --keep-daily 7 --prune",
            "over the whole repository",
        ),
        ("restic prune", "frees its space"),
    ] {
        // Nothing else of the repository was read.
        let plan = planned(&[moved(script("clean", command), "ops")], &secrets);
        valid(&plan);
        assert!(of_kind(&plan, "GlobalRetentionPolicy").is_empty());
        assert!(!is_replaced(&plan, "ops", "clean"), "{command}");
        assert!(notes(&plan).contains(why), "{}", notes(&plan));
        assert!(!notes(&plan).contains("the policy reaches"), "{}", notes(&plan));
    }
}

#[test]
fn a_prune_of_its_own_is_part_of_the_policy_of_its_repository() {
    let secrets = everywhere(&[("app1", URL), ("ops", URL)]);
    let both = "restic backup /data --host one; restic forget --host one --keep-last 3";
    let jobs = [
        moved(script("store", both), "app1"),
        moved(script("space", "restic prune"), "ops"),
    ];
    let plan = planned(&jobs, &secrets);
    assert_eq!(of_kind(&plan, "GlobalRetentionPolicy")[0]["spec"]["prune"], true);
    assert!(is_replaced(&plan, "ops", "space"), "{}", notes(&plan));
    assert!(is_replaced(&plan, "app1", "store"));
}

#[test]
fn a_repository_is_one_however_its_address_is_written() {
    let with = |name: &str, command: &str, url: &str| script(name, &format!("restic -r {url} {command}"));
    let jobs = [
        with("store", "backup /data --host web", URL),
        with("clean", "forget --keep-last 3", "s3:http://minio:9000/cron/"),
    ];
    let plan = planned(&jobs, &keys());
    valid(&plan);
    assert_eq!(of_kind(&plan, "ResticRepository").len(), 1);
    assert_eq!(rules(&plan).len(), 2, "{}", notes(&plan));
}

#[test]
fn a_host_whose_backup_goes_on_has_its_rule_as_well() {
    let jobs = [
        script("store", "restic backup /data --host web"),
        script("lost", "restic backup /work --host db"),
        script("clean", "restic forget --keep-last 3"),
    ];
    let plan = planned(&jobs, &keys());
    assert!(!is_replaced(&plan, "shop", "lost"));
    let hosts: Vec<&str> = of_kind(&plan, "GlobalRetentionPolicy")[0]["spec"]["policies"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|rule| rule["selector"]["hostname"].as_str())
        .collect();
    assert_eq!(hosts, ["db", "web", "web"]);
}

#[test]
fn a_policy_runs_in_the_time_zone_of_its_forget() {
    let jobs = [
        script("store", "restic backup /data --host web"),
        script("clean", "restic forget --keep-last 3"),
    ];
    let plan = planned(&jobs, &keys());
    let spec = &of_kind(&plan, "GlobalRetentionPolicy")[0]["spec"];
    assert_eq!(
        (&spec["schedule"], &spec["timezone"]),
        (&json!("30 2 * * *"), &json!("Europe/Berlin"))
    );
}
