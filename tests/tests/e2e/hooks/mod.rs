//! Hooks around backups: an application that is frozen before a backup is thawed after it, whatever is killed in between.

mod jobs;
mod kills;
mod restores;

use std::path::PathBuf;
use std::time::Duration;

use serde_json::{Value, json};
use tests::images::restic_image;

use crate::support::{Place, condition, noise, s3};

/// A namespace with an application whose folder is the claim that is backed up. Hooks run in it and write down what they
/// did.
pub struct Application {
    pub place: Place,
}

/// A command that hooks run in the application.
fn exec(script: &str, timeout: &str) -> Value {
    json!({ "exec": { "podSelector": { "matchLabels": { "app": "db" } }, "command": ["sh", "-c", script], "timeout": timeout } })
}

/// Freezes the application; the hook goes on until the file `go-pre` is there, if `held`.
fn freeze(held: bool) -> Value {
    let hold = if held {
        "while [ ! -e /d/go-pre ]; do sleep 0.1; done; "
    } else {
        ""
    };
    exec(
        &format!("touch /d/frozen; echo pre >>/d/log; {hold}echo pre-end >>/d/log"),
        "40s",
    )
}

/// Thaws it; the hook goes on until the file `go-post` is there, if `held`.
fn thaw(held: bool) -> Value {
    let hold = if held {
        "while [ ! -e /d/go-post ]; do sleep 0.1; done; "
    } else {
        ""
    };
    exec(
        &format!("echo post >>/d/log; {hold}rm -f /d/frozen; echo post-end >>/d/log"),
        "40s",
    )
}

fn on_failure() -> Value {
    exec("echo failure >>/d/log", "10s")
}

impl Application {
    /// With a backup `orders` that has these hooks.
    pub fn new(name: &str, hooks: Value, more: Value) -> Application {
        let place = Place::new("a", name);
        place.apply(&pods(1));
        place.apply(&[place.repository("nas", &s3(0, name))]);
        let application = Application { place };
        application.hooks(hooks, more);
        application
            .place
            .until("pod/db-0", "Running", |o| o["status"]["phase"] == "Running");
        application.place.until_ready("resticbackup/orders");
        application
    }

    /// The backup, with these hooks.
    pub fn hooks(&self, hooks: Value, more: Value) {
        let mut spec = json!({ "restic": { "extraArgs": ["--exclude=log"] } });
        if !hooks.is_null() {
            spec["hooks"] = hooks;
        }
        spec.as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        self.place
            .apply(&[self.place.backup("orders", json!({ "name": "nas" }), spec)]);
    }

    fn file(&self, name: &str) -> PathBuf {
        self.place.data().join(name)
    }

    /// What the hooks wrote down.
    pub fn log(&self) -> Vec<String> {
        let text = std::fs::read_to_string(self.file("log")).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }

    /// Waits until the hooks have written a line.
    pub fn until_log(&self, line: &str) {
        crate::faults::until(&format!("{line} in the application's log"), || {
            self.log().iter().any(|l| l == line)
        });
    }

    pub fn is_frozen(&self) -> bool {
        self.file("frozen").exists()
    }

    /// Asks for a run, and returns its pod.
    pub fn start(&self, request: &str) -> String {
        let run = format!("backup.resticbackup.io/run={request}");
        self.place
            .kubectl(&["annotate", "resticbackup/orders", &run, "--overwrite"])
            .unwrap();
        self.pod()
    }

    /// The pod of the run that is under way.
    pub fn pod(&self) -> String {
        let mut name = String::new();
        let found = std::cell::RefCell::new(&mut name);
        crate::faults::until("a pod of the backup", || {
            let listed = self.place.kubectl(&[
                "get",
                "pods",
                "-l",
                "backup.resticbackup.io/type=backup",
                "-o",
                "jsonpath={.items[*].metadata.name}",
            ]);
            let listed = listed.unwrap();
            **found.borrow_mut() = listed.split_whitespace().next().unwrap_or_default().to_owned();
            !listed.trim().is_empty()
        });
        name
    }

    /// Waits until a run has ended, and nothing is left to do for its hooks.
    pub fn until_settled(&self, runs: i64) -> Value {
        let settled = |o: &Value| {
            o["status"]["statistics"]["totalBackups"] == runs
                && o["status"]["openHooks"].is_null()
                && o["status"]["active"].is_null()
        };
        self.place.until_within(
            Duration::from_secs(150),
            "resticbackup/orders",
            "all hooks at their end",
            settled,
        )
    }
}

