//! Moving in from other tools: their resources, by CRDs that are written from their documentation, and repositories that
//! restic has written as they call it.

mod kinds;
mod tools;

use std::process::Stdio;
use std::time::Duration;

use serde_json::{Value, json};
use tests::fleet;

use crate::faults::until;
use crate::restores::{claim, completed, folder, restore};
use crate::retention::{restic_command, start, until_run};
use crate::support::{Place, bed, tree};

/// A tool's namespace, with the history that the tool has made of claim `data`.
struct Before {
    place: Place,
    url: String,
    password: &'static str,
}

impl Before {
    /// restic with the repository's password.
    fn restic(&self, arguments: &[&str]) -> std::process::Command {
        let mut command = restic_command(&self.url, arguments);
        command.env("RESTIC_PASSWORD", self.password);
        command
    }

    fn restic_ok(&self, arguments: &[&str]) -> String {
        let output = self.restic(arguments).output().unwrap();
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "restic {arguments:?}: {error}");
        String::from_utf8(output.stdout).unwrap()
    }

    fn snapshots(&self) -> Vec<Value> {
        let list = self.restic_ok(&["snapshots", "--json", "--no-lock"]);
        serde_json::from_str::<Value>(&list)
            .unwrap()
            .as_array()
            .unwrap()
            .clone()
    }

    /// Makes the repository, and a snapshot for each of some days in a pod, where the claim is mounted as the tool has it.
    /// `line` is how the tool calls `restic backup`; it runs in that folder.
    fn history(&self, mount: &str, line: &str, days: u32) {
        self.restic_ok(&["init"]);
        let (key, secret) = bed().servers().s3_credentials();
        let values = json!({ "RESTIC_REPOSITORY": self.url, "RESTIC_PASSWORD": self.password,
            "AWS_ACCESS_KEY_ID": key, "AWS_SECRET_ACCESS_KEY": secret, "RESTIC_CACHE_DIR": "/tmp/cache" });
        let script = format!(
            "set -e; cd {mount}; for day in $(seq 10 {}); do echo $day > day; restic backup -q --time \"2026-10-$day 03:00:00\" {line}; done",
            9 + days
        );
        let pod = json!({
            "restartPolicy": "Never",
            "containers": [{ "name": "mover", "image": tests::images::restic_image(), "imagePullPolicy": "IfNotPresent",
                "command": ["/bin/sh", "-c", script], "envFrom": [{ "secretRef": { "name": "history" } }],
                "volumeMounts": [{ "name": "data", "mountPath": mount }] }],
            "volumes": [{ "name": "data", "persistentVolumeClaim": { "claimName": "data" } }],
        });
        self.place.apply(&[
            json!({ "apiVersion": "v1", "kind": "Secret", "metadata": { "name": "history" }, "stringData": values }),
            json!({ "apiVersion": "batch/v1", "kind": "Job", "metadata": { "name": "history" },
            "spec": { "backoffLimit": 0, "template": { "spec": pod } } }),
        ]);
        let done = ["wait", "job/history", "--for=condition=Complete", "--timeout=60s"];
        if let Err(error) = self.place.kubectl(&done) {
            panic!("{error:#}: {:?}", self.place.kubectl(&["logs", "job/history"]));
        }
        assert_eq!(self.snapshots().len(), days as usize);
    }

    /// `fleet migrate …` on the cluster of the place: exit code, stdout and stderr.
    fn migrate(&self, arguments: &[&str]) -> (i32, String, String) {
        let config = self.place.cluster.kubeconfig();
        let all = [&["migrate"][..], arguments, &["-n", &self.place.namespace]].concat();
        let config = config.to_string_lossy();
        let output = fleet::shell(bed(), "fleet", &all, &[("KUBECONFIG", &config)]).unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (
            output.status.code().unwrap(),
            text(&output.stdout),
            text(&output.stderr),
        )
    }

    /// Shows what would be written, and writes it: nothing of the other tool changes.
    fn move_in(&self, tool: &str) {
        let (code, manifests, notes) = self.migrate(&[tool]);
        assert_eq!(code, 0, "{notes}");
        assert!(manifests.contains("kind: ResticRepository"), "{manifests}{notes}");
        assert!(
            !manifests.contains(self.password) && !notes.contains(self.password),
            "a password is printed"
        );
        assert!(
            notes.contains(&format!("fleet migrate {tool} --apply")),
            "{notes}"
        );
        let there = self
            .place
            .kubectl(&["get", "resticrepositories,resticbackups", "-o", "name"])
            .unwrap();
        assert_eq!(there, "", "a dry run writes nothing");
        let (code, _, notes) = self.migrate(&[tool, "--apply"]);
        assert_eq!(code, 0, "{notes}");
    }

    /// A snapshot of the other tool's comes back as the volume was.
    fn comes_back(&self, repository: Value, selector: Value, path: Option<&str>) {
        claim(&self.place, "back");
        let mut spec = json!({ "repositoryRef": repository, "snapshotSelector": selector,
                               "target": { "pvc": { "claimName": "back" } }, "options": { "verify": true } });
        if let Some(path) = path {
            spec["snapshotPath"] = json!(path);
        }
        restore(&self.place, "before", spec);
        completed(&self.place, "before");
        assert_eq!(
            tree(&folder(&self.place, "back")),
            tree(&self.place.data()),
            "byte for byte"
        );
    }

    /// A migration that is finished has left a policy suspended. Resumes it as `finish` has said.
    fn resume(&self, place: &Place, policy: &str, said: &str) {
        let object = format!("globalretentionpolicy/{policy}");
        assert_eq!(
            place.get(&object)["spec"]["suspend"],
            true,
            "retention is a person's to start"
        );
        let patch = format!(
            "kubectl patch globalretentionpolicy -n {} {policy} ",
            place.namespace
        );
        assert!(said.contains(&patch), "{said}");
        let change = "{\"spec\":{\"suspend\":false}}";
        assert!(said.contains(change), "{said}");
        place
            .kubectl(&["patch", &object, "--type=merge", "-p", change])
            .unwrap();
        place.until_ready(&object);
    }

    /// A run of a policy counts so many of the snapshots as such that go.
    fn counts(&self, place: &Place, policy: &str, wanted: &str) {
        let before = self.snapshots().len();
        start(place, policy, "count");
        let run = until_run(place, policy, &json!({}));
        assert_eq!(run["lastRunResult"], "Preview", "{run:#}");
        let message = run["lastRunMessage"].as_str().unwrap_or_default();
        assert!(message.contains(wanted), "{wanted}: {message}");
        assert_eq!(self.snapshots().len(), before, "a preview removes nothing");
    }
}

/// Leaves the lock of a process that was killed, as a pod of the other tool may have.
fn leave_lock(before: &Before) {
    let mut child = before
        .restic(&["backup", "--stdin", "--host", "dead"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let locks = || {
        before
            .restic_ok(&["list", "locks", "--no-lock", "-q"])
            .split_whitespace()
            .count()
    };
    until("the lock of the other tool", || locks() == 1);
    child.kill().unwrap();
    child.wait().unwrap();
    std::thread::sleep(Duration::from_millis(100));
    assert_eq!(locks(), 1, "its lock is left");
}
