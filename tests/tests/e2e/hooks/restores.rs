//! Hooks around restores.

use serde_json::{Value, json};

use super::{Application, exec, freeze, hook, on_failure};
use crate::support::{Place, condition};

fn restore(place: &Place, name: &str, hooks: Value) -> Value {
    let restore = json!({ "apiVersion": "backup.resticbackup.io/v1alpha1", "kind": "ResticRestore", "metadata": { "name": name },
        "spec": { "backupRef": { "name": "orders" }, "hooks": hooks, "includePaths": ["small"],
                  "target": { "pvc": { "claimName": "data", "path": name } } } });
    place.apply(&[restore]);
    place.until(&format!("resticrestore/{name}"), "the end", |o| {
        ["Completed", "Failed"].contains(&o["status"]["phase"].as_str().unwrap_or_default())
            && o["status"]["openHooks"].is_null()
    })
}

#[test]
#[ignore = "needs clusters: make test"]
fn hooks_run_around_a_restore() {
    let application = Application::new("hooks-restore", json!({ "onFailure": on_failure() }), json!({}));
    let place = &application.place;
    assert_eq!(place.run("orders", "1")["result"], "Succeeded");
    let thaw = exec("echo post >>/d/log; rm -f /d/frozen", "20s");
    let done = restore(
        place,
        "well",
        json!({ "preRestore": freeze(false), "postRestore": thaw }),
    );
    assert_eq!(done["status"]["phase"], "Completed", "{:#}", done["status"]);
    assert_eq!(application.log(), ["pre", "pre-end", "post"]);
    assert!(place.data().join("well/small/a.txt").exists());
    for name in ["preRestore", "postRestore"] {
        assert_eq!(
            hook(&done["status"], name)["result"],
            "Succeeded",
            "{:#}",
            done["status"]
        );
    }
    place.until(
        "role/resticrestore-well",
        "its rights end with it",
        Value::is_null,
    );

    // Nothing is written where the hook before fails.
    let fails = exec("echo still in use; exit 3", "10s");
    let thaw = exec("echo post-2 >>/d/log", "20s");
    let failed = restore(
        place,
        "refused",
        json!({ "preRestore": fails, "postRestore": thaw }),
    );
    let ready = condition(&failed, "Ready");
    assert_eq!(ready["reason"], "PreHookFailed", "{:#}", failed["status"]);
    assert!(
        ready["message"]
            .as_str()
            .unwrap()
            .contains("exit code 3: still in use"),
        "{ready}"
    );
    assert!(!place.data().join("refused").exists());
    assert_eq!(application.log().last().unwrap(), "post-2", "it had begun");

    // One after it that fails is made up for.
    let thaw = exec("test -e /d/mended && echo post-3 >>/d/log", "5s");
    place.apply(&[json!({ "apiVersion": "backup.resticbackup.io/v1alpha1", "kind": "ResticRestore", "metadata": { "name": "late" },
        "spec": { "backupRef": { "name": "orders" }, "hooks": { "postRestore": thaw },
                  "target": { "pvc": { "claimName": "data", "path": "late" } } } })]);
    let late = place.until("resticrestore/late", "Degraded", |o| {
        o["status"]["phase"] == "Completed" && condition(o, "Degraded")["reason"] == "PostHookFailed"
    });
    assert!(
        late["status"]["openHooks"][0]["owed"][0] == "postRestore",
        "{:#}",
        late["status"]
    );
    place.write("mended", b"");
    let late = place.until("resticrestore/late", "all hooks at their end", |o| {
        o["status"]["openHooks"].is_null() && condition(o, "Degraded")["status"] == "False"
    });
    assert_eq!(hook(&late["status"], "postRestore")["result"], "Succeeded");
    assert_eq!(application.log().last().unwrap(), "post-3");
}