/// Pods of the application, all with the same labels.
fn pods(count: usize) -> Vec<Value> {
    let pod = |n: usize| {
        json!({ "apiVersion": "v1", "kind": "Pod", "metadata": { "name": format!("db-{n}"), "labels": { "app": "db" } }, "spec": {
            "terminationGracePeriodSeconds": 1,
            "containers": [{ "name": "db", "image": restic_image(), "command": ["sleep", "3600"],
                             "volumeMounts": [{ "name": "d", "mountPath": "/d" }] }],
            "volumes": [{ "name": "d", "persistentVolumeClaim": { "claimName": "data" } }] } })
    };
    (0..count).map(pod).collect()
}

/// A hook in a result, by its name.
pub fn hook(run: &Value, name: &str) -> Value {
    let hooks = run["hooks"].as_array().cloned().unwrap_or_default();
    hooks
        .into_iter()
        .find(|hook| hook["name"] == name)
        .unwrap_or_default()
}

#[test]
#[ignore = "needs clusters: make test"]
fn hooks_run_around_a_backup_and_hold_its_only_token() {
    let hooks = json!({ "preBackup": freeze(false), "postBackup": thaw(false), "onFailure": on_failure() });
    let application = Application::new("hooks", hooks, json!({}));
    let place = &application.place;
    let run = place.run("orders", "1");
    assert_eq!(run["result"], "Succeeded", "{run:#}");
    assert_eq!(application.log(), ["pre", "pre-end", "post", "post-end"]);
    assert!(!application.is_frozen());
    for name in ["preBackup", "postBackup"] {
        let hook = hook(&run, name);
        assert_eq!(hook["result"], "Succeeded", "{run:#}");
        assert!(
            hook["duration"].as_str().is_some_and(|d| d.ends_with('s')),
            "{hook}"
        );
    }
    assert_eq!(run["hooks"].as_array().unwrap().len(), 2, "{run:#}");
    let backup = place.get("resticbackup/orders");
    assert_eq!(condition(&backup, "Degraded")["status"], "False", "{backup:#}");
    assert!(condition(&backup, "NotInEffect").is_null());

    let cron_job = place.get("cronjob/resticbackup-orders");
    let pod = &cron_job["spec"]["jobTemplate"]["spec"]["template"]["spec"];
    assert_eq!(pod["automountServiceAccountToken"], false);
    let mounts = |container: &Value| container["volumeMounts"].to_string().contains("hook-token");
    let containers = pod["containers"].as_array().unwrap();
    assert!(containers.iter().all(|container| !mounts(container)), "{pod:#}");
    let hooks = pod["initContainers"].as_array().unwrap();
    assert_eq!(hooks.len(), 2);
    for container in hooks {
        assert!(mounts(container));
        assert!(
            !container.to_string().contains("RESTIC_PASSWORD"),
            "{container:#}"
        );
    }
    let may = |what: &[&str]| {
        let user = format!(
            "--as=system:serviceaccount:{}:resticbackup-orders",
            place.namespace
        );
        let asked = place.kubectl(&[&["auth", "can-i"], what, &[&user]].concat());
        asked.is_ok_and(|answer| answer.trim() == "yes")
    };
    assert!(may(&["create", "pods", "--subresource=exec"]) && may(&["list", "pods"]));
    for not in [["create", "jobs.batch"], ["get", "secrets"], ["delete", "pods"]] {
        assert!(!may(&not), "{not:?}");
    }

    // Without hooks there are no rights.
    application.hooks(Value::Null, json!({}));
    for kind in ["role", "rolebinding"] {
        place.until(&format!("{kind}/resticbackup-orders"), "gone", Value::is_null);
    }
    let run = place.run("orders", "2");
    assert!(run["result"] == "Succeeded" && run["hooks"].is_null(), "{run:#}");
}

