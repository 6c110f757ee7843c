//! Hooks that are Jobs.

use serde_json::{Value, json};
use tests::images::restic_image;

use super::{Application, hook};

/// A Job that runs a script with the application's folder.
fn job(script: &str, timeout: &str) -> Value {
    json!({ "job": { "timeout": timeout, "podTemplate": { "spec": {
        "terminationGracePeriodSeconds": 1,
        "containers": [{ "name": "hook", "image": restic_image(), "command": ["sh", "-c", script],
                         "volumeMounts": [{ "name": "d", "mountPath": "/d" }] }],
        "volumes": [{ "name": "d", "persistentVolumeClaim": { "claimName": "data" } }] } } } })
}

#[test]
#[ignore = "needs clusters: make test"]
fn a_hook_may_be_a_job_that_gets_none_of_the_keys() {
    let hooks = json!({ "preBackup": job("echo pre >>/d/log; env | grep -c RESTIC >>/d/log; true", "60s"),
                        "postBackup": job("echo post >>/d/log", "60s") });
    let application = Application::new("hook-jobs", hooks, json!({}));
    let place = &application.place;
    let run = place.run("orders", "1");
    assert_eq!(run["result"], "Succeeded", "{run:#}");
    assert_eq!(application.log(), ["pre", "0", "post"]);
    assert_eq!(hook(&run, "postBackup")["result"], "Succeeded", "{run:#}");

    application.hooks(
        json!({ "preBackup": job("sleep 60", "3s"), "postBackup": job("echo post >>/d/log", "60s") }),
        json!({}),
    );
    place.until_ready("resticbackup/orders");
    let run = place.run("orders", "2");
    assert_eq!(run["reason"], "PreHookFailed", "{run:#}");
    assert!(
        run["message"].as_str().unwrap().contains("DeadlineExceeded"),
        "{run:#}"
    );
    assert_eq!(application.log().last().unwrap(), "post", "it had begun");

    // By name, the keys are refused.
    let mut keys = job("true", "60s");
    keys["job"]["podTemplate"]["spec"]["containers"][0]["envFrom"] =
        json!([{ "secretRef": { "name": "resticrepository-nas" } }]);
    application.hooks(json!({ "preBackup": keys }), json!({}));
    let message = place.until_reason("resticbackup/orders", "InvalidSpec");
    assert!(
        message.contains("spec.hooks.preBackup") && message.contains("resticrepository-nas"),
        "{message}"
    );
}
