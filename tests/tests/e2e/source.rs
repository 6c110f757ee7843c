//! What backups read: claims in use, volumes of running pods, commands, and pods that people bring.

use serde_json::{Value, json};
use tests::images;

use crate::retention::{policy, restic, start, until_run};
use crate::support::{Place, condition, rest, s3};

fn nas() -> Value {
    json!({ "name": "nas" })
}

/// An application: a pod that sleeps, with these volumes at /data.
fn application(name: &str, labels: Value, volume: Value) -> Value {
    let mut volume = volume;
    volume["name"] = json!("data");
    json!({ "apiVersion": "v1", "kind": "Pod", "metadata": { "name": name, "labels": labels }, "spec": {
        "terminationGracePeriodSeconds": 0,
        "containers": [
            { "name": "app", "image": images::restic_image(), "command": ["sleep", "infinity"],
              "volumeMounts": [{ "name": "data", "mountPath": "/data" }] },
            { "name": "part", "image": images::restic_image(), "command": ["sleep", "infinity"],
              "volumeMounts": [{ "name": "data", "mountPath": "/part", "subPath": "small" }] }],
        "volumes": [volume] } })
}

fn claim(name: &str) -> Value {
    json!({ "persistentVolumeClaim": { "claimName": name } })
}

fn runs(place: &Place, pod: &str) {
    place.until(&format!("pod/{pod}"), "ready", |o| {
        condition(o, "Ready")["status"] == "True"
    });
}

fn source(place: &Place, name: &str, source: Value) -> Value {
    place.backup(name, nas(), json!({ "source": source }))
}

