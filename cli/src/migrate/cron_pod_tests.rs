#![allow(clippy::unwrap_used)]

use serde_json::json;

use super::*;
use crate::migrate::cron_fixtures::{cron_job, is_replaced, keys, notes, planned, with_pod};
use crate::migrate::fixtures::{of_kind, valid};
use crate::migrate::plan::Plan;

/// Of a backup of `paths` with these options, whose container mounts these.
fn of(arguments: &[&str], mounts: Value) -> Plan {
    let arguments = [&["backup", "--host", "web"], arguments].concat();
    let job = cron_job("a", json!({ "args": arguments, "volumeMounts": mounts }));
    let volumes = json!([
        { "name": "data", "persistentVolumeClaim": { "claimName": "files" } },
        { "name": "more", "persistentVolumeClaim": { "claimName": "more" } },
        { "name": "work", "emptyDir": {} },
    ]);
    let plan = planned(&[with_pod(job, "/volumes", volumes)], &keys());
    valid(&plan);
    plan
}

fn at_data() -> Value {
    json!([{ "name": "data", "mountPath": "/data" }])
}

/// Patterns of the only backup, and its options.
fn patterns(plan: &Plan) -> (Value, Value) {
    let backups = of_kind(plan, "ResticBackup");
    assert_eq!(backups.len(), 1, "{:#?}", plan.objects);
    let spec = &backups[0]["spec"];
    (
        spec["source"]["pvc"]["excludes"].clone(),
        spec["restic"]["extraArgs"].clone(),
    )
}

#[test]
fn excludes_mean_the_same_files_in_the_volume() {
    for (theirs, ours) in [
        (
            vec!["/data/cache/*", "!/data/cache/keep"],
            json!(["/cache/*", "!/cache/keep"]),
        ),
        (vec!["/data//./tmp/", "/*/x", "/home*/y"], json!(["/tmp", "/x"])),
        // Of another folder.
        (vec!["/data2/x", "!/data2/y", "/dat", "*.tmp"], json!(["*.tmp"])),
        // Which in the container begins above the volume.
        (vec!["data/cache"], json!(["/**/data/cache", "/cache"])),
        (vec!["!data/cache"], json!(["!/**/data/cache", "!/cache"])),
        (
            vec!["www/cache", "**/tmp", "**/*.o"],
            json!(["www/cache", "**/tmp", "**/*.o"]),
        ),
        // In both it may begin above the volume; a pattern of ours does not.
        (vec!["*/x", "!*/y"], json!(["/**/*/x", "/x", "!/**/*/y", "!/y"])),
        // Ours mounts the volume at /backup, all of which would be left out.
        (
            vec!["backup", "**/backup", "!back*"],
            json!(["/**/backup", "!/**/back*"]),
        ),
        (vec!["backup/x"], json!(["/**/backup/x"])),
    ] {
        let mut arguments = vec!["/data"];
        arguments.extend(theirs.iter().flat_map(|one| ["--exclude", one]));
        let plan = of(&arguments, at_data());
        assert_eq!(patterns(&plan).0, ours, "{theirs:?}: {}", notes(&plan));
        assert!(is_replaced(&plan, "shop", "a"), "{theirs:?}");
    }
}

#[test]
fn excludes_of_a_folder_of_a_volume_lie_below_it() {
    let mount = json!([{ "name": "data", "mountPath": "/srv", "subPath": "www" }]);
    let excludes = [
        "/srv",
        "-e",
        "/srv/tmp",
        "-e",
        "!/srv/tmp/x",
        "-e",
        "www",
        "-e",
        "*.o",
    ];
    let plan = of(&excludes, mount);
    assert_eq!(
        patterns(&plan).0,
        json!(["/www/tmp", "!/www/tmp/x", "/www/**/www", "*.o"])
    );
    assert!(is_replaced(&plan, "shop", "a"));
}

#[test]
fn patterns_that_do_not_look_at_case_are_written_for_the_place_of_ours() {
    let plan = of(
        &[
            "/data",
            "--iexclude",
            "/data/Cache",
            "--iexclude=*.TMP",
            "--iexclude",
            "/DATA/x",
            "-x",
        ],
        at_data(),
    );
    let wanted = json!([
        "--one-file-system",
        "--iexclude=/backup/Cache",
        "--iexclude=*.TMP",
        "--iexclude=/backup/x"
    ]);
    assert_eq!(patterns(&plan).1, wanted);
    assert_eq!(super::super::cron_excludes::SOURCE_DIR, spoke::pod::SOURCE_DIR);
}

#[test]
fn a_pattern_that_cannot_be_mapped_is_named_and_theirs_goes_on() {
    for (pattern, rest) in [
        ("/**/cache", json!(["*.o"])),
        ("/data/../x", json!(["*.o"])),
        ("/data", json!(["*.o"])),
        ("/", json!(["*.o"])),
        ("data", json!(["*.o"])),
        ("*", json!(["*.o"])),
        ("[cd]ata/x", json!(["*.o"])),
        // What it takes back would be missing.
        ("!/**/keep", json!([])),
        ("!data", json!([])),
    ] {
        let plan = of(&["/data", "-e", "*.o", "-e", pattern], at_data());
        assert_eq!(patterns(&plan).0, rest, "{pattern}");
        assert!(notes(&plan).contains(pattern), "{pattern}: {}", notes(&plan));
        assert!(!is_replaced(&plan, "shop", "a"), "{pattern}");
    }
}

#[test]
fn volumes_below_a_folder_are_stored_as_well() {
    let mounts =
        json!([{ "name": "data", "mountPath": "/data" }, { "name": "more", "mountPath": "/data/more" }]);
    let claims = |plan: &Plan| -> Vec<String> {
        let backups = of_kind(plan, "ResticBackup").into_iter();
        backups
            .map(|one| text(one, "/spec/source/pvc/claimName").to_owned())
            .collect()
    };
    let plan = of(&["/data"], mounts.clone());
    assert_eq!(claims(&plan), ["files", "more"]);
    assert!(is_replaced(&plan, "shop", "a"));
    for not in [
        vec!["/data", "-x"],
        vec!["/data", "-e", "/data/more"],
        vec!["/data/less"],
    ] {
        let plan = of(&not, mounts.clone());
        assert_eq!(claims(&plan), ["files"], "{not:?}");
        assert!(is_replaced(&plan, "shop", "a"), "{not:?}: {}", notes(&plan));
    }
    let work =
        json!([{ "name": "data", "mountPath": "/data" }, { "name": "work", "mountPath": "/data/work" }]);
    let plan = of(&["/data"], work);
    assert!(!is_replaced(&plan, "shop", "a"));
    assert!(
        notes(&plan).contains("/data/work lies in no claim"),
        "{}",
        notes(&plan)
    );
}

#[test]
fn a_folder_that_is_known_only_when_it_runs_is_not_guessed() {
    let mount = json!([{ "name": "data", "mountPath": "/data", "subPathExpr": "$(POD_NAME)" }]);
    for (paths, mounts, why) in [
        (["/data"], mount, "subPathExpr"),
        (["/data/*"], at_data(), "/data/*"),
    ] {
        let plan = of(&paths, mounts);
        assert!(of_kind(&plan, "ResticBackup").is_empty(), "{:#?}", plan.objects);
        assert!(notes(&plan).contains(why), "{}", notes(&plan));
    }
}
