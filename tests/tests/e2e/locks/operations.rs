//! Operations that are interrupted, and how maintenance goes on afterwards without a person.

use super::deleting::{MENDED, until_end};
use super::{Blocker, lock, two, until_at_work};
use crate::faults::until;
use crate::retention::{make_snapshots, repository_id, start};
use crate::support::{Place, s3};

fn jobs(place: &Place) -> Vec<String> {
    let names = place
        .kubectl(&["get", "jobs", "-o", "jsonpath={.items[*].metadata.name}"])
        .unwrap();
    names.split_whitespace().map(str::to_owned).collect()
}

#[test]
#[ignore = "needs clusters: make test"]
fn a_job_that_is_shut_by_hand_is_followed_by_another() {
    let (a, b) = two("shut", [s3(0, "shut"), s3(1, "shut")]);
    let (id, url) = (repository_id(&a), s3(0, "shut"));
    make_snapshots(&url, "a", "shut/x", "x", 1..4);
    let blocker = Blocker::new(&url);
    start(&b, "p", "first");
    let token = until_at_work(&b, &id);
    let suspend = r#"{"spec":{"suspend":true}}"#;
    b.kubectl(&["patch", "job/first", "--type=merge", "-p", suspend])
        .unwrap();
    // Its successor waits, or is at work, when that is recorded.
    let ended = b.until("globalretentionpolicy/p", "the end of the run", |o| {
        o["status"]["lastRunResult"] == "Interrupted"
    });
    until("its successor has the lock", || {
        let higher = lock(&id)["token"].as_u64().is_some_and(|now| now > token);
        higher && !jobs(&b).contains(&"first".to_owned())
    });
    drop(blocker);
    // restic asks for its lock after pauses that grow.
    let ran = until_end(&b, &ended["status"], MENDED);
    assert_eq!(ran["lastRunResult"], "Applied", "{ran:#}");
}