/// Nodes that the CronJob of a backup asks for.
fn nodes(cron_job: &Value) -> Vec<String> {
    let pod = &cron_job["spec"]["jobTemplate"]["spec"]["template"]["spec"];
    let terms = &pod["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]["nodeSelectorTerms"];
    let terms = terms.as_array().cloned().unwrap_or_default();
    let values = terms
        .iter()
        .map(|term| term["matchFields"][0]["values"][0].as_str().unwrap().to_owned());
    values.collect()
}

/// Paths in the newest snapshot.
fn listed(url: &str) -> Vec<String> {
    let text = restic(url, &["ls", "latest", "--no-lock"]);
    text.lines()
        .filter(|line| line.starts_with('/'))
        .map(str::to_owned)
        .collect()
}

fn snapshots(url: &str) -> usize {
    let text = restic(url, &["snapshots", "--json", "--no-lock"]);
    serde_json::from_str::<Value>(&text)
        .unwrap()
        .as_array()
        .unwrap()
        .len()
}

#[test]
#[ignore = "needs clusters: make test"]
fn a_claim_is_backed_up_on_the_node_where_it_is_in_use() {
    let place = Place::new("a", "placed");
    place.apply(&[
        place.repository("nas", &s3(0, "placed")),
        place.backup("orders", nas(), json!({})),
    ]);
    place.until_ready("resticbackup/orders");
    let cron_job = "cronjob/resticbackup-orders";
    assert!(nodes(&place.get(cron_job)).is_empty(), "nobody uses it");
    place.apply(&[application("app", json!({}), claim("data"))]);
    let node = place.cluster.node_name();
    place.until(cron_job, "the application's node", |o| nodes(o) == [node.clone()]);
    assert_eq!(place.run("orders", "1")["result"], "Succeeded");

    // The application moves to a node that nobody stands for: the schedule follows it there, and back.
    let elsewhere = json!({ "apiVersion": "v1", "kind": "Node", "metadata": { "name": "elsewhere" } });
    place.cluster.apply(&elsewhere.to_string()).unwrap();
    let mut moved = application("moved", json!({}), claim("data"));
    moved["spec"]["nodeName"] = json!("elsewhere");
    moved["spec"]["tolerations"] =
        json!([{ "key": "dedicated", "operator": "Equal", "value": "db", "effect": "NoSchedule" }]);
    place.kubectl(&["delete", "pod", "app", "--now"]).unwrap();
    place.apply(&[moved]);
    let there = place.until(cron_job, "the other node", |o| nodes(o) == ["elsewhere"]);
    let tolerations = &there["spec"]["jobTemplate"]["spec"]["template"]["spec"]["tolerations"];
    assert!(tolerations.to_string().contains("dedicated"), "{tolerations}");
    place
        .kubectl(&["delete", "pod", "moved", "--force", "--grace-period=0"])
        .unwrap();
    place.cluster.kubectl(&["delete", "node", "elsewhere"]).unwrap();
    place.until(cron_job, "no node", |o| nodes(o).is_empty());
    assert_eq!(place.run("orders", "2")["result"], "Succeeded");
}

#[test]
#[ignore = "needs clusters: make test"]
fn a_claim_of_one_pod_is_not_backed_up_while_that_pod_uses_it() {
    let place = Place::new("b", "one-pod");
    place.apply(&[
        json!({ "apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": { "name": "mine" },
                "spec": { "accessModes": ["ReadWriteOncePod"], "resources": { "requests": { "storage": "1Gi" } } } }),
        application("app", json!({}), claim("mine")),
        place.repository("nas", &s3(0, "one-pod")),
        source(&place, "orders", json!({ "pvc": { "claimName": "mine" } })),
    ]);
    let message = place.until_reason("resticbackup/orders", "PersistentVolumeClaimInUse");
    assert!(
        message.contains("ReadWriteOncePod") && message.contains("pod app"),
        "{message}"
    );
    place.kubectl(&["delete", "pod", "app", "--now"]).unwrap();
    place.until_ready("resticbackup/orders");
}

#[test]
#[ignore = "needs clusters: make test"]
fn the_volume_of_a_running_pod_is_backed_up_and_what_cannot_be_is_told() {
    let place = Place::new("a", "pod-volumes");
    let url = s3(0, "pod-volumes");
    let volume = |more: Value| {
        let mut volume = json!({ "selector": { "matchLabels": { "app": "db" } }, "volumeName": "data" });
        volume
            .as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        json!({ "podVolumeBackup": volume })
    };
    place.apply(&[
        place.repository("nas", &url),
        source(&place, "whole", volume(json!({}))),
    ]);
    let message = place.until_reason("resticbackup/whole", "PodNotFound");
    assert!(message.contains("no running pod"), "{message}");
    assert_eq!(place.get("cronjob/resticbackup-whole"), Value::Null);

    let labels = json!({ "app": "db" });
    place.apply(&[
        application("db-0", labels.clone(), claim("data")),
        source(&place, "part", volume(json!({ "container": "part" }))),
    ]);
    for (name, file) in [("whole", "/backup/small/a.txt"), ("part", "/backup/a.txt")] {
        let object = place.until_ready(&format!("resticbackup/{name}"));
        assert!(condition(&object, "NotInEffect").is_null());
        assert_eq!(
            nodes(&place.get(&format!("cronjob/resticbackup-{name}"))),
            [place.cluster.node_name()]
        );
        let run = place.run(name, "1");
        assert_eq!(run["result"], "Succeeded", "{run:#}");
        let paths = listed(&url);
        assert!(paths.contains(&file.to_owned()), "{name}: {paths:?}");
    }

    place.apply(&[
        application("other", json!({ "app": "scratch" }), json!({ "emptyDir": {} })),
        source(
            &place,
            "scratch",
            volume(json!({ "selector": { "matchLabels": { "app": "scratch" } } })),
        ),
        source(&place, "misnamed", volume(json!({ "volumeName": "logs" }))),
    ]);
    let message = place.until_reason("resticbackup/scratch", "PodVolumeNotUsable");
    assert!(
        message.contains("emptyDir") && message.contains("spec.source.stdin"),
        "{message}"
    );
    let message = place.until_reason("resticbackup/misnamed", "PodVolumeNotUsable");
    assert!(message.contains("it has: data"), "{message}");
    // A second replica with a claim of its own.
    place.apply(&[
        json!({ "apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": { "name": "data-2" },
                "spec": { "accessModes": ["ReadWriteOnce"], "resources": { "requests": { "storage": "1Gi" } } } }),
        application("db-1", labels, claim("data-2")),
    ]);
    let message = place.until_reason("resticbackup/whole", "PodVolumeAmbiguous");
    assert!(message.contains("db-0") && message.contains("db-1"), "{message}");
    let suspended = |o: &Value| o["spec"]["suspend"] == true;
    place.until("cronjob/resticbackup-whole", "suspended", suspended);
    place.kubectl(&["delete", "pod", "db-1", "--now"]).unwrap();
    place.until_ready("resticbackup/whole");
    place.until("cronjob/resticbackup-whole", "going on", |o| !suspended(o));
}

#[test]
#[ignore = "needs clusters: make test"]
fn the_output_of_a_command_in_a_running_pod_is_backed_up_whole_or_not_at_all() {
    let place = Place::new("a", "exec");
    let url = rest("exec");
    let labels = json!({ "app": "db" });
    place.apply(&[
        application("db-0", labels.clone(), claim("data")),
        place.repository("nas", &url),
    ]);
    runs(&place, "db-0");
    let backup = |script: &str| {
        let exec = json!({ "podSelector": { "matchLabels": labels }, "container": "app", "command": ["/bin/sh", "-c", script] });
        source(
            &place,
            "dump",
            json!({ "stdin": { "filename": "all.bin", "exec": exec } }),
        )
    };
    place.apply(&[backup("cat /data/big.bin")]);
    place.until_ready("resticbackup/dump");
    let run = place.run("dump", "1");
    assert_eq!(
        (&run["result"], &run["filesProcessed"]),
        (&json!("Succeeded"), &json!(1)),
        "{run:#}"
    );
    assert_eq!(listed(&url), ["/backup", "/backup/all.bin"]);

    // It comes back by a restore, as a file beside the others.
    place.apply(&[json!({ "apiVersion": "backup.resticbackup.io/v1alpha1", "kind": "ResticRestore", "metadata": { "name": "back" },
        "spec": { "backupRef": { "name": "dump" }, "target": { "pvc": { "claimName": "data", "path": "back" } } } })]);
    place.until("resticrestore/back", "Completed", |o| {
        o["status"]["phase"] == "Completed"
    });
    let (before, after) = (place.data().join("big.bin"), place.data().join("back/all.bin"));
    assert_eq!(std::fs::read(before).unwrap(), std::fs::read(after).unwrap());

    let mut request = 1;
    for (script, reason, words) in [
        (
            "cat /data/big.bin; echo no such table >&2; exit 7",
            "SourceFailed",
            "no such table",
        ),
        ("true", "SourceEmpty", "wrote nothing"),
        ("exec /no/such/program", "SourceFailed", "not found"),
    ] {
        request += 1;
        let generation = place.get("resticbackup/dump")["metadata"]["generation"]
            .as_i64()
            .unwrap();
        place.apply(&[backup(script)]);
        place.until("resticbackup/dump", "the new command", |o| {
            o["status"]["observedGeneration"].as_i64() > Some(generation)
        });
        let run = place.run("dump", &request.to_string());
        assert_eq!(
            (&run["result"], &run["reason"]),
            (&json!("Failed"), &json!(reason)),
            "{script}: {run:#}"
        );
        assert!(
            run["message"].as_str().unwrap().contains(words),
            "{script}: {run:#}"
        );
        assert_eq!(snapshots(&url), 1, "{script}");
    }
    // All pods of failed runs have ended by themselves.
    place.until("jobs", "no Job under way", |o| {
        o["items"]
            .as_array()
            .unwrap()
            .iter()
            .all(|job| job["status"]["active"].as_i64().unwrap_or(0) == 0)
    });
}

#[test]
#[ignore = "needs clusters: make test"]
fn the_right_to_run_commands_is_that_of_one_namespace_and_goes_with_its_need() {
    let place = Place::new("a", "exec-rights");
    place.apply(&[
        application("db-0", json!({ "app": "db" }), claim("data")),
        place.repository("nas", &s3(0, "exec-rights")),
    ]);
    runs(&place, "db-0");
    let exec =
        json!({ "podSelector": { "matchLabels": { "app": "db" } }, "command": ["cat", "/data/small/a.txt"] });
    place.apply(&[
        source(
            &place,
            "dump",
            json!({ "stdin": { "filename": "a.txt", "exec": exec } }),
        ),
        place.backup("plain", nas(), json!({})),
    ]);
    place.until_ready("resticbackup/dump");
    place.until_ready("resticbackup/plain");
    let may = |account: &str, namespace: &str, verb: &str, what: &str| {
        let who = format!("--as=system:serviceaccount:exec-rights:{account}");
        let (what, sub) = what.split_once('/').unwrap_or((what, ""));
        let sub = format!("--subresource={sub}");
        let question = ["auth", "can-i", verb, what, &sub, "-n", namespace, &who];
        let answer = place.cluster.kubectl(&question);
        answer.is_ok_and(|answer| answer.trim() == "yes")
    };
    let dump = "resticbackup-dump";
    assert!(may(dump, "exec-rights", "create", "pods/exec") && may(dump, "exec-rights", "list", "pods"));
    assert!(!may(dump, "default", "create", "pods/exec") && !may(dump, "exec-rights", "get", "secrets"));
    assert!(!may("resticbackup-plain", "exec-rights", "create", "pods/exec"));
    // The first container is meant.
    assert_eq!(place.run("dump", "1")["result"], "Succeeded");
    let pod = &place.get("cronjob/resticbackup-dump")["spec"]["jobTemplate"]["spec"]["template"]["spec"];
    let containers = pod["containers"].as_array().unwrap();
    let token = |name: &str| {
        containers
            .iter()
            .find(|c| c["name"] == name)
            .unwrap()
            .to_string()
            .contains("fleet-token")
    };
    assert!(token("source") && !token("restic") && pod["automountServiceAccountToken"] == false);

    place
        .kubectl(&[
            "patch",
            "resticbackup/dump",
            "--type=json",
            "-p",
            r#"[{"op":"replace","path":"/spec/source","value":{"pvc":{"claimName":"data"}}}]"#,
        ])
        .unwrap();
    place.until("rolebinding/resticbackup-dump", "no RoleBinding", Value::is_null);
    place.until("role/resticbackup-dump", "no Role", Value::is_null);
    assert!(!may(dump, "exec-rights", "create", "pods/exec"));
}

/// A template whose container runs a script, with an empty volume at /out.
fn template(script: &str, more: Value) -> Value {
    let mut spec = json!({
        "containers": [{ "name": "dump", "image": images::restic_image(), "command": ["/bin/sh", "-c"], "args": [script],
                         "volumeMounts": [{ "name": "out", "mountPath": "/out" }] }],
        "volumes": [{ "name": "out", "emptyDir": {} }] });
    spec.as_object_mut()
        .unwrap()
        .extend(more.as_object().unwrap().clone());
    json!({ "spec": spec })
}

/// Everything that a process can see of others and of its own surroundings.
const LOOK: &str = "env; ls -R /credentials /cache /out /tmp /fleet-stream 2>/dev/null; cat /proc/[0-9]*/environ /proc/[0-9]*/cmdline; \
                    ls /var/run/secrets/kubernetes.io/serviceaccount; grep -r hor[s]e /etc /out 2>/dev/null; echo seen";

#[test]
#[ignore = "needs clusters: make test"]
fn a_command_in_a_pod_of_its_own_is_backed_up_and_sees_no_credentials() {
    let place = Place::new("b", "own-pod");
    let url = rest("own-pod");
    place.apply(&[place.repository("nas", &url)]);
    let backup = |name: &str, script: &str| {
        let stdin = json!({ "filename": "dump.txt", "pod": { "podTemplate": template(script, json!({})) } });
        source(&place, name, json!({ "stdin": stdin }))
    };
    place.apply(&[
        backup("good", LOOK),
        backup("bad", "echo half; echo disk full >&2; exit 3"),
    ]);
    place.until_ready("resticbackup/good");
    let run = place.run("good", "1");
    assert_eq!(run["result"], "Succeeded", "{run:#}");
    let seen = restic(&url, &["dump", "latest", "/backup/dump.txt", "--no-lock"]);
    assert!(seen.trim_end().ends_with("seen"), "{seen}");
    for secret in ["horse", "RESTIC_", "AWS_", "restic\0backup", "ca.crt"] {
        assert!(!seen.contains(secret), "{secret:?} in {seen}");
    }
    assert!(
        seen.contains("stream") && seen.contains("serve"),
        "its own processes are seen: {seen}"
    );
    place.until_ready("resticbackup/bad");
    let run = place.run("bad", "1");
    assert_eq!(run["reason"], "SourceFailed", "{run:#}");
    assert!(run["message"].as_str().unwrap().contains("disk full"), "{run:#}");
    assert_eq!(snapshots(&url), 1);
}

#[test]
#[ignore = "needs clusters: make test"]
fn a_pod_that_brings_its_data_is_waited_for_and_may_not_reach_restic() {
    let place = Place::new("a", "custom");
    let url = s3(0, "custom");
    place.apply(&[place.repository("nas", &url)]);
    let backup = |name: &str, template: Value| {
        source(
            &place,
            name,
            json!({ "customSource": { "podTemplate": template, "backupPath": "/out/files" } }),
        )
    };
    let script =
        format!("mkdir /out/files; ({LOOK}) >/out/files/seen.txt; sleep 3; echo late >/out/files/late.txt");
    place.apply(&[
        backup("good", template(&script, json!({}))),
        backup("bad", template("echo table is locked >&2; exit 5", json!({}))),
        backup(
            "sharing",
            template("true", json!({ "shareProcessNamespace": true })),
        ),
        backup(
            "host",
            template(
                "true",
                json!({ "volumes": [{ "name": "out", "hostPath": { "path": "/" } }] }),
            ),
        ),
        backup(
            "secret",
            template(
                "true",
                json!({ "volumes": [{ "name": "out", "secret": { "secretName": "storage" } }] }),
            ),
        ),
    ]);
    place.until_ready("resticbackup/good");
    let run = place.run("good", "1");
    assert_eq!(run["result"], "Succeeded", "{run:#}");
    assert!(
        listed(&url).contains(&"/backup/late.txt".to_owned()),
        "restic began after it"
    );
    let seen = restic(&url, &["dump", "latest", "/backup/seen.txt", "--no-lock"]);
    for secret in ["horse", "RESTIC_", "AWS_"] {
        assert!(!seen.contains(secret), "{secret:?} in {seen}");
    }
    place.until_ready("resticbackup/bad");
    let run = place.run("bad", "1");
    let message = run["message"].as_str().unwrap();
    assert!(
        run["result"] == "Failed"
            && message.contains("container dump")
            && message.contains("table is locked"),
        "{run:#}"
    );
    assert_eq!(snapshots(&url), 1);
    for (name, words) in [
        ("sharing", "shareProcessNamespace"),
        ("host", "hostPath"),
        ("secret", "\"storage\""),
    ] {
        let message = place.until_reason(&format!("resticbackup/{name}"), "TemplateNotAllowed");
        assert!(message.contains(words), "{message}");
        assert_eq!(place.get(&format!("cronjob/resticbackup-{name}")), Value::Null);
    }
}

#[test]
#[ignore = "needs clusters: make test"]
fn a_source_that_lost_its_data_keeps_its_snapshots_until_a_person_accepts_it() {
    let place = Place::new("a", "suspicious");
    let url = s3(0, "suspicious");
    place.apply(&[
        place.repository("nas", &url),
        place.backup("orders", nas(), json!({})),
    ]);
    place.until_ready("resticbackup/orders");
    for n in 1..=3 {
        assert_eq!(place.run("orders", &n.to_string())["result"], "Succeeded");
    }
    assert!(condition(&place.get("resticbackup/orders"), "Suspicious").is_null());
    std::fs::remove_file(place.data().join("big.bin")).unwrap();
    let run = place.run("orders", "4");
    let id = run["snapshotID"].as_str().unwrap();
    let backup = place.get("resticbackup/orders");
    let suspicious = condition(&backup, "Suspicious");
    assert_eq!(
        (&suspicious["status"], &suspicious["reason"]),
        (&json!("True"), &json!("SourceShrunk")),
        "{suspicious}"
    );
    assert!(
        suspicious["message"].as_str().unwrap().contains(&id[..8]),
        "{suspicious}"
    );

    let keep = json!([{ "selector": {}, "retention": { "keepLast": 1 } }]);
    let guard = json!({ "initialRun": "Apply", "guard": { "maxRemovedPercent": 100 } });
    place.apply(&[policy("nightly", keep, guard)]);
    place.until_ready("globalretentionpolicy/nightly");
    start(&place, "nightly", "first");
    let first = until_run(&place, "nightly", &Value::Null);
    assert_eq!(snapshots(&url), 4, "{first:#}");

    let accept = format!("backup.resticbackup.io/accept-suspicious={}", &id[..8]);
    place
        .kubectl(&["annotate", "resticbackup/orders", &accept])
        .unwrap();
    place.until("resticbackup/orders", "accepted", |o| {
        condition(o, "Suspicious").is_null()
    });
    start(&place, "nightly", "second");
    let second = until_run(&place, "nightly", &first);
    assert_eq!(
        (&second["lastRunResult"], snapshots(&url)),
        (&json!("Applied"), 1),
        "{second:#}"
    );
}