#[test]
#[ignore = "needs clusters: make test"]
fn no_backup_is_made_where_the_hook_before_fails() {
    let fails = exec("echo pre >>/d/log; echo the database is away >&2; exit 7", "10s");
    let hooks = json!({ "preBackup": fails, "postBackup": thaw(false), "onFailure": on_failure() });
    let application = Application::new("hooks-fail", hooks, json!({}));
    let place = &application.place;
    let run = place.run("orders", "1");
    assert_eq!(
        (&run["result"], &run["reason"]),
        (&json!("Failed"), &json!("PreHookFailed")),
        "{run:#}"
    );
    let message = run["message"].as_str().unwrap();
    assert!(message.contains("exit code 7: the database is away"), "{message}");
    assert!(run["snapshotID"].is_null());
    // It had begun.
    assert_eq!(application.log(), ["pre", "post", "post-end", "failure"]);
    assert_eq!(hook(&run, "preBackup")["result"], "Failed");
    assert_eq!(hook(&run, "postBackup")["result"], "Succeeded");

    // One that cannot begin leaves nothing to be undone.
    std::fs::remove_file(application.file("log")).unwrap();
    let nobody = json!({ "exec": { "podSelector": { "matchLabels": { "app": "nobody" } }, "command": ["true"], "timeout": "5s" } });
    application.hooks(
        json!({ "preBackup": nobody, "postBackup": thaw(false), "onFailure": on_failure() }),
        json!({}),
    );
    place.until_ready("resticbackup/orders");
    let run = place.run("orders", "2");
    assert_eq!(run["reason"], "PreHookFailed", "{run:#}");
    assert!(
        run["message"]
            .as_str()
            .unwrap()
            .contains("no pod with the labels app=nobody"),
        "{run:#}"
    );
    assert_eq!(application.log(), ["failure"], "{run:#}");
    assert!(hook(&run, "postBackup").is_null(), "{run:#}");

    // A command that does not end in time is over its limit, and undone.
    std::fs::remove_file(application.file("log")).unwrap();
    application.hooks(
        json!({ "preBackup": exec("echo pre >>/d/log; sleep 30", "2s"), "postBackup": thaw(false) }),
        json!({}),
    );
    place.until_ready("resticbackup/orders");
    let run = place.run("orders", "3");
    assert_eq!(run["reason"], "PreHookFailed", "{run:#}");
    assert!(run["message"].as_str().unwrap().contains("within 2s"), "{run:#}");
    assert_eq!(application.log(), ["pre", "post", "post-end"]);
}

#[test]
#[ignore = "needs clusters: make test"]
fn a_failed_hook_after_a_backup_runs_again_until_it_ends_well() {
    let thaw = exec("echo post >>/d/log; test -e /d/mended && rm -f /d/frozen", "5s");
    let hooks = json!({ "preBackup": freeze(false), "postBackup": thaw, "onFailure": on_failure() });
    let application = Application::new("hooks-after", hooks, json!({}));
    let place = &application.place;
    let run = place.run("orders", "1");
    assert_eq!(
        (&run["result"], &run["reason"]),
        (&json!("PartiallyFailed"), &json!("PostHookFailed")),
        "{run:#}"
    );
    assert!(run["snapshotID"].is_string() && application.is_frozen());
    let backup = place.until("resticbackup/orders", "Degraded by the hook", |o| {
        condition(o, "Degraded")["reason"] == "PostHookFailed"
    });
    let message = condition(&backup, "Degraded")["message"].to_string();
    assert!(
        message.contains("postBackup of run") && message.contains("-hook-"),
        "{message}"
    );
    place.write("mended", b"");
    let backup = application.until_settled(1);
    assert!(!application.is_frozen());
    let last = &backup["status"]["lastBackup"];
    assert_eq!(hook(last, "postBackup")["result"], "Succeeded", "{last:#}");
    assert!(
        !application.log().contains(&"failure".to_owned()),
        "restic had ended well"
    );
}

#[test]
#[ignore = "needs clusters: make test"]
fn a_command_runs_in_every_pod_that_is_selected() {
    let hooks = json!({ "preBackup": exec("echo $HOSTNAME >>/d/log", "10s") });
    let application = Application::new("hooks-many", hooks, json!({}));
    application.place.apply(&pods(2));
    application
        .place
        .until("pod/db-1", "Running", |o| o["status"]["phase"] == "Running");
    let run = application.place.run("orders", "1");
    assert_eq!(run["result"], "Succeeded", "{run:#}");
    let mut log = application.log();
    log.sort();
    assert_eq!(log, ["db-0", "db-1"]);
}

#[test]
#[ignore = "needs clusters: make test"]
fn a_hook_that_is_none_is_refused_by_the_api_server() {
    let place = Place::new("a", "hooks-refused");
    let exec = json!({ "podSelector": { "matchLabels": { "app": "db" } }, "command": ["true"] });
    let job = json!({ "podTemplate": { "spec": { "containers": [] } } });
    for (hook, words) in [
        (json!({}), "exactly one of exec and job"),
        (json!({ "exec": exec, "job": job }), "exactly one of exec and job"),
        (
            json!({ "exec": { "podSelector": {}, "command": ["true"] } }),
            "name at least one label",
        ),
        (
            json!({ "exec": { "podSelector": exec["podSelector"], "command": [""] } }),
            "command needs a program",
        ),
    ] {
        let backup = place.backup(
            "orders",
            json!({ "name": "nas" }),
            json!({ "hooks": { "preBackup": hook } }),
        );
        let refused = place.try_apply(&[backup]).unwrap_err().to_string();
        assert!(refused.contains(words), "{hook}: {refused}");
    }
}

/// A backup that takes some seconds.
fn slow(place: &Place) -> Value {
    place.write("slow.bin", &noise(4 << 20));
    json!({ "restic": { "extraArgs": ["--limit-upload=400", "--exclude=log"] } })
}
