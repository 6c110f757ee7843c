use serde_json::json;

use super::*;
use crate::proxy::{Action, Moment};

const REPOSITORY: &str = "/fleet/nas";
const A: &str = "10.65.0.7";
const B: &str = "10.66.0.7";

fn at(ms: i64) -> Moment {
    Moment {
        boot_ms: 0,
        wall_ms: ms,
    }
}

/// A request that came at `from` and was answered at `to`.
fn request(method: &str, path: &str, client: &str, from: i64, to: i64) -> Entry {
    Entry {
        number: 1,
        method: method.to_owned(),
        path: path.to_owned(),
        client: client.to_owned(),
        action: Action::pass(),
        came: at(from),
        sent: Some(at(from)),
        answered: Some(at(to)),
        ended: Some(at(to)),
        server: Some(204),
        status: Some(204),
    }
}

fn delete(client: &str, from: i64, to: i64) -> Entry {
    request("DELETE", "/fleet/nas/data/ab/abcd", client, from, to)
}

fn grant(token: u64, cluster: &str, granted: i64, ended: Option<i64>) -> Grant {
    Grant {
        token,
        cluster: cluster.to_owned(),
        subject: "retention shop/nightly".to_owned(),
        granted,
        ended,
    }
}

fn by(log: &[Entry], grants: &[Grant]) -> Verdict {
    let networks = [("10.65.", "a"), ("10.66.", "b")].map(|(p, c)| (p.to_owned(), c.to_owned()));
    judge(log, grants, REPOSITORY, &networks.into())
}

/// a holds 1 from 1000 to 2000, b holds 2 from 3000 and was not heard of again, a holds 3 from 9000 on.
fn grants_of_three() -> [Grant; 3] {
    [
        grant(1, "a", 1000, Some(2000)),
        grant(2, "b", 3000, None),
        grant(3, "a", 9000, None),
    ]
}

fn refused(log: &[Entry], reason: &str) {
    let verdict = by(log, &grants_of_three());
    assert_eq!(verdict.deletes.len(), 0, "{verdict}");
    assert!(
        verdict.violations.len() == 1 && verdict.violations[0].contains(reason),
        "{verdict}"
    );
}

#[test]
fn deletions_inside_the_time_of_their_own_grant_pass_and_are_counted() {
    let log = [
        delete(A, 1000, 2000),
        delete(A, 1500, 1600),
        delete(B, 3000, 8999),
        delete(A, 9000, 9000),
    ];
    let verdict = by(&log, &grants_of_three());
    assert_eq!(verdict.violations, Vec::<String>::new());
    assert_eq!(verdict.deletes, BTreeMap::from([(1, 2), (2, 1), (3, 1)]));
}

#[test]
fn a_deletion_before_any_grant_is_found() {
    refused(&[delete(A, 999, 1200)], "nothing was granted before");
}

#[test]
fn a_deletion_after_the_end_of_its_grant_is_found() {
    refused(&[delete(A, 2500, 2600)], "token 1 ended 600 ms before");
}

#[test]
fn a_deletion_that_is_done_only_after_the_end_of_its_grant_is_found() {
    refused(&[delete(A, 1900, 2001)], "token 1 ended 1 ms before");
}

#[test]
fn a_deletion_by_the_cluster_that_held_the_lock_before_is_found() {
    refused(
        &[delete(A, 4000, 4001)],
        "cluster a deletes under token 2 of cluster b",
    );
    refused(
        &[delete(B, 9500, 9501)],
        "cluster b deletes under token 3 of cluster a",
    );
}

#[test]
fn a_deletion_that_reaches_beyond_a_higher_grant_is_found_though_its_own_has_no_end() {
    refused(&[delete(B, 8000, 9001)], "3 was granted at 9000");
}

#[test]
fn a_deletion_that_is_still_under_way_is_taken_for_one_that_comes_later() {
    let mut open = delete(B, 8000, 8001);
    (open.answered, open.ended) = (None, None);
    refused(&[open], "3 was granted at 9000");
}

#[test]
fn a_deletion_by_nobody_of_the_fleet_is_found() {
    refused(&[delete("192.0.2.1", 1500, 1501)], "no cluster has this address");
}

#[test]
fn one_token_for_two_is_found() {
    let verdict = by(&[], &[grant(4, "a", 1000, Some(1100)), grant(4, "b", 1200, None)]);
    assert_eq!(verdict.violations, ["token 4 was granted twice"]);
}

#[test]
fn indexes_and_snapshots_count_and_several_objects_at_once_do() {
    for path in [
        "/fleet/nas/index/1",
        "/fleet/nas/snapshots/1",
        "/fleet/nas/config",
    ] {
        assert_eq!(
            by(&[request("DELETE", path, A, 1, 2)], &[]).violations.len(),
            1,
            "{path}"
        );
    }
    for path in ["/fleet?delete", "/fleet/?delete="] {
        assert_eq!(
            by(&[request("POST", path, A, 1, 2)], &[]).violations.len(),
            1,
            "{path}"
        );
    }
}

#[test]
fn locks_other_repositories_and_what_deletes_nothing_are_left_out() {
    let mut unsent = delete(A, 1, 2);
    unsent.sent = None;
    let log = [
        request("DELETE", "/fleet/nas/locks/1", A, 1, 2),
        request("DELETE", "/fleet/nas2/data/1", A, 1, 2),
        request("DELETE", "/other/nas/data/1", A, 1, 2),
        request("POST", "/other?delete", A, 1, 2),
        request("POST", "/fleet/nas/data/1?uploads", A, 1, 2),
        request("PUT", "/fleet/nas/data/1", A, 1, 2),
        unsent,
    ];
    assert_eq!(by(&log, &[]), Verdict::default());
}

#[test]
fn the_audit_is_read_to_the_millisecond() {
    let entry = |token: u64, ended: Value| {
        json!({ "token": token, "cluster": "a", "subject": "retention shop/nightly",
                "granted": "1970-01-01T00:00:01.234Z", "ended": ended })
    };
    let audit = json!({ "items": [entry(2, Value::Null), entry(1, json!("1970-01-01T00:00:02Z"))] });
    assert_eq!(
        grants(&audit).unwrap(),
        [grant(2, "a", 1234, None), grant(1, "a", 1234, Some(2000))]
    );
    assert!(grants(&json!({ "items": [{ "token": 1 }] })).is_err());
    assert!(grants(&json!({})).is_err(), "no audit is not an empty one");
}

#[test]
fn an_audit_that_was_forgotten_is_joined_with_the_present_one() {
    let earlier = [grant(1, "a", 10, Some(20)), grant(2, "b", 30, None)];
    let later = [grant(1, "a", 10, None), grant(2, "a", 90, None)];
    let all = merge(&earlier, &later);
    assert_eq!(
        all,
        [
            grant(1, "a", 10, Some(20)),
            grant(2, "b", 30, None),
            grant(2, "a", 90, None)
        ]
    );
    assert_eq!(by(&[], &all).violations, ["token 2 was granted twice"]);
}

#[test]
fn a_grant_that_was_entered_anew_is_the_one_that_was_forgotten() {
    let forgotten = |token, cluster| Grant {
        subject: FORGOTTEN.to_owned(),
        ..grant(token, cluster, 90, Some(95))
    };
    let earlier = [grant(1, "b", 10, None)];
    let all = merge(&earlier, &[forgotten(1, "b")]);
    assert_eq!(all, [grant(1, "b", 10, Some(95))]);
    let other = merge(&earlier, &[forgotten(1, "a")]);
    assert_eq!(by(&[], &other).violations, ["token 1 was granted twice"]);
}
