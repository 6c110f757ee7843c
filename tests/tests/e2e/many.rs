//! Many runs: who waits for whom, and what does not begin at all.

use serde_json::{Value, json};

use crate::support::{Place, condition, noise, s3};

fn ask(place: &Place, backup: &str) {
    let backup = format!("resticbackup/{backup}");
    place
        .kubectl(&["annotate", &backup, "backup.resticbackup.io/run=1"])
        .unwrap();
}

fn time(run: &Value, field: &str) -> jiff::Timestamp {
    run[field].as_str().unwrap().parse().unwrap()
}

#[test]
#[ignore = "needs clusters: make test"]
fn with_one_place_the_second_run_is_parked_and_begins_when_the_first_is_over() {
    let place = Place::new("a", "parked");
    // 30 seconds for the first run: the second has to come while it is there.
    place.write("slow.bin", &noise(12 << 20));
    let mut repository = place.repository("nas", &s3(0, "parked"));
    repository["spec"]["maxConcurrentBackups"] = json!(1);
    let slow = json!({ "jobConfig": { "limitUpload": 400 } });
    let of = |name: &str| place.backup(name, json!({ "name": "nas" }), slow.clone());
    place.apply(&[repository, of("first"), of("second")]);
    place.until_ready("resticbackup/first");
    place.until_ready("resticbackup/second");

    ask(&place, "first");
    place.until("resticbackup/first", "its run", |o| {
        condition(o, "Progressing")["status"] == "True"
    });
    ask(&place, "second");
    let parked = place.until("resticbackup/second", "its place", |o| {
        condition(o, "Waiting")["reason"] == "Parked" && o["status"]["queuePlace"] == 1
    });
    let message = condition(&parked, "Waiting")["message"].to_string();
    assert!(
        message.contains("waiting for repository nas (spec.maxConcurrentBackups: 1)"),
        "{message}"
    );

    let done = |o: &Value| o["status"]["lastBackup"]["result"] == "Succeeded";
    let first = place.until("resticbackup/first", "success", done)["status"]["lastBackup"].clone();
    let second = place.until("resticbackup/second", "success", done);
    assert_ne!(condition(&second, "Waiting")["reason"], "Parked", "{second:#}");
    let second = second["status"]["lastBackup"].clone();
    assert!(
        time(&second, "startTime") >= time(&first, "completionTime"),
        "{first:#} {second:#}"
    );
}

#[test]
#[ignore = "needs clusters: make long"]
fn no_run_begins_while_the_repository_cannot_be_opened_and_then_they_go_on() {
    let place = Place::new("b", "unopened");
    place.apply(&[
        place.repository("nas", &s3(0, "unopened")),
        place.backup("orders", json!({ "name": "nas" }), json!({})),
    ]);
    place.until_ready("resticbackup/orders");
    let suspended = |wanted: bool| {
        // Runs are held when the storage has been down for 90 seconds.
        let limit = std::time::Duration::from_secs(240);
        place.until_within(limit, "cronjob/resticbackup-orders", "its suspension", |o| {
            o["spec"]["suspend"].as_bool().unwrap_or_default() == wanted
        });
    };
    suspended(false);

    place.apply(&[place.secret("storage", "another one")]);
    suspended(true);
    let held = place.until("resticbackup/orders", "why nothing begins", |o| {
        let ready = condition(o, "Ready");
        ready["status"] == "False" && ready["message"].to_string().contains("no run begins")
    });
    let message = condition(&held, "Ready")["message"].to_string();
    assert!(message.contains("none was due yet"), "{message}");

    place.apply(&[place.secret("storage", "right horse")]);
    suspended(false);
    place.until_ready("resticbackup/orders");
    assert_eq!(place.run("orders", "after")["result"], "Succeeded");
}
